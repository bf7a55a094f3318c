"""Daemons: what a signal does to them, and to their children."""

from __future__ import annotations

import asyncio
import inspect
import os
import resource
import signal
from pathlib import Path

import pytest
from support.daemons import daemon, wait_until_it_listens
from support.waiting import PATIENCE

import seqrpc
from seqrpc.aio.connection import link_of


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


def test_run_tells_what_cannot_be_served(socket_path: Path) -> None:
    socket_path.write_text("no socket")
    with pytest.raises(seqrpc.AddressInUse, match="is no socket"):
        seqrpc.run(Work(), socket_path)
    assert socket_path.read_text() == "no socket"


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
    own = {name: options.pop(name).default for name in ("drain_timeout", "on_start", "on_reload")}
    assert own == dict.fromkeys(own)
    assert options == dict(inspect.signature(seqrpc.serve).parameters)
