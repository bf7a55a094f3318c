"""Whether a function that is to say who may call can say so at all, as far as that shows before it is asked."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Union


def objection(function: object) -> str | None:
    """Return why a callable cannot be a function of one argument that answers True or False; None if it may be one.

    What it really answers shows only when it is asked.
    """
    if not callable(function):
        return "it cannot be called"
    if isinstance(function, type):
        return "it is a class"
    layers = list(_layers(function))
    if any(map(answers_later, layers)):
        return "it gives its answer later, and an answer is wanted at once"
    if not takes_one(function):
        return "it cannot be called with the caller alone, as 'lambda caller: ...' can"
    annotation = _result_of(layers[-1])
    if not _may_be_bool(annotation):
        return f"its answer is annotated as {inspect.formatannotation(annotation)}, and True or False is wanted"
    return None


def answers_later(function: object) -> bool:
    """Return whether calling a function gives a coroutine or a generator, and never a plain answer."""
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.isgeneratorfunction(function)
    )


def _layers(function: Any) -> Iterator[Any]:
    """Yield what is called when ``function`` is: it, what a partial object or a cache calls, an object's method."""
    while True:
        yield function
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "cache_info") and hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isroutine(function):
            return
        else:
            function = type(function).__call__


def takes_one(function: Callable[..., Any]) -> bool:
    """Return whether a callable can be called with one argument, as far as that is known."""
    try:
        # As it is: what a wrapper passes on to what it wraps is its own affair.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # some that are made in C have none
        return True
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True


def _result_of(function: Any) -> Any:
    """Return the annotation of a function's result, or Any where there is none, or it cannot be resolved."""
    if hasattr(function, "__wrapped__"):
        return Any  # what is written there is about what it wraps
    hints = getattr(function, "__annotations__", None) or {}
    if "return" not in hints:
        return Any
    alone = types.SimpleNamespace(__annotations__={"return": hints["return"]})  # others may not be resolved
    try:
        return typing.get_type_hints(alone, getattr(function, "__globals__", {}))["return"]
    except Exception:  # annotations that are text hold any expression
        return Any


def _may_be_bool(annotation: Any) -> bool:
    if annotation is Any or annotation is object or annotation is bool:
        return True
    for name in ("__supertype__", "__value__"):  # of a NewType, and of ``type X = ...``
        if hasattr(annotation, name):
            return _may_be_bool(getattr(annotation, name))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _may_be_bool(arguments[0])
    if origin in (Union, types.UnionType):
        return all(map(_may_be_bool, arguments))
    if origin is Literal:
        return all(isinstance(argument, bool) for argument in arguments)
    return not isinstance(annotation if origin is None else origin, type)  # of other forms nothing is known
