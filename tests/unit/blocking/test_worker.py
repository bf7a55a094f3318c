from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemons import needs_root
from support.descriptors import open_fds
from support.plans import ANSWERS, DEAF, LINGERS, REFUSES, SILENT, program
from support.processes import OTHER_GID, OTHER_UID, fork_as_a_library_does, in_child
from support.waiting import PATIENCE
from support.workers import TO_BEGIN, Desk, Parent, Refuses, Slow, is_alive

import seqrpc
from seqrpc import Execution, blocking
from seqrpc.blocking import Worker

PACKAGES = Path(__file__).parents[3]


@contextlib.contextmanager
def started(*args: Any, **options: Any) -> Iterator[tuple[Worker, Any]]:
    with Worker(Desk, *args, **options) as worker:
        yield worker, worker.proxy(Desk)


def until(condition: Callable[[], object]) -> None:
    """Wait for what nobody tells of."""
    over = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < over
        os.sched_yield()


def test_a_service_serves_in_a_child() -> None:
    with started(10, kwargs={"name": "ann"}) as (worker, desk):
        assert desk.add(1, 2) == 13
        assert worker.call("Desk.add", 1) == 11
        assert desk.who() == ["ann", worker.pid, os.getpid()]
        assert list(desk.count(3)) == [0, 1, 2]
        worker.notify("Desk.add", 5)
        assert repr(worker) == repr(worker._callee) == f"<Worker Desk pid={worker.pid}>"
        assert (worker.closed, worker.returncode, worker.last_lines) == (False, None, ())
        assert worker.wait(0.01) is None
        with desk:
            pass
        assert desk.add(1) == 11
    assert (worker.closed, worker.returncode) == (True, 0)
    with pytest.raises(seqrpc.ConnectionLost, match="closed on this side"):
        desk.add(1)
    with pytest.raises(seqrpc.ConnectionLost, match="closed on this side"):
        worker.notify("Desk.add", 1)
    worker.close()


def test_a_program_that_speaks_the_protocol_is_as_good() -> None:
    with Worker(command=program(ANSWERS)) as worker:
        assert worker.call("Any.thing") is None
    assert worker.returncode == 0


def test_descriptors_are_lent_and_are_open_in_the_child_as_long_as_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    with path.open() as file:
        with started(kwargs={"file": file}) as (_worker, desk):
            assert desk.read() == desk.read() == "content"
        assert file.read() == "content"


def test_the_child_may_call_the_parent_as_far_as_the_policy_lets_it() -> None:
    parent = Parent()
    for options in ({}, {"allow": seqrpc.policy.anyone}):
        with started(serve=parent, **options) as (worker, desk):
            assert desk.tell("good morning") == worker.pid
    with started(serve=parent, allow=~seqrpc.policy.anyone) as (worker, desk), pytest.raises(seqrpc.RpcError):
        desk.tell("good evening")
    assert parent.heard == ["good morning"] * 2


def test_limits_hold_at_both_ends() -> None:
    limits = seqrpc.Limits(max_message_bytes=100_000)
    with started(connection_limits=limits) as (worker, _desk), pytest.raises(seqrpc.TooLarge):
        worker.call("Desk.add", "x" * 200_000)


def test_before_it_is_started_it_has_nobody_to_call() -> None:
    worker = Worker(Desk)
    assert (worker.pid, worker.returncode, worker.closed, worker.last_lines) == (None, None, False, ())
    assert repr(worker) == "<Worker Desk>"
    for calling in (worker.call, worker.notify):
        with pytest.raises(RuntimeError, match="the worker Desk was not started: write 'with'"):
            calling("Desk.add", 1)
    worker.kill()
    assert worker.wait() is None
    worker.close()


def test_it_is_started_once() -> None:
    with started() as (worker, _desk), pytest.raises(RuntimeError, match="was started before"):
        worker.start()


def test_output_is_inherited_or_captured() -> None:
    with pytest.raises(TypeError, match="output= is 'inherit' or 'capture' where no loop runs, got 'log'"):
        Worker(Desk, output="log")  # type: ignore[arg-type]


def test_what_it_writes_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with started() as (_worker, desk):
        desk.write("to out\n", "to err\n")
    assert capfd.readouterr() == ("to out\n", "to err\n")


def test_what_it_writes_is_kept_and_read_while_somebody_waits(capfd: pytest.CaptureFixture[str]) -> None:
    with started(output="capture") as (worker, desk):
        desk.write("x\n" * 300_000, "the last\n")  # more than a pipe holds
        worker.call("Desk.add", 1)
        desk.write("", "no end")
    assert worker.last_lines[-1] == "no end"
    assert capfd.readouterr() == ("", "")


