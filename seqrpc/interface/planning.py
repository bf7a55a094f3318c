"""Shapes to types as msgspec takes them: what it cannot have is swapped for a stand-in.

To msgspec :class:`~seqrpc.OwnedFd` is a type that it does not know, and such a type may not share a union with
anything but None. Where an annotation says more (``OwnedFd | str``, a stream of some type, a service), that part, and
the object around it, are swapped (:mod:`seqrpc.interface.standins`).
"""

from __future__ import annotations

import functools
import operator
import typing
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from seqrpc.interface.annotations import shape_of
from seqrpc.interface.contents import LIVING, composed, has_bounds, inner_of, shapes_in, spelling
from seqrpc.interface.sets import EachBounds, FieldBounds, SetBounds
from seqrpc.interface.shapes import (
    Alias,
    Anything,
    Array,
    Coded,
    Constrained,
    FixedTuple,
    Map,
    Memory,
    Object,
    Scalar,
    ServiceObject,
    Shape,
    Stream,
    Union,
    Wire,
    name_of,
)
from seqrpc.interface.standins import (
    AliasStandIn,
    CodedStandIn,
    MapStandIn,
    MemoryStandIn,
    ObjectStandIn,
    Planned,
    ServiceStandIn,
    SetStandIn,
    StandIn,
    StreamStandIn,
    UnionStandIn,
)

_MEMORY: Final = MemoryStandIn()

_TEXTS: Final = frozenset({Wire.STR, Wire.BYTES, Wire.TIME})


def plan(annotation: Any) -> Planned:
    """Return what values are converted to in place of ``annotation``.

    Raises:
        TypeError: such values cannot be sent; the message says why.
    """
    return plan_shape(shape_of(annotation))


def plan_shape(shape: Shape, *, looking: bool = False) -> Planned:
    """Return what values are converted to in place of a shape.

    Args:
        shape: what an annotation says.
        looking: whether values of this side, taken apart, are only to be looked at: no code of the application's runs.

    Raises:
        TypeError: msgspec cannot convert to it; the message says why.
    """
    planner = _Planner(shape, looking=looking)
    planned = planner.planned(shape)
    planner.finish()
    try:
        msgspec.inspect.type_info(planned.kind)  # says what msgspec cannot have, before anything has come
    except Exception as exc:  # such as UnicodeEncodeError, of a member of an enum
        raise TypeError(f"{str(exc) or type(exc).__name__}: write a type that MessagePack has") from exc
    return planned


def plan_struct(name: str, fields: Iterable[tuple[str, Planned, Any]], **options: Any) -> Planned:
    """Return what a map or an array of values is converted to, as a Struct.

    Args:
        name: that of the Struct.
        fields: of each value its name, what it is converted to, and what :func:`msgspec.field` says of its default.
        options: as for :func:`msgspec.defstruct`.
    """
    given = list(fields)
    struct = msgspec.defstruct(name, [(field, planned.kind, default) for field, planned, default in given], **options)
    bounds = FieldBounds({field: planned.bounds for field, planned, _default in given})
    return Planned(struct, bounds=bounds or None)


def listed(planned: Planned) -> Planned:
    """Return what a list of values is converted to."""
    if planned.listed is None:
        bounds = planned.bounds
        planned.listed = Planned(list[planned.kind], bounds=EachBounds(bounds) if bounds else None)  # type: ignore[name-defined]
    return planned.listed


