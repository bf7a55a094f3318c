from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import Stage, on_a_pair, raw_client
from support.descriptors import open_count
from support.waiting import PATIENCE

import seqrpc
from seqrpc.aio.held import HeldValues
from seqrpc.aio.living import LivingValues
from seqrpc.calls.departures import Source
from seqrpc.kernel.descriptors import ValueFd
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.items import ItemReader
from seqrpc.protocol.values import EXT_CHANNEL, EXT_STREAM


class Lamp(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def shine(self) -> int:
        return 100

    async def close(self) -> None:
        self.stage.reach("closed")


class Countdown:
    """An async iterable that is no generator."""

    def __init__(self, start: int) -> None:
        self.left = start

    def __aiter__(self) -> Countdown:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left


class Once:
    """An async iterable whose iterator is another object."""

    async def __aiter__(self) -> AsyncIterator[int]:
        yield 1


class House(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()
        self.lamp = Lamp()
        self.seen: list[str] = []

    @seqrpc.method
    async def lamp_please(self) -> Lamp:
        return self.lamp

    @seqrpc.method
    async def endless(self) -> AsyncIterator[int]:
        try:
            self.stage.reach("endless began")
            yield 1
            await asyncio.Event().wait()
        finally:
            self.stage.reach("endless ended")

    @seqrpc.method
    async def add_up(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @seqrpc.method
    async def shine(self, lamp: Lamp) -> int:
        return await lamp.shine()

    @seqrpc.method
    async def back(self, value: Any) -> Any:
        return value

    @seqrpc.method
    async def over_the_bound(self, lamp: Lamp) -> str:
        connection = seqrpc.current_call().connection
        kept = [await connection.call("Home.keep", Lamp()) for _ in range(3)]
        return str(len(kept))


class Home(seqrpc.Service):
    def __init__(self) -> None:
        self.kept: list[Any] = []

    @seqrpc.method
    async def keep(self, lamp: Lamp) -> None:
        self.kept.append(lamp)


def living(limits: Limits = DEFAULT_LIMITS) -> LivingValues:
    return LivingValues(limits, HeldValues())


async def generated() -> AsyncIterator[int]:
    for number in range(3):
        yield number


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let this process have as many descriptors as it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    highest = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, before[1]))
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in taken:
            os.close(fd)


async def test_what_is_a_stream_or_a_channel_is_known() -> None:
    values = living()
    generator = generated()
    async with on_a_pair(House()) as connection:
        proxy = connection.proxy(House)
        travelling: list[Any] = [Lamp(), generator, Countdown(1), Once(), Source(generator, "x"), proxy]
        for value in (*travelling, seqrpc.Stream()):
            assert values.travels(value)
    others: list[Any] = [5, "x", [Lamp()], Lamp, Countdown, iter([1]), None, {}, object()]
    for value in others:
        assert not values.travels(value)
        assert values.departure_of(value) is None


@pytest.mark.parametrize("make", [generated, lambda: Countdown(3), lambda: Relayed()])  # noqa: PLW0108 - it is defined below
async def test_any_async_iterable_is_a_stream_for_the_other_side(make: Any) -> None:
    async with on_a_pair(House()) as connection:
        assert await connection.proxy(House).add_up(make()) == 3


class Relayed:
    """Three ones."""

    async def __aiter__(self) -> AsyncIterator[int]:
        for _ in range(3):
            yield 1


class News(seqrpc.Service):
    def __init__(self) -> None:
        self.order: list[str] = []

    @seqrpc.method
    async def changes(self) -> AsyncIterator[int]:
        self.order.append("the source begins")
        yield 1

    @seqrpc.method
    async def change(self) -> None:
        self.order.append("the next call")


@pytest.mark.parametrize("pairs", [1, 20])
async def test_a_source_begins_before_the_next_call_of_whoever_has_the_stream(socket_path: Path, pairs: int) -> None:
    service = News()
    async with seqrpc.serve(service, socket_path):
        with raw_client(socket_path) as client:
            for number in range(pairs):
                await client.send(0, 2 * number, "News.changes", [])
                await client.send(0, 2 * number + 1, "News.change", [])
            for _ in range(2 * pairs):
                await client.receive()
    assert service.order == ["the source begins", "the next call"] * pairs


async def test_what_only_looks_like_one_cannot_be_sent() -> None:
    async with on_a_pair(House()) as connection:
        for wrong in (Lamp, Countdown, generated, iter([1])):
            with pytest.raises(seqrpc.LocalProtocolError, match="cannot send"):
                await connection.call("House.back", wrong)


async def test_the_callee_refuses_to_keep_more_than_its_bound() -> None:
    house = House()
    async with on_a_pair(house, limits=Limits(max_living_values=2)) as connection:
        proxy = connection.proxy(House)
        lamp = await proxy.lamp_please()
        stream = proxy.endless()
        assert await anext(stream) == 1
        with pytest.raises(seqrpc.Overloaded, match=r"2 streams and channels already \(max_living_values\)"):
            await proxy.lamp_please()
        with pytest.raises(seqrpc.Overloaded):
            await anext(proxy.endless())
        assert house.stage.reached.count("endless began") == 1
        await stream.aclose()
        await house.stage.wait("endless ended")
        async with asyncio.timeout(PATIENCE):
            while True:  # its producer ends a little after its source
                try:
                    second = await proxy.lamp_please()
                    break
                except seqrpc.Overloaded:
                    await asyncio.sleep(0)
        assert await second.shine() == 100
        assert await lamp.shine() == 100
        del lamp, second
        await house.lamp.stage.wait("closed")


async def test_a_caller_that_keeps_too_many_itself_sends_nothing() -> None:
    home, house = Home(), House()
    ours, theirs = seqrpc.socket_pair()
    async with (
        seqrpc.serve(home, sock=theirs),
        seqrpc.connect(sock=ours, limits=Limits(max_living_values=2)) as connection,
    ):
        for _ in range(2):
            await connection.call("Home.keep", Lamp())
        with pytest.raises(seqrpc.Overloaded, match="max_living_values"):
            await connection.call("Home.keep", Lamp())
        with pytest.raises(seqrpc.Overloaded, match="max_living_values"):
            await connection.notify("Home.keep", Lamp())
        with pytest.raises(seqrpc.Overloaded, match="max_living_values"):
            await connection.call("Home.keep", [Lamp(), generated()])
        assert len(home.kept) == 2
        home.kept.clear()
    assert house.seen == []


async def test_a_handler_s_own_call_that_is_over_the_bound_is_not_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    home = Home()
    async with on_a_pair(House(), client=[home], limits=Limits(max_living_values=2)) as connection:
        with pytest.raises(seqrpc.Internal):
            await connection.proxy(House).over_the_bound(Lamp())
        assert "max_living_values" in caplog.text
        caplog.clear()  # a traceback holds the handler's arguments
        assert len(home.kept) == 2
        home.kept.clear()


async def test_channels_that_come_of_a_connection_count_with_it() -> None:
    class Tree(seqrpc.Service):
        @seqrpc.method
        async def branch(self) -> Tree:
            return Tree()

    globals()["Tree"] = Tree
    try:
        async with on_a_pair(Tree(), limits=Limits(max_living_values=3)) as connection:
            trees = [connection.proxy(Tree)]
            for _ in range(3):
                trees.append(await trees[-1].branch())
            for tree in trees:
                with pytest.raises(seqrpc.Overloaded):
                    await tree.branch()
    finally:
        del globals()["Tree"]


@pytest.mark.parametrize("what", ["channel", "stream"])
async def test_a_callee_without_descriptors_says_that_it_is_overloaded(what: str) -> None:
    house = House()
    async with on_a_pair(house) as connection:
        proxy = connection.proxy(House)
        before = open_count()
        opening: Any = proxy.lamp_please() if what == "channel" else anext(proxy.endless())
        with no_more_descriptors(), pytest.raises(seqrpc.Overloaded, match="Too many open files"):
            await opening
        assert open_count() == before
        assert await (await proxy.lamp_please()).shine() == 100
        assert await anext(proxy.endless()) == 1


async def test_a_caller_without_descriptors_is_told_so() -> None:
    async with on_a_pair(House()) as connection:
        proxy = connection.proxy(House)
        with no_more_descriptors(), pytest.raises(seqrpc.Overloaded, match="Too many open files"):
            await proxy.shine(Lamp())
        with no_more_descriptors(), pytest.raises(seqrpc.Overloaded, match="Too many open files"):
            await proxy.add_up(generated())
        assert await proxy.shine(Lamp()) == 100
        assert await proxy.add_up(generated()) == 3


@pytest.mark.parametrize("kind, name", [(EXT_STREAM, "stream"), (EXT_CHANNEL, "channel")])
@pytest.mark.parametrize("what", ["pipe", "datagrams", "bytes", "unconnected", "listening", "closed end"])
async def test_descriptors_that_are_no_streams_or_channels_end_the_connection(kind: int, name: str, what: str) -> None:
    ours, theirs = seqrpc.socket_pair()
    reader, writer = os.pipe()
    others: list[socket.socket] = []
    if what in ("datagrams", "bytes", "closed end"):
        types = {"datagrams": socket.SOCK_DGRAM, "bytes": socket.SOCK_STREAM, "closed end": socket.SOCK_SEQPACKET}
        others = list(socket.socketpair(socket.AF_UNIX, types[what]))
        others[1].close()
    elif what in ("unconnected", "listening"):
        others = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
        if what == "listening":
            others[0].bind(b"")
            others[0].listen()
    try:
        async with seqrpc.serve(House(), sock=theirs):
            with raw_client(ours) as client:
                fd = others[0].fileno() if others else reader
                await client.send(0, 1, "House.back", [msgpack.ExtType(kind, b"\0")], fds=[fd])
                answer = await client.receive()
                if what == "closed end":  # it may have been closed on its way: that is not the sender's fault
                    assert answer[0] == 1
                else:
                    assert answer[0] == 5
                    assert f"the descriptor of a {name} is no connected SOCK_SEQPACKET socket" in answer[1]
                    assert await client.receive() is None
    finally:
        for fd in (reader, writer):
            os.close(fd)
        for sock in others:
            sock.close()


async def test_a_stream_that_is_passed_on_moves_and_is_over_here() -> None:
    async with on_a_pair(House()) as connection:
        proxy = connection.proxy(House)
        stream = await connection.call("House.back", generated())
        assert isinstance(stream, seqrpc.Stream)
        assert await proxy.add_up(stream) == 3
        assert stream.closed
        with pytest.raises(seqrpc.ConnectionLost, match="passed on"):
            await anext(stream)


async def test_a_stream_with_items_that_nobody_took_is_relayed_and_nothing_is_lost() -> None:
    async with on_a_pair(House()) as connection:
        proxy = connection.proxy(House)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader = ItemReader(Decoder(), DEFAULT_LIMITS.max_message_bytes)
        stream: seqrpc.Stream[int] = seqrpc.Stream(ValueFd(theirs.detach()), reader)
        with ours:
            ours.send(msgpack.packb([0, 1, 2, 4]))  # several share a packet
            assert await anext(stream) == 1
            adding = asyncio.ensure_future(proxy.add_up(stream))
            for number in range(3, 10):
                ours.send(msgpack.packb([0, 2**number]))
            ours.send(msgpack.packb([1, None]))
        assert await adding == 2**10 - 1 - 1
        assert stream.closed


async def test_a_stream_that_could_not_be_sent_can_be_read() -> None:
    async with on_a_pair(House()) as connection:
        stream = await connection.call("House.back", generated())
        with pytest.raises(seqrpc.LocalProtocolError, match="cannot send"):
            await connection.call("House.add_up", stream, object())
        assert [item async for item in stream] == [0, 1, 2]


async def test_a_stream_that_was_not_opened_yet_is_opened_when_its_receiver_reads_it() -> None:
    house = House()
    async with on_a_pair(house) as connection:
        proxy = connection.proxy(House)
        back: AsyncIterable[int] = await connection.call("House.back", proxy.endless())
        iterator = aiter(back)
        assert await anext(iterator) == 1
        del back, iterator
        await house.stage.wait("endless ended")


async def test_channels_are_passed_on_by_themselves_or_by_their_proxies_but_not_over_themselves() -> None:
    house = House()
    async with on_a_pair(house) as connection:
        proxy = connection.proxy(House)
        lamp = await proxy.lamp_please()
        assert await proxy.shine(lamp) == 100
        channel = await connection.call("House.lamp_please")
        for itself in (channel, channel.proxy(Lamp)):
            with pytest.raises(seqrpc.LocalProtocolError, match="a channel cannot be sent over itself"):
                await channel.call("Lamp.shine", itself)
        assert await proxy.shine(channel) == 100
        with pytest.raises(seqrpc.LocalProtocolError, match="only the proxy of a channel can be sent"):
            await connection.call("House.shine", proxy)
