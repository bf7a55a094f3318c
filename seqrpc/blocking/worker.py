"""A child process that serves, for programs without an event loop."""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self

from seqrpc.blocking.client import connect_to_process
from seqrpc.blocking.connection import Connection, line_of
from seqrpc.blocking.family import Family
from seqrpc.blocking.interceptors import Interceptor
from seqrpc.blocking.remote import Remote
from seqrpc.blocking.timeouts import timeout
from seqrpc.blocking.waiting import READ
from seqrpc.calls.plans import Plan, ServiceLike, argv_of, plan_for
from seqrpc.calls.unclosed import Guard
from seqrpc.calls.workers import Origin, Tail, crashed, setup_for
from seqrpc.errors import ConnectionLost, DeadlineExceeded, RemoteProtocolError, RpcError, WorkerCrashed, not_run
from seqrpc.interface.answers import Finish, result_of
from seqrpc.interface.policy import PolicyLike, as_policy
from seqrpc.interface.scope import within
from seqrpc.interface.service import Service
from seqrpc.kernel import forks
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.privileges import Bounds
from seqrpc.kernel.processes import Process, start
from seqrpc.kernel.sockets import socket_pair
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.messages import Params

_AT_ONCE: Final = 65_536  # bytes

_LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks at a child whose end is waited for: another thread may have closed its pidfd."""


class _Kept:
    """What a child writes, read while a thread waits for the child: a pump."""

    def __init__(self, *, passes_on: bool) -> None:
        """Open a pipe."""
        self._lock = threading.RLock()
        self._passes_on = passes_on
        self.tail = Tail()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._reader, self.writer = OwnedFd(reader), OwnedFd(writer)
        os.set_blocking(reader, False)
        self._family: Family | None = None

    def begin(self, family: Family) -> None:
        """Read from now on."""
        self._family = family
        family.add(self)

    def interest(self) -> tuple[int, int]:
        """Return what to watch for."""
        return (-1, 0) if self._reader.closed else (self._reader.fileno(), READ)

    def work(self) -> bool:
        """Read what is there, a part of it."""
        with self._lock:
            if self._reader.closed:
                return False
            try:
                data = os.read(self._reader.fileno(), _AT_ONCE)
            except BlockingIOError:
                return False
            if data:
                self.tail.add(data)
            else:
                self.abandon()
        if data and self._passes_on:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sys.stderr.write(data.decode(errors="backslashreplace"))
                sys.stderr.flush()
        return bool(data)

    def end(self, reason: str) -> None:  # noqa: ARG002 - of a pump
        """Read what is left of a child that has ended, which is bounded, and close."""
        for _ in range(32):
            if not self.work():
                break
        self.abandon()

    def abandon(self) -> None:
        """Read no more."""
        with self._lock:
            if self._family is not None:
                self._family.discard(self)
            self._reader.close()
            self.writer.close()


class _Watchdog:
    """Ends a child that does not end calls which were given up, while a thread waits for it: a pump."""

    def __init__(self, running: _Running, family: Family) -> None:
        """Watch over a child."""
        self._running = running
        self._family = family

    @property
    def retry_at(self) -> int | None:
        """When it is too late, in nanoseconds of the monotonic clock."""
        until = self._running.too_late_at
        return None if until is None else int(until * 1e9)

    def interest(self) -> tuple[int, int]:
        """Return what to watch for: the end of the child, besides the time."""
        if self._running.too_late_at is None:
            return -1, 0
        try:
            return self._running.process.fileno(), READ
        except ValueError:  # it has ended
            return -1, 0

    def work(self) -> bool:
        """Kill it, if it is too late."""
        self._running.look()
        if self._running.too_late_at is None:
            self.abandon()
        return False

    def end(self, reason: str) -> None:  # noqa: ARG002 - of a pump
        """Watch no more."""
        self.abandon()

    def abandon(self) -> None:
        """Watch no more."""
        self._family.discard(self)


class _Running:
    """A child that runs.

    Args:
        plan: what it is.
        process: its process.
        kept: what it writes, if that is read here.
    """

    def __init__(self, plan: Plan, process: Process, kept: _Kept | None) -> None:
        """Connect to nobody yet."""
        self.plan = plan
        self.process = process
        self.kept = kept
        self.connection: Connection | None = None
        self._control: Connection | None = None
        self._given_up: dict[int, float] = {}  # by call id, since when by the monotonic clock
        self._watchdog: _Watchdog | None = None
        self._why: str | None = None  # it was killed
        self.is_closing = False

    # Its beginning

    def begin(self, control: socket.socket) -> None:
        """Talk to it, and return once it answers."""
        try:
            self._begin(control)
        except BaseException:
            self.abandon()
            raise

    def _begin(self, control: socket.socket) -> None:
        plan = self.plan
        try:
            with timeout(plan.start_timeout):
                if plan.origin is None:
                    self.connection = self._connect(control)
                else:
                    self._begin_service(control, plan.origin)
                assert self.connection is not None
                if self.kept is not None:
                    self.kept.begin(line_of(self.connection).family)
                self.connection.call("rpc.ping")
        except DeadlineExceeded:
            self.kill(f"did not begin within {plan.start_timeout:g} s, and was killed")
            raise not_run(self.crash()) from None
        except (ConnectionLost, RpcError) as exc:
            raise self._not_begun(exc) from None

    def _begin_service(self, control: socket.socket, origin: Origin) -> None:
        self._control = connect_to_process(control, self.process.pid, limits=self.plan.limits)
        ours, theirs = socket_pair()
        with theirs:
            self.connection = self._connect(ours)
            setup = setup_for(origin, self.plan.restraints, self.plan.limits)
            with within(None, None):  # the deadline and the metadata are the caller's, and not the child's for good
                self._control.notify("seqrpc.Child.live", setup, theirs, self.plan.args, self.plan.kwargs)

    def _connect(self, sock: socket.socket) -> Connection:
        plan, pid = self.plan, self.process.pid

        def is_child(caller: Credentials | None) -> bool:
            return caller is not None and caller.pid == pid

        return connect_to_process(
            sock,
            pid,
            services=plan.services,
            allow=is_child if plan.allow is None else as_policy(plan.allow) & as_policy(is_child),
            interceptors=plan.interceptors,
            limits=plan.limits,
        )

    def _not_begun(self, exc: Exception) -> WorkerCrashed:
        """Return why it did not begin."""
        why: Any = None
        if self._control is not None:
            with contextlib.suppress(ConnectionLost, RpcError), timeout(self.plan.grace):
                why = self._control.call("seqrpc.Child.failure")
        if why is None and isinstance(exc, RpcError) and not isinstance(exc, ConnectionLost):
            why = str(exc)
        if why is None:
            return not_run(self.crash())
        self.close()
        return not_run(crashed(self.plan.name, None, None, self.last_lines, f"did not begin: {why}"))

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines of its standard error, if they are read here."""
        return () if self.kept is None else self.kept.tail.lines

    # Its end

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended."""
        if not self.process.poll():
            return False
        if self.kept is not None:
            self.kept.end("it has ended")
        return True

    def wait(self, seconds: float | None) -> bool:
        """Wait until its process has ended, for so long at most; return whether it has."""
        until = None if seconds is None else time.monotonic() + seconds
        while not self.has_ended:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            poller = select.poll()
            with contextlib.suppress(ValueError):  # another thread has found that it has ended
                poller.register(self.process.fileno(), select.POLLIN)
                if self.kept is not None and self.kept.interest()[0] >= 0:
                    poller.register(self.kept.interest()[0], select.POLLIN)
                poller.poll(1e3 * min(_LOOK_INTERVAL, math.inf if left is None else left))
            if self.kept is not None:
                self.kept.work()
        return True

    def kill(self, why: str) -> None:
        """Kill it, for a reason that is told to those who wait for it."""
        if self._why is None and not self.process.is_gone:
            self._why = why
            self.process.kill()

    @property
    def too_late_at(self) -> float | None:
        """When it is to have ended the calls that were given up, by the monotonic clock; None if there are none."""
        since = min(self._given_up.values(), default=None)
        return None if since is None else since + self.plan.grace

    def look(self) -> None:
        """Kill it if it has not ended calls ``grace`` seconds after they were given up."""
        assert self.connection is not None
        line, now = line_of(self.connection), time.monotonic()
        self._given_up = {call_id: self._given_up.get(call_id, now) for call_id in list(line.session.given_up)}
        if self.too_late_at is not None and now >= self.too_late_at:
            self.kill(f"did not end a call within {self.plan.grace:g} s after it was cancelled, and was killed")
            self._given_up = {}
        elif self._given_up:
            if self._watchdog is None:
                self._watchdog = _Watchdog(self, line.family)
            if self._watchdog not in line.family.pumps:
                line.family.add(self._watchdog)

    def check(self) -> None:
        """Do the same before a call is made.

        Raises:
            WorkerCrashed: it was killed.
        """
        self.look()
        if self._why is not None and not self.is_closing:
            raise not_run(self.crash())

    def crash(self) -> WorkerCrashed:
        """Return what to raise to those who wait for it, once it has ended; it is killed if it does not."""
        wrong = self._wrong()
        if not self.wait(self.plan.grace):
            self.kill(f"{wrong or 'ended its connection'}, and was killed")
            self.wait(None)
        process = self.process
        return crashed(self.plan.name, process.pid, process.returncode, self.last_lines, self._why or wrong)

    def _wrong(self) -> str | None:
        """Return what it did wrong, if the connection ended for that."""
        cause = None if self.connection is None else line_of(self.connection).lost_error().__cause__
        return f"broke the protocol: {cause}" if isinstance(cause, RemoteProtocolError) else None

    def close(self) -> None:
        """End it: its connection ends, and with it the service; it is killed if it lives on for ``grace`` seconds."""
        self.is_closing = True
        for connection in (self.connection, self._control):
            if connection is not None:
                connection.close()
        if not self.wait(self.plan.grace):
            self.kill(f"lived on for {self.plan.grace:g} s after its connection was closed, and was killed")
            self.wait(None)

    @property
    def is_unclosed(self) -> bool:
        """Whether it runs, and nobody has closed it."""
        return not self.is_closing and not self.process.has_ended

    def abandon(self) -> None:
        """End it without waiting: nobody refers to it any more."""
        self.is_closing = True
        self.process.kill()
        for connection in (self.connection, self._control):
            if connection is not None:
                line_of(connection).abandon()
        self.wait(None)

    def __repr__(self) -> str:
        """Return what it is called, and its process."""
        return f"<Worker {self.plan.name} pid={self.process.pid}>"


class _Guard(Guard):
    """As its base; but of a worker that has ended only sockets are left, which are closed without a word."""

    __slots__ = ("_running",)

    def __init__(self, running: _Running) -> None:
        super().__init__(running)
        self._running = running

    def __del__(self) -> None:
        """Close what is left."""
        running = self._running
        if not forks.was_missed() and not running.is_closing and running.has_ended:
            running.abandon()
        super().__del__()


class _Callee:
    """Makes the calls of a worker, and tells of its end as the end of the worker.

    Args:
        name: what the worker is called.
    """

    __slots__ = ("__weakref__", "guard", "name", "running")

    def __init__(self, name: str) -> None:
        """Begin with no child."""
        self.name = name
        self.running: _Running | None = None
        self.guard: object | None = None
        """What is to be dropped with this (:class:`~seqrpc.calls.unclosed.Guard`)."""

    def _started(self) -> _Running:
        if self.running is None or self.running.connection is None:
            raise RuntimeError(f"the worker {self.name} was not started: write 'with', or 'worker.start()'")
        return self.running

    def request(
        self,
        method: str,
        params: Params,
        deadline: int | None = None,
        meta: dict[str, str] | None = None,
        finish: Finish = result_of,
    ) -> Any:
        """Call; a worker that has not ended calls that were given up before is ended."""
        running = self._started()
        running.check()
        assert running.connection is not None
        try:
            return running.connection._callee.request(method, params, deadline, meta, finish)  # noqa: SLF001 - its own
        except ConnectionLost as exc:
            raise self._crash(running, exc) from exc
        except BaseException:
            running.look()
            raise

    request_idempotent = request

    def send_notify(
        self, method: str, params: Params, deadline: int | None = None, meta: dict[str, str] | None = None
    ) -> None:
        """Call without wanting an answer."""
        running = self._started()
        running.check()
        assert running.connection is not None
        try:
            running.connection._callee.send_notify(method, params, deadline, meta)  # noqa: SLF001 - its own
        except ConnectionLost as exc:
            raise self._crash(running, exc) from exc

    @staticmethod
    def _crash(running: _Running, exc: ConnectionLost) -> ConnectionLost:
        if running.is_closing:
            return exc
        error = running.crash()
        error.execution = exc.execution
        return error

    def let_go(self) -> None:
        """Do nothing: a worker is held by whoever made it, not by its proxies."""

    def __repr__(self) -> str:
        """Return the worker."""
        return f"<Worker {self.name}>" if self.running is None else repr(self.running)


class Worker(Remote):
    """A service in a child process, on a socket pair: ``with seqrpc.blocking.Worker(Calculator) as worker: ...``.

    It is what :class:`seqrpc.Worker` is, with calls that wait, and takes the same arguments. What differs: there is no
    loop that would look after the child while nobody calls. A child that has not ended a call ``grace`` seconds after
    it was given up is killed by the next call, or by :meth:`close`. ``output`` is ``"inherit"``, and then its standard
    error goes where that of this process goes and nothing of it is known here, or ``"capture"``: its last lines are
    kept, and are read while a thread waits for the worker. A child that writes more than a pipe holds waits for that.

    Raises:
        TypeError, ValueError: the class cannot be imported in a child, or cannot be made with such arguments, or an
            option is wrong.
    """

    __slots__ = ("_plan", "_was_started")

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
        output: Literal["inherit", "capture"] = "inherit",
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
        if output not in ("inherit", "capture"):
            raise TypeError(f"output= is 'inherit' or 'capture' where no loop runs, got {output!r}")
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
        super().__init__(_Callee(self._plan.name))

    @property
    def _running(self) -> _Running | None:
        callee = self._callee
        assert isinstance(callee, _Callee)
        return callee.running

    @property
    def pid(self) -> int | None:
        """The number of its process, or None if it was not started."""
        return None if self._running is None else self._running.process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, or the number of the signal that killed it, negative; None as long as it runs."""
        running = self._running
        return running.process.returncode if running is not None and running.has_ended else None

    @property
    def closed(self) -> bool:
        """True once its process has ended."""
        return self._running is not None and self._running.has_ended

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that it wrote to its standard error, with ``output="capture"``, as far as they were read."""
        return () if self._running is None else self._running.last_lines

    def start(self) -> None:
        """Start it, and return once it answers; it is for whoever calls this to :meth:`close` it.

        Raises:
            WorkerCrashed: it does not begin, and says why: its module cannot be imported, or its class raised.
            OSError: no process can be started.
            RuntimeError: it was started before.
        """
        if self._was_started:
            raise RuntimeError(f"{self!r} was started before: a worker is started once")
        self._was_started = True
        callee = self._callee
        assert isinstance(callee, _Callee)
        ours, theirs = socket_pair()
        try:
            with theirs:
                running = _start(self._plan, theirs)
        except BaseException:
            ours.close()
            raise
        running.begin(ours)
        callee.running, callee.guard = running, _Guard(running)

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait until its process has ended, for so many seconds at most; return its :attr:`returncode`."""
        if self._running is not None:
            self._running.wait(seconds)
        return self.returncode

    def kill(self) -> None:
        """Kill its process: calls raise :class:`seqrpc.WorkerCrashed`."""
        if self._running is not None:
            self._running.kill("was killed by kill()")

    def close(self) -> None:
        """End it: calls are given up, and its process ends within ``grace`` seconds, or is killed."""
        if self._running is not None and not forks.was_missed():
            self._running.close()

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Return what it is called, and its process."""
        return repr(self._callee)


def _start(plan: Plan, theirs: socket.socket) -> _Running:
    # Another user gets no descriptor of this process: it may be a terminal.
    is_read = plan.output == "capture" or plan.restraints.uid is not None
    kept = _Kept(passes_on=plan.output == "inherit") if is_read else None
    try:
        number = None if kept is None else kept.writer.fileno()
        process = start(
            argv_of(plan), theirs.fileno(), name=plan.name, environment=plan.environment, stdout=number, stderr=number
        )
    except BaseException:
        if kept is not None:
            kept.abandon()
        raise
    if kept is not None:
        kept.writer.close()
    return _Running(plan, process, kept)
