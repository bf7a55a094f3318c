"""What is made for a message, and hears what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import Any

import pytest
from support.departures import Told
from support.descriptors import refuse_descriptors
from support.link import LARGE, SMALL_LIMIT, End, one_end
from support.packets import fill
from support.scarcity import table_full
from support.waiting import turns_of_the_loop

from seqrpc import (
    ConnectionLost,
    LocalProtocolError,
    PermissionDenied,
    TooLarge,
)
from seqrpc.protocol.values import BareValues, Departure


class Departing(BareValues):
    """Knows these departures."""

    def travels(self, value: Any) -> bool:
        return isinstance(value, Told)

    def departure_of(self, value: Any) -> Departure | None:
        return value if isinstance(value, Told) else None


async def _send(end: End, way: str, *values: Any) -> None:
    """Send values in one of the ways."""
    if way == "call":
        calling = asyncio.create_task(end.connection.caller.request("m", values))
        await turns_of_the_loop()
        if calling.done():
            calling.result()
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    elif way == "notify":
        await end.connection.caller.send_notify("m", values)
    elif way == "answer":
        end.answers.send_result(1, values)
    else:
        end.answers.send_error(1, "a.b", "text", values)


WAYS = pytest.mark.parametrize("way", ["call", "notify", "answer", "error"])


def not_sent(way: str) -> list[str]:
    """Return what a departure hears: what is in arguments stays the caller's, what is in answers was given away."""
    return ["unsent"] if way in ("call", "notify") else ["given up"]


# What is made for a message, and hears what becomes of it


@WAYS
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("queued", [False, True], ids=["at_once", "queued"])
async def test_departures_hear_that_they_are_sent(way: str, large: bool, queued: bool) -> None:
    async with one_end(living=Departing()) as (end, _raw):
        if queued:
            fill(end.sock)
        departures = [Told(), Told()]
        await _send(end, way, *departures, LARGE if large else b"")
        assert [departure.told for departure in departures] == [["sent"], ["sent"]]


@WAYS
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_departures_hear_that_they_are_not_sent_to_who_takes_no_descriptors(way: str, large: bool) -> None:
    async with one_end(living=Departing()) as (end, raw):
        refuse_descriptors(raw)
        departure = Told()
        with pytest.raises(PermissionDenied) if way in ("call", "notify") else contextlib.nullcontext():
            await _send(end, way, departure, LARGE if large else b"")
        assert departure.told == not_sent(way)


@WAYS
async def test_departures_hear_that_they_are_not_sent_when_the_connection_has_ended(way: str) -> None:
    async with one_end(living=Departing()) as (end, raw):
        raw.close()
        await end.connection.wait_closed()
        departure = Told()
        with pytest.raises(ConnectionLost) if way in ("call", "notify") else contextlib.nullcontext():
            await _send(end, way, departure)
        assert departure.told == not_sent(way)


@WAYS
async def test_departures_hear_that_they_are_not_sent_with_what_has_no_descriptor(way: str) -> None:
    async with one_end(living=Departing()) as (end, _raw):
        departure = Told()
        with pytest.raises(ValueError, match="BytesIO has no descriptor"):
            await _send(end, way, departure, io.BytesIO())
        assert departure.told == not_sent(way)


@WAYS
@pytest.mark.parametrize("wrong", [2**70, LARGE], ids=["not_sendable", "over_the_limit"])
async def test_departures_hear_that_they_are_not_sent_with_what_cannot_be_encoded(way: str, wrong: Any) -> None:
    async with one_end(SMALL_LIMIT, Departing()) as (end, _raw):
        departure = Told()
        expected = pytest.raises((LocalProtocolError, TooLarge))
        with contextlib.nullcontext() if way == "error" else expected:
            await _send(end, way, departure, wrong)
        assert departure.told == not_sent(way)


@WAYS
async def test_departures_hear_that_they_are_not_sent_when_no_descriptor_is_left(way: str) -> None:
    async with one_end(living=Departing()) as (end, _raw):
        fill(end.sock)
        departure = Told()
        with table_full(), pytest.raises(OSError) if way in ("call", "notify") else contextlib.nullcontext():
            await _send(end, way, departure)
        assert departure.told == not_sent(way)
