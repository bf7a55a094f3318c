"""A connection, as its users see it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from seqrpc.blocking.line import Line
from seqrpc.blocking.proxy import Callee
from seqrpc.blocking.reconnecting import Lines
from seqrpc.blocking.remote import Remote
from seqrpc.blocking.waiting import Pump
from seqrpc.blocking.watch import Watch
from seqrpc.errors import not_run
from seqrpc.interface.scope import scope
from seqrpc.kernel.credentials import Credentials

_UNWATCHED: Final = contextlib.nullcontext()


class Connection(Remote):
    """A connection to another process, for any number of threads: call its services, and be called while you wait.

    Made by :func:`seqrpc.blocking.connect`; in a handler it is ``current_call().connection``. It ends when either side
    closes, or breaks the protocol. No thread reads for it: of those that wait for answers one reads for all.
    """

    __slots__ = ("__weakref__", "_line", "_watch")

    def __init__(self, line: Line, callee: Callee) -> None:
        """Wrap a line."""
        super().__init__(callee)
        self._line = line
        self._watch: Watch | None = None

    @property
    def peer(self) -> Credentials | None:
        """Who is at the other end, by the kernel's word: who connected, or who listens (unix(7)).

        None where each packet tells of its sender, as on a socket pair, and where the kernel does not say.
        """
        return self._line.peer

    @property
    def closed(self) -> bool:
        """True once the connection is known to have ended; a copy in a forked child never was one.

        What the other side does is seen while a call waits, and by :meth:`process`.
        """
        return self._line.is_lost

    @property
    def closing_reason(self) -> str | None:
        """Why the other side takes no new calls, in its own words; None as long as it takes them.

        From then on new calls raise :class:`~seqrpc.Unavailable`, and this connection is no longer worth keeping. It
        stays when the connection has ended. It is heard of while a call waits, and by :meth:`process`.
        """
        return self._line.session.closing_received

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something for :meth:`process`, lent.

        It is for the loop of a GUI: watch it for reading, and call :meth:`process` then. It covers the connection and
        the objects that were given away over it, and stays the same as long as the connection lives.

        Raises:
            ValueError: the connection has ended.
            WrongProcess: it belongs to another process.
        """
        self._line.check_process()
        if self._line.is_lost:
            raise ValueError("the connection has ended")
        if self._watch is None:
            self._watch = Watch(self._line.family, self._pumps())
        return self._watch.fileno()

    def _pumps(self) -> Callable[[], list[Pump]]:
        """Return what returns what goes on; it does not hold this connection."""
        line = self._line
        return lambda: [line, *[pump for pump in list(line.family.pumps) if pump is not line]]

    def process(self) -> None:
        """Take what has come, without waiting for more, and do what it asks for: calls of this side's objects.

        It handles a bounded number of packets; what is left makes :meth:`fileno` readable again. That the connection
        ended raises nothing: :attr:`closed` tells.

        Raises:
            WrongProcess: it belongs to another process.
        """
        self._line.check_process()
        with self._watch or _UNWATCHED:
            _process(self._pumps(), self._line.limits.max_packets_per_wakeup)

    def wait_for_ready(self) -> None:
        """Wait until the connection can be used: this one can, until it ends (see ``reconnect=`` of :func:`connect`).

        Raises:
            ConnectionLost: it has ended.
            Unavailable: the other side takes no new calls, and the connection is not made anew.
            WrongProcess: it belongs to another process.
        """
        self._line.check_process()
        if self._line.session.closing_received is not None:
            raise self._line.unavailable()
        if self._line.is_lost:
            raise not_run(self._line.lost_error())

    def close(self) -> None:
        """End the connection: what is unsent is sent within ``close_timeout``; calls both ways are given up.

        Calls that wait in other threads raise ConnectionLost. Objects that were given away over it are revoked. In a
        forked child this does nothing: the connection is the parent's.
        """
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._line.close_family()

    def __enter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Return the state, and who is at the other end."""
        return repr(self._line)


def line_of(connection: Connection) -> Line:
    """Return what a connection is made of."""
    return connection._line  # noqa: SLF001 - this module's own


class ReconnectingConnection(Connection):
    """A connection that is made anew when it has ended, by the thread that next calls; made with ``reconnect=``."""

    __slots__ = ("_lines",)

    def __init__(self, lines: Lines, callee: Callee) -> None:
        """Wrap what makes the connections."""
        Remote.__init__(self, callee)
        self._lines = lines
        self._watch = None

    @property
    def peer(self) -> Credentials | None:
        """Who is at the other end, by the kernel's word; None also while there is no connection."""
        current = self._lines.current
        return None if current is None else current.line.peer

    @property
    def closed(self) -> bool:
        """True once it was closed on this side; while nobody is at the other side, it is not."""
        return not self._lines.is_unclosed

    @property
    def closing_reason(self) -> str | None:
        """Why the last daemon took no new calls, while there is no connection to the next one; None else."""
        return self._lines.closing_reason

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something for :meth:`process`, lent.

        It stays the same when the connection is made anew. While there is none, nothing makes it readable: call
        :meth:`process`, or anything else, from a timer to have it made anew.

        Raises:
            ValueError: it was closed.
            WrongProcess: it belongs to another process.
        """
        self._lines.check_process()
        if self.closed:
            raise ValueError("the connection was closed")
        if self._watch is None:
            self._watch = Watch(self._lines.family, self._pumps())
        return self._watch.fileno()

    def _pumps(self) -> Callable[[], list[Pump]]:
        lines = self._lines

        def pumps() -> list[Pump]:
            own: list[Pump] = [*lines.lines]
            return [*own, *[pump for pump in list(lines.family.pumps) if pump not in own]]

        return pumps

    def process(self) -> None:
        """Take what has come, without waiting for more, and do what it asks for; connect anew if it is time to.

        Raises:
            WrongProcess: it belongs to another process.
        """
        self._lines.check_process()
        with self._watch or _UNWATCHED:
            _process(self._pumps(), self._lines.limits.max_packets_per_wakeup)
            self._lines.purge()
            if not self.closed and self._lines.current is None:
                self._lines.try_now()

    def wait_for_ready(self) -> None:
        """Wait until there is a connection; ``seqrpc.timeout`` bounds this, and not ``ready_timeout``.

        Raises:
            ConnectError: an attempt showed that waiting is no use.
            DeadlineExceeded: the time is up.
            ConnectionLost: it was closed on this side.
        """
        self._lines.ready(scope.get().deadline_ns)

    def close(self) -> None:
        """End the connection for good; see :meth:`Connection.close`."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._lines.close()

    def __repr__(self) -> str:
        """Return the state, and who is at the other end."""
        return repr(self._lines)


def _process(pumps: Callable[[], list[Pump]], most: int) -> None:
    """Let each do what it can, so many times at most."""
    for _ in range(most):
        came = [pump.work() for pump in pumps()]  # each of them
        if not any(came):
            return
