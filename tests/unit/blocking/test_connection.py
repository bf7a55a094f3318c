from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
from support.processes import in_child
from support.sync import LOOPS, NewLoop, Notes, Raw, Thread, comes_readable, raw_peer, readable, served

import seqrpc
from seqrpc import blocking
from seqrpc.errors import ConnectionLost, WrongProcess
from seqrpc.limits import Limits


class S(seqrpc.Service):
    def __init__(self) -> None:
        self.notes = Notes()

    @seqrpc.method
    def hit(self, number: int) -> int:
        self.notes.note(number)
        return number


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    return LOOPS[request.param]


def test_it_calls_and_tells_who_is_there(socket_path: Path, new_loop: NewLoop) -> None:
    with served(socket_path, S(), new_loop), blocking.connect(socket_path) as connection:
        assert connection.call("S.hit", 3) == 3
        assert connection.peer is not None
        assert connection.peer.pid == os.getpid()
        assert not connection.closed
        assert connection.closing_reason is None
        connection.wait_for_ready()
        assert repr(connection).startswith("<Connection open peer=Credentials(")


def test_one_that_is_closed_says_so() -> None:
    with raw_peer() as (connection, raw):
        number = connection.fileno()
        assert number == connection.fileno()
        connection.close()
        connection.close()
        assert connection.closed
        assert repr(connection).startswith("<Connection closed")
        with pytest.raises(ValueError, match="the connection has ended"):
            connection.fileno()
        with pytest.raises(ConnectionLost, match="closed on this side"):
            connection.wait_for_ready()
        connection.process()
        assert raw.receive() is None


def test_a_reason_for_which_the_other_side_takes_no_calls_is_told() -> None:
    with raw_peer() as (connection, raw):
        raw.send(5, "going down")
        connection.process()
        assert connection.closing_reason == "going down"
        assert not connection.closed
        with pytest.raises(seqrpc.Unavailable, match="going down"):
            connection.call("S.hit", 1)
        with pytest.raises(seqrpc.Unavailable, match="going down"):
            connection.wait_for_ready()


def test_process_takes_a_bounded_number_of_packets_and_the_rest_makes_it_readable() -> None:
    service = S()
    limits = Limits(max_packets_per_wakeup=3)
    with raw_peer(services=service, limits=limits) as (connection, raw):
        number = connection.fileno()
        for call_id in range(10):
            raw.send(0, call_id, "S.hit", [call_id])
        connection.process()
        assert 3 <= len(service.notes.what) < 10
        while readable(number):
            connection.process()
        assert service.notes.what == [*range(10)]


def test_process_waits_for_nothing_and_raises_nothing_at_the_end() -> None:
    with raw_peer() as (connection, raw):
        connection.process()
        raw.close()
        connection.process()
        assert connection.closed
        connection.process()


def test_closing_wakes_the_threads_that_wait() -> None:
    with raw_peer() as (connection, raw):
        calling = Thread(lambda: connection.call("Other.side"))
        assert raw.receive()[2] == "Other.side"
        connection.close()
        with pytest.raises(ConnectionLost, match="closed on this side"):
            calling.result()


def test_one_that_is_dropped_is_closed_with_a_warning() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection = blocking.connect(sock=ours)
    connection.fileno()
    raw = Raw(theirs)
    with pytest.warns(ResourceWarning, match="unclosed <Connection open"):
        del connection
    assert raw.receive() is None
    raw.close()


def test_a_proxy_keeps_it_open() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    raw = Raw(theirs)
    with warnings.catch_warnings():
        proxy: Any = blocking.connect(sock=ours).proxy(S)
    raw.send(1, 0, None, 7)
    assert proxy.hit(3) == 7
    with pytest.warns(ResourceWarning, match="unclosed"):
        del proxy
    raw.close()


def test_a_forked_child_cannot_use_it() -> None:
    with raw_peer(services=S()) as (connection, raw):
        connection.fileno()

        def act() -> Any:
            seen = []
            actions: list[Any] = [
                connection.fileno, connection.process, connection.wait_for_ready, lambda: connection.call("S.hit", 1),
                lambda: connection.notify("S.hit", 1),
            ]  # fmt: skip
            for action in actions:
                try:
                    action()
                except WrongProcess:
                    seen.append("wrong process")
            connection.close()
            return seen, connection.closed

        assert in_child(act) == (["wrong process"] * 5, True)
        raw.send(1, 0, None, 7)
        assert connection.call("Other.side") == 7


# One that is made anew


def test_one_that_is_made_anew_is_used_as_others_are(socket_path: Path, new_loop: NewLoop) -> None:
    anew = Notes()
    policy = seqrpc.Reconnect(on_reconnect=lambda _connection: anew.note("anew"))
    with served(socket_path, S(), new_loop):
        connection = blocking.connect(socket_path, reconnect=policy)
    with connection:
        number = connection.fileno()
        comes_readable(number)
        connection.process()
        assert connection.peer is None
        assert not connection.closed
        assert connection.closing_reason is None
        assert "reconnecting" in repr(connection)
        with served(socket_path, S(), new_loop):
            connection.wait_for_ready()
            assert connection.call("S.hit", 3) == 3
            assert connection.peer is not None
            assert connection.fileno() == number
            assert anew.what == ["anew"]
            assert repr(connection).startswith("<Connection open")
    assert connection.closed
    with pytest.raises(ValueError, match="the connection was closed"):
        connection.fileno()
    connection.process()
    connection.close()


def test_process_connects_anew_when_it_is_time_to(socket_path: Path) -> None:
    with served(socket_path, S()):
        connection = blocking.connect(socket_path, reconnect=True)
    with connection, served(socket_path, S()):
        comes_readable(connection.fileno())
        while connection.peer is None:
            connection.process()
        assert connection.call("S.hit", 3) == 3


def test_a_forked_child_does_not_connect_anew(socket_path: Path) -> None:
    with served(socket_path, S()), blocking.connect(socket_path, reconnect=True) as connection:

        def act() -> list[str]:
            seen = []
            for action in (connection.fileno, connection.process, lambda: connection.call("S.hit", 1)):
                try:
                    action()
                except WrongProcess:
                    seen.append("wrong process")
            connection.close()
            return seen

        assert in_child(act) == ["wrong process"] * 3
        assert connection.call("S.hit", 3) == 3
