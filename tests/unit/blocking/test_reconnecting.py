"""Connections without an event loop that are made anew."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgpack
import pytest
from support.reconnecting import IMPATIENT, QUICK, Impostor, Journal, impostor, soon
from support.sync import comes_readable, readable
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

import seqrpc
from seqrpc import Execution, blocking
from seqrpc.blocking.connection import ReconnectingConnection
from seqrpc.blocking.reconnecting import Lines

T = TypeVar("T")


async def away(function: Callable[..., T], *args: Any) -> T:
    """Call in a thread, for the daemon is on this one's loop."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.to_thread(function, *args)


async def connected(address: Path, policy: seqrpc.Reconnect = QUICK, **options: Any) -> blocking.Connection:
    return await away(lambda: blocking.connect(address, reconnect=policy, **options))


def lines_of(connection: blocking.Connection) -> Lines:
    assert isinstance(connection, ReconnectingConnection)
    return connection._lines


async def raised_by(kind: type[seqrpc.SeqrpcError], function: Callable[..., Any], *args: Any) -> Any:
    with pytest.raises(kind) as caught:
        await away(function, *args)
    return caught.value


async def test_calls_go_on_over_the_next_life_of_a_daemon(socket_path: Path) -> None:
    journal = Journal()
    told: list[blocking.Connection] = []
    policy = seqrpc.Reconnect(first_delay=0.001, longest_delay=0.02, on_reconnect=told.append)
    async with seqrpc.serve(journal, socket_path):
        connection = await connected(socket_path, policy)
        proxy: Any = connection.proxy(Journal)
        assert await away(proxy.add, "first") == "first"
        assert connection.peer is not None
        assert told == []
    async with seqrpc.serve(journal, socket_path):
        assert await away(proxy.add, "second") == "second"
        assert await away(connection.call, "Journal.add", "third") == "third"
        await away(proxy.tell, "fourth")
        assert await away(proxy.add, "last") == "last"
        assert told == [connection]
        assert not connection.closed
        assert repr(connection).startswith("<Connection open")
        await away(connection.close)
    assert connection.closed
    assert repr(connection) == "<Connection closed>"
    assert journal.ran == ["first", "second", "third", "fourth", "last"]


async def test_what_the_hook_raises_is_logged(socket_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_connection: Any) -> None:
        raise ValueError("not now")

    policy = seqrpc.Reconnect(first_delay=0.001, longest_delay=0.02, on_reconnect=fail)
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path, policy)
    async with seqrpc.serve(Journal(), socket_path):
        assert await away(connection.call, "Journal.add", "a") == "a"
        await away(connection.close)
    assert "on_reconnect failed" in caplog.text


async def test_a_daemon_that_is_not_there_yet_is_waited_for(socket_path: Path) -> None:
    waiting = asyncio.ensure_future(connected(socket_path))
    await turns_of_the_loop(3)
    async with seqrpc.serve(Journal(), socket_path):
        connection = await waiting
        await away(connection.wait_for_ready)
        await away(connection.close)


async def test_nobody_is_waited_for_for_ever(socket_path: Path) -> None:
    error = await raised_by(seqrpc.NobodyListens, lambda: blocking.connect(socket_path, reconnect=IMPATIENT))
    assert error.execution is Execution.DID_NOT_RUN
    assert "for 0.05 s: ready_timeout" in str(error)
    at_once = seqrpc.Reconnect(wait_for_ready=False)
    error = await raised_by(seqrpc.NobodyListens, lambda: blocking.connect(socket_path, reconnect=at_once))
    assert "ready_timeout" not in str(error)


async def test_a_deadline_bounds_the_waiting(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)

    def call() -> None:
        with seqrpc.timeout(0.02):
            connection.call("Journal.add", "a")

    error = await raised_by(seqrpc.DeadlineExceeded, call)
    assert error.execution is Execution.DID_NOT_RUN
    connection.close()


async def test_threads_that_wait_together_are_bounded_each_by_its_own_deadline(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)

    def call(delay: float) -> None:
        with seqrpc.timeout(delay):
            connection.call("Journal.add", "a")

    errors = await asyncio.gather(
        *(raised_by(seqrpc.DeadlineExceeded, call, delay) for delay in (0.2, 0.02, 0.02)),
    )
    assert {error.execution for error in errors} == {Execution.DID_NOT_RUN}
    connection.close()


