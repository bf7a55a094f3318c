"""A service in a process of its own, and a client that knows the bytes alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.foreign import served
from support.raw_wire import Maker, Raw, Service


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """Serve all of these tests from one process, then again from one with the other loop."""
    with tempfile.TemporaryDirectory(prefix="seqrpc-") as directory:
        path = Path(directory, "raw.sock")
        with served(path, request.param) as process:
            yield Service(path, process)
        assert process.returncode == 0


@pytest.fixture
def make(service: Service) -> Iterator[Maker]:
    maker = Maker(service.path)
    with maker.keep:
        yield maker


@pytest.fixture
def raw(make: Maker) -> Raw:
    return make.connect()
