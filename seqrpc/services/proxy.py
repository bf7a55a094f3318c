"""Objects that look like a service and call it at the other side."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from seqrpc.carriers.connection import Params
from seqrpc.services.context import scope
from seqrpc.services.conversion import Plan
from seqrpc.services.signature import MethodSpec, describe


class Caller(Protocol):
    """What a proxy needs of a connection."""

    def call_typed(self, method: str, params: Params, result: Plan) -> Coroutine[Any, Any, Any]:
        """Call, and return the result as what ``result`` was planned from."""
        ...

    def send_notify(
        self, method: str, params: Params, deadline: int | None, meta: dict[str, str] | None
    ) -> Coroutine[Any, Any, None]:
        """Call without wanting an answer."""
        ...


class Proxy:
    """Base of proxies; made by :meth:`seqrpc.Connection.proxy`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Caller) -> None:
        """Remember the connection."""
        self._connection = connection

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
        methods = {name: _calling(spec) for name, spec in describe(cls).methods.items()}
        made = _classes[cls] = type(f"{cls.__name__}Proxy", (Proxy,), {"__slots__": (), **methods})
    return made


def _calling(spec: MethodSpec) -> Callable[..., Coroutine[Any, Any, Any]]:
    wire_name, result = spec.wire_name, spec.result
    if spec.oneway:

        async def call(self: Proxy, /, *args: Any, **kwargs: Any) -> Any:
            here = scope.get()
            await self._connection.send_notify(wire_name, spec.params(args, kwargs), here.deadline_ns, here.meta)

    else:

        def call(self: Proxy, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            return self._connection.call_typed(wire_name, spec.params(args, kwargs) if kwargs else args, result)

    return functools.wraps(spec.function)(call)
