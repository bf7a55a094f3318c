"""What a forked child does not inherit.

A child made by fork(2) has a copy of every descriptor and of every object. Its copy of a connection would mix its
packets with the parent's, and its copies of sockets and locks would hold them after the parent's death: peers
would see no end, and the next daemon would find the lock taken. So objects registered here let go of their
descriptors in the child, before anything else runs there, and are of no use in it. Closing a copy does nothing to the
parent's descriptor. Nothing here shuts down, unlocks or unlinks, and nothing touches an event loop, whose epoll(7)
instance the two processes share.

Children that run another program (subprocess) need none of this: all descriptors are close-on-exec.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from seqrpc.errors import WrongProcess

T = TypeVar("T")

generation = 0
"""How many forks lie between the first process and this one: an object with another number is another process's."""

_process = os.getpid()

_registered: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def register(thing: T, let_go: Callable[[T], None]) -> None:
    """Let forked children call ``let_go(thing)``, as long as anything refers to ``thing``. This takes half a µs.

    Args:
        thing: an object that must not live on in a forked child.
        let_go: closes the object's descriptors, and makes it useless; another object that shares the descriptors may
            have closed them already. A function of the class, because a bound method would keep ``thing`` alive.
    """
    _registered[thing] = let_go


def was_missed() -> bool:
    """Return whether this is a forked child that Python did not notice (a library made it), so that all are copies."""
    return os.getpid() != _process


def wrong_process(what: str) -> WrongProcess:
    """Return what to raise where something is used in a fork of the process that made it."""
    return WrongProcess(
        f"{what} belongs to the process that made it, and this is a fork of that one: connect again here,"
        " or start child processes before connecting, or by multiprocessing's method 'spawn'"
    )


def _after_in_child() -> None:
    """Tell all objects, even if one of them fails; Python prints what is raised here, and goes on."""
    global generation, _process  # noqa: PLW0603 - there is one process
    generation += 1
    _process = os.getpid()
    inherited = list(_registered.items())
    _registered.clear()  # what registers from now on is this process's own
    failure: Exception | None = None
    for thing, let_go in inherited:
        try:
            let_go(thing)
        except Exception as exc:
            failure = failure or exc
    if failure is not None:
        raise failure


os.register_at_fork(after_in_child=_after_in_child)
