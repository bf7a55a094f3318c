"""Sets, and maps with keys of a type, as annotations make them: how many elements may be chosen to collide.

The hashes of strings and byte strings have a secret in them, those of numbers, moments, UUIDs and tuples have none:
whoever chooses such elements can make all of them collide, and the time to make a set of them grows with the square of
their number. What msgpack makes has been counted (:mod:`seqrpc.protocol.maps`); here is what msgspec makes of it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import inspect

from seqrpc.protocol.typeinfo import parts_of

_SAFE: Final = (
    inspect.BoolType,
    inspect.ByteArrayType,
    inspect.BytesType,
    inspect.EnumType,  # is hashed by its name
    inspect.LiteralType,
    inspect.NoneType,
    inspect.StrType,
)
"""Types whose values have a secret in their hashes, or of which there are few."""

_AS_THEY_COME: Final = (*_SAFE, inspect.AnyType, inspect.IntType, inspect.FloatType)
"""Types that no string is converted to: what hashes without a secret was none when it came."""

_SETS: Final = (inspect.SetType, inspect.FrozenSetType)
_MAPS: Final = tuple(kind for kind in (inspect.DictType, getattr(inspect, "FrozenDictType", None)) if kind is not None)
_OBJECTS: Final = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.NamedTupleType)


class SetBounds:
    """Looks for sets and maps of too many elements in what is to be converted to a type.

    Args:
        planned: the type, as msgspec takes it.
    """

    __slots__ = ("_info", "_relevant")

    def __init__(self, planned: Any) -> None:
        """Find out where in values of the type there may be such sets."""
        self._info = inspect.type_info(planned)
        parents: dict[int, list[int]] = {}
        marked: list[int] = []
        todo, seen = [self._info], {id(self._info)}
        while todo:
            info = todo.pop()
            if _is_open(info):
                marked.append(id(info))
            for part in parts_of(info):
                parents.setdefault(id(part), []).append(id(info))
                if id(part) not in seen:
                    seen.add(id(part))
                    todo.append(part)
        self._relevant: set[int] = set()
        while marked:
            number = marked.pop()
            if number not in self._relevant:
                self._relevant.add(number)
                marked += parents.get(number, ())

    def __bool__(self) -> bool:
        """Return whether there is anything to look for."""
        return bool(self._relevant)

    def check(self, value: Any, most: int) -> None:
        """Look through plain data, where its type may have such sets.

        Args:
            value: what is to be converted.
            most: elements that each of them may have.

        Raises:
            msgspec.ValidationError: one has more.
        """
        self._check(self._info, value, most)

    def _check(self, info: Any, value: Any, most: int) -> None:
        if id(info) not in self._relevant:
            return
        if isinstance(info, inspect.Metadata):
            self._check(info.type, value, most)
        elif isinstance(info, inspect.UnionType):
            for choice in info.types:
                self._check(choice, value, most)
        elif isinstance(info, _OBJECTS):
            self._check_fields(info, value, most)
        elif isinstance(value, list | tuple):
            self._check_array(info, value, most)
        elif isinstance(value, dict) and isinstance(info, _MAPS):
            if _is_open(info):
                _check_size(value, most, all_count=True)
            for key, item in value.items():
                self._check(info.key_type, key, most)
                self._check(info.value_type, item, most)

    def _check_array(self, info: Any, value: list[Any] | tuple[Any, ...], most: int) -> None:
        if isinstance(info, inspect.TupleType):
            for part, item in zip(info.item_types, value, strict=False):
                self._check(part, item, most)
        elif isinstance(info, (*_SETS, inspect.ListType, inspect.VarTupleType, inspect.CollectionType)):
            if _is_open(info):
                _check_size(value, most, all_count=not _is_any(info.item_type, _AS_THEY_COME))
            if id(info.item_type) in self._relevant:
                for item in value:
                    self._check(info.item_type, item, most)

    def _check_fields(self, info: Any, value: Any, most: int) -> None:
        if _has_another_tag(info, value):
            return
        if isinstance(value, dict):
            for field in info.fields:
                if field.encode_name in value:
                    self._check(field.type, value[field.encode_name], most)
        elif isinstance(value, list | tuple):  # a named tuple, or a Struct that is written as an array
            offset = 1 if getattr(info, "tag", None) is not None else 0
            for field, item in zip(info.fields, value[offset:], strict=False):
                self._check(field.type, item, most)


def _has_another_tag(info: Any, value: Any) -> bool:
    """Return whether plain data is for another Struct of a union than this one."""
    tag = getattr(info, "tag", None)
    if tag is None:
        return False
    if isinstance(value, dict):
        return info.tag_field in value and value[info.tag_field] != tag
    return isinstance(value, list | tuple) and len(value) > 0 and value[0] != tag


def _is_open(info: Any) -> bool:
    """Return whether elements of a type can be chosen to collide; keys that came as such have been counted."""
    if isinstance(info, _SETS):
        return not _is_any(info.item_type, _SAFE)
    return isinstance(info, _MAPS) and not _is_any(info.key_type, _AS_THEY_COME)


def _is_any(info: Any, kinds: tuple[type, ...]) -> bool:
    """Return whether a type, and each choice of a union, is one of some kinds."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    if isinstance(info, inspect.UnionType):
        return all(_is_any(choice, kinds) for choice in info.types)
    return isinstance(info, kinds)


def _check_size(value: Any, most: int, *, all_count: bool) -> None:
    if len(value) <= most:
        return
    number = len(value) if all_count else sum(type(item) is not str and type(item) is not bytes for item in value)
    if number > most:
        raise msgspec.ValidationError(
            f"a set, or the keys of a map, of what is neither string nor byte string has at most {most} elements"
            f" (max_other_keys), got {number}"
        )
