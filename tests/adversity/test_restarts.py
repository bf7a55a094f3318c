"""A daemon is restarted again and again under clients that reconnect: each error says truly whether its call ran.

The daemon, a real process, writes down what ran before it answers, and so do the clients what came of each call. An
ordinary run restarts it a few times; ``SEQRPC_RESTARTS=200 python -m pytest tests/adversity/test_restarts.py`` two
hundred times.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from support.daemons import daemon
from support.waiting import PATIENCE

import seqrpc
import seqrpc.blocking
from seqrpc import Execution, Reconnect

RESTARTS = int(os.environ.get("SEQRPC_RESTARTS", "9"))

CALLS_A_LIFE = 50
"""Answers that are waited for in each life of the daemon before it ends."""

CONNECTIONS = 3

CALLERS = 4
"""On each connection, at the same time."""

POLICY = Reconnect(first_delay=0.005, longest_delay=0.1, ready_timeout=PATIENCE)

DAEMON = """
import asyncio, os, sys
import seqrpc

class Ledger(seqrpc.Service):
    def __init__(self, path):
        self.file = open(path, "a")

    def note(self, word):
        self.file.write(word + chr(10))
        self.file.flush()

    @seqrpc.method
    async def quick(self, word: str) -> str:
        self.note(word)
        return word

    @seqrpc.method
    async def slow(self, word: str) -> str:
        self.note(word)
        await asyncio.sleep(0.005)
        return word

    @seqrpc.method
    async def late(self, word: str) -> str:
        await asyncio.sleep(0.005)
        self.note(word)
        return word

    @seqrpc.method
    def plain(self, word: str) -> str:
        self.note(word)
        return word

    @seqrpc.method
    async def large(self, word: str, much: bytes) -> bytes:
        self.note(word)
        return much

    @seqrpc.method(idempotent=True)
    async def again(self, word: str) -> str:
        self.note(word)
        await asyncio.sleep(0.005)
        return word

    @seqrpc.method(oneway=True)
    async def tell(self, word: str) -> None:
        self.note(word)