async def test_what_may_have_run_is_made_again_only_if_it_may(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    connection = await connected(socket_path)
    proxy: Any = connection.proxy(Journal)
    once = asyncio.ensure_future(raised_by(seqrpc.ConnectionLost, proxy.wait, "once"))
    await journal.stage.wait("once")
    again = asyncio.ensure_future(away(proxy.wait_again, "again"))
    await journal.stage.wait("again")
    await server.close()
    async with seqrpc.serve(journal, socket_path):
        assert (await once).execution is Execution.MAY_HAVE_RUN
        assert await again == "again"
        await away(connection.close)
    assert journal.ran == ["once", "again", "again"]


async def test_one_that_found_no_daemon_the_second_time_may_have_run(socket_path: Path) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    connection = await connected(socket_path, IMPATIENT)
    proxy: Any = connection.proxy(Journal)
    again = asyncio.ensure_future(raised_by(seqrpc.SeqrpcError, proxy.wait_again, "again"))
    await journal.stage.wait("again")
    await server.close()
    assert (await again).execution is Execution.MAY_HAVE_RUN
    connection.close()


async def test_an_answer_of_a_handler_is_not_taken_for_a_daemon_that_goes(socket_path: Path) -> None:
    journal = Journal()
    async with seqrpc.serve(journal, socket_path):
        connection = await connected(socket_path)
        proxy: Any = connection.proxy(Journal)
        await raised_by(seqrpc.Unavailable, proxy.refuses)
        assert journal.ran == ["refuses"]
        await away(connection.close)


async def test_new_calls_leave_a_daemon_that_drains_and_old_ones_end_there(socket_path: Path) -> None:
    journal = Journal()
    old = await seqrpc.serve(journal, socket_path)
    connection = await connected(socket_path)
    proxy: Any = connection.proxy(Journal)
    waiting = asyncio.ensure_future(away(proxy.wait, "old"))
    await journal.stage.wait("old")
    draining = asyncio.ensure_future(old.drain())
    await comes_true(lambda: not old.sockets)
    async with seqrpc.serve(journal, socket_path):
        assert await away(proxy.add, "new") == "new"
        journal.stage.reach("old may end")
        assert await waiting == "old"
        assert await draining
        assert await away(proxy.add, "last") == "last"
        assert len(lines_of(connection).lines) == 1
        await away(connection.close)
    assert journal.ran == ["old", "new", "last"]


class Hits(seqrpc.Service):
    def __init__(self) -> None:
        self.count = 0

    @seqrpc.method(oneway=True)
    def hit(self) -> None:
        self.count += 1


async def test_a_turn_takes_no_more_packets_than_the_limits_say(socket_path: Path) -> None:
    def knock(other: Impostor, sock: socket.socket) -> None:
        for _ in range(3):
            sock.send(msgpack.packb([2, "Hits.hit", []]))
        other.keeps(sock)

    hits, limits = Hits(), seqrpc.Limits(max_packets_per_wakeup=1)
    with impostor(socket_path, knock) as other:
        connection = await connected(socket_path, services=[hits], limits=limits)
        await comes_true(lambda: other.met)
        for count in (1, 2, 3):
            await away(connection.process)
            assert hits.count == count
        connection.close()


async def test_why_the_last_daemon_went_is_told_while_there_is_none(socket_path: Path) -> None:
    server = await seqrpc.serve(Journal(), socket_path)
    connection = await connected(socket_path)
    assert connection.closing_reason is None
    await server.drain()
    await away(connection.process)
    assert connection.closing_reason == "the server is stopping"
    assert connection.peer is None
    assert repr(connection) == "<Connection reconnecting>"
    connection.close()


async def test_what_is_no_use_to_wait_for_is_told_at_once(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path, server=seqrpc.policy.uid(os.getuid()))
    await away(socket_path.write_text, "no socket")
    await raised_by(seqrpc.WrongSocketType, connection.call, "Journal.add", "a")
    connection.close()


async def test_somebody_else_at_the_address_gets_no_byte(socket_path: Path) -> None:
    got: list[bytes] = []

    def meet(_other: object, sock: socket.socket) -> None:
        with sock:
            sock.setblocking(True)
            got.append(sock.recv(100))

    with impostor(socket_path, meet):
        refusing = seqrpc.policy.uid(os.getuid() + 1)
        error = await raised_by(
            seqrpc.UntrustedServer, lambda: blocking.connect(socket_path, reconnect=QUICK, server=refusing)
        )
        assert error.execution is Execution.DID_NOT_RUN
    assert got in ([], [b""])


async def test_one_that_ends_every_connection_is_not_hammered(socket_path: Path) -> None:
    with impostor(socket_path, lambda _other, sock: sock.close()) as other:
        policy = seqrpc.Reconnect(first_delay=0.02, longest_delay=0.02, ready_timeout=0.2)
        connection = await connected(socket_path, policy)
        await raised_by(seqrpc.SeqrpcError, connection.call, "Journal.add", "a")
        assert other.met <= 15
        connection.close()


async def test_closing_ends_calls_that_wait(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)
        await away(connection.close)
    error = await raised_by(seqrpc.ConnectionLost, connection.call, "Journal.add", "a")
    assert error.execution is Execution.DID_NOT_RUN
    assert "closed on this side" in str(error)
    with pytest.raises(ValueError, match="was closed"):
        connection.fileno()
    connection.close()


async def test_a_gui_loop_watches_one_descriptor_over_all_lives(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)
        number = connection.fileno()
    await away(connection.process)
    assert connection.peer is None
    async with seqrpc.serve(Journal(), socket_path):
        begin = time.monotonic()
        while connection.peer is None:
            await away(connection.process)
            assert time.monotonic() < begin + PATIENCE
        assert connection.fileno() == number
        assert await away(connection.call, "Journal.add", "a") == "a"
        await away(connection.close)


async def test_a_gui_loop_hears_of_the_end_of_what_another_thread_connected(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)
        number = connection.fileno()
    connection.process()
    assert connection.peer is None
    async with seqrpc.serve(Journal(), socket_path):
        assert await away(connection.call, "Journal.add", "a") == "a"
        assert connection.peer is not None
        assert not readable(number)
    await away(comes_readable, number)
    connection.process()
    assert connection.peer is None
    connection.close()


class Guest(seqrpc.Service):
    @seqrpc.method
    def name(self) -> str:
        return "guest"


async def test_what_a_client_serves_it_serves_on_each_connection(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path, services=Guest())
        proxy: Any = connection.proxy(Journal)
        assert await away(proxy.ask_back) == "guest"
    async with seqrpc.serve(Journal(), socket_path):
        assert await away(proxy.ask_back) == "guest"
        await away(connection.close)


async def test_a_stream_ends_with_its_daemon(socket_path: Path) -> None:
    journal = Journal()
    async with seqrpc.serve(journal, socket_path):
        connection = await connected(socket_path)
        proxy: Any = connection.proxy(Journal)
        numbers = proxy.count()
        assert await away(next, numbers) == 0
    await raised_by(seqrpc.Unavailable, list, numbers)
    connection.close()


async def test_one_that_is_dropped_is_closed_with_a_warning(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path) as server:
        # In this thread: another one may hold it, and the call that it made, a moment longer.
        held = [blocking.connect(socket_path, reconnect=True)]
        await comes_true(lambda: server.connections)
        with pytest.warns(ResourceWarning, match="unclosed <Connection open"):
            held.clear()
        await comes_true(lambda: not server.connections)


async def test_a_forked_child_is_told(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: of forks beside threads
            pid = os.fork()
        if not pid:  # pragma: no cover - coverage is not measured there
            try:
                connection.call("Journal.add", "child")
            except seqrpc.WrongProcess:
                os._exit(7)
            finally:
                os._exit(1)
        _pid, status = await away(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert await away(connection.call, "Journal.add", "parent") == "parent"
        await away(connection.close)


def test_only_an_address_can_be_connected_to_again() -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs, ours, pytest.raises(ValueError, match="cannot be connected to again"):
        blocking.connect(sock=ours, reconnect=True)


async def test_what_cannot_be_sent_is_not_tried_again(socket_path: Path) -> None:
    fd = seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY))
    fd.close()
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)
        proxy: Any = connection.proxy(Journal)
        with pytest.raises(ValueError, match="closed"):
            await away(connection.call, "Journal.add", fd)
        assert "Journal" in repr(proxy)
        proxy.__exit__(None, None, None)  # which lets go of nothing
        assert await away(proxy.add, "a") == "a"
        await away(connection.close)


