from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.daemons import needs_root
from support.lifespans import Broken
from support.processes import OTHER_GID, OTHER_UID
from support.waiting import PATIENCE, comes_true
from support.workers import TO_BEGIN, Desk, Parent, Refuses, Slow, is_alive

import seqrpc
from seqrpc import Execution, Worker
from seqrpc.interface.scope import within


@contextlib.asynccontextmanager
async def started(*args: Any, **options: Any) -> AsyncIterator[tuple[Worker, Desk]]:
    async with asyncio.timeout(PATIENCE), Worker(Desk, *args, **options) as worker:
        yield worker, worker.proxy(Desk)


async def test_a_service_serves_in_a_child() -> None:
    async with started(10, kwargs={"name": "ann"}) as (worker, desk):
        assert await desk.add(1, 2) == 13
        assert await worker.call("Desk.add", 1) == 11
        assert await desk.who() == ["ann", worker.pid, os.getpid()]
        assert [number async for number in desk.count(3)] == [0, 1, 2]
        await worker.notify("Desk.add", 5)
        assert repr(worker) == repr(worker._callee) == f"<Worker Desk pid={worker.pid}>"
        assert (worker.closed, worker.returncode, worker.last_lines) == (False, None, ())
    assert (worker.closed, worker.returncode) == (True, 0)
    with pytest.raises(seqrpc.ConnectionLost, match="closed on this side"):
        await desk.add(1)


async def test_descriptors_are_lent_and_are_open_in_the_child_as_long_as_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    with path.open() as file:
        async with started(kwargs={"file": file}) as (_worker, desk):
            assert await desk.read() == "content"
            assert await desk.read() == "content"
        assert file.read() == "content"


async def test_its_life_is_no_part_of_the_call_in_which_it_is_started() -> None:
    worker = Worker(Desk)
    with within(1, {"of": "the caller"}):  # a deadline that has passed
        await worker.start()
    assert await worker.proxy(Desk).add(1) == 1
    await worker.close()


async def test_a_class_may_be_named() -> None:
    async with Worker("support.workers:Desk", 1) as worker:
        assert await worker.proxy(Desk).add(1) == 2


async def test_the_child_may_call_the_parent_and_nobody_else_may() -> None:
    parent = Parent()
    async with started(serve=parent) as (worker, desk):
        assert await desk.tell("good morning") == worker.pid
        assert parent.heard == ["good morning"]
    async with started(serve=parent, allow=~seqrpc.policy.anyone) as (worker, desk):
        with pytest.raises(seqrpc.RpcError):
            await desk.tell("good evening")
    assert parent.heard == ["good morning"]


async def test_one_has_ended_when_it_is_told_that_the_lifespan_of_what_is_served_to_it_failed() -> None:
    with pytest.raises(OSError, match="the disk is full"):
        async with started(serve=Broken()) as (worker, desk):
            assert await desk.add(1) == 1
    assert (worker.closed, worker.returncode) == (True, 0)


async def test_interceptors_surround_calls_both_ways() -> None:
    seen: list[str] = []

    class Notes(seqrpc.Interceptor):
        async def request(self, call: seqrpc.OutgoingCall, proceed: Any) -> Any:
            seen.append(call.method)
            return await proceed()

    async with started(interceptors=[Notes()]) as (_worker, desk):
        assert await desk.add(1) == 1
    assert seen[-1] == "Desk.add"


async def test_limits_hold_at_both_ends() -> None:
    async with started(connection_limits=seqrpc.Limits(max_message_bytes=100_000)) as (worker, _desk):
        with pytest.raises(seqrpc.TooLarge):
            await worker.call("Desk.add", "x" * 200_000)


async def test_before_it_is_started_it_has_nobody_to_call() -> None:
    worker = Worker(Desk)
    assert (worker.pid, worker.returncode, worker.closed, worker.last_lines) == (None, None, False, ())
    assert repr(worker) == "<Worker Desk>"
    for calling in (worker.call, worker.notify):
        with pytest.raises(RuntimeError, match="the worker Desk was not started: write 'async with'"):
            await calling("Desk.add", 1)
    async with worker.proxy(Desk):
        pass
    worker.kill()
    assert await worker.wait() is None
    await worker.close()
    with pytest.raises(TypeError, match="is entered by 'async with', not by 'with'"), worker:  # type: ignore[attr-defined]
        pass


