"""Every type that conversion is tested with, described, written as a stub, and described again."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import seqrpc
from seqrpc.documents.model import read
from seqrpc.documents.stubs import write_stub
from seqrpc.documents.vocabulary import CODED
from seqrpc.interface.openrpc import document_of
from seqrpc.interface.signature import spec_of
from support import annotations as of_conversion
from support.discovered import OURS
from support.matrix import CONTAINERS, INNERS, LEAVES, LIVING, Json, Tree
from support.stubs import actions_in, module_of

NAMES = (Json, Tree)  # where the functions are that have them in their annotations, as text

CONVERSION = Path(__file__).parent.parent / "unit" / "interface" / "conversion"


def groups() -> Iterator[tuple[str, list[Any]]]:
    """Yield names with the annotations that are tested under them."""
    for name, annotation, _value in LEAVES:
        yield name, [annotation, *(annotation | inner.annotation for inner in LIVING)]
    for container in CONTAINERS:
        yield container.name, [container.annotate(inner.annotation) for inner in INNERS]
    yield "tests/support/annotations.py", list(_classes_of(of_conversion))
    for path in sorted(CONVERSION.glob("test_*.py")):
        module = _module(path)
        yield path.name, [*_annotations_of(module), *_classes_of(module)]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"conversion_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where annotations are looked up that are texts
    spec.loader.exec_module(module)
    return module


def _annotations_of(module: ModuleType) -> Iterator[Any]:
    """Yield what the tests of a module are parametrized with under the name ``annotation``."""
    for function in vars(module).values():
        for mark in getattr(function, "pytestmark", ()):
            names, rows = mark.args if mark.name == "parametrize" else ("", ())
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
            if "annotation" in names:
                for row in rows:
                    values = row.values if isinstance(row, type(pytest.param())) else row if len(names) > 1 else (row,)
                    yield values[names.index("annotation")]


def _classes_of(module: ModuleType) -> Iterator[Any]:
    """Yield the classes that a module defines, without those that are no types of values."""
    for found in vars(module).values():
        if isinstance(found, type) and found.__module__ == module.__name__ and not found.__name__.startswith("_"):
            yield found


def can_be_sent(annotation: Any) -> bool:
    """Return whether values of an annotation can be sent; a service that has another one is never served."""
    try:
        spec_of(service_of([annotation]))
    except TypeError:
        return False
    return True


def service_of(annotations: list[Any]) -> type[seqrpc.Service]:
    """Return a service with all of these in all places."""
    body: dict[str, Any] = {}
    lent: dict[str, Any] = {}
    for number, annotation in enumerate(annotations):
        many: Any = AsyncIterator[annotation]  # type: ignore[valid-type]
        rest: Any = ("rest", list[annotation], dataclasses.field(default_factory=list))  # type: ignore[valid-type]
        held = dataclasses.make_dataclass(f"Held{number}", [("value", annotation), rest])
        record = msgspec.defstruct(f"Record{number}", [("value", annotation)], tag=True, module=__name__)
        held.__module__ = __name__
        for name, given, result in (
            ("take", annotation, type(None)),
            ("give", type(None), annotation),
            ("hold", held, held),
            ("record", record, dict[str, record]),  # type: ignore[valid-type]
            ("items", type(None), many),
            ("send", many, type(None)),
            ("some", list[annotation], dict[str, annotation]),  # type: ignore[valid-type]
        ):
            body[f"{name}{number}"] = _method(f"{name}{number}", given, result, "Roundtrip")
        lent[f"take{number}"] = _method(f"take{number}", annotation, annotation, "Lent")
    body["lend"] = _method("lend", type(None), type("Lent", (seqrpc.Service,), lent), "Roundtrip")
    return type("Roundtrip", (seqrpc.Service,), body)


def _method(name: str, given: Any, result: Any, cls: str) -> Any:
    async def call(self: Any, value: Any) -> Any:
        raise NotImplementedError

    async def without(self: Any) -> Any:
        raise NotImplementedError

    function = without if given is type(None) else call
    function.__name__, function.__qualname__ = name, f"{cls}.{name}"
    function.__annotations__ = {**({} if given is type(None) else {"value": given}), "return": result}
    return seqrpc.method(function)


def again(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the classes of a document's stub are described as: those for asyncio, and the blocking ones."""
    text = write_stub(read(document), "a test")
    assert actions_in(text) == []
    with module_of(text) as stub:
        names = [service["name"].rpartition(".")[2] for service in document[OURS]["services"]]
        both = [document_of([getattr(stub, f"{prefix}{name}") for name in names]) for prefix in ("", "Blocking")]
    return both[0], both[1]


