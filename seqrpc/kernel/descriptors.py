"""File descriptors with an owner."""

from __future__ import annotations

import fcntl
import os
import socket
import warnings
from types import TracebackType
from typing import IO, Any, Final, NoReturn, Protocol, Self

from seqrpc.kernel import forks
from seqrpc.kernel.closing import CLOSER, Sender, closes_now, is_trusted
from seqrpc.kernel.interrupts import Uninterrupted
from seqrpc.kernel.kinds import SMALL_BYTES
from seqrpc.logs import get_logger, meter
from seqrpc.text import shown

_log = get_logger("seqrpc.descriptors")


class HasFileno(Protocol):
    """Anything with a descriptor to lend: files, sockets, :class:`OwnedFd`."""

    def fileno(self) -> int:
        """Return the descriptor's number, lent."""
        ...


class OwnedFd:
    """An open file descriptor that belongs to this object until it is detached or closed.

    It is in one of three states: open, detached (somebody else owns the number now) or closed.
    ``fileno`` lends the number, ``detach`` gives it away, ``close`` ends it; ``with`` closes at the end.
    One that is dropped while open is closed with a :class:`ResourceWarning`, except in a fork of the process
    that made it, which never asked for its copy.

    Closing a descriptor that somebody else sent may take as long as they like. :meth:`close` does not wait for that: a
    thread closes soon after what is not known to close at once. A number that was detached closes like any other.

    Args:
        fd: an open descriptor; from now on this object owns it.

    Raises:
        ValueError: ``fd`` is negative.
        TypeError: it is no number.
    """

    __slots__ = ("__weakref__", "_booked", "_fd", "_generation", "_sender")

    _booked: set[int]
    _fd: int
    _sender: Sender

    def __init__(self, fd: int) -> None:
        """Own ``fd``."""
        try:
            is_one = fd >= 0
        except TypeError:
            self._fd = _CLOSED
            is_name = isinstance(fd, str | bytes | os.PathLike)
            way_out = "open the file first, as in OwnedFd(os.open(...))" if is_name else "write OwnedFd.dup(file)"
            raise TypeError(f"OwnedFd takes a descriptor's number, got {shown(repr(fd))}: {way_out}") from None
        if not is_one:
            self._fd = _CLOSED
            raise ValueError(f"a file descriptor is not negative, got {fd}")
        self._fd = fd
        self._generation = forks.generation
        self._sender = _OURS
        self._booked = NOWHERE

    @classmethod
    def dup(cls, fd: int | HasFileno) -> Self:
        """Return the owner of a duplicate of ``fd``, close-on-exec; ``fd`` itself is only borrowed.

        Raises:
            OSError: ``fd`` is not open, or the table is full (``EMFILE``).
        """
        number = fd if isinstance(fd, int) else fd.fileno()
        with Uninterrupted():
            return cls(os.dup(number))

    @property
    def closed(self) -> bool:
        """True once the descriptor was detached or closed."""
        return self._fd < 0

    def fileno(self) -> int:
        """Return the descriptor's number, lent: do not close it, do not keep it.

        Raises:
            ValueError: it was detached or closed.
        """
        if self._fd < 0:
            raise ValueError(f"the descriptor is {self._state()}")
        return self._fd

    def detach(self) -> int:
        """Return the descriptor's number and give it away: the caller closes it.

        Raises:
            ValueError: it was detached or closed.
        """
        fd = self.fileno()
        self._booked.discard(fd)
        self._fd = _DETACHED
        return fd

    def take(self) -> int:
        """Do what :meth:`detach` does, under its old name, which is deprecated and goes with the next release.

        Raises:
            ValueError: it was detached or closed.
        """
        warnings.warn("OwnedFd.take is deprecated; use OwnedFd.detach", DeprecationWarning, stacklevel=2)
        return self.detach()

    def open(self, mode: str = "r", **kwargs: Any) -> IO[Any]:
        """Give the descriptor to a new file object, made and owned as by :func:`open`, which closes it.

        Raises:
            ValueError: it was detached or closed, or ``mode`` is none of :func:`open`'s: it stays as it was.
            OSError, LookupError: no such file object can be made of it: it is closed.
        """
        # open() itself closes the opener's descriptor on every failure after it has asked for it.
        return open("descriptor", mode, opener=lambda _name, _flags: self.detach(), **kwargs)

    def close(self) -> None:
        """Close the descriptor if it is still owned here; closing twice does nothing."""
        fd = self._fd
        if fd < 0:
            return
        # What a signal handler raises while the descriptor is looked at leaves it open, and owned. Python looks for
        # signals after a call, and so not between it being no longer owned and its being closed.
        self._booked.discard(fd)
        sender = self._sender
        is_ours = sender == _OURS or self._generation != forks.generation
        if is_ours or closes_now(fd, sender):
            self._fd = _CLOSED  # a fork never has the last copy
            os.close(fd)
            return
        with Uninterrupted():
            self._fd = _CLOSED
            CLOSER.put(fd, sender)

    def _state(self) -> str:
        return {_CLOSED: "closed", _DETACHED: "detached"}.get(self._fd, "open")

    def __enter__(self) -> Self:
        """Return itself; the descriptor is closed at the end of the block unless detached in it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close the descriptor."""
        self.close()

    def __del__(self) -> None:
        """Close a dropped descriptor, and say so."""
        if getattr(self, "_fd", _CLOSED) >= 0:
            try:
                if self._generation == forks.generation and meter.admits("unclosed", _tell_unclosed, finalizing=True):
                    warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            finally:  # also if warnings are errors
                self.close()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: two owners would close one number twice."""
        raise TypeError("an OwnedFd cannot be copied or pickled; use OwnedFd.dup")

    def __repr__(self) -> str:
        """Return the state, with the number while it is owned."""
        return f"<OwnedFd {self._fd}>" if self._fd >= 0 else f"<OwnedFd {self._state()}>"


def _tell_unclosed(count: int) -> None:
    """Warn of dropped descriptors that were too many to warn of each."""
    try:
        warnings.warn(f"{count} more descriptors were dropped unclosed", ResourceWarning, stacklevel=2)
    except ResourceWarning as exc:  # warnings are errors, and nobody is there to catch this one
        _log.warning("= %s", exc)


_FEW: Final = 16
"""Descriptors each of which is looked at before it is closed: at 15 us each, that takes a quarter of a millisecond."""

_CLOSED = -1
_DETACHED = -2
_OURS: Final = -1  # the sender of what this process made; no user has this number
NOWHERE: Final[set[int]] = set()
"""Where what nobody counts is booked; always empty."""


class ValueFd(OwnedFd):
    """The descriptor of a received buffer, stream or channel, which lives as long as somebody refers to that value.

    It belongs to the value, not to the call that brought it, and is closed with it without a warning.
    """

    __slots__ = ()

    def __del__(self) -> None:
        """Close it: the last reference to the value is gone."""
        if getattr(self, "_fd", _CLOSED) >= 0:
            self.close()


def received_fd(fd: int, sender: Sender = None) -> OwnedFd:
    """Return the owner of a descriptor; ``sender`` is the uid of the process that sent it, None if unknown."""
    owned = OwnedFd(fd)
    owned._sender = sender  # noqa: SLF001 - here and below: only these functions say who sent a descriptor
    return owned


def value_fd(fd: int, sender: Sender = None) -> ValueFd:
    """Return the owner of a received value's descriptor, like :func:`received_fd`."""
    kept = ValueFd(fd)
    kept._sender = sender  # noqa: SLF001
    return kept


