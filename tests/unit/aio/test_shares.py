"""How long one user's connections may be read in a turn of the loop."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from weakref import WeakValueDictionary

import pytest
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


@pytest.fixture
def ann() -> Iterator[Share]:
    """Return Ann's share, while Bob is there too."""
    bob = share_of(BOB)
    yield share_of(ANN)
    assert bob is share_of(BOB)


async def next_turn() -> None:
    """Let all end that a turn of the loop has begun."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_all_connections_of_a_user_have_one_as_long_as_there_are_any() -> None:
    share = share_of(ANN)
    assert share_of(ANN) is share
    assert share_of(BOB) is not share
    assert share_of(None) is share_of(None)
    share.crowded = True
    del share
    gc.collect()
    assert not share_of(ANN).crowded, "it is a new one"


def test_each_thread_has_its_own() -> None:
    found = []
    here = share_of(ANN)
    thread = threading.Thread(target=lambda: found.append(share_of(ANN)))
    thread.start()
    thread.join()
    assert found != [here]


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


async def test_what_a_closed_loop_left_undone_is_forgotten(ann: Share) -> None:
    class Closed(asyncio.SelectorEventLoop):
        def call_soon(self, *_args: object, **_options: object) -> None:  # type: ignore[override]
            pass

    closed = Closed()
    ann.charge(TURN_SECONDS, closed)
    closed.close()
    assert ann.crowded
    assert ann.admits(ann.round - 1, asyncio.get_running_loop()), "this one has a turn of its own"
    ann._over(closed)  # as in a loop that runs after all
    assert ann.crowded
    await next_turn()
    assert not ann.crowded


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
    assert ann is share_of(ANN)


def test_who_waits_to_be_accepted_is_somebody_else() -> None:
    alone = share_of(ANN)
    assert alone.turn_seconds > TURN_SECONDS
    newcomers = share_of_newcomers()
    assert newcomers is share_of_newcomers()
    assert alone.turn_seconds == TURN_SECONDS
    assert not several_users(), "they may be the same"
    del newcomers
    assert alone.turn_seconds > TURN_SECONDS
    other = share_of(BOB)
    assert several_users()
    assert other is share_of(BOB)
