"""Connections on an event loop to the addresses of the command line, for what makes many calls at a time.

Everything else in the command line does without an event loop. Calls that are measured are not made in threads, which
would wait for each other's turns on the interpreter and not for the other side: they are tasks of one thread, on
uvloop, as those of most programs are.
"""

from __future__ import annotations

import asyncio
import functools
import resource
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from seqrpc.aio.client import connect, connect_to_process
from seqrpc.aio.connection import Connection
from seqrpc.cli.endings import FAILED, Ending, misused
from seqrpc.cli.places import Elsewhere, Place, Program, begun, ending_of, refuse_directory
from seqrpc.documents.model import DocumentError, read
from seqrpc.documents.trees import Document
from seqrpc.errors import ConnectionLost, MethodNotFound, PermissionDenied
from seqrpc.interface.timeouts import timeout
from seqrpc.kernel.addresses import AbstractAddress, PathAddress
from seqrpc.kernel.processes import Process
from seqrpc.limits import RESERVED_DESCRIPTORS, Limits

T = TypeVar("T")

ANSWER_WITHIN: Final = 10.0
"""Seconds that the other side has to say what it offers, as many as to accept a connection."""

_Open = Callable[[Limits], Awaitable[Connection]]


class Client:
    """A loop, and connections on it, in ``with``: at the end they are closed, and what was started for them has ended.

    Args:
        place: whom to connect to.
        number: of connections.
        limits: bounds of each.
    """

    def __init__(self, place: Place, number: int, limits: Limits) -> None:
        """Connect to nobody yet."""
        import uvloop  # noqa: PLC0415 - only what measures needs it

        self._new_loop = uvloop.new_event_loop
        self._place = place
        self._number = number
        self._limits = limits
        self._stack = ExitStack()
        self._process: Process | None = None
        self.connections: list[Connection] = []

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            Ending: there cannot be so many.
            ConnectError, AddressError, OSError: there is nobody.
        """
        with self._stack:
            _have_room_for(self._number)
            opens = self._openings()
            self._runner = self._stack.enter_context(asyncio.Runner(loop_factory=self._new_loop))
            self._stack.callback(lambda: self.run(self._close()))
            self.run(self._connect(opens))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close them."""
        self._stack.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something on the loop, and return what it returns."""
        return self._runner.run(coroutine)

    async def description(self, seconds: float | None) -> Document | None:
        """Return what the other side says of itself; None if it tells nobody, or not this user.

        Args:
            seconds: that it may take, if they are fewer than :data:`ANSWER_WITHIN`.

        Raises:
            Ending, RpcError, ConnectionLost: it is none, the program that was started has ended, or who is there is not
                well.
        """
        try:
            async with timeout(min(ANSWER_WITHIN, seconds or ANSWER_WITHIN)):
                return read(await self.connections[0].call("rpc.discover"))
        except (MethodNotFound, PermissionDenied):
            return None
        except DocumentError as exc:
            raise Ending(FAILED, f"the description that came is none: {exc}") from None
        except ConnectionLost:
            if self._process is None:
                raise
            raise ending_of(self._process) from None

    def _openings(self) -> list[_Open]:
        """Return what opens each connection; what they need is there, until the end."""
        place, number = self._place, self._number
        refuse_directory(place)
        if isinstance(place, PathAddress | AbstractAddress):
            return [functools.partial(_to_address, place)] * number
        if isinstance(place, Elsewhere):
            from seqrpc.cli.ssh import through_ssh  # noqa: PLC0415 - seldom needed

            tunnels = [through_ssh(place.host, place.port, place.path) for _ in range(number)]
            return [functools.partial(_over, self._stack.enter_context(tunnel)) for tunnel in tunnels]
        if number > 1:
            raise misused(f"--connections {number}: there is one only to such an address")
        if isinstance(place, Program):
            sock, self._process = self._stack.enter_context(begun(place))
            pid = self._process.pid
            return [lambda limits: connect_to_process(sock, pid, limits=limits)]
        return [functools.partial(_to_address, place)]

    async def _connect(self, opens: list[_Open]) -> None:
        for each in opens:
            self.connections.append(await each(self._limits))

    async def _close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self.connections))


def _have_room_for(number: int) -> None:
    """Raise the soft limit of descriptors as far as so many connections need it, and the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _to_address(place: Any, limits: Limits) -> Connection:
    return await connect(place, limits=limits)


async def _over(sock: Any, limits: Limits) -> Connection:
    return await connect(sock=sock, limits=limits)
