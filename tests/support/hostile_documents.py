"""Documents that mean harm: every name, text and type may be anything that a document may have."""

from __future__ import annotations

import random
from typing import Any

from support.discovered import OURS

NASTY = [
    *(
        "class",
        "None",
        "__init__",
        "__debug__",
        "__x",
        "_x",
        "_x_",
        "a-b",
        "a b",
        "x\ny",
        '"""',
        "'",
        "\\",
        "self",
        "_self",
    ),
    *(
        "cls",
        "list",
        "dict",
        "int",
        "str",
        "typing",
        "seqrpc",
        "msgspec",
        "datetime",
        "dataclasses",
        "enum",
        "builtins",
    ),
    *(
        "collections",
        "Entry",
        "Logs",
        "name",
        "value",
        "mro",
        "close",
        "lifespan",
        "service_name",
        "\ufb01",
        "gr\xf6\xdfe",
    ),
    *(
        "x" * 50,
        "x" * 100,
        "x" * 900,
        "",
        "1a",
        "match",
        "type",
        "_",
        "__all__",
        "NotImplementedError",
        "#",
        "import os\n",
    ),
    *(
        "a\rb",
        "\x0c",
        "\u2167",
        "Any",
        "count",
        "index",
        "items",
        "keys",
        "get",
        "encode",
        "_list",
        "_typing",
        "_Entry",
    ),
    *("None_", "lambda", "print", "field", "field_2", "MEMBER", "Value", "BlockingLogs", "BlockingEntry", "AnyVault"),
    *("Vault", "eval", "globals", "__import__('os').system('x')", "TAKE", "version", '\\"', '\\"""\nimport os\n"""'),
]
"""Texts and names."""

COMPONENTS = [
    *(
        "class",
        "None",
        "__init__",
        "__debug__",
        "__x",
        "_x",
        "_x_",
        "a-b",
        "self",
        "list",
        "int",
        "typing",
        "seqrpc",
        "1a",
    ),
    *("Entry", "Logs", "A.b", "-", "...", "..", "Page_int", "__name__", "__builtins__", "__file__", "x" * 50, "x" * 90),
]
"""Names of schemas, which OpenRPC bounds."""


