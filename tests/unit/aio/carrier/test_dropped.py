"""A transport that is dropped without being closed, and one whose socket is given back."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest
from support.packets import receive
from support.transport import Pair, Recorder, on_transport, queue_one
from support.waiting import PATIENCE, turns_of_the_loop

import seqrpc
from seqrpc.aio.transport import SeqpacketTransport, carrier_of


class Lonely(seqrpc.SeqpacketProtocol):
    """Does not hold its transport."""

    lost = 0

    def connection_lost(self, exc: Exception | None) -> None:
        assert exc is None
        self.lost += 1


def unread(sock: socket.socket, protocol: Lonely) -> SeqpacketTransport:
    """Return a transport that the loop does not hold."""
    transport = SeqpacketTransport(asyncio.get_running_loop(), sock, protocol)
    transport.pause_reading()
    return transport


def drop(held: list[SeqpacketTransport]) -> None:
    held.clear()
    gc.collect()


async def test_one_dropped_on_its_loop_ends(raw: Pair) -> None:
    protocol = Lonely()
    held = [unread(raw[0], protocol)]
    assert repr(carrier_of(held[0])) == repr(held[0])
    with pytest.warns(ResourceWarning, match="unclosed <SeqpacketTransport open "):
        drop(held)
    assert protocol.lost == 0, "it is told in a turn of its own"
    assert await receive(raw[1]) == b""
    assert protocol.lost == 1


async def test_one_dropped_in_another_thread_ends_on_its_loop(raw: Pair) -> None:
    protocol = Lonely()
    held = [unread(raw[0], protocol)]
    with pytest.warns(ResourceWarning, match="unclosed <SeqpacketTransport open "):
        await asyncio.to_thread(drop, held)
    assert await receive(raw[1]) == b""
    assert protocol.lost == 1


@pytest.mark.parametrize("is_closed", [True, False])
def test_one_whose_loop_runs_no_more_closes_its_socket(raw: Pair, is_closed: bool) -> None:
    async def begin() -> SeqpacketTransport:
        return unread(raw[0], Lonely())

    raw[1].settimeout(PATIENCE)
    with asyncio.Runner() as runner:
        held = [runner.run(begin())]
        if is_closed:
            runner.close()
        with pytest.warns(ResourceWarning, match="unclosed <SeqpacketTransport open "):
            drop(held)
        assert raw[1].recv(10) == b""


@pytest.mark.filterwarnings("error")
async def test_one_that_ends_or_has_another_to_tell_of_it_is_dropped_without_a_word(raw: Pair) -> None:
    protocol = Lonely()
    transport = unread(raw[0], protocol)
    carrier = carrier_of(transport)
    assert carrier.is_unclosed
    carrier.tells_unclosed = False
    assert not carrier.is_unclosed
    carrier.tells_unclosed = True
    transport.abort()
    assert not carrier.is_unclosed
    carrier.abandon()  # once more does nothing
    del transport, carrier
    gc.collect()
    await turns_of_the_loop()
    assert protocol.lost == 1


async def test_a_socket_is_given_back_unless_packets_wait_or_the_end_has_begun(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    assert transport.detach() is raw[0]
    assert transport.detach() is None
    raw[0].send(b"ours")
    assert await receive(raw[1]) == b"ours"
    assert recorder.told == ["made"]

    again, recorder = on_transport(raw[0])
    queue_one(again)
    assert again.detach() is None
    assert not again.is_closing()
    await recorder.end()


async def test_water_marks_are_those_of_the_limits_until_others_are_set(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0], limits=seqrpc.Limits(high_water_bytes=500, low_water_bytes=50))
    assert carrier_of(transport).marks == (50, 500)
    transport.set_write_buffer_limits(high=1_000, low=100)
    assert carrier_of(transport).marks == (100, 1_000)
    await recorder.end()


async def test_the_protocol_is_asked_about_data_that_is_too_long(raw: Pair) -> None:
    class Asked(Recorder):
        def packet_too_long(self, data: object) -> None:
            assert isinstance(data, bytes)
            self.tell(f"{len(data)} bytes")

    transport, recorder = on_transport(raw[0], Asked())
    with pytest.raises(ValueError, match="70"):
        transport.send_packet(b"x" * 70_000)
    assert recorder.told == ["made", "70000 bytes"]
    transport.send_packet(b"short")
    assert await receive(raw[1]) == b"short"
    await recorder.end()


async def test_whether_packets_tell_their_sender_may_be_said(raw: Pair) -> None:
    recorder = Recorder()
    SeqpacketTransport(asyncio.get_running_loop(), raw[0], recorder, names_senders=False)
    raw[1].send(b"from whoever made the pair")
    await recorder.until_packets(1)
    assert recorder.senders == [carrier_of(recorder.transport).peer]
    assert recorder.senders != [None]
    await recorder.end()
