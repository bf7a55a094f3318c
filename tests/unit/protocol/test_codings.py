"""Classes that travel as something else."""

from __future__ import annotations

import ipaddress
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from seqrpc.errors import LocalProtocolError
from seqrpc.protocol import codings
from seqrpc.protocol.codings import Coding, coding_of, register
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


class Coin(Money):
    pass


@dataclass
class Angle:
    degrees: float


class Purse(msgspec.Struct):
    angle: Any
    money: Any = None


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have two classes travel; afterwards they do not."""
    monkeypatch.setattr(codings, "_registered", {})
    codings._search.cache_clear()
    register(Coding(kind=Money, wire_type=int, encode=lambda money: money.cents, decode=Money))
    register(Coding(kind=Angle, wire_type=float, encode=lambda angle: angle.degrees, decode=Angle))
    yield
    codings._search.cache_clear()


def sent(value: Any) -> Any:
    data, lenders = Encoder().encode((value,), ("value",))
    assert lenders == []
    return Decoder().decode(bytes(data), [])[0][0]


@pytest.mark.parametrize(
    "value, wire",
    [
        (pathlib.Path("/a/b"), "/a/b"),
        (pathlib.PureWindowsPath("a"), "a"),
        (pathlib.Path(os.fsdecode(b"/a/\xff")), b"/a/\xff"),
        (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
        (ipaddress.ip_network("fe80::/10"), "fe80::/10"),
        (ipaddress.ip_interface("10.0.0.1/8"), "10.0.0.1/8"),
        (Money(5), 5),
        (Coin(6), 6),
        (Angle(1.5), 1.5),
        ([Money(1), {"a": Angle(2.0)}], [1, {"a": 2.0}]),
        (Purse(Angle(2.0), [Money(3)]), {"angle": 2.0, "money": [3]}),
        ({pathlib.Path("k"): 1}, {"k": 1}),
    ],
    ids=repr,
)
def test_objects_travel_as_what_is_said_wherever_they_are(value: Any, wire: Any) -> None:
    assert sent(value) == wire
    assert sent([value]) == [wire]


@pytest.mark.parametrize(
    "value",
    [
        pathlib.PurePosixPath("a/b"),
        pathlib.Path(os.fsdecode(b"\xff")),
        ipaddress.ip_address("::1"),
        ipaddress.ip_network("10.0.0.0/8"),
    ],
)
def test_they_are_made_again_of_what_came(value: Any) -> None:
    coding = coding_of(type(value))
    assert coding is not None
    made = coding.decode(sent(value))
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    "kind, wire, text", [(pathlib.Path, "a\0b", "null"), (ipaddress.IPv4Address, "1.2.3", "4 octets")]
)
def test_what_they_cannot_be_made_of_is_a_value_error(kind: type, wire: str, text: str) -> None:
    coding = coding_of(kind)
    assert coding is not None
    with pytest.raises(ValueError, match=text):
        coding.decode(wire)


@pytest.mark.parametrize(
    "longest", ["a" * 4_095, "ä" * 2_047, b"\xff" * 4_095, "0/" * 2_047], ids=["a", "ä", "bytes", "parts"]
)
def test_a_path_is_no_longer_than_the_kernel_takes(longest: Any) -> None:
    coding = coding_of(pathlib.PurePosixPath)
    assert coding is not None
    made = coding.decode(longest)
    assert os.fsencode(made) == os.fsencode(longest).rstrip(b"/")
    with pytest.raises(ValueError, match=r"a path has at most 4095 bytes, got 409[678]"):
        coding.decode(longest + longest[:2])


def test_the_texts_of_two_families_are_never_alike() -> None:
    four, six, path = (coding_of(kind) for kind in (ipaddress.IPv4Network, ipaddress.IPv6Address, pathlib.Path))
    assert four is not None
    assert six is not None
    assert path is not None
    assert (four.family, six.family, path.family) == ("IPv4", "IPv6", "")


def test_other_classes_have_no_coding() -> None:
    class Path:
        """Only called as one."""

    assert [coding_of(kind) for kind in (int, str, Path, Purse)] == [None] * 4


@pytest.mark.parametrize("kind", [Money, pathlib.Path])
def test_what_is_known_is_not_registered_again(kind: type) -> None:
    with pytest.raises(ValueError, match=f"how {kind.__name__} travels is known already"):
        register(Coding(kind=kind, wire_type=str, encode=str, decode=kind))


def test_a_class_whose_module_is_loaded_anew_takes_the_place_of_the_old_one() -> None:
    old = Money
    new = type("Money", (), {"__module__": old.__module__, "__qualname__": old.__qualname__})
    register(Coding(kind=new, wire_type=str, encode=lambda money: "new", decode=lambda text: new()))
    assert sent(new()) == "new"
    assert coding_of(old) is None


def test_what_a_registered_class_raises_tells_which_value_it_was() -> None:
    with pytest.raises(LocalProtocolError, match=r"cannot send value\[1\]: .*cents"):
        sent([Money(1), Money.__new__(Money)])
