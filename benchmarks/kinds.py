"""The kinds of packets whose cost ``python -m benchmarks.refused`` measures, each beside a dull one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import raw
from benchmarks.raw import BUFFER, CHANNEL, DESCRIPTOR, STREAM, Body, Files, Packet
from benchmarks.workloads import MIB

WINDOW = 4
"""Packets in flight."""

Make = Callable[[], Body]


@dataclass(frozen=True)
class Frame:
    """What is around a body: it knows the call's id, and how a dull message of its sort is written."""

    write: Callable[[int, bytes], bytes]
    write_dull: Callable[[int, bytes], bytes]
    dull_body: Callable[[int, int], bytes] = raw.plain
    """Of a size in bytes, with so many descriptors."""


def _id(call_id: int) -> bytes:
    return b"\xce" + struct.pack(">I", call_id)


def _request(method: str) -> Callable[[int, bytes], bytes]:
    return lambda call_id, body: b"\x94\x00" + _id(call_id) + raw.pack(method) + body


def _with_options(call_id: int, body: bytes) -> bytes:
    return b"\x95\x00" + _id(call_id) + raw.pack("Target.refused") + b"\x90" + body


def _notify(_call_id: int, body: bytes) -> bytes:
    return b"\x93\x02" + raw.pack("Target.refused") + body


def _response(call_id: int, body: bytes) -> bytes:
    return b"\x94\x01" + _id(call_id) + b"\xc0" + body


def _unknown_kind(call_id: int, body: bytes) -> bytes:
    return b"\x93\x09" + _id(call_id) + body


def _malformed_options(size: int, _descriptors: int) -> bytes:
    return b"\x81\x00" + raw.padding(size - 2)


_REFUSED = _request("Target.refused")
_FRAMES = {
    "request": Frame(_REFUSED, _REFUSED),
    "meta": Frame(_with_options, _REFUSED),
    "options": Frame(_with_options, _with_options, _malformed_options),
    "notify": Frame(_notify, _notify),
    "response": Frame(_response, _response),
    "kind-9": Frame(_unknown_kind, _unknown_kind),
    "no-method": Frame(_request("Target.nothing"), _REFUSED),
    "no-rpc-method": Frame(_request("rpc.no-such-th"), _REFUSED),  # as long as the other names
}
_UNANSWERED = frozenset({"notify", "response", "kind-9"})


@dataclass(frozen=True)
class Kind:
    """A kind of packet.

    ``bodies`` opens what its bodies refer to, and returns what makes one. With ``is_fresh`` each packet has another;
    with ``spilled_bytes`` the message is in a memory file of that size. ``ends`` says that the packet ends its
    connection, as the dull one does.
    """

    name: str
    what: str
    bodies: Callable[[Files], Make]
    frame: str = "request"
    is_fresh: bool = False
    spilled_bytes: int = 0
    ends: bool = False

    @property
    def is_answered(self) -> bool:
        """Whether each packet gets an answer, or its connection's end."""
        return self.frame not in _UNANSWERED

    def packets(self, files: Files) -> tuple[Callable[[int], Packet], Callable[[int], Packet]]:
        """Return what makes such a packet for a call id, and what makes the dull one that goes with it."""
        frame, make = _FRAMES[self.frame], self.bodies(files)

        def body() -> Body:
            made = make()
            if not self.spilled_bytes:
                return made
            rest = self.spilled_bytes - 1 - len(made.data) - len(frame.write(0, b""))
            return Body(b"\x92" + made.data + raw.padding(rest), made.fds)

        def hostile(call_id: int) -> Packet:
            made = body()
            return self._packet(frame.write(call_id, made.data), made.fds, call_id, files)

        sample = body()
        size = len(frame.write(0, sample.data)) - len(frame.write_dull(0, b""))
        dull_body = frame.dull_body(size, len(sample.fds))

        def dull(call_id: int) -> Packet:
            if self.is_fresh:  # the sender takes as long over each: a server that waits in between pays for its waking
                body()
            return self._packet(frame.write_dull(call_id, dull_body), sample.fds, call_id, files)

        return hostile, dull

    def _packet(self, data: bytes, fds: tuple[int, ...], call_id: int, files: Files) -> Packet:
        if not self.spilled_bytes:
            return Packet(data, fds)
        return Packet(b"\x93\x04" + raw.pack(len(data)) + _id(call_id), (files.memory_file(data), *fds))


