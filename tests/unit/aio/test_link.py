"""A session on a transport: calls both ways, in turn, given up, refused, and at the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import io
import os
import socket
import time
import traceback
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from helpers import Lender
from packets import (
    comes_true,
    files,
    files_of_at_most,
    fill,
    raw_pair,
    readable,
    receive,
    receive_to_the_end,
    send_with,
    table_full,
    turns_of_the_loop,
    unwire,
    wire,
)

from seqrpc import (
    ConnectionLost,
    DeadlineExceeded,
    DescriptorsLost,
    LocalProtocolError,
    MethodNotFound,
    Overloaded,
    OwnedFd,
    PermissionDenied,
    RemoteProtocolError,
    TooLarge,
    Unavailable,
)
from seqrpc.aio.link import SessionConnection, explain_refusal
from seqrpc.aio.transport import SeqpacketTransport
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import close_all
from seqrpc.kernel.platforms import PLATFORM
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.codec import Codec
from seqrpc.protocol.messages import Request, Response
from seqrpc.protocol.values import EXT_STREAM, Export, Handles, Living


class Handler:
    """Remembers what comes in, and answers when it is told to."""

    def __init__(self) -> None:
        self.connection: SessionConnection
        self.requests: list[Request] = []
        self.callers: list[Credentials | None] = []
        self.cancelled: list[int] = []
        self.lost = 0
        self.on_request: Callable[[Request], None] = lambda request: None
        self.admitted = True

    def connection_made(self, connection: SessionConnection) -> None:
        self.connection = connection

    def refusal(self, method: str, caller: Credentials | None) -> tuple[str, str] | None:
        assert method
        assert caller is not None
        return None if self.admitted else ("rpc.PermissionDenied", f"{method}: this caller is not admitted")

    def lack_of_room(self, size: int) -> str | None:
        assert size
        return None

    def request_received(self, request: Request, caller: Credentials | None) -> None:
        self.requests.append(request)
        self.callers.append(caller)
        self.on_request(request)

    def cancel_received(self, call_id: int) -> None:
        self.cancelled.append(call_id)

    def connection_lost(self) -> None:
        self.lost += 1
        for request in self.requests:
            close_all(request.fds)

    def echo(self, request: Request) -> None:
        """Answer with what came, and let go of its descriptors."""
        if request.call_id is not None:
            try:
                self.connection.send_result(request.call_id, request.params)
            except Overloaded as exc:
                self.connection.send_error(request.call_id, exc.code, exc.message)
        close_all(request.fds)


class End:
    """A connection, whoever answers at it, and the socket below."""

    def __init__(self, sock: socket.socket, limits: Limits, living: Living | None = None) -> None:
        self.sock = sock
        self.handler = Handler()
        self.connection = SessionConnection(self.handler, limits, living)
        self.calls: list[asyncio.Task[Any]] = []
        self.transport = SeqpacketTransport(asyncio.get_running_loop(), sock, self.connection, limits)

    def call(self, method: str, *params: Any, **options: Any) -> asyncio.Task[Any]:
        self.calls.append(asyncio.create_task(self.connection.request(method, params, **options)))
        return self.calls[-1]

    async def finish(self) -> None:
        """Wait for the calls that the test does not look at."""
        await asyncio.gather(*self.calls, return_exceptions=True)

    def jam(self) -> None:
        """Fill the socket and the transport's queue, until calls must wait."""
        fill(self.sock)
        while not self.connection._writing_paused:
            self.transport.send_packet(wire(9, b"x" * 60_000))


@asynccontextmanager
async def one_end(
    limits: Limits = DEFAULT_LIMITS, living: Living | None = None
) -> AsyncIterator[tuple[End, socket.socket]]:
    """Return a connection and the raw socket at its other end."""
    ours, theirs = raw_pair()
    end = End(ours, limits, living)
    try:
        yield end, theirs
    finally:
        theirs.close()
        end.transport.abort()
        await end.connection.wait_closed()
        await end.finish()
        assert end.handler.lost == 1


@asynccontextmanager
async def both_ends(limits: Limits = DEFAULT_LIMITS, others: Limits | None = None) -> AsyncIterator[tuple[End, End]]:
    """Return two connections to one another, which answer what they are asked."""
    ends = [End(sock, bounds) for sock, bounds in zip(raw_pair(), (limits, others or limits), strict=True)]
    for end in ends:
        end.handler.on_request = end.handler.echo
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            await end.connection.close()
            await end.finish()


async def next_message(raw: socket.socket) -> Any:
    """Return the next message that is none of those that only fill the socket."""
    while True:
        message = await receive(raw)
        if message and (message == b"x" * 1000 or unwire(message)[0] == 9):
            continue
        return unwire(message)


def same_files(fds: list[OwnedFd], others: tuple[int, ...]) -> bool:
    return all(os.path.sameopenfile(fd.fileno(), other) for fd, other in zip(fds, others, strict=True))


def in_a_minute() -> int:
    return time.monotonic_ns() + 60_000_000_000


def soon() -> int:
    return time.monotonic_ns() + 20_000_000


async def raises(
    kind: type[BaseException] | tuple[type[BaseException], ...],
    call: Coroutine[Any, Any, Any] | asyncio.Task[Any],
    match: str | None = None,
) -> Any:
    with pytest.raises(kind, match=match) as caught:
        await call
    return caught.value


# Calls


async def test_calls_run_in_both_directions_at_once() -> None:
    async with both_ends() as (one, other):
        calls = [end.call("m", number) for number in range(100) for end in (one, other)]
        assert await asyncio.gather(*calls) == [[number] for number in range(100) for _ in "12"]
        assert one.handler.callers[0] == Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())


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
        lenders = other.connection.send_result(request.call_id, request.params)
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
                call = asyncio.ensure_future(end.connection.request("m", ()))
                call_id = (await next_message(raw))[1]
                data, _lenders = Codec().encode((1, call_id, None, [Lender()]))
                if way == 1:  # the answer comes, and is thrown away, after the call was given up
                    call.cancel()
                    await raises(asyncio.CancelledError, call)
                    assert await next_message(raw) == [3, call_id]
                elif way == 2:  # it comes together with other things
                    raw.send(wire(0, 7, "m", []))
                send_with(raw, bytes(data), [pipe[0]])
                if way == 1:
                    await comes_true(lambda: not end.connection._session.given_up)
                    continue
                (fd,) = await call
                kept = weakref.ref(fd)
                fd.close()
                del fd, call
                await turns_of_the_loop(1)  # the one that is going on was told of the answer, and so has it
                assert kept() is None
    finally:
        gc.enable()


