"""What the program says where the extra is missing."""

from __future__ import annotations

import pytest

from seqrpc.cli.program import is_extra, without


def test_what_is_missing_of_the_extra_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert without(ModuleNotFoundError("no", name="click.core")) == 2
    assert capsys.readouterr().err == (
        "seqrpc: click.core is not there, which the command line needs: "
        "pip install 'seqrpc[cli]', or in a checkout '.[cli]'\n"
    )


def test_other_errors_are_none_of_the_extra() -> None:
    assert is_extra(ModuleNotFoundError("no", name="rich"))
    assert not is_extra(ImportError("no", name="rich"))
    assert not is_extra(ModuleNotFoundError("no", name="richer"))


@pytest.mark.parametrize("name", ["seqrpc_other", None])
def test_what_else_is_missing_is_an_error(name: str | None) -> None:
    with pytest.raises(ModuleNotFoundError):
        without(ModuleNotFoundError("no", name=name))
