"""A coverage-guided fuzzer of encoder, decoder, depth, messages, session, spilled messages, and the items of streams.

It needs atheris, which is no dependency of the project (``pip install atheris``, Linux), and is run by hand::

    python tests/fuzz/fuzz_protocol.py -max_total_time=3600 -max_len=70000 CORPUS_DIR

``CORPUS_DIR`` is made, with valid packets to begin with, if it is not there. All other arguments are libFuzzer's.
A failing input is written to ``crash-…`` (or below ``-artifact_prefix=``); the same command with that file in
the place of the directory runs it again.

An input is a short program. Its first byte chooses the state that two sessions begin in, then come steps:
packets made up by the fuzzer, also as memory files that may be sealed and may hold what they promise, and calls,
answers, cancels and closings of the sessions' own, whose packets reach the other side when another step says so; or
the same with a stream's writer and reader. After each step the invariants below are checked.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import sys
import time
import tracemalloc
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(
    include=[
        "seqrpc.errors",
        "seqrpc.kernel.buffers",
        "seqrpc.kernel.descriptors",
        "seqrpc.kernel.memfd",
        "seqrpc.protocol",
    ]
):
    from support.admission import new_session

    from seqrpc.errors import LocalProtocolError, RemoteProtocolError, RpcError, TooLarge
    from seqrpc.kernel import memfd
    from seqrpc.kernel.buffers import Buffer
    from seqrpc.kernel.descriptors import OwnedFd, close_all
    from seqrpc.limits import MAX_DESCRIPTORS, MAX_PACKET, Limits
    from seqrpc.protocol import depth
    from seqrpc.protocol.admission import Refused
    from seqrpc.protocol.decoder import Decoder
    from seqrpc.protocol.encoder import Encoder
    from seqrpc.protocol.items import End, ItemReader, Items, ItemWriter, Outgoing
    from seqrpc.protocol.lenders import Packed
    from seqrpc.protocol.messages import REQUEST, RESPONSE, SPILLED, Request, Response
    from seqrpc.protocol.session import Session
    from seqrpc.protocol.spilled import write_spilled
    from seqrpc.protocol.values import EXT_BUFFER, EXT_STREAM, BareValue

LIMITS = Limits(
    max_depth=8, max_calls_in_flight=4, max_message_bytes=MAX_PACKET, max_containers=100, max_buffer_bytes=99
)
DEFAULTS = Limits()
MOST_STEPS = 200
CPU_SECONDS = 2.0  # for one packet of 64 KiB, instrumented: a hundred times what the worst of them takes
BYTES_PER_BYTE = 160  # memory that one byte of a packet may cost: an empty map is 64 and its place in a list 8
BYTES_AT_LEAST = 1 << 20
SMALLEST_MEASURED = 512  # bytes of a packet; measuring costs much

NULL = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
FILE = memfd.sealed("fuzz", bytes(range(256)) * 40)


class Pair:
    """Two sessions, the packets on their way between them, and the invariants."""

    def __init__(self, flags: int) -> None:
        limits = LIMITS if flags & 1 else DEFAULTS
        self.limits = limits
        self.measured = bool(flags & 2)
        self.sides: tuple[Session[object, Any], Session[object, Any]] = (new_session(limits), new_session(limits))
        self.encoder = Encoder(limits)
        self.decoder = Decoder(limits)
        self.writer = ItemWriter(Encoder(limits))
        self.reader = ItemReader(Decoder(limits), limits.max_message_bytes)
        self.lent: list[OwnedFd] = []
        self.travelling: tuple[deque[Packed], deque[Packed]] = (deque(), deque())
        for number in range(flags >> 2 & 3):
            for side in (0, 1):
                self.call(side, [number])
        for _ in range(flags >> 4 & 3):
            self.deliver(0)
            self.deliver(1)
        if flags & 64:
            self.sides[0].send_closing("closing")
        if flags & 128:
            self.sides[1].send_closing("closing")

    def post(self, side: int, packet: Packed | None) -> None:
        if packet is not None:
            assert len(packet[0]) <= self.limits.max_message_bytes
            self.travelling[side].append(packet)

    def call(self, side: int, params: Any) -> None:
        with contextlib.suppress(LocalProtocolError, TooLarge):
            self.post(side, self.sides[side].send_request(object(), "m", params)[1])

    def add(self, item: Any) -> None:
        """Let the writer of a stream take an item."""
        with contextlib.suppress(LocalProtocolError, TooLarge):
            self.writer.add(item)
        if self.writer.full:
            self.flush()

    def flush(self) -> None:
        """Let what the writer has reach the reader."""
        while (outgoing := self.writer.packet()) is not None:
            self.arrive(outgoing, Items)
        if self.writer.failure is not None:
            self.writer.drop()

    def end(self, error: Any) -> None:
        self.arrive(self.writer.end(None if error is None else ("app.Failed", "", error)), End)

    def arrive(self, outgoing: Outgoing, kind: type[Items | End]) -> None:
        fds = [OwnedFd.dup(lender) for lender in outgoing.lenders]
        data = outgoing.data
        if len(data) > MAX_PACKET:
            fds.insert(0, write_spilled(data))
            data = self.encoder.encode((SPILLED, len(data)))[0]
        outgoing.sent()
        try:
            event = self.reader.receive_packet(bytes(data), fds)
        except TooLarge:  # a buffer, or too many arrays and maps, which are the receiver's business
            return
        assert isinstance(event, kind)
        close_all(event.fds)

    def read(self, data: bytes, fds: list[OwnedFd], *, lost: bool) -> None:
        """Hand a packet that the fuzzer made up to the reader of a stream."""
        every = list(fds)
        event, reason = None, ""
        try:
            event = self.reader.receive_packet(data, fds, lost=lost)
        except (RemoteProtocolError, RpcError) as exc:
            reason = str(exc)
        assert len(reason) < 500, "an error text as long as its packet"
        held = [] if event is None else event.fds
        for fd in every:
            assert fd.closed != any(fd is other for other in held), "neither closed nor owned, or both"
        close_all(held)

    def answer(self, side: int, value: Any, *, failing: bool) -> None:
        session = self.sides[side]
        if not session.requests:
            return
        call_id = min(session.requests)
        try:
            self.post(
                side,
                session.send_error(call_id, "app.Failed", "", value)
                if failing
                else session.send_result(call_id, value),
            )
        except (LocalProtocolError, TooLarge):
            assert not failing
            assert call_id in session.requests
        else:
            assert call_id not in session.requests

    def deliver(self, sender: int) -> None:
        if self.travelling[sender]:
            data, lenders = self.travelling[sender].popleft()
            fds = [OwnedFd.dup(lender) for lender in lenders]
            if len(data) > MAX_PACKET:
                fds.insert(0, write_spilled(data))
                data = self.sides[sender].spill(data)
            self.receive(1 - sender, bytes(data), fds, lost=False, sent=True)

    def receive(self, side: int, data: bytes, fds: list[OwnedFd], *, lost: bool, sent: bool = False) -> None:
        """Hand a packet to a session; ``sent`` says that the other session made it."""
        session = self.sides[side]
        every = list(fds)
        calls, requests = len(session.calls), len(session.requests)
        message: Any = None
        reason = ""
        measured = self.measured and len(data) >= SMALLEST_MEASURED
        if measured:
            tracemalloc.start()
        started = time.process_time()
        try:
            message = session.receive_packet(data, fds, lost=lost)
        except RemoteProtocolError as exc:
            reason = str(exc)
        finally:
            spent = time.process_time() - started
            if measured:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak <= BYTES_AT_LEAST + BYTES_PER_BYTE * len(data), f"{peak} bytes for {len(data)}"
        assert len(reason) < 500, "an error text as long as its packet"
        # The fuzzer's own packets may have used the id of a request.
        assert not sent or not reason or "in flight already" in reason, f"a session sent a malformed packet: {reason}"
        assert spent < CPU_SECONDS, f"{spent} s for {len(data)} bytes"

        owned = message.fds if isinstance(message, Request | Response) else []
        for fd in every:
            assert fd.closed != any(fd is other for other in owned), "neither closed nor owned, or both"
        assert len(session.calls) <= calls
        assert len(session.requests) <= requests + 1
        if isinstance(message, Refused) and message.call_id is not None:
            packet = session.send_error(message.call_id, message.code, message.message)
            assert len(packet[0])
        assert len(session.requests) <= self.limits.max_calls_in_flight
        if message is not None:
            self.encode_again(message, len(data))
        for fd in owned:
            fd.close()

    def encode_again(self, message: Any, size: int) -> None:
        if isinstance(message, Response):
            value: Any = (RESPONSE, 0, message.error, message.result)
        elif isinstance(message, Request):
            value = (REQUEST, 0, message.method, message.params)
        else:
            return
        try:
            data, lenders = self.encoder.encode(value)
        except TooLarge:
            assert 2 * size > MAX_PACKET, "it grew by more than single-precision floats account for"
            return
        fds = [OwnedFd.dup(lender) for lender in lenders]
        try:
            again, problem = self.decoder.decode(bytes(data), fds)
            assert problem is None
            assert self.encoder.encode(again)[0] == data
        except TooLarge as exc:
            assert "max_containers" in exc.message  # noqa: PT017 - it was counted only now that it is longer
        close_all(fds)


def check_sizes(data: bytes) -> None:  # noqa: C901, PLR0912 - one comparison after the other
    """Check that depth.py and msgpack agree on where the first value ends and how deep it is."""
    try:
        value = msgpack.Unpacker(
            None, strict_map_key=False, raw=True, object_pairs_hook=tuple, ext_hook=lambda _code, _data: None
        )
        value.feed(data)
        deepest = depth_of(value.unpack())
    except msgpack.StackError:
        return
    except (ValueError, OverflowError, msgpack.OutOfData) as exc:
        if "timestamp" in str(exc) or "nanoseconds" in str(exc):
            return
        deepest = -1
    for max_depth in (1, 2, 8, 64, 1_000):
        reason = ""
        try:
            depth._step_over(data, max_depth)
        except ValueError as exc:
            reason = str(exc)
        if not reason and deepest < 0 and b"\xc9\xff\xff\xff\xff" in data:
            return  # whose length msgpack counts wrongly as it steps over it
        if not reason:
            assert 0 <= deepest <= max_depth, f"depth.py takes what msgpack finds {deepest} deep"
        elif "nested" in reason:
            assert deepest < 0 or deepest > max_depth, f"{deepest} deep for msgpack, more than {max_depth} for depth.py"
        else:
            assert deepest < 0, f"depth.py says {reason}, msgpack takes it"
        if 0 <= deepest <= max_depth:
            depth.check_depth(data, max_depth)
            depth.check_depth(memoryview(data), max_depth)
        elif deepest > max_depth:
            for form in (data, memoryview(data)):
                with contextlib.suppress(ValueError):
                    depth.check_depth(form, max_depth)
                    raise AssertionError(f"{deepest} deep is taken for {max_depth}")
        if deepest > max_depth:
            assert depth.possible_containers(data) > max_depth or deepest <= 64


def depth_of(value: Any) -> int:
    """Return how many arrays and maps are inside one another."""
    deepest, level = 0, [value]
    while level := [item for item in level if isinstance(item, list | tuple)]:
        deepest += 1
        inner: list[Any] = []
        for item in level:
            for element in item:
                # A map is a tuple of pairs, which are no level of their own.
                inner.extend(element if isinstance(item, tuple) else (element,))
        level = inner
    return deepest


def fuzz(program: bytes) -> None:
    """Run one input."""
    lowest = os.dup(NULL)
    os.close(lowest)
    run(program)
    again = os.dup(NULL)
    os.close(again)
    assert again == lowest, "a descriptor leaked"


def run(program: bytes) -> None:  # noqa: C901, PLR0912 - one action after the other
    if not program:
        return
    pair = Pair(program[0])
    position = 1
    for _ in range(MOST_STEPS):
        if position >= len(program):
            break
        step = program[position]
        side = step & 1
        action = step >> 4 & 7
        position += 1
        of_a_stream = bool(step & 8)
        if action == 0 and of_a_stream:
            pair.flush()
        elif action == 0:
            pair.deliver(side)
        elif action == 1:
            pair.post(side, pair.sides[side].send_cancel(step >> 1 & 7))
        elif action == 2:
            pair.post(side, pair.sides[side].send_closing("\udcff"))
        else:
            size = int.from_bytes(program[position + 1 : position + 3], "big")
            descriptors = program[position] if position < len(program) else 0
            packet = program[position + 3 : position + 3 + size]
            position += 3 + size
            if action in (3, 4):
                value = value_of(pair, packet)
                if of_a_stream and action == 3:
                    pair.add(value)
                elif of_a_stream:
                    pair.flush()
                    pair.end(value if step & 2 else None)
                elif action == 3:
                    pair.call(side, [value])
                else:
                    pair.answer(side, value, failing=bool(step & 2))
                continue
            check_sizes(packet)
            lost = action == 7
            fds = [] if lost else descriptors_of(descriptors)
            if action == 6:
                packet, file = spilled(packet, step, descriptors)
                fds.insert(0, file)
            if of_a_stream:
                pair.read(packet, fds, lost=lost)
            else:
                pair.receive(side, packet, fds, lost=lost)
    pair.writer.drop()
    close_all(pair.lent)
    for session in pair.sides:
        session.lose()
        assert not session.calls
        assert not session.requests


def descriptors_of(number: int) -> list[OwnedFd]:
    """Return what comes with a packet: files of which every other can hold a buffer."""
    number = MAX_DESCRIPTORS - 1 if number == 255 else (number & 15) % 5
    return [OwnedFd(os.dup(FILE.fileno() if index % 2 else NULL)) for index in range(number)]


def spilled(content: bytes, step: int, more: int) -> tuple[bytes, OwnedFd]:
    """Return a packet and a memory file that may not be as it should."""
    file = memfd.create("fuzz")
    os.write(file.fileno(), content)
    if step & 2:
        os.ftruncate(file.fileno(), len(content) + (1 << 30 if more & 64 else 1))
    seals = memfd.SEALS & ~(more >> 4) if step & 4 else memfd.SEALS
    if seals:
        fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, seals)
    length = os.fstat(file.fileno()).st_size + (-1 if more & 32 and step & 2 else 0)
    message = (SPILLED, length, more >> 6) if step & 128 else (SPILLED, length)
    return msgpack.packb(message), file


def value_of(pair: Pair, data: bytes) -> Any:
    """Return a value for a session to send; what it lends is kept until the end."""
    if data[:1] == b"\xc1":  # which begins no packet
        return [ODD_VALUES[byte % len(ODD_VALUES)] for byte in data[1:]]
    fds = [OwnedFd(os.dup(number)) for number in (NULL, FILE.fileno(), NULL)]
    try:
        return pair.decoder.decode(data, fds)[0]
    except (RemoteProtocolError, TooLarge):
        return data.decode("utf-8", "surrogateescape")
    finally:
        pair.lent += fds


class Lender:
    """Something with a descriptor to lend."""

    def fileno(self) -> int:
        return NULL


@dataclass(frozen=True)
class Record:
    """A dataclass of anything."""

    value: Any


ITSELF: list[Any] = []
ITSELF.append(ITSELF)

ODD_VALUES: list[Any] = [
    *(Record(1), Record(Lender()), Record({Record(1): 2}), Record(Record([Record(b"1")])), Record(ITSELF), ITSELF),
    *({(1, 2): 3}, {((1,), frozenset((1,))): {}}, {Record((1, 2)): 1}, {b"k": 1, 1.5: 2, None: 3, True: 4}),
    *({1, 2}, frozenset("ab"), bytearray(b"1"), memoryview(b"12"), memoryview(bytearray(9))[::2], 1j, object()),
    *(
        datetime.fromordinal(1),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(9999, 12, 31, tzinfo=UTC),
    ),
    *(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), Decimal("NaN"), UUID(int=1), float("nan"), -0.0),
    *(1 << 64, (1 << 64) - 1, -(1 << 63), -(1 << 63) - 1, "\udc80", [[[[[[[1]]]]]]]),
    *(Buffer.copy_of(b"buffer"), Record(Buffer.copy_of(b"x" * 100)), b"x" * 9_000, "y" * 70_000, [Lender()] * 260),
    *(BareValue(EXT_STREAM, FILE), Record([BareValue(EXT_STREAM, FILE)]), {Record(BareValue(EXT_STREAM, FILE)): 1}),
]


def seeds() -> list[bytes]:
    """Return valid packets of every kind, as programs of one packet for both sides, and some conversations."""
    big = 1 << 63
    values: list[Any] = [
        (0, 1, "rpc.ping", ()),
        (0, 1, "m", {"a": 1, "b": [1.5, None, True, -1, b"bytes", "text"]}, {"deadline": 10**15, "meta": {"a": "b"}}),
        (0, 2, "m", [[[[[[{"a": {}}]]]]]], {"unknown": [1]}),
        (0, 1, "m", (Lender(), [Lender(), {"f": Lender()}])),
        (1, 0, None, {"a": [1] * 20, 5: 6, None: {}, -5: 2.5}),
        (1, 1, ("app.Failed", "text", {"more": [1, 2]}), None),
        (1, 0, None, [big, -big, 2 * big - 1, 0xFF, 0xFFFF, 0xFFFFFFFF, -129, -40_000, -3_000_000_000]),
        (1, 2, None, [Lender()]),
        (1, 0, None, [b"x" * 300, "y" * 300, b"x" * 66, "z" * 40, list(range(300)), dict.fromkeys(range(20))]),
        (
            1,
            0,
            None,
            [msgpack.Timestamp(0), msgpack.Timestamp(1, 1), msgpack.Timestamp(-1)],
        ),
        (1, 0, None, [msgpack.ExtType(2, b"\0"), msgpack.ExtType(9, b"12"), msgpack.ExtType(1, b"1" * 300)]),
        (1, 0, None, [0.5] * 30 + [1000] * 30 + [100_000] * 30 + [200] * 30 + [-1000] * 30),
        (2, "m", [1, 2, 3]),
        (2, "m", {"f": Lender()}, {"meta": {}}),
        (3, 0),
        (4, 100),
        (4, 100, 1),
        (5, "going"),
        (1, 0, None, [Lender(), msgpack.ExtType(EXT_BUFFER, b"\1" + bytes(15) + b"\x40")]),
        (1, 0, None, [Lender(), msgpack.ExtType(EXT_BUFFER, b"\1" + bytes(6) + b"\x10\0" + bytes(7) + b"\x40")]),
        (0, 1, "m", [Lender(), msgpack.ExtType(EXT_BUFFER, b"\1" + bytes(7) + b"\1" + bytes(7) + b"\x40")]),
        (0, 1, "m", [msgpack.ExtType(2, b"\0"), msgpack.ExtType(3, b"\1")]),
        (0, 1, 2.5, None, "item", [1, 2], {"a": 3}),
        (6, Lender(), "future"),
        (1, 0, None, {(1, (2, 3)): {(): {Record(1): 2}}}),
    ]
    encoder = Encoder()
    packets = []
    for value in values:
        data, lenders = encoder.encode(value)
        extensions = sum(bytes(data).count(bytes((head, kind))) for head, kind in ((0xD4, 2), (0xD4, 3), (0x11, 4)))
        packets.append((bytes(data), len(lenders) + extensions))
    packets.append((msgpack.packb([1, 0, None, [0.5, 1.5]], use_single_float=True), 0))
    packets.append((msgpack.packb([1, 0, None, msgpack.Timestamp(1 << 40)]), 0))
    packets.append((b"\x94\x01\x00\xc0" + b"\xdd\x00\x00\x0f\xff" * 62 + b"\x01" * 4000, 0))
    packets.append((b"\x94\x01\x00\xc0" + b"\x91" * 70 + b"\xc0", 0))
    packets.append((b"\x94\x01\x00\xc0\xdd\x00\x00\xff\xff\xdf\x00\x00\x10\x00\xdc\xff\xff\xde\xff\xff", 0))
    programs = []
    for state in (0b0000_0000, 0b1111_1111, 0b0010_1110):
        for data, descriptors in packets:
            framed = bytes((descriptors,)) + len(data).to_bytes(2, "big") + data
            programs.append(bytes((state,)) + b"\x50" + framed + b"\x71" + framed + b"\x00\x01")
            programs.append(bytes((state,)) + b"\x60" + framed + b"\xe1" + framed + b"\x66" + framed + b"\xe2" + framed)
            programs.append(bytes((state,)) + b"\x58" + framed + b"\x68" + framed + b"\x6e" + framed + b"\x78" + framed)
            stream = b"\x38" + framed + b"\x38" + framed + b"\x08\x48" + framed + b"\x4a" + framed
            programs.append(bytes((state,)) + stream)
    for first in range(len(ODD_VALUES)):
        framed = b"\x00\x00\x02\xc1" + bytes((first,))
        programs.append(b"\x14\x30" + framed + b"\x40" + framed + b"\x42" + framed + b"\x00" * 6)
        programs.append(b"\x15\x30" + framed + b"\x40" + framed + b"\x42" + framed + b"\x00" * 6)
        programs.append(b"\x14\x38" + framed + b"\x38" + framed + b"\x08\x38" + framed + b"\x4a" + framed)
    parameters = b"\x00\x00\x07" + msgpack.packb([1, {"a": 2}])
    conversation = (b"\x30" + parameters + b"\x31" + parameters + b"\x00\x01" + b"\x10\x01") * 2
    answers = b"\x41" + parameters + b"\x42" + parameters + b"\x00\x01\x00\x01"
    programs.append(b"\x00" + conversation + answers + b"\x20\x00" + conversation + answers)
    programs.append(b"\x01" + conversation * 3 + answers * 3)
    return programs


def main() -> None:
    for argument in sys.argv[1:]:
        directory = Path(argument)
        if not argument.startswith("-") and not directory.exists():
            directory.mkdir(parents=True)
            for number, program in enumerate(seeds()):
                (directory / f"seed-{number}").write_bytes(program)
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
