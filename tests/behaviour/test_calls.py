"""Calls by name and by proxy, their arguments and what they return, and what surrounds them."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import os
import pathlib
import time
import uuid
from typing import Any

import pytest
from support.daemons import Stage
from support.echo import Echo
from support.faces import Kind
from support.waiting import comes_true

import seqrpc
from seqrpc import Limits

VALUES = [
    None, True, False, 0, -1, 2**63, -(2**63), 2**64 - 1, 0.5, float("inf"), "", "ünïcode", "x" * 1000, b"",
    b"\0\xff" * 50, [], [1, [2, [3]]], {}, {"a": {"b": None}}, {1: "one", b"k": 2},
    dt.datetime(2024, 5, 6, tzinfo=dt.UTC),
]  # fmt: skip


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


class Typed(seqrpc.Service):
    @seqrpc.method
    async def point(self, point: Point) -> Point:
        return Point(point.y.__trunc__(), point.x)

    @seqrpc.method
    async def various(
        self, when: dt.datetime, colour: Colour, path: pathlib.Path, name: uuid.UUID, some: set[int]
    ) -> tuple[dt.datetime, Colour, pathlib.Path, uuid.UUID, set[int]]:
        return when, colour, path, name, some

    @seqrpc.method
    def in_a_thread(self, a: int, b: int = 10) -> int:
        return a * b

    @seqrpc.method
    async def add(self, a: int, b: int = 10, *, c: int = 100) -> int:
        return a + b + c


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_plain_values_come_back_as_they_were_sent(kind: Kind, value: Any) -> None:
    async with kind.serving(Echo()) as client:
        result = await client.call("Echo.give", value)
        assert (result, type(result)) == (value, type(value))


async def test_arguments_go_by_position_and_by_name(kind: Kind) -> None:
    async with kind.serving(Typed()) as client:
        assert await client.call("Typed.add", 1, 2) == 103
        assert await client.call("Typed.add", a=1, c=5) == 16
        typed = client.proxy(Typed)
        assert [await typed.add(1), await typed.add(1, 2), await typed.add(1, b=2, c=3), await typed.add(c=1, a=1)] == [
            111, 103, 6, 12,
        ]  # fmt: skip
        assert await typed.in_a_thread(3) == 30


async def test_values_are_converted_as_they_are_annotated(kind: Kind) -> None:
    async with kind.serving(Typed()) as client:
        typed = client.proxy(Typed)
        assert await typed.point(Point(3, 7.5)) == Point(7, 3)
        now, name = dt.datetime.now(dt.UTC), uuid.uuid4()
        given = (now, Colour.RED, pathlib.Path("/a"), name, {1, 2})
        assert await typed.various(*given) == given
        assert await client.call("Typed.point", {"x": 1}) == {"x": 0, "y": 1.0}


async def test_many_calls_in_flight_get_their_own_answers(kind: Kind) -> None:
    async with kind.serving(Echo()) as client:
        results = await asyncio.gather(*(client.call("Echo.give", number) for number in range(200)))
        assert results == [*range(200)]


async def test_calls_beyond_the_limit_wait_their_turn(kind: Kind) -> None:
    limits = Limits(max_calls_in_flight=2)
    async with kind.serving(Echo(), server_limits=limits, limits=limits) as client:
        for _ in range(5):  # of those who come at the same time each has to see the others
            results = await asyncio.gather(*(client.call("Echo.give", number) for number in range(50)))
            assert results == [*range(50)]


async def test_with_a_limit_of_one_a_call_that_waits_goes_when_the_one_before_is_answered(kind: Kind) -> None:
    class Gate(seqrpc.Service):
        def __init__(self) -> None:
            self.stage = Stage()

        @seqrpc.method
        async def wait(self) -> str:
            self.stage.reach("began")
            await self.stage.wait("go on")
            return "waited"

        @seqrpc.method
        async def quick(self) -> str:
            return "quick"

    gate = Gate()
    async with kind.serving(gate, limits=Limits(max_calls_in_flight=1)) as client:
        first = asyncio.ensure_future(client.call("Gate.wait"))
        await gate.stage.wait("began")
        second = asyncio.ensure_future(client.call("Gate.quick"))
        gate.stage.reach("go on")
        assert [await first, await second] == ["waited", "quick"]


async def test_a_notice_runs_and_has_no_answer(kind: Kind) -> None:
    echo = Echo()
    async with kind.serving(echo) as client:
        assert await client.notify("Echo.tell", "by name") is None  # type: ignore[func-returns-value]
        assert await client.proxy(Echo).tell("by proxy") is None
        await client.notify("Echo.nothing")
        await client.notify("Echo.tell", word="again")
        await echo.stage.wait("again")
        assert echo.stage.reached == ["by name", "by proxy", "again"]


async def test_metadata_and_deadline_surround_calls(kind: Kind) -> None:
    async with kind.serving(Echo()) as client:
        assert await client.call("Echo.surroundings") == [{}, None]
        with seqrpc.metadata(trace="5"):
            async with kind.timeout(60):
                meta, deadline = await client.proxy(Echo).surroundings()
                with seqrpc.metadata(user="ann"):
                    assert (await client.call("Echo.surroundings"))[0] == {"trace": "5", "user": "ann"}
        assert meta == {"trace": "5"}
        assert 0 < deadline - time.monotonic() <= 60
        assert await client.call("Echo.surroundings") == [{}, None]


async def test_a_call_that_takes_too_long_is_given_up_and_its_handler_cancelled(kind: Kind) -> None:
    echo = Echo()
    async with kind.serving(echo) as client:
        # Whichever side notices first says so.
        told = r"the time given by seqrpc\.timeout is up|the deadline passed while the call ran"
        with pytest.raises(seqrpc.DeadlineExceeded, match=told) as caught:
            async with kind.timeout(0.25):
                await client.call("Echo.wait")
        assert isinstance(caught.value, TimeoutError)
        await echo.stage.wait("ended")
        assert await client.call("Echo.give", 1) == 1


async def test_a_deadline_that_has_passed_sends_nothing(kind: Kind) -> None:
    echo = Echo()
    async with kind.serving(echo) as client:
        with pytest.raises(seqrpc.DeadlineExceeded):
            async with kind.timeout(0):
                await client.call("Echo.wait")
        assert await client.call("Echo.give", 1) == 1
        assert echo.stage.reached == []


async def test_ping_is_answered(kind: Kind) -> None:
    async with kind.serving(Echo()) as client:
        assert await client.call("rpc.ping") is None


async def test_a_connection_says_who_is_there(kind: Kind, socket_path: pathlib.Path) -> None:
    async with seqrpc.serve(Echo(), socket_path), kind.connected(socket_path) as client:
        assert client.peer is not None
        assert (client.peer.pid, client.peer.uid) == (os.getpid(), os.geteuid())
        assert repr(client) == f"<Connection open peer={client.peer!r}>"
        await client.close()
        assert repr(client) == f"<Connection closed peer={client.peer!r}>"
        assert client.closed
        await client.close()
    async with kind.serving(Echo()) as client:
        assert client.peer is None


async def test_a_proxy_says_what_it_stands_for(kind: Kind) -> None:
    async with kind.serving(Echo()) as client:
        assert repr(client.proxy(Echo)) == "<EchoProxy on <Connection open peer=None>>"


async def test_dropped_notices_do_not_hold_a_deadline(kind: Kind) -> None:
    echo = Echo()
    async with kind.serving(echo) as client:
        async with kind.timeout(60):
            await client.notify("Echo.tell", "soon")
        await comes_true(lambda: echo.stage.reached == ["soon"])