def _fixed(data: Callable[[], bytes]) -> Callable[[Files], Make]:
    """Return the same parameters each time, without descriptors."""

    def bodies(_files: Files) -> Make:
        body = Body(b"\x91" + data())
        return lambda: body

    return bodies


def _fresh(data: Callable[[], bytes]) -> Callable[[Files], Make]:
    return lambda _files: lambda: Body(b"\x91" + data())


def _options(data: Callable[[], bytes]) -> Callable[[Files], Make]:
    return lambda _files: lambda: Body(data())


def _descriptors(count: int, *, by_name: bool = False) -> Callable[[Files], Make]:
    def bodies(files: Files) -> Make:
        inside = raw.array_of(raw.references(DESCRIPTOR, count))
        body = Body(b"\x81\xa1a" + inside if by_name else b"\x91" + inside, files.null(count))
        return lambda: body

    return bodies


def _living(ext_type: int, count: int) -> Callable[[Files], Make]:
    def bodies(files: Files) -> Make:
        body = Body(raw.array_of(raw.references(ext_type, count)), files.ends(count))
        return lambda: body

    return bodies


def _odd(count: int) -> Callable[[Files], Make]:
    def bodies(files: Files) -> Make:
        body = raw.buffers(files.memory_file(b"x" * (8 * MIB)), count, 1, 8 * MIB - 1)
        return lambda: body

    return bodies


def _odd_holes(count: int) -> Callable[[Files], Make]:
    def bodies(files: Files) -> Make:
        length = 64 * MIB // count - 1  # so that none is refused for being too much
        body = raw.buffers(files.memory_file(b"", holes=64 * MIB), count, 1, length, length)
        return lambda: body

    return bodies


def _pages(count: int) -> Callable[[Files], Make]:
    def bodies(files: Files) -> Make:
        body = raw.page_aligned_buffers(files.memory_file(b"x" * (8 * MIB)), count)
        return lambda: body

    return bodies


def _mixed(files: Files) -> Make:
    """Streams, channels, odd buffers and plain descriptors, 40 of each."""
    count = 40
    file = files.memory_file(b"x" * (8 * MIB))
    parts: list[bytes] = []
    for index in range(0, 4 * count, 4):
        parts += (
            raw.reference(STREAM, index),
            raw.reference(CHANNEL, index + 1),
            raw.reference(BUFFER, index + 2, 1, MIB),
            raw.reference(DESCRIPTOR, index + 3),
        )
    streams, channels, null = files.ends(count), files.ends(count), files.null(count)
    fds = [fd for four in zip(streams, channels, (file,) * count, null, strict=True) for fd in four]
    body = Body(raw.array_of(parts), tuple(fds))
    return lambda: body


_PACKET = 60_000  # bytes of packets that are filled
_chosen = raw.chosen_for_a_packet
_KEYS = _fixed(_chosen)
_BUFFERS, _STREAMS, _STRINGS = _odd(40), _living(STREAM, 40), _fresh(lambda: raw.string_keys(4_000))


