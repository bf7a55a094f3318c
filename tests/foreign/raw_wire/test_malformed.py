"""What ends a connection, and only that, and no descriptor."""

from __future__ import annotations

import fcntl
import os
import socket

import pytest
from support.raw_wire import (
    MAX_MESSAGE,
    PAGE,
    SEALS,
    Case,
    Ext,
    Maker,
    Raw,
    Service,
    buffer,
    echo,
    nested,
    over_the_limit,
    packed,
    spilled,
)


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
