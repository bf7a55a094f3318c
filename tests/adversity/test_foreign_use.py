"""What was made by one process and on one loop is used in forks of it, on other loops and in other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from daemons import PATIENCE, daemon, on_a_pair, wait_until_it_listens
from packets import comes_true
from processes import Line, child_on_a_loop, in_child

import seqrpc
from seqrpc import WrongLoop, WrongProcess

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class Account(seqrpc.Service):
    @seqrpc.method
    async def balance(self) -> int:
        return 7


class Sums(seqrpc.Service):
    """Notes in which process what ran."""

    def __init__(self) -> None:
        self.added: list[tuple[int, int]] = []
        self.account = Account()

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        self.added.append((a, b))
        return a + b

    @seqrpc.method(oneway=True)
    async def note(self, a: int) -> None:
        self.added.append((a, 0))

    @seqrpc.method
    async def count(self, first: int = 0) -> AsyncIterator[int]:
        while True:
            yield first
            first += 1

    @seqrpc.method
    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @seqrpc.method
    async def open(self) -> Account:
        return self.account

    @seqrpc.method
    async def holds(self, account: Account) -> int:
        return await account.balance()


class Held:
    """One of everything that a client can have."""

    def __init__(self, connection: seqrpc.Connection, server: seqrpc.Server) -> None:
        self.connection = connection
        self.server = server
        self.sums = connection.proxy(Sums)

    async def get(self) -> Held:
        self.read = seqrpc.Stream.of(self.sums.count())
        assert [await anext(self.read) for _ in range(3)] == [0, 1, 2]
        self.unread: seqrpc.Stream[int] = await self.connection.call("Sums.count")
        self.unopened = seqrpc.Stream.of(self.sums.count())
        self.used = await self.connection.call("Sums.open")
        assert await self.used.call("Account.balance") == 7
        self.unused = await self.connection.call("Sums.open")
        self.account: Account = await self.sums.open()
        return self

    def uses(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """Return all that sends, receives or waits."""
        return {
            "call": lambda: self.connection.call("Sums.add", 100, 200),
            "notify": lambda: self.connection.notify("Sums.note", 100),
            "proxy": lambda: self.sums.add(100, 200),
            "oneway": lambda: self.sums.note(100),
            "a new stream": lambda: anext(self.sums.count()),
            "wait_closed": self.connection.wait_closed,
            "a stream that was read": lambda: anext(self.read),
            "a stream that was not read": lambda: anext(self.unread),
            "a stream that was not opened": lambda: anext(self.unopened),
            "open": self.unopened.open,
            "a channel that was used": lambda: self.used.call("Account.balance"),
            "a channel that was not used": lambda: self.unused.call("Account.balance"),
            "a channel's notify": lambda: self.unused.notify("Account.balance"),
            "a channel's wait_closed": self.unused.wait_closed,
            "a channel's proxy": self.account.balance,
            "drain": self.server.drain,
            "a server's wait_closed": self.server.wait_closed,
        }

    def ends(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """Return all that lets go."""
        return {
            "connection": self.connection.close,
            "server": self.server.close,
            "read": self.read.aclose,
            "unread": self.unread.aclose,
            "unopened": self.unopened.aclose,
            "used": self.used.close,
            "unused": self.unused.close,
            "account": self.account.close,
        }

    async def check(self) -> None:
        """Everything is as it was."""
        assert await self.sums.add(1, 1) == 2
        assert await anext(self.read) == 3
        assert await anext(self.unread) == 0
        assert await anext(self.unopened) == 0
        assert await self.used.call("Account.balance") == 7
        assert await self.unused.call("Account.balance") == 7
        assert await self.account.balance() == 7

    async def let_go(self) -> None:
        for end in self.ends().values():
            await end()


@asynccontextmanager
async def holding(service: Sums, path: Path) -> AsyncIterator[Held]:
    async with seqrpc.serve(service, path) as server, seqrpc.connect(path) as connection:
        held = await Held(connection, server).get()
        yield held
        await held.let_go()


def outcome(use: Callable[[], Awaitable[Any]], run: Callable[[Coroutine[Any, Any, Any]], Any]) -> str:
    """Return what becomes of a use: the name of what it raises, or what it returns."""

    async def bounded() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await use()

    try:
        return repr(run(bounded()))
    except Exception as exc:
        return type(exc).__name__


def outcomes(
    uses: dict[str, Callable[[], Awaitable[Any]]], run: Callable[[Coroutine[Any, Any, Any]], Any]
) -> dict[str, str]:
    return {name: outcome(use, run) for name, use in uses.items()}


def sockets_of(pid: int | str) -> set[str]:
    """Return which sockets a process has open."""
    names = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.add(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            continue
    return {name for name in names if name.startswith("socket:")}


# In a forked child


async def test_in_a_fork_every_use_raises_and_nothing_is_sent(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:
        found = in_child(lambda: outcomes(held.uses(), asyncio.run))
        assert found == dict.fromkeys(held.uses(), "WrongProcess")
        await held.check()
        assert service.added == [(1, 1)]


async def test_in_a_fork_a_second_use_raises_again(socket_path: Path) -> None:
    async with holding(Sums(), socket_path) as held:
        found = in_child(lambda: [outcomes(held.uses(), asyncio.run) for _ in range(2)])
        assert found[0] == found[1]
        await held.check()


async def test_in_a_fork_letting_go_does_nothing_and_says_nothing(
    socket_path: Path, loop_errors: list[dict[str, Any]]
) -> None:
    async with holding(Sums(), socket_path) as held:

        def work() -> tuple[dict[str, str], list[bool], int]:
            found = outcomes(held.ends(), asyncio.run)
            closed = [held.connection.closed, held.used.closed, held.unused.closed, held.read.closed]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                del held.connection, held.server, held.read, held.unread, held.used, held.unused, held.account
                gc.collect()
            return found, closed, len(loop_errors)

        assert in_child(work) == (dict.fromkeys(held.ends(), "None"), [True] * 4, 0)
        await held.check()


async def test_in_a_fork_the_rest_of_a_block_says_nothing(socket_path: Path) -> None:
    """The child leaves the blocks that its parent had entered, by hand, as no loop runs in it."""
    async with seqrpc.serve(Sums(), socket_path) as server:
        connecting = seqrpc.connect(socket_path)
        connection = await connecting.__aenter__()

        def work() -> list[str]:
            leaving = (connecting.__aexit__(None, None, None), server.__aexit__(None, None, None))
            return [outcome(lambda one=one: one, asyncio.run) for one in leaving]  # type: ignore[misc]

        assert in_child(work) == ["None", "None"]
        assert await connection.proxy(Sums).add(1, 1) == 2
        await connection.close()


async def test_in_a_fork_inside_the_loop_a_coroutine_that_goes_on_is_told(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:

        def drive() -> str:
            try:
                held.sums.add(100, 200).send(None)
            except WrongProcess:
                return "told"
            return "sent"

        assert in_child(drive) == "told"
        await held.check()
        assert service.added == [(1, 1)]


async def test_the_answers_of_the_parent_are_its_own_while_a_child_calls(socket_path: Path) -> None:
    async with seqrpc.serve(Sums(), socket_path), seqrpc.connect(socket_path) as connection:
        sums = connection.proxy(Sums)

        async def act(line: Line) -> None:
            line.tell("begun")
            told = 0
            for _ in range(200):
                try:
                    await sums.add(100, 200)
                except WrongProcess:
                    told += 1
            line.tell(told)

        with child_on_a_loop(act, asyncio.new_event_loop) as line:
            assert await line.listen() == "begun"
            for _ in range(10):
                assert await asyncio.gather(*(sums.add(n, n) for n in range(100))) == [2 * n for n in range(100)]
            assert await line.listen() == 200


async def test_calls_in_flight_at_a_fork_are_answered_in_the_parent() -> None:
    class Slow(seqrpc.Service):
        def __init__(self) -> None:
            self.go = asyncio.Event()

        @seqrpc.method
        async def wait(self, number: int) -> int:
            await self.go.wait()
            return number

    service = Slow()
    async with on_a_pair(service) as connection:
        slow = connection.proxy(Slow)
        calls = [asyncio.ensure_future(slow.wait(number)) for number in range(10)]
        await connection.call("rpc.ping")
        in_child(gc.collect)
        service.go.set()
        assert await asyncio.gather(*calls) == list(range(10))


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_a_fork_that_drives_the_very_same_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop], socket_path: Path
) -> None:
    service = Sums()
    loop_errors: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=new_loop) as runner:
        held_by = holding(service, socket_path)
        held = runner.run(held_by.__aenter__())
        runner.get_loop().set_exception_handler(lambda _loop, context: loop_errors.append(context))

        def work() -> tuple[dict[str, str], dict[str, str], list[Any]]:
            runner.run(asyncio.sleep(0.05))  # what was under way goes on here as far as it can
            uses, ends = outcomes(held.uses(), runner.run), outcomes(held.ends(), runner.run)
            return uses, ends, [str(context) for context in loop_errors]

        uses, ends, errors = in_child(work)
        assert uses == dict.fromkeys(held.uses(), "WrongProcess")
        assert ends == dict.fromkeys(held.ends(), "None")
        assert errors == []
        runner.run(held.check())
        assert service.added == [(1, 1)]
        runner.run(held_by.__aexit__(None, None, None))
    assert loop_errors == []


class Busy(seqrpc.Service):
    """Has handlers, timers, producers and packets that wait under way."""

    @seqrpc.method
    async def slow(self) -> int:
        await asyncio.sleep(0.05)
        return 1

    @seqrpc.method
    async def same(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield number

    @seqrpc.method
    async def echo(self, content: bytes) -> bytes:
        return content


async def begin_all(busy: Busy) -> list[asyncio.Task[Any]]:
    """Have all of it under way, and no two at the same point."""

    async def numbers() -> AsyncIterator[int]:
        for number in range(1_000):
            await asyncio.sleep(0.0001)
            yield number

    async def read() -> int:
        return len([number async for number in busy.same(numbers())])

    async def give_up() -> str:
        try:
            async with seqrpc.timeout(0.02):
                return str(await busy.slow())
        except seqrpc.DeadlineExceeded:
            return "late"

    echoes = [busy.echo(b"x" * 50_000) for _ in range(50)]
    tasks: list[asyncio.Task[Any]] = [asyncio.ensure_future(work) for work in (busy.slow(), read(), give_up(), *echoes)]
    await asyncio.wait(tasks[3:], return_when=asyncio.FIRST_COMPLETED)
    return tasks


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_what_was_under_way_at_a_fork_goes_nowhere_in_the_child(
    new_loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    loop_errors: list[str] = []

    async def end(tasks: list[asyncio.Task[Any]]) -> list[Any]:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*tasks)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: loop_errors.append(str(context)))
        pair = on_a_pair(Busy())
        connection = runner.run(pair.__aenter__())
        tasks = runner.run(begin_all(connection.proxy(Busy)))

        def drive() -> tuple[list[str], list[str]]:
            runner.run(asyncio.sleep(0.1))  # all of its timers go off
            return loop_errors, [record.message for record in caplog.records]

        assert in_child(drive) == ([], [])
        assert runner.run(end(tasks)) == [1, 1_000, "late", *[b"x" * 50_000] * 50]
        runner.run(pair.__aexit__(None, None, None))
    assert loop_errors == []


async def test_in_a_fork_nothing_of_the_parent_s_can_be_passed_on(socket_path: Path) -> None:
    """The child has a connection of its own, and would give away what is not its."""
    async with holding(Sums(), socket_path) as held:

        def work() -> list[str]:
            async def give(name: str, value: Any) -> Any:
                async with on_a_pair(Sums()) as own:
                    return await own.call(name, value)

            things = {
                "Sums.total": [held.read, held.unread],
                "Sums.holds": [held.used, held.unused, held.account],
            }
            return [
                outcome(lambda name=name, value=value: give(name, value), asyncio.run)  # type: ignore[misc]
                for name, values in things.items()
                for value in values
            ]

        assert in_child(work) == ["WrongProcess"] * 5
        await held.check()


async def test_a_fork_connects_and_serves_anew(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:

        async def act(line: Line) -> None:
            path = socket_path.with_name("child.sock")
            async with seqrpc.connect(socket_path) as connection:
                line.tell(await connection.proxy(Sums).add(3, 4))
            async with seqrpc.serve(service, path), seqrpc.connect(path) as connection:
                line.tell(await connection.proxy(Sums).add(5, 6))
                own = await connection.proxy(Sums).open()
                line.tell(await own.balance())
            await asyncio.sleep(PATIENCE)

        with child_on_a_loop(act, asyncio.new_event_loop) as line:
            assert [await line.listen() for _ in range(3)] == [7, 11, 7]
        await held.check()
        assert service.added == [(3, 4), (1, 1)]


async def test_a_fork_revokes_nothing_of_the_parent_s(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:
        assert in_child(lambda: outcome(lambda: seqrpc.revoke(service.account), asyncio.run)) == "WrongProcess"
        assert in_child(lambda: outcome(lambda: seqrpc.revoke(Account()), asyncio.run)) == "None"
        await held.check()


async def test_a_fork_has_no_socket_of_the_parent_s(socket_path: Path) -> None:
    async with holding(Sums(), socket_path) as held:
        in_parent = sockets_of("self")
        before = held.server.sockets[0].fileno()
        shared = in_child(lambda: [name for name in sockets_of("self") if name in in_parent])
        loops = {os.readlink(f"/proc/self/fd/{number}") for number in _sockets_of_the_loop()}
        assert set(shared) <= loops, "what the loop wakes itself with, and nothing else"
        assert held.server.sockets[0].fileno() == before
        await held.check()


def _sockets_of_the_loop() -> Iterator[int]:
    """Yield the descriptors of sockets that are a loop's own: connected stream sockets of no family but Unix's."""
    import socket

    for name in os.listdir("/proc/self/fd"):
        try:
            number = os.dup(int(name))
        except OSError:
            continue
        try:
            sock = socket.socket(fileno=number)
        except OSError:
            os.close(number)
            continue
        with sock:
            if sock.type == socket.SOCK_STREAM:
                yield int(name)


def add_with(connection: seqrpc.Connection, answers: Any) -> None:
    answers.put(outcome(lambda: connection.call("Sums.add", 100, 200), asyncio.run))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_process_of_multiprocessing_is_told_and_does_not_hang(socket_path: Path) -> None:
    service = Sums()
    fork = multiprocessing.get_context("fork")
    async with holding(service, socket_path) as held:
        answers = fork.SimpleQueue()
        process = fork.Process(target=add_with, args=(held.connection, answers))
        process.start()
        await asyncio.to_thread(process.join, PATIENCE)
        assert process.exitcode == 0
        assert answers.get() == "WrongProcess"
        answers.close()
        process.close()
        await held.check()
        assert service.added == [(1, 1)]


AT_ITS_END = """
import asyncio, gc, os, sys, warnings
from collections.abc import AsyncIterator
import uvloop
import seqrpc