async def test_a_call_that_finds_room_again_before_its_turn_is_sent_at_once() -> None:
    """Calls given up count, but not for more than they are."""
    async with one_end(Limits(max_calls_in_flight=2)) as (end, raw):
        given_up = end.call("m", "given up")
        call_id = (await next_message(raw))[1]
        given_up.cancel()
        await raises(asyncio.CancelledError, given_up)
        assert await next_message(raw) == [3, call_id]
        call = end.call("m", "next")
        message = await next_message(raw)
        assert message[3] == ["next"]
        raw.send(wire(1, message[1], None, "answer"))
        assert await call == "answer"


async def test_an_error_of_the_other_side_is_raised_as_the_class_of_its_code() -> None:
    async with both_ends() as (one, other):
        other.handler.on_request = lambda request: other.connection.send_error(
            request.call_id or 0, "rpc.MethodNotFound", "none such", [1]
        )
        error = await raises(MethodNotFound, one.connection.request("m", ()))
        assert (error.message, error.data, error.remote) == ("none such", [1], True)


async def test_whoever_calls_may_finish_the_answer_in_a_way_of_its_own() -> None:
    async with both_ends() as (one, _):

        def finish(response: Response, limits: Limits) -> Any:
            assert limits.max_calls_in_flight
            return "finished", response.result

        assert await one.connection.request("m", (1,), finish=finish) == ("finished", [1])


async def test_a_call_without_an_answer_is_sent_and_done() -> None:
    async with one_end() as (end, raw):
        await end.connection.send_notify("m", (1,))
        await end.connection.send_notify("m", {"a": 1}, 2**62, {"k": "v"})
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
        await raises(LocalProtocolError, one.connection.request("m", (2**70,)), "params")
        await raises(TooLarge, one.connection.request("m", (b"x" * 100_000,)), "max_message_bytes")
        await raises(LocalProtocolError, one.connection.send_notify("m", (2**70,)))
        await raises(ValueError, one.connection.request("m", (one.sock,)), "own socket")
        for call in one.connection.request, one.connection.send_notify:
            error = await raises(ValueError, call("m", (io.BytesIO(),)), "BytesIO has no descriptor")
            assert not isinstance(error, OSError)
            assert (await raises(TooLarge, call("m", (b"x" * 100_000,)))).remote, "met by a call of this side"
        with files(254) as fds:
            await raises(LocalProtocolError, one.connection.request("m", tuple(fds)), "253")
        assert await one.connection.request("m", (1,)) == [1]
        assert not one.connection._session.calls


async def test_a_cancel_reaches_the_handler() -> None:
    async with one_end() as (end, raw):
        raw.send(wire(0, 7, "m", []))
        raw.send(wire(3, 7))
        raw.send(wire(3, 8))
        await comes_true(lambda: bool(end.handler.cancelled))
        assert end.handler.cancelled == [7]


# In turn


async def test_calls_beyond_the_bound_wait_their_turn_in_order() -> None:
    async with one_end(Limits(max_calls_in_flight=2)) as (end, raw):
        calls = [end.call("m", number) for number in range(5)]
        sent = [await next_message(raw) for _ in range(2)]
        for number in range(2, 5):
            await turns_of_the_loop()
            with pytest.raises(BlockingIOError):
                raw.recv(1)
            raw.send(wire(1, sent[number - 2][1], None, None))
            sent.append(await next_message(raw))
        for message in sent[3:]:
            raw.send(wire(1, message[1], None, None))
        await asyncio.gather(*calls)
        assert [message[3] for message in sent] == [[number] for number in range(5)]


async def test_between_two_sides_with_the_same_bound_nothing_is_refused() -> None:
    async with both_ends(Limits(max_calls_in_flight=2)) as (one, other):

        async def call_on(end: End) -> None:
            for number in range(20):
                assert await end.connection.request("m", (number,)) == [number]

        await asyncio.gather(*(call_on(end) for end in (one, other) for _ in range(5)))


async def test_a_call_that_was_given_up_counts_until_it_is_answered() -> None:
    """To the other side it is in flight: it would refuse one more."""
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        given_up = end.call("m", "given up")
        call_id = (await next_message(raw))[1]
        given_up.cancel()
        await raises(asyncio.CancelledError, given_up)
        assert await next_message(raw) == [3, call_id]
        call = end.call("m", "next")
        await turns_of_the_loop()
        assert not end.connection._session.calls
        raw.send(wire(1, call_id, ["rpc.Cancelled", "", None], None))
        message = await next_message(raw)
        assert message[3] == ["next"]
        assert message[1] != call_id
        raw.send(wire(1, message[1], None, "answer"))
        assert await call == "answer"


async def test_a_call_in_line_that_cannot_be_sent_lets_the_next_one_go() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        first = end.call("m")
        call_id = (await next_message(raw))[1]
        wrong = end.call("m", 2**70)
        late = end.call("m", deadline=soon())
        last = end.call("m", "last")
        await raises(DeadlineExceeded, late, "before the call could be sent")
        raw.send(wire(1, call_id, None, 1))
        assert await first == 1
        await raises(LocalProtocolError, wrong)
        message = await next_message(raw)
        assert message[3] == ["last"]
        raw.send(wire(1, message[1], None, 2))
        assert await last == 2


async def test_a_call_in_line_whose_deadline_passes_as_its_turn_comes_lets_the_next_one_go() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        first = end.call("m")
        call_id = (await next_message(raw))[1]
        deadline = soon()
        late = end.call("m", deadline=deadline)
        end.call("m", "last")
        await turns_of_the_loop()
        while time.monotonic_ns() <= deadline:  # the loop must not see it pass
            pass
        end.connection.packet_received(wire(1, call_id, None, 1), [], None)
        assert await first == 1
        await raises(DeadlineExceeded, late, "before")
        assert (await next_message(raw))[3] == ["last"]


async def test_calls_wait_while_the_other_side_does_not_read() -> None:
    async with one_end() as (end, raw):
        end.jam()
        calls = [end.call("m", number) for number in range(3)]
        notify = asyncio.create_task(end.connection.send_notify("n", ()))
        given_up = end.call("never")
        late = end.call("never", deadline=soon())
        late_notify = asyncio.create_task(end.connection.send_notify("never", (), soon()))
        await raises(DeadlineExceeded, late, "before the call could be sent")
        await raises(DeadlineExceeded, late_notify, "before the call could be sent")
        given_up.cancel()
        await raises(asyncio.CancelledError, given_up)
        assert not end.connection._session.calls
        assert not notify.done()

        messages = [await next_message(raw) for _ in range(4)]
        await notify
        assert [message[2:] for message in messages[:3]] == [["m", [number]] for number in range(3)]
        assert messages[3] == [2, "n", []]
        for message in messages[:3]:
            raw.send(wire(1, message[1], None, message[3]))
        assert await asyncio.gather(*calls) == [[0], [1], [2]]


