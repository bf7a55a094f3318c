"""What goes on for a connection, and for what came of it, while any thread waits for something of these."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol

from seqrpc.blocking.waiting import Bell, Pump
from seqrpc.kernel import forks


class Watching(Protocol):
    """What watches all that goes on."""

    def update(self) -> None:
        """Watch what goes on now; from any thread."""
        ...


class Family:
    """A connection, the channels and streams that came over it, and the objects that left over it.

    A thread that waits for one of them serves the objects, and goes on with the streams, of all: the other side may
    need them before it answers.
    """

    __slots__ = ("__weakref__", "_bells", "alive", "errands", "pumps", "watches")

    def __init__(self) -> None:
        """Begin with nothing that goes on."""
        self.pumps: OrderedDict[Pump, None] = OrderedDict()
        """What goes on, those first that had their turn the longest time ago; to be looked at."""
        self.alive = 0
        """How many streams and objects of this side others have, or are about to get."""
        self.errands: deque[Callable[[], object]] = deque()
        """What is to be done by the next thread that holds no lock: code of the application's runs in it."""
        self._bells = weakref.WeakSet[Bell]()  # those that a signal handler keeps from being taken out go by themselves
        self.watches: weakref.WeakSet[Watching] = weakref.WeakSet()
        """What watches for the loops of GUI programs, which no bell wakes."""
        forks.register(self, Family._let_go_in_child)

    def _let_go_in_child(self) -> None:
        """Have nothing go on: this is a copy in a forked child, and all of it is the parent's."""
        self.pumps.clear()
        self.errands.clear()
        self._bells.clear()

    def add(self, pump: Pump) -> None:
        """Let one more thing go on."""
        self.pumps[pump] = None
        self.ring()
        self.tell_watches()

    def ring(self) -> None:
        """Let the threads look again that poll."""
        for bell in list(self._bells):
            bell.ring()

    def tell_watches(self) -> None:
        """Let those look again that watch: something waits that did not."""
        for watch in list(self.watches):
            watch.update()

    def discard(self, pump: Pump) -> None:
        """Let something go on no more."""
        self.pumps.pop(pump, None)

    def turn(self, pump: Pump) -> None:
        """Do what can be done of one thing; then the others have their turns."""
        with contextlib.suppress(KeyError):  # it has ended
            self.pumps.move_to_end(pump)  # in one step: one that a signal handler found taken out would be lost
        pump.work()

    def abandon(self) -> None:
        """End what goes on, without waiting: nobody refers to the connection any more."""
        for pump in list(self.pumps):
            pump.abandon()
        self.run_errands()

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