warnings.simplefilter("default")
warnings.simplefilter("ignore", DeprecationWarning)
path, loop, where, how = sys.argv[1:]

class Account(seqrpc.Service):
    @seqrpc.method
    async def balance(self) -> int:
        return 7

class Sums(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b
    @seqrpc.method
    async def count(self) -> AsyncIterator[int]:
        while True:
            yield 1
    @seqrpc.method
    async def open(self) -> Account:
        return Account()
    @seqrpc.method
    async def never(self, fd: seqrpc.OwnedFd) -> None:
        await asyncio.Event().wait()

async def begin():
    global server, connection, sums, streams, accounts, never, fd
    server = await seqrpc.serve(Sums(), path)
    connection = await seqrpc.connect(path)
    sums = connection.proxy(Sums)
    streams = [sums.count(), sums.count(), await connection.call("Sums.count")]
    await anext(streams[0])
    accounts = [await sums.open(), await sums.open()]
    await accounts[0].balance()
    fd = seqrpc.OwnedFd.dup(0)
    never = asyncio.ensure_future(sums.never(fd))
    await connection.call("rpc.ping")

def leave():
    gc.collect()
    if how == "exit":
        sys.exit(0)
    os._exit(0)

async def check():
    assert await sums.add(1, 1) == 2
    assert [await anext(stream) for stream in streams] == [1, 1, 1]
    assert [await account.balance() for account in accounts] == [7, 7]
    never.cancel()
    for stream in streams:
        await stream.aclose()
    fd.close()
    await connection.close()
    await server.close()

async def both():
    await begin()
    pid = os.fork()
    if not pid:
        leave()
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        await sums.add(1, 1)
    await check()

with asyncio.Runner(loop_factory={"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[loop]) as runner:
    if where == "inside":
        runner.run(both())
    else:
        runner.run(begin())
        pid = os.fork()
        if not pid:
            leave()
        os.waitpid(pid, 0)
        runner.run(check())
print("fine")
"""


@pytest.mark.parametrize(
    "loop, where, how",
    [  # A child that leaves a loop by closing it changes the epoll that it shares with its parent, seqrpc or not:
        # asyncio's loses the wake-up, uvloop's may abort ("uv__io_poll: Assertion `fd >= 0' failed").
        *((loop, where, "_exit") for loop in ("asyncio", "uvloop") for where in ("inside", "between")),
        *((loop, "between", "exit") for loop in ("asyncio", "uvloop")),
    ],
)
def test_a_child_that_ends_says_nothing_and_ends_nothing_of_its_parent_s(
    loop: str, where: str, how: str, socket_path: Path
) -> None:
    command = [sys.executable, "-c", AT_ITS_END, str(socket_path), loop, where, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


POOL = """
import asyncio, concurrent.futures, multiprocessing, os, sys, warnings
import seqrpc

warnings.simplefilter("ignore", DeprecationWarning)

class Pooled(seqrpc.Service):
    def __init__(self):
        self.pool = concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork"))

    @seqrpc.method
    async def work(self) -> list[int]:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self.pool, os.getpid) for _ in range(8)))
        return sorted(self.pool._processes)

    @seqrpc.method
    async def pid(self) -> int:
        return os.getpid()

    @seqrpc.method
    async def never(self) -> None:
        await asyncio.Event().wait()

