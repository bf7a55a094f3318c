"""How much is read, and when."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from support.packets import fill, raw_pair
from support.transport import Pair, on_transport
from support.waiting import loop_works, turns_of_the_loop

from seqrpc import Limits
from seqrpc.aio import shares
from seqrpc.aio.shares import share_of
from seqrpc.aio.transport import carrier_of


@pytest.fixture
def long_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no turn end for its time, which on a busy machine may be over after one packet."""
    monkeypatch.setattr(shares, "TURN_SECONDS", 60.0)
    monkeypatch.setattr(shares, "_ALONE_SECONDS", 60.0)
    monkeypatch.setattr(shares, "_AT_ONCE_SECONDS", 60.0)


async def test_nothing_is_read_after_pause_reading(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    assert transport.is_reading()
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    raw[1].send(b"a")
    await turns_of_the_loop()
    assert recorder.packets == []
    assert raw[0].recv(10, socket.MSG_PEEK) == b"a"

    transport.resume_reading()
    transport.resume_reading()
    await recorder.until_packets(1)
    assert recorder.packets == [b"a"]
    await recorder.end()
    transport.resume_reading()
    assert not transport.is_reading(), "a closed transport does not read"


async def test_nothing_is_read_after_pause_reading_inside_a_burst(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    recorder.on_packet = lambda data: transport.pause_reading() if data == b"3" else None
    for number in range(10):
        raw[1].send(b"%d" % number)
    await recorder.until_packets(4)
    await turns_of_the_loop()
    assert recorder.packets == [b"0", b"1", b"2", b"3"]
    transport.resume_reading()
    await recorder.until_packets(10)
    assert recorder.packets == [b"%d" % number for number in range(10)]
    await recorder.end()


@pytest.mark.parametrize("poll", [0, 1], ids=["sleeping", "polling"])
async def test_what_is_on_the_loop_goes_first_where_a_packet_asks_for_it(raw: Pair, poll: float) -> None:
    transport, recorder = on_transport(raw[0], limits=Limits(busy_poll_timeout=poll))
    intake = carrier_of(transport).intake
    seen_before: list[int] = []

    def ask(data: bytes) -> None:
        if data == b"2":
            asyncio.get_running_loop().call_soon(lambda: seen_before.append(len(recorder.packets)))
            intake.read_later()
            intake.read_later()

    recorder.on_packet = ask
    for number in range(5):
        raw[1].send(b"%d" % number)
    await recorder.until_packets(5)
    assert recorder.packets == [b"%d" % number for number in range(5)]
    assert seen_before == [3]
    await recorder.end()


async def test_what_is_put_on_the_loop_while_a_connection_rests_goes_first_too(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    intake, loop = carrier_of(transport).intake, asyncio.get_running_loop()
    seen_before: list[int] = []

    def again() -> None:
        intake.read_later()
        loop.call_soon(lambda: seen_before.append(len(recorder.packets)))

    raw[1].send(b"a")
    loop.call_soon(again)
    intake.read_later()
    loop.call_soon(again)
    await recorder.until_packets(1)
    assert seen_before == [0, 0]
    await recorder.end()


async def test_what_was_paused_rests_all_the_same(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    transport.pause_reading()
    raw[1].send(b"a")
    seen_before: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: seen_before.append(len(recorder.packets)))
    carrier_of(transport).intake.read_later()
    transport.resume_reading()
    await recorder.until_packets(1)
    assert seen_before == [0]
    await recorder.end()


async def test_reading_may_be_paused_and_resumed_while_others_on_the_loop_go_first(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0])
    intake = carrier_of(transport).intake
    seen_before: list[int] = []
    raw[1].send(b"a")
    asyncio.get_running_loop().call_soon(lambda: seen_before.append(len(recorder.packets)))
    intake.read_later()
    transport.pause_reading()
    transport.resume_reading()
    await recorder.until_packets(1)
    assert seen_before == [0]

    intake.read_later()
    transport.pause_reading()
    raw[1].send(b"b")
    await turns_of_the_loop()
    assert recorder.packets == [b"a"], "it is paused, and not only rests"
    transport.resume_reading()
    await recorder.until_packets(2)

    intake.read_later()
    await recorder.end()


async def test_a_loop_is_kept_awake_after_a_packet_as_long_as_it_is_told_to(raw: Pair) -> None:
    transport, recorder = on_transport(raw[0], limits=Limits(busy_poll_timeout=1))
    assert not await loop_works(), "nothing has come yet"
    for number in (1, 2):
        raw[1].send(b"x")
        await recorder.until_packets(number)
        assert await loop_works(), "it sleeps too early"
    transport.pause_reading()
    await asyncio.sleep(0)
    assert not await loop_works(), "nobody reads any more"
    await recorder.end()


async def test_a_chatty_peer_does_not_starve_another_connection(raw: Pair) -> None:
    here, there = raw_pair()
    _chatty, busy = on_transport(raw[0], limits=Limits(max_packets_per_wakeup=4))
    _other, calm = on_transport(here)
    seen_before: list[int] = []
    calm.on_packet = lambda _data: seen_before.append(len(busy.packets))
    sent = fill(raw[1], b"x")
    there.send(b"x")
    await calm.until_packets(1)
    assert seen_before[0] <= 4 < sent
    await busy.until_packets(sent)
    await busy.end()
    await calm.end()
    there.close()


@pytest.mark.parametrize("size, most", [(65_536, 1), (30_000, 2), (500, 64)])
@pytest.mark.usefixtures("long_turns")
async def test_large_packets_are_received_in_smaller_bursts(raw: Pair, size: int, most: int) -> None:
    raw[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    _transport, recorder = on_transport(raw[0])
    bursts = [0]

    def count(_data: bytes) -> None:
        if bursts[-1] == 0:
            asyncio.get_running_loop().call_soon(bursts.append, 0)  # runs once this wake-up is over
        bursts[-1] += 1

    recorder.on_packet = count
    sent = fill(raw[1], b"x" * size)
    assert sent > most
    await recorder.until_packets(sent)
    assert max(bursts) <= most
    assert bursts[0] == most
    await recorder.end()


async def test_a_wakeup_ends_after_some_milliseconds_too(raw: Pair) -> None:
    here, there = raw_pair()
    _slow, busy = on_transport(raw[0])
    _other, calm = on_transport(here)
    seen_before: list[int] = []
    busy.on_packet = lambda _data: time.sleep(0.02)  # takes its time, as a policy may
    calm.on_packet = lambda _data: seen_before.append(len(busy.packets))
    for _ in range(128):
        raw[1].send(b"x")
    there.send(b"x")
    await calm.until_packets(1)
    assert seen_before[0] <= 2, "one wake-up of the other, or its first and one more"
    busy.on_packet = lambda _data: None
    await busy.until_packets(128)
    await busy.end()
    await calm.end()
    there.close()


async def test_all_of_one_user_that_read_in_one_turn_of_the_loop_share_its_time(raw: Pair) -> None:
    somebody_else = share_of(2_001, asyncio.get_running_loop())
    here, there = raw_pair()
    _one, first = on_transport(raw[0])
    _two, second = on_transport(here)
    loop = asyncio.get_running_loop()
    slow_in_this_turn: list[bool] = []
    both = 0

    def take_long(_data: bytes) -> None:
        slow_in_this_turn.append(True)
        loop.call_soon(slow_in_this_turn.clear)
        time.sleep(0.006)

    def look(_data: bytes) -> None:
        nonlocal both
        time.sleep(0.000_2)
        both += bool(slow_in_this_turn)

    first.on_packet, second.on_packet = take_long, look
    for _ in range(30):
        raw[1].send(b"x")
        there.send(b"x")
    await first.until_packets(30)
    await second.until_packets(30)
    await first.end()
    await second.end()
    there.close()
    assert somebody_else is share_of(2_001, asyncio.get_running_loop())
    assert both <= 5, "those whose turn it was come before the slow one"


async def test_who_is_left_out_of_a_turn_and_reset_is_told_so(raw: Pair) -> None:
    """libuv calls once for a socket with an error, and watches it no more."""
    somebody_else = share_of(2_001, asyncio.get_running_loop())
    transport, recorder = on_transport(raw[0])
    share = carrier_of(transport).intake._share
    loop = asyncio.get_running_loop()
    share.charge(60.0, loop)
    transport.send_packet(b"unread")
    raw[1].close()
    for _ in range(20):
        share.charge(60.0, loop)
        await asyncio.sleep(0)
    assert recorder.told == ["made"]
    await recorder.until_told("lost")
    assert somebody_else is share_of(2_001, asyncio.get_running_loop())


async def test_who_is_paused_while_it_is_left_out_of_a_turn_is_not_read(raw: Pair) -> None:
    somebody_else = share_of(2_001, asyncio.get_running_loop())
    transport, recorder = on_transport(raw[0])
    share = carrier_of(transport).intake._share
    loop = asyncio.get_running_loop()
    raw[1].send(b"a")
    for _ in range(5):
        share.charge(60.0, loop)
        await asyncio.sleep(0)
    transport.pause_reading()
    await turns_of_the_loop()
    assert recorder.packets == []
    transport.resume_reading()
    await recorder.until_packets(1)
    await recorder.end()
    assert somebody_else is share_of(2_001, asyncio.get_running_loop())


@pytest.mark.usefixtures("long_turns")
async def test_a_wakeup_of_quick_packets_takes_many(raw: Pair) -> None:
    _transport, recorder = on_transport(raw[0])
    bursts = [0]

    def count(_data: bytes) -> None:
        if bursts[-1] == 0:
            asyncio.get_running_loop().call_soon(bursts.append, 0)
        bursts[-1] += 1

    recorder.on_packet = count
    for _ in range(256):
        raw[1].send(b"x")
    await recorder.until_packets(256)
    assert max(bursts) == 64
    await recorder.end()