async def test_a_connection_that_is_lost_while_calls_wait_fails_them_and_all_that_follow() -> None:
    async with one_end() as (end, raw):
        end.jam()
        waiting = [end.call("m"), asyncio.create_task(end.connection.send_notify("m", ()))]
        await turns_of_the_loop()
        raw.close()
        for call in waiting:
            await raises(ConnectionLost, call)
        await raises(ConnectionLost, end.connection.request("m", ()))
        await raises(ConnectionLost, end.connection.send_notify("m", ()))


# Deadlines and cancellation


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    async with one_end() as (end, raw):
        past = time.monotonic_ns()
        await raises(DeadlineExceeded, end.connection.request("m", (), past), "before the call was sent")
        await raises(DeadlineExceeded, end.connection.send_notify("m", (), past), "before the call was sent")
        end.jam()
        await raises(DeadlineExceeded, end.connection.request("m", (), past), "before the call was sent")
        raw.close()


async def test_a_deadline_that_passes_before_the_answer_tells_the_other_side_to_stop(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        call = end.call("m", deadline=soon())
        message = await next_message(raw)
        error = await raises(DeadlineExceeded, call, "before the answer came")
        assert isinstance(error, TimeoutError)
        assert await next_message(raw) == [3, message[1]]
        send_with(raw, wire(1, message[1], None, Lender()), [pipe[0]])  # too late: closed
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))


async def test_a_call_that_is_cancelled_tells_the_other_side_to_stop() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        message = await next_message(raw)
        call.cancel()
        await raises(asyncio.CancelledError, call)
        assert await next_message(raw) == [3, message[1]]


async def test_a_call_that_is_cancelled_in_line_is_never_sent() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        calls = [end.call("m", number) for number in range(3)]
        message = await next_message(raw)
        calls[1].cancel()
        await raises(asyncio.CancelledError, calls[1])
        raw.send(wire(1, message[1], None, None))
        await calls[0]
        assert (await next_message(raw))[3] == [2]


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_an_answer_that_comes_together_with_the_cancellation_is_closed(cancelled_first: bool) -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        call = end.call("m")
        end.call("m", "after")
        message = await next_message(raw)
        with files(2) as fds:
            owned = list(fds)
            if cancelled_first:
                call.cancel()
            end.connection.packet_received(wire(1, message[1], None, [Lender(), Lender()]), fds, None)
            if not cancelled_first:
                call.cancel()
            await raises(asyncio.CancelledError, call)
            assert [fd.closed for fd in owned] == [True, True]
        assert (await next_message(raw))[3] == ["after"], "there was nothing left to cancel"


async def test_an_answer_that_comes_together_with_the_deadline_is_closed() -> None:
    async with one_end() as (end, raw):
        deadline = soon()
        call = end.call("m", deadline=deadline)
        message = await next_message(raw)
        with files(1) as fds:
            owned = list(fds)
            waiter = end.connection._session.calls[message[1]]
            waiter.add_done_callback(
                lambda _waiter: end.connection.packet_received(wire(1, message[1], None, Lender()), fds, None)
            )
            await raises(DeadlineExceeded, call)
            assert owned[0].closed


async def test_an_answer_that_is_there_as_the_deadline_passes_is_taken_or_closed(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        deadline = soon()
        call = end.call("m", deadline=deadline)
        message = await next_message(raw)
        send_with(raw, wire(1, message[1], None, Lender()), [pipe[0]])
        while time.monotonic_ns() <= deadline:  # the loop finds both at once
            pass
        try:
            (await call).close()
        except DeadlineExceeded:  # it looks at its timers first
            assert await next_message(raw) == [3, message[1]]


async def test_an_answer_ends_the_deadlines_timer() -> None:
    async with both_ends() as (one, _):
        deadline = soon()
        assert await one.connection.request("m", (1,), deadline) == [1]
        while time.monotonic_ns() <= deadline:
            await turns_of_the_loop(1)
        assert await one.connection.request("m", (2,)) == [2]


# Closing


async def test_after_closing_new_calls_fail_and_those_in_flight_are_answered() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        in_flight = end.call("m")
        message = await next_message(raw)
        in_line = end.call("m")
        await turns_of_the_loop()
        raw.send(wire(5, "going home"))
        await raises(Unavailable, in_line, "takes no new requests: going home")
        await raises(Unavailable, end.connection.request("m", ()))
        await raises(Unavailable, end.connection.send_notify("m", ()))
        raw.send(wire(1, message[1], None, "answer"))
        assert await in_flight == "answer"
        await raises(Unavailable, end.connection.request("m", ()))


async def test_a_connection_that_ends_after_closing_tells_what_was_said() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        raw.send(wire(5, "going home"))
        raw.close()
        await raises(ConnectionLost, call, "the other side had said: going home")


async def test_a_reason_is_shown_on_one_short_line_and_is_whole_in_an_attribute() -> None:
    reason = "gone\n2038-01-19 CRITICAL\x1b[2J" + "x" * 60_000
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        raw.send(wire(5, reason))
        await comes_true(lambda: end.connection._session.closing_received is not None)
        unavailable = await raises(Unavailable, end.connection.request("m", ()), r"requests: gone\\n2038")
        raw.close()
        lost = await raises(ConnectionLost, call, r"had said: gone\\n2038")
        for error in (unavailable, lost):
            assert error.reason == reason
            assert len("".join(traceback.format_exception(error))) < 5_000
            assert "\x1b" not in repr(error) + str(error)


async def test_who_says_closing_says_it_once_and_refuses_what_comes() -> None:
    async with one_end() as (end, raw):
        end.connection.send_closing("full")
        end.connection.send_closing("again")
        assert await next_message(raw) == [5, "full"]
        raw.send(wire(0, 1, "m", []))
        assert (await next_message(raw))[:3] == [1, 1, ["rpc.Unavailable", "this side takes no new requests", None]]
        assert end.handler.requests == []


async def test_a_lost_connection_fails_its_calls_at_once_and_says_so_to_later_ones() -> None:
    async with one_end() as (end, raw):
        calls = [end.call("m") for _ in range(3)]
        await next_message(raw)
        raw.close()
        errors = [await raises(ConnectionLost, call) for call in calls]
        assert len({id(error) for error in errors}) == 3
        later = [await raises(ConnectionLost, end.connection.request("m", ())) for _ in range(2)]
        assert later[0] is not later[1]
        assert str(later[0]) == str(errors[0])
        assert isinstance(later[0].__cause__, ConnectionResetError)
        end.connection.send_result(1, None)  # answers go nowhere, quietly
        end.connection.send_error(1, "x.y", "")
        end.connection.send_closing("too late")
        assert end.connection.closed


async def test_a_call_that_is_cancelled_as_the_connection_ends_is_cancelled() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        end.transport.abort()
        call.cancel()
        await raises(asyncio.CancelledError, call)


async def test_close_ends_calls_both_ways() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))
        await end.connection.close()
        await raises(ConnectionLost, call, "closed on this side")
        assert end.handler.lost == 1
        await raises(ConnectionLost, end.connection.request("m", ()), "closed on this side")
        await end.connection.close()
        assert len(await receive_to_the_end(raw)) == 1


