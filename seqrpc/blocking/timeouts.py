"""Time-outs of blocking calls, also where an event loop runs, as in a notebook."""

from __future__ import annotations

from contextlib import AbstractContextManager

from seqrpc.interface.timeouts import Timeout


def timeout(delay: float | None) -> AbstractContextManager[None]:
    """Bound the blocking calls that are made inside, and the reading of their streams, to ``delay`` seconds.

    It is what ``with seqrpc.timeout(delay)`` is, and works also in a thread in which an event loop runs. The other side
    is told when time is up. None adds no bound.

    Raises:
        DeadlineExceeded: time is up. It is a :class:`TimeoutError` too.
    """
    return Timeout(delay, with_loop=False)
