from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.processes import in_child
from support.workers import gone_within, is_alive

from seqrpc.kernel.processes import Leash, Process, how_it_ended, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are Linux's")

SLEEP = "import time; time.sleep(60)"


def program(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@pytest.fixture
def end(pipe: tuple[int, int]) -> int:
    """Return a descriptor to be inherited."""
    return pipe[1]


@pytest.fixture
def running(end: int) -> Iterator[Process]:
    process = start(program(SLEEP), end, name="sleeper")
    yield process
    process.kill()
    wait(process)


def wait(process: Process) -> int | None:
    assert gone_within(20, [process.pid])
    assert process.poll()
    return process.returncode


def test_a_child_has_its_streams_and_one_descriptor(pipe: tuple[int, int]) -> None:
    other = os.dup(pipe[0])
    os.set_inheritable(other, True)
    code = "import os; os.write(int(os.environ['SEQRPC_FD']), ' '.join(sorted(os.listdir('/proc/self/fd'))).encode())"
    process = start(program(code), pipe[1], name="lists")
    assert wait(process) == 0
    listed = set(map(int, os.read(pipe[0], 1000).split()))
    os.close(other)
    assert pipe[1] in listed
    assert len(listed - {0, 1, 2, pipe[1]}) == 1, "that of the directory that it lists"


def test_environment_and_directory_and_streams_are_those_that_are_given(pipe: tuple[int, int]) -> None:
    code = "import os, sys; print(os.environ['A'], os.getcwd(), 'HOME' in os.environ); print('err', file=sys.stderr)"
    process = start(program(code), pipe[1], name="x", environment={"A": "b"}, cwd="/", stdout=pipe[1], stderr=pipe[1])
    assert wait(process) == 0
    assert sorted(os.read(pipe[0], 1000).decode().splitlines()) == ["b / False", "err"]


def test_a_process_without_streams_of_its_own_starts_children_as_any(pipe: tuple[int, int]) -> None:
    def work() -> bytes:
        os.dup2(pipe[1], 1)
        process = start(program("import os; os.write(int(os.environ['SEQRPC_FD']), b'there')"), 1, name="x")
        assert wait(process) == 0
        return os.read(pipe[0], 100)

    assert in_child(work) == b"there"


@pytest.mark.parametrize(
    "code, returncode, text",
    [
        ("import sys; sys.exit(3)", 3, "exited with status 3"),
        ("pass", 0, "exited with status 0"),
        ("import os; os.kill(os.getpid(), 15)", -15, "died of SIGTERM"),
        ("import os; os.kill(os.getpid(), 40)", -40, "died of signal 40"),
    ],
)
def test_how_it_ended_is_told(end: int, code: str, returncode: int, text: str) -> None:
    process = start(program(code), end, name="x")
    assert process.returncode is None
    assert wait(process) == returncode
    assert process.has_ended
    assert how_it_ended(process.returncode) == text
    assert repr(process) == f"<Process x pid={process.pid} {text}>"
    assert process.poll()
    process.kill()
    assert process.memory_bytes() == 0
    with pytest.raises(ValueError, match="x has ended"):
        process.fileno()


def test_one_that_runs_is_known_by_its_pidfd(running: Process) -> None:
    assert not running.poll()
    assert not running.has_ended
    assert running.fileno() > 2
    while running.memory_bytes() < 1_000_000:  # it has just begun
        assert not running.poll()
    assert repr(running) == f"<Process sleeper pid={running.pid} running>"
    running.send_signal(signal.SIGTERM)
    assert wait(running) == -signal.SIGTERM


def test_one_that_somebody_else_has_waited_for_has_ended(running: Process) -> None:
    os.kill(running.pid, signal.SIGKILL)
    os.waitpid(running.pid, 0)
    running.kill()
    assert running.poll()
    assert running.returncode is None
    assert how_it_ended(None) == "ended"


def test_one_that_has_gone_is_known_to_be_before_it_is_waited_for(running: Process) -> None:
    assert not running.is_gone
    running.kill()
    assert gone_within(20, [running.pid])
    assert running.is_gone
    assert not running.has_ended
    assert running.poll()
    assert running.is_gone


def test_one_that_somebody_else_has_waited_for_is_gone(running: Process) -> None:
    running.kill()
    os.waitpid(running.pid, 0)
    assert running.is_gone


def test_one_that_is_dropped_is_killed(end: int) -> None:
    pid = start(program(SLEEP), end, name="x").pid
    gc.collect()
    assert not is_alive(pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_a_program_that_is_not_there_is_told(end: int) -> None:
    with pytest.raises(FileNotFoundError):
        start(["/nowhere/program"], end, name="x")


def test_a_system_without_pidfds_is_told(end: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(OSError, match="which this system has not"):
        start(program(SLEEP), end, name="x")


def test_without_a_pidfd_there_is_no_child(end: int, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def no_pidfd(pid: int) -> int:
        started.append(pid)
        raise OSError(24, "no descriptor is left")

    monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    with pytest.raises(OSError, match="no descriptor is left"):
        start(program(SLEEP), end, name="x")
    assert not is_alive(started[0])


def test_a_leash_that_cannot_be_made_leaves_nothing(end: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pair(*_args: object) -> None:
        raise OSError(24, "no descriptor is left")

    monkeypatch.setattr(socket, "socketpair", no_pair)
    with pytest.raises(OSError, match="no descriptor is left"):
        start(program(SLEEP), end, name="x")


def test_a_forked_child_leaves_it_alone(running: Process) -> None:
    def work() -> tuple[bool, bool]:
        return running.has_ended, running.poll()

    assert in_child(work) == (True, True)
    assert not running.poll()
    assert is_alive(running.pid)
    running.kill()
    wait(running)
    assert in_child(work) == (True, True)


@pytest.mark.parametrize(
    "code",
    [SLEEP, "while True: pass", "sorted(iter(lambda: 1, 2))", "import os; os.read(os.pipe()[0], 1)", "stop"],
    ids=["idle", "busy in Python", "busy in C", "in a system call", "stopped"],
)
def test_it_dies_with_the_process_that_started_it(end: int, code: str) -> None:
    def work() -> int:
        process = start(program(SLEEP if code == "stop" else code), end, name="x")
        if code == "stop":
            process.send_signal(signal.SIGSTOP)
        keep.append(process)
        return process.pid

    keep: list[Process] = []
    pid = in_child(work)
    assert gone_within(20, [pid])


def test_a_leash_that_was_let_go_holds_nothing(end: int) -> None:
    with subprocess.Popen(program(SLEEP)) as other:
        leash = Leash(other.pid)
        leash.let_go()
        leash.let_go()
        del leash
        assert is_alive(other.pid)
        other.kill()


def test_one_that_was_let_off_its_leash_lives_on(pipe: tuple[int, int]) -> None:
    process = start(program(SLEEP), pipe[1], name="x")
    assert process.is_leashed
    process.unleash()
    process.unleash()
    assert not process.is_leashed
    pid = process.pid
    del process
    gc.collect()
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_how_one_ended_that_was_let_off_is_told(running: Process) -> None:
    running.unleash()
    running.kill()
    assert wait(running) == -signal.SIGKILL
    running.unleash()


def test_input_and_the_name_of_the_variable_are_those_that_are_given(pipe: tuple[int, int]) -> None:
    code = "import os, sys; os.write(int(os.environ['OTHER']), sys.stdin.buffer.read())"
    with open("/proc/self/comm", "rb") as source:
        process = start(program(code), pipe[1], name="x", stdin=source, variable="OTHER")
        assert wait(process) == 0
        source.seek(0)
        assert os.read(pipe[0], 100) == source.read()
