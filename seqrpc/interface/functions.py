"""Functions that are served: how each runs, what wraps what, and what stands in their place on the object itself."""

from __future__ import annotations

import enum
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final

_SERVED: Final = "__seqrpc_function__"
"""The attribute of a stand-in that holds the function in whose place it stands."""


class Runs(enum.Enum):
    """How a method's function runs."""

    COROUTINE = "coroutine"
    """``async def``: on the event loop."""

    GENERATOR = "generator"
    """``async def`` with ``yield``: on the event loop, while its items are asked for."""

    THREAD = "thread"
    """``def``: in a thread."""


def way_of(function: Callable[..., Any]) -> Runs:
    """Return how a function runs: by what it is, or if it is a plain one that wraps another, by what that is.

    A plain function that wraps a coroutine function (``functools.wraps``) returns, as a rule, that one's coroutine.
    """
    for layer in layers_of(function):
        if inspect.isasyncgenfunction(layer):
            return Runs.GENERATOR
        if inspect.iscoroutinefunction(layer):
            return Runs.COROUTINE
    return Runs.THREAD


def layers_of(function: Any) -> Iterator[Any]:
    """Yield a function, what it wraps as ``functools.wraps`` says it, what that wraps, and so on."""
    seen: set[int] = set()
    while id(function) not in seen:  # whatever is written into __wrapped__
        yield function
        seen.add(id(function))
        function = getattr(function, "__wrapped__", function)


def stand_in(function: Callable[..., Any], what: Callable[..., Any]) -> Callable[..., Any]:
    """Make ``what`` look like ``function`` and stand in its place; return it.

    On the object itself it is what is called; the server calls the function.
    """
    functools.update_wrapper(what, function)
    setattr(what, _SERVED, function)
    return what


def served(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that is served where ``function`` is found in a class: it, or what it stands in for."""
    return function.__wrapped__ if _stands_in(function) else function  # type: ignore[attr-defined]


def _stands_in(function: Any) -> bool:
    # Who wraps a stand-in with functools.wraps copies its attributes, but does not stand where it stands.
    behind = getattr(function, _SERVED, None)
    return behind is not None and getattr(function, "__wrapped__", None) is behind


def hides_thread(function: Callable[..., Any]) -> bool:
    """Return whether a function wraps the stand-in of a plain one, so that it would be run where that one may not be.

    The stand-in awaits a thread that is not the server's, and that the server does not wait for when it closes
    descriptors.
    """
    _outermost, *below = layers_of(function)
    return any(_stands_in(layer) and way_of(served(layer)) is Runs.THREAD for layer in below)


def layers_within(attribute: Any) -> Iterator[Any]:
    """Yield an attribute of a class, and the functions that it is made of, as a property or a partial method is."""
    waiting, seen = [attribute], set[int]()
    while waiting:
        layer = waiting.pop(0)
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        for kind, names in _MADE_OF.items():
            if isinstance(layer, kind):
                waiting += [part for name in names if (part := getattr(layer, name, None)) is not None]


_MADE_OF: Final[dict[type, tuple[str, ...]]] = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
    functools.partial: ("func",),
    functools.partialmethod: ("func",),
    functools.singledispatchmethod: ("func",),
}


def wraps_wrongly(function: Callable[..., Any], wrapped: str, returned: object, wanted: str) -> TypeError:
    """Return what to raise for a plain function that wraps another one and does not return what that one does.

    Args:
        function: the function.
        wrapped: what it wraps.
        returned: what it returned; if that is a coroutine, it is closed: nobody awaits it.
        wanted: what it was to return.
    """
    if inspect.iscoroutine(returned):
        returned.close()
    name = function.__qualname__
    return TypeError(f"{name} wraps {wrapped}, and returned an object of {type(returned).__name__} and not {wanted}")


def result_annotation(function: Callable[..., Any]) -> Any:
    """Return the annotation of a function's result where it is written: so much of it as can be resolved yet.

    Of one that is text and names what is not defined yet, it is what stands before the brackets, or Any.
    """
    *_layers, innermost = layers_of(function)
    written = getattr(function, "__annotations__", {}).get("return", Any)
    if not isinstance(written, str):
        return written
    for text in (written, written.partition("[")[0]):
        alone = types.SimpleNamespace(__annotations__={"return": text})
        try:
            return typing.get_type_hints(alone, getattr(innermost, "__globals__", {}), include_extras=True)["return"]
        except Exception:  # noqa: S112 - annotations that are text hold any expression
            continue
    return Any


def call_plain(function: Callable[[], Any]) -> Any:
    """Call a plain function in its thread.

    A coroutine that it returns is nobody's: what it wraps was not to be recognized, or it forgot that it cannot await.
    Exceptions that must not end more than the call become RuntimeError: StopIteration, which no future can hold,
    and those that would stop the loop, such as SystemExit.
    """
    try:
        result = function()
    except BaseException as exc:
        if isinstance(exc, Exception) and not isinstance(exc, StopIteration):
            raise
        raise RuntimeError(f"a handler raised {type(exc).__name__}") from exc
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            f"{result.__qualname__} was called and not awaited: a plain function returned its coroutine; write it as"
            " 'async def', and a wrapper with functools.wraps"
        )
    return result
