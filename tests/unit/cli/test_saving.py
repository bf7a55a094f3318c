"""Files that results are saved in."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import pytest

from seqrpc.cli.saving import Saves


def test_what_was_there_stays_until_it_is_taken(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("before")
    two.write_text("before")
    with contextlib.closing(Saves([str(one), str(two)])) as saves:
        saves.open()
        assert saves
        assert saves.path == str(one)
        assert one.read_text() == "before"
        with saves.take() as file:
            file.write(b"new")
        assert saves.path == str(two)
    assert (one.read_text(), two.read_text()) == ("new", "before")


def test_what_was_made_and_not_taken_is_removed(tmp_path: Path) -> None:
    taken, left = tmp_path / "taken", tmp_path / "left"
    with contextlib.closing(Saves([str(taken), str(left)])) as saves:
        saves.open()
        assert left.exists()
        saves.take().close()
    assert sorted(os.listdir(tmp_path)) == ["taken"]


def test_where_a_link_leads_is_made_and_removed_and_not_the_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("made")
    with contextlib.closing(Saves([str(link)])) as saves:
        saves.open()
        assert (tmp_path / "made").exists()
    assert os.listdir(tmp_path) == ["link"]


def test_what_somebody_else_has_written_or_put_there_stays(tmp_path: Path) -> None:
    written, replaced, gone = tmp_path / "written", tmp_path / "replaced", tmp_path / "gone"
    with contextlib.closing(Saves([str(written), str(replaced), str(gone)])) as saves:
        saves.open()
        written.write_text("theirs")
        (tmp_path / "new").write_text("")
        (tmp_path / "new").rename(replaced)
        gone.unlink()
    assert sorted(os.listdir(tmp_path)) == ["replaced", "written"]


def test_one_that_cannot_be_opened_is_told_and_the_others_are_as_before(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with contextlib.closing(Saves([str(made), str(tmp_path / "no" / "such")])) as saves:
        with pytest.raises(FileNotFoundError) as failed:
            saves.open()
        assert failed.value.filename == str(tmp_path / "no" / "such")
    assert os.listdir(tmp_path) == []


def test_the_same_path_twice_has_what_came_last(tmp_path: Path) -> None:
    path = tmp_path / "path"
    with contextlib.closing(Saves([str(path), str(path)])) as saves:
        saves.open()
        for text in (b"first", b"2"):
            with saves.take() as file:
                file.write(text)
    assert path.read_bytes() == b"2"


def test_a_device_is_written_to_and_stays() -> None:
    with contextlib.closing(Saves([os.devnull, os.devnull])) as saves:
        saves.open()
        with saves.take() as file:
            file.write(b"x")
    assert os.path.exists(os.devnull)


def test_unopened_files_are_opened_when_they_are_taken(tmp_path: Path) -> None:
    saves = Saves([str(tmp_path / "path")])
    saves.take().close()
    assert not saves
    assert (tmp_path / "path").exists()


def test_a_file_that_cannot_be_emptied_is_told_and_closed() -> None:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, b"before")
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        with contextlib.closing(Saves([f"/proc/self/fd/{fd}"])) as saves:
            saves.open()
            with pytest.raises(PermissionError):
                saves.take()
        assert os.pread(fd, 9, 0) == b"before"
    finally:
        os.close(fd)
