"""A program that is given results."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from seqrpc.cli.endings import Ending
from seqrpc.cli.recipient import Recipient


def test_it_reads_what_it_is_given_and_its_status_is_kept(tmp_path: Path) -> None:
    program = Recipient(f"sh -c 'cat > {tmp_path}/got; exit 7'")
    program.check()
    assert program
    with program.fed() as file:
        file.write(b"content")
    program.close()
    assert (program.status, (tmp_path / "got").read_text()) == (7, "content")


def test_a_descriptor_is_its_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    program = Recipient(f"cp /dev/stdin {tmp_path}/got")
    with open(tmp_path / "file") as file:
        program.run(file.fileno())
    assert (program.status, (tmp_path / "got").read_text()) == (0, "content")


def test_one_that_dies_has_a_status_as_in_a_shell() -> None:
    program = Recipient("sh -c 'kill -9 $$'")
    with open(os.devnull) as file:
        program.run(file.fileno())
    assert program.status == 137


def test_one_that_reads_no_more_ends_the_block() -> None:
    program = Recipient("head -c 1")
    with program.fed() as file:
        while True:
            file.write(b"x" * 65_536)
    assert program.status == 0


def test_what_fails_in_the_block_ends_it() -> None:
    program = Recipient("sleep 600")
    with pytest.raises(KeyboardInterrupt), program.fed():
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "program, text",
    [
        ("", "--exec is followed by a program"),
        ("'", '--exec "\'": No closing quotation'),
    ],
)
def test_what_is_none_is_misuse(program: str, text: str) -> None:
    with pytest.raises(Ending, match=re.escape(text)):
        Recipient(program)


def test_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Ending, match="--exec: there is no program 'seqrpc-no-such' in PATH"):
        Recipient("seqrpc-no-such").check()
    (tmp_path / "none").write_text("")
    program = Recipient(str(tmp_path / "none"))
    with pytest.raises(Ending, match="cannot be started: Permission denied"), program.fed():
        pass
    nothing = Recipient(None)
    nothing.check()
    nothing.close()
    assert not nothing


def test_that_it_got_nothing_is_told() -> None:
    with pytest.raises(Ending, match="nothing came that could be given to cat"):
        Recipient("cat").close()
