"""Objects that look like a service and call it at the other side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

from seqrpc.aio.blocks import AsyncBlock
from seqrpc.aio.streams import Stream
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.lending import with_owners
from seqrpc.interface.proxies import ProxyClasses
from seqrpc.interface.scope import scope
from seqrpc.interface.service import RemoteService
from seqrpc.interface.signature import MethodSpec
from seqrpc.protocol.messages import Params


class Callee(Protocol):
    """Whom a proxy calls."""

    def request(
        self,
        method: str,
        params: Params,
        deadline: int | None,
        meta: dict[str, str] | None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Call, and return what ``finish`` makes of the answer."""
        ...

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None,
        meta: dict[str, str] | None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Do the same; the method may run twice."""
        ...

    def send_notify(
        self, method: str, params: Params, deadline: int | None, meta: dict[str, str] | None
    ) -> Coroutine[Any, Any, None]:
        """Call without wanting an answer."""
        ...

    async def let_go(self) -> None:
        """End it if the proxies made of it are all that holds it."""
        ...


class Proxy(AsyncBlock, RemoteService):
    """Base of proxies; made by :meth:`seqrpc.Connection.proxy`."""

    __slots__ = ("_callee",)

    def __init__(self, callee: Callee) -> None:
        """Remember whom to call."""
        self._callee = callee

    async def close(self) -> None:
        """Let go of the object behind a channel; a proxy of a whole connection holds nothing that is its own."""
        await self._callee.let_go()

    async def __aenter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close; what the class calls ``close`` itself is not called."""
        await Proxy.close(self)

    def __repr__(self) -> str:
        """Return what it stands for."""
        return f"<{type(self).__name__} on {self._callee!r}>"


def callee_of(proxy: Proxy) -> Callee:
    """Return whom a proxy calls: its only public names are its service's."""
    return proxy._callee  # noqa: SLF001 - this module's own


def _checking(spec: MethodSpec, finish: Finish) -> Callable[..., Any]:
    """Return the method of a proxy that calls ``spec``, and looks at its arguments if they have to have owners."""
    return with_owners(spec, _calling(spec, finish))


def _calling(spec: MethodSpec, finish: Finish) -> Callable[..., Any]:
    """Return what calls ``spec``."""
    wire_name, counts = spec.wire_name, spec.counts
    most = counts.stop - 1  # nearly always it is called with all arguments
    if spec.description.oneway:

        async def tell(self: Proxy, /, *args: Any, **kwargs: Any) -> None:
            here = scope.get()
            params = spec.params(args, kwargs)
            await self._callee.send_notify(wire_name, params, here.deadline_ns, here.outgoing_meta)

        return tell

    if spec.description.streams:
        is_idempotent = spec.description.idempotent

        def stream(self: Proxy, /, *args: Any, **kwargs: Any) -> Stream[Any]:
            params = spec.params(args, kwargs)
            request = self._callee.request_idempotent if is_idempotent else self._callee.request
            return Stream(opening=functools.partial(_open, request, wire_name, params, finish))

        return stream

    if spec.description.idempotent:

        def call_idempotent(self: Proxy, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            here = scope.get()
            params = spec.params(args, kwargs)
            calling = self._callee.request_idempotent(wire_name, params, here.deadline_ns, here.outgoing_meta, finish)
            calling.__qualname__ = wire_name  # type: ignore[attr-defined] # as below
            return calling

        return call_idempotent

    def call(self: Proxy, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        here = scope.get()
        count = len(args)
        params = spec.params(args, kwargs) if kwargs or (count != most and count not in counts) else args
        calling = self._callee.request(wire_name, params, here.deadline_ns, here.outgoing_meta, finish)
        calling.__qualname__ = wire_name  # type: ignore[attr-defined] # in warnings that it was not awaited, and in its task
        return calling

    return call


def _open(
    request: Callable[..., Coroutine[Any, Any, Stream[Any]]], wire_name: str, params: Params, finish: Finish
) -> Coroutine[Any, Any, Stream[Any]]:
    """Make the call that a stream begins with, at the time when it is first read."""
    here = scope.get()
    return request(wire_name, params, here.deadline_ns, here.outgoing_meta, finish)


proxy_class = ProxyClasses(Proxy, _checking).of
"""Returns the class of proxies of a class, made once.

Raises:
    TypeError: a method of the class cannot be called from elsewhere.
"""
