"""What a daemon does at its start and at SIGHUP, and what it tells the service manager."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from support.daemons import daemon, wait_until_it_listens
from support.waiting import PATIENCE

import seqrpc


class Work(seqrpc.Service):
    """Writes down what happens."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.told.append("begins")
        try:
            yield
        finally:
            self.told.append("ends")

    def tell(self, what: str, *numbers: int) -> Callable[[seqrpc.Server], None]:
        """Return a hook that writes down and sends signals."""

        def hook(server: seqrpc.Server) -> None:
            assert isinstance(server, seqrpc.Server)
            self.told.append(what)
            for number in numbers:
                os.kill(os.getpid(), number)

        return hook


class Manager:
    """The service manager."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def hear(self) -> str:
        """Return the next word of what it is told; without the time, and without the status, which is told at times."""
        while (word := self._sock.recv(1000).decode().split("\n")[0]).startswith("STATUS="):
            pass
        return word

    def hears_nothing(self) -> bool:
        return select.select([self._sock], [], [], 0) == ([], [], [])


@pytest.fixture
def manager(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    path = os.fspath(socket_path.with_name("notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(PATIENCE)
        yield Manager(sock)


async def the_loop_hears_signals() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_it_starts_is_ready_and_stops(socket_path: Path, manager: Manager) -> None:
    service = Work()
    told = []

    def stop_when_ready() -> None:
        told.append(manager.hear())
        os.kill(os.getpid(), signal.SIGTERM)

    async def start(_server: seqrpc.Server) -> None:
        assert "NOTIFY_SOCKET" not in os.environ, "children must not speak for the daemon"
        async with seqrpc.connect(socket_path) as connection:
            await connection.call("rpc.ping")
        assert manager.hears_nothing()
        service.told.append("starts")
        waiting.start()

    waiting = threading.Thread(target=stop_when_ready)
    seqrpc.run(service, socket_path, on_start=start)
    waiting.join()
    assert service.told == ["begins", "starts", "ends"]
    assert [*told, manager.hear()] == ["READY=1", "STOPPING=1"]
    assert manager.hears_nothing()


def test_one_that_is_stopped_before_it_is_ready_never_says_that_it_is(socket_path: Path, manager: Manager) -> None:
    service = Work()
    seqrpc.run(service, socket_path, on_start=service.tell("starts", signal.SIGTERM))
    assert service.told == ["begins", "starts", "ends"]
    assert manager.hear() == "STOPPING=1"
    assert manager.hears_nothing()


def test_what_is_raised_at_the_start_ends_the_daemon(socket_path: Path, manager: Manager) -> None:
    def fail(_server: seqrpc.Server) -> None:
        raise OSError("the disk is full")

    service = Work()
    with pytest.raises(OSError, match="the disk is full"):
        seqrpc.run(service, socket_path, on_start=fail)
    assert service.told == ["begins", "ends"]
    assert not socket_path.exists()
    assert manager.hears_nothing()


def test_a_start_that_is_cancelled_by_itself_ends_the_daemon(socket_path: Path, manager: Manager) -> None:
    service = Work()

    async def start(_server: seqrpc.Server) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(PATIENCE, os.kill, os.getpid(), signal.SIGTERM)  # if it serves all the same
        waited = loop.create_future()
        waited.cancel()
        await waited

    with pytest.raises(asyncio.CancelledError):
        seqrpc.run(service, socket_path, on_start=start)
    assert service.told == ["begins", "ends"]
    assert manager.hears_nothing()  # nobody waits for what never became ready


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_signal_stops_what_is_done_at_the_start(
    goes_on: bool, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Work()

    async def start(_server: seqrpc.Server) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            service.told.append("is cancelled")
            if goes_on:
                await asyncio.Event().wait()

    seqrpc.run(service, socket_path, on_start=start, limits=seqrpc.Limits(close_timeout=0.05))
    assert service.told == ["begins", "is cancelled", "ends"]
    assert ("on_start or on_reload is still running 0.05 s after it was cancelled" in caplog.text) is goes_on


def test_a_signal_stops_a_lifespan_that_begins(socket_path: Path, manager: Manager) -> None:
    class Slow(Work):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            async with super().lifespan():
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.Event().wait()
                yield

    service = Slow()
    seqrpc.run(service, socket_path, on_start=service.tell("starts"))
    assert service.told == ["begins", "ends"]
    assert os.listdir(socket_path.parent) == ["notify"]
    assert manager.hear() == "STOPPING=1"


def test_a_lifespan_that_fails_at_the_end_fails_the_daemon(socket_path: Path) -> None:
    class Broken(Work):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            yield
            raise OSError("the disk is full")

    service = Broken()
    with pytest.raises(OSError, match="the disk is full"):
        seqrpc.run(service, socket_path, on_start=service.tell("starts", signal.SIGTERM))
    assert not socket_path.exists()


def test_a_lifespan_that_ends_by_itself_ends_the_daemon(socket_path: Path, manager: Manager) -> None:
    class Broken(Work):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            async with asyncio.timeout(0.01):
                yield

    with pytest.raises(TimeoutError):
        seqrpc.run(Broken(), socket_path)
    assert [manager.hear(), manager.hear()] == ["READY=1", "STOPPING=1"]


def test_a_daemon_on_a_pair_says_that_it_stops_when_the_other_side_goes(manager: Manager) -> None:
    ours, theirs = seqrpc.socket_pair()
    ours.close()
    seqrpc.run(Work(), sock=theirs)
    assert [manager.hear(), manager.hear()] == ["READY=1", "STOPPING=1"]


async def test_serving_in_a_program_s_own_loop_tells_nobody(socket_path: Path, manager: Manager) -> None:
    async with seqrpc.serve(Work(), socket_path):
        assert "NOTIFY_SOCKET" in os.environ
    assert manager.hears_nothing()


def hang_up_afterwards() -> None:
    """Send SIGHUP when the task that runs now has ended."""
    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(lambda _task: os.kill(os.getpid(), signal.SIGHUP))


class Reloads:
    """A hook for SIGHUP that sends signals of its own, run by run, and tells whether runs overlap."""

    def __init__(self, service: Work, *runs: tuple[int, ...]) -> None:
        self._service = service
        self._runs = list(runs)
        self._is_running = False

    async def __call__(self, _server: seqrpc.Server) -> None:
        assert not self._is_running
        self._is_running = True
        self._service.told.append("reloads")
        numbers = self._runs.pop(0)
        for number in numbers:
            os.kill(os.getpid(), number)
            await the_loop_hears_signals()
        if not numbers:
            hang_up_afterwards()
        self._is_running = False


def test_at_hangup_it_reloads_and_once_more_for_all_that_come_meanwhile(socket_path: Path, manager: Manager) -> None:
    service = Work()
    reload = Reloads(service, (signal.SIGHUP, signal.SIGHUP), (), (signal.SIGTERM,))

    async def start(_server: seqrpc.Server) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await the_loop_hears_signals()
        assert service.told == ["begins"], "it waits until the daemon is ready"

    seqrpc.run(service, socket_path, on_start=start, on_reload=reload)
    assert service.told == ["begins", "reloads", "reloads", "reloads", "ends"]
    told = [manager.hear() for _ in range(7)]
    assert told == ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "STOPPING=1"]
    assert manager.hears_nothing()


@pytest.mark.parametrize("failure", [OSError, asyncio.CancelledError])
def test_a_reload_that_fails_is_logged_and_the_daemon_lives_on(
    failure: type[BaseException], socket_path: Path, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    service = Work()
    runs = iter((True, False))

    def reload(_server: seqrpc.Server) -> None:
        service.told.append("reloads")
        if next(runs):
            hang_up_afterwards()
            raise failure("the file is empty")
        os.kill(os.getpid(), signal.SIGTERM)

    seqrpc.run(service, socket_path, on_start=service.tell("starts", signal.SIGHUP), on_reload=reload)
    assert service.told == ["begins", "starts", "reloads", "reloads", "ends"]
    assert [manager.hear() for _ in range(4)] == ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1"]
    assert ("on_reload failed" in caplog.text) is (failure is OSError)


def test_a_reload_that_runs_when_the_daemon_stops_is_cancelled_while_the_service_lives(socket_path: Path) -> None:
    service = Work()

    async def reload(_server: seqrpc.Server) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            service.told.append("is cancelled")

    seqrpc.run(service, socket_path, on_start=service.tell("starts", signal.SIGHUP), on_reload=reload)
    assert service.told == ["begins", "starts", "is cancelled", "ends"]


DAEMON = """
import multiprocessing, os, signal, sys, time, warnings
import seqrpc

