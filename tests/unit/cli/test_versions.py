"""What a report of a fault needs."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata

import pytest
from support.commands import seqrpc_command

import seqrpc
from seqrpc.cli.versions import versions


def test_it_tells_what_is_installed_and_which_twin_runs() -> None:
    first, twin, python, *needed, system = versions().splitlines()
    assert first == f"seqrpc {seqrpc.__version__}"
    assert re.fullmatch(rf"twin: {seqrpc.__twin__}(?: \(.+\))?", twin)
    assert python == f"Python {platform.python_version()} ({platform.python_implementation()})"
    assert [line.split()[:2] for line in needed] == [
        [name, metadata.version(name)] for name in ("msgpack", "msgspec", "uvloop", "click", "rich")
    ]
    assert system == f"{os.uname().sysname} {os.uname().release} ({os.uname().machine})"


def test_it_tells_why_the_twin_is_the_pure_one() -> None:
    said = seqrpc_command("--version", env={"SEQRPC_PURE": "1"})
    assert said.out.splitlines()[1] == "twin: pure (SEQRPC_PURE is set)"


def test_it_tells_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    find = metadata.version

    def version(name: str) -> str:
        if name == "rich":
            raise metadata.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(metadata, "version", version)
    assert "\nrich: not installed\n" in versions()


def test_it_tells_that_msgpack_is_without_its_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSGPACK_PUREPYTHON", "1")
    assert f"\nmsgpack {metadata.version('msgpack')} (without its extension)\n" in versions()