seqrpc.run(Ledger(sys.argv[2]), sys.argv[1], drain_timeout=5)
"""


class Ledger(seqrpc.Service):
    """What the daemon serves."""

    @seqrpc.method
    async def quick(self, word: str) -> str:
        raise NotImplementedError

    @seqrpc.method
    async def slow(self, word: str) -> str:
        raise NotImplementedError

    @seqrpc.method
    async def late(self, word: str) -> str:
        raise NotImplementedError

    @seqrpc.method
    async def plain(self, word: str) -> str:
        raise NotImplementedError

    @seqrpc.method
    async def large(self, word: str, much: bytes) -> bytes:
        raise NotImplementedError

    @seqrpc.method(idempotent=True)
    async def again(self, word: str) -> str:
        raise NotImplementedError

    @seqrpc.method(oneway=True)
    async def tell(self, word: str) -> None:
        raise NotImplementedError


METHODS = ("quick", "slow", "late", "plain", "large", "again", "tell")

MUCH = bytes(100_000)


class Outcomes:
    """What came of each call, by the word that it took along."""

    def __init__(self) -> None:
        self.of: dict[str, Execution | None] = {}
        """None for an answer."""

        self.stop = threading.Event()
        self.failure: BaseException | None = None
        self.ended = threading.Event()
        self._numbers = itertools.count()

    @property
    def answered(self) -> int:
        return sum(outcome is None for outcome in list(self.of.values()))

    def next_call(self) -> tuple[str, tuple[Any, ...]]:
        """Return a method, and its arguments, of which the first is a word of its own."""
        number = next(self._numbers)
        method = METHODS[number % len(METHODS)]
        word = f"{method}-{number}"
        return method, (word, MUCH) if method == "large" else (word,)

    @contextlib.contextmanager
    def noted(self, word: str) -> Iterator[None]:
        try:
            yield
        except seqrpc.SeqrpcError as exc:
            self.of[word] = exc.execution
        else:
            self.of[word] = None


Kind = Callable[[Path, Outcomes], None]
"""Calls until it is told to stop: one kind of clients, in a thread of its own."""


async def _call(path: Path, outcomes: Outcomes) -> None:
    async def calls(proxy: Ledger) -> None:
        while not outcomes.stop.is_set():
            method, arguments = outcomes.next_call()
            with outcomes.noted(arguments[0]):
                await getattr(proxy, method)(*arguments)

    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(seqrpc.connect(path, reconnect=POLICY)) for _ in range(CONNECTIONS)]
        async with asyncio.TaskGroup() as group:
            for connection in opened * CALLERS:
                group.create_task(calls(connection.proxy(Ledger)))


def on_asyncio(path: Path, outcomes: Outcomes) -> None:
    asyncio.run(_call(path, outcomes))


def on_uvloop(path: Path, outcomes: Outcomes) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_call(path, outcomes))


def in_threads(path: Path, outcomes: Outcomes) -> None:
    def calls(proxy: Any) -> None:
        while not outcomes.stop.is_set():
            method, arguments = outcomes.next_call()
            with outcomes.noted(arguments[0]):
                getattr(proxy, method)(*arguments)

    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(seqrpc.blocking.connect(path, reconnect=POLICY)) for _ in range(CONNECTIONS)]
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS * CALLERS) as pool:
            for done in [pool.submit(calls, connection.proxy(Ledger)) for connection in opened * CALLERS]:
                done.result()


@contextlib.contextmanager
def calling(kind: Kind, path: Path) -> Iterator[Outcomes]:
    """Let clients of a kind call inside the block."""
    outcomes = Outcomes()

    def work() -> None:
        try:
            kind(path, outcomes)
        except BaseException as exc:
            outcomes.failure = exc
        finally:
            outcomes.ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield outcomes
    finally:
        outcomes.stop.set()
        thread.join(3 * PATIENCE)
    assert not thread.is_alive()
    if outcomes.failure is not None:
        raise outcomes.failure


def wait_for_answers(outcomes: Outcomes, number: int) -> None:
    until = time.monotonic() + PATIENCE
    wanted = outcomes.answered + number
    while outcomes.answered < wanted:
        assert outcomes.failure is None, outcomes.failure
        assert time.monotonic() < until, "no calls are answered"
        time.sleep(0.002)


def drain(child: subprocess.Popen[bytes]) -> None:
    """Let it finish what runs."""
    child.send_signal(signal.SIGTERM)


def stop(child: subprocess.Popen[bytes]) -> None:
    """Let it end at once, in good order."""
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGTERM)


def kill(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("kind", [on_asyncio, on_uvloop, in_threads])
def test_each_error_says_truly_whether_its_call_ran(kind: Kind, socket_path: Path) -> None:
    journal = socket_path.with_name("journal")
    ends = itertools.cycle([drain, stop, kill])
    with calling(kind, socket_path) as outcomes:
        for end in itertools.islice(ends, RESTARTS):
            with daemon(DAEMON, socket_path, journal) as child:
                wait_for_answers(outcomes, CALLS_A_LIFE)
                end(child)
                child.wait(PATIENCE)
        with daemon(DAEMON, socket_path, journal) as child:
            wait_for_answers(outcomes, CALLS_A_LIFE)
            outcomes.stop.set()
            drain(child)
            child.wait(PATIENCE)
            # Those whose answer was lost, and that may run twice, wait for one more life.
            with daemon(DAEMON, socket_path, journal):
                outcomes.ended.wait(PATIENCE)
    compare(outcomes, collections.Counter(journal.read_text().split()))


def compare(outcomes: Outcomes, ran: collections.Counter[str]) -> None:
    """Compare what the clients were told with what the daemon did."""
    untrue = []
    for word, outcome in outcomes.of.items():
        times, method = ran[word], word.partition("-")[0]
        most = RESTARTS + 2 if method == "again" else 1
        least = 1 if outcome in (None, Execution.RAN) and method != "tell" else 0
        if outcome is Execution.DID_NOT_RUN:
            most = 0
        if not least <= times <= most:
            untrue.append((word, outcome, times))
    assert untrue == []
    assert ran.keys() <= outcomes.of.keys(), "each call came to an end"
    assert outcomes.answered >= RESTARTS * CALLS_A_LIFE
