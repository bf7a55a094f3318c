"""Peers that break the rules, stop reading or die cost their own connection only (bar 4).

In every case another client calls on all the while on a connection of its own; afterwards no task and
no connection is left, nothing has reached the loop's exception handler, and the loop has nothing to do.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
from support.descriptors import Lender, owned
from support.packets import fill, receive, receive_to_the_end, send_with, unwire, wire
from support.processes import running_child
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Connection, Limits, OwnedFd, Server
from seqrpc.aio.connection import link_of
from seqrpc.aio.link import Link
from seqrpc.kernel.closing import CLOSER

REQUEST = wire(0, 1, "Target.add", [2, 3])


class Target(seqrpc.Service):
    """What the peers are at."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most_waiting = 0

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def echo(self, data: bytes) -> bytes:
        return data

    @seqrpc.method
    async def wait(self, fd: OwnedFd | None = None) -> None:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1

    @seqrpc.method
    async def call_back(self) -> None:
        """Ask the caller, and wait for its answer."""
        self.waiting += 1
        try:
            await seqrpc.current_call().connection.call("Peer.answer")
        finally:
            self.waiting -= 1


class Scene:
    """A server, what it serves, and a client that calls it without a break."""

    def __init__(self, path: Path, target: Target, server: Server, bystander: Connection) -> None:
        self.path = path
        self.target = target
        self.server = server
        self.calls = 0
        self._bystander = bystander
        self._stopping = False
        self._task = asyncio.create_task(self._call_on())  # last: an eager one begins here

    async def _call_on(self) -> None:
        while not self._stopping:
            assert await self._bystander.call("Target.add", self.calls, 1) == self.calls + 1
            self.calls += 1

    @contextmanager
    def peer(self) -> Iterator[socket.socket]:
        """Connect as a peer that has never heard of this library."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
            peer.connect(os.fspath(self.path))
            yield peer

    async def theirs(self) -> Link:
        """Return the server's end of the only connection besides the bystander's."""
        others: list[Link] = []

        def found() -> bool:
            others[:] = [link_of(one) for one in self.server.connections if one is not self._first]
            return bool(others)

        await comes_true(found)
        return others[0]

    async def until_alone(self) -> None:
        """Wait until the bystander's is the only connection."""
        await comes_true(lambda: self.server.connections == {self._first})

    async def settle(self) -> None:
        await self.until_alone()
        await comes_true(lambda: self.target.waiting == 0)
        calls = self.calls
        await comes_true(lambda: self._task.done() or self.calls >= calls + 20)
        self._stopping = True
        await self._task

    async def begin(self) -> None:
        await comes_true(lambda: self.calls > 0)
        (self._first,) = self.server.connections


@asynccontextmanager
async def scene(path: Path, limits: Limits = Limits()) -> AsyncIterator[Scene]:  # noqa: B008
    before = asyncio.all_tasks()
    target = Target()
    async with seqrpc.serve(target, path, limits=limits) as server, seqrpc.connect(path) as bystander:
        it = Scene(path, target, server, bystander)
        await it.begin()
        yield it
        await it.settle()
        assert asyncio.all_tasks() == before
        assert CLOSER.wait_idle(PATIENCE), "something that was received is still being closed"
        used = time.process_time()
        await asyncio.sleep(0.03)  # to see that there is nothing to do
        assert time.process_time() - used < 0.015, "the loop is busy with nothing"
    assert asyncio.all_tasks() == before


async def end_of(peer: socket.socket) -> list[bytes]:
    """Return what a peer gets until the server ends the connection; being reset is an end, too."""
    packets: list[bytes] = []
    with suppress(ConnectionResetError):
        packets += await receive_to_the_end(peer)
    return packets


def reasons(packets: list[bytes]) -> list[str]:
    return [message[1] for message in map(unwire, packets) if message[0] == 5]


# Packets that are none

