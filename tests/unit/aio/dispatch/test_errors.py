"""What handlers raise, and results that cannot be sent."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest
from support.daemons import on_a_pair, raw_client
from support.dispatch import Everything, Insufficient, Silent
from support.incidents import AN_INCIDENT
from support.waiting import PATIENCE

import seqrpc


async def test_typed_errors_come_back_as_their_class_with_their_data() -> None:
    async with on_a_pair(Everything()) as connection:
        with pytest.raises(Insufficient, match="5 are missing") as caught:
            await connection.call("Everything.fail", "typed")
        assert caught.value.data == {"missing": 5}
        assert caught.value.remote
        with pytest.raises(Silent):
            await connection.call("Everything.fail", "silent")
        with pytest.raises(seqrpc.RpcError, match=r"test\.Number: 5"):
            await connection.call("Everything.fail", "number")
        with pytest.raises(seqrpc.Overloaded, match="come back later"):
            await connection.call("Everything.fail", "own rpc")
        with pytest.raises(Insufficient, match="at another house"):
            await connection.call("Everything.fail", "upstream typed")
        with pytest.raises(seqrpc.RpcError, match="with data") as another:
            await connection.call("Everything.fail", "descriptor in an error")
        assert another.value.code == "test.Data"
        (fd,) = another.value.data
        fd.close()
        with pytest.raises(seqrpc.RpcError, match=r"test\.Data: with data"):
            await connection.call("Everything.fail", "closed descriptor in an error")


@pytest.mark.parametrize(
    "kind, logged",
    [
        ("unforeseen", "RuntimeError: the secret of the house"),
        ("upstream", "rpc.MethodNotFound: at another house"),
        ("upstream takes none", "the other side takes no descriptors"),
        (
            "closed descriptor",
            "ValueError: the result: the descriptor is closed; what a handler returns is given away: ",
        ),
        ("endless", "LocalProtocolError"),
        ("object", "a value of type object cannot be sent"),
    ],
)
async def test_what_was_not_foreseen_is_internal_without_text_and_is_logged_here(
    kind: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_a_pair(Everything()) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await connection.call("Everything.fail", kind)
        assert (caught.value.message, caught.value.data) == (AN_INCIDENT, None)
        assert "Traceback" in caplog.text
        assert logged in caplog.text
        assert await connection.call("Everything.add", 1) == 111


async def test_a_result_that_is_too_large_is_said_to_be() -> None:
    async with on_a_pair(Everything(), limits=seqrpc.Limits(max_message_bytes=100_000)) as connection:
        with pytest.raises(seqrpc.TooLarge, match="100000"):
            await connection.call("Everything.fail", "large")
    async with on_a_pair(Everything()) as connection:
        fd, large = await connection.call("Everything.fail", "large")
        fd.close()
        assert large == b"x" * 200_000


@pytest.mark.parametrize(
    "method, argument, logged",
    [
        ("base", False, "Witness: of the house"),
        ("base", True, "Witness: of the house"),
        ("base_in_thread", False, "a handler raised Witness"),
        ("base_in_thread", True, "a handler raised SystemExit"),
    ],
)
async def test_exceptions_that_are_none_cost_their_call_only(
    method: str, argument: bool, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_a_pair(Everything()) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await asyncio.wait_for(connection.call(f"Everything.{method}", argument), PATIENCE)
        assert caught.value.message == AN_INCIDENT
        assert logged in caplog.text
        assert await connection.call("Everything.add", 1) == 111


@pytest.mark.parametrize("waits", [False, True])
def test_a_coroutine_may_end_the_program_and_its_call_is_answered(waits: bool) -> None:
    class Exit(seqrpc.Service):
        @seqrpc.method
        async def leave(self) -> None:
            if waits:
                await asyncio.sleep(0)
            sys.exit(3)

    async def serve(theirs: socket.socket, ours: socket.socket) -> None:
        async with seqrpc.serve(Exit(), sock=theirs):
            with raw_client(ours) as client:
                await client.send(0, 1, "Exit.leave", [])
                answers.append(await client.receive())
                await asyncio.sleep(PATIENCE)

    answers: list[Any] = []
    ours, theirs = seqrpc.socket_pair()
    kept = ours.dup()
    with kept:
        with pytest.raises(SystemExit):
            asyncio.run(serve(theirs, ours))
        kept.setblocking(False)
        assert answers or b"rpc.Internal" in kept.recv(65536)
