from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
from support.processes import in_child
from support.sync import Raw, Thread, far, raw_peer
from support.waiting import PATIENCE

import seqrpc
from seqrpc import blocking
from seqrpc.blocking.channels import end_of
from seqrpc.errors import ConnectionLost, LocalProtocolError, WrongProcess

CHANNEL = msgpack.ExtType(3, b"\0")


class Object(seqrpc.Service):
    @seqrpc.method
    def hit(self, number: int) -> int:
        return number

    @seqrpc.method(idempotent=True)
    def look(self) -> int:
        return 3

    @seqrpc.method(oneway=True)
    def tell(self) -> None: ...


@contextmanager
def holding() -> Iterator[tuple[blocking.Channel, Raw, blocking.Connection, Raw]]:
    """Yield a channel, the raw socket of its object, and the connection that it came over with its other end."""
    with raw_peer() as (connection, raw):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = _code_of_channels(connection, raw)
        with ours, theirs:
            raw.send(1, connection._line.session._next_id, None, msgpack.ExtType(code, b"\0"), fds=[theirs.fileno()])
            channel = connection.call("Other.give")
            raw.receive()
            theirs.close()
            yield channel, Raw(ours), connection, raw
            channel.close()


def _code_of_channels(connection: blocking.Connection, raw: Raw) -> int:
    raw.send(1, 0, None, None)
    connection.call("Other.take", Object())
    message, end = raw.receive_end()
    end.close()
    code: int = message[3][0].code
    return code


def test_calls_go_to_the_object() -> None:
    with holding() as (channel, object_end, _connection, _raw):
        assert repr(channel) == "<Channel open>"
        assert not channel.closed
        assert channel.closing_reason is None
        object_end.send(1, 0, None, 7)
        assert channel.call("Object.hit", 3) == 7
        assert object_end.receive() == [0, 0, "Object.hit", [3]]
        channel.notify("Object.tell")
        assert object_end.receive() == [2, "Object.tell", []]
        assert channel.closing_reason is None


def test_proxies_of_it_hold_it() -> None:
    class Giving(seqrpc.Service):
        @seqrpc.method
        def give(self) -> Object:
            return Object()

    with far(Giving()) as (connection, _other):
        giving: Any = connection.proxy(Giving)
        with giving.give() as proxy:
            assert proxy.hit(3) == 3
            assert proxy.look() == 3
            proxy.tell()
        with pytest.raises(ConnectionLost, match="closed on this side"):
            proxy.hit(3)


def test_one_that_is_closed_sends_nothing() -> None:
    with holding() as (channel, object_end, _connection, _raw):
        with channel as same:
            assert same is channel
        assert channel.closed
        assert repr(channel) == "<Channel closed>"
        with pytest.raises(ConnectionLost, match="closed, or passed on") as caught:
            channel.call("Object.hit", 3)
        assert caught.value.execution is seqrpc.errors.Execution.DID_NOT_RUN
        assert object_end.receive() is None
        channel.close()


@pytest.mark.parametrize("was_used", [False, True])
def test_one_that_is_dropped_lets_go_of_the_object(was_used: bool) -> None:
    with raw_peer() as (connection, raw):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = _code_of_channels(connection, raw)
        with theirs:
            raw.send(1, 1, None, msgpack.ExtType(code, b"\0"), fds=[theirs.fileno()])
            channel = connection.call("Other.give")
        object_end = Raw(ours)
        if was_used:
            object_end.send(1, 0, None, None)
            channel.call("Object.hit", 1)
            object_end.receive()
        del channel
        gc.collect()
        assert object_end.receive() is None
        object_end.close()


def test_an_object_that_is_revoked_says_so() -> None:
    with holding() as (channel, object_end, _connection, _raw):
        object_end.send(5, "enough")
        object_end.sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(seqrpc.Unavailable, match="enough"):
            channel.call("Object.hit", 3)
        assert channel.closing_reason == "enough"
        assert channel.closed


