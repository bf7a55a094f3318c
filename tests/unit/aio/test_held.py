from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.metadata
import inspect
import re
import socket
import subprocess
import sys
import types
from collections.abc import AsyncIterator
from pathlib import Path

import msgpack
import pytest
from support.daemons import Stage
from support.waiting import PATIENCE, turns_of_the_loop

import seqrpc
from seqrpc.aio.held import HeldValues
from seqrpc.aio.living import LivingValues
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import DEFAULT_LIMITS


def imported_names() -> list[str]:
    """Return the names that the face imports, read from its source."""
    assert seqrpc.__file__ is not None
    tree = ast.parse(Path(seqrpc.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [
        alias.asname or alias.name
        for node in imports
        if node.module is not None and node.module.startswith("seqrpc.")
        for alias in node.names
    ]


def test_all_is_sorted_constants_first_then_classes_then_functions() -> None:
    def key(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2), name

    assert list(seqrpc.__all__) == sorted(seqrpc.__all__, key=key)
    assert len(set(seqrpc.__all__)) == len(seqrpc.__all__)


def test_all_is_what_the_face_imports_and_nothing_else() -> None:
    assert sorted(seqrpc.__all__) == sorted(imported_names())


def test_every_error_is_public() -> None:
    from seqrpc import errors

    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined <= set(seqrpc.__all__)


def test_every_policy_is_public() -> None:
    for name in ("same_user", "root", "anyone", "default", "uid", "gid", "group"):
        assert hasattr(seqrpc.policy, name)


@pytest.mark.parametrize("name", [name for name in seqrpc.__all__ if not name.isupper()])
def test_every_public_name_has_a_docstring_of_its_own(name: str) -> None:
    value = getattr(seqrpc, name)
    inherited = [base.__doc__ for base in value.__mro__[1:]] if isinstance(value, type) else []
    assert (value.__doc__ or "").strip()
    assert value.__doc__ not in inherited
    if isinstance(value, type) and not issubclass(value, Exception):
        for attribute, member in vars(value).items():
            if not attribute.startswith("_") and isinstance(member, types.FunctionType | property | classmethod):
                assert inspect.getdoc(member), f"{name}.{attribute} has no docstring"


def test_constants_are_documented_in_their_module() -> None:
    for name in seqrpc.__all__:
        if name.isupper():
            source = inspect.getsource(importlib.import_module(seqrpc._LAZY[name]))
            found = re.search(rf"^{name}(?:: \w+)? = .*\n(.*)$", source, re.MULTILINE)
            assert found is not None
            assert found[1].startswith('"""'), f"{name} has no docstring"


def test_the_version_is_the_distribution_s() -> None:
    assert seqrpc.__version__ == importlib.metadata.version("seqrpc")


def test_the_package_says_that_it_has_types() -> None:
    assert seqrpc.__file__ is not None
    assert Path(seqrpc.__file__).with_name("py.typed").is_file()


def test_importing_seqrpc_imports_no_uvloop_and_starts_nothing() -> None:
    program = """
import sys, threading
import seqrpc
print("uvloop" in sys.modules, threading.active_count())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "1"]


# aio/held.py: what a server keeps alive for others


class Source(seqrpc.Service):
    """Streams and objects, and how far they are."""

    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def count(self, to: int) -> AsyncIterator[int]:
        self.stage.reach("count began")
        try:
            for number in range(to):
                yield number
                await self.stage.wait(f"{number} may go on")
        finally:
            self.stage.reach("count ended")

    @seqrpc.method
    async def fill(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(60_000)
                self.stage.reach("fill began")
        finally:
            self.stage.reach("fill ended")

    @seqrpc.method
    async def stubborn(self) -> AsyncIterator[int]:
        yield 1
        while "stubborn may end" not in self.stage.reached:
            try:
                await self.stage.wait("stubborn may end")
            except asyncio.CancelledError:
                self.stage.reach("stubborn cancelled")

    @seqrpc.method
    async def another(self) -> Source:
        return self

    @seqrpc.method
    async def wait(self) -> str:
        self.stage.reach("wait began")
        await self.stage.wait("wait may go on")
        return "done"

    @seqrpc.method
    async def wait_and_give(self) -> Source:
        self.stage.reach("giving")
        await self.stage.wait("may give")
        return Source()

    @seqrpc.method
    async def wait_and_count(self) -> AsyncIterator[int]:
        await self.stage.wait("may give")
        return self.count(1)

    async def close(self) -> None:
        self.stage.reach("closed")


async def ping_on(connection: seqrpc.Connection) -> None:
    """Call until the server says that it stops, in one of the next turns of the loop."""
    while True:
        await connection.call("rpc.ping")


async def read_all(stream: AsyncIterator[bytes]) -> None:
    async for item in stream:
        assert item == bytes(60_000)


async def test_whoever_waits_for_all_to_have_gone_waits_for_the_last() -> None:
    held, one, two = HeldValues(), object(), object()
    await held.wait_gone()
    held.add(one)  # type: ignore[arg-type] # nothing is done with it
    waiting = asyncio.ensure_future(held.wait_gone())
    await turns_of_the_loop()
    held.add(two)  # type: ignore[arg-type]
    held.remove(one)  # type: ignore[arg-type]
    await turns_of_the_loop()
    assert not waiting.done()
    held.remove(two)  # type: ignore[arg-type]
    held.remove(two)  # type: ignore[arg-type]
    await waiting
    held.remove(two)  # type: ignore[arg-type]


async def test_draining_waits_for_streams_to_be_read_to_their_end() -> None:
    source = Source()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(source, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        stream = connection.proxy(Source).count(3)
        assert await anext(stream) == 0
        draining = asyncio.ensure_future(server.drain())
        for number in (1, 2):
            source.stage.reach(f"{number - 1} may go on")
            assert await anext(stream) == number
            assert not draining.done()
        source.stage.reach("2 may go on")
        assert [number async for number in stream] == []
        async with asyncio.timeout(PATIENCE):
            assert await draining


async def test_a_stream_that_is_not_read_is_given_up_after_the_drain_timeout(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(source, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        stream = connection.proxy(Source).count(3)
        assert await anext(stream) == 0
        full = connection.proxy(Source).fill()
        assert await anext(full) == bytes(60_000)
        assert not await server.drain(0.01)
        assert "still running after the drain timeout" in caplog.text
        assert {"count ended", "fill ended"} <= set(source.stage.reached)
        with pytest.raises(seqrpc.Unavailable, match="the server is stopping"):
            await anext(stream)
        with pytest.raises(seqrpc.Unavailable):  # no room to say so
            await read_all(full)


async def test_draining_refuses_new_calls_on_objects_and_waits_for_those_that_run() -> None:
    source = Source()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(source, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        other = await connection.proxy(Source).another()
        running = asyncio.ensure_future(other.wait())
        await source.stage.wait("wait began")
        draining = asyncio.ensure_future(server.drain())
        with pytest.raises(seqrpc.Unavailable):
            await ping_on(connection)
        with pytest.raises(seqrpc.Unavailable):
            await other.another()
        assert not draining.done()
        source.stage.reach("wait may go on")
        assert await running == "done"
        assert await draining
        assert source.stage.reached.count("closed") == 1


async def test_what_is_given_away_during_a_drain_is_waited_for_and_ends_with_the_server() -> None:
    source = Source()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(source, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        other = await connection.proxy(Source).another()
        opening = asyncio.ensure_future(connection.call("Source.wait_and_count"))
        giving = asyncio.ensure_future(other.wait_and_give())
        await source.stage.wait("giving")
        draining = asyncio.ensure_future(server.drain())
        with pytest.raises(seqrpc.Unavailable):
            await ping_on(connection)
        source.stage.reach("may give")
        stream, given = await opening, await giving
        assert await anext(stream) == 0
        for _ in range(2):
            with pytest.raises(seqrpc.Unavailable):
                await given.wait()
        assert not draining.done()
        source.stage.reach("0 may go on")
        assert [number async for number in stream] == []
        assert await draining


async def test_closing_a_server_ends_its_streams_and_tells_their_readers() -> None:
    source = Source()
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(source, sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        stream = connection.proxy(Source).count(3)
        assert await anext(stream) == 0
        await server.close()
        assert "count ended" in source.stage.reached
        with pytest.raises(seqrpc.Unavailable, match="the server is stopping"):
            await anext(stream)


async def test_a_generator_that_does_not_end_is_left_after_the_close_timeout(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    ours, theirs = seqrpc.socket_pair()
    limits = seqrpc.Limits(close_timeout=0.05)
    async with seqrpc.serve(source, sock=theirs, limits=limits) as server, seqrpc.connect(sock=ours) as connection:
        stream = connection.proxy(Source).stubborn()
        assert await anext(stream) == 1
        await server.close()
        assert "still running 0.05 s after they were cancelled" in caplog.text
        assert "stubborn cancelled" in source.stage.reached
        source.stage.reach("stubborn may end")
        with pytest.raises(seqrpc.Unavailable, match="the server is stopping"):
            await anext(stream)


async def test_what_is_given_away_by_a_stopped_server_ends_at_once() -> None:
    source = Source()
    held = HeldValues()
    living = LivingValues(DEFAULT_LIMITS, held)
    held.stop("the end")
    for value in (source, source.count(3)):
        departure = living.departure_of(value)
        assert departure is not None
        with OwnedFd.dup(departure) as theirs:
            departure.sent()
            assert len(held.living) == 1
            await held.wait_stopped()
            assert held.living == set()
            with socket.socket(fileno=theirs.detach()) as sock:
                sock.settimeout(PATIENCE)
                code, told = msgpack.unpackb(sock.recv(65_536))
                assert (code, told) in [(5, "the end"), (1, ["rpc.Unavailable", "the end", None])]
    assert source.stage.reached == ["closed"]


async def test_what_nobody_got_is_closed_once_at_a_time_and_waited_for() -> None:
    held, stage = HeldValues(), Stage()
    things = [object(), object()]

    async def close(thing: object) -> None:
        await asyncio.sleep(0)
        stage.reach(f"closed {things.index(thing)}")

    for thing in (*things, *things):
        held.end(thing, close)
    await held.wait_stopped()
    assert sorted(stage.reached) == ["closed 0", "closed 1"]
    held.end(things[0], close)
    await held.wait_stopped()
    assert sorted(stage.reached) == ["closed 0", "closed 0", "closed 1"]
