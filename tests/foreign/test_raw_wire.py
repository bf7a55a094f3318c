"""Streams, channels, buffers and spilled messages, byte by byte: a client of sockets and MessagePack alone.

What breaks the protocol costs its own connection, or its own stream, and no descriptor.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import mmap
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
from serving import WITHIN, served

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MAX_MESSAGE = 1 << 20  # what service.py takes
MAX_BUFFER = 1 << 24
PAGE = mmap.PAGESIZE
SENDER_SIZE = struct.calcsize("3i")

Ext = msgpack.ExtType


def packed(*message: Any) -> bytes:
    data: bytes = msgpack.packb(message)
    return data


class Raw:
    """A socket, and the descriptors that came in on it."""

    def __init__(self, sock: socket.socket, keep: contextlib.ExitStack) -> None:
        self.sock = sock
        self.keep = keep
        self.fds: list[int] = []
        """Of the last packet; they are closed at the end of the test."""
        self.sender = 0
        """The process that sent the last packet, if the socket has ``SO_PASSCRED``."""
        sock.settimeout(WITHIN)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        assert self.sock.sendmsg([data], rights, socket.MSG_EOR | socket.MSG_NOSIGNAL) == len(data)

    def receive(self) -> bytes:
        """Return the next packet; nothing at the end."""
        room = socket.CMSG_SPACE(253 * 4) + socket.CMSG_SPACE(SENDER_SIZE)
        try:
            data, control, flags, _address = self.sock.recvmsg(65_536, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # once, ahead of what was sent earlier
            return self.receive()
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        self.fds, self.sender = [], 0
        for _level, kind, content in control:
            if kind == socket.SCM_RIGHTS:
                self.fds = [*array.array("i", content)]
            else:
                self.sender = struct.unpack("3i", content)[0]
        for fd in self.fds:
            self.keep.callback(os.close, fd)
        return data

    def ask(self, call_id: int, method: str, *params: Any, fds: Sequence[int] = ()) -> Any:
        """Call and return the message that comes next."""
        self.send(packed(0, call_id, f"Foreign.{method}", params), fds)
        return self.message()

    def message(self) -> Any:
        return msgpack.unpackb(self.receive(), strict_map_key=False)

    def takes_over(self, index: int = 0) -> Raw:
        """Return a socket that came with the last packet."""
        return Raw(self.keep.enter_context(socket.socket(fileno=os.dup(self.fds[index]))), self.keep)


class Maker:
    """Makes sockets and files that are closed at the end of the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keep = contextlib.ExitStack()
        self.open: set[int] = set()

    def connect(self) -> Raw:
        sock = self.keep.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        sock.connect(str(self.path))
        return Raw(sock, self.keep)

    def pair(self, kind: socket.SocketKind = socket.SOCK_SEQPACKET) -> tuple[Raw, int]:
        """Return our end, and the one to send, which is to be closed then if the end of file matters."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        return Raw(self.keep.enter_context(ours), self.keep), self.fd(theirs.detach())

    def fd(self, number: int) -> int:
        self.open.add(number)
        self.keep.callback(self.close, number)
        return number

    def close(self, number: int) -> None:
        if number in self.open:
            self.open.remove(number)
            os.close(number)

    def null(self) -> int:
        return self.fd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def pipe(self) -> int:
        reader, writer = os.pipe()
        self.fd(writer)
        return self.fd(reader)

    def memfd(self, content: bytes, seals: int = SEALS, size: int | None = None) -> int:
        fd = self.fd(os.memfd_create("raw", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        os.write(fd, content)
        if size is not None:
            os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return fd

    def socket(self, kind: socket.SocketKind) -> int:
        return self.fd(socket.socket(socket.AF_UNIX, kind).detach())

    def listening(self) -> int:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.bind("")  # a name of the kernel's choice
        sock.listen()
        return self.fd(sock.detach())

    def regular_file(self) -> int:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(PAGE))
            file.flush()
            return self.fd(os.dup(file.fileno()))

    def written_only(self, content: bytes) -> int:
        return self.fd(os.open(f"/proc/self/fd/{self.memfd(content)}", os.O_WRONLY | os.O_CLOEXEC))


class Service:
    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self.path = path
        self.process = process

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def comes_to_have(self, files: int) -> bool:
        """Return whether so many files are open soon: some of what it was sent is closed by a thread of its own."""
        until = time.monotonic() + WITHIN
        while self.open_files() != files:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        return True


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """Serve all of these tests from one process, then again from one with the other loop."""
    with tempfile.TemporaryDirectory(prefix="seqrpc-") as directory:
        path = Path(directory, "raw.sock")
        with served(path, request.param) as process:
            yield Service(path, process)
        assert process.returncode == 0


@pytest.fixture
def make(service: Service) -> Iterator[Maker]:
    maker = Maker(service.path)
    with maker.keep:
        yield maker


@pytest.fixture
def raw(make: Maker) -> Raw:
    return make.connect()


def content_of(fd: int) -> bytes:
    """Return what is in a memory file, which must be as the protocol wants it."""
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    return os.pread(fd, os.fstat(fd).st_size, 0)


# Streams


def echoed(make: Maker, raw: Raw) -> tuple[Raw, Raw]:
    """Return a stream to write to, and the one that gives back what is written."""
    ours, theirs = make.pair()
    raw.send(packed(0, 1, "Foreign.echo_items", [Ext(2, b"\0")]), [theirs])

    assert raw.receive() == bytes.fromhex("94 01 01 c0 d40200")
    assert len(raw.fds) == 1
    make.close(theirs)
    return ours, raw.takes_over()


def test_items_are_the_same_bytes_in_both_directions(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)

    for item in ("05", "ff", "a161", "c0", "c3", "c4020102", "cb3ff8000000000000", "93 01 02 90", "81 a16b 80"):
        packet = bytes.fromhex(f"92 00 {item}")
        to.send(packet)
        assert back.receive() == packet


def test_several_items_in_one_packet_come_in_their_order(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)

    to.send(bytes.fromhex("96 00 01 02 a133 04 05"))

    items: list[Any] = []
    while len(items) < 5:
        kind, *more = back.message()
        assert kind == 0
        items += more
    assert items == [1, 2, "3", 4, 5]


def test_an_items_descriptors_go_with_its_packet(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)
    packet = bytes.fromhex("92 00 92 d40101 d40100")

    to.send(packet, [make.memfd(b"one"), make.memfd(b"two")])

    assert [back.receive(), len(back.fds)] == [bytes.fromhex("92 00 92 d40100 d40101"), 2]
    assert [content_of(fd) for fd in back.fds] == [b"two", b"one"]


def test_a_long_item_is_spilled(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)
    message = bytes.fromhex("92 00 db00030d40") + b"x" * 200_000
    packet = bytes.fromhex("92 04 ce00030d47")

    to.send(packet, [make.memfd(message)])

    assert [back.receive(), len(back.fds)] == [packet, 1]
    assert content_of(back.fds[0]) == message


def test_the_longest_packet_of_a_stream_has_65536_bytes_and_one_byte_more_is_spilled(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)
    longest = bytes.fromhex("92 00 dafffb") + b"x" * 65_531

    to.send(longest)
    assert [back.receive(), back.fds] == [longest, []]

    longer = bytes.fromhex("92 00 dafffc") + b"x" * 65_532
    to.send(bytes.fromhex("92 04 ce00010001"), [make.memfd(longer)])
    assert back.receive() == bytes.fromhex("92 04 ce00010001")
    assert content_of(back.fds[0]) == longer


@pytest.mark.parametrize(
    "end",
    ["92 01 c0", "92 01 93 a3782e59 a3776879 c0", "92 01 93 a3782e59 a0 81 a16b 9101"],
    ids=["regular", "an error", "an error with data"],
)
def test_an_end_is_the_same_bytes_in_both_directions(make: Maker, raw: Raw, end: str) -> None:
    to, back = echoed(make, raw)
    packet = bytes.fromhex(end)

    to.send(packet)

    assert back.receive() == packet
    assert back.receive() == b""
    assert to.receive() == b"", "the reader has no more use for its end"


def test_a_stream_outlives_the_connection_that_carried_it(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)
    raw.sock.close()

    to.send(bytes.fromhex("92 00 05"))

    assert back.receive() == bytes.fromhex("92 00 05")


def test_a_stream_within_a_stream(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)
    inner, theirs = make.pair()

    to.send(bytes.fromhex("92 00 d40200"), [theirs])

    assert back.receive() == bytes.fromhex("92 00 d40200")
    inner.send(b"as it is")
    assert back.takes_over().receive() == b"as it is"


def test_a_reader_that_writes_is_as_one_that_closed(make: Maker, raw: Raw) -> None:
    raw.send(packed(0, 1, "Foreign.endless", []))
    assert raw.receive() == bytes.fromhex("94 01 01 c0 d40200")
    stream = raw.takes_over()
    last = stream.receive()

    stream.send(b"hello")

    while packet := stream.receive():
        last = packet
    kind, *_items = msgpack.unpackb(last)
    assert kind == 0, "no END"


def test_unknown_kinds_of_packets_of_a_stream_are_ignored(make: Maker, raw: Raw) -> None:
    to, back = echoed(make, raw)

    to.send(bytes.fromhex("91 02"), [make.null()])
    to.send(bytes.fromhex("93 cd1000 c7020001ff d40109"))
    to.send(bytes.fromhex("92 00 05"))

    assert back.receive() == bytes.fromhex("92 00 05")


# What ends a stream, and only that


def nested(levels: int) -> bytes:
    return b"\x91" * levels + b"\x01"


Case = Callable[[Maker], tuple[bytes, list[int]]]


def spilled(content: bytes, *more: Any, seals: int = SEALS) -> Case:
    """Return a SPILLED packet for a message, sealed as said, and with more after its length."""
    return lambda make: (packed(4, len(content), *more), [make.memfd(content, seals)])


BROKEN_STREAMS: dict[str, Case] = {
    "no items": lambda make: (packed(0), []),
    "an end without error": lambda make: (packed(1), []),
    "an end with too much": lambda make: (packed(1, None, None), []),
    "an error that is text": lambda make: (packed(1, "why"), []),
    "an error too short": lambda make: (packed(1, ["a.B", "why"]), []),
    "an error with a number for a code": lambda make: (packed(1, [1, "why", None]), []),
    "no array": lambda make: (b"\x05", []),
    "an empty array": lambda make: (b"\x90", []),
    "text for a kind": lambda make: (packed("0", 1), []),
    "a negative kind": lambda make: (packed(-1, 1), []),
    "bytes left over": lambda make: (packed(0, 1) + b"\x01", []),
    "cut short": lambda make: (packed(0, "text")[:-1], []),
    "never used byte": lambda make: (b"\x92\x00\xc1", []),
    "too deep": lambda make: (b"\x92\x00" + nested(64), []),
    "a descriptor that is not referred to": lambda make: (packed(0, 1), [make.null()]),
    "a descriptor that did not come": lambda make: (packed(0, Ext(1, b"\0")), []),
    "a stream that is a pipe": lambda make: (packed(0, Ext(2, b"\0")), [make.pipe()]),
    "a buffer, and a descriptor that is not referred to": lambda make: (
        packed(0, buffer(0, 0, 1)),
        [make.memfd(b"x"), make.null()],
    ),
    "a packet of 65,537 bytes": lambda make: (bytes.fromhex("92 00 dafffc") + b"x" * 65_532, []),
    "spilled without a file": lambda make: (packed(4, 100), []),
    "spilled and not sealed": spilled(packed(0, 1), seals=0),
    "spilled twice": lambda make: (packed(4, 2), [make.memfd(packed(4))]),
    "spilled and malformed": spilled(b"\x91\xc1"),
    "spilled with a length too small": lambda make: (packed(4, 2), [make.memfd(packed(0, 1))]),
    "spilled with a length too great": lambda make: (packed(4, 4), [make.memfd(packed(0, 1))]),
}


def end_of_upload(make: Maker, raw: Raw, packets: list[tuple[bytes, list[int]]]) -> Any:
    """Upload a stream of an item and some packets; return what was taken, and why it ended."""
    ours, theirs = make.pair()
    ours.send(packed(0, "first"))
    for data, fds in packets:
        ours.send(data, fds)
    raw.send(packed(0, 1, "Foreign.why_it_ends", [Ext(2, b"\0")]), [theirs])
    make.close(theirs)
    kind, call_id, error, result = raw.message()
    assert [kind, call_id, error] == [1, 1, None]
    assert ours.receive() == b"", "the reader closed it"
    return result


@pytest.mark.parametrize("case", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS)
def test_a_malformed_packet_costs_its_stream_and_no_more(make: Maker, service: Service, raw: Raw, case: Case) -> None:
    assert raw.ask(0, "add", 1, 2) == [1, 0, None, 3]
    before = service.open_files()

    assert end_of_upload(make, raw, [case(make)]) == [["first"], "malformed"]

    assert raw.ask(2, "add", 1, 2) == [1, 2, None, 3]
    assert service.comes_to_have(before)


def test_an_item_over_the_limit_ends_the_stream_with_too_large(make: Maker, raw: Raw) -> None:
    packet = packed(4, MAX_MESSAGE + 1), [make.memfd(packed(0, "small"))]

    assert end_of_upload(make, raw, [packet]) == [["first"], "rpc.TooLarge"]


def test_the_end_of_file_is_not_the_end_of_a_stream(make: Maker, raw: Raw) -> None:
    ours, theirs = make.pair()
    raw.send(packed(0, 1, "Foreign.why_it_ends", [Ext(2, b"\0")]), [theirs])
    make.close(theirs)

    ours.send(packed(0, "first", "second"))
    ours.sock.close()

    assert raw.message() == [1, 1, None, [["first", "second"], "rpc.Unavailable"]]


def test_what_comes_after_the_end_is_not_looked_at(make: Maker, raw: Raw) -> None:
    assert end_of_upload(make, raw, [(packed(1, None), []), (b"\xc1", [])]) == [["first"], "the end"]


# Channels


def test_an_object_that_is_given_away(make: Maker, raw: Raw) -> None:
    raw.send(packed(0, 1, "Foreign.counter", [5]))
    assert raw.receive() == bytes.fromhex("94 01 01 c0 d40300")
    assert len(raw.fds) == 1
    channel = raw.takes_over()
    assert channel.sock.type == socket.SOCK_SEQPACKET

    channel.send(bytes.fromhex("94 00 00 ab") + b"Counter.add" + bytes.fromhex("91 02"))
    assert channel.receive() == bytes.fromhex("94 01 00 c0 07")

    raw.sock.close()
    channel.send(bytes.fromhex("94 00 00 ab") + b"Counter.add" + bytes.fromhex("91 02"))
    assert channel.receive() == bytes.fromhex("94 01 00 c0 09")


def test_an_object_that_is_served_and_let_go_of(make: Maker, raw: Raw, service: Service) -> None:
    ours, theirs = make.pair()
    ours.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    raw.send(packed(0, 1, "Foreign.greet_all", [Ext(3, b"\0")]), [theirs])
    make.close(theirs)

    assert ours.receive() == bytes.fromhex("94 00 00 ad") + b"Greeter.greet" + bytes.fromhex("91 a3") + b"Ada"
    assert ours.sender == service.process.pid
    ours.send(bytes.fromhex("94 01 00 c0 a3") + b"one")
    assert ours.receive() == bytes.fromhex("94 00 01 ad") + b"Greeter.greet" + bytes.fromhex("91 a5") + b"Grace"
    ours.send(bytes.fromhex("94 01 01 c0 a3") + b"two")
    message = bytes.fromhex("94 00 02 ad") + b"Greeter.greet" + bytes.fromhex("91 db00030d40") + b"x" * 200_000
    assert ours.receive() == packed(4, len(message), 2)
    assert content_of(ours.fds[0]) == message
    ours.send(bytes.fromhex("94 01 02 93 a3") + b"a.B" + bytes.fromhex("a0 c0 c0"))

    assert ours.receive() == b""
    assert raw.message() == [1, 1, None, ["one", "two", "a.B"]]


def test_who_holds_a_channel_offers_nothing_on_it(make: Maker, raw: Raw) -> None:
    ours, theirs = make.pair()
    raw.send(packed(0, 1, "Foreign.greet_all", [Ext(3, b"\0")]), [theirs])
    assert ours.message()[0] == 0

    ours.send(packed(0, 0, "Foreign.add", [1, 2]))
    assert ours.message()[2][0] == "rpc.MethodNotFound"

    ours.send(packed(1, 0, ["a.B", "enough", None], None))
    assert raw.message() == [1, 1, ["a.B", "enough", None], None]


@pytest.mark.parametrize("kind", [2, 3], ids=["stream", "channel"])
def test_a_stream_or_a_channel_that_is_passed_on_is_the_same_socket(make: Maker, raw: Raw, kind: int) -> None:
    ours, theirs = make.pair()
    raw.send(packed(0, 1, "Foreign.echo", [Ext(kind, b"\0")]), [theirs])

    assert raw.receive() == bytes.fromhex(f"94 01 01 c0 d4 0{kind} 00")
    assert len(raw.fds) == 1
    assert os.fstat(raw.fds[0]).st_ino == os.fstat(theirs).st_ino
    ours.send(b"anything")
    assert raw.takes_over().receive() == b"anything"


def test_a_malformed_packet_costs_its_channel_and_no_more(make: Maker, raw: Raw) -> None:
    raw.ask(1, "counter", 5)
    broken = raw.takes_over()
    raw.ask(2, "counter", 7)
    sound = raw.takes_over()

    broken.send(b"\xc1", [make.null()])

    assert broken.message()[0] == 5
    assert broken.receive() == b""
    sound.send(packed(0, 1, "Counter.add", [1]))
    assert sound.message() == [1, 1, None, 8]
    assert raw.ask(3, "add", 1, 2) == [1, 3, None, 3]


# Buffers


def buffer(index: int, offset: int, length: int) -> Any:
    return Ext(4, struct.pack(">BQQ", index, offset, length))


def test_a_buffer_is_the_same_bytes_in_both_directions(make: Maker, raw: Raw) -> None:
    file = make.memfd(b"content", size=3 * PAGE)
    data = bytes.fromhex(f"c71104 00 {PAGE:016x} {2 * PAGE:016x}")
    raw.send(bytes.fromhex("94 00 01 ac") + b"Foreign.echo" + b"\x91" + data, [file])

    assert raw.receive() == bytes.fromhex("94 01 01 c0") + data
    assert os.fstat(raw.fds[0]).st_ino == os.fstat(file).st_ino


def test_a_buffer_that_begins_within_a_page_is_copied(make: Maker, raw: Raw) -> None:
    answer = raw.ask(1, "echo", buffer(0, 5, 7), fds=[make.memfd(b"some content of a file")])

    assert answer == [1, 1, None, buffer(0, 0, 7)]
    assert content_of(raw.fds[0]) == b"content"


def test_buffers_that_python_makes_are_sealed(make: Maker, raw: Raw) -> None:
    files = [make.memfd(b"one file"), make.memfd(b"another")]

    answer = raw.ask(1, "reversed", buffer(1, 0, 7), buffer(0, 0, 3), fds=files)

    assert answer == [1, 1, None, [buffer(0, 0, 7), buffer(1, 0, 3)]]
    assert [content_of(fd) for fd in raw.fds] == [b"rehtona", b"eno"]


def test_a_file_may_have_more_seals_than_it_must(make: Maker, raw: Raw) -> None:
    file = make.memfd(b"content", SEALS | 0x10)  # F_SEAL_FUTURE_WRITE

    assert raw.ask(1, "echo", buffer(0, 0, 7), fds=[file]) == [1, 1, None, buffer(0, 0, 7)]


def test_a_buffer_of_no_bytes_is_an_empty_byte_string(make: Maker, raw: Raw) -> None:
    assert raw.ask(1, "echo", buffer(0, 0, 0), fds=[make.memfd(b"content")]) == [1, 1, None, b""]


def test_a_buffer_over_the_limit_is_too_large(make: Maker, raw: Raw) -> None:
    file = make.memfd(b"", size=MAX_BUFFER + 1)

    assert raw.ask(1, "echo", buffer(0, 0, MAX_BUFFER + 1), fds=[file])[2][0] == "rpc.TooLarge"
    assert raw.ask(2, "echo", buffer(0, 0, MAX_BUFFER), fds=[file]) == [1, 2, None, buffer(0, 0, MAX_BUFFER)]


# Spilled messages


def test_the_longest_packet_has_65536_bytes_and_one_byte_more_is_spilled(make: Maker, raw: Raw) -> None:
    raw.send(packed(0, 7, "Foreign.repeat", [65_529]))
    assert raw.receive() == bytes.fromhex("94 01 07 c0 dafff9") + b"x" * 65_529

    raw.send(packed(0, 7, "Foreign.repeat", [65_530]))
    assert [raw.receive(), len(raw.fds)] == [bytes.fromhex("93 04 ce00010001 07"), 1]
    assert content_of(raw.fds[0]) == bytes.fromhex("94 01 07 c0 dafffa") + b"x" * 65_530


@pytest.mark.parametrize("more", [(), (9,)], ids=["without an id", "with the id"])
def test_any_message_may_be_spilled(make: Maker, raw: Raw, more: tuple[int, ...]) -> None:
    def spill(*message: Any) -> None:
        data, fds = spilled(packed(*message), *more)(make)
        raw.send(data, fds)

    spill(0, 9, "rpc.ping", [])
    assert raw.receive() == bytes.fromhex("94 01 09 c0 c0")
    spill(2, "Foreign.remember", [str(more)])
    assert str(more) in raw.ask(1, "remembered")[3]
    spill(0, 9, "Foreign.wait", [])
    spill(3, 9)
    assert raw.message()[:2] == [1, 9]
    raw.send(packed(0, 2, "Foreign.call_back", []))
    assert raw.message() == [0, 0, "Client.greet", ["Python"]]
    spill(1, 0, None, "spilled")
    assert raw.message() == [1, 2, None, "spilled"]
    spill(5, "no more calls, please")
    assert raw.ask(3, "code_of_call_back") == [1, 3, None, "rpc.Unavailable"]
    spill(200, "from later")
    assert raw.ask(4, "add", 1, 2) == [1, 4, None, 3]


def test_a_spilled_messages_own_descriptors_are_counted_from_the_one_after_the_memory_file(
    make: Maker, raw: Raw
) -> None:
    message = packed(0, 1, "Foreign.length_and_content", ["x" * 200_000, Ext(1, b"\0")])
    raw.send(packed(4, len(message), 1), [make.memfd(message), make.memfd(b"its own")])

    assert raw.message() == [1, 1, None, [200_000, "its own"]]

    raw.send(packed(0, 2, "Foreign.repeat_with_file", [200_000]))
    message = bytes.fromhex("94 01 02 c0 92 db00030d40") + b"x" * 200_000 + bytes.fromhex("d40100")
    assert [raw.receive(), len(raw.fds)] == [packed(4, len(message), 2), 2]
    assert content_of(raw.fds[0]) == message
    assert os.pread(raw.fds[1], 100, 0) == b"content"


def over_the_limit(make: Maker, *message: Any) -> int:
    return make.memfd(packed(*message), size=MAX_MESSAGE + 1)


TOO_LONG: dict[str, Case] = {
    "an id, and a sound file": lambda make: (packed(4, MAX_MESSAGE + 1, 7), [over_the_limit(make, 0, 7, "a.b", [])]),
    "a sound file": lambda make: (packed(4, MAX_MESSAGE + 1), [over_the_limit(make, 0, 7, "a.b", [])]),
    "an id": lambda make: (packed(4, 2**64 - 1, 7), []),
    "an id, and a file that is none": lambda make: (packed(4, MAX_MESSAGE + 1, 7), [make.pipe()]),
    "an id, and a file not sealed": lambda make: (packed(4, 7 << 20, 7), [make.memfd(b"", 0, size=7 << 20)]),
}


@pytest.mark.parametrize("case", TOO_LONG.values(), ids=TOO_LONG)
def test_a_request_over_the_limit_is_refused_and_the_connection_lives_on(
    make: Maker, service: Service, raw: Raw, case: Case
) -> None:
    assert raw.ask(0, "add", 1, 2) == [1, 0, None, 3]
    before = service.open_files()

    raw.send(*case(make))

    kind, call_id, (code, _text, data), result = raw.message()
    assert [kind, call_id, code, data, result] == [1, 7, "rpc.TooLarge", None, None]
    assert raw.ask(7, "add", 1, 2) == [1, 7, None, 3]
    assert service.comes_to_have(before)


@pytest.mark.parametrize("more", [(), (0,)], ids=["without an id", "with the id"])
def test_an_answer_over_the_limit_fails_its_call_and_the_connection_lives_on(
    make: Maker, raw: Raw, more: tuple[int, ...]
) -> None:
    raw.send(packed(0, 5, "Foreign.code_of_call_back", []))
    assert raw.message() == [0, 0, "Client.greet", ["Python"]]

    raw.send(packed(4, MAX_MESSAGE + 1, *more), [over_the_limit(make, 1, 0, None, "hello")])

    assert raw.message() == [1, 5, None, "rpc.TooLarge"]
    assert raw.ask(7, "add", 1, 2) == [1, 7, None, 3]


def test_what_might_be_an_answer_or_a_request_ends_the_connection(make: Maker, raw: Raw) -> None:
    raw.send(packed(0, 5, "Foreign.code_of_call_back", []))
    assert raw.message() == [0, 0, "Client.greet", ["Python"]]

    raw.send(packed(4, MAX_MESSAGE + 1, 0))

    assert raw.message()[0] == 5
    assert raw.receive() == b""


# What ends a connection, and only that


def echo(*params: Any) -> bytes:
    return packed(0, 1, "Foreign.echo", params)


def echo_bytes(params: str) -> bytes:
    return bytes.fromhex("94 00 01 ac") + b"Foreign.echo" + bytes.fromhex(params)


REQUEST = packed(0, 1, "Foreign.add", [1, 2])

BROKEN_REFERENCES: dict[str, Case] = {
    "a descriptor without an index": lambda make: (echo(Ext(1, b"")), [make.null()]),
    "a descriptor with two": lambda make: (echo(Ext(1, b"\0\0")), [make.null()]),
    "a descriptor that did not come": lambda make: (echo(Ext(1, b"\0")), []),
    "a descriptor beyond the last": lambda make: (echo(Ext(1, b"\1")), [make.null()]),
    "a descriptor that is not referred to": lambda make: (echo(1), [make.null()]),
    "one of two that is not referred to": lambda make: (echo(Ext(1, b"\0")), [make.null(), make.null()]),
    "a descriptor twice": lambda make: (echo(Ext(1, b"\0"), Ext(1, b"\0")), [make.null()]),
    "a buffer and a descriptor of one index": lambda make: (echo(buffer(0, 0, 1), Ext(1, b"\0")), [make.memfd(b"x")]),
    "two buffers of one index": lambda make: (echo(buffer(0, 0, 1), buffer(0, 1, 1)), [make.memfd(b"xy")]),
    "a stream and a channel of one index": lambda make: (echo(Ext(2, b"\0"), Ext(3, b"\0")), [make.pair()[1]]),
    "extension type 0": lambda make: (echo(Ext(0, b"\0")), [make.null()]),
    "extension type 5": lambda make: (echo(Ext(5, b"\0")), []),
    "extension type 127": lambda make: (echo(Ext(127, b"")), []),
    "extension type -2": lambda make: (echo_bytes("91 d4fe00"), []),
    "a timestamp of three bytes": lambda make: (echo_bytes("91 c703ff000000"), []),
    "a stream with two bytes": lambda make: (echo(Ext(2, b"\0\0")), [make.pair()[1]]),
    "a stream that did not come": lambda make: (echo(Ext(2, b"\0")), []),
    "a stream that is a pipe": lambda make: (echo(Ext(2, b"\0")), [make.pipe()]),
    "a stream that is a SOCK_STREAM": lambda make: (echo(Ext(2, b"\0")), [make.pair(socket.SOCK_STREAM)[1]]),
    "a stream that is not connected": lambda make: (echo(Ext(2, b"\0")), [make.socket(socket.SOCK_SEQPACKET)]),
    "a channel without an index": lambda make: (echo(Ext(3, b"")), [make.pair()[1]]),
    "a channel that did not come": lambda make: (echo(Ext(3, b"\0")), []),
    "a channel that is a file": lambda make: (echo(Ext(3, b"\0")), [make.memfd(b"")]),
    "a channel that is a SOCK_DGRAM": lambda make: (echo(Ext(3, b"\0")), [make.pair(socket.SOCK_DGRAM)[1]]),
    "a channel that listens": lambda make: (echo(Ext(3, b"\0")), [make.listening()]),
    "a buffer with 16 bytes": lambda make: (echo(Ext(4, bytes(15) + b"\1")), [make.memfd(b"x")]),
    "a buffer with 18 bytes": lambda make: (echo(Ext(4, bytes(17) + b"\1")), [make.memfd(b"x")]),
    "a buffer that did not come": lambda make: (echo(buffer(0, 0, 1)), []),
    "a buffer, and a descriptor that is not referred to": lambda make: (
        echo(buffer(0, 0, 1)),
        [make.memfd(b"x"), make.null()],
    ),
    "a buffer not sealed": lambda make: (echo(buffer(0, 0, 1)), [make.memfd(b"x", 0)]),
    "a buffer that is a regular file": lambda make: (echo(buffer(0, 0, 1)), [make.regular_file()]),
    "a buffer that is a pipe": lambda make: (echo(buffer(0, 0, 1)), [make.pipe()]),
    "a buffer beyond the end": lambda make: (echo(buffer(0, 0, 8)), [make.memfd(b"content")]),
    "a buffer after the end": lambda make: (echo(buffer(0, PAGE, 1)), [make.memfd(b"content")]),
    "a buffer that ends where numbers do": lambda make: (echo(buffer(0, 2**64 - PAGE, PAGE)), [make.memfd(b"x")]),
    "a buffer that ends beyond all numbers": lambda make: (echo(buffer(0, 2**64 - 1, 2)), [make.memfd(b"x")]),
    "a buffer that wraps round": lambda make: (echo(buffer(0, 2**63, 2**23)), [make.memfd(b"x")]),
}

BROKEN_SPILLED: dict[str, Case] = {
    "no length": lambda make: (packed(4), [make.memfd(REQUEST)]),
    "too much": lambda make: (packed(4, len(REQUEST), 1, 1), [make.memfd(REQUEST)]),
    "a length of 0": lambda make: (packed(4, 0), [make.memfd(b"")]),
    "a negative length": lambda make: (packed(4, -1), [make.memfd(REQUEST)]),
    "a length that is text": lambda make: (packed(4, "1"), [make.memfd(REQUEST)]),
    "a length with a fraction": lambda make: (packed(4, float(len(REQUEST))), [make.memfd(REQUEST)]),
    "no length but nil": lambda make: (packed(4, None), [make.memfd(REQUEST)]),
    "a negative id": spilled(REQUEST, -1),
    "an id of 33 bits": spilled(REQUEST, 2**32),
    "an id that is text": spilled(REQUEST, "1"),
    "an id that is nil": spilled(REQUEST, None),
    "no file": lambda make: (packed(4, len(REQUEST), 1), []),
    "a pipe": lambda make: (packed(4, len(REQUEST), 1), [make.pipe()]),
    "a regular file": lambda make: (packed(4, PAGE, 1), [make.regular_file()]),
    "a socket": lambda make: (packed(4, len(REQUEST), 1), [make.socket(socket.SOCK_STREAM)]),
    "a file that cannot be read": lambda make: (packed(4, len(REQUEST), 1), [make.written_only(REQUEST)]),
    "the file second": lambda make: (packed(4, len(REQUEST)), [make.null(), make.memfd(REQUEST)]),
    "no seals": spilled(REQUEST, 1, seals=0),
    "a file that may shrink": spilled(REQUEST, 1, seals=SEALS & ~fcntl.F_SEAL_SHRINK),
    "a file that may grow": spilled(REQUEST, 1, seals=SEALS & ~fcntl.F_SEAL_GROW),
    "a file that may be written": spilled(REQUEST, 1, seals=SEALS & ~fcntl.F_SEAL_WRITE),
    "seals that may be added to": spilled(REQUEST, 1, seals=SEALS & ~fcntl.F_SEAL_SEAL),
    "a file too long": lambda make: (packed(4, len(REQUEST), 1), [make.memfd(REQUEST + b"\0")]),
    "a file too short": lambda make: (packed(4, len(REQUEST) + 1, 1), [make.memfd(REQUEST)]),
    "a huge file with holes": lambda make: (packed(4, len(REQUEST), 1), [make.memfd(REQUEST, size=1 << 40)]),
    "bytes left over": spilled(REQUEST + b"\xc0", 1),
    "cut short": spilled(REQUEST[:-1], 1),
    "no array": spilled(b"\x05"),
    "too deep": spilled(echo_bytes("91")[:-1] + nested(64)),
    "a method that is a number": spilled(packed(0, 1, 2, []), 1),
    "a spilled message": lambda make: (packed(4, 3), [make.memfd(packed(4, 9)), make.memfd(REQUEST)]),
    "a descriptor that is not referred to": lambda make: (
        packed(4, len(REQUEST), 1),
        [make.memfd(REQUEST), make.null()],
    ),
    "a descriptor counted from the file": lambda make: (
        packed(4, len(echo(Ext(1, b"\1")))),
        [make.memfd(echo(Ext(1, b"\1"))), make.null()],
    ),
    "over the limit without an id": lambda make: (packed(4, MAX_MESSAGE + 1), []),
    "over the limit without an id, not sealed": lambda make: (
        packed(4, MAX_MESSAGE + 1),
        [make.memfd(REQUEST, 0, size=MAX_MESSAGE + 1)],
    ),
    "over the limit, and of a kind without an id": lambda make: (
        packed(4, MAX_MESSAGE + 1),
        [over_the_limit(make, 2, "Foreign.remember", ["x"])],
    ),
}

BROKEN = {**BROKEN_REFERENCES, **{f"spilled: {name}": case for name, case in BROKEN_SPILLED.items()}}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_a_malformed_packet_costs_its_own_connection_and_no_descriptor(
    make: Maker, service: Service, case: Case
) -> None:
    bystander = make.connect()
    assert bystander.ask(1, "add", 1, 2) == [1, 1, None, 3]
    before = service.open_files()
    raw = make.connect()

    raw.send(*case(make))

    kind, reason = raw.message()
    assert kind == 5
    assert type(reason) is str
    assert raw.receive() == b""
    assert bystander.ask(1, "add", 1, 2) == [1, 1, None, 3]
    assert service.comes_to_have(before)


def test_a_file_of_huge_pages_is_malformed(make: Maker, raw: Raw) -> None:
    try:
        fd = make.fd(os.memfd_create("raw", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB))
    except OSError:
        pytest.skip("this kernel has no huge pages")
    size = os.fstatvfs(fd).f_bsize
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)

    raw.send(echo(buffer(0, 0, size)), [fd])

    assert raw.message()[0] == 5
    assert raw.receive() == b""


def test_an_unknown_kind_is_ignored_whatever_it_refers_to(make: Maker, service: Service, raw: Raw) -> None:
    assert raw.ask(0, "add", 1, 2) == [1, 0, None, 3]
    before = service.open_files()

    raw.send(packed(6, Ext(2, b"\0"), Ext(9, b""), buffer(7, 0, 1)), [make.pair()[1], make.null()])
    raw.send(*spilled(packed(6, Ext(9, b"")))(make))

    assert raw.ask(1, "add", 1, 2) == [1, 1, None, 3]
    assert service.comes_to_have(before)


# What is not malformed, but does not fit


VALUES: dict[str, Callable[[Maker], tuple[Any, int]]] = {
    "descriptor": lambda make: (Ext(1, b"\0"), make.null()),
    "stream": lambda make: (Ext(2, b"\0"), make.pair()[1]),
    "channel": lambda make: (Ext(3, b"\0"), make.pair()[1]),
    "buffer": lambda make: (buffer(0, 0, 1), make.memfd(b"x")),
}


@pytest.fixture(params=VALUES)
def value(request: pytest.FixtureRequest, make: Maker) -> tuple[Any, list[int]]:
    """Return each of the values that travel as descriptors, and the descriptor."""
    value, fd = VALUES[request.param](make)
    return value, [fd]


@pytest.mark.parametrize(
    "method, code",
    [("add", "rpc.InvalidParams"), ("forbidden", "rpc.PermissionDenied"), ("nothing", "rpc.MethodNotFound")],
)
def test_a_refused_call_lets_go_of_what_came_with_it(
    service: Service, raw: Raw, value: tuple[Any, list[int]], method: str, code: str
) -> None:
    assert raw.ask(0, "add", 1, 2) == [1, 0, None, 3]
    before = service.open_files()

    assert raw.ask(1, method, value[0], fds=value[1])[2][0] == code

    assert raw.ask(2, "add", 1, 2) == [1, 2, None, 3]
    assert service.comes_to_have(before)


def test_an_answer_that_does_not_fit_is_let_go_of(service: Service, raw: Raw, value: tuple[Any, list[int]]) -> None:
    assert raw.ask(0, "add", 1, 2) == [1, 0, None, 3]
    before = service.open_files()
    raw.send(packed(0, 1, "Foreign.code_of_call_back", []))
    assert raw.message() == [0, 0, "Client.greet", ["Python"]]

    raw.send(packed(1, 0, None, value[0]), value[1])

    assert raw.message() == [1, 1, None, "it does not fit"]
    assert raw.ask(2, "add", 1, 2) == [1, 2, None, 3]
    assert service.comes_to_have(before)


def test_an_item_that_does_not_fit_ends_its_stream_and_is_let_go_of(
    make: Maker, service: Service, raw: Raw, value: tuple[Any, list[int]]
) -> None:
    assert raw.ask(0, "add", 1, 2) == [1, 0, None, 3]
    before = service.open_files()
    ours, theirs = make.pair()
    ours.send(packed(0, 1, 2))
    ours.send(packed(0, value[0]), value[1])

    answer = raw.ask(1, "why_numbers_end", Ext(2, b"\0"), fds=[theirs])

    assert answer == [1, 1, None, [3, "rpc.InvalidParams"]]
    assert raw.ask(2, "add", 1, 2) == [1, 2, None, 3]
    assert service.comes_to_have(before)
