"""Channels and streams that go from process to process, and what is left of them when processes die."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import uvloop
from support.daemons import Stage, needs_root, on_a_pair, raw_client
from support.descriptors import open_count
from support.processes import AS_ROOT, OTHER_UID, Line, child_on_a_loop, in_child
from support.waiting import PATIENCE

import seqrpc
from seqrpc import policy

NewLoop = Callable[[], asyncio.AbstractEventLoop]

STRANGER = OTHER_UID if AS_ROOT else None


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    chosen: NewLoop = request.param
    return chosen


@pytest.fixture
def paths(socket_path: Path) -> tuple[Path, Path]:
    """Return two paths that other users can reach."""
    socket_path.parent.chmod(0o777)
    return socket_path, socket_path.with_name("other.sock")


class Vault(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()
        self.closed = 0
        self.met: list[Any] = []

    @seqrpc.method
    async def who(self) -> list[int | None]:
        caller = seqrpc.current_call().caller
        return [caller.pid, caller.uid]

    @seqrpc.method
    async def wait(self) -> None:
        self.stage.reach("waiting")
        await asyncio.Event().wait()

    @seqrpc.method
    async def meet(self, other: Vault) -> None:
        self.met.append(other)

    async def close(self) -> None:
        self.closed += 1
        self.met.clear()
        self.stage.reach("closed")


class Keeper(seqrpc.Service):
    """What process C serves."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.vault = Vault()

    @seqrpc.method
    async def open(self) -> Vault:
        return self.vault

    @seqrpc.method
    async def new(self) -> Vault:
        return Vault()

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        try:
            for number in range(to):
                yield number
        finally:
            self.stage.reach("count ended")


