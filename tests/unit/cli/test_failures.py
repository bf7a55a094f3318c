"""Errors as they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.sync import served

import seqrpc
from seqrpc import OwnedFd, blocking
from seqrpc.cli.failures import failure
from seqrpc.errors import RpcError


class NoSuchJob(RpcError, code="failures.NoSuchJob"):
    """There is none."""


@pytest.mark.parametrize(
    "data, text",
    [
        (None, ""),
        ({"number": 3}, '; data: {"number":3}'),
        ([b"hi", "\x1b"], '; data: ["aGk=","\\u001b"]'),
        ({(1, 2): float("nan")}, '; data: {"[1,2]":"nan"}'),
    ],
)
def test_data_are_told(data: Any, text: str) -> None:
    assert failure(NoSuchJob("no job 3", data)) == f"failures.NoSuchJob: no job 3{text}"
    assert failure(ValueError("odd")) == "odd"


def test_files_in_them_are_told_and_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("12")
    with open(tmp_path / "file") as file:
        fd = OwnedFd.dup(file)
    assert failure(NoSuchJob("x", fd)).endswith('; data: {"descriptor":"file","size":2}')
    assert fd.closed
    assert failure(NoSuchJob("x", fd)) == "failures.NoSuchJob: x"


def test_a_stream_in_them_is_not_waited_for(socket_path: Path) -> None:
    class Slow(seqrpc.Service):
        @seqrpc.method
        async def items(self) -> AsyncIterator[int]:
            yield 1

    with served(socket_path, Slow()), blocking.connect(socket_path) as connection:
        assert failure(NoSuchJob("x", connection.call("Slow.items"))) == 'failures.NoSuchJob: x; data: {"stream":true}'
