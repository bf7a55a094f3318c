"""Which twin runs, and why."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import environment
from support.native import NATIVE, builder, compiled
from support.waiting import PATIENCE

import seqrpc
from seqrpc import twin
from seqrpc.twin import INTERFACE, load


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory where ``seqrpc._native`` is looked for, and nowhere else, until the test ends."""
    monkeypatch.delenv("SEQRPC_PURE", raising=False)
    monkeypatch.setattr(seqrpc, "__path__", [str(tmp_path)])
    there, loaded = "_native" in vars(seqrpc), sys.modules.pop("seqrpc._native", None)
    yield tmp_path
    sys.modules.pop("seqrpc._native", None)
    vars(seqrpc).pop("_native", None)
    if loaded is not None:
        sys.modules["seqrpc._native"] = loaded
        if there:
            vars(seqrpc)["_native"] = loaded


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an extension of the sources that lie here."""
    return compiled(tmp_path_factory.mktemp("made"))


def test_the_package_tells() -> None:
    assert seqrpc.__twin__ == twin.TWIN
    assert "__twin__" in dir(seqrpc)
    if twin.native is None:
        assert twin.TWIN == "pure"
        assert twin.REASON
        assert f"pure ({twin.REASON})" == twin.TOLD
    else:
        assert (twin.TWIN, twin.REASON, twin.TOLD) == ("native", "", "native")
        assert twin.native.INTERFACE == INTERFACE


def test_the_native_one_is_of_the_sources_that_lie_here() -> None:
    if twin.native is None:
        pytest.skip(twin.REASON)
    assert builder().digest() == twin.native.SOURCES, f"run {sys.executable} native/build.py"


def test_the_sources_have_the_number_that_python_counts_on() -> None:
    (number,) = re.findall(r"^#define SEQRPC_INTERFACE (\d+)$", (NATIVE / "module.c").read_text(), re.MULTILINE)
    assert int(number) == INTERFACE


def test_it_is_native_where_it_was_built(made: Path, elsewhere: Path) -> None:
    path = shutil.copy(made, elsewhere)
    module, reason = load()
    assert reason == ""
    assert module is not None
    assert module.__file__ == str(path)
    assert builder().digest() == module.SOURCES


def test_one_that_was_not_built_is_told(elsewhere: Path) -> None:
    assert load() == (None, f"seqrpc._native was not built in {Path(twin.__file__).parent}")


@pytest.mark.parametrize("value, left_out", [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_environment_leaves_it_out(
    made: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, value: str, left_out: bool
) -> None:
    shutil.copy(made, elsewhere)
    monkeypatch.setenv("SEQRPC_PURE", value)
    module, reason = load()
    assert (module is None) is left_out
    assert reason == ("SEQRPC_PURE is set" if left_out else "")
    assert ("seqrpc._native" in sys.modules) is not left_out, "it was loaded all the same"


def test_one_of_other_sources_is_not_used(elsewhere: Path) -> None:
    compiled(elsewhere, f"-DSEQRPC_INTERFACE={INTERFACE + 1}")
    expected = f"seqrpc._native was built for another version: its interface is {INTERFACE + 1}, not {INTERFACE}"
    assert load() == (None, expected)


def test_one_that_says_nothing_of_itself_is_not_used(elsewhere: Path) -> None:
    (elsewhere / "_native.py").write_text("")
    assert load() == (
        None,
        f"seqrpc._native was built for another version: its interface is None, not {INTERFACE}",
    )


def test_one_that_cannot_be_loaded_is_told_in_one_line(elsewhere: Path) -> None:
    path = elsewhere / builder().name()
    path.write_bytes(b"no machine's code\n" * 100)
    module, reason = load()
    assert module is None
    assert reason.startswith("seqrpc._native cannot be loaded: ImportError: ")
    assert str(path) in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    "source, told",
    [
        ("import seqrpc.no_such_module", "ModuleNotFoundError: No module named 'seqrpc.no_such_module'"),
        ("import seqrpc.twin\nseqrpc.twin.no_such_name", "AttributeError: module 'seqrpc.twin' has no attribute"),
        ("raise SystemError('a\\nb')", r"SystemError: a\nb"),
    ],
)
def test_one_that_looks_for_what_is_not_there_any_more_is_told(elsewhere: Path, source: str, told: str) -> None:
    (elsewhere / "_native.py").write_text(source)
    module, reason = load()
    assert module is None
    assert reason.startswith(f"seqrpc._native cannot be loaded: {told}")


def test_it_is_for_the_main_interpreter_only(made: Path) -> None:
    inside = f"""
import importlib.machinery, importlib.util, os
loader = importlib.machinery.ExtensionFileLoader("seqrpc._native", {str(made)!r})
spec = importlib.util.spec_from_loader("seqrpc._native", loader)
try:
    loader.exec_module(importlib.util.module_from_spec(spec))
except ImportError as exc:
    os.write(1, str(exc).encode())
"""
    program = f"""
try:
    import _interpreters
except ImportError:
    import _xxsubinterpreters as _interpreters
_interpreters.run_string(_interpreters.create(), {inside!r})
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"interpreter" in done.stdout


def test_a_process_is_as_its_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEQRPC_PURE", raising=False)
    otherwise = "pure" if load()[0] is None else "native"
    for more, expected in (({"SEQRPC_PURE": "1"}, "pure"), ({}, otherwise)):
        done = subprocess.run(
            [sys.executable, "-c", "import seqrpc; print(seqrpc.__twin__)"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
            env=environment(more),
        )
        assert done.stdout == f"{expected}\n"


def test_a_run_of_the_suite_says_which_it_tested() -> None:
    here = Path(__file__)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"{here}::{test_the_package_tells.__name__}",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=here.parents[2], env=environment()
    )
    assert done.returncode == 0, done.stdout
    assert f"\nseqrpc's twin: {twin.TOLD}\n" in done.stdout
