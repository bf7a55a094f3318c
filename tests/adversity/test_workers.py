"""Children that hang, die, are killed at random, and whose parents die."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.descriptors import open_fds
from support.waiting import PATIENCE, comes_true
from support.workers import TO_BEGIN, Desk, gone_within, is_alive

import seqrpc

CALLS = int(os.environ.get("SEQRPC_WORKER_CALLS", "400"))
"""With 10,000 it takes a while, and a worker is killed every 200 ms."""

TIMES = int(os.environ.get("SEQRPC_WORKER_STARTS", "2"))
"""How often workers are started from several threads at once; meant for 100."""

KILLED_EVERY = 0.2  # seconds

TESTS = Path(__file__).parents[1]


def tell(text: str) -> None:
    """Say what was measured, to whoever asks (``pytest -s``)."""
    sys.stdout.write(f"\n{text}\n")


def has_no_child() -> bool:
    """Return whether this process has no child, not even a zombie."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


@pytest.mark.parametrize("retry", [0, 1000], ids=["without_retry", "with_retry"])
async def test_a_pool_whose_workers_are_killed_at_random_loses_their_calls_and_no_others(retry: int) -> None:
    before = open_fds()
    wrong = lost = 0
    seen: set[int] = set()
    async with seqrpc.WorkerPool(Desk, size=4, retry=retry, start_timeout=PATIENCE) as pool:
        desk = pool.proxy(Desk)
        numbers = iter(range(CALLS))

        async def call() -> None:
            nonlocal wrong, lost
            for number in numbers:
                try:
                    wrong += await desk.doze(0.02, number) != number
                except seqrpc.WorkerCrashed:
                    lost += 1

        async def kill() -> None:
            while True:
                seen.update(pool.pids)
                if pool.pids:
                    os.kill(random.choice(pool.pids), signal.SIGKILL)
                await asyncio.sleep(KILLED_EVERY)

        killing = asyncio.ensure_future(kill())
        await asyncio.gather(*(call() for _ in range(32)))
        killing.cancel()
        began = time.monotonic()
        await comes_true(lambda: len(pool.pids) == 4)
        tell(f"{CALLS} calls, {lost} lost, {len(seen)} workers; full after {time.monotonic() - began:.2f} s")
        assert wrong == 0
        assert lost == 0 if retry else lost < CALLS
        assert await desk.add(1) == 1
        seen.update(pool.pids)
    assert not any(map(is_alive, seen))
    assert has_no_child()
    assert open_fds().keys() <= before.keys()


@pytest.mark.parametrize("method", ["hang", "backtrack", "spin", "block", "ignore_cancelling"])
async def test_an_endless_call_is_ended_by_cancelling_it(method: str) -> None:
    grace = 0.3
    async with seqrpc.Worker(Desk, grace=grace, start_timeout=PATIENCE) as worker:
        call = asyncio.ensure_future(getattr(worker.proxy(Desk), method)())
        done, _pending = await asyncio.wait([call], timeout=TO_BEGIN)
        assert not done
        began = time.monotonic()
        call.cancel()
        async with asyncio.timeout(PATIENCE):
            await worker.wait()
        tell(f"{method}: it was gone {time.monotonic() - began:.3f} s after it was cancelled, with grace={grace}")
        assert worker.returncode == -signal.SIGKILL
        assert time.monotonic() - began >= grace


PARENT = """
import asyncio, os, signal, sys
import seqrpc
from support.workers import Desk

async def main():
    async with seqrpc.Worker(Desk) as worker:
        if sys.argv[1] == "stopped":
            os.kill(worker.pid, signal.SIGSTOP)
        elif sys.argv[1] != "idle":
            call = asyncio.ensure_future(getattr(worker.proxy(Desk), sys.argv[1])())
            await asyncio.wait([call], timeout=0.2)
        print(worker.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("state", ["idle", "spin", "hang", "block", "stopped", "ignore_cancelling"])
def test_no_child_outlives_its_parent(state: str) -> None:
    parent = subprocess.run(
        [sys.executable, "-c", PARENT, state],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        stdout=subprocess.PIPE,
        check=False,
        timeout=PATIENCE,
    )
    began = time.monotonic()
    assert parent.returncode == -signal.SIGKILL
    assert gone_within(PATIENCE, [int(parent.stdout)])
    tell(f"{state}: the child was gone {time.monotonic() - began:.3f} s after its parent")


async def start_two() -> None:
    """Start two workers at once, and compare what they and this process have open."""
    workers = [seqrpc.Worker(Desk, start_timeout=PATIENCE) for _ in range(2)]
    await asyncio.gather(*(worker.start() for worker in workers))
    own = {what for fd, what in open_fds().items() if fd > 2 and not what.startswith("anon_inode")}
    for worker in workers:
        inherited = await worker.proxy(Desk).descriptors()
        shared = {fd: what for fd, what in inherited.items() if fd > 2 and what in own}
        assert shared == {}, "a descriptor of the parent's is open in the child"
    await asyncio.gather(*(worker.close() for worker in workers))


def test_workers_started_from_threads_and_loops_at_once_inherit_nothing_but_their_socket() -> None:
    """While others of this process's descriptors are open that any child inherits."""
    failures: list[BaseException] = []
    inheritable = [fd for _ in range(5) for fd in os.pipe()]
    for fd in inheritable:
        os.set_inheritable(fd, True)

    def start() -> None:
        try:
            for _ in range(TIMES):
                asyncio.run(start_two())
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=start, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * TIMES)
        assert not thread.is_alive(), "it hangs"
    for fd in inheritable:
        os.close(fd)
    assert failures == []
