"""Where calls wait for a connection that is being made anew: for how long, in what order, and what they are told."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol

from seqrpc.aio.caller import Caller
from seqrpc.aio.turns import Turns
from seqrpc.calls.outcomes import closed_here, no_connection_in_time, too_many_wait
from seqrpc.errors import SeqrpcError, not_run
from seqrpc.interface.reconnecting import Reconnect, told_anew
from seqrpc.limits import LONGEST_TIMER, Limits


class House(Protocol):
    """What makes the connection."""

    loop: asyncio.AbstractEventLoop
    caller: Caller | None
    """Makes the calls of the present connection; None while there is none that takes them."""

    trouble: SeqrpcError
    """Why there is none."""

    is_over: bool
    """Whether there will be none any more."""


class Lobby:
    """A line of calls. Once there is a connection, one after the other goes.

    Args:
        house: makes the connection; it lets the first go by ``turns.next()``, and tells all by ``turns.fail()``.
        policy: for how long they wait, and whether at all.
        limits: with ``max_calls_in_flight`` in line, further ones wait for ``stall_timeout`` at most.
    """

    __slots__ = ("_house", "_limits", "_policy", "turns")

    def __init__(self, house: House, policy: Reconnect, limits: Limits) -> None:
        """Begin with nobody in line."""
        self._house = house
        self._policy = policy
        self._limits = limits
        self.turns = Turns(house.loop, lambda _going: house.caller is not None)
        """The line."""

    def patience_from_now(self) -> float:
        """Return when a call that begins to wait now has waited for too long, by the loop's time."""
        return self._house.loop.time() + self._policy.patience if self._policy.wait_for_ready else math.inf

    async def ready(
        self, until: float = math.inf, deadline: int | None = None, *, waits: bool = True, is_call: bool = True
    ) -> Caller:
        """Return what makes calls over a connection, as soon as there is one.

        Args:
            until: when the call has waited for too long, by the loop's time.
            deadline: ``CLOCK_MONOTONIC`` in nanoseconds at which to give up, or None.
            waits: whether to wait at all.
            is_call: whether somebody waits to make a call: of those only so many may.

        Raises:
            SeqrpcError: why there is none. The call did not run.

        Cancel: its turn goes to the next.
        """
        house = self._house
        if house.caller is not None and not self.turns.waiting:
            return house.caller
        while True:
            if house.is_over:
                raise not_run(closed_here("async with"))
            if not waits and house.caller is None:
                raise told_anew(house.trouble)
            await self._wait_turn(until, deadline, self.turns.waiting if is_call else 0)
            if house.caller is not None:
                return house.caller

    async def _wait_turn(self, until: float, deadline: int | None, crowd: int) -> None:
        is_crowded = crowd >= self._limits.max_calls_in_flight
        patience = until - self._house.loop.time()
        if is_crowded:
            patience = min(patience, self._limits.stall_timeout)
        time_left = math.inf if deadline is None else (deadline - time.monotonic_ns()) / 1e9
        bound = min(patience, time_left)
        try:
            async with asyncio.timeout(None if bound > LONGEST_TIMER else max(bound, 0.0)):
                await self.turns.wait()
        except SeqrpcError as exc:  # all who wait are told the same
            raise told_anew(exc) from None
        except TimeoutError:
            trouble = self._house.trouble
            if time_left <= patience:
                raise no_connection_in_time(trouble) from None
            if is_crowded:
                raise too_many_wait(crowd, self._limits.stall_timeout) from None
            raise told_anew(trouble, self._policy.patience) from None