seqrpc.run(Pooled(), sys.argv[1])
"""


@contextmanager
def killed_at_the_end(pids: list[int]) -> Iterator[None]:
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


async def test_the_children_of_a_killed_daemon_s_pool_keep_neither_its_clients_nor_its_path(socket_path: Path) -> None:
    with daemon(POOL, socket_path) as first:
        wait_until_it_listens(socket_path)
        async with seqrpc.connect(socket_path) as early:
            children = await early.call("Pooled.work")
            with killed_at_the_end(children):
                assert len(children) == 2
                async with seqrpc.connect(socket_path) as late:
                    calls = [asyncio.ensure_future(one.call("Pooled.never")) for one in (early, late)]
                    await asyncio.gather(early.call("rpc.ping"), late.call("rpc.ping"))
                    in_daemon = sockets_of(first.pid)
                    first.send_signal(signal.SIGKILL)
                    async with asyncio.timeout(PATIENCE):
                        ended = await asyncio.gather(*calls, return_exceptions=True)
                    assert [type(one) for one in ended] == [seqrpc.ConnectionLost] * 2
                    await asyncio.to_thread(first.wait, PATIENCE)  # of its descriptors, its listener may close last
                    for child in children:
                        os.kill(child, 0)  # it lives on
                        assert len(in_daemon & sockets_of(child)) <= 4, "those of the daemon's loop at most"
                with daemon(POOL, socket_path) as second:
                    async with asyncio.timeout(PATIENCE):
                        while True:
                            try:
                                async with seqrpc.connect(socket_path) as again:
                                    assert await again.call("Pooled.pid") == second.pid
                                    break
                            except seqrpc.ConnectError:
                                assert second.poll() is None, "it does not serve"
                                await asyncio.sleep(0.01)
                    second.send_signal(signal.SIGTERM)
                    assert await asyncio.to_thread(second.wait, PATIENCE) == 0


# On another loop, in another thread


async def on_another_loop(use: Callable[[], Awaitable[Any]]) -> str:
    """Return what becomes of a use on a loop of its own in a thread of its own."""
    return await asyncio.to_thread(outcome, use, asyncio.run)


async def test_on_another_loop_every_use_raises_and_nothing_is_sent(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:
        await held.unread.aclose()
        reading = asyncio.ensure_future(_drained(held.read))
        uses = {**held.uses(), "close": held.connection.close, "server": held.server.close}
        del uses["a stream that was not read"]  # no loop watches it, and this one may
        for name in [name for name in uses if name.startswith("a channel's")] + ["a channel that was not used"]:
            del uses[name]  # as above
        uses["a channel's close"] = held.used.close
        found = {name: await on_another_loop(use) for name, use in uses.items() if "was read" not in name}
        reading.cancel()
        await asyncio.wait([reading])
        assert found == dict.fromkeys(found, "WrongLoop")
        assert len(found) >= 11
        assert await held.sums.add(1, 1) == 2
        assert service.added == [(1, 1)]
        assert await anext(held.unopened) == 0
        assert await held.used.call("Account.balance") == 7


async def _drained(stream: seqrpc.Stream[int]) -> None:
    async for _number in stream:
        pass


async def test_without_a_loop_nothing_is_sent(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:

        def by_hand() -> str:
            try:
                held.sums.add(100, 200).send(None)
            except WrongLoop as exc:
                return str(exc)
            return "sent"

        said = await asyncio.to_thread(by_hand)
        assert "asyncio.run_coroutine_threadsafe(..., loop)" in said
        assert "seqrpc.current_call().run(...)" in said
        assert service.added == []


async def test_a_stream_that_is_watched_is_not_read_on_another_loop(socket_path: Path) -> None:
    gate = asyncio.Event()

    class Slow(seqrpc.Service):
        @seqrpc.method
        async def count(self) -> AsyncIterator[int]:
            for number in range(3):
                await gate.wait()
                gate.clear()
                yield number

    async with on_a_pair(Slow()) as connection:
        stream = seqrpc.Stream.of(connection.proxy(Slow).count())
        reading = asyncio.ensure_future(anext(stream))
        await comes_true(lambda: stream._loop is not None)
        for use in (lambda: anext(stream), stream.aclose):  # while a task reads it here
            assert await on_another_loop(use) == "WrongLoop"
        gate.set()
        assert await reading == 0
        for use in (lambda: anext(stream), stream.aclose):  # while the loop only watches it
            assert await on_another_loop(use) == "WrongLoop"
        gate.set()
        assert await anext(stream) == 1
        await stream.aclose()


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_what_a_loop_that_has_ended_leaves(
    new_loop: Callable[[], asyncio.AbstractEventLoop], socket_path: Path
) -> None:
    """A stream is read on by the next loop; a connection can only be closed."""

    async def serve(ready: threading.Event, ends: asyncio.Event) -> None:
        async with seqrpc.serve(Sums(), socket_path):
            ready.set()
            await ends.wait()

    async def get() -> tuple[seqrpc.Connection, seqrpc.Stream[int], seqrpc.Channel]:
        connection = await seqrpc.connect(socket_path)
        stream: seqrpc.Stream[int] = await connection.call("Sums.count")
        channel = await connection.call("Sums.open")
        assert await channel.call("Account.balance") == 7
        assert await anext(stream) == 0
        return connection, stream, channel

    async def go_on(connection: seqrpc.Connection, stream: seqrpc.Stream[int], channel: seqrpc.Channel) -> None:
        assert [await anext(stream) for _ in range(1_000)] == list(range(1, 1_001))
        for use in (connection.call("Sums.add", 1, 1), channel.call("Account.balance"), connection.wait_closed()):
            with pytest.raises(WrongLoop, match="an event loop that has ended"):
                await use
        await connection.close()
        await channel.close()
        await stream.aclose()

    ready, server_loop = threading.Event(), asyncio.new_event_loop()
    ends = asyncio.Event()
    thread = threading.Thread(target=lambda: server_loop.run_until_complete(serve(ready, ends)))
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            connection, stream, channel = runner.run(get())
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(go_on(connection, stream, channel))
    finally:
        server_loop.call_soon_threadsafe(ends.set)
        thread.join(PATIENCE)
        server_loop.close()


async def test_an_unused_channel_and_an_unread_stream_are_those_of_who_uses_them_first(socket_path: Path) -> None:
    async with holding(Sums(), socket_path) as held:

        async def use() -> list[int]:
            balance = await held.unused.call("Account.balance")
            await held.unused.close()
            numbers = [await anext(held.unread) for _ in range(3)]
            await held.unread.aclose()
            return [balance, *numbers]

        assert await on_another_loop(use) == "[7, 0, 1, 2]"


async def test_an_object_is_revoked_on_the_loop_that_gave_it_away_only(socket_path: Path) -> None:
    service = Sums()
    async with holding(service, socket_path) as held:
        assert await on_another_loop(lambda: seqrpc.revoke(service.account)) == "WrongLoop"
        assert await on_another_loop(lambda: seqrpc.revoke(Account())) == "None"
        assert await held.account.balance() == 7
        await seqrpc.revoke(service.account)
        with pytest.raises(seqrpc.Unavailable):
            await held.account.balance()


async def test_the_loop_of_a_connection_does_what_other_threads_ask_of_it(socket_path: Path) -> None:
    async with holding(Sums(), socket_path) as held:
        loop = held.connection.get_loop()
        assert loop is asyncio.get_running_loop()

        def ask() -> int:
            asked: concurrent.futures.Future[int] = asyncio.run_coroutine_threadsafe(held.sums.add(3, 4), loop)
            return asked.result(PATIENCE)

        assert await asyncio.to_thread(ask) == 7