def test_one_that_closes_its_output_lives_on() -> None:
    code = f"os.close(1); os.close(2)\n{ANSWERS}"
    with Worker(command=program(code), output="capture") as worker:
        assert worker.call("Any.thing") is None
        assert worker.wait(0.01) is None
        assert worker.call("Any.thing") is None
    assert worker.returncode == 0


def test_a_call_whose_time_is_up_is_cancelled_in_the_child() -> None:
    with started() as (_worker, desk):
        with pytest.raises(seqrpc.DeadlineExceeded), blocking.timeout(0.05):
            desk.doze(PATIENCE)
        assert desk.add(1) == 1


@pytest.mark.parametrize("method", ["hang", "ignore_cancelling"])
def test_a_child_that_does_not_react_is_killed_by_the_next_call(method: str) -> None:
    with started(grace=0.1) as (worker, desk):
        with pytest.raises(seqrpc.DeadlineExceeded), blocking.timeout(TO_BEGIN):
            getattr(desk, method)()
        worker.wait(0.15)
        with pytest.raises(seqrpc.WorkerCrashed, match=r"did not end a call within 0\.1 s after it was") as caught:
            desk.add(1)
        assert caught.value.execution is Execution.DID_NOT_RUN
        assert worker.returncode == caught.value.returncode == -signal.SIGKILL
        with pytest.raises(seqrpc.WorkerCrashed):
            worker.notify("Desk.add", 1)


def test_a_child_that_does_not_react_is_killed_while_the_next_call_waits() -> None:
    with started(grace=0.1) as (worker, desk):
        with pytest.raises(seqrpc.DeadlineExceeded), blocking.timeout(TO_BEGIN):
            desk.hang()
        with pytest.raises(seqrpc.WorkerCrashed, match=r"did not end a call within 0\.1 s after it was"):
            desk.doze(PATIENCE)
        assert worker.returncode == -signal.SIGKILL


def test_a_call_that_was_given_up_and_has_ended_ends_nothing_else() -> None:
    with started(grace=0.5) as (_worker, desk):
        with pytest.raises(seqrpc.DeadlineExceeded), blocking.timeout(0.05):
            desk.doze(PATIENCE)
        assert desk.doze(0.6, 3) == 3
        assert desk.add(1) == 1


def test_several_threads_may_see_it_die() -> None:
    with started() as (worker, desk):
        errors: list[BaseException] = []

        def call() -> None:
            try:
                desk.doze(PATIENCE)
            except BaseException as exc:
                errors.append(exc)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert desk.add(1) == 1
        worker.kill()
        for thread in threads:
            thread.join(PATIENCE)
        assert {(type(error), getattr(error, "returncode", None)) for error in errors} == {
            (seqrpc.WorkerCrashed, -signal.SIGKILL)
        }
        assert len(errors) == 8


def test_one_that_is_interrupted_is_given_up_as_well() -> None:
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    with started() as (worker, desk):
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                desk.doze(PATIENCE)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert desk.add(1) == 1
    assert worker.returncode == 0


@pytest.mark.parametrize(
    "method, argument, returncode, text",
    [("exit", 3, 3, "exited with status 3"), ("die", signal.SIGSEGV, -signal.SIGSEGV, "died of SIGSEGV")],
)
def test_an_end_is_told_with_its_status_and_the_last_lines(
    method: str, argument: int, returncode: int, text: str
) -> None:
    with started(output="capture") as (worker, desk):
        desk.write("", "one\nthe last\n")
        with pytest.raises(seqrpc.WorkerCrashed, match=text) as caught:
            getattr(desk, method)(argument)
        assert caught.value.last_lines == worker.last_lines == ("one", "the last")
        assert caught.value.execution is Execution.MAY_HAVE_RUN
        assert (caught.value.returncode, worker.wait()) == (returncode, returncode)
        assert worker.closed
        with pytest.raises(seqrpc.WorkerCrashed, match=text) as after:
            desk.add(1)
        assert after.value.execution is Execution.DID_NOT_RUN


def test_one_that_is_killed_says_so() -> None:
    with started() as (worker, desk):
        worker.kill()
        worker.kill()
        with pytest.raises(seqrpc.WorkerCrashed, match="was killed by kill"):
            desk.add(1)
        assert worker.wait() == -signal.SIGKILL
        worker.kill()


