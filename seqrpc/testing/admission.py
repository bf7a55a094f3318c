"""Whom a policy admits, without a server."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from seqrpc.interface.description import describe
from seqrpc.interface.policy import Policy, PolicyLike, as_policy
from seqrpc.interface.policy import default as default_policy
from seqrpc.interface.service import RemoteService, Service, marks_of
from seqrpc.kernel.credentials import Credentials
from seqrpc.text import shown

_WAY_OUT = "write Calculator.add, Calculator().add, or 'add' with service=Calculator"


def admits(
    method: Callable[..., Any] | str,
    caller: Credentials | None,
    *,
    allow: PolicyLike | None = None,
    service: type[Service] | Service | None = None,
) -> bool:
    """Return whether ``caller`` may call a method.

    ``assert not admits(Vault.open, caller(uid=1000))``. It is what a server would say: the policy of the method, else
    of its class, else ``allow``, else :data:`seqrpc.policy.default`. As there, a policy that raises, or that answers
    anything but True or False, admits nobody, and the log says why (``seqrpc.policy``).

    Args:
        method: the method, of its class or of an object; or its name, or name on the wire, with ``service``.
        caller: who calls, as from :func:`~seqrpc.testing.caller`. Nobody, None, is never admitted.
        allow: what the server is given as ``allow``. Objects that are given away have :data:`seqrpc.policy.anyone`.
        service: the class, or an object of it, where the method does not tell: one that a class inherits is the same
            function in both, and their policies may differ.

    Raises:
        TypeError: it is no method that others may call, or of several services with policies of their own; the message
            says what to write.
        ValueError: the service has no method of that name.
    """
    if caller is not None and not isinstance(caller, Credentials):
        raise TypeError(f"admits takes what seqrpc.testing.caller(uid=...) returns, got {shown(repr(caller))}")
    rest = default_policy if allow is None else as_policy(allow)
    cls = None if service is None else _class_of(service)
    if isinstance(method, str):
        if cls is None:
            raise TypeError(f"the method {shown(method)!r} is of some service: write service=, its class")
        return _policy_of(cls, _name_in(cls, method), rest).admits(caller)
    owner = getattr(method, "__self__", None)
    if isinstance(owner, RemoteService):
        raise TypeError(f"this is a method of a proxy, whose policy is at the other side: {_WAY_OUT}")
    function = getattr(method, "__func__", method)
    if cls is None and isinstance(owner, Service):
        cls = type(owner)
    if cls is not None:
        names = [name for name in _marked(cls) if inspect.getattr_static(cls, name) is function]
        if not names:
            raise TypeError(f"{_named(method)} is no method of {cls.__qualname__} that others may call: {_WAY_OUT}")
        return _policy_of(cls, names[0], rest).admits(caller)
    return _only_policy(function, method, rest).admits(caller)


def _class_of(service: object) -> type[Service]:
    cls = service if isinstance(service, type) else type(service)
    if not issubclass(cls, Service):
        raise TypeError(f"service= takes a class of seqrpc.Service, or an object of one, got {shown(repr(service))}")
    return cls


def _name_in(cls: type[Service], name: str) -> str:
    """Return the name in Python of a method that is told by any of its names."""
    methods = describe(cls).methods
    for each, method in methods.items():
        if name in (each, method.wire_name):
            return each
    raise ValueError(f"{cls.__qualname__} has no method {shown(name)!r} that others may call, but {', '.join(methods)}")


def _policy_of(cls: type[Service], name: str, rest: Policy) -> Policy:
    """Return who may call a method, as a registry finds it."""
    description = describe(cls)
    said = (description.methods[name].allow, description.policy)
    return next((policy for policy in said if policy is not None), rest)


def _only_policy(function: object, method: object, rest: Policy) -> Policy:
    """Return who may call a function, of whichever service it is.

    Raises:
        TypeError: it is of none, or of several that say different things.
    """
    found = _policies(function, rest)
    if len(set(found.values())) > 1:
        del found
        gc.collect()  # classes that nobody has any more, as those of other tests, have no say
        found = _policies(function, rest)
    if not found:
        raise TypeError(f"{_named(method)} is no method of a service that others may call: {_WAY_OUT}")
    if len(set(found.values())) > 1:
        names = ", ".join(sorted(cls.__qualname__ for cls in found))
        raise TypeError(f"{_named(method)} is a method of {names}, whose policies differ: write service=, the class")
    return next(iter(found.values()))


def _policies(function: object, rest: Policy) -> dict[type[Service], Policy]:
    return {
        cls: _policy_of(cls, name, rest)
        for cls in _services(Service)
        for name in _marked(cls)
        if inspect.getattr_static(cls, name) is function
    }


def _services(base: type[Service]) -> Iterator[type[Service]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _services(cls)


def _marked(cls: type[Service]) -> list[str]:
    return [name for name in dir(cls) if marks_of(cls, name) is not None]


def _named(method: object) -> str:
    return shown(getattr(method, "__qualname__", repr(method)))
