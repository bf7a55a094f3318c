"""What this side keeps alive for others: the streams it produces, the objects it gave away."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Exported(Protocol):
    """A stream or an object that others hold."""

    def refuse(self, reason: str) -> None:
        """Take no new calls."""
        ...

    async def wait_idle(self, quiet_timeout: float) -> None:
        """Wait until nothing runs in it, or it has had nothing to say for ``quiet_timeout`` seconds."""
        ...

    def stop(self, reason: str) -> None:
        """End it now."""
        ...

    async def wait_stopped(self) -> None:
        """Wait until it has ended, with everything that ran in it."""
        ...


class Exports:
    """All of one server's, or one client connection's."""

    def __init__(self) -> None:
        """Begin with none."""
        self.living: set[Exported] = set()
        self._refused: str | None = None
        self._stopped: str | None = None

    def add(self, export: Exported) -> None:
        """Keep one more; it is refused or stopped at once if the others were."""
        self.living.add(export)
        if self._stopped is not None:
            export.stop(self._stopped)
        elif self._refused is not None:
            export.refuse(self._refused)

    def refuse(self, reason: str) -> None:
        """Take no new calls on any."""
        self._refused = reason
        for export in list(self.living):
            export.refuse(reason)

    async def wait_idle(self, quiet_timeout: float) -> None:
        """Wait until nothing runs in any, nor in those that are added meanwhile.

        Args:
            quiet_timeout: seconds after which a stream that sends nothing is taken for one that never ends by itself.
        """
        waited: set[Exported] = set()
        while new := self.living - waited:
            waited |= new
            await asyncio.gather(*(export.wait_idle(quiet_timeout) for export in new))

    def stop(self, reason: str) -> None:
        """End all of them now."""
        self._stopped = reason
        for export in list(self.living):
            export.stop(reason)

    async def wait_stopped(self) -> None:
        """Wait until all have ended."""
        await asyncio.gather(*(export.wait_stopped() for export in list(self.living)))
