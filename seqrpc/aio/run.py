"""Being a daemon: a process that serves until a signal tells it to stop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from seqrpc.aio.idleness import Idleness, check_idle_timeout
from seqrpc.aio.interceptors import Interceptor
from seqrpc.aio.server import Server, hub_of, serve, serve_after
from seqrpc.aio.succession import Predecessor, Succession
from seqrpc.aio.watchdog import Watchdog
from seqrpc.errors import AddressError, ListenError
from seqrpc.interface.policy import PolicyLike
from seqrpc.interface.predicates import takes_one
from seqrpc.interface.service import Service
from seqrpc.kernel import forks
from seqrpc.kernel.addresses import AddressLike
from seqrpc.kernel.descriptors import widen_table
from seqrpc.kernel.handover import VARIABLE, take_predecessor
from seqrpc.kernel.listening import BACKLOG
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.logs import get_logger
from seqrpc.text import shown
from seqrpc.twin import TOLD

if TYPE_CHECKING:
    from seqrpc.kernel.systemd import Manager

_TABLE = 65_536
"""Descriptors for which there is room from the start: their table takes half a megabyte."""

T = TypeVar("T")

Hook = Callable[[Server], object]
"""A plain or coroutine function of the server; what it returns is awaited if it can be, and not used."""

_log = get_logger("seqrpc.server")


def run(
    services: Service | Iterable[Service],
    address: AddressLike | None = None,
    *,
    sock: socket.socket | None = None,
    allow: PolicyLike | None = None,
    mode: int | None = None,
    group: int | str | None = None,
    backlog: int = BACKLOG,
    accept_descriptors: bool | None = None,
    pass_credentials: bool = False,
    interceptors: Iterable[Interceptor] = (),
    limits: Limits = DEFAULT_LIMITS,
    drain_timeout: float | None = None,
    on_start: Hook | None = None,
    on_reload: Hook | None = None,
    idle_timeout: float | None = None,
    restart: bool = False,
) -> None:
    """Be a daemon: serve on uvloop until SIGTERM or SIGINT, then drain and return.

    The first signal refuses what comes and lets what runs finish; a second one stops at once. A signal while
    it starts ends the start. On a socket pair it also ends when the other side goes. The stop takes ``drain_timeout``,
    ``lifespan_timeout`` and a few times ``close_timeout`` of the limits at most: handlers that go on although they were
    cancelled are left.

    A service manager, as systemd with ``Type=notify`` or ``Type=notify-reload``, is told when the daemon is ready,
    reloads and stops, and at times how many connections and calls there are (sd_notify(3)): at the address in
    ``NOTIFY_SOCKET``, which is taken out of the environment, so that children do not speak for the daemon. With
    ``WatchdogSec=`` it is told that the daemon works, from the event loop: not while a handler blocks that.

    The soft limit of descriptors (``RLIMIT_NOFILE``) is raised to the hard one. The garbage collector leaves alone what
    there is when the daemon is ready (:func:`gc.freeze`), until it has stopped.

    Args:
        services: as for :func:`serve`.
        address: as for :func:`serve`.
        sock: as for :func:`serve`.
        allow: as for :func:`serve`.
        mode: as for :func:`serve`.
        group: as for :func:`serve`.
        backlog: as for :func:`serve`.
        accept_descriptors: as for :func:`serve`.
        pass_credentials: as for :func:`serve`.
        interceptors: as for :func:`serve`.
        limits: as for :func:`serve`.
        drain_timeout: seconds that running handlers get to finish; by default that of the limits.
        on_start: called with the :class:`Server` once it accepts connections; the daemon is ready when it has
            returned. A plain or a coroutine function, on the loop. After a restart it is called while the process that
            served before still does, and accepts.
        on_reload: called likewise at SIGHUP, as to read a configuration again. Its runs do not overlap: after signals
            that come while it runs, it runs once more. What it raises is logged. When the daemon stops it is cancelled.
            Without it SIGHUP does what it did before, which is to end the process.
        idle_timeout: seconds after which the daemon stops, as at SIGTERM, and returns, if nobody was connected, nothing
            ran, and nobody held a stream or an object of its; tasks of your own do not count. Only for a listening
            socket that somebody else holds, too, who starts the daemon again for the next caller (``systemd:name``,
            ``fd:N``, ``sock=``): whoever comes meanwhile waits there. By default it never does.
        restart: True makes SIGHUP restart the daemon without a gap: this program is started anew, as it was started,
            and once that serves it is given the listening socket and the connections. What is busy is given once it is
            idle, and drained after ``drain_timeout``; streams and objects that clients hold live on here as long. Where
            the new process does not come to serve within ``restart_timeout``, this one serves on.

    Raises:
        ValueError: ``restart`` without an address, or with ``on_reload``, which is for SIGHUP, too.
        RuntimeError: an event loop runs here already: :func:`serve` there.
        TypeError, ValueError: a hook cannot be called with the server, or ``idle_timeout`` is no time.
        SystemExit: the address cannot be served (AddressError, ListenError, AddressInUse), or not with
            ``idle_timeout``, as nobody would start the daemon again (AddressError): an administrator can do
            something about that, and reads one line, with which Python ends the process with status 1. The error is its
            ``__cause__``. A program that wants the errors themselves uses :func:`serve`.
        Exception: else as :func:`serve`, what ``on_start`` raised, and what the lifespan of a service raised at its
            end; the daemon has stopped.
    """
    import uvloop  # noqa: PLC0415 - only daemons need it

    from seqrpc.kernel.systemd import Manager  # noqa: PLC0415 - likewise

    predecessor = _predecessor()  # first: the variable is for this process, and not for its children
    _check_hook("on_start", on_start)
    _check_hook("on_reload", on_reload)
    _check_no_loop()
    try:
        check_idle_timeout(idle_timeout, address)
    except AddressError as exc:
        raise SystemExit(str(exc)) from exc
    _check_restart(restart, sock, on_reload)
    options: dict[str, Any] = {
        "sock": sock,
        "allow": allow,
        "mode": mode,
        "group": group,
        "backlog": backlog,
        "accept_descriptors": accept_descriptors,
        "pass_credentials": pass_credentials,
        "interceptors": interceptors,
        "limits": limits,
    }
    if predecessor is None:
        serving = serve(services, address, **options)
    else:
        serving = serve_after(predecessor, services, address, **options)
    _raise_descriptor_limit()
    asked: dict[str, Any] = {"idle_timeout": idle_timeout, "restart": restart, "predecessor": predecessor}
    daemon = _Daemon(Manager(), on_start, on_reload, limits, **asked)
    # The runner is not closed, only its loop: it would wait without a bound for tasks that do not end when
    # they are cancelled, and for the threads of asyncio.to_thread. Those are let go when the loop closes.
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    frozen_before = gc.get_freeze_count()
    try:
        try:
            runner.run(daemon.live(serving, drain_timeout))
        finally:
            runner.run(_end_tasks(limits.close_timeout))
    except (AddressError, ListenError) as exc:
        if daemon.has_started:  # it comes from something else than the start
            raise
        raise SystemExit(str(exc)) from exc
    finally:
        runner.get_loop().close()
        daemon.let_signals_go()
        if not frozen_before:
            gc.unfreeze()


def _predecessor() -> Predecessor | None:
    """Return the daemon that started this process to be its successor; None if there is none.

    Raises:
        SystemExit: the environment says so, and it is not so.
    """
    if VARIABLE not in os.environ:
        return None
    try:
        talk = take_predecessor()
    except AddressError as exc:
        raise SystemExit(str(exc)) from exc
    return None if talk is None else Predecessor(talk)


def _check_restart(restart: object, sock: object, on_reload: object) -> None:
    """Check that SIGHUP has one meaning, and that there is what a successor needs."""
    if restart and sock is not None:
        raise ValueError("restart=True takes an address: the program that is started anew does not have sock=")
    if restart and on_reload is not None:
        raise ValueError("restart=True and on_reload= are both for SIGHUP: a restart reads the configuration anew, too")


def _check_no_loop() -> None:
    """Check that no event loop runs in this thread, before anything is made for another one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "seqrpc.run runs an event loop of its own, and one runs here already: write 'async with seqrpc.serve(...)'"
    )


