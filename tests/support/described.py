"""Documents as ``rpc.discover`` answers them: with something of everything, of one that means harm, of large ones."""

from __future__ import annotations

from typing import Any

REF = "#/components/schemas/"


def schema_of(name: str) -> dict[str, Any]:
    return {"$ref": REF + name}


def param(name: str, schema: dict[str, Any], *, required: bool = True, **extras: bool) -> dict[str, Any]:
    return {"name": name, "required": required, "schema": schema, **({"x-seqrpc": extras} if extras else {})}


def method(name: str, *params: dict[str, Any], result: Any = None, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"name": name, "paramStructure": "either", "params": list(params), **more}
    if not more.get("x-seqrpc", {}).get("oneway"):
        told["result"] = {"name": "result", "schema": {"type": "null"} if result is None else result}
    return told


def document(*methods: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a document of some methods; ``schemas``, ``services``, ``interfaces`` and ``info`` may be given."""
    names = sorted({one["name"].rpartition(".")[0] for one in methods})
    return {
        "openrpc": "1.3.2",
        "info": {"title": ", ".join(names), "version": "0", **more.get("info", {})},
        "methods": sorted(methods, key=lambda one: str(one["name"])),
        "components": {"schemas": more.get("schemas", {})},
        "x-seqrpc": {
            "services": more.get("services", [{"name": name, "bases": []} for name in names]),
            "interfaces": more.get("interfaces", {}),
        },
    }


INT: dict[str, Any] = {"type": "integer"}
STR: dict[str, Any] = {"type": "string"}
DESCRIPTOR: dict[str, Any] = {"x-seqrpc": {"type": "descriptor"}}
BUFFER: dict[str, Any] = {"x-seqrpc": {"type": "buffer"}}

_NO_SUCH_LOG = {
    "code": -32000,
    "message": "logs.NoSuchLog",
    "x-seqrpc": {
        "code": "logs.NoSuchLog",
        "description": "There is no log file of that name in the served directory.",
    },
}

LOGS = document(
    method(
        "Logs.follow",
        param("name", {**STR, "minLength": 1, "maxLength": 255}),
        param("start", {"anyOf": [{**INT, "minimum": 0}, {"type": "null"}], "default": None}, required=False),
        result={"x-seqrpc": {"type": "stream", "items": STR}},
        summary="Stream the lines that are appended to a log file, without their ends.",
        description=(
            "If the log is cut short, the daemon reads it from its beginning. If another file takes the name, as in\n"
            "rotation, the daemon reads the rest of the old file and then all of the new one.\n\n"
            "Args:\n    name: the log, as `LogFile.name` has it.\n"
            "    start: the byte to begin with; by default the present end.\n"
        ),
        errors=[_NO_SUCH_LOG],
        **{"x-seqrpc": {"streams": True, "allowed": True, "rule": "same_user | group('adm')"}},
    ),
    method(
        "Logs.list_logs",
        param("after", {**STR, "default": ""}, required=False),
        param("order", {"allOf": [schema_of("Order")], "default": "name"}, required=False, keyword_only=True),
        result={"type": "array", "items": schema_of("LogFile")},
        summary="Return a page of the log files whose names come after ``after``.",
        description="An empty page is the end. The page is a list of\n\n- names that were not sent yet,\n- in order.",
        **{"x-seqrpc": {"idempotent": True, "allowed": True, "rule": "anyone"}},
    ),
    method(
        "Logs.open_log",
        param("name", STR),
        result=DESCRIPTOR,
        summary="Return a log file, open for reading.",
        errors=[_NO_SUCH_LOG],
        **{"x-seqrpc": {"allowed": True, "rule": "same_user | group('adm')"}},
    ),
    method(
        "Logs.rotate",
        param("plan", schema_of("Plan")),
        param("key", {**STR, "x-seqrpc": {"sensitive": True}}, keyword_only=True),
        result=schema_of("Rotation"),
        summary="Move logs away, and begin new ones.",
        **{"x-seqrpc": {"sensitive": True, "allowed": False, "rule": "root"}},
    ),
    method(
        "Logs.touch",
        param("names", {"type": "array", "items": STR, "maxItems": 100}),
        summary="Say that logs are about to be read.",
        **{"x-seqrpc": {"oneway": True, "allowed": True, "rule": "anyone"}},
    ),
    method(
        "Search.begin",
        param("query", schema_of("Query")),
        param("logs", {"type": "array", "items": DESCRIPTOR}),
        param("progress", {"x-seqrpc": {"type": "object", "interface": "Progress"}}, required=False),
        result={"x-seqrpc": {"type": "object", "interface": "Finder"}},
        summary="Begin a search, and answer with an object that has what it finds.",
    ),
    method(
        "Search.index",
        param("lines", {"x-seqrpc": {"type": "stream", "items": STR}}),
        param("into", BUFFER),
        param("mode", schema_of("Mode")),
        param("odd", {}),
        result={**INT, "description": "How many lines there were."},
        summary="Write an index of lines into memory.",
        **{"x-seqrpc": {"unannotated": ["odd"]}},
    ),
    info={"description": "The log files of a machine.\n\nWhoever may read them may `follow` them.", "version": "2.1"},
    services=[
        {"name": "Logs", "description": "The daemon as its apps see it.", "bases": ["Base"]},
        {"name": "Search", "bases": []},
    ],
    schemas={
        "LogFile": {
            "title": "LogFile",
            "description": "A log file, as it was when the list was made.\n\nAttributes:\n    size: bytes.\n",
            "type": "object",
            "properties": {
                "name": {**STR, "description": "Relative to the served directory: ``apt/history.log``."},
                "size": INT,
                "modified": {"type": "string", "format": "date-time"},
            },
            "required": ["name", "size", "modified"],
            "x-seqrpc": {"type": "dataclass"},
        },
        "Order": {
            "title": "Order",
            "description": "How a list is ordered.",
            "enum": ["name", "size"],
            "x-seqrpc": {"type": "enum", "names": ["NAME", "SIZE"]},
        },
        "Mode": {"title": "Mode", "type": "integer", "x-seqrpc": {"type": "flag", "names": {"WORDS": 1, "NUMBERS": 2}}},
        "Plan": {
            "title": "Plan",
            "type": "object",
            "properties": {
                "kind": {"enum": ["daily", "weekly"]},
                "keep": {**INT, "minimum": 1, "maximum": 365, "default": 7},
                "then": {"anyOf": [schema_of("Plan"), {"type": "null"}], "default": None},
            },
            "required": ["kind"],
            "x-seqrpc": {"type": "struct", "tag": {"field": "type", "value": "plan"}, "forbid_unknown": True},
        },
        "Query": {
            "anyOf": [STR, {"type": "array", "items": schema_of("Query")}],
            "x-seqrpc": {"alias": True},
        },
        "Rotation": {
            "title": "Rotation",
            "type": "array",
            "items": [STR, INT],
            "minItems": 1,
            "maxItems": 2,
            "x-seqrpc": {"type": "namedtuple", "array": True, "fields": ["name", "bytes"]},
        },
    },
    interfaces={
        "Finder": {
            "name": "Finder",
            "description": "A search that goes on.",
            "methods": [method("Finder.next", result=schema_of("LogFile"), summary="Return the next file that fits.")],
        },
        "Progress": {"name": "Progress", "methods": [method("Progress.at", param("percent", INT))]},
    },
)
"""A daemon with something of everything."""

NASTY = (
    "<script>fail('tag')</script>",
    "\"><img src=x onerror=fail('attribute')>",
    "' onfocus='fail(1)' autofocus='",
    "javascript:fail('address')",
    "[click](javascript:fail('link')) and `this <javascript:fail(2)>`_",
    "</code></pre></article><h1>heading</h1>",
    "--><script>fail('comment')</script><!--",
    "</title></style></script><script>fail('end')</script>",
    "a#b c%20d?e&amp;&#60;f",
    "page:search",
    "\u202egnp.exe\u2066",
    "\x1b[31mred\x00\x07\x9b\r\n\tnext",
    "http://evil.example/\"onmouseover=\"fail('url')",
    "class",
    "1 + 1",
    "",
    "long" * 100,
)
"""What may stand wherever a document has text."""


def hostile() -> dict[str, Any]:
    """Return a document all of whose texts mean harm, one after the other."""
    schemas: dict[str, Any] = {}
    methods = []
    for number, text in enumerate(NASTY):
        schemas[f"T{number}"] = {
            "title": text,
            "description": text,
            "type": "object",
            "properties": {
                text: {**STR, "description": text, "title": text, "examples": [text, {text: text}], "default": text},
                f"{text}2": {"enum": [text], "x-seqrpc": {"default": text}},
                f"{text}3": {"type": "string", "format": text, "x-seqrpc": {"type": "coded", "class": text}},
            },
            "required": [text],
            "x-seqrpc": {
                "type": "struct",
                "tag": {"field": f"tag of {text}", "value": text},
                "no_init": [text],
                "names": {f"{text}2": f"{text} in Python"},
            },
        }
        schemas[f"E{number}"] = {
            "title": text,
            "description": f"{text}\n\nAttributes:\n    {text}: {text}\n",
            "enum": [text],
            "x-seqrpc": {"type": "enum", "names": [text]},
        }
        params = [
            param(text, {"allOf": [schema_of(f"T{number}")], "default": {text: text}}, required=False),
            param(f"{text}e", {"enum": [text], "title": text, "description": text}),
            param(f"{text}f", {"x-seqrpc": {"type": "object", "interface": text, "default": text}}, required=False),
            param(f"{text}g", schema_of(f"T{number}")),
            param(f"{text}h", {**STR, "pattern": f"[{number}\"'<>&]"}),
        ]
        methods.append(
            method(
                f"{text}.{text}",
                *params,
                result={"allOf": [schema_of(f"E{number}")], "description": text},
                summary=text,
                description=f"{text}\n\n- {text}\n\n{text}::\n\n    {text}\n\nArgs:\n    {text}: {text}\n",
                errors=[{"code": -32000 - number, "message": text, "x-seqrpc": {"code": text, "description": text}}],
                **{"x-seqrpc": {"allowed": True, "rule": text, "unannotated": [text]}},
            )
        )
    return document(
        *methods,
        schemas=schemas,
        services=[{"name": text, "description": text, "bases": [text]} for text in NASTY],
        interfaces={text: {"name": text, "description": text, "methods": methods[:1]} for text in NASTY},
        info={"title": NASTY[0], "version": NASTY[1], "description": "\n\n".join(NASTY)},
    )


def large(number: int) -> dict[str, Any]:
    """Return a document of so many methods, with half as many types, each of which refers to the next."""
    schemas = {
        f"Type{at}": {
            "title": f"Type{at}",
            "type": "object",
            "properties": {"value": INT, "next": schema_of(f"Type{(at + 1) % (number // 2)}")},
            "required": ["value"],
            "x-seqrpc": {"type": "dataclass"},
        }
        for at in range(number // 2)
    }
    methods = [
        method(
            f"Service{at % 10}.method_{at:05}",
            param("first", schema_of(f"Type{at // 2}")),
            param("second", {"type": "array", "items": INT}),
            result={"type": "array", "items": schema_of(f"Type{at // 2}")},
            summary=f"Do what number {at} does.",
            description="It takes a while, and ``second`` says how long.\n\nArgs:\n    first: what to do.\n",
            **{"x-seqrpc": {"allowed": True, "rule": "same_user | root"}},
        )
        for at in range(number)
    ]
    return document(*methods, schemas=schemas)
