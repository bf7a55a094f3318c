"""Calls with interceptors around them. Where there are none, this module makes what knows nothing of them."""

from __future__ import annotations

import contextlib
import inspect
import socket
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any

from seqrpc.aio.accounts import Account
from seqrpc.aio.caller import Caller
from seqrpc.aio.calls import Line
from seqrpc.aio.current import HandledCall
from seqrpc.aio.dispatch import Dispatcher, Work
from seqrpc.aio.endpoints import open_transport
from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.link import Link
from seqrpc.aio.outgoing import InterceptedCallee, InterceptedCaller
from seqrpc.aio.proxy import Callee
from seqrpc.aio.registry import Registry
from seqrpc.aio.running import RunningCalls
from seqrpc.calls.records import tell_ended
from seqrpc.errors import RpcError
from seqrpc.interface.current import view_of
from seqrpc.interface.entries import Entry
from seqrpc.kernel.credentials import Credentials
from seqrpc.limits import Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.admission import Refused
from seqrpc.protocol.messages import Request
from seqrpc.text import shown

_log = get_logger("seqrpc.dispatch")

Opens = Callable[[socket.socket, Link, Limits], object]
"""Makes the transport of a connection, which owns the socket."""


class Interception:
    """Makes what answers, and what calls, on each connection of a server or a client.

    Args:
        given: the interceptors, the first is outermost. What one does not override it is not asked for.
        opens: makes the transports of the connections of objects that are given away; tests pretend by it who calls.

    Raises:
        TypeError: one is no interceptor, or its ``ended`` would have to be awaited.
    """

    __slots__ = ("_around", "_calling", "_hearing", "opens")

    def __init__(self, given: Iterable[Interceptor] = (), opens: Opens = open_transport) -> None:
        """Sort them by what they override."""
        self.opens = opens
        """Makes the transports of the connections of objects that are given away."""
        if not isinstance(given, Iterable):
            raise TypeError(f"interceptors= takes a list of them, got {shown(repr(given))}: write [...] around it")
        interceptors = tuple(given)
        for each in interceptors:
            if isinstance(each, type) and issubclass(each, Interceptor):
                raise TypeError(f"an object of {each.__name__} was expected, got the class: write {each.__name__}()")
            if not isinstance(each, Interceptor):
                raise TypeError(f"an object of a seqrpc.Interceptor was expected, got {shown(repr(each))}")
            if inspect.iscoroutinefunction(each.ended):
                raise TypeError(f"{type(each).__name__}.ended must be a plain function: nobody awaits it")
        self._around = tuple(each for each in interceptors if type(each).handle is not Interceptor.handle)
        self._hearing = tuple(each for each in interceptors if type(each).ended is not Interceptor.ended)
        self._calling = tuple(each for each in interceptors if type(each).request is not Interceptor.request)

    def new_dispatcher(self, registry: Registry) -> Dispatcher:
        """Return what answers the requests of one connection."""
        if self._around or self._hearing:
            return InterceptedDispatcher(registry, self._around, self._hearing)
        return Dispatcher(registry)

    def new_caller(self, line: Line, limits: Limits) -> Caller:
        """Return what makes the calls of one connection."""
        if self._calling:
            return InterceptedCaller(line, limits, self._calling)
        return Caller(line, limits)

    def around(self, callee: Callee) -> Callee:
        """Return what makes the calls that ``callee`` makes, with interceptors around each of them as a whole."""
        return InterceptedCallee(callee, self._calling) if self._calling else callee


NO_INTERCEPTION = Interception()
"""Of connections that nobody looks at."""


