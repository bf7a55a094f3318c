"""What cannot be sent: its author finds method and place in the log, its caller a number that is there, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import pytest
from support.daemons import on_a_pair
from support.incidents import AN_INCIDENT

import seqrpc


@dataclass
class Page:
    text: Any


class Book(msgspec.Struct):
    pages: list[Page]


class Point(NamedTuple):
    x: Any
    y: Any


class Unknown:
    """Of a type that nobody knows."""


BAD = {
    "far": (2**64, "integers have at most 64 bits, this one has 65"),
    "lone": ("\udcff", "'utf-8' codec can't encode character"),
    "unknown": (Unknown(), "a value of type Unknown cannot be sent"),
}

PLACES: dict[str, Any] = {
    "['a'][1]": lambda bad: {"a": [1, bad]},
    ".text": Page,
    ".pages[0].text": lambda bad: Book([Page(bad)]),
    "[0].y": lambda bad: [Point(1, bad)],
}


class Library(seqrpc.Service):
    def __init__(self, value: Any) -> None:
        self.value = value

    @seqrpc.method
    async def get(self) -> Any:
        return self.value

    @seqrpc.method
    def get_from_a_thread(self) -> Any:
        return self.value

    @seqrpc.method
    async def items(self) -> AsyncIterator[Any]:
        yield "fine"
        yield self.value

    @seqrpc.method
    async def send(self, value: Any) -> None: ...


def check(caught: seqrpc.Internal, where: str, told: str, log: str) -> None:
    assert caught.message == AN_INCIDENT
    incident = caught.message.split()[1].rstrip(";")
    assert f"! '{where}' failed (incident {incident})" in log
    assert told in log


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", ["get", "get_from_a_thread"])
async def test_a_result(method: str, place: str, bad: str, caplog: pytest.LogCaptureFixture) -> None:
    value, reason = BAD[bad]
    async with on_a_pair(Library(PLACES[place](value))) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await connection.call(f"Library.{method}")
    check(caught.value, f"Library.{method}", f"cannot send result{place}: {reason}", caplog.text)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", PLACES)
async def test_an_item(place: str, bad: str, caplog: pytest.LogCaptureFixture) -> None:
    value, reason = BAD[bad]
    async with on_a_pair(Library(PLACES[place](value))) as connection:
        stream = await connection.call("Library.items")
        assert await anext(stream) == "fine"
        with pytest.raises(seqrpc.Internal) as caught:
            await anext(stream)
    check(caught.value, "Library.items", f"cannot send item{place}: {reason}", caplog.text)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", PLACES)
async def test_an_argument_is_its_caller_s_to_find(place: str, bad: str) -> None:
    value, reason = BAD[bad]
    async with on_a_pair(Library(None)) as connection:
        with pytest.raises(seqrpc.LocalProtocolError) as caught:
            await connection.call("Library.send", PLACES[place](value))
    assert f"cannot send params[0]{place}: {reason}" in str(caught.value)
