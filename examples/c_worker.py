"""A worker that is no Python: this compiles worker.c, starts it, and calls it like any service.

    python examples/c_worker.py

A worker may be any program that speaks docs/protocol.md at descriptor 3. ``worker.c`` has all that this takes, without
any library. It needs a C compiler, ``cc`` or the one that the variable ``CC`` names.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Protocol

import seqrpc

SOURCE = Path(__file__).with_name("worker.c")


class Adder(Protocol):
    """What worker.c offers."""

    async def add(self, a: int, b: int) -> int:
        """Return the sum."""
        ...


def compiled(directory: str) -> str:
    """Compile the worker, and return its path.

    Raises:
        OSError, subprocess.CalledProcessError: there is no compiler, or it complains.
    """
    program = os.path.join(directory, "worker")
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-Wall", "-Wextra", "-std=c11", "-O2", "-o", program, SOURCE], check=True)  # noqa: S603 - ours
    return program


async def run(program: str) -> None:
    """Start the worker, and call it."""
    async with seqrpc.Worker(command=[program]) as worker:
        adder = worker.proxy(Adder)
        print(f"2 + 3 is {await adder.add(2, 3)}, says process {worker.pid}")
        print(f"by name: {await worker.call('Adder.add', a=-40, b=-2)}")
        print(f"many at a time: {await asyncio.gather(*(adder.add(n, n) for n in range(5)))}")
        for method, args in (("Adder.add", ("two", 3)), ("Adder.subtract", (2, 3))):
            try:
                await worker.call(method, *args)
            except seqrpc.RpcError as exc:
                print(exc)
    print(f"it ended with status {worker.returncode}")


def main() -> None:
    """Compile, and run."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            program = compiled(directory)
        except (OSError, subprocess.CalledProcessError) as exc:
            sys.exit(f"c_worker: {exc}")
        asyncio.run(run(program))


if __name__ == "__main__":
    main()
