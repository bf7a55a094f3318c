"""Parts of documents that stand alone."""

from __future__ import annotations

from typing import Any

from seqrpc.documents.parts import needs_of, part_of


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def of(key: str) -> dict[str, Any]:
    return {"x-seqrpc": {"type": "object", "interface": key}}


DOCUMENT: dict[str, Any] = {
    "components": {
        "schemas": {
            "Tree": {"properties": {"left": ref("Tree"), "leaf": ref("Leaf")}},
            "Leaf": {"anyOf": [{"type": "integer"}, of("Box")]},
            "Other": {},
        }
    },
    "x-seqrpc": {"interfaces": {"Box": {"methods": [{"result": {"schema": ref("Tree")}}]}, "Bag": {}}},
}


def test_what_is_referred_to_is_followed_to_its_end() -> None:
    needs = needs_of(ref("Tree"), DOCUMENT)
    assert [*needs.schemas] == ["Tree", "Leaf"]
    assert [*needs.interfaces] == ["Box"]
    assert needs_of([of("Box"), ref("Other")], DOCUMENT).schemas.keys() == {"Other", "Tree", "Leaf"}


def test_what_leads_nowhere_is_left_out() -> None:
    nothing = [ref("Nobody"), {"$ref": 7}, {"$ref": "#/else"}, of("Nobody"), {"x-seqrpc": 7}, of(7)]  # type: ignore[arg-type] # hostile
    assert needs_of(nothing, DOCUMENT) == ({}, {})
    assert needs_of(ref("Tree"), {}) == ({}, {})


def test_a_part_has_what_it_needs_where_the_document_has_it() -> None:
    assert part_of({"name": "a"}, DOCUMENT) == {"name": "a"}
    whole = part_of({"result": ref("Tree"), "x-seqrpc": {"rule": "root"}}, DOCUMENT)
    assert whole["components"]["schemas"]["Leaf"] is DOCUMENT["components"]["schemas"]["Leaf"]
    assert whole["x-seqrpc"]["rule"] == "root"
    assert [*whole["x-seqrpc"]["interfaces"]] == ["Box"]
    assert [*part_of({"result": of("Bag"), "x-seqrpc": 7}, DOCUMENT)["x-seqrpc"]] == ["interfaces"]


def test_components_of_other_kinds_come_along() -> None:
    document: dict[str, Any] = {"components": {"contentDescriptors": {"a": {}}, "errors": {}}}
    assert part_of({}, document) == {"components": {"contentDescriptors": {"a": {}}}}


def test_depth_is_no_matter() -> None:
    deep: Any = ref("Leaf")
    for _ in range(100_000):
        deep = [deep]
    assert [*needs_of(deep, DOCUMENT).schemas] == ["Leaf", "Tree"]
    while deep.__class__ is list:  # freed one by one: at once it would take a level of the stack each
        deep = deep.pop()
