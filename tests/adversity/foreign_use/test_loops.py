"""What was made on one loop is used on other loops, in other threads, and without a loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.foreign_use import LOOPS, Account, Sums, holding, outcome
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc import WrongLoop
from seqrpc.aio.streams import reader_of


async def on_another_loop(use: Callable[[], Awaitable[Any]]) -> str:
    """Return what becomes of a use on a loop of its own in a thread of its own."""
    return await asyncio.to_thread(outcome, use, asyncio.run)


async def test_on_another_loop_every_use_raises_and_nothing_is_sent(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:
        await held.unread.aclose()
        reading = asyncio.ensure_future(_drained(held.read))
        uses = {**held.uses(), "close": held.connection.close, "server": held.server.close}
        del uses["a stream that was not read"]  # no loop watches it, and this one may
        for name in [name for name in uses if name.startswith("a channel's")] + ["a channel that was not used"]:
            del uses[name]  # as above
        uses["a channel's close"] = held.used.close
        found = {name: await on_another_loop(use) for name, use in uses.items() if "was read" not in name}
        reading.cancel()
        await asyncio.wait([reading])
        assert found == dict.fromkeys(found, "WrongLoop")
        assert len(found) >= 11
        assert await held.sums.add(1, 1) == 2
        assert service.added == [(1, 1)]
        assert await anext(held.unopened) == 0
        assert await held.used.call("Account.balance") == 7


async def _drained(stream: seqrpc.Stream[int]) -> None:
    async for _number in stream:
        pass


async def test_without_a_loop_nothing_is_sent(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:

        def by_hand() -> str:
            try:
                held.sums.add(100, 200).send(None)
            except WrongLoop as exc:
                return str(exc)
            return "sent"

        said = await asyncio.to_thread(by_hand)
        assert "asyncio.run_coroutine_threadsafe(..., loop)" in said
        assert "seqrpc.current_call().run(...)" in said
        assert service.added == []


async def test_a_stream_that_is_watched_is_not_read_on_another_loop(socket_path: Path) -> None:
    gate = asyncio.Event()

    class Slow(seqrpc.Service):
        @seqrpc.method
        async def count(self) -> AsyncIterator[int]:
            for number in range(3):
                await gate.wait()
                gate.clear()
                yield number

    async with on_a_pair(Slow()) as connection:
        stream = seqrpc.Stream.of(connection.proxy(Slow).count())
        reading = asyncio.ensure_future(anext(stream))
        await comes_true(lambda: reader_of(stream)._loop is not None)
        for use in (lambda: anext(stream), stream.aclose):  # while a task reads it here
            assert await on_another_loop(use) == "WrongLoop"
        gate.set()
        assert await reading == 0
        for use in (lambda: anext(stream), stream.aclose):  # while the loop only watches it
            assert await on_another_loop(use) == "WrongLoop"
        gate.set()
        assert await anext(stream) == 1
        await stream.aclose()


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_what_a_loop_that_has_ended_leaves(
    new_loop: Callable[[], asyncio.AbstractEventLoop], socket_path: Path
) -> None:
    """A stream is read on by the next loop; a connection can only be closed."""

    async def serve(ready: threading.Event, ends: asyncio.Event) -> None:
        async with seqrpc.serve(Sums(), socket_path):
            ready.set()
            await ends.wait()

    async def get() -> tuple[seqrpc.Connection, seqrpc.Stream[int], seqrpc.Channel]:
        connection = await seqrpc.connect(socket_path)
        stream: seqrpc.Stream[int] = await connection.call("Sums.count")
        channel = await connection.call("Sums.open")
        assert await channel.call("Account.balance") == 7
        assert await anext(stream) == 0
        return connection, stream, channel

    async def go_on(connection: seqrpc.Connection, stream: seqrpc.Stream[int], channel: seqrpc.Channel) -> None:
        assert [await anext(stream) for _ in range(1_000)] == list(range(1, 1_001))
        for use in (connection.call("Sums.add", 1, 1), channel.call("Account.balance"), connection.wait_closed()):
            with pytest.raises(WrongLoop, match="an event loop that has ended"):
                await use
        await connection.close()
        await channel.close()
        await stream.aclose()

    ready, server_loop = threading.Event(), asyncio.new_event_loop()
    ends = asyncio.Event()
    thread = threading.Thread(target=lambda: server_loop.run_until_complete(serve(ready, ends)))
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            connection, stream, channel = runner.run(get())
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(go_on(connection, stream, channel))
    finally:
        server_loop.call_soon_threadsafe(ends.set)
        thread.join(PATIENCE)
        server_loop.close()


async def test_an_unused_channel_and_an_unread_stream_are_those_of_who_uses_them_first(socket_path: Path) -> None:
    async with holding(Sums(), socket_path) as held:

        async def use() -> list[int]:
            balance = await held.unused.call("Account.balance")
            await held.unused.close()
            numbers = [await anext(held.unread) for _ in range(3)]
            await held.unread.aclose()
            return [balance, *numbers]

        assert await on_another_loop(use) == "[7, 0, 1, 2]"


async def test_an_object_is_revoked_on_the_loop_that_gave_it_away_only(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:
        assert await on_another_loop(lambda: seqrpc.revoke(service.account)) == "WrongLoop"
        assert await on_another_loop(lambda: seqrpc.revoke(Account())) == "None"
        assert await held.account.balance() == 7
        await seqrpc.revoke(service.account)
        with pytest.raises(seqrpc.Unavailable):
            await held.account.balance()


async def test_the_loop_of_a_connection_does_what_other_threads_ask_of_it(socket_path: Path) -> None:
    async with holding(Sums(), socket_path) as held:
        loop = held.connection.get_loop()
        assert loop is asyncio.get_running_loop()

        def ask() -> int:
            asked: concurrent.futures.Future[int] = asyncio.run_coroutine_threadsafe(held.sums.add(3, 4), loop)
            return asked.result(PATIENCE)

        assert await asyncio.to_thread(ask) == 7
