"""Names that stand for other types: type variables, ``Self``, texts, and aliases, which may have themselves in them."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

from seqrpc.interface.contents import inner_of
from seqrpc.interface.hints import Scope, resolve
from seqrpc.interface.shapes import Alias, Anything, Shape, key_of, name_of

S = TypeVar("S", bound=Shape)

LONGEST_PATH: Final = 60  # characters

DEEPEST: Final = 60  # levels of containers and names; a message has no more

MOST_ALIKE: Final = 8
"""Generic classes, or aliases, of one kind that may be in each other, each bound to something else."""

ENDLESS: Final = "it is nested without an end: write a class that does not hold more and more of itself"


class NameReader:
    """Reads names, and knows which of them are being read. What they stand for, whoever derives from it reads."""

    def __init__(self) -> None:
        """Begin with no name."""
        self._aliases: dict[Any, Alias] = {}  # those that are being read

    def read(self, annotation: Any, scope: Scope, path: str) -> Shape:
        """Return the shape of an annotation, or of a part of one."""
        raise NotImplementedError

    def union(self, annotation: Any, choices: Sequence[Shape], path: str) -> Shape:
        """Return the shape of a union."""
        raise NotImplementedError

    def _read_name(self, annotation: Any, scope: Scope, path: str) -> Shape | None:
        """Return the shape of what a name stands for; None if it is no name."""
        return (
            self._read_variable(annotation, scope, path)
            or self._read_text(annotation, scope, path)
            or self._read_alias(annotation, scope, path)
        )

    def _read_variable(self, annotation: Any, scope: Scope, path: str) -> Shape | None:
        if annotation is typing.Self:
            if scope.itself is None:
                refuse(path, "there is no class here that Self could mean")
            return respelled(self.read(*scope.itself, path))
        if not isinstance(annotation, typing.TypeVar):
            return None
        if annotation in scope.bindings:
            return self.read(*scope.bindings[annotation], path)
        if annotation.__constraints__:
            choices = [self.read(choice, scope, path) for choice in annotation.__constraints__]
            return respelled(self.union(annotation, choices, path))
        has_default = getattr(annotation, "has_default", None)
        if has_default is not None and has_default():
            return respelled(self.read(annotation.__default__, scope, path))  # type: ignore[attr-defined] # since 3.13
        return Anything(annotation) if annotation.__bound__ is None else self.read(annotation.__bound__, scope, path)

    def _read_text(self, annotation: Any, scope: Scope, path: str) -> Shape | None:
        if isinstance(annotation, typing.ForwardRef):
            annotation = annotation.__forward_arg__
        if not isinstance(annotation, str):
            return None

        def target() -> Shape:
            try:
                meant = resolve(annotation, scope)
            except Exception as exc:  # the text may be any expression
                text = f"{annotation!r} cannot be resolved: {exc} (only names at the top of a module are known)"
                raise TypeError(f"{path}: {text}") from exc
            return self.read(meant, scope, path)

        return respelled(self._named(annotation, ("text", annotation, id(scope)), path, target))

    def _read_alias(self, annotation: Any, scope: Scope, path: str) -> Shape | None:
        origin = typing.get_origin(annotation) or annotation
        if type(origin).__name__ != "TypeAliasType":  # of typing, since 3.12, or of typing_extensions
            return None
        arguments = typing.get_args(annotation)
        bindings = {name: (one, scope) for name, one in zip(origin.__type_params__, arguments, strict=False)}
        inside = Scope({**scope.names, **_names_around(origin)}, bindings, scope.itself)
        key = (origin, *(key_of(self.read(argument, scope, path)) for argument in arguments))
        if sum(known[0] is origin for known in self._aliases) > MOST_ALIKE:
            refuse(path[:LONGEST_PATH], ENDLESS)
        return self._named(annotation, key, path, lambda: self.read(origin.__value__, inside, path))

    def _named(self, annotation: Any, key: Any, path: str, target: Callable[[], Shape]) -> Shape:
        """Return what a name stands for, which may be something with the same name in it."""
        if key in self._aliases:
            return respelled(self._aliases[key])
        alias = self._aliases[key] = Alias(annotation)
        try:
            shape = target()
        finally:
            del self._aliases[key]
        if not alias.is_respelled:  # nothing in it refers to it
            return shape
        if inner_of(shape) is alias:
            refuse(path, f"{name_of(annotation)} stands for itself")
        alias.target = shape
        return alias


def respelled(shape: S) -> S:
    """Mark a shape as one whose annotation says nothing to msgspec."""
    shape.is_respelled = True
    return shape


def _names_around(alias: Any) -> dict[str, Any]:
    return vars(sys.modules.get(getattr(alias, "__module__", None) or "", object))


def refuse(path: str, text: str) -> NoReturn:
    """Refuse an annotation.

    Raises:
        TypeError: always; the message has both.
    """
    raise TypeError(f"{path}: {text}" if path else text)
