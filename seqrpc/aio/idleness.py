"""The end of a daemon that nobody needs, and that is started again when somebody comes.

Nobody is lost who comes at that moment. Whoever holds the listening socket, too, keeps it: this process stops accepting
in the same step in which it sees that it is idle, and who was not accepted waits there for the next process. Who was
accepted is a connection from that moment on, whether it has said something yet or not, and the daemon is not idle.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from seqrpc.aio.hub import Hub
from seqrpc.errors import AddressError
from seqrpc.kernel.addresses import AbstractAddress, AddressLike, PathAddress, parse_address
from seqrpc.kernel.sockets import somebody_waits
from seqrpc.limits import IDLE_LOOKS, LONGEST_TIMER
from seqrpc.text import shown

_SHORTEST_STEP = 0.001
"""Seconds between two looks at least, so that a daemon does not look all the time, however soon it is to end."""


def check_idle_timeout(idle_timeout: object, address: AddressLike | None) -> None:
    """Check that a daemon may end when it is idle for so long, and that somebody would start it again.

    Raises:
        TypeError, ValueError: these are no seconds.
        AddressError: nobody would; the message says why.
    """
    if idle_timeout is None:
        return
    wanted = "idle_timeout= takes seconds, more than 0, or None"
    if not isinstance(idle_timeout, int | float):
        raise TypeError(f"{wanted}, got {shown(repr(idle_timeout))}")
    if not 0 < idle_timeout < math.inf:
        raise ValueError(f"{wanted}, got {idle_timeout!r}")
    where = None if address is None else parse_address(address)
    if isinstance(where, PathAddress | AbstractAddress):
        raise AddressError(
            f"{shown(where)}: idle_timeout= is for sockets that a service manager holds, too (systemd:name, fd:N):"
            " of an address that this process made itself nobody would be left to start it again for the next caller"
        )


class Idleness:
    """Looks at times whether a server is idle, and has the daemon end once it was for ``idle_timeout`` seconds.

    Args:
        hub: the server.
        idle_timeout: for how long it must be idle.
        leave: stops accepting before it returns, and ends the daemon; False if that does something else just now.
    """

    def __init__(self, hub: Hub, idle_timeout: float, leave: Callable[[], bool]) -> None:
        """Prepare; :meth:`begin` begins."""
        self._hub = hub
        self._timeout = idle_timeout
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None  # when it was seen idle first, None while it is not
        self._taken = 0  # connections, when it was last looked at

    def begin(self) -> None:
        """Look from now on, until the daemon ends or no longer accepts for another reason."""
        self._look()

    def _look(self) -> None:
        """See whether nobody came, was here or is waiting since ``_since``."""
        hub, now = self._hub, time.monotonic()  # a loop's own time may be that of the beginning of its turn
        if not hub.sockets:
            return
        came, self._taken = hub.connections_taken != self._taken, hub.connections_taken
        if not hub.is_idle:
            self._since = None
        elif self._since is None or came or any(map(somebody_waits, hub.sockets)):
            self._since = now
        elif now - self._since >= self._timeout:
            if self._leave():
                return
            self._since = now
        step = self._timeout / IDLE_LOOKS
        if self._since is not None:
            step = min(step, self._since + self._timeout - now)
        self._loop.call_later(min(max(step, _SHORTEST_STEP), LONGEST_TIMER), self._look)
