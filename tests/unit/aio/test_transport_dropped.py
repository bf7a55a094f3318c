"""A transport that is dropped: it is closed then, unless it is read, or was never made."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest
from support.packets import receive
from support.transport import Pair

import seqrpc
from seqrpc.aio.transport import SeqpacketTransport, carrier_of


def drop(held: list[SeqpacketTransport]) -> None:
    held.clear()
    gc.collect()


async def test_one_that_is_not_read_is_closed_with_a_warning(raw: Pair) -> None:
    held = [SeqpacketTransport(asyncio.get_running_loop(), raw[0], seqrpc.SeqpacketProtocol())]
    known = weakref.ref(held[0])
    held[0].pause_reading()
    assert not held[0].is_reading()
    with pytest.warns(ResourceWarning, match="unclosed <SeqpacketTransport open "):
        drop(held)
    assert await receive(raw[1]) == b""
    assert known() is None


@pytest.mark.filterwarnings("error")
async def test_one_that_is_read_again_is_held_by_its_loop(raw: Pair) -> None:
    transport = SeqpacketTransport(asyncio.get_running_loop(), raw[0], seqrpc.SeqpacketProtocol())
    transport.pause_reading()
    transport.resume_reading()
    assert transport.is_reading()
    carrier = carrier_of(transport)
    known = weakref.ref(transport)
    del transport
    gc.collect()
    held = known()
    assert held is not None
    assert carrier_of(held) is carrier
    held.close()
    assert await receive(raw[1]) == b""


@pytest.mark.filterwarnings("error")
async def test_one_that_could_not_be_made_leaves_its_socket_alone() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as unconnected:
        with pytest.raises(OSError, match="not connected"):
            SeqpacketTransport(asyncio.get_running_loop(), unconnected, seqrpc.SeqpacketProtocol())
        gc.collect()
        assert unconnected.fileno() >= 0
