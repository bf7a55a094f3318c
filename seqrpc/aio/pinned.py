"""One end of a connection whose other end has one process, and no other."""

from __future__ import annotations

from typing import Any

from seqrpc.aio.link import Link
from seqrpc.errors import RemoteProtocolError
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all


class PinnedLink(Link):
    """A link on a socket pair that ends where a packet comes from another process than the one that has the other end.

    Args:
        pid: the process; its number stays its own as long as nobody has waited for it.
        args: those of :class:`~seqrpc.aio.link.Link`, and
        kwargs: by name.
    """

    __slots__ = ("_pid",)

    def __init__(self, pid: int, *args: Any, **kwargs: Any) -> None:
        """Prepare."""
        super().__init__(*args, **kwargs)
        self._pid = pid

    def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: Credentials | None) -> None:
        """Take a packet, if it is of the process."""
        if credentials is not None and credentials.pid == self._pid:
            super().packet_received(data, fds, credentials)
        else:
            close_all(fds)
            self._end_foreign(credentials)

    def descriptors_lost(self, data: bytes, credentials: Credentials | None) -> bool:
        """Take a packet whose descriptors were lost, likewise."""
        if credentials is not None and credentials.pid == self._pid:
            return super().descriptors_lost(data, credentials)
        self._end_foreign(credentials)
        return True

    def _end_foreign(self, credentials: Credentials | None) -> None:
        who = "a process that the kernel does not name" if credentials is None else f"process {credentials.pid}"
        self._end_malformed(RemoteProtocolError(f"a packet of {who} came, where process {self._pid} was expected"))