async def test_close_sends_what_is_unsent_if_it_is_taken_in_time() -> None:
    async with one_end() as (end, raw):
        end.jam()
        end.connection.send_result(1, "last")
        closing = asyncio.create_task(end.connection.close())
        assert await next_message(raw) == [1, 1, None, "last"]
        await closing
        assert await receive(raw) == b""


async def test_close_does_not_wait_longer_than_its_time_out() -> None:
    async with one_end(Limits(close_timeout=0.02)) as (end, _raw):
        end.jam()
        await end.connection.close()
        assert end.connection.closed


async def test_close_that_is_cancelled_goes_on() -> None:
    async with one_end(Limits(close_timeout=0.02)) as (end, _raw):
        end.jam()
        closing = asyncio.create_task(end.connection.close())
        await turns_of_the_loop()
        closing.cancel()
        await raises(asyncio.CancelledError, closing)
        assert not end.connection.closed
        await end.connection.wait_closed()


# Malformed packets

MALFORMED = {
    "no value": b"\xc1",
    "a cut value": b"\x94\x00\x01",
    "bytes left over": wire(9) + b"\x00",
    "no array": wire()[:0] + b"\x2a",
    "an empty array": b"\x90",
    "a kind that is no number": b"\x91\xa1x",
    "a negative kind": b"\x91\xff",
    "a request of three": wire(0, 1, "m"),
    "an id that is no number": wire(0, "1", "m", []),
    "an id of 33 bits": wire(0, 2**32, "m", []),
    "a method that is no string": wire(0, 1, 2, []),
    "params that are no array": wire(0, 1, "m", "x"),
    "keys that are no strings": wire(0, 1, "m", {1: 2}),
    "options that are no map": wire(0, 1, "m", [], []),
    "a deadline that is no number": wire(0, 1, "m", [], {"deadline": "now"}),
    "a notify of two": wire(2, "m"),
    "a response with both": wire(1, 0, ["a.b", "", None], 1),
    "a response whose error is a string": wire(1, 0, "error", None),
    "a cancel of nothing": wire(3),
    "a spilled message": wire(4, 10),
    "a closing without a reason": wire(5),
    "too deep": b"\x91" * 70 + b"\x90",
    "a descriptor that did not come": b"\x94\x00\x01\xa1m\x91\xd4\x01\x05",
    "an unknown extension": b"\x94\x00\x01\xa1m\x91\xd4\x07\x00",
}


@pytest.mark.parametrize("attached", [0, 2], ids=["bare", "with_descriptors"])
@pytest.mark.parametrize("packet", MALFORMED.values(), ids=[name.replace(" ", "_") for name in MALFORMED])
async def test_a_malformed_packet_is_answered_with_closing_and_ends_the_connection(
    packet: bytes, attached: int
) -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        with files(attached) as fds:
            send_with(raw, packet, [fd.fileno() for fd in fds])
        kind, reason = await next_message(raw)
        assert kind == 5
        assert await receive(raw) == b""
        error = await raises(ConnectionLost, call)
        assert isinstance(error.__cause__, RemoteProtocolError)
        assert reason == str(error.__cause__)
        assert end.handler.requests == []


async def test_a_descriptor_that_nothing_refers_to_is_malformed(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        send_with(raw, wire(0, 1, "m", []), pipe)
        assert "1 descriptors came" not in (reason := (await next_message(raw))[1])
        assert "2 descriptors came, 0 of them are referred to" in reason
        await end.connection.wait_closed()


async def test_an_id_that_is_in_flight_is_malformed() -> None:
    async with one_end() as (end, raw):
        raw.send(wire(0, 1, "m", []))
        raw.send(wire(0, 1, "m", []))
        assert "in flight already" in (await next_message(raw))[1]
        await end.connection.wait_closed()
        assert len(end.handler.requests) == 1


async def test_an_oversized_packet_is_malformed() -> None:
    async with one_end() as (end, raw):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        raw.send(b"x" * 70_000)
        assert await next_message(raw) == [5, "a packet has at most 65536 bytes, this one 70000 or more"]
        await end.connection.wait_closed()


async def test_what_nobody_asked_for_and_unknown_kinds_are_ignored(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        send_with(raw, wire(1, 5, None, [Lender(), Lender()]), pipe)
        send_with(raw, wire(6, [Lender(), Lender()]), pipe)
        send_with(raw, wire(100), pipe)
        raw.send(wire(3, 9))
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))
        assert not end.connection.closed


# Descriptors that get lost


async def lose_descriptors(end: End, raw: socket.socket, message: bytes) -> None:
    """Send a message with two descriptors that will not arrive."""
    with files(2) as fds:
        end.transport.pause_reading()
        send_with(raw, message, [fd.fileno() for fd in fds])
        with table_full():
            end.transport.resume_reading()
            while True:
                try:
                    raw_unread = end.sock.recv(1, socket.MSG_PEEK)
                except (BlockingIOError, OSError):
                    return
                assert raw_unread
                await turns_of_the_loop(1)


async def test_a_request_that_lost_descriptors_is_answered_so_and_the_connection_lives_on() -> None:
    async with one_end() as (end, raw):
        await lose_descriptors(end, raw, wire(0, 1, "m", [Lender(), Lender()]))
        assert (await next_message(raw))[:2] == [1, 1]
        await lose_descriptors(end, raw, wire(2, "m", [Lender(), Lender()]))
        await lose_descriptors(end, raw, wire(9))
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))
        assert [request.params for request in end.handler.requests] == [[]]


async def test_an_answer_that_lost_descriptors_fails_its_call() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        message = await next_message(raw)
        await lose_descriptors(end, raw, wire(1, message[1], None, [Lender(), Lender()]))
        await raises(DescriptorsLost, call)
        assert not end.connection.closed


async def test_an_answer_that_lost_descriptors_to_a_call_given_up_lets_the_next_one_go() -> None:
    async with one_end(Limits(max_calls_in_flight=1)) as (end, raw):
        call = end.call("m")
        end.call("m", "after")
        message = await next_message(raw)
        call.cancel()
        await raises(asyncio.CancelledError, call)
        await next_message(raw)
        await lose_descriptors(end, raw, wire(1, message[1], None, [Lender(), Lender()]))
        assert (await next_message(raw))[3] == ["after"]


