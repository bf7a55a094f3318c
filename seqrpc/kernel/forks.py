"""What a forked child does not inherit.

A child made by fork(2) has a copy of every descriptor and of every object. Its copy of a connection would mix its
packets with the parent's, and its copies of sockets and locks would hold them after the parent's death: peers
would see no end, and the next daemon would find the lock taken. What is registered here lets go of its
descriptors in the child, before anything else runs there, and is of no use in it. Closing a copy does nothing to the
parent's; nothing here shuts down, unlocks or unlinks, nor does it touch an event loop, whose epoll(7) instance the
two processes share.

Children that run another program (subprocess) need none of this: all descriptors are close-on-exec.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

generation = 0
"""How many forks lie between the first of the processes and this one: another number was another process's."""

_process = os.getpid()

_registered: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def register(thing: T, let_go: Callable[[T], None]) -> None:
    """Have ``let_go(thing)`` called in forked children, as long as anything refers to ``thing``; it takes half a µs.

    Args:
        thing: what must not live on in a forked child.
        let_go: closes its descriptors, and makes it of no use any more; it may have been called for another object that
            shares them. A function of the class, for what is bound to ``thing`` would keep it.
    """
    _registered[thing] = let_go


def was_missed() -> bool:
    """Return whether this is a forked child of which Python does not know, as a library makes one: all are copies."""
    return os.getpid() != _process


def _after_in_child() -> None:
    """Tell all, also when one fails; Python prints what is raised here, and goes on."""
    global generation, _process  # noqa: PLW0603 - there is one process
    generation += 1
    _process = os.getpid()
    inherited = list(_registered.items())
    _registered.clear()  # what is made from here on is this process's own
    failure: Exception | None = None
    for thing, let_go in inherited:
        try:
            let_go(thing)
        except Exception as exc:
            failure = failure or exc
    if failure is not None:
        raise failure


os.register_at_fork(after_in_child=_after_in_child)
