"""The asynchronous fixtures, in a small project of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.plugin import new_project, run

ASYNCHRONOUS = """
import pytest
import seqrpc
from calculator import Calculator


async def test_calls(seqrpc_serve, seqrpc_caller):
    ann = await seqrpc_serve(Calculator(), caller=seqrpc_caller(uid=1000))
    bob = await seqrpc_serve(Calculator(), caller=seqrpc_caller(uid=1001))
    assert await ann.proxy(Calculator).add(2, 3) == 5
    with pytest.raises(seqrpc.PermissionDenied):
        await bob.proxy(Calculator).add(2, 3)


async def test_fault(seqrpc_no_leaks, seqrpc_faulty_pair, seqrpc_serve, seqrpc_caller):
    calculator = await seqrpc_serve(Calculator(), pair=seqrpc_faulty_pair, caller=seqrpc_caller(uid=1000))
    seqrpc_faulty_pair.to_client.disconnect()
    with pytest.raises(seqrpc.ConnectionLost):
        await calculator.proxy(Calculator).add(2, 3)
"""


def test_asynchronous_ones_come_with_pytest_asyncio(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    out = run(project, ASYNCHRONOUS, "-o", "asyncio_mode=auto")
    assert "2 passed" in out, out
    out = run(project, ASYNCHRONOUS.replace("async def test", "@pytest.mark.asyncio\nasync def test"))
    assert "2 passed" in out, out


@pytest.mark.parametrize("first", [True, False])
def test_they_come_if_nothing_is_loaded_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = ["-p", "seqrpc.testing.plugin", "-p", "pytest_asyncio.plugin"]
    if not first:
        plugins = plugins[2:] + plugins[:2]
    out = run(new_project(tmp_path), ASYNCHRONOUS, "-o", "asyncio_mode=auto", *plugins)
    assert "2 passed" in out, out
