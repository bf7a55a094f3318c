"""Objects that travel as something else are made of what came."""

from __future__ import annotations

import datetime as dt
import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pytest
from support.annotations import Box, converted

from seqrpc.errors import InvalidParams
from seqrpc.interface.conversion import Terms, convert
from seqrpc.interface.planning import plan
from seqrpc.interface.standins import Planned
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

HOME = IPv4Address("127.0.0.1")


@pytest.mark.parametrize(
    "annotation, value, made",
    [
        (Path, "/a", Path("/a")),
        (Path, b"/a\xff", Path("/a\udcff")),
        (PurePosixPath, "a", PurePosixPath("a")),
        (list[Path | None], ["a", None], [Path("a"), None]),
        (IPv4Address, "127.0.0.1", HOME),
        (IPv4Network, "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8")),
        (IPv4Address | IPv6Address, "::1", IPv6Address("::1")),
        (IPv4Address | IPv6Address | int, "127.0.0.1", HOME),
        (IPv4Address | None, "127.0.0.1", HOME),
        (dict[IPv4Address, list[IPv4Address]], {"127.0.0.1": ["127.0.0.1"]}, {HOME: [HOME]}),
        (dict[Path, int], {b"a": 1, "b": 2}, {Path("a"): 1, Path("b"): 2}),
        (dict[IPv4Address | IPv6Address, Path | None], {"::1": "a"}, {IPv6Address("::1"): Path("a")}),
        (dict[bytes | dt.date, int], {"2020-01-01": 1, b"a": 2}, {dt.date(2020, 1, 1): 1, b"a": 2}),
        (dict[tuple[Path, int], int], {("a", 1): 1}, {(Path("a"), 1): 1}),
        (dict[IPv4Address, OwnedFd | str], {"127.0.0.1": "a"}, {HOME: "a"}),
        (list[dict[IPv4Address, dict[Path, int]]], [{"127.0.0.1": {"a": 1}}], [{HOME: {Path("a"): 1}}]),
        (set[IPv4Address], ["127.0.0.1", "127.0.0.1"], {HOME}),
        (Box[IPv4Address], {"item": "127.0.0.1"}, Box(HOME)),
        (Box[Path | OwnedFd], {"item": "a"}, Box(Path("a"))),
        (str | bytes, "a", "a"),
        (str | bytes, b"a", b"a"),
    ],
)
def test_objects_are_made_of_what_came(annotation: Any, value: Any, made: Any) -> None:
    result = converted(value, annotation)
    assert result == made
    assert type(result) is type(made)


@pytest.mark.parametrize(
    "annotation, value, message",
    [
        (Path, 5, r"Expected `str \| bytes`, got `int`"),
        (Path, "a\0b", "a path has no null characters"),
        (list[Path], ["a", 5], r"Expected `str \| bytes`, got `int` - at `\$\[1\]`"),
        (IPv4Address, 5, "Expected `str`, got `int`"),
        (list[IPv4Address], ["::1"], r"'::1'.* - at `\$\[0\]`"),
        (dict[IPv4Address, int], {"::1": 1}, "'::1'"),
        (dict[IPv4Address, int], {5: 1}, "Expected `str`, got `int`"),
        (dict[IPv4Address, int], [1], "Expected `object`, got `array`"),
        (dict[IPv4Address, list[int]], {"127.0.0.1": ["a"]}, r"Expected `int`, got `str` - at `\$\[\.\.\.\]\[0\]`"),
        (IPv4Address | IPv6Address, "here", r"Expected `IPv4Address \| IPv6Address`, got `str`"),
        (IPv4Address | IPv6Address, 5, r"Expected `IPv4Address \| IPv6Address`, got `int`"),
    ],
)
def test_what_they_are_not_made_of_does_not_fit(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        converted(value, annotation)


def test_maps_with_keys_that_are_made_are_bounded() -> None:
    value = {f"10.0.0.{number}": [number] for number in range(4)}
    for annotation in (dict[IPv4Address, list[int]], list[dict[IPv4Address, list[int]]] | int):
        came = value if "list[dict" not in str(annotation) else [value]
        convert(came, plan(annotation), Terms(InvalidParams, 4))
        with pytest.raises(msgspec.ValidationError, match=r"at most 3 elements"):
            convert(came, plan(annotation), Terms(InvalidParams, 3))
    with pytest.raises(msgspec.ValidationError, match=r"at most 3 elements"):
        convert({"10.0.0.1": [1, 2, 3, 4]}, plan(dict[IPv4Address, set[int]]), Terms(InvalidParams, 3))


def test_of_a_class_that_nobody_knows_nothing_is_made() -> None:
    with pytest.raises(msgspec.ValidationError, match="there is no way to make a complex"):
        convert("5", Planned(complex))


def test_items_are_looked_at_one_by_one() -> None:
    for wanted in (OwnedFd, Buffer):
        with pytest.raises(msgspec.ValidationError, match=r"Expected a .*, got `str` - at `\$\[0\]`"):
            converted(["a"], list[wanted])  # type: ignore[valid-type]
