"""Arguments that are converted, results that are checked, requests of some hundred bytes: the same on either way."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import RawClient, raw_client
from support.lines import at_call, interrupting
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc.aio.accounts import CALLS
from seqrpc.aio.connection import link_of
from seqrpc.kernel.credentials import Credentials


@dataclasses.dataclass
class Point:
    """What is taken apart to be sent."""

    x: int
    y: float = 0.5


@dataclasses.dataclass
class Line:
    """One that holds others."""

    ends: list[Point]
    name: str | None = None


class Counting(seqrpc.policy.Policy):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.until_ns = 0  # it takes until then

    def admits(self, caller: Credentials | None) -> bool:
        self.asked += 1
        while time.monotonic_ns() < self.until_ns:
            pass
        return caller is not None


COUNTING = Counting()


class Desk(seqrpc.Service):
    """Takes and gives what has to be converted."""

    def __init__(self) -> None:
        self.made = 0
        self.connections: list[seqrpc.Connection] = []

    @seqrpc.method
    async def mirror(self, point: Point) -> Point:
        return Point(int(point.y), float(point.x))

    @seqrpc.method
    async def line(self, line: Line, more: list[int] | None = None) -> Line:
        return Line(line.ends[::-1], line.name)

    @seqrpc.method(allow=COUNTING)
    async def total(self, numbers: list[float], name: str = "") -> float:
        self.made += 1
        return sum(numbers)

    @seqrpc.method
    async def wrong(self, what: str) -> Point:
        result: Any = {"text": "text", "number": 5, "field": Point("x")}[what]  # type: ignore[arg-type]
        return result  # type: ignore[no-any-return]

    @seqrpc.method
    async def late(self) -> Point:
        self.connections.append(seqrpc.current_call().connection)
        await asyncio.sleep(0)
        return Point(1)

    @seqrpc.method
    async def ordered(self) -> Point:
        point = Point(1, 2.0)
        point.__dict__ = OrderedDict(x=1, y=2.0)
        point.__dict__.move_to_end("x")
        return point

    @seqrpc.method
    async def short(self, text: str) -> int:
        return len(text)


@pytest.fixture
async def desk_and_raw(socket_path: Path) -> AsyncIterator[tuple[Desk, RawClient]]:
    desk = Desk()
    async with seqrpc.serve(desk, socket_path):
        with raw_client(socket_path) as client:
            yield desk, client


@pytest.fixture
async def raw(desk_and_raw: tuple[Desk, RawClient]) -> RawClient:
    return desk_and_raw[1]


async def answer(client: RawClient, *message: Any) -> Any:
    await client.send(0, 1, *message)
    kind, call_id, error, result = await client.receive()
    assert (kind, call_id) == (1, 1)
    return error or result


async def test_objects_go_there_and_back(socket_path: Path) -> None:
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        desk = there.proxy(Desk)
        for _ in range(3):  # the first teaches the encoders the class
            assert await desk.mirror(Point(2, 3.0)) == Point(3, 2.0)
            assert await desk.line(Line([Point(1), Point(2)], "b"), [1]) == Line([Point(2), Point(1)], "b")


async def test_an_object_with_other_attributes_than_its_class_has_is_sent_as_ever(socket_path: Path) -> None:
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        desk = there.proxy(Desk)
        assert await desk.mirror(Point(2, 3.0)) == Point(3, 2.0)
        more: Any = Point(4, 5.0)
        more.z = 1
        assert await desk.mirror(more) == Point(5, 4.0)
        less = Point(6, 7.0)
        del less.y  # the class has its default
        assert await desk.mirror(less) == Point(0, 6.0)


async def test_attributes_that_are_no_plain_dictionary_are_left_to_it(raw: RawClient) -> None:
    for _ in range(2):  # once the class is known, its objects are sent as their attributes
        await answer(raw, "Desk.mirror", [{"x": 1}])
    assert [*await answer(raw, "Desk.ordered", [])] == ["y", "x"]


@pytest.mark.parametrize("args", [[], [{"x": "1"}], [{"y": 1.0}], [5], [{"x": 1}, 2]])
async def test_arguments_that_do_not_fit_are_refused(args: list[Any], raw: RawClient) -> None:
    assert (await answer(raw, "Desk.mirror", args))[0] == "rpc.InvalidParams"


@pytest.mark.parametrize("what", ["text", "number", "field"])
async def test_a_result_that_does_not_fit_is_told(what: str, raw: RawClient) -> None:
    code, message, _data = await answer(raw, "Desk.wrong", [what])
    assert code == "rpc.Internal"
    assert await answer(raw, "Desk.mirror", [{"x": 1}]) == {"x": 0, "y": 1.0}, message


class Interrupted(BaseException):
    """What a signal handler raises."""


async def test_a_call_whose_result_is_being_checked_as_a_signal_comes_is_answered_and_has_ended(
    desk_and_raw: tuple[Desk, RawClient], caplog: pytest.LogCaptureFixture
) -> None:
    desk, client = desk_and_raw
    raised: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: raised.append(context["exception"]))
    for _ in range(2):
        await answer(client, "Desk.late", [])
    account = link_of(desk.connections[0]).account

    def interrupt() -> None:
        raise Interrupted

    with interrupting(at_call("check"), interrupt) as came:
        await client.send(0, 2, "Desk.late", [])
        await comes_true(lambda: bool(came))
    _kind, call_id, error, _result = await asyncio.wait_for(client.receive(), PATIENCE)
    assert (call_id, error[0]) == (2, "rpc.Internal")
    assert "Interrupted" in caplog.text
    assert account.held[CALLS] == 0
    desk.connections.clear()
    gc.collect()
    assert raised == []


@pytest.mark.parametrize("size", [100, 225, 230, 235, 240, 256, 257, 1000, 4060, 4070, 4075, 4080, 4090, 4096, 5000])
async def test_requests_of_any_length_are_taken(size: int, raw: RawClient) -> None:
    assert await answer(raw, "Desk.short", ["x" * size]) == size
    numbers = [1.0] * (size // 9) + [1] * (size % 9)
    assert await answer(raw, "Desk.total", [numbers]) == len(numbers)
    assert await answer(raw, "Desk.short", ["é" * (size // 2)]) == size // 2, "not all of it is in ASCII"


@pytest.mark.parametrize("count", [1, 100])
async def test_the_policy_is_asked_once(count: int, raw: RawClient) -> None:
    COUNTING.asked = 0
    assert await answer(raw, "Desk.total", [[1.0] * count]) == count
    assert COUNTING.asked == 1
    assert (await answer(raw, "Desk.total", ["wrong" * count]))[0] == "rpc.InvalidParams"
    assert COUNTING.asked == 2


@pytest.mark.parametrize("count", [1, 100])
async def test_a_deadline_that_passes_while_the_policy_is_asked_is_told(
    count: int, desk_and_raw: tuple[Desk, RawClient]
) -> None:
    desk, client = desk_and_raw
    COUNTING.asked, COUNTING.until_ns = 0, time.monotonic_ns() + 30_000_000
    error = await answer(client, "Desk.total", [[1.0] * count], {"deadline": COUNTING.until_ns})
    assert error == ["rpc.DeadlineExceeded", "the deadline passed before the call began", None]
    assert (COUNTING.asked, desk.made) == (1, 0)


@pytest.mark.parametrize(
    "argument",
    [
        b"\xc1", b"\xd9\xff", b"\xa1\xff", b"\xdb\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff", b"\xd4\x01\x00", b"\x81\x01\x01", b"\xde\xff\xff", b"\x92\xc0", b"\xd8\x01",
    ],
)  # fmt: skip
async def test_a_long_request_that_is_not_plain_is_judged_by_python(argument: bytes, raw: RawClient) -> None:
    head = msgpack.packb([0, 1, "Desk.short"])[1:]
    packet = b"\x94" + head + b"\x92" + msgpack.packb("x" * 400) + argument
    raw.sock.send(packet)
    message = await raw.receive()
    assert message[0] == 5 or message[2][0] == "rpc.InvalidParams", message


@pytest.mark.skipif(seqrpc.__twin__ != "native", reason="nothing is native here")
async def test_all_of_it_goes_the_quick_way(socket_path: Path, left_to_python: Callable[[], list[bytes]]) -> None:
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        desk = there.proxy(Desk)
        await desk.mirror(Point(1))
        await desk.line(Line([]))
        came = left_to_python()
        await desk.mirror(Point(1))
        await desk.line(Line([Point(number) for number in range(40)]), list(range(100)))
        assert await desk.total([0.5] * 400) == 200.0
        assert came == []
