"""Items of a stream that came in and that nobody has taken yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.protocol.values import not_in, owners_of

_ITEMS_A_TURN = 1_024
"""Items of one message that are looked at before others on a loop get a turn."""

ItemCheck = Callable[[list[Any]], list[Any]]
"""Returns items as they are to be given out, or raises what the reader gets in place of the one that does not fit."""


class TooManyAtOnce(Exception):
    """So many items are not converted at once: fewer may be."""


class ReceivedItems:
    """Gives out items in their order, and closes what is in those that nobody takes.

    What comes with descriptors is kept apart from what comes without, which need never be searched for them.
    """

    __slots__ = ("_backlog", "_carried", "_most", "_owners", "check", "failure", "has_ended", "ready")

    def __init__(self) -> None:
        """Begin with none."""
        self.ready: deque[Any] = deque()
        """Items without descriptors that can be taken from its left; to be looked at."""
        self.check: ItemCheck | None = None
        """Converts items before they are given out."""
        self.failure: BaseException | None = None
        """What is to be raised after them."""
        self.has_ended = False
        """Whether that is the producer's own end, after which nothing comes, whatever it is; to be set with it."""
        self._carried: tuple[Any, list[OwnedFd]] | None = None  # an item, and what is to be closed if nobody takes it
        self._most = _ITEMS_A_TURN  # of one message
        self._backlog: list[Any] = []  # items of a message that were not looked at yet, the last first
        self._owners: dict[int, list[OwnedFd]] = {}  # the descriptors of some in the backlog, by their index there

    def __bool__(self) -> bool:
        """Return whether an item is there, looked at or not."""
        return bool(self.ready or self._backlog or self._carried is not None)

    @property
    def is_ready(self) -> bool:
        """Whether an item can be taken."""
        return bool(self.ready) or self._carried is not None

    @property
    def has_more(self) -> bool:
        """Whether there are items that were not looked at yet."""
        return bool(self._backlog)

    def take(self) -> Any:
        """Return the next item, whose descriptors are the caller's then."""
        if self._carried is not None:
            item, self._carried = self._carried[0], None
            return item
        return self.ready.popleft()

    def add(self, values: list[Any], fds: list[OwnedFd]) -> None:
        """Take the items of a message, when none is left that could be taken.

        Args:
            values: the items.
            fds: the descriptors that came with them, owned from here on.
        """
        self._most = _ITEMS_A_TURN
        if not fds and len(values) <= _ITEMS_A_TURN:
            self._add_plain(values)
        elif fds and len(values) == 1:  # as a producer of ours sends them
            self._add_one(values[0], fds)
        else:
            last = len(values) - 1
            # What is not found belongs to streams, channels and buffers, which go with whoever refers to them.
            self._owners = {last - position: found for position, found in owners_of(values, fds).items()} if fds else {}
            self._backlog = values[::-1]
            self.look()

    def look(self) -> None:
        """Look at some of the items that were not looked at yet; one that has descriptors is looked at by itself."""
        backlog = self._backlog
        fds = self._owners.pop(len(backlog) - 1, None)
        if fds is not None:
            self._add_one(backlog.pop(), fds)
            return
        count = min(self._most, len(backlog) - 1 - max(self._owners, default=-1))  # up to the next that has some
        some = backlog[: -count - 1 : -1]
        del backlog[-count:]
        self._add_plain(some)

    def _add_one(self, value: Any, fds: list[OwnedFd]) -> None:
        """Take an item and its descriptors."""
        if self.check is not None:
            try:
                (value,) = self.check([value])
            except Exception as exc:
                self._fail(exc)
                close_all(fds)
                return
            # Those in fields that the annotation does not have are nobody's.
            close_all(not_in(value, [fd for fd in fds if type(fd) is OwnedFd]))
        self._carried = value, fds

    def _add_plain(self, values: list[Any]) -> None:
        """Take items without descriptors."""
        if self.check is None:
            self.ready.extend(values)
            return
        try:
            self.ready.extend(self.check(values))
        except TooManyAtOnce:
            self._most = len(values) // 2
            self._backlog += reversed(values)
        except Exception as exc:  # one of them does not fit: those before it do
            failure = exc if len(values) == 1 else self._first_failure(values, self.check)
            if failure is not None:
                self._fail(failure)

    def _first_failure(self, values: list[Any], check: ItemCheck) -> Exception | None:
        """Take the items up to the one that does not fit; return why it does not."""
        for value in values:
            try:
                self.ready.extend(check([value]))
            except Exception as exc:
                return exc
        return None

    def _fail(self, failure: Exception) -> None:
        """End after the items that are there; those that were not looked at are dropped."""
        self.failure = failure
        self._drop_backlog()

    def _drop_backlog(self) -> None:
        """Let go of the items in the backlog, and close what is known to be in them."""
        for fds in self._owners.values():
            close_all(fds)
        self._owners.clear()
        self._backlog.clear()

    def drop(self) -> None:
        """Let go of all items, and close what is in them; they are not searched for it. The failure stays."""
        if self._carried is not None:
            close_all(self._carried[1])
            self._carried = None
        self.ready.clear()
        self._drop_backlog()

    def forget(self) -> None:
        """Let go of all items, and close nothing: they are another process's. The failure goes, too."""
        self.ready.clear()
        self._carried, self._backlog, self._owners, self.failure = None, [], {}, None
