"""Values and descriptors to bytes.

On the wire are MessagePack's own types, timestamps, and what travels as a descriptor: files, streams,
channels and buffers (extension types 1 to 4, protocol section 4). All else is taken apart.
"""

from __future__ import annotations

import datetime as dt
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgpack

from seqrpc.errors import LocalProtocolError, RpcError, TooLarge, WrongLoop, WrongProcess
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.pieces import Content, Pieces
from seqrpc.limits import DEFAULT_LIMITS, MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.protocol.culprit import Search
from seqrpc.protocol.depth import check_depth
from seqrpc.protocol.encoded import Encoded
from seqrpc.protocol.flattening import Borrowed, flatten, is_one_level
from seqrpc.protocol.kinds import lends_descriptor, may_be_unset, names_of
from seqrpc.protocol.lenders import Lender, Packed, give_up_lenders, tell_unsent
from seqrpc.protocol.longbytes import has_long_bytes, pack_in_pieces, without_long_bytes
from seqrpc.protocol.moments import moment
from seqrpc.protocol.references import BUFFER_DATA
from seqrpc.protocol.values import EXT_BUFFER, EXT_DESCRIPTOR, SCALARS, BareValues, Living, give_up

_DEEPEST: Final = 512  # how far inside a message the culprit is looked for: the stack holds 1,000 calls

_PACKER_BYTES: Final = 256
"""Bytes that a packer begins with; it takes more as it needs it, and keeps it. By default it has 256 KiB, of which the
first page is written at once: 4 KiB for each connection."""

_MOST_KINDS: Final = 64  # dataclasses, and the like, that an encoder remembers as plain data

_PACKED: Final = frozenset({list, tuple, dict, bytearray, memoryview, *SCALARS})
"""Types that msgpack knows."""

_TELLING: Final = (LocalProtocolError, RpcError, WrongLoop, WrongProcess)
"""Exceptions that say by themselves why a value cannot be sent; for others the path to the value is told."""


