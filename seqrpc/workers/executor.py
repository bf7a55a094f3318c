"""An executor of concurrent.futures whose functions run in workers."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from seqrpc.calls.plans import plan_for
from seqrpc.calls.workers import Origin
from seqrpc.errors import ConnectionLost, Execution, SeqrpcError, WorkerCrashed
from seqrpc.kernel import forks
from seqrpc.limits import DEFAULT_LIMITS
from seqrpc.workers.functions import Functions, Outcome, exception_of, origin_of_function
from seqrpc.workers.hall import Member
from seqrpc.workers.plain import packed, unpacked
from seqrpc.workers.staff import Staff

T = TypeVar("T")


class CallCrashed(WorkerCrashed, BrokenProcessPool):
    """The worker that called a function has ended meanwhile.

    It is a :class:`concurrent.futures.process.BrokenProcessPool` too, because that is what programs expect that were
    written for a ``ProcessPoolExecutor``; but the executor is not broken, and takes more.
    """


class _Call(NamedTuple):
    """A function that is to be called, and the arguments, for one call or for many."""

    origin: Origin
    many: list[list[Any]]
    kwargs: Any
    single: bool
    """Whether its future gets the one result, and not a list."""


class _Hands(Staff):
    """Workers of an executor: as many as have to do, and no more than are wanted, each with one call at a time."""

    @property
    def _wanted_now(self) -> int:
        going = sum(member.is_leaving for member in self.hall.members)
        busy = sum(member.in_flight for member in self.hall.members if not member.is_leaving)
        return min(self.size - going, busy + self.hall.waiting)

    def begin_call(self, member: Member) -> None:
        """Hear that a worker is about to be called, for the last time perhaps."""
        if self._is_worn(member):
            self._let_leave(member)

    def _lost(self, member: Member) -> None:
        if not member.is_leaving:
            member.begun += member.in_flight  # whoever died of a call has begun well: the next one need not wait
        super()._lost(member)


class _Engine:
    """The thread of an executor, with the loop on which its workers are called.

    Args:
        size: how many workers.
        max_calls: see :class:`WorkerExecutor`.
        initializer: likewise.
        initargs: likewise.
        options: those of a worker.
    """

    def __init__(
        self,
        size: int,
        max_calls: int | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        options: dict[str, Any],
    ) -> None:
        args: tuple[Any, ...] = ()
        if initializer is not None:
            origin = origin_of_function(initializer)
            args = (origin, [packed(arg, f"initargs[{i}]") for i, arg in enumerate(initargs)])
        settings: dict[str, Any] = {
            "kwargs": None, "command": None, "serve": (), "allow": None, "interceptors": (), "grace": 2.0,
            "start_timeout": 60.0, "output": "inherit", "environment": None, "connection_limits": DEFAULT_LIMITS,
        }  # fmt: skip
        self._plan = plan_for(Functions, args, **{**settings, **options})
        self._size = size
        self._max_calls = max_calls
        import uvloop  # noqa: PLC0415 - only who makes one needs it

        self._generation = forks.generation
        self._lock = threading.RLock()  # what is collected while it is held may want it too
        self._refusal: str | None = None  # why nothing more is taken
        self._pending: dict[Future[Any], None] = {}  # those that may be cancelled
        self._unfinished = 0  # how many calls have not ended
        self._loop = uvloop.new_event_loop()
        self.hands: _Hands
        """The workers, once the thread runs."""
        self._work: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self.broken: str | None = None
        """Why no worker begins, if that is so."""
        self.thread = threading.Thread(target=self._run, name="seqrpc.WorkerExecutor", daemon=True)
        self.thread.start()

    @property
    def is_anothers(self) -> bool:
        """Whether this is a copy in a fork of the process that made it: its loop and its lock are the other's."""
        return forks.generation != self._generation

    # From any thread

    def check(self) -> None:
        """Return if more is taken.

        Raises:
            WrongProcess, BrokenProcessPool, RuntimeError: it is not.
        """
        if self.is_anothers:
            raise forks.wrong_process("this executor")
        if self.broken is not None:
            raise BrokenProcessPool(self.broken)
        if self._refusal is not None or _exiting:
            raise RuntimeError(self._refusal or _AT_EXIT)

    def submit(self, future: Future[Any], call: _Call) -> None:
        """Have a call made.

        Raises:
            WrongProcess, BrokenProcessPool, RuntimeError: see :meth:`check`.
        """
        with self._lock:  # so nothing comes after the end
            self.check()
            if self._unfinished < self._size:  # it need not wait for another one: it is as good as begun
                future.set_running_or_notify_cancel()
            else:
                self._pending[future] = None
            self._unfinished += 1
            self._loop.call_soon_threadsafe(self._begin, future, call)

    def stop_soon(self, why: str = "cannot schedule new futures after shutdown") -> None:
        """Take no more, and end when all that was submitted has ended."""
        if self.is_anothers:
            return
        with self._lock:
            self._refusal = self._refusal or why
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stop.set)

    def cancel(self) -> None:
        """Cancel what no worker has begun."""
        for future in list(self._pending):
            future.cancel()

    def join(self) -> None:
        """Wait until it has ended, unless this is called by a callback of one of its own futures."""
        if not self.is_anothers and threading.current_thread() is not self.thread:
            self.thread.join()

    # In its thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _live(self) -> None:
        options: dict[str, Any] = {"max_memory_bytes": None, "idle_timeout": None, "max_calls": self._max_calls}
        self.hands = _Hands(self._plan, self._size, calls_per_worker=1, **options)
        await self._stop.wait()
        while self._work:
            await asyncio.wait(self._work)
        await self.hands.close()

    def _begin(self, future: Future[Any], call: _Call) -> None:
        task = self._loop.create_task(self._make(future, call))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _make(self, future: Future[Any], call: _Call) -> None:
        """Have a call made, and give the future what comes of it."""
        try:
            if future.cancelled():  # no worker is started for that
                future.set_running_or_notify_cancel()
                return
            outcome = await self._outcome(future, call)
        except BrokenProcessPool as exc:
            if future.running() or future.set_running_or_notify_cancel():
                _fail(future, exc)
        except WorkerCrashed as exc:
            _fail(future, _crash(exc))
        except Exception as exc:
            _fail(future, exc)
        else:
            if outcome is not None:
                foreign = self._plan.restraints.uid is not None
                _settle(future, outcome, single=call.single, is_foreign=foreign)
        finally:
            self._pending.pop(future, None)
            with self._lock:
                self._unfinished -= 1

    async def _outcome(self, future: Future[Any], call: _Call) -> Any:
        """Return what a worker answers; None if the future was cancelled meanwhile.

        A worker that had died before the call reached it is no reason to fail: another one gets it.
        """
        hall = self.hands.hall
        while True:
            member = await self._taken()
            try:
                if not future.running() and not future.set_running_or_notify_cancel():
                    member.begun -= 1
                    return None
                self._pending.pop(future, None)
                self.hands.begin_call(member)
                return await member.callee.request("seqrpc.Functions.call", (call.origin, call.many, call.kwargs))
            except ConnectionLost as exc:
                if exc.execution is not Execution.DID_NOT_RUN:
                    raise
            finally:
                hall.give_back(member)

    async def _taken(self) -> Member:
        """Return the next worker that is free.

        Raises:
            BrokenProcessPool: no worker begins; so nothing more is taken.
        """
        try:
            if self.broken is None:
                return await self.hands.hall.take()
        except SeqrpcError as exc:
            self.broken = str(exc)
        raise BrokenProcessPool(self.broken)


