"""docs/protocol.md says what the code does: its tables, and the example that it opens with."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.admission import new_session

import seqrpc
from seqrpc import errors
from seqrpc.errors import RemoteProtocolError, RpcError
from seqrpc.kernel import memfd
from seqrpc.protocol import items, messages, values
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.items import ItemReader

PAGE = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()


def table(*headings: str) -> list[list[str]]:
    """Return the rows of the table with these headings."""
    lines = PAGE.splitlines()
    start = lines.index(f"| {' | '.join(headings)} |") + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


def number(text: str) -> int:
    return int(text.replace(",", ""))


def receive_in_a_session(data: bytes, fds: list[seqrpc.OwnedFd]) -> None:
    event = new_session().receive_packet(data, fds)
    for fd in getattr(event, "fds", ()):
        fd.close()


def receive_in_a_stream(data: bytes, fds: list[seqrpc.OwnedFd]) -> None:
    event = ItemReader(Decoder(), 100_000).receive_packet(data, fds)
    for fd in [] if event is None else event.fds:
        fd.close()


def accepted(
    value: object,
    fds: Sequence[seqrpc.OwnedFd] = (),
    receive: Callable[[bytes, list[seqrpc.OwnedFd]], None] = receive_in_a_session,
) -> bool:
    """Return whether a message is taken, rather than found malformed. It gets duplicates of ``fds``."""
    try:
        receive(msgpack.packb(value), [seqrpc.OwnedFd.dup(fd) for fd in fds])
    except RemoteProtocolError:
        return False
    return True


@contextlib.contextmanager
def spilled(message: object) -> Iterator[list[seqrpc.OwnedFd]]:
    """Return the descriptors of a spilled message."""
    with memfd.sealed("test", msgpack.packb(message)) as file:
        yield [file]


def test_the_kinds() -> None:
    kinds = {name: number(kind) for kind, name, *_ in table("kind", "name", "array", "sent by")}

    assert kinds == {
        name: value
        for name, value in vars(messages).items()
        if name.isupper() and type(value) is int and not name.startswith(("LAST", "MAX"))
    }
    assert max(kinds.values()) == messages.LAST_KIND


def test_the_parts_of_messages() -> None:
    for kind, name, array, _by in table("kind", "name", "array", "sent by"):
        parts = getattr(messages, f"{name}_NAMES", None)
        longest = array.split("`")[-1].strip("[]").split(", ")
        if parts is not None:
            assert [str(kind), *parts[1:]] == longest, name


def test_messages_of_every_kind_are_taken_as_they_are_written() -> None:
    answer = [messages.RESPONSE, 7, None, 1]
    examples = {
        "id": 7,
        "method": "A.b",
        "params": [],
        "options": {"deadline": 1, "meta": {"a": "b"}, "new": 1},
        "error": None,
        "result": 1,
        "reason": "why",
        "length": len(msgpack.packb(answer)),
    }
    for _kind, name, arrays, _by in table("kind", "name", "array", "sent by"):
        for array in re.findall(r"\[(.*?)\]", arrays):
            first, *parts = array.split(", ")
            message = [int(first), *(examples[part] for part in parts)]
            with spilled(answer) as file:
                fds = file if name == "SPILLED" else []
                assert accepted(message, fds), name
                assert not accepted([*message, *(["too", "many"])], fds), name
                assert not accepted(message[:-1], fds) or name in ("REQUEST", "NOTIFY", "SPILLED"), name
    assert accepted([6, "from later"])


def test_a_spilled_message_is_one_of_another_kind_that_comes_sealed_and_whole() -> None:
    message = [messages.NOTIFY, "A.b", []]
    length = len(msgpack.packb(message))
    with spilled(message) as fds, spilled([messages.SPILLED, length]) as twice, seqrpc.OwnedFd.dup(0) as other:
        assert accepted([messages.SPILLED, length], fds)
        assert not accepted([messages.SPILLED, length - 1], fds)
        assert not accepted([messages.SPILLED, length + 1], fds)
        assert not accepted([messages.SPILLED, length])
        assert not accepted([messages.SPILLED, length], [other])
        assert not accepted([messages.SPILLED, length], [other, *fds])
        assert not accepted([messages.SPILLED, length], [*fds, other]), "the message refers to no descriptor"
        assert not accepted([messages.SPILLED, os.fstat(twice[0].fileno()).st_size], twice)
    with memfd.create("test") as unsealed:
        os.write(unsealed.fileno(), msgpack.packb(message))
        assert not accepted([messages.SPILLED, length], [unsealed])


def test_a_spilled_messages_own_descriptors_are_counted_from_the_one_after_its_memory_file() -> None:
    message = [messages.NOTIFY, "A.b", [msgpack.ExtType(1, b"\0")]]
    with spilled(message) as fds, seqrpc.OwnedFd.dup(0) as other:
        assert accepted([messages.SPILLED, len(msgpack.packb(message))], [*fds, other])
        assert not accepted([messages.SPILLED, len(msgpack.packb(message))], fds)


def test_the_seals() -> None:
    found = re.search(r"`fcntl\(fd, F_ADD_SEALS, (.*?)\)`", PAGE)
    assert found is not None

    named = [getattr(fcntl, name) for name in found[1].split(" | ")]

    assert sum(named) == memfd.SEALS == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def test_what_seqrpc_spills_has_the_id_of_a_call_or_an_answer() -> None:
    session = new_session()
    for message, call_id in (
        ([messages.REQUEST, 300, "A.b", []], [300]),
        ([messages.RESPONSE, 300, None, "x"], [300]),
        ([messages.NOTIFY, "A.b", []], []),
    ):
        data = msgpack.packb(message)
        assert session.spill(data) == msgpack.packb([messages.SPILLED, len(data), *call_id])


def test_the_kinds_of_a_streams_packets() -> None:
    kinds = {name: number(kind) for kind, name, _packet in table("kind", "name", "packet")}

    assert kinds == {"ITEMS": items.ITEMS, "END": items.END, "SPILLED": messages.SPILLED}


def test_packets_of_a_stream_are_taken_as_they_are_written() -> None:
    examples: dict[str, Any] = {"item": "one", "error": ["a.B", "why", {"more": 1}]}
    for _kind, name, packets in table("kind", "name", "packet"):
        for array in re.findall(r"\[(.*?)\]", packets):
            first, *parts = array.split(", ")
            with spilled([items.ITEMS, 1, 2]) as file:
                length = os.fstat(file[0].fileno()).st_size
                fds = file if name == "SPILLED" else []
                packet = [int(first), *({"length": length, **examples}[part] for part in parts)]

                assert accepted(packet, fds, receive_in_a_stream), name
                assert not accepted(packet[:1], fds, receive_in_a_stream), name
    assert accepted([items.END, None], (), receive_in_a_stream)
    assert not accepted([items.END, None, None], (), receive_in_a_stream)
    assert not accepted([items.END, "why"], (), receive_in_a_stream)
    assert accepted([6, "from later"], (), receive_in_a_stream)


def test_the_reserved_codes() -> None:
    known = {
        cls.code for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, RpcError) and cls.code
    }

    assert {code for code, _means in table("code", "means")} == known
    assert all(code.startswith("rpc.") for code in known)


EXAMPLES_OF_DATA = {
    "1 byte: the index": b"\0",
    "17 bytes: the index, then offset and length, 8 bytes each, unsigned and big-endian": bytes(16) + b"\x01",
}
"""With what is written of the data of an extension type: some of it, for the first descriptor."""


@contextlib.contextmanager
def described(name: str) -> Iterator[seqrpc.OwnedFd]:
    """Return what an extension type refers to."""
    if name == "buffer":
        with memfd.sealed("test", b"content") as fd:
            yield fd
        return
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other, seqrpc.OwnedFd(one.detach()) as fd:
        yield fd


def test_the_extension_types() -> None:
    rows = {name: (number(kind), data) for kind, name, data, _is in table("extension type", "name", "data", "is")}
    types = {name: kind for name, (kind, _data) in rows.items() if name != "timestamp"}

    assert {f"EXT_{name.upper()}": kind for name, kind in types.items()} == {
        name: value for name, value in vars(values).items() if name.startswith("EXT_")
    }
    for name, (kind, written) in rows.items():
        if name == "timestamp":
            assert kind == -1
            assert accepted([0, 7, "m", [msgpack.Timestamp(1)]])
            continue
        data = EXAMPLES_OF_DATA[written]
        with described(name) as fd:
            assert accepted([0, 7, "m", [msgpack.ExtType(kind, data)]], [fd]), name
            assert not accepted([0, 7, "m", [msgpack.ExtType(kind, b"\x01" + data[1:])]], [fd]), name
            assert not accepted([0, 7, "m", [msgpack.ExtType(kind, data + b"\0")]], [fd]), name
            assert not accepted([0, 7, "m", [msgpack.ExtType(kind, data)]]), name
    for kind in {*range(128)} - {*types.values()}:
        assert not accepted([0, 7, "m", [msgpack.ExtType(kind, b"\0")]])


class Lasting:
    """What travels as a stream or as a channel."""

    def __init__(self, ext_type: int, fd: seqrpc.OwnedFd) -> None:
        self.bare = values.BareValue(ext_type, fd)


class LastingValues(values.BareValues):
    def departure_of(self, value: Any) -> values.Departure | None:
        return value.bare if isinstance(value, Lasting) else None


def test_the_bytes_of_values_that_travel_as_descriptors() -> None:
    written = {value.split(",")[0].removeprefix("a "): bytes.fromhex(code) for value, code in table("value", "bytes")}
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other, seqrpc.OwnedFd.dup(one) as fd, seqrpc.Buffer.allocate(4096) as buffer:
        for name, value in (
            ("descriptor", fd),
            ("stream", Lasting(values.EXT_STREAM, fd)),
            ("channel", Lasting(values.EXT_CHANNEL, fd)),
            ("buffer", buffer),
        ):
            data, lenders = Encoder(living=LastingValues()).encode(value)

            assert data == written.pop(name), name
            assert len(lenders) == 1
    assert written == {}


def test_the_options() -> None:
    assert [name for name, _value in table("option", "value")] == list(messages.Options.__struct_fields__)


def test_the_limits() -> None:
    limits = {name: number(value) for name, value in table("limit", "value")}

    assert limits == {
        "bytes in a packet": seqrpc.MAX_PACKET,
        "descriptors in a packet": seqrpc.MAX_DESCRIPTORS,
        "depth": seqrpc.Limits().max_depth,
        "largest id": messages.MAX_CALL_ID,
    }


def test_the_settings() -> None:
    settings = {name: number(value) for name, value, _beyond in table("setting", "default", "beyond it")}

    assert settings == {name: getattr(seqrpc.Limits(), name) for name in settings}


def test_links_within_the_page_lead_to_headings() -> None:
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in PAGE.splitlines() if line.startswith("#")}

    assert set(re.findall(r"\]\(#(.*?)\)", PAGE)) <= headings


def test_the_descriptors_bytes() -> None:
    with seqrpc.OwnedFd.dup(0) as one, seqrpc.OwnedFd.dup(0) as other:
        data, lenders = Encoder().encode(([one, other],))

    assert data == bytes.fromhex("91 92 d40100 d40101")
    assert lenders == [one, other]


@pytest.mark.skipif(not (shutil.which("socat") and shutil.which("xxd")), reason="socat or xxd is not installed")
async def test_the_example_answers_what_is_printed(socket_path: Path) -> None:
    found = re.search(r"^```sh\n(.*)\n```$", PAGE, re.MULTILINE)
    promised = re.search(r"It prints `(\w+)`", PAGE)
    assert found is not None
    assert promised is not None
    command = found[1].replace("/run/example.sock", str(socket_path))

    async with seqrpc.serve([], socket_path):
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", command), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
        printed, _nothing = await process.communicate()

    assert printed.decode().strip() == promised[1]


def test_packets_on_the_end_of_a_pair_that_is_given_away_may_tell_their_sender() -> None:
    assert "The end that is given away may have `SO_PASSCRED` set, too" in PAGE.replace("\n", " ")
    ours, theirs = seqrpc.socket_pair()
    with ours, theirs, open("/dev/null", "rb") as file:
        socket.send_fds(ours, [b"\xc0"], [file.fileno()])
        _data, ancillary, flags, _address = theirs.recvmsg(10, socket.CMSG_SPACE(4) + socket.CMSG_SPACE(12))
        received = {kind: content for _level, kind, content in ancillary}
        os.close(int.from_bytes(received[socket.SCM_RIGHTS], "little"))
        assert int.from_bytes(received[socket.SCM_CREDENTIALS][:4], "little") == os.getpid()
        assert not flags & socket.MSG_CTRUNC
