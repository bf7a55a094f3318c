"""What this side keeps alive for others: the streams it produces, the objects it gave away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Coroutine
from typing import Any, Protocol

from seqrpc.interface.scope import run_outside
from seqrpc.interface.tallies import UNSEEN, Tallies


class Held(Protocol):
    """A stream or an object that others hold."""

    def refuse(self, reason: str) -> None:
        """Take no new calls."""
        ...

    async def wait_idle(self, quiet_timeout: float, spared: Container[object] = ()) -> None:
        """Wait until nothing runs in it that is not in ``spared``, or it was quiet for ``quiet_timeout`` seconds."""
        ...

    def stop(self, reason: str) -> None:
        """End it now."""
        ...

    async def wait_stopped(self) -> None:
        """Wait until it has ended, with everything that ran in it."""
        ...


class HeldValues:
    """Everything that others hold of one server, or of one client connection."""

    def __init__(self, tallies: Tallies = UNSEEN) -> None:
        """Begin with none; calls of objects are counted in ``tallies``."""
        self.tallies = tallies
        """Where calls of objects are counted."""
        self.living: set[Held] = set()
        self._gone: asyncio.Future[None] | None = None  # while somebody waits for all to have ended
        self._ending: dict[int, asyncio.Task[None]] = {}
        self._refused: str | None = None
        self._stopped: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nobody holds anything, nor gets it with what is on its way, and nothing is being closed."""
        return not (self.living or self._ending)

    def add(self, held: Held) -> None:
        """Keep one more; it is refused or stopped at once if the others were."""
        self.living.add(held)
        if self._stopped is not None:
            held.stop(self._stopped)
        elif self._refused is not None:
            held.refuse(self._refused)

    def remove(self, held: Held) -> None:
        """Forget one that has ended."""
        self.living.discard(held)
        if not self.living and self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    async def wait_gone(self) -> None:
        """Wait until all have ended by themselves: nobody holds any, and no stream has anything left.

        Cancel: nothing changes.
        """
        while self.living:
            self._gone = asyncio.get_running_loop().create_future()
            await self._gone

    def refuse(self, reason: str) -> None:
        """Take no new calls on any."""
        self._refused = reason
        for held in list(self.living):
            held.refuse(reason)

    async def wait_idle(self, quiet_timeout: float, spared: Container[object] = ()) -> None:
        """Wait until nothing runs in any, nor in those that are added meanwhile.

        Args:
            quiet_timeout: seconds after which a stream that sends nothing is taken for one that never ends by itself.
            spared: streams, and calls on objects, that are not waited for; it may grow meanwhile.
        """
        waited: set[Held] = set()
        while new := self.living - waited:
            waited |= new
            await asyncio.gather(*(held.wait_idle(quiet_timeout, spared) for held in new))

    def stop(self, reason: str) -> None:
        """End all of them now."""
        self._stopped = reason
        for held in list(self.living):
            held.stop(reason)

    def end(self, value: Any, close: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        """Close something that nobody got, in a task of its own that :meth:`wait_stopped` waits for; once at a time."""
        if id(value) not in self._ending:
            self.keep(value, run_outside(asyncio.get_running_loop().create_task, close(value)))

    def keep(self, value: Any, ending: asyncio.Task[None]) -> None:
        """Let :meth:`wait_stopped` wait for a task that closes a value, which it refers to."""
        self._ending[id(value)] = ending
        ending.add_done_callback(lambda _ending: self._ending.pop(id(value), None))  # it keeps the value, and its id

    async def wait_stopped(self) -> None:
        """Wait until all have ended, and what nobody got is closed."""
        await asyncio.gather(*(held.wait_stopped() for held in list(self.living)))
        while self._ending:
            await asyncio.wait(self._ending.values())
