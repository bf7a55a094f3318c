"""Native lanes on real sockets: what they may meet, with the same outcome as without them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
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
from support.commands import environment
from support.daemons import needs_root, raw_client
from support.native import NATIVE
from support.waiting import PATIENCE

import seqrpc
from seqrpc import policy, twin
from seqrpc.aio import lanes
from seqrpc.aio.connection import link_of
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.kernel.linux import SCM_CREDENTIALS
from seqrpc.protocol.messages import Response

needs_native = pytest.mark.skipif(seqrpc.__twin__ == "pure", reason="nothing is native here")


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
    monkeypatch.setattr(twin, "native", None)
    lanes.use_dispatcher(Dispatcher)
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        assert link_of(there).lane is None
        assert await there.call("Desk.echo", 1) == 1


FORKS = """
import asyncio, ctypes, os, sys
import seqrpc
from seqrpc.aio.connection import link_of

class Desk(seqrpc.Service):
    @seqrpc.method
    async def echo(self, value: object) -> object:
        return value

async def main(path):
    async with seqrpc.serve(Desk(), path), seqrpc.connect(path) as there:
        assert await there.call("Desk.echo", 1) == 1
        lane = link_of(there).lane
        child = ctypes.PyDLL(None).fork()
        if child == 0:
            os._exit(0 if lane.call("Desk.echo", [1], None) is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert await there.call("Desk.echo", 2) == 2

asyncio.run(main(sys.argv[1]))
"""


@needs_native
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="later ones do not ask which process this is")
def test_a_child_that_a_library_made_sends_nothing(socket_path: Path) -> None:
    """Python does not notice it; asyncio, which asks at each call, says that no loop runs there."""
    argv = [sys.executable, "-c", FORKS, str(socket_path)]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(), timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_uvloop_need_not_be_there(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        assert await there.call("Desk.echo", 1) == 1


async def test_a_loop_makes_its_own_futures_if_it_has_another_way(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    made: list[asyncio.Future[Any]] = []

    def create_future(self: Any = loop) -> asyncio.Future[Any]:
        made.append(asyncio.Future(loop=loop))
        return made[-1]

    of = type(loop) if type(loop).__module__ == "uvloop" else asyncio.BaseEventLoop
    monkeypatch.setattr(of, "create_future", create_future)
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        made.clear()
        assert await there.call("Desk.echo", 1) == 1
        assert any(isinstance(future.result(), Response) for future in made if future.done())


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


COLLECTED = """
import asyncio, dataclasses, gc, sys
import seqrpc

@dataclasses.dataclass
class Point:
    x: int

class Cleared:
    def __init__(self, found):
        self.found, self.itself = found, self
    def __del__(self):
        self.found.clear()
        kept.append([[0] * 6 for _ in range(300)])

kept = []

class Desk(seqrpc.Service):
    @seqrpc.method
    async def points(self, spoilt: bool) -> object:
        gc.disable()
        points = [Point(number % 100) for number in range(600)]
        if spoilt:
            Cleared(points)
        gc.set_threshold(700)
        gc.enable()
        return points

async def main(path):
    async with seqrpc.serve(Desk(), path), seqrpc.connect(path) as there:
        for spoilt in (False, *[True] * 20):
            assert len(await there.call("Desk.points", spoilt)) in (0, 600)

asyncio.run(main(sys.argv[1]))
"""
"""A handler's result that a finalizer empties while it is written: before 3.12 one may run as a dictionary is made."""


@needs_native
def test_a_result_may_be_emptied_by_a_finalizer_while_it_is_written(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTED, tmp_path / "socket"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


COPIES = "import msgspec; copy = msgspec.Struct.__copy__; msgspec.Struct.__copy__ = lambda self: copy(self)\n"
"""A msgspec whose objects are copied by a function of Python."""

SOCKETS = """
import _socket
class Numbered(_socket.socket):
    def fileno(self):
        return super().fileno()
_socket.SocketType = Numbered
"""
"""Sockets whose number is asked of Python."""

AMISS = {
    "copies": (COPIES, "TypeError: <class 'seqrpc.aio.current.HandledCall'> has no method __copy__ that is built in"),
    "sockets": (SOCKETS, "TypeError: <class '__main__.Numbered'> has no method fileno that is built in"),
}
"""What is done to a process before it loads seqrpc, and what is told of it."""

WITHOUT = """
import asyncio, sys
import seqrpc
class Desk(seqrpc.Service):
    @seqrpc.method
    async def echo(self, value: object) -> object:
        return value

async def main():
    async with seqrpc.serve(Desk(), sys.argv[1]), seqrpc.connect(sys.argv[1]) as there:
        assert await asyncio.gather(*(there.call("Desk.echo", n) for n in range(20))) == [*range(20)]
        from seqrpc.aio.connection import link_of
        assert link_of(there).lane is None

asyncio.run(main())
from seqrpc import twin
print(seqrpc.__twin__, twin.TWIN, twin.REASON, twin.TOLD, sep="\\n")
"""

VERSIONS = "from seqrpc.cli.main import main; import sys; sys.argv[1:] = ['--version']; main()"

SERVING = """
import logging, os, signal, sys
import seqrpc
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
class Desk(seqrpc.Service):
    @seqrpc.method
    async def echo(self, value: object) -> object:
        return value
seqrpc.run(Desk(), sys.argv[1], on_start=lambda _server: os.kill(os.getpid(), signal.SIGTERM))
"""


def printed(program: str, *args: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@needs_native
@pytest.mark.parametrize("what", AMISS)
def test_the_native_one_is_left_out_where_something_is_kept_otherwise(what: str, tmp_path: Path) -> None:
    before, told = AMISS[what]
    reason = f"seqrpc._native cannot be used: {told}"
    assert printed(before + WITHOUT, tmp_path / "s") == ["pure", "pure", reason, f"pure ({reason})"]


@needs_native
def test_the_version_says_so_before_anything_else_is_loaded() -> None:
    assert f"twin: pure (seqrpc._native cannot be used: {AMISS['copies'][1]})" in printed(f"{COPIES}{VERSIONS}")


@needs_native
def test_a_daemon_says_so_once(tmp_path: Path) -> None:
    told = f"twin: pure (seqrpc._native cannot be used: {AMISS['copies'][1]})"
    assert printed(f"{COPIES}{SERVING}", tmp_path / "s") == [f"= serving at {tmp_path / 's'}; {told}"]


BOUND_BEFORE = """
import asyncio, sys
import seqrpc

class Desk(seqrpc.Service):
    @seqrpc.method
    async def echo(self, value: object) -> object:
        return value

async def main():
    async with seqrpc.serve(Desk(), sys.argv[1]), seqrpc.connect(sys.argv[1]) as there:
        from seqrpc import twin
        from seqrpc.aio.connection import link_of
        assert await there.call("Desk.echo", 1) == 1
        assert twin.native is not None and link_of(there).lane is not None
        nothing = dict.fromkeys(NAMES)
        class Link:
            quiet_sweeps = complex.real  # a number, as it stands in memory
        for objects, error in (
            ([], TypeError), ({}, KeyError), (nothing, AttributeError), (nothing | {"Link": Link}, TypeError)
        ):
            try:
                twin.native.bind(objects)
            except error:
                pass
            else:
                raise AssertionError(objects)
            assert await asyncio.gather(*(there.call("Desk.echo", n) for n in range(20))) == [*range(20)]

asyncio.run(main())
"""


@needs_native
def test_what_was_bound_before_goes_on_if_it_cannot_be_bound_anew(tmp_path: Path) -> None:
    names = re.findall(r"\bof\((\w+)\)", (NATIVE / "names.h").read_text())
    assert printed(BOUND_BEFORE.replace("NAMES", repr(names)), tmp_path / "s") == []


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


def test_a_descriptor_that_is_closed_while_a_call_begins_is_not_sent_nor_another_with_its_number(
    socket_path: Path,
) -> None:
    class Counting(seqrpc.Service):
        """Counts what comes."""

        came = 0

        @seqrpc.method
        async def take(self, file: seqrpc.OwnedFd) -> None:
            self.came += 1

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Interrupting)
        service = Counting()
        async with seqrpc.serve(service, socket_path), seqrpc.connect(socket_path) as there:
            with seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY)) as file:
                await there.call("Counting.take", file)
                number = file.fileno()
                opened: list[int] = []

                def replace() -> None:
                    file.close()
                    opened.append(os.open("/", os.O_RDONLY))

                loop.what = replace
                async with asyncio.timeout(PATIENCE):
                    with pytest.raises(ValueError, match="closed"):
                        await there.call("Counting.take", file)
                assert opened == [number]
                os.close(number)
                with seqrpc.OwnedFd(os.open(os.devnull, os.O_RDONLY)) as another:
                    await there.call("Counting.take", another)
                assert service.came == 2

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
