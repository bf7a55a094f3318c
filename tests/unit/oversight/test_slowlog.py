"""What takes long is named, and so is what keeps the loop from everything else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from typing import Any

import pytest
from support.daemons import Stage, on_a_pair
from support.waiting import comes_true

import seqrpc
from seqrpc.oversight import SlowLog
from seqrpc.oversight.slowlog import _Steps

LONG = 3600.0
"""Seconds that nothing takes, however slow the machine is."""


class Stuck(seqrpc.RpcError, code="slowlog.Stuck"):
    pass


class Work(seqrpc.Service):
    def __init__(self) -> None:
        self.stage = Stage()

    @seqrpc.method
    async def block(self, turns: int) -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(0.02)  # noqa: ASYNC251 - that is the mistake
        return "done"

    @seqrpc.method
    async def wait(self) -> str:
        self.stage.reach("waits")
        await self.stage.wait("go")
        return "gone"

    @seqrpc.method
    async def quick(self) -> int:
        return 1

    @seqrpc.method
    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise Stuck("it is")

    @seqrpc.method
    async def hold(self) -> str:
        self.stage.reach("held")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.stage.reach("let go")
        return ""


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[Any, str]]:
    return [(vars(each)["method"], each.getMessage()) for each in caplog.records if each.name == "seqrpc.slow"]


@pytest.mark.parametrize("turns", [0, 2])
async def test_a_handler_that_blocks_the_loop_is_named(turns: int, caplog: pytest.LogCaptureFixture) -> None:
    async with on_a_pair(Work(), interceptors=[SlowLog(slow=LONG, blocked=0.01)]) as connection:
        assert await connection.call("Work.block", turns) == "done"
    blocking = [each for each in caplog.records if "Work.block blocked the event loop for" in each.getMessage()]
    assert blocking
    assert vars(blocking[0])["duration"] >= 0.01
    assert vars(blocking[0])["uid"] is not None


async def test_a_handler_that_takes_long_is_named_while_it_runs_and_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Work()
    async with on_a_pair(service, interceptors=[SlowLog(slow=0.005, blocked=LONG)]) as connection:
        waiting = [asyncio.ensure_future(connection.call("Work.wait")) for _ in range(2)]
        await service.stage.wait("waits")
        await comes_true(lambda: len(told(caplog)) == 2)
        assert all("Work.wait has been running for" in text for _method, text in told(caplog))
        service.stage.reach("go")
        assert await asyncio.gather(*waiting) == ["gone", "gone"]
    assert {method for method, _text in told(caplog)} == {"Work.wait"}
    assert len([text for _method, text in told(caplog) if "took" in text]) == 2


async def test_what_blocks_the_loop_and_is_no_handler_is_told(caplog: pytest.LogCaptureFixture) -> None:
    service = Work()
    async with on_a_pair(service, interceptors=[SlowLog(slow=LONG, blocked=0.01)]) as connection:
        waiting = asyncio.ensure_future(connection.call("Work.wait"))
        await service.stage.wait("waits")
        time.sleep(0.03)  # noqa: ASYNC251 - until after the timer is due
        await comes_true(lambda: told(caplog))
        service.stage.reach("go")
        await waiting
    assert any(method is None and "not by a step of a handler" in text for method, text in told(caplog))


async def test_nothing_is_watched_while_nothing_runs_and_little_is_said_otherwise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = SlowLog(slow=LONG, blocked=LONG)
    async with on_a_pair(Work(), interceptors=[log]) as connection:
        assert [await connection.call("Work.quick") for _ in range(3)] == [1, 1, 1]
        (watch,) = log._watches.values()
        assert watch._timer is None
        assert not watch._running
    assert not told(caplog)


async def test_handlers_fail_and_are_cancelled_as_ever() -> None:
    service = Work()
    async with on_a_pair(service, interceptors=[SlowLog()]) as connection:
        with pytest.raises(Stuck):
            await connection.call("Work.fail")
        holding = asyncio.ensure_future(connection.call("Work.hold"))
        await service.stage.wait("held")
        holding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await holding
        await service.stage.wait("let go")


async def test_a_wait_that_is_dropped_is_closed_and_keeps_no_exception() -> None:
    log, closed = SlowLog(), []

    class Watch:
        def stepped(self, *_args: object) -> None: ...

    async def waits() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    steps: Any = _Steps(waits(), None, Watch()).__await__()  # type: ignore[arg-type] # stand-ins
    steps.send(None)
    steps.close()
    assert closed == [True]

    class Own(Exception):
        pass

    async def swallows() -> int:
        with contextlib.suppress(Own):
            await asyncio.sleep(0)
        return 7

    steps = _Steps(swallows(), None, Watch()).__await__()  # type: ignore[arg-type] # stand-ins
    steps.send(None)
    own = Own()
    kept = weakref.ref(own)
    with pytest.raises(StopIteration) as stop:
        steps.throw(own)
    assert stop.value.value == 7
    del own, stop, steps
    gc.collect()
    assert kept() is None
    assert not log._watches


@pytest.mark.parametrize("options", [{"slow": 0}, {"blocked": -1}, {"slow": float("nan")}])
def test_times_are_positive(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        SlowLog(**options)
