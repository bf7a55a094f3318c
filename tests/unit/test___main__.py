"""``python -m seqrpc``."""

from __future__ import annotations

from importlib import import_module

from support.commands import seqrpc_command


def test_it_is_the_command_line() -> None:
    assert seqrpc_command("--version").out.startswith("seqrpc ")


def test_to_import_it_does_nothing() -> None:
    assert import_module("seqrpc.__main__").main.__module__ == "seqrpc.cli.main"