WRONG = {
    "empty": b"",
    "oversized": b"\xc4" * 65_537,
    "much_oversized": REQUEST + b"x" * 200_000,
    "deep_arrays": b"\x91" * 65_536,
    "deep_maps": b"\x81\x00" * 32_768,
    "deep_in_params": wire(0, 1, "Target.add", [])[:-1] + b"\x91" * 60_000 + b"\x00",
    "great_promises": b"\xdd\xff\xff\xff\xff",
    "many_great_promises": b"\xdc\xff\xff" * 20_000,
    "trailing": REQUEST + b"\x00",
    "two_in_one": REQUEST + REQUEST,
    "spilled": wire(4, 1 << 40),
}


@pytest.mark.parametrize("attached", [0, 2], ids=["bare", "with_descriptors"])
@pytest.mark.parametrize("name", WRONG)
async def test_a_packet_that_is_none_ends_its_connection(socket_path: Path, name: str, attached: int) -> None:
    async with scene(socket_path) as it:
        with it.peer() as peer, owned(attached) as fds:
            send_with(peer, WRONG[name], [fd.fileno() for fd in fds])
            packets = await end_of(peer)
            assert len(packets) == len(reasons(packets)) == (0 if name == "empty" else 1)


async def test_a_packet_that_is_cut_anywhere_ends_its_connection(socket_path: Path) -> None:
    async with scene(socket_path) as it:
        for length in range(1, len(REQUEST)):
            with it.peer() as peer:
                peer.send(REQUEST[:length])
                packets = await end_of(peer)
                assert len(packets) == len(reasons(packets)) == 1


async def test_random_packets_end_their_connection_at_most(socket_path: Path) -> None:
    chance = random.Random(7)
    async with scene(socket_path) as it:
        for _ in range(150):
            with it.peer() as peer, owned(chance.randrange(3)) as fds:
                for _ in range(chance.randrange(1, 5)):
                    data = bytearray(REQUEST if chance.random() < 0.5 else chance.randbytes(chance.randrange(1, 100)))
                    for _ in range(chance.randrange(1, 4)):
                        data[chance.randrange(len(data))] = chance.randrange(256)
                    with suppress(BrokenPipeError):
                        send_with(peer, bytes(data), [fd.fileno() for fd in fds])
                await turns_of_the_loop(chance.randrange(4))


# Memory files that are not what was promised

SPILLED = wire(0, 1, "Target.echo", [b"x" * 100_000])
ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@contextmanager
def memory_file(content: bytes, seals: int, size: int | None = None) -> Iterator[int]:
    """Return a memory file as any peer can make it."""
    with open(os.memfd_create("peer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b") as file:
        file.write(content)
        file.flush()
        if size is not None:
            os.ftruncate(file.fileno(), size)
        fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, seals)
        yield file.fileno()


LYING: dict[str, tuple[bytes, int, int | None]] = {
    "not_sealed": (SPILLED, 0, None),
    "not_sealed_against_shrinking": (SPILLED, ALL_SEALS & ~fcntl.F_SEAL_SHRINK, None),
    "not_sealed_against_writing": (SPILLED, ALL_SEALS & ~fcntl.F_SEAL_WRITE, None),
    "too_short": (SPILLED[:-1], ALL_SEALS, None),
    "empty": (b"", ALL_SEALS, None),
    "too_long": (SPILLED + b"x", ALL_SEALS, None),
    "sparse_and_huge": (b"", ALL_SEALS, 1 << 40),
    "sparse_and_huge_and_not_sealed": (b"", 0, 1 << 40),
    "sparse": (b"", ALL_SEALS, len(SPILLED)),
    "no_message": (b"\xc1" * len(SPILLED), ALL_SEALS, None),
    "spilled_in_spilled": (wire(4, 7) + b"\x00" * (len(SPILLED) - 3), ALL_SEALS, None),
    "too_deep": (b"\x91" * len(SPILLED), ALL_SEALS, None),
}


