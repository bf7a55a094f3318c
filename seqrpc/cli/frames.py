"""What two ends of a tunnel send each other through a pipe: frames, of which most are packets of some channel.

A packet's descriptors cannot go through a pipe. A socket is a channel of its own from then on, and a sealed memory file
is sent as what is in it; nothing else can cross.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from seqrpc.limits import MAX_DESCRIPTORS

MOST_BYTES: Final = 128 << 20
"""Of a frame: a message of the most that a side takes by default, twice."""

_HEAD: Final = struct.Struct(">BII")
_CHANNEL: Final = struct.Struct(">I")
_SIZE: Final = struct.Struct(">Q")


class Kind(enum.IntEnum):
    """What a frame is."""

    READY = 0
    """The first, from the far side: it is connected. Its monotonic clock, as 8 bytes."""

    REFUSED = 1
    """Or it is not: an exit status, 1 byte, and why, for people."""

    PACKET = 2
    END = 3
    """No more packets of a channel, in either direction."""

    CREDIT = 4
    """So many packets of a channel were taken: as 4 bytes."""


class Frame(NamedTuple):
    """One of them."""

    kind: Kind
    channel: int
    content: bytes


class Socket(NamedTuple):
    """A descriptor that is a channel."""

    channel: int


class Memory(NamedTuple):
    """A descriptor that is a sealed memory file."""

    content: bytes


Brought = Socket | Memory


class BrokenTunnel(Exception):
    """What came is no frame: the program at the other end is another one."""


def framed(kind: Kind, channel: int = 0, content: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    return _HEAD.pack(kind, channel, len(content)) + content


def read_frame(read: Callable[[int], bytes]) -> Frame | None:
    """Return the next frame; None at the end.

    Args:
        read: returns so many bytes, or fewer at the end.

    Raises:
        BrokenTunnel: it is none.
    """
    head = read(_HEAD.size)
    if not head:
        return None
    if len(head) < _HEAD.size:
        raise BrokenTunnel("the other side ended in the midst of a frame")
    number, channel, size = _HEAD.unpack(head)
    if number > max(Kind) or size > MOST_BYTES:
        raise BrokenTunnel("what came is no frame: is the command there 'seqrpc' of this kind?")
    content = read(size)
    if len(content) < size:
        raise BrokenTunnel("the other side ended in the midst of a frame")
    return Frame(Kind(number), channel, content)


def reader_of(fd: int) -> Callable[[int], bytes]:
    """Return what reads from a descriptor for :func:`read_frame`."""

    def read(size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            part = os.read(fd, min(size, 1 << 20))
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    return read


def packed(message: bytes, brought: list[Brought]) -> bytes:
    """Return the content of a PACKET frame."""
    parts = [bytes([len(brought)])]
    for each in brought:
        if isinstance(each, Socket):
            parts += [b"S", _CHANNEL.pack(each.channel)]
        else:
            parts += [b"M", _SIZE.pack(len(each.content)), each.content]
    return b"".join([*parts, message])


def unpacked(content: bytes) -> tuple[bytes, list[Brought]]:
    """Return the message of a PACKET frame, and what came with it.

    Raises:
        BrokenTunnel: it is none.
    """
    try:
        count, at = content[0], 1
        brought: list[Brought] = []
        for _ in range(count):
            tag, at = content[at : at + 1], at + 1
            if tag == b"S":
                (channel,) = _CHANNEL.unpack_from(content, at)
                brought.append(Socket(channel))
                at += _CHANNEL.size
            elif tag == b"M":
                (size,) = _SIZE.unpack_from(content, at)
                at += _SIZE.size
                if size > len(content) - at:
                    raise BrokenTunnel("a memory file is longer than its frame")
                brought.append(Memory(content[at : at + size]))
                at += size
            else:
                raise BrokenTunnel("a descriptor of an unknown kind")
    except (IndexError, struct.error):
        raise BrokenTunnel("a packet that ends too early") from None
    if count > MAX_DESCRIPTORS or at == len(content):
        raise BrokenTunnel("a packet without a message, or with too many descriptors")
    return content[at:], brought


# What has to be known of the messages.


def is_spilled(message: bytes) -> bool:
    """Return whether a packet stands for a message in a memory file (protocol 5)."""
    return message[:2] in (b"\x92\x04", b"\x93\x04")


def beginning_of(spilled: bytes, content: bytes) -> bytes:
    """Return a message of the same kind and number as a spilled one, for :func:`instead_of`.

    Args:
        spilled: the packet that stands for it.
        content: the first 16 bytes of the memory file: an array, and the kind.
    """
    try:
        _spilled, _length, number = msgspec.msgpack.decode(spilled)
        return msgspec.msgpack.encode([content[1], number])
    except (msgspec.DecodeError, ValueError, TypeError, LookupError):
        return spilled


_LOST: Final = "rpc.DescriptorsLost"

_ENDED: Final = "rpc.Unavailable"  # the other one would say that the stream goes on, without some items

_WHY: Final = "a descriptor cannot cross ssh: only data, streams, objects and buffers can"

_TOO_LARGE: Final = "rpc.TooLarge"

_WHY_TOO_LARGE: Final = f"a message and its buffers have at most {MOST_BYTES} bytes together, through ssh"

_STREAM: Final = 2  # the extension type (protocol 4)


def streams_in(message: bytes) -> set[int]:
    """Return the indices of the descriptors that a message refers to as streams."""
    found: set[int] = set()

    def hook(code: int, data: memoryview) -> None:
        if code == _STREAM and len(data) == 1:
            found.add(data[0])

    try:
        msgspec.msgpack.decode(message, ext_hook=hook)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError):
        return set()  # its receiver will find out what is wrong with it
    return found


class Instead(NamedTuple):
    """What is sent in place of a message that cannot cross."""

    onwards: bytes | None
    """To whom it was for."""

    back: bytes | None
    """To its sender."""


def instead_of(message: bytes, *, is_stream: bool, is_too_large: bool = False) -> Instead:
    """Return what is sent in place of a message that cannot cross.

    Args:
        message: what was to be sent.
        is_stream: whether it is of a stream, and not of a connection.
        is_too_large: whether that is why; else one of its descriptors cannot cross.
    """
    why = _WHY_TOO_LARGE if is_too_large else _WHY
    if is_stream:
        return Instead(msgspec.msgpack.encode([1, [_ENDED, why, None]]), None)
    error = [_TOO_LARGE if is_too_large else _LOST, why, None]
    try:
        kind, number, *_rest = msgspec.msgpack.decode(message, ext_hook=lambda *_ext: None)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError):
        return Instead(None, None)
    answer = msgspec.msgpack.encode([1, number, error, None]) if type(number) is int else None
    return Instead(None, answer) if kind == 0 else Instead(answer, None) if kind == 1 else Instead(None, None)


_DEADLINE: Final = b"\xa8deadline\xcf"


def with_clock(message: bytes, ahead: int) -> bytes:
    """Return a message with its deadline by another clock.

    Args:
        message: a packet of a connection.
        ahead: nanoseconds by which the other clock is ahead of this one.
    """
    at = message.rfind(_DEADLINE)
    if at < 0:
        return message
    try:
        parts = msgspec.msgpack.decode(message, ext_hook=lambda *_ext: None)
        own: int = parts[{0: 4, 2: 3}[parts[0]]]["deadline"]
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError, LookupError):
        return message
    at += len(_DEADLINE)
    if int.from_bytes(message[at : at + 8], "big") != own:
        return message
    theirs: int = min(max(own + ahead, 0), 2**63 - 1)
    return message[:at] + theirs.to_bytes(8, "big") + message[at + 8 :]
