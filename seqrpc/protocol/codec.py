"""Values and descriptors to bytes and back: the only msgpack, with depth.py.

On the wire are MessagePack's own types, timestamps, and what travels as a descriptor: files, streams,
channels and buffers (extension types 1 to 4, protocol section 4). What else Python has (dataclasses, Structs,
enums, sets, UUIDs) is taken apart by msgspec on the way out, and put together again by whoever knows the
annotation on the way in.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import gc
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgpack
import msgspec

from seqrpc.errors import (
    LocalProtocolError,
    Overloaded,
    RemoteProtocolError,
    RpcError,
    TooLarge,
    WrongLoop,
    WrongProcess,
)
from seqrpc.kernel import memfd
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import HasFileno, OwnedFd, ValueFd, as_value
from seqrpc.kernel.pieces import Content, Pieces
from seqrpc.limits import DEFAULT_LIMITS, MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.culprit import NotFound, Search
from seqrpc.protocol.depth import check_depth, check_whole, is_shallow
from seqrpc.protocol.longbytes import EXT_TAKEN, has_long_bytes, pack_in_pieces, take_long_bytes, without_long_bytes
from seqrpc.protocol.maps import MOST_KEYS, hooks_for, look_closer, read_maps
from seqrpc.protocol.values import (
    EXT_BUFFER,
    EXT_CHANNEL,
    EXT_DESCRIPTOR,
    EXT_STREAM,
    Export,
    Handle,
    Handles,
    Living,
    give_up,
    give_up_lenders,
    parts_of,
)

_log = get_logger("seqrpc.codec")

_DEEPEST: Final = 512  # how far inside a message the culprit is looked for: the stack holds 1,000 calls

_LARGE: Final = 8_192  # bytes of a message whose values may be so many that the garbage collector is felt

_PACKER_BYTES: Final = 256
"""Bytes that a packer begins with; it takes more as it needs it, and keeps it. By default it has 256 KiB, of which the
first page is written at once: 4 KiB for each connection."""

_MOST_KINDS: Final = 64  # dataclasses of which a codec knows that they are plain data

_MAX_WRONG: Final = 1_000  # bad references after which a message is not looked at any further

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST_DAY: Final = (dt.datetime.min.replace(tzinfo=dt.UTC) - _EPOCH).days
_END_DAY: Final = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH).days + 1

_BUFFER_DATA: Final = struct.Struct(">BQQ")  # index, offset, length (protocol section 4)

_REFERENCES: Final = {
    EXT_DESCRIPTOR: ("descriptor", 1),
    EXT_STREAM: ("stream", 1),
    EXT_CHANNEL: ("channel", 1),
    EXT_BUFFER: ("buffer", _BUFFER_DATA.size),
}
"""What refers to a descriptor, and how many bytes it has."""

_DECODING_ERRORS = (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException)

_TELLING = (LocalProtocolError, RpcError, WrongLoop, WrongProcess)
"""What says by itself why a value cannot be sent; of other exceptions the path to the value is told."""

Lender = HasFileno | Export | Buffer
"""What lends a descriptor to one message."""

Encoded = Content
"""An encoded message; one that is longer than a packet is a memoryview, or pieces if it has long bytes."""

Packed = tuple[Encoded, list[Lender]]
"""An encoded message, and what lends its descriptors, in order."""


class _Borrowed:
    """Wraps what msgspec does not know while it takes the value around it apart."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


_NATIVE = (bytes, bytearray, memoryview, dt.datetime, OwnedFd, _Borrowed)


