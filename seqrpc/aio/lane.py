"""What takes the plainest packets of a connection beside the Python that takes all (native/lane.c)."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Protocol

from seqrpc.interface.alarms import Alarm
from seqrpc.kernel.ancillary import Received
from seqrpc.protocol.messages import Params, Response

Came = int | tuple[int, int, OSError | Received] | None
"""What a lane found.

None if as many packets came as it was to take, as many bytes, or for as long as it was to read. An int if there are no
more: how many came. ``(number, bytes, error)`` if receiving failed after so many. ``(number, bytes, received)`` of what
came after so many and is not plain: it is not taken, and the packet is in the buffer."""


class Sent(Protocol):
    """A call that was sent. ``await`` waits for its answer, or whatever ends it, and returns nothing."""

    @property
    def call_id(self) -> int:
        """Its number."""
        ...

    @property
    def waiter(self) -> asyncio.Future[Response]:
        """The future of its answer."""
        ...

    @property
    def alarm(self) -> Alarm | None:
        """What ends this at the deadline."""
        ...

    def __await__(self) -> Generator[Any, None, None]:
        """Wait."""
        ...


class Lane(Protocol):
    """The plainest packets of one connection. It has no state but what stands in the objects of the connection."""

    def ready(self) -> None:
        """Receive what is there, as the loop calls it: as :meth:`seqrpc.aio.intake.Intake._read_ready`."""
        ...

    def read(self, most: int, until: float, taken: int, /) -> Came:
        """Receive packets, and take them.

        Args:
            most: at most so many.
            until: not longer than this (``time.monotonic()``).
            taken: bytes that were received in this wake-up before.
        """
        ...

    def call(self, method: str, params: Params, deadline: int | None, /) -> Sent | None:
        """Send a request, and return what its caller waits for; None, and do nothing, if it is not plain.

        Args:
            method: ``Service.method``.
            params: as for :meth:`seqrpc.aio.caller.Caller.request`; descriptors in it are borrowed until this returns.
            deadline: ``CLOCK_MONOTONIC`` in nanoseconds, for the other side, or None.
        """
        ...

    def let_go(self) -> None:
        """Refer to nothing any more: the connection has ended."""
        ...
