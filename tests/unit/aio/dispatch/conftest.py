"""What tests of dispatching share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seqrpc.aio.link import Link


@pytest.fixture
def left_to_python(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[bytes]]:
    """Return what begins to note the packets that go Python's way, and returns where."""

    def begin() -> list[bytes]:
        came: list[bytes] = []
        receive = Link.packet_received

        def packet_received(self: Link, data: bytes, *rest: Any) -> None:
            came.append(data)
            receive(self, data, *rest)

        monkeypatch.setattr(Link, "packet_received", packet_received)
        return came

    return begin
