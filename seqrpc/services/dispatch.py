"""From a request to a handler and back to an answer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import logging
import time
import types
from collections.abc import AsyncIterator, Callable, Iterable
from contextvars import copy_context
from typing import Any

from seqrpc.carriers.connection import SessionConnection
from seqrpc.carriers.failures import told
from seqrpc.carriers.producers import Source
from seqrpc.errors import DeadlineExceeded, RpcError
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, ValueFd, close_all
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.messages import Request
from seqrpc.protocol.values import descriptors_in
from seqrpc.services.context import scope
from seqrpc.services.current import CurrentCall
from seqrpc.services.eager import ENDED, Runner, Starter
from seqrpc.services.peer import Connection
from seqrpc.services.policy import Policy, PolicyLike, as_policy
from seqrpc.services.policy import default as default_policy
from seqrpc.services.service import Service
from seqrpc.services.signature import MethodSpec, describe
from seqrpc.services.threads import Threads

_log = logging.getLogger("seqrpc.dispatch")

_LONGEST_TIMER = 30 * 24 * 3600.0  # seconds; timers of event loops overflow somewhere above


_NO_PARAMS: list[Any] = []


class Entry:
    """A method of a service object, ready to be called."""

    __slots__ = ("exact", "handler", "policy", "spec")

    def __init__(self, service: Service, spec: MethodSpec, policy: Policy) -> None:
        """Join what is known of it."""
        self.handler = spec.function.__get__(service)
        self.spec = spec
        self.policy = policy
        # Calling an ``async def`` gives a coroutine and does nothing else.
        is_native = spec.function.__code__.co_flags & inspect.CO_COROUTINE
        self.exact = spec.exact if is_native else None
        """The types of arguments with which the handler can be called as they came; None if there are none such."""


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
        self.entries: dict[str, Entry] = {}
        self._policies: dict[str, Policy] = {}
        self.threads = Threads(limits.max_threads)
        self._starter: Starter | None = None
        for service in services:
            if not isinstance(service, Service):
                raise TypeError(f"an object of a seqrpc.Service was expected, got {service!r}")
            spec = describe(type(service))
            if spec.name in self._policies:
                raise ValueError(f"two services are named {spec.name!r}; give one class another name=")
            self._policies[spec.name] = spec.policy or self.policy
            for method in spec.methods.values():
                policy = method.allow or self._policies[spec.name]
                self.entries[method.wire_name] = Entry(service, method, policy)

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

    def starter(self, loop: asyncio.AbstractEventLoop) -> Starter:
        """Return what starts handlers: one for all connections, so that there is one spare task and not many."""
        if self._starter is None:
            self._starter = Starter(loop, Calls.run_handlers)
        return self._starter

    def close(self) -> None:
        """Let the threads and the spare task go; what runs in them is not waited for."""
        self.threads.close()
        if self._starter is not None:
            self._starter.close()


class _Call(CurrentCall, kw_only=True, eq=False):
    """A handler that runs, or is about to."""

    calls: Calls
    entry: Entry
    key: Any  # by which it is known while it runs: the request's id, or a negative number
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    stopped: RpcError | None = None  # what to answer if it ends by being cancelled


class Calls:
    """The calls that come in on one connection: its :class:`~seqrpc.carriers.connection.CallHandler`."""

    __slots__ = (
        "_connection", "_entries", "_held_bytes", "_idle", "_last_notify", "_loop", "_max_calls", "_max_held_bytes",
        "_registry", "_running", "_starter",
    )  # fmt: skip

    def __init__(self, registry: Registry) -> None:
        """Begin with no call."""
        self._registry = registry
        self._entries = registry.entries
        self._max_calls = registry.limits.max_calls_in_flight
        self._max_held_bytes = registry.limits.max_held_bytes
        self._held_bytes = 0  # of requests longer than a packet
        self._loop = asyncio.get_running_loop()
        self._starter = registry.starter(self._loop)
        self._running: dict[int, _Call] = {}  # by id; those that want no answer under negative numbers
        self._last_notify = 0
        self._idle: asyncio.Future[None] | None = None
        self._connection: Connection

    def connection_made(self, connection: SessionConnection) -> None:
        """Remember the connection."""
        assert isinstance(connection, Connection)
        self._connection = connection

    def admits(self, method: str, caller: Credentials | None) -> bool:
        """Return whether a caller may call a method, or hear that there is none."""
        entry = self._entries.get(method)
        policy = self._registry.policy_of_unknown(method) if entry is None else entry.policy
        return method == "rpc.ping" or policy.admits(caller)

    def request_received(self, request: Request, caller: Credentials | None) -> None:
        """Find the method, ask its policy, convert the arguments, and start the handler: in this order."""
        entry = self._entries.get(request.method)
        if entry is None or caller is None or not entry.policy.admits(caller):
            self._refuse_caller(entry, request, caller)
            return
        call = _Call(
            request=request, caller=caller, connection=self._connection, calls=self, entry=entry, key=request.call_id
        )
        if not request.is_plain and not self._prepare(call):
            return
        params = request.params
        try:
            if entry.exact == [*map(type, params)] and type(params) is list:  # nothing to convert
                coroutine = entry.handler(*params)
            else:
                args, kwargs = entry.spec.bind(params)
                coroutine = self._handle(call, args, kwargs)
        except Exception as exc:
            self._refuse_params(request, exc)
            return
        if not request.is_plain:
            self._keep(call)
        self._running[call.key] = call
        context = copy_context()
        context.run(scope.set, call)
        task = self._starter.start(context, call, coroutine)
        if task is not None:
            call.task = task
            if call.deadline_ns is not None:
                delay = min((call.deadline_ns - time.monotonic_ns()) / 1e9, _LONGEST_TIMER)
                call.timer = self._loop.call_later(delay, self._deadline_passed, call)

    def _refuse_caller(self, entry: Entry | None, request: Request, caller: Credentials | None) -> None:
        """Answer a request that no handler gets."""
        if entry is not None:
            self._refuse(request, "rpc.PermissionDenied", f"{request.method}: this caller is not admitted")
            _log.info("! %r refused to %r", request.method, caller)
        elif request.method == "rpc.ping":
            if request.call_id is not None:
                self._connection.send_result(request.call_id, None)
            close_all(request.fds)
        elif self._registry.policy_of_unknown(request.method).admits(caller):
            self._refuse(request, "rpc.MethodNotFound", f"there is no method {request.method!r}")
        else:
            self._refuse(request, "rpc.PermissionDenied", f"{request.method}: this caller is not admitted")

    def _refuse(self, request: Request, code: str, message: str) -> None:
        close_all(request.fds)
        if request.call_id is not None:
            self._connection.send_error(request.call_id, code, message)

    def _prepare(self, call: _Call) -> bool:
        """Look at what a call has besides a method and arguments; return whether it may go on, else it is refused.

        Whoever is admitted is told why; nothing of the request has been converted.
        """
        request, deadline = call.request, call.request.options.deadline
        if request.spilled_bytes and 0 < self._held_bytes > self._max_held_bytes - request.spilled_bytes:
            text = f"{self._held_bytes} bytes of large requests are being worked on already (max_held_bytes)"
            self._refuse(request, "rpc.Overloaded", text)
            return False
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
        self._held_bytes += request.spilled_bytes

    def _refuse_params(self, request: Request, exc: Exception) -> None:
        if isinstance(exc, RpcError):
            self._refuse(request, exc.code, exc.message)
        else:  # types of the application's own raise what they like while they are built
            _log.error("! the arguments of %r could not be converted, or not be taken", request.method, exc_info=exc)
            self._refuse(request, "rpc.Internal", "")

    async def _handle(self, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a handler of any kind."""
        handler, spec = call.entry.handler, call.entry.spec
        if spec.is_coroutine:
            return await handler(*args, **kwargs)
        if spec.is_generator:
            return self._stream_of(call, handler(*args, **kwargs))
        return await self._run_in_thread(call, functools.partial(handler, *args, **kwargs))

    @staticmethod
    @types.coroutine
    def run_handlers() -> Runner:
        """Run handlers of any connection, one after the other, and answer.

        Nothing a handler does gets further than this.
        """
        while True:
            call, coroutine = yield ENDED
            calls: Calls = call.calls
            try:
                try:
                    result = yield from coroutine
                except asyncio.CancelledError:
                    calls._answer_stopped(call)
                except Exception as exc:
                    calls._answer_error(call, exc)
                except GeneratorExit:  # the loop has ended: nobody waits for an answer
                    raise
                except BaseException as exc:
                    calls._answer_error(call, exc)
                    if isinstance(exc, (KeyboardInterrupt, SystemExit)):  # these are for the loop, as in any task
                        raise
                else:
                    calls._answer(call, result)
                    del result
            finally:
                calls._end(call)
            del call, calls, coroutine

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
            running.add_done_callback(functools.partial(_clean_up_after_thread, fds))
            raise

    def _answer(self, call: _Call, result: Any) -> None:
        """Send a result and close the descriptors in it: a handler gives away what it returns."""
        call_id = call.request.call_id
        if call_id is None:
            _let_go(result)
            return
        try:
            lenders = self._connection.send_result(call_id, result)
        except (Exception, asyncio.CancelledError) as exc:  # it cannot be sent, or a descriptor in it is closed
            _let_go(result)
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
        if call_id is not None:
            try:
                self._connection.send_error(call_id, code, message, data)
            except Exception:  # a descriptor in it is closed
                _log.exception("! %r: the data of its error cannot be sent", method)
                self._connection.send_error(call_id, code, message)
        close_all(descriptors_in(data))

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
        request.params = _NO_PARAMS  # what was started in its context, and lives on, is not to keep its arguments
        if not request.is_plain:
            close_all(request.fds)
            self._held_bytes -= request.spilled_bytes
            if call.timer is not None:
                call.timer.cancel()
        del self._running[call.key]
        if self._idle is not None and not self._running and not self._idle.done():
            self._idle.set_result(None)

    def cancel_received(self, call_id: int) -> None:
        """Cancel the handler of a call."""
        call = self._running.get(call_id)
        if call is not None:
            _stop(call)

    def _deadline_passed(self, call: _Call) -> None:
        call.stopped = DeadlineExceeded("the deadline passed while the call ran")
        _stop(call)

    def connection_lost(self) -> None:
        """Cancel all handlers: nobody waits for their answers."""
        for call in list(self._running.values()):
            _stop(call)

    def stop_others(self, spared: CurrentCall) -> None:
        """Cancel all handlers but that of ``spared``."""
        for call in list(self._running.values()):
            if call is not spared:
                _stop(call)

    @property
    def idle(self) -> bool:
        """True while no handler runs."""
        return not self._running

    async def wait_idle(self) -> None:
        """Wait until no handler runs.

        Cancel: the handlers run on.
        """
        if self._running:
            if self._idle is None or self._idle.done():
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)


def _let_go(result: Any) -> None:
    """Close the descriptors of a result that nobody gets."""
    close_all(result.fds if isinstance(result, Source) else descriptors_in(result))


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


def _clean_up_after_thread(fds: list[OwnedFd], finished: concurrent.futures.Future[Any]) -> None:
    """Close what a thread was given, and what it returned or raised, once it ends after its call did."""
    close_all(fds)
    if finished.cancelled():
        return
    exc = finished.exception()
    if exc is None:
        close_all(descriptors_in(finished.result()))
    elif isinstance(exc, RpcError):
        close_all(descriptors_in(getattr(exc, "data", None)))
