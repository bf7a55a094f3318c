"""What seqrpc counts on in a lane, and the native one has."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest

import seqrpc
from seqrpc.aio.connection import link_of
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.aio.lane import Lane
from seqrpc.aio.link import Link
from seqrpc.aio.transport import carrier_of
from seqrpc.twin import native

needs_native = pytest.mark.skipif(native is None, reason="nothing is native here")

METHODS = {name: part for name, part in vars(Lane).items() if inspect.isfunction(part) and not name.startswith("_")}


class Desk(seqrpc.Service):
    """Answers what is plain."""

    @seqrpc.method
    async def echo(self, value: object) -> object:
        return value


def test_what_a_lane_does_is_declared() -> None:
    assert sorted(METHODS) == ["call", "let_go", "read", "ready"]


@needs_native
@pytest.mark.parametrize("name", METHODS)
def test_the_native_one_has_it(name: str) -> None:
    assert native is not None
    made, declared = (inspect.signature(getattr(kind, name)).parameters for kind in (native.Lane, Lane))
    assert ["self", *made] == list(declared)


@needs_native
def test_it_is_made_of_a_connection_only() -> None:
    assert native is not None
    assert "lane" in Dispatcher.__slots__, "as this is imported, the native one is told the classes"
    for wrong in [(), (1,), (None, None), ("link", "carrier"), (object.__new__(Link), None)]:
        with pytest.raises((TypeError, AttributeError)):
            native.Lane(*wrong)
    with pytest.raises(TypeError):
        native.Handling()


@needs_native
async def test_one_that_was_let_go_does_nothing(socket_path: Path) -> None:
    async with seqrpc.serve(Desk(), socket_path), seqrpc.connect(socket_path) as there:
        assert await there.call("Desk.echo", 1) == 1
        link = link_of(there)
        lane: Any = link.lane
        assert lane is not None
        with pytest.raises(TypeError, match="read takes 3 arguments, got 0"):
            lane.read()
        with pytest.raises(TypeError, match="call takes 3 arguments, got 1"):
            lane.call("Desk.echo")
        assert lane.call("Desk.echo", {"value": 1}, None) is None, "arguments by name are Python's"
        assert lane.call(b"Desk.echo", [], None) is None
        for deadline in (0, -1, 1, 1 << 63, 1.5, "soon"):
            assert lane.call("Desk.echo", [], deadline) is None, "it has passed, or is none"
        assert lane.read(0, math.inf, 0) is None
        assert lane.read(1, math.inf, 0) == 0, "nothing came"
        lane.let_go()
        lane.let_go()
        assert lane.read(1, math.inf, 0) is None
        assert lane.call("Desk.echo", [], None) is None
        assert lane.ready() is None
        link.lane = carrier_of(link.transport).intake.lane = None
        link.transport.abort()
