"""How long one user's connections may be read in a turn of the loop."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any
from weakref import WeakValueDictionary

import pytest
import uvloop
from support.packets import raw_pair
from support.transport import Recorder, on_transport
from support.waiting import comes_true

from seqrpc.aio.shares import (
    _AT_ONCE_SECONDS,
    NOBODYS,
    TURN_SECONDS,
    Share,
    several_users,
    share_of,
    share_of_newcomers,
)

ANN, BOB = 2_001, 2_002

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    made: NewLoop = request.param
    return made


@pytest.fixture
async def ann() -> AsyncIterator[Share]:
    """Return Ann's share, while Bob is there too."""
    loop = asyncio.get_running_loop()
    bob = share_of(BOB, loop)
    yield share_of(ANN, loop)
    assert bob is share_of(BOB, loop)


async def next_turn() -> None:
    """Let all end that a turn of the loop has begun."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_all_connections_of_a_user_have_one_as_long_as_there_are_any() -> None:
    loop = asyncio.get_running_loop()
    share = share_of(ANN, loop)
    assert share_of(ANN, loop) is share
    assert share_of(BOB, loop) is not share
    assert share_of(None, loop) is share_of(None, loop)
    share.crowded = True
    del share
    gc.collect()
    assert not share_of(ANN, loop).crowded, "it is a new one"


def test_each_loop_has_its_own(new_loop: NewLoop) -> None:
    loops = new_loop(), new_loop()
    here, there = (share_of(ANN, loop) for loop in loops)
    assert here is not there
    here.crowded = True
    assert not there.crowded
    for loop in loops:
        loop.close()


def test_the_shares_of_a_loop_hold_it_and_are_let_go_of_with_the_last(new_loop: NewLoop) -> None:
    loop = new_loop()
    share, gone = share_of(ANN, loop), weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is not None, "another loop could have its id"
    del share
    gc.collect()
    assert gone() is None


async def test_what_is_left_of_a_turn_is_for_all_and_each_has_a_moment(ann: Share) -> None:
    loop = asyncio.get_running_loop()
    assert ann.until(5.0) == 5.0 + TURN_SECONDS
    ann.charge(TURN_SECONDS / 2, loop)
    assert ann.until(5.0) == 5.0 + TURN_SECONDS / 2
    ann.charge(TURN_SECONDS * 0.49, loop)
    assert 5.0 + TURN_SECONDS / 20 < ann.until(5.0) < 5.0 + TURN_SECONDS / 2
    assert not ann.crowded


async def test_nobody_is_left_out_before_the_time_is_up(ann: Share) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(3):  # whichever turns they were in
        ann.charge(TURN_SECONDS * 0.3, loop)
        assert not ann.crowded
    ann.charge(TURN_SECONDS * 0.3, loop)
    assert ann.crowded
    assert not ann.admits(ann.round - 1, loop)
    await next_turn()
    assert ann.admits(ann.round - 1, loop)
    await next_turn()


async def test_where_there_is_nobody_else_it_is_a_while_until_anybody_is_left_out() -> None:
    shares: WeakValueDictionary[int | None, Share] = WeakValueDictionary()
    share = shares[ANN] = Share(shares)
    loop = asyncio.get_running_loop()
    for _ in range(3):
        for _ in range(19):
            share.charge(_AT_ONCE_SECONDS, loop)
            assert not share.crowded
            assert share.until(5.0) == 5.0 + _AT_ONCE_SECONDS
        share.charge(1.5 * _AT_ONCE_SECONDS, loop)
        assert not share.crowded, "it is of many turns, for all that is known"
        for _ in range(19):
            share.charge(_AT_ONCE_SECONDS, loop)
            assert not share.crowded
            assert share.until(5.0) == 5.0 + _AT_ONCE_SECONDS
        await next_turn()
        assert share.used == 0.0
    for _ in range(41):
        share.charge(_AT_ONCE_SECONDS, loop)
    assert share.crowded, "all of that was in one turn"
    await next_turn()


async def test_somebody_else_who_comes_meanwhile_is_not_kept_waiting() -> None:
    shares: WeakValueDictionary[int | None, Share] = WeakValueDictionary()
    share = shares[ANN] = Share(shares)
    loop = asyncio.get_running_loop()
    share.charge(21 * _AT_ONCE_SECONDS, loop)
    assert not share.crowded
    other = shares[BOB] = Share(shares)
    share.charge(TURN_SECONDS, loop)
    assert share.crowded
    assert not other.crowded
    await next_turn()


async def test_those_that_are_new_in_each_turn_keep_nobody_out_for_ever(ann: Share) -> None:
    loop = asyncio.get_running_loop()
    ann.charge(TURN_SECONDS, loop)
    old = ann.round
    for _ in range(10):
        new = ann.round
        await next_turn()
        if ann.admits(old, loop):
            break
        if ann.admits(new, loop):
            ann.charge(TURN_SECONDS, loop)
    else:
        raise AssertionError("the old one was never read again")
    await next_turn()


async def test_nobodys_share_asks_nothing_of_a_loop() -> None:
    class Untouched(asyncio.SelectorEventLoop):
        def call_soon(self, *_args: object, **_options: object) -> None:  # type: ignore[override]
            raise AssertionError

    loop = Untouched()
    NOBODYS.charge(100.0, loop)
    assert not NOBODYS.crowded
    loop.close()


async def test_who_was_left_out_comes_first_and_then_all_again(ann: Share) -> None:
    loop = asyncio.get_running_loop()
    rounds, read = dict.fromkeys("abcd", ann.round), Counter[str]()

    def ask(name: str) -> bool:
        """Read from a connection, if it may be: it takes all of the turn."""
        if ann.crowded:
            if not ann.admits(rounds[name], loop):
                return False
            rounds[name] = ann.round
        read[name] += 1
        ann.charge(TURN_SECONDS, loop)
        return True

    for _ in range(20):
        assert sum([ask(name) for name in "abcd"]) <= 1
        await next_turn()
    assert min(read.values()) >= 3
    assert max(read.values()) - min(read.values()) <= 2, "the first was read before anybody was left out"
    while ann.crowded:  # until nobody asks for so much
        ann.admits(rounds["a"], loop)
        await next_turn()
    assert ann.round > 1


class Socket:
    """Is watched, or not; reads whenever it may, and takes all of the turn."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._round = share.round
        self._loop = asyncio.get_running_loop()
        self.read = 0
        self.watch_again()

    def watch_again(self) -> None:
        self._loop.call_soon(self.ready)

    def ready(self) -> None:
        if self._share.crowded:
            if not self._share.admits(self._round, self._loop):
                self._share.leave_out(self, self._round)
                return
            self._round = self._share.round
        self.read += 1
        self._share.charge(TURN_SECONDS, self._loop)
        self.watch_again()


