"""From a request to a handler and back to an answer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Container, Coroutine, Iterable
from contextvars import copy_context
from typing import Any, NoReturn

from seqrpc.aio.connection import Connection, uid_of
from seqrpc.aio.current import CurrentCall
from seqrpc.aio.failures import told, told_internal
from seqrpc.aio.link import SessionConnection
from seqrpc.aio.plain import PlainCalls
from seqrpc.aio.producers import Source
from seqrpc.aio.starting import Starter
from seqrpc.errors import DeadlineExceeded, InvalidParams, InvalidResult, RpcError
from seqrpc.interface.conversion import Terms
from seqrpc.interface.description import Runs, describe
from seqrpc.interface.policy import Policy, PolicyLike, as_policy
from seqrpc.interface.policy import default as default_policy
from seqrpc.interface.results import ResultCheck
from seqrpc.interface.scope import scope
from seqrpc.interface.service import Service
from seqrpc.interface.signature import MethodSpec, spec_of
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, ValueFd, close_all
from seqrpc.limits import DEFAULT_LIMITS, LONGEST_TIMER, Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.messages import Request
from seqrpc.text import shown

_log = get_logger("seqrpc.dispatch")


_NO_PARAMS: list[Any] = []

_LONGEST_NAME = 200  # characters of a method's name that no service has


class Entry:
    """A method of a service object, ready to be called."""

    __slots__ = ("handler", "is_native", "policy", "result_check", "spec")

    def __init__(self, service: Service, spec: MethodSpec, policy: Policy) -> None:
        """Join what is known of it."""
        self.handler = spec.function.__get__(service)
        self.spec = spec
        self.policy = policy
        # Items of streams are their readers' to check.
        checked = spec.result is not Any and spec.description.runs is not Runs.GENERATOR
        self.result_check = ResultCheck(spec.wire_name, spec.result) if checked else None
        self.is_native = bool(spec.function.__code__.co_flags & inspect.CO_COROUTINE)
        """Whether calling the handler gives a coroutine and does nothing else, as of an ``async def``."""


class Registry:
    """The services behind one address, and what they share.

    Args:
        services: objects of :class:`~seqrpc.Service`; no two with the same name.
        allow: who may call where neither class nor method says; by default :data:`seqrpc.policy.default`.
        limits: ``max_calls_in_flight`` and ``max_threads`` are used.

    Raises:
        TypeError: one is no service, or a method cannot be called from elsewhere.
        ValueError: two have the same name.
    """

    def __init__(
        self, services: Iterable[Service], allow: PolicyLike | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        """Describe the services."""
        self.policy = default_policy if allow is None else as_policy(allow)
        self.limits = limits
        self.services = tuple(services)
        self.entries: dict[str, Entry] = {}
        self._policies: dict[str, Policy] = {}
        self.threads = PlainCalls(limits)
        self._lingering: set[Calls] = set()
        self._when_quiet: list[Callable[[], object]] = []
        for service in self.services:
            if not isinstance(service, Service):
                raise TypeError(f"an object of a seqrpc.Service was expected, got {service!r}")
            spec = spec_of(type(service))
            name, policy = spec.description.name, spec.description.policy
            if name in self._policies:
                raise ValueError(f"two services are named {name!r}; give one class another name=")
            self._policies[name] = self.policy if policy is None else policy
            for method in spec.methods.values():
                allow = method.description.allow
                self.entries[method.wire_name] = Entry(
                    service, method, self._policies[name] if allow is None else allow
                )

    def answer_as_bases(self, service: Service) -> None:
        """Let a service be called by the names of the services that it is made of, too: it may be known as one."""
        name = type(service).service_name
        for base in type(service).__mro__[1:]:
            if issubclass(base, Service):
                for method in describe(type(service)).methods:
                    if hasattr(base, method):
                        self.entries.setdefault(f"{base.service_name}.{method}", self.entries[f"{name}.{method}"])

    @property
    def takes_descriptors(self) -> bool:
        """Whether an argument of any method may hold descriptors."""
        return any(entry.spec.takes_descriptors for entry in self.entries.values())

    def policy_of_unknown(self, method: str) -> Policy:
        """Return who may learn that there is no such method."""
        return self._policies.get(method.rpartition(".")[0], self.policy)

    def has_room_to_linger(self, number: int) -> bool:
        """Return whether so many calls more may run on: who connects anew leaves no more behind than others."""
        running = sum(calls.running for calls in self._lingering)
        return running + number <= self.limits.max_calls_in_flight

    def linger(self, calls: Calls, ended: asyncio.Future[None]) -> None:
        """Know of calls that run on although their connection ended, until ``ended`` is done."""
        self._lingering.add(calls)
        ended.add_done_callback(lambda _ended: self._left(calls))

    def _left(self, calls: Calls) -> None:
        self._lingering.discard(calls)
        if not self._lingering:
            waiting, self._when_quiet = self._when_quiet, []
            for function in waiting:
                function()

    def when_quiet(self, function: Callable[[], object]) -> None:
        """Call a function once no calls run on whose connections ended, which may be now."""
        if self._lingering:
            self._when_quiet.append(function)
        else:
            function()

    async def wait_quiet(self, spared: Container[object] = ()) -> None:
        """Wait until no calls but those in ``spared`` run on whose connections ended."""
        waited: set[Calls] = set()
        while new := self._lingering - waited:
            waited |= new
            for calls in new:
                await calls.wait_idle(spared)

    def stop_lingering(self) -> None:
        """Cancel the calls that run on although their connections ended."""
        for calls in self._lingering:
            calls.stop_oneway()

    def close(self) -> None:
        """Let the threads go; what runs in them is not waited for."""
        self.threads.close()


class _Call(CurrentCall, kw_only=True, eq=False):
    """A handler that runs, or is about to."""

    calls: Calls
    entry: Entry
    key: Any  # by which it is known while it runs: the request's id, or a negative number
    is_paced: bool = False
    has_begun: bool = False
    coroutine: Coroutine[Any, Any, Any] | None = None  # that never began, if its task ends so
    timer: asyncio.TimerHandle | None = None
    stopped: RpcError | None = None  # what to answer if it ends by being cancelled

    def __call__(self, _task: object) -> None:
        """Hear that its task has ended; while it has not begun that is watched."""
        self.calls.end_unbegun(self)


class Calls:
    """The calls that come in on one connection: its :class:`~seqrpc.aio.link.CallHandler`."""

    __slots__ = (
        "_connection", "_entries", "_held_bytes", "_idle", "_last_notify", "_lingering", "_loop", "_max_calls",
        "_max_held_bytes",        "_registry", "_running", "_starter", "_terms",
    )  # fmt: skip

    def __init__(self, registry: Registry) -> None:
        """Begin with no call."""
        self._registry = registry
        self._entries = registry.entries
        self._max_calls = registry.limits.max_calls_in_flight
        self._max_held_bytes = registry.limits.max_held_bytes
        self._terms = Terms(InvalidParams, registry.limits.max_other_keys)
        self._held_bytes = 0  # of requests longer than a packet
        self._loop = asyncio.get_running_loop()
        self._starter: Starter
        self._running: dict[int, _Call] = {}  # by id; those that want no answer under negative numbers
        self._last_notify = 0
        self._idle: asyncio.Future[None] | None = None  # while somebody waits for handlers to end
        self._lingering: asyncio.Future[None] | None = None  # while handlers run on although the connection ended
        self._connection: Connection

    def connection_made(self, connection: SessionConnection) -> None:
        """Remember the connection."""
        assert isinstance(connection, Connection)
        self._connection = connection
        self._starter = Starter(self._loop, uid_of(connection))

    def refusal(self, method: str, caller: Credentials | None) -> tuple[str, str] | None:
        """Return code and message of the error for a caller who may not call a method; None if it may."""
        entry = self._entries.get(method)
        if entry is None:
            return self._refusal_of_unknown(method, caller)
        return None if entry.policy.admits(caller) else _refusal_of_caller(method, caller)

    def _refusal_of_unknown(self, method: str, caller: Credentials | None) -> tuple[str, str] | None:
        if method == "rpc.ping":
            return None
        # The names under "rpc." are the protocol's, and nobody's secret.
        if method.startswith("rpc.") or self._registry.policy_of_unknown(method).admits(caller):
            return "rpc.MethodNotFound", f"there is no method {_shown(method)!r}"
        return "rpc.PermissionDenied", f"{_shown(method)}: this caller is not admitted"

    def lack_of_room(self, size: int) -> str | None:
        """Return why a request cannot be taken that keeps so many bytes; None if it can."""
        if 0 < self._held_bytes > self._max_held_bytes - size:
            return f"{self._held_bytes} bytes of large requests are being worked on already (max_held_bytes)"
        return None

    def request_received(self, request: Request, caller: Credentials | None) -> None:
        """Find the method, ask its policy, convert the arguments, and start the handler: in this order."""
        entry = self._entries.get(request.method)
        if entry is None:
            self._answer_without_handler(request, caller)
            return
        if caller is None or not (request.is_admitted or entry.policy.admits(caller)):
            self._refuse(request, *_refusal_of_caller(request.method, caller))
            return
        call = _Call(
            request=request, caller=caller, connection=self._connection, calls=self, entry=entry, key=request.call_id
        )
        if not request.is_plain and not self._prepare(call):
            return
        try:
            args, kwargs = entry.spec.bind(request.params, self._terms)
            coroutine: Coroutine[Any, Any, Any]
            coroutine = entry.handler(*args, **kwargs) if entry.is_native else self._handle(call, args, kwargs)
        except Exception as exc:
            self._refuse_params(request, exc)
            return
        if not request.is_plain:
            self._keep(call)
        self._running[call.key] = call
        self._start(call, coroutine)

    def _start(self, call: _Call, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Start a handler; from here on it is :meth:`_run` that answers and ends the call, however it goes."""
        context = copy_context()
        context.run(scope.set, call)
        running = self._run(call, coroutine)
        try:
            task = self._starter.start(context, call, running)
        except Exception as exc:  # a task factory may raise what it likes
            if call.has_begun:  # its task is the factory's to keep, and answers
                _log.exception("! the task factory of %r failed after its handler began", call.request.method)
                return
            running.close()
            coroutine.close()
            self._answer_error(call, exc)
            self._end(call)
            return
        if task.done() and call.has_begun:
            return
        call.task = task
        if not call.has_begun:
            call.coroutine = coroutine
            task.add_done_callback(call)
        if call.deadline_ns is not None:
            delay = min((call.deadline_ns - time.monotonic_ns()) / 1e9, LONGEST_TIMER)
            call.timer = self._loop.call_later(delay, self._deadline_passed, call)

    def _answer_without_handler(self, request: Request, caller: Credentials | None) -> None:
        """Answer a request of a method that no service has."""
        refusal = self._refusal_of_unknown(request.method, caller)
        if refusal is not None:
            self._refuse(request, *refusal)
            return
        close_all(request.fds)  # of rpc.ping, which answers everybody
        if request.call_id is not None:
            self._connection.send_result(request.call_id, None)

    def _refuse(self, request: Request, code: str, message: str) -> None:
        close_all(request.fds)
        if request.call_id is not None:
            self._connection.send_error(request.call_id, code, message)
        else:  # nobody else hears of it
            _log.debug("! a NOTIFY of %r is dropped: %s: %s", _shown(request.method), code, shown(message))

    def _prepare(self, call: _Call) -> bool:
        """Look at what a call has besides a method and arguments; return whether it may go on, else it is refused.

        Whoever is admitted is told why; nothing of the request has been converted.
        """
        request, deadline = call.request, call.request.options.deadline
        if deadline is not None and deadline <= time.monotonic_ns():
            self._refuse(request, "rpc.DeadlineExceeded", "the deadline passed before the call began")
            return False
        call.deadline_ns = deadline
        if request.call_id is None:
            if len(self._running) >= self._max_calls:
                _log.debug("! a NOTIFY of %r is dropped: %d handlers are running", request.method, len(self._running))
                close_all(request.fds)
                return False
            call.key = self._last_notify = self._last_notify - 1
        return True

    def _keep(self, call: _Call) -> None:
        """Count what a call holds until it ends. Buffers, streams and channels belong to whoever refers to them."""
        request = call.request
        request.fds = [fd for fd in request.fds if not isinstance(fd, ValueFd)]
        self._held_bytes += request.held_bytes

    def _refuse_params(self, request: Request, exc: Exception) -> None:
        if isinstance(exc, RpcError):
            self._refuse(request, exc.code, exc.message)
        else:  # types of the application's own raise what they like while they are built
            what = "failed: its arguments could not be converted, or not be taken"
            self._refuse(request, *told_internal(exc, request.method, what))

    async def _handle(self, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a handler of another kind."""
        handler, spec = call.entry.handler, call.entry.spec
        if spec.description.runs is Runs.COROUTINE:
            return await handler(*args, **kwargs)
        if spec.description.runs is Runs.GENERATOR:
            return self._stream_of(call, handler(*args, **kwargs))
        return await self._run_in_thread(call, functools.partial(handler, *args, **kwargs))

    async def _run(self, call: _Call, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a handler, and answer. Nothing it does gets further than this."""
        call.has_begun = True
        try:
            if call.is_paced:
                if call.coroutine is not None and call.task is not None:
                    call.coroutine = None
                    call.task.remove_done_callback(call)
                if self._starter.must_wait():
                    await self._starter.wait()
            result = await coroutine
        except asyncio.CancelledError:
            coroutine.close()  # if it was not its turn yet
            self._answer_stopped(call)
        except Exception as exc:
            self._answer_error(call, exc)
        except BaseException as exc:
            if isinstance(exc, GeneratorExit) and not self._runs(
                call
            ):  # the loop has ended: nobody waits for an answer
                coroutine.close()
                raise
            self._answer_error(call, exc)
            if isinstance(exc, (KeyboardInterrupt, SystemExit)):  # these are for the loop, as in any task
                self._loop.call_soon(_raise, exc)
        else:
            self._answer(call, result)
        finally:
            self._end(call)

    def _runs(self, call: _Call) -> bool:
        """Return whether a handler is running now, and not being thrown away."""
        try:
            task = asyncio.current_task(self._loop)
        except RuntimeError:  # no loop runs here
            return False
        return task is not None and call.task in (None, task)

    def end_unbegun(self, call: _Call) -> None:
        """Answer a call whose task was cancelled before its first step."""
        coroutine, call.coroutine = call.coroutine, None
        if coroutine is not None:
            self._starter.never_begun()
            coroutine.close()
            self._answer_stopped(call)
            self._end(call)

    @staticmethod
    def _stream_of(call: _Call, generator: AsyncIterator[Any]) -> Source:
        """Return what the answer's stream is made of. It outlives the call, with the descriptors that came with it."""
        fds, call.request.fds = call.request.fds, []
        call.deadline_ns = None  # that was for the call; of a stream the reader takes as much as it likes
        return Source(generator, call.method, fds)

    async def _run_in_thread(self, call: _Call, function: Callable[[], Any]) -> Any:
        """Run a plain function. A thread cannot be stopped: descriptors it was given live as long as it runs."""
        running = self._registry.threads.submit(functools.partial(copy_context().run, _run_plain, function))
        try:
            return await asyncio.wrap_future(running, loop=self._loop)
        except asyncio.CancelledError:
            self._registry.threads.discard(running)
            fds, call.request.fds = call.request.fds, []
            running.add_done_callback(functools.partial(_clean_up_after_thread, self._connection, fds))
            raise

    def _answer(self, call: _Call, result: Any) -> None:
        """Send a result and close the descriptors in it: a handler gives away what it returns."""
        call_id = call.request.call_id
        if call_id is None:
            self._connection.give_up(result)
            return
        check = call.entry.result_check
        if check is not None and type(result) is not check.exact:
            try:
                check.check(result)
            except InvalidResult as exc:
                self._connection.give_up(result)
                self._answer_error(call, exc)
                return
        try:
            lenders = self._connection.send_result(call_id, result)
        except (Exception, asyncio.CancelledError) as exc:  # it cannot be sent, or a descriptor in it is closed
            self._connection.give_up(result)
            self._answer_error(call, exc)
        else:
            if lenders:
                call.deadline_ns = None  # that was for the call; a stream in its result lives on
            for lender in lenders:
                if isinstance(lender, OwnedFd):
                    lender.close()

    def _answer_error(self, call: _Call, exc: BaseException) -> None:
        """Answer with an error that was meant to cross, or with rpc.Internal and a traceback in the log here."""
        method, call_id = call.request.method, call.request.call_id
        code, message, data = told(exc, method)
        if call_id is None:
            self._connection.give_up(data)
            return
        try:
            self._connection.send_error(call_id, code, message, data)
        except Exception:  # a descriptor in it is closed
            _log.exception("! %r: the data of its error cannot be sent", method)
            self._connection.give_up(data)
            self._connection.send_error(call_id, code, message)

    def _answer_stopped(self, call: _Call) -> None:
        call_id = call.request.call_id
        if call_id is not None:
            error = call.stopped
            code, message = (
                ("rpc.Cancelled", "the work was cancelled") if error is None else (error.code, error.message)
            )
            self._connection.send_error(call_id, code, message)

    def _end(self, call: _Call) -> None:
        """Forget a call; what of its descriptors nobody took is closed."""
        request = call.request
        call.task = None  # its context refers to the call
        request.params = _NO_PARAMS  # what was started in its context, and lives on, is not to keep its arguments
        if not request.is_plain:
            close_all(request.fds)
            self._held_bytes -= request.held_bytes
            if call.timer is not None:
                call.timer.cancel()
        del self._running[call.key]
        if self._idle is not None:
            self.look_again()
        if self._lingering is not None and not self._running and not self._lingering.done():
            self._lingering.set_result(None)

    def cancel_received(self, call_id: int) -> None:
        """Cancel the handler of a call."""
        call = self._running.get(call_id)
        if call is not None:
            _stop(call)

    def _deadline_passed(self, call: _Call) -> None:
        call.stopped = DeadlineExceeded("the deadline passed while the call ran")
        _stop(call)

    def connection_lost(self) -> None:
        """Cancel the handlers whose answers nobody waits for any more.

        For those of one-way calls nobody ever did: they run on, and are cancelled after ``close_timeout``. Of all
        connections that ended, together no more than ``max_calls_in_flight``.
        """
        calls = list(self._running.values())
        for call in calls:
            if call.request.call_id is not None:
                _stop(call)
        oneway = sum(call.request.call_id is None for call in calls)
        if oneway and not self._registry.has_room_to_linger(oneway):
            self.stop_oneway()
        elif oneway:
            stopping = self._loop.call_later(self._registry.limits.close_timeout, self.stop_oneway)
            self._lingering = self._loop.create_future()
            self._lingering.add_done_callback(lambda _ended: stopping.cancel())
            self._registry.linger(self, self._lingering)

    def stop_oneway(self) -> None:
        """Cancel the handlers of one-way calls; the others were when the connection ended."""
        for call in list(self._running.values()):
            if call.request.call_id is None:
                _stop(call)

    def stop_others(self, spared: CurrentCall) -> None:
        """Cancel all handlers but that of ``spared``."""
        for call in list(self._running.values()):
            if call is not spared:
                _stop(call)

    @property
    def running(self) -> int:
        """How many handlers run."""
        return len(self._running)

    @property
    def idle(self) -> bool:
        """True while no handler runs."""
        return not self._running

    async def wait_idle(self, spared: Container[object] = ()) -> None:
        """Wait until no handler runs but those of the calls in ``spared``.

        Cancel: the handlers run on.
        """
        while not all(call in spared for call in self._running.values()):
            if self._idle is None or self._idle.done():
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)

    def look_again(self) -> None:
        """Let :meth:`wait_idle` see what has changed: a handler has ended, or is spared from now on."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)


def _raise(exc: BaseException) -> NoReturn:
    raise exc


def _refusal_of_caller(method: str, caller: Credentials | None) -> tuple[str, str]:
    _log.info("! %r refused to %r", method, caller)
    return "rpc.PermissionDenied", f"{method}: this caller is not admitted"


def _shown(method: str) -> str:
    """Return the name of a method that a caller made up, for an error's text."""
    return method if len(method) <= _LONGEST_NAME else f"{method[:_LONGEST_NAME]}…"


def _stop(call: _Call) -> None:
    if call.task is not None:  # else it is in its first step, which nothing stops
        call.task.cancel()


def _run_plain(function: Callable[[], Any]) -> Any:
    """Call a plain function in its thread.

    What is not to end more than its call becomes RuntimeError: StopIteration, which no future can hold,
    and what would stop the loop, such as SystemExit.
    """
    try:
        return function()
    except BaseException as exc:
        if isinstance(exc, Exception) and not isinstance(exc, StopIteration):
            raise
        raise RuntimeError(f"a handler raised {type(exc).__name__}") from exc


def _clean_up_after_thread(
    connection: Connection, fds: list[OwnedFd], finished: concurrent.futures.Future[Any]
) -> None:
    """Close what a thread was given, and what it returned or raised, once it ends after its call did."""
    close_all(fds)
    if finished.cancelled():
        return
    exc = finished.exception()
    if exc is None:
        connection.give_up(finished.result())
    elif isinstance(exc, RpcError):
        connection.give_up(getattr(exc, "data", None))
