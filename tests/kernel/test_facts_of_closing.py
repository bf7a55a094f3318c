"""What the kernel does while it closes: it waits, for as long as whoever made the descriptor likes."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

import pytest
from support.lingering import can_mount, hidden, lingering, silent_file_system
from support.packets import send_with

NO_TIME = 0.5
"""Seconds that are far more than what takes no time, and far less than a second of lingering."""


def seconds(function: Callable[[], object]) -> float:
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


def test_closing_waits_for_so_linger_though_the_socket_is_not_blocking() -> None:
    with lingering(1) as made:
        sock = made.make()
        assert not sock.getblocking()
        assert 1 - NO_TIME < seconds(sock.close) < 1 + NO_TIME


def test_the_number_is_free_before_the_wait() -> None:
    with lingering(60) as made:
        sock = made.make()
        number = sock.fileno()
        closing = threading.Thread(target=sock.close)
        closing.start()
        while os.path.lexists(f"/proc/self/fd/{number}"):
            time.sleep(0)
        assert closing.is_alive()
        made.release()
        closing.join()


def test_only_the_last_close_waits() -> None:
    with lingering(1) as made:
        sock = made.make()
        copy = sock.dup()
        assert seconds(sock.close) < NO_TIME
        assert seconds(copy.close) > 1 - NO_TIME


def test_closing_a_unix_socket_closes_what_is_in_its_queue_in_the_same_thread() -> None:
    with lingering(1) as made:
        outer = hidden(hidden(made.make()))
        assert seconds(outer.close) > 1 - NO_TIME


def test_so_does_receiving_without_room_for_descriptors() -> None:
    with lingering(1) as made, hidden(made.make()) as sock:
        begin = time.monotonic()
        data, control, flags, _address = sock.recvmsg(10)
        assert time.monotonic() - begin > 1 - NO_TIME
        assert (data, control, bool(flags & socket.MSG_CTRUNC)) == (b"x", [], True)


def test_looking_without_room_closes_nothing_and_tells_of_descriptors() -> None:
    with lingering(1) as made, hidden(made.make()) as sock:
        begin = time.monotonic()
        data, _control, flags, _address = sock.recvmsg(10, 0, socket.MSG_PEEK)
        assert time.monotonic() - begin < NO_TIME
        assert (data, bool(flags & socket.MSG_CTRUNC)) == (b"x", True)
        made.release()


def test_nothing_can_come_after_a_shutdown_and_what_came_stays() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(b"before")
        ours.shutdown(socket.SHUT_RD)
        with pytest.raises(BrokenPipeError):
            theirs.send(b"after")
        assert ours.recv(10) == b"before"
        assert ours.recv(10) == b""


def test_credentials_tell_an_empty_packet_from_the_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(b"")
        ours.shutdown(socket.SHUT_RD)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        assert ours.recvmsg(1, 32)[1] != []
        assert ours.recvmsg(1, 32)[1] == []


def test_closing_a_listener_closes_what_was_sent_to_it_before_anybody_accepted() -> None:
    with lingering(1) as made, made.make() as sock:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(b"\0seqrpc-facts-of-closing-%d" % os.getpid())
        listener.listen()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(listener.getsockname())
            send_with(peer, b"x", [sock.fileno()])
        sock.close()
        assert seconds(listener.close) > 1 - NO_TIME


@pytest.mark.skipif(not can_mount(), reason="needs to mount a file system")
def test_a_file_system_of_its_own_is_asked_by_close_and_fstat_and_not_by_what_asks_for_kinds() -> None:
    waited: list[str] = []

    def waits(what: Callable[[], object], name: str) -> threading.Thread:
        def work() -> None:
            with pytest.raises(OSError):
                what()
            waited.append(name)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    with silent_file_system() as mounted:
        number = mounted.open()
        copy = os.dup(number)
        mounted.fall_silent()
        threads = [waits(lambda: os.close(copy), "close"), waits(lambda: os.fstat(number), "fstat")]
        assert os.readlink(f"/proc/self/fd/{number}").endswith("/x")
        for thread in threads:
            thread.join(0.2)
            assert thread.is_alive()
        assert waited == []
    for thread in threads:
        thread.join()
    with pytest.raises(OSError):
        os.close(number)
    assert sorted(waited) == ["close", "fstat"]
