"""From a request to a handler and back to an answer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import time
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Any

from seqrpc.carriers.connection import SessionConnection
from seqrpc.errors import DeadlineExceeded, RpcError, TooLarge
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.messages import Request
from seqrpc.services.context import scope
from seqrpc.services.conversion import descriptors_in
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
            close_all(descriptors_in(result))
            return
        try:
            lenders = self._connection.send_result(call_id, result)
        except TooLarge as exc:
            self._connection.send_error(call_id, exc.code, exc.message)
            close_all(descriptors_in(result))
        except Exception as exc:  # it cannot be sent, or a descriptor in it is closed
            close_all(descriptors_in(result))
            self._answer_error(call, exc)
        else:
            for lender in lenders:
                if isinstance(lender, OwnedFd):
                    lender.close()

    def _answer_error(self, call: _Call, exc: BaseException) -> None:
        """Answer with an error that was meant to cross, or with rpc.Internal and a traceback in the log here."""
        method, call_id = call.request.method, call.request.call_id
        code, message, data = "rpc.Internal", "", None
        if isinstance(exc, RpcError) and not (exc.remote and exc.code.startswith("rpc.")):
            # A subclass may have called no __init__, and anything may have been given as the message.
            code, message, data = exc.code, str(getattr(exc, "message", "")), getattr(exc, "data", None)
            _log.debug("! %r: %s: %r", method, code, message)
        else:
            _log.error("! %r failed", method, exc_info=exc)
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
        if call.request.fds:
            close_all(call.request.fds)
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

    async def wait_idle(self) -> None:
        """Wait until no handler runs.

        Cancel: the handlers run on.
        """
        if self._running:
            if self._idle is None or self._idle.done():
                self._idle = self._loop.create_future()
            await asyncio.shield(self._idle)


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
