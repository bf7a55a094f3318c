"""The plugin, in a small project of its own, loaded by its entry point, and without what it need not have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.plugin import new_project, run

ROOT = Path(__file__).parents[3]

SYNCHRONOUS = """
import os, socket

import pytest
from seqrpc.testing import admits
from calculator import Calculator


def test_policy(seqrpc_caller):
    assert admits(Calculator.add, seqrpc_caller(uid=1000))
    assert not admits(Calculator.add, seqrpc_caller(uid=1001))


def test_thread(seqrpc_no_leaks, seqrpc_serve_in_thread, seqrpc_caller):
    server = seqrpc_serve_in_thread(Calculator())
    with server.open_socket(caller=seqrpc_caller(uid=1000)) as sock:
        sock.send(bytes([0x94, 0, 1, 0xAE]) + b"Calculator.add" + bytes([0x92, 2, 3]))
        assert sock.recv(100) == bytes([0x94, 1, 1, 0xC0, 5])


def test_leak(seqrpc_no_leaks):
    os.dup(0)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return new_project(tmp_path)


SHARED = """
import os

import pytest


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    with open(tmp_path_factory.mktemp("log") / "log", "w") as file:
        yield file


@pytest.fixture(scope="module")
def other():
    with open(os.devnull) as file:
        yield file


@pytest.fixture
def own(log):
    number = os.dup(log.fileno())
    yield number
    os.close(number)


def test_first(own, log, seqrpc_no_leaks, other):
    log.write("first")


def test_second(log, seqrpc_no_leaks, other):
    log.write("second")


def test_leak(seqrpc_no_leaks, log, other):
    os.dup(0)
"""


NOTHING = """
import sys


def test_nothing_is_loaded_for_who_uses_nothing():
    assert "seqrpc.testing.plugin" in sys.modules
    assert not {"asyncio", "msgpack", "seqrpc.testing.memory", "seqrpc.aio"} & {*sys.modules}
"""


def test_it_is_registered_and_bears_no_other_s_name(project: Path) -> None:
    out = run(project, NOTHING, "--fixtures")
    names = ("seqrpc_caller", "seqrpc_no_leaks", "seqrpc_serve_in_thread", "seqrpc_serve", "seqrpc_faulty_pair")
    for name in names:
        assert f"\n{name} -- " in out, name


def test_fixtures_without_a_loop_need_no_other_plugin(project: Path) -> None:
    out = run(project, SYNCHRONOUS, "-p", "no:asyncio", "-p", "no:anyio")
    assert "3 passed, 1 error" in out, out
    assert "these were left behind:" in out
    assert "descriptor " in out
    assert "ERROR test_it.py::test_leak" in out


def test_what_tests_share_is_there_before_leaks_are_looked_for(project: Path) -> None:
    out = run(project, SHARED, "-p", "no:asyncio", "-p", "no:anyio")
    assert "3 passed, 1 error" in out, out
    assert "ERROR test_it.py::test_leak" in out


def test_who_uses_nothing_of_it_loads_nothing(project: Path) -> None:
    out = run(project, NOTHING, "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:hypothesispytest")
    assert "1 passed" in out, out


def modules_after(program: str) -> set[str]:
    program += "\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {*done.stdout.split()}


def test_pytest_is_loaded_by_nothing_but_the_plugin() -> None:
    every = "from seqrpc.testing import *\nfrom seqrpc import *"
    assert not {"pytest", "_pytest", "uvloop"} & modules_after(every)


def test_the_package_loads_nothing_before_it_is_asked() -> None:
    loaded = modules_after("import seqrpc.testing")
    assert not {name for name in loaded if name.startswith("seqrpc.testing.")}
    assert not {"asyncio", "msgpack"} & loaded


def test_every_public_name_is_there_when_it_is_asked_for() -> None:
    import seqrpc.testing

    assert {*seqrpc.testing.__all__} <= {*dir(seqrpc.testing)}
    for name in seqrpc.testing.__all__:
        assert getattr(seqrpc.testing, name).__doc__
    with pytest.raises(AttributeError, match=r"module 'seqrpc\.testing' has no attribute 'caler'"):
        seqrpc.testing.caler  # type: ignore[attr-defined] # noqa: B018
