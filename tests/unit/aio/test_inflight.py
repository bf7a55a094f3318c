"""Descriptors that were sent and that nobody has received yet."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest
from support.accounts import new_account
from support.descriptors import is_open
from support.processes import in_child
from support.scarcity import table_full
from support.waiting import comes_true

import seqrpc
from seqrpc.aio.accounts import CONNECTIONS, IN_FLIGHT, UNSENT_BYTES, Account
from seqrpc.aio.connection import link_of
from seqrpc.aio.inflight import _MOST_LONG, InFlight, unread_bytes
from seqrpc.limits import Limits

Pair = tuple[socket.socket, socket.socket]

LONG = b"x" * 100_000


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def sent_over(sock: socket.socket, account: Account, number: int) -> InFlight:
    sent = InFlight(sock, account, lambda: False)
    socket.send_fds(sock, [b"x"], [0] * number)
    sent.sent(number)
    return sent


def receive(sock: socket.socket) -> None:
    _data, fds, _flags, _address = socket.recv_fds(sock, 10, 253)
    for fd in fds:
        os.close(fd)


def test_the_kernel_tells_what_is_unread(pair: Pair) -> None:
    ours, theirs = pair
    assert unread_bytes(ours.fileno()) == 0
    ours.send(b"x")
    assert unread_bytes(ours.fileno()) > 0
    theirs.recv(1)
    assert unread_bytes(ours.fileno()) == 0
    assert unread_bytes(-1) == 0


def test_what_was_received_counts_no_more(pair: Pair) -> None:
    account = new_account(is_shared=True)
    sent = sent_over(pair[0], account, 3)
    sent.look()
    assert account.holds(IN_FLIGHT) == 3
    receive(pair[1])
    assert account.holds(IN_FLIGHT) == 3
    account.ledger.look()
    assert account.holds(IN_FLIGHT) == 0
    assert not account.in_flight


def test_of_packets_that_are_always_followed_by_more_those_that_were_received_count_no_more(pair: Pair) -> None:
    account = new_account(is_shared=True)
    sent = InFlight(pair[0], account, lambda: 0)
    for number in range(500):
        socket.send_fds(pair[0], [b"x"], [0, 0])
        sent.sent(2)
        if number >= 3:
            receive(pair[1])
        assert account.holds(IN_FLIGHT) <= 64 + 2
    sent.look()
    assert 2 * 3 <= account.holds(IN_FLIGHT) <= 2 * 6, "three are unread, which is known but roughly"
    for _ in range(3):
        receive(pair[1])
    sent.look()
    assert account.holds(IN_FLIGHT) == 0


def test_what_is_unread_counts_however_many_came_before_it(pair: Pair) -> None:
    account, waiting = new_account(is_shared=True), 0
    sent = InFlight(pair[0], account, lambda: waiting)
    for _ in range(60):
        socket.send_fds(pair[0], [b""], [0])
        sent.sent(1)
    for _ in range(20):
        receive(pair[1])
    for _ in range(20):
        waiting += 1
        sent.sent(1)
    sent.look()
    assert 60 <= account.holds(IN_FLIGHT) <= 80, "forty are unread, and twenty wait"


def test_who_has_much_unread_is_held_up_until_some_of_it_is_read(pair: Pair) -> None:
    account = new_account(Limits(max_total_unsent_bytes=1_000_000), 4321, is_shared=True)
    sent = InFlight(pair[0], account, lambda: False)
    assert not sent.holds_up()
    pair[0].send(b"x")
    sent.sent(1, 187_500)
    assert not sent.holds_up(), "a quarter of what the user may have unread"
    account.book(UNSENT_BYTES)
    assert sent.holds_up()
    receive(pair[1])
    assert not sent.holds_up()
    assert account.holds(UNSENT_BYTES) == 1
    pair[0].send(b"x")
    sent.sent(1)
    account.book(UNSENT_BYTES, 200_000)
    assert sent.holds_up(), "whatever it is that is unread"


def test_who_has_thousands_that_are_held_up_looks_seldom(pair: Pair) -> None:
    account = new_account(is_shared=True)
    sent = sent_over(pair[0], account, 1)
    assert sent.look_again_after == 0.25
    others = [InFlight(pair[0], account, lambda: False) for _ in range(3_999)]
    account.in_flight.update(others)
    assert sent.look_again_after == 4.0
    account.in_flight.difference_update(others)


def test_on_a_loop_that_is_closed_nothing_is_looked_at_later(pair: Pair) -> None:
    account = new_account(is_shared=True)
    loop = asyncio.new_event_loop()
    loop.close()
    sent_over(pair[0], account, 3).end(loop)
    assert not any(account.held)


def test_many_are_looked_at_at_once(pair: Pair) -> None:
    account = new_account()
    sent_over(pair[0], account, 10)
    receive(pair[1])
    sent = InFlight(pair[0], account, lambda: False)
    sent.sent(100)
    assert account.holds(IN_FLIGHT) == 10


def test_who_lacks_room_is_looked_at(pair: Pair) -> None:
    account = new_account(uid=61_001, is_shared=True)
    most, _of_all = account.most(IN_FLIGHT)
    sent = sent_over(pair[0], account, 3)
    assert sent.lack(1) is None
    account.book(IN_FLIGHT, most - 3)
    assert "descriptors in flight here already" in str(sent.lack(1))
    receive(pair[1])
    account.look_seconds = 60.0
    assert sent.lack(1) is not None, "it was looked at a moment ago"
    account.look_seconds = 0.0
    assert sent.lack(1) is None


def test_if_all_together_lack_room_all_are_looked_at(pair: Pair) -> None:
    account = new_account(uid=61_001, is_shared=True)
    other = account.ledger.account_of(61_002)
    _own, most = account.most(IN_FLIGHT)
    waiting = InFlight(pair[0], account, lambda: False)
    other.book(IN_FLIGHT, most - 3)
    sent_over(pair[0], other, 3)
    assert "all users together" in str(waiting.lack(1))
    receive(pair[1])
    account.ledger.look_seconds = 60.0
    assert waiting.lack(1) is not None, "they were looked at a moment ago"
    account.ledger.look_seconds = 0.0
    assert waiting.lack(1) is None


def test_what_waits_here_is_in_flight() -> None:
    account, waits = new_account(), True
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        sent = InFlight(ours, account, lambda: waits)
        before = sent.progress
        sent.sent(70)
        assert sent.progress == before, "who asks for more and reads nothing does not go on"
        sent.look()
        assert account.holds(IN_FLIGHT) == 70
        waits = False
        sent.look()
        assert account.holds(IN_FLIGHT) == 0


async def test_it_is_over_with_the_connection_if_all_was_received(pair: Pair) -> None:
    account, loop = new_account(), asyncio.get_running_loop()
    InFlight(pair[0], account, lambda: False).end(loop)
    sent = sent_over(pair[0], account, 3)
    receive(pair[1])
    sent.end(loop)
    assert account.holds(IN_FLIGHT) == 0


@pytest.mark.parametrize("how", ["received", "closed"])
async def test_what_was_not_received_counts_on_after_the_connection(pair: Pair, how: str) -> None:
    account = new_account()
    ours, theirs = pair
    sent = sent_over(ours, account, 3)
    sent.end(asyncio.get_running_loop())
    ours.close()
    assert account.holds(IN_FLIGHT) == 3
    await asyncio.sleep(0.05)
    assert (account.holds(IN_FLIGHT), account.holds(CONNECTIONS)) == (3, 1), "the socket that is kept counts, too"
    (left,) = account.ledger.left_in_flight
    number = left._sock.fileno()  # type: ignore[attr-defined] # it is one of ours
    assert is_open(number)
    assert not in_child(lambda: is_open(number)), "no child has it"
    if how == "received":
        receive(theirs)
        assert theirs.recv(10) == b"", "the end was told"
    else:
        theirs.close()
    await comes_true(lambda: account.holds(IN_FLIGHT) == 0)
    assert not account.ledger.left_in_flight
    assert account.holds(CONNECTIONS) == 0
    assert not is_open(number)


@pytest.mark.parametrize("before", [False, True])
async def test_it_is_forgotten_with_the_server(pair: Pair, before: bool) -> None:
    account = new_account()
    sent = sent_over(pair[0], account, 3)
    if before:
        account.ledger.close()
    sent.end(asyncio.get_running_loop())
    account.ledger.close()
    assert account.holds(IN_FLIGHT) == 0
    assert not account.ledger.left_in_flight


async def test_it_is_forgotten_where_there_is_no_descriptor_to_look_with(pair: Pair) -> None:
    account = new_account()
    sent = sent_over(pair[0], account, 3)
    with table_full():
        sent.end(asyncio.get_running_loop())
    assert account.holds(IN_FLIGHT) == 0


def test_bytes_of_long_messages_are_unsent_until_they_are_received(pair: Pair) -> None:
    account = new_account(Limits(max_total_unsent_bytes=1_000_000), uid=61_001, is_shared=True)
    sent = InFlight(pair[0], account, lambda: False)
    assert sent.lack(1, 700_000) is None
    pair[0].send(b"x")
    sent.sent(1, 700_000)
    assert (account.holds(UNSENT_BYTES), sent.long_bytes) == (700_000, 700_000)
    assert "700000 unsent bytes here already" in str(sent.lack(1, 60_000))
    assert sent.lack(1) is None, "what is short has room"
    pair[1].recv(1)
    assert sent.lack(1, 60_000) is None, "before a long one its own connection is looked at"
    assert (account.holds(UNSENT_BYTES), sent.long_bytes) == (0, 0)


def test_of_one_connection_no_more_long_messages_count_than_fit_into_a_socket(pair: Pair) -> None:
    """Who asks ahead, and reads all the time, has always some unread: the older ones were read."""
    account = new_account(uid=61_001, is_shared=True)
    sent = InFlight(pair[0], account, lambda: False)
    pair[0].send(b"x")
    for number in range(100):
        assert sent.lack(1, 4_000_000) is None
        sent.sent(1, 4_000_000)
        assert account.holds(UNSENT_BYTES) == min(number + 1, _MOST_LONG) * 4_000_000
    assert sent.progress[0] == 100
    pair[1].recv(1)
    sent.look()
    assert account.holds(UNSENT_BYTES) == 0


def test_a_user_who_has_nothing_unread_gets_an_answer_whatever_others_leave_unread() -> None:
    account = new_account(Limits(max_total_unsent_bytes=1_000_000), uid=61_001, is_shared=True)
    account.ledger.account_of(61_002).book(UNSENT_BYTES, 0)
    other = account.ledger.account_of(61_003)
    other.book(UNSENT_BYTES, 990_000)
    assert account.lack(UNSENT_BYTES, 100_000) is None
    account.book(UNSENT_BYTES, 100_000)
    assert "all users together" in str(account.lack(UNSENT_BYTES, 100_000))
    other.release(UNSENT_BYTES, 990_000)


def test_whoever_has_received_all_before_the_next_is_sent_has_nothing_in_flight(pair: Pair) -> None:
    account = new_account()
    sent = InFlight(pair[0], account, lambda: False)
    for _ in range(100):
        for _ in range(8):  # several are sent before any is received
            assert sent.lack(1) is None
            socket.send_fds(pair[0], [b"x"], [0])
            sent.sent(1)
        assert account.holds(IN_FLIGHT) < 64 + 8
        for _ in range(8):
            receive(pair[1])


async def test_whoever_always_has_another_call_under_way_is_not_refused_in_the_end() -> None:
    """The server never finds the connection without an answer that is unread."""

    class Echo(seqrpc.Service):
        @seqrpc.method
        async def echo(self, data: bytes) -> bytes:
            return data

    async def go_on(connection: seqrpc.Connection) -> None:
        for _ in range(50):
            assert await connection.call("Echo.echo", LONG) == LONG  # each answer is a memory file

    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Echo(), sock=ours) as server, seqrpc.connect(sock=theirs) as client:
        await asyncio.gather(*(go_on(client) for _ in range(4)))
        (connection,) = server.connections
        assert link_of(connection).account.holds(IN_FLIGHT) <= 70, "of 200 that were sent, and received"
