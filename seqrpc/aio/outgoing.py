"""Calls with interceptors around them, where they are made."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from seqrpc.aio.caller import Caller
from seqrpc.aio.calls import Line
from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.proxy import Callee
from seqrpc.calls.records import OutgoingCall
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.scope import Scope, scope
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

        async def send() -> Any:
            here = scope.get()
            return await Caller.request(self, method, params, here.deadline_ns, here.outgoing_meta, finish)

        with _within(deadline, meta):
            return await _enter(self._interceptors, 0, method, send, oneway=False)

    async def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""

        async def send() -> None:
            here = scope.get()
            await Caller.send_notify(self, method, params, here.deadline_ns, here.outgoing_meta)

        with _within(deadline, meta):
            await _enter(self._interceptors, 0, method, send, oneway=True)


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
        return self._surrounded(self._callee.request, method, params, deadline, meta, finish=finish)

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Do the same; the method may run twice."""
        return self._surrounded(self._callee.request_idempotent, method, params, deadline, meta, finish=finish)

    async def _surrounded(
        self,
        request: Callable[..., Coroutine[Any, Any, Any]],
        method: str,
        params: Params,
        deadline: int | None,
        meta: dict[str, str] | None,
        *,
        finish: Finish,
    ) -> Any:
        async def send() -> Any:
            here = scope.get()
            return await request(method, params, here.deadline_ns, here.outgoing_meta, finish)

        with _within(deadline, meta):
            return await _enter(self._interceptors, 0, method, send, oneway=False)

    async def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""

        async def send() -> None:
            here = scope.get()
            await self._callee.send_notify(method, params, here.deadline_ns, here.outgoing_meta)

        with _within(deadline, meta):
            await _enter(self._interceptors, 0, method, send, oneway=True)

    async def let_go(self) -> None:
        """Let go of what makes the calls."""
        await self._callee.let_go()

    def __repr__(self) -> str:
        """Return what it calls."""
        return repr(self._callee)


async def _enter(
    interceptors: tuple[Interceptor, ...], index: int, method: str, send: Callable[[], Awaitable[Any]], *, oneway: bool
) -> Any:
    """Go on with the interceptor at ``index``, or after the last with the call itself."""
    if index == len(interceptors):
        return await send()
    here = scope.get()
    deadline = None if here.deadline_ns is None else here.deadline_ns / 1e9
    call = OutgoingCall(method=method, oneway=oneway, deadline=deadline, meta=here.outgoing_meta or {})
    return await interceptors[index].request(call, lambda: _enter(interceptors, index + 1, method, send, oneway=oneway))


@contextlib.contextmanager
def _within(deadline: int | None, meta: dict[str, str] | None) -> Generator[None, None, None]:
    """Surround interceptors with what was said around the call: it may have been made there and be awaited here."""
    token = scope.set(Scope(deadline, meta, scope.get()))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the call is thrown away by somebody else
            scope.reset(token)