class _Planner:
    """Plans one shape, with all in it."""

    def __init__(self, root: Shape, *, looking: bool) -> None:
        """Find out what msgspec cannot have as it is: what holds such a shape is such a one, too."""
        self._looking = looking
        self._types: dict[int, Any] = {}
        self._planned: dict[int, Planned] = {}
        self._unmirrored: list[tuple[ObjectStandIn, Object]] = []  # of many classes, each may lead to the next
        parents: dict[int, list[int]] = {}
        shapes = {id(shape): shape for shape in shapes_in(root)}
        for number, shape in shapes.items():
            for part in shape.parts:
                parents.setdefault(id(part), []).append(number)
        marked = [number for number, shape in shapes.items() if _is_foreign(shape, looking=looking)]
        self._foreign = self._counted = _closure(parents, marked)
        if looking:  # whoever gets such values has msgspec convert some that are only looked at here
            marked = [number for number, shape in shapes.items() if _is_foreign(shape, looking=False)]
            self._counted = _closure(parents, marked)
        self._apart = {
            number
            for number in self._foreign
            if isinstance(shapes[number], Object | Alias | Coded | Stream) or _makes_keys(shapes[number])
        }

    def finish(self) -> None:
        """Plan the fields of the objects in what was planned."""
        for made, shape in self._unmirrored:  # which grows
            made.mirror(self._mirror(shape))

    def planned(self, shape: Shape) -> Planned:
        """Return what a shape is converted to."""
        made = self._planned.get(id(shape))
        if made is None:
            made = self._planned[id(shape)] = Planned(None, shape)
            made.kind = self._type_of(shape)
            if id(shape) not in self._apart:  # else its parts are looked at when they are converted
                made.bounds = SetBounds(shape, self._apart) or None
        return made

    def _type_of(self, shape: Shape) -> Any:
        """Return the type that msgspec is given, or the stand-in."""
        known = self._types.get(id(shape))
        if known is not None:
            return known
        if id(shape) not in self._foreign:
            made: Any = spelling(shape)
        elif isinstance(shape, Object):
            made = ObjectStandIn(shape)
            made.is_counted = id(shape) in self._counted
            self._unmirrored.append((made, shape))
        elif isinstance(shape, Alias):
            made = self._types[id(shape)] = AliasStandIn()
            assert shape.target is not None
            made.name(self.planned(shape.target))
        else:
            made = self._stand_in(shape) or self._rebuilt(shape)
        self._types[id(shape)] = made
        return made

    def _stand_in(self, shape: Shape) -> StandIn | None:
        """Return what stands in for a shape that leads to itself by nothing but its parts; None for all else."""
        if isinstance(shape, Stream):
            return StreamStandIn(self.planned(shape.item))
        if isinstance(shape, Coded):
            return CodedStandIn(shape, self.planned(shape.inner))
        if isinstance(shape, Map) and _makes_keys(shape):
            whole = Planned(dict, bounds=SetBounds(shape, {id(shape.key), id(shape.value)}) or None)
            return MapStandIn(whole, listed(self.planned(shape.key)), listed(self.planned(shape.value)))
        if isinstance(shape, Array) and _may_have_lists(shape):
            return SetStandIn(Planned(composed(shape, tuple(map(self._type_of, shape.parts))), shape))
        if isinstance(shape, ServiceObject):
            return ServiceStandIn(shape.annotation)
        return _MEMORY if isinstance(shape, Memory) else None

    def _rebuilt(self, shape: Shape) -> Any:
        """Return the type of a shape whose parts are swapped."""
        if isinstance(shape, Union):
            return self._union(shape)
        parts = tuple(map(self._type_of, shape.parts))
        if isinstance(shape, Constrained) and isinstance(parts[0], StandIn) and any(map(has_bounds, shape.metas)):
            name = name_of(shape.inner.annotation)
            raise TypeError(f"bounds cannot be checked on {name}: write them beside what is in it")
        return composed(shape, parts)

    def _union(self, shape: Union) -> Any:
        made = [self._type_of(choice) for choice in shape.parts]
        if not _needs_stand_in(shape, made, also_uncounted=True):
            return functools.reduce(operator.or_, made)
        self._apart.add(id(shape))
        choices = sorted(shape.parts, key=_how_wide)
        stand_in = UnionStandIn([(choice.wires, self.planned(choice)) for choice in choices])
        stand_in.is_counted = id(shape) in self._counted and _needs_stand_in(shape, made, also_uncounted=False)
        return stand_in

    def _mirror(self, shape: Object) -> Planned:
        """Return a Struct with the fields of an object; what is not given is UNSET."""
        names = {f"field{number}": field for number, field in enumerate(shape.fields)}
        fields = [
            (
                name,
                self._type_of(field.shape),
                msgspec.field() if field.is_required else msgspec.field(default=msgspec.UNSET),
            )
            for name, field in names.items()
        ]
        config = getattr(shape.cls, "__struct_config__", None)
        tag = shape.tag
        struct = msgspec.defstruct(
            shape.cls.__name__,
            fields,
            kw_only=True,
            array_like=shape.is_array,
            rename={name: field.wire_name for name, field in names.items()},
            forbid_unknown_fields=config is not None and config.forbid_unknown_fields,
            tag_field=None if tag is None else tag[0],
            tag=None if tag is None else tag[1],
        )
        bounds = SetBounds(shape, self._apart)
        return Planned(struct, shape, bounds or None)