warnings.simplefilter("ignore", DeprecationWarning)

fork = multiprocessing.get_context("fork")

def wait(ready):
    ready.put(True)
    time.sleep(60)

class Parent(seqrpc.Service):
    @seqrpc.method
    async def hang_up_a_child(self) -> int | None:
        ready = fork.SimpleQueue()
        child = fork.Process(target=wait, args=(ready,))
        child.start()
        ready.get()
        os.kill(child.pid, signal.SIGHUP)
        child.join(60)
        return child.exitcode

def reload(server):
    print("reloads", flush=True)

seqrpc.run(Parent(), sys.argv[1], on_reload=reload if sys.argv[2] == "reloads" else None)
"""


async def test_a_process_is_told_from_outside(socket_path: Path, manager: Manager) -> None:
    with daemon(DAEMON, socket_path, "reloads") as process:
        assert process.stdout is not None
        assert manager.hear() == "READY=1"
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call("Parent.hang_up_a_child") == -signal.SIGHUP
            for _ in range(2):
                process.send_signal(signal.SIGHUP)
                assert process.stdout.readline() == b"reloads\n"
                assert [manager.hear(), manager.hear()] == ["RELOADING=1", "READY=1"]
            await connection.call("rpc.ping")
        process.send_signal(signal.SIGTERM)
        assert manager.hear() == "STOPPING=1"
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0


async def test_without_a_hook_a_hangup_is_what_it_was(socket_path: Path) -> None:
    with daemon(DAEMON, socket_path, "dies") as process:
        wait_until_it_listens(socket_path)
        process.send_signal(signal.SIGHUP)
        assert await asyncio.to_thread(process.wait, PATIENCE) == -signal.SIGHUP
