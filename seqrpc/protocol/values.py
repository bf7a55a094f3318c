"""Values that are more than bytes: what travels as a descriptor and has a life of its own.

The codec knows them by these few names. What a stream or a channel *is* here, whoever owns the codec
says, by a :class:`Living`; the plain one leaves them as :class:`Handle`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final, Protocol

import msgspec

from seqrpc.kernel.descriptors import OwnedFd

EXT_DESCRIPTOR: Final = 1
EXT_STREAM: Final = 2
EXT_CHANNEL: Final = 3
EXT_BUFFER: Final = 4


class Export(Protocol):
    """Something of this side on its way out: it lends a descriptor to one message.

    After :meth:`fileno`, exactly one of :meth:`sent` and :meth:`unsent` is called.
    """

    ext_type: int
    """What it is on the wire: :data:`EXT_STREAM` or :data:`EXT_CHANNEL`."""

    def fileno(self) -> int:
        """Return the descriptor that goes to the other side, lent."""
        ...

    def sent(self) -> None:
        """Hear that the message is on its way: the other side has its own descriptor, this one may be closed."""
        ...

    def unsent(self) -> None:
        """Hear that the message will not be sent: what was made for it is to be closed."""
        ...


class Living(Protocol):
    """Makes exports of objects, and objects of what comes in."""

    def travels(self, value: Any) -> bool:
        """Return whether ``value`` is a stream or a channel."""
        ...

    def export(self, value: Any) -> Export | None:
        """Return how ``value`` travels, or None if it is neither a stream nor a channel.

        Raises:
            RpcError, LocalProtocolError: it is one, and cannot be sent; the message says why.
            OSError: the process has too many descriptors.
        """
        ...

    def receive(self, ext_type: int, fd: OwnedFd) -> Any:
        """Return the object for a stream or a channel that came in; it shares ``fd`` with the message that brought it.

        Raises:
            ValueError: the descriptor is not what it should be; the message says why.
        """
        ...


class Handle:
    """A stream or a channel as such: its type on the wire and its descriptor."""

    __slots__ = ("ext_type", "fd")

    def __init__(self, ext_type: int, fd: OwnedFd) -> None:
        """Hold what came."""
        self.ext_type = ext_type
        self.fd = fd

    def fileno(self) -> int:
        """Return the descriptor, lent."""
        return self.fd.fileno()

    def sent(self) -> None:
        """Keep the descriptor: it was borrowed."""

    def unsent(self) -> None:
        """Keep the descriptor: it was borrowed."""


class Handles:
    """The plain :class:`Living`."""

    def travels(self, value: Any) -> bool:
        """Return whether it is a handle."""
        return isinstance(value, Handle)

    def export(self, value: Any) -> Export | None:
        """Return a handle as it is."""
        return value if isinstance(value, Handle) else None

    def receive(self, ext_type: int, fd: OwnedFd) -> Handle:
        """Return a handle."""
        return Handle(ext_type, fd)


def descriptors_in(value: Any) -> list[OwnedFd]:
    """Return the descriptors in a value of any type that can be sent; it may be of any depth, and hold itself."""
    found: list[OwnedFd] = []
    seen: set[int] = set()
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, OwnedFd):
            found.append(item)
            continue
        parts = parts_of(item)
        if parts and id(item) not in seen:
            seen.add(id(item))
            todo += parts
    return found


def parts_of(value: Any) -> list[Any]:
    """Return what a value of a type that can be sent consists of; nothing for what has no parts."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name, None) for name in value.__struct_fields__]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return []
