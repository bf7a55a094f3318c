"""The services behind one address, and what their connections share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable
from typing import Protocol

from seqrpc.interface.entries import MethodTable
from seqrpc.interface.policy import PolicyLike
from seqrpc.interface.service import Service
from seqrpc.interface.tallies import UNSEEN, Tallies
from seqrpc.limits import DEFAULT_LIMITS, Limits


class Lingering(Protocol):
    """The handlers of a connection that ended, which run on."""

    @property
    def account(self) -> object:
        """Of whose user they are."""
        ...

    @property
    def number(self) -> int:
        """How many there are."""
        ...

    def stop_oneway(self) -> None:
        """Cancel them."""
        ...

    async def wait_idle(self, spared: Container[object]) -> None:
        """Wait until only those in ``spared`` run."""
        ...


class Registry(MethodTable):
    """The services behind one address, and what they share.

    Args:
        services: objects of :class:`~seqrpc.Service`; no two with the same name.
        allow: who may call where neither class nor method says; by default :data:`seqrpc.policy.default`.
        limits: ``max_calls_in_flight`` and ``close_timeout`` are used.
        tallies: where calls are counted.

    Raises:
        TypeError: one is no service, or a method cannot be called from elsewhere.
        ValueError: two have the same name.
    """

    def __init__(
        self,
        services: Iterable[Service],
        allow: PolicyLike | None = None,
        limits: Limits = DEFAULT_LIMITS,
        tallies: Tallies = UNSEEN,
    ) -> None:
        """Describe the services."""
        super().__init__(services, allow, tallies)
        self.limits = limits
        self._lingering: set[Lingering] = set()
        self._stopping: set[Lingering] = set()
        self._when_quiet: list[Callable[[], object]] = []

    def has_room_to_linger(self, number: int, account: object) -> bool:
        """Return whether so many calls more of a user may run on: a peer that reconnects leaves no more behind."""
        running = sum(calls.number for calls in self._lingering if calls.account is account)
        return running + number <= self.limits.max_calls_in_flight

    def linger(self, calls: Lingering, ended: asyncio.Future[None]) -> None:
        """Know of calls that run on although their connection ended, until ``ended`` is done."""
        self._lingering.add(calls)
        ended.add_done_callback(lambda _ended: self._left(calls))

    def _left(self, calls: Lingering) -> None:
        self._lingering.discard(calls)
        if not self._lingering:
            waiting, self._when_quiet = self._when_quiet, []
            for function in waiting:
                function()

    def end_soon(self, calls: Lingering, ended: asyncio.Future[None]) -> None:
        """Know of calls that were cancelled, all of them, as their connection ended, until ``ended`` is done."""
        self._stopping.add(calls)
        ended.add_done_callback(lambda _ended: self._stopping.discard(calls))

    @property
    def left_running(self) -> int:
        """How many calls run whose connections ended, those included that were cancelled then."""
        return sum(calls.number for calls in self._lingering | self._stopping)

    def when_quiet(self, function: Callable[[], object]) -> None:
        """Call a function once no calls run on whose connections ended, which may be now."""
        if self._lingering:
            self._when_quiet.append(function)
        else:
            function()

    async def wait_quiet(self, spared: Container[object] = ()) -> None:
        """Wait until no calls but those in ``spared`` run on whose connections ended."""
        waited: set[Lingering] = set()
        while new := self._lingering - waited:
            waited |= new
            for calls in new:
                await calls.wait_idle(spared)

    async def wait_ended(self, spared: Container[object] = ()) -> None:
        """Wait until no calls but those in ``spared`` run whose connections ended, nor any that were cancelled then."""
        await self.wait_quiet(spared)
        for calls in list(self._stopping):
            await calls.wait_idle(spared)

    def stop_lingering(self) -> None:
        """Cancel the calls that run on although their connections ended."""
        for calls in self._lingering:
            calls.stop_oneway()
