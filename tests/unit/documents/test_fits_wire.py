"""What one type is said to take of another, conversion takes: tried with a value of each type of its tests."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from support.matrix import LEAVES, Key
from support.roundtrips import can_be_sent

import seqrpc
from seqrpc.documents.fits import Fits
from seqrpc.documents.model import read
from seqrpc.documents.trees import Document, Ref
from seqrpc.interface.conversion import convert
from seqrpc.interface.openrpc import document_of
from seqrpc.interface.planning import plan
from seqrpc.protocol.flattening import flatten

TYPES: dict[str, tuple[Any, Any]] = {
    name: (annotation, value)
    for name, annotation, value in LEAVES
    if not name.startswith("recursive ") and can_be_sent(annotation)  # names of some are looked up elsewhere
}


def described(annotation: Any) -> Document:
    async def take(self: Any, value: Any) -> None:
        raise NotImplementedError

    take.__annotations__ = {"value": annotation, "return": None}
    take.__qualname__ = "Taker.take"
    return read(document_of(type("Taker", (seqrpc.Service,), {"take": seqrpc.method(take)})))


DOCUMENTS = {name: described(annotation) for name, (annotation, _value) in TYPES.items()}


def is_said_to_take(wide: Document, narrow: Document) -> bool:
    one, other = wide.methods[0].params[0].type, narrow.methods[0].params[0].type
    return Fits(wide.schemas, narrow.schemas).takes(one, other)


def on_the_wire(value: Any) -> Any:
    packed = msgpack.packb(value, default=flatten, datetime=True)
    return msgpack.unpackb(packed, timestamp=3, strict_map_key=False, use_list=True, object_pairs_hook=dict)


@pytest.mark.parametrize("name", TYPES)
def test_what_is_said_to_be_taken_is_taken(name: str) -> None:
    if name == "`dict[tuple[int, int], int]`":
        pytest.skip("msgpack by itself reads no such keys")
    value = on_the_wire(TYPES[name][1])
    takers = [other for other in TYPES if is_said_to_take(DOCUMENTS[other], DOCUMENTS[name])]
    assert {name, "`Any`", "`object`"} <= {*takers}
    for other in takers:
        convert(value, plan(TYPES[other][0]))  # it raises what does not fit


def test_maps_are_in_no_set_of_anything() -> None:
    whole, keys = described(set[Any]), described(set[Key])
    assert not is_said_to_take(whole, keys)
    assert is_said_to_take(described(list[Any]), keys)
    assert isinstance(keys.methods[0].params[0].type.parts[0], Ref)
