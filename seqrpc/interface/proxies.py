"""Classes of proxies: objects that look like a service and call it at the other side, with a loop or without."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from seqrpc.interface.answers import Finish, finishing
from seqrpc.interface.byclass import ByClass
from seqrpc.interface.service import RemoteService, Service
from seqrpc.interface.signature import MethodSpec, spec_of
from seqrpc.text import offered, shown

P = TypeVar("P", bound=RemoteService)

Calling = Callable[[MethodSpec, Finish], Callable[..., Any]]
"""Returns the function of a proxy that calls a method.

It takes the proxy and the arguments of a call, of which :meth:`MethodSpec.params` makes what is sent. The second
argument makes a result of the answer.
"""


class ProxyClasses(Generic[P]):
    """Makes the classes of one kind of proxies.

    Args:
        base: what they have in common, without ``__dict__``.
        calling: makes their methods.
    """

    def __init__(self, base: type[P], calling: Calling) -> None:
        """Begin with none."""
        self._base = base
        self._calling = calling
        self._made = ByClass(self._make)

    def of(self, cls: Any) -> type[P]:
        """Return the class of proxies of ``cls``, whose type variables may be bound, made once.

        Raises:
            TypeError: it is no class, or a method of it cannot be called from elsewhere.
        """
        if not isinstance(typing.get_origin(cls) or cls, type):
            raise TypeError(_no_class(cls))
        return self._made.of(cls)

    def _make(self, cls: Any) -> type[P]:
        methods = {name: self._method(spec) for name, spec in spec_of(cls).methods.items()}
        others = {"__slots__": (), "__getattr__": functools.partialmethod(_no_attribute, typing.get_origin(cls) or cls)}
        return type(f"{cls.__name__}Proxy", (self._base,), {**others, **methods})

    def _method(self, spec: MethodSpec) -> Callable[..., Any]:
        calling = self._calling(spec, finishing(spec.wire_name, spec.result))
        return functools.wraps(spec.function)(calling)


def _no_class(given: object) -> str:
    """Return why no proxy can be made of what is no class, but most often an object of one."""
    if isinstance(given, RemoteService):
        return f"a proxy is made of a class, and {given!r} is a proxy already"
    if isinstance(given, Service):
        name = type(given).__name__
        return f"a proxy is made of a class, and this is an object of {name}: write proxy({name})"
    return f"a proxy is made of a class that describes the service, got {shown(repr(given))}"


def _no_attribute(_proxy: RemoteService, cls: type, name: str) -> Any:
    """Say why there is no such attribute: others are asked for whatever looks at an object.

    Raises:
        AttributeError: always.
    """
    methods = spec_of(cls).methods
    if not name.startswith("_") and inspect.isroutine(getattr(cls, name, None)):
        text = f"{cls.__name__}.{name} is not marked with @seqrpc.method, so it cannot be called from here"
    else:
        text = f"{cls.__name__} has no method {name!r} to call{offered(name, methods)}"
    raise AttributeError(text, name=name)