async def test_it_is_started_once() -> None:
    async with started() as (worker, desk):
        with pytest.raises(RuntimeError, match="was started before"):
            await worker.start()
        async with desk:
            pass
        assert await desk.add(1) == 1


async def test_a_call_that_is_cancelled_is_cancelled_in_the_child() -> None:
    async with started(grace=PATIENCE) as (_worker, desk):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await desk.doze(PATIENCE)
        with pytest.raises(seqrpc.DeadlineExceeded):
            async with seqrpc.timeout(0.05):
                await desk.doze(PATIENCE)
        assert await desk.add(1) == 1


@pytest.mark.parametrize("method", ["hang", "ignore_cancelling"])
async def test_a_child_that_does_not_react_is_killed_and_only_its_calls_fail(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(grace=0.1) as (worker, desk), started(grace=0.1) as (_other, friend):
        other = asyncio.ensure_future(desk.doze(PATIENCE))
        await desk.add(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(TO_BEGIN):
                await getattr(desk, method)()
        with pytest.raises(seqrpc.WorkerCrashed) as caught:
            await other
        assert "did not end a call within 0.1 s after it was cancelled, and was killed" in str(caught.value)
        assert caught.value.returncode == worker.returncode == -signal.SIGKILL
        assert caught.value.execution is Execution.MAY_HAVE_RUN
        with pytest.raises(seqrpc.WorkerCrashed) as after:
            await desk.add(1)
        assert after.value.execution is Execution.DID_NOT_RUN
        with pytest.raises(seqrpc.WorkerCrashed):
            await worker.notify("Desk.add", 1)
        assert await friend.add(1) == 1
    assert "did not end a call" in caplog.text


@pytest.mark.parametrize(
    "method, argument, returncode, text",
    [("exit", 3, 3, "exited with status 3"), ("die", signal.SIGSEGV, -signal.SIGSEGV, "died of SIGSEGV")],
)
async def test_an_end_is_told_with_its_status_and_the_last_lines(
    method: str, argument: int, returncode: int, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with started() as (worker, desk):
        await desk.write("", "one\nthe last\n")
        with pytest.raises(seqrpc.WorkerCrashed, match=text) as caught:
            await getattr(desk, method)(argument)
        assert caught.value.last_lines == worker.last_lines == ("one", "the last")
        assert (caught.value.returncode, await worker.wait()) == (returncode, returncode)
        assert worker.closed


async def test_one_that_is_killed_says_so() -> None:
    async with started() as (worker, desk):
        call = asyncio.ensure_future(desk.doze(PATIENCE))
        await desk.add(1)
        worker.kill()
        worker.kill()
        with pytest.raises(seqrpc.WorkerCrashed, match="was killed by kill"):
            await call


async def test_one_whose_child_holds_the_socket_ends_all_the_same() -> None:
    async with started(grace=0.2) as (worker, desk):
        grandchild = await desk.fork()
        assert worker.pid is not None
        call = asyncio.ensure_future(desk.doze(PATIENCE))
        await desk.add(1)
        os.kill(worker.pid, signal.SIGKILL)
        try:
            with pytest.raises(seqrpc.WorkerCrashed, match="died of SIGKILL"):
                await call
        finally:
            os.kill(grandchild, signal.SIGKILL)


async def test_what_it_writes_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    async with started() as (worker, desk):
        await desk.write("to out\n", "to err\n")
        await comes_true(lambda: worker.last_lines)
    out, err = capfd.readouterr()
    assert (out, err) == ("to out\n", "to err\n")


async def test_what_it_writes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "child"):
        async with started(output=logging.getLogger("child")) as (_worker, desk):
            await desk.write("to out\nno end", "to err\n")
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "child"]
    assert sorted(told) == [("INFO", "Desk: no end"), ("INFO", "Desk: to out"), ("WARNING", "Desk: to err")]


async def test_what_it_writes_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    async with started(output="capture") as (worker, desk):
        await desk.write("to out\n", "to err\n")
        await comes_true(lambda: worker.last_lines)
        assert worker.last_lines == ("to err",)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "service, args, text",
    [
        ("no.such_module:Desk", (), "ModuleNotFoundError: No module named 'no'"),
        ("support.workers:NoDesk", (), "AttributeError: module 'support.workers' has no attribute 'NoDesk'"),
        ("support.workers:echo", (), "TypeError: support.workers:echo is no class of a service"),
        (Refuses, ("not today",), "ValueError: not today"),
        (Desk, ("three",), "InvalidParams: .*Expected `int`, got `str`"),
    ],
)
async def test_why_it_does_not_begin_is_told(service: Any, args: Any, text: str) -> None:
    worker = Worker(service, *args, output="capture")
    with pytest.raises(seqrpc.WorkerCrashed, match=f"did not begin: .*{text}") as caught:
        await worker.start()
    assert caught.value.execution is Execution.DID_NOT_RUN


