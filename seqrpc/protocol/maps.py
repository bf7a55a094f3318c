"""Maps whose keys msgpack must not put together by itself.

msgpack interns the strings that are keys of maps (``sys.intern``), and puts all keys into the map as they come. Two
things follow for what strangers send. What is interned has a place in a table of the interpreter, which keeps its size
once it has grown, and before Python 3.12.7 (of 3.12) keeps the strings, too, for the life of the process (gh-113993).
And integers, floats, timestamps and the like have hashes without a secret: keys that collide take time that grows with
the square of their number. So msgpack is given what has few keys, all of them strings or byte strings; the rest is
read here, one value at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import msgpack

from seqrpc.errors import TooLarge
from seqrpc.protocol.depth import possible_containers

KEEPS_KEYS: Final = (3, 12) <= sys.version_info < (3, 12, 7)
"""Whether this Python never forgets a string that was interned."""

MOST_KEYS: Final = 0 if KEEPS_KEYS else 65_536
"""Keys that msgpack may intern for one message: as many as fit into some MiB of the interpreter's table."""

_FIXMAP_KEYS: Final = 15  # keys of the largest map that begins with one byte: others are seen by ``max_map_len``

_SPLITS: Final = 3  # levels of arrays and maps whose parts are tried at once: the message, its arguments, and theirs
_TRIES: Final = 2  # times the length of a message: bytes that are given to msgpack at one go, in all
_SHORT: Final = 1_024  # bytes of what is read one by one without a try

_MOST_VALUES: Final = 2 * 1024 * 1024
"""Values of one message that are read one by one: some 0.4 µs each, so that it takes about a second at most."""

_PARTS: Final = 16
"""Values in arrays and maps that are keys, for each key that there may be: in all of one message."""

_PART: Final = 64
"""Bytes or characters in such a key that take as long to compare as another value."""

ExtHook = Callable[[int, bytes], Any]


class _MoreThanPlain(Exception):
    """A message has more in it than plain data."""


def look_closer(kind: int, data: bytes) -> Any:  # noqa: ARG001 - whatever it is
    """Give up at a value of an extension type."""
    raise _MoreThanPlain


class Counter:
    """Counts arrays, maps and keys while msgpack makes them of a long message.

    Args:
        most: arrays and maps that there may be.
    """

    __slots__ = ("_containers", "_keys", "_most")

    def __init__(self, most: int) -> None:
        """Begin with none."""
        self._most = self._containers = most
        self._keys = MOST_KEYS

    def count(self, container: Any) -> Any:
        """Count an array, or a map.

        Raises:
            TooLarge: there are too many.
        """
        self._containers -= 1
        if self._containers < 0:
            raise TooLarge(f"a message has at most {self._most} arrays and maps (max_containers), this one more")
        return container

    def count_map(self, made: dict[Any, Any]) -> Any:
        """Count a map and its keys.

        Raises:
            TooLarge: there are too many maps.
            ValueError: there are too many keys to intern.
        """
        self._keys -= len(made)
        if self._keys < 0:
            raise ValueError(f"maps of more than {MOST_KEYS} keys")
        return self.count(made)


def hooks_for(data: bytes | memoryview, most_containers: int) -> dict[str, Callable[[Any], Any]]:
    """Return the hooks with which msgpack counts what a long message may have too many of; none if it cannot."""
    possible = min(len(data), possible_containers(data))
    counter = Counter(most_containers)
    hooks: dict[str, Callable[[Any], Any]] = {}
    if possible > most_containers:
        hooks["list_hook"] = counter.count
    if possible > most_containers or possible > MOST_KEYS // _FIXMAP_KEYS:
        hooks["object_hook"] = counter.count_map
    return hooks


def read_maps(data: bytes | memoryview, ext_hook: ExtHook, most_containers: int, most_other_keys: int) -> Any:
    """Return the value of a message whose depth was checked, its maps made here. Arrays and maps as keys become tuples.

    Args:
        data: the message.
        ext_hook: called for values of extension types.
        most_containers: arrays and maps that there may be.
        most_other_keys: keys of all maps that may be neither strings nor byte strings.

    Raises:
        TooLarge: there are more.
        ValueError, msgpack.UnpackException: it is not exactly one well-formed value.
    """
    return _Reader(ext_hook, most_containers, most_other_keys, _TRIES * len(data)).read(data, _SPLITS)


