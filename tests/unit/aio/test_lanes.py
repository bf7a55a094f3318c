"""Native lanes on real sockets: what they may meet, with the same outcome as without them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import struct
import subprocess
import sys
import types
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import needs_root, raw_client
from support.waiting import PATIENCE

import seqrpc
from seqrpc import policy
from seqrpc.aio import lanes
from seqrpc.aio.connection import link_of
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.kernel.linux import SCM_CREDENTIALS


class Desk(seqrpc.Service):
    """Answers what is plain, and what is not."""

    @seqrpc.method
    async def echo(self, value: object) -> object:
        return value


@pytest.mark.parametrize("bound", [math.inf, 1 << 100, 1 << 62], ids=["endless", "long", "large"])
@pytest.mark.parametrize("name", ["max_calls_in_flight", "max_depth", "max_packets_per_wakeup"])
async def test_limits_may_be_as_large_as_one_likes(name: str, bound: Any, socket_path: Path) -> None:
    limits = seqrpc.Limits(**{name: bound})
    async with seqrpc.serve(Desk(), socket_path, limits=limits), seqrpc.connect(socket_path, limits=limits) as there:
        assert await there.call("Desk.echo", [1, {"a": "b"}]) == [1, {"a": "b"}]


async def test_without_anything_native_there_is_no_lane(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "native", None)
    lanes.use_dispatcher(Dispatcher)
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        assert link_of(there).lane is None
        assert await there.call("Desk.echo", 1) == 1


async def test_each_connection_has_a_lane_where_something_is_native(socket_path: Path) -> None:
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        assert (link_of(there).lane is None) is (seqrpc.__twin__ == "pure")
        assert await there.call("Desk.echo", 1) == 1


AGAIN = """
import asyncio, gc, sys
import seqrpc

def serving(package):
    class Desk(package.Service):
        @package.method
        async def echo(self, value: object) -> object:
            await asyncio.sleep(0)
            return value
    return Desk()

async def main(first, second):
    async with seqrpc.serve(serving(seqrpc), first), seqrpc.connect(first) as there:
        assert await there.call("Desk.echo", 1) == 1
        before = {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] == "seqrpc"}
        import seqrpc as again
        async with again.serve(serving(again), second), again.connect(second) as elsewhere:
            for number in range(20):
                calls = [each.call("Desk.echo", number) for each in (there, elsewhere)]
                assert await asyncio.wait_for(asyncio.gather(*calls), 30) == [number, number]
            before.clear()
            gc.collect()

asyncio.run(main(*sys.argv[1:]))
"""


def test_connections_go_on_if_the_package_is_imported_anew(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, tmp_path / "first", tmp_path / "second"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


class Interrupting(asyncio.SelectorEventLoop):
    """A loop that does something in between, as a signal handler or a finalizer may, when it is asked for a future."""

    what: Callable[[], object] | None = None

    def create_future(self) -> asyncio.Future[Any]:
        what, self.what = self.what, None
        if what is not None:
            what()
        return super().create_future()


@types.coroutine
def rest_of(coroutine: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that was begun by hand."""
    with contextlib.closing(coroutine):
        while True:
            yield from awaited
            try:
                awaited = coroutine.send(None)
            except StopIteration as exc:
                return exc.value


def test_a_call_made_while_another_one_begins_has_its_own_answer(socket_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Interrupting)
        async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
            assert await there.call("Desk.echo", "first") == "first"
            inner: list[Any] = []

            def call() -> None:
                coroutine = there.call("Desk.echo", "inner")
                inner.extend([coroutine, coroutine.send(None)])

            loop.what = call
            async with asyncio.timeout(PATIENCE):
                assert await there.call("Desk.echo", "outer") == "outer"
                assert await rest_of(*inner) == "inner"
                assert await there.call("Desk.echo", "last") == "last"

    with asyncio.Runner(loop_factory=Interrupting) as runner:
        runner.run(main())


def test_a_connection_that_is_passed_on_while_a_call_begins_is_not_used(socket_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Interrupting)
        async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
            assert await there.call("Desk.echo", "first") == "first"
            socks: list[Any] = []
            loop.what = lambda: socks.append(link_of(there).detach())
            with pytest.raises(seqrpc.ConnectionLost):
                await there.call("Desk.echo", "outer")
            assert socks[0] is not None
            socks[0].close()

    with asyncio.Runner(loop_factory=Interrupting) as runner:
        runner.run(main())


class Who(seqrpc.Service, allow=policy.anyone):
    """Says who sent a call."""

    @seqrpc.method
    async def am_i(self) -> list[int | None]:
        caller = seqrpc.current_call().caller
        return [caller.uid, caller.gid]

    @seqrpc.method(allow=policy.root)
    async def is_root(self) -> bool:
        return True


@needs_root
async def test_each_packet_has_the_sender_that_it_tells_of(socket_path: Path) -> None:
    async with seqrpc.serve(Who(), socket_path, pass_credentials=True):
        with raw_client(socket_path) as client:
            for number, uid in enumerate([0, 0, 1000, 1000, 0, 4321, 1000, 0] * 3):
                packet = msgpack.packb([0, number, "Who.am_i", []])
                told = (socket.SOL_SOCKET, SCM_CREDENTIALS, struct.pack("iii", os.getpid(), uid, uid + 1))
                client.sock.sendmsg([packet], [told])
                assert await client.receive() == [1, number, None, [uid, uid + 1]]
                client.sock.sendmsg([msgpack.packb([0, number, "Who.is_root", []])], [told])
                answer = await client.receive()
                assert (answer[3] is True) is (uid == 0), answer
