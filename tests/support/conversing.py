"""Programs that tests run, and what they say."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.waiting import PATIENCE

ROOT = Path(__file__).parents[2]


class Program:
    """A module of tests/support/ that is run as a program, and what it says: a JSON value in each line."""

    def __init__(self, name: str, *args: str) -> None:
        env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-m", f"support.{name}", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
        )
        self._said = b""

    def hear(self, bound: float = PATIENCE) -> Any:
        """Return what it says next; None if it says nothing for so long."""
        assert self.process.stdout is not None
        until = time.monotonic() + bound
        while b"\n" not in self._said:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            data = os.read(self.process.stdout.fileno(), 1 << 20)
            assert data, f"the program has ended, with {self.process.wait(PATIENCE)}"
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return json.loads(line)

    def tell(self, value: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value).encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def program(name: str, *args: str) -> Iterator[Program]:
    """Run a program; it has said that it is ready. At the end of the block it ends."""
    made = Program(name, *args)
    try:
        assert made.hear() == "ready"
        yield made
    finally:
        made.end()
