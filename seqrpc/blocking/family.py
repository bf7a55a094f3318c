"""What goes on for a connection, and for what came of it, while any thread waits for something of these."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from seqrpc.blocking.waiting import Bell, Pump
from seqrpc.kernel import forks


class Watching(Protocol):
    """What watches all that goes on."""

    def update(self) -> None:
        """Watch what goes on now; from any thread."""
        ...


T = TypeVar("T")


class Known(Generic[T]):
    """Things that are told of something as long as anybody else refers to them.

    Each step is one for Python's threads, which a WeakSet's are not: it may be walked in one while another adds.
    """

    __slots__ = ("_refs",)

    def __init__(self) -> None:
        """Know nothing."""
        self._refs: dict[int, weakref.ref[T]] = {}

    def add(self, thing: T) -> None:
        """Know one more."""
        self._refs[id(thing)] = weakref.ref(thing)

    def discard(self, thing: T) -> None:
        """Forget one."""
        self._refs.pop(id(thing), None)

    def clear(self) -> None:
        """Forget all."""
        self._refs.clear()

    def __iter__(self) -> Iterator[T]:
        """Return those that are left; those that are gone are forgotten."""
        left = []
        for key, ref in list(self._refs.items()):
            thing = ref()
            if thing is not None:
                left.append(thing)
            elif self._refs.get(key) is ref:
                self._refs.pop(key, None)
        return iter(left)

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return any(True for _ in self)


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
        self._bells = Known[Bell]()  # those that a signal handler keeps from being taken out go by themselves
        self.watches = Known[Watching]()
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
        self.look_again()

    def look_again(self) -> None:
        """Let all look again what goes on, threads that poll and what watches."""
        self.ring()
        self.tell_watches()

    def ring(self) -> None:
        """Let the threads look again that poll."""
        for bell in self._bells:
            bell.ring()

    def tell_watches(self) -> None:
        """Let those look again that watch: something waits that did not."""
        for watch in self.watches:
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
