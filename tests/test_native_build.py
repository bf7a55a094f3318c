"""Compiling seqrpc._native: with which compiler, for which Python, and what is said where it cannot be."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.native import NATIVE, builder, compiled
from support.waiting import PATIENCE

build = builder()


@pytest.fixture(autouse=True)
def _no_flags_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CC", "CPPFLAGS", "CFLAGS", "LDFLAGS", "SEQRPC_NATIVE_CFLAGS"):
        monkeypatch.delenv(name, raising=False)


def script(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(NATIVE / "build.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, check=False)


def cannot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **changed: object) -> str:
    """Return why it cannot be built where sys or sysconfig say something else."""
    for name, value in changed.items():
        monkeypatch.setattr(sys if hasattr(sys, name) else sysconfig, name, value)
    with pytest.raises(build.CannotBuildError) as raised:
        build.build(tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    return str(raised.value)


def test_the_script_compiles_it_without_a_warning(tmp_path: Path) -> None:
    done = script("--into", tmp_path)
    if done.returncode == 3:
        pytest.skip(done.stderr)
    (made,) = tmp_path.iterdir()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{made}\n", "")
    assert made.name == f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    assert os.access(made, os.X_OK)


def test_its_only_name_for_others_is_what_python_looks_for(tmp_path: Path) -> None:
    made = compiled(tmp_path)
    done = subprocess.run(["nm", "-D", "--defined-only", made], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr)
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["PyInit__native"]


def test_the_digest_is_of_all_sources_and_of_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "HERE", tmp_path)
    (tmp_path / "b.c").write_text("two")
    (tmp_path / "a.h").write_text("one")
    (tmp_path / "build.py").write_text("three")
    assert build.digest() == hashlib.sha256(b"a.h\0oneb.c\0two").hexdigest()


def test_pythons_that_it_is_not_for_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get = sysconfig.get_config_var
    threads = cannot(monkeypatch, tmp_path, get_config_var=lambda name: name == "Py_GIL_DISABLED" or get(name))
    assert threads == "it counts on the GIL, and this Python is free-threaded"
    other = cannot(monkeypatch, tmp_path, implementation=SimpleNamespace(name="pypy"))
    assert other == "it is for CPython, and this is pypy"
    newer = cannot(monkeypatch, tmp_path, version_info=(3, 14, 0, "final", 0))
    assert newer == "it is for Python 3.11 to 3.13, and this is 3.14"


def test_headers_that_are_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = cannot(monkeypatch, tmp_path, get_path=lambda _name: "/nowhere")
    assert told == "there is no /nowhere/Python.h (Debian's package python3-dev)"


def test_a_compiler_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -pipe")
    with pytest.raises(build.CannotBuildError, match=r"^there is no C compiler no-such-compiler -pipe$"):
        build.build(tmp_path)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.CannotBuildError, match=r"^there is no C compiler$"):
        build.build(tmp_path)
    done = script("--into", tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "seqrpc._native cannot be built: there is no C compiler\n"


def test_where_python_was_built_with_another_compiler_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: "/build/bin/x86_64-conda-linux-gnu-cc -pthread")
    try:
        assert build.compiler()[0] in ("cc", "gcc", "clang")
    except build.CannotBuildError as exc:
        pytest.skip(str(exc))


def test_the_compiler_is_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        build.headers_of_python()
    except build.CannotBuildError as exc:
        pytest.skip(str(exc))
    log, fake = tmp_path / "log", tmp_path / "bin" / "my-cc"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{log}\necho "x.c:1: error: no"\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("CC", f"{fake} -first")
    monkeypatch.setenv("CPPFLAGS", "-Dpp=1")
    monkeypatch.setenv("CFLAGS", "'-Dwith=a space'")
    monkeypatch.setenv("LDFLAGS", "-Wl,-ld")
    monkeypatch.setenv("SEQRPC_NATIVE_CFLAGS", "-Dlast")
    with pytest.raises(build.NotCompiledError, match=f"^{fake} ended with status 1: x.c:1: error: no$"):
        build.build(tmp_path)
    given = log.read_text().splitlines()
    assert given[0] == "-first"
    ours = [given.index(flag) for flag in ("-O3", "-Dpp=1", "-Dwith=a space", "-Wl,-ld", "-Dlast")]
    assert ours == sorted(ours)
    assert given.index(str(NATIVE / "module.c")) > ours[-1]


def test_an_error_in_the_sources_is_an_error_of_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(tmp_path)  # else it is skipped
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setenv("SEQRPC_NATIVE_CFLAGS", "-DPy_GIL_DISABLED")
    done = script("--into", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    *_, last = done.stderr.splitlines()
    assert last.startswith("seqrpc._native cannot be built: ")
    assert "free-threaded builds of Python run the Python twin" in last
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before, "what was there is there"
