"""Objects that look like a service and call it at the other side."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

from seqrpc.aio.link import Params, result_of
from seqrpc.aio.streams import Stream
from seqrpc.errors import InvalidResult
from seqrpc.interface.conversion import Terms, cause_to_tell, convert
from seqrpc.interface.scope import scope
from seqrpc.interface.service import RemoteService
from seqrpc.interface.signature import MethodSpec, spec_of
from seqrpc.interface.standins import Plan
from seqrpc.interface.types import exact_type
from seqrpc.kernel.descriptors import close_all
from seqrpc.limits import Limits
from seqrpc.protocol.messages import Response
from seqrpc.protocol.session import error_of


class Caller(Protocol):
    """What a proxy needs of a connection."""

    def request(
        self,
        method: str,
        params: Params,
        deadline: int | None,
        meta: dict[str, str] | None,
        finish: Callable[[Response, Limits], Any],
    ) -> Coroutine[Any, Any, Any]:
        """Call, and return what ``finish`` makes of the answer."""
        ...

    def send_notify(
        self, method: str, params: Params, deadline: int | None, meta: dict[str, str] | None
    ) -> Coroutine[Any, Any, None]:
        """Call without wanting an answer."""
        ...

    async def let_go(self) -> None:
        """End it if the proxies made of it are all that holds it."""
        ...


class Proxy(RemoteService):
    """Base of proxies; made by :meth:`seqrpc.Connection.proxy`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Caller) -> None:
        """Remember the connection."""
        self._connection = connection

    async def close(self) -> None:
        """Let go of the object behind a channel; a proxy of a whole connection holds nothing that is its own."""
        await self._connection.let_go()

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
        return f"<{type(self).__name__} on {self._connection!r}>"


_classes: weakref.WeakKeyDictionary[type, type[Proxy]] = weakref.WeakKeyDictionary()


def proxy_class(cls: type) -> type[Proxy]:
    """Return the class of proxies of ``cls``, made once.

    Raises:
        TypeError: a method of the class cannot be called from elsewhere.
    """
    made = _classes.get(cls)
    if made is None:
        methods = {name: _calling(spec) for name, spec in spec_of(cls).methods.items()}
        made = _classes[cls] = type(f"{cls.__name__}Proxy", (Proxy,), {"__slots__": (), **methods})
    return made


def _calling(spec: MethodSpec) -> Callable[..., Any]:
    """Return the method of a proxy that calls ``spec``."""
    wire_name = spec.wire_name
    finish = _finishing(wire_name, spec.result)
    if spec.description.oneway:

        async def call(self: Proxy, /, *args: Any, **kwargs: Any) -> Any:
            here = scope.get()
            params = spec.params(args, kwargs)
            await self._connection.send_notify(wire_name, params, here.deadline_ns, here.outgoing_meta)

    elif spec.description.streams:

        def stream(self: Proxy, /, *args: Any, **kwargs: Any) -> Stream[Any]:
            params = spec.params(args, kwargs)
            return Stream(opening=functools.partial(_open, self._connection, wire_name, params, finish))

        return functools.wraps(spec.function)(stream)

    else:

        def call(self: Proxy, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            here = scope.get()
            params = spec.params(args, kwargs) if kwargs else args
            return self._connection.request(wire_name, params, here.deadline_ns, here.outgoing_meta, finish)

    return functools.wraps(spec.function)(call)


def _open(
    connection: Caller, wire_name: str, params: Params, finish: Callable[[Response, Limits], Any]
) -> Coroutine[Any, Any, Stream[Any]]:
    """Make the call that a stream begins with, at the time when it is first read."""
    here = scope.get()
    return connection.request(wire_name, params, here.deadline_ns, here.outgoing_meta, finish)


def _finishing(wire_name: str, wanted: Plan) -> Callable[[Response, Limits], Any]:
    """Return what makes a result of the type ``wanted`` of an answer, or raises what it tells of."""
    if wanted is Any:
        return result_of
    exact = exact_type(wanted)

    def finish(response: Response, limits: Limits) -> Any:
        result = response.result
        if response.error is None and type(result) is exact:
            return result
        if response.error is not None:
            raise error_of(response.error)
        try:
            return convert(result, wanted, Terms(InvalidResult, limits.max_other_keys))
        except Exception as exc:  # types of the application's own raise what they like while they are built
            close_all(response.fds)
            text = f"{wire_name} answered what does not fit its annotation: {exc}"
            raise InvalidResult(text) from cause_to_tell(exc)  # in no variable: it would hold itself, and the answer

    return finish
