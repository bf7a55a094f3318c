"""CPython's own tests of executors, made into tests of seqrpc.WorkerExecutor.

Children import this module to find functions that CPython's tests have as methods of their classes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import unittest
import unittest.mock
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import seqrpc
from support.waiting import PATIENCE
from support.workers import is_alive

PACKAGE: Final = "test.test_concurrent_futures"


def _part(name: str) -> ModuleType:
    """Return a module of CPython's package of tests; before 3.12 all was one module.

    Raises:
        ImportError: this Python was installed without.
    """
    whole = importlib.import_module(PACKAGE)
    return importlib.import_module(f"{PACKAGE}.{name}") if hasattr(whole, "__path__") else whole


class _Process:
    """A child, as the tests look at one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def join(self) -> None:
        until = time.monotonic() + PATIENCE
        while is_alive(self._pid):
            assert time.monotonic() < until, "a worker does not end"
            time.sleep(0.005)

    def terminate(self) -> None:
        os.kill(self._pid, signal.SIGTERM)


class _Queue:
    """What a ProcessPoolExecutor has to be waited for besides."""

    def join_thread(self) -> None:
        pass


class Context:
    """In place of a context of multiprocessing: children are always started by exec."""

    def get_start_method(self, *, allow_none: bool) -> str:
        assert not allow_none
        return "spawn"


class Executor(seqrpc.WorkerExecutor):
    """Under the names by which CPython's tests look into a ProcessPoolExecutor."""

    def __init__(self, max_workers: int | None = None, mp_context: Context | None = None, **options: Any) -> None:
        super().__init__(max_workers, **{"output": "capture", **options})
        self._max_workers = max_workers

    @property
    def _processes(self) -> dict[int, _Process]:
        hands = getattr(self._engine, "hands", None)  # none as long as its thread has not begun
        return {each.process.pid: _Process(each.process.pid) for each in hands.runnings} if hands else {}

    @property
    def _broken(self) -> str | None:
        return self._engine.broken

    @property
    def _executor_manager_thread(self) -> Any:
        return self._engine.thread

    @property
    def _call_queue(self) -> _Queue:
        return _Queue()


class _InPlace(Executor):
    """What CPython's tests find as ``ProcessPoolExecutor``; some leave themselves out where they test that very one."""


class _Mixin:
    """What CPython's classes of tests say of the executor, said of this one."""

    executor_type = Executor

    def get_context(self) -> Context:
        return Context()

    @contextlib.contextmanager
    def _assert_logged(self, text: str) -> Iterator[None]:
        """Look into the log where seqrpc says why a worker does not begin."""
        case: Any = self
        with case.assertLogs("seqrpc.workers", "WARNING") as caught:
            yield
        assert any(text in line for line in caught.output), caught.output


def _script(*args: str) -> Any:
    """Run a program of a test, with this executor in place of the standard library's."""
    assert_python_ok = importlib.import_module("test.support.script_helper").assert_python_ok
    *options, text = args
    for name in ("Executor", "ThreadPoolExecutor"):
        text = text.replace(
            f"from concurrent.futures import {name}\n", f"from seqrpc import WorkerExecutor as {name}\n"
        )
    path = os.pathsep.join([str(Path(seqrpc.__file__).parents[1]), *sys.path])
    return assert_python_ok(*options, text, PYTHONPATH=path, __isolated=False)


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """Put this executor, and what belongs to it, where CPython's tests find the standard library's."""
    from seqrpc.workers.functions import RemoteTraceback

    with contextlib.ExitStack() as stack:
        stack.enter_context(unittest.mock.patch.object(_part("test_shutdown"), "assert_python_ok", _script))
        stack.enter_context(unittest.mock.patch.object(futures, "ProcessPoolExecutor", _InPlace))
        stack.enter_context(unittest.mock.patch.object(futures.process, "_RemoteTraceback", RemoteTraceback))
        yield