class Codec:
    """Encodes and decodes whole messages. It keeps no state between them; use one from one thread.

    Args:
        limits: those of what is in a message are used.
        living: what streams and channels are here.
    """

    __slots__ = (
        "_fds", "_lenders", "_living", "_long_packer", "_made", "_max_buffer_bytes", "_max_bytes", "_max_containers",
        "_max_depth", "_max_other_keys", "_pack", "_packer", "_plain_kinds", "_problem", "_referred", "_taken",
        "_wrong", "copied_bytes", "lack_of_room", "on_work",
    )  # fmt: skip

    def __init__(self, limits: Limits = DEFAULT_LIMITS, living: Living | None = None) -> None:
        """Make the parts that are used for every packet."""
        self._max_depth = limits.max_depth
        self._max_bytes = limits.max_message_bytes
        self._max_buffer_bytes = limits.max_buffer_bytes
        self._max_containers = limits.max_containers
        self._max_other_keys = limits.max_other_keys
        self._living = Handles() if living is None else living
        self.on_work: Callable[[], object] = _nothing
        """Called where decoding takes longer than the length of a packet tells."""
        self.lack_of_room: Callable[[int], str | None] = _no_lack
        """Asked why so many bytes cannot be kept for the message that is being decoded; None if they can."""
        self.copied_bytes = 0
        """Of the message that was decoded last: bytes of its buffers that could not be mapped as they are."""
        self._plain_kinds: dict[type, frozenset[str]] = {}  # dataclasses, and what instances hold if nothing else
        self._packer = self._new_packer()
        self._pack = self._packer.pack
        self._long_packer: Any = None  # after a long message: the next may be long as well, and is not to be copied
        self._lenders: list[Lender] = []
        self._fds: list[OwnedFd] = []
        self._made: dict[tuple[int, bytes], Any] = {}  # of descriptors of a message, which can be had once only
        self._taken: list[bytes] = []
        self._referred = 0
        self._wrong = 0
        self._problem: str | RpcError | None = None

    # Encoding

    def encode(
        self, message: Any, names: tuple[str, ...] = (), values: Iterable[Any] = (), *, given: bool = False
    ) -> Packed:
        """Return a message encoded, and what lends its descriptors, in the order of their indexes.

        Anything with a ``fileno`` method is sent as a descriptor, borrowed: keep the lenders open
        until the packet has left. Those that are an :class:`~seqrpc.protocol.values.Export` want to hear of it:
        :func:`tell_sent`, :func:`tell_unsent`.

        Args:
            message: a tuple.
            names: what errors call its parts.
            values: what of it may be long: the arguments by position or by name, the result, or the item of a
                stream. ``bytes`` among these that no packet holds are not copied, and are not to change.
            given: what it holds was given away: if it cannot be sent, what lent descriptors to it is let go, as far
                as it was reached; :meth:`give_up` is for the rest.

        Raises:
            TooLarge: it is longer than ``max_message_bytes``.
            LocalProtocolError: a value cannot be sent, there are more than 253 descriptors, or it
                is nested deeper than ``max_depth``; the message names the place and the bound.
            RpcError: a stream or channel in it cannot be made now.
        """
        data: Encoded
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
            self._forget_packing(given=given)
            if isinstance(exc, _TELLING) or not isinstance(exc, Exception):
                raise
            # Values may raise what they like while they are taken apart.
            raise LocalProtocolError(self._explain(message, names, exc)) from exc
        lenders = self._lenders
        if not lenders:
            return data, []
        self._lenders = []  # kept here, a file would stay open until the next message
        return data, lenders

    def _pack_in_pieces(self, message: Any) -> Pieces:
        """Pack a message that has long bytes, and check it."""
        pieces = pack_in_pieces(self._new_packer(autoreset=False), message)
        self._check_size(len(pieces))
        self._check_depth(without_long_bytes(pieces))
        return pieces

    def _forget_packing(self, *, given: bool) -> None:
        """Begin anew after a message that cannot be sent."""
        lenders, self._lenders = self._lenders, []
        self._use_new_packer()
        (give_up_lenders if given else tell_unsent)(lenders)

    def give_up(self, value: Any) -> None:
        """Let go of a value that was given away and that nobody gets: :func:`seqrpc.protocol.values.give_up`."""
        give_up(value, self._living)

    def _use_new_packer(self) -> None:
        self._packer = self._new_packer()
        self._pack = self._packer.pack
        self._long_packer = None

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

    def _explain(self, message: Any, names: tuple[str, ...], exc: Exception) -> str:
        """Say where in the message the value is that cannot be sent."""
        search = Search(self._travels, self._pack_alone, min(self._max_depth, _DEEPEST))
        reason = str(exc) or type(exc).__name__
        try:
            for name, value in zip(names, message, strict=False):
                found = search.find(value, name)
                if found is not None:
                    return f"cannot send {found[0]}: {found[1]}"
        except NotFound as unfound:
            reason = f"{reason} ({unfound})"
        except Exception as another:
            reason = str(another) or type(another).__name__
        return f"cannot send: {reason}"

    def _pack_alone(self, value: Any) -> None:
        """Pack a value by itself; what travels as a descriptor is taken for nothing."""

        def plain(value: Any) -> Any:
            value = value.value if isinstance(value, _Borrowed) else value
            return None if self._travels(value) else _plain(value, self._travels)

        msgpack.Packer(default=plain, buf_size=_PACKER_BYTES).pack(value)

    def _travels(self, value: Any) -> bool:
        """Return whether a value travels as a descriptor."""
        return isinstance(value, Buffer) or hasattr(value, "fileno") or self._living.travels(value)

    def _check_depth(self, data: bytes | memoryview) -> None:
        try:
            check_depth(data, self._max_depth)
        except ValueError as exc:
            raise LocalProtocolError(f"cannot send: {exc}") from None

    def encode_run(self, values: Sequence[Any]) -> bytes:
        """Return a few small scalars one after the other, quicker than each by itself.

        Raises:
            Exception: one of them cannot be sent, and so none was: :meth:`encode` tells which and why.
        """
        try:
            data: bytes = self._pack(values)
        except Exception:
            self._use_new_packer()
            raise
        return data[1 if len(values) < 16 else 3 :]

    def array_header(self, size: int) -> bytes:
        """Return how an array of ``size`` values begins."""
        data: bytes = self._packer.pack_array_header(size)
        return data

    def _new_packer(self, *, autoreset: bool = True) -> Any:
        return msgpack.Packer(default=self._default, autoreset=autoreset, buf_size=_PACKER_BYTES)

    def _default(self, value: Any) -> Any:
        """Return something that msgpack knows in place of ``value``, which it does not."""
        fields = self._plain_kinds.get(type(value))
        if fields is not None and value.__dict__.keys() == fields:
            return value.__dict__
        if isinstance(value, _Borrowed):
            value = value.value
        if isinstance(value, Buffer):
            value.seal()
            index = self._lend(value)
            return msgpack.ExtType(EXT_BUFFER, _BUFFER_DATA.pack(index, value.offset, len(value)))
        if hasattr(value, "fileno") and not isinstance(value, Handle):
            return msgpack.ExtType(EXT_DESCRIPTOR, bytes((self._lend(value),)))
        export = self._living.export(value)
        if export is None:
            kind = type(value)
            if dataclasses.is_dataclass(kind) and hasattr(value, "__dict__") and len(self._plain_kinds) < _MOST_KINDS:
                self._plain_kinds[kind] = frozenset(_names_of(kind))  # and need not be asked what it is again
            return _plain(value, self._travels)
        try:
            index = self._lend(export)
        except BaseException:
            export.unsent()
            raise
        return msgpack.ExtType(export.ext_type, bytes((index,)))

    def _lend(self, lender: Lender) -> int:
        """Return the index of one more descriptor."""
        index = len(self._lenders)
        if index == MAX_DESCRIPTORS:
            raise LocalProtocolError(f"a message holds at most {MAX_DESCRIPTORS} descriptors, this one more")
        self._lenders.append(lender)
        return index

    # Decoding

    def decode_plain(self, packet: bytes, longest: int = _LARGE) -> Any:
        """Return the value of a packet that is plain data, short and not deep, as its bytes show; None for others.

        Nothing is made of references to descriptors, and nothing is said of what is wrong: :meth:`decode` does both.

        Args:
            packet: what came, without descriptors.
            longest: bytes that a short packet has at most.
        """
        size = len(packet)
        if size > longest or (size > self._max_depth and not is_shallow(packet, self._max_depth)):
            return None
        try:
            return msgpack.unpackb(packet, ext_hook=look_closer, timestamp=3, max_map_len=MOST_KEYS)
        except Exception:  # whatever is wrong with it
            return None

    def decode(self, data: bytes | memoryview, fds: list[OwnedFd]) -> tuple[Any, str | RpcError | None]:
        """Return the value of a message, and what is wrong with its references to ``fds`` or None.

        The value refers to the objects in ``fds``, which stay the caller's, whatever happens; those of
        streams, channels and buffers are :class:`~seqrpc.kernel.descriptors.ValueFd` afterwards. Depth
        and sizes are checked before anything is built. Arrays and maps that are keys of a map become tuples,
        a map one of its keys and values by turns.

        Returns:
            The value and its problem: a text if the message is malformed, an error if it cannot be taken here.

        Raises:
            RemoteProtocolError: the message is not exactly one well-formed value.
            TooLarge: it is longer than a packet and has more than ``max_containers`` arrays and maps, or more than
                ``max_other_keys`` keys that are neither strings nor byte strings.
        """
        self.copied_bytes = 0
        try:
            if len(data) > self._max_depth:  # as in encode
                check_depth(data, self._max_depth)
            if fds:
                self._fds = fds
            value = self._unpack(data) if len(data) <= _LARGE else self._unpack_large(data)
        except TooLarge:
            self._settle()
            raise
        except _DECODING_ERRORS as exc:
            self._settle()
            reason = str(exc) or type(exc).__name__
            raise RemoteProtocolError(f"malformed packet of {len(data)} bytes: {reason}") from exc
        return value, self._settle() if fds or self._problem else None

    def _unpack(self, data: bytes | memoryview) -> Any:
        """Unpack a message, with msgpack where it makes maps as they should be made, else map by map."""
        try:
            return self._unpack_at_once(data)
        except ValueError as exc:
            if "map" not in str(exc):  # msgpack has no class of its own for what it does not take of maps
                raise
        self._referred, self._wrong, self._problem = 0, 0, None
        # Of bytes: an exception would keep what it saw of a mapping, which could not be closed.
        return read_maps(bytes(data), self._ext_hook, self._max_containers, self._max_other_keys)

    def _unpack_at_once(self, data: bytes | memoryview) -> Any:
        hooks = {} if len(data) <= MAX_PACKET else hooks_for(data, self._max_containers)
        return msgpack.unpackb(data, ext_hook=self._ext_hook, timestamp=3, max_map_len=MOST_KEYS, **hooks)

    def decode_unwanted(self, data: bytes, fds: list[OwnedFd]) -> tuple[Any, str | None]:
        """Return what :meth:`decode` does, of a short packet that will not be taken: references stay what they are.

        Of one whose maps msgpack must not make it is only known that it is one value.

        Raises:
            RemoteProtocolError: it is not.
        """
        try:
            check_whole(data)
            if fds:
                self._fds = fds
            value = msgpack.unpackb(data, ext_hook=self._check_reference, timestamp=3, max_map_len=MOST_KEYS)
        except _DECODING_ERRORS as exc:
            self._settle()
            if "map" in str(exc):
                return None, None
            raise RemoteProtocolError(f"malformed packet of {len(data)} bytes: {exc}") from exc
        problem = self._settle() if fds or self._problem else None
        return value, problem if isinstance(problem, str) else None

    def _check_reference(self, kind: int, data: bytes) -> None:
        try:
            if kind in _REFERENCES:
                self._refer(*_REFERENCES[kind], data)
                return
        except ValueError as exc:
            self._remember(str(exc))
        else:
            self._remember(f"unknown extension type {kind}")

    def decode_long(
        self, data: memoryview, fds: list[OwnedFd], read: Callable[[int, int], bytes]
    ) -> tuple[Any, str | RpcError | None]:
        """Return what :meth:`decode` does, of a message that is longer than a packet.

        Args:
            data: the message.
            fds: as :meth:`decode` takes them.
            read: returns what is in ``data`` from a position on, so many bytes: for long ones quicker than a slice.
        """
        rest, self._taken = take_long_bytes(data, min(self._max_depth, self._max_containers), read)
        try:
            return self.decode(rest, fds)
        finally:
            self._taken = []

    def _unpack_large(self, data: bytes | memoryview) -> Any:
        """Unpack a message that may have a great many values."""
        collects = gc.isenabled()
        gc.disable()  # before 3.12 it would look through all that there is, again and again, while lists are made
        try:
            return self._unpack(data)
        finally:
            if collects:
                gc.enable()

    def _settle(self) -> str | RpcError | None:
        """Return what was wrong with the references of a message, and forget them."""
        problem, came = self._problem, len(self._fds)
        if not isinstance(problem, str) and self._referred != (1 << came) - 1:
            problem = f"{came} descriptors came, {self._referred.bit_count()} of them are referred to"
        self._fds, self._made, self._referred, self._wrong, self._problem = [], {}, 0, 0, None
        return problem

    def _ext_hook(self, kind: int, data: bytes) -> Any:
        """Resolve a reference to a descriptor; what is wrong is remembered, for unknown kinds may do as they like."""
        try:
            if kind == EXT_DESCRIPTOR:
                return self._fds[self._refer("descriptor", 1, data)]
            if kind == EXT_TAKEN and self._taken:
                return self._taken[data[0]]
            if kind in _REFERENCES:
                index = self._refer(*_REFERENCES[kind], data)
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
        if not isinstance(self._problem, str):
            self._problem = problem

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

    def _keep(self, index: int) -> ValueFd:
        """Return a descriptor as one that goes with its value, in the same place."""
        kept = self._fds[index] = as_value(self._fds[index])
        return kept

    def _receive(self, kind: int, index: int, data: bytes) -> Any:
        """Return the buffer, stream or channel that a reference stands for."""
        fd = self._keep(index)
        return self._receive_buffer(fd, data) if kind == EXT_BUFFER else self._living.receive(kind, fd)

    def _receive_buffer(self, fd: ValueFd, data: bytes) -> Any:
        _index, offset, length = _BUFFER_DATA.unpack(data)
        if length > self._max_buffer_bytes:
            text = f"a buffer has at most {self._max_buffer_bytes} bytes (max_buffer_bytes), this one {length}"
            self._problem = self._problem or TooLarge(text)
            return None
        if Buffer.must_copy(offset):
            self.on_work()
            total = self.copied_bytes + length
            if total > self._max_bytes:  # a peer's memfd may be all holes, and our copy of it is not
                text = f"buffers that begin within a page have at most {self._max_bytes} bytes (max_message_bytes)"
                self._problem = self._problem or TooLarge(text)
                return None
            lack = self.lack_of_room(total)
            if lack is not None:
                self._problem = self._problem or Overloaded(lack)
                return None
            self.copied_bytes = total
        if length == 0 and offset <= memfd.check_sealed(fd):
            return b""  # no memory of no bytes can be mapped
        try:
            return Buffer.received(fd, offset, length)
        except OSError as exc:
            self._problem = self._problem or Overloaded(
                f"there is no room for a buffer of {length} bytes: {exc.strerror}"
            )
            return None


