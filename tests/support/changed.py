"""Pairs of documents, each with one change: what it is, whom it breaks, and why; and how such documents are made."""

from __future__ import annotations

from typing import Any, NamedTuple

from seqrpc.documents.model import read
from seqrpc.documents.trees import Document
from support.discovered import OURS, document, method, ours, param, ref

INT, TEXT, NULL, FLOAT = {"type": "integer"}, {"type": "string"}, {"type": "null"}, {"type": "number"}
FILE = ours(type="descriptor")


def whole(*methods: dict[str, Any], schemas: dict[str, Any] | None = None, **interfaces: Any) -> Document:
    named = {
        key: {"name": key, "methods": made} if isinstance(made, list) else made for key, made in interfaces.items()
    }
    return read(document(methods=list(methods), components={"schemas": schemas or {}}, **{OURS: {"interfaces": named}}))


def taking(schema: Any, **keys: Any) -> dict[str, Any]:
    """Return a method with one parameter."""
    return method("S.f", param("a", schema, **keys), result=NULL)


def giving(schema: Any, **keys: Any) -> dict[str, Any]:
    """Return a method with a result."""
    return method("S.f", result=schema, **keys)


def a_class(kind: str = "dataclass", required: Any = (), more: Any = None, **properties: Any) -> dict[str, Any]:
    made = {"title": "A", "type": "object", "properties": properties, "required": list(required)}
    return {"A": {**made, **ours(type=kind, **(more or {}))}}


TAGGED = {"tag": {"field": "t", "value": "A"}}
OTHER = {"properties": {"b": INT}, "required": ["b"], **ours(type="struct", tag={"field": "t", "value": "B"})}


class Case(NamedTuple):
    old: Document
    new: Document
    path: str
    text: str
    breaks: str


BOTH = "callers and servers"

