"""What stands beside names in source code: annotations resolved, each with what surrounds it."""

from __future__ import annotations

import builtins
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol

import msgspec


class Scope(msgspec.Struct, frozen=True, eq=False):
    """What surrounds an annotation."""

    names: Mapping[str, Any] = {}
    """What names mean in texts that stand for types."""

    bindings: Mapping[Any, tuple[Any, Scope]] = {}
    """What type variables are bound to: annotations, each with its own scope."""

    itself: tuple[Any, Scope] | None = None
    """What ``Self`` means, with its own scope, or None: nothing."""


NOWHERE = Scope()

_NOTHING = object()


def bases_of(cls: Any, arguments: tuple[Any, ...] = (), scope: Scope = NOWHERE) -> dict[type, Scope]:
    """Return the classes that a class is made of, itself first, each with the scope of what is written in it.

    Args:
        cls: the class.
        arguments: what its type variables are bound to, if it is a generic one and they are.
        scope: that of the arguments.
    """
    found: dict[type, Scope] = {}
    itself = cls[arguments] if arguments else cls

    def visit(base: Any, bound: tuple[Any, ...], around: Scope) -> None:
        if base in found or base in (Generic, Protocol, object):
            return
        variables = getattr(base, "__parameters__", ())
        bindings = {variable: (argument, around) for variable, argument in zip(variables, bound, strict=False)}
        found[base] = Scope(_names_in(base), bindings, (itself, scope))
        for written in base.__dict__.get("__orig_bases__", base.__bases__):
            origin = typing.get_origin(written) or written
            if isinstance(origin, type):
                visit(origin, typing.get_args(written), found[base])

    visit(cls, arguments, scope)
    return found


def _names_in(cls: type) -> dict[str, Any]:
    """Return what names mean in the annotations of a class: type variables, those of the module, Python's, the class's.

    A field or a method may be called as a type is: ``list``, ``date``.
    """
    module = sys.modules.get(cls.__module__)
    return {**vars(cls), **vars(builtins), **vars(module or object), **_type_parameters(cls)}


def _type_parameters(defined: Any) -> dict[str, Any]:
    """Return the type variables of ``class C[T]`` or ``def f[T]``, by name."""
    return {variable.__name__: variable for variable in getattr(defined, "__type_params__", ())}


def field_hints(cls: Any, bases: Mapping[type, Scope]) -> dict[str, tuple[Any, Scope]]:
    """Return the annotations of a class with fields, by their names, and the scope of each.

    Args:
        cls: the class.
        bases: what :func:`bases_of` tells of it.

    Raises:
        NameError, and whatever else text that stands for a type may raise.
    """
    hints: dict[str, tuple[Any, Scope]] = {}
    written: dict[str, Any] = {}
    # A TypedDict has no bases at run time, and the annotations of those that it was written with.
    for base in reversed(list(bases) if is_typed_dict(cls) else cls.__mro__):
        if base in bases:
            annotations = inspect.get_annotations(base)
            own = {name: hint for name, hint in annotations.items() if written.get(name, _NOTHING) is not hint}
            written |= own
            hints |= _in_scope(own, bases[base])
    attributes = getattr(cls, "__attrs_attrs__", ())
    return {**_in_scope({one.name: one.type for one in attributes if one.type is not None}, bases[cls]), **hints}


def is_typed_dict(cls: Any) -> bool:
    """Return whether a class is a ``TypedDict``, be it of typing or of typing_extensions."""
    return isinstance(cls, type) and issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def _in_scope(annotations: Mapping[str, Any], scope: Scope) -> dict[str, tuple[Any, Scope]]:
    return {name: (hint, scope) for name, hint in _resolved(annotations, scope, {}).items()}


def function_hints(function: Callable[..., Any], scope: Scope) -> dict[str, tuple[Any, Scope]]:
    """Return the annotations of a function, by the names of its parameters and ``return``, and the scope of each.

    Args:
        function: the function, which may be wrapped.
        scope: that of the class that it stands in.

    Raises:
        NameError, and whatever else text that stands for a type may raise.
    """
    plain = inspect.unwrap(function)
    own = getattr(plain, "__annotations__", {})
    around = getattr(plain, "__globals__", {})
    names = {**scope.names, **around, **{name: scope.names[name] for name in _bound_names(scope)}}
    inside = Scope({**names, **_type_parameters(plain)}, scope.bindings, scope.itself)
    return {name: (hint, inside) for name, hint in _resolved(own, inside, around).items()}


def _bound_names(scope: Scope) -> Iterator[str]:
    names = (str(variable.__name__) for variable in scope.bindings)
    return (name for name in names if name in scope.names)


def _resolved(annotations: Mapping[str, Any], scope: Scope, around: Mapping[str, Any]) -> dict[str, Any]:
    """Return annotations with their texts resolved."""
    written = type("Written", (), {"__annotations__": dict(annotations)})
    return typing.get_type_hints(written, dict(around), dict(scope.names), include_extras=True)


def resolve(text: str, scope: Scope) -> Any:
    """Return the type that a text stands for, within an annotation.

    Raises:
        NameError, and whatever else the text may raise.
    """
    return _resolved({"it": text}, scope, {})["it"]