async def test_who_is_left_out_is_watched_again_and_none_is_read_much_more_than_others(ann: Share) -> None:
    sockets = [Socket(ann) for _ in range(200)]
    gone = sockets.pop()
    await comes_true(lambda: min(one.read for one in sockets) >= 2)
    assert max(one.read for one in sockets) <= 4
    ann.forget(gone)
    for one in sockets:
        one.watch_again = lambda: None  # type: ignore[method-assign]
    await comes_true(lambda: not (ann._owed or ann._done))
    while ann.crowded:
        ann.admits(ann.round - 1, asyncio.get_running_loop())
        await next_turn()


def test_what_a_closed_loop_left_undone_is_nothing_to_the_next_one(new_loop: NewLoop) -> None:
    """Connections may be unclosed when their loop is closed, and left out of a turn."""
    failures: list[dict[str, Any]] = []

    async def read(times: int) -> list[Socket]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: failures.append(context))
        bob, share = share_of(BOB, loop), share_of(ANN, loop)
        sockets = [Socket(share) for _ in range(5)]
        await comes_true(lambda: min(one.read for one in sockets) >= times)
        await comes_true(lambda: share._owed or share._done)
        assert bob is share_of(BOB, loop)
        return sockets

    kept = []
    for _ in range(2):
        loop = new_loop()
        kept += loop.run_until_complete(read(3))
        loop.close()
    assert failures == []


async def test_one_user_s_connections_take_no_longer_than_one_and_all_are_read(ann: Share) -> None:
    """All of the ends here are of one user, who made the pairs."""
    ends: list[tuple[Recorder, socket.socket]] = []
    in_turn = [0]

    def take(_data: bytes) -> None:
        if not in_turn[-1]:
            asyncio.get_running_loop().call_soon(in_turn.append, 0)
        in_turn[-1] += 1
        time.sleep(TURN_SECONDS / 2)

    for _ in range(20):
        here, there = raw_pair()
        _transport, recorder = on_transport(here)
        recorder.on_packet = take
        ends.append((recorder, there))
        for _ in range(20):
            there.send(b"x")
    try:
        await comes_true(lambda: sum(len(recorder.packets) for recorder, _ in ends) >= 100)
        taken = [len(recorder.packets) for recorder, _ in ends]
        assert max(in_turn[2:]) <= 3, "after the first turns, in which nobody looked at the time"
        assert min(taken) >= 2, "none is forgotten, while the first could be read alone"
        await comes_true(lambda: all(len(recorder.packets) == 20 for recorder, _ in ends))
    finally:
        for recorder, there in ends:
            await recorder.end()
            there.close()
    assert ann is share_of(ANN, asyncio.get_running_loop())


async def test_who_waits_to_be_accepted_is_somebody_else() -> None:
    loop = asyncio.get_running_loop()
    assert not several_users(loop)
    alone = share_of(ANN, loop)
    assert alone.turn_seconds > TURN_SECONDS
    newcomers = share_of_newcomers(loop)
    assert newcomers is share_of_newcomers(loop)
    assert alone.turn_seconds == TURN_SECONDS
    assert not several_users(loop), "they may be the same"
    del newcomers
    assert alone.turn_seconds > TURN_SECONDS
    other = share_of(BOB, loop)
    assert several_users(loop)
    assert other is share_of(BOB, loop)
