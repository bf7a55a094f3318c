"""A served desk, and commands that run in the process of the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import Done
from support.desk import both
from support.sync import served
from support.waiting import PATIENCE

from seqrpc.cli.commands import run


@pytest.fixture(autouse=True)
def _fed() -> Iterator[None]:
    """Wait at the end for threads that produce streams, which close their sockets by themselves."""
    yield
    for thread in threading.enumerate():
        if thread.name == "seqrpc-feeding":
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def desk(socket_path: Path) -> Iterator[Path]:
    """Return where a desk is served."""
    with served(socket_path, both()):
        yield socket_path


@pytest.fixture
def seqrpc_run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return what runs a command here."""

    def do(*args: object) -> Done:
        capfd.readouterr()
        status = run([*map(str, args)])
        out, err = capfd.readouterr()
        return Done(status, out, err)

    return do
