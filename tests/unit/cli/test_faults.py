"""Where in somebody's own files an error arose."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import seqrpc
from seqrpc.cli.endings import FAILED, Ending
from seqrpc.cli.faults import fault_of, located, place_of

HERE = Path(__file__)


def line_of(text: str) -> int:
    return HERE.read_text().split("\n").index(f"            {text}") + 1


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def failed(path: Path, text: str) -> BaseException:
    """Run a text as the file of a user, and return how it fails."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    with pytest.raises(Exception) as raised:
        exec(compile(text, str(path), "exec"), {})
    raised.value.__traceback__ = raised.value.__traceback__.tb_next  # type: ignore[union-attr] # without the test itself
    return raised.value


def test_the_line_is_the_innermost_of_the_users_own(tmp_path: Path) -> None:
    inner = tmp_path / "app.py"
    assert fault_of(failed(inner, "x = 1\nundefined\n")) == "app.py:2: NameError: name 'undefined' is not defined"
    assert place_of(failed(inner, "import json\n\njson.loads('{')\n")) == "app.py:3: "
    assert place_of(failed(inner, "import seqrpc\nseqrpc.Limits(max_calls_in_flight=-1)\n")) == "app.py:2: "
    os.chdir("/")
    assert place_of(failed(inner, "undefined")) == f"{str(inner)[1:]}:1: "


def test_of_what_is_installed_the_line_is_told_where_there_is_no_other(tmp_path: Path) -> None:
    path = tmp_path / "site-packages" / "app.py"
    assert place_of(failed(path, "undefined")) == "site-packages/app.py:1: "
    with pytest.raises(json.JSONDecodeError) as raised:
        json.loads("{")
    assert place_of(raised.value).startswith(f"{HERE}:")
    assert place_of(ValueError()) == ""
    with pytest.raises(TypeError) as ours:
        seqrpc.Limits(7)  # type: ignore[call-arg] # it is to fail
    assert place_of(ours.value).startswith(f"{HERE}:")


def test_a_syntax_error_has_its_own_place(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError) as raised:
        compile("x = (\n", str(tmp_path / "app.py"), "exec")
    assert fault_of(raised.value) == "app.py:1: SyntaxError: '(' was never closed"
    assert fault_of(SyntaxError("odd")) == "SyntaxError: odd"


def test_what_is_told_is_bounded_and_escaped() -> None:
    assert fault_of(ValueError("\x1b[2J")) == "ValueError: \\x1b[2J"
    assert len(fault_of(ValueError("x" * 100_000))) < 400


def test_a_directory_that_is_gone_is_no_matter(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert place_of(failed(tmp_path / "app.py", "undefined")) == f"{tmp_path}/app.py:1: "


def test_a_command_fails_with_it() -> None:
    with pytest.raises(Ending) as raised, located():
        open("/nothing/here")  # noqa: SIM115 - it is not there
    assert raised.value.status == FAILED
    assert str(raised.value).endswith("FileNotFoundError: [Errno 2] No such file or directory: '/nothing/here'")
    assert isinstance(raised.value.__cause__, FileNotFoundError)
    ending = Ending(3, "told")
    with pytest.raises(Ending) as same, located():
        raise ending
    assert same.value is ending
