"""The serving end of channels: when an object is held, and when it is closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from support.daemons import on_a_pair
from support.scarcity import table_full
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio import objects
from seqrpc.aio.channels import ChannelEnd
from seqrpc.aio.held import HeldValues
from seqrpc.aio.living import LivingValues
from seqrpc.aio.objects import ObjectDeparture, let_go_of, revoke
from seqrpc.limits import DEFAULT_LIMITS


class Box(seqrpc.Service):
    """Counts how often it is closed; a handler of it may be slow to end."""

    def __init__(self) -> None:
        self.closed = 0
        self.go_on = asyncio.Event()
        self.running = asyncio.Event()

    @seqrpc.method
    async def plain(self) -> str:
        return "plain"

    @seqrpc.method
    async def slow(self) -> None:
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            await self.go_on.wait()

    @seqrpc.method
    async def take_back(self) -> None:
        await revoke(self)

    async def close(self) -> None:
        self.closed += 1


class Shop(seqrpc.Service):
    """Gives the same box to whoever asks, by an answer or in a stream."""

    def __init__(self) -> None:
        self.box = Box()

    @seqrpc.method
    async def take(self) -> Box:
        return self.box

    @seqrpc.method
    async def boxes(self) -> AsyncIterator[bytes | Box]:
        while not self.box.running.is_set():  # until nothing more fits into the stream
            yield b"x" * 9_000
            await asyncio.sleep(0)
        yield self.box


def departure_of(box: Box) -> ObjectDeparture:
    held = HeldValues()
    living = LivingValues(DEFAULT_LIMITS, held)
    departure = living.departure_of(box)
    assert isinstance(departure, ObjectDeparture)
    return departure


async def test_an_object_on_its_way_out_is_held_already() -> None:
    box = Box()
    first, second = departure_of(box), departure_of(box)
    first.sent()
    (end,) = first._held.ends
    await end.link.close()  # the only holder that has it lets go
    await turns_of_the_loop()
    assert box.closed == 0, "another one gets it yet"
    second.unsent()
    await comes_true(lambda: box.closed == 1)
    await comes_true(lambda: not objects._held)


async def test_what_was_never_sent_was_never_held() -> None:
    box = Box()
    departure_of(box).unsent()
    await turns_of_the_loop()
    assert box.closed == 0
    assert objects._held == {}


async def test_an_object_that_is_revoked_on_its_way_out_arrives_revoked() -> None:
    box = Box()
    departure = departure_of(box)
    theirs = seqrpc.OwnedFd.dup(departure.fileno())
    await revoke(box)
    departure.sent()
    end = ChannelEnd(theirs, DEFAULT_LIMITS, lambda own: LivingValues(DEFAULT_LIMITS, HeldValues(), own))
    channel = seqrpc.Channel(end)
    await channel.wait_closed()
    with pytest.raises(seqrpc.Unavailable, match="the object was revoked"):
        await channel.call("Box.plain")
    await channel.close()
    await comes_true(lambda: box.closed == 1)


async def test_overlapping_lives_of_an_object_are_closed_once() -> None:
    shop = Shop()
    async with on_a_pair(shop) as connection:
        proxy = connection.proxy(Shop)
        first = await proxy.take()
        call = asyncio.create_task(first.slow())
        await shop.box.running.wait()
        call.cancel()
        await first.close()  # its handler takes its time
        second = await proxy.take()
        assert await second.plain() == "plain"
        await second.close()
        await turns_of_the_loop()
        assert shop.box.closed == 0, "a handler of it still runs"
        shop.box.go_on.set()
        await comes_true(lambda: shop.box.closed > 0)
        await turns_of_the_loop()
        assert shop.box.closed == 1
        third = await proxy.take()  # a life of its own
        await third.close()
        await comes_true(lambda: shop.box.closed == 2)


async def test_what_cannot_be_served_after_its_message_left_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box()
    departure = departure_of(box)
    theirs = seqrpc.OwnedFd.dup(departure.fileno())
    departure._ours.close()
    with pytest.raises(OSError):
        departure.sent()
    departure.unsent()
    theirs.close()
    assert objects._held == {}
    assert box.closed == 0


def test_what_a_loop_that_is_over_left_behind_is_forgotten() -> None:
    async def leave() -> None:
        departure_of(Box())._theirs.close()

    async def another() -> None:
        departure_of(Box()).unsent()

    asyncio.run(leave())
    ((loop, _id),) = objects._held
    for departure in objects._held[loop, _id].pending:
        departure._ours.close()
    asyncio.run(another())
    assert objects._held == {}


async def test_an_object_that_was_given_away_and_did_not_leave_is_closed_unless_somebody_holds_it() -> None:
    box = Box()
    held, lost = departure_of(box), departure_of(box)
    with seqrpc.OwnedFd.dup(held.fileno()):
        held.sent()
        lost.given_up()
        await turns_of_the_loop()
        assert box.closed == 0
    await comes_true(lambda: box.closed == 1)
    departure_of(box).given_up()
    await comes_true(lambda: box.closed == 2)
    await comes_true(lambda: not objects._held)


async def test_letting_go_of_an_object_tells_what_closes_it() -> None:
    class Plain(seqrpc.Service):
        pass

    assert let_go_of(Plain(), DEFAULT_LIMITS) is None
    box = Box()
    departure = departure_of(box)
    assert let_go_of(box, DEFAULT_LIMITS) is None
    departure.given_up()
    closing = let_go_of(box, DEFAULT_LIMITS)
    assert closing is not None
    assert let_go_of(box, DEFAULT_LIMITS) is closing
    await closing
    assert box.closed == 1


class Locked(Box):
    """Waits before it is closed."""

    async def close(self) -> None:
        self.running.set()
        await self.go_on.wait()
        await super().close()


async def test_whoever_waits_for_an_object_to_be_closed_may_be_cancelled_without_it() -> None:
    box = Locked()
    departure = departure_of(box)
    with seqrpc.OwnedFd.dup(departure.fileno()):
        departure.sent()
        (end,) = departure._held.ends
    await box.running.wait()
    waiting = asyncio.ensure_future(end.wait_stopped())
    await turns_of_the_loop()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    box.go_on.set()
    await end.wait_stopped()
    assert box.closed == 1


def test_what_is_for_the_loop_goes_through_an_object_s_close() -> None:
    class Exiting(Box):
        async def close(self) -> None:
            raise SystemExit("by the object")

    async def let_go() -> None:
        let_go_of(Exiting(), DEFAULT_LIMITS)
        await asyncio.Event().wait()

    with pytest.raises(SystemExit, match="by the object"):
        asyncio.run(let_go())
    assert objects._held == {}


def test_an_object_whose_loop_ends_while_it_is_closed_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def let_go() -> None:
        box = Locked()
        let_go_of(box, DEFAULT_LIMITS)
        await box.running.wait()

    asyncio.run(let_go())
    assert objects._held == {}
    assert caplog.text == ""


async def test_an_object_is_closed_once_where_tasks_begin_at_once() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
    try:
        box = Box()
        for closed in (1, 2):
            closing = let_go_of(box, DEFAULT_LIMITS)
            assert closing is not None
            await closing
            assert box.closed == closed
        assert objects._held == {}
    finally:
        loop.set_task_factory(None)


async def test_an_object_for_which_there_is_no_pair_or_that_cannot_be_called_is_forgotten() -> None:
    class Odd(seqrpc.Service):
        @seqrpc.method
        async def take(self, thing: socket.socket) -> None: ...

    box = Box()
    with table_full(), pytest.raises(seqrpc.Overloaded):
        departure_of(box)
    with pytest.raises(TypeError):
        departure_of(Odd())  # type: ignore[arg-type] # that is the point
    assert objects._held == {}
    assert box.closed == 0


# Who cancels all tasks of the program


def cancel_all() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_an_object_whose_close_was_cancelled_before_it_began_is_closed_all_the_same() -> None:
    box = Box()
    for closed in (1, 2):
        departure = departure_of(box)
        with seqrpc.OwnedFd.dup(departure.fileno()):
            departure.sent()
        await comes_true(lambda departure=departure: departure._held.closing)  # type: ignore[misc]
        assert box.closed == closed - 1
        cancel_all()
        await comes_true(lambda closed=closed: box.closed == closed and not objects._held)  # type: ignore[misc]


def test_no_task_is_left_in_a_loop_that_ends_before_an_object_s_close_began() -> None:
    async def let_go() -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        loop.call_soon(let_go_of, Box(), DEFAULT_LIMITS)
        return loop

    assert asyncio.all_tasks(asyncio.run(let_go())) == set()


async def test_an_object_is_closed_although_what_waits_for_its_handlers_was_cancelled() -> None:
    shop = Shop()
    async with on_a_pair(shop) as connection:
        box = await connection.proxy(Shop).take()
        call = asyncio.gather(box.slow(), return_exceptions=True)
        await shop.box.running.wait()
        (held,) = objects._held.values()
        (end,) = held.ends
        await box.close()
        await comes_true(lambda: end._clean_up)
        cancel_all()
        await comes_true(lambda: shop.box.closed)
        await asyncio.wait([call])


async def test_a_revoked_object_has_no_holder_although_what_waits_for_its_handlers_was_cancelled() -> None:
    shop = Shop()
    async with on_a_pair(shop) as connection:
        channel = await connection.call("Shop.take")
        call = asyncio.gather(channel.call("Box.slow"), return_exceptions=True)
        await shop.box.running.wait()
        await channel.call("Box.take_back")
        cancel_all()
        async with asyncio.timeout(PATIENCE):
            await channel.wait_closed()
        await comes_true(lambda: shop.box.closed)
        await asyncio.wait([call])
