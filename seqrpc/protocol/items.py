"""What goes through a stream's own socket: items, several to a packet, and an end (protocol section 6).

No socket, no clock, no event loop: packets come and go as bytes with what they refer to.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from seqrpc.errors import DescriptorsLost, Execution, RemoteProtocolError, RpcError, TooLarge, Unavailable
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.logs import get_logger, new_incident
from seqrpc.protocol import messages
from seqrpc.protocol.closed import closed_in
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.lenders import Lender, Packed, give_up_lenders, tell_sent
from seqrpc.protocol.messages import SPILLED, error_parts
from seqrpc.protocol.spilled import read_spilled
from seqrpc.text import shown

_log = get_logger("seqrpc.items")

ITEMS: Final = 0
END: Final = 1

_NAMES: Final = ("kind", "item")

PACKET_ITEMS: Final = 256
"""The most items that share a packet."""

PACKET_BYTES: Final = 8_192
"""Bytes from which on a packet takes no further items: more would hardly be quicker."""

_SMALL_TEXT: Final = 256  # characters or bytes of what still counts as a small scalar

_SCALARS: Final[dict[type, int]] = {int: 9, float: 9, bool: 1, type(None): 1}  # and the most bytes that each takes
_TEXTS: Final[dict[type, int]] = {str: 4, bytes: 1}  # and the most bytes of a character


class End(msgspec.Struct, eq=False):
    """The producer is done: ``error`` is None, or ``[code, message, data]`` and it failed."""

    error: list[Any] | None
    fds: list[OwnedFd]


def failure_of(end: End) -> RpcError:
    """Return what the reader of a stream hears whose producer failed: its call ran, whatever code the error has."""
    assert end.error is not None
    return _of_what_ran(RpcError.from_wire(*end.error))


def producer_gone(text: str) -> RpcError:
    """Return what the reader of a stream hears whose producer went without an end."""
    return _of_what_ran(Unavailable(text))


def _of_what_ran(error: RpcError) -> RpcError:
    if error.execution is Execution.DID_NOT_RUN:
        error.execution = Execution.MAY_HAVE_RUN
    return error


class Items(msgspec.Struct, eq=False):
    """Some items; their descriptors are the receiver's."""

    values: list[Any]
    fds: list[OwnedFd]


class Outgoing:
    """A message of a stream on its way out, and what it lends: after sending or giving up, say which it was.

    The producer gave away what is in its items: descriptors, streams and objects.
    """

    __slots__ = ("data", "lenders")

    def __init__(self, packed: Packed) -> None:
        """Hold it."""
        self.data, self.lenders = packed

    def sent(self) -> None:
        """Close the descriptors that were given away: the reader has its own."""
        tell_sent(self.lenders)
        close_all([lender for lender in self.lenders if isinstance(lender, OwnedFd)])

    def unsent(self) -> None:
        """Let go of what was given away: nobody will read it."""
        give_up_lenders(self.lenders)


class ItemWriter:
    """Puts items together into packets. What is large, or holds descriptors, has one of its own.

    Args:
        encoder: encodes them; it may be shared.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Begin with no item."""
        self._encoder = encoder
        self._parts: list[bytes | memoryview] = []
        self._scalars: list[Any] = []  # not encoded yet, for it is quicker to do many at once, and they cannot change
        self._size = 0
        self._alone: Outgoing | None = None
        self.count = 0
        """Items that wait to share a packet."""
        self.full = False
        """Whether a packet should leave before another item is added."""
        self.failure: Exception | None = None
        """Why an item could not be encoded that :meth:`add` had taken; those before it can still leave."""

    def add(self, item: Any) -> None:
        """Take one more item; it is encoded at once, or cannot change. What is in it is given away.

        Raises:
            LocalProtocolError, TooLarge, RpcError, ValueError: it cannot be sent, and was given up; what waits still
                can be.
        """
        kind = type(item)
        most = _SCALARS.get(kind)
        if most is None and kind in _TEXTS and len(item) <= _SMALL_TEXT:
            most = 5 + _TEXTS[kind] * len(item)
        if most is None:
            self._add_any(item)
            return
        self._scalars.append(item)
        self._size += most
        self.count += 1
        self.full = self._size >= PACKET_BYTES or self.count >= PACKET_ITEMS

    def _add_any(self, item: Any) -> None:
        self._close_run()
        try:
            if self.failure is not None:  # of one before it, which it must not overtake
                raise self.failure
            packed = data, lenders = self._encoder.encode((ITEMS, item), _NAMES, (item,), given=True)
            if lenders:
                _check_open(item, lenders)
        except Exception:
            self._encoder.give_up(item)
            raise
        if lenders or len(data) >= PACKET_BYTES:
            self._alone = Outgoing(packed)
            self.full = True
            return
        content = bytes(data)[2:]  # without the head of the array, and the kind
        self._parts.append(content)
        self._size += len(content)
        self.count += 1
        self.full = self._size >= PACKET_BYTES or self.count >= PACKET_ITEMS

    def _close_run(self) -> None:
        """Encode the scalars that wait."""
        run, self._scalars = self._scalars, []
        if not run:
            return
        try:
            self._parts.append(self._encoder.encode_run(run))
        except Exception:
            self._close_run_singly(run)

    def _close_run_singly(self, run: list[Any]) -> None:
        """Encode scalars one of which cannot be sent, up to that one."""
        for index, item in enumerate(run):
            try:
                self._parts.append(bytes(self._encoder.encode((item,), ("item",))[0])[1:])
            except Exception as exc:
                self.failure = exc
                self.count -= len(run) - index
                return

    def _head(self, count: int) -> bytes:
        return self._encoder.array_header(count + 1) + b"\x00"  # the kind, ITEMS

    def packet(self) -> Outgoing | None:
        """Return the next message, None if nothing waits; it is then the caller's to send or to give up."""
        if self._scalars and not self._parts:  # nothing but scalars: it can be encoded at one go
            try:
                packed = self._encoder.encode((ITEMS, *self._scalars))
            except Exception:  # noqa: S110 - one of them cannot be sent: which, is found out below
                pass
            else:
                self._scalars, self.count, self._size = [], 0, 0
                self.full = self._alone is not None
                return Outgoing(packed)
        self._close_run()
        if self.count:
            data = b"".join((self._head(self.count), *self._parts))
            self._parts, self.count, self._size = [], 0, 0
            self.full = self._alone is not None
            return Outgoing((data, []))
        alone, self._alone, self.full = self._alone, None, False
        return alone

    def drop(self) -> None:
        """Let go of what waits: nobody will read it."""
        alone, self._alone = self._alone, None
        self._parts, self._scalars, self._size = [], [], 0
        self.count, self.full, self.failure = 0, False, None
        if alone is not None:
            alone.unsent()

    def end(self, error: tuple[str, str, Any] | None) -> Outgoing:
        """Return the last message; never fails: what cannot be sent of an error is left out, and its data given up."""
        for last in (error, error and (*error[:2], None)):
            try:
                return Outgoing(self._encoder.encode((END, last), given=True))
            except Exception:  # values raise what they like while they are encoded
                self._encoder.give_up(error)
        incident, message = new_incident()
        _log.error("! the error of a stream cannot be sent: %s (incident %s)", shown(error and error[0]), incident)
        return Outgoing(self._encoder.encode((END, ("rpc.Internal", message, None))))


