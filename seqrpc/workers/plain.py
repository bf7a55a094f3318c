"""Plain data of Python's as what the wire carries, and back, each value as the type that it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

_AS_THEY_ARE: Final = (type(None), bool, float, bytes, Buffer, OwnedFd)
_SEQUENCES: Final = {list: 0, tuple: 1, set: 2, frozenset: 3}
_DICT: Final = 4
_BIG: Final = 5  # an integer of more than 64 bits
_COMPLEX: Final = 6
_BYTEARRAY: Final = 7
_RANGE: Final = 8
_NOT_UTF8: Final = 9  # a string with surrogates, such as the name of a file that is not UTF-8

_LEAST: Final = -(2**63)
_MOST: Final = 2**64 - 1

_MAKERS: Final[tuple[Callable[[Iterable[Any]], Any], ...]] = (list, tuple, set, frozenset)

_MOST_DEEP: Final = 30
"""Values within each other: on the wire each is two arrays."""


def packed(value: Any, path: str, depth: int = 0) -> Any:  # noqa: C901, PLR0911 - one for each kind
    """Return plain data as what the wire carries.

    Args:
        value: None, bools, numbers, strings, bytes, and lists, tuples, dicts, sets and ranges of such; descriptors and
            buffers, which are lent.
        path: how to get to it, for the error.
        depth: how deep it lies.

    Raises:
        TypeError: something in it cannot travel; the message has the path to it.
        ValueError: it is nested too deeply, perhaps in itself.
    """
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is str:
        return value if value.isascii() else _text(value)
    if kind is int:
        return value if _LEAST <= value <= _MOST else [_BIG, str(value) if abs(value) < 10**300 else hex(value)]
    if depth >= _MOST_DEEP:
        raise ValueError(f"{path} is nested too deeply: more than {_MOST_DEEP} values within each other")
    number = _SEQUENCES.get(cast("Any", kind))
    if number is not None:
        return [number, *(packed(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value))]
    if kind is dict:
        pairs: list[Any] = [_DICT]
        for key, item in value.items():
            pairs += packed(key, f"{path}[key {key!r:.50}]", depth + 1), packed(item, f"{path}[{key!r:.50}]", depth + 1)
        return pairs
    if kind is complex:
        return [_COMPLEX, value.real, value.imag]
    if kind is bytearray:
        return [_BYTEARRAY, bytes(value)]
    if kind is range:
        return [_RANGE, value.start, value.stop, value.step]
    raise TypeError(
        f"{path} is of type {kind.__qualname__}, which does not travel: plain data do, and nothing is pickled"
    )


def _text(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return [_NOT_UTF8, value.encode("utf-8", "surrogatepass")]
    return value


def unpacked(value: Any) -> Any:  # noqa: PLR0911 - likewise
    """Return what :func:`packed` was given.

    Raises:
        ValueError, TypeError, IndexError: it is nothing of the kind.
    """
    if type(value) is not list:
        return value
    kind = value[0]
    if kind < len(_MAKERS):
        return _MAKERS[kind](map(unpacked, value[1:]))
    if kind == _DICT:
        items = iter(value[1:])
        return {unpacked(key): unpacked(item) for key, item in zip(items, items, strict=True)}
    if kind == _BIG:
        return int(value[1], 0)
    if kind == _COMPLEX:
        return complex(*value[1:])
    if kind == _BYTEARRAY:
        return bytearray(value[1])
    if kind == _RANGE:
        return range(*value[1:])
    if kind == _NOT_UTF8:
        return str(value[1], "utf-8", "surrogatepass")
    raise ValueError(f"there is no kind {kind!r} of plain data")
