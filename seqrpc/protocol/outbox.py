"""What waits to be sent over a socket, and what is to be done when the kernel does not take it.

Nothing here sends, waits, or watches anything. Whoever drives an outbox sends its first packet and says how that went:
:meth:`Outbox.sent`, or :meth:`Outbox.failed`, which answers with a :class:`Verdict`.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Final

from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.closing import Sender
from seqrpc.kernel.descriptors import HasFileno, OwnedFd, close_all, received_fd
from seqrpc.kernel.pieces import Content, Pieces
from seqrpc.limits import DEFAULT_LIMITS, MAX_DESCRIPTORS, MAX_PACKET

RETRY_DELAY: Final = 0.01
"""Seconds until a packet that the kernel had no room for is tried again (:attr:`Verdict.LATER`)."""

TOO_LONG: Final = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
"""What the kernel says of a packet that is too long for it."""

_PASSING: Final = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNABORTED})

_SHORT: Final = 64
"""Bytes up to which making a packet shorter would not help."""

Spill = Callable[[Content], tuple[bytes, OwnedFd] | None]
"""Returns what to send in place of what is too long: a short packet and a descriptor to go before its others, which is
then the outbox's to close; None if there is no other way. It may raise."""


class Verdict(Enum):
    """What to do after a packet was not sent."""

    AGAIN = auto()
    """Send it again: it is short now."""
    WAIT = auto()
    """Send it again when the socket has room."""
    LATER = auto()
    """Send it again after :data:`RETRY_DELAY`: the kernel had no room for it."""
    REFUSED = auto()
    """Go on with the next: this one will never be taken."""
    BROKEN = auto()
    """Send nothing any more: nobody reads."""


class Packet:
    """A packet on its way out. What goes with it is its own, or lent to it until it has to wait.

    Args:
        data: its bytes; more than a packet takes until :meth:`shorten`.
        fds: descriptors of its own: it closes them once it was sent, or will not be.
        lent: numbers of descriptors that go after those, which somebody else owns.
        failed: called with the reason if it had to wait and is refused then.
        narrow: whether memory files go with it, which the kernel does not count as what waits in a socket.
        weight: bytes that it keeps in memory, those of its memory files included.
    """

    __slots__ = ("data", "failed", "fds", "kept", "lent", "narrow", "spilled", "weight")

    def __init__(
        self,
        data: Content,
        fds: list[Any],
        lent: Sequence[int] = (),
        failed: Callable[[OSError], object] | None = None,
        *,
        narrow: bool = False,
        weight: int = 0,
    ) -> None:
        """Hold it."""
        self.data = data
        self.fds = fds
        self.lent = lent
        self.failed = failed
        self.narrow = narrow
        self.weight = weight
        self.kept = False
        """Whether what was lent has been duplicated."""
        self.spilled = 0
        """Bytes of the message, if it goes in a memory file, which is the first of :attr:`fds` then."""

    def numbers(self) -> Sequence[int]:
        """Return the numbers of all its descriptors, to be sent now.

        Raises:
            Exception: one of its own cannot be lent any more.
        """
        if not self.fds:
            return self.lent
        return [*[fd.fileno() for fd in self.fds], *self.lent]

    def shorten(self, spill: Spill) -> bool:
        """Let it go another way, for it is too long; return False if there is none.

        Raises:
            Exception: what ``spill`` raises.
        """
        size = len(self.data)
        shorter = spill(self.data)
        if shorter is None:
            return False
        self.data, file = shorter
        self.spilled = size
        self.fds.insert(0, file)
        self.narrow = True
        return True

    def keep(self, sender: Sender) -> None:
        """Duplicate what was lent: whoever lent it may close it from here on.

        Args:
            sender: the uid of whoever may have sent these descriptors to this process: a duplicate can be the last one.

        Raises:
            OSError: the process has too many descriptors; all of its own are closed.
        """
        try:
            for number in self.lent:
                self.fds.append(received_fd(os.dup(number), sender))
        except OSError:
            close_all(self.fds)
            raise
        self.lent, self.kept = (), True

    def sent(self) -> None:
        """Close what was its own: the receiver has duplicates."""
        close_all(self.fds)

    def unsent(self) -> None:
        """Close what was its own: nobody gets it."""
        close_all(self.fds)


def lending(
    data: Content,
    lenders: Sequence[HasFileno],
    spill: Spill,
    failed: Callable[[OSError], object] | None = None,
    *,
    own: int = -1,
) -> Packet:
    """Return a packet to which descriptors are lent, after checking that it is one.

    Args:
        data: its bytes; what is longer than a packet goes as ``spill`` says.
        lenders: up to 253 things with a descriptor.
        spill: see :data:`Spill`.
        failed: see :class:`Packet`.
        own: the number of the socket that it is to be sent over.

    Raises:
        ValueError: too few or too many bytes, too many descriptors, ``own`` among them, or one has none to lend.
        Exception: what ``spill`` raises.
    """
    size = len(data)
    lent, held = [], 0
    for lender in lenders:
        lent.append(_number_of(lender))
        if isinstance(lender, Buffer):
            held += len(lender)
    if own in lent:
        raise ValueError("a connection's own socket cannot be sent over it")  # only the kernel could ever free it
    packet = Packet(data, [], lent, failed, narrow=held > 0, weight=size + held)
    is_long = size > MAX_PACKET or isinstance(data, Pieces)
    if len(lent) + is_long > MAX_DESCRIPTORS:
        count = len(lent) + is_long
        raise ValueError(f"a packet carries at most {MAX_DESCRIPTORS} descriptors, this one {count}")
    if (is_long and not packet.shorten(spill)) or not 0 < len(packet.data) <= MAX_PACKET:
        packet.unsent()
        raise ValueError(f"a packet has 1 to {MAX_PACKET} bytes, this one {len(packet.data)}")
    return packet