def _closure(parents: dict[int, list[int]], numbers: Iterable[int]) -> set[int]:
    """Return the numbers, and those of all in which they are."""
    found: set[int] = set()
    todo = list(numbers)
    while todo:
        number = todo.pop()
        if number not in found:
            found.add(number)
            todo += parents.get(number, ())
    return found


def _is_foreign(shape: Shape, *, looking: bool) -> bool:
    """Return whether msgspec cannot have a shape, whatever its parts are."""
    if isinstance(shape, Union):
        return shape.is_respelled or not takes_union(shape)
    if isinstance(shape, Object):
        runs_code = shape.runs_code and (looking or not hasattr(shape.cls, "__post_init__"))
        return shape.is_respelled or runs_code
    if isinstance(shape, Coded):
        return shape.is_respelled or looking
    if _makes_keys(shape) or (isinstance(shape, Array) and _may_have_lists(shape)):
        return True
    return shape.is_respelled or isinstance(shape, Alias | Stream | ServiceObject | Memory)


def _makes_keys(shape: Shape) -> bool:
    """Return whether it is a map, and its keys are not what msgspec makes of strings."""
    todo = [shape.key] if isinstance(shape, Map) else []
    while todo:
        key = todo.pop()
        if isinstance(key, Coded | Alias) or (isinstance(key, Union) and (key.is_respelled or not takes_union(key))):
            return True
        if isinstance(key, Constrained | Union):
            todo += key.parts
    return False


def _may_have_lists(shape: Array) -> bool:
    """Return whether it is a set in which there may be what is a tuple here and an array on the wire."""
    return shape.kind in (set, frozenset) and any(isinstance(part, Anything) for part in shapes_in(shape.item))


def _needs_stand_in(shape: Union, made: list[Any], *, also_uncounted: bool) -> bool:
    """Return whether msgspec cannot have a union of such types.

    Args:
        shape: the union.
        made: of each choice the type, or what stands in for it.
        also_uncounted: whether what stands in only where values are looked at is none that msgspec knows, too.
    """
    origins = [getattr(one, "__origin__", one) for one in made]
    unknown = sum(
        (isinstance(one, StandIn) and (also_uncounted or one.is_counted)) or _is_unknown(choice)
        for one, choice in zip(origins, shape.parts, strict=True)
    )
    besides_none = sum(one is not type(None) for one in made)
    return (bool(unknown) or not takes_union(shape)) and not unknown == besides_none == 1


def _is_unknown(choice: Shape) -> bool:
    """Return whether msgspec does not know the class of a shape."""
    return isinstance(inner_of(choice), (Coded, *LIVING))


def _how_wide(shape: Shape) -> int:
    """Return the order in which the choices of a union are tried: an integer fits a float, and everything fits Any."""
    shape = inner_of(shape)
    if isinstance(shape, Anything):
        return 2
    return int(isinstance(shape, Scalar) and shape.annotation is float)


def takes_union(shape: Union) -> bool:
    """Return whether msgspec can have a union, as far as that does not depend on what is in its choices."""
    choices = [choice for choice in shape.parts if choice.wires != {Wire.NIL}]
    inner = list(map(inner_of, choices))
    if any(_is_unknown(choice) or isinstance(choice, Alias | Anything) for choice in inner):
        return len(choices) == 1
    some_have_notes = any(isinstance(choice, Constrained) for choice in choices)
    if some_have_notes and any(
        isinstance(choice, FixedTuple | Object) and Wire.ARRAY in choice.wires for choice in inner
    ):
        return False  # msgspec would corrupt its memory
    if len({choice.is_array for choice in inner if isinstance(choice, Object) and choice.tag}) > 1:
        return False  # one tagged Struct is an array, and another a map
    texts = [choice for choice in inner if choice.wires & _TEXTS]
    return len(texts) < 2 or all(typing.get_origin(choice.annotation) is Literal for choice in texts)
