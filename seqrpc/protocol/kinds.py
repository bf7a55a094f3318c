"""Kinds of values: which classes hold data in fields, and which lend descriptors.

It is known by a value's type, and the same to whoever takes values apart, looks through them, or lets go of them.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import msgspec

T = TypeVar("T")

_NO_NAMES: Final[dict[str, Any]] = {}

_CONTAINERS: Final = (tuple, list, dict, set, frozenset, enum.Enum)


def by_class(function: Callable[[type], T]) -> Callable[[type], T]:
    """Remember what a function tells of the classes that were asked about last, which are kept as long: 4,096."""
    return cast("Callable[[type], T]", functools.lru_cache(maxsize=4096)(function))


@by_class
def names_of(kind: type) -> tuple[str, ...] | None:
    """Return the names of the fields of a class: a Struct, a dataclass or one of attrs; None for all others.

    The fields are those that objects have, in their order, by their names in Python.
    """
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    attributes = getattr(kind, "__attrs_attrs__", None)
    if isinstance(attributes, tuple):
        return tuple(attribute.name for attribute in attributes)
    return None


@by_class
def may_be_unset(kind: type) -> bool:
    """Return whether an annotation of a class says that a field may be left out (``UnsetType``)."""
    return any("UnsetType" in str(note) for base in kind.__mro__ for note in inspect.get_annotations(base).values())


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return the fields that a Struct, a dataclass or an object of attrs has, by name; None for all else.

    A default that only the class has, as in objects that msgspec made, is a field as others are: it looks like one, and
    the receiver's own may be another.
    """
    names = names_of(type(value))
    if names is None:
        return None
    kind = type(value)
    own = getattr(value, "__dict__", _NO_NAMES)
    found: dict[str, Any] = {}
    for name in names:
        if name in own:
            part = own[name]
        else:
            part = getattr(kind, name, msgspec.UNSET)
            if inspect.ismemberdescriptor(part):  # a slot
                part = getattr(value, name, msgspec.UNSET)
            elif hasattr(type(part), "__get__"):  # what computes something
                continue
        if part is not msgspec.UNSET:
            found[name] = part
    return found


def lends_descriptor(value: Any) -> bool:
    """Return whether a value has a method ``fileno`` that lends a descriptor.

    A field, an entry or an enum's member of that name is data. So is a property, and what is answered later.
    """
    kind = type(value)
    has_method = _has_method(kind)
    if has_method is None:  # by an attribute of its own, or __getattr__, as the wrappers of tempfile have it
        return _is_method(getattr(value, "fileno", None))
    return has_method


def lends_by_class(kind: type) -> bool:
    """Return whether all objects of a class lend descriptors."""
    return _has_method(kind) is True


@by_class
def _has_method(kind: type) -> bool | None:
    """Return whether objects of a class lend descriptors; None if only the object itself can tell."""
    method = getattr(kind, "fileno", None)
    names = names_of(kind)
    if names is None and not issubclass(kind, (*_CONTAINERS, type)):
        if method is None:
            return None if hasattr(kind, "__getattr__") or "__dict__" in dir(kind) else False
        return _is_method(method)
    data = [*(names or ()), *getattr(kind, "_fields", ()), *getattr(kind, "__members__", ())]
    return not issubclass(kind, type) and "fileno" not in data and _is_method(method)


def _is_method(found: Any) -> bool:
    return callable(found) and not isinstance(found, type) and not inspect.iscoroutinefunction(found)