def _number_of(lender: HasFileno) -> int:
    """Return the descriptor of what lends one; that it has none is no failure of the connection's socket."""
    try:
        number = lender.fileno()
    except OSError as exc:  # io.UnsupportedOperation is one
        raise ValueError(f"{type(lender).__name__} has no descriptor to send: {exc}") from exc
    if number < 0:  # as a closed socket says
        raise ValueError(f"{type(lender).__name__} has no descriptor to send: it is closed")
    return number


def judge(packet: Packet, exc: Exception, spill: Spill) -> tuple[Verdict, Exception]:
    """Return what to do with a packet that was not sent, and why it was not.

    One that the kernel finds too long is shortened, if it can be.

    Args:
        packet: the packet.
        exc: what sending it raised.
        spill: see :data:`Spill`. If it cannot do what it should, that is the reason of a refusal; but not for a packet
            that was kept, whose sender hears what the kernel said.
    """
    if isinstance(exc, BlockingIOError | InterruptedError):
        return Verdict.WAIT, exc
    if not isinstance(exc, OSError):
        return Verdict.REFUSED, exc
    number = exc.errno
    if number in _GONE or (number == errno.EBADF and packet.kept):  # if it is lent, that is the lender's fault
        return Verdict.BROKEN, exc
    if number in TOO_LONG and len(packet.data) > _SHORT and len(packet.fds) + len(packet.lent) < MAX_DESCRIPTORS:
        try:
            if packet.shorten(spill):
                return Verdict.AGAIN, exc
        except Exception as failure:
            if not packet.kept or not isinstance(failure, OSError):
                return Verdict.REFUSED, failure
    return Verdict.LATER if number in _PASSING else Verdict.REFUSED, exc


class Outbox:
    """The packets that wait for one socket, in their order, each with what goes with it.

    Args:
        high: bytes above which whoever sends should pause.
        low: bytes at which sending may go on.
    """

    __slots__ = ("high", "low", "packets", "paused", "taken", "unsent_bytes")

    def __init__(self, high: int = DEFAULT_LIMITS.high_water_bytes, low: int = DEFAULT_LIMITS.low_water_bytes) -> None:
        """Begin with none."""
        self.packets: deque[Packet] = deque()
        """What waits; to be looked at."""
        self.high, self.low = high, low
        self.unsent_bytes = 0
        """What waits, by weight."""
        self.taken = 0
        """How many packets that had waited the kernel has taken."""
        self.paused = False
        """Whether whoever sends was told to pause."""

    @property
    def first(self) -> Packet | None:
        """What is to be sent next."""
        return self.packets[0] if self.packets else None

    def add(self, packet: Packet) -> None:
        """Let a packet wait, to which nothing is lent."""
        self.packets.append(packet)
        self.unsent_bytes += packet.weight

    def sent(self) -> None:
        """Hear that the first packet was sent."""
        self.taken += 1
        self._take_first().sent()

    def failed(self, exc: Exception, spill: Spill) -> tuple[Verdict, Exception]:
        """Hear that the first packet was not sent; return what to do, and why. A refused one is dropped.

        Args:
            exc: what sending it raised.
            spill: see :data:`Spill`.
        """
        packet = self.packets[0]
        verdict, reason = judge(packet, exc, spill)
        if verdict is Verdict.REFUSED:
            self._take_first().unsent()
        return verdict, reason

    def _take_first(self) -> Packet:
        packet = self.packets.popleft()
        self.unsent_bytes -= packet.weight
        return packet

    def drop(self) -> None:
        """Let go of all that waits: nobody gets it."""
        while self.packets:
            self._take_first().unsent()

    def forget(self) -> list[Packet]:
        """Return what waits, without a word to it: it is another process's to send."""
        packets = list(self.packets)
        self.packets.clear()
        self.unsent_bytes = 0
        return packets

    def set_marks(self, high: int | None, low: int | None) -> None:
        """Set the water marks in bytes, as asyncio does it: for one that is None a usual value is taken.

        Raises:
            ValueError: not ``0 <= low <= high``.
        """
        if high is None:
            high = DEFAULT_LIMITS.high_water_bytes if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"water marks must be 0 <= low <= high, got low {low} and high {high}")
        self.high, self.low = high, low

    def begins_pause(self) -> bool:
        """Return whether whoever sends is to be told now to pause."""
        if self.paused or self.unsent_bytes <= self.high:
            return False
        self.paused = True
        return True

    def ends_pause(self) -> bool:
        """Return whether whoever sends is to be told now to go on."""
        if not self.paused or self.unsent_bytes > self.low:
            return False
        self.paused = False
        return True
