"""How a service is written: a class, and its methods marked."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Any, ClassVar, Self

import msgspec

from seqrpc.errors import RpcError
from seqrpc.interface.functions import hides_thread, layers_within, served
from seqrpc.interface.policy import Policy, PolicyLike, as_policy
from seqrpc.text import offered, shown

_MARK = "__seqrpc_method__"

_NOTHING = nullcontext()


class Marks(msgspec.Struct, frozen=True):
    """What :func:`seqrpc.method` was told."""

    allow: Policy | None
    oneway: bool
    idempotent: bool = False
    errors: tuple[type[RpcError], ...] = ()


class Service:
    """Base of services. Methods marked with :func:`seqrpc.method` can be called from the other side.

    Class arguments:
        name: what the service is called on the wire; by default the name of the class.
        allow: who may call its methods, where a method does not say; by default what the server says.
        show_arguments: whether those who watch calls (``rpc.monitor``: the same user and root) are told the arguments,
            but for what is sensitive; by default they are not.

    ``class Calculator(seqrpc.Service, name="org.example.Calculator", allow=seqrpc.policy.anyone)``
    """

    service_name: ClassVar[str] = "Service"
    """What the service is called on the wire."""

    service_policy: ClassVar[Policy | None] = None
    """Who may call its methods where they do not say, or None: what the server says."""

    _shows_arguments: ClassVar[bool] = False

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        allow: PolicyLike | None = None,
        show_arguments: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the class arguments; ``allow`` and ``show_arguments`` are inherited, ``name`` is not.

        Raises:
            ValueError: the name is empty, begins or ends with a dot, or begins with ``rpc.``.
            TypeError: the name is no text, there is no such class argument, or something is marked with
                :func:`seqrpc.method` that cannot be called from elsewhere, such as ``lifespan``, or a property.
        """
        try:
            super().__init_subclass__(**kwargs)
        except TypeError as exc:
            if "takes no keyword arguments" not in str(exc):  # it comes from another base
                raise
            unknown = next(iter(kwargs))
            meant = offered(unknown, ("name", "allow", "show_arguments"))
            text = f"the class of a service takes name=, allow= and show_arguments=, not {unknown}={meant}"
            raise TypeError(f"{cls.__qualname__}: {text}") from None
        cls.service_name = cls.__name__ if name is None else name
        _check_name(cls)
        if allow is not None:
            cls.service_policy = as_policy(allow)
        if show_arguments is not None:
            if not isinstance(show_arguments, bool):
                got = shown(repr(show_arguments))
                raise TypeError(f"{cls.__qualname__}: show_arguments= is True or False, got {got}")
            cls._shows_arguments = show_arguments
        if marks_of(cls, "lifespan") is not None:
            raise TypeError(
                f"{cls.__qualname__}.lifespan is what surrounds the service's life, and not for others to call"
            )
        for attribute in dir(cls):
            if marks_of(cls, attribute) is not None:
                _adopt(cls, attribute)
                served_function(cls, attribute)

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """Surround the time in which the service is served: override it to open what the service needs, and close it.

        ::

            @contextlib.asynccontextmanager
            async def lifespan(self) -> AsyncGenerator[None]:
                async with open_database() as self.database:
                    yield

        :func:`seqrpc.serve` enters it before the address can be connected to, and leaves it when all handlers,
        streams and objects of the server have ended; so does :func:`seqrpc.connect` with what it is given as
        ``services=``, for its connection. An object that is served at two addresses is entered for each. Several
        services are entered in the order in which they are given, and left in the reverse order.

        Each is entered and left in one task of its own, so that task groups, ``asyncio.timeout`` and anyio's cancel
        scopes may surround the ``yield``. Context variables that it sets are not seen by handlers. One that ends
        before its server, as by a task group of which a task failed, closes the server.

        What it raises at the start is raised by ``serve``, and nobody is served. What it raises at the end is
        logged, and raised by ``close``, ``drain`` and ``wait_closed`` once everything is closed; of several the first.
        The ends together have ``lifespan_timeout`` seconds, but ``close_timeout`` each at least; then they are
        cancelled. No exception of the server's block, or of another service, is thrown into it. Tasks that it starts
        may close the server: they wait until nothing else runs, but for no lifespan.

        What it yields is not used. It is not called for objects that are given away (they have :meth:`close`), nor in
        a forked child, where it never ends. It cannot be called from the other side.
        """
        return _NOTHING

    async def close(self) -> None:
        """Clean up: called once nobody holds the object any more, when it was given away as a channel.

        It is called also if the object never arrived where it was sent, so that nobody ever held it.

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


class RemoteService:
    """Base of proxies of all kinds: it looks like a service, and calls the one at the other side."""

    __slots__ = ()


def _check_name(cls: type[Service]) -> None:
    name: object = cls.service_name
    if not isinstance(name, str):
        raise TypeError(f"{cls.__qualname__}: name= takes text, as 'org.example.{cls.__name__}', got {name!r}")
    if not name or name.startswith((".", "rpc.")) or name.endswith(".") or name == "rpc":
        why = "it neither begins nor ends with a dot, is not empty, and not under 'rpc', which is reserved"
        raise ValueError(f"{cls.__qualname__}: not a service name: {name!r}; {why}")


def shows_arguments(cls: type[Service]) -> bool:
    """Return whether those who watch the calls of a service are told the arguments."""
    return cls._shows_arguments


_adopting: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = []
"""What makes of a function what is called on the object itself; on the floor above this module."""


def adopt_with(make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Let ``make`` make what is called on the object in place of a function that overrides a marked one."""
    _adopting[:] = [make]


