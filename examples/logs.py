"""The interface of the log daemon, which the daemon and its apps share.

Nothing to run. ``logdaemon.py`` serves it, ``logtail.py`` calls it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

import seqrpc

DEFAULT_ADDRESS = os.path.join(os.environ.get("XDG_RUNTIME_DIR", "/run"), "logs.sock")


class NoSuchLog(seqrpc.RpcError, code="logs.NoSuchLog"):
    """There is no log file of that name in the served directory."""


class NotReadable(seqrpc.RpcError, code="logs.NotReadable"):
    """There is such a log file, but the daemon itself may not read it."""


@dataclass(frozen=True)
class LogFile:
    """A log file, as it was when the list was made."""

    name: str
    """Relative to the served directory: ``dpkg.log``, ``apt/history.log``."""
    size: int
    """Bytes."""
    modified: datetime


class Logs:
    """The daemon as its apps see it, for ``connection.proxy(Logs)``."""

    async def list_logs(self, after: str = "") -> list[LogFile]:
        """Return a page of the log files whose names come after ``after``, in the order of their names.

        An empty page is the end.
        """
        raise NotImplementedError

    @seqrpc.method(errors=[NoSuchLog, NotReadable])
    async def open_log(self, name: str) -> seqrpc.OwnedFd:
        """Return a log file, open for reading.

        Raises:
            NoSuchLog: there is no log of that name; a name that leads out of the directory names none.
            NotReadable: the daemon may not read it.
        """
        raise NotImplementedError

    @seqrpc.method(errors=[NoSuchLog, NotReadable])
    def follow(self, name: str, start: int | None = None) -> AsyncIterator[str]:
        """Stream the lines that are appended to a log file, without their ends. It goes on until somebody ends it.

        If the log is cut short, the daemon reads it from its beginning. If another file takes the name, as in
        rotation, the daemon reads the rest of the old file and then all of the new one.

        Args:
            name: the log.
            start: the byte to begin with; by default the present end.

        Raises:
            NoSuchLog, NotReadable: as :meth:`open_log`, instead of the first line.
        """
        raise NotImplementedError


async def every_log(logs: Logs) -> list[LogFile]:
    """Return the whole list, page by page."""
    found: list[LogFile] = []
    while page := await logs.list_logs(found[-1].name if found else ""):
        found += page
    return found
