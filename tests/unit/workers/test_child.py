from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import needs_root
from support.descriptors import Lender
from support.plans import planned
from support.processes import OTHER_GID, OTHER_UID, in_child
from support.waiting import PATIENCE
from support.workers import Desk, Refuses, gone_within

import seqrpc
from seqrpc.aio.client import connect_to_process
from seqrpc.calls.plans import argv_of
from seqrpc.calls.workers import MAIN, Origin, Setup, StartFailed, origin_of, setup_for
from seqrpc.kernel.privileges import Restraints
from seqrpc.kernel.processes import Process, start
from seqrpc.limits import Limits
from seqrpc.workers import child
from seqrpc.workers.child import find

PACKAGES = Path(__file__).parents[3]

STDIN = Lender(0)
"""Any descriptor."""


@contextlib.contextmanager
def bare() -> Iterator[tuple[socket.socket, Process]]:
    """Yield a child that was told nothing yet, and the socket by which it is."""
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        process = start(argv_of(planned(Desk)), theirs.fileno(), name="child")
    yield ours, process
    assert gone_within(PATIENCE, [process.pid]), "it ends with its connection"
    assert process.poll()


@contextlib.asynccontextmanager
async def connected(sock: socket.socket, process: Process) -> AsyncIterator[seqrpc.Connection]:
    async with asyncio.timeout(PATIENCE):
        connection = await connect_to_process(sock, process.pid)
        try:
            yield connection
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def told(setup: Setup, *args: Any, **kwargs: Any) -> AsyncIterator[tuple[seqrpc.Connection, Any, Process]]:
    """Yield the connection by which a child is told what it is, the other one, and the child."""
    ours, theirs = seqrpc.socket_pair()
    with bare() as (sock, process):
        async with connected(sock, process) as control:
            with theirs:
                living = asyncio.ensure_future(control.call("seqrpc.Child.live", setup, theirs, list(args), kwargs))
                async with connected(ours, process) as connection:
                    await control.call("rpc.ping")  # the socket has been sent by now
                    theirs.close()
                    yield control, (connection, living), process
            with contextlib.suppress(seqrpc.RpcError):
                await living


def setup(thing: Any, restraints: Restraints | None = None, limits: Limits | None = None) -> Setup:
    where = thing if isinstance(thing, Origin) else origin_of(thing)
    return setup_for(where, Restraints() if restraints is None else restraints, limits or Limits())


async def test_a_child_is_what_it_is_told_until_its_connection_ends() -> None:
    async with told(setup(Desk, limits=Limits(max_message_bytes=100_000)), 3, name="ann") as (control, both, process):
        connection, living = both
        assert await connection.call("Desk.add", 1) == 4
        assert await connection.call("Desk.who") == ["ann", process.pid, os.getpid()]
        assert await control.call("seqrpc.Child.failure") is None
        with pytest.raises(seqrpc.TooLarge):
            await connection.call("Desk.write", "x" * 200_000, "")
        await connection.close()
        assert await living is None
    assert process.returncode == 0


async def test_it_is_told_once() -> None:
    async with told(setup(Desk)) as (control, (connection, _living), _process):
        assert await connection.call("Desk.add", 1) == 1
        with pytest.raises(StartFailed, match="the child has begun already"):
            await control.call("seqrpc.Child.live", setup(Desk), STDIN, [], {})


@pytest.mark.parametrize(
    "what, args, text",
    [
        (setup(Refuses), ("no",), "ValueError: no"),
        (setup(Desk), ("three",), "Expected `int`, got `str`"),
        (setup("support.workers:echo"), (), "TypeError: support.workers:echo is no class of a service"),
        (setup("support.workers:is_alive.nothing"), (), "AttributeError"),
        (setup("support.nothing:Desk"), (), "ModuleNotFoundError"),
        (Setup(origin_of(Desk), Restraints(), sys.path, [], {"no_limit": 1}), (), "TypeError: .*no_limit"),
        (setup(Desk, Restraints(limits=((7, 10, 5),))), (), "ValueError: current limit exceeds maximum limit"),
    ],
)
async def test_what_cannot_begin_says_why(what: Setup, args: tuple[Any, ...], text: str) -> None:
    async with told(what, *args) as (control, (_connection, living), _process):
        with pytest.raises(StartFailed, match=text):
            await living
        failure = await control.call("seqrpc.Child.failure")
        assert "\n" not in failure.strip()
        with pytest.raises(StartFailed, match="has begun already"):
            await control.call("seqrpc.Child.live", setup(Desk), STDIN, [], {})


async def test_it_ends_with_the_connection_of_its_parent_and_not_by_ctrl_c() -> None:
    with bare() as (sock, process):
        async with connected(sock, process) as control:
            await control.call("rpc.ping")
            process.send_signal(signal.SIGINT)
            await control.call("rpc.ping")
    assert process.returncode == 0


def test_nobody_but_its_parent_tells_it_anything() -> None:
    with bare() as (sock, _process), sock:
        sock.settimeout(PATIENCE)
        request = msgpack.packb([0, 0, "seqrpc.Child.failure", []])
        in_child(lambda: sock.send(request))
        kind, number, error, _result = msgpack.unpackb(sock.recv(10_000))
        assert (kind, number) == (1, 0)
        assert "PermissionDenied" in error[0]
        sock.send(request)
        assert msgpack.unpackb(sock.recv(10_000)) == [1, 0, None, None]