@pytest.mark.parametrize("promised", [len(SPILLED), 1 << 40], ids=["as_promised", "over_the_limit"])
@pytest.mark.parametrize("name", LYING)
async def test_a_memory_file_that_is_not_what_was_promised_ends_its_connection(
    socket_path: Path, name: str, promised: int
) -> None:
    content, seals, size = LYING[name]
    async with scene(socket_path) as it:
        with it.peer() as peer, memory_file(content, seals, size) as file:
            send_with(peer, wire(4, promised), [file])
            packets = await end_of(peer)
            assert len(packets) == len(reasons(packets)) == 1
            assert reasons(packets)[0].startswith(("malformed", "a spilled message that was not read"))


def open_something(what: str) -> socket.socket | IO[bytes]:
    """Return an open file of some kind that is no memory file."""
    if what == "socket":
        return socket.socket(socket.AF_UNIX)
    return tempfile.TemporaryFile() if what == "file" else open(what, "rb")


@pytest.mark.parametrize("what", ["socket", "file", "/dev/zero", "/proc/self/maps"])
async def test_what_is_no_memory_file_ends_its_connection(socket_path: Path, what: str) -> None:
    async with scene(socket_path) as it:
        with it.peer() as peer, open_something(what) as file:
            send_with(peer, wire(4, 100_000, 1), [file.fileno()])
            (reason,) = reasons(await end_of(peer))
            assert "a sealed memfd was expected" in reason or "a memfd with the seals" in reason


async def test_a_peer_that_shrinks_its_memory_file_all_the_time_ends_no_process(socket_path: Path) -> None:
    """Whether the seals were there when the peer sent it or came later: what is looked at cannot shrink."""
    async with scene(socket_path) as it:
        for _ in range(20):
            with it.peer() as peer, memory_file(SPILLED, 0) as file:
                send_with(peer, wire(4, len(SPILLED), 1), [file])
                shrinking = asyncio.create_task(asyncio.to_thread(_shrink_and_grow, file))
                (reason,) = reasons(await end_of(peer))
                assert reason.startswith("malformed spilled message")
                await shrinking


def _shrink_and_grow(file: int) -> None:
    for _ in range(50):
        os.ftruncate(file, 0)
        os.ftruncate(file, len(SPILLED))


async def test_a_request_over_the_limit_is_refused_and_the_connection_lives_on(socket_path: Path) -> None:
    async with scene(socket_path, Limits(max_message_bytes=70_000)) as it:
        with it.peer() as peer, memory_file(SPILLED, ALL_SEALS) as file:
            for packet in (wire(4, len(SPILLED)), wire(4, len(SPILLED), 1)):
                send_with(peer, packet, [file])
                kind, call_id, (code, message, _data), _result = unwire(await receive(peer))
                assert (kind, call_id, code) == (1, 1, "rpc.TooLarge")
                assert "at most 70000 bytes" in message
            with memory_file(b"", ALL_SEALS, 1 << 50) as sparse:  # nothing of it need be looked at
                send_with(peer, wire(4, 1 << 50, 2), [sparse])
                assert unwire(await receive(peer))[2][0] == "rpc.TooLarge"
            peer.send(REQUEST)
            assert unwire(await receive(peer)) == [1, 1, None, 5]


# Messages that make no sense


async def test_an_id_that_is_used_again_ends_the_connection(socket_path: Path) -> None:
    async with scene(socket_path) as it:
        with it.peer() as peer:
            for _ in range(3):
                peer.send(wire(0, 1, "Target.wait", []))
            assert "in flight already" in reasons(await end_of(peer))[0]


async def test_an_id_that_was_answered_may_be_used_again(socket_path: Path) -> None:
    async with scene(socket_path) as it:
        with it.peer() as peer:
            for _ in range(100):
                peer.send(REQUEST)
                assert unwire(await receive(peer)) == [1, 1, None, 5]


async def send_in_time(peer: socket.socket, packet: bytes, fds: Sequence[int] = ()) -> None:
    """Send a packet once there is room for it."""
    while True:
        try:
            send_with(peer, packet, fds)
        except BlockingIOError:
            await turns_of_the_loop(1)
        else:
            return


