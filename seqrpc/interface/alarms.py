"""Deadlines on an event loop, nearly all of which are never reached: they share one of the loop's timers.

A timer of its own for each call that has a deadline would be set and thrown away three times a call: for the block, the
caller and the handler. Here one is set for the earliest deadline alone, and goes on to the next when it comes; those
that were cancelled meanwhile are only taken out.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

from seqrpc import twin

_EARLY: Final = 0.001
"""Seconds by which a loop may call before the time: uvloop counts milliseconds."""

_LOOK_SECONDS: Final = 0.1
"""Seconds after which a timer looks whether it is still wanted, as long as alarms come and go: one that is set makes
each wait of a loop take longer."""

_MANY: Final = 16
"""Cancelled ones that are kept in any case."""

_AT_ONCE: Final = 16
"""The most that ring in one turn of the loop: thousands may have one time, and what is called then ends a task."""

_AT_MOST: Final = 256
"""The same, with those that say that it cost next to nothing: what they end has a turn of its own."""

_NEVER: Final = float("inf")


class Timer(Protocol):
    """A timer of a loop."""

    def cancel(self) -> None:
        """Do not call."""
        ...


class Loop(Protocol):
    """What is asked of an event loop."""

    def time(self) -> float:
        """Return the loop's own time in seconds."""
        ...

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Timer:
        """Call back at a time."""
        ...


class PureAlarm:
    """Something to be called at a time, unless it is cancelled.

    Args:
        alarms: what it is one of.
        call: is called.
        argument: is what it is called with.
    """

    __slots__ = ("_alarms", "_argument", "_call")

    def __init__(self, alarms: PureAlarms, call: Callable[[Any], object], argument: Any) -> None:
        """Wait."""
        self._alarms = alarms
        self._call: Callable[[Any], object] | None = call
        self._argument = argument

    def cancel(self) -> bool:
        """Do not call, and let go of what was to be called; return False if it was called, or cancelled, before."""
        if self._call is None:
            return False
        self._call = self._argument = None
        self._alarms.lost_one()
        return True

    @property
    def is_set(self) -> bool:
        """Whether it is still to be called."""
        return self._call is not None

    def ring(self) -> object:
        """Call, once, and return what that returns."""
        call, argument = self._call, self._argument
        self._call = self._argument = None
        return None if call is None else call(argument)


class PureAlarms:
    """The alarms of one event loop, to be used in its thread.

    Args:
        loop: the loop.
    """

    __slots__ = ("__weakref__", "_cancelled", "_changes", "_heap", "_numbers", "_timer", "_when", "loop")

    def __init__(self, loop: Loop) -> None:
        """Begin with none."""
        self.loop = loop
        """The loop."""
        self._heap: list[tuple[float, int, PureAlarm]] = []
        self._numbers = itertools.count()
        self._cancelled = 0  # how many of them are
        self._changes = True  # whether any was cancelled since the timer called last, or was set
        self._timer: Timer | None = None
        self._when = _NEVER  # when it calls

    def set(self, seconds: float, call: Callable[[Any], object], argument: Any) -> PureAlarm:
        """Have ``call(argument)`` called by the loop after so many seconds; not before the next turn of it.

        It is called in an empty context: a timer serves many callers, and is not to keep what is one's own. It returns
        True to say that more may ring in the same turn, for it took no time, and leaves no work for the next one.
        """
        now = self.loop.time()
        when = now + seconds
        if when < self._when:
            self._wind(min(when, now + _LOOK_SECONDS))
        alarm = PureAlarm(self, call, argument)
        heappush(self._heap, (when, next(self._numbers), alarm))
        return alarm

    def __len__(self) -> int:
        """Return how many there are, with those that were cancelled and not forgotten yet."""
        return len(self._heap)

    def lost_one(self) -> None:
        """Hear that an alarm was cancelled; forget those that were, once they are most of all."""
        self._cancelled += 1
        self._changes = True
        if self._cancelled > _MANY and 2 * self._cancelled > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].is_set]
            heapify(self._heap)
            self._cancelled = 0

    def _wind(self, when: float) -> None:
        """Have the loop call at this time, and at no other."""
        timer, self._timer, self._when = self._timer, None, _NEVER
        if timer is not None:
            timer.cancel()
        self._timer, self._when = self.loop.call_at(when, self.ring, context=Context()), when

    def ring(self) -> None:
        """Call some of what is due, and have the loop call again for the rest: in its next turn if more is due."""
        self._timer, self._when = None, _NEVER
        left, most = _AT_ONCE, _AT_MOST
        try:
            due = self.loop.time() + _EARLY
            while left and most and self._heap and (self._heap[0][0] <= due or not self._heap[0][2].is_set):
                alarm = heappop(self._heap)[2]
                if alarm.is_set:
                    most -= 1
                    left -= alarm.ring() is not True
                else:
                    self._cancelled -= 1
        finally:
            changes, self._changes = self._changes, False
            if self._heap:
                first = self._heap[0][0]
                when = min(first, self.loop.time() + _LOOK_SECONDS) if changes else first
                if when < self._when:
                    self._wind(when)


class Alarm(Protocol):
    """An alarm of either twin."""

    def cancel(self) -> bool:
        """Do not call; return False if it was called, or cancelled, before."""
        ...

    @property
    def is_set(self) -> bool:
        """Whether it is still to be called."""
        ...


class Alarms(Protocol):
    """The alarms of a loop, of either twin: :class:`PureAlarms`."""

    @property
    def loop(self) -> Any:
        """The loop."""
        ...

    def set(self, seconds: float, call: Callable[[Any], object], argument: Any, /) -> Alarm:
        """Have ``call(argument)`` called by the loop after so many seconds."""
        ...

    def ring(self) -> None:
        """Call what is due."""
        ...

    def __len__(self) -> int:
        """Return how many there are."""
        ...


def _new_alarms(loop: Loop) -> Alarms:
    alarms: Alarms = PureAlarms(loop) if twin.native is None else twin.native.Alarms(loop)
    return alarms


# Connections hold those of their loop, and so do alarms; where nobody has any, none are kept.
_by_loop: WeakValueDictionary[int, Alarms] = WeakValueDictionary()


def _none_yet() -> None:
    """Be in place of a reference."""


_last: Callable[[], Alarms | None] = _none_yet  # those that were asked for last, in whichever thread


def alarms_of(loop: Loop) -> Alarms:
    """Return the alarms of an event loop: all get the same, as long as somebody holds them."""
    global _last  # noqa: PLW0603 - a dictionary's methods take longer than all the rest
    alarms = _last()
    if alarms is None or alarms.loop is not loop:
        alarms = _by_loop.get(id(loop))
        if alarms is None:
            alarms = _by_loop[id(loop)] = _new_alarms(loop)
        _last = weakref.ref(alarms)
    return alarms
