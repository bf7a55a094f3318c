"""Children end, and outlive their parents."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemons import daemon, wait_until_it_listens
from support.foreign_use import Sums, holding, outcome, sockets_of
from support.waiting import PATIENCE

import seqrpc


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
        return sorted(child.pid for child in multiprocessing.active_children())

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