async def test_a_copy_in_a_forked_child_connects_to_nobody(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)
        lines = lines_of(connection)
        forked = Lines(lambda _adopt: pytest.fail("it connects"), QUICK, lines.family, lambda _value: False)
        forked._let_go_in_child()
        for use in (forked.ready, forked.check_process):
            with pytest.raises(seqrpc.WrongProcess):
                use()
        forked.close()
        assert not forked.is_unclosed
        await away(connection.close)


class Heard(blocking.Interceptor):
    def __init__(self) -> None:
        self.of: list[str] = []

    def request(self, call: seqrpc.OutgoingCall, proceed: Callable[[], Any]) -> Any:
        self.of.append(call.method)
        return proceed()


async def test_interceptors_surround_a_call_with_all_its_attempts(socket_path: Path) -> None:
    journal, heard = Journal(), Heard()
    server = await seqrpc.serve(journal, socket_path)
    connection = await connected(socket_path, interceptors=[heard])
    proxy: Any = connection.proxy(Journal)
    again = asyncio.ensure_future(away(proxy.wait_again, "again"))
    await journal.stage.wait("again")
    await server.close()
    async with seqrpc.serve(journal, socket_path):
        assert await again == "again"
        await away(proxy.tell, "told")
        assert "Journal" in repr(proxy)
        await away(connection.close)
    assert journal.ran[:2] == ["again", "again"]
    assert heard.of == ["Journal.wait_again", "Journal.tell"]


