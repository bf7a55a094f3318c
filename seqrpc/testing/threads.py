"""A server in a thread of its own, for tests without an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.opening import Opening
from seqrpc.blocking.client import connect
from seqrpc.blocking.connection import Connection
from seqrpc.blocking.interceptors import Interceptor as BlockingInterceptor
from seqrpc.interface.policy import PolicyLike
from seqrpc.interface.service import Service
from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.testing.memory import MemoryServer, memory_server
from seqrpc.testing.pairs import FaultyPair

T = TypeVar("T")

_PATIENCE: Final = 60.0
"""Seconds after which what should end in the server's thread does not: only a handler that hangs waits as long."""


class ThreadedServer:
    """A :class:`~seqrpc.testing.MemoryServer` on an event loop in a thread; made by :func:`serve_in_thread`.

    Its methods are called from other threads.
    """

    def __init__(self, serving: Opening[MemoryServer]) -> None:
        """Start nothing yet."""
        self._serving = serving
        self._started: Future[MemoryServer] = Future()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._blocks: contextlib.AsyncExitStack
        self._thread = threading.Thread(target=self._live, name="seqrpc-testing", daemon=True)
        self._ended: Future[None] = Future()

    def open_socket(self, *, caller: Credentials | None = None, pair: FaultyPair | None = None) -> socket.socket:
        """Return the client's end of a new connection, owned by whoever called this.

        Args:
            caller: who calls, as the server sees it; by default this process.
            pair: what is between; it must have been entered by :meth:`enter`.
        """

        async def open_one() -> socket.socket:
            return self._started.result().open_socket(caller=caller, pair=pair)

        return self.run(open_one())

    def connect(
        self,
        *,
        caller: Credentials | None = None,
        pair: FaultyPair | None = None,
        services: Service | Iterable[Service] = (),
        allow: PolicyLike | None = None,
        interceptors: Iterable[BlockingInterceptor] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> Connection:
        """Connect without an event loop: ``with server.connect(caller=caller(uid=1000)) as connection: ...``.

        Args:
            caller: who calls, as the server sees it; by default this process.
            pair: what is between; it must have been entered by :meth:`enter`.
            services: what the server may call here, as for :func:`seqrpc.blocking.connect`.
            allow: who may call those, likewise.
            interceptors: what surrounds calls at this end, likewise.
            limits: bounds of this end, likewise.

        Returns:
            The :class:`seqrpc.blocking.Connection`.

        Raises:
            TypeError, ValueError: ``caller`` is none, a service cannot be served, or one is no interceptor.
        """
        sock = self.open_socket(caller=caller, pair=pair)
        try:
            return connect(sock=sock, services=services, allow=allow, interceptors=interceptors, limits=limits)
        except BaseException:
            sock.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    def enter(self, block: AbstractAsyncContextManager[T]) -> T:
        """Enter a block on the server's loop, as that of a :func:`~seqrpc.testing.faulty_pair`; it is left at the end.

        Returns:
            What the block gives.
        """
        return self.run(self._blocks.enter_async_context(block))

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        try:
            self._started.result(_PATIENCE)
        except BaseException:
            self._thread.join(_PATIENCE)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close what was entered, and the server, and raise what its lifespans raise."""
        self._loop.call_soon_threadsafe(self._stop.set)
        try:
            self._ended.result(_PATIENCE)
        finally:
            self._thread.join(_PATIENCE)

    def _live(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:
            waits = self._ended if self._started.done() else self._started
            waits.set_exception(exc)
        else:
            self._ended.set_result(None)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._serving as server, contextlib.AsyncExitStack() as self._blocks:
            self._started.set_result(server)
            await self._stop.wait()


def serve_in_thread(
    services: Service | Iterable[Service],
    *,
    allow: PolicyLike | None = None,
    accept_descriptors: bool | None = None,
    interceptors: Iterable[Interceptor] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> ThreadedServer:
    """Serve in a thread, for tests without an event loop.

    ``with serve_in_thread(Calculator()) as server, server.connect() as connection: ...``. The connection is one of
    :mod:`seqrpc.blocking`; clients of other makes take ``server.open_socket()``.

    The arguments mean what they do for :func:`seqrpc.serve`; those about addresses, sockets and their files have no
    place here.

    Raises:
        TypeError, ValueError: a service cannot be served, or one is no interceptor.
        TimeoutError: at the begin and at the end of the block, it took a minute.
        Exception: at the begin and at the end of the block, what the lifespan of a service raised.
    """
    return ThreadedServer(
        memory_server(
            services, allow=allow, accept_descriptors=accept_descriptors, interceptors=interceptors, limits=limits
        )
    )
