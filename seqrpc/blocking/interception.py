"""Calls of a blocking connection with interceptors around them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from seqrpc.blocking.caller import Caller
from seqrpc.blocking.interceptors import Interception, Interceptor
from seqrpc.blocking.line import Line
from seqrpc.blocking.proxy import Callee
from seqrpc.calls.records import outgoing_call
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.scope import scope, within
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
        make = functools.partial(self._callee.request, method, params, finish=finish)
        return self._surrounded(method, (deadline, meta), make, oneway=False)

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Do the same with a method that may run twice."""
        make = functools.partial(self._callee.request_idempotent, method, params, finish=finish)
        return self._surrounded(method, (deadline, meta), make, oneway=False)

    def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""
        make = functools.partial(self._callee.send_notify, method, params)
        self._surrounded(method, (deadline, meta), make, oneway=True)

    def let_go(self) -> None:
        """Let go of what calls go to, if the proxies made of it are all that holds it."""
        self._callee.let_go()

    def __repr__(self) -> str:
        """Return whom it calls."""
        return repr(self._callee)

    def _surrounded(
        self,
        method: str,
        options: tuple[int | None, dict[str, str] | None],
        make: Callable[[int | None, dict[str, str] | None], Any],
        *,
        oneway: bool,
    ) -> Any:
        """Call by ``make``, with the deadline and the metadata as they are within all interceptors."""

        def send() -> Any:
            here = scope.get()
            return make(here.deadline_ns, here.outgoing_meta)

        with within(*options):
            return self._enter(0, method, send, oneway=oneway)

    def _enter(self, index: int, method: str, send: Callable[[], Any], *, oneway: bool) -> Any:
        """Go on with the interceptor at ``index``, or after the last with the call itself."""
        if index == len(self._interceptors):
            return send()
        call = outgoing_call(method, oneway=oneway)
        return self._interceptors[index].request(call, lambda: self._enter(index + 1, method, send, oneway=oneway))
