"""Messages longer than a packet."""

from __future__ import annotations

import gc
import os
import socket
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from support.descriptors import Lender, refuse_descriptors
from support.link import (
    LARGE,
    SMALL_LIMIT,
    TAKES_NONE,
    both_ends,
    lose_descriptors,
    next_message,
    one_end,
    raises,
    same_files,
)
from support.packets import fill, readable, unwire, wire
from support.scarcity import files_of_at_most, table_full
from support.waiting import comes_true, turns_of_the_loop

from seqrpc import (
    ConnectionLost,
    DescriptorsLost,
    Overloaded,
    OwnedFd,
    PermissionDenied,
    TooLarge,
    Unavailable,
)
from seqrpc.kernel.descriptors import close_all
from seqrpc.protocol.decoder import Decoder


async def next_with_files(raw: socket.socket) -> tuple[Any, list[OwnedFd]]:
    """Return the next message that does not only fill the socket, and its descriptors."""
    while True:
        await readable(raw)
        data, numbers, _flags, _address = socket.recv_fds(raw, 65_536, 253)
        if data != b"x" * 1000:
            return unwire(data), [OwnedFd(number) for number in numbers]


def spilled_in(file: OwnedFd, fds: Sequence[OwnedFd] = ()) -> Any:
    """Return the message in a memory file."""
    value, problem = Decoder().decode(os.pread(file.fileno(), 1_000_000, 0), list(fds))
    assert problem is None
    return value


async def test_large_calls_answers_and_notifies_pass_both_ways(pipe: tuple[int, int]) -> None:
    async with both_ends() as ends:
        for here, there in (ends, ends[::-1]):
            assert await here.connection.caller.request("m", (LARGE,)) == [LARGE]
            there.handler.on_request = lambda _request: None
            await here.connection.caller.send_notify("n", (LARGE, Lender(pipe[0])))
            await comes_true(lambda there=there: there.handler.requests[-1].method == "n")  # type: ignore[misc]
            request = there.handler.requests[-1]
            assert request.call_id is None
            assert isinstance(request.params, list)
            assert request.params[0] == LARGE
            assert same_files(request.fds, pipe[:1])
            close_all(request.fds)
            there.handler.on_request = there.handler.echo


async def test_descriptors_come_with_large_messages(pipe: tuple[int, int]) -> None:
    async with both_ends() as (one, other):
        other.handler.on_request = lambda _request: None
        call = one.call("m", LARGE, Lender(pipe[0]), Lender(pipe[1]))
        await comes_true(lambda: bool(other.handler.requests))
        (request,) = other.handler.requests
        assert isinstance(request.params, list)
        assert same_files(request.fds, pipe)
        other.connection.answers.send_result(request.call_id or 0, request.params)
        answer = await call
        assert answer[0] == LARGE
        assert same_files(answer[1:], pipe)
        close_all(answer[1:])


async def test_a_large_message_is_a_memory_file_and_a_packet_that_tells_its_id() -> None:
    async with one_end() as (end, raw):
        end.call("m", LARGE)
        await turns_of_the_loop()
        await end.connection.caller.send_notify("n", (LARGE,))
        end.answers.send_result(7, LARGE)
        end.answers.send_error(8, "a.b", "text", LARGE)
        whole: list[list[Any]] = [
            [0, 0, "m", [LARGE]],
            [2, "n", [LARGE]],
            [1, 7, None, LARGE],
            [1, 8, ["a.b", "text", LARGE], None],
        ]
        for message, call_id in zip(whole, ([0], [], [7], [8]), strict=True):
            packet, fds = await next_with_files(raw)
            assert packet == [4, len(wire(*message)), *call_id]
            assert spilled_in(fds[0]) == message
            close_all(fds)


async def test_what_the_kernel_finds_too_long_goes_as_a_memory_file() -> None:
    async with both_ends() as (one, other):
        for end in (one, other):
            end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5_000)
        assert await one.connection.caller.request("m", (b"x" * 60_000,)) == [b"x" * 60_000]


