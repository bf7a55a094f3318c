"""Channels, byte by byte."""

from __future__ import annotations

import os
import socket

import pytest
from support.raw_wire import Ext, Maker, Raw, Service, content_of, packed


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
