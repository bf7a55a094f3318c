"""Sockets that take no descriptors are read the quick way."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support.descriptors import refuse_descriptors
from support.transport import Pair, Tolerant, on_transport

from seqrpc.kernel import ancillary


async def accepted(path: Path, *, takes_descriptors: bool) -> Pair:
    """Return what a listener accepts, and the client's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        if not takes_descriptors:
            refuse_descriptors(listener)
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(os.fspath(path))
        client.setblocking(False)
        return listener.accept()[0], client


async def test_a_socket_is_read_the_quick_way_if_it_neither_takes_descriptors_nor_asks_for_senders(
    socket_path: Path, raw: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick: list[int] = []
    make = ancillary.plain_receiver

    def plain_receiver(sock: socket.socket, buffer: memoryview) -> Callable[[], int]:
        quick.append(sock.fileno())
        return make(sock, buffer)

    monkeypatch.setattr(ancillary, "plain_receiver", plain_receiver)
    pairs = [await accepted(Path(f"{socket_path}{takes}"), takes_descriptors=takes) for takes in (False, True)]
    refuse_descriptors(raw[0])
    ways = []
    for sock, client in (*pairs, raw):  # the last, a pair, asks for senders
        _transport, recorder = on_transport(sock)
        client.send(b"x")
        await recorder.until_packets(1)
        assert recorder.packets == [b"x"]
        assert recorder.senders[0] is not None
        assert recorder.senders[0].pid == os.getpid()
        ways.append(sock.fileno() in quick)
        quick.clear()
        await recorder.end()
        client.close()
    assert ways == [True, False, False]


@pytest.mark.parametrize("takes_descriptors", [False, True])
async def test_what_is_no_packet_is_told_whether_descriptors_are_taken_or_not(
    takes_descriptors: bool, socket_path: Path
) -> None:
    async def connected(name: str) -> tuple[Tolerant, socket.socket]:
        path = Path(f"{socket_path}{name}")
        sock, client = await accepted(path, takes_descriptors=takes_descriptors)
        on_transport(sock, tolerant := Tolerant())
        return tolerant, client

    recorder, client = await connected("a")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
    for size in (1, 65_536, 65_537, 70_000, 2):
        client.send(b"x" * size)
    client.close()
    await recorder.until_told("lost")
    assert [len(packet) for packet in recorder.packets] == [1, 65_536, 2]
    assert recorder.cut == [65_537, 70_000]
    assert recorder.told == ["made", "eof", "lost"]
    assert recorder.reason is None

    recorder, client = await connected("b")
    client.send(b"")
    client.send(b"after the end")
    await recorder.until_told("lost")
    assert recorder.told == ["made", "eof", "lost"]
    assert recorder.packets == []
    client.close()