def _all() -> list[Kind]:
    kinds = [
        Kind("descriptor-1", "a descriptor inside an array", _descriptors(1)),
        Kind("descriptors-253", "253 of them", _descriptors(253)),
        Kind("descriptors-by-name", "253 in parameters by name", _descriptors(253, by_name=True)),
        Kind("buffer-1", "a buffer at a page", _pages(1)),
        Kind("buffers-page", "40 buffers at pages", _pages(40)),
        Kind("buffers-page-253", "253 buffers at pages", _pages(253)),
        Kind("buffer-odd-1", "8 MiB at offset 1", _odd(1)),
        Kind("buffers-odd", "40 times 8 MiB at offset 1", _BUFFERS),
        Kind("buffers-odd-holes", "40 buffers at odd offsets in 64 MiB of holes", _odd_holes(40)),
        Kind("stream-1", "a stream", _living(STREAM, 1)),
        Kind("streams-253", "253 streams", _living(STREAM, 253)),
        Kind("channel-1", "a channel", _living(CHANNEL, 1)),
        Kind("channels-253", "253 channels", _living(CHANNEL, 253)),
        Kind("mixed", "40 each of streams, channels, odd buffers, descriptors", _mixed),
        Kind("keys-chosen", "chosen integer keys", _KEYS),
        Kind("keys-chosen-deep", "the same at depth 50", _fixed(lambda: raw.nested(50, _chosen()))),
        Kind("keys-multiples", "multiples of 2**40 as keys", _fixed(lambda: raw.multiple_keys(5_400))),
        Kind("keys-floats", "chosen floats", _fixed(lambda: _chosen(raw.as_float, 2_000))),
        Kind("keys-arrays", "20 maps of 150 arrays of one hash", _fixed(lambda: raw.pair_keys(20, 150))),
        Kind("keys-arrays-many", "a map of 3,000 of them", _fixed(lambda: raw.pair_keys(1, 3_000))),
        Kind("keys-timestamps", "8,000 moments as keys", _fixed(lambda: raw.timestamp_keys(8_000))),
        Kind("keys-in-options", "chosen keys in the options: malformed", _options(_chosen), "options", ends=True),
        Kind("strings", "4,000 new strings as keys", _STRINGS, is_fresh=True),
        Kind("meta", "3,500 new strings in meta", _options(lambda: raw.meta(3_500)), "meta", is_fresh=True),
        Kind("deep", "60 arrays inside one another", _fixed(lambda: raw.nested(60))),
        Kind("deep-many", "a packet full of those", _fixed(lambda: raw.array_of([raw.nested(59)] * 1_000))),
        Kind("arrays", "60,000 empty arrays", _fixed(lambda: raw.array_of([b"\x90"] * _PACKET))),
        Kind("maps", "60,000 empty maps", _fixed(lambda: raw.array_of([b"\x80"] * _PACKET))),
        Kind("numbers", "60,000 numbers", _fixed(lambda: raw.array_of([b"\x07"] * _PACKET))),
    ]
    spilled = {
        "buffers-odd": _BUFFERS, "streams": _living(STREAM, 252), "keys-chosen": _fixed(raw.chosen_megabyte),
        "strings": _fixed(lambda: raw.string_keys(60_000)),
        "arrays": _fixed(lambda: raw.array_of([b"\x90"] * (MIB - 1_000))),
    }  # fmt: skip
    for name, bodies in spilled.items():
        what = f"1 MiB and more in a memory file, {name}"
        kinds.append(Kind(f"spilled-{name}", what, bodies, spilled_bytes=MIB + MIB // 8))
    frames = {
        "response": "an answer to nothing", "kind-9": "a message of no known kind", "notify": "a NOTIFY",
        "no-method": "a method that is not there", "no-rpc-method": "an rpc. method that is not there",
    }  # fmt: skip
    for frame, what in frames.items():
        kinds += [
            Kind(f"{frame}-buffers-odd", f"{what}, with 40 odd buffers", _BUFFERS, frame),
            Kind(f"{frame}-streams", f"{what}, with 40 streams", _STREAMS, frame),
            Kind(f"{frame}-keys-chosen", f"{what}, with chosen keys", _KEYS, frame),
            Kind(f"{frame}-strings", f"{what}, with new strings as keys", _STRINGS, frame, is_fresh=True),
        ]
    for frame in ("response", "notify"):
        kinds += [
            Kind(f"spilled-{frame}-{name}", f"{frames[frame]} in a memory file, {name}", spilled[name], frame,
                 spilled_bytes=MIB + MIB // 8)
            for name in ("buffers-odd", "keys-chosen")
        ]  # fmt: skip
    return kinds


KINDS = {kind.name: kind for kind in _all()}
