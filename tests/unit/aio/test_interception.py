"""What interceptors are made of, and what is made where there are none."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from support.daemons import raw_client
from support.interceptors import Audit, Diary

import seqrpc
from seqrpc.aio.caller import Caller
from seqrpc.aio.connection import link_of
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.aio.interception import InterceptedDispatcher
from seqrpc.aio.outgoing import InterceptedCaller

SO_PASSRIGHTS = 83


class Files(seqrpc.Service):
    @seqrpc.method
    async def much(self) -> bytes:
        return b"x" * 50_000

    @seqrpc.method
    async def file(self) -> seqrpc.OwnedFd:
        return seqrpc.OwnedFd.dup(0)


class Asking(seqrpc.Interceptor):
    async def request(self, call: seqrpc.OutgoingCall, proceed: Any) -> Any:
        return await proceed()


@pytest.mark.parametrize(
    "given, dispatcher, caller",
    [
        ([], Dispatcher, Caller),
        ([seqrpc.Interceptor()], Dispatcher, Caller),
        ([Audit], InterceptedDispatcher, Caller),
        ([Asking()], Dispatcher, InterceptedCaller),
        ([Diary("a", [])], InterceptedDispatcher, InterceptedCaller),
    ],
)
async def test_what_nobody_overrides_is_as_without_interceptors(given: list[Any], dispatcher: Any, caller: Any) -> None:
    ours, theirs = seqrpc.socket_pair()
    interceptors = [each() if each is Audit else each for each in given]
    async with (
        seqrpc.connect(sock=ours, interceptors=interceptors) as here,
        seqrpc.connect(sock=theirs),
    ):
        assert type(link_of(here).handler) is dispatcher
        assert type(link_of(here).caller) is caller


class Mistaken(seqrpc.Interceptor):
    async def ended(self, record: seqrpc.CallRecord) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize(
    "given, text",
    [
        ([Audit], r"an object of Audit was expected, got the class: write Audit\(\)"),
        ([Files()], "an object of a seqrpc.Interceptor was expected, got <"),
        ([Mistaken()], "Mistaken.ended"),
        (Audit(), r"interceptors= takes a list of them, got <.*Audit object at .*>: write \[\.\.\.\] around it"),
        (Audit, "interceptors= takes a list of them, got <class "),
    ],
)
async def test_what_is_no_interceptor_is_refused_where_it_is_given(given: Any, text: str, socket_path: Path) -> None:
    with pytest.raises(TypeError, match=text):
        await seqrpc.serve(Files(), socket_path, interceptors=given)
    with pytest.raises(TypeError, match=text):
        await seqrpc.connect(socket_path, interceptors=given)


async def test_an_answer_that_waited_and_that_the_kernel_does_not_take_then_was_told_of_already(
    socket_path: Path,
) -> None:
    audit = Audit()
    limits = seqrpc.Limits(high_water_bytes=5_000_000)  # else requests are not read while answers wait
    async with seqrpc.serve(Files(), socket_path, interceptors=[audit], limits=limits):
        with raw_client(socket_path) as client:
            for number in range(20):
                await client.send(0, number, "Files.much", [])
            await client.send(0, 20, "Files.file", [])
            await audit.wait(21)
            try:
                client.sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
            except OSError:
                pytest.skip("this kernel cannot refuse descriptors")
            answers = {(answer := await client.receive())[1]: answer for _ in range(21)}
            assert answers[20][2][0] == "rpc.DescriptorsLost"
            await client.send(0, 20, "rpc.ping", [])
            assert await client.receive() == [1, 20, None, None]
    assert audit.seen == [*[("Files.much", None)] * 20, ("Files.file", None), ("rpc.ping", None)]