def _check_open(item: Any, lenders: list[Lender]) -> None:
    """Let go of what lent descriptors to an item if one of those is closed, while it is known whose it was."""
    if any(getattr(lender, "closed", False) is True for lender in lenders):
        closed = closed_in(item, "the item")
        give_up_lenders(lenders)
        raise ValueError(f"{closed}; what is yielded is given away: yield it open, and leave it open")


class ItemReader:
    """Takes packets apart.

    Args:
        decoder: decodes them; it may be shared.
        max_message_bytes: the most bytes of one message.
    """

    def __init__(self, decoder: Decoder, max_message_bytes: int) -> None:
        """Remember what decodes."""
        self._decoder = decoder
        self._max_bytes = max_message_bytes

    def receive_packet(self, data: bytes, fds: list[OwnedFd], *, lost: bool = False) -> Items | End | None:
        """Return what a packet brings; None if its kind is unknown (protocol 1.4).

        Takes ``fds``, as :meth:`seqrpc.protocol.session.Session.receive_packet` does.

        Raises:
            RemoteProtocolError: the packet is malformed.
            DescriptorsLost: it lost its descriptors on the way; there may be more packets.
            TooLarge, Overloaded: it is not taken here.
        """
        if not fds and not lost:  # nearly all: it saves a twentieth of the byte code of a lone item
            value = self._decoder.decode_plain(data)
            if type(value) is list and len(value) > 1 and value[0] == ITEMS and type(value[0]) is int:
                return Items(value[1:], fds)
        try:
            value, problem = self._decoder.decode(data, fds)
            if messages.kind_of(value) == SPILLED:
                spilled = messages.parse_spilled(value)
                if spilled.length > self._max_bytes:
                    bound = f"at most {self._max_bytes} bytes (max_message_bytes)"
                    raise TooLarge(f"an item of a stream has {bound}, this one {spilled.length}")
                if not lost:
                    value, problem = read_spilled(self._decoder, spilled.length, fds)
            if lost:
                raise DescriptorsLost("descriptors of an item of the stream were lost on the way in")
            if isinstance(problem, RpcError):
                raise problem
            return self._parse(value, fds, problem)
        except BaseException:
            close_all(fds)
            raise

    def _parse(self, value: Any, fds: list[OwnedFd], problem: str | None) -> Items | End | None:
        kind = messages.kind_of(value)
        if kind not in (ITEMS, END):
            close_all(fds)
            if kind == SPILLED:
                raise RemoteProtocolError("malformed message: a spilled message inside a spilled message")
            return None
        if problem is not None:
            raise RemoteProtocolError(f"malformed message: {problem}")
        if kind == ITEMS:
            if len(value) < 2:
                raise RemoteProtocolError("malformed message: a packet of a stream has one item or more, this one none")
            return Items(value[1:], fds)
        if len(value) != 2:
            raise RemoteProtocolError(f"malformed message: the end of a stream has 2 elements, got {len(value)}")
        return End(error_parts(value[1]), fds)
