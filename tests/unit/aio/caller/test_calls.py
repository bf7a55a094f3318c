"""Calls both ways."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import socket
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from support.descriptors import Lender, owned, refuse_descriptors
from support.link import both_ends, next_message, one_end, raises, same_files
from support.packets import send_with, wire
from support.waiting import comes_true, turns_of_the_loop

import seqrpc
from seqrpc import (
    Execution,
    LocalProtocolError,
    MethodNotFound,
    OwnedFd,
    PermissionDenied,
    TooLarge,
    Unavailable,
)
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import close_all
from seqrpc.limits import Limits
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.messages import Response


def in_a_minute() -> int:
    return time.monotonic_ns() + 60_000_000_000


# Calls


async def test_calls_run_in_both_directions_at_once() -> None:
    async with both_ends() as (one, other):
        calls = [end.call("m", number) for number in range(100) for end in (one, other)]
        assert await asyncio.gather(*calls) == [[number] for number in range(100) for _ in "12"]
        assert one.handler.callers[0] == Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())


class Calls:
    """Calls over a connection as it is taken apart to be sent over that."""

    def __init__(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.made = call()

    def wire(self) -> int:
        self.made.send(None)  # as a task that begins at once
        return 3


seqrpc.register_type(Calls, wire_type=int, encode=Calls.wire, decode=Calls)


async def test_a_call_that_is_made_while_another_one_is_encoded_is_a_call_of_its_own() -> None:
    async with one_end() as (end, raw):
        value = Calls(lambda: end.connection.caller.request("within", (7,)))
        outer = end.call("outer", 1, value, "b")
        messages = [await next_message(raw) for _ in range(2)]
        assert sorted(messages) == [[0, 0, "outer", [1, 3, "b"]], [0, 1, "within", [7]]]
        for call_id in (1, 0):
            raw.send(wire(1, call_id, None, call_id))
        assert await outer == 0
        value.made.close()


async def test_answers_may_come_in_any_order() -> None:
    async with one_end() as (end, raw):
        calls = [end.call("m", number) for number in range(3)]
        ids = {(message := await next_message(raw))[3][0]: message[1] for _ in range(3)}
        for number in (2, 0, 1):
            raw.send(wire(1, ids[number], None, f"answer {number}"))
        assert await asyncio.gather(*calls) == ["answer 0", "answer 1", "answer 2"]


async def test_descriptors_come_with_arguments_and_answers(pipe: tuple[int, int]) -> None:
    async with both_ends() as (one, other):
        other.handler.on_request = lambda _request: None
        call = one.call("m", Lender(pipe[0]), Lender(pipe[1]))
        await comes_true(lambda: bool(other.handler.requests))
        (request,) = other.handler.requests
        assert isinstance(request.params, list)
        assert same_files(request.fds, pipe)
        assert request.call_id is not None
        lenders = other.connection.answers.send_result(request.call_id, request.params)
        assert lenders == request.params
        answer = await call
        assert all(isinstance(fd, OwnedFd) for fd in answer)
        close_all(answer)


async def test_nothing_keeps_an_answer_once_whoever_called_has_let_go_of_it(pipe: tuple[int, int]) -> None:
    """Without the garbage collector: what is in an answer may be large."""
    gc.disable()
    try:
        async with one_end() as (end, raw):
            for way in range(3):
                call = asyncio.ensure_future(end.connection.caller.request("m", ()))
                call_id = (await next_message(raw))[1]
                data, _lenders = Encoder().encode((1, call_id, None, [Lender()]))
                if way == 1:  # the answer comes, and is thrown away, after the call was given up
                    call.cancel()
                    await raises(asyncio.CancelledError, call)
                    assert await next_message(raw) == [3, call_id]
                elif way == 2:  # it comes together with other things
                    raw.send(wire(0, 7, "m", []))
                send_with(raw, bytes(data), [pipe[0]])
                if way == 1:
                    await comes_true(lambda: not end.connection.session.given_up)
                    continue
                (fd,) = await call
                kept = weakref.ref(fd)
                fd.close()
                del fd, call
                await turns_of_the_loop(1)  # the one that is going on was told of the answer, and so has it
                assert kept() is None
    finally:
        gc.enable()


async def test_an_error_of_the_other_side_is_raised_as_the_class_of_its_code() -> None:
    async with both_ends() as (one, other):
        other.handler.on_request = lambda request: other.connection.answers.send_error(
            request.call_id or 0, "rpc.MethodNotFound", "none such", [1]
        )
        error = await raises(MethodNotFound, one.connection.caller.request("m", ()))
        assert (error.message, error.data, error.remote) == ("none such", [1], True)


async def test_whoever_calls_may_finish_the_answer_in_a_way_of_its_own() -> None:
    async with both_ends() as (one, _):

        def finish(response: Response, limits: Limits) -> Any:
            assert limits.max_calls_in_flight
            return "finished", response.result

        assert await one.connection.caller.request("m", (1,), finish=finish) == ("finished", [1])


async def test_a_call_without_an_answer_is_sent_and_done() -> None:
    async with one_end() as (end, raw):
        await end.connection.caller.send_notify("m", (1,))
        await end.connection.caller.send_notify("m", {"a": 1}, 2**62, {"k": "v"})
        assert await next_message(raw) == [2, "m", [1]]
        assert await next_message(raw) == [2, "m", {"a": 1}, {"deadline": 2**62, "meta": {"k": "v"}}]


async def test_deadline_and_metadata_go_along() -> None:
    async with one_end() as (end, raw):
        deadline = in_a_minute()
        end.call("m", deadline=deadline, meta={"k": "v"})
        end.call("m", deadline=deadline)
        end.call("m", meta={"k": "v"})
        end.call("m")
        assert [(await next_message(raw))[4:] for _ in range(4)] == [
            [{"deadline": deadline, "meta": {"k": "v"}}],
            [{"deadline": deadline}],
            [{"meta": {"k": "v"}}],
            [],
        ]


async def test_what_cannot_be_sent_fails_its_call_only() -> None:
    async with both_ends(Limits(max_message_bytes=100_000)) as (one, _):
        await raises(LocalProtocolError, one.connection.caller.request("m", (2**70,)), "params")
        await raises(TooLarge, one.connection.caller.request("m", (b"x" * 100_000,)), "max_message_bytes")
        await raises(LocalProtocolError, one.connection.caller.send_notify("m", (2**70,)))
        await raises(ValueError, one.connection.caller.request("m", (one.sock,)), "own socket")
        for call in one.connection.caller.request, one.connection.caller.send_notify:
            error = await raises(ValueError, call("m", (io.BytesIO(),)), "BytesIO has no descriptor")
            assert not isinstance(error, OSError)
            assert (await raises(TooLarge, call("m", (b"x" * 100_000,)))).remote, "met by a call of this side"
        with owned(254) as fds:
            await raises(LocalProtocolError, one.connection.caller.request("m", tuple(fds)), "253")
        assert await one.connection.caller.request("m", (1,)) == [1]
        assert not one.connection.session.calls


async def test_it_is_held_by_its_connection_and_not_by_its_proxies() -> None:
    async with both_ends() as (one, _):
        await one.connection.caller.let_go()
        assert await one.connection.caller.request("m", (1,)) == [1]
        assert repr(one.connection.caller) == repr(one.connection)


async def test_a_call_that_may_run_twice_is_a_call_as_any_other() -> None:
    async with both_ends() as (one, _):
        assert await one.connection.caller.request_idempotent("m", (1,)) == [1]
        assert one.connection.caller.line is one.connection


async def test_a_call_is_not_sent_to_who_takes_none_any_more() -> None:
    async with one_end() as (end, raw):
        raw.send(wire(5, "upgrade"))
        await comes_true(lambda: end.connection.session.closing_received is not None)
        for call in end.connection.caller.request, end.connection.caller.send_notify:
            error = await raises(Unavailable, call("m", ()), "upgrade")
            assert error.execution is Execution.DID_NOT_RUN


async def test_a_call_to_who_reads_no_more_hears_what_was_said_before() -> None:
    async with one_end() as (end, raw):
        raw.shutdown(socket.SHUT_RD)
        raw.send(wire(5, "upgrade"))
        call = end.call("m")
        raw.close()
        await raises(Unavailable, call, "upgrade")


async def test_a_call_that_the_kernel_does_not_let_pass_is_told_what_that_means() -> None:
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        for call in end.connection.caller.request, end.connection.caller.send_notify:
            await raises(PermissionDenied, call("m", (Lender(),)), "takes no descriptors")
        assert not end.connection.session.calls