async def test_an_answer_that_lost_descriptors_together_with_the_cancellation_is_ignored() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        message = await next_message(raw)
        call.cancel()
        assert end.connection.descriptors_lost(wire(1, message[1], None, None), None)
        await raises(asyncio.CancelledError, call)


async def test_a_packet_that_lost_descriptors_may_be_malformed_too() -> None:
    async with one_end() as (end, raw):
        await lose_descriptors(end, raw, b"\xc1")
        assert (await next_message(raw))[0] == 5
        await end.connection.wait_closed()


# Peers that ask more than they read


async def test_calls_beyond_the_bound_of_this_side_are_refused() -> None:
    async with one_end(Limits(max_calls_in_flight=2)) as (end, raw):
        for call_id in range(3):
            raw.send(wire(0, call_id, "m", []))
        answer = await next_message(raw)
        assert answer[1] == 2
        assert answer[2][0] == "rpc.Overloaded"
        assert [request.call_id for request in end.handler.requests] == [0, 1]


@pytest.mark.parametrize("refused", [False, True])
async def test_a_peer_that_does_not_read_its_answers_is_not_read_from(refused: bool) -> None:
    async with one_end() as (end, raw):
        if refused:
            end.connection.send_closing("no more")
        else:
            end.handler.on_request = end.handler.echo
        end.jam()
        raw.send(wire(2, "m", []))
        await turns_of_the_loop()
        assert end.transport.is_reading(), "that one wants no answer"
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: not end.transport.is_reading())
        for call_id in range(2, 20):
            raw.send(wire(0, call_id, "m", []))
        await turns_of_the_loop()
        queued = end.transport.get_write_buffer_packets()
        assert end.connection._session.requests == set()

        answers: list[int] = []
        while len(answers) < 19:  # it reads again, and is read from again
            message = await next_message(raw)
            if message[0] == 1:
                answers.append(message[1])
        assert answers == list(range(1, 20))
        assert end.transport.is_reading()
        assert queued <= 4


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_peer_that_owes_answers_itself_is_cut_off_once_it_leaves_too_many_unread(given_up: bool) -> None:
    async with one_end(Limits(max_unsent_bytes=200_000, max_message_bytes=65_536)) as (end, raw):
        end.handler.on_request = end.handler.echo
        call = end.call("m")
        await next_message(raw)
        if given_up:
            call.cancel()
        await turns_of_the_loop()
        end.jam()
        for call_id in range(500):  # the large answers are bounded, and so are the short refusals that follow them
            assert end.transport.is_reading()
            raw.send(wire(0, call_id, "m", [b"x" * 60_000]))
            await turns_of_the_loop()
            if end.connection.closed:
                break
        assert end.connection.closed
        if not given_up:
            await raises(ConnectionLost, call, r"left \d+ bytes of answers unread")


@pytest.mark.parametrize("how", ["pipe", "reset"])
@pytest.mark.parametrize("refused", [False, True])
async def test_a_peer_that_dies_with_answers_unread_and_requests_unanswered_is_lost(how: str, refused: bool) -> None:
    async with one_end() as (end, raw):
        end.handler.on_request = end.handler.echo
        if refused:
            end.connection.send_closing("no more")
        end.jam()
        assert end.transport.is_reading()
        waiting = end.call("m")
        await turns_of_the_loop()
        for _ in range(70):  # more than a wake-up: what comes last is read when nothing can be sent any more
            raw.send(wire(99))
        raw.send(wire(0, 1, "m", []))
        if how == "pipe":
            raw.shutdown(socket.SHUT_RD)
            end.transport._write_ready()
        else:
            raw.close()
        await comes_true(lambda: end.connection.closed)
        await raises(ConnectionLost, waiting)
        assert len(end.handler.requests) == (not refused), "what came before is read"


# Messages longer than a packet

LARGE = b"x" * 200_000
SMALL_LIMIT = Limits(max_message_bytes=100_000)


async def next_with_files(raw: socket.socket) -> tuple[Any, list[OwnedFd]]:
    """Return the next message that does not only fill the socket, and its descriptors."""
    while True:
        await readable(raw)
        data, numbers, _flags, _address = socket.recv_fds(raw, 65_536, 253)
        if data != b"x" * 1000:
            return unwire(data), [OwnedFd(number) for number in numbers]


def spilled_in(file: OwnedFd, fds: Sequence[OwnedFd] = ()) -> Any:
    """Return the message in a memory file."""
    value, problem = Codec().decode(os.pread(file.fileno(), 1_000_000, 0), list(fds))
    assert problem is None
    return value


async def test_large_calls_answers_and_notifies_pass_both_ways(pipe: tuple[int, int]) -> None:
    async with both_ends() as ends:
        for here, there in (ends, ends[::-1]):
            assert await here.connection.request("m", (LARGE,)) == [LARGE]
            there.handler.on_request = lambda _request: None
            await here.connection.send_notify("n", (LARGE, Lender(pipe[0])))
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
        other.connection.send_result(request.call_id or 0, request.params)
        answer = await call
        assert answer[0] == LARGE
        assert same_files(answer[1:], pipe)
        close_all(answer[1:])


async def test_a_large_message_is_a_memory_file_and_a_packet_that_tells_its_id() -> None:
    async with one_end() as (end, raw):
        end.call("m", LARGE)
        await turns_of_the_loop()
        await end.connection.send_notify("n", (LARGE,))
        end.connection.send_result(7, LARGE)
        end.connection.send_error(8, "a.b", "text", LARGE)
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
        assert await one.connection.request("m", (b"x" * 60_000,)) == [b"x" * 60_000]


async def test_large_messages_wait_their_turn_in_the_queue(pipe: tuple[int, int]) -> None:
    async with one_end() as (end, raw):
        fill(end.sock)
        end.call("m", LARGE, Lender(pipe[0]))
        await turns_of_the_loop()
        end.connection.send_result(7, [LARGE, Lender(pipe[1])])
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
                TooLarge, one.connection.request("m", (LARGE,)), r"at most 100000 bytes.*this one 2000"
            )
            assert error.remote
            assert await one.connection.request("m", (1,)) == [1]
        assert len(other.handler.requests) == 3
        assert not other.connection._session.requests


async def test_an_answer_over_this_sides_limit_is_too_large_and_the_next_call_works() -> None:
    async with both_ends(SMALL_LIMIT) as (one, other):
        other.connection._session._codec._max_bytes = 1_000_000  # it sends more than this side takes
        other.handler.on_request = lambda request: tell_nothing(
            other.connection.send_result(request.call_id or 0, LARGE if request.params else 1)
        )
        for _ in range(3):
            await raises(TooLarge, one.connection.request("m", (1,)), "at most 100000 bytes")
            assert await one.connection.request("m", ()) == 1
        await raises(TooLarge, other.connection.request("m", (LARGE,)))
        assert not one.connection.closed


