"""What was given away, and nobody gets: it is let go as if its receiver had let go at once.

The service keeps a reference to all that it gives, so that nothing here is closed by the garbage collector.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from support.daemons import Stage, on_a_pair, raw_client
from support.vaults import proxy_close
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio import objects
from seqrpc.aio.channels import ChannelEnd, end_of
from seqrpc.aio.held import HeldValues
from seqrpc.aio.living import LivingValues
from seqrpc.aio.proxy import callee_of
from seqrpc.aio.streams import reader_of
from seqrpc.calls.departures import Source
from seqrpc.limits import DEFAULT_LIMITS, MAX_VALUES_SEARCHED, Limits

LIMITS = Limits(max_message_bytes=100_000)


class Failed(seqrpc.RpcError, code="given.Failed"):
    """Brings what it is given."""

    def __init__(self, data: Any = None) -> None:
        super().__init__("failed", data)


class Box(seqrpc.Service):
    """Counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    @seqrpc.method
    async def look(self) -> int:
        return self.closed

    async def close(self) -> None:
        self.closed += 1


class Plain(seqrpc.Service):
    """Has nothing to close."""


class Iterator:
    """An async iterator that is no generator."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __aiter__(self) -> Iterator:
        return self

    async def __anext__(self) -> int:
        return 1

    async def aclose(self) -> None:
        self.stage.reach("iterator closed")


class Given:
    """One of each kind of what a result may hold, and whether it was let go."""

    def __init__(self, stream: seqrpc.Stream[int], box: Any, held: Box) -> None:
        self.stage = Stage()
        self.fd = seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        self.box = Box()
        self.begun = self.items("begun")
        self.unbegun = self.items("unbegun")
        self.stream, self.proxy, self.held = stream, box, held
        self.iterator = Iterator(self.stage)

    async def items(self, name: str) -> AsyncIterator[int]:
        self.stage.reach(f"{name} began")
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            self.stage.reach(f"{name} ended")

    def values(self) -> list[Any]:
        """Return all that is given away, with a part of it twice and some of it deeper."""
        deeper = {"held": self.held, "streams": [self.begun, self.unbegun, self.iterator]}
        return [self.fd, self.box, deeper, Plain(), (self.stream, self.proxy), self.box]

    async def is_let_go(self, *, had_left: bool = False) -> None:
        """Wait until all is let go; streams that had left for somebody have begun."""
        await self.stage.wait("begun ended")
        await self.stage.wait("iterator closed")
        await comes_true(lambda: self.box.closed > 0)
        await turns_of_the_loop()
        assert self.fd.closed
        assert self.box.closed == 1
        assert self.held.closed == 0, "somebody else holds it"
        assert ("unbegun began" in self.stage.reached) == had_left
        assert self.stage.reached.count("iterator closed") == 1
        assert self.stream.closed
        end = callee_of(self.proxy)
        assert isinstance(end, ChannelEnd)
        assert end.closed


class Giver(seqrpc.Service):
    """Gives away what never arrives."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.held = Box()
        self.given: Given
        self.peer: socket.socket | None = None
        self.many: list[Box] = []
        self.thread_may_end = threading.Event()

    @seqrpc.method
    async def prepare(self, stream: AsyncIterator[int], box: Box) -> Box:
        assert isinstance(stream, seqrpc.Stream)
        self.given = Given(stream, box, self.held)
        await anext(self.given.begun)
        return self.held

    @seqrpc.method
    async def give(self, how: str) -> Any:
        return self.make(how)

    @seqrpc.method(oneway=True)
    async def give_oneway(self, how: str) -> None:
        return self.make(how)  # type: ignore[no-any-return] # nobody gets it

    def make(self, how: str) -> Any:
        values = self.given.values()
        if how.startswith("error"):
            raise Failed(self.variant(how.removeprefix("error, "), values))
        return self.variant(how, values)

    def variant(self, how: str, values: list[Any]) -> Any:
        if how == "peer gone":
            assert self.peer is not None
            self.peer.close()
        elif how == "too large":
            return [*values, *[1] * 200_000]
        elif how == "far behind in what is too large":
            return [[1] * 200_000, *values]
        elif how == "unsendable behind":
            return [*values, object()]
        elif how == "unsendable before":
            return [object(), *values]
        elif how == "a closed descriptor beside":
            closed = seqrpc.OwnedFd.dup(0)
            closed.close()
            return [*values, closed]
        return values

    @seqrpc.method
    async def give_though_cancelled(self, how: str) -> Any:
        self.stage.reach("began")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return self.make(how)

    @seqrpc.method
    def give_in_a_thread(self, how: str) -> Any:
        self.stage.reach("began")
        self.thread_may_end.wait()
        return self.make(how)

    @seqrpc.method
    async def stream(self, how: str) -> AsyncIterator[Any]:
        yield "first"
        self.stage.reach("began")
        if "cancelled" in how:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        if "error" in how:
            raise Failed(self.variant(how.removeprefix("error, "), self.given.values()))
        yield self.variant(how, self.given.values())

    @seqrpc.method
    async def fill(self, size: int) -> bytes:
        return bytes(size)

    @seqrpc.method
    async def boxes(self) -> AsyncIterator[list[Box]]:
        while True:
            self.many.append(Box())
            yield [self.many[-1]]
            await asyncio.sleep(0)


