"""How a service is written: a class, and its methods marked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar, overload

import msgspec

from seqrpc.interface.policy import Policy, PolicyLike, as_policy

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__seqrpc_method__"


class Marks(msgspec.Struct, frozen=True):
    """What :func:`method` was told."""

    allow: Policy | None
    oneway: bool


class Service:
    """Base of services. Methods marked with :func:`method` can be called from the other side.

    Class arguments:
        name: what the service is called on the wire; by default the name of the class.
        allow: who may call its methods, where a method does not say; by default what the server says.

    ``class Calculator(seqrpc.Service, name="org.example.Calculator", allow=seqrpc.policy.anyone)``
    """

    service_name: ClassVar[str] = "Service"
    """What the service is called on the wire."""

    service_policy: ClassVar[Policy | None] = None
    """Who may call its methods where they do not say, or None: what the server says."""

    def __init_subclass__(cls, *, name: str | None = None, allow: PolicyLike | None = None, **kwargs: Any) -> None:
        """Take the class arguments; ``allow`` is inherited, ``name`` is not.

        Raises:
            ValueError: the name is empty, begins or ends with a dot, or begins with ``rpc.``.
        """
        super().__init_subclass__(**kwargs)
        name = cls.__name__ if name is None else name
        if not name or name.startswith((".", "rpc.")) or name.endswith(".") or name == "rpc":
            raise ValueError(f"{cls.__qualname__}: not a service name: {name!r} (names under 'rpc' are reserved)")
        cls.service_name = name
        if allow is not None:
            cls.service_policy = as_policy(allow)

    async def close(self) -> None:
        """Clean up: called once nobody holds the object any more, when it was given away as a channel.

        Also if it never arrived where it went, and so nobody ever held it.

        Override it. On the proxy of a channel, ``await proxy.close()`` lets go of the object.
        """

    async def __aenter__(self) -> Self:
        """Return itself; it is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()


@overload
def method(function: F, /) -> F: ...


@overload
def method(*, allow: PolicyLike | None = None, oneway: bool = False) -> Callable[[F], F]: ...


def method(function: F | None = None, /, *, allow: PolicyLike | None = None, oneway: bool = False) -> Any:
    """Mark a method of a :class:`Service` as callable from the other side; the function itself is unchanged.

    A coroutine function runs on the loop, a plain function in a thread; an async generator is a stream of results.

    Arguments that do not fit the annotations are answered with ``rpc.InvalidParams``. The text of a ValueError or
    TypeError that a class of an argument raises in its ``__post_init__`` is part of that answer; other exceptions are
    ``rpc.Internal``, and tell nothing.

    Args:
        function: what is decorated.
        allow: who may call it: a policy, or a function of the caller's credentials. By default what the
            class says, else the server, else :data:`seqrpc.policy.default`.
        oneway: proxies send it without waiting for an answer (NOTIFY); it returns None.

    Raises:
        TypeError: it decorates something else than a function.
    """
    marks = Marks(None if allow is None else as_policy(allow), oneway)

    def mark(marked: F) -> F:
        if not inspect.isfunction(marked):
            raise TypeError(f"@seqrpc.method decorates functions, got {marked!r}")
        setattr(marked, _MARK, marks)
        return marked

    return mark if function is None else mark(function)


def marks_of(cls: type, name: str) -> Marks | None:
    """Return the marks of a method of ``cls``; those nearest to it win, ``allow`` among those that say it."""
    # Of static and class methods, too: they cannot be served, and whoever wrote them is to be told.
    attributes = [vars(base)[name] for base in cls.__mro__ if name in vars(base)]
    functions = [getattr(attribute, "__func__", attribute) for attribute in attributes]
    found = [marks for function in functions if isinstance(marks := getattr(function, _MARK, None), Marks)]
    if not found:
        return None
    allow = next((marks.allow for marks in found if marks.allow is not None), None)
    return Marks(allow, found[0].oneway)
