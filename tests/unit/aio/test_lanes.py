"""Native lanes on real sockets: what they may meet, with the same outcome as without them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import seqrpc


class Desk(seqrpc.Service):
    """Answers what is plain, and what is not."""

    @seqrpc.method
    async def echo(self, value: object) -> object:
        return value


@pytest.mark.parametrize("bound", [math.inf, 1 << 100, 1 << 62], ids=["endless", "long", "large"])
@pytest.mark.parametrize("name", ["max_calls_in_flight", "max_depth", "max_packets_per_wakeup"])
async def test_limits_may_be_as_large_as_one_likes(name: str, bound: Any, socket_path: Path) -> None:
    limits = seqrpc.Limits(**{name: bound})
    async with seqrpc.serve(Desk(), socket_path, limits=limits), seqrpc.connect(socket_path, limits=limits) as there:
        assert await there.call("Desk.echo", [1, {"a": "b"}]) == [1, {"a": "b"}]
