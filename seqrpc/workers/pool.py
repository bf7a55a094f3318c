"""Several workers of one kind, as their users see them."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from seqrpc.aio.blocks import AsyncBlock
from seqrpc.aio.held import HeldValues
from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.living import LivingValues
from seqrpc.aio.remote import Remote
from seqrpc.calls.plans import OutputLike, Plan, ServiceLike, check_seconds, plan_for
from seqrpc.calls.unclosed import Guard
from seqrpc.errors import WorkerCrashed
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.policy import PolicyLike
from seqrpc.interface.reconnecting import may_send_again
from seqrpc.interface.service import Service
from seqrpc.kernel.privileges import Bounds
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.messages import Params
from seqrpc.workers.mapping import Progress, Results
from seqrpc.workers.staff import Staff
from seqrpc.workers.worker import NotStarted

T = TypeVar("T")


class PoolCallee:
    """Makes each call at the worker that has least to do, and again at another where that is right.

    Args:
        staff: the workers.
        retry: how often a call is made again that may have run, and may run twice.
    """

    __slots__ = ("__weakref__", "_retry", "_staff", "_travels", "guard")

    def __init__(self, staff: Staff, retry: int) -> None:
        """Begin with no call."""
        self._staff = staff
        self._retry = retry
        self._travels = LivingValues(DEFAULT_LIMITS, HeldValues()).travels
        self.guard: object | None = None
        """What is to be dropped with this (:class:`~seqrpc.calls.unclosed.Guard`)."""

    def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Call; again only if it did not run."""
        return self._request(method, params, deadline, meta, finish, retries=0)

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Do the same; again also if it may have run, as often as the pool's ``retry`` says."""
        return self._request(method, params, deadline, meta, finish, retries=self._retry)

    async def _request(
        self,
        method: str,
        params: Params,
        deadline: int | None,
        meta: dict[str, str] | None,
        finish: Finish,
        *,
        retries: int,
    ) -> Any:
        hall = self._staff.hall
        while True:
            member = await hall.take(deadline)
            try:
                return await member.callee.request(method, params, deadline, meta, finish)
            except WorkerCrashed as exc:
                if not self._again(exc, params, idempotent=retries > 0):
                    raise
                if exc.execution is not exc.execution.DID_NOT_RUN:
                    retries -= 1
            finally:
                hall.give_back(member)

    async def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""
        hall = self._staff.hall
        while True:
            member = await hall.take(deadline)
            try:
                await member.callee.send_notify(method, params, deadline, meta)
            except WorkerCrashed as exc:
                if not self._again(exc, params, idempotent=False):
                    raise
            else:
                return
            finally:
                hall.give_back(member)

    def _again(self, exc: WorkerCrashed, params: Params, *, idempotent: bool) -> bool:
        if self._staff.is_closing:
            return False
        told: dict[str, Any] = {"is_over": True, "drains": False, "params": params, "travels": self._travels}
        return may_send_again(exc, idempotent=idempotent, **told)

    async def let_go(self) -> None:
        """Do nothing: a pool is held by whoever made it, not by its proxies."""

    def __repr__(self) -> str:
        """Return the pool."""
        return repr(self._staff)


