"""Files that commands write."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.daemons import needs_root
from support.processes import OTHER_UID
from support.sync import Thread

from seqrpc.cli.outputs import write_whole


@contextmanager
def full(most: int) -> Iterator[None]:
    """Let no file have more bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_is_made_with_the_usual_mode_and_replaced_with_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_whole(str(path), "one")
        assert (path.read_text(), path.stat().st_mode & 0o777) == ("one", 0o640)
        path.chmod(0o604)
        write_whole(str(path), "two")
        assert (path.read_text(), path.stat().st_mode & 0o777) == ("two", 0o604)
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == ["file"]


def test_what_was_there_stays_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with full(1_000), pytest.raises(OSError, match="too large"):
        write_whole(str(path), "x" * 100_000)
    with pytest.raises(UnicodeEncodeError):
        write_whole(str(path), "\ud800")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_and_leads_to_what_was_written(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("before")
    link.symlink_to("file")
    write_whole(str(link), "after")
    assert link.is_symlink()
    assert path.read_text() == "after"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = Thread(path.read_text)
    write_whole(str(path), "text")
    assert reading.result() == "text"


@needs_root
def test_the_owner_stays_who_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    os.chown(path, OTHER_UID, OTHER_UID)
    write_whole(str(path), "after")
    assert (path.read_text(), path.stat().st_uid, path.stat().st_gid) == ("after", OTHER_UID, OTHER_UID)


def test_where_no_file_can_be_made_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    inode = path.stat().st_ino
    monkeypatch.setattr(os, "access", lambda *_args: False)  # root may write anywhere
    write_whole(str(path), "after")
    assert (path.read_text(), path.stat().st_ino) == ("after", inode)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        write_whole(str(tmp_path / "no" / "file"), "text")
    assert raised.value.filename == str(tmp_path / "no" / "file")  # as it was asked for
