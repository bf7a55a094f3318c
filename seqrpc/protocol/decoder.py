"""Bytes to values and descriptors.

On the wire are MessagePack's own types, timestamps, and what travels as a descriptor: files, streams,
channels and buffers (extension types 1 to 4, protocol section 4).
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final

import msgpack

from seqrpc.errors import RemoteProtocolError, RpcError, TooLarge
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import DEFAULT_LIMITS, MAX_PACKET, Limits
from seqrpc.protocol.depth import check_depth, check_whole, is_shallow
from seqrpc.protocol.longbytes import take_long_bytes
from seqrpc.protocol.maps import MOST_KEYS, hooks_for, look_closer, read_maps
from seqrpc.protocol.references import References
from seqrpc.protocol.values import BareValues, Living

_LARGE: Final = 8_192  # bytes of a message whose values may be so many that the garbage collector is felt

_ERRORS: Final = (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException)


class Decoder:
    """Decodes whole messages. It keeps nothing of one when the next comes; use one from one thread.

    Args:
        limits: those of what is in a message are used.
        living: what streams and channels are here.
    """

    __slots__ = ("_max_containers", "_max_depth", "_max_other_keys", "references")

    def __init__(self, limits: Limits = DEFAULT_LIMITS, living: Living | None = None) -> None:
        """Remember the limits."""
        self._max_depth = limits.max_depth
        self._max_containers = limits.max_containers
        self._max_other_keys = limits.max_other_keys
        self.references = References(limits, BareValues() if living is None else living)
        """What resolves the references in a message; whoever decodes may hear of its work, and bound what it copies."""

    def decode_plain(self, packet: bytes, longest: int = _LARGE) -> Any:
        """Return the value of a packet that is plain data, short and not deep, as its bytes show; None for others.

        It neither resolves references to descriptors nor says what is wrong: :meth:`decode` does both.

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
        and sizes are checked before anything is built. An array that is a key of a map becomes a tuple, and so does
        a map: a tuple of its keys and values by turns.

        Returns:
            The value and its problem: a text if the message is malformed, an error if it cannot be taken here.

        Raises:
            RemoteProtocolError: the message is not exactly one well-formed value.
            TooLarge: it is longer than a packet and has more than ``max_containers`` arrays and maps, or more than
                ``max_other_keys`` keys that are neither strings nor byte strings.
        """
        references = self.references
        references.copied_bytes = 0
        try:
            if len(data) > self._max_depth:  # a shorter one has no room for more
                check_depth(data, self._max_depth)
            if fds:
                references.begin(fds)
            value = self._unpack(data) if len(data) <= _LARGE else self._unpack_large(data)
        except TooLarge:
            references.end()
            raise
        except _ERRORS as exc:
            references.end()
            reason = str(exc) or type(exc).__name__
            raise RemoteProtocolError(f"malformed packet of {len(data)} bytes: {reason}") from exc
        return value, references.end() if fds or references.problem else None

    def decode_long(
        self, data: memoryview, fds: list[OwnedFd], read: Callable[[int, int], bytes]
    ) -> tuple[Any, str | RpcError | None]:
        """Return what :meth:`decode` does, of a message that is longer than a packet.

        Args:
            data: the message.
            fds: as :meth:`decode` takes them.
            read: returns so many bytes of ``data`` from a position on: for long ones quicker than a slice.
        """
        rest, taken = take_long_bytes(data, min(self._max_depth, self._max_containers), read)
        return self._decode_rest(rest, taken, fds)

    def decode_beginning(
        self, data: bytes, size: int, fds: list[OwnedFd], read: Callable[[int, int], bytes]
    ) -> tuple[Any, str | RpcError | None] | None:
        """Return what :meth:`decode_long` does, of a message of ``size`` bytes of which only the first are at hand.

        None if there is more behind these than long bytes: it is then to be decoded as a whole.
        """
        rest, taken = take_long_bytes(data, min(self._max_depth, self._max_containers), read, size)
        return self._decode_rest(rest, taken, fds) if taken else None

    def _decode_rest(
        self, rest: bytes | memoryview, taken: list[bytes], fds: list[OwnedFd]
    ) -> tuple[Any, str | RpcError | None]:
        """Decode a message whose long bytes were taken out."""
        self.references.taken = taken
        try:
            return self.decode(rest, fds)
        finally:
            self.references.taken = ()

    def decode_unwanted(self, data: bytes, fds: list[OwnedFd]) -> tuple[Any, str | None]:
        """Return what :meth:`decode` does, of a short packet that will not be taken: references stay what they are.

        If msgpack must not make its maps, all that is checked is that it is one value.

        Raises:
            RemoteProtocolError: it is not one.
        """
        references = self.references
        try:
            check_whole(data)
            if fds:
                references.begin(fds)
            value = msgpack.unpackb(data, ext_hook=references.check, timestamp=3, max_map_len=MOST_KEYS)
        except _ERRORS as exc:
            references.end()
            if "map" in str(exc):
                return None, None
            raise RemoteProtocolError(f"malformed packet of {len(data)} bytes: {exc}") from exc
        problem = references.end() if fds or references.problem else None
        return value, problem if isinstance(problem, str) else None

    def _unpack(self, data: bytes | memoryview) -> Any:
        """Unpack a message, with msgpack where it makes maps as they should be made, else map by map."""
        try:
            return self._unpack_at_once(data)
        except ValueError as exc:
            if "map" not in str(exc):  # msgpack has no exception class of its own for maps that it does not take
                raise
        self.references.begin_again()
        # From a copy: an exception would keep a view of a mapping, which then could not be closed.
        return read_maps(bytes(data), self.references.resolve, self._max_containers, self._max_other_keys)

    def _unpack_at_once(self, data: bytes | memoryview) -> Any:
        hooks = {} if len(data) <= MAX_PACKET else hooks_for(data, self._max_containers)
        return msgpack.unpackb(data, ext_hook=self.references.resolve, timestamp=3, max_map_len=MOST_KEYS, **hooks)

    def _unpack_large(self, data: bytes | memoryview) -> Any:
        """Unpack a message that may have a great many values."""
        collects = gc.isenabled()
        gc.disable()  # before 3.12 it would look through all that there is, again and again, while lists are made
        try:
            return self._unpack(data)
        finally:
            if collects:
                gc.enable()
