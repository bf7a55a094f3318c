"""Calls that the kernel refuses."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

from support.descriptors import Lender, refuse_descriptors
from support.link import End, next_message, one_end, raises
from support.packets import fill
from support.scarcity import table_full
from support.waiting import comes_true

from seqrpc import (
    Overloaded,
    PermissionDenied,
    TooLarge,
)
from seqrpc.calls.outcomes import explain_refusal
from seqrpc.limits import Limits


async def test_a_call_with_descriptors_to_who_takes_none_is_refused() -> None:
    async with one_end() as (end, raw):
        refuse_descriptors(raw)
        await raises(PermissionDenied, end.connection.caller.request("m", (Lender(),)), "takes no descriptors")
        await raises(PermissionDenied, end.connection.caller.send_notify("m", (Lender(),)), "takes no descriptors")
        assert not end.connection.session.calls
        end.call("m")
        assert (await next_message(raw))[2] == "m"


async def queue_calls(end: End, raw: socket.socket) -> list[asyncio.Task[Any]]:
    """Return calls, and a NOTIFY, with descriptors that wait to be sent and will be refused."""
    refuse_descriptors(raw)
    fill(end.sock)
    calls = [end.call("m", Lender()), end.call("given up", Lender())]
    calls.append(asyncio.create_task(end.connection.caller.send_notify("m", (Lender(),))))
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
        assert not end.connection.session.given_up
        for call in after:
            call.cancel()


async def test_a_call_that_cannot_be_sent_for_another_reason_raises_it() -> None:
    async with one_end() as (end, _raw):
        fill(end.sock)
        with table_full():
            error = await raises(OSError, end.connection.caller.request("m", (Lender(),)))
        assert error.errno == errno.EMFILE
        assert not end.connection.session.calls


def test_what_the_kernel_says_has_a_name_here() -> None:
    def explain(number: int) -> type[Exception]:
        return type(explain_refusal(OSError(number, os.strerror(number))))

    assert explain(errno.EMSGSIZE) is explain(errno.ENOBUFS) is TooLarge
    assert explain(errno.EPERM) is PermissionDenied
    assert explain(errno.ETOOMANYREFS) is Overloaded
    assert explain(errno.EIO) is OSError
