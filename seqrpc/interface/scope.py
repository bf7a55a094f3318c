"""What surrounds a call: until when, and with what metadata, for those who call with a loop and without."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextlib import ContextDecorator
from contextvars import Context, ContextVar, Token, copy_context
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec

T = TypeVar("T")

_FOREVER = 1e9  # seconds, 31 years; no bound, for the wire's 64 bits hold only 19 times as much


class Scope(msgspec.Struct, eq=False):
    """What calls that are made here take along. A handler's is its :class:`~seqrpc.CurrentCall`."""

    deadline_ns: int | None = None
    outgoing_meta: dict[str, str] | None = None
    outer: Scope | None = None


EVERYWHERE = Scope()
"""The scope outside of any."""

scope: ContextVar[Scope] = ContextVar("seqrpc.scope", default=EVERYWHERE)


def outside() -> Context:
    """Return a copy of the current context that is outside of any scope."""
    context = copy_context()
    context.run(scope.set, EVERYWHERE)
    return context


def run_in(context: Context, function: Callable[..., T], *args: Any) -> T:
    """Call a function in a copy of a context, which may be in use: a finalizer runs wherever memory is asked for."""
    return context.copy().run(function, *args)


def run_outside(function: Callable[..., T], *args: Any) -> T:
    """Call a function outside of any scope: what it leaves on the loop is not to keep the call that is running now."""
    return outside().run(function, *args)


@contextlib.contextmanager
def within(deadline: int | None, meta: dict[str, str] | None) -> Generator[None, None, None]:
    """Surround interceptors with what was said around the call: it may have been made there and be awaited here."""
    token = scope.set(Scope(deadline, meta, scope.get()))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the call is thrown away by somebody else
            scope.reset(token)


def bounded(outer: Scope, delay: float | None, now: int) -> Scope:
    """Return the scope of a block that has a time-out.

    Args:
        outer: what surrounds the block. Its deadline holds if it is earlier.
        delay: seconds that the block may take; None, and more than anybody waits, are no bound.
        now: the time, in nanoseconds of the monotonic clock.

    Raises:
        ValueError: the delay is no number (NaN).
    """
    deadline_ns = outer.deadline_ns
    if delay is not None and not delay >= _FOREVER:
        own = now + int(delay * 1e9)
        deadline_ns = own if deadline_ns is None else min(own, deadline_ns)
    return Scope(deadline_ns, outer.outgoing_meta, outer)


class _Metadata(ContextDecorator):
    """What ``with seqrpc.metadata(...)`` enters, or decorates with."""

    def __init__(self, entries: dict[str, str]) -> None:
        self._entries = entries
        self._tokens: list[Token[Scope]] = []

    def __enter__(self) -> None:
        outer = scope.get()
        meta = {**(outer.outgoing_meta or {}), **self._entries}
        self._tokens.append(scope.set(Scope(outer.deadline_ns, meta, outer)))

    def __exit__(self, *_exc: object) -> None:
        scope.reset(self._tokens.pop())

    def _recreate_cm(self) -> _Metadata:  # what is decorated may run several times at once
        return _Metadata(self._entries)

    if not TYPE_CHECKING:

        def __aenter__(self) -> NoReturn:
            raise TypeError("seqrpc.metadata(...) is entered by 'with', not by 'async with'")

        def __aexit__(self, *_exc: object) -> None:
            """Be there, for Python looks for it first."""


def metadata(**entries: str) -> _Metadata:
    """Send ``entries`` along with the calls made inside, for the other side's ``current_call().meta``.

    They add to those of an outer block. A handler's own calls do not take its caller's along.

    Raises:
        TypeError: a value is no string.
    """
    for key, value in entries.items():
        if not isinstance(value, str):
            raise TypeError(f"metadata are strings, got {value!r} for {key!r}")
    return _Metadata(entries)
