"""What is said of a method beside its signature, and of a service beside its methods, where functions are plain."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from seqrpc.errors import RpcError
from seqrpc.interface.methods import checked_errors
from seqrpc.interface.service import Marks, PlainService, mark
from seqrpc.text import shown

F = TypeVar("F", bound=Callable[..., Any])


def method(
    *, oneway: bool = False, idempotent: bool = False, errors: Iterable[type[RpcError]] = ()
) -> Callable[[F], F]:
    """Mark a method of an interface of plain functions, which describes a service to blocking proxies.

    :func:`seqrpc.method` makes a coroutine function of a plain one, which whoever serves it awaits; this one leaves it
    as it is, to type checkers, too. A method that has nothing to be said of needs no mark.

    ::

        class Lamp(Protocol):
            @seqrpc.blocking.method(idempotent=True)
            def is_on(self) -> bool: ...

    Args:
        oneway: proxies send it without waiting for an answer.
        idempotent: running it twice does no more than running it once: a connection that reconnects calls it again if
            the answer was lost with the last one.
        errors: classes of the errors that it raises on purpose, each with a code, for those who read of them.

    Raises:
        TypeError: it decorates something else than a plain function, or it is one-way, and idempotent or with errors.
    """
    if oneway and idempotent:
        raise TypeError(
            "@seqrpc.blocking.method: idempotent= is about calls whose answer is lost, and oneway= has no answers:"
            " take one"
        )
    declared = checked_errors("@seqrpc.blocking.method", errors)
    if oneway and declared:
        raise TypeError("@seqrpc.blocking.method: nobody hears of the errors of what is oneway=: leave out errors=")

    def marked(function: F) -> F:
        if not inspect.isfunction(function) or inspect.iscoroutinefunction(function):
            what = shown(repr(function))
            raise TypeError(
                f"@seqrpc.blocking.method(...) decorates plain functions, got {what}: of coroutine functions"
                " @seqrpc.method(...) says the same"
            )
        mark(function, Marks(None, oneway, idempotent, declared))
        return function

    return marked


class Interface(PlainService):
    """Base of interfaces of plain functions that say more than a class without a base can.

    ::

        class Lamp(seqrpc.blocking.Interface, name="org.example.Lamp"):
            @seqrpc.blocking.method()
            def changes(self) -> seqrpc.blocking.Stream[bool]:
                raise NotImplementedError

    The service may have any name on the wire, and the class may be the annotation of a result: an object that is given
    away comes as a proxy of it. Each method has its mark, :func:`seqrpc.blocking.method`. It is for callers: services
    and objects of this side derive from :class:`seqrpc.Service`.
    """

    if TYPE_CHECKING:  # what a proxy has; on this class itself nobody calls it

        def close(self) -> None:  # type: ignore[override] # a proxy that blocks is not awaited
            """Let go of the object behind a channel; a proxy of a whole connection holds nothing that is its own."""

        def __enter__(self) -> Self:
            """Return itself; it is closed at the end of the block."""

        def __exit__(
            self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
        ) -> None:
            """Close."""
