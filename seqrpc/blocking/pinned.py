"""One end of a connection whose other end has one process, and no other."""

from __future__ import annotations

from typing import Any

from seqrpc.blocking.line import Line
from seqrpc.blocking.reading import Work
from seqrpc.errors import RemoteProtocolError
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all


class PinnedLine(Line):
    """A line on a socket pair that ends where a packet comes from another process than the one that has the other end.

    Args:
        pid: the process; its number stays its own as long as nobody has waited for it.
        args: those of :class:`~seqrpc.blocking.line.Line`.
        options: likewise.
    """

    __slots__ = ("_pid",)

    def __init__(self, pid: int, *args: Any, **options: Any) -> None:
        """Own the socket."""
        self._pid = pid
        super().__init__(*args, **options)

    def take_plain(self, data: bytes) -> Work | None:
        """Take a packet without credentials, which is none of the process's: the kernel names who has sent it."""
        return self.take_packet(data, [], None)

    def take_packet(
        self, data: bytes, fds: list[OwnedFd], sender: Credentials | None, *, lost: bool = False
    ) -> Work | None:
        """Take a packet, if it is of the process."""
        if sender is not None and sender.pid == self._pid:
            return super().take_packet(data, fds, sender, lost=lost)
        close_all(fds)
        who = "a process that the kernel does not name" if sender is None else f"process {sender.pid}"
        with self.lock:
            self._end_malformed(RemoteProtocolError(f"a packet of {who} came, where process {self._pid} was expected"))
        return None
