"""From a request to a handler and back to an answer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import time
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
from seqrpc.services.eager import Starter
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

    __slots__ = ("handler", "policy", "spec")

    def __init__(self, service: Service, spec: MethodSpec, policy: Policy) -> None:
        """Join what is known of it."""
        self.handler = spec.function.__get__(service)
        self.spec = spec
        self.policy = policy


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

    def close(self) -> None:
        """Let the threads go; what runs in them is not waited for."""
        self.threads.close()


class _Call(CurrentCall, kw_only=True, eq=False):
    """A handler that runs, or is about to."""

    entry: Entry
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    stopped: RpcError | None = None  # what to answer if it ends by being cancelled


class Calls:
    """The calls that come in on one connection: its :class:`~seqrpc.carriers.connection.CallHandler`."""

    def __init__(self, registry: Registry) -> None:
        """Begin with no call."""
        self._registry = registry
        self._entries = registry.entries
        self._max_calls = registry.limits.max_calls_in_flight
        self._max_held_bytes = registry.limits.max_held_bytes
        self._held_bytes = 0  # of requests longer than a packet
        self._loop = asyncio.get_running_loop()
        self._starter = Starter(self._loop)
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
        if entry is None:
            self._answer_unknown(request, caller)
        elif caller is not None and entry.policy.admits(caller):
            self._start(entry, request, caller)
        else:
            self._refuse(request, "rpc.PermissionDenied", f"{request.method}: this caller is not admitted")
            _log.info("! %r refused to %r", request.method, caller)

    def _answer_unknown(self, request: Request, caller: Credentials | None) -> None:
        if request.method == "rpc.ping":
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

    def _start(self, entry: Entry, request: Request, caller: Credentials) -> None:
        """Convert the arguments and start the handler."""
        if request.spilled_bytes and 0 < self._held_bytes > self._max_held_bytes - request.spilled_bytes:
            text = f"{self._held_bytes} bytes of large requests are being worked on already (max_held_bytes)"
            self._refuse(request, "rpc.Overloaded", text)
            return
        try:
            args, kwargs = entry.spec.bind(request.params)
        except RpcError as exc:
            self._refuse(request, exc.code, exc.message)
            return
        except Exception:  # types of the application's own raise what they like while they are built
            _log.exception("! the arguments of %r could not be converted", request.method)
            self._refuse(request, "rpc.Internal", "")
            return
        deadline = request.options.deadline
        call = _Call(deadline_ns=deadline, request=request, caller=caller, connection=self._connection, entry=entry)
        key = request.call_id
        if key is None:
            if len(self._running) >= self._max_calls:
                _log.debug("! a NOTIFY of %r is dropped: %d handlers are running", request.method, len(self._running))
                close_all(request.fds)
                return
            key = self._last_notify = self._last_notify - 1
        if deadline is not None and not self._start_timer(call, deadline):
            return
        if request.fds:  # buffers, streams and channels belong to whoever holds them, not to the call
            request.fds = [fd for fd in request.fds if not isinstance(fd, ValueFd)]
        self._held_bytes += request.spilled_bytes
        self._running[key] = call
        call.task = self._starter.start(self._run(key, call, args, kwargs))

    def _start_timer(self, call: _Call, deadline: int) -> bool:
        """Bound a call by its caller's deadline; if that has passed, refuse it and return False."""
        left = deadline - time.monotonic_ns()
        if left <= 0:
            self._refuse(call.request, "rpc.DeadlineExceeded", "the deadline passed before the call began")
            return False
        call.timer = self._loop.call_later(min(left / 1e9, _LONGEST_TIMER), self._deadline_passed, call)
        return True

    async def _run(self, key: int, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the handler and answer. Nothing a handler does gets further than this."""
        scope.set(call)
        try:
            if call.entry.spec.is_coroutine:
                result = await call.entry.handler(*args, **kwargs)
            elif call.entry.spec.is_generator:
                result = self._stream_of(call, call.entry.handler(*args, **kwargs))
            else:
                result = await self._run_in_thread(call, functools.partial(call.entry.handler, *args, **kwargs))
        except asyncio.CancelledError:
            self._answer_stopped(call)
        except Exception as exc:
            self._answer_error(call, exc)
        except GeneratorExit:
            raise
        except BaseException as exc:
            self._answer_error(call, exc)
            if isinstance(exc, (KeyboardInterrupt, SystemExit)):  # these are for the loop, as in any task
                raise
        else:
            self._answer(call, result)
        finally:
            self._end(key, call)

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
        except Exception as exc:  # it cannot be sent, or a descriptor in it is closed
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

    def _end(self, key: int, call: _Call) -> None:
        """Forget a call; what of its descriptors nobody took is closed."""
        call.request.params = _NO_PARAMS  # what was started in its context, and lives on, is not to keep its arguments
        if call.request.fds:
            close_all(call.request.fds)
        self._held_bytes -= call.request.spilled_bytes
        if call.timer is not None:
            call.timer.cancel()
        if self._running.get(key) is call:  # an answered id may be in use again
            del self._running[key]
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
        self._starter.close()

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
    assert call.task is not None  # what stops a call comes in another turn of the loop than the call
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
