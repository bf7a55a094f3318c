"""What people are told: each usual mistake is one line, at the earliest moment, that names the thing and the way out.

The table is in ``support/mistaken_calls.py`` and ``support/mistaken_services.py``. ``docs/mistakes.md`` shows the same
lines to those who look for them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import support.mistaken_blocking
import support.mistaken_calls
import support.mistaken_services  # noqa: F401 - they fill the table
from support.mistakes import AT_ONCE, MISTAKES, SENT, Mistake, made_in

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8")

MOST = 250  # characters: two lines of most terminals


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
async def test_a_mistake_is_told_in_one_line_at_its_moment(mistake: Mistake, socket_path: Path) -> None:
    async with made_in(socket_path) as place:
        error, at_once = await mistake.error(place)
        await place.connection.close()
    assert at_once is (mistake.moment in AT_ONCE)
    assert bool(place.audit.calls) is (mistake.moment in SENT)
    text = str(error)
    assert type(error) is mistake.kind
    assert re.fullmatch(".+".join(map(re.escape, mistake.line.split("…"))), text), text
    assert text.isprintable(), "it is one line"
    assert len(text) <= MOST


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_the_line_names_the_thing_and_the_way_out(mistake: Mistake) -> None:
    assert mistake.names in mistake.line
    assert mistake.way_out in mistake.line


def test_there_are_some_thirty_at_least() -> None:
    assert len(MISTAKES) >= 30


def test_the_page_shows_each_line_and_no_other() -> None:
    blocks = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    shown = [line for block in blocks for line in block.splitlines()]
    assert sorted(shown) == sorted({mistake.told for mistake in MISTAKES})


def test_the_page_can_be_found() -> None:
    assert "docs/mistakes.md" in (ROOT / "README.md").read_text(encoding="utf-8")
