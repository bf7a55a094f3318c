from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.waiting import PATIENCE
from support.workers import (
    Unknown,
    echo,
    fail,
    fail_strangely,
    fail_to_initialize,
    fail_with_notes,
    give,
    gone_within,
    initialize,
    initialized,
    leave,
    pid_after,
    run_a_loop,
    wait_for_file,
)

import seqrpc
from seqrpc import Execution, WorkerExecutor
from seqrpc.workers.executor import CallCrashed


@contextmanager
def executing(size: int = 1, **options: Any) -> Iterator[WorkerExecutor]:
    with WorkerExecutor(size, **options) as executor:
        yield executor


@pytest.fixture(scope="module")
def shared() -> Iterator[WorkerExecutor]:
    """Return an executor of one worker, for tests that leave it as it is."""
    with WorkerExecutor(1) as executor:
        executor.submit(int).result(PATIENCE)
        yield executor


def pids(executor: WorkerExecutor) -> list[int]:
    return [running.process.pid for running in executor._engine.hands.runnings]


def error_of(future: Future[Any]) -> Any:
    return future.exception(PATIENCE)


# What travels


@pytest.mark.parametrize(
    "value",
    [
        None, True, 1, 2**64, -(2**63) - 1, 10**5000, -(10**5000), 1.5, 1j, "é", "a file \udcff", b"x", bytearray(b"x"),
        [], (1, (2,)), {1, (2, 3)}, frozenset({1}), {None: 1, (1, 2): [{}]}, range(1, 9, 2), b"x" * 10_000_000,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_plain_data_come_back_as_they_were(shared: WorkerExecutor, value: Any) -> None:
    (args, kwargs) = shared.submit(echo, value, name=value).result(PATIENCE)
    assert (args, kwargs) == ((value,), {"name": value})
    assert type(args[0]) is type(value)


@pytest.mark.parametrize(
    "function, args, result",
    [
        (pow, (2, 8), 256),
        (int, ("3",), 3),
        (str.upper, ("a",), "A"),
        (dict.fromkeys, ([1],), {1: None}),
        (functools.partial(functools.partial(echo, 1, a=1, b=1), 2, b=2), (3,), ((1, 2, 3), {"a": 1, "b": 2})),
        (run_a_loop, (), "ran"),
    ],
)
def test_functions_are_found_by_their_names(
    shared: WorkerExecutor, function: Callable[..., Any], args: Any, result: Any
) -> None:
    assert shared.submit(function, *args).result(PATIENCE) == result


class Thing:
    def method(self) -> None: ...


def nested() -> Any:
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    "function, args, kind, text",
    [
        (lambda: 1, (), ValueError, "cannot be imported in a child"),
        (Thing().method, (), ValueError, "cannot be imported in a child"),
        ([].append, (1,), TypeError, "has no name by which a child could find it"),
        (functools.partial(Thing().method), (), ValueError, "cannot be imported in a child"),
        (echo, (1, [{"a": object()}]), TypeError, r"echo: args\[1\]\[0\]\['a'\] is of type object"),
        (echo, (nested(),), ValueError, "is nested too deeply"),
        (functools.partial(echo, x=Thing), (), TypeError, r"echo: kwargs\['x'\] is of type type"),
        (give, ("object",), TypeError, "the result of give is of type object, which does not travel"),
    ],
)
def test_what_does_not_travel_is_an_error_of_its_future(
    shared: WorkerExecutor, function: Callable[..., Any], args: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        shared.submit(function, *args).result(PATIENCE)


def test_nothing_keeps_what_was_submitted_in_vain(shared: WorkerExecutor) -> None:
    gone = threading.Event()
    thing = Thing()
    function = thing.method
    import weakref

    weakref.finalize(thing, gone.set)
    gc.disable()
    try:
        shared.submit(function)
        del thing, function
        assert gone.is_set()
    finally:
        gc.enable()


# Exceptions


def test_exceptions_arrive_as_they_were_raised(shared: WorkerExecutor) -> None:
    error = error_of(shared.submit(fail, "text"))
    assert (type(error), error.args) == (KeyError, ("text", 5))
    assert "raise KeyError(text, 5)" in str(error.__cause__)
    error = error_of(shared.submit(open, "/nowhere/to/be/found"))
    assert (type(error), error.filename) == (FileNotFoundError, "/nowhere/to/be/found")
    error = error_of(shared.submit(sys.exit, 3))
    assert (type(error), error.code) == (SystemExit, 3)


def test_their_notes_and_attributes_travel_as_far_as_they_are_plain(shared: WorkerExecutor) -> None:
    error = error_of(shared.submit(fail_with_notes, "a file \udcff"))
    assert (error.__notes__, error.number, error.args) == (["a note"], 5, ("a file \udcff",))
    assert not hasattr(error, "thing")


def test_one_that_cannot_be_made_here_is_told_by_another(shared: WorkerExecutor) -> None:
    error = error_of(shared.submit(fail_strangely))
    assert type(error) is RuntimeError
    assert str(error).startswith(f"support.workers.{Unknown.__qualname__}: <object object")


# Workers


def test_a_worker_that_dies_fails_its_call_and_no_other() -> None:
    with executing(2) as executor:
        calls = [executor.submit(leave, 3) if number % 3 == 0 else executor.submit(abs, number) for number in range(9)]
        errors = [error_of(call) for call in calls]
        assert [type(error) for error in errors] == [CallCrashed, type(None), type(None)] * 3
    crash = errors[0]
    assert isinstance(crash, seqrpc.WorkerCrashed)
    assert isinstance(crash, BrokenProcessPool)
    assert (crash.returncode, crash.execution) == (3, Execution.MAY_HAVE_RUN)


def test_a_call_that_never_reached_its_worker_is_made_by_another() -> None:
    with executing(1) as executor:
        executor.submit(int).result(PATIENCE)
        (member,) = executor._engine.hands.hall.members
        request = member.callee.request
        left = [1]

        async def lose(*args: Any) -> Any:
            if left:
                left.pop()
                error = seqrpc.WorkerCrashed("gone")
                error.execution = Execution.DID_NOT_RUN
                raise error
            return await request(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(member.callee), "request", staticmethod(lose))
            assert executor.submit(abs, -1).result(PATIENCE) == 1
    assert not left


def test_no_more_are_started_than_have_to_do() -> None:
    with executing(5) as executor:
        for _ in range(3):
            executor.submit(int).result(PATIENCE)
        assert len(pids(executor)) == 1


def test_one_is_replaced_after_so_many_calls_and_never_two_at_a_time(tmp_path: Path) -> None:
    with executing(1, max_tasks_per_child=2) as executor:
        seen = [future.result(PATIENCE) for future in [executor.submit(pid_after, 0.01) for _ in range(6)]]
        assert seen[0::2] == seen[1::2]
        assert len(set(seen)) == 3
        members = list(executor._engine.hands.hall.members)
        assert sum(not member.is_leaving for member in members) <= 1


def test_a_worker_is_initialized() -> None:
    with executing(1, initializer=initialize, initargs=(1, (2,))) as executor:
        assert executor.submit(initialized).result(PATIENCE) == [1, (2,)]


def test_without_a_worker_that_begins_it_is_broken() -> None:
    with executing(1, initializer=fail_to_initialize, output="capture") as executor:
        calls = [executor.submit(abs, number) for number in range(3)]
        for call in calls:
            with pytest.raises(BrokenExecutor, match="did not begin: ValueError: no"):
                call.result(PATIENCE)
        with pytest.raises(BrokenProcessPool, match="did not begin: ValueError: no"):
            executor.submit(abs, 1)


def test_one_that_broke_lets_what_was_cancelled_be(tmp_path: Path) -> None:
    with executing(1, initializer=fail_to_initialize, output="capture") as executor:
        first, second = executor.submit(int), executor.submit(int)
        assert second.cancel()
        assert isinstance(error_of(first), BrokenProcessPool)
    assert second.cancelled()


# Mapping


@pytest.mark.parametrize("size", [1, 3, 50])
def test_items_are_mapped(shared: WorkerExecutor, size: int) -> None:
    assert list(shared.map(pow, range(10), range(10), chunksize=size)) == list(map(pow, range(10), range(10)))
    rest = shared.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5], chunksize=size)
    with pytest.raises(ZeroDivisionError):
        list(rest)