NONSENSE: dict[str, Callable[[int], bytes]] = {
    "cancels_of_what_is_not_there": lambda number: wire(3, number),
    "answers_to_nothing": lambda number: wire(1, number, None, [Lender(), Lender()]),
    "errors_to_nothing": lambda number: wire(1, number, ["x.y", "", [Lender(), Lender()]], None),
    "unknown_kinds": lambda number: wire(6 + number, [Lender(), Lender()]),
    "unknown_kinds_of_no_sense": lambda number: wire(1000, [], number),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_what_makes_no_sense_is_ignored(socket_path: Path, name: str, pipe: tuple[int, int]) -> None:
    async with scene(socket_path) as it:
        with it.peer() as peer:
            for number in range(500):
                cancels = name.startswith("cancels")
                await send_in_time(peer, NONSENSE[name](number), () if cancels else pipe)
            await send_in_time(peer, REQUEST)
            assert unwire(await receive(peer)) == [1, 1, None, 5]


async def test_a_cancel_sent_again_and_again_is_answered_once(socket_path: Path) -> None:
    async with scene(socket_path) as it:
        with it.peer() as peer:
            peer.send(wire(0, 1, "Target.wait", []))
            for _ in range(50):
                peer.send(wire(3, 1))
            assert unwire(await receive(peer))[2][0] == "rpc.Cancelled"
            peer.send(wire(0, 2, "Target.add", [1, 1]))
            assert unwire(await receive(peer)) == [1, 2, None, 2]


@pytest.mark.parametrize("options", [{}, {"deadline": 2**62}], ids=["plain", "with_deadline"])
async def test_a_flood_of_notifies_runs_a_bounded_number_of_handlers(
    socket_path: Path, options: dict[str, int], pipe: tuple[int, int]
) -> None:
    async with scene(socket_path, Limits(max_calls_in_flight=32)) as it:
        deadline = {"deadline": time.monotonic_ns() + 500_000_000} if options else {}
        packet = wire(2, "Target.wait", [Lender()], deadline)
        with it.peer() as peer:
            for _ in range(5_000):
                await send_in_time(peer, packet, pipe[:1])
            await send_in_time(peer, REQUEST)
            assert unwire(await receive(peer)) == [1, 1, None, 5]
            if options:
                await comes_true(lambda: it.target.waiting == 0)
        await it.until_alone()
        assert 0 < it.target.most_waiting <= 32


# Peers that do not read


async def ask_on(peer: socket.socket, packet: Callable[[int], bytes], until: Callable[[], bool]) -> int:
    """Send one request after the other without ever reading, until something is so; return how many."""
    sent = 0
    while not until():
        try:
            peer.send(packet(sent))
            sent += 1
        except BlockingIOError:
            await turns_of_the_loop(1)
        except (BrokenPipeError, ConnectionResetError):
            await turns_of_the_loop(1)
    return sent


async def test_a_peer_that_never_reads_its_answers_is_not_read_from(socket_path: Path) -> None:
    data = b"x" * 50_000
    async with scene(socket_path) as it:
        with it.peer() as peer:
            theirs = await it.theirs()
            transport = theirs.transport

            def stuck() -> bool:
                return not transport.is_reading() and not theirs.session.requests

            await ask_on(peer, lambda number: wire(0, number, "Target.echo", [data]), stuck)
            queued = transport.get_write_buffer_size()
            assert queued < 64 * 60_000, "no more than what one wake-up brings"
            assert fill(peer) < 1_000, "the kernel makes it wait"
            calls = it.calls
            await comes_true(lambda: it.calls > calls + 50)
            assert transport.get_write_buffer_size() == queued
            assert not transport.is_reading()


async def test_a_peer_that_never_reads_and_owes_an_answer_itself_is_cut_off(socket_path: Path) -> None:
    async with scene(socket_path, Limits(max_unsent_bytes=1_000_000, max_message_bytes=100_000)) as it:
        with it.peer() as peer:
            theirs = await it.theirs()
            peer.send(wire(0, 0, "Target.call_back", []))
            await comes_true(lambda: it.target.waiting == 1)
            most = 0

            def cut_off() -> bool:
                nonlocal most
                most = max(most, theirs.transport.get_write_buffer_size())
                return theirs.closed

            await ask_on(peer, lambda number: wire(0, 1 + number, "Target.echo", [b"x" * 50_000]), cut_off)
            assert most < 1_100_000 + 64 * 60_000
        assert "bytes of answers unread" in str(theirs._reason)


# Peers that die


def dying(path: Path, how: str) -> Callable[[], object]:
    """Return what a process does before it is killed."""

    def work() -> object:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if how == "before_connecting":
            return peer
        peer.connect(os.fspath(path))
        reader, writer = os.pipe()
        if how == "mid_call":
            peer.send(wire(0, 1, "Target.wait", []))
        elif how == "with_descriptors_attached":
            for call_id in range(50):
                send_with(peer, wire(0, call_id, "Target.wait", [Lender()]), [reader])
        elif how == "with_unread_answers":
            for call_id in range(20):  # as many as the socket holds: nobody reads yet
                peer.send(wire(0, call_id, "Target.echo", [b"x" * 2_000]))
        elif how == "owing_an_answer":
            peer.send(wire(0, 1, "Target.call_back", []))
        return peer, reader, writer

    return work


def kill(pid: int) -> None:
    """Kill a process and its children, and wait until it is gone."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = [int(number) for number in file.read().split()]
    for one in (pid, *children):
        os.kill(one, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("seen", [False, True], ids=["before_it_is_read", "after_it_is_read"])
@pytest.mark.parametrize(
    "how",
    [
        "before_connecting",
        "before_sending",
        "mid_call",
        "with_descriptors_attached",
        "with_unread_answers",
        "owing_an_answer",
    ],
)
async def test_a_peer_that_is_killed_costs_its_own_connection_only(socket_path: Path, how: str, seen: bool) -> None:
    async with scene(socket_path) as it:
        with running_child(dying(socket_path, how)) as pid:
            if seen and how != "before_connecting":
                theirs = await it.theirs()
                if how in ("mid_call", "with_descriptors_attached", "owing_an_answer"):
                    await comes_true(lambda: it.target.waiting > 0)
                assert not theirs.closed
                await turns_of_the_loop(50)
            kill(pid)
        await it.until_alone()


async def test_a_peer_that_is_killed_while_it_floods_costs_its_own_connection_only(socket_path: Path) -> None:
    def flood() -> object:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(os.fspath(socket_path))
        if os.fork() == 0:  # a process of its own sends for as long as it is let
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            call_id = 0
            while True:
                peer.send(wire(0, call_id, "Target.echo", [b"x" * 500]))
                call_id += 1
        return peer

    async with scene(socket_path) as it:
        with running_child(flood) as pid:
            theirs = await it.theirs()
            await comes_true(lambda: not theirs.transport.is_reading())
            kill(pid)
        await it.until_alone()


async def leave_unread(peer: socket.socket, theirs: Link) -> None:
    """Ask, and read no answer, until answers wait at the server."""
    number = 0
    while not theirs.writing_paused:
        with suppress(BlockingIOError):
            peer.send(wire(0, number, "Target.echo", [b"x" * 20_000]))
            number += 1
        await turns_of_the_loop(5)
    await comes_true(lambda: not theirs.session.requests)


@pytest.mark.parametrize("junk", [0, 70, 200])
async def test_a_peer_that_dies_after_one_more_request_costs_its_own_connection_only(
    socket_path: Path, junk: int
) -> None:
    """Its answers wait, so the request is reason to read no more of it; it dies before that is seen."""
    async with scene(socket_path) as it:
        for _ in range(5):
            with it.peer() as peer:
                theirs = await it.theirs()
                await leave_unread(peer, theirs)
                with suppress(BlockingIOError):
                    for _ in range(junk):
                        peer.send(wire(99))
                    peer.send(wire(0, 999, "rpc.ping", []))
            await it.until_alone()