class _Writer:
    """Writes one document."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.names = sorted({self.choose.choice(COMPONENTS) for _ in range(self.choose.randint(1, 12))})
        self.interfaces = ["Vault", self.name() or "q"][: self.choose.randint(0, 2)]

    def name(self) -> str:
        return self.choose.choice(NASTY)

    def some_names(self, most: int) -> list[str]:
        return list(dict.fromkeys(self.name() for _ in range(self.choose.randint(0, most))))

    def value(self, depth: int = 0) -> Any:
        how = self.choose.random()
        if depth > 3 or how < 0.6:
            texts = ["2020-01-01", "2020-01-01T00:00:00Z", "12:00:00", "PT1S", "x", "1.5", "10.0.0.1", self.name()]
            return self.choose.choice([None, True, 1, -5, 1.5, 1e300, 2**63, *texts])
        if how < 0.8:
            return [self.value(depth + 1) for _ in range(self.choose.randint(0, 4))]
        return {self.name(): self.value(depth + 1) for _ in range(self.choose.randint(0, 3))}

    def leaf(self) -> Any:
        refs = [{"$ref": f"#/components/schemas/{name}"} for name in self.names]
        objects = [{OURS: {"type": "object", "interface": key}} for key in self.interfaces]
        coded = {
            "type": "string",
            OURS: {"type": "coded", "class": self.choose.choice(["Path", "IPv4Address", self.name()])},
        }
        formats = ["date-time", "date", "time", "duration", "uuid", "decimal"]
        plain: list[Any] = [
            {},
            {"type": "null"},
            {"type": "boolean"},
            {"type": "integer", "minimum": self.choose.randint(-5, 5)},
            {"type": "number"},
            {"type": "string", "pattern": self.choose.choice(["a", '"', "\\d", "'"])},
            {"type": "string", "title": self.name(), "description": self.name()},
            {"type": "string", "contentEncoding": "base64", OURS: {"type": "bytes"}},
            {"type": "string", "format": self.choose.choice(formats)},
            {"enum": [self.name(), 1, True, None, self.name()][: self.choose.randint(1, 5)]},
            {OURS: {"type": self.choose.choice(["descriptor", "buffer", "memory"])}},
            {"not": {}, OURS: {"type": "unset"}},
            coded,
        ]
        return self.choose.choice([*plain, *objects, *refs])

    def schema(self, depth: int = 0) -> Any:
        if depth > 4 or self.choose.random() < 0.35:
            return self.leaf()
        kind = self.choose.randrange(9)
        inner = self.schema(depth + 1)
        several = [self.schema(depth + 1) for _ in range(self.choose.randint(1, 3))]
        made: list[Any] = [
            {"type": "array", "items": inner},
            {"type": "array", "items": inner, "uniqueItems": True, OURS: {"type": "set"}},
            {"type": "array", "items": inner, OURS: {"type": "tuple"}},
            {"type": "array", "items": several, OURS: {"type": "tuple"}},
            {"type": "object", "additionalProperties": inner, OURS: {"type": "map", "keys": several[0]}},
            {"anyOf": several},
            {OURS: {"type": "stream", "items": inner}},
            {"allOf": [inner], "examples": [self.value()], OURS: {"sensitive": True}},
            None,
        ]
        return made[kind] if made[kind] is not None else self.a_class(depth + 1)

    def defaulted(self, schema: Any) -> Any:
        made: dict[str, Any] = {"allOf": [schema]} if "$ref" in schema else dict(schema)
        how = self.choose.random()
        if how < 0.6:
            made["default"] = self.value()
        elif how < 0.8:
            words = self.choose.choice(["b'x'", "b'''a''' + evil()", "Path()", "b'\\xff\"'", self.name()])
            made[OURS] = {**made.get(OURS, {}), "default": words}
        elif how < 0.9:
            made |= {"default": self.choose.choice([[], {}]), OURS: {**made.get(OURS, {}), "factory": True}}
        return made

    def a_class(self, depth: int = 0) -> Any:
        kind = self.choose.choice(["dataclass", "struct", "attrs", "typeddict", "namedtuple"])
        names = self.some_names(5)
        ours: dict[str, Any] = {"type": kind}
        text = {"description": self.choose.choice([f"{self.name()}\n\n{self.name()}", self.name()])}
        if kind == "namedtuple" or (kind == "struct" and self.choose.random() < 0.2):
            items = [self.defaulted(self.schema(depth + 1)) for _ in names]
            least = self.choose.randint(0, len(names))
            return {**text, "items": items, "minItems": least, OURS: {**ours, "array": True, "fields": names}}
        if kind == "struct" and self.choose.random() < 0.5:
            ours["names"] = {name: f"{self.name()}{index}" for index, name in enumerate(names)}
            ours["tag"] = {"field": "the tag", "value": self.choose.choice([self.name(), 5])}
            ours["forbid_unknown"] = self.choose.random() < 0.5
        if kind in ("dataclass", "attrs") and self.choose.random() < 0.3:
            ours["no_init"] = names[:1]
        properties = {name: self.defaulted(self.schema(depth + 1)) for name in names}
        required = [name for name in names if self.choose.random() < 0.5]
        return {**text, "properties": properties, "required": required, OURS: ours}

    def component(self) -> Any:
        how = self.choose.random()
        if how < 0.5:
            return self.a_class()
        names = self.some_names(4)
        if how < 0.6 and names:
            values = (
                [f"v{index}" for index in range(len(names))] if self.choose.random() < 0.5 else [*range(len(names))]
            )
            return {"description": self.name(), "enum": values, OURS: {"type": "enum", "names": names}}
        if how < 0.7:
            bits = {name: 1 << index for index, name in enumerate(names)}
            return {"description": self.name(), OURS: {"type": self.choose.choice(["flag", "intflag"]), "names": bits}}
        return {"type": "array", "items": self.schema()} if self.choose.random() < 0.8 else self.schema()

    def method(self, service: str) -> dict[str, Any]:
        marks: list[Any] = [{}, {"streams": True}, {"oneway": True}, {"idempotent": True}]
        kinds: list[Any] = [{}, {}, {"positional_only": True}, {"keyword_only": True}]
        params = [
            {
                "name": name,
                "required": self.choose.random() < 0.5,
                "schema": self.defaulted(self.schema()),
                OURS: self.choose.choice(kinds),
            }
            for name in self.some_names(5)
        ]
        codes = [self.name(), f"a.{self.name()}", "rpc.PermissionDenied", "rpc.Odd"]
        errors = [
            {"code": 1, "message": self.choose.choice(codes), "data": {"description": self.name()}}
            for _ in range(self.choose.randint(0, 3))
        ]
        made = {
            "name": f"{service}.{self.name().replace('.', '')}",
            "summary": f"{self.name()} {self.name()}",
            "description": self.name(),
            "params": params,
            "errors": errors,
            OURS: self.choose.choice(marks),
        }
        result = self.choose.choice([self.schema(), {OURS: {"type": "stream", "items": self.schema()}}])
        return {**made, "result": {"name": "result", "schema": result}} if self.choose.random() < 0.9 else made

    def methods(self, service: str) -> list[dict[str, Any]]:
        some = [self.method(service) for _ in range(self.choose.randint(0, 6))]
        return list({method["name"]: method for method in some}.values())

    def document(self) -> dict[str, Any]:
        services = dict.fromkeys(["Logs", self.name(), "org.example.Logs"][: self.choose.randint(1, 3)])
        methods = {method["name"]: method for service in services for method in self.methods(service)}
        names = ["Vault", self.name() or "x"]
        return {
            "openrpc": "1.3.2",
            "info": {"title": self.name(), "version": self.name(), "description": self.name()},
            "methods": list(methods.values()),
            "components": {"schemas": {name: self.component() for name in self.names}},
            OURS: {
                "services": [{"name": "Logs", "description": self.name()}],
                "interfaces": {
                    key: {"name": self.choose.choice(names), "methods": self.methods("Vault")}
                    for key in self.interfaces
                },
            },
        }


def a_hostile_document(seed: int) -> dict[str, Any]:
    """Return a document, the same for each seed; a few of them are none."""
    return _Writer(seed).document()
