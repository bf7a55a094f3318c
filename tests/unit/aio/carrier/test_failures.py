"""Protocols that fail."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from support.descriptors import Lender, owned
from support.packets import fill, raw_pair, receive, send_with
from support.scarcity import table_full
from support.transport import Pair, Recorder, on_transport, oversized, queue_one
from support.waiting import turns_of_the_loop

import seqrpc
from seqrpc import OwnedFd, SeqpacketTransport


class Failing(Recorder):
    """Raises in one of its methods."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def fail(self, where: str) -> None:
        if where == self.where:
            raise LookupError(where)

    def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: seqrpc.Credentials | None) -> None:
        self.fail("packet_received")

    def packet_truncated(self, size: int) -> bool:
        self.fail("packet_truncated")
        return False

    def descriptors_lost(self, data: bytes, credentials: seqrpc.Credentials | None) -> bool:
        self.fail("descriptors_lost")
        return False

    def eof_received(self) -> None:
        self.fail("eof_received")

    def pause_writing(self) -> None:
        self.fail("pause_writing")

    def resume_writing(self) -> None:
        self.fail("resume_writing")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.fail("connection_lost")


async def _provoke(where: str, transport: SeqpacketTransport, peer: socket.socket) -> None:
    """Make the transport call the method that fails."""
    with owned(2) as fds:
        if where in ("packet_received", "descriptors_lost"):
            send_with(peer, b"x", [fd.fileno() for fd in fds])
        elif where == "packet_truncated":
            oversized(peer)
        elif where in ("pause_writing", "resume_writing"):
            transport.set_write_buffer_limits(high=0)
            fill(transport.get_extra_info("socket"))
            transport.send_packet(b"x")
            if where == "resume_writing":
                while transport.get_write_buffer_packets():
                    await receive(peer)
                    await turns_of_the_loop(2)
        else:
            peer.close()
        if where == "descriptors_lost":
            with table_full():
                await turns_of_the_loop()


@pytest.mark.parametrize(
    "where",
    [
        "packet_received",
        "packet_truncated",
        "descriptors_lost",
        "eof_received",
        "pause_writing",
        "resume_writing",
        "connection_lost",
    ],
)
async def test_an_exception_of_a_protocol_costs_its_connection_only(
    raw: Pair, where: str, loop_errors: list[dict[str, Any]]
) -> None:
    here, there = raw_pair()
    _transport, calm = on_transport(here)
    transport, recorder = on_transport(raw[0], Failing(where))
    await _provoke(where, transport, raw[1])
    await recorder.until_told("lost")
    await turns_of_the_loop()

    assert [str(context["exception"]) for context in loop_errors] == [where]
    assert raw[0].fileno() == -1
    if where != "connection_lost":
        assert str(recorder.reason) == where
        assert loop_errors[0]["protocol"] is recorder
        assert loop_errors[0]["transport"] is transport
    loop_errors.clear()

    there.send(b"x")
    await calm.until_packets(1)
    await calm.end()
    there.close()


async def test_a_protocol_that_fails_as_it_is_made_leaves_nothing_behind(raw: Pair, pipe: tuple[int, int]) -> None:
    class Unmade(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            queue_one(self.transport)
            self.transport.send_packet(b"with", [Lender(pipe[0])])
            raise LookupError

    recorder = Unmade()
    raw[1].send(b"x")
    with pytest.raises(LookupError):
        on_transport(raw[0], recorder)
    await turns_of_the_loop()
    assert recorder.packets == []
    assert recorder.told == ["made"]
    assert recorder.transport.get_write_buffer_packets() == 0
    raw[0].close()