SLOW = seqrpc.Reconnect(first_delay=60, longest_delay=60, ready_timeout=None)


async def test_closing_wakes_who_waits_for_the_next_attempt(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path, SLOW)
    lines = lines_of(connection)
    waiting = asyncio.ensure_future(raised_by(seqrpc.ConnectionLost, connection.call, "Journal.add", "a"))
    await comes_true(lambda: lines._connecting is not None)
    await away(connection.close)
    assert "closed on this side" in str(await waiting)
    assert lines.lines == []


async def test_a_connection_that_is_closed_while_it_is_made_is_not_used(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path) as server:
        connection = await connected(socket_path)
        lines = lines_of(connection)
        made = lines._make

        def make_and_close(adopt: Any) -> None:
            made(adopt)
            lines._close()

        lines._make = make_and_close
        lines._current = None
        await raised_by(seqrpc.ConnectionLost, connection.call, "Journal.add", "a")
        await away(connection.close)
        await comes_true(lambda: len(server.connections) <= 1)


async def test_a_signal_handler_that_calls_while_it_is_made_anew_is_told(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)
        lines = lines_of(connection)
        made = lines._make

        def call_meanwhile(adopt: Any) -> None:
            with pytest.raises(RuntimeError, match="by this very thread"):
                connection.call("Journal.add", "nested")
            made(adopt)

        lines._make = call_meanwhile
        old, lines._current = lines._current, None
        assert await away(connection.call, "Journal.add", "a") == "a"
        assert old is not None
        old.line.abandon()
        await away(connection.close)


async def test_delays_begin_anew_if_a_signal_handler_raised_in_them(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)
        lines = lines_of(connection)
        lines._delays = iter(())
        assert 0 <= lines._next_delay() <= QUICK.first_delay
        await away(connection.close)


def hooked(hook: Callable[[Any], object]) -> seqrpc.Reconnect:
    return seqrpc.Reconnect(first_delay=0.001, longest_delay=0.01, ready_timeout=PATIENCE, on_reconnect=hook)