def tell_nothing(_result: object) -> None:
    """Take what a handler's function must not return."""


async def test_an_answer_over_the_answerers_own_limit_is_the_answerers_to_deal_with() -> None:
    async with one_end(SMALL_LIMIT) as (end, raw):
        raw.send(wire(0, 7, "m", []))
        await comes_true(lambda: bool(end.handler.requests))
        with pytest.raises(TooLarge, match="max_message_bytes"):
            end.connection.send_result(7, LARGE)
        end.connection.send_error(7, "a.b", "text", LARGE)  # what cannot be sent of an error is left out
        assert await next_message(raw) == [1, 7, ["a.b", "text", None], None]


async def test_a_notify_over_the_limit_ends_the_connection_for_nobody_can_be_told() -> None:
    async with both_ends(others=SMALL_LIMIT) as (one, other):
        await one.connection.send_notify("m", (LARGE,))
        await raises((Unavailable, ConnectionLost), one.connection.request("m", ()), "at most 100000 bytes")
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
        await raises(PermissionDenied, end.connection.request("m", (LARGE,)), "nor messages of more than 65536 bytes")
        end.connection.send_result(1, LARGE)
        assert await next_message(raw) == [1, 1, ["rpc.PermissionDenied", TAKES_NONE, None], None]
        fill(end.sock)
        queued = end.call("m", LARGE)
        end.connection.send_result(2, LARGE)
        assert await next_message(raw) == [1, 2, ["rpc.PermissionDenied", TAKES_NONE, None], None]
        await raises(PermissionDenied, queued)
        assert not end.connection._session.calls


async def test_a_large_message_that_no_memory_file_can_be_made_for_fails_alone() -> None:
    async with one_end() as (end, raw):
        with table_full():
            error = await raises(Overloaded, end.connection.request("m", (LARGE,)), "Too many open files")
            end.connection.send_result(1, LARGE)
        assert error.remote, "in a handler that does not expect it it would be the handler's answer"
        message = await next_message(raw)
        assert message[:2] == [1, 1]
        assert message[2][0] == "rpc.Overloaded"
        assert "Too many open files" in message[2][1]


async def test_a_large_message_that_may_be_in_no_file_is_too_large(caplog: pytest.LogCaptureFixture) -> None:
    async with one_end() as (end, raw):
        with files_of_at_most(100_000):
            await raises(TooLarge, end.connection.request("m", (LARGE,)), "File too large")
            end.connection.send_result(1, LARGE)
            fill(end.sock)
            queued = end.call("m", LARGE)
            end.connection.send_result(2, LARGE)
            await raises(TooLarge, queued)
        text = "no memory file may be as large as the message: File too large"
        assert await next_message(raw) == [1, 1, ["rpc.TooLarge", text, None], None]
        assert (await next_message(raw))[:3] == [1, 2, ["rpc.TooLarge", text, None]]
        assert not end.connection._session.calls
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


# What is made for a message, and hears what becomes of it


class Told:
    """An export that remembers what it was told."""

    ext_type = EXT_STREAM

    def __init__(self) -> None:
        self.told: list[str] = []

    def fileno(self) -> int:
        return 0

    def sent(self) -> None:
        self.told.append("sent")

    def unsent(self) -> None:
        self.told.append("unsent")

    def given_up(self) -> None:
        self.told.append("given up")


class Exporting(Handles):
    """Knows these exports."""

    def travels(self, value: Any) -> bool:
        return isinstance(value, Told)

    def export(self, value: Any) -> Export | None:
        return value if isinstance(value, Told) else None


async def _send(end: End, way: str, *values: Any) -> None:
    """Send values in one of the ways."""
    if way == "call":
        calling = asyncio.create_task(end.connection.request("m", values))
        await turns_of_the_loop()
        if calling.done():
            calling.result()
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    elif way == "notify":
        await end.connection.send_notify("m", values)
    elif way == "answer":
        end.connection.send_result(1, values)
    else:
        end.connection.send_error(1, "a.b", "text", values)


WAYS = pytest.mark.parametrize("way", ["call", "notify", "answer", "error"])


def not_sent(way: str) -> list[str]:
    """Return what an export hears: what is in arguments stays the caller's, what is in answers was given away."""
    return ["unsent"] if way in ("call", "notify") else ["given up"]


@WAYS
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("queued", [False, True], ids=["at_once", "queued"])
async def test_exports_hear_that_they_are_sent(way: str, large: bool, queued: bool) -> None:
    async with one_end(living=Exporting()) as (end, _raw):
        if queued:
            fill(end.sock)
        exports = [Told(), Told()]
        await _send(end, way, *exports, LARGE if large else b"")
        assert [export.told for export in exports] == [["sent"], ["sent"]]


@WAYS
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_exports_hear_that_they_are_not_sent_to_who_takes_no_descriptors(way: str, large: bool) -> None:
    async with one_end(living=Exporting()) as (end, raw):
        refuse_descriptors(raw)
        export = Told()
        with pytest.raises(PermissionDenied) if way in ("call", "notify") else contextlib.nullcontext():
            await _send(end, way, export, LARGE if large else b"")
        assert export.told == not_sent(way)


@WAYS
async def test_exports_hear_that_they_are_not_sent_when_the_connection_has_ended(way: str) -> None:
    async with one_end(living=Exporting()) as (end, raw):
        raw.close()
        await end.connection.wait_closed()
        export = Told()
        with pytest.raises(ConnectionLost) if way in ("call", "notify") else contextlib.nullcontext():
            await _send(end, way, export)
        assert export.told == not_sent(way)


@WAYS
async def test_exports_hear_that_they_are_not_sent_with_what_has_no_descriptor(way: str) -> None:
    async with one_end(living=Exporting()) as (end, _raw):
        export = Told()
        with pytest.raises(ValueError, match="BytesIO has no descriptor"):
            await _send(end, way, export, io.BytesIO())
        assert export.told == not_sent(way)


@WAYS
@pytest.mark.parametrize("wrong", [2**70, LARGE], ids=["not_sendable", "over_the_limit"])
async def test_exports_hear_that_they_are_not_sent_with_what_cannot_be_encoded(way: str, wrong: Any) -> None:
    async with one_end(SMALL_LIMIT, Exporting()) as (end, _raw):
        export = Told()
        expected = pytest.raises((LocalProtocolError, TooLarge))
        with contextlib.nullcontext() if way == "error" else expected:
            await _send(end, way, export, wrong)
        assert export.told == not_sent(way)