class WorkerPool(AsyncBlock, Remote):
    """Workers of one kind, among which calls are spread: ``async with seqrpc.WorkerPool(Calculator) as pool: ...``.

    Each call goes to the worker that has least to do. Those that find all of them busy wait, in the order in which they
    were made; their deadlines hold meanwhile, and they can be cancelled. A worker that ends is replaced at once; the
    calls that it worked on raise :class:`seqrpc.WorkerCrashed`, and no others.

    Args:
        service: as for :class:`seqrpc.Worker`, and so are the others that are not said here.
        args: likewise; each worker is made with them, so they are lent until the pool is closed.
        size: how many workers; by default as many as there are processors for this process.
        calls_per_worker: calls that one worker is given at a time. With 1, for work that keeps a processor busy, a
            crash loses one call, and none waits behind a longer one while another worker is free.
        max_calls: after so many calls a worker is replaced, once its successor has begun; it may have some more until
            then.
        max_memory_bytes: likewise, if it has more memory of its own after a call.
        retry: how often a call of a method that is marked ``idempotent=True`` is made again when its worker ended.
        idle_timeout: seconds after which a worker ends that has nothing to do; another is started when one is wanted.
        kwargs: as for :class:`seqrpc.Worker`, and so are the rest.
    """

    __slots__ = ("__weakref__", "_options", "_plan", "_retry", "_staff")

    def __init__(
        self,
        service: ServiceLike | None = None,
        /,
        *args: Any,
        size: int | None = None,
        calls_per_worker: int = 8,
        max_calls: int | None = None,
        max_memory_bytes: int | None = None,
        retry: int = 0,
        idle_timeout: float | None = None,
        kwargs: Mapping[str, Any] | None = None,
        command: Sequence[str | os.PathLike[str]] | None = None,
        serve: Service | Iterable[Service] = (),
        allow: PolicyLike | None = None,
        interceptors: Iterable[Interceptor] = (),
        grace: float = 2.0,
        start_timeout: float = 30.0,
        output: OutputLike = "inherit",
        user: int | str | None = None,
        group: int | str | None = None,
        groups: Iterable[int | str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        limits: Mapping[str | int, int | Bounds] | None = None,
        nice: int = 0,
        no_new_privileges: bool = False,
        connection_limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Look at what is to be started; nothing is started yet."""
        self._plan: Plan = plan_for(
            service,
            args,
            kwargs=kwargs,
            command=command,
            serve=serve,
            allow=allow,
            interceptors=interceptors,
            connection_limits=connection_limits,
            grace=grace,
            start_timeout=start_timeout,
            output=output,
            environment=environment,
            user=user,
            group=group,
            groups=groups,
            limits=limits,
            nice=nice,
            no_new_privileges=no_new_privileges,
            cwd=cwd,
        )
        self._options: dict[str, Any] = {
            "size": _whole("size", _processors() if size is None else size, 1),
            "calls_per_worker": _whole("calls_per_worker", calls_per_worker, 1),
            "max_calls": None if max_calls is None else _whole("max_calls", max_calls, 1),
            "max_memory_bytes": None if max_memory_bytes is None else _whole("max_memory_bytes", max_memory_bytes, 1),
            "idle_timeout": None if idle_timeout is None else check_seconds("idle_timeout", idle_timeout),
        }
        self._retry = _whole("retry", retry, 0)
        self._staff: Staff | None = None
        super().__init__(NotStarted(f"the pool of {self._plan.name}", "pool"))

    @property
    def size(self) -> int:
        """How many workers there are to be."""
        size: int = self._options["size"] if self._staff is None else self._staff.size
        return size

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the workers that take calls, or finish some."""
        return () if self._staff is None else tuple(running.process.pid for running in self._staff.runnings)

    @property
    def waiting(self) -> int:
        """How many calls wait for a worker."""
        return 0 if self._staff is None else self._staff.hall.waiting

    @property
    def closed(self) -> bool:
        """True once it was closed."""
        return self._staff is not None and self._staff.is_closing

    async def start(self) -> None:
        """Start all workers, and return when they take calls; it is for whoever calls this to :meth:`close` it.

        Raises:
            WorkerCrashed, OSError: one did not begin; the others have ended.
            RuntimeError: it was started before.

        Cancel: those that were started end.
        """
        if self._staff is not None:
            raise RuntimeError(f"{self!r} was started before: a pool is started once")
        staff = self._staff = Staff(self._plan, **self._options)
        await staff.begin()
        callee = PoolCallee(staff, self._retry)
        callee.guard = Guard(staff)
        self._callee = callee

    def _started(self) -> Staff:
        if self._staff is None:
            raise RuntimeError("the pool was not started: write 'async with', or 'await pool.start()'")
        return self._staff

    async def scale(self, size: int) -> None:
        """Have so many workers from now on.

        Those that are too many are given no more calls, and end when they have finished theirs. Returns when all that
        are to come have come, and all that are to go have gone.
        """
        await self._started().scale(_whole("size", size, 1))

    async def broadcast(self, method: str, /, *args: Any, **kwargs: Any) -> list[Any]:
        """Call a method at each worker that there is now, by its name on the wire; return the results.

        Workers that are started later have not heard of it: what all have to know goes into the arguments of the class.

        Raises:
            Exception: what the first call raised that failed; the others are waited for.
        """
        callees = [member.callee for member in self._started().hall.members if not member.is_leaving]
        calls = [Remote(callee).call(method, *args, **kwargs) for callee in callees]
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def map(
        self,
        method: str | Callable[[Any], Awaitable[T]],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        ordered: bool = True,
        look_ahead: int | None = None,
        progress: Progress | None = None,
    ) -> Results[T]:
        """Make a call for each item, several at a time, and return their results as they are read.

        ``async for small in pool.map(pool.proxy(Thumbnails).shrink, paths): ...``

        Args:
            method: a method of a proxy of this pool, or any function that takes an item and is awaited; or the name of
                a method on the wire, which gets the item as its only argument.
            items: read as their calls are made.
            ordered: True: the results come in the order of the items; False: as they are there.
            look_ahead: calls that are made at most before the result of the first of them is taken; by default twice as
                many as the workers take.
            progress: called with the number of items that are done, each time that a result was taken.

        Returns:
            An asynchronous iterator. If it is not read to its end, close it, best by ``async with``: then the calls
            under way are cancelled.
        """
        staff = self._started()
        most = 2 * staff.size * int(self._options["calls_per_worker"])
        call = functools.partial(self.call, method) if isinstance(method, str) else method
        ahead = most if look_ahead is None else _whole("look_ahead", look_ahead, 1)
        return Results(call, items, ordered=ordered, look_ahead=ahead, progress=progress)

    async def close(self) -> None:
        """End all workers; calls are given up.

        Raises:
            Exception: the lifespan of a service of ``serve`` failed at a worker; all have ended all the same.

        Cancel: the closing goes on.
        """
        if self._staff is not None:
            await asyncio.shield(asyncio.ensure_future(self._staff.close()))

    async def __aenter__(self) -> Self:
        """Start it."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def __repr__(self) -> str:
        """Return how many workers there are."""
        return f"<WorkerPool {self._plan.name}>" if self._staff is None else repr(self._staff)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _whole(what: str, value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        kind = ValueError if type(value) is int else TypeError
        raise kind(f"{what}= takes a whole number of at least {least}, got {value!r}")
    return value
