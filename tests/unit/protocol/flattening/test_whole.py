"""Values inside dataclasses and Structs that travel as descriptors, and are not taken apart as data."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from pathlib import PurePath
from typing import Any, Literal

import msgspec
import pytest
from support.descriptors import owned

from seqrpc.errors import LocalProtocolError
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.values import EXT_CHANNEL, BareValue, BareValues


@dataclasses.dataclass(eq=False)
class Both:
    """A dataclass, and something that travels."""

    secret: str
    bare: BareValue


class Boths(BareValues):
    def travels(self, value: Any) -> bool:
        return isinstance(value, Both) or super().travels(value)

    def departure_of(self, value: Any) -> Any:
        return value.bare if isinstance(value, Both) else super().departure_of(value)


@dataclasses.dataclass
class Around:
    item: Any
    rest: Any = None


@dataclasses.dataclass(frozen=True)
class Slots:
    __slots__ = ("item",)
    item: Any


class Held(msgspec.Struct):
    item: Any


class Color(enum.Enum):
    RED = "red"


def sent(value: Any, fds: list[OwnedFd]) -> Any:
    """Return what a value is at a receiver that knows only bare values, and how many descriptors go with it."""
    data, lenders = Encoder(living=Boths()).encode((value,), ("value",))
    assert [lender.fileno() for lender in lenders] == [fd.fileno() for fd in fds[: len(lenders)]]
    (received,), problem = Decoder().decode(bytes(data), fds[: len(lenders)])
    assert problem is None
    return received


@pytest.mark.parametrize(
    "wrap, unwrap",
    [
        (Around, lambda got: got["item"]),
        (lambda both: Around(1, both), lambda got: got["rest"]),
        (lambda both: Around(Around(Around(both))), lambda got: got["item"]["item"]["item"]),
        (lambda both: Around([1, (2, both)]), lambda got: got["item"][1][1]),
        (lambda both: Around({"a": {"b": both}}), lambda got: got["item"]["a"]["b"]),
        (lambda both: Around(Slots(both)), lambda got: got["item"]["item"]),
        (lambda both: {both}, lambda got: got[0]),
        (lambda both: [Around(Held(5), [both])], lambda got: got[0]["rest"][0]),
        (Held, lambda got: got["item"]),
        (lambda both: Held([both]), lambda got: got["item"][0]),
        (lambda both: Around(Held({"a": both})), lambda got: got["item"]["item"]["a"]),
    ],
)
def test_what_travels_is_not_taken_apart_wherever_it_is(wrap: Any, unwrap: Any) -> None:
    with owned(1) as fds:
        got = unwrap(sent(wrap(Both("the secret", BareValue(EXT_CHANNEL, fds[0]))), list(fds)))
        assert isinstance(got, BareValue)
        assert got.ext_type == EXT_CHANNEL
        got.fd.close()


def test_several_are_all_found_and_shared_parts_are_looked_at_once() -> None:
    with owned(3) as fds:
        both = [Both(str(n), BareValue(EXT_CHANNEL, fd)) for n, fd in enumerate(fds)]
        got = sent([Around(both[0], [both[1]]), Around(1, [2]), Around(both[2])], list(fds))
        assert got[1] == {"item": 1, "rest": [2]}
        for bare in (got[0]["item"], got[0]["rest"][0], got[2]["item"]):
            bare.fd.close()
    deep: Any = Around(1)
    for _ in range(20):  # a million paths to the innermost
        deep = Around(deep) if _ % 2 else Around([deep, 1])
    shared: Any = [1]
    for _ in range(12):
        shared = (shared, shared)
    assert sent(Around(deep), [])["rest"] is None
    assert sent(Around(shared), [])["rest"] is None


def test_plain_values_are_taken_apart_as_ever() -> None:
    everything = Around({Color.RED: {1, 2}}, [uuid.UUID(int=5), Held(5), frozenset({1}), Slots(None)])
    assert sent(everything, []) == {
        "item": {"red": [1, 2]},
        "rest": [str(uuid.UUID(int=5)), {"item": 5}, [1], {"item": None}],
    }
    assert sent([Color.RED, uuid.UUID(int=5), {1}], []) == ["red", str(uuid.UUID(int=5)), [1]]


def test_a_dataclass_that_holds_itself_is_refused() -> None:
    around = Around(None)
    around.item = [around]
    with pytest.raises(LocalProtocolError, match="cannot send"):
        sent(around, [])
    with owned(1) as fds:
        around.rest = Both("the secret", BareValue(EXT_CHANNEL, fds[0]))
        with pytest.raises(LocalProtocolError, match="cannot send"):
            sent(around, fds)


class Plain(msgspec.Struct):
    """Holds what its annotations say, and so needs no look."""

    number: int
    within: Plain | None = None


def test_structs_are_taken_apart_as_ever() -> None:
    shared = [1]
    assert sent([Plain(1, Plain(2)), Held([shared, shared])], []) == [
        {"number": 1, "within": {"number": 2, "within": None}},
        {"item": [[1], [1]]},
    ]


class Unresolved(msgspec.Struct):
    """Has an annotation that cannot be resolved here."""

    what: NoSuchName  # type: ignore[name-defined]  # noqa: F821
    place: Any = None


class Known(msgspec.Struct):
    """Holds nothing but what msgspec takes apart as it should be."""

    kind: Literal["a", "b"]
    color: Color | None = None
    numbers: tuple[int, ...] = ()
    path: PurePath | None = None


class Plainest(msgspec.Struct):
    """Holds a literal, and no more."""

    kind: Literal["a", "b"]


def test_what_travels_as_something_else_does_so_in_a_struct_too() -> None:
    assert sent(PurePath("a"), []) == "a"
    assert sent(Plainest("a"), []) == {"kind": "a"}
    assert sent(Known("a", Color.RED, (1, 2), PurePath("x")), []) == {
        "kind": "a",
        "color": "red",
        "numbers": [1, 2],
        "path": "x",
    }
    assert sent(Unresolved([PurePath("a")], msgspec.UNSET), []) == {"what": ["a"]}
