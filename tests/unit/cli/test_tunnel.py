"""Packets of a connection, carried through a pair of pipes."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.desk import both
from support.sync import Thread, comes_readable, readable, served
from support.waiting import PATIENCE

import seqrpc
from seqrpc import blocking
from seqrpc.cli import room
from seqrpc.cli.endings import Ending
from seqrpc.cli.frames import BrokenTunnel, Kind, Memory, Socket, framed, packed, read_frame, reader_of
from seqrpc.cli.tunnel import WINDOW, Tunnel, refuse
from seqrpc.kernel.sockets import socket_pair


class Pipes:
    """Both pipes, as two tunnels use them."""

    def __init__(self, keep: ExitStack) -> None:
        self.near_in, self.far_out = self._pipe(keep)
        self.far_in, self.near_out = self._pipe(keep)
        self._open = {self.near_in, self.near_out, self.far_in, self.far_out}

    def _pipe(self, keep: ExitStack) -> tuple[int, int]:
        reader, writer = os.pipe()
        for fd in (reader, writer):
            keep.callback(self.close, fd)
        return reader, writer

    def close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    with ExitStack() as keep:
        yield Pipes(keep)


@contextmanager
def tunnelled(path: Path, pipes: Pipes) -> Iterator[blocking.Connection]:
    """Connect through both ends of a tunnel."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(str(path))
    far = Tunnel(pipes.far_in, pipes.far_out)
    far_thread = Thread(lambda: far.carry(sock, is_far=True))
    near = Tunnel(pipes.near_in, pipes.near_out)
    near.connect()
    ours, theirs = socket_pair()
    near_thread = Thread(lambda: near.carry(theirs, is_far=False))
    try:
        with blocking.connect(sock=ours) as connection:
            yield connection
    finally:
        assert near.hang_up(PATIENCE)
        pipes.close(pipes.near_out)
        far_thread.result()
        assert far.hang_up(PATIENCE)
        pipes.close(pipes.far_out)
        near_thread.result()
        for tunnel in (near, far):
            wait_for_the_end(tunnel)


def wait_for_the_end(tunnel: Tunnel) -> None:
    """Wait until the threads of its channels have closed what is theirs."""
    until = time.monotonic() + PATIENCE
    while tunnel._channels:
        assert time.monotonic() < until, "a channel goes on"
        time.sleep(0.001)


@pytest.fixture
def connection(socket_path: Path, pipes: Pipes) -> Iterator[blocking.Connection]:
    with served(socket_path, both()), tunnelled(socket_path, pipes) as connection:
        yield connection


def test_calls_go_through_short_and_long(connection: blocking.Connection) -> None:
    assert connection.call("Desk.add", 1, 2) == 3
    assert connection.call("Desk.blob", 1_000_000) == b"x" * 1_000_000
    assert connection.call("Desk.size", b"y" * 3_000_000) == 3_000_000


def test_streams_and_objects_go_through_in_both_directions(connection: blocking.Connection) -> None:
    assert [*connection.call("Desk.count", 1_000)] == [*range(1_000)]
    assert connection.call("Desk.total", iter(range(1_000))) == 499_500
    assert [*connection.call("Desk.loud", iter(["a", "b"]))] == ["A", "B"]
    with connection.call("Desk.box", "a") as box:
        box.call("Box.put", "x" * 100_000)
        assert box.call("Box.look") == "x" * 100_000
    with connection.call("Desk.memory", 100_000) as memory:
        assert bytes(memory) == b"m" * 100_000


def test_a_long_call_may_bring_a_stream(connection: blocking.Connection) -> None:
    with pytest.raises(seqrpc.InvalidParams):  # it arrives as what it is
        connection.call("Desk.echo", ["x" * 100_000, iter([1])])


def test_a_stream_that_nobody_reads_holds_up_nobody_else(connection: blocking.Connection) -> None:
    with connection.call("Desk.count", 1_000_000) as stream:
        assert next(stream) == 0
        assert connection.call("Desk.add", 1, 2) == 3
        assert connection.call("Desk.blob", 1_000_000) == b"x" * 1_000_000
    assert connection.call("Desk.add", 1, 2) == 3


