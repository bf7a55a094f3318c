"""Daemons: what a signal does to them, and to their children."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from support.daemons import daemon, wait_until_it_listens
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc.aio.connection import link_of
from seqrpc.twin import TOLD


class Work(seqrpc.Service):
    @seqrpc.method
    async def signal(self, numbers: list[int], *, finish: bool = True) -> str:
        for number in numbers:
            os.kill(os.getpid(), number)
        while finish and not link_of(seqrpc.current_call().connection).session.closing_sent:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.001)
        if not finish:
            await asyncio.Event().wait()
        return "done"


def test_run_takes_all_descriptors_that_it_may_have() -> None:
    ours, theirs = seqrpc.socket_pair()
    ours.close()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        seqrpc.run(Work(), sock=theirs)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("frozen_before", [False, True])
def test_what_there_is_at_the_start_is_not_collected_over_and_over(frozen_before: bool) -> None:
    ours, theirs = seqrpc.socket_pair()
    counts: list[int] = []

    async def leave_when_ready() -> None:
        with contextlib.suppress(TimeoutError):
            await comes_true(lambda: gc.get_freeze_count() > 10_000)
        counts.append(gc.get_freeze_count())
        ours.close()

    def begin(_server: seqrpc.Server) -> None:
        gc.unfreeze()
        leaving.append(asyncio.ensure_future(leave_when_ready()))

    leaving: list[asyncio.Task[None]] = []
    gc.unfreeze()  # what the tests' own fixtures froze
    if frozen_before:
        gc.freeze()
    try:
        seqrpc.run(Work(), sock=theirs, on_start=begin)
        assert counts[0] > 10_000
        assert (gc.get_freeze_count() > 0) is frozen_before
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_do_afterwards_what_they_did_before(number: int) -> None:
    ours, theirs = seqrpc.socket_pair()
    came: list[int] = []
    before = signal.signal(number, lambda number, _frame: came.append(number))

    def leave(_server: seqrpc.Server) -> None:
        os.kill(os.getpid(), number)
        ours.close()

    try:
        seqrpc.run(Work(), sock=theirs, on_start=leave, on_reload=lambda _server: None)
        assert came == []
        os.kill(os.getpid(), number)
        assert came == [number]
    finally:
        signal.signal(number, before)
        ours.close()


async def test_run_is_not_for_a_running_loop(socket_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(
        RuntimeError, match=r"^seqrpc\.run runs an event loop .*: write 'async with seqrpc\.serve\(\.\.\.\)'$"
    ):
        seqrpc.run(Work(), socket_path)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_run_of_a_class_says_so_before_anything_is_made() -> None:
    with pytest.raises(TypeError, match=r"an object of Work was expected, got the class: write Work\(\)"):
        seqrpc.run(Work, "x.sock")  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_drains_at_a_signal_and_returns(number: signal.Signals) -> None:
    ours, theirs = seqrpc.socket_pair()
    with ours:
        ours.settimeout(PATIENCE)
        ours.send(b"\x94\x00\x01\xabWork.signal\x91\x91" + bytes([number]))
        seqrpc.run(Work(), sock=theirs)
        assert ours.recv(100) == b"\x92\x05\xb6the server is stopping"
        assert ours.recv(100) == b"\x94\x01\x01\xc0\xa4done"
        assert ours.recv(100) == b""


@pytest.mark.parametrize("drain_timeout, numbers", [(60.0, bytes([15, 2])), (0.01, bytes([15]))])
def test_run_stops_at_once_at_a_second_signal_and_after_a_while_anyway(drain_timeout: float, numbers: bytes) -> None:
    ours, theirs = seqrpc.socket_pair()
    with ours:
        ours.settimeout(PATIENCE)
        params = b"\x82\xa7numbers" + bytes([0x90 + len(numbers)]) + numbers + b"\xa6finish\xc2"
        ours.send(b"\x94\x00\x01\xabWork.signal" + params)
        seqrpc.run(Work(), sock=theirs, drain_timeout=drain_timeout)
        assert ours.recv(100) == b"\x92\x05\xb6the server is stopping"


def test_run_on_a_pair_ends_with_the_other_side() -> None:
    ours, theirs = seqrpc.socket_pair()
    ours.close()
    seqrpc.run(Work(), sock=theirs)


@pytest.mark.parametrize(
    "address, options, error, text",
    [
        ("test.sock", {}, seqrpc.AddressInUse, "test.sock exists and is no socket; it was left alone"),
        ("missing/x", {}, seqrpc.ListenError, "cannot listen at missing/x: there is no directory 'missing'; make it"),
        ("x", {"group": "no such group"}, seqrpc.AddressError, "group= names no group of this machine"),
        ("fd:x", {}, seqrpc.AddressError, "an inherited socket is written 'fd:' and its number"),
        ("systemd:x", {}, seqrpc.AddressError, "systemd:x: the service manager passed no socket"),
        ("systemd:x", {"mode": 0o660}, seqrpc.AddressError, "systemd:x: mode= cannot be given here"),
    ],
)
def test_what_an_administrator_can_mend_ends_run_in_one_line(
    address: str,
    options: dict[str, Any],
    *,
    error: type[Exception],
    text: str,
    socket_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LISTEN_PID", "LISTEN_FDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(socket_path.parent)
    socket_path.write_text("no socket")
    with pytest.raises(SystemExit) as caught:
        seqrpc.run(Work(), address, **options)
    assert type(caught.value.__cause__) is error
    assert isinstance(caught.value.code, str)
    assert caught.value.code == str(caught.value.__cause__)
    assert caught.value.code.startswith(text)
    assert "\n" not in caught.value.code
    assert socket_path.read_text() == "no socket"


class Elsewhere(seqrpc.Service):
    @seqrpc.method
    async def nothing(self) -> None:
        pass

    async def on_start(self, server: seqrpc.Server) -> None:
        await seqrpc.serve(Work(), f"{server.address}.lock")


def test_what_a_programmer_has_to_mend_stays_an_exception(socket_path: Path) -> None:
    with pytest.raises(ValueError, match="two services are named 'Work'"):
        seqrpc.run([Work(), Work()], socket_path)
    with pytest.raises(TypeError, match=r"an object of a seqrpc\.Service was expected"):
        seqrpc.run([3], socket_path)  # type: ignore[list-item]
    elsewhere = Elsewhere()
    with pytest.raises(seqrpc.AddressInUse, match="is no socket"):  # it is not run's own address
        seqrpc.run(elsewhere, socket_path, on_start=elsewhere.on_start)


def test_run_says_once_where_it_serves(socket_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def stop(_server: seqrpc.Server) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    ours, theirs = seqrpc.socket_pair()
    with ours, caplog.at_level("INFO", "seqrpc"):
        seqrpc.run(Work(), socket_path, on_start=stop)
        seqrpc.run(Work(), sock=theirs, on_start=stop)
    said = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("seqrpc.server", "INFO", f"= serving at {socket_path}; twin: {TOLD}"),
        ("seqrpc.server", "INFO", f"= serving at a socket that was passed; twin: {TOLD}"),
    ]


STUBBORN = """
import asyncio, sys
import seqrpc