class _Reader:
    __slots__ = (
        "_count",
        "_ext_hook",
        "_most_keys",
        "_other_keys",
        "_parts",
        "_tries",
        "_unpacker",
        "_values",
        "_view",
    )

    def __init__(self, ext_hook: ExtHook, most_containers: int, most_other_keys: int, tries: int) -> None:
        self._tries = tries
        self._ext_hook = ext_hook
        self._count = Counter(most_containers).count
        self._values = _MOST_VALUES - 1  # the message is one itself
        self._most_keys = self._other_keys = most_other_keys
        self._parts = _PARTS * most_other_keys
        self._unpacker: Any = None
        self._view: bytes | memoryview = b""

    def read(self, data: bytes | memoryview, splits: int) -> Any:
        """Read bytes that are one value; large parts of it that have no maps at one go."""
        # The whole message has been tried, and an empty map is short.
        is_short = len(data) <= _SHORT
        if splits < _SPLITS and not is_short and len(data) <= self._tries and not _is_map(data[0]):
            self._tries -= len(data)
            try:
                return msgpack.unpackb(data, ext_hook=look_closer, timestamp=3, max_map_len=0)
            except (ValueError, _MoreThanPlain, msgpack.UnpackException):  # it has maps or references, or is malformed
                pass
        if not splits or is_short:
            return self._read_singly(data)
        first, view, unpacker = data[0], memoryview(data), self._new_unpacker(data)
        is_map = _is_map(first)
        if not is_map and not _is_array(first):
            return self._read_singly(data)
        size = unpacker.read_map_header() if is_map else unpacker.read_array_header()
        if len(data) < _SHORT * size:  # most of the parts are short
            return self._read_singly(data)
        self._count(None)
        value: Any
        if is_map:
            value = {}
            for _ in range(size):
                key = self._key(self._read_singly(_skipped(unpacker, view)))
                value[key] = self.read(_skipped(unpacker, view), splits - 1)
        else:
            value = [self.read(_skipped(unpacker, view), splits - 1) for _ in range(size)]
        _check_end(unpacker, data)
        return value

    def _new_unpacker(self, data: bytes | memoryview) -> Any:
        unpacker = msgpack.Unpacker(ext_hook=self._ext_hook, timestamp=3, max_buffer_size=0, read_size=len(data) + 1)
        unpacker.feed(data)
        return unpacker

    def _read_singly(self, data: bytes | memoryview) -> Any:
        """Read bytes that are one value, all that is in it one by one."""
        outer = self._unpacker, self._view
        self._unpacker, self._view = self._new_unpacker(data), data
        try:
            value = self._value()
            _check_end(self._unpacker, data)
        finally:
            self._unpacker, self._view = outer
        return value

    def _value(self) -> Any:
        unpacker = self._unpacker
        position = unpacker.tell()
        if position >= len(self._view):
            raise ValueError("incomplete: it ends too early")
        first = self._view[position]
        if _is_array(first):
            self._count(None)
            return [self._value() for _ in range(self._held(unpacker.read_array_header()))]
        if not _is_map(first):
            return unpacker.unpack()
        self._count(None)
        made: dict[Any, Any] = {}
        for _ in range(self._held(unpacker.read_map_header(), 2)):
            key = self._key(self._value())
            made[key] = self._value()
        return made

    def _held(self, size: int, each: int = 1) -> int:
        """Return how many elements an array or a map has, of one value ``each`` or two, if there are so many bytes."""
        if size > len(self._view) - self._unpacker.tell():
            raise ValueError(f"incomplete: {size} values were promised")
        self._values -= size * each
        if self._values < 0:
            raise TooLarge(f"a message whose maps are read one by one has at most {_MOST_VALUES} values, this one more")
        return size

    def _key(self, key: Any) -> Any:
        """Return what a map has as its key, and count those that may have been chosen to collide."""
        if type(key) is str or type(key) is bytes:
            return key
        self._other_keys -= 1
        if self._other_keys < 0:
            raise TooLarge(
                f"a message has at most {self._most_keys} keys of maps that are neither strings nor byte strings"
                " (max_other_keys), this one more"
            )
        return self._hashable(key) if isinstance(key, list | dict) else key

    def _hashable(self, key: Any) -> Any:
        """Return a key with its arrays and maps made into tuples, which are no deeper than they were.

        What is in them is counted, for it is compared with what is in others whose hashes collide.
        """
        if isinstance(key, list):
            return tuple([self._hashable(item) for item in key])
        if isinstance(key, dict):
            return tuple([part for name, item in key.items() for part in (name, self._hashable(item))])
        self._parts -= 1 + (len(key) // _PART if isinstance(key, str | bytes) else 0)
        if self._parts < 0:
            most = _PARTS * self._most_keys
            raise TooLarge(f"the keys of maps in a message have at most {most} values in them, those of this one more")
        return key


def _check_end(unpacker: Any, data: bytes | memoryview) -> None:
    if unpacker.tell() != len(data):
        raise ValueError(f"{len(data) - unpacker.tell()} bytes come after it")


def _is_array(first: int) -> bool:
    return 0x90 <= first <= 0x9F or first in (0xDC, 0xDD)


def _is_map(first: int) -> bool:
    return 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)


def _skipped(unpacker: Any, view: memoryview) -> memoryview:
    """Step over a value, and return its bytes."""
    start = unpacker.tell()
    unpacker.skip()
    return view[start : unpacker.tell()]