def test_threads_may_use_it_from_the_start() -> None:
    class Giving(seqrpc.Service):
        @seqrpc.method
        def give(self) -> Object:
            return Object()

    with far(Giving()) as (connection, _other):
        for _ in range(20):
            channel = connection.call("Giving.give")
            barrier = threading.Barrier(4)

            def hit(number: int, channel: Any = channel, barrier: threading.Barrier = barrier) -> Any:
                barrier.wait(30)
                return channel.call("Object.hit", number)

            threads = [Thread(lambda number=number: hit(number)) for number in range(4)]  # type: ignore[misc]
            assert [thread.result() for thread in threads] == [0, 1, 2, 3]
            channel.close()


# Passing on


@pytest.mark.parametrize("was_used", [False, True])
def test_it_can_be_passed_on_and_is_over_here(was_used: bool) -> None:
    with holding() as (channel, object_end, connection, raw):
        if was_used:
            object_end.send(1, 0, None, None)
            channel.call("Object.hit", 1)
            object_end.receive()
        raw.send(1, connection._line.session._next_id, None, None)
        connection.call("Other.take", channel)
        assert channel.closed
        _message, end = raw.receive_end()
        end.send(0, 9, "Object.hit", [1])
        assert object_end.receive() == [0, 9, "Object.hit", [1]]
        end.close()
        with pytest.raises(LocalProtocolError, match="a channel that is closed cannot be passed on"):
            connection.call("Other.take", channel)


def test_whoever_gets_it_may_wait_for_as_long_as_they_like() -> None:
    with holding() as (channel, object_end, _connection, _raw):
        object_end.send(1, 0, None, None)
        channel.call("Object.hit", 1)
        fd = end_of(channel).detach()
        with socket.socket(fileno=fd.detach()) as passed_on:
            assert passed_on.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == bytes(16)


def test_one_that_is_not_passed_on_after_all_is_taken_back() -> None:
    with holding() as (channel, object_end, connection, _raw):
        with pytest.raises(LocalProtocolError):
            connection.call("Other.take", channel, object())
        assert not channel.closed
        object_end.send(1, 0, None, 7)
        assert channel.call("Object.hit", 1) == 7


def test_one_with_a_call_under_way_cannot_be_passed_on() -> None:
    with holding() as (channel, object_end, connection, _raw):
        calling = Thread(lambda: channel.call("Object.hit", 1))
        assert object_end.receive() == [0, 0, "Object.hit", [1]]
        with pytest.raises(LocalProtocolError, match="has calls under way, or was revoked"):
            connection.call("Other.take", channel)
        object_end.send(1, 0, None, 7)
        assert calling.result() == 7


# Forks


@pytest.mark.parametrize("was_used", [False, True])
def test_a_forked_child_cannot_use_it(was_used: bool) -> None:
    with holding() as (channel, object_end, _connection, _raw):
        if was_used:
            object_end.send(1, 0, None, None)
            channel.call("Object.hit", 1)
            object_end.receive()

        def act() -> list[str]:
            seen = []
            for action in (lambda: channel.call("O.m"), lambda: channel.notify("O.m"), end_of(channel).detach):
                try:
                    action()
                except WrongProcess:
                    seen.append("wrong process")
            channel.close()
            return [*seen, str(channel.closed)]

        assert in_child(act) == ["wrong process"] * 3 + ["True"]
        channel.notify("Object.tell")
        assert object_end.receive() == [2, "Object.tell", []]


def test_one_whose_lock_another_thread_has_is_not_waited_for() -> None:
    """That thread may send this connection's channel over the other one."""
    with holding() as (channel, _object_end, _connection, _raw):
        line = end_of(channel)
        line._open()
        assert line._line is not None
        lock, may_go, has_it = line._line.lock, threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                has_it.set()
                may_go.wait(PATIENCE)

        thread = Thread(hold)
        has_it.wait(PATIENCE)
        with pytest.raises(seqrpc.LocalProtocolError, match="cannot be passed on"):
            line.detach()
        may_go.set()
        thread.result()
        assert not channel.closed