@WAYS
async def test_exports_hear_that_they_are_not_sent_when_no_descriptor_is_left(way: str) -> None:
    async with one_end(living=Exporting()) as (end, _raw):
        fill(end.sock)
        export = Told()
        with table_full(), pytest.raises(OSError) if way in ("call", "notify") else contextlib.nullcontext():
            await _send(end, way, export)
        assert export.told == not_sent(way)


# Passing the connection on


async def test_a_connection_without_calls_can_be_detached() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        raw.send(wire(1, (await next_message(raw))[1], None, 1))
        assert await call == 1
        sock = end.connection.detach()
        assert sock is end.sock
        assert end.connection.closed
        assert end.handler.lost == 1
        await end.connection.wait_closed()
        await raises(ConnectionLost, end.connection.request("m", ()), "the connection was passed on")
        await raises(ConnectionLost, end.connection.send_notify("m", ()), "the connection was passed on")
        await end.connection.close()
        assert end.connection.detach() is None

        async with served_again(sock) as again:
            raw.send(wire(0, 1, "m", []))
            assert await next_message(raw) == [1, 1, None, []]
            assert len(again.handler.requests) == 1


@asynccontextmanager
async def served_again(sock: socket.socket) -> AsyncIterator[End]:
    """Carry a session of its own on a socket that another had."""
    end = End(sock, DEFAULT_LIMITS)
    end.handler.on_request = end.handler.echo
    yield end
    await end.connection.close()


async def _call_in_flight(end: End, raw: socket.socket) -> None:
    end.call("m")
    await next_message(raw)


async def _call_given_up(end: End, raw: socket.socket) -> None:
    call = end.call("m")
    await next_message(raw)
    call.cancel()
    await raises(asyncio.CancelledError, call)


async def _request_unanswered(end: End, raw: socket.socket) -> None:
    raw.send(wire(0, 1, "m", []))
    await comes_true(lambda: bool(end.handler.requests))


async def _closing_received(end: End, raw: socket.socket) -> None:
    raw.send(wire(5, "going home"))
    await comes_true(lambda: end.connection._session.closing_received is not None)


async def _packets_wait(end: End, raw: socket.socket) -> None:
    fill(end.sock)
    await end.connection.send_notify("m", ())


@pytest.mark.parametrize(
    "busy", [_call_in_flight, _call_given_up, _request_unanswered, _closing_received, _packets_wait]
)
async def test_a_connection_in_use_is_not_detached(
    busy: Callable[[End, socket.socket], Coroutine[Any, Any, None]],
) -> None:
    async with one_end() as (end, raw):
        await busy(end, raw)
        assert end.connection.detach() is None
        assert not end.connection.closed
        assert end.transport.is_reading()


# Dropping the connection


async def test_a_connection_can_be_abandoned_in_its_loop() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        end.connection.abandon()
        await raises(ConnectionLost, call, "closed on this side")
        assert await receive(raw) == b""
        end.connection.abandon()
        await end.connection.wait_closed()


async def test_a_connection_can_be_abandoned_in_another_thread() -> None:
    async with one_end() as (end, raw):
        call = end.call("m")
        await next_message(raw)
        await asyncio.to_thread(end.connection.abandon)
        await raises(ConnectionLost, call, "closed on this side")
        assert await receive(raw) == b""


async def test_a_connection_can_be_abandoned_in_the_loop_of_another_thread() -> None:
    async with one_end() as (end, raw):

        async def abandon() -> None:
            end.connection.abandon()

        await asyncio.to_thread(asyncio.run, abandon())
        assert await receive(raw) == b""
        await end.connection.wait_closed()


async def _made() -> tuple[End, socket.socket]:
    ours, theirs = raw_pair()
    return End(ours, DEFAULT_LIMITS), theirs


NEW_LOOPS = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@NEW_LOOPS
def test_a_connection_can_be_abandoned_after_its_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop = new_loop()
    end, raw = loop.run_until_complete(_made())
    loop.close()
    end.connection.abandon()
    assert raw.recv(1) == b""
    raw.close()


