"""Where the program begins."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.commands import Done, environment, seqrpc_command
from support.waiting import PATIENCE

from seqrpc.cli.main import main
from seqrpc.cli.versions import versions


def test_it_runs_what_is_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["seqrpc", "--version"])
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith("seqrpc ")


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "seqrpc.cli.commands", raising=False)
    monkeypatch.setitem(sys.modules, "click", None)
    for args in ((), ("--help",), ("call", "--version")):
        monkeypatch.setattr(sys, "argv", ["seqrpc", *args])
        with pytest.raises(SystemExit) as raised:
            main()
        assert raised.value.code == 2
        assert "pip install 'seqrpc[cli]'" in capsys.readouterr().err


def test_without_the_extra_it_tells_versions_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "seqrpc.cli.commands", raising=False)
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.setattr(sys, "argv", ["seqrpc", "--version"])
    with pytest.raises(SystemExit) as raised:
        main()
    assert not raised.value.code
    assert capsys.readouterr() == (f"{versions()}\n", "")


def test_python_m_is_the_same() -> None:
    assert seqrpc_command("--version").out.startswith("seqrpc ")
    code = "import sys, runpy; sys.modules['click'] = None; runpy.run_module('seqrpc', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, check=False, env=environment()
    )
    assert Done(done.returncode, done.stdout.decode(), done.stderr.decode()) == Done(
        2,
        "",
        (
            "seqrpc: click is not there, which the command line needs: "
            "pip install 'seqrpc[cli]', or in a checkout '.[cli]'\n"
        ),
    )
