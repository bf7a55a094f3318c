"""Values that are more than bytes: what travels as a descriptor and has a life of its own.

Encoder and decoder know them by these few names. Whoever owns streams and channels says by a :class:`Living` what
they *are* here; the plain one leaves them as :class:`BareValue`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol

from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.limits import MAX_VALUES_SEARCHED
from seqrpc.protocol.kinds import fields_of

EXT_DESCRIPTOR: Final = 1
EXT_STREAM: Final = 2
EXT_CHANNEL: Final = 3
EXT_BUFFER: Final = 4

SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
"""The types of most values, which have nothing in them."""


class Departure(Protocol):
    """Something of this side on its way out: it lends a descriptor to one message.

    Exactly one of :meth:`sent`, :meth:`unsent` and :meth:`given_up` is called.
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

    def given_up(self) -> None:
        """Hear that the message will not be sent, and that what departs was given away with it: let go of that, too."""
        ...


class Living(Protocol):
    """What streams and channels are on this side: how they depart, and what is made of those that come in."""

    def travels(self, value: Any) -> bool:
        """Return whether ``value`` is a stream or a channel."""
        ...

    def departure_of(self, value: Any) -> Departure | None:
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

    def give_up(self, value: Any) -> None:
        """Let go of a stream or a channel that was given away and that nobody gets, as if its holder had let go.

        It may be done again.
        """
        ...


class BareValue:
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

    def given_up(self) -> None:
        """Keep the descriptor: it was borrowed."""


class BareValues:
    """The plain :class:`Living`: streams and channels stay what they are on the wire."""

    def travels(self, value: Any) -> bool:
        """Return whether it is a bare one."""
        return isinstance(value, BareValue)

    def departure_of(self, value: Any) -> Departure | None:
        """Return a bare one as it is."""
        return value if isinstance(value, BareValue) else None

    def receive(self, ext_type: int, fd: OwnedFd) -> BareValue:
        """Return a bare one."""
        return BareValue(ext_type, fd)

    def give_up(self, value: Any) -> None:
        """Keep the descriptor of a bare one: it was borrowed."""


def values_in(value: Any, most: int = MAX_VALUES_SEARCHED, whole: Callable[[Any], bool] | None = None) -> Iterator[Any]:
    """Yield a value of any type that can be sent and all that it consists of, in order, but at most so many.

    It may be of any depth, and hold itself. What lies behind ``most`` values is not looked at, however much it is.

    Args:
        value: what to look through.
        most: how many values are looked at.
        whole: asked about what is no scalar, returns whether it is one thing, and not to be looked into.
    """
    seen: dict[int, Any] = {}  # the values themselves, too: the id of one that is gone could come again
    todo = [iter((value,))]
    while todo:
        for item in todo[-1]:
            if most <= 0:
                return
            most -= 1
            yield item
            if type(item) in SCALARS or id(item) in seen or (whole is not None and whole(item)):
                continue
            parts = parts_of(item, most)
            if parts:
                seen[id(item)] = item
                todo.append(iter(parts))
                break
        else:
            todo.pop()


def descriptors_in(value: Any, most: int = MAX_VALUES_SEARCHED) -> list[OwnedFd]:
    """Return the descriptors in a value of any type that can be sent; it may be of any depth, and hold itself.

    Only the first ``most`` values are looked at, so that no value takes long: a descriptor behind them is left to
    the garbage collector, which closes it, and says so.
    """
    return [item for item in values_in(value, most) if isinstance(item, OwnedFd)]


def not_in(value: Any, fds: Iterable[OwnedFd], most: int = MAX_VALUES_SEARCHED) -> list[OwnedFd]:
    """Return which of some descriptors are not in a value: none if it has more than ``most``, for then it is not known.

    The search ends when all are found.
    """
    left = {id(fd): fd for fd in fds}
    for looked_at, item in enumerate(values_in(value, most + 1) if left else ()):
        if looked_at == most:
            return []
        if left.pop(id(item), None) is not None and not left:
            break
    return list(left.values())


def owners_of(
    values: Sequence[Any], fds: Iterable[OwnedFd], most: int = MAX_VALUES_SEARCHED
) -> dict[int, list[OwnedFd]]:
    """Return which of some descriptors is in which of some values, by the values' positions, in order.

    Of all of them together only ``most`` values are looked at, and the search ends when all descriptors are found;
    those that are not are left to the garbage collector.
    """
    left = {id(fd) for fd in fds}
    owners: dict[int, list[OwnedFd]] = {}
    for position, value in enumerate(values if left else ()):
        for item in values_in(value, most):
            most -= 1
            if id(item) in left:
                left.remove(id(item))
                owners.setdefault(position, []).append(item)
                if not left:
                    return owners
        if most <= 0:
            break
    return owners


def give_up(value: Any, living: Living, kept: Any = None) -> None:
    """Let go of a value that was given away, and that nobody gets: of the descriptors, streams and objects in it.

    Each is treated as if whoever was to have it had let go at once. It may be done again, and to a part of what was
    given up before. Only the first :data:`~seqrpc.limits.MAX_VALUES_SEARCHED` values are looked at.

    Args:
        value: what is given up.
        living: what streams and objects are.
        kept: takes the place of the value. What is in it, too, is left alone, and so is everything if it has more
            values than are looked at.
    """
    if type(value) in SCALARS:
        return
    spared: set[int] = set()
    if type(kept) not in SCALARS:
        values = list(values_in(kept, MAX_VALUES_SEARCHED + 1, living.travels))
        if len(values) > MAX_VALUES_SEARCHED:
            return
        spared = {id(item) for item in values if type(item) not in SCALARS}

    def let_go(item: Any) -> bool:
        if id(item) in spared:
            return True
        if isinstance(item, OwnedFd):
            close_all([item])
        elif living.travels(item):
            living.give_up(item)
        else:
            return False
        return True

    for _ in values_in(value, whole=let_go):
        pass


def parts_of(value: Any, most: int | None = None) -> list[Any]:
    """Return what a value of a type that can be sent consists of; nothing for what has no parts.

    Args:
        value: the value.
        most: how many parts of an array, or keys of a map, are wanted; the others are left out.
    """
    if isinstance(value, dict):
        return [*islice(value, most), *islice(value.values(), most)]
    if isinstance(value, list | tuple | set | frozenset):
        return list(islice(value, most))
    fields = fields_of(value)
    return [] if fields is None else list(fields.values())