def close_checked(owned: OwnedFd, size: int) -> None:
    """Close a memory file that was checked: a small one without looking at it again.

    Args:
        owned: the file.
        size: bytes of memory that it takes, for good.
    """
    fd = owned._fd  # noqa: SLF001 - here and below: of the same module
    if size > SMALL_BYTES or fd < 0 or not is_trusted(owned._sender):  # noqa: SLF001
        owned.close()
        return
    owned._booked.discard(fd)  # noqa: SLF001
    owned._fd = _CLOSED  # noqa: SLF001
    os.close(fd)


def widen_table(number: int) -> None:
    """Have the kernel make room for so many descriptors of this process now, rather than as they come.

    Once there are several threads, it waits for all processors each time it doubles the table, and whoever gets the
    descriptor waits with it: 8 to 16 ms. Each takes 8 bytes of the kernel's memory.

    Raises:
        OSError: there is no number that is so high (``RLIMIT_NOFILE``), or too little memory.
    """
    reader, writer = os.pipe()
    try:
        with Uninterrupted():
            os.close(fcntl.fcntl(reader, fcntl.F_DUPFD_CLOEXEC, number - 1))
    finally:
        os.close(reader)
        os.close(writer)


def as_value(owned: OwnedFd) -> ValueFd:
    """Return a new owner, for a value, of the descriptor of ``owned``, which no longer owns it."""
    with Uninterrupted():
        kept = ValueFd(owned.detach())
        kept._sender = owned._sender  # noqa: SLF001
        if owned._booked is not NOWHERE:  # noqa: SLF001
            book(kept, owned._booked)  # noqa: SLF001
    return kept


