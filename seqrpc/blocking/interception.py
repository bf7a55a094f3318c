"""Calls of a blocking connection with interceptors around them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

from seqrpc.blocking.caller import Caller
from seqrpc.blocking.interceptors import Interception, Interceptor
from seqrpc.blocking.line import Line
from seqrpc.calls.records import OutgoingCall
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.scope import Scope, scope
from seqrpc.protocol.messages import Params


def caller_of(line: Line, interception: Interception) -> Caller:
    """Return what makes the calls of one line."""
    if interception.calling:
        return InterceptedCaller(line, interception.calling)
    return Caller(line)


class InterceptedCaller(Caller):
    """Makes calls with interceptors around them.

    Args:
        line: the connection.
        interceptors: the first is outermost.
    """

    __slots__ = ("_interceptors",)

    def __init__(self, line: Line, interceptors: tuple[Interceptor, ...]) -> None:
        """Begin with no call."""
        super().__init__(line)
        self._interceptors = interceptors

    def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call, and return what the outermost interceptor makes of the outcome."""

        def send() -> Any:
            here = scope.get()
            return Caller.request(self, method, params, here.deadline_ns, here.outgoing_meta, finish)

        with _within(deadline, meta):
            return self._enter(0, method, send, oneway=False)

    def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""

        def send() -> None:
            here = scope.get()
            Caller.send_notify(self, method, params, here.deadline_ns, here.outgoing_meta)

        with _within(deadline, meta):
            self._enter(0, method, send, oneway=True)

    def _enter(self, index: int, method: str, send: Callable[[], Any], *, oneway: bool) -> Any:
        """Go on with the interceptor at ``index``, or after the last with the call itself."""
        if index == len(self._interceptors):
            return send()
        here = scope.get()
        deadline = None if here.deadline_ns is None else here.deadline_ns / 1e9
        call = OutgoingCall(method=method, oneway=oneway, deadline=deadline, meta=here.outgoing_meta or {})
        return self._interceptors[index].request(call, lambda: self._enter(index + 1, method, send, oneway=oneway))


@contextlib.contextmanager
def _within(deadline: int | None, meta: dict[str, str] | None) -> Generator[None, None, None]:
    """Surround interceptors with what was said around the call."""
    token = scope.set(Scope(deadline, meta, scope.get()))
    try:
        yield
    finally:
        scope.reset(token)
