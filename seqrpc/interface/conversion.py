"""Plain data to annotated types, with descriptors, buffers, streams and channels anywhere inside them.

msgspec does the work. It knows none of those; what it does not know is sorted out here, in its ``dec_hook``, by the
stand-ins that :mod:`seqrpc.interface.planning` puts in their places.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from seqrpc.errors import InvalidParams, InvalidResult
from seqrpc.interface.collisions import Allowance
from seqrpc.interface.exhaustion import Exhausted
from seqrpc.interface.planning import listed, plan
from seqrpc.interface.shapes import BufferShape, Coded, Descriptor
from seqrpc.interface.standins import Planned, StandIn, expected
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import DEFAULT_LIMITS, MAX_CONVERTED_VALUES
from seqrpc.protocol.codings import coding_of
from seqrpc.protocol.received import ItemCheck, TooManyAtOnce

NATIVE: Final = (bytes, bytearray, memoryview)
"""Types of values that are as they should be when they come, and that msgspec would else look for as text."""

_SINGLE: Final = (Coded, Descriptor, BufferShape)
"""Shapes whose values msgspec always asks for."""

_TWO_PATHS: Final = r" - at `\$([^`]*)` - at `([^`]*)`$"
"""The end of an error that has come through a stand-in: the path inside, and the path to it."""

_NO_KEY: Final = "mmap indices must be integers"
"""What a buffer says that is asked for a key, by msgspec 0.23; until then it was asked for its items."""

_LONGEST_PART: Final = 500
"""Characters that are kept of the beginning and of the end of an error, which may quote all of what came."""

WITHHELD: Final = "more is not told, for it may be sensitive"
"""What is said in place of what quotes an argument."""

Invalid = type[InvalidParams] | type[InvalidResult]
"""Whose fault it is if an item of a stream does not fit."""


class Terms(NamedTuple):
    """What a conversion goes by, besides the type."""

    invalid: Invalid
    """What a stream raises at an item that does not fit."""

    max_other_keys: int = DEFAULT_LIMITS.max_other_keys
    """The most elements of a set that may be chosen to collide (:mod:`seqrpc.interface.sets`)."""

    tells: bool = True
    """Whether an item of a stream that does not fit may be quoted."""


RESULT: Final = Terms(InvalidResult)


def convert(value: Any, wanted: Planned, terms: Terms = RESULT) -> Any:
    """Return ``value``, as it came off the wire, as the type that ``wanted`` was planned from.

    Args:
        value: plain data, descriptors, buffers, streams and channels.
        wanted: what it is to be.
        terms: how it is converted.

    Raises:
        msgspec.ValidationError: it does not fit; the message says where and why. A ValueError or TypeError that a class
            of the application's own raises as it is made (``__post_init__``) becomes one, too.
    """
    try:
        return _Conversion(terms).convert(value, wanted)
    except Exhausted as exc:
        raise msgspec.ValidationError(str(exc)) from None


def convert_by(hook: Callable[[Any, Any], Any], value: Any, wanted: Planned) -> Any:
    """Have msgspec convert a value; what it does not know, ``hook`` is asked for.

    Raises:
        msgspec.ValidationError: it does not fit; the path leads through stand-ins, too.
    """
    try:
        return msgspec.convert(value, wanted.kind, builtin_types=NATIVE, dec_hook=hook)
    except msgspec.ValidationError as exc:
        text = str(exc)
        short = _cut(text)
        # No name for what is raised: it would be held by this frame, which it holds, and keep what came.
        raise msgspec.ValidationError(re.sub(_TWO_PATHS, r" - at `\2\1`", short)) from (exc if short is text else None)
    except (AttributeError, TypeError) as exc:  # a buffer can be indexed, and msgspec takes it for a map
        if isinstance(getattr(exc, "obj", None), Buffer) or str(exc) == _NO_KEY:
            raise msgspec.ValidationError("Expected `object`, got `Buffer`") from exc
        raise


class OneByOne:
    """Converts values, and counts those of types that msgspec does not know, for which it is called."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        """Begin with none."""
        self._left = MAX_CONVERTED_VALUES

    def __call__(self, wanted: Any, value: Any) -> Any:
        """Return ``value`` as the type ``wanted``, which msgspec does not know.

        Raises:
            Exhausted: there were too many.
            ValueError: it does not fit.
        """
        if not isinstance(wanted, StandIn) or wanted.is_counted:
            self._left -= 1
            if self._left < 0:
                raise Exhausted(f"More than {MAX_CONVERTED_VALUES} values that are converted one by one")
        try:
            return self.one(wanted, value)
        except msgspec.ValidationError as exc:
            raise ValueError(str(exc)) from exc  # to this msgspec adds the path

    def convert(self, value: Any, wanted: Planned) -> Any:
        """Return a value as the type that ``wanted`` was planned from.

        Raises:
            Exhausted: there were too many.
            msgspec.ValidationError: it does not fit.
        """
        kind = wanted.kind
        if not isinstance(kind, StandIn) and not isinstance(wanted.shape, _SINGLE):
            return convert_by(self, value, wanted)
        try:  # msgspec would ask for the very value that it was given, which would be counted again
            made = self.one(kind, value)
        except (ValueError, TypeError) as exc:
            raise msgspec.ValidationError(str(exc)) from exc
        if isinstance(made, kind):
            return made
        raise msgspec.ValidationError(expected(f"`{kind.__name__}`", made))

    def one(self, wanted: Any, value: Any) -> Any:
        """Return ``value`` as the type ``wanted``; it has been counted.

        Raises:
            msgspec.ValidationError, ValueError, TypeError: it does not fit.
        """
        raise NotImplementedError


class _Conversion(OneByOne):
    """One conversion, with those that are parts of it."""

    __slots__ = ("_allowance", "_terms")

    def __init__(self, terms: Terms) -> None:
        """Begin."""
        super().__init__()
        self._terms = terms
        self._allowance: Allowance | None = None  # of all sets in it

    def convert(self, value: Any, wanted: Planned) -> Any:
        """Return a value as the type that ``wanted`` was planned from."""
        if wanted.bounds is not None:
            if self._allowance is None:
                self._allowance = Allowance(self._terms.max_other_keys)
            wanted.bounds.check(value, self._allowance)
        return super().convert(value, wanted)

    def one(self, wanted: Any, value: Any) -> Any:
        """Return ``value`` as the type ``wanted``, which msgspec does not know."""
        if isinstance(wanted, StandIn):
            return wanted.build(value, self)
        if wanted is not OwnedFd and wanted is not Buffer:
            return self._decoded(wanted, value)
        if isinstance(value, wanted):
            return value
        raise ValueError(expected("a descriptor" if wanted is OwnedFd else "a buffer", value))

    def _decoded(self, wanted: type, value: Any) -> Any:
        """Return an object of a class that travels as something else."""
        coding = coding_of(wanted)
        if coding is None:
            raise TypeError(f"there is no way to make a {wanted.__name__}")
        return coding.decode(self.convert(value, _wire_plan(wanted)))

    def item_check(self, wanted: Planned) -> ItemCheck:
        """Return what converts items of a stream."""
        return functools.partial(_check_items, listed(wanted), self._terms)


@functools.lru_cache(maxsize=4096)
def _wire_plan(wanted: Any) -> Planned:
    coding = coding_of(wanted)
    return plan(Any if coding is None else coding.wire_type)


def _check_items(planned: Planned, terms: Terms, items: list[Any]) -> list[Any]:
    try:
        converted: list[Any] = _Conversion(terms).convert(items, planned)
    except Exhausted as exc:
        if len(items) > 1:
            raise TooManyAtOnce from exc
        raise terms.invalid(f"an item of a stream: {exc}") from None
    except Exception as exc:  # types of the application's own raise what they like while they are built
        if terms.invalid is InvalidParams and not isinstance(exc, msgspec.ValidationError):
            raise  # it is about the inside, and would cross as the handler's answer
        if not terms.tells:
            raise terms.invalid(f"an item of a stream does not fit its annotation ({WITHHELD})") from None
        text = _cut(str(exc)).replace("`$[0]", "`$").removesuffix(" - at `$`")  # it is looked at in a list, by itself
        raise terms.invalid(f"an item of a stream does not fit its annotation: {text}") from cause_to_tell(exc)
    return converted


def cause_to_tell(exc: Exception) -> Exception | None:
    """Return what tells more of a value that does not fit than the error made of ``exc`` does.

    msgspec's own errors do not: they quote the other side as it is, and a traceback shows causes.
    """
    return None if isinstance(exc, msgspec.ValidationError) else exc


def _cut(text: str) -> str:
    """Return a text that may quote what came, without its middle if it is long: what is wrong, and at the end where."""
    return text if len(text) <= 2 * _LONGEST_PART else f"{text[:_LONGEST_PART]}…{text[-_LONGEST_PART:]}"
