"""What is dropped without being closed: connections, servers and transports."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemons import Stage, exists, on_a_pair
from support.dropped import unclosed
from support.processes import in_child
from support.transport import Recorder
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc.aio.connection import link_of
from seqrpc.calls.unclosed import close_dropped


class Work(seqrpc.Service):
    """Does what is asked, and asks back."""

    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def wait(self) -> str:
        self.stage.reach("waits")
        await self.stage.wait("may go on")
        return "done"

    @seqrpc.method
    async def count(self) -> AsyncIterator[int]:
        for number in range(1_000):
            yield number

    @seqrpc.method
    async def object(self) -> seqrpc.Service:
        return Counter()

    @seqrpc.method
    async def ask_back(self) -> Any:
        return await seqrpc.current_call().connection.call("Brought.work")


class Counter(seqrpc.Service):
    @seqrpc.method
    async def one(self) -> int:
        return 1


class Brought(seqrpc.Service):
    """Brought by a client."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.connections: list[seqrpc.Connection] = []

    @seqrpc.method
    async def work(self) -> int:
        self.stage.reach("works")
        await self.stage.wait("may go on")
        return 7

    @seqrpc.method
    async def keep(self) -> None:
        self.connections.append(seqrpc.current_call().connection)


async def is_left(server: seqrpc.Server) -> None:
    await comes_true(lambda: not server.connections)


# Connections


