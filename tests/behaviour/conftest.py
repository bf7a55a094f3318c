"""What each test of the behaviour of clients has: the kind of client that it is run with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.faces import Asynchronous, Blocking, Kind


@pytest.fixture(params=["asyncio", "blocking"])
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """Return the kind of client that this test is about."""
    if request.param == "asyncio":
        yield Asynchronous()
        return
    blocking = Blocking()
    yield blocking
    blocking.threads.shutdown()


@pytest.fixture
def both() -> Iterator[tuple[Kind, Kind]]:
    """Return both kinds, for what they are to have in common to the letter."""
    blocking = Blocking()
    yield Asynchronous(), blocking
    blocking.threads.shutdown()