CASES = {
    # methods
    "old callers call a method that is gone": Case(
        whole(giving(INT), method("S.g", result=INT)), whole(giving(INT)), "S.g", "the method is gone", "callers"
    ),
    "new callers call a method that old servers do not have": Case(
        whole(giving(INT)), whole(giving(INT), method("S.g", result=INT)), "S.g", "the method is new", "servers"
    ),
    "a whole service that is gone is told once": Case(
        whole(giving(INT), method("T.f"), method("T.g")), whole(giving(INT)), "T", "the service is gone", "callers"
    ),
    "a whole service that is new is told once": Case(
        whole(giving(INT)), whole(giving(INT), method("T.f"), method("T.g")), "T", "the service is new", "servers"
    ),
    "old callers call again what must not run twice": Case(
        whole(giving(INT, **ours(idempotent=True))),
        whole(giving(INT)),
        "S.f",
        "it must not be called twice any more",
        "callers",
    ),
    "new callers call again what an old server must not run twice": Case(
        whole(giving(INT)), whole(giving(INT, **ours(idempotent=True))), "S.f", "it may be called twice", "servers"
    ),
    "old callers wait for a number and get None": Case(
        whole(giving(INT)), whole(method("S.f", **ours(oneway=True))), "S.f", "it is one-way", "callers"
    ),
    "who expects None gets it from a one-way method, too": Case(
        whole(giving(NULL)), whole(method("S.f", **ours(oneway=True))), "S.f", "it is one-way", "nobody"
    ),
    "new callers wait for a number and get None": Case(
        whole(method("S.f", **ours(oneway=True))), whole(giving(INT)), "S.f", "it is answered", "servers"
    ),
    "a stream is a stream, awaited or not": Case(
        whole(giving(ours(type="stream", items=INT))),
        whole(giving(ours(type="stream", items=INT), **ours(streams=True))),
        "S.f",
        "it streams by itself",
        "nobody",
    ),
    "any method may fail with any error": Case(
        whole(giving(INT)),
        whole(giving(INT, errors=[{"code": 1, "message": "s.Gone"}])),
        "S.f",
        "the error s.Gone is declared",
        "nobody",
    ),
    "nor need it fail with one": Case(
        whole(giving(INT, errors=[{"code": 1, "message": "s.Gone"}])),
        whole(giving(INT)),
        "S.f",
        "the error s.Gone is no longer declared",
        "nobody",
    ),
    "a method that is hidden from a caller is gone for it": Case(
        whole(giving(INT), method("S.g", **ours(allowed=False, rule="hidden(root)"))),
        whole(giving(INT)),
        "S.g",
        "the method is gone",
        "callers",
    ),
    # parameters
    "old callers do not give a new parameter": Case(
        whole(giving(NULL)), whole(taking(INT)), "S.f(a)", "it is new, and has to be given", BOTH
    ),
    "only new callers give a new parameter that may be left out": Case(
        whole(giving(NULL)), whole(taking(INT, required=False)), "S.f(a)", "it is new, and may be left out", "servers"
    ),
    "old callers give a parameter that is gone, and new ones do not give it to old servers": Case(
        whole(taking(INT)), whole(giving(NULL)), "S.f(a)", "it is gone", BOTH
    ),
    "old callers may give a parameter that is gone": Case(
        whole(taking(INT, required=False)), whole(giving(NULL)), "S.f(a)", "it is gone", "callers"
    ),
    "old callers may leave out what has to be given": Case(
        whole(taking(INT, required=False)), whole(taking(INT)), "S.f(a)", "it has to be given", "callers"
    ),
    "new callers may leave out what an old server wants": Case(
        whole(taking(INT)), whole(taking(INT, required=False)), "S.f(a)", "it may be left out", "servers"
    ),
    "what is left out is not sent": Case(
        whole(taking({**INT, "default": 1}, required=False)),
        whole(taking({**INT, "default": 2}, required=False)),
        "S.f(a)",
        "its default was 1, and is 2",
        "nobody",
    ),
    "a default that is told no more is still the other side's": Case(
        whole(taking({**INT, "default": 1}, required=False)),
        whole(taking({**INT, **ours(default="now()")}, required=False)),
        "S.f(a)",
        "its default was 1, and is now()",
        "nobody",
    ),
    "bytes are no text": Case(
        whole(taking(TEXT)), whole(taking({**TEXT, **ours(type="bytes")})), "S.f(a)", "it was str, and is bytes", BOTH
    ),
    "a new name is another one on the wire": Case(
        whole(method("S.f", param("a", INT), result=NULL)),
        whole(method("S.f", param("b", INT), result=NULL)),
        "S.f(a)",
        "it is called b",
        BOTH,
    ),
    "nobody calls a positional-only parameter by its name": Case(
        whole(method("S.f", param("a", INT, positional_only=True), result=NULL)),
        whole(method("S.f", param("b", INT, positional_only=True), result=NULL)),
        "S.f(a)",
        "it is called b",
        "nobody",
    ),
    "old callers give by its place what is given by name": Case(
        whole(taking(INT)), whole(taking(INT, keyword_only=True)), "S.f(a)", "it is given by name only", "callers"
    ),
    "new callers give by its place what old servers take by name": Case(
        whole(taking(INT, keyword_only=True)), whole(taking(INT)), "S.f(a)", "it may be given by its place", "servers"
    ),
    "what is wider is fine for callers, and too much for old servers": Case(
        whole(taking(INT)), whole(taking({"anyOf": [INT, TEXT]})), "S.f(a)", "it may be str as well", "servers"
    ),
    "what is narrower refuses what old callers send": Case(
        whole(taking({"anyOf": [INT, NULL]})), whole(taking(INT)), "S.f(a)", "it is no longer None", "callers"
    ),
    "a float takes integers": Case(
        whole(taking(INT)), whole(taking(FLOAT)), "S.f(a)", "it was int, and is float", "servers"
    ),
    "another type breaks both": Case(whole(taking(INT)), whole(taking(TEXT)), "S.f(a)", "it was int, and is str", BOTH),
    "whatever it was, anything goes": Case(
        whole(taking(FILE)), whole(taking({})), "S.f(a)", "it was OwnedFd, and is Any", "servers"
    ),
    "tighter bounds refuse what old callers send": Case(
        whole(taking({**INT, "minimum": 0})),
        whole(taking({**INT, "minimum": 1})),
        "S.f(a)",
        "its bounds were (ge=0), and are (ge=1)",
        "callers",
    ),
    "looser bounds let through what old servers refuse": Case(
        whole(taking({**TEXT, "maxLength": 5})),
        whole(taking(TEXT)),
        "S.f(a)",
        "its bounds were (max_length=5), and are none",
        "servers",
    ),
    "whether it is logged is no matter of the wire": Case(
        whole(taking(TEXT)), whole(taking({**TEXT, **ours(sensitive=True)})), "S.f(a)", "it is secret", "nobody"
    ),
    "a text takes what dates are sent as": Case(
        whole(taking({**TEXT, "format": "date"})), whole(taking(TEXT)), "S.f(a)", "it was date, and is str", "servers"
    ),
    "a bound that is gone lets through what old servers refuse": Case(
        whole(taking({**INT, "maximum": 9})),
        whole(taking({**INT, "maximum": 99})),
        "S.f(a)",
        "its bounds were (le=9), and are (le=99)",
        "servers",
    ),
    "bounds of a named type are bounds": Case(
        whole(
            taking({"allOf": [ref("A")], "maxItems": 3}),
            schemas={"A": {"type": "array", "items": INT, **ours(alias=True)}},
        ),
        whole(taking(ref("A")), schemas={"A": {"type": "array", "items": INT, **ours(alias=True)}}),
        "S.f(a)",
        "its bounds were (max_length=3), and are none",
        "servers",
    ),
    # results
    "old callers do not expect what a wider result may be": Case(
        whole(giving(INT)), whole(giving({"anyOf": [INT, NULL]})), "S.f -> result", "it may be None as well", "callers"
    ),
    "new callers do not expect what an old server may still give": Case(
        whole(giving({"anyOf": [INT, NULL]})), whole(giving(INT)), "S.f -> result", "it is no longer None", "servers"
    ),
    "bounds of results go the other way": Case(
        whole(giving({**INT, "minimum": 0})),
        whole(giving(INT)),
        "S.f -> result",
        "its bounds were (ge=0), and are none",
        "callers",
    ),
    "who expects None expects nothing else": Case(
        whole(giving(NULL)), whole(giving(INT)), "S.f -> result", "it was None, and is int", BOTH
    ),
    "a list is no stream": Case(
        whole(giving(ours(type="stream", items=INT))),
        whole(giving({"type": "array", "items": INT})),
        "S.f -> result",
        "it was stream of int, and is list[int]",
        BOTH,
    ),
    "tighter bounds of results are no matter to old callers": Case(
        whole(giving(TEXT)),
        whole(giving({**TEXT, "maxLength": 3})),
        "S.f -> result",
        "its bounds were none, and are (max_length=3)",
        "servers",
    ),
    "integers where numbers were are no matter to old callers": Case(
        whole(giving(FLOAT)), whole(giving(INT)), "S.f -> result", "it was float, and is int", "servers"
    ),
    "a class more in a union is unknown to old callers": Case(
        whole(giving({"anyOf": [ref("A"), ref("B")]}), schemas={**a_class("struct", more=TAGGED), "B": OTHER}),
        whole(
            giving({"anyOf": [ref("A"), ref("B"), ref("C")]}),
            schemas={
                **a_class("struct", more=TAGGED),
                "B": OTHER,
                "C": {**OTHER, **ours(type="struct", tag={"field": "t", "value": "C"})},
            },
        ),
        "S.f -> result",
        "it may be C as well",
        "callers",
    ),
    "items of a stream are results": Case(
        whole(giving(ours(type="stream", items=INT), **ours(streams=True))),
        whole(giving(ours(type="stream", items=FLOAT), **ours(streams=True))),
        "S.f -> result[]",
        "it was int, and is float",
        "callers",
    ),
    "a list of what is in a tuple takes the tuple": Case(
        whole(giving({"type": "array", "items": [INT, INT], "minItems": 2, **ours(type="tuple")})),
        whole(giving({"type": "array", "items": INT})),
        "S.f -> result",
        "it was tuple[int, int], and is list[int]",
        "callers",
    ),
    "a list takes sets, and a set has a bound": Case(
        whole(giving({"type": "array", "items": INT, **ours(type="set")})),
        whole(giving({"type": "array", "items": INT})),
        "S.f -> result",
        "it was a set, and is a list",
        "callers",
    ),
    "keys of maps are arguments as well": Case(
        whole(taking({"type": "object", "additionalProperties": INT})),
        whole(taking({"type": "object", "additionalProperties": INT, **ours(type="map", keys=INT)})),
        "S.f(a)'s keys",
        "it was str, and is int",
        BOTH,
    ),
    # classes
    "a field that has to be given is not sent by old callers": Case(
        whole(taking(ref("A")), schemas=a_class(required=["x"], x=INT)),
        whole(taking(ref("A")), schemas=a_class(required=["x", "y"], x=INT, y=INT)),
        "A.y",
        "it is new",
        "callers",
    ),
    "a field that is given back as well is ignored by old callers": Case(
        whole(giving(ref("A")), schemas=a_class(required=["x"], x=INT)),
        whole(giving(ref("A")), schemas=a_class(required=["x", "y"], x=INT, y=INT)),
        "A.y",
        "it is new",
        "servers",
    ),
    "a field with a default may be new": Case(
        whole(taking(ref("A")), schemas=a_class(required=["x"], x=INT)),
        whole(taking(ref("A")), schemas=a_class(required=["x"], x=INT, y=INT)),
        "A.y",
        "it is new, and may be left out",
        "nobody",
    ),
    "who refuses unknown fields refuses new ones": Case(
        whole(taking(ref("A")), schemas=a_class("struct", ["x"], {"forbid_unknown": True}, x=INT)),
        whole(taking(ref("A")), schemas=a_class("struct", ["x"], {"forbid_unknown": True}, x=INT, y=INT)),
        "A.y",
        "it is new, and may be left out",
        "servers",
    ),
    "a field that is gone is missed by whoever wants it": Case(
        whole(giving(ref("A")), schemas=a_class(required=["x", "y"], x=INT, y=INT)),
        whole(giving(ref("A")), schemas=a_class(required=["x"], x=INT)),
        "A.y",
        "it is gone",
        "callers",
    ),
    "a server sends fields that have defaults": Case(
        whole(giving(ref("A")), schemas=a_class(required=["x"], x=INT)),
        whole(giving(ref("A")), schemas=a_class(x=INT)),
        "A.x",
        "it may be left out",
        "nobody",
    ),
    "a TypedDict need not have its optional keys": Case(
        whole(giving(ref("A")), schemas=a_class("typeddict", ["x"], x=INT)),
        whole(giving(ref("A")), schemas=a_class("typeddict", x=INT)),
        "A.x",
        "it may be left out",
        "callers",
    ),
    "a default of a field is each side's own": Case(
        whole(giving(ref("A")), schemas=a_class(x={**INT, "default": 1})),
        whole(giving(ref("A")), schemas=a_class(x={**INT, "default": 2})),
        "A.x",
        "its default was 1, and is 2",
        "nobody",
    ),
    "another tag is another class": Case(
        whole(giving(ref("A")), schemas=a_class("struct", more={"tag": {"field": "t", "value": "A"}})),
        whole(giving(ref("A")), schemas=a_class("struct", more={"tag": {"field": "t", "value": "B"}})),
        "A",
        "its tag was t='A', and is t='B'",
        BOTH,
    ),
    "who has no tag ignores one, and a class that stands alone needs none": Case(
        whole(taking(ref("A")), schemas=a_class("struct")),
        whole(taking(ref("A")), schemas=a_class("struct", more={"tag": {"field": "t", "value": "B"}})),
        "A",
        "its tag was none, and is t='B'",
        "nobody",
    ),
    "who refuses unknown fields refuses a tag": Case(
        whole(taking(ref("A")), schemas=a_class("struct", more={"forbid_unknown": True})),
        whole(taking(ref("A")), schemas=a_class("struct", more={"forbid_unknown": True, **TAGGED})),
        "A",
        "its tag was none, and is t='A'",
        "servers",
    ),
    "a tag moves the items of an array": Case(
        whole(taking(ref("A")), schemas={"A": {"items": [INT], **ours(type="struct", array=True, fields=["x"])}}),
        whole(
            taking(ref("A")),
            schemas={"A": {"items": [INT], **ours(type="struct", array=True, fields=["x"], **TAGGED)}},
        ),
        "A",
        "its tag was none, and is t='A'",
        BOTH,
    ),
    "a class that refuses what it does not know refuses nothing that the other document has": Case(
        whole(taking(ref("A")), schemas=a_class("struct", ["x"], x=INT)),
        whole(taking(ref("A")), schemas=a_class("struct", ["x"], {"forbid_unknown": True}, x=INT)),
        "A",
        "fields that it does not have are refused",
        "nobody",
    ),
    "a class that ignores what it refused takes all it took": Case(
        whole(giving(ref("A")), schemas=a_class("struct", ["x"], {"forbid_unknown": True}, x=INT)),
        whole(giving(ref("A")), schemas=a_class("struct", ["x"], x=INT)),
        "A",
        "fields that it does not have are ignored",
        "nobody",
    ),
    "an old server wants a field that is gone": Case(
        whole(taking(ref("A")), schemas=a_class(required=["x", "y"], x=INT, y=INT)),
        whole(taking(ref("A")), schemas=a_class(required=["x"], x=INT)),
        "A.y",
        "it is gone",
        "servers",
    ),
    "a field that could be left out may be gone": Case(
        whole(taking(ref("A")), schemas=a_class(required=["x"], x=INT, y=INT)),
        whole(taking(ref("A")), schemas=a_class(required=["x"], x=INT)),
        "A.y",
        "it is gone",
        "nobody",
    ),
    "who refuses unknown fields refuses those that it had": Case(
        whole(taking(ref("A")), schemas=a_class("struct", ["x"], {"forbid_unknown": True}, x=INT, y=INT)),
        whole(taking(ref("A")), schemas=a_class("struct", ["x"], {"forbid_unknown": True}, x=INT)),
        "A.y",
        "it is gone",
        "callers",
    ),
    "a new field of a result may be left out by old servers": Case(
        whole(giving(ref("A")), schemas=a_class(required=["x"], x=INT)),
        whole(giving(ref("A")), schemas=a_class(required=["x"], x=INT, y=INT)),
        "A.y",
        "it is new, and may be left out",
        "nobody",
    ),
    "a field of an argument that has to be given was not": Case(
        whole(taking(ref("A")), schemas=a_class(x=INT)),
        whole(taking(ref("A")), schemas=a_class(required=["x"], x=INT)),
        "A.x",
        "it has to be given",
        "callers",
    ),
    "a Struct may leave out its defaults": Case(
        whole(giving(ref("A")), schemas=a_class("struct", ["x"], {"omit_defaults": True}, x=INT)),
        whole(giving(ref("A")), schemas=a_class("struct", (), {"omit_defaults": True}, x={**INT, "default": 1})),
        "A.x",
        "it may be left out",
        "callers",
    ),
    "what is left out for being the default is taken for another default": Case(
        whole(giving(ref("A")), schemas=a_class("struct", (), {"omit_defaults": True}, x={**INT, "default": 1})),
        whole(giving(ref("A")), schemas=a_class("struct", (), {"omit_defaults": True}, x={**INT, "default": 2})),
        "A.x",
        "its default was 1, and is 2",
        BOTH,
    ),
    "only who leaves out defaults is misunderstood": Case(
        whole(taking(ref("A")), schemas=a_class("struct", x={**INT, "default": 1})),
        whole(taking(ref("A")), schemas=a_class("struct", (), {"omit_defaults": True}, x={**INT, "default": 2})),
        "A.x",
        "its default was 1, and is 2",
        "servers",
    ),
    "a dataclass may become a Struct": Case(
        whole(giving(ref("A")), schemas=a_class(required=["x"], x=INT)),
        whole(giving(ref("A")), schemas=a_class("struct", ["x"], x={**INT, "minimum": 0})),
        "A.x",
        "its bounds were none, and are (ge=0)",
        "servers",
    ),
    "a class is a map with known keys": Case(
        whole(taking(ref("A")), schemas=a_class(required=["x"], x=INT)),
        whole(taking({"type": "object", "additionalProperties": INT})),
        "S.f(a)",
        "it was A, and is dict[str, int]",
        "servers",
    ),
    "a value is no object that can be called": Case(
        whole(giving(ref("A")), schemas=a_class(required=["x"], x=INT), V=[method("V.a")]),
        whole(giving(ours(type="object", interface="V")), V=[method("V.a")]),
        "S.f -> result",
        "it was A, and is V",
        BOTH,
    ),
    "a member that is new is unknown to old callers": Case(
        whole(giving(ref("A")), schemas={"A": {"enum": ["r"], **ours(type="enum", names=["R"])}}),
        whole(giving(ref("A")), schemas={"A": {"enum": ["r", "g"], **ours(type="enum", names=["R", "G"])}}),
        "A",
        "it may be 'g'",
        "callers",
    ),
    "a member that is new may be sent to old servers": Case(
        whole(taking(ref("A")), schemas={"A": {"enum": ["r"], **ours(type="enum", names=["R"])}}),
        whole(taking(ref("A")), schemas={"A": {"enum": ["r", "g"], **ours(type="enum", names=["R", "G"])}}),
        "A",
        "it may be 'g'",
        "servers",
    ),
    "a member that is new is new to all where it goes both ways": Case(
        whole(
            method("S.f", param("a", ref("A")), result=ref("A")),
            schemas={"A": {"enum": [1], **ours(type="intenum", names=["R"])}},
        ),
        whole(
            method("S.f", param("a", ref("A")), result=ref("A")),
            schemas={"A": {"enum": [1, 2], **ours(type="intenum", names=["R", "G"])}},
        ),
        "A",
        "it may be 2",
        BOTH,
    ),
    "a member that is gone is still sent by old callers": Case(
        whole(taking(ref("A")), schemas={"A": {"enum": ["r", "g"], **ours(type="enum", names=["R", "G"])}}),
        whole(taking(ref("A")), schemas={"A": {"enum": ["r"], **ours(type="enum", names=["R"])}}),
        "A",
        "it is no longer 'g'",
        "callers",
    ),
    "an enum is its values": Case(
        whole(giving(ref("A")), schemas={"A": {"enum": ["r"], **ours(type="enum", names=["R"])}}),
        whole(giving(TEXT)),
        "S.f -> result",
        "it was A, and is str",
        "callers",
    ),
    "names of members are not sent": Case(
        whole(giving(ref("A")), schemas={"A": {"enum": ["r"], **ours(type="enum", names=["R"])}}),
        whole(giving(ref("A")), schemas={"A": {"enum": ["r"], **ours(type="enum", names=["RED"])}}),
        "A",
        "members have other names",
        "nobody",
    ),
    "more bits are unknown to old servers": Case(
        whole(taking(ref("A")), schemas={"A": ours(type="flag", names={"R": 1})}),
        whole(taking(ref("A")), schemas={"A": ours(type="flag", names={"R": 1, "W": 2})}),
        "A",
        "its bits were 0x1, and are 0x3",
        "servers",
    ),
    "a literal that is gone is refused": Case(
        whole(taking({"enum": ["a", "b"]})), whole(taking({"enum": ["a"]})), "S.f(a)", "it is no longer 'b'", "callers"
    ),
    "a tuple of fields is longer than whoever knew it takes": Case(
        whole(giving(ref("A")), schemas={"A": {"items": [INT], **ours(type="namedtuple", fields=["x"])}}),
        whole(giving(ref("A")), schemas={"A": {"items": [INT, INT], **ours(type="namedtuple", fields=["x", "y"])}}),
        "A.y",
        "it is new",
        BOTH,
    ),
    # objects
    "callers call what an object of the server's has no more": Case(
        whole(giving(ours(type="object", interface="V")), V=[method("V.a"), method("V.b")]),
        whole(giving(ours(type="object", interface="V")), V=[method("V.a")]),
        "V.b",
        "the method is gone",
        "callers",
    ),
    "an old server calls what a new caller's object has no more": Case(
        whole(taking(ours(type="object", interface="V")), V=[method("V.a"), method("V.b")]),
        whole(taking(ours(type="object", interface="V")), V=[method("V.a")]),
        "V.b",
        "the method is gone",
        "servers",
    ),
    "a new server calls an old caller's object with what it does not take": Case(
        whole(taking(ours(type="object", interface="V")), V=[method("V.a", param("x", INT), result=NULL)]),
        whole(taking(ours(type="object", interface="V")), V=[method("V.a", param("x", FLOAT), result=NULL)]),
        "V.a(x)",
        "it was int, and is float",
        "callers",
    ),
    "objects are called by the names of their interfaces": Case(
        whole(giving(ours(type="object", interface="V")), V={"name": "V", "methods": []}),
        whole(giving(ours(type="object", interface="V")), V={"name": "W", "methods": []}),
        "V",
        "it was called V, and is called W",
        BOTH,
    ),
}
