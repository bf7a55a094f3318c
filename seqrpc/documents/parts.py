"""Parts of a document that stand alone: with a method, a type or an object all that its schemas refer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from seqrpc.documents.raw import OURS

_SCHEMAS: Final = "#/components/schemas/"


class Needs(NamedTuple):
    """What a part of a document refers to, and what that does in turn, in the order in which it is come to."""

    schemas: dict[str, Any]
    """By their names, as they came."""

    interfaces: dict[str, Any]
    """By their keys, as they came."""


def needs_of(part: Any, document: Mapping[str, Any]) -> Needs:
    """Return what a part needs to be understood.

    Args:
        part: a method, a schema, or a list of such, as it came.
        document: that of which it is, as it came, and as :func:`seqrpc.documents.model.read` can read it. Cycles have
            an end, and references to nothing are left out.
    """
    known = _known(document)
    needs = Needs({}, {})
    todo = [part]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo += reversed(value)
        elif isinstance(value, dict):
            todo += reversed([*value.values()])
            reference, ours = value.get("$ref"), value.get(OURS)
            if isinstance(reference, str) and reference.startswith(_SCHEMAS):
                todo += _taken(reference.removeprefix(_SCHEMAS), known.schemas, needs.schemas)
            if isinstance(ours, dict) and isinstance(ours.get("interface"), str):
                todo += _taken(ours["interface"], known.interfaces, needs.interfaces)
    return needs


def part_of(part: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part with what it needs, where the whole document has that, so that its references hold in it.

    Args:
        part: a method, or a map with schemas in it, as it came.
        document: as for :func:`needs_of`.
    """
    needs = needs_of(part, document)
    whole = dict(part)
    others = {name: each for name, each in document.get("components", {}).items() if name != "schemas" and each}
    components = {**({"schemas": needs.schemas} if needs.schemas else {}), **others}
    if components:
        whole["components"] = components
    if needs.interfaces:
        ours = whole.get(OURS)
        whole[OURS] = {**(ours if isinstance(ours, dict) else {}), "interfaces": needs.interfaces}
    return whole


def _known(document: Mapping[str, Any]) -> Needs:
    return Needs(document.get("components", {}).get("schemas", {}), document.get(OURS, {}).get("interfaces", {}))


def _taken(name: str, known: Mapping[str, Any], needed: dict[str, Any]) -> list[Any]:
    """Note that something is needed; return it, if that is new."""
    if name in needed or name not in known:
        return []
    needed[name] = known[name]
    return [known[name]]
