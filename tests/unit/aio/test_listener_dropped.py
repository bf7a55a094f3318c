"""Dropped without being closed: the part of listener."""

from __future__ import annotations

from pathlib import Path

from support.dropped import drop_in_every_place


def test_what_is_dropped_closes_from_wherever_it_is(tmp_path: Path) -> None:
    drop_in_every_place(tmp_path / "s")