def _nothing() -> None:
    """Do nothing: nobody wants to hear of work."""


def _no_lack(size: int) -> None:
    """Let everything be kept."""


def tell_sent(lenders: list[Lender]) -> None:
    """Tell the exports among what lent descriptors that their message is on its way."""
    for lender in lenders:
        sent = getattr(lender, "sent", None)
        if sent is not None:
            try:
                sent()
            except Exception:  # the message has left: what it refers to ends at once for its receiver
                _log.exception("! what was sent cannot be kept alive")
                give_up_lenders([lender])


def tell_unsent(lenders: list[Lender]) -> None:
    """Tell the exports among what lent descriptors that their message will not be sent."""
    for lender in lenders:
        unsent = getattr(lender, "unsent", None)
        if unsent is not None:
            unsent()


def _plain(value: Any, travels: Callable[[Any], bool]) -> Any:
    """Return what msgpack knows in place of a value that it does not; what travels as a descriptor is left in it."""
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            return value.isoformat()  # not a moment, so not a timestamp
        since = value - _EPOCH
        if not _FIRST_DAY <= since.days < _END_DAY:  # and so datetime cannot hold it at the receiver
            raise ValueError("a moment is before the year 1 or after 9999, in UTC")
        return msgpack.Timestamp(since.days * 86_400 + since.seconds, since.microseconds * 1000)
    if dataclasses.is_dataclass(value):  # one level: its fields come here themselves, and some may be whole services
        return _fields_of(value)
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, msgspec.Struct) and _may_hold_objects(type(value)):
        _check_struct(value, travels)
    plain = msgspec.to_builtins(value, builtin_types=_NATIVE, enc_hook=_Borrowed)
    if type(plain) is _Borrowed:
        raise TypeError(f"a value of type {type(value).__name__} cannot be sent")
    return plain


