"""Calls with interceptors around them, where they are made."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from seqrpc.aio.caller import Caller
from seqrpc.aio.calls import Line
from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.proxy import Callee
from seqrpc.calls.records import outgoing_call
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.scope import scope, within
from seqrpc.limits import Limits
from seqrpc.protocol.messages import Params


class InterceptedCaller(Caller):
    """Makes calls with interceptors around them.

    Args:
        line: the connection.
        limits: as for :class:`~seqrpc.aio.caller.Caller`.
        interceptors: the first is outermost.
    """

    __slots__ = ("_interceptors",)

    def __init__(self, line: Line, limits: Limits, interceptors: tuple[Interceptor, ...]) -> None:
        """Begin with no call."""
        super().__init__(line, limits)
        self._interceptors = interceptors

    async def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call, and return what the outermost interceptor makes of the outcome."""
        make = functools.partial(super().request, method, params, finish=finish)
        return await _surrounded(self._interceptors, method, (deadline, meta), make, oneway=False)

    async def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""
        make = functools.partial(super().send_notify, method, params)
        await _surrounded(self._interceptors, method, (deadline, meta), make, oneway=True)


class InterceptedCallee:
    """Makes the calls of something else, with interceptors around them: around all attempts of one call together.

    Args:
        callee: makes the calls.
        interceptors: the first is outermost.
    """

    __slots__ = ("_callee", "_interceptors")

    def __init__(self, callee: Callee, interceptors: tuple[Interceptor, ...]) -> None:
        """Surround it."""
        self._callee = callee
        self._interceptors = interceptors

    def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Call, and return what the outermost interceptor makes of the outcome."""
        make = functools.partial(self._callee.request, method, params, finish=finish)
        return _surrounded(self._interceptors, method, (deadline, meta), make, oneway=False)

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Do the same; the method may run twice."""
        make = functools.partial(self._callee.request_idempotent, method, params, finish=finish)
        return _surrounded(self._interceptors, method, (deadline, meta), make, oneway=False)

    def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> Coroutine[Any, Any, None]:
        """Call without wanting an answer."""
        make = functools.partial(self._callee.send_notify, method, params)
        return _surrounded(self._interceptors, method, (deadline, meta), make, oneway=True)

    async def let_go(self) -> None:
        """Let go of what makes the calls."""
        await self._callee.let_go()

    def __repr__(self) -> str:
        """Return what it calls."""
        return repr(self._callee)


async def _surrounded(
    interceptors: tuple[Interceptor, ...],
    method: str,
    options: tuple[int | None, dict[str, str] | None],
    make: Callable[[int | None, dict[str, str] | None], Awaitable[Any]],
    *,
    oneway: bool,
) -> Any:
    """Make a call with interceptors around it.

    Args:
        interceptors: the first is outermost.
        method: ``Service.method``.
        options: the deadline of the call, and its metadata.
        make: makes it, with those as they are within all interceptors.
        oneway: whether no answer is wanted.
    """

    async def send() -> Any:
        here = scope.get()
        return await make(here.deadline_ns, here.outgoing_meta)

    with within(*options):
        return await _enter(interceptors, 0, method, send, oneway=oneway)


async def _enter(
    interceptors: tuple[Interceptor, ...], index: int, method: str, send: Callable[[], Awaitable[Any]], *, oneway: bool
) -> Any:
    """Go on with the interceptor at ``index``, or after the last with the call itself."""
    if index == len(interceptors):
        return await send()
    call = outgoing_call(method, oneway=oneway)
    return await interceptors[index].request(call, lambda: _enter(interceptors, index + 1, method, send, oneway=oneway))
