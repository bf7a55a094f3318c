"""What takes the plainest packets of a connection beside the Python that takes all (native/lane.c)."""

from __future__ import annotations

from typing import Any, Protocol

from seqrpc.kernel.ancillary import Received
from seqrpc.protocol.messages import Params


class Lane(Protocol):
    """The plainest packets of one connection. It has no state but what stands in the objects of the connection."""

    def read(self, most: int, until: float, /) -> int | tuple[int, OSError | Received] | None:
        """Receive packets, up to ``most`` and until ``until``, and take them, the plain ones natively.

        Returns:
            None if so many came, or for so long. An int if there are no more: how many came. ``(number, error)`` if
            receiving failed after so many. ``(number, received)`` of what came after so many and is not taken; the
            packet is in the buffer.
        """
        ...

    def call(self, method: str, params: Params, /) -> tuple[int, Any] | None:
        """Send a request, and return its id and the future of its answer; None, and do nothing, if it is not plain."""
        ...

    def finish(self, call: Any, result: Any, /) -> None:
        """Answer a call with what its handler returned, and end it, whatever it is."""
        ...

    def let_go(self) -> None:
        """Refer to nothing any more: the connection has ended."""
        ...