async def endless():
    try:
        yield
    finally:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

class Daemon(seqrpc.Service):
    @seqrpc.method
    async def begin(self) -> None:
        self.generator = endless()
        await anext(self.generator)

seqrpc.run(Daemon(), sys.argv[1], limits=seqrpc.Limits(close_timeout=0.2))
"""


async def test_a_generator_that_goes_on_though_it_is_cancelled_does_not_keep_the_daemon(socket_path: Path) -> None:
    with daemon(STUBBORN, socket_path) as child:
        wait_until_it_listens(socket_path)
        async with seqrpc.connect(socket_path) as connection:
            await connection.call("Daemon.begin")
            child.terminate()
            assert await asyncio.to_thread(child.wait, PATIENCE) == 0


DAEMON = """
import multiprocessing, os, signal, sys, time, warnings
import seqrpc

warnings.simplefilter("ignore", DeprecationWarning)
fork = multiprocessing.get_context("fork")
signal.signal(signal.SIGTERM, signal.Handlers[sys.argv[2]])

def wait(ready):
    ready.put(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    time.sleep(60)

class Parent(seqrpc.Service):
    def start(self):
        ready = fork.SimpleQueue()
        child = fork.Process(target=wait, args=(ready,))
        child.start()
        assert ready.get()
        return child

    @seqrpc.method
    def terminate_in_thread(self, number: int) -> int | None:
        return self.terminate(number)

    @seqrpc.method
    async def terminate_on_loop(self, number: int) -> int | None:
        return self.terminate(number)

    def terminate(self, number):
        child = self.start()
        os.kill(child.pid, number)
        child.join(float(sys.argv[3]))
        code = child.exitcode
        child.kill()
        return code

    @seqrpc.method
    async def pid(self) -> int:
        return os.getpid()

seqrpc.run(Parent(), sys.argv[1])
"""


@pytest.mark.parametrize("where", ["terminate_in_thread", "terminate_on_loop"])
async def test_a_signal_to_a_child_of_a_daemon_ends_that_child_and_not_the_daemon(
    where: str, socket_path: Path
) -> None:
    with daemon(DAEMON, socket_path, "SIG_DFL", str(PATIENCE)) as process:
        wait_until_it_listens(socket_path)
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call(f"Parent.{where}", signal.SIGTERM) == -signal.SIGTERM
            for _ in range(10):  # it has not begun to stop
                assert await connection.call("Parent.pid") == process.pid
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0


async def test_what_a_signal_did_before_it_does_in_children(socket_path: Path) -> None:
    with daemon(DAEMON, socket_path, "SIG_IGN", "0.2") as process:
        wait_until_it_listens(socket_path)
        async with seqrpc.connect(socket_path) as connection:
            assert await connection.call("Parent.terminate_in_thread", signal.SIGTERM) is None
            assert await connection.call("Parent.pid") == process.pid


def test_a_daemon_takes_what_a_server_takes() -> None:
    options = dict(inspect.signature(seqrpc.run).parameters)
    names = ("drain_timeout", "on_start", "on_reload", "idle_timeout", "restart")
    own = {name: options.pop(name).default for name in names}
    assert own == {**dict.fromkeys(own), "restart": False}
    assert options == dict(inspect.signature(seqrpc.serve).parameters)


def no_server() -> None:
    """Take no argument."""


@pytest.mark.parametrize("name", ["on_start", "on_reload"])
@pytest.mark.parametrize(
    "hook, text",
    [
        (5, "takes a function of the Server, got 5: write 'def f\\(server\\): ...'$"),
        (no_server, "and <function no_server at .*> cannot be called with it alone: write 'def f\\(server\\): ...'$"),
    ],
)
def test_hooks_that_cannot_be_called_are_told_before_anything_is_served(
    name: str, hook: Any, text: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {name: hook}
    with pytest.raises(TypeError, match=f"^{name}= .*{text}"):
        seqrpc.run(Work(), tmp_path / "x.sock", **options)
    assert not any(tmp_path.iterdir())