def _fail(future: Future[Any], exc: Exception) -> None:
    """Give a future an exception, without what is only known here: it would keep the future alive."""
    future.set_exception(exc.with_traceback(None))


def _crash(exc: WorkerCrashed) -> CallCrashed:
    error = CallCrashed(*exc.args)
    error.returncode, error.last_lines, error.execution = exc.returncode, exc.last_lines, exc.execution
    return error


def _settle(future: Future[Any], raw: Any, *, single: bool, is_foreign: bool) -> None:
    """Give a future what came of its call, or of its calls."""
    try:
        outcome = msgspec.convert(raw, Outcome)
        failure = None if outcome.failure is None else exception_of(outcome.failure, is_foreign=is_foreign)
        results = [unpacked(result) for result in outcome.results]
    except Exception as exc:  # the child is not ours any more
        _fail(future, exc)
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(results[0] if single else results)


def _call_of(fn: Any, many: list[tuple[Any, ...]], kwargs: dict[str, Any], *, single: bool) -> _Call:
    """Return what is to be called, as what the wire carries.

    Raises:
        TypeError, ValueError: it does not travel.
    """
    while type(fn) is functools.partial:
        many = [(*fn.args, *args) for args in many]
        kwargs = {**fn.keywords, **kwargs}
        fn = fn.func
    origin = origin_of_function(fn)
    name = origin.qualname
    packed_many = [[packed(arg, f"{name}: args[{i}]") for i, arg in enumerate(args)] for args in many]
    return _Call(origin, packed_many, packed(kwargs, f"{name}: kwargs"), single)


