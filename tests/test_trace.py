"""The functions that a call passes: docs/design.md lists them, and this is where the list is from."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import seqrpc

PACKAGE = str(Path(seqrpc.__file__).parent)
DESIGN = (Path(__file__).parent.parent / "docs" / "design.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(seqrpc.__twin__ == "native", reason="in the native twin a plain call passes by these")

MOST_AT_THE_CALLEE = 12
MOST_AT_THE_CALLER = 9


class Sums(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b


class Trace:
    """The functions of the package in the order in which they are called; each step of a coroutine is a call."""

    def __init__(self) -> None:
        self.functions: list[str] = []

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            module = frame.f_code.co_filename.removeprefix(f"{PACKAGE}/").removesuffix(".py")
            self.functions.append(f"{frame.f_code.co_qualname} ({module})")

    def __enter__(self) -> list[str]:
        sys.setprofile(self._note)
        return self.functions

    def __exit__(self, *_exc: object) -> None:
        sys.setprofile(None)


def listed(heading: str) -> list[str]:
    """Return the functions that docs/design.md lists under a heading."""
    _before, _heading, after = DESIGN.partition(f"{heading}:\n")
    section = after.partition("\n\nAt ")[0].partition("\n\nAfterwards")[0]
    rows = re.findall(r"^\d+\. `([\w.<>]+)` \(`(\w+/\w+)\.py`\)", section, re.MULTILINE)
    return [f"{function} ({module})" for function, module in rows]


@pytest.fixture
async def way(socket_path: Path) -> tuple[list[str], list[str]]:
    """Return the functions of one call: those of the caller, and those from packet to packet at the callee."""
    async with seqrpc.serve(Sums(), socket_path), seqrpc.connect(socket_path) as connection:
        sums = connection.proxy(Sums)
        for _ in range(3):
            await sums.add(1, 2)
        traces: list[list[str]] = []
        for _ in range(16):
            with Trace() as functions:
                assert await sums.add(1, 2) == 3
            traces.append(functions)
    functions = min(traces, key=len)  # a slow machine's turns of the loop end in between, which takes functions, too
    begin = functions.index("Intake._read_ready (aio/intake)")
    end = functions.index("SeqpacketTransport.send_packet (aio/transport)", begin)
    rest = functions[end + 1 :]
    back = rest[rest.index("Intake._read_ready (aio/intake)") :]
    return [*functions[:begin], *back], functions[begin : end + 1]


async def test_from_packet_to_handler_to_packet_it_is_a_dozen(way: tuple[list[str], list[str]]) -> None:
    _caller, callee = way
    assert len(callee) <= MOST_AT_THE_CALLEE
    assert callee == listed("At the callee, from packet to handler to packet")


async def test_from_proxy_to_wire_and_back_it_is_nine(way: tuple[list[str], list[str]]) -> None:
    caller, _callee = way
    steps = [function for index, function in enumerate(caller) if function not in caller[:index]]
    assert len(steps) <= MOST_AT_THE_CALLER
    assert steps == listed("At the caller, from proxy to wire and back")