async def test_a_dropped_connection_is_closed_at_once_with_a_warning(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        connection = await seqrpc.connect(socket_path)
        await connection.call("rpc.ping")
        with pytest.raises(seqrpc.MethodNotFound):
            await connection.call("rpc.nothing")
        known = weakref.ref(connection)
        assert len(server.connections) == 1
        with unclosed():
            del connection
            assert known() is None
            await is_left(server)


async def test_a_connection_that_was_closed_is_dropped_without_a_word(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        with unclosed(number=0):
            async with seqrpc.connect(socket_path):
                pass
            connection = await seqrpc.connect(socket_path)
            await connection.close()
            del connection
            closing = asyncio.ensure_future((await seqrpc.connect(socket_path)).close())
            await asyncio.sleep(0)
            closing.cancel()  # the closing goes on
            with contextlib.suppress(asyncio.CancelledError):
                await closing
            del closing
            await is_left(server)
            connection = await seqrpc.connect(socket_path)
            await connection.call("rpc.ping")
            (accepted,) = server.connections
            await accepted.close()
            await connection.wait_closed()  # by the other side
            del connection


async def test_whatever_can_call_holds_the_connection(socket_path: Path) -> None:
    work = Work()
    async with seqrpc.serve(work, socket_path) as server:
        connection = await seqrpc.connect(socket_path)
        proxy, stream = connection.proxy(Work), connection.proxy(Work).count()
        call = asyncio.ensure_future(proxy.wait())
        not_begun = proxy.wait()
        with unclosed(number=0):
            del connection, proxy
            await work.stage.wait("waits")
            work.stage.reach("may go on")
            assert await call == "done"
            assert await not_begun == "done"
            del call, not_begun
        with unclosed():  # an open stream does not need it, and lives on
            assert await anext(aiter(stream)) == 0
            await is_left(server)
        assert await anext(aiter(stream)) == 1
        await stream.aclose()


async def fails_by_a_deadline(connection: seqrpc.Connection) -> None:
    with contextlib.suppress(seqrpc.DeadlineExceeded):
        async with seqrpc.timeout(0.01):
            await connection.call("Work.wait")


async def fails_by_a_deadline_of_its_own(connection: seqrpc.Connection) -> None:
    with contextlib.suppress(seqrpc.DeadlineExceeded):
        await link_of(connection).caller.request("Work.wait", (), time.monotonic_ns() + 10_000_000)


async def fails_by_being_cancelled(connection: seqrpc.Connection) -> None:
    call = asyncio.ensure_future(connection.call("Work.wait"))
    await turns_of_the_loop()
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call


async def fails_by_an_error(connection: seqrpc.Connection) -> None:
    with contextlib.suppress(seqrpc.MethodNotFound):
        await connection.call("Work.nothing")


async def fails_because_it_cannot_be_sent(connection: seqrpc.Connection) -> None:
    with contextlib.suppress(seqrpc.LocalProtocolError):
        await connection.call("Work.wait", object())
    with contextlib.suppress(ValueError):
        await connection.call("Work.wait", link_of(connection).transport.get_extra_info("socket"))
    with contextlib.suppress(ValueError):
        await connection.notify("Work.wait", link_of(connection).transport.get_extra_info("socket"))


async def fails_because_nothing_is_answered(connection: seqrpc.Connection) -> None:
    calls = [asyncio.ensure_future(connection.call("Work.wait")) for _ in range(2)]
    await turns_of_the_loop()
    with contextlib.suppress(seqrpc.Overloaded):
        await connection.call("Work.wait")
    for call in calls:
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call


@pytest.mark.parametrize(
    "fail",
    [
        fails_by_a_deadline,
        fails_by_a_deadline_of_its_own,
        fails_by_being_cancelled,
        fails_by_an_error,
        fails_because_it_cannot_be_sent,
        fails_because_nothing_is_answered,
    ],
)
async def test_a_call_that_failed_does_not_hold_the_connection(
    fail: Callable[[seqrpc.Connection], Awaitable[None]], socket_path: Path
) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        limits = seqrpc.Limits(max_calls_in_flight=2, stall_timeout=0.01)
        connection = await seqrpc.connect(socket_path, limits=limits)
        with unclosed():
            await fail(connection)
            del connection
            await is_left(server)


async def test_streams_and_channels_live_on(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        connection = await seqrpc.connect(socket_path)
        stream = await connection.call("Work.count")
        channel = await connection.call("Work.object")
        with unclosed():
            del connection
            await is_left(server)
        assert [await anext(stream) for _ in range(500)] == list(range(500))
        assert await channel.call("Counter.one") == 1
        with unclosed(number=0):  # these are let go by dropping
            del stream, channel
            await server.drain()


async def test_a_handler_of_a_brought_service_holds_the_connection_until_it_is_answered(socket_path: Path) -> None:
    brought = Brought()
    async with seqrpc.serve(Work(), socket_path) as server:
        connection = await seqrpc.connect(socket_path, services=brought)
        await connection.call("rpc.ping")
        (accepted,) = server.connections
        asking = asyncio.ensure_future(accepted.call("Brought.work"))
        await brought.stage.wait("works")
        with unclosed(number=0):
            del connection
            await turns_of_the_loop()
            assert not accepted.closed
        with unclosed():
            brought.stage.reach("may go on")
            assert await asking == 7
            await is_left(server)


async def test_handlers_see_one_connection_which_they_may_keep(socket_path: Path) -> None:
    brought = Brought()
    async with seqrpc.serve(Work(), socket_path) as server:
        connection = await seqrpc.connect(socket_path, services=brought)
        proxy = connection.proxy(Work)
        await connection.call("rpc.ping")
        (accepted,) = server.connections
        await accepted.call("Brought.keep")
        assert brought.connections.pop() is connection
        with unclosed(number=0):
            del connection  # the proxy holds what is below
            for _ in range(2):
                await accepted.call("Brought.keep")
            assert brought.connections[0] is brought.connections.pop()
            del proxy
            await accepted.call("rpc.ping")
        with unclosed():
            brought.connections.clear()
            await is_left(server)


async def test_what_waits_to_be_sent_is_sent(socket_path: Path) -> None:
    work = Work()
    async with seqrpc.serve(work, socket_path) as server:
        connection = await seqrpc.connect(socket_path)
        with unclosed():
            await connection.notify("Work.wait")
            del connection
            await work.stage.wait("waits")
            work.stage.reach("may go on")
            await is_left(server)


async def test_lifespans_of_brought_services_are_left(socket_path: Path) -> None:
    stage = Stage()

    class Living(Brought):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            yield
            stage.reach("left")

    async with seqrpc.serve(Work(), socket_path):
        connection = await seqrpc.connect(socket_path, services=Living())
        with unclosed():
            del connection
            await stage.wait("left")


async def test_a_connection_dropped_in_another_thread_is_closed_on_its_loop(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        held = [await seqrpc.connect(socket_path)]
        await held[0].call("rpc.ping")
        with unclosed():
            await asyncio.to_thread(held.clear)
            await is_left(server)


async def test_one_in_a_cycle_is_closed_when_that_is_collected(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        cycle: list[Any] = [await seqrpc.connect(socket_path)]
        cycle.append(cycle)
        await cycle[0].call("rpc.ping")
        with unclosed():
            del cycle
            gc.collect()
            await is_left(server)


async def test_a_fork_says_nothing_and_leaves_the_parent_alone(socket_path: Path) -> None:
    async with seqrpc.serve(Work(), socket_path) as server:
        held: list[Any] = [await seqrpc.connect(socket_path), await seqrpc.create_server(Recorder, f"{socket_path}2")]
        held.append(await seqrpc.serve(Work(), f"{socket_path}3"))

        def drop() -> int:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                held.clear()
                gc.collect()
            return len(caught)

        assert in_child(drop) == 0
        assert await held[0].call("rpc.ping") is None
        assert exists(Path(f"{socket_path}2"))
        assert exists(Path(f"{socket_path}3"))
        await held[0].close()
        held[1].close()
        await held[2].close()
        await is_left(server)


async def test_in_a_fork_that_python_missed_nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    class Thing:
        is_unclosed = True

        def abandon(self) -> None:
            raise AssertionError

    monkeypatch.setattr("seqrpc.kernel.forks.was_missed", lambda: True)
    with unclosed(number=0):
        close_dropped(Thing(), None)


async def test_it_is_closed_also_where_warnings_are_errors(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: raised.append(problem.exc_type))
    async with seqrpc.serve(Work(), socket_path) as server:
        connection = await seqrpc.connect(socket_path)
        await connection.call("rpc.ping")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del connection
        await is_left(server)
    assert raised == [ResourceWarning]


# Loops that run no more


@pytest.mark.parametrize("is_closed", [True, False])
def test_where_the_loop_runs_no_more_the_socket_is_closed(is_closed: bool) -> None:
    ours, theirs = seqrpc.socket_pair()
    theirs.settimeout(PATIENCE)

    async def begin() -> seqrpc.Connection:
        return await seqrpc.connect(sock=ours)

    with theirs:
        runner = asyncio.Runner()
        connection = runner.run(begin())
        if is_closed:
            runner.close()
        with unclosed():
            del connection
        assert theirs.recv(10) == b""
        runner.close()


@pytest.mark.parametrize("is_closed", [True, False])
def test_where_the_loop_runs_no_more_a_server_lets_its_address_go(is_closed: bool, socket_path: Path) -> None:
    async def begin(path: Path) -> tuple[seqrpc.Server, seqrpc.SeqpacketServer, seqrpc.Connection]:
        server = await seqrpc.serve(Work(), path)
        connection = await seqrpc.connect(path)
        await connection.call("rpc.ping")
        return server, await seqrpc.create_server(Recorder, f"{path}2"), connection

    runner = asyncio.Runner()
    server, packets, connection = runner.run(begin(socket_path))
    if is_closed:
        runner.close()
    with unclosed("Server"):
        del server
    with unclosed("SeqpacketServer"):
        del packets
    assert list(socket_path.parent.iterdir()) == []
    with unclosed():
        del connection
    runner.close()


EXITS = """
import asyncio, sys, seqrpc

async def begin(number):
    return await seqrpc.connect(f"fd:{number}")

kept = asyncio.run(begin(sys.argv[1]))
"""


@pytest.mark.parametrize("options", [[], ["-W", "always"], ["-W", "error"]])
def test_at_the_end_of_the_process_there_is_at_most_a_warning(options: list[str]) -> None:
    ours, theirs = seqrpc.socket_pair()
    with ours, theirs:
        number = theirs.fileno()
        done = subprocess.run(
            [sys.executable, *options, "-c", EXITS, str(number)],
            capture_output=True,
            check=False,
            text=True,
            pass_fds=[number],
        )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("unclosed <Connection open ") == (1 if options else 0)
    assert "Error" not in done.stderr


# Servers


async def test_a_dropped_server_is_closed_with_a_warning(socket_path: Path) -> None:
    stage = Stage()

    class Living(Work):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            yield
            stage.reach("left")

    server = await seqrpc.serve(Living(), socket_path)
    async with seqrpc.connect(socket_path) as connection:
        await connection.call("rpc.ping")
        with unclosed("Server"):
            del server
            assert not exists(socket_path)
            await connection.wait_closed()
            await stage.wait("left")


async def test_a_server_dropped_in_another_thread_is_closed_on_its_loop(socket_path: Path) -> None:
    held: list[Any] = [await seqrpc.serve(Work(), socket_path), await seqrpc.create_server(Recorder, f"{socket_path}2")]
    assert repr(held[0]) == f"<Server at {socket_path}>"
    async with seqrpc.connect(socket_path) as connection:
        for what in ("SeqpacketServer", "Server"):
            with unclosed(what):
                await asyncio.to_thread(held.__delitem__, -1)
        await connection.wait_closed()
        await comes_true(lambda: not exists(Path(f"{socket_path}2")))


async def test_a_server_that_was_closed_is_dropped_without_a_word(socket_path: Path) -> None:
    with unclosed(number=0):
        server = await seqrpc.serve(Work(), socket_path)
        await server.close()
        del server
        ours, theirs = seqrpc.socket_pair()
        server = await seqrpc.serve(Work(), sock=theirs)
        ours.close()
        await server.wait_closed()
        del server
    async with on_a_pair(Work()) as connection:
        await connection.call("rpc.ping")


# Packets without the RPC


async def test_a_dropped_server_of_packets_lets_its_address_go(socket_path: Path) -> None:
    server = await seqrpc.create_server(Recorder, socket_path)
    with unclosed("SeqpacketServer"):
        del server
        assert not exists(socket_path)
    with unclosed(number=0):
        server = await seqrpc.create_server(Recorder, socket_path)
        server.close()
        del server


async def test_a_transport_that_is_not_read_is_closed_when_it_is_dropped() -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        theirs.setblocking(False)
        transport, protocol = await seqrpc.create_connection(seqrpc.SeqpacketProtocol, sock=ours)
        with unclosed("SeqpacketTransport", number=0):  # the loop holds one that is read
            del protocol
            gc.collect()
        transport.pause_reading()
        with unclosed("SeqpacketTransport"):
            del transport
            gc.collect()
            assert await asyncio.get_running_loop().sock_recv(theirs, 10) == b""


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_transport_whose_loop_runs_no_more(is_closed: bool) -> None:
    async def begin(sock: socket.socket) -> seqrpc.SeqpacketTransport:
        transport, _protocol = await seqrpc.create_connection(seqrpc.SeqpacketProtocol, sock=sock)
        transport.pause_reading()
        return transport

    ours, theirs = seqrpc.socket_pair()
    theirs.settimeout(PATIENCE)
    with theirs:
        runner = asyncio.Runner()
        transport = runner.run(begin(ours))
        if is_closed:
            runner.close()
        with unclosed("SeqpacketTransport"):
            del transport
            gc.collect()
        assert theirs.recv(10) == b""
        runner.close()


async def test_a_transport_that_is_collected_in_another_thread() -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        theirs.setblocking(False)
        transport, protocol = await seqrpc.create_connection(seqrpc.SeqpacketProtocol, sock=ours)
        transport.pause_reading()
        with unclosed("SeqpacketTransport"):
            del transport, protocol
            await asyncio.to_thread(gc.collect)
            assert await asyncio.get_running_loop().sock_recv(theirs, 10) == b""
