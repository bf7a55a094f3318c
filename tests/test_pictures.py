"""The pictures of docs/cli.md show what the commands draw.

``SEQRPC_WRITE_DOCS=1 pytest tests/test_pictures.py`` draws them anew. That of ``top`` is drawn of what a daemon told
once, for times and rates are never the same: ``SEQRPC_RECORD_TOP=1`` asks one anew, as root.
"""

from __future__ import annotations

import json
import os
import re
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.text import Text
from support.commands import started, terminal
from support.pages import blocks_of, programs_of, text_of, write
from support.pictures import picture, recorded

from seqrpc.cli.dashboard import View, frame
from seqrpc.cli.rates import rates_of
from seqrpc.cli.readings import stats_in

DOCS = Path(__file__).parent.parent / "docs"

PICTURES = DOCS / "pictures"

RECORD = Path(__file__).parent / "data" / "top.json"

USERS = {0: "root", 1000: "anna", 1001: "ben"}
"""Who called there."""

WIDTH = 100


def check(name: str, drawn: str) -> None:
    """Look whether a picture is what is drawn now: to the last digit, if the same rich draws."""
    path = PICTURES / f"{name}.svg"
    if "SEQRPC_WRITE_DOCS" in os.environ:
        path.write_text(drawn)
    there = path.read_text()
    assert letters_of(drawn) == letters_of(there)
    if f"<!-- rich {version('rich')} -->" in there:
        assert drawn == there


def letters_of(picture: str) -> str:
    """Return what can be read in a picture, without spaces: which of them are drawn is up to the version of rich."""
    texts = [each for each in ET.fromstring(picture).iter() if each.tag.endswith("}text")]
    return "".join("".join(each.text or "" for each in texts).split())


def test_describe(tmp_path: Path) -> None:
    write(programs_of(blocks_of(text_of("cli.md"))), tmp_path)
    with started("serve", "desk:Desk", "desk.sock", cwd=tmp_path) as process:
        assert process.stderr.readline().startswith(b"serving Desk at desk.sock")
        with terminal("describe", "desk.sock", cwd=tmp_path) as opened:
            assert opened.end() == 0
    text = opened.seen.decode().replace("\r\n", "\n").rstrip("\n")
    lines = [Text.from_ansi(line) for line in text.split("\n")]
    assert any(span.style for line in lines for span in line.spans)
    check("describe", picture("describe", "seqrpc describe desk.sock", lines, 80))


def test_top(socket_path: Path) -> None:
    if "SEQRPC_RECORD_TOP" in os.environ:
        RECORD.write_text(json.dumps(recorded(socket_path)) + "\n")
    told = json.loads(RECORD.read_text())
    before, now = stats_in(told["before"]), stats_in(told["now"])
    view = View(
        address="/run/desk.sock",
        services=("Desk",),
        stats=now,
        rates=rates_of(before, now),
        sort="calls",
        hint="every 2 s, by calls; q ends it",
        user=lambda uid: USERS.get(uid, str(uid)),
    )
    check("top", picture("top", "seqrpc top /run/desk.sock", frame(view, WIDTH, 30), WIDTH))


@pytest.mark.parametrize("name", ["describe", "top"])
def test_a_picture_needs_nothing_from_elsewhere(name: str) -> None:
    text = (PICTURES / f"{name}.svg").read_text()
    assert re.findall(r"https?:[^\"' )]*", text) == ["http://www.w3.org/2000/svg"]  # what names the format
    assert set(re.findall(r"url\(.", text)) == {"url(#"}
    assert f"seqrpc{name}" in letters_of(text)
    assert "<script" not in text
    assert len(text) < 100_000


def test_the_page_shows_them() -> None:
    page = (DOCS / "cli.md").read_text()
    for path in PICTURES.glob("*.svg"):
        assert f"](pictures/{path.name})" in page