def test_files_cannot_cross_which_costs_only_their_call(connection: blocking.Connection, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(seqrpc.DescriptorsLost, match="cannot cross ssh"):
        connection.call("Desk.open", str(tmp_path / "file"))
    with open(tmp_path / "file") as file:
        with pytest.raises(seqrpc.DescriptorsLost, match="cannot cross ssh"):
            connection.call("Desk.length", file)
        with pytest.raises(seqrpc.DescriptorsLost, match="cannot cross ssh"):
            connection.call("Desk.size", [b"x" * 100_000, file])
        with pytest.raises(seqrpc.RpcError):
            connection.call("Desk.total", iter([file]))
    assert connection.call("Desk.add", 1, 2) == 3


def test_deadlines_hold_at_the_other_side(connection: blocking.Connection) -> None:
    with pytest.raises(seqrpc.DeadlineExceeded), blocking.timeout(0.1):
        connection.call("Desk.sleep", 60)
    with blocking.timeout(PATIENCE):
        assert connection.call("Desk.add", 1, 2) == 3


def test_the_end_of_the_server_is_the_end_of_the_connection(socket_path: Path, pipes: Pipes) -> None:
    with ExitStack() as serving:
        serving.enter_context(served(socket_path, both()))
        with tunnelled(socket_path, pipes) as connection:
            assert connection.call("Desk.add", 1, 2) == 3
            serving.close()
            with pytest.raises((seqrpc.ConnectionLost, seqrpc.Unavailable)):
                connection.call("Desk.add", 1, 2)


def near_that_hears(pipes: Pipes, data: bytes) -> Tunnel:
    os.write(pipes.far_out, data)
    pipes.close(pipes.far_out)
    return Tunnel(pipes.near_in, pipes.near_out)


READY = framed(Kind.READY, content=(5).to_bytes(8, "big"))


def test_a_refusal_is_told_as_it_is(pipes: Pipes) -> None:
    refuse(pipes.far_out, 3, "nobody\x1b")
    with pytest.raises(Ending, match="nobody") as raised:
        near_that_hears(pipes, b"").connect()
    assert raised.value.status == 3


@pytest.mark.parametrize("status", [0, 77, 130, 255])
def test_a_refusal_cannot_choose_any_status(pipes: Pipes, status: int) -> None:
    refuse(pipes.far_out, status, "x")
    with pytest.raises(Ending) as raised:
        near_that_hears(pipes, b"").connect()
    assert raised.value.status == 1


def test_a_refusal_that_nobody_hears_is_no_matter(pipes: Pipes) -> None:
    pipes.close(pipes.near_in)
    refuse(pipes.far_out, 3, "nobody")


@pytest.mark.parametrize(
    "data, text",
    [
        (b"", "it ended"),
        (framed(Kind.END), "did not begin as"),
        (framed(Kind.READY), "did not begin as"),
        (framed(Kind.REFUSED), "did not begin as"),
        (b"Password: xxxxx", "is no frame"),
    ],
)
def test_another_program_is_told(pipes: Pipes, data: bytes, text: str) -> None:
    with pytest.raises(BrokenTunnel, match=text):
        near_that_hears(pipes, data).connect()


@pytest.mark.parametrize(
    "data",
    [
        b"Password: xxxxx",
        framed(Kind.PACKET, 0, b""),
        framed(Kind.PACKET, 0, packed(b"m", [Socket(2)])),
        framed(Kind.PACKET, 0, packed(b"m", [Memory(b"x"), Socket(0)])),
        framed(Kind.PACKET, 0, packed(b"m", [Socket(1), Socket(1)])),
        framed(Kind.PACKET, 0, packed(b"\xc0", [])) * (3 * WINDOW + 300),
        framed(Kind.END),
        framed(Kind.CREDIT, 0, bytes(4)),
        framed(Kind.CREDIT, 0, (WINDOW + 1).to_bytes(4, "big")),
        framed(Kind.CREDIT, 0, b""),
        framed(Kind.PACKET, 77, b"nobody's") + framed(Kind.CREDIT, 0, b"\0\0\0\1") + framed(Kind.REFUSED),
    ],
)
def test_whatever_comes_ends_the_connection_at_most(pipes: Pipes, data: bytes) -> None:
    tunnel = near_that_hears(pipes, READY + data)
    tunnel.connect()
    assert tunnel.ahead < 0
    ours, theirs = socket_pair()
    with ours:
        ours.settimeout(PATIENCE)
        tunnel.carry(theirs, is_far=False)
        while ours.recv(65_536):
            pass
    wait_for_the_end(tunnel)


def test_an_end_is_heard_once(pipes: Pipes) -> None:
    tunnel = Tunnel(pipes.near_in, pipes.near_out)
    ours, theirs = socket_pair()
    with ours:
        channel = tunnel._add(0, theirs, is_stream=False)
        for _ in range(1_000):
            channel.came(None)
        assert channel._came.qsize() == 1
        channel.begin()
        wait_for_the_end(tunnel)


def test_a_packet_too_long_ends_its_channel(pipes: Pipes) -> None:
    tunnel = Tunnel(pipes.near_in, pipes.near_out)
    ours, theirs = socket_pair()
    thread = Thread(lambda: tunnel.carry(theirs, is_far=False))
    ours.send(b"x" * 100_000)
    frame: Any = read_frame(reader_of(pipes.far_in))
    assert frame.kind is Kind.END
    pipes.close(pipes.far_out)
    thread.result()
    wait_for_the_end(tunnel)
    ours.close()


def test_who_writes_while_it_hangs_up_is_waited_for(pipes: Pipes) -> None:
    tunnel = Tunnel(pipes.near_in, pipes.near_out)
    writing = Thread(lambda: tunnel.write(b"x" * 10_000_000))
    os.read(pipes.far_in, 1)
    assert not tunnel.hang_up(0.01)
    pipes.close(pipes.far_in)
    with pytest.raises(BrokenPipeError):
        writing.result()
    assert tunnel.hang_up(PATIENCE)
    with pytest.raises(OSError, match="Bad file"):
        tunnel.write(b"x")


def test_memory_that_nobody_reads_is_bounded(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BUDGET", 1_000_000)
    packet = framed(Kind.PACKET, 0, packed(b"\xc0", [Memory(b"x" * 100_000)]))
    writing = Thread(lambda: os.write(pipes.far_out, READY + packet * 20))
    tunnel = Tunnel(pipes.near_in, pipes.near_out)
    tunnel.connect()
    ours, theirs = socket_pair()
    with ours:
        tunnel.carry(theirs, is_far=False)
        assert "of 1000000 that may be under way" in str(tunnel.broken)
    pipes.close(pipes.near_in)
    with suppress(BrokenPipeError):
        writing.result()
    wait_for_the_end(tunnel)
    assert tunnel.held._used == [0, 0]


def test_memory_is_credited_when_it_was_read(pipes: Pipes) -> None:
    tunnel = Tunnel(pipes.near_in, pipes.near_out)
    ours, theirs = socket_pair()
    carrying = Thread(lambda: tunnel.carry(theirs, is_far=False))
    packet = framed(Kind.PACKET, 0, packed(b"\xc0", [Memory(b"x")]))
    read = reader_of(pipes.far_in)
    with ours:
        os.write(pipes.far_out, packet)
        comes_readable(ours.fileno())
        assert not readable(pipes.far_in)
        assert ours.recv(65_536) == b"\xc0"
        frame: Any = read_frame(read)
        assert (frame.kind, frame.content) == (Kind.CREDIT, b"\0\0\0\1")
        os.write(pipes.far_out, framed(Kind.PACKET, 0, packed(b"\xc0", [])))
        frame = read_frame(read)  # of a packet alone the kernel counts all
        assert frame.kind is Kind.CREDIT
    pipes.close(pipes.far_out)
    carrying.result()
    wait_for_the_end(tunnel)


class Films(seqrpc.Service):
    @seqrpc.method
    async def film(self) -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000


@pytest.mark.parametrize("bound", [300_000, 100_000_000])
def test_streams_that_nobody_reads_hold_up_no_calls_and_come_whole(
    socket_path: Path, pipes: Pipes, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    monkeypatch.setattr(room, "BUDGET", bound)
    monkeypatch.setattr(room, "SHARE", bound // 2)
    with served(socket_path, [*both(), Films()]), tunnelled(socket_path, pipes) as connection:
        with connection.call("Films.film") as first, connection.call("Films.film") as second:
            assert connection.call("Desk.blob", 200_000) == b"x" * 200_000
            assert [len(each) for each in first] == [100_000] * 50
            assert [len(each) for each in second] == [100_000] * 50
        with connection.call("Films.film") as third:
            next(third)
        assert connection.call("Desk.add", 1, 2) == 3


def test_what_is_too_large_is_told(connection: blocking.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrpc.cli.tunnel.MOST_BYTES", 1_000_000)
    with pytest.raises(seqrpc.TooLarge, match="through ssh"):
        connection.call("Desk.size", b"y" * 1_000_000)
    with pytest.raises(seqrpc.TooLarge, match="through ssh"):
        connection.call("Desk.blob", 1_000_000)
    assert connection.call("Desk.size", b"y" * 900_000) == 900_000


def test_a_spilled_message_of_no_known_number_is_left_out(
    connection: blocking.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqrpc.cli.tunnel.MOST_BYTES", 1_000_000)
    connection.notify("Desk.hint", b"y" * 1_000_000)
    assert connection.call("Desk.add", 1, 2) == 3
