from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.daemons import as_user, needs_root, on_a_pair, raw_client
from support.processes import OTHER_GID, OTHER_UID

import seqrpc
from seqrpc import OwnedFd, policy


class Looking(seqrpc.Service):
    def __init__(self) -> None:
        self.calls: list[seqrpc.CurrentCall] = []

    @seqrpc.method
    async def look(self, fd: OwnedFd | None = None) -> list[Any]:
        call = seqrpc.current_call()
        self.calls.append(call)
        return [call.method, call.caller.uid, call.caller.gid, dict(call.meta), call.deadline]

    @seqrpc.method
    def look_from_a_thread(self) -> str:
        return seqrpc.current_call().method

    @seqrpc.method
    async def look_from_elsewhere(self) -> list[str]:
        async def look() -> str:
            return seqrpc.current_call().method

        async with seqrpc.timeout(60):
            with seqrpc.metadata(a="b"):
                inside = seqrpc.current_call().method
        return [
            inside,
            await asyncio.ensure_future(look()),
            await asyncio.to_thread(lambda: seqrpc.current_call().method),
        ]

    @seqrpc.method
    async def groups(self) -> list[int] | None:
        groups = seqrpc.current_call().caller.groups
        return None if groups is None else list(groups)


def test_outside_of_a_handler_there_is_no_call() -> None:
    with pytest.raises(LookupError, match="inside a handler only"):
        seqrpc.current_call()
    with pytest.raises(LookupError), seqrpc.metadata(a="b"):
        seqrpc.current_call()


async def test_a_handler_knows_its_call(pipe: tuple[int, int]) -> None:
    service = Looking()
    async with on_a_pair(service) as connection:
        assert await connection.call("Looking.look") == ["Looking.look", os.getuid(), os.getgid(), {}, None]
        with seqrpc.metadata(trace="1", user="x"):
            async with seqrpc.timeout(60):
                with OwnedFd.dup(pipe[0]) as fd:
                    *_rest, meta, deadline = await connection.call("Looking.look", fd)
        assert meta == {"trace": "1", "user": "x"}
        assert 50 < deadline - time.monotonic() <= 60
        first, second = service.calls
        assert first.connection is second.connection
        assert first is not second


async def test_the_call_is_known_in_threads_and_tasks_of_the_handler() -> None:
    async with on_a_pair(Looking()) as connection:
        assert await connection.call("Looking.look_from_a_thread") == "Looking.look_from_a_thread"
        assert await connection.call("Looking.look_from_elsewhere") == ["Looking.look_from_elsewhere"] * 3


async def test_a_deadline_is_as_it_came_and_metadata_are_not_handed_on() -> None:
    class Middle(seqrpc.Service):
        def __init__(self, upstream: seqrpc.Connection) -> None:
            self.upstream = upstream

        @seqrpc.method
        async def ask(self) -> Any:
            return await self.upstream.call("Looking.look")

    async with on_a_pair(Looking()) as upstream:
        ours, theirs = seqrpc.socket_pair()
        async with seqrpc.serve(Middle(upstream), sock=theirs):
            with raw_client(ours) as client:
                deadline = time.monotonic_ns() + 60 * 10**9
                await client.send(0, 1, "Middle.ask", [], {"deadline": deadline, "meta": {"trace": "1"}})
                *_rest, meta, seen = (await client.receive())[3]
    assert meta == {}
    assert seen == deadline / 1e9, "the third process gets the first one's deadline"


ASK = "sock = connected(argv[0])\nshow([ask(sock, 0, 1, name, []) for name in argv[1:]])"


@needs_root
async def test_the_caller_is_who_connected_with_all_its_groups(socket_path: Path) -> None:
    socket_path.parent.chmod(0o755)
    async with seqrpc.serve(Looking(), socket_path, mode=0o666, allow=policy.uid(OTHER_UID)):
        looked, groups = await as_user(ASK, socket_path, "Looking.look", "Looking.groups", groups=[4, 27])
    assert looked == [None, ["Looking.look", OTHER_UID, OTHER_GID, {}, None]]
    assert groups == [None, [4, 27]]


PAIR = "sock = socket.socket(fileno=int(argv[0]))\nshow([ask(sock, 0, 1, name, []) for name in argv[1:]])"


@needs_root
async def test_on_a_pair_the_caller_is_the_true_sender_never_the_pair_s_maker() -> None:
    for allow, expected in (
        (policy.anyone, [None, ["Looking.look", OTHER_UID, OTHER_GID, {}, None]]),
        (None, [["rpc.PermissionDenied", "Looking.look: this caller is not admitted", None], None]),
    ):
        ours, theirs = seqrpc.socket_pair()
        with theirs:
            async with seqrpc.serve(Looking(), sock=ours, allow=allow):
                number = theirs.fileno()
                (answer,) = await as_user(PAIR, str(number), "Looking.look", pass_fds=[number])
        assert answer == expected


NAMED_PAIR = """
sock = socket.socket(fileno=int(argv[0]))
sock.bind(argv[1])
show("bound")
"""


@needs_root
@pytest.mark.parametrize("serving", [True, False])
async def test_an_end_that_was_given_a_name_does_not_pass_for_the_pair_s_maker(
    serving: bool, socket_path: Path
) -> None:
    """A socket with a name looks as if it had been connected to; its SO_PEERCRED is the maker of the pair, root."""
    import socket

    socket_path.parent.chmod(0o777)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        await as_user(NAMED_PAIR, str(number), socket_path, pass_fds=[number])
        if serving:
            async with seqrpc.serve(Looking(), sock=ours):
                (answer,) = await as_user(PAIR, str(number), "Looking.look", pass_fds=[number])
        else:
            async with seqrpc.connect(sock=ours, services=Looking()):
                (answer,) = await as_user(PAIR, str(number), "Looking.look", pass_fds=[number])
    assert answer[0][0] == "rpc.PermissionDenied"


async def test_a_call_that_was_looked_at_needs_no_garbage_collector() -> None:
    service = Looking()
    async with on_a_pair(service) as connection:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                assert (await connection.call("Looking.look"))[0] == "Looking.look"
                assert await connection.call("Looking.look_from_a_thread") == "Looking.look_from_a_thread"
            service.calls.clear()
            await connection.call("rpc.ping")  # the last handler's task is gone, too
            assert [found for found in gc.get_objects() if isinstance(found, seqrpc.CurrentCall)] == []
        finally:
            gc.enable()
