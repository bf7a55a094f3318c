"""What each test of aio/producers may have."""

from __future__ import annotations

import pytest
from support.producers import Log

from seqrpc.aio import producers


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let items share packets however slow the machine is."""
    monkeypatch.setattr(producers, "_FAST", 1e9)
    monkeypatch.setattr(producers, "_OLDEST", 1e9)
