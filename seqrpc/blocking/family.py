"""What goes on for a connection, and for what came of it, while any thread waits for something of these."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable

from seqrpc.blocking.waiting import Bell, Pump


class Family:
    """A connection, the channels and streams that came over it, and the objects that left over it.

    A thread that waits for one of them serves the objects, and goes on with the streams, of all: the other side may
    need them before it answers.
    """

    __slots__ = ("_bells", "alive", "errands", "pumps")

    def __init__(self) -> None:
        """Begin with nothing that goes on."""
        self.pumps: OrderedDict[Pump, None] = OrderedDict()
        """What goes on, those first that had their turn the longest time ago; to be looked at."""
        self.alive = 0
        """How many streams and objects of this side others have, or are about to get."""
        self.errands: deque[Callable[[], object]] = deque()
        """What is to be done by the next thread that holds no lock: code of the application's runs in it."""
        self._bells = weakref.WeakSet[Bell]()  # those that a signal handler keeps from being taken out go by themselves

    def add(self, pump: Pump) -> None:
        """Let one more thing go on."""
        self.pumps[pump] = None
        for bell in list(self._bells):
            bell.ring()

    def discard(self, pump: Pump) -> None:
        """Let something go on no more."""
        self.pumps.pop(pump, None)

    def turn(self, pump: Pump) -> None:
        """Do what can be done of one thing; then the others have their turns."""
        with contextlib.suppress(KeyError):  # it has ended
            self.pumps.move_to_end(pump)  # in one step: one that a signal handler found taken out would be lost
        pump.work()

    def run_errands(self) -> None:
        """Do what is to be done."""
        while self.errands:
            try:
                errand = self.errands.popleft()
            except IndexError:  # another thread has taken it
                return
            errand()

    def listen(self, bell: Bell) -> None:
        """Ring a bell when something is added: a thread polls without it."""
        self._bells.add(bell)

    def leave(self, bell: Bell) -> None:
        """Ring it no more."""
        self._bells.discard(bell)


def is_alone() -> bool:
    """Return whether no other thread of Python's can come meanwhile."""
    return threading.active_count() == 1
