"""Buffers, byte by byte."""

from __future__ import annotations

import os

from support.raw_wire import PAGE, SEALS, Maker, Raw, buffer, content_of

MAX_BUFFER = 1 << 24


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