# What is compared


class Told:
    """What a document says, in one form, without what docs/stubs.md lists as other in the document of a stub.

    Args:
        document: the document.
        is_stub: whether it is that of a stub.
    """

    def __init__(self, document: dict[str, Any], *, is_stub: bool) -> None:
        self._schemas = document["components"]["schemas"]
        self._interfaces = document[OURS]["interfaces"]
        self._is_stub = is_stub
        self._known: dict[str, Any] = {}
        self.whole = {
            "info": document["info"],
            "services": [{**one, "bases": []} for one in document[OURS]["services"]],
            "methods": [self._method(one) for one in document["methods"]],
            "interfaces": self._by_wire_name(),
            "classes": self._known,
        }

    def _by_wire_name(self) -> dict[str, Any]:
        """Return interfaces; of what blocks there may be two of a name, for arguments and results, which are alike."""
        found: dict[str, Any] = {}
        for one in self._interfaces.values():
            told = {**one, "methods": [self._method(method) for method in one["methods"]]}
            assert found.setdefault(one["name"], told) == told
        return found

    def _method(self, method: dict[str, Any]) -> dict[str, Any]:
        marks = {key: value for key, value in method[OURS].items() if key not in _OTHERWISE}
        typed = {key: value for key, value in method.items() if key in ("params", "result")}
        told = {key: self._inner(value, 0, is_alias=False) for key, value in typed.items()}
        return {**method, **told, OURS: marks}

    def _inner(self, value: Any, depth: int, *, is_alias: bool) -> Any:
        if isinstance(value, list):
            return [self._inner(item, depth, is_alias=is_alias) for item in value]
        if not isinstance(value, dict):
            return value
        if is_alias and depth > _DEEPEST:
            return {"deeper": True}
        if "$ref" in value:
            return self._reference(value["$ref"].removeprefix("#/components/schemas/"), depth)
        made = {key: self._inner(inner, depth + (key in _INSIDE), is_alias=is_alias) for key, inner in value.items()}
        if isinstance(made.get(OURS), dict):
            self._ours(made)
        if "anyOf" in made:  # an alias in a union is all of its types
            made["anyOf"] = [each for one in made["anyOf"] for each in (one["anyOf"] if [*one] == ["anyOf"] else [one])]
        if "allOf" in made and "class" not in made["allOf"][0]:
            (part,) = made.pop("allOf")
            ours = {**part.get(OURS, {}), **made.get(OURS, {})}
            made = {**part, **made, **({OURS: ours} if ours else {})}
        return {key: value for key, value in made.items() if (key, value) != (OURS, {})}

    def _ours(self, made: dict[str, Any]) -> None:
        ours = {**made[OURS]}
        if "interface" in ours:
            ours["interface"] = self._interfaces[ours["interface"]]["name"]
        if ours.get("type") == "coded" and ours["class"] not in CODED:
            del ours["type"], ours["class"]
        ours.pop("alias", None)
        if not str(ours.get("default", "b''")).startswith(("b'", 'b"')):
            ours["default"] = "..."
        made[OURS] = ours

    def _reference(self, name: str, depth: int) -> Any:
        schema = self._schemas[name]
        if schema.get(OURS, {}).get("alias"):  # how it is called, and where it begins, depends on how it is written
            return self._inner(schema, depth, is_alias=True)
        called = name.removeprefix("Blocking") if self._is_stub else name
        key = f"{name} which is {called}"
        if key not in self._known:
            self._known[key] = None
            told = self._class(schema)
            del self._known[key]
            assert self._known.setdefault(called, told) == told
        return {"class": called}

    def _class(self, schema: dict[str, Any]) -> Any:
        untitled = {key: value for key, value in schema.items() if key != "title"}
        told: dict[str, Any] = self._inner(untitled, 0, is_alias=False)
        if told[OURS]["type"] == "attrs":
            told[OURS] = {**told[OURS], "type": "dataclass"}
        if told[OURS]["type"] != "typeddict":
            for name, field in told.get("properties", {}).items():
                words = field.get(OURS, {}).get("default", "")
                if "default" not in field and not words.startswith(("b'", 'b"')):  # nobody knows how to make one
                    field[OURS] = {key: value for key, value in field.get(OURS, {}).items() if key != "default"}
                    if not field[OURS]:
                        del field[OURS]
                    told["required"] = [one for one in told["properties"] if one in (*told["required"], name)]
        return told


_INSIDE = ("items", "additionalProperties", "keys")

_DEEPEST = 6  # levels to which what holds itself is written out

_OTHERWISE = ("allowed", "rule", "unannotated", "streams")
