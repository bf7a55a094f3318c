"""A document with everything in it that documents have, written by hand."""

from __future__ import annotations

from typing import Any

OURS = "x-seqrpc"


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def ours(**keys: Any) -> dict[str, Any]:
    return {OURS: keys}


SCHEMAS: dict[str, Any] = {
    "Colour": {"title": "Colour", "enum": ["red", "green"], **ours(type="enum", names=["RED", "GREEN"])},
    "Access": {"title": "Access", "type": "integer", **ours(type="flag", names={"READ": 1, "WRITE": 2})},
    "Entry": {
        "title": "Entry",
        "description": "A line of a log.",
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "when": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}], "default": None},
            "next": {"allOf": [ref("Entry")], **ours(default="Entry(...)")},
            "tags": {"type": "array", "items": {"type": "string"}, "default": [], **ours(factory=True)},
        },
        "required": ["text"],
        **ours(type="dataclass", no_init=["next"]),
    },
    "Circle": {
        "title": "Circle",
        "type": "object",
        "properties": {"the-radius": {"type": "number"}},
        "required": ["the-radius"],
        **ours(
            type="struct",
            names={"the-radius": "radius"},
            tag={"field": "type", "value": "Circle"},
            forbid_unknown=True,
        ),
    },
    "Pair": {
        "title": "Pair",
        "type": "array",
        "items": [{"type": "integer"}, {"type": "string", "default": "b"}],
        "minItems": 1,
        "maxItems": 2,
        **ours(type="namedtuple", array=True, fields=["a", "b"]),
    },
    "Json": {
        "anyOf": [
            {"type": "object", "additionalProperties": ref("Json")},
            {"type": "array", "items": ref("Json")},
            {"type": "string"},
            {"type": "null"},
        ],
        **ours(alias=True),
    },
}


def method(name: str, *params: dict[str, Any], result: Any = None, **keys: Any) -> dict[str, Any]:
    """Return a method; without a result it is one-way."""
    made = {"name": name, "paramStructure": "either", "params": list(params), **keys}
    return made if result is None else {**made, "result": {"name": "result", "schema": result}}


def param(name: str, schema: Any, *, required: bool = True, **keys: Any) -> dict[str, Any]:
    """Return a parameter; ``keys`` are those of its ``x-seqrpc``."""
    return {"name": name, "required": required, "schema": schema, **({OURS: keys} if keys else {})}


FAILURE = {
    "code": -32000,
    "message": "logs.NoSuchLog",
    **ours(code="logs.NoSuchLog", description="There is no log of that name."),
}


def document(**changes: Any) -> dict[str, Any]:
    """Return the document, with other top-level keys than it has by itself."""
    whole = {
        "openrpc": "1.3.2",
        "info": {"title": "org.example.Logs", "version": "2", "description": "The logs."},
        "methods": [
            method(
                "org.example.Logs.follow",
                param("name", {"type": "string"}, positional_only=True),
                param(
                    "since",
                    {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}], "default": None},
                    required=False,
                    keyword_only=True,
                ),
                result=ours(type="stream", items=ref("Entry")),
                summary="Stream the lines of a log.",
                description="It goes on until somebody ends it.",
                errors=[FAILURE],
                **ours(streams=True, idempotent=True, allowed=False, rule="same_user | root"),
            ),
            method(
                "org.example.Logs.open",
                param("name", {"type": "string", "pattern": "^[a-z]+$", **ours(sensitive=True)}),
                param("colour", {"allOf": [ref("Colour")], "default": "red"}, required=False),
                result={"anyOf": [ours(type="descriptor"), {"type": "null"}]},
                **ours(sensitive=True),
            ),
            method("org.example.Logs.rotate", **ours(oneway=True)),
            method(
                "org.example.Logs.vault",
                param("pair", ref("Pair")),
                param("whatever", {}, required=False),
                result=ours(type="object", interface="Vault"),
                **ours(unannotated=["whatever"]),
            ),
        ],
        "components": {"schemas": SCHEMAS},
        OURS: {
            "services": [{"name": "org.example.Logs", "description": "The logs.", "bases": ["Base"]}],
            "interfaces": {
                "Vault": {
                    "name": "Vault",
                    "description": "What was unlocked.",
                    "methods": [method("Vault.get", param("key", {"type": "string"}), result=ref("Json"))],
                }
            },
        },
    }
    return {**whole, **changes}