class InterceptedDispatcher(Dispatcher):
    """Runs handlers with interceptors around them, and tells of every request that has ended.

    Args:
        registry: the services.
        around: surround handlers, the first is outermost.
        hearing: are told.
    """

    __slots__ = ("_answering", "_around", "_hearing")

    def __init__(self, registry: Registry, around: tuple[Interceptor, ...], hearing: tuple[Interceptor, ...]) -> None:
        """Begin with no call."""
        super().__init__(registry)
        self._around = around
        self._hearing = hearing
        self._answering: HandledCall | None = None  # whose handler has ended, and that is being answered

    def connection_made(self, link: Link) -> None:
        """Remember the connection, and hear of answers that the kernel does not take."""
        super().connection_made(link)
        self._answers.replaced = self._replaced
        self.running = _HeardCalls(self._registry, self._requests, self._account, self._call_ended)

    def request_refused(self, refused: Refused, caller: Credentials | None) -> None:
        """Tell of a request that was not taken."""
        super().request_refused(refused, caller)
        self._tell(refused.method, caller, refused.code, oneway=refused.call_id is None)

    def _answer_at_once(self, request: Request, caller: Credentials | None, entry: Entry) -> None:
        super()._answer_at_once(request, caller, entry)
        self._tell(request.method, caller, None, oneway=request.call_id is None, options=request.options)

    def _refuse(self, request: Request, caller: Credentials | None, code: str, message: str) -> None:
        super()._refuse(request, caller, code, message)
        self._tell(request.method, caller, code, oneway=request.call_id is None, options=request.options)

    def _run(self, call: HandledCall, work: Work) -> Coroutine[Any, Any, None]:
        """Surround the handler, and run it."""
        assert isinstance(work, Coroutine)
        call.handling = handling = Handling(call, work, self._around, self)
        return super()._run(call, handling)

    def _send_error(self, call: HandledCall, code: str, message: str, data: Any = None) -> None:
        call.handling.code = code
        self._answering = call
        super()._send_error(call, code, message, data)

    def handler_ended(self, call: HandledCall) -> None:
        """Hear that a call is about to be answered."""
        self._answering = call

    def give_up(self, value: Any, kept: Any) -> None:
        """Let go of what was returned by a handler, and what of it is not sent."""
        self._answers.give_up(value, kept)

    def _replaced(self, call_id: int, code: str) -> None:
        """Hear that an error takes the place of an answer: of the present one, or one that waited and was told of."""
        call = self._answering
        if call is not None and call.request.call_id == call_id:
            call.handling.code = code

    def _call_ended(self, call: HandledCall) -> None:
        """Tell of a call that a handler was started for."""
        handling, call.handling, self._answering = call.handling, None, None
        request = call.request
        self._tell(
            request.method,
            call.caller,
            handling.code,
            oneway=request.call_id is None,
            duration=time.monotonic() - handling.began,
            options=request.options,
        )

    def _tell(
        self, method: str | None, caller: Credentials | None, code: str | None, *, oneway: bool, **rest: Any
    ) -> None:
        """Tell the interceptors of a request that has ended (:func:`~seqrpc.calls.records.tell_ended`)."""
        if self._hearing and self._link.home is not None:  # in a forked child nothing of it is ours
            tell_ended(self._hearing, method, caller, code, oneway=oneway, **rest)


class _HeardCalls(RunningCalls):
    """Knows what runs, and tells when it has ended.

    Args:
        registry: as for :class:`~seqrpc.aio.running.RunningCalls`.
        requests: likewise.
        account: likewise.
        ended: called with each call that has ended, once.
    """

    __slots__ = ("_ended",)

    def __init__(
        self,
        registry: Registry,
        requests: dict[int, HandledCall | None],
        account: Account,
        ended: Callable[[HandledCall], object],
    ) -> None:
        """Begin with nothing that runs."""
        super().__init__(registry, requests, account)
        self._ended = ended

    def end(self, call: HandledCall) -> None:
        """Forget a call, and tell."""
        super().end(call)
        self._ended(call)


class Handling:
    """A handler and the interceptors around it, to be awaited once.

    Args:
        call: what it answers.
        coroutine: the handler.
        around: the interceptors.
        dispatcher: hears of its end, and lets go of what is not sent.
    """

    __slots__ = ("_around", "_call", "_coroutine", "_dispatcher", "began", "code")

    def __init__(
        self,
        call: HandledCall,
        coroutine: Coroutine[Any, Any, Any],
        around: tuple[Interceptor, ...],
        dispatcher: InterceptedDispatcher,
    ) -> None:
        """Begin now, in time."""
        self._call = call
        self._coroutine = coroutine
        self._around = around
        self._dispatcher = dispatcher
        self.began = time.monotonic()
        self.code: str | None = "rpc.Cancelled"
        """Of the error that the call ends with, None if it succeeds; if nobody says, its loop has ended."""

    def __await__(self) -> Generator[Any, Any, Any]:
        """Run, and return the result."""
        try:
            result = yield from self._enter(0).__await__()
            self.code = None
            return result
        finally:
            self.close()
            self._dispatcher.handler_ended(self._call)

    def close(self) -> None:
        """Let go of a handler that has not begun."""
        if inspect.getcoroutinestate(self._coroutine) == inspect.CORO_CREATED:
            self._coroutine.close()

    async def _enter(self, index: int) -> Any:
        """Go on with the interceptor at ``index``, or after the last with the handler."""
        if index == len(self._around):
            return await self._coroutine
        handed: list[Any] = []  # what the handler, or the interceptor within, returned
        has_proceeded = is_over = False

        async def proceed() -> Any:
            nonlocal has_proceeded
            if has_proceeded or is_over:
                raise RuntimeError("a handler runs once, and while handle() of its interceptors does")
            has_proceeded = True
            result = await self._enter(index + 1)
            if is_over:  # it was left in a task
                self._dispatcher.give_up(result, None)
                return None
            handed.append(result)
            return result

        kept: Any = None
        try:
            kept = result = await self._around[index].handle(view_of(self._call), proceed)
        except BaseException as exc:
            kept = _data_of(exc)
            raise
        else:
            return result
        finally:
            is_over = True
            if handed and handed[0] is not kept:
                self._dispatcher.give_up(handed[0], kept)
            handed.clear()


def _data_of(exc: BaseException) -> Any:
    """Return what is sent with an error."""
    with contextlib.suppress(Exception):  # it may be computed
        return exc.data if isinstance(exc, RpcError) else None
    return None