def _check_hook(name: str, hook: object) -> None:
    """Check that a hook can be called with the server, now and not when the daemon has started, or is to reload."""
    if hook is None:
        return
    if not callable(hook):
        raise TypeError(f"{name}= takes a function of the Server, got {shown(repr(hook))}: write 'def f(server): ...'")
    if not takes_one(hook):
        what = f"{name}= takes a function of the Server, and {shown(repr(hook))} cannot be called with it alone"
        raise TypeError(f"{what}: write 'def f(server): ...'")


def _raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as it may, and room for those that come.

    The soft limit is 1,024 by default for the sake of select(2), which knows no higher numbers and is
    not used here; service managers set the hard one for daemons, and expect them to raise the other.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems have a bound below "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with suppress(OSError):
        widen_table(_TABLE if hard == resource.RLIM_INFINITY else min(hard, _TABLE))


async def _end_tasks(close_timeout: float) -> None:
    """Cancel what still runs on the loop, and wait for it: as asyncio's runner does, but with a bound."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=close_timeout)
    # A generator that goes on although it is cancelled would keep whoever awaits this, time-out or not.
    generators = asyncio.ensure_future(asyncio.get_running_loop().shutdown_asyncgens())
    await asyncio.wait([generators], timeout=close_timeout)


class _Signals:
    """The signals that a daemon handles, and what they did before.

    A forked child inherits the handlers, and the descriptor to which they write (``signal.set_wakeup_fd``): to end
    a worker, as ``multiprocessing.Process.terminate`` does, would leave it running, and stop the daemon before 3.12.
    """

    def __init__(self, handlers: dict[int, Callable[[], None]]) -> None:
        """Remember what they do now, before the runner has a handler of its own."""
        self._handlers = handlers
        self._before = {number: signal.getsignal(number) for number in handlers}
        self._are_handled = False
        forks.register(self, _Signals._let_go_in_child)

    def handle(self) -> None:
        """Have the running loop call what is to be done."""
        for number, handler in self._handlers.items():
            asyncio.get_running_loop().add_signal_handler(number, handler)
            self._are_handled = True

    def let_go(self) -> None:
        """Let them do what they did before, once the loop is closed.

        The loop leaves the default of the system to most, and of SIGINT at times its own handler, which does nothing.
        """
        if self._are_handled:
            self._are_handled = False
            for number, handler in self._before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _let_go_in_child(self) -> None:
        """Let them go in a forked child, which has the closed loop of another process."""
        if self._are_handled:
            signal.set_wakeup_fd(-1)
        self.let_go()


class _Daemon:
    """A server from its start to its end, as signals have it.

    Args:
        manager: who is told.
        on_start: what is to be done at the start.
        on_reload: what is to be done at SIGHUP.
        limits: ``close_timeout`` is how long a hook may go on after it was cancelled.
        idle_timeout: seconds after which it stops if nobody needs it.
        restart: whether SIGHUP starts a successor.
        predecessor: whose successor this is.
    """

    def __init__(
        self,
        manager: Manager,
        on_start: Hook | None,
        on_reload: Hook | None,
        limits: Limits,
        *,
        idle_timeout: float | None,
        restart: bool,
        predecessor: Predecessor | None,
    ) -> None:
        """Prepare; :meth:`live` begins."""
        self._manager = manager
        self._on_start = on_start
        self._on_reload = on_reload
        self._limits = limits
        self._close_timeout = limits.close_timeout
        self._restarts = restart
        self._predecessor = predecessor
        self._succession: Succession | None = None
        self._idle_timeout = idle_timeout
        handlers: dict[int, Callable[[], None]] = {signal.SIGTERM: self._stop_soon, signal.SIGINT: self._stop_soon}
        if on_reload is not None or restart:
            handlers[signal.SIGHUP] = self._reload_soon
        self._signals = _Signals(handlers)
        self._server: Server | None = None
        self._stop: asyncio.Future[None]  # done once a signal has said so
        self._hurry: asyncio.Future[None]  # and once another has
        self._is_ready = False
        self._reload_wanted = False
        self._reloading: asyncio.Task[None] | None = None

    @property
    def has_started(self) -> bool:
        """Whether the services are, or were, served."""
        return self._server is not None

    def let_signals_go(self) -> None:
        """Let signals do what they did before, once the loop is closed."""
        self._signals.let_go()

    async def live(self, serving: Awaitable[Server], drain_timeout: float | None) -> None:
        """Start, serve, and stop."""
        loop = asyncio.get_running_loop()
        self._stop, self._hurry = loop.create_future(), loop.create_future()
        self._signals.handle()  # first, for whoever can connect may also send signals
        server = await self._unless_stopped(serving, math.inf)  # its lifespans have bounds of their own
        if server is None:
            return
        async with server:
            if self._restarts:
                self._succession = self._new_succession(server, drain_timeout)
            self._server = server
            Watchdog(self._manager, hub_of(server)).begin()
            try:
                await self._serve(server)
            finally:
                self._is_ready = False
                if self._reloading is not None:
                    await _end(self._reloading, self._close_timeout)
                if self._succession is not None:
                    await self._succession.end()
                if self._predecessor is not None:
                    await self._predecessor.end()
            if self._stop.done() or self._is_relieved:
                await self._drain(server, drain_timeout)

    def _new_succession(self, server: Server, drain_timeout: float | None) -> Succession:
        hub = hub_of(server)
        if hub.listener is None:
            raise AddressError(
                f"{server.address}: restart=True takes an address where clients connect, not a socket pair"
            )
        seconds = self._limits.drain_timeout if drain_timeout is None else drain_timeout
        return Succession(hub, self._manager, self._limits, seconds, self._predecessor)

    @property
    def _is_relieved(self) -> bool:
        """Whether another process serves in the place of this one."""
        return self._succession is not None and self._succession.is_relieved

    async def _serve(self, server: Server) -> None:
        """Return when the server is to stop, or was closed."""
        where = "a socket that was passed" if server.address is None else server.address
        _log.info("= serving at %s; twin: %s", where, TOLD)
        if self._stop.done():
            server.refuse_new()
        elif self._on_start is not None:
            await self._unless_stopped(_call(self._on_start, server), self._close_timeout)
        if self._predecessor is not None and not self._stop.done():
            await self._unless_stopped(self._predecessor.relieve(hub_of(server)), self._close_timeout)
        if self._stop.done():
            return
        # What there is now stays: a full collection, in which nobody is served, would look at it for 10 ms each time.
        gc.freeze()
        self._is_ready = True
        self._manager.ready()
        self._begin_reload()
        if self._idle_timeout is not None:
            Idleness(hub_of(server), self._idle_timeout, self._leave_idle).begin()
        closed = asyncio.ensure_future(server.wait_closed())
        await _first(closed, self._stop, *([] if self._succession is None else [self._succession.done]))
        if closed.done():
            self._tell_stopping()
            closed.result()
        closed.cancel()

    async def _drain(self, server: Server, drain_timeout: float | None) -> None:
        """Drain; if another signal comes, close at once."""
        draining = asyncio.ensure_future(server.drain(drain_timeout))
        await _first(draining, self._hurry)
        draining.cancel()
        with suppress(asyncio.CancelledError):
            await draining

    async def _unless_stopped(self, work: Awaitable[T], patience: float) -> T | None:
        """Return, or raise, what comes of ``work``; if a signal comes first, cancel it, and return None."""
        task = asyncio.ensure_future(work)
        await _first(task, self._stop)
        if not task.done():
            await _end(task, patience)
        if self._stop.done() and (task.cancelled() or not task.done()):
            return None
        return task.result()

    def _stop_soon(self) -> None:
        if self._stop.done():
            if not self._hurry.done():
                self._hurry.set_result(None)
            return
        self._stop.set_result(None)
        if self._server is not None:
            self._server.refuse_new()  # not a few turns later: they may be long
        self._tell_stopping()

    def _tell_stopping(self) -> None:
        if not self._is_relieved:  # the daemon goes on, in another process
            self._manager.stopping()

    def _leave_idle(self) -> bool:
        """Stop, since nobody needs the daemon; return False if it is reloading, or being restarted."""
        if self._reloading is not None and not self._reloading.done():
            return False
        if self._succession is not None and self._succession.is_under_way:
            return False
        if self._is_ready and not self._stop.done():
            _log.info("= nobody was here for %g s: the daemon stops until somebody comes", self._idle_timeout)
            self._stop_soon()
        return True

    def _reload_soon(self) -> None:
        self._reload_wanted = True
        self._begin_reload()

    def _begin_reload(self) -> None:
        """Reload if that is wanted and possible: not before the daemon is ready, nor while it reloads."""
        if self._succession is not None:
            if self._reload_wanted and (self._is_relieved or (self._is_ready and not self._stop.done())):
                self._reload_wanted = False
                self._succession.begin_soon()
            return
        is_busy = self._reloading is not None and not self._reloading.done()
        if self._reload_wanted and self._is_ready and not self._stop.done() and not is_busy:
            self._reloading = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        """Reload as often as that is wanted."""
        assert self._on_reload is not None
        assert self._server is not None
        while self._reload_wanted:
            self._reload_wanted = False
            self._manager.reloading()
            try:
                await _call(self._on_reload, self._server)
            except Exception:
                _log.exception("! on_reload failed")
            finally:
                if not self._stop.done():
                    self._manager.ready()


async def _first(*futures: asyncio.Future[Any]) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _call(hook: Hook, server: Server) -> None:
    result = hook(server)
    if inspect.isawaitable(result):
        await result


async def _end(task: asyncio.Future[Any], patience: float) -> None:
    """Cancel a task, and wait for it, but not for ever."""
    task.cancel()
    await asyncio.wait([task], timeout=patience)
    if not task.done():
        _log.warning("= on_start or on_reload is still running %g s after it was cancelled", patience)
