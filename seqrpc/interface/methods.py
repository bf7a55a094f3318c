"""Methods that others call: their mark, and what they are on the object itself, the same as on a proxy."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from seqrpc.errors import RpcError
from seqrpc.interface.annotations import is_stream
from seqrpc.interface.functions import Runs, call_plain, layers_within, result_annotation, stand_in, way_of
from seqrpc.interface.policy import Policy, PolicyLike, as_policy
from seqrpc.interface.service import Marks, adopt_with, mark
from seqrpc.interface.streams import LocalItems
from seqrpc.kernel.descriptors import close_all
from seqrpc.protocol.values import descriptors_in
from seqrpc.text import offered, shown

if TYPE_CHECKING:
    import os

    from seqrpc.interface.streams import ItemsOf

    # What a type checker takes an ``async def`` for, so that a plain function may override one. Only pyright knows
    # os.name, and mypy takes the first.
    if os.name != "posix":
        from collections.abc import Coroutine as Awaited
    else:
        from types import CoroutineType as Awaited

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A", bound=AsyncIterable[Any])
C = TypeVar("C", bound=Coroutine[Any, Any, Any])


class Marking(Protocol):
    """What ``@seqrpc.method(...)`` decorates with."""

    @overload
    def __call__(self, function: Callable[P, C], /) -> Callable[P, C]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap] # a stream is told from other results by its type
        self, function: Callable[P, A], /
    ) -> Callable[P, ItemsOf[A]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, Awaited[Any, Any, R]]: ...


@overload
def method(function: Callable[P, C], /) -> Callable[P, C]: ...
@overload
def method(  # type: ignore[overload-overlap] # as above
    function: Callable[P, A], /
) -> Callable[P, ItemsOf[A]]: ...
@overload
def method(function: Callable[P, R], /) -> Callable[P, Awaited[Any, Any, R]]: ...
@overload
def method(
    *,
    allow: PolicyLike | None = None,
    oneway: bool = False,
    idempotent: bool = False,
    errors: Iterable[type[RpcError]] = (),
) -> Marking: ...


def method(
    function: Callable[..., Any] | None = None,
    /,
    *,
    allow: PolicyLike | None = None,
    oneway: bool = False,
    idempotent: bool = False,
    errors: Iterable[type[RpcError]] = (),
    **unknown: object,
) -> Any:
    """Mark a method of a :class:`Service` as callable from the other side.

    A coroutine function runs on the loop, a plain function in a thread; an async generator is a stream of results.

    On the object itself the method is called as on a proxy. A plain function becomes a coroutine function: awaiting it
    runs it in a thread of the loop's (``asyncio.to_thread``), which a cancelled caller waits for. An async
    generator becomes a function that gives :class:`seqrpc.Items`, and so does a plain function whose result is
    annotated as a stream. Coroutine functions are unchanged. The function as it is written is its ``__wrapped__``; the
    server calls that, plain functions in its own threads.

    Arguments that do not fit the annotations are answered with ``rpc.InvalidParams``. The text of a ValueError or
    TypeError that a class of an argument raises in its ``__post_init__`` is part of that answer; other exceptions are
    ``rpc.Internal``, and tell nothing.

    Args:
        function: what is decorated. One that wraps another (``functools.wraps``) runs as that one does.
        allow: who may call it: a policy, or a function of the caller's credentials. By default what the
            class says, else the server, else :data:`seqrpc.policy.default`.
        oneway: proxies send it without waiting for an answer (NOTIFY); it returns None.
        idempotent: running it twice does no more than running it once: it only looks at something, or sets it to what
            is given. A connection that reconnects calls such a method again if the answer was lost with the last one.
            Of a method that streams this is the call that opens the stream.
        errors: classes of the errors that it raises on purpose, each with a code, for those who read what
            ``rpc.discover`` answers. Others that it raises are sent as well.
        unknown: nothing; whoever mistypes a name is told what was meant.

    Raises:
        TypeError: it decorates something else than a function, or is told something else; or it is one-way, and
            idempotent or with errors.
    """
    for name in unknown:
        known = ("allow", "oneway", "idempotent", "errors")
        text = f"@seqrpc.method takes allow=, oneway=, idempotent= and errors=, not {name}={offered(name, known)}"
        raise TypeError(text)
    if isinstance(function, Policy):
        raise TypeError(f"@seqrpc.method decorates functions, got {function!r}: write @seqrpc.method(allow=...)")
    if oneway and idempotent:
        raise TypeError(
            "@seqrpc.method: idempotent= is about calls whose answer is lost, and oneway= has no answers: take one"
        )
    declared = checked_errors("@seqrpc.method", errors)
    if oneway and declared:
        raise TypeError("@seqrpc.method: nobody hears of the errors of what is oneway=: leave out errors=")
    marks = Marks(None if allow is None else as_policy(allow), oneway, idempotent, declared)

    def marked(function: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.isfunction(function):
            what = _named(function)
            raise TypeError(f"@seqrpc.method decorates functions, got {what}: write a 'def' that uses it")
        return mark(_on_the_object(function), marks)

    return marked if function is None else marked(function)


def checked_errors(decorator: str, errors: Any) -> tuple[type[RpcError], ...]:
    """Return the classes of errors that a method declares, each once.

    Args:
        decorator: that which was told them, for the messages.
        errors: what it was told.

    Raises:
        TypeError: they are no classes of errors with codes.
    """
    if isinstance(errors, type) or not isinstance(errors, Iterable):
        name = errors.__name__ if isinstance(errors, type) else shown(repr(errors))
        raise TypeError(f"{decorator}: errors= takes a list, got {name}: write errors=[{name}]")
    declared = tuple(dict.fromkeys(errors))
    for error in declared:
        if not isinstance(error, type) or not issubclass(error, RpcError):
            raise TypeError(f"{decorator}: errors= takes subclasses of seqrpc.RpcError, got {shown(repr(error))}")
        if not error.code:
            name = error.__name__
            raise TypeError(f"{decorator}: errors= takes errors with a code: write class {name}(..., code='...')")
    return declared


def _named(what: object) -> str:
    """Return what something is that is no function, and of which function it is made."""
    functions = [layer.__qualname__ for layer in layers_within(what) if inspect.isfunction(layer)]
    return f"a {type(what).__name__} of {functions[0]}" if functions else repr(what)


def _on_the_object(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what is called on the object itself in place of a function."""
    runs = way_of(function)
    if runs is Runs.COROUTINE:
        return function
    if runs is Runs.GENERATOR:
        return stand_in(function, lambda *args, **kwargs: LocalItems(function(*args, **kwargs)))
    if is_stream(result_annotation(function)):
        return stand_in(function, lambda *args, **kwargs: LocalItems(_items_from_thread(function, args, kwargs)))

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        return await _in_thread(function, args, kwargs)

    return stand_in(function, awaited)


adopt_with(_on_the_object)


async def _in_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a plain function in a thread of the loop's, and wait for it even if this is cancelled.

    Whoever called may close what the function was given as soon as this ends, and the thread is not to find something
    else under the number of a descriptor.
    """
    import asyncio  # noqa: PLC0415 - whoever awaits this has loaded it; who only declares services does without

    running = asyncio.ensure_future(asyncio.to_thread(call_plain, functools.partial(function, *args, **kwargs)))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is None:
        return running.result()
    if not running.cancelled() and running.exception() is None:
        close_all(descriptors_in(running.result()))  # nobody gets it
    raise cancelled


async def _items_from_thread(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncIterator[Any]:
    """Yield what a plain function's stream has; the function is called as the first item is asked for."""
    items = LocalItems(await _in_thread(function, args, kwargs))
    async with items:
        async for item in items:
            yield item
