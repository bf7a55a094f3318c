"""A connection, as its users see it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from seqrpc.blocking.caller import Caller
from seqrpc.blocking.line import Line
from seqrpc.blocking.remote import Remote
from seqrpc.blocking.watch import Watch
from seqrpc.kernel.credentials import Credentials


class Connection(Remote):
    """A connection to another process, for any number of threads: call its services, and be called while you wait.

    Made by :func:`seqrpc.blocking.connect`; in a handler it is ``current_call().connection``. It ends when either side
    closes, or breaks the protocol. No thread is started for it: of those that wait for answers one reads for all.
    """

    __slots__ = ("__weakref__", "_line", "_watch")

    def __init__(self, line: Line, caller: Caller) -> None:
        """Wrap a line."""
        super().__init__(caller)
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
            self._watch = Watch(self._line)
        return self._watch.fileno()

    def process(self) -> None:
        """Take what has come, without waiting for more, and do what it asks for: calls of this side's objects.

        It handles a bounded number of packets; what is left makes :meth:`fileno` readable again. That the connection
        ended raises nothing: :attr:`closed` tells.

        Raises:
            WrongProcess: it belongs to another process.
        """
        line = self._line
        line.check_process()
        for _ in range(line.limits.max_packets_per_wakeup):
            came = False if line.is_lost else line.work()
            for pump in list(line.family.pumps):
                if pump in line.family.pumps and pump.work():
                    came = True
            if not came:
                break
        if self._watch is not None:
            self._watch.update()

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
