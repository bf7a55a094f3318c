"""A child process and the connection to it: how both begin, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from seqrpc.aio.client import connect_to_process
from seqrpc.aio.connection import Connection, link_of
from seqrpc.calls.plans import Plan, argv_of
from seqrpc.calls.workers import Origin, StartFailed, crashed, setup_for
from seqrpc.errors import ConnectionLost, RemoteProtocolError, RpcError, WorkerCrashed, not_run
from seqrpc.interface.policy import as_policy
from seqrpc.interface.scope import within
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.processes import Process, start
from seqrpc.kernel.sockets import socket_pair
from seqrpc.logs import get_logger
from seqrpc.workers.output import Outputs

_log = get_logger("seqrpc.workers")


class Running:
    """A child that runs, in the loop that started it.

    Args:
        plan: what it is.
        process: its process.
        outputs: what it writes.
        when_ended: called once, when the process has ended.
        when_lost: called if the connection ends before, and not on this side.
    """

    def __init__(
        self,
        plan: Plan,
        process: Process,
        outputs: Outputs,
        when_ended: Callable[[], object] | None = None,
        when_lost: Callable[[], object] | None = None,
    ) -> None:
        """Watch the process."""
        self.plan = plan
        self.process = process
        self._outputs = outputs
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._when_ended = when_ended
        self._when_lost = when_lost
        self._watching: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._control: Connection | None = None
        self._living: asyncio.Future[Any] | None = None
        self._why: str | None = None  # it was killed
        self.is_closing = False
        """Whether it is being closed on this side."""
        self._closing: asyncio.Task[None] | None = None
        outputs.begin()
        self._loop.add_reader(process.fileno(), self._on_exit)

    # Its beginning

    async def begin(self, control: socket.socket) -> None:
        """Talk to it, and return once it answers.

        Raises:
            WorkerCrashed: it does not.
        """
        try:
            await self._begin(control)
        except BaseException:
            await self._end_now()
            raise
        self._watching = asyncio.ensure_future(self._watch(self.connection))

    async def _watch(self, connection: Connection) -> None:
        """Kill it, in time, if it lives on without its connection, whether anybody waits for it or not."""
        await link_of(connection).wait_lost()  # and not for the lifespans of what is served to it, which may fail
        if self.is_closing or self.has_ended:
            return
        if self._when_lost is not None:
            self._when_lost()
        await self.crash()

    async def _begin(self, control: socket.socket) -> None:
        plan = self.plan
        try:
            async with asyncio.timeout(plan.start_timeout):
                if plan.origin is None:
                    self._connection = await self._connect(control)
                    await self._connection.call("rpc.ping")
                else:
                    await self._begin_service(control, plan.origin)
        except TimeoutError:
            self.kill(f"did not begin within {plan.start_timeout:g} s, and was killed")
            raise not_run(await self.crash()) from None
        except StartFailed as exc:
            await self._end_now()
            raise not_run(crashed(plan.name, None, None, why=f"did not begin: {exc.message}")) from None
        except (ConnectionLost, RpcError) as exc:
            if isinstance(exc, RpcError) and self.process.returncode is None and not isinstance(exc, ConnectionLost):
                self.kill(f"did not begin: {exc}")
            raise not_run(await self.crash()) from exc

    async def _begin_service(self, control: socket.socket, origin: Origin) -> None:
        plan = self.plan
        self._control = await connect_to_process(control, self.process.pid, limits=plan.limits)
        ours, theirs = socket_pair()
        with theirs:  # until the child has it: from then on only its own end tells when it goes
            self._connection = await self._connect(ours)
            setup = setup_for(origin, plan.restraints, plan.limits)
            life = self._control.call("seqrpc.Child.live", setup, theirs, plan.args, plan.kwargs)
            self._living = asyncio.ensure_future(life)
            self._living.add_done_callback(_forget)
            await self._until_ready(self._living, self._connection)

    @staticmethod
    async def _until_ready(living: asyncio.Future[Any], connection: Connection) -> None:
        """Wait until the child answers, or has said why it will not."""
        ready = asyncio.ensure_future(connection.call("rpc.ping"))
        try:
            await asyncio.wait([living, ready], return_when=asyncio.FIRST_COMPLETED)
            if living.done() and not ready.done():
                living.result()
            await ready
        finally:
            ready.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionLost, RpcError):
                await ready

    async def _connect(self, sock: socket.socket) -> Connection:
        plan, pid = self.plan, self.process.pid

        def is_child(caller: Credentials | None) -> bool:
            return caller is not None and caller.pid == pid

        return await connect_to_process(
            sock,
            pid,
            services=plan.services,
            allow=is_child if plan.allow is None else as_policy(plan.allow) & as_policy(is_child),
            interceptors=plan.interceptors,
            limits=plan.limits,
        )

    @property
    def connection(self) -> Connection:
        """The connection over which its service is called."""
        assert self._connection is not None
        return self._connection

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines of its standard error."""
        return self._outputs.stderr.tail.lines

    # Its end

    def _on_exit(self) -> None:
        self._loop.remove_reader(self.process.fileno())
        self.process.poll()
        try:
            self._outputs.finish()
        finally:
            self._exited.set_result(None)
        for connection in (self._connection, self._control):
            if connection is not None:  # what it has sent is read yet, unless a child of its own holds the socket
                self._loop.call_later(self.plan.grace, link_of(connection).abandon)
        if self._when_ended is not None:
            self._when_ended()

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended."""
        return self._exited.done()

    def kill(self, why: str) -> None:
        """Kill it, for a reason that is told to those who wait for it."""
        if not self.process.is_gone and self._why is None:
            self._why = why
            _log.warning("! the worker %s (process %d) %s", self.plan.name, self.process.pid, why)
            self.process.kill()

    def watch_given_up(self) -> None:
        """Kill it if it has not reacted within ``grace`` to the calls that were given up until now."""
        if self._connection is None or self.has_ended:
            return
        link = link_of(self._connection)
        given_up = set(link.session.given_up)
        if given_up:
            self._loop.call_later(self.plan.grace, self._check_given_up, given_up)

    def _check_given_up(self, given_up: set[int]) -> None:
        if given_up & link_of(self.connection).session.given_up and not self.has_ended:
            self.kill(f"did not end a call within {self.plan.grace:g} s after it was cancelled, and was killed")

    async def crash(self) -> WorkerCrashed:
        """Return what to raise to those who wait for it, once it has ended; it is killed if it does not."""
        try:
            async with asyncio.timeout(self.plan.grace):
                await self.wait()
        except TimeoutError:
            self.kill(f"{self._wrong() or 'ended its connection'}, and was killed")
            await self.wait()
        return self.crashed()

    def crashed(self) -> WorkerCrashed:
        """Return what to raise because it has ended."""
        process = self.process
        return crashed(self.plan.name, process.pid, process.returncode, self.last_lines, self._why or self._wrong())

    def _wrong(self) -> str | None:
        """Return what it did wrong, if the connection ended for that."""
        cause = None if self._connection is None else link_of(self._connection).lost_error().__cause__
        return f"broke the protocol: {cause}" if isinstance(cause, RemoteProtocolError) else None

    async def wait(self) -> None:
        """Wait until its process has ended."""
        await asyncio.shield(self._exited)

    async def drain(self) -> None:
        """Let what it works on end, its streams too, within the ``drain_timeout`` of its limits, and then end it."""
        if self._control is not None:
            with contextlib.suppress(ConnectionLost, RpcError, TimeoutError):
                async with asyncio.timeout(self.plan.limits.drain_timeout + self.plan.grace):
                    await self._control.call("seqrpc.Child.drain")
        await self.close()

    async def close(self) -> None:
        """End it: its connection ends, and with it the service; it is killed if it lives on for ``grace`` seconds.

        Raises:
            Exception: the lifespan of a service that is served to it failed; its process has ended all the same.

        Cancel: the closing goes on.
        """
        if self._closing is None:
            self.is_closing = True
            self._closing = asyncio.ensure_future(self._end())
        await asyncio.shield(self._closing)

    async def _end(self) -> None:
        self.is_closing = True
        async with contextlib.AsyncExitStack() as steps:  # each is taken, the last one first, whatever the others raise
            steps.push_async_callback(self._wait_or_kill)
            for connection in (self._control, self._connection):
                if connection is not None:
                    steps.push_async_callback(connection.close)

    async def _wait_or_kill(self) -> None:
        try:
            async with asyncio.timeout(self.plan.grace):
                await self.wait()
        except TimeoutError:
            self.kill(f"lived on for {self.plan.grace:g} s after its connection was closed, and was killed")
            await self.wait()

    async def _end_now(self) -> None:
        """End it without giving it time: it has not begun. It is killed, so cancelling only waits for that."""
        self.abandon()
        cancelled: asyncio.CancelledError | None = None
        while not self.has_ended:
            try:
                await self.wait()
            except asyncio.CancelledError as exc:
                cancelled = exc
        if cancelled is not None:
            raise cancelled

    @property
    def is_unclosed(self) -> bool:
        """Whether it runs, and nobody has closed it."""
        return not self.has_ended and not self.is_closing and not self.process.has_ended

    def abandon(self) -> None:
        """End it without waiting: nobody refers to it any more."""
        self.is_closing = True
        self.process.kill()
        for connection in (self._connection, self._control):
            if connection is not None:
                link_of(connection).abandon()

    def __repr__(self) -> str:
        """Return what it is called, and its process."""
        return f"<Worker {self.plan.name} pid={self.process.pid}>"


def _forget(task: asyncio.Future[Any]) -> None:
    """Take note of what a task raised, which says nothing that is not known."""
    if not task.cancelled():
        task.exception()


async def begin(
    plan: Plan,
    when_ended: Callable[[], object] | None = None,
    when_lost: Callable[[], object] | None = None,
) -> Running:
    """Start a child, and return it once it answers.

    Args:
        plan: what it is.
        when_ended: called once its process has ended.
        when_lost: see :class:`Running`.

    Raises:
        WorkerCrashed: it did not begin.
        OSError: its program cannot be started.

    Cancel: it is killed.
    """
    ours, theirs = socket_pair()
    with within(None, None):  # the deadline and the metadata are the caller's, and not the child's for good
        try:
            with theirs:
                running = _start(plan, theirs, when_ended, when_lost)
        except BaseException:
            ours.close()
            raise
        await running.begin(ours)
    return running


def _start(plan: Plan, theirs: socket.socket, *told: Callable[[], object] | None) -> Running:
    outputs = Outputs(plan.output, plan.name, is_foreign=plan.restraints.uid is not None)
    try:
        stdout, stderr = outputs.numbers
        argv = argv_of(plan)
        process = start(
            argv, theirs.fileno(), name=plan.name, environment=plan.environment, stdout=stdout, stderr=stderr
        )
        return Running(plan, process, outputs, *told)
    except BaseException:
        outputs.close()
        raise