@needs_root
async def test_one_that_becomes_somebody_else_has_loaded_what_it_needs_before() -> None:
    who = Restraints(uid=OTHER_UID, gid=OTHER_GID, groups=())
    async with told(setup(Desk, who)) as (_control, (connection, _living), _process):
        assert (await connection.call("Desk.identity"))["uids"] == [OTHER_UID] * 3


def test_all_is_loaded_at_once() -> None:
    child._load_all()
    assert "seqrpc.blocking" in sys.modules


def test_what_is_asked_for_is_found() -> None:
    assert find(Origin("support.workers", "Desk")) is Desk
    assert find(Origin("support.workers", "Desk.add")) is Desk.add
    with pytest.raises(AttributeError):
        find(Origin("support.workers", "Nothing"))
    with pytest.raises(ModuleNotFoundError):
        find(Origin("support.nothing", "Desk"))


PROGRAM = """
from __future__ import annotations
import asyncio, sys, seqrpc

class Item:
    def __init__(self, number: int) -> None:
        self.number = number

class Own(seqrpc.Service):
    def __init__(self, start: Number) -> None:
        self.start = start

    @seqrpc.method
    async def add(self, other: Number) -> list[object]:
        return [self.start + other, sys.argv, __name__, sys.modules["__main__"].Own is type(self)]

Number = int

async def main() -> None:
    async with seqrpc.Worker(Own, 3) as worker:
        print(await worker.proxy(Own).add(4))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["a file", "a module", "a package"])
def test_a_class_in_the_program_itself_is_found_and_the_program_runs_once(how: str, tmp_path: Path) -> None:
    package = tmp_path / "some"
    package.mkdir()
    (package / "program.py").write_text(PROGRAM)
    (package / "__main__.py").write_text(PROGRAM)
    arguments = {
        "a file": [str(package / "program.py")],
        "a module": ["-m", "some.program"],
        "a package": ["-m", "some"],
    }
    ran = subprocess.run(
        [sys.executable, *arguments[how], "argument"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    first = package / ("__main__.py" if how == "a package" else "program.py")
    assert ran.stdout == f"{[7, [str(first), 'argument'], MAIN, True]}\n"


def test_a_program_that_begins_as_it_is_imported_is_told_what_it_lacks(tmp_path: Path) -> None:
    unguarded = PROGRAM.replace('if __name__ == "__main__":', "if True:")
    (tmp_path / "program.py").write_text(unguarded)
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert 'under `if __name__ == "__main__":` alone' in ran.stderr.split("WorkerCrashed: ")[-1]


@pytest.mark.parametrize("by", ["path", "module"])
def test_the_program_is_run_under_another_name_and_kept(by: str, tmp_path: Path) -> None:
    (tmp_path / "own_program.py").write_text("runs = []\nruns.append(__name__)\ndef function():\n    return runs\n")

    def work() -> tuple[list[str], bool]:
        sys.path.insert(0, str(tmp_path))
        where = {"main_module": "own_program"} if by == "module" else {"main_path": str(tmp_path / "own_program.py")}
        function = find(Origin(MAIN, "function", **where))
        again = find(Origin(MAIN, "function", **where))
        return function(), again is function and sys.modules["__main__"].function is function

    assert in_child(work) == ([MAIN], True)


def test_an_interpreter_of_its_own_ends_as_its_parent_does(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, sys, asyncio, seqrpc
        from support.workers import Desk
        async def main():
            worker = seqrpc.Worker(Desk)
            await worker.start()
            print(worker.pid, flush=True)
            os._exit(0)
        asyncio.run(main())
        """
    )
    path = os.pathsep.join([str(PACKAGES), str(PACKAGES / "tests")])
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, check=True
    )
    assert gone_within(PATIENCE, [int(ran.stdout)])


@pytest.mark.parametrize("origin", [Origin(MAIN, "x", main_module="no_such_program"), Origin(MAIN, "x")])
def test_a_program_that_is_nowhere_is_told(origin: Origin) -> None:
    def work() -> str:
        with pytest.raises(ImportError, match="the program's own module cannot be imported here") as caught:
            find(origin)
        return str(caught.value)

    assert str(origin.main_module) in in_child(work)


def test_a_program_that_raises_is_not_taken_for_one_that_was_run(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("raise ValueError('not twice')")

    def work() -> bool:
        for _ in range(2):
            with pytest.raises(ValueError, match="not twice"):
                find(Origin(MAIN, "x", main_path=str(program)))
        return MAIN in sys.modules

    assert in_child(work) is False


async def test_one_that_drains_takes_no_more_and_ends_what_it_has() -> None:
    worker = seqrpc.Worker(Desk)
    await worker.start()
    running = worker._running
    assert running is not None
    numbers = worker.proxy(Desk).count(50_000)
    assert await anext(numbers) == 0
    draining = asyncio.ensure_future(running.drain())
    assert sum([1 async for _ in numbers]) == 49_999
    await draining
    assert worker.returncode == 0


async def test_one_that_is_nothing_yet_has_nothing_to_drain() -> None:
    with bare() as (ours, process):
        async with connected(ours, process) as connection:
            await connection.call("seqrpc.Child.drain")
