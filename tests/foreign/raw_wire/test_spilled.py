"""Spilled messages, byte by byte."""

from __future__ import annotations

import os
from typing import Any

import pytest
from support.raw_wire import MAX_MESSAGE, Case, Ext, Maker, Raw, Service, content_of, over_the_limit, packed, spilled


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
