"""Packets that pass, that are lost or held up, and connections that end in the middle: what the kernel shows."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

import pytest
from support.descriptors import owned
from support.packets import fill, readable, receive, send_with
from support.scarcity import table_full
from support.waiting import comes_true, turns_of_the_loop

import seqrpc
from seqrpc.testing import Packet, assert_no_leaks, faulty_pair


async def test_the_end_of_one_side_is_found_by_the_other_after_what_was_sent() -> None:
    async with faulty_pair() as pair:
        pair.client.send(b"last words")
        pair.client.close()
        assert [await receive(pair.server) for _ in range(2)] == [b"last words", b""]
        with pytest.raises(BrokenPipeError):
            pair.server.send(b"too late")


async def test_what_nobody_reads_fills_the_kernel_s_buffers_and_then_waits() -> None:
    async with faulty_pair() as pair:
        sent = fill(pair.client)
        while (more := await turns(lambda: fill(pair.client))) > 0:
            sent += more
        ours, theirs = seqrpc.socket_pair()
        with ours, theirs:
            assert sent >= 2 * fill(ours)
        for _ in range(sent):
            assert await receive(pair.server) == b"x" * 1000
        with pytest.raises(BlockingIOError):
            pair.server.recv(1, socket.MSG_DONTWAIT)


async def turns(function: Callable[[], int]) -> int:
    await turns_of_the_loop(100)
    return function()


async def test_descriptors_of_a_dropped_packet_are_closed() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        fault = pair.to_server.drop()
        reader, writer = os.pipe()
        send_with(pair.client, b"the only writer", [writer])
        os.close(writer)
        await fault.happened()
        assert os.read(reader, 1) == b""
        os.close(reader)


async def test_of_two_that_hold_both_have_to_let_go() -> None:
    async with faulty_pair() as pair:
        first, second = pair.to_server.stop_reading(), pair.to_server.stop_reading()
        pair.client.send(b"1")
        first.release()
        await turns_of_the_loop(20)
        with pytest.raises(BlockingIOError):
            pair.server.recv(1, socket.MSG_DONTWAIT)
        second.release()
        assert await receive(pair.server) == b"1"


async def test_both_sides_find_the_end_and_no_reset() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        fault = pair.to_server.disconnect(2)
        pair.server.send(b"answer")
        assert await receive(pair.client) == b"answer"
        for data in (b"first", b"second"):
            pair.client.send(data)
        await fault.happened()
        assert [await receive(pair.server) for _ in range(2)] == [b"first", b""]
        assert await receive(pair.client) == b""
        for end in (pair.client, pair.server):
            with pytest.raises(BrokenPipeError):
                end.send(b"late")


async def test_a_reset_comes_ahead_of_what_is_queued() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        held = pair.to_client.hold()
        fault = pair.to_server.reset("last")
        pair.server.send(b"first answer")
        await held.happened()
        pair.server.send(b"second answer")
        pair.client.send(b"request")
        assert await receive(pair.server) == b"request"
        pair.client.send(b"the last request")
        await fault.happened()
        with pytest.raises(ConnectionResetError):
            pair.client.recv(100)
        assert [pair.client.recv(100) for _ in range(3)] == [b"first answer", b"second answer", b""]
        assert await receive(pair.server) == b""


async def test_a_server_is_reset_by_an_answer_that_nobody_reads() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        fault = pair.to_client.reset(lambda packet: packet.descriptors > 0)
        pair.server.send(b"without any")
        assert await receive(pair.client) == b"without any"
        with owned(1) as fds:
            send_with(pair.server, b"with one", [fds[0].fileno()])
        await fault.happened()
        with pytest.raises(ConnectionResetError):
            pair.server.recv(1)
        assert await receive(pair.client) == b""


async def test_a_mistake_of_the_test_ends_the_connection_and_is_raised() -> None:
    def mistaken(packet: Packet) -> bool:
        raise KeyError(packet.number)

    async def story() -> None:
        async with faulty_pair() as pair:
            pair.to_server.drop(mistaken)
            with owned(1) as fds:
                send_with(pair.client, b"with one", [fds[0].fileno()])
            assert await receive(pair.server) == b""

    async with assert_no_leaks():
        with pytest.raises(KeyError):
            await story()


async def test_so_is_it_when_descriptors_are_lost_on_their_way_through() -> None:
    async def story() -> None:
        async with faulty_pair() as pair:
            await turns_of_the_loop()
            with owned(1) as fds:
                stopped = pair.to_server.stop_reading()
                send_with(pair.client, b"with one", [fds[0].fileno()])
                with table_full():
                    stopped.release()
                    assert await receive(pair.server) == b""

    async with assert_no_leaks():
        with pytest.raises(OSError, match="a faulty pair lost descriptors that passed through it"):
            await story()


async def test_what_is_held_may_be_let_go_of_in_another_thread() -> None:
    async with faulty_pair() as pair:
        stopped = pair.to_server.stop_reading()
        pair.client.send(b"1")
        await asyncio.to_thread(stopped.release)
        assert await receive(pair.server) == b"1"


async def test_a_client_that_leaves_answers_unread_is_gone_for_the_server() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        pair.client.send(b"last words")
        pair.server.send(b"an answer")
        await readable(pair.client)
        pair.client.close()
        assert [await receive(pair.server) for _ in range(2)] == [b"last words", b""]
        with pytest.raises(BrokenPipeError):
            pair.server.send(b"another")


async def test_what_is_held_is_not_lost_when_nobody_is_there_for_the_answer() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        held = pair.to_server.hold()
        for data in (b"first", b"second"):
            pair.client.send(data)
        await held.happened()
        pair.client.close()
        await comes_true(lambda: is_refused(pair.server))
        held.release()
        assert [await receive(pair.server) for _ in range(3)] == [b"first", b"second", b""]


def is_refused(sock: socket.socket) -> bool:
    try:
        sock.send(b"an answer")
    except BrokenPipeError:
        return True
    return False


async def test_what_waits_for_a_receiver_that_is_gone_is_closed() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        held = pair.to_server.hold()
        reader, writer = os.pipe()
        send_with(pair.client, b"the only writer", [writer])
        os.close(writer)
        await held.happened()
        pair.server.shutdown(socket.SHUT_RD)
        held.release()
        assert os.read(reader, 1) == b""
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            pair.client.send(b"more")
        pair.server.send(b"an answer")
        assert await receive(pair.client) == b"an answer", "the other way is open, as the kernel has it"


async def test_sending_fails_and_control_data_is_cut_as_it_is_told() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        pair.to_server.refuse_descriptors(times=1)
        pair.to_server.fail(errno.ENOBUFS, "third")
        pair.to_server.cut_control()
        with owned(1) as fds:
            numbers = [fds[0].fileno()]
            with pytest.raises(PermissionError):
                send_with(pair.client, b"first", numbers)
            send_with(pair.client, b"second", numbers)
            with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
                pair.client.send(b"third")
        await readable(pair.server)
        size, control, flags, _address = pair.server.recvmsg_into([bytearray(100)], 1_000)
        assert (size, control, flags & socket.MSG_CTRUNC) == (6, [], socket.MSG_CTRUNC)
