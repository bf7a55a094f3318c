"""What the log daemon offers: the interface that the daemon and its apps share.

Nothing to run. ``logdaemon.py`` serves it, ``logtail.py`` calls it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

import seqrpc

DEFAULT_ADDRESS = os.path.join(os.environ.get("XDG_RUNTIME_DIR", "/run"), "logs.sock")


class NoSuchLog(seqrpc.RpcError, code="logs.NoSuchLog"):
    """There is no log file of that name in the directory that is served."""


class NotReadable(seqrpc.RpcError, code="logs.NotReadable"):
    """There is one, but the daemon itself may not read it."""


@dataclass(frozen=True)
class LogFile:
    """A log file, as it was when the list was made."""

    name: str
    """Relative to the directory that is served: ``dpkg.log``, ``apt/history.log``."""
    size: int
    """Bytes."""
    modified: datetime


class Logs:
    """The daemon as its apps see it, for ``connection.proxy(Logs)``."""

    async def list_logs(self, after: str = "") -> list[LogFile]:
        """Return log files in the order of their names; a page of those that come after ``after``.

        An empty page is the end.
        """
        raise NotImplementedError

    async def open_log(self, name: str) -> seqrpc.OwnedFd:
        """Return a log file, open for reading.

        Raises:
            NoSuchLog: there is no log of that name; names that lead elsewhere are of none.
            NotReadable: the daemon may not read it.
        """
        raise NotImplementedError


async def every_log(logs: Logs) -> list[LogFile]:
    """Return the whole list, page by page."""
    found: list[LogFile] = []
    while page := await logs.list_logs(found[-1].name if found else ""):
        found += page
    return found