def book(owned: OwnedFd, numbers: set[int]) -> None:
    """Have a descriptor's number in a set as long as it is open and owned, for whoever counts them; closed is not."""
    if owned._fd >= 0:  # noqa: SLF001
        owned._booked = numbers  # noqa: SLF001
        numbers.add(owned._fd)  # noqa: SLF001


class ValueSocket(socket.socket):
    """The socket of a received stream or channel, whose number is counted where its descriptor was booked."""

    _booked: set[int] = NOWHERE
    _sender: Sender = 0

    def close(self) -> None:
        """Close it, and count it no more; what another user sent is closed in a thread."""
        self._booked.discard(self.fileno())
        sender = self._sender
        if sender == _OURS or is_trusted(sender) or self.fileno() < 0:
            super().close()
            return
        with Uninterrupted():
            CLOSER.put(super().detach(), sender)

    def detach(self) -> int:
        """Give its number away, and count it no more."""
        self._booked.discard(self.fileno())
        return super().detach()


def socket_of(owned: OwnedFd) -> ValueSocket:
    """Return a socket that owns the descriptor of ``owned``, which no longer does, and is booked as that was.

    Raises:
        OSError: it is no socket, and stays as it was.
    """
    with Uninterrupted():
        sock = ValueSocket(fileno=owned.fileno())
        sock._sender = owned._sender  # noqa: SLF001
        booked = owned._booked  # noqa: SLF001 - of the same module
        fd = owned.detach()
        if booked is not NOWHERE:
            sock._booked = booked  # noqa: SLF001
            booked.add(fd)
    return sock


def tell_senders(fds: list[OwnedFd], sender: Sender) -> None:
    """Note who sent these descriptors, once it is known."""
    for owned in fds:
        owned._sender = sender  # noqa: SLF001


def sender_of(owned: OwnedFd | None) -> Sender:
    """Return the uid of the process that sent a descriptor; None if unknown, or if this process made it."""
    if owned is None or owned._sender == _OURS:  # noqa: SLF001
        return None
    return owned._sender  # noqa: SLF001


def close_all(fds: list[OwnedFd]) -> None:
    """Close every descriptor of ``fds`` that is still owned, even if closing one of them fails.

    Many that somebody else sent are closed by a thread, all of them: to look at each takes longer than closing it.
    """
    if len(fds) > _FEW:
        _close_soon(fds)
    while fds:
        try:
            fds.pop().close()
        except OSError:  # close(2): the number is free again whatever it says (EIO, EINTR)
            continue


def _close_soon(fds: list[OwnedFd]) -> None:
    """Have a thread close those that somebody else sent."""
    numbers: list[tuple[int, None, Sender]] = []
    with Uninterrupted():
        for owned in fds:
            fd, sender = owned._fd, owned._sender  # noqa: SLF001 - here and below: of the same module
            if fd >= 0 and sender != _OURS and owned._generation == forks.generation:  # noqa: SLF001
                owned._booked.discard(fd)  # noqa: SLF001
                owned._fd = _CLOSED  # noqa: SLF001
                numbers.append((fd, None, sender))
        CLOSER.put_all(numbers)
