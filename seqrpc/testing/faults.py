"""What a test has told a faulty pair to do, and to which packet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from seqrpc.text import shown

_PATIENCE: Final = 30.0
"""Seconds after which a fault that should have happened has not: only a mistaken test waits that long."""


class Packet(msgspec.Struct, frozen=True):
    """A packet that is looked at."""

    number: int
    """Which one it is on its way, counted from 1; of a packet that is being sent, of the attempts to send."""

    data: bytes
    """Its bytes. A request has the name of its method in them, if it is not too long for a packet."""

    descriptors: int
    """How many came with it; where it is looked at before it is received, 1 stands for some."""


Which = int | str | Callable[[Packet], bool] | None
"""Which packet a fault happens to: None is the next, a number the n-th from now on, a text the next with that in it, a
function the next for which it returns True."""


class Holder(Protocol):
    """Where faults happen."""

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop: now, if this is its thread."""
        ...

    def let_go(self, rule: Rule) -> None:
        """Go on, unless something else holds what comes."""
        ...


class Rule:
    """What happens to which packets.

    Args:
        where: the direction that it is for.
        which: the packets.
        times: to how many of them; None is to all.
        action: does it, and returns whether the packet goes on.
        needs_descriptors: whether it passes over packets without descriptors.
    """

    def __init__(
        self,
        where: Holder,
        which: Which,
        times: int | None,
        action: Callable[[], bool] = lambda: True,
        *,
        needs_descriptors: bool = False,
    ) -> None:
        """Wait for the packet."""
        self.where = where
        self._matches, self._skipped = _matcher(which)
        self._needs_descriptors = needs_descriptors
        self._left = times
        self.act = action
        """Does it, and returns whether the packet goes on."""
        self.news = asyncio.Event()
        """Set each time it happens."""
        self.count = 0
        """How often it has happened."""

    def takes(self, packet: Packet) -> bool:
        """Return whether it happens to a packet, and count it."""
        if self._left == 0 or (self._needs_descriptors and not packet.descriptors) or not self._matches(packet):
            return False
        if self._skipped:
            self._skipped -= 1
            return False
        if self._left is not None:
            self._left -= 1
        self.happens()
        return True

    def passes_over(self, packet: Packet) -> None:
        """Count a packet to which something else has happened."""
        if self._skipped and (packet.descriptors or not self._needs_descriptors) and self._matches(packet):
            self._skipped -= 1

    def happens(self) -> None:
        """Tell those who wait."""
        self.count += 1
        self.where.soon(self.news.set)

    def stop(self) -> None:
        """Let it happen no more."""
        self._left = 0


def first_due(rules: Iterable[Rule], packet: Packet) -> Rule | None:
    """Return what happens to a packet, the first of several; the others count the packet, too."""
    taken: Rule | None = None
    for rule in rules:
        if taken is not None:
            rule.passes_over(packet)
        elif rule.takes(packet):
            taken = rule
    return taken


class Fault:
    """Something that a test has told a :class:`~seqrpc.testing.Way` to do, and that happens, or will."""

    def __init__(self, rule: Rule) -> None:
        """Wrap a rule."""
        self._rule = rule

    @property
    def count(self) -> int:
        """How often it has happened."""
        return self._rule.count

    async def happened(self, times: int = 1) -> None:
        """Wait until it has happened so often.

        Raises:
            TimeoutError: it has not within half a minute.
        """
        rule = self._rule
        try:
            async with asyncio.timeout(_PATIENCE):
                while rule.count < times:
                    rule.news.clear()
                    await rule.news.wait()
        except TimeoutError:
            raise TimeoutError(f"the fault happened {rule.count} times, and not {times}") from None

    def stop(self) -> None:
        """Let it happen no more."""
        self._rule.stop()

    def release(self) -> None:
        """Let go of what ``hold`` or ``stop_reading`` holds, for good."""
        self._rule.stop()
        self._rule.where.let_go(self._rule)

    def __repr__(self) -> str:
        """Return how often it has happened."""
        return f"<Fault that happened {self.count} times>"


def _matcher(which: Which) -> tuple[Callable[[Packet], bool], int]:
    """Return what a packet has to be, and how many such are passed over."""
    if which is None:
        return lambda _packet: True, 0
    if isinstance(which, str):
        wanted = which.encode()
        return lambda packet: wanted in packet.data, 0
    if callable(which):
        return which, 0
    if type(which) is not int or which < 1:
        raise ValueError(f"a packet is told by its number from 1 on, a text or a function, got {shown(repr(which))}")
    return lambda _packet: True, which - 1