class Encoder:
    """Encodes whole messages. It keeps nothing of one when the next comes; use one from one thread.

    What takes the values of the application apart may have another message encoded meanwhile.

    Args:
        limits: those of what is in a message are used.
        living: what streams and channels are here.
    """

    __slots__ = (
        "__weakref__", "_lenders", "_living", "_long_packer", "_max_bytes", "_max_depth", "_pack", "_packer",
        "_plain_kinds",
    )  # fmt: skip

    def __init__(self, limits: Limits = DEFAULT_LIMITS, living: Living | None = None) -> None:
        """Make what is used for every message."""
        self._max_depth = limits.max_depth
        self._max_bytes = limits.max_message_bytes
        self._living = BareValues() if living is None else living
        self._plain_kinds: dict[type, frozenset[str]] = {}  # dataclasses, and what instances hold if nothing else
        self._packer: Any = self._new_packer()  # None if it may hold some of a message that was not sent
        self._pack: Callable[[Any], bytes] = self._packer.pack
        self._long_packer: Any = None  # after a long message: the next may be long as well, and is not to be copied
        self._lenders: list[Lender] = []

    def encode(
        self, message: Any, names: tuple[str, ...] = (), values: Iterable[Any] = (), *, given: bool = False
    ) -> Packed:
        """Return a message encoded, and what lends its descriptors, in the order of their indexes.

        Anything with a ``fileno`` method is sent as a descriptor, borrowed: keep the lenders open
        until the packet has left. Those that are an :class:`~seqrpc.protocol.values.Departure` want to hear of it:
        :func:`~seqrpc.protocol.lenders.tell_sent`, :func:`~seqrpc.protocol.lenders.tell_unsent`.

        Args:
            message: a tuple.
            names: what errors call its parts.
            values: what of it may be long: the arguments by position or by name, the result, or the item of a
                stream. ``bytes`` among these that no packet holds are not copied, and are not to change.
            given: whether what it holds was given away. If it was and cannot be sent, whatever lent descriptors to it
                is let go, as far as it was reached; :meth:`give_up` is for the rest.

        Raises:
            TooLarge: it is longer than ``max_message_bytes``.
            LocalProtocolError: a value cannot be sent, there are more than 253 descriptors, or it
                is nested deeper than ``max_depth``; the message names the place and the bound.
            RpcError: a stream or channel in it cannot be made now.
        """
        data: Content
        try:
            # Most values are not even bytes, which is known without a call.
            if values and (bytes in map(type, values) or type(values) is dict) and has_long_bytes(values):
                data = self._pack_in_pieces(message)
            else:
                data = self._pack(message) if self._long_packer is None else self._pack_long(message)
                if len(data) > self._max_depth:  # a shorter one has no room for more
                    if len(data) > MAX_PACKET:
                        data = self._check_long(data)
                    self._check_depth(data)
        except BaseException as exc:
            # Before anything is called: a second signal handler may come between, and the next message gets nothing.
            lenders, self._lenders = self._lenders, []
            self._pack, self._packer, self._long_packer = self._pack_anew, None, None
            try:
                _let_go(lenders, given=given)
            except BaseException:
                _let_go(lenders, given=given)
                raise
            if isinstance(exc, _TELLING) or not isinstance(exc, Exception):
                raise
            # Values may raise what they like while they are taken apart.
            raise LocalProtocolError(self._explain(message, names, exc)) from exc
        lenders = self._lenders
        if not lenders:
            return data, []
        self._lenders = []  # kept here, a file would stay open until the next message
        return data, lenders

    def encode_with(self, message: tuple[Any, ...], last: Encoded) -> Packed:
        """Return a message encoded, whose last part is encoded already.

        Args:
            message: its other parts, which are small and hold nothing that lends a descriptor.
            last: the last part.

        Raises:
            TooLarge: it is longer than ``max_message_bytes``.
        """
        head = bytes(self.encode((*message, None))[0])[:-1]  # nil is one byte
        size = len(head) + len(last.data)
        if size <= MAX_PACKET:
            return head + last.data, []
        self._check_size(size)
        return Pieces((head, last.data)), []

    def encode_run(self, values: Sequence[Any]) -> bytes:
        """Return a few small scalars one after the other, quicker than each by itself.

        Raises:
            Exception: one of them cannot be sent, and so none was: :meth:`encode` tells which and why.
        """
        try:
            data: bytes = self._pack(values)
        except BaseException:
            self._pack, self._packer, self._long_packer = self._pack_anew, None, None
            raise
        return data[1 if len(values) < 16 else 3 :]

    def array_header(self, size: int) -> bytes:
        """Return how an array of ``size`` values begins."""
        if self._packer is None:
            self._use_new_packer()
        data: bytes = self._packer.pack_array_header(size)
        return data

    def let_go(self) -> None:
        """Be freed with whatever refers to this, without the garbage collector, unless it encodes again."""
        encoder = weakref.ref(self)
        self._pack, self._packer, self._long_packer = lambda message: _anew(encoder, message), None, None

    def give_up(self, value: Any, kept: Any = None) -> None:
        """Let go of a value that was given away and that nobody gets: :func:`seqrpc.protocol.values.give_up`."""
        give_up(value, self._living, kept)

    def _pack_in_pieces(self, message: Any) -> Pieces:
        """Pack a message that has long bytes, and check it."""
        pieces = pack_in_pieces(self._new_packer(autoreset=False), message)
        self._check_size(len(pieces))
        self._check_depth(without_long_bytes(pieces))
        return pieces

    def _pack_long(self, message: Any) -> bytes | memoryview:
        """Pack a message after a long one: the packer's own memory, uncopied, if this is long too."""
        packer = self._long_packer
        packer.pack(message)
        data = memoryview(packer)
        if len(data) > MAX_PACKET:
            self._long_packer = self._new_packer(autoreset=False)  # that memory is the message's now
            return data
        self._long_packer = None
        return bytes(data)

    def _check_long(self, data: bytes | memoryview) -> memoryview:
        """Prepare for more messages like this one, and check it."""
        if self._long_packer is None:
            self._use_new_packer()  # a packer keeps a buffer as large as the largest it ever filled
            self._long_packer = self._new_packer(autoreset=False)
        self._check_size(len(data))
        return memoryview(data)

    def _check_size(self, size: int) -> None:
        """Check a message of so many bytes, which no packet holds."""
        if size > self._max_bytes:
            raise TooLarge(f"a message holds at most {self._max_bytes} bytes (max_message_bytes), this one {size}")
        if len(self._lenders) == MAX_DESCRIPTORS:
            raise LocalProtocolError(
                f"a message of more than {MAX_PACKET} bytes holds at most {MAX_DESCRIPTORS - 1} descriptors,"
                " this one more"
            )

    def _check_depth(self, data: bytes | memoryview) -> None:
        try:
            check_depth(data, self._max_depth)
        except ValueError as exc:
            raise LocalProtocolError(f"cannot send: {exc}") from None

    def _new_packer(self, *, autoreset: bool = True) -> Any:
        return msgpack.Packer(default=self._replace, autoreset=autoreset, buf_size=_PACKER_BYTES)

    def _use_new_packer(self) -> None:
        self._packer = self._new_packer()
        self._pack = self._packer.pack
        self._long_packer = None

    def _pack_anew(self, message: Any) -> bytes:
        """Pack a message after one that could not be sent, with a packer that holds nothing of it."""
        self._use_new_packer()
        data: bytes = self._pack(message)
        return data

    def _explain(self, message: Any, names: tuple[str, ...], exc: Exception) -> str:
        """Say where in the message the value is that cannot be sent."""
        search = Search(self._travels, self._pack_alone, min(self._max_depth, _DEEPEST))
        return search.explain(message, names, exc)

    def _pack_alone(self, value: Any) -> None:
        """Pack a value by itself; what travels as a descriptor is taken for nothing."""

        def plain(value: Any) -> Any:
            value = value.value if isinstance(value, Borrowed) else value
            return None if self._travels(value) else _flat(value)

        msgpack.Packer(default=plain, buf_size=_PACKER_BYTES).pack(value)

    def _travels(self, value: Any) -> bool:
        """Return whether a value travels as a descriptor."""
        return isinstance(value, Buffer) or self._living.travels(value) or lends_descriptor(value)

    def _lends(self, value: Any) -> bool:
        """Return whether a value is sent as a descriptor; an object of a service may have a method of any name."""
        return lends_descriptor(value) and (hasattr(type(value), "__aiter__") or not self._living.travels(value))

    def _replace(self, value: Any) -> Any:
        """Return something that msgpack knows in place of ``value``, which it does not."""
        fields = self._plain_kinds.get(type(value))
        if fields is not None and value.__dict__.keys() == fields:
            return value.__dict__
        if isinstance(value, Borrowed):
            value = value.value
            if type(value) in _PACKED:
                return value
        if isinstance(value, Buffer):
            value.seal()
            index = self._lend(value)
            return msgpack.ExtType(EXT_BUFFER, BUFFER_DATA.pack(index, value.offset, len(value)))
        if self._lends(value):
            return msgpack.ExtType(EXT_DESCRIPTOR, bytes((self._lend(value),)))
        departure = self._living.departure_of(value)
        if departure is None:
            kind = type(value)
            is_plain = is_one_level(kind) and not may_be_unset(kind) and hasattr(value, "__dict__")
            if is_plain and len(self._plain_kinds) < _MOST_KINDS:
                self._plain_kinds[kind] = frozenset(names_of(kind) or ())  # and need not be asked what it is again
            return self._flat_apart(value)
        try:
            index = self._lend(departure)
        except BaseException:
            if not self._lenders or self._lenders[-1] is not departure:  # else it is told with the others
                departure.unsent()
            raise
        return msgpack.ExtType(departure.ext_type, bytes((index,)))

    def _flat_apart(self, value: Any) -> Any:
        """Take a value apart, which may run what encodes another message over the same connection."""
        own = self._pack, self._packer, self._long_packer, self._lenders
        try:
            self._pack, self._packer, self._long_packer, self._lenders = self._pack_anew, None, None, []
            return _flat(value)
        finally:
            self._pack, self._packer, self._long_packer, self._lenders = own

    def _lend(self, lender: Lender) -> int:
        """Return the index of one more descriptor."""
        index = len(self._lenders)
        if index == MAX_DESCRIPTORS:
            raise LocalProtocolError(f"a message holds at most {MAX_DESCRIPTORS} descriptors, this one more")
        self._lenders.append(lender)
        return index


def encode_once(value: Any) -> Encoded:
    """Return a value that JSON has, too, encoded, to be sent many times.

    Raises:
        LocalProtocolError: it cannot be sent, or not to everybody: it is deeper than others take by default.
        TooLarge: likewise: it is longer.
    """
    data, lenders = Encoder().encode((value,))
    assert not lenders
    return Encoded(bytes(data)[1:])


def _let_go(lenders: list[Lender], *, given: bool) -> None:
    """Tell what lent descriptors to a message that they are not sent."""
    (give_up_lenders if given else tell_unsent)(lenders)


def _flat(value: Any) -> Any:
    """Return what msgpack knows in place of a value that does not travel as a descriptor."""
    if isinstance(value, Encoded):
        return msgpack.unpackb(value.data)
    return moment(value) if isinstance(value, dt.datetime) else flatten(value)


def _anew(encoder: weakref.ref[Encoder], message: Any) -> bytes:
    """Have an encoder that was let go, and whose method calls this, pack a message; it does not keep the packer."""
    own = encoder()
    assert own is not None
    data: bytes = own._new_packer().pack(message)  # noqa: SLF001 - this module's own
    return data