@NEW_LOOPS
def test_a_connection_can_be_abandoned_while_its_loop_rests(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop = new_loop()
    end, raw = loop.run_until_complete(_made())
    number = end.sock.fileno()
    end.connection.abandon()
    assert raw.recv(1) == b""

    async def go_on() -> None:
        await end.connection.wait_closed()
        others = [raw_pair() for _ in range(3)]  # one of them has the number now
        assert number in {sock.fileno() for pair in others for sock in pair}
        for one, other in others:
            one.send(b"x")
            other.send(b"x")
            assert await receive(one) == b"x"
            await readable(other)
            assert await receive(other) == b"x"
            one.close()
            other.close()

    loop.run_until_complete(go_on())
    loop.close()
    raw.close()


# Packets that the kernel refuses


TAKES_NONE = "the other side takes no descriptors, nor messages of more than 65536 bytes"


def refuse_descriptors(sock: socket.socket) -> None:
    if not PLATFORM.refuse_descriptors(sock):
        pytest.skip("this kernel cannot refuse descriptors")


async def test_a_call_with_descriptors_to_who_takes_none_is_refused() -> None:
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        await raises(PermissionDenied, end.connection.request("m", (Lender(),)), "takes no descriptors")
        await raises(PermissionDenied, end.connection.send_notify("m", (Lender(),)), "takes no descriptors")
        assert not end.connection._session.calls
        end.call("m")
        assert (await next_message(raw))[2] == "m"


async def queue_calls(end: End, raw: socket.socket) -> list[asyncio.Task[Any]]:
    """Return calls, and a NOTIFY, with descriptors that wait to be sent and will be refused."""
    refuse_descriptors(raw)
    fill(end.sock)
    calls = [end.call("m", Lender()), end.call("given up", Lender())]
    calls.append(asyncio.create_task(end.connection.send_notify("m", (Lender(),))))
    await comes_true(lambda: end.transport.get_write_buffer_packets() == 3)
    return calls


async def test_a_queued_call_that_is_refused_fails_and_the_connection_lives_on() -> None:
    async with one_end(Limits(max_calls_in_flight=2)) as (end, raw):
        calls = await queue_calls(end, raw)
        calls[1].cancel()
        await raises(asyncio.CancelledError, calls[1])
        await calls[2]
        after = [end.call("after"), end.call("after")]
        assert (await next_message(raw))[0] == 3, "the cancel of what never left is all that comes of it"
        await raises(PermissionDenied, calls[0], "takes no descriptors")
        assert [(await next_message(raw))[2] for _ in after] == ["after", "after"]
        assert not end.connection._session.given_up
        for call in after:
            call.cancel()


async def test_an_answer_with_descriptors_to_who_takes_none_becomes_an_error() -> None:
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        end.connection.send_result(1, [Lender()])
        end.connection.send_error(2, "x.y", "text", Lender())
        expected = ["rpc.PermissionDenied", TAKES_NONE, None]
        assert await next_message(raw) == [1, 1, expected, None]
        assert await next_message(raw) == [1, 2, expected, None]


async def test_a_queued_answer_with_descriptors_to_who_takes_none_becomes_an_error() -> None:
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        fill(end.sock)
        end.connection.send_result(1, [Lender()])
        expected = ["rpc.PermissionDenied", TAKES_NONE, None]
        assert await next_message(raw) == [1, 1, expected, None]


async def test_a_queued_answer_that_is_refused_while_the_connection_closes_is_dropped() -> None:
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        fill(end.sock)
        end.connection.send_result(1, [Lender()])
        closing = asyncio.create_task(end.connection.close())
        await turns_of_the_loop()
        assert set(await receive_to_the_end(raw)) == {b"x" * 1000}
        await closing


async def test_an_answer_whose_descriptors_cannot_be_kept_becomes_an_error() -> None:
    async with one_end() as (end, raw):
        fill(end.sock)
        with table_full():
            end.connection.send_result(1, [Lender()])
        message = await next_message(raw)
        assert message[2][0] == "rpc.DescriptorsLost"
        assert "Too many open files" in message[2][1]


async def test_an_answer_with_what_has_no_descriptor_is_the_answerers_fault() -> None:
    async with one_end() as (end, raw):
        with pytest.raises(ValueError, match="BytesIO has no descriptor"):
            end.connection.send_result(1, [io.BytesIO()])
        with pytest.raises(ValueError, match="BytesIO has no descriptor"):
            end.connection.send_error(1, "x.y", "text", io.BytesIO())
        end.connection.send_error(1, "rpc.Internal", "")
        assert await next_message(raw) == [1, 1, ["rpc.Internal", "", None], None]


async def test_an_answer_that_cannot_be_sent_at_all_ends_the_connection() -> None:
    async with one_end() as (end, _raw):
        end.transport.pause_reading()  # libuv ends the process if it meets what comes now
        with files(1) as fds:
            os.dup2(fds[0].fileno(), end.sock.fileno())
        end.connection.send_result(1, None)
        await end.connection.wait_closed()
        error = await raises(ConnectionLost, end.connection.request("m", ()))
        assert error.__cause__.errno == errno.ENOTSOCK


async def test_a_call_that_cannot_be_sent_for_another_reason_raises_it() -> None:
    async with one_end() as (end, _raw):
        fill(end.sock)
        with table_full():
            error = await raises(OSError, end.connection.request("m", (Lender(),)))
        assert error.errno == errno.EMFILE
        assert not end.connection._session.calls


def test_what_the_kernel_says_has_a_name_here() -> None:
    def explain(number: int) -> type[Exception]:
        return type(explain_refusal(OSError(number, os.strerror(number))))

    assert explain(errno.EMSGSIZE) is explain(errno.ENOBUFS) is TooLarge
    assert explain(errno.EPERM) is PermissionDenied
    assert explain(errno.ETOOMANYREFS) is Overloaded
    assert explain(errno.EIO) is OSError


# What was given away and does not arrive


async def test_what_is_given_up_from_another_thread_is_let_go_on_the_loop() -> None:
    async with one_end() as (end, _raw):
        with files(2) as fds:
            here, there = fds
            end.connection.give_up([here])
            assert here.closed
            await asyncio.to_thread(end.connection.give_up, [there])
            await comes_true(lambda: there.closed)


def test_what_is_given_up_when_the_loop_is_closed_lets_go_of_its_descriptors() -> None:
    async def ended() -> SessionConnection:
        async with one_end() as (end, _raw):
            return end.connection

    connection = asyncio.run(ended())
    with files(1) as fds:
        (fd,) = fds
        connection.give_up([fd])
        assert fd.closed


# Answers that nobody reads


async def test_results_that_find_too_much_unread_are_refused_before_they_are_encoded() -> None:
    class Uncodable:
        """Fails whoever encodes it."""

    async with one_end(Limits(max_unsent_bytes=300_000)) as (end, raw):
        for call_id in range(20):
            raw.send(wire(0, call_id, "m", []))
        await comes_true(lambda: len(end.handler.requests) == 20)
        end.jam()
        refused = 0
        for call_id in range(20):
            try:
                end.connection.send_result(call_id, b"x" * 50_000)
            except Overloaded:
                refused += 1
                with pytest.raises(
                    Overloaded, match=r"\d+ bytes of answers are not read yet \(max_unsent_bytes\)$"
                ) as exc:
                    end.connection.send_result(call_id, Uncodable())
                end.connection.send_error(call_id, exc.value.code, exc.value.message)
        assert 0 < refused < 20
        assert end.transport.get_write_buffer_size() < 300_000 + 65_536 + 20 * 200
        answers: dict[int, Any] = {}
        while len(answers) < 20:
            message = await next_message(raw)
            if message[0] == 1:
                answers[message[1]] = message[2]
        assert [error and error[0] for error in answers.values()].count("rpc.Overloaded") == refused
        assert end.connection._session.requests == set()


async def test_nothing_that_is_short_is_refused_for_what_is_unread() -> None:
    async with one_end(Limits(max_unsent_bytes=1)) as (end, raw):
        raw.send(wire(0, 0, "m", []))
        raw.send(wire(0, 1, "m", []))
        raw.send(wire(0, 2, "m", []))
        await comes_true(lambda: len(end.handler.requests) == 3)
        end.jam()
        end.connection.send_result(0, None)
        end.connection.send_error(1, "a.Code", "x" * 10_000, b"x" * 60_000)
        end.connection.send_error(2, "c" * 10_000, "", None)
        answers: list[Any] = []
        while len(answers) < 3:
            message = await next_message(raw)
            if message[0] == 1:
                answers.append(message)
        assert answers == [
            [1, 0, None, None],
            [1, 1, ["a.Code", "x" * 200, None], None],
            [1, 2, ["rpc.Overloaded", "", None], None],
        ]


async def test_errors_are_whole_while_little_is_unread() -> None:
    async with one_end() as (end, raw):
        raw.send(wire(0, 0, "m", []))
        await comes_true(lambda: len(end.handler.requests) == 1)
        end.jam()
        end.connection.send_error(0, "a.Code", "x" * 1_000, [1])
        while (message := await next_message(raw))[0] != 1:
            pass
        assert message == [1, 0, ["a.Code", "x" * 1_000, [1]], None]
