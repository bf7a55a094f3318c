"""One child process that serves: a worker, as its users see it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from seqrpc.aio.blocks import AsyncBlock
from seqrpc.aio.connection import link_of
from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.remote import Remote
from seqrpc.calls.plans import OutputLike, ServiceLike, plan_for
from seqrpc.calls.unclosed import Guard
from seqrpc.errors import ConnectionLost, DeadlineExceeded
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.policy import PolicyLike
from seqrpc.interface.service import Service
from seqrpc.kernel.privileges import Bounds
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.messages import Params
from seqrpc.workers.children import Running, begin


class WorkerCallee:
    """Makes the calls of a worker, and tells of its end as the end of the worker.

    Args:
        running: the child.
    """

    __slots__ = ("__weakref__", "_caller", "guard", "running")

    def __init__(self, running: Running) -> None:
        """Begin with no call."""
        self.running = running
        self._caller = link_of(running.connection).caller
        self.guard: object | None = None
        """What is to be dropped with this (:class:`~seqrpc.calls.unclosed.Guard`)."""

    async def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call; a call that is given up and does not end ends the worker."""
        try:
            return await self._caller.request(method, params, deadline, meta, finish)
        except ConnectionLost as exc:
            raise await self._crash(exc) from exc
        except (asyncio.CancelledError, DeadlineExceeded):
            self.running.watch_given_up()
            raise

    def request_idempotent(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Coroutine[Any, Any, Any]:
        """Call."""
        return self.request(method, params, deadline, meta, finish)

    async def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""
        try:
            await self._caller.send_notify(method, params, deadline, meta)
        except ConnectionLost as exc:
            raise await self._crash(exc) from exc

    async def _crash(self, exc: ConnectionLost) -> ConnectionLost:
        """Return what to raise in place of the end of the connection."""
        if self.running.is_closing:
            return exc
        error = await self.running.crash()
        error.execution = exc.execution
        return error

    async def let_go(self) -> None:
        """Do nothing: a worker is held by whoever made it, not by its proxies."""

    def __repr__(self) -> str:
        """Return the worker."""
        return repr(self.running)


class NotStarted:
    """Whom a worker calls, or a pool, that was not started.

    Args:
        what: what it is, for people.
        name: what is awaited to start it.
    """

    def __init__(self, what: str, name: str) -> None:
        """Call nobody."""
        self._what = what
        self._name = name

    def request(self, *_args: Any) -> Coroutine[Any, Any, Any]:
        """Say what to write.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(f"{self._what} was not started: write 'async with', or 'await {self._name}.start()'")

    request_idempotent = send_notify = request

    async def let_go(self) -> None:
        """Do nothing: nobody is held."""


class Worker(AsyncBlock, Remote):
    """A service in a child process, on a socket pair: ``async with seqrpc.Worker(Calculator) as worker: ...``.

    The child is a Python of its own, started by exec, which imports the class by its name; or any program that speaks
    the protocol. It inherits its standard streams and one descriptor. It ends when the worker is closed, and at once
    when this process ends, however that happens and whatever it does.

    Calls raise :class:`seqrpc.WorkerCrashed` when it has ended; it is not started again (:class:`seqrpc.WorkerPool`
    does that). A call that is cancelled, or whose time is up, is cancelled in the child; if it has not ended there
    after ``grace`` seconds, the child is killed.

    Args:
        service: the class of the service, at the top of a module, or in the program itself; or ``"module:Class"``.
        args: what the class is made with, by its annotations; they travel as the arguments of a call do. Descriptors
            and buffers are lent, until the worker has ended; in the child they are open as long as it lives.
        kwargs: likewise, by name.
        command: instead of ``service``: a program and its arguments. It speaks the protocol (``docs/protocol.md``) at
            descriptor 3, whose number is also in the variable ``SEQRPC_FD``, and ends when that one ends. Ctrl-C in a
            terminal reaches it, too; a service's child leaves that to this process.
        serve: services of this process, which the child may call: ``current_call().connection.proxy(...)``.
        allow: who may call those, where neither class nor method says, of the one process that can: by default it may.
        interceptors: what surrounds each call, as for :func:`seqrpc.connect`.
        grace: seconds that the child gets to end a call that was cancelled, and to end itself.
        start_timeout: seconds that it gets until it answers.
        output: what becomes of what it writes: ``"inherit"`` passes it on to the streams of this process, a logger logs
            it, ``"capture"`` only keeps the last lines of its standard error, which is read here in any case.
        user: by name or number, whom the child becomes once its modules are imported, and before the service is made;
            this process has to be root.
        group: its group; by default that of the user.
        groups: its other groups; by default none, if there is a user.
        cwd: its working directory, entered before it becomes the user.
        environment: all its variables; by default those of this process.
        limits: of its resources (setrlimit(2)), by name: ``{"as": 2**30, "nofile": (64, 64)}``.
        nice: what is added to its nice value.
        no_new_privileges: whether programs that it runs gain nothing by being set-user-ID.
        connection_limits: bounds of the connection, at both ends.

    Raises:
        TypeError, ValueError: the class cannot be imported in a child, or cannot be made with such arguments, or an
            option is wrong.
    """

    __slots__ = ("__weakref__", "_plan", "_was_started")

    def __init__(
        self,
        service: ServiceLike | None = None,
        /,
        *args: Any,
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
        self._plan = plan_for(
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
        self._was_started = False
        super().__init__(NotStarted(f"the worker {self._plan.name}", "worker"))

    @property
    def _running(self) -> Running | None:
        callee = self._callee
        return callee.running if isinstance(callee, WorkerCallee) else None

    @property
    def pid(self) -> int | None:
        """The number of its process, or None if it was not started."""
        return None if self._running is None else self._running.process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, or the number of the signal that killed it, negative; None as long as it runs."""
        return None if self._running is None else self._running.process.returncode

    @property
    def closed(self) -> bool:
        """True once its process has ended."""
        return self._running is not None and self._running.has_ended

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that it wrote to its standard error, as far as they were read."""
        return () if self._running is None else self._running.last_lines

    async def start(self) -> None:
        """Start it, and return once it answers; it is for whoever calls this to :meth:`close` it.

        Raises:
            WorkerCrashed: it does not begin, and says why: its module cannot be imported, its class raised, or the
                program of ``command`` cannot be started.
            OSError: no process can be started.
            RuntimeError: it was started before.

        Cancel: it is killed.
        """
        if self._was_started:
            raise RuntimeError(f"{self!r} was started before: a worker is started once")
        self._was_started = True
        callee = WorkerCallee(await begin(self._plan))
        callee.guard = Guard(callee.running)
        self._callee = callee

    async def wait(self) -> int | None:
        """Wait until its process has ended, and return its :attr:`returncode`."""
        if self._running is not None:
            await self._running.wait()
        return self.returncode

    def kill(self) -> None:
        """Kill its process: calls raise :class:`seqrpc.WorkerCrashed`."""
        if self._running is not None:
            self._running.kill("was killed by kill()")

    async def close(self) -> None:
        """End it: calls are given up, and its process ends within ``grace`` seconds, or is killed.

        Raises:
            Exception: the lifespan of a service of ``serve`` failed; the process has ended all the same.

        Cancel: the closing goes on.
        """
        if self._running is not None:
            await self._running.close()

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
        """Return what it is called, and its process."""
        return f"<Worker {self._plan.name}>" if self._running is None else repr(self._running)
