"""What every server answers, whoever asks."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from support.daemons import descriptor, on_a_pair, raw_client
from support.dispatch import CONVERTED, Everything, open_count

import seqrpc
from seqrpc import policy
from seqrpc.aio.server import hub_of


async def test_ping_answers_whoever_asks() -> None:
    async with on_a_pair(Everything(), allow=~policy.anyone) as connection:
        assert await connection.call("rpc.ping") is None
        await connection.notify("rpc.ping")
        assert await connection.call("rpc.ping") is None


async def test_ping_on_the_wire_closes_descriptors(pipe: tuple[int, int]) -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Everything(), sock=theirs):
        before = open_count()
        with raw_client(ours) as client:
            await client.send(0, 1, "rpc.ping", [descriptor(0)], fds=[pipe[0]])
            assert await client.receive() == [1, 1, None, None]
            assert open_count() == before
            await client.send(2, "rpc.ping", [descriptor(0)], fds=[pipe[0]])
            await client.send(0, 2, "rpc.ping", [])
            assert await client.receive() == [1, 2, None, None]
            assert open_count() == before


@pytest.mark.parametrize(
    "rest",
    [
        [["too", "many"]],
        [{"unheard": "of"}],
        [[], {"deadline": 5}],
        [[["x" * 1_000], [0] * 1_000], {"deadline": 5, "meta": {"a": "b"}}],
    ],
    ids=["parameters", "by_name", "a_deadline_that_has_passed", "much"],
)
async def test_what_comes_with_a_ping_is_not_looked_at(rest: list[Any]) -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Everything(), sock=theirs):
        with raw_client(ours) as client:
            await client.send(2, "rpc.ping", *rest)
            await client.send(0, 1, "rpc.ping", *rest)
            assert await client.receive() == [1, 1, None, None]


async def test_whom_the_kernel_does_not_name_is_answered_too_and_nothing_else_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even where a policy of one's own admits him: handlers know who calls."""

    class Trusting(policy.Policy):
        def admits(self, caller: seqrpc.Credentials | None) -> bool:
            asked.append(caller)
            return True

    asked: list[seqrpc.Credentials | None] = []
    CONVERTED.clear()
    caplog.set_level("DEBUG", "seqrpc.dispatch")
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Everything(), sock=theirs, allow=Trusting()):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        with raw_client(ours) as client:
            await client.send(0, 1, "rpc.ping", [])
            assert await client.receive() == [1, 1, None, None]
            refusal = "Everything.trace: this caller is not admitted"
            for params in ([{"word": "said"}], [{"word": "x" * 1_000}]):
                await client.send(0, 2, "Everything.trace", params)
                assert await client.receive() == [1, 2, ["rpc.PermissionDenied", refusal, None], None]
                await client.send(2, "Everything.trace", params)
            await client.send(0, 3, "Everything.nothing", [])
            assert (await client.receive())[2][0] == "rpc.MethodNotFound"
    assert asked == [None] * 5
    assert CONVERTED == []
    assert caplog.text.count(f"a NOTIFY of 'Everything.trace' is dropped: rpc.PermissionDenied: {refusal}") == 2


async def test_who_watches_hears_of_it(socket_path: Path) -> None:
    async with seqrpc.serve(Everything(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        watch = hub_of(server).watches.begin((), None)
        await connection.call("rpc.ping")
        await connection.notify("rpc.ping")
        events = [await watch.next() for _ in range(2)]
        told = [(event.method, event.code, event.refused, event.oneway) for event in events if event is not None]
        assert told == [("rpc.ping", None, False, False), ("rpc.ping", None, False, True)]
        watch.close()
