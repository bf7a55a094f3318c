"""What a protocol does that overrides nothing."""

from __future__ import annotations

import asyncio
import errno

import pytest
from support.descriptors import owned
from support.packets import receive, send_with
from support.scarcity import table_full
from support.transport import Pair, make_room_for_little, on_transport, oversized

from seqrpc import RemoteProtocolError, SeqpacketProtocol, SeqpacketTransport


async def test_an_oversized_packet_ends_the_connection(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    oversized(raw[1])
    raw[1].send(b"x")
    await recorder.until_told("lost")
    assert isinstance(recorder.reason, RemoteProtocolError)
    assert str(recorder.reason) == "a packet has at most 65536 bytes, this one 70000"
    assert recorder.packets == []


async def test_lost_descriptors_end_the_connection(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    with owned(3) as fds:
        send_with(raw[1], b"x", [fd.fileno() for fd in fds])
        with table_full():
            await recorder.until_told("lost")
    assert isinstance(recorder.reason, OSError)
    assert recorder.reason.errno == errno.EMFILE
    assert recorder.packets == []


async def test_the_protocol_that_overrides_nothing_closes_descriptors(raw: Pair, pipe: tuple[int, int]) -> None:
    class Plain(SeqpacketProtocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    SeqpacketTransport(asyncio.get_running_loop(), raw[0], Plain())
    send_with(raw[1], b"x", pipe)
    raw[1].close()
    assert await lost is None  # the watch on descriptors sees whether they were closed


async def test_what_the_kernel_finds_too_long_is_refused_if_the_protocol_has_no_other_way(raw: Pair) -> None:
    make_room_for_little(raw[0])
    transport, recorder = on_transport(raw[0])
    with owned(1) as fds:
        for lent in ([], fds):
            with pytest.raises(OSError, match="Message too long"):
                transport.send_packet(b"y" * 60_000, lent)
    transport.send_packet(b"next")
    assert await receive(raw[1]) == b"next"
    await recorder.end()
