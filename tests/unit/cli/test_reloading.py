"""Noticing that a file of an imported module has changed."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest
from support.waiting import PATIENCE

from seqrpc.cli.endings import Ending
from seqrpc.cli.importing import thing_at
from seqrpc.cli.reloading import (
    Watch,
    come_back,
    files_of,
    imported_files,
    missed_by,
    own_files,
    version_of,
    wait_for_own_files,
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrpc.cli.reloading.INTERVAL", 0.005)


def test_imported_files_are_those_of_modules() -> None:
    assert __import__("seqrpc").__file__ in imported_files()


def test_a_file_that_is_written_replaced_or_gone_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    watch = Watch()
    assert watch.look([str(path)]) is None
    path.write_text("x")
    assert watch.look([str(path)]) == watch.changed == str(path)
    watch = Watch()
    watch.look([str(path)])
    other = tmp_path / "other"
    other.write_text("x")
    os.utime(other, ns=(path.stat().st_mtime_ns,) * 2)
    other.rename(path)
    assert watch.look([str(path)]) == str(path)
    assert version_of(str(tmp_path / "none")) is None


@pytest.mark.usefixtures("quick")
def test_a_thread_tells_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seqrpc_watched.py"
    path.write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("seqrpc_watched")
    told = threading.Event()
    watch = Watch()
    watch.begin(told.set)
    path.write_text("x = 22\n")
    assert told.wait(PATIENCE)
    assert watch.changed == str(path)
    for thread in threading.enumerate():
        if thread.name == "seqrpc-reload":
            thread.join(PATIENCE)
    del sys.modules["seqrpc_watched"]


@pytest.mark.usefixtures("quick")
def test_a_thread_may_be_ended() -> None:
    watch = Watch()
    watch.begin(lambda: None)
    watch.end()
    for thread in threading.enumerate():
        if thread.name == "seqrpc-reload":
            thread.join(PATIENCE)
    assert "seqrpc-reload" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.usefixtures("quick")
def test_a_change_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    watch = Watch()
    watch.look([str(path)])
    timer = threading.Timer(0.05, path.write_text, ["x"])
    timer.start()
    watch.wait([str(path)])
    assert watch.changed == str(path)
    timer.join()


def test_an_error_tells_its_files(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("x = (\n")
    with pytest.raises(SyntaxError) as raised:
        compile(path.read_text(), str(path), "exec")
    assert files_of(raised.value)[-1] == str(path)
    with pytest.raises(ZeroDivisionError) as divided:
        1 / 0  # noqa: B018 - it is to fail
    assert files_of(divided.value) == [__file__]


def test_an_error_tells_the_files_of_what_caused_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seqrpc_ending.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for text in ("import seqrpc_no_such\n", "raise SystemExit(0)\n"):
        path.write_text(text)
        importlib.invalidate_caches()
        with pytest.raises(Ending) as raised:
            thing_at("seqrpc_ending", "X")
        assert str(path) in files_of(raised.value)
    error = ValueError()
    error.__cause__ = error
    assert files_of(error) == []


def test_an_error_tells_what_it_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Ending) as raised:
        thing_at("seqrpc_away", "X")
    path = tmp_path / "seqrpc_away.py"
    missed = missed_by(raised.value)
    assert missed[:2] == [str(path), str(tmp_path / "seqrpc_away" / "__init__.py")]
    assert come_back(raised.value) is None
    path.write_text("")
    assert come_back(raised.value) == str(path)
    with pytest.raises(ModuleNotFoundError) as inner:
        importlib.import_module("seqrpc_away.part.deep")
    assert come_back(inner.value) is None
    assert str(tmp_path / "seqrpc_away" / "part.py") in missed_by(inner.value)
    del sys.modules["seqrpc_away"]
    with pytest.raises(FileNotFoundError) as absent:
        Path("/nothing/here.conf").read_bytes()
    assert missed_by(absent.value) == ["/nothing/here.conf"]
    assert missed_by(ValueError()) == []


@pytest.mark.usefixtures("quick")
def test_a_program_that_is_installed_anew_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "program"
    program = ModuleType("__main__")
    program.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "__main__", program)
    assert str(path) in own_files()
    before = time.monotonic()
    wait_for_own_files(str(path), quiet=0.01, most=0.05)  # in vain
    assert time.monotonic() - before >= 0.05
    wait_for_own_files(__file__)  # which is no part of it
    timer = threading.Timer(0.05, path.write_text, ["x"])
    timer.start()
    wait_for_own_files(str(path), quiet=0.01)
    assert path.exists()
    timer.join()


def test_a_program_begins_anew_in_the_same_process(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from seqrpc.cli.reloading import execute_anew\n"
        "print(os.getpid(), sys.argv[1:])\n"
        "if 'AGAIN' in os.environ: sys.exit(7)\n"
        "os.environ['AGAIN'] = '1'\n"
        "execute_anew()\n"
    )
    done = subprocess.run([sys.executable, program, "a", "b"], capture_output=True, timeout=PATIENCE, check=False)
    first, second = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (7, b"")
    assert first == second
