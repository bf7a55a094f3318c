"""What is loaded when, so that programs start quickly. Time itself is the business of `benchmarks/`."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import seqrpc
import seqrpc.interface

UNAVOIDABLE = "asyncio, msgpack, msgspec"

BESIDES = {
    *("dataclasses", "copy"),  # Limits is one, and dataclasses imports the other
    *("gc", "grp", "mmap", "pwd", "resource", "termios"),  # small, and made in C
}
"""What seqrpc may load besides what asyncio, msgpack and msgspec do. It does without uvloop, ctypes, hashlib, pathlib,
platform and random, which take as long as a fifth of its own modules each, until they are needed, or altogether."""


def modules_after(program: str) -> set[str]:
    """Return the names of the modules that a fresh interpreter has after a program."""
    program = textwrap.dedent(program) + "\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


ALL_BUT_THE_EXECUTOR = f"from seqrpc import {', '.join(sorted({*seqrpc.__all__} - {'WorkerExecutor'}))}"
"""It loads what concurrent.futures does for executors with processes, to raise the same exceptions."""


def test_importing_it_loads_little_besides_asyncio_and_what_knows_the_wire() -> None:
    loaded = modules_after(ALL_BUT_THE_EXECUTOR) - modules_after(f"import {UNAVOIDABLE}")
    others = {name for name in loaded if name.partition(".")[0] != "seqrpc"}
    assert others <= BESIDES


def test_importing_it_leaves_out_modules_of_its_own_that_few_need() -> None:
    loaded = modules_after("from seqrpc import *")
    assert "seqrpc.aio.server" in loaded
    assert not loaded & {"seqrpc.kernel.freebsd", "seqrpc.kernel.systemd"}


def test_declaring_a_service_does_without_asyncio() -> None:
    loaded = modules_after(
        """
        import seqrpc

        class Calculator(seqrpc.Service, allow=seqrpc.policy.anyone):
            @seqrpc.method
            async def add(self, a: int, b: int) -> int:
                return a + b
        """
    )
    assert not loaded & {"asyncio", "msgpack", "ssl"}


INTERFACE = sorted(path.stem for path in Path(seqrpc.interface.__path__[0]).glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", INTERFACE)
def test_what_a_service_is_does_without_asyncio_and_the_wire(name: str) -> None:
    loaded = modules_after(f"import seqrpc.interface.{name}")
    assert f"seqrpc.interface.{name}" in loaded
    assert not loaded & {"asyncio", "msgpack", "ssl"}
    assert not [module for module in loaded if module.startswith("seqrpc.aio")]


def test_a_service_is_described_and_made_ready_without_asyncio() -> None:
    loaded = modules_after(
        """
        from collections.abc import AsyncIterator

        import seqrpc
        from seqrpc.interface.signature import spec_of

        class Files(seqrpc.Service):
            @seqrpc.method
            async def lines(self, file: seqrpc.OwnedFd, longest: int = 80) -> AsyncIterator[str]:
                yield ""

        lines = spec_of(Files).methods["lines"]
        assert lines.description.streams and lines.takes_descriptors
        """
    )
    assert not loaded & {"asyncio", "msgpack", "ssl"}


def test_every_public_name_is_there_when_it_is_asked_for() -> None:
    names = "import seqrpc\nassert set(seqrpc.__all__) <= set(dir(seqrpc))\n"
    names += "[getattr(seqrpc, name) for name in seqrpc.__all__]\n"
    assert "seqrpc.aio.server" in modules_after(names)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'seqrpc' has no attribute 'sever'"):
        seqrpc.sever  # type: ignore[attr-defined] # noqa: B018


def test_a_daemon_may_give_up_the_right_to_read_python_s_files_once_it_serves() -> None:
    loaded = modules_after(
        """
        import asyncio
        import sys
        from collections.abc import AsyncIterator

        import seqrpc

        class Data(seqrpc.Service):
            @seqrpc.method
            async def lent(self) -> seqrpc.Buffer:
                return seqrpc.Buffer.copy_of(b"lent")

            @seqrpc.method
            async def long(self, content: bytes) -> bytes:
                return content

            @seqrpc.method
            async def many(self) -> AsyncIterator[int]:
                yield 1

            @seqrpc.method
            async def wrong(self, number: int) -> None:
                pass

            @seqrpc.method
            def quick(self) -> str:
                return "quick"

        async def main() -> None:
            ours, theirs = seqrpc.socket_pair()
            async with seqrpc.serve(Data(), sock=ours), seqrpc.connect(sock=theirs) as connection:
                sys.meta_path.clear()  # nothing can be imported any more
                data = connection.proxy(Data)
                with await data.lent() as buffer:
                    assert bytes(buffer) == b"lent"
                assert await data.long(b"x" * 100_000) == b"x" * 100_000
                async with data.many() as numbers:
                    assert [number async for number in numbers] == [1]
                assert await data.quick() == "quick"
                try:
                    await connection.call("Data.wrong", "a word")
                except seqrpc.InvalidParams:
                    return
                raise AssertionError("it took a word for a number")

        asyncio.run(main())
        """
    )
    assert "ctypes" in loaded
