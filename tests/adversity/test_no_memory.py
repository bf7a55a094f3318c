"""Each allocation in turn fails while a call is made: nothing crashes, nothing is left, and calls work afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.commands import environment
from support.waiting import PATIENCE


def test_what_has_no_memory_leaves_nothing_and_can_be_used_again() -> None:
    testcapi = pytest.importorskip("_testcapi", reason="this Python has nothing that fails allocations")
    assert callable(testcapi.set_nomemory)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "support.memoryless"],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
        env=environment(),
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    connections = int(done.stderr.partition(" ")[0])
    assert connections > 500, done.stderr
