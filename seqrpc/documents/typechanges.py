"""What changed in a type: walks through an old one and a new one side by side, as deep as they are the same kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from seqrpc.documents.fits import (
    Choice,
    Fits,
    bits_of,
    bounds_take,
    by_place,
    choices_of,
    ignores_more,
    is_only_class,
    list_takes,
    tags_take,
    values_of,
    values_take,
)
from seqrpc.documents.spellings import default_text, spelled
from seqrpc.documents.trees import (
    AliasOf,
    Bounds,
    Coded,
    Constrained,
    EnumOf,
    Field,
    Fields,
    FlagOf,
    ListOf,
    LiteralOf,
    MapOf,
    ObjectOf,
    Ref,
    Scalar,
    StreamOf,
    TupleOf,
    Type,
)
from seqrpc.documents.ways import Findings, Way
from seqrpc.text import shown

Objects = Callable[[str, str, Way], None]
"""Compares the interfaces of objects, by their keys in the old and in the new document."""

_MOST_NAMED: Final = 5  # values that a sentence names

_NO_BOUNDS: Final = Bounds()


class TypeChanges:
    """Compares the types of two documents.

    Args:
        old: the schemas of the old one.
        new: those of the new one.
        findings: where changes are noted.
        objects: compares what objects can do.
    """

    def __init__(self, old: Mapping[str, Type], new: Mapping[str, Type], findings: Findings, objects: Objects) -> None:
        """Begin."""
        self._old = old
        self._new = new
        self._findings = findings
        self._objects = objects
        self._waiting: list[tuple[Type, Type, str, Way]] = []
        self._old_takes = Fits(old, new)
        self._new_takes = Fits(new, old)

    def compare(self, old: Type, new: Type, path: str, way: Way) -> None:
        """Note what changed from one type to another.

        Args:
            old: as it was.
            new: as it is.
            path: where; what has the same name in both documents has its own.
            way: that of the values.

        Raises:
            DocumentError: there is too much to compare.
        """
        self._compare(old, new, path, way)
        for one, other, where, way_of in self._waiting:  # which grows: of many classes, each may lead to the next
            if isinstance(one, Fields) and isinstance(other, Fields):
                self._fields(one, other, where, way_of)
            else:
                self._contents(one, other, where, way_of)
        self._waiting.clear()

    def _later(self, old: Type, new: Type, path: str, way: Way) -> None:
        if self._findings.is_new(old, new, way):
            self._waiting.append((old, new, path, way))

    def _compare(self, old: Type, new: Type, path: str, way: Way) -> None:
        if isinstance(old, Ref) and isinstance(new, Ref):
            was, now = self._old[old.name], self._new[new.name]
            if isinstance(was, AliasOf) and isinstance(now, AliasOf):
                self._later(was, now, shown(old.name), way)
                return
        elif not self._findings.is_new(old, new, way):
            return
        self._contents(old, new, path, way)

    def _contents(self, old: Type, new: Type, path: str, way: Way) -> None:
        self._sensitive(old, new, path, way)
        olds, news = list(choices_of(old, self._old)), list(choices_of(new, self._new))
        matched: set[int] = set()
        for before, after in _matched(olds, news):
            matched |= {id(before), id(after)}
            if isinstance(before.type, Fields) and isinstance(after.type, Fields):
                where = shown(before.name) if before.name and after.name else path
                self._tags((before.type, is_only_class(olds)), (after.type, is_only_class(news)), where, way)
            self._pair(before, after, path, way)
        gone, come = ([one for one in some if id(one) not in matched] for some in (olds, news))
        self._rest(gone, come, (olds, news), path, way)

    def _sensitive(self, old: Type, new: Type, path: str, way: Way) -> None:
        was, now = (isinstance(one, Constrained) and one.bounds.sensitive for one in (old, new))
        if was != now:
            text = "it is secret" if now else "it is no longer secret"
            self._findings.add(path, text, "that is about what is logged, and not about what is sent", way)

    def _rest(
        self, gone: list[Choice], come: list[Choice], whole: tuple[list[Choice], list[Choice]], path: str, way: Way
    ) -> None:
        """Note what is only in one of two types."""
        olds, news = whole
        if len(gone) == 1 and len(come) == 1:
            text = f"it was {_told(gone[0])}, and is {_told(come[0])}"
            old_takes, new_takes = (
                self._old_takes.takes_choice(olds, come[0]),
                self._new_takes.takes_choice(news, gone[0]),
            )
            self._findings.differ(path, text, way, old_takes_new=old_takes, new_takes_old=new_takes)
            return
        for choice in gone:
            takes = self._new_takes.takes_choice(news, choice)
            text = f"it is no longer {_told(choice)}"
            self._findings.differ(path, text, way, old_takes_new=True, new_takes_old=takes)
        for choice in come:
            takes = self._old_takes.takes_choice(olds, choice)
            text = f"it may be {_told(choice)} as well"
            self._findings.differ(path, text, way, old_takes_new=takes, new_takes_old=True)

    def _pair(self, old: Choice, new: Choice, path: str, way: Way) -> None:
        """Note what changed from one type to another of the same kind."""
        self._bounds(old.bounds, new.bounds, path, way)
        was, now = old.type, new.type
        if isinstance(was, Fields) and isinstance(now, Fields):
            self._later(was, now, shown(old.name) if old.name and new.name else path, way)
        elif isinstance(was, LiteralOf | EnumOf | FlagOf):
            self._values(was, now, shown(old.name) if old.name and new.name else path, way)
        elif isinstance(was, ObjectOf) and isinstance(now, ObjectOf):
            self._objects(was.interface, now.interface, way.of_object)
        elif isinstance(was, ListOf | TupleOf):
            self._array(was, now, path, way)
        else:
            ends = {MapOf: ("'s keys", "[]"), StreamOf: ("[]",), Coded: ("",)}.get(type(was), ())
            for end, one, other in zip(ends, was.parts, now.parts, strict=True):
                self._compare(one, other, f"{path}{end}", way)

    def _bounds(self, old: Bounds, new: Bounds, path: str, way: Way) -> None:
        takes = {"old_takes_new": bounds_take(old, new), "new_takes_old": bounds_take(new, old)}
        if not all(takes.values()):
            text = f"its bounds were {_bounds_told(old)}, and are {_bounds_told(new)}"
            self._findings.differ(path, text, way, **takes)

    def _array(self, old: Type, new: Type, path: str, way: Way) -> None:
        if isinstance(old, ListOf) and isinstance(new, ListOf):
            if old.kind != new.kind:
                takes = {
                    "old_takes_new": list_takes(old.kind, new.kind),
                    "new_takes_old": list_takes(new.kind, old.kind),
                }
                self._findings.differ(path, f"it was a {old.kind}, and is a {new.kind}", way, **takes)
            self._compare(old.item, new.item, f"{path}[]", way)
            return
        for index, (one, other) in enumerate(zip(old.parts, new.parts, strict=True)):
            self._compare(one, other, f"{path}[{index}]", way)

    def _values(self, old: Type, new: Type, path: str, way: Way) -> None:
        if isinstance(old, FlagOf) and isinstance(new, FlagOf):
            changed = bits_of(old) != bits_of(new)
            text = f"its bits were {bits_of(old):#x}, and are {bits_of(new):#x}"
        else:
            was, now = values_of(old) or set(), values_of(new) or set()
            changed = was != now
            text = "; ".join([*_named("it is no longer", was - now), *_named("it may be", now - was)])
        if changed:
            takes = {"old_takes_new": values_take(old, new), "new_takes_old": values_take(new, old)}
            self._findings.differ(path, text, way, **takes)
        elif (
            isinstance(old, EnumOf | FlagOf)
            and isinstance(new, EnumOf | FlagOf)
            and set(old.members) != set(new.members)
        ):
            self._findings.add(path, "members have other names", "only their values are sent", way)

    # Classes with fields

    def _tags(self, old: tuple[Fields, bool], new: tuple[Fields, bool], path: str, way: Way) -> None:
        """Note another tag; with each class comes whether it stands alone."""
        (was, was_alone), (now, is_alone) = old, new
        if was.tag != now.tag:
            takes = {
                "old_takes_new": tags_take(was, now, alone=was_alone),
                "new_takes_old": tags_take(now, was, alone=is_alone),
            }
            self._findings.differ(path, f"its tag was {_tag(was)}, and is {_tag(now)}", way, **takes)

    def _fields(self, old: Fields, new: Fields, path: str, way: Way) -> None:
        if old.forbids_unknown != new.forbids_unknown:
            text = f"fields that it does not have are {'refused' if new.forbids_unknown else 'ignored'}"
            self._findings.add(path, text, "none of the other document's are among them, unless that is told", way)
        was, now = by_place(old), by_place(new)
        for place, field in was.items():
            where = f"{path}.{shown(field.wire_name)}"
            if place in now:
                self._field(field, now[place], (old, new), where, way)
            else:
                takes = {"old_takes_new": not field.required, "new_takes_old": ignores_more(new)}
                self._findings.differ(where, "it is gone", way, **takes)
        for place, field in now.items():
            if place not in was:
                text = "it is new" if field.required else "it is new, and may be left out"
                where = f"{path}.{shown(field.wire_name)}"
                takes = {"old_takes_new": ignores_more(old), "new_takes_old": not field.required}
                self._findings.differ(where, text, way, **takes)

    def _field(self, old: Field, new: Field, classes: tuple[Fields, Fields], path: str, way: Way) -> None:
        if old.required != new.required:
            text = "it has to be given" if new.required else "it may be left out"
            takes = {
                "old_takes_new": new.required or not _leaves_out(classes[1], way),
                "new_takes_old": old.required or not _leaves_out(classes[0], way),
            }
            self._findings.differ(path, text, way, **takes)
        elif old.default != new.default:
            self._default(old, new, classes, path, way)
        self._compare(old.type, new.type, path, way)

    def _default(self, old: Field, new: Field, classes: tuple[Fields, Fields], path: str, way: Way) -> None:
        text = f"its default was {default_text(old.default)}, and is {default_text(new.default)}"
        was, now = (one.omits_defaults for one in classes)
        if was or now:
            why = "it is left out where it is the default of who sends it, and taken for that of who reads it"
            by_old, by_new = (was, now) if way.user_sends else (now, was)
            self._findings.add(path, text, why, way, users=by_old, providers=by_new)
        else:
            self._findings.add(path, text, "each side has its own for what is left out", way)


def _matched(olds: Sequence[Choice], news: Sequence[Choice]) -> Iterator[tuple[Choice, Choice]]:
    """Yield those of some choices and others that are the same kind."""
    waiting: dict[Any, list[Choice]] = {}
    for choice in news:
        waiting.setdefault(_kind(choice.type), []).append(choice)
    left: list[Choice] = []
    for choice in olds:
        same = waiting.get(_kind(choice.type))
        if same:
            yield choice, same.pop(0)
        else:
            left.append(choice)
    # The only class of each, whose tag is another.
    ones = [choice for choice in left if isinstance(choice.type, Fields)]
    others = [choice for some in waiting.values() for choice in some if isinstance(choice.type, Fields)]
    if len(ones) == len(others) == 1 and _is_array(ones[0].type) == _is_array(others[0].type):
        yield ones[0], others[0]


def _kind(found: Type) -> Any:
    if isinstance(found, Scalar):
        return found.name
    if isinstance(found, Fields):
        return (Fields, found.is_array, found.tag)
    if isinstance(found, TupleOf):
        return (TupleOf, len(found.items))
    return (Coded, found.class_name) if isinstance(found, Coded) else type(found)


def _is_array(found: Type) -> bool:
    return isinstance(found, Fields) and found.is_array


def _leaves_out(found: Fields, way: Way) -> bool:
    """Return whether a sender may leave out a field that has a default.

    A server sends all fields of an object but those that a TypedDict does not have, and those that are the default of a
    Struct that leaves these out. Callers may write maps by hand.
    """
    return way.user_sends == way.server_provides or found.kind == "typeddict" or found.omits_defaults


def _told(choice: Choice) -> str:
    return shown(choice.name) if choice.name else spelled(choice.type)


def _bounds_told(bounds: Bounds) -> str:
    told = spelled(Constrained(Scalar("str"), Bounds(**{**_dict_of(bounds), "sensitive": False})))
    return told.partition("Meta")[2].removesuffix("]") or "none"


def _dict_of(bounds: Bounds) -> dict[str, Any]:
    return {name: getattr(bounds, name) for name in bounds.__struct_fields__}


def _named(text: str, values: set[tuple[type, Any]]) -> list[str]:
    told = sorted(shown(repr(value), 60) for _kind_of, value in values)
    some = ", ".join(told[:_MOST_NAMED]) + (", ..." if len(told) > _MOST_NAMED else "")
    return [f"{text} {some}"] if told else []


def _tag(found: Fields) -> str:
    return "none" if found.tag is None else shown(f"{found.tag.field}={found.tag.value!r}", 100)
