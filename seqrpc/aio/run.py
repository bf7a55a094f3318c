"""Being a daemon: a process that serves until a signal tells it to stop."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from seqrpc.aio.server import Server, serve
from seqrpc.interface.service import Service
from seqrpc.kernel import forks
from seqrpc.kernel.addresses import AddressLike
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.server")


def run(
    services: Service | Iterable[Service],
    address: AddressLike | None = None,
    *,
    drain_timeout: float | None = None,
    **options: Any,
) -> None:
    """Be a daemon: serve on uvloop until SIGTERM or SIGINT, then drain and return.

    The first signal refuses what comes and lets what runs finish; a second one stops at once. On a
    socket pair it also ends when the other side goes. The stop takes ``drain_timeout`` and a few times
    ``close_timeout`` of the limits at most: handlers that go on although they were cancelled are left.

    The soft limit of descriptors (``RLIMIT_NOFILE``) is raised to the hard one.

    Args:
        services: as for :func:`serve`.
        address: as for :func:`serve`.
        drain_timeout: seconds that running handlers get to finish; by default that of the limits.
        options: as for :func:`serve`.

    Raises:
        Exception: as :func:`serve`.
    """
    import uvloop  # noqa: PLC0415 - only daemons need it

    serving = serve(services, address, **options)
    limits: Limits = options.get("limits", DEFAULT_LIMITS)
    _raise_descriptor_limit()
    # The runner is not closed, only its loop: it would wait without a bound for tasks that do not end when
    # they are cancelled, and for the threads of asyncio.to_thread. Those are let go when the loop closes.
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    signals = _StopSignals()
    try:
        try:
            runner.run(_run(serving, drain_timeout, signals))
        finally:
            runner.run(_end_tasks(limits.close_timeout))
    finally:
        runner.get_loop().close()


def _raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as it may.

    The soft limit is 1,024 by default for the sake of select(2), which knows no higher numbers and is
    not used here; service managers set the hard one for daemons, and expect them to raise the other.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems have a bound below "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _end_tasks(close_timeout: float) -> None:
    """Cancel what still runs on the loop, and wait for it: as asyncio's runner does, but with a bound."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=close_timeout)
    # A generator that goes on although it is cancelled would keep whoever awaits this, time-out or not.
    generators = asyncio.ensure_future(asyncio.get_running_loop().shutdown_asyncgens())
    await asyncio.wait([generators], timeout=close_timeout)


class _StopSignals:
    """The signals that stop a daemon, and what they did before.

    A forked child inherits the handlers, and the descriptor to which they write (``signal.set_wakeup_fd``): to end
    a worker, as ``multiprocessing.Process.terminate`` does, would leave it running, and stop the daemon before 3.12.
    """

    def __init__(self) -> None:
        """Remember what they do now."""
        self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        forks.register(self, _StopSignals._let_go_in_child)

    def handle(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        """Have a loop call ``stop`` for each."""
        for number in self._before:
            loop.add_signal_handler(number, stop)

    def _let_go_in_child(self) -> None:
        """Let them do in a forked child what they did before."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


async def _run(
    serving: AbstractAsyncContextManager[Server], drain_timeout: float | None, signals: _StopSignals
) -> None:
    loop = asyncio.get_running_loop()
    serves: Server | None = None
    stopping = asyncio.Event()
    hurrying = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            hurrying.set()
        elif serves is not None:
            serves.refuse_new()  # not a few turns later: they may be long
        stopping.set()

    signals.handle(loop, stop)  # first, for whoever can connect may also send signals
    async with serving as server:
        serves = server
        _log.info("= serving at %s", server.address)
        await _first(stopping.wait(), server.wait_closed())
        if stopping.is_set():
            await _first(server.drain(drain_timeout), hurrying.wait())


async def _first(*waits: Any) -> None:
    """Wait for the first of several to end; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
    for task in done:
        task.result()