@functools.lru_cache(maxsize=1024)
def _names_of(kind: type) -> tuple[str, ...]:
    return tuple(kind.__dataclass_fields__)  # type: ignore[attr-defined] # every dataclass has it


def _fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that it has of its own, as msgspec does."""
    own = getattr(value, "__dict__", None)
    if own is None:  # it has slots
        return {name: getattr(value, name) for name in _names_of(value.__class__) if hasattr(value, name)}
    return {name: own[name] for name in _names_of(value.__class__) if name in own}


@functools.lru_cache(maxsize=1024)
def _may_hold_objects(kind: type) -> bool:
    """Return whether the annotations of a Struct let it hold what is not plain data."""
    todo: list[Any] = [msgspec.inspect.type_info(kind)]
    seen: set[int] = set()
    while todo:
        info = todo.pop()
        if isinstance(info, msgspec.inspect.AnyType | msgspec.inspect.CustomType):
            return True
        if isinstance(info, msgspec.Struct) and id(info) not in seen:
            seen.add(id(info))
            for part in msgspec.structs.astuple(info):
                todo += part if isinstance(part, tuple) else (part,)
    return False


def _check_struct(value: Any, travels: Callable[[Any], bool]) -> None:
    """Refuse a Struct with a dataclass in it that is a service: msgspec would take that apart as data, too."""
    todo, seen = [value], {id(value)}
    while todo:
        parts = parts_of(todo.pop())
        if _SCALARS.issuperset(map(type, parts)):  # a great many are looked at in C
            continue
        for part in parts:
            if type(part) in _SCALARS:
                continue
            if dataclasses.is_dataclass(part) and travels(part):
                raise TypeError(f"a {type(value).__name__} holds a service (a dataclass may)")
            if id(part) not in seen:
                seen.add(id(part))
                todo.append(part)