LEFT_OUT: Final = {
    "test_free_reference": "its function returns an object of a class",
    "test_processes_terminate": "its function is within another one, and takes a lock",
    "test_saturation": "it passes a method of a semaphore",
    "test_ressources_gced_in_workers": "it passes an object of a class",
    "test_killed_child": "a dead worker fails its own call only, and breaks nothing",
    "test_max_workers_too_large": "it is for Windows",
    "test_max_tasks_per_child_defaults_to_spawn_context": "there are no contexts: children are always started by exec",
    "test_python_finalization_error": "it replaces functions inside ProcessPoolExecutor",
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": "it replaces classes inside ProcessPoolExecutor",
    "test_error_at_task_pickle": "it passes an object whose pickling fails",
    "test_exit_at_task_unpickle": "it passes an object whose unpickling ends the process",
    "test_error_at_task_unpickle": "it passes an object whose unpickling fails",
    "test_crash_at_task_unpickle": "it passes an object whose unpickling ends the process",
    "test_error_during_func_exec_on_worker": "it passes a class",
    "test_crash_during_result_pickle_on_worker": "it passes a class, whose objects end the process when pickled",
    "test_exit_during_result_pickle_on_worker": "it passes a class, whose objects end the process when pickled",
    "test_error_during_result_pickle_on_worker": "it passes a class, whose objects fail to be pickled",
    "test_error_during_result_unpickle_in_result_handler": "it passes a class, whose objects fail to be unpickled",
    "test_exit_during_result_unpickle_in_result_handler": "it passes a class, whose objects fail to be unpickled",
    "test_shutdown_deadlock_pickle": "it passes an object whose pickling fails",
}
"""CPython's tests that are not run, and why."""


def _classes() -> dict[str, type[unittest.TestCase]]:
    """Return the classes of tests, made of CPython's parts.

    Raises:
        ImportError: this Python was installed without.
    """
    parts = {
        "Pool": _part("test_process_pool").ProcessPoolExecutorTest,
        "Shutdown": _part("test_shutdown").ProcessPoolShutdownTest,
        "ShutdownOfThreads": _only(_part("test_shutdown").ThreadPoolShutdownTest, "test_cancel_futures_wait_false"),
        "Wait": _part("test_wait").WaitTests,
        "AsCompleted": _part("test_as_completed").AsCompletedTests,
        "Initializer": _part("test_init").InitializerMixin,
        "FailingInitializer": _part("test_init").FailingInitializerMixin,
        "Deadlock": _part("test_deadlock").ExecutorDeadlockTest,
    }
    util = _part("util")
    return {
        name: type(name, (_Mixin, part, util.ExecutorMixin, util.BaseTestCase), {"__module__": __name__})
        for name, part in parts.items()
    }


def _only(cls: type, *names: str) -> type:
    """Return a class with some of the tests of another one."""
    return type(cls.__name__, (), {name: vars(cls)[name] for name in names if name in vars(cls)})


try:
    CLASSES = _classes()
except ImportError:
    CLASSES = {}
globals().update(CLASSES)  # where children find them

NAMES: Final = [
    (kind, name) for kind, cls in CLASSES.items() for name in unittest.defaultTestLoader.getTestCaseNames(cls)
]
"""All tests: their class, and what they are called."""


def run(kind: str, name: str) -> tuple[list[str], str | None]:
    """Run one of the tests.

    Returns:
        What went wrong, to which belongs that threads or processes are left; and why it was skipped, if it was.
    """
    support: Any = importlib.import_module("test.support")
    support.environment_altered = False
    result = unittest.TestResult()
    case: Any = CLASSES[kind](name)
    case.worker_count = 4 if name == "test_idle_process_reuse_one" else 2  # that one wants so many, others are slower
    with in_place():
        case.run(result)
    wrong = [text for _, text in result.errors + result.failures]
    if support.environment_altered:
        wrong.append("threads or processes are left")
    return wrong, next((reason for _, reason in result.skipped), None)


_PROGRAM: Final = "import sys; from support.conformance import main; main(*map(int, sys.argv[1:]))"

_LINE: Final = "result: "


def main(first: int, step: int) -> None:
    """Run each so manieth test that is not left out, and print what came of it, each in a line."""
    for kind, name in [each for each in NAMES if each[1] not in LEFT_OUT][first::step]:
        print("\n" + _LINE + json.dumps([kind, name, *run(kind, name)]), flush=True)  # noqa: T201 - it is a program


def run_all(processes: int = 3) -> dict[tuple[str, str], tuple[list[str], str | None]]:
    """Run all tests that are not left out, in some processes side by side: most of them only sleep most of the time."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(first), str(processes)],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for first in range(processes)
    ]  # fmt: skip
    results: dict[tuple[str, str], tuple[list[str], str | None]] = {}
    try:
        for process in running:
            out, err = process.communicate(timeout=3 * PATIENCE)
            assert not process.returncode, f"{out}\n{err}"
            for line in out.splitlines():
                if line.startswith(_LINE):
                    kind, name, wrong, skipped = json.loads(line.removeprefix(_LINE))
                    results[kind, name] = wrong, skipped
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return results
