"""A file for the textfile collector of Prometheus' node exporter, written again and again while a server lives."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Final

from seqrpc.aio.hub import Hub
from seqrpc.aio.server import Server, hub_of
from seqrpc.interface.scope import run_outside
from seqrpc.interface.stats import Stats
from seqrpc.logs import get_logger
from seqrpc.oversight.prometheus import prometheus_text

_log = get_logger("seqrpc.oversight")

_INTERVAL: Final = 15.0
"""Seconds: as often as Prometheus asks by default."""


class MetricsFile:
    """Writes how a server is into a file, as Prometheus reads it: ``seqrpc.run(..., on_start=MetricsFile(path))``.

    In a hook of one's own, or with :func:`seqrpc.serve`, it is ``await MetricsFile(path)(server)``. It writes at once,
    then again after each interval, and removes the file when the server has closed; once a successor serves
    (``restart=True``), the file is that one's, and it does neither. Each time it writes another file
    beside, and renames it, so that no reader sees half of one. A file that cannot be written any more, as on a full
    disk, is a warning in the log, and is tried again.

    Args:
        path: of the file; the collector reads those whose names end with ``.prom``. Everybody may read it.
        interval: seconds from one writing to the next.

    Raises:
        ValueError: the interval is not positive.
    """

    def __init__(self, path: str | os.PathLike[str], interval: float = _INTERVAL) -> None:
        """Remember where; nothing is written yet."""
        if not interval > 0:
            raise ValueError(f"interval= is a positive number of seconds, got {interval!r}")
        self._path = os.path.abspath(path)
        self._interval = interval
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self._pid = os.getpid()

    async def __call__(self, server: Server) -> None:
        """Write the file, and keep it up to date until the server has closed.

        Raises:
            OSError: it cannot be written.
            RuntimeError: it is written for a server already.
        """
        if self._task is not None:
            raise RuntimeError(f"{self._path} is written for a server already: make a MetricsFile for each")
        hub = hub_of(server)
        # Writing may take time: the directory may be anywhere. So it does not happen on the loop.
        await asyncio.to_thread(self._write, hub.stats())
        self._task = run_outside(asyncio.get_running_loop().create_task, self._keep(hub))

    async def _keep(self, hub: Hub) -> None:
        """Write it again and again, until the server has closed."""
        closed = asyncio.ensure_future(hub.wait_closed())
        closed.add_done_callback(lambda closed: closed.cancelled() or closed.exception())  # others are told of that
        try:
            while not (await asyncio.wait([closed], timeout=self._interval))[0]:
                if hub.is_relieved:
                    continue
                try:
                    await asyncio.to_thread(self._write, hub.stats())
                except OSError as exc:
                    _log.warning("! %s cannot be written: %s", self._path, exc)
        finally:
            closed.cancel()
            if not hub.is_relieved:
                self._remove()

    def _write(self, stats: Stats) -> None:
        """Write the file, in any thread.

        Raises:
            OSError: it cannot be.
        """
        other = f"{self._path}.{self._pid}.new"
        with suppress(FileNotFoundError):  # of a process that was killed, and had this number
            os.unlink(other)
        # O_EXCL: never into what somebody else has put there.
        fd = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(prometheus_text(stats))
            os.replace(other, self._path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(other)
            raise
        if self._is_over:  # it was over while this ran
            self._remove()

    def _remove(self) -> None:
        self._is_over = True
        if os.getpid() != self._pid:  # a forked child drops a copy of this, and the file is its parent's
            return
        try:
            os.unlink(self._path)
        except OSError as exc:
            if not isinstance(exc, FileNotFoundError):
                _log.warning("! %s cannot be removed: %s", self._path, exc)
