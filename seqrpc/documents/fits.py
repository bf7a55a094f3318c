"""Whether whatever fits one type fits another, on the wire: a float takes integers, a ``str`` takes dates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from seqrpc.documents.raw import DocumentError
from seqrpc.documents.trees import (
    AliasOf,
    Anything,
    Bounds,
    BufferType,
    Coded,
    Constrained,
    EnumOf,
    Field,
    Fields,
    FlagOf,
    ListOf,
    LiteralOf,
    MapOf,
    Memory,
    Ref,
    Scalar,
    StreamOf,
    TupleOf,
    Type,
    UnionOf,
)
from seqrpc.documents.ways import MOST_COMPARED

_NO_BOUNDS: Final = Bounds()

_DEEPEST: Final = 100  # levels of types in one another, and in the classes that they name

_TEXTS: Final = frozenset({"str", "date", "time", "timedelta", "UUID", "Decimal"})

_TAKES: Final[dict[str, frozenset[str]]] = {
    "float": frozenset({"float", "int"}),
    "str": _TEXTS,
    "bytes": frozenset({"bytes", "bytearray"}),
    "bytearray": frozenset({"bytes", "bytearray"}),
}
"""What scalars take besides themselves."""

_LOWER: Final = ("ge", "gt", "min_length")
_UPPER: Final = ("le", "lt", "max_length")


class Choice(NamedTuple):
    """A type that is no union, no name and has no bounds."""

    type: Type
    bounds: Bounds
    """Those that it had."""

    name: str
    """The name that it has in the document, or nothing."""


def choices_of(found: Type, schemas: Mapping[str, Type]) -> Iterator[Choice]:
    """Yield what a type may be."""
    todo = [Choice(found, _NO_BOUNDS, "")]
    while todo:
        part, bounds, name = todo.pop()
        if isinstance(part, Constrained):
            todo.append(Choice(part.inner, part.bounds, ""))
        elif isinstance(part, AliasOf):
            todo.append(Choice(part.target, bounds, ""))
        elif isinstance(part, Ref):
            todo.append(Choice(schemas[part.name], bounds, part.name))
        elif isinstance(part, UnionOf):
            todo += (Choice(choice, bounds, "") for choice in reversed(part.choices))
        else:
            yield Choice(part, bounds, name)


class Fits:
    """Compares types of two documents.

    Args:
        wide: the schemas of the document whose types are to take.
        narrow: those of the one whose types are to be taken.
    """

    def __init__(self, wide: Mapping[str, Type], narrow: Mapping[str, Type]) -> None:
        """Begin."""
        self._wide = wide
        self._narrow = narrow
        self._known: dict[tuple[int, int], bool] = {}  # of types that hold themselves, also what is being found out
        self._left = MOST_COMPARED
        self._depth = 0

    def takes(self, wide: Type, narrow: Type) -> bool:
        """Return whether whatever fits ``narrow`` fits ``wide``.

        Raises:
            DocumentError: there is too much to compare.
        """
        key = (id(wide), id(narrow))
        if key in self._known:
            return self._known[key]
        if self._depth > _DEEPEST:  # of classes in one another: nobody looks further, so nobody says that it fits
            return False
        before = len(self._known)
        self._known[key] = True
        self._depth += 1
        into = list(choices_of(wide, self._wide))
        fits = all(self.takes_choice(into, choice) for choice in choices_of(narrow, self._narrow))
        self._depth -= 1
        if not fits:
            for later in list(self._known)[before:]:  # what was found to fit since may rest on that this does
                if self._known[later]:
                    del self._known[later]
            self._known[key] = False
        return fits

    def takes_choice(self, into: Sequence[Choice], choice: Choice) -> bool:
        """Return whether one of some choices takes another.

        Raises:
            DocumentError: there is too much to compare.
        """
        self._left -= len(into)
        if self._left < 0:
            raise DocumentError(f"there are more than {MOST_COMPARED} pairs of types to compare in these documents")
        alone = is_only_class(into)
        return any(
            self._takes_one(one.type, choice.type, alone=alone) and bounds_take(one.bounds, choice.bounds)
            for one in into
        )

    def _takes_one(self, wide: Type, narrow: Type, *, alone: bool) -> bool:
        if isinstance(wide, Coded) or isinstance(narrow, Coded):
            return isinstance(wide, Anything) or self._takes_coded(wide, narrow)
        if isinstance(wide, ListOf | TupleOf):
            return self._array_takes(wide, narrow)
        if isinstance(wide, MapOf):
            return self._map_takes(wide, narrow)
        if isinstance(wide, StreamOf):
            return isinstance(narrow, StreamOf) and self.takes(wide.item, narrow.item)
        if isinstance(wide, Fields):
            return isinstance(narrow, Fields) and self._fields_take(wide, narrow, alone=alone)
        return isinstance(wide, Anything) or _leaf_takes(wide, narrow)

    def _takes_coded(self, wide: Type, narrow: Type) -> bool:
        """Return whether they are of one class, or the wide one is what the narrow one travels as."""
        if isinstance(wide, Coded):
            return (
                isinstance(narrow, Coded)
                and narrow.class_name == wide.class_name
                and self.takes(wide.inner, narrow.inner)
            )
        return isinstance(narrow, Coded) and "Path" not in narrow.class_name and self.takes(wide, narrow.inner)

    def _array_takes(self, wide: ListOf | TupleOf, narrow: Type) -> bool:
        if isinstance(wide, TupleOf):
            if not isinstance(narrow, TupleOf) or len(narrow.items) != len(wide.items):
                return False
            return all(map(self.takes, wide.items, narrow.items))
        if isinstance(narrow, TupleOf):
            return wide.kind in ("list", "tuple") and all(self.takes(wide.item, item) for item in narrow.items)
        return isinstance(narrow, ListOf) and list_takes(wide.kind, narrow.kind) and self.takes(wide.item, narrow.item)

    def _map_takes(self, wide: MapOf, narrow: Type) -> bool:
        if isinstance(narrow, MapOf):
            return self.takes(wide.key, narrow.key) and self.takes(wide.value, narrow.value)
        return (
            isinstance(narrow, Fields)
            and not narrow.is_array
            and narrow.tag is None
            and any(
                isinstance(key, Anything) or key == Scalar("str")
                for key, _bounds, _name in choices_of(wide.key, self._wide)
            )
            and all(self.takes(wide.value, field.type) for field in narrow.fields)
        )

    def _fields_take(self, wide: Fields, narrow: Fields, *, alone: bool) -> bool:
        if wide.is_array != narrow.is_array or not tags_take(wide, narrow, alone=alone):
            return False
        given = by_place(narrow)
        for place, field in by_place(wide).items():
            other = given.pop(place, None)
            if other is None or (field.required and not other.required):
                if field.required:
                    return False
                continue
            if not self.takes(field.type, other.type):
                return False
        return not given or ignores_more(wide)


def _leaf_takes(wide: Type, narrow: Type) -> bool:
    """Return whether a type without parts takes another."""
    if isinstance(wide, Scalar):
        return _scalar_takes(wide.name, narrow)
    if isinstance(wide, LiteralOf | EnumOf | FlagOf):
        return values_take(wide, narrow)
    if isinstance(wide, Memory):
        return isinstance(narrow, Memory | BufferType) or _scalar_takes("bytes", narrow)
    return wide == narrow


def is_only_class(choices: Sequence[Choice]) -> bool:
    """Return whether at most one of some choices is a class with fields: then a map needs no tag to be told apart."""
    return sum(isinstance(choice.type, Fields) for choice in choices) <= 1


def tags_take(wide: Fields, narrow: Fields, *, alone: bool) -> bool:
    """Return whether a class takes objects of another one, by their tags; ``alone`` if no other class stands beside it.

    A tag that comes has to be the right one. A map need not have one where only one class is expected.
    """
    if wide.is_array or wide.tag == narrow.tag:
        return wide.tag == narrow.tag
    if narrow.tag is None:
        return alone
    return wide.tag is None and not wide.forbids_unknown


def by_place(found: Fields) -> dict[int | str, Field]:
    """Return fields by what says on the wire which they are: their names, or their numbers."""
    if found.is_array:
        return dict(enumerate(found.fields))
    return {field.wire_name: field for field in found.fields}


def ignores_more(found: Fields) -> bool:
    """Return whether a class takes objects that have more fields."""
    return not found.forbids_unknown and found.kind != "namedtuple"


def list_takes(wide: str, narrow: str) -> bool:
    """Return whether any number of values of one kind are taken as another: sets are bounded, and lists are not."""
    return wide in ("list", "tuple") or narrow in ("set", "frozenset")


def values_of(found: Type) -> set[tuple[type, Any]] | None:
    """Return the values of a literal or an enum, each with its class; None of what is neither."""
    if isinstance(found, LiteralOf):
        return {(type(value), value) for value in found.values}
    return {(type(value), value) for _name, value in found.members} if isinstance(found, EnumOf) else None


def bits_of(found: FlagOf) -> int:
    """Return the bits that flags have."""
    bits = 0
    for _name, value in found.members:
        bits |= value
    return bits


def values_take(wide: Type, narrow: Type) -> bool:
    """Return whether a literal, an enum or flags take whatever another one is."""
    if isinstance(wide, FlagOf) or isinstance(narrow, FlagOf):
        both = isinstance(wide, FlagOf) and isinstance(narrow, FlagOf)
        return both and not bits_of(narrow) & ~bits_of(wide)  # type: ignore[arg-type] # both are flags
    taken, given = values_of(wide), values_of(narrow)
    return taken is not None and given is not None and given <= taken


def _scalar_takes(wide: str, narrow: Type) -> bool:
    if isinstance(narrow, Scalar):
        return narrow.name in _TAKES.get(wide, {wide})
    if isinstance(narrow, FlagOf):
        return wide in ("int", "float")
    kinds = {int: ("int", "float"), str: ("str",), bool: ("bool",), type(None): ("None",)}
    values = values_of(narrow)
    return values is not None and all(wide in kinds[kind] for kind, _value in values)


def bounds_take(wide: Bounds, narrow: Bounds) -> bool:
    """Return whether bounds take whatever is within others."""
    for names, sign in ((_LOWER, 1), (_UPPER, -1)):
        for name in names:
            if not _limit_takes(getattr(wide, name), narrow, name, sign):
                return False
    for name in ("pattern", "multiple_of", "tz"):
        bound = getattr(wide, name)
        if bound is not None and bound != getattr(narrow, name) and not _is_multiple(name, bound, narrow):
            return False
    return True


def _limit_takes(limit: float | None, narrow: Bounds, name: str, sign: int) -> bool:
    """Return whether a limit takes what is within other bounds."""
    if limit is None:
        return True
    same = getattr(narrow, name)
    if same is not None:
        return bool((same - limit) * sign >= 0)
    other_name = {"ge": "gt", "gt": "ge", "le": "lt", "lt": "le"}.get(name)
    other = None if other_name is None else getattr(narrow, other_name)
    if other is None:
        return False
    return bool((other - limit) * sign > 0 or (name in ("ge", "le") and other == limit))


def _is_multiple(name: str, bound: Any, narrow: Bounds) -> bool:
    return name == "multiple_of" and narrow.multiple_of is not None and narrow.multiple_of % bound == 0