async def test_large_messages_wait_their_turn_in_the_queue(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        fill(end.sock)
        end.call("m", LARGE, Lender(pipe[0]))
        await turns_of_the_loop()
        end.answers.send_result(7, [LARGE, Lender(pipe[1])])
        assert end.transport.get_write_buffer_size() > 400_000
        for call_id, number in zip((0, 7), pipe, strict=True):
            packet, fds = await next_with_files(raw)
            assert packet[2] == call_id
            assert same_files(fds[1:], (number,))
            close_all(fds)


async def test_a_call_over_the_other_sides_limit_is_too_large_and_the_next_one_works() -> None:
    async with both_ends(others=SMALL_LIMIT) as (one, other):
        for _ in range(3):
            error = await raises(
                TooLarge, one.connection.caller.request("m", (LARGE,)), r"at most 100000 bytes.*this one 2000"
            )
            assert error.remote
            assert await one.connection.caller.request("m", (1,)) == [1]
        assert len(other.handler.requests) == 3
        assert not other.connection.session.requests


async def test_an_answer_over_this_sides_limit_is_too_large_and_the_next_call_works() -> None:
    async with both_ends(SMALL_LIMIT) as (one, other):
        other.connection.session._encoder._max_bytes = 1_000_000  # it sends more than this side takes
        other.handler.on_request = lambda request: tell_nothing(
            other.connection.answers.send_result(request.call_id or 0, LARGE if request.params else 1)
        )
        for _ in range(3):
            await raises(TooLarge, one.connection.caller.request("m", (1,)), "at most 100000 bytes")
            assert await one.connection.caller.request("m", ()) == 1
        await raises(TooLarge, other.connection.caller.request("m", (LARGE,)))
        assert not one.connection.closed


def tell_nothing(_result: object) -> None:
    """Take what a handler's function must not return."""


async def test_an_answer_over_the_answerers_own_limit_is_the_answerers_to_deal_with() -> None:
    async with one_end(SMALL_LIMIT) as (end, raw):
        raw.send(wire(0, 7, "m", []))
        await comes_true(lambda: bool(end.handler.requests))
        with pytest.raises(TooLarge, match="max_message_bytes"):
            end.answers.send_result(7, LARGE)
        end.answers.send_error(7, "a.b", "text", LARGE)  # what cannot be sent of an error is left out
        assert await next_message(raw) == [1, 7, ["a.b", "text", None], None]


async def test_a_notify_over_the_limit_ends_the_connection_for_nobody_can_be_told() -> None:
    async with both_ends(others=SMALL_LIMIT) as (one, other):
        await one.connection.caller.send_notify("m", (LARGE,))
        await raises((Unavailable, ConnectionLost), one.connection.caller.request("m", ()), "at most 100000 bytes")
        await other.connection.wait_closed()


async def test_a_large_request_whose_memory_file_is_lost_is_answered_so() -> None:
    async with one_end() as (end, raw):
        await lose_descriptors(end, raw, wire(4, 200_000, 5))
        error = ["rpc.DescriptorsLost", "the memfd of the message was lost on the way in", None]
        assert await next_message(raw) == [1, 5, error, None]
        assert not end.connection.closed


async def test_a_large_answer_whose_memory_file_is_lost_fails_its_call() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        message = await next_message(raw)
        await lose_descriptors(end, raw, wire(4, 200_000, message[1]))
        await raises(DescriptorsLost, call, "the memfd of the message was lost")
        assert not end.connection.closed


async def test_a_large_message_to_who_takes_no_descriptors_is_refused() -> None:
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        await raises(
            PermissionDenied, end.connection.caller.request("m", (LARGE,)), "nor messages of more than 65536 bytes"
        )
        end.answers.send_result(1, LARGE)
        assert await next_message(raw) == [1, 1, ["rpc.TooLarge", TAKES_NONE, None], None]
        fill(end.sock)
        queued = end.call("m", LARGE)
        end.answers.send_result(2, LARGE)
        assert await next_message(raw) == [1, 2, ["rpc.TooLarge", TAKES_NONE, None], None]
        await raises(PermissionDenied, queued)
        assert not end.connection.session.calls


async def test_a_large_message_that_no_memory_file_can_be_made_for_fails_alone() -> None:
    async with one_end() as (end, raw):
        with table_full():
            error = await raises(Overloaded, end.connection.caller.request("m", (LARGE,)), "Too many open files")
            end.answers.send_result(1, LARGE)
        assert error.remote, "in a handler that does not expect it it would be the handler's answer"
        message = await next_message(raw)
        assert message[:2] == [1, 1]
        assert message[2][0] == "rpc.Overloaded"
        assert "Too many open files" in message[2][1]


async def test_a_large_message_that_may_be_in_no_file_is_too_large(caplog: pytest.LogCaptureFixture) -> None:
    async with one_end() as (end, raw):
        with files_of_at_most(100_000):
            await raises(TooLarge, end.connection.caller.request("m", (LARGE,)), "File too large")
            end.answers.send_result(1, LARGE)
            fill(end.sock)
            queued = end.call("m", LARGE)
            end.answers.send_result(2, LARGE)
            await raises(TooLarge, queued)
        text = "no memory file may be as large as the message: File too large"
        assert await next_message(raw) == [1, 1, ["rpc.TooLarge", text, None], None]
        assert (await next_message(raw))[:3] == [1, 2, ["rpc.TooLarge", text, None]]
        assert not end.connection.session.calls
    assert len(caplog.messages) == 2
    assert all("an answer cannot be sent: [Errno 27] File too large" in message for message in caplog.messages)


async def test_a_large_call_is_not_kept_until_it_is_answered() -> None:
    async with one_end() as (end, raw):
        tracemalloc.start()
        try:
            call = end.call("m", memoryview(bytes(20_000_000)))
            end.calls.clear()
            packet, fds = await next_with_files(raw)
            close_all(fds)
            gc.collect()
            kept, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most > 20_000_000
        assert kept < 30_000_000, "the argument itself is the caller's; its encoded form is nobody's"
        raw.send(wire(1, packet[2], None, 1))
        assert await call == 1
