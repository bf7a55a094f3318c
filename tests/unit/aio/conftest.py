"""What each test of aio/transport may have."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.packets import raw_pair


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two connected ends; the first is meant for a transport."""
    pair = raw_pair()
    yield pair
    for end in pair:
        end.close()
