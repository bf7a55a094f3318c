"""How far something is."""

from __future__ import annotations

import io
import time

import pytest

from seqrpc.cli.progress import progress
from seqrpc.cli.screen import Screen


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals_and_for_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    err = Tty()
    with progress(Screen(io.StringIO(), err)) as tell:
        tell("1 item")
        now[0] = 1.0
        tell("2 items")
        tell("3 items")
    assert err.getvalue() == "\r2 items, 1 s\x1b[K\r\x1b[K"
    pipe = io.StringIO()
    with progress(Screen(io.StringIO(), pipe)) as tell:
        tell("1 item")
    assert pipe.getvalue() == ""
    quick = Tty()
    with progress(Screen(io.StringIO(), quick)):
        pass
    assert quick.getvalue() == ""
