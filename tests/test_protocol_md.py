"""docs/protocol.md says what the code does: its tables, and the example that it opens with."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import msgpack
import pytest

import seqrpc
from seqrpc import errors
from seqrpc.errors import RemoteProtocolError, RpcError
from seqrpc.protocol import codec, messages
from seqrpc.protocol.session import Session

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


def accepted(value: object) -> bool:
    """Return whether a session takes a message, rather than to find it malformed."""
    try:
        Session[None]().receive_packet(msgpack.packb(value), [])
    except RemoteProtocolError:
        return False
    return True


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
    examples = {
        "id": 7,
        "method": "A.b",
        "params": [],
        "options": {"deadline": 1, "meta": {"a": "b"}, "new": 1},
        "error": None,
        "result": 1,
        "reason": "why",
    }
    for _kind, name, arrays, _by in table("kind", "name", "array", "sent by"):
        for array in re.findall(r"\[(.*?)\]", arrays):
            first, *parts = array.split(", ")
            message = [int(first), *(examples[part] for part in parts)]

            assert accepted(message), name
            assert not accepted([*message, *(["too", "many"])]), name
            assert not accepted(message[:-1]) or name in ("REQUEST", "NOTIFY"), name
    assert accepted([6, "from later"])
    assert not accepted([messages.SPILLED, 100])


def test_the_reserved_codes() -> None:
    known = {
        cls.code for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, RpcError) and cls.code
    }

    assert {code for code, _means in table("code", "means")} == known
    assert all(code.startswith("rpc.") for code in known)


def test_the_extension_types() -> None:
    types = {name: (number(kind), data) for kind, name, data in table("extension type", "name", "data")}
    taken = {kind for kind, data in types.values() if "reserved" not in data}

    assert types["descriptor"] == (codec.EXT_DESCRIPTOR, "1 byte: the index")
    assert taken == {-1, codec.EXT_DESCRIPTOR}
    for kind in {*range(128)} - taken:
        assert not accepted([1, 7, None, msgpack.ExtType(kind, b"\0")])
    assert accepted([1, 7, None, msgpack.Timestamp(1)])


def test_the_options() -> None:
    assert [name for name, _value in table("option", "value")] == list(messages.Options.__struct_fields__)


def test_the_limits() -> None:
    limits = {name: number(value) for name, value in table("limit", "value")}

    assert limits == {
        "bytes in a packet": seqrpc.MAX_PACKET,
        "descriptors in a packet": seqrpc.MAX_DESCRIPTORS,
        "depth": seqrpc.Limits().max_depth,
        "largest id": messages.MAX_CALL_ID,
        "unanswered calls of one connection, each way": seqrpc.Limits().max_calls_in_flight,
    }


def test_the_descriptors_bytes() -> None:
    with seqrpc.OwnedFd.dup(0) as one, seqrpc.OwnedFd.dup(0) as other:
        data, lenders = codec.Codec().encode(([one, other],))

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