async def numbers() -> AsyncIterator[int]:
    while True:
        yield 1


class Scene:
    """A giver, who was given a stream and an object, and a connection of which something is to go wrong."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.giver = Giver()
        self.box = Box()

    async def prepare(self) -> seqrpc.Connection:
        first = await self.stack.enter_async_context(on_a_pair(self.giver, limits=LIMITS))
        self.held = await first.proxy(Giver).prepare(numbers(), self.box)
        return await self.stack.enter_async_context(on_a_pair(self.giver, limits=LIMITS))

    async def ends_well(self, *, had_left: bool = False) -> None:
        await self.giver.given.is_let_go(had_left=had_left)
        await comes_true(lambda: self.box.closed == 1)  # the caller's, which was received and sent on
        assert await self.held.look() == 0


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield Scene(stack)
    assert objects._held == {}


UNSENDABLE = ["too large", "unsendable behind", "unsendable before", "a closed descriptor beside"]


@pytest.mark.parametrize("how", UNSENDABLE)
async def test_a_result_that_cannot_be_sent_is_let_go(scene: Scene, how: str) -> None:
    connection = await scene.prepare()
    with pytest.raises(seqrpc.RpcError):
        await connection.call("Giver.give", how)
    await scene.ends_well()


async def test_of_a_result_that_is_too_large_all_is_let_go_wherever_it_is(scene: Scene) -> None:
    assert MAX_VALUES_SEARCHED < 100_000, "behind what is looked through"
    connection = await scene.prepare()
    with pytest.raises(seqrpc.TooLarge):
        await connection.call("Giver.give", "far behind in what is too large")
    await scene.ends_well()


@pytest.mark.parametrize("how", UNSENDABLE)
async def test_an_error_is_told_without_data_that_cannot_be_sent_which_are_let_go(scene: Scene, how: str) -> None:
    connection = await scene.prepare()
    with pytest.raises(Failed) as caught:
        await connection.call("Giver.give", f"error, {how}")
    assert caught.value.data is None
    await scene.ends_well()


@pytest.mark.parametrize("how", ["", "error", "unsendable behind", "error, too large"])
@pytest.mark.parametrize("method", ["give", "give_oneway"])
async def test_the_answer_to_a_notify_is_let_go(scene: Scene, method: str, how: str) -> None:
    connection = await scene.prepare()
    await connection.notify(f"Giver.{method}", how)
    await scene.ends_well()


@pytest.mark.parametrize("how", ["", "error", "unsendable behind", "error, unsendable before"])
async def test_an_answer_to_a_connection_that_was_closed_is_let_go(scene: Scene, how: str) -> None:
    connection = await scene.prepare()
    calling = asyncio.ensure_future(connection.call("Giver.give_though_cancelled", how))
    await scene.giver.stage.wait("began")
    await connection.close()
    with pytest.raises(seqrpc.ConnectionLost):
        await calling
    await scene.ends_well()


@pytest.mark.parametrize("how", ["peer gone", "error, peer gone"])
async def test_an_answer_to_a_peer_that_went_while_it_was_made_is_let_go(scene: Scene, how: str) -> None:
    await scene.prepare()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(scene.giver, sock=theirs):
        with raw_client(ours) as client:
            scene.giver.peer = ours
            await client.send(0, 1, "Giver.give", [how])
            await scene.ends_well()


@pytest.mark.parametrize("how", ["", "error"])
async def test_an_answer_that_was_on_its_way_is_let_go_when_nobody_reads_it(scene: Scene, how: str) -> None:
    await scene.prepare()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(scene.giver, sock=theirs):
        with raw_client(ours) as client:
            for number in range(4):  # which is more than the socket holds
                await client.send(0, number, "Giver.fill", [60_000])
            await client.send(0, 4, "Giver.give", [how])
            await comes_true(lambda: scene.giver.given.fd.closed)
            assert scene.giver.given.box.closed == 0, "it may arrive yet"
        await scene.ends_well(had_left=True)


@pytest.mark.parametrize("how", ["", "error", "unsendable before"])
async def test_what_a_thread_returns_after_its_call_ended_is_let_go(scene: Scene, how: str) -> None:
    connection = await scene.prepare()
    calling = asyncio.ensure_future(connection.call("Giver.give_in_a_thread", how))
    await comes_true(lambda: "began" in scene.giver.stage.reached)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await connection.call("rpc.ping")  # the handler was cancelled
    await turns_of_the_loop()
    scene.giver.thread_may_end.set()
    await scene.ends_well()


@pytest.mark.parametrize("how", UNSENDABLE)
async def test_an_item_that_cannot_be_sent_is_let_go(scene: Scene, how: str) -> None:
    connection = await scene.prepare()
    stream = connection.proxy(Giver).stream(how)
    assert await anext(stream) == "first"
    with pytest.raises(seqrpc.RpcError):
        await anext(stream)
    await scene.ends_well()


@pytest.mark.parametrize("how", UNSENDABLE[:3])
async def test_the_end_of_a_stream_is_told_without_data_that_cannot_be_sent_which_are_let_go(
    scene: Scene, how: str
) -> None:
    connection = await scene.prepare()
    stream = connection.proxy(Giver).stream(f"error, {how}")
    assert await anext(stream) == "first"
    with pytest.raises(Failed) as caught:
        await anext(stream)
    assert caught.value.data is None
    await scene.ends_well()


@pytest.mark.parametrize("what", ["item", "error"])
@pytest.mark.parametrize("end", ["reader", "server"])
async def test_what_a_source_gives_after_its_stream_ended_is_let_go(scene: Scene, end: str, what: str) -> None:
    await scene.prepare()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(scene.giver, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        stream = seqrpc.Stream.of(connection.proxy(Giver).stream(f"{what} though cancelled"))
        assert await anext(stream) == "first"
        await scene.giver.stage.wait("began")
        await (stream.aclose() if end == "reader" else server.close())
        await scene.ends_well()
        await stream.aclose()


@pytest.mark.parametrize("end", ["reader", "dropping what came", "server"])
async def test_objects_in_items_that_nobody_takes_are_let_go(end: str) -> None:
    giver = Giver()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(giver, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        stream = seqrpc.Stream.of(connection.proxy(Giver).boxes())
        first = await anext(stream)
        made = -1
        while made < len(giver.many):  # until there is no more room
            made = len(giver.many)
            await turns_of_the_loop(20)
        assert len(giver.many) > 5
        if end == "dropping what came":
            assert reader_of(stream)._receive()
        if end == "server":
            await server.close()
        await stream.aclose()
        await comes_true(lambda: all(box.closed for box in giver.many[1:]))
        del first
    assert [box.closed for box in giver.many] == [1] * len(giver.many)


async def test_what_is_in_arguments_that_could_not_be_sent_stays_the_caller_s(scene: Scene) -> None:
    connection = await scene.prepare()
    given = scene.giver.given
    with pytest.raises(seqrpc.LocalProtocolError):
        await connection.call("Giver.give", [*given.values(), object()])
    await connection.close()
    with pytest.raises(seqrpc.ConnectionLost):
        await connection.call("Giver.give", given.values())
    with pytest.raises(seqrpc.ConnectionLost):
        await connection.notify("Giver.give", given.values())
    await turns_of_the_loop()
    assert not given.fd.closed
    assert given.box.closed == 0
    assert not given.stream.closed
    assert await anext(given.stream) == 1
    assert await given.proxy.look() == 0
    assert given.stage.reached == ["begun began"]
    await proxy_close(scene.held)
    living = LivingValues(DEFAULT_LIMITS, held := HeldValues())
    given.fd.close()
    for value in (given.box, given.begun, given.iterator, given.stream, given.proxy):
        living.give_up(value)
    await held.wait_stopped()
    assert given.box.closed == 1


# By itself


async def test_a_server_that_closes_waits_for_what_is_closed_because_nobody_got_it() -> None:
    class Slow(Box):
        async def close(self) -> None:
            await turns_of_the_loop()
            await super().close()

    living, slow = LivingValues(DEFAULT_LIMITS, held := HeldValues()), Slow()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await turns_of_the_loop()
            slow.closed += 10

    begun = items()
    await anext(begun)
    for value in (slow, begun, slow, begun):
        living.give_up(value)
    await held.wait_stopped()
    assert slow.closed == 11
    assert held._ending == {}
    assert objects._held == {}


async def test_an_object_on_its_way_to_somebody_else_is_closed_when_that_does_not_arrive_either() -> None:
    living, box = LivingValues(DEFAULT_LIMITS, HeldValues()), Box()
    departure = living.departure_of(box)
    assert departure is not None
    living.give_up(box)
    await turns_of_the_loop()
    assert box.closed == 0
    departure.unsent()
    await comes_true(lambda: box.closed == 1)


async def test_an_object_that_cannot_be_called_is_let_go_too() -> None:
    class Odd(Box):
        @seqrpc.method
        async def takes_a_socket(self, sock: socket.socket) -> None: ...

    living, odd = LivingValues(DEFAULT_LIMITS, held := HeldValues()), Odd()
    with pytest.raises(TypeError):
        living.departure_of(odd)
    assert objects._held == {}
    living.give_up(odd)
    await held.wait_stopped()
    assert odd.closed == 1


async def test_a_source_that_nobody_got_is_closed_with_its_descriptors() -> None:
    living, stage = LivingValues(DEFAULT_LIMITS, held := HeldValues()), Stage()
    fds = [seqrpc.OwnedFd.dup(0)]
    (fd,) = fds
    source = Source(Iterator(stage), "m", fds)
    departure = living.departure_of(source)
    assert departure is not None
    departure.given_up()
    await held.wait_stopped()
    assert fd.closed
    assert stage.reached == ["iterator closed"]


async def test_closing_an_iterator_may_be_a_plain_function() -> None:
    stage = Stage()

    class Simple:
        def __aiter__(self) -> Simple:
            return self

        async def __anext__(self) -> int:
            return 1

        def aclose(self) -> None:
            stage.reach("closed")

    LivingValues(DEFAULT_LIMITS, held := HeldValues()).give_up(Simple())
    await held.wait_stopped()
    assert stage.reached == ["closed"]


async def test_what_fails_while_it_is_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Iterator):
        async def aclose(self) -> None:
            raise OSError("stuck")

    living = LivingValues(DEFAULT_LIMITS, held := HeldValues())
    living.give_up(Wrong(Stage()))
    await held.wait_stopped()
    assert "OSError: stuck" in caplog.text


async def test_the_channel_that_a_connection_is_of_is_not_let_go_by_what_is_returned_over_it() -> None:
    ours, theirs = seqrpc.socket_pair()

    def living_of(own: ChannelEnd | None) -> LivingValues:
        return LivingValues(DEFAULT_LIMITS, HeldValues(), own)

    channel = seqrpc.Channel(ChannelEnd(seqrpc.OwnedFd(theirs.detach()), DEFAULT_LIMITS, living_of))
    for value in (channel, channel.proxy(Box)):
        living_of(end_of(channel)).give_up(value)
        assert not channel.closed
    living_of(None).give_up(channel)
    assert channel.closed
    ours.close()


async def test_a_proxy_of_a_whole_connection_holds_nothing_that_could_be_let_go() -> None:
    async with on_a_pair(Giver()) as connection:
        LivingValues(DEFAULT_LIMITS, HeldValues()).give_up(connection.proxy(Giver))
        await connection.call("rpc.ping")


# How many there may be


class Many(seqrpc.Service):
    @seqrpc.method
    async def result(self, number: int) -> Any:
        return boxes(number)

    @seqrpc.method
    async def error(self, number: int) -> None:
        raise Failed(boxes(number))

    @seqrpc.method
    async def item(self, number: int) -> AsyncIterator[Any]:
        yield boxes(number)

    @seqrpc.method
    async def take(self, given: list[Box]) -> None: ...


def boxes(number: int) -> list[Box]:
    return [Box() for _ in range(number)]


async def get(connection: seqrpc.Connection, way: str, number: int) -> Any:
    """Let so many objects go in one message, in one of the ways."""
    proxy = connection.proxy(Many)
    if way == "result":
        return await proxy.result(number)
    if way == "error":
        with pytest.raises(Failed) as caught:
            await proxy.error(number)
        if caught.value.data is None:
            raise seqrpc.Overloaded("its data was left out")
        return caught.value.data
    if way == "item":
        return await anext(proxy.item(number))
    return await (connection.call if way == "call" else connection.notify)("Many.take", boxes(number))


@pytest.mark.parametrize("way", ["result", "error", "item", "call", "notify"])
async def test_one_message_does_not_bring_more_than_may_be_held(way: str) -> None:
    limits = Limits(max_living_values=4 if way == "item" else 3)  # the stream is one as well
    async with on_a_pair(Many(), limits=limits, client_limits=limits) as connection:
        for number in (4, 50, 4, 200):  # what was refused does not count
            with pytest.raises(seqrpc.Overloaded):
                await get(connection, way, number)
        async with asyncio.timeout(PATIENCE):
            for _ in range(3):
                await arrives(lambda: get(connection, way, 3))


async def arrives(once: Callable[[], Any]) -> Any:
    """Return what arrives, once what came before has gone: its maker hears of that a little later."""
    while True:
        try:
            return await once()
        except seqrpc.Overloaded:
            await asyncio.sleep(0.001)


async def test_answers_that_wait_for_a_peer_that_does_not_read_count() -> None:
    class One(seqrpc.Service):
        @seqrpc.method
        async def box(self, filling: int) -> Any:
            return [Box(), bytes(filling)]

    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(One(), sock=theirs, limits=Limits(max_living_values=3)):
        with raw_client(ours) as client:
            for number in range(5):
                await client.send(0, number, "One.box", [60_000])
            answers = [await client.receive() for _ in range(5)]
    assert [answer[2] and answer[2][0] for answer in answers] == [None] * 3 + ["rpc.Overloaded"] * 2
