"""What the kernel tells senders and receivers, at one socket: lost control data, and packets that cannot be sent."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from support.descriptors import owned
from support.faulty import Echo, outcome
from support.packets import readable, receive, send_with

import seqrpc
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.testing import assert_no_leaks, caller, faulty_pair, serve_in_memory

ANN = caller(uid=1001)


async def test_the_kernel_tells_the_receiver_that_control_data_was_cut() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        fault = pair.to_server.cut_control()
        pair.client.send(b"without any")
        for asks in (False, True):
            if asks:
                PLATFORM.ask_for_senders(pair.server)
                pair.to_server.cut_control(2)
            with owned(2) as fds:
                for data in (b"first", b"second"):
                    send_with(pair.client, data, [fd.fileno() for fd in fds])
            came = []
            for _ in range(2 if asks else 3):
                await readable(pair.server)
                buffer = bytearray(100)
                size, control, flags, _address = pair.server.recvmsg_into([buffer], socket.CMSG_SPACE(2_000))
                files = [data for _level, kind, data in control if kind == socket.SCM_RIGHTS]
                for data in files:
                    for number in memoryview(data).cast("i"):
                        os.close(number)
                came.append((bytes(buffer[:size]), len(files), bool(flags & socket.MSG_CTRUNC)))
            expected = [(b"first", 0, True), (b"second", 1, False)]
            if asks:
                expected = [(b"first", 1, False), (b"second", 0, True)]
            assert came == expected if asks else [(b"without any", 0, False), *expected]
        assert fault.count == 1


def files_of(received: Any) -> tuple[int, bool]:
    """Close what came as control data; return how many descriptors it was, and whether some were cut."""
    _data, control, flags, _address = received
    numbers = [number for _level, _kind, data in control for number in memoryview(data).cast("i")]
    for number in numbers:
        os.close(number)
    return len(numbers), bool(flags & socket.MSG_CTRUNC)


async def test_it_is_cut_however_it_is_received() -> None:
    async with assert_no_leaks(), faulty_pair() as pair:
        pair.to_server.cut_control(1)
        pair.to_server.cut_control(3)
        with owned(1) as fds:
            for _ in range(4):
                socket.send_fds(pair.client, [b"x"], [fds[0].fileno()])
        came: list[object] = []
        for _ in range(2):
            await readable(pair.server)
            data, numbers, flags, _address = socket.recv_fds(pair.server, 10, 4)
            for number in numbers:
                os.close(number)
            came.append((data, len(numbers), bool(flags & socket.MSG_CTRUNC)))
        assert came == [(b"x", 0, True), (b"x", 1, False)]
        came = []
        for _ in range(2):
            await readable(pair.server)
            came.append(files_of(pair.server.recvmsg(10, 1_000)))
        assert came == [(0, True), (1, False)]


async def test_packets_count_however_they_are_received() -> None:
    peek = socket.MSG_PEEK
    ways: list[Callable[[socket.socket], object]] = [
        lambda sock: sock.recv(10),
        lambda sock: sock.recv_into(bytearray(10)),
        lambda sock: sock.recvmsg(10),
        lambda sock: sock.recvmsg_into([bytearray(10)]),
        lambda sock: (sock.recv(10, peek), sock.recvmsg(10, 0, peek), sock.recv_into(bytearray(10), 10)),
    ]
    for take in ways:
        async with assert_no_leaks(), faulty_pair() as pair:
            pair.client.send(b"first")
            await readable(pair.server)
            take(pair.server)
            pair.to_server.cut_control()
            with owned(1) as fds:
                for _ in range(2):
                    send_with(pair.client, b"x", [fds[0].fileno()])
            came = []
            for _ in range(2):
                await readable(pair.server)
                came.append(files_of(pair.server.recvmsg_into([bytearray(10)], 1_000)))
            assert came == [(0, True), (1, False)]


async def test_sending_fails_however_it_is_done() -> None:
    ways: list[Callable[[socket.socket], object]] = [
        lambda sock: sock.send(b"x"),
        lambda sock: sock.sendall(b"x"),
        lambda sock: sock.sendmsg([b"x"]),
        lambda sock: socket.send_fds(sock, [b"x"], [0]),
    ]
    async with faulty_pair() as pair:
        fault = pair.to_server.fail(errno.ENOBUFS, times=len(ways))
        for send in ways:
            with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
                send(pair.client)
        pair.client.sendall(b"and then no more")
        assert await receive(pair.server) == b"and then no more"
        assert fault.count == len(ways)


async def test_a_request_whose_descriptors_are_lost_is_answered_so() -> None:
    async with assert_no_leaks(), faulty_pair() as pair, serve_in_memory(Echo(), pair=pair, caller=ANN) as connection:
        fault = pair.to_server.cut_control()
        assert await connection.call("Echo.size", None) == "none"
        with owned(1) as fds:
            with pytest.raises(seqrpc.DescriptorsLost, match="descriptors of the message were lost on the way in"):
                await connection.call("Echo.size", fds[0])
            assert await connection.call("Echo.size", fds[0]) == "a file"
        assert fault.count == 1


async def test_so_is_an_answer() -> None:
    async with assert_no_leaks(), faulty_pair() as pair, serve_in_memory(Echo(), pair=pair) as connection:
        pair.to_client.cut_control()
        with pytest.raises(seqrpc.DescriptorsLost):
            await connection.proxy(Echo).null()
        (await connection.proxy(Echo).null()).close()


def has_the_option() -> bool:
    ours, theirs = seqrpc.socket_pair()
    with ours, theirs:
        return PLATFORM.refuse_descriptors(ours)


@pytest.mark.parametrize("by_the_kernel", [True, False])
async def test_a_peer_refuses_descriptors(monkeypatch: pytest.MonkeyPatch, by_the_kernel: bool) -> None:
    if by_the_kernel and not has_the_option():
        pytest.skip("this kernel cannot refuse descriptors")
    if not by_the_kernel:
        monkeypatch.setattr(type(PLATFORM), "refuse_descriptors", lambda _self, _sock: False)
    async with assert_no_leaks(), faulty_pair() as pair, serve_in_memory(Echo(), pair=pair) as connection:
        fault = pair.to_server.refuse_descriptors()
        with owned(1) as fds:
            with pytest.raises(PermissionError):
                send_with(pair.client, b"raw", [fds[0].fileno()])
            with pytest.raises(seqrpc.PermissionDenied, match="the other side takes no descriptors"):
                await connection.call("Echo.size", fds[0])
            with pytest.raises(seqrpc.PermissionDenied):
                await connection.call("Echo.large", b"x" * 100_000)
            assert fault.count == 3
            assert await connection.call("Echo.size", None) == "none"
            fault.stop()
            assert await connection.call("Echo.size", fds[0]) == "a file"


async def test_one_packet_may_be_refused_descriptors_and_others_not() -> None:
    async with faulty_pair() as pair, serve_in_memory(Echo(), pair=pair) as connection:
        fault = pair.to_server.refuse_descriptors(2, times=1)
        with owned(1) as fds:
            outcomes = []
            for _ in range(3):
                call = asyncio.create_task(connection.call("Echo.size", fds[0]))
                outcomes.append(type(await outcome(call)))
        assert outcomes == [str, seqrpc.PermissionDenied, str]
        assert fault.count == 1


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EMSGSIZE, errno.ETOOMANYREFS, errno.EAGAIN])
async def test_sending_fails_as_it_is_told_for_this_socket_only(number: int) -> None:
    async with faulty_pair() as pair, faulty_pair() as other:
        fault = pair.to_server.fail(number, times=2)
        for data in (b"first", b"second"):
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                pair.client.send(data)
            assert caught.value.errno == number
            other.client.send(data)
            pair.server.send(data)
        pair.client.send(b"third")
        assert await receive(pair.server) == b"third"
        assert [await receive(other.server) for _ in range(2)] == [b"first", b"second"]
        assert [await receive(pair.client) for _ in range(2)] == [b"first", b"second"]
        assert fault.count == 2


async def test_a_call_goes_on_when_there_is_no_room_for_a_while() -> None:
    async with faulty_pair() as pair, serve_in_memory(Echo(), pair=pair) as connection:
        faults = [pair.to_server.fail(errno.ENOBUFS), pair.to_client.fail(errno.EAGAIN)]
        assert await connection.call("Echo.say", "yes") == "yes"
        assert [fault.count for fault in faults] == [1, 1]


async def test_a_packet_that_is_too_long_for_the_kernel_goes_as_a_file_of_memory() -> None:
    async with faulty_pair() as pair, serve_in_memory(Echo(), pair=pair) as connection:
        fault = pair.to_server.fail(errno.EMSGSIZE, "Echo.large", times=2)
        brought: list[int] = []
        pair.to_server.drop(lambda packet: bool(brought.append(packet.descriptors)))  # type: ignore[func-returns-value]
        content = b"x" * 30_000
        assert await connection.call("Echo.large", content) == content
        assert fault.count == 2
        assert brought == [1]


async def test_a_sender_whose_peer_is_gone_finds_the_end() -> None:
    async with faulty_pair() as pair, serve_in_memory(Echo(), pair=pair) as connection:
        pair.to_server.fail(errno.EPIPE, times=None)
        with pytest.raises(seqrpc.ConnectionLost):
            await connection.call("Echo.say", "anything")
