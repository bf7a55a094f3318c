"""Objects that look like a service and call it at the other side, in the thread that calls."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from seqrpc.blocking.blocks import Block
from seqrpc.blocking.streams import Stream
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
    ) -> Any:
        """Call, and return what ``finish`` makes of the answer."""
        ...

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None,
        meta: dict[str, str] | None,
        finish: Finish = result_of,
    ) -> Any:
        """Call a method that may run twice: a callee that connects again may send it again."""
        ...

    def send_notify(self, method: str, params: Params, deadline: int | None, meta: dict[str, str] | None) -> None:
        """Call without wanting an answer."""
        ...

    def let_go(self) -> None:
        """End it if the proxies made of it are all that holds it."""
        ...


class Proxy(Block, RemoteService):
    """Base of proxies; made by :meth:`seqrpc.blocking.Connection.proxy`."""

    __slots__ = ("_callee",)

    def __init__(self, callee: Callee) -> None:
        """Remember whom to call."""
        self._callee = callee

    def close(self) -> None:
        """Let go of the object behind a channel; a proxy of a whole connection holds nothing that is its own."""
        self._callee.let_go()

    def __enter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close; what the class calls ``close`` itself is not called."""
        Proxy.close(self)

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
    if spec.description.oneway:

        def tell(self: Proxy, /, *args: Any, **kwargs: Any) -> None:
            here = scope.get()
            params = spec.params(args, kwargs)
            self._callee.send_notify(wire_name, params, here.deadline_ns, here.outgoing_meta)

        return tell

    idempotent = spec.description.idempotent
    if spec.description.streams:

        def stream(self: Proxy, /, *args: Any, **kwargs: Any) -> Stream[Any]:
            params = spec.params(args, kwargs)
            request = self._callee.request_idempotent if idempotent else self._callee.request
            return Stream(opening=functools.partial(_open, request, wire_name, params, finish))

        return stream

    if idempotent:

        def call_idempotent(self: Proxy, /, *args: Any, **kwargs: Any) -> Any:
            here = scope.get()
            params = spec.params(args, kwargs)
            return self._callee.request_idempotent(wire_name, params, here.deadline_ns, here.outgoing_meta, finish)

        return call_idempotent

    def call(self: Proxy, /, *args: Any, **kwargs: Any) -> Any:
        here = scope.get()
        params = spec.params(args, kwargs) if kwargs or len(args) not in counts else args
        return self._callee.request(wire_name, params, here.deadline_ns, here.outgoing_meta, finish)

    return call


def _open(request: Callable[..., Any], wire_name: str, params: Params, finish: Finish) -> Any:
    """Make the call that a stream begins with, at the time when it is first read."""
    here = scope.get()
    return request(wire_name, params, here.deadline_ns, here.outgoing_meta, finish)


proxy_class = ProxyClasses(Proxy, _checking).of
"""Returns the class of proxies of a class, made once.

Raises:
    TypeError: a method of the class cannot be called from elsewhere.
"""