async def test_the_hook_is_not_called_within_itself(socket_path: Path) -> None:
    depth = deepest = 0

    def hook(connection: blocking.Connection) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        if depth == 1:
            with contextlib.suppress(seqrpc.SeqrpcError):
                connection.call("Journal.add", "in the hook")
        depth -= 1

    policy = seqrpc.Reconnect(first_delay=0.001, longest_delay=0.01, ready_timeout=0.1, on_reconnect=hook)
    with impostor(socket_path, lambda _other, sock: sock.close()) as other:
        connection = await connected(socket_path, policy)
        await raised_by(seqrpc.SeqrpcError, connection.call, "Journal.add", "a")
        assert other.met > 2, "the call of the hook reconnects, too"
        assert (depth, deepest) == (0, 1)
        connection.close()


async def test_the_hook_has_neither_the_deadline_nor_the_metadata_of_the_call(socket_path: Path) -> None:
    class Said(seqrpc.Service):
        @seqrpc.method
        async def around(self) -> Any:
            call = seqrpc.current_call()
            return [dict(call.meta), call.deadline is not None]

    def call() -> Any:
        with seqrpc.timeout(PATIENCE), seqrpc.metadata(on_behalf_of="ann"):
            return connection.call("Said.around")

    heard: list[Any] = []
    async with seqrpc.serve(Said(), socket_path):
        connection = await connected(socket_path, hooked(lambda anew: heard.append(anew.call("Said.around"))))
    async with seqrpc.serve(Said(), socket_path):
        assert await away(call) == [{"on_behalf_of": "ann"}, True]
        assert heard == [[{}, False]]
        await away(connection.close)


async def test_a_daemon_that_comes_while_the_hook_runs_is_told_to_it_afterwards(socket_path: Path) -> None:
    journals = [Journal(), Journal(), Journal()]
    lives = iter(journals)
    servers: list[seqrpc.Server] = []
    loop = asyncio.get_running_loop()

    async def live_anew() -> None:
        if servers:
            await servers.pop().close()
        servers.append(await seqrpc.serve(next(lives), socket_path))

    def hook(anew: blocking.Connection) -> None:
        anew.call("Journal.add", "log in")
        if journals[1].ran == ["log in"] and not journals[2].ran:
            asyncio.run_coroutine_threadsafe(live_anew(), loop).result(PATIENCE)
        anew.call("Journal.add", "subscribe")

    await live_anew()
    connection = await connected(socket_path, hooked(hook))
    await live_anew()
    assert await away(connection.call, "Journal.add", "a") == "a"
    assert [journal.ran for journal in journals] == [[], ["log in"], ["subscribe", "log in", "subscribe", "a"]]
    await away(connection.close)
    await servers[0].close()


async def test_a_hook_in_whose_time_daemons_come_and_go_for_ever_lets_the_call_go_on(socket_path: Path) -> None:
    told = 0

    def hook(anew: blocking.Connection) -> None:
        nonlocal told
        told += 1
        if told < 50:
            lines_of(anew)._current = None  # as if it had ended
            anew.wait_for_ready()

    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path, hooked(hook))
    async with seqrpc.serve(Journal(), socket_path):
        assert await away(connection.call, "Journal.add", "a") == "a"
        assert 1 < told < 50
        gc.collect()  # the connections that nobody closed
        await away(connection.close)


