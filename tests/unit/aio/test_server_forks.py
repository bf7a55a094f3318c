"""Servers in forked children of their process, and on other loops; what a daemon's signals do in its children."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daemons import PATIENCE, daemon, wait_until_it_listens
from processes import in_child

import seqrpc


class Echo(seqrpc.Service):
    @seqrpc.method
    async def echo(self, value: int) -> int:
        return value


def outcome(use: Callable[[], Any]) -> str:
    try:
        return str(asyncio.run(use()))
    except seqrpc.SeqrpcError as exc:
        return type(exc).__name__


async def test_a_copy_of_it_serves_nobody_and_says_so(socket_path: Path) -> None:
    async with seqrpc.serve(Echo(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        assert await connection.call("Echo.echo", 1) == 1

        def use() -> list[Any]:
            uses: tuple[Callable[[], Any], ...] = (server.drain, server.wait_closed, server.close)
            return [*map(outcome, uses), len(server.connections), server.sockets]

        assert in_child(use) == ["WrongProcess", "WrongProcess", "None", 0, ()]
        assert sorted(os.listdir(socket_path.parent)) == ["test.sock", "test.sock.lock"]
        assert await connection.call("Echo.echo", 2) == 2
        assert len(server.connections) == 1


async def test_on_another_loop_it_cannot_be_stopped(socket_path: Path) -> None:
    async with seqrpc.serve(Echo(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        for use in (server.drain, server.wait_closed, server.close):
            assert await asyncio.to_thread(outcome, use) == "WrongLoop"
        assert await connection.call("Echo.echo", 2) == 2


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