def test_a_chunk_is_not_less_than_one(shared: WorkerExecutor) -> None:
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        shared.map(abs, [1], chunksize=0)


@pytest.mark.parametrize("size", [1, 2])
def test_results_that_are_late_are_given_up(tmp_path: Path, size: int) -> None:
    path = tmp_path / "go"
    with executing(1) as executor:
        results = executor.map(wait_for_file, [str(path)] * 5, timeout=0.01, chunksize=size)
        try:
            with pytest.raises(TimeoutError):
                next(results)
            assert all(future.cancelled() for future in list(executor._engine._pending))
        finally:
            path.touch()


# Its end


def test_when_shut_down_it_ends_what_was_submitted_and_takes_no_more() -> None:
    executor = WorkerExecutor(2)
    calls = [executor.submit(abs, number) for number in range(20)]
    before = executor.submit(os.getpid)
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, 1)
    executor.shutdown()
    executor.shutdown(cancel_futures=True)
    assert [call.result(0) for call in calls] == list(range(20))
    assert not executor._engine.thread.is_alive()
    assert gone_within(PATIENCE, [before.result(0)])


def test_what_no_worker_has_begun_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "go"
    executor = WorkerExecutor(1)
    calls = [executor.submit(wait_for_file, str(path)) for _ in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    path.touch()
    executor.shutdown()
    assert [call.cancelled() for call in calls] == [False, True, True, True, True]
    assert calls[0].result(0) is None


def test_one_that_is_cancelled_while_it_waits_for_its_turn_is_not_made(tmp_path: Path) -> None:
    path, made = tmp_path / "go", tmp_path / "made"
    with executing(1) as executor:
        assert executor.submit(abs, 1).result(PATIENCE) == 1
        first, second = executor.submit(wait_for_file, str(path)), executor.submit(os.mkdir, str(made))
        try:
            assert second.cancel()
        finally:
            path.touch()
        first.result(PATIENCE)
    assert not made.exists()


def test_one_that_is_never_used_ends_at_once() -> None:
    for _ in range(20):
        WorkerExecutor(1).shutdown()


def test_one_that_is_dropped_ends_what_was_submitted() -> None:
    executor = WorkerExecutor(1)
    call = executor.submit(pid_after, 0.05)
    thread = executor._engine.thread
    del executor
    gc.collect()
    thread.join(PATIENCE)
    assert gone_within(PATIENCE, [call.result(0)])


def test_callbacks_may_submit_and_shut_down() -> None:
    executor = WorkerExecutor(1)
    more: Future[Future[int]] = Future()

    def go_on(_: Future[int]) -> None:
        more.set_result(executor.submit(abs, -2))
        executor.shutdown()

    executor.submit(abs, -1).add_done_callback(go_on)
    assert more.result(PATIENCE).result(PATIENCE) == 2
    executor.shutdown()
    assert not executor._engine.thread.is_alive()


def test_callbacks_of_what_is_cancelled_may_submit(tmp_path: Path) -> None:
    path = tmp_path / "go"
    executor = WorkerExecutor(1)
    executor.submit(wait_for_file, str(path))
    told: list[str] = []

    def go_on(_: Future[None]) -> None:
        with pytest.raises(RuntimeError) as caught:
            executor.submit(abs, 1)
        told.append(str(caught.value))

    executor.submit(wait_for_file, str(path)).add_done_callback(go_on)
    executor.shutdown(wait=False, cancel_futures=True)
    path.touch()
    executor.shutdown()
    assert told == ["cannot schedule new futures after shutdown"]


def test_in_a_fork_it_is_anothers_and_its_end_changes_nothing() -> None:
    script = """if True:
        import os, sys, seqrpc
        executor = seqrpc.WorkerExecutor(1)
        executor.submit(int).result()
        pid = os.fork()
        if not pid:
            try:
                executor.submit(int)
            except seqrpc.WrongProcess:
                executor.shutdown()
                sys.exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), executor.submit(abs, -5).result())
    """
    assert run(script) == ("3 5\n", "")


def run(script: str) -> tuple[str, str]:
    """Run a program, and return what it writes."""
    options = ["-W", "ignore::DeprecationWarning"]  # of fork(2)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, *options, "-c", script],
        env=environment, timeout=PATIENCE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return ran.stdout, ran.stderr


def test_when_the_program_ends_what_was_submitted_is_waited_for() -> None:
    script = """if True:
        import atexit

        @atexit.register
        def last():
            try:
                executor.submit(abs, 1)
            except RuntimeError as exc:
                print(exc)

        import seqrpc
        executor = seqrpc.WorkerExecutor(1)
        executor.submit(int).result()
        for number in range(3):
            executor.submit(abs, number).add_done_callback(lambda future: print(future.result()))
    """
    assert run(script) == ("0\n1\n2\ncannot schedule new futures after interpreter shutdown\n", "")


# What is wrong


@pytest.mark.parametrize(
    "options, kind, text",
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": 1.5}, TypeError, "max_workers= takes a whole number"),
        ({"initializer": 1}, TypeError, "initializer must be a callable"),
        ({"initializer": initialize, "initargs": (object(),)}, TypeError, r"initargs\[0\] is of type object"),
        ({"max_tasks_per_child": 1.5}, TypeError, "max_tasks_per_child must be an integer"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be >= 1"),
        ({"output": "nothing"}, TypeError, "output= is 'inherit'"),
    ],
)
def test_what_is_wrong_is_told(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        WorkerExecutor(**options)


def test_by_default_there_are_as_many_as_processors() -> None:
    with WorkerExecutor() as executor:
        assert executor._engine._size == len(os.sched_getaffinity(0))