def test_one_that_ends_its_connection_alone_is_killed() -> None:
    code = "kind, number, *_ = msgpack.unpackb(sock.recv(1000)); sock.send(msgpack.packb([1, number, None, None]))"
    deaf = Worker(command=program(f"{code}\n{DEAF}"), grace=0.1, output="capture")
    with deaf as worker, pytest.raises(seqrpc.WorkerCrashed, match="ended its connection, and was killed"):
        worker.call("Any.thing")


def test_one_that_lives_on_is_killed() -> None:
    with Worker(command=program(LINGERS), grace=0.1, output="capture") as worker:
        pass
    assert worker.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "service, options, text",
    [
        (("no.such_module:Desk",), {}, "did not begin: ModuleNotFoundError: No module named 'no'"),
        (("support.workers:NoDesk",), {}, "AttributeError: module 'support.workers' has no attribute 'NoDesk'"),
        ((Refuses, "not today"), {}, "the worker Refuses did not begin: ValueError: not today"),
        ((Desk, "three"), {}, "InvalidParams: .*Expected `int`, got `str`"),
        ((Slow, 60), {"start_timeout": 0.2}, r"did not begin within 0\.2 s, and was killed"),
        ((), {"command": program(SILENT), "start_timeout": 0.2}, r"did not begin within 0\.2 s, and was killed"),
        ((), {"command": program(DEAF), "grace": 0.1}, "ended its connection, and was killed"),
        ((), {"command": program(REFUSES), "grace": 0.1}, "did not begin: app.No: not today"),
        ((), {"command": program("sys.exit('no wish to')")}, "exited with status 1; its last line: no wish to"),
        ((), {"command": ["/nowhere/program"]}, "exited with status 126; its last line: cannot start /nowhere"),
    ],
)
def test_one_that_does_not_begin_says_why(service: tuple[Any, ...], options: dict[str, Any], text: str) -> None:
    before = open_fds()
    worker = Worker(*service, output="capture", **options)
    with pytest.raises(seqrpc.WorkerCrashed, match=text):
        worker.start()
    with pytest.raises(RuntimeError, match="was not started"):
        worker.call("Desk.add", 1)
    assert open_fds() == before


@pytest.mark.parametrize("output", ["inherit", "capture"])
def test_without_a_python_there_is_no_child(output: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_fds()
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(OSError, match="does not know its own Python"):
        Worker(Desk, output=output).start()
    assert open_fds() == before


def test_a_start_that_is_interrupted_leaves_nothing() -> None:
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    before = open_fds()
    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            Worker(Slow, 60, output="capture").start()
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert open_fds() == before


def test_one_that_is_dropped_ends_and_says_so() -> None:
    worker = Worker(Desk)
    worker.start()
    pid = worker.pid
    assert pid is not None
    with pytest.warns(ResourceWarning, match="unclosed <Worker Desk"):
        worker = gc.collect()  # type: ignore[assignment] # nothing refers to it any more
    assert not is_alive(pid)


def test_one_that_has_ended_is_dropped_without_a_word() -> None:
    worker = Worker(Desk)
    worker.start()
    worker.kill()
    assert worker.wait() == -signal.SIGKILL
    before = worker._running
    del worker, before
    gc.collect()


def test_a_fork_leaves_it_alone() -> None:
    with started() as (worker, desk):
        assert in_child(worker.close) is None
        pid = fork_as_a_library_does()
        if not pid:
            worker.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert desk.add(1) == 1


@needs_root
def test_a_child_may_be_somebody_else(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    options: dict[str, Any] = {"user": OTHER_UID, "group": OTHER_GID, "cwd": tmp_path, "limits": {"nofile": (64, 64)}}
    with started(3, serve=Parent(), **options) as (worker, desk):
        told = desk.identity()
        assert (told["uids"], told["gids"], told["groups"]) == ([OTHER_UID] * 3, [OTHER_GID] * 3, [])
        assert (told["cwd"], told["nofile"]) == (str(tmp_path), [64, 64])
        assert desk.tell("who I am") == worker.pid


def test_no_loop_is_needed_or_made() -> None:
    code = """
import sys
from support.workers import Desk
from seqrpc.blocking import Worker
if __name__ == "__main__":
    with Worker(Desk, 1) as worker:
        print(worker.proxy(Desk).add(2), "uvloop" in sys.modules)
"""
    path = os.pathsep.join([str(PACKAGES), str(PACKAGES / "tests")])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("3 False\n", "")


def test_services_that_cannot_be_served_leave_nothing_open() -> None:
    with pytest.raises(ValueError, match="two services are named 'Parent'"):
        blocking.Worker(Desk, serve=[Parent(), Parent()]).start()
