"""The command ``docs``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.described import LOGS
from support.sync import served

import seqrpc
from seqrpc.cli.commands import run
from seqrpc.documents.page import render


class Lamp(seqrpc.Service):
    @seqrpc.method
    async def turn(self, on: bool) -> None: ...


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def docs(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return what runs the command here: its status, and what it wrote."""

    def do(*args: object) -> tuple[int, str, str]:
        status = run(["docs", *map(str, args)])
        return status, *capfd.readouterr()

    return do


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return a file with a document."""
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(LOGS))
    return path


def test_the_page_goes_to_standard_output(docs: Run, saved: Path) -> None:
    assert docs(saved) == (0, render(LOGS), "")


def test_the_page_goes_to_a_file(docs: Run, saved: Path, tmp_path: Path) -> None:
    assert docs(saved, "-o", tmp_path / "page.html", "--address", "@logs") == (0, "", "")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == render(LOGS, address="@logs")


def test_a_daemon_that_is_asked_is_named_on_its_page(docs: Run, socket_path: Path) -> None:
    with served(socket_path, Lamp()):
        status, page, _err = docs(socket_path)
        assert status == 0
        assert f"seqrpc call {socket_path} Lamp.turn on=true" in page
        assert '<strong class="good">may</strong>' in page
        assert "seqrpc call @lamp Lamp.turn on=true" in docs(socket_path, "--address", "@lamp")[1]


def test_what_is_no_document_is_told(docs: Run, saved: Path) -> None:
    saved.write_text('{"openrpc": "\\u001b[31m"}')
    status, out, err = docs(saved)
    assert (status, out) == (2, "")
    assert err.startswith(f"seqrpc: {saved}: this is no description of a service: openrpc: ")
    assert "\x1b" not in err


def test_a_file_that_cannot_be_written_is_told(docs: Run, saved: Path, tmp_path: Path) -> None:
    status, out, err = docs(saved, "-o", tmp_path / "nowhere" / "page.html")
    assert (status, out) == (3, "")
    assert err.startswith("seqrpc: ENOENT: ")


def test_nobody_who_listens_is_told(docs: Run, socket_path: Path) -> None:
    assert docs(socket_path)[0] == 3


def test_a_terminal_does_not_get_html(saved: Path) -> None:
    ours, theirs = os.openpty()
    try:
        command = [sys.executable, "-W", "error", "-m", "seqrpc", "docs", str(saved)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 2
        assert done.stderr.decode() == (
            "seqrpc: a page is for a browser: take --open, name a file with -o, or pipe it\n"
        )
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return where the browser notes what it was to show; it works as long as there is no file ``broken``."""
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\nprintf %s "$1" >{tmp_path}/shown\n! test -e {tmp_path}/broken\n')
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{program} %s")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "shown"


def in_a_process(*args: object) -> tuple[int, str]:
    """Run the command where nothing knows of browsers yet."""
    command = [sys.executable, "-W", "error", "-m", "seqrpc", "docs", *map(str, args)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


def test_the_browser_shows_the_file(saved: Path, tmp_path: Path, browser: Path) -> None:
    page = tmp_path / "page.html"
    assert in_a_process(saved, "-o", page, "--open") == (0, f"{page}\n")
    assert browser.read_text() == page.as_uri()


def test_the_browser_shows_a_file_that_stays(saved: Path, tmp_path: Path, browser: Path) -> None:
    status, told = in_a_process(saved, "--open")
    assert status == 0
    page = Path(told.strip())
    assert page.parent == tmp_path
    assert browser.read_text() == page.as_uri()
    assert page.read_text(encoding="utf-8") == render(LOGS)


def test_that_there_is_no_browser_is_told(saved: Path, tmp_path: Path, browser: Path) -> None:
    (tmp_path / "broken").touch()
    status, told = in_a_process(saved, "--open")
    assert status == 1
    assert told.endswith("seqrpc: there is no browser here that could show it\n")
    assert browser.exists()
