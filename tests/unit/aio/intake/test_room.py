"""Where there is no room for more descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any

import pytest
from support.lingering import hidden, lingering
from support.packets import raw_pair, send_with
from support.scarcity import no_room, short_table, stalled
from support.transport import Pair, Recorder, Tolerant, as_root, gate_of, on_transport
from support.waiting import PATIENCE, comes_true, turns_of_the_loop

from seqrpc import ConnectionLost, OwnedFd
from seqrpc.aio import gate
from seqrpc.aio.transport import carrier_of
from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import close_all
from seqrpc.limits import MAX_UNCLOSED_OF_ONE


async def test_packets_with_descriptors_wait_while_the_sender_s_are_being_closed(
    raw: Pair, pipe: tuple[int, int]
) -> None:
    _transport, recorder = on_transport(raw[0])
    here, there = raw_pair()
    _other, friend = on_transport(here)
    with no_room(os.getuid()) as lifted:
        raw[1].send(b"plain")
        raw[1].send(b"plain")
        send_with(raw[1], b"with", pipe)
        raw[1].send(b"after it")
        await recorder.until_packets(2)
        there.send(b"x")
        await friend.until_packets(1)
        await turns_of_the_loop(50)
        assert recorder.packets == [b"plain", b"plain"]
        lifted.set()
        await recorder.until_packets(4)
    assert recorder.packets == [b"plain", b"plain", b"with", b"after it"]
    assert len(recorder.fds[2]) == 2
    await recorder.end()
    await friend.end()
    there.close()


async def test_descriptors_of_many_packets_are_not_taken_in_at_once(raw: Pair) -> None:
    class Closing(Recorder):
        most = 0

        def packet_received(self, data: bytes, fds: list[OwnedFd], credentials: Credentials | None) -> None:
            close_all(fds)
            self.most = max(self.most, len(CLOSER._inbox) + CLOSER._unclosed())
            super().packet_received(data, [], credentials)

    recorder = Closing()
    on_transport(raw[0], recorder)
    with socket.socket() as sock:
        for _ in range(40):  # all of them at once would be 10,000
            send_with(raw[1], b"x", [sock.fileno()] * 253)
    await recorder.until_packets(40)
    assert recorder.most <= 2 * MAX_UNCLOSED_OF_ONE + 253
    await recorder.end()


async def test_a_reset_comes_through_though_it_is_asked_first_whether_there_is_room(raw: Pair) -> None:
    """The kernel tells of it once, whoever looks; uvloop stops watching then."""
    transport, recorder = on_transport(raw[0])
    transport.send_packet(b"nobody reads this")
    with short_table():
        for number in range(5):
            raw[1].send(b"%d" % number)
        raw[1].close()
        await recorder.until_told("lost")
    assert recorder.packets == [b"0", b"1", b"2", b"3", b"4"]
    assert isinstance(recorder.reason, ConnectionResetError)


@pytest.mark.parametrize("how", ["closed", "paused", "gone"])
async def test_a_connection_may_end_while_its_packets_wait_for_room(raw: Pair, pipe: tuple[int, int], how: str) -> None:
    transport, recorder = on_transport(raw[0])
    with no_room(os.getuid()) as lifted:
        raw[1].send(b"plain")
        send_with(raw[1], b"with", pipe)
        await recorder.until_packets(1)
        await turns_of_the_loop()
        if how == "closed":
            transport.close()
            await recorder.until_told("lost")
            assert CLOSER._hopeful == {}
        elif how == "paused":
            transport.pause_reading()
            transport.resume_reading()
            transport.pause_reading()
        else:
            raw[1].close()
            await turns_of_the_loop()
            assert "lost" not in recorder.told
        lifted.set()
        if how == "gone":
            await recorder.until_told("lost")
            assert recorder.packets == [b"plain", b"with"]
        elif how == "paused":
            assert CLOSER.wait_idle(PATIENCE)
            await turns_of_the_loop()
            assert recorder.packets == [b"plain"]
            transport.resume_reading()
            await recorder.until_packets(2)
    await recorder.end()


async def test_what_came_before_the_pipe_broke_waits_for_room_too(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    with no_room(os.getuid()) as lifted:
        raw[1].send(b"plain")
        send_with(raw[1], b"with", pipe)
        raw[1].send(b"last")
        raw[1].shutdown(socket.SHUT_RD)
        with pytest.raises(ConnectionLost):
            transport.send_packet(b"x")
        await recorder.until_packets(1)
        await turns_of_the_loop(50)
        assert recorder.packets == [b"plain"]
        lifted.set()
        await recorder.until_told("lost")
    assert recorder.packets == [b"plain", b"with", b"last"]
    await recorder.end()


async def test_where_the_table_is_short_packets_with_descriptors_are_received_elsewhere(
    raw: Pair, pipe: tuple[int, int]
) -> None:
    _transport, recorder = on_transport(raw[0])
    with short_table():
        raw[1].send(b"plain")
        send_with(raw[1], b"with", pipe)
        raw[1].send(b"after it")
        send_with(raw[1], b"again", [pipe[0]])
        await recorder.until_packets(4)
    assert recorder.packets == [b"plain", b"with", b"after it", b"again"]
    assert [len(fds) for fds in recorder.fds] == [0, 2, 0, 1]
    await recorder.end()


@as_root
async def test_descriptors_that_find_no_number_are_waited_for_elsewhere(raw: Pair) -> None:
    protocol = Tolerant()
    on_transport(raw[0], protocol)
    here, there = raw_pair()
    _other, friend = on_transport(here)
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(lingering(60))
        with hidden(made.make()) as outer:
            send_with(raw[1], b"lost", [outer.fileno()])
        raw[1].send(b"after it")
        stack.enter_context(short_table(left=0))
        for number in range(100):
            there.send(b"x")
            await friend.until_packets(number + 1)
        assert protocol.packets == []
        made.release()
        await protocol.until_packets(1)
    assert protocol.cut == [(b"lost", os.getuid())]
    assert protocol.packets == [b"after it"]
    await protocol.end()
    await friend.end()
    there.close()


@pytest.mark.parametrize("then", ["resumed", "resumed twice", "closed", "lost"])
async def test_reading_may_be_paused_while_a_packet_is_received_elsewhere(
    raw: Pair, pipe: tuple[int, int], then: str
) -> None:
    transport, recorder = on_transport(raw[0])
    with short_table(), stalled(os.getuid()) as lifted:
        send_with(raw[1], b"with", pipe)
        raw[1].send(b"after it")
        await comes_true(lambda: (it := gate_of(transport)) is not None and it.shut)
        transport.pause_reading()
        lifted.set()
        await comes_true(lambda: carrier_of(transport).intake._arrived is not None)
        await turns_of_the_loop()
        assert recorder.packets == []
        if then.startswith("resumed"):
            transport.resume_reading()
            if then == "resumed twice":
                transport.pause_reading()
                transport.resume_reading()
            await recorder.until_packets(2)
            assert recorder.packets == [b"with", b"after it"]
            assert [len(fds) for fds in recorder.fds] == [2, 0]
        elif then == "closed":
            transport.close()
            await recorder.until_told("lost")
        else:
            transport.abort()
            await recorder.until_told("lost")
    await recorder.end()


async def test_a_connection_may_end_while_a_packet_is_received_elsewhere(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    with short_table(), stalled(os.getuid()) as lifted:
        send_with(raw[1], b"with", pipe)
        await comes_true(lambda: (it := gate_of(transport)) is not None and it.receives)
        transport.abort()
        await recorder.until_told("lost")
        assert raw[0].fileno() >= 0
        lifted.set()
        await comes_true(lambda: raw[0].fileno() < 0)
    assert recorder.packets == []


async def test_a_failure_elsewhere_is_one_of_the_socket(raw: Pair, pipe: tuple[int, int]) -> None:
    transport, recorder = on_transport(raw[0])
    with short_table(), stalled(os.getuid()) as lifted:
        send_with(raw[1], b"with", pipe)
        await comes_true(lambda: (it := gate_of(transport)) is not None and it.receives)
        raw[0].recv(10)  # somebody was quicker
        lifted.set()
        await comes_true(lambda: (it := gate_of(transport)) is not None and not it.shut)
        raw[1].send(b"next")
        await recorder.until_packets(1)
    assert recorder.packets == [b"next"]
    await recorder.end()


async def test_no_memory_elsewhere_costs_the_connection(
    raw: Pair, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_none(_size: int) -> bytearray:
        raise MemoryError

    _transport, recorder = on_transport(raw[0])
    monkeypatch.setattr(gate, "bytearray", has_none, raising=False)
    with short_table():
        send_with(raw[1], b"with", pipe)
        await recorder.until_told("lost")
    assert recorder.packets == []
    assert isinstance(recorder.reason, OSError)
    assert recorder.reason.errno == errno.ENOMEM
    assert raw[0].fileno() < 0


async def test_a_protocol_that_fails_over_what_was_received_elsewhere_costs_its_connection(
    raw: Pair, pipe: tuple[int, int], loop_errors: list[dict[str, Any]]
) -> None:
    _transport, recorder = on_transport(raw[0])
    recorder.on_packet = lambda _data: 1 / 0  # type: ignore[assignment]
    with short_table():
        send_with(raw[1], b"with", pipe)
        await recorder.until_told("lost")
    assert [type(context["exception"]) for context in loop_errors] == [ZeroDivisionError]
    loop_errors.clear()
    await recorder.end()