async def test_one_that_takes_too_long_to_begin_is_killed() -> None:
    with pytest.raises(seqrpc.WorkerCrashed, match=r"did not begin within 0\.3 s, and was killed"):
        await Worker(Slow, 60, start_timeout=0.3, output="capture").start()


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    task = asyncio.ensure_future(Worker(Slow, 60).start())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_program_that_is_not_there_is_told() -> None:
    with pytest.raises(seqrpc.WorkerCrashed, match=r"the worker program .* exited with status 126"):
        await Worker(command=["/nowhere/program"], output="capture").start()


async def test_one_that_is_dropped_ends_and_says_so() -> None:
    worker = Worker(Desk)
    await worker.start()
    pid = worker.pid
    assert pid is not None
    with pytest.warns(ResourceWarning, match="unclosed <Worker Desk"):
        worker = gc.collect()  # type: ignore[assignment] # nothing refers to it any more
    await comes_true(lambda: not is_alive(pid))
    await asyncio.sleep(0)


async def test_a_proxy_keeps_it() -> None:
    async def proxy() -> tuple[Worker, Desk]:
        worker = Worker(Desk)
        await worker.start()
        return worker, worker.proxy(Desk)

    worker, desk = await proxy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
        assert await desk.add(1) == 1
    await worker.close()
    await worker.close()


@needs_root
async def test_a_child_may_be_somebody_else(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    options: dict[str, Any] = {
        "user": OTHER_UID, "group": OTHER_GID, "groups": [OTHER_GID + 1], "cwd": tmp_path, "nice": 1,
        "environment": {"ONLY": "this"}, "limits": {"nofile": (64, 64)}, "no_new_privileges": True,
    }  # fmt: skip
    async with started(3, serve=Parent(), **options) as (worker, desk):
        assert await desk.identity() == {
            "uids": [OTHER_UID] * 3,
            "gids": [OTHER_GID] * 3,
            "groups": [OTHER_GID + 1],
            "cwd": str(tmp_path),
            "nofile": [64, 64],
            "nice": min(os.nice(0) + 1, 19),
            "no_new_privileges": "1",
            "environment": {"ONLY": "this"} | {name: value async for name, value in _python_sets(desk)},
        }
        assert await desk.add(1) == 4
        assert await desk.tell("who I am") == worker.pid


async def _python_sets(desk: Desk) -> AsyncIterator[tuple[str, str]]:
    """Yield what Python, or a measurement of what runs, adds to the environment by itself."""
    for name, value in (await desk.identity())["environment"].items():
        if name == "LC_CTYPE" or name.startswith("COV"):
            yield name, value


WRAPPER = """
import os, socket, sys, time
sock = socket.socket(fileno=3)
if not os.fork():
    sock.send(b"\\x94\\x01\\x00\\xc0\\xc0")
    os._exit(0)
sock.recv(1000)
time.sleep(60)
"""


async def test_a_program_that_has_another_process_answer_is_told_so() -> None:
    with pytest.raises(seqrpc.WorkerCrashed, match=r"broke the protocol: .*a packet of process \d+ came") as caught:
        await Worker(command=[sys.executable, "-c", WRAPPER], grace=0.1).start()
    assert caught.value.execution is Execution.DID_NOT_RUN


async def test_services_that_cannot_be_served_leave_nothing_open() -> None:
    with pytest.raises(ValueError, match="two services are named 'Parent'"):
        await Worker(Desk, serve=[Parent(), Parent()]).start()