def _adopt(cls: type, name: str) -> None:
    """Make an override of a marked method what the method is on the object itself: whoever calls it awaits it."""
    own = vars(cls).get(name)
    if inspect.isfunction(own) and not isinstance(getattr(own, _MARK, None), Marks):
        for make in _adopting:
            setattr(cls, name, make(own))


def mark(function: Callable[..., Any], marks: Marks) -> Callable[..., Any]:
    """Mark a function; return it."""
    setattr(function, _MARK, marks)
    return function


def marks_of(cls: type, name: str) -> Marks | None:
    """Return the marks of a method of ``cls``; the nearest win, of ``allow`` and ``errors`` those that are said."""
    # Of what is made of functions, too, such as properties: it cannot be served, and whoever wrote it is to be told.
    attributes = [vars(base)[name] for base in cls.__mro__ if name in vars(base)]
    layers = itertools.chain.from_iterable(map(layers_within, attributes))
    found = [marks for layer in layers if isinstance(marks := getattr(layer, _MARK, None), Marks)]
    if not found:
        return None
    allow = next((marks.allow for marks in found if marks.allow is not None), None)
    errors = next((marks.errors for marks in found if marks.errors), ())
    return Marks(allow, found[0].oneway, found[0].idempotent, errors)


def served_function(cls: type, name: str) -> Callable[..., Any] | None:
    """Return the function of a class that is served under a name; None if a class took away what its base serves.

    Raises:
        TypeError: it is marked, and cannot be served.
    """
    attribute = inspect.getattr_static(cls, name)
    where = f"{cls.__qualname__}.{name}"
    if attribute is None:
        return None
    if not inspect.isfunction(attribute):
        kind = type(attribute).__name__
        raise TypeError(f"{where}: only plain methods can be called, and this is a {kind}: write a 'def' that uses it")
    if hides_thread(attribute):
        raise TypeError(f"{where}: put @seqrpc.method above the other decorators of a plain function")
    return served(attribute)


class PlainService(Service):
    """Base of interfaces of plain functions, in which ``Iterator`` says what ``AsyncIterator`` says in others.

    No object of such a class is served; proxies that block are made of it (:class:`seqrpc.blocking.Interface`).
    """
