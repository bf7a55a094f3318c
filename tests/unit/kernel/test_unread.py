"""Closing sockets that somebody may have sent something to."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.descriptors import is_open
from support.lingering import Lingering, lingering, start_thread
from support.packets import fill, raw_pair, send_with
from support.processes import fork_as_a_library_does, save_coverage
from support.scarcity import table_full

from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import OwnedFd, received_fd
from seqrpc.kernel.unread import close_listening, close_unread, close_value

LONG = 30.0

NO_TIME = 10.0
"""Seconds that what takes none does not take, and far less than what lingers here."""

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CLOSER, "_start_thread", start_thread)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ends = raw_pair()
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def made() -> Iterator[Lingering]:
    with lingering(60) as maker:
        yield maker
    assert CLOSER.wait_idle(LONG)


def closes_now(sock: socket.socket, *, discard: bool = False) -> bool:
    """Close; return whether it was closed when that returned, which took no time."""
    number, begin = sock.fileno(), time.monotonic()
    close_unread(sock, 1001, discard=discard)
    assert time.monotonic() - begin < NO_TIME
    assert sock.fileno() == -1
    return not is_open(number)


@pytest.mark.parametrize("end", ["open", "closed", "reset"])
def test_one_with_nothing_unread_is_closed_at_once(pair: Pair, end: str) -> None:
    if end == "reset":
        pair[0].send(b"unread")
    if end != "open":
        pair[1].close()
    assert closes_now(pair[0])
    if end == "open":
        assert pair[1].recv(1) == b""


def test_one_that_is_closed_already_or_was_never_connected_is_no_error(pair: Pair) -> None:
    pair[0].close()
    close_unread(pair[0], None, discard=True)
    assert closes_now(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))


@pytest.mark.parametrize("packets", [[b"x"] * 16, [b"", b"x", b""]], ids=["full", "empty"])
def test_a_few_packets_are_thrown_away_at_once_so_that_the_peer_is_not_reset(pair: Pair, packets: list[bytes]) -> None:
    for packet in packets:
        pair[1].send(packet)
    assert closes_now(pair[0], discard=True)
    assert pair[1].recv(1) == b""


def test_many_packets_are_thrown_away_soon(pair: Pair) -> None:
    assert 16 < fill(pair[1]) < 1024
    close_unread(pair[0], None, discard=True)
    pair[1].setblocking(True)
    assert pair[1].recv(1) == b""


def test_more_than_many_are_not(pair: Pair) -> None:
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
    assert fill(pair[1], b"x") > 1024
    close_unread(pair[0], None, discard=True)
    pair[1].setblocking(True)
    with pytest.raises(ConnectionResetError):
        pair[1].recv(1)


def test_what_is_not_to_be_thrown_away_resets_the_peer(pair: Pair) -> None:
    pair[1].send(b"x")
    close_unread(pair[0], None, discard=False)
    pair[1].setblocking(True)
    with pytest.raises(ConnectionResetError):
        pair[1].recv(1)


@pytest.mark.parametrize("discard", [True, False])
@pytest.mark.parametrize(
    "before", [[], [b"x"], [b""], [b"x"] * 100], ids=["first", "second", "after an empty one", "last"]
)
def test_descriptors_that_linger_there_are_waited_for_elsewhere(
    pair: Pair, made: Lingering, before: list[bytes], discard: bool
) -> None:
    for packet in before:
        pair[1].send(packet)
    with made.make() as sock:
        send_with(pair[1], b"", [sock.fileno()])
    closes_now(pair[0], discard=discard)
    assert not CLOSER.wait_idle(0.05)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        pair[1].send(b"nothing comes after")


def test_nothing_is_sent_between_the_look_and_the_close(made: Lingering) -> None:
    """A peer that sends what lingers as fast as it can gets nothing in that would be waited for here."""
    for _ in range(200):
        ours, theirs = raw_pair()
        with theirs, made.make() as sock:
            stop = threading.Event()

            def send(theirs: socket.socket = theirs, number: int = sock.fileno(), stop: threading.Event = stop) -> None:
                while not stop.is_set():
                    try:
                        send_with(theirs, b"x", [number])
                    except BlockingIOError:
                        continue
                    except OSError:
                        return

            sender = threading.Thread(target=send)
            sender.start()
            closes_now(ours)
            stop.set()
            sender.join()
            made.release()


@pytest.mark.parametrize("received", [True, False])
def test_the_socket_of_a_value_tells_its_peer_at_once(pair: Pair, received: bool) -> None:
    number = pair[0].detach()
    fd = received_fd(number, 1001) if received else OwnedFd(number)
    close_value(fd)
    assert fd.closed
    assert pair[1].recv(1) == b""
    close_value(fd)


def test_the_socket_of_another_user_s_value_is_closed_by_a_thread(pair: Pair) -> None:
    number = pair[0].detach()
    fd = received_fd(number, os.geteuid() + 4_242)
    with CLOSER._lock:  # no thread takes anything meanwhile
        close_value(fd)
        assert fd.closed
        assert is_open(number)
    assert CLOSER.wait_idle(LONG)
    assert not is_open(number)
    assert pair[1].recv(1) == b""


# Listeners


@pytest.fixture
def listener(socket_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(os.fspath(socket_path))
        sock.listen()
        sock.setblocking(False)
        yield sock


def connected(listener: socket.socket) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(listener.getsockname())
    return sock


@pytest.mark.parametrize("frees_name", [True, False])
def test_a_listener_is_closed_without_waiting_for_what_was_sent_to_it(
    listener: socket.socket, made: Lingering, frees_name: bool
) -> None:
    with connected(listener) as quiet, connected(listener) as peer, made.make() as sock:
        send_with(peer, b"x", [sock.fileno()])
        sock.close()
        begin, number, name = time.monotonic(), listener.fileno(), listener.getsockname()
        close_listening(listener, frees_name=frees_name)
        assert time.monotonic() - begin < NO_TIME
        assert listener.fileno() == -1
        assert not (frees_name and is_open(number))
        with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as late:
            late.connect(name)
        if frees_name:
            assert quiet.recv(1) == b""
        assert not CLOSER.wait_idle(0.05)


def test_a_listener_that_cannot_accept_is_closed_elsewhere(listener: socket.socket) -> None:
    with connected(listener) as peer:
        with table_full():
            close_listening(listener, frees_name=True)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_a_listener_that_never_listened_is_closed() -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    number = sock.fileno()
    close_listening(sock, frees_name=True)
    assert sock.fileno() == -1
    assert not is_open(number)


@pytest.mark.parametrize("what", ["connected", "listening"])
def test_in_a_child_that_a_library_made_only_copies_are_closed(what: str, pair: Pair, tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = os.fspath(tmp_path / "x")
    listening.bind(path)
    listening.listen()
    pid = fork_as_a_library_does()
    if pid == 0:
        try:
            if what == "connected":
                close_unread(pair[0], None, discard=True)
            else:
                close_listening(listening, frees_name=True)
            save_coverage()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    pair[1].send(b"still heard")
    assert pair[0].recv(100) == b"still heard"
    with listening, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(path)
