"""What is said of a method beside its signature, in an interface of plain functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from seqrpc.interface.service import Marks, mark
from seqrpc.text import shown

F = TypeVar("F", bound=Callable[..., Any])


def method(*, oneway: bool = False, idempotent: bool = False) -> Callable[[F], F]:
    """Mark a method of an interface of plain functions, which describes a service to blocking proxies.

    :func:`seqrpc.method` makes a coroutine function of a plain one, which whoever serves it awaits; this one leaves it
    as it is, to type checkers, too. A method that has nothing to be said of needs no mark.

    ::

        class Lamp(Protocol):
            @seqrpc.blocking.method(idempotent=True)
            def is_on(self) -> bool: ...

    Args:
        oneway: proxies send it without waiting for an answer.
        idempotent: running it twice does no more than running it once: a connection that reconnects calls it again if
            the answer was lost with the last one.

    Raises:
        TypeError: it decorates something else than a plain function, or it is one-way and idempotent.
    """
    if oneway and idempotent:
        raise TypeError(
            "@seqrpc.blocking.method: idempotent= is about calls whose answer is lost, and oneway= has no answers:"
            " take one"
        )

    def marked(function: F) -> F:
        if not inspect.isfunction(function) or inspect.iscoroutinefunction(function):
            what = shown(repr(function))
            raise TypeError(
                f"@seqrpc.blocking.method(...) decorates plain functions, got {what}: of coroutine functions"
                " @seqrpc.method(...) says the same"
            )
        mark(function, Marks(None, oneway, idempotent))
        return function

    return marked