class Counted:
    """A lock that tells how many threads have asked for it."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.asked = 0

    def acquire(self, *options: Any) -> bool:
        self.asked += 1
        taken: bool = self.lock.acquire(*options)
        return taken

    def release(self) -> None:
        self.lock.release()


async def test_threads_that_wait_together_are_told_at_once_that_it_is_no_use(socket_path: Path) -> None:
    async with seqrpc.serve(Journal(), socket_path):
        connection = await connected(socket_path)
    await away(socket_path.write_text, "no socket")
    lines: Any = lines_of(connection)
    attempts = 0
    make = lines._make

    def make_and_count(*given: Any) -> Any:
        nonlocal attempts
        attempts += 1
        return make(*given)

    lines._make = make_and_count
    lines._lock = lock = Counted(lines._lock)
    with lock.lock:
        calls = [soon(raised_by(seqrpc.WrongSocketType, connection.call, "Journal.add", "a")) for _ in range(4)]
        await comes_true(lambda: lock.asked == len(calls))
    errors = await asyncio.gather(*calls)
    assert attempts == 1
    assert len({id(error) for error in errors}) == len(calls), "each has one of its own"
    assert {error.execution for error in errors} == {Execution.DID_NOT_RUN}
    await raised_by(seqrpc.WrongSocketType, connection.call, "Journal.add", "later")
    assert attempts == 2, "who comes later tries again"
    connection.close()


async def test_a_connection_that_drains_is_kept_while_this_side_works_for_it(socket_path: Path) -> None:
    begun, drained = threading.Event(), threading.Event()

    class Working(seqrpc.Service, name="Guest"):
        @seqrpc.method
        def name(self) -> Any:
            begun.set()
            assert drained.wait(PATIENCE)
            return connection.call("Journal.add", "nested")

    class Asking(Journal, name="Journal"):
        @seqrpc.method(oneway=True)
        async def ask(self) -> None:
            self.ran.append(await self.ask_back())

    def work() -> None:
        while not begun.is_set():
            connection.process()

    journal, next_journal = Asking(), Journal()
    old = await seqrpc.serve(journal, socket_path)
    connection = await connected(socket_path, services=Working())
    await away(connection.notify, "Journal.ask")
    working = soon(away(work))
    await comes_true(begun.is_set)
    draining = soon(old.drain())
    await comes_true(lambda: not old.sockets)
    async with seqrpc.serve(next_journal, socket_path):
        drained.set()
        await working
        assert await draining
        assert await away(connection.call, "Journal.add", "last") == "last"
        assert len(lines_of(connection).lines) == 1
        await away(connection.close)
    assert (journal.ran, next_journal.ran) == (["nested"], ["nested", "last"])


async def test_to_wait_for_a_turn_is_not_to_wait_for_a_connection(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal()
    server = await seqrpc.serve(journal, socket_path)
    connection = await connected(socket_path, limits=seqrpc.Limits(max_calls_in_flight=1))
    lines = lines_of(connection)
    running = soon(raised_by(seqrpc.ConnectionLost, connection.call, "Journal.wait", "old"))
    await journal.stage.wait("old")
    waiting = soon(away(connection.call, "Journal.add", "new"))
    (line,) = lines.lines
    await comes_true(lambda: line.room.waiting)
    later = types.SimpleNamespace(monotonic=lambda: time.monotonic() + 2 * PATIENCE, monotonic_ns=time.monotonic_ns)
    monkeypatch.setattr("seqrpc.blocking.reconnecting.time", later)
    await server.close()
    await running
    await comes_true(lambda: isinstance(lines._failure, seqrpc.NobodyListens))
    async with seqrpc.serve(journal, socket_path):
        assert await waiting == "new"
        await away(connection.close)


async def test_a_full_backlog_is_waited_for_between_attempts(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(socket_path))
        listener.listen(0)
        for _ in range(3):
            one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(str(socket_path))
        at_once = seqrpc.Reconnect(wait_for_ready=False)
        error = await raised_by(seqrpc.ServerBusy, lambda: blocking.connect(socket_path, reconnect=at_once))
        assert "its backlog is full" in str(error)
        error = await raised_by(seqrpc.ServerBusy, lambda: blocking.connect(socket_path, reconnect=IMPATIENT))
        assert "ready_timeout" in str(error)


async def test_a_connection_that_was_made_is_kept_if_a_signal_handler_raises_then(socket_path: Path) -> None:
    told: list[blocking.Connection] = []
    policy = seqrpc.Reconnect(first_delay=0.001, longest_delay=0.02, on_reconnect=told.append)
    async with seqrpc.serve(Journal(), socket_path) as server:
        connection = await connected(socket_path, policy)
        lines = lines_of(connection)
        make, old, lines._current = lines._make, lines._current, None
        assert old is not None
        old.line.abandon()

        def make_and_raise(adopt: Any) -> None:
            make(adopt)
            raise KeyboardInterrupt

        lines._make = make_and_raise
        with pytest.raises(KeyboardInterrupt):
            await away(connection.call, "Journal.add", "a")
        lines._make = make
        made = lines._current
        assert await away(connection.call, "Journal.add", "b") == "b"
        assert lines._current is made
        assert told == [connection], "the hook is not forgotten"
        assert len(server.connections) == 1
        await away(connection.close)