class WorkerExecutor(Executor):
    """An executor whose functions run in workers: the like of ``concurrent.futures.ProcessPoolExecutor``, unpickled.

    ``with seqrpc.WorkerExecutor() as executor: future = executor.submit(function, ...)``. Functions are those that a
    child can import, at the top of a module or of the program itself, classes and their class methods, and a
    ``functools.partial`` of those; arguments and results are plain data: None, bools, numbers, strings, bytes, and
    lists, tuples, dicts, sets and ranges of such. What does not travel is a :class:`TypeError` or :class:`ValueError`
    of the future, with the path to it. Exceptions arrive as they were raised, if their class is imported here and what
    it is made with is plain data, else as a :class:`RuntimeError`; their cause is the traceback.

    A worker that dies fails the one call that it worked on, with a :class:`seqrpc.WorkerCrashed` that is a
    ``concurrent.futures.process.BrokenProcessPool`` too, and another is started for the next one.

    It has a thread of its own, with an event loop. When the program ends, what was submitted is waited for.

    Args:
        max_workers: how many, by default as many as there are processors for this process.
        initializer: called in each child before anything else. If it raises, and no worker is there, the executor is
            broken: submitting raises a ``BrokenProcessPool``, as do all that wait.
        initargs: its arguments.
        max_tasks_per_child: after so many calls (chunks of ``map`` are one each) a worker is replaced.
        options: those of :class:`seqrpc.Worker`: ``user``, ``limits``, ``output`` and so on.

    Raises:
        TypeError, ValueError: an option is wrong.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        **options: Any,
    ) -> None:
        """Start the thread; workers are started when there is something to do for them."""
        size = len(os.sched_getaffinity(0)) if max_workers is None else max_workers
        if type(size) is not int:
            raise TypeError(f"max_workers= takes a whole number, got {size!r}")
        if size < 1:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if type(max_tasks_per_child) is not int:
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child < 1:
                raise ValueError("max_tasks_per_child must be >= 1")
        self._engine = _Engine(size, max_tasks_per_child, initializer, initargs, options)
        self._finalizer = weakref.finalize(self, self._engine.stop_soon)
        self._finalizer.atexit = False  # see _finish
        _running.add(self._engine)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a function called in a worker.

        Returns:
            The future. It can be cancelled as long as it waits for calls before it to end.

        Raises:
            RuntimeError: the executor was shut down, or the interpreter is about to end.
            BrokenProcessPool: no worker begins; its initializer fails, perhaps.
            WrongProcess: this is a fork of the process that made the executor.
        """
        return self._submit(fn, [args], kwargs, single=True)

    def _submit(self, fn: Any, many: list[tuple[Any, ...]], kwargs: dict[str, Any], *, single: bool) -> Future[Any]:
        self._engine.check()
        future: Future[Any] = Future()
        try:
            call = _call_of(fn, many, kwargs, single=single)
        except (TypeError, ValueError) as exc:
            future.set_running_or_notify_cancel()
            _fail(future, exc)
        else:
            self._engine.submit(future, call)
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Call a function for each item, as :meth:`concurrent.futures.Executor.map`.

        Args:
            fn: the function.
            iterables: its arguments, one of each at a time.
            timeout: seconds, from now, after which the iterator raises :class:`TimeoutError`.
            chunksize: items that go to a worker in one call.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        until = None if timeout is None else time.monotonic() + timeout
        items = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(items, chunksize)), [])
        futures = deque(self._submit(fn, chunk, {}, single=False) for chunk in chunks)
        return _results(futures, until)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as its base
        """Take no more, and end when what was submitted has ended.

        Args:
            wait: whether to return only then.
            cancel_futures: whether to cancel what no worker has begun.
        """
        self._engine.stop_soon()
        if cancel_futures:
            self._engine.cancel()
        if wait:
            self._engine.join()


def _results(futures: deque[Future[Any]], until: float | None) -> Iterator[Any]:
    """Yield what is in the results of futures, in their order; cancel those that are not waited for to the end.

    What was yielded is not kept.
    """
    try:
        while futures:
            results = futures[0].result(None if until is None else until - time.monotonic())
            del futures[0]
            results.reverse()
            while results:
                yield results.pop()
    finally:
        for future in futures:
            future.cancel()


_AT_EXIT: Final = "cannot schedule new futures after interpreter shutdown"

_running: weakref.WeakSet[_Engine] = weakref.WeakSet()
_exiting = False


@atexit.register
def _finish() -> None:
    """Let all executors finish what was submitted, as those of the standard library."""
    global _exiting  # noqa: PLW0603 - there is one interpreter
    _exiting = True
    engines = list(_running)
    for engine in engines:
        engine.stop_soon(_AT_EXIT)
    for engine in engines:
        engine.join()
