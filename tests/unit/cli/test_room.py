"""How many bytes may wait at one end of a tunnel."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.sync import Thread

from seqrpc.cli.frames import BrokenTunnel
from seqrpc.cli.room import BUDGET, SHARE, Account, Held, Room, wait_taken
from seqrpc.kernel.sockets import socket_pair


def test_more_than_the_budget_breaks_the_tunnel() -> None:
    held = Held()
    held.take(BUDGET, is_stream=True)
    held.take(BUDGET, is_stream=False)  # calls have their own
    with pytest.raises(BrokenTunnel, match=f"it sent {BUDGET + 1} bytes that nobody has read yet, of {BUDGET} "):
        held.take(1, is_stream=True)
    held.give(2, is_stream=True)
    held.take(2, is_stream=True)


def test_a_channel_waits_until_its_packets_were_taken() -> None:
    room, one, other = Room(), Account(is_stream=True), Account(is_stream=True)
    assert room.wait(one, SHARE + 5)  # the first, whatever its size
    waiting = Thread(lambda: room.wait(one, 1))
    assert room.wait(other, 1)  # another has room
    assert waiting.is_alive()
    room.credit(one, 1)
    assert waiting.result()
    assert (one.under_way, other.under_way) == (1, 1)


def test_all_streams_together_wait_and_calls_do_not() -> None:
    room = Room()
    streams = [Account(is_stream=True) for _ in range(3)]
    assert room.wait(streams[0], BUDGET // 2)
    assert room.wait(streams[1], BUDGET // 2)
    waiting = Thread(lambda: room.wait(streams[2], 1))
    assert room.wait(Account(is_stream=False), BUDGET)
    assert waiting.is_alive()
    room.settle(streams[0])
    assert waiting.result()


def test_who_sends_nothing_any_more_does_not_wait() -> None:
    room, account = Room(), Account(is_stream=False)
    assert room.wait(account, BUDGET)
    waiting = Thread(lambda: room.wait(account, 1))
    room.leave(account)
    assert not waiting.result()
    room.credit(account, 64)  # of what was under way then; there is no more than that
    assert account.under_way == 0
    other = Account(is_stream=False)
    assert room.wait(other, BUDGET)
    waiting = Thread(lambda: room.wait(Account(is_stream=False), 1))
    room.close()
    assert not waiting.result()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket_pair()
    with ours, theirs:
        yield ours, theirs


def test_packets_are_taken_when_they_are_received(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    wait_taken(ours)
    ours.send(b"x" * 60_000)
    ours.send(b"x")
    waiting = Thread(lambda: wait_taken(ours))
    theirs.recv(65_536)
    assert waiting.is_alive()
    theirs.recv(65_536)
    waiting.result()


def test_what_nobody_can_receive_any_more_is_not_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.send(b"x")
    waiting = Thread(lambda: wait_taken(ours))
    theirs.close()
    waiting.result()


def test_a_socket_that_was_shut_down_here_is_not_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _theirs = pair
    ours.send(b"x")
    waiting = Thread(lambda: wait_taken(ours))
    ours.shutdown(socket.SHUT_RDWR)
    waiting.result()
