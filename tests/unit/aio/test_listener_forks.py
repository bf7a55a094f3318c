"""A listening server in forked children of its process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from support.processes import in_child
from support.scarcity import table_full
from support.transport import Recorder
from support.waiting import comes_true

import seqrpc
from seqrpc import SeqpacketServer


def attempts(server: SeqpacketServer) -> list[str]:
    """Try everything in a child."""
    tried = []
    for act in (server.start_serving, server.serve_forever, server.wait_closed):
        try:
            asyncio.run(act())
            tried.append("done")
        except seqrpc.WrongProcess as exc:
            tried.append(str(exc).partition(" belongs")[0])
    server._listener.accept_connections()
    server._listener.accept_waiting()
    server.close()
    return tried


async def test_a_copy_of_it_is_closed_and_says_so(socket_path: Path) -> None:
    recorders: list[Recorder] = []

    def factory() -> Recorder:
        recorders.append(Recorder())
        return recorders[-1]

    async with await seqrpc.create_server(factory, socket_path) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(os.fspath(socket_path))  # waits to be accepted, by the parent
            tried, state = in_child(lambda: (attempts(server), (server.sockets, server.is_serving(), len(recorders))))
            assert tried == ["this server", "this server", "done"]
            assert state == ((), False, 0)
            assert server.is_serving()
            client.send(b"hello")
            await comes_true(lambda: len(recorders) == 1)
            await recorders[0].until_packets(1)
            await recorders[0].end()


async def test_leaving_its_block_in_a_fork_does_nothing(socket_path: Path) -> None:
    async with await seqrpc.create_server(Recorder, socket_path) as server:

        def leave() -> None:
            asyncio.run(server.__aexit__(None, None, None))

        in_child(leave)
        assert server.is_serving()
        assert sorted(os.listdir(socket_path.parent)) == ["test.sock", "test.sock.lock"]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("backing_off", [False, True])
def test_a_fork_that_runs_the_same_loop_accepts_nothing(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    backing_off: bool,
    socket_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made: list[Recorder] = []
    errors: list[str] = []

    def factory() -> Recorder:
        made.append(Recorder())
        return made[-1]

    async def begin() -> SeqpacketServer:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(str(context)))
        return await seqrpc.create_server(factory, socket_path)

    async def starve() -> None:
        with table_full():
            await comes_true(lambda: bool(caplog.records))

    async def end() -> None:
        await comes_true(lambda: len(made) == 1)
        await made[0].end()
        server.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        server = runner.run(begin())
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(os.fspath(socket_path))
            if backing_off:
                runner.run(starve())
                assert not server.is_serving()

            def drive() -> tuple[int, list[str], int]:
                caplog.clear()
                runner.run(asyncio.sleep(0.05))  # longer than it looks away
                return len(made), errors, len(caplog.records)

            assert in_child(drive) == (0, [], 0)
            runner.run(end())
    assert errors == []