class Taker(seqrpc.Service):
    """What process B serves: it takes what process A has from process C."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.vaults: list[Vault] = []
        self.streams: list[AsyncIterator[int]] = []

    @seqrpc.method
    async def take(self, vault: Vault) -> None:
        self.vaults.append(vault)

    @seqrpc.method
    async def take_stream(self, stream: AsyncIterator[int]) -> None:
        self.streams.append(stream)


def keeper(path: Path) -> Callable[[Line], Any]:
    """Return what process C does."""

    async def act(line: Line) -> None:
        service = Keeper()
        vault = service.vault
        async with seqrpc.serve(service, path, allow=policy.anyone, mode=0o666) as server:
            line.tell("listening")
            while (order := await line.listen()) != "stop":
                if order == "revoke":
                    await seqrpc.revoke(vault)
                elif order in ("waiting", "closed"):
                    await vault.stage.wait(order)
                elif order == "count ended":
                    await service.stage.wait(order)
                line.tell([order, vault.closed, len(server.connections)])

    return act


def taker(path: Path) -> Callable[[Line], Any]:
    """Return what process B does."""

    async def act(line: Line) -> None:
        service = Taker()
        call: asyncio.Future[Any] | None = None
        async with seqrpc.serve(service, path, allow=policy.anyone, mode=0o666):
            line.tell("listening")
            while (order := await line.listen()) != "stop":
                if order == "drop":
                    service.vaults.clear()
                    service.streams.clear()
                    line.tell("dropped")
                elif order == "read":
                    line.tell([number async for number in service.streams[0]])
                elif order == "read one":
                    line.tell(await anext(service.streams[0]))
                elif order == "wait":
                    call = asyncio.ensure_future(service.vaults[0].wait())
                    line.tell("called")
                else:
                    assert order in ("who", "waited")
                    try:
                        result: Any = await service.vaults[0].who() if order == "who" or call is None else await call
                        line.tell(result)
                    except seqrpc.SeqrpcError as exc:
                        line.tell([type(exc).__name__, str(exc)])

    return act


def giver(paths: tuple[Path, Path], what: str, *, use: bool) -> Callable[[Line], Any]:
    """Return what process A does."""

    async def act(line: Line) -> None:
        async with seqrpc.connect(paths[0]) as source, seqrpc.connect(paths[1]) as sink:
            if what == "vault":
                vault = await source.proxy(Keeper).open()
                line.tell(await vault.who() if use else None)
                await sink.proxy(Taker).take(vault)
            else:
                stream = source.proxy(Keeper).count(10_000)
                assert isinstance(stream, seqrpc.Stream)
                await stream.open()
                line.tell(None)
                await sink.proxy(Taker).take_stream(stream)
            line.tell("given")
            await asyncio.Event().wait()

    return act


@contextmanager
def keeper_and_taker(
    paths: tuple[Path, Path], new_loop: NewLoop, *, taker_uid: int | None = None
) -> Iterator[tuple[Line, Line]]:
    """Start processes C and B; yield their lines once they listen."""
    with (
        child_on_a_loop(keeper(paths[0]), new_loop) as c,
        child_on_a_loop(taker(paths[1]), new_loop, uid=taker_uid) as b,
    ):
        assert c.hear() == b.hear() == "listening"
        yield c, b


@pytest.mark.parametrize("use", [False, True])
def test_a_channel_from_one_process_is_given_to_another_which_talks_on_when_the_giver_is_dead(
    use: bool, new_loop: NewLoop, paths: tuple[Path, Path]
) -> None:
    with keeper_and_taker(paths, new_loop, taker_uid=STRANGER) as (c, b):
        with child_on_a_loop(giver(paths, "vault", use=use), new_loop) as a:
            assert a.hear() == ([a.pid, os.geteuid()] if use else None)
            assert a.hear() == "given"
            a.kill()
            stranger = os.geteuid() if STRANGER is None else STRANGER
            for _ in range(2):
                assert b.ask("who") == [b.pid, stranger], "the sender of each packet, and not the maker of the pair"
        assert c.ask("state")[1] == 0
        assert b.ask("drop") == "dropped"
        assert c.ask("closed")[1] == 1


def test_a_stream_from_one_process_is_given_to_another_which_reads_on_when_the_giver_is_dead(
    new_loop: NewLoop, paths: tuple[Path, Path]
) -> None:
    with keeper_and_taker(paths, new_loop, taker_uid=STRANGER) as (c, b):
        with child_on_a_loop(giver(paths, "stream", use=False), new_loop) as a:
            assert [a.hear(), a.hear()] == [None, "given"]
            a.kill()
            assert b.ask("read one") == 0
            assert b.ask("read") == list(range(1, 10_000))
        c.ask("count ended")


def test_the_producer_stops_when_the_process_is_killed_that_the_stream_was_given_to(
    new_loop: NewLoop, paths: tuple[Path, Path]
) -> None:
    with keeper_and_taker(paths, new_loop) as (c, b), child_on_a_loop(giver(paths, "stream", use=False), new_loop) as a:
        assert [a.hear(), a.hear()] == [None, "given"]
        assert b.ask("read one") == 0
        b.kill()
        c.ask("count ended")


@pytest.mark.parametrize("use", [False, True])
def test_a_revoked_object_is_gone_for_whoever_it_was_passed_to(
    use: bool, new_loop: NewLoop, paths: tuple[Path, Path]
) -> None:
    with keeper_and_taker(paths, new_loop) as (c, b), child_on_a_loop(giver(paths, "vault", use=use), new_loop) as a:
        assert (a.hear() is not None) is use
        assert a.hear() == "given"
        a.kill()
        if use:
            assert b.ask("wait") == "called"
            c.ask("waiting")
        assert c.ask("revoke")[0] == "revoke"
        for _ in range(2):
            kind, text = b.ask("who")
            assert kind == "Unavailable"
            assert "the object was revoked" in text
        if use:
            kind, text = b.ask("waited")
            assert "the object was revoked" in text
        assert c.ask("closed")[1] == 1


def test_the_object_is_closed_once_when_its_last_holder_is_killed(new_loop: NewLoop, paths: tuple[Path, Path]) -> None:
    with keeper_and_taker(paths, new_loop) as (c, b):
        for _ in range(2):
            with child_on_a_loop(giver(paths, "vault", use=True), new_loop) as a:
                assert a.hear()[0] == a.pid
                assert a.hear() == "given"
        assert b.ask("wait") == "called"
        c.ask("waiting")
        assert c.ask("state")[1] == 0
        b.kill()
        assert c.ask("closed")[1] == 1


def test_the_holder_of_an_object_whose_process_was_killed_is_told(new_loop: NewLoop, paths: tuple[Path, Path]) -> None:
    with keeper_and_taker(paths, new_loop) as (c, b), child_on_a_loop(giver(paths, "vault", use=True), new_loop) as a:
        assert a.hear()[0] == a.pid
        assert a.hear() == "given"
        assert b.ask("wait") == "called"
        c.ask("waiting")
        c.kill()
        assert b.ask("waited")[0] == "ConnectionLost"
        assert b.ask("who")[0] == "ConnectionLost"


# Channels in channels


async def until_open_count_is(number: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while open_count() != number:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.001)


def in_a_network_of_its_own(work: Callable[[], Any], **options: Any) -> Any:
    """Run ``work`` in a child whose Unix sockets are the only ones in its ``/proc/net/unix``."""

    def do() -> Any:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(0x4000_0000) == 0, os.strerror(ctypes.get_errno())  # CLONE_NEWNET
        if options:
            os.setresuid(options["uid"], options["uid"], 0)
        result = work()
        gc.collect()
        return result, settled_sockets()

    return in_child(do)


def sockets_of_this_network() -> int:
    """Return how many Unix sockets there are, also those that only packets on their way refer to."""
    with open("/proc/net/unix", "rb") as table:
        return len(table.read().splitlines()) - 1


def settled_sockets() -> int:
    """Return how many there are once the kernel has collected those that refer to one another only."""
    deadline = time.monotonic() + PATIENCE
    while (left := sockets_of_this_network()) and time.monotonic() < deadline:
        for end in socket.socketpair():  # each close looks for some
            end.close()
        time.sleep(0.001)
    return left


async def test_a_long_chain_of_channels_in_channels_is_let_go_with_its_first() -> None:
    before = open_count()
    async with on_a_pair(Keeper()) as connection:
        keeper_proxy = connection.proxy(Keeper)
        idle = open_count()
        chain = [await keeper_proxy.new() for _ in range(50)]
        for inner, outer in zip(reversed(chain[1:]), reversed(chain[:-1]), strict=True):
            await outer.meet(inner)
        del inner, outer
        del chain[1:]
        assert (await chain[0].who())[0] == os.getpid()
        chain.clear()
        await until_open_count_is(idle)
    assert open_count() == before


async def test_objects_that_hold_one_another_end_with_their_server() -> None:
    before = open_count()
    async with on_a_pair(Keeper()) as connection:
        keeper_proxy = connection.proxy(Keeper)
        first, same, second = await keeper_proxy.open(), await keeper_proxy.open(), await keeper_proxy.new()
        await first.meet(same)  # it holds itself
        again = await keeper_proxy.open()
        await second.meet(again)
        await first.meet(second)  # and another that holds it
    del first, same, second, again, keeper_proxy
    await until_open_count_is(before)


async def test_a_channel_of_a_raw_client_that_is_sent_over_itself_is_released() -> None:
    before = open_count()
    ours, theirs = seqrpc.socket_pair()
    service = Taker()
    async with seqrpc.serve(service, sock=theirs):
        with raw_client(ours) as client:
            # Over a connection itself: its own other end, and a pair whose ends are in one another.
            await client.send(0, 1, "Taker.take", [msgpack.ExtType(3, b"\0")], fds=[ours.fileno()])
            assert await client.receive() == [1, 1, None, None]
            for _ in range(5):
                left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with left, right:
                    for end in (left, right):
                        socket.send_fds(
                            end,
                            [msgpack.packb([2, "Vault.meet", [msgpack.ExtType(3, b"\0")]])],
                            [left.fileno(), right.fileno()][:1],
                        )
                    await client.send(0, 2, "Taker.take", [msgpack.ExtType(3, b"\0")], fds=[right.fileno()])
                assert await client.receive() == [1, 2, None, None]
            for vault in service.vaults[1:]:
                with pytest.raises((seqrpc.ConnectionLost, seqrpc.DeadlineExceeded)):  # it is served by nobody
                    async with seqrpc.timeout(0.01):
                        await vault.who()
            service.vaults.clear()
    await until_open_count_is(before)


_NEST = msgpack.packb([2, "Vault.meet", [msgpack.ExtType(3, b"\0")]])


def nested(depth: int) -> tuple[socket.socket, int]:
    """Return an end of a pair that holds an end of a pair that holds one, and so on; and how deep it came."""
    outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    inner.close()
    for level in range(depth):
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with left:
            try:
                socket.send_fds(left, [_NEST], [outer.fileno()])
            except OSError as exc:
                right.close()
                if exc.errno != errno.ETOOMANYREFS:
                    raise
                return outer, level
        outer.close()
        outer = right
    return outer, depth


@needs_root
@pytest.mark.parametrize("taken", [False, True])
def test_deeply_nested_channels_are_refused_by_the_kernel_or_released(taken: bool, new_loop: NewLoop) -> None:
    """A service that is given a channel with a thousand others inside, read or not, keeps none of them."""

    async def give() -> int:
        ours, theirs = seqrpc.socket_pair()
        service = Taker()
        async with seqrpc.serve(service, sock=theirs) as server:
            with raw_client(ours) as client:
                end, depth = nested(1_000)
                with end:
                    await client.send(0, 1, "Taker.take", [msgpack.ExtType(3, b"\0")], fds=[end.fileno()])
                if taken:
                    assert await client.receive() == [1, 1, None, None]
                    with pytest.raises(seqrpc.ConnectionLost):
                        await service.vaults[0].who()
                    service.vaults.clear()
            if taken:
                await server.wait_closed()
        return depth

    def work() -> int:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(give())

    depth, left = in_a_network_of_its_own(work)
    assert left == 0, "no socket is left in this network"
    assert 0 < depth <= 1_000


@needs_root
def test_cycles_of_channels_on_their_way_are_collected_when_nobody_can_reach_them(new_loop: NewLoop) -> None:
    async def give() -> None:
        ours, theirs = seqrpc.socket_pair()
        async with seqrpc.serve(Taker(), sock=theirs):
            ours.setblocking(False)
            with ours:
                for _ in range(20):
                    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
                    for index, (left, _right) in enumerate(pairs):  # a ring: each holds the next
                        socket.send_fds(left, [_NEST], [pairs[(index + 1) % 3][1].fileno()])
                        socket.send_fds(left, [_NEST], [left.fileno()])  # and its own other end
                    message = msgpack.packb([2, "Taker.take", [msgpack.ExtType(3, b"\0")]])
                    socket.send_fds(ours, [message], [pairs[0][1].fileno()])
                    for pair in pairs:
                        for end in pair:
                            end.close()
                await asyncio.sleep(0)

    def work() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(give())

    assert in_a_network_of_its_own(work) == (None, 0)


@needs_root
def test_a_user_with_too_many_channels_on_their_way_is_told_overloaded(new_loop: NewLoop) -> None:
    """The kernel counts descriptors in flight for each user against RLIMIT_NOFILE; root is not counted."""

    async def give() -> list[str]:
        ours, theirs = seqrpc.socket_pair()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        told = []
        async with seqrpc.connect(sock=ours) as connection:
            for _ in range(200):  # nobody reads at the other end
                try:
                    await connection.notify("Taker.take", Vault())
                except seqrpc.Overloaded as exc:
                    told.append(exc.message)
            theirs.close()
        return told

    def work() -> list[str]:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(give())

    told, left = in_a_network_of_its_own(work, uid=OTHER_UID)
    assert told
    assert left == 0
