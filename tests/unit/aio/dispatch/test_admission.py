"""Who may call what, asked before anything is converted."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from support.daemons import as_user, needs_root, on_a_pair
from support.dispatch import CONVERTED, Everything
from support.incidents import AN_INCIDENT

import seqrpc
from seqrpc import policy


async def test_arguments_of_a_refused_caller_are_never_converted() -> None:
    CONVERTED.clear()
    async with on_a_pair(Everything(), allow=~policy.anyone) as connection:
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Everything.trace", {"word": "refused"})
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Everything.trace", 5)
    assert CONVERTED == []
    async with on_a_pair(Everything()) as connection:
        assert await connection.call("Everything.trace", {"word": "admitted"}) == "admitted"
    assert CONVERTED == ["admitted"]


@needs_root
async def test_another_user_is_refused_and_its_arguments_are_never_converted(socket_path: Path) -> None:
    CONVERTED.clear()
    socket_path.parent.chmod(0o755)
    program = "sock = connected(argv[0])\nshow([ask(sock, 0, 1, name, [{'word': 'other'}]) for name in argv[1:]])"
    async with seqrpc.serve(Everything(), socket_path, mode=0o666):
        answers = await as_user(program, socket_path, "Everything.trace", "Everything.nothing", "rpc.ping")
    assert [error and error[0] for error, _result in answers] == ["rpc.PermissionDenied", "rpc.PermissionDenied", None]
    assert CONVERTED == []


async def test_a_type_that_explodes_while_it_is_converted_costs_its_call_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with on_a_pair(Everything()) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await connection.call("Everything.trace", {"word": "explode"})
        assert caught.value.message == AN_INCIDENT
        assert "KeyError: 'explode'" in caplog.text
        assert await connection.call("Everything.add", 1) == 111


async def test_refusals_are_logged_with_who_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seqrpc.dispatch")
    async with on_a_pair(Everything(), allow=~policy.anyone) as connection:
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Everything.add", 1)
    assert f"'Everything.add' refused to Credentials(pid={os.getpid()}" in caplog.text
