"""Calls of a blocking connection with interceptors around them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

from seqrpc.blocking.caller import Caller
from seqrpc.blocking.interceptors import Interception, Interceptor
from seqrpc.blocking.line import Line
from seqrpc.blocking.proxy import Callee
from seqrpc.calls.records import OutgoingCall
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.scope import Scope, scope
from seqrpc.protocol.messages import Params


def caller_of(line: Line, interception: Interception) -> Callee:
    """Return what makes the calls of one line."""
    return around(Caller(line), interception)


def around(callee: Callee, interception: Interception) -> Callee:
    """Return what makes the calls of ``callee`` with interceptors around them, if there are any that look at calls."""
    return InterceptedCaller(callee, interception.calling) if interception.calling else callee


class InterceptedCaller:
    """Makes calls with interceptors around them.

    Args:
        callee: makes them, once or several times each: interceptors surround a call as a whole.
        interceptors: the first is outermost.
    """

    __slots__ = ("__weakref__", "_callee", "_interceptors")

    def __init__(self, callee: Callee, interceptors: tuple[Interceptor, ...]) -> None:
        """Begin with no call."""
        self._callee = callee
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
        return self._surrounded(self._callee.request, method, params, (deadline, meta), finish)

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Do the same with a method that may run twice."""
        return self._surrounded(self._callee.request_idempotent, method, params, (deadline, meta), finish)

    def _surrounded(
        self,
        request: Callable[..., Any],
        method: str,
        params: Params,
        options: tuple[int | None, dict[str, str] | None],
        finish: Finish,
    ) -> Any:
        def send() -> Any:
            here = scope.get()
            return request(method, params, here.deadline_ns, here.outgoing_meta, finish)

        with _within(*options):
            return self._enter(0, method, send, oneway=False)

    def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""

        def send() -> None:
            here = scope.get()
            self._callee.send_notify(method, params, here.deadline_ns, here.outgoing_meta)

        with _within(deadline, meta):
            self._enter(0, method, send, oneway=True)

    def let_go(self) -> None:
        """Let go of what calls go to, if the proxies made of it are all that holds it."""
        self._callee.let_go()

    def __repr__(self) -> str:
        """Return whom it calls."""
        return repr(self._callee)

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
