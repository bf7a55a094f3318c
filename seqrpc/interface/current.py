"""The call that a handler answers, with an event loop or without: as the handler sees it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from seqrpc.interface.scope import Scope, scope
from seqrpc.kernel.credentials import Credentials
from seqrpc.protocol.messages import Request


class AnsweredCall(Scope, kw_only=True, eq=False):
    """A request, and the handler that runs, or is about to run, for it. It surrounds calls that the handler makes."""

    request: Request
    caller: Credentials
    connection: Any
    """The connection that it came on, as users see it."""

    entry: Any
    """The method (:class:`~seqrpc.interface.entries.Entry`)."""

    view: weakref.ref[HandledView] | None = None
    """The call as its handler sees it, made when it looks; not held, for it holds the call."""

    def new_view(self) -> HandledView:
        """Return the call as its handler sees it, made anew."""
        return HandledView(self)

    def __repr__(self) -> str:
        """Return which method is called, and by whom, and nothing of its arguments: event loops log what they run."""
        return f"<call of {self.request.method} caller={self.caller}>"


class HandledView:
    """The call that a handler answers, as :func:`current_call` tells: what the two kinds have in common."""

    __slots__ = ("__weakref__", "_call")

    def __init__(self, call: AnsweredCall) -> None:
        """Wrap a call."""
        self._call: Any = call

    @property
    def method(self) -> str:
        """Its name on the wire, ``Service.method``."""
        name: str = self._call.request.method
        return name

    @property
    def caller(self) -> Credentials:
        """Who calls, by the kernel's word: whoever made the connection, or on a socket pair the packet's sender."""
        caller: Credentials = self._call.caller
        return caller

    @property
    def meta(self) -> Mapping[str, str]:
        """What the caller sent along with :func:`seqrpc.metadata`."""
        return self._call.request.options.meta or {}

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, in seconds of ``time.monotonic()``, or None."""
        nanoseconds = self._call.request.options.deadline
        return None if nanoseconds is None else nanoseconds / 1e9

    def __repr__(self) -> str:
        """Return which method is called, and by whom."""
        return f"<CurrentCall {self.method} caller={self.caller}>"


def answered_call() -> AnsweredCall | None:
    """Return the call that the running handler answers, also in a plain function's thread; None outside of any."""
    here: Scope | None = scope.get()
    while here is not None:
        if isinstance(here, AnsweredCall):
            return here
        here = here.outer
    return None


def current_call() -> Any:
    """Return the call that the running handler answers, also in a plain function's thread.

    Raises:
        LookupError: no handler is running here.
    """
    call = answered_call()
    if call is None:
        raise LookupError(
            "current_call() works inside a handler only: take there what is needed elsewhere, and pass it on"
        )
    return view_of(call)


def view_of(call: AnsweredCall) -> Any:
    """Return a call as its handler sees it."""
    view = None if call.view is None else call.view()
    if view is None:
        view = call.new_view()
        call.view = weakref.ref(view)
    return view
