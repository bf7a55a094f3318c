"""Classes of proxies: objects that look like a service and call it at the other side, with a loop or without."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from seqrpc.interface.answers import Finish, finishing
from seqrpc.interface.service import RemoteService
from seqrpc.interface.signature import MethodSpec, spec_of

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
        self._made: weakref.WeakKeyDictionary[type, type[P]] = weakref.WeakKeyDictionary()

    def of(self, cls: type) -> type[P]:
        """Return the class of proxies of ``cls``, made once.

        Raises:
            TypeError: a method of the class cannot be called from elsewhere.
        """
        made = self._made.get(cls)
        if made is None:
            methods = {name: self._method(spec) for name, spec in spec_of(cls).methods.items()}
            made = self._made[cls] = type(f"{cls.__name__}Proxy", (self._base,), {"__slots__": (), **methods})
        return made

    def _method(self, spec: MethodSpec) -> Callable[..., Any]:
        calling = self._calling(spec, finishing(spec.wire_name, spec.result))
        return functools.wraps(spec.function)(calling)
