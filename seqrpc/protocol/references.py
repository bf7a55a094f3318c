"""What in a message refers to the descriptors that came with it (protocol section 4): checked, and made objects of."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from seqrpc.errors import Overloaded, RpcError, TooLarge
from seqrpc.kernel import memfd
from seqrpc.kernel.buffers import Buffer, must_copy, received_buffer
from seqrpc.kernel.descriptors import OwnedFd, ValueFd, as_value
from seqrpc.limits import Limits
from seqrpc.protocol.longbytes import EXT_TAKEN
from seqrpc.protocol.values import EXT_BUFFER, EXT_CHANNEL, EXT_DESCRIPTOR, EXT_STREAM, Living

_MAX_WRONG: Final = 1_000  # bad references after which a message is not looked at any further

BUFFER_DATA: Final = struct.Struct(">BQQ")
"""What a reference to a buffer holds: index, offset, length."""

_KINDS: Final = {
    EXT_DESCRIPTOR: ("descriptor", 1),
    EXT_STREAM: ("stream", 1),
    EXT_CHANNEL: ("channel", 1),
    EXT_BUFFER: ("buffer", BUFFER_DATA.size),
}
"""What refers to a descriptor, and how many bytes it has."""

# What there is between messages, shared by all connections, of which most are idle: nothing is ever put into these.
_NO_FDS: Final[list[OwnedFd]] = []
_NOTHING_MADE: Final[dict[tuple[int, bytes], Any]] = {}


class References:
    """The references of one message after the other: :meth:`begin`, :meth:`resolve` or :meth:`check` each, :meth:`end`.

    What is wrong with one is remembered, not raised: a message of a kind that is unknown may do as it likes.

    Args:
        limits: ``max_buffer_bytes`` and ``max_message_bytes`` are used.
        living: what streams and channels are here.
    """

    __slots__ = (
        "_fds", "_living", "_made", "_max_buffer_bytes", "_max_bytes", "_referred", "_wrong", "copied_bytes",
        "lack_of_room", "on_work", "problem", "taken",
    )  # fmt: skip

    def __init__(self, limits: Limits, living: Living) -> None:
        """Begin with no message."""
        self._max_bytes = limits.max_message_bytes
        self._max_buffer_bytes = limits.max_buffer_bytes
        self._living = living
        self._fds = _NO_FDS
        self._made = _NOTHING_MADE  # of descriptors of a message, which can be had once only
        self._referred = 0  # a bit for each descriptor
        self._wrong = 0
        self.problem: str | RpcError | None = None
        """What is wrong: a text if the message is malformed, an error if it cannot be taken here."""
        self.taken: Sequence[bytes] = ()
        """What :func:`~seqrpc.protocol.longbytes.take_long_bytes` took out of the message."""
        self.on_work: Callable[[], object] = _nothing
        """Called where resolving takes longer than the length of a packet tells."""
        self.lack_of_room: Callable[[int], str | None] = _no_lack
        """Asked why so many bytes cannot be kept for the message; None if they can."""
        self.copied_bytes = 0
        """Of the message that was read last: bytes of its buffers that could not be mapped as they are."""

    def let_go(self) -> None:
        """Tell and ask nobody any more."""
        self.on_work, self.lack_of_room = _nothing, _no_lack

    def begin(self, fds: list[OwnedFd]) -> None:
        """Expect references to these descriptors, the caller's still; those of objects are replaced in the list."""
        self._fds, self._made = fds, {}

    def begin_again(self) -> None:
        """Expect the same references once more: the message is read anew, by other means."""
        self._referred, self._wrong, self.problem = 0, 0, None

    def end(self) -> str | RpcError | None:
        """Return what was wrong with the references of a message, and forget them."""
        problem, came = self.problem, len(self._fds)
        if not isinstance(problem, str) and self._referred != (1 << came) - 1:
            problem = f"{came} descriptors came, {self._referred.bit_count()} of them are referred to"
        self._fds, self._made, self._referred, self._wrong, self.problem = _NO_FDS, _NOTHING_MADE, 0, 0, None
        return problem

    def check(self, kind: int, data: bytes) -> None:
        """Check an extension type, and make nothing of it; it is msgpack's hook for them."""
        try:
            if kind in _KINDS:
                self._refer(*_KINDS[kind], data)
                return
        except ValueError as exc:
            self._remember(str(exc))
        else:
            self._remember(f"unknown extension type {kind}")

    def resolve(self, kind: int, data: bytes) -> Any:
        """Return what an extension type refers to, or None; it is msgpack's hook for them.

        Raises:
            ValueError: so many are wrong that going on would only take time.
        """
        try:
            if kind == EXT_DESCRIPTOR:
                return self._fds[self._refer("descriptor", 1, data)]
            if kind == EXT_TAKEN and self.taken:
                return self.taken[data[0]]
            if kind in _KINDS:
                index = self._refer(*_KINDS[kind], data)
                made = self._made.get((kind, data))  # a message may be read twice
                if made is None:
                    made = self._made[kind, data] = self._receive(kind, index, data)
                return made
        except ValueError as exc:
            return self._remember(str(exc))
        return self._remember(f"unknown extension type {kind}")

    def _remember(self, problem: str) -> None:
        """Remember what is wrong with the first bad reference of a message.

        Raises:
            ValueError: there are so many that going on would only take time.
        """
        self._wrong += 1
        if self._wrong > _MAX_WRONG:
            raise ValueError(f"more than {_MAX_WRONG} bad references, one of them: {problem}")
        if not isinstance(self.problem, str):
            self.problem = problem

    def _refer(self, what: str, size: int, data: bytes) -> int:
        """Return the index that a reference begins with."""
        if len(data) != size:
            raise ValueError(f"a reference to a {what} has {size} byte{'s' if size > 1 else ''}, this one {len(data)}")
        index = data[0]
        if index >= len(self._fds):
            raise ValueError(f"descriptor {index} is referred to, but {len(self._fds)} came")
        if self._referred >> index & 1:
            raise ValueError(f"descriptor {index} is referred to twice")
        self._referred |= 1 << index
        return index

    def _receive(self, kind: int, index: int, data: bytes) -> Any:
        """Return the buffer, stream or channel that a reference stands for."""
        fd = self._fds[index] = as_value(self._fds[index])  # it goes with its value
        return self._receive_buffer(fd, data) if kind == EXT_BUFFER else self._living.receive(kind, fd)

    def _receive_buffer(self, fd: ValueFd, data: bytes) -> Buffer | bytes | None:
        """Return a buffer; None if there is a problem, which is then remembered."""
        _index, offset, length = BUFFER_DATA.unpack(data)
        if length > self._max_buffer_bytes:
            text = f"a buffer has at most {self._max_buffer_bytes} bytes (max_buffer_bytes), this one {length}"
            self._refuse(TooLarge(text))
            return None
        if must_copy(offset):
            self.on_work()
            total = self.copied_bytes + length
            if total > self._max_bytes:  # a peer's memfd may be all holes, and our copy of it is not
                text = f"buffers that begin within a page have at most {self._max_bytes} bytes (max_message_bytes)"
                self._refuse(TooLarge(text))
                return None
            lack = self.lack_of_room(total)
            if lack is not None:
                self._refuse(Overloaded(lack))
                return None
            self.copied_bytes = total
        if length == 0 and offset <= memfd.check_sealed(fd):
            return b""  # no memory of no bytes can be mapped
        try:
            return received_buffer(fd, offset, length)
        except OSError as exc:
            self._refuse(Overloaded(f"there is no room for a buffer of {length} bytes: {exc.strerror}"))
            return None

    def _refuse(self, error: RpcError) -> None:
        """Remember why a message cannot be taken here, unless something was wrong with it before."""
        self.problem = self.problem or error


def _nothing() -> None:
    """Do nothing: nobody wants to hear of work."""


def _no_lack(size: int) -> None:
    """Let everything be kept."""
