"""From a request to a handler and back to an answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Awaitable, Collection, Coroutine, Mapping
from contextvars import Context
from typing import Any, Final, NoReturn, Protocol

from seqrpc.aio.accounts import CALLS, DESCRIPTORS, Account
from seqrpc.aio.answers import Answers
from seqrpc.aio.connection import Connection
from seqrpc.aio.current import HandledCall
from seqrpc.aio.handlers import handle
from seqrpc.aio.lane import Lane
from seqrpc.aio.lanes import new_lane, use_dispatcher
from seqrpc.aio.link import Link
from seqrpc.aio.registry import Registry
from seqrpc.aio.running import RunningCalls
from seqrpc.aio.starting import Starter
from seqrpc.calls.failures import answer_for, internal_error, log_unsent_data, untold_error
from seqrpc.errors import DeadlineExceeded, InvalidParams, RpcError
from seqrpc.interface.conversion import Terms
from seqrpc.interface.entries import Entry, bounded_name
from seqrpc.interface.policy import Policy
from seqrpc.interface.scope import scope
from seqrpc.interface.tallies import count
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import close_all
from seqrpc.limits import LONGEST_TIMER
from seqrpc.logs import get_logger
from seqrpc.protocol.admission import Admission, Refused
from seqrpc.protocol.messages import Request
from seqrpc.text import shown

_log = get_logger("seqrpc.dispatch")

_NO_KEYWORDS: dict[str, Any] = {}

_monotonic_ns: Final = time.monotonic_ns


class Work(Awaitable[Any], Protocol):
    """What a call awaits for its result: the handler's coroutine, or what surrounds it."""

    def close(self) -> None:
        """Let go of the work if it has not begun."""
        ...


class Dispatcher:
    """Runs handlers for the requests that come in on one connection: its :class:`~seqrpc.aio.link.RequestHandler`.

    Args:
        registry: the services.
    """

    __slots__ = (
        "_account", "_answers", "_connection", "_entries", "_known", "_link", "_loop", "_max_calls", "_registry",
        "_requests", "_starter", "_surroundings", "_terms", "lane", "policies", "running", "since", "unread",
    )  # fmt: skip

    def __init__(self, registry: Registry) -> None:
        """Begin with no call."""
        self._registry = registry
        self._entries = registry.entries
        self.policies: Mapping[str, Policy] = registry.policies
        self.unread: Collection[str] = registry.unread
        self._max_calls = registry.limits.max_calls_in_flight
        self._terms = Terms(InvalidParams, registry.limits.max_other_keys)
        self._loop = asyncio.get_running_loop()
        self._starter: Starter
        self._surroundings: Context
        self._account: Account
        self._answers: Answers
        self._requests: dict[int, HandledCall | None]  # the session's table
        self.running: RunningCalls
        """What runs."""
        self._link: Link
        self._connection: Connection | None = None
        self._known: weakref.ref[Connection] | None = None
        self.lane: Lane | None = None
        """What answers the plainest calls, if something native does."""
        self.since = time.monotonic()
        """When the connection began."""

    @property
    def admission(self) -> Admission:
        """Say which requests are taken: those for existing methods whose policies admit the caller."""
        return self

    def connection_made(self, link: Link) -> None:
        """Remember the connection."""
        self._account = link.account
        self._answers = link.answers
        self._requests = link.session.requests
        self.running = RunningCalls(self._registry, self._requests, self._account)
        self._link = link
        self._surroundings = link.surroundings
        self._connection = Connection(link)
        self._starter = Starter(self._loop, link.account.uid)
        link.lane = new_lane(link)
        self.lane = link.lane if type(self) is Dispatcher else None  # interceptors hear of everything

    @property
    def connection(self) -> Connection:
        """The connection, as handlers see it."""
        connection = self._connection
        if connection is None and self._known is not None:
            connection = self._known()
        if connection is None:
            connection = Connection(self._link)
            self._known = weakref.ref(connection)
        return connection

    def give_away_connection(self) -> Connection:
        """Return the connection, to be held by its users, and by handlers while they run, but not here any more."""
        connection, self._connection = self.connection, None
        self._known = weakref.ref(connection)
        return connection

    @property
    def is_kept(self) -> bool:
        """Whether the application keeps the connection, or something that calls over it, and may use it later."""
        if not self._link.is_known:
            return False
        self.give_away_connection()
        kept = self._link.is_called_over
        self._connection = self.connection
        return kept

    def denied(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        """Return code and message of the error for a caller who may not call a method."""
        return self._registry.denied(method, caller)

    def unknown(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        """Return code and message of the error for the caller of a method that no service has."""
        return self._registry.unknown(method, caller)

    def lack_of_room(self, size: int) -> str | None:
        """Return why a request that keeps ``size`` bytes cannot be taken; None if it can."""
        return self.running.lack_of_room(size)

    def lack_of_descriptors(self) -> str | None:
        """Return why a request whose descriptors have come cannot be taken; None if it can."""
        return self._account.lack(DESCRIPTORS, 0)

    def request_refused(self, refused: Refused, caller: Credentials | None) -> None:
        """Log that a request that wanted no answer was dropped: nobody else hears of it."""
        self._registry.tallies.refuse(refused.method, refused.code, caller, oneway=refused.call_id is None)
        if refused.call_id is None:
            _log.debug("! a NOTIFY is dropped: %s: %s", refused.code, shown(refused.message))

    def request_received(self, request: Request, caller: Credentials | None) -> None:
        """Convert the arguments of a request that was admitted, and start its handler."""
        entry = self._entries[request.method]
        if entry.is_immediate:
            self._answer_at_once(request, caller, entry)
            return
        account = self._account
        held = account.held[CALLS]
        if caller is None or held >= account.most_calls or account.total[CALLS] >= account.most_calls_of_all:
            self._refuse_caller(request, caller)
            return
        connection = self._connection or self.connection  # asking the property alone would take longer
        call = HandledCall(
            request=request,
            caller=caller,
            connection=connection,
            dispatcher=self,
            entry=entry,
            began=_monotonic_ns(),
        )
        if not request.is_plain and not self._prepare(call):
            return
        params, spec = request.params, entry.spec
        try:
            args: list[Any] | tuple[Any, ...]
            if type(params) is list and (spec.exact == [*map(type, params)] or len(params) == spec.untyped):
                args, kwargs = params, _NO_KEYWORDS  # there is nothing to convert
            else:
                args, kwargs = spec.bind(params, self._terms)
            coroutine: Coroutine[Any, Any, Any]
            if entry.is_native:
                coroutine = entry.handler(*args, **kwargs)
            else:
                coroutine = handle(call, args, kwargs, account, self._answers)
        except BaseException as exc:  # of the application's own types, too, as of handlers
            self._refuse_params(request, caller, exc)
            return
        if request.is_plain:
            self._requests[request.call_id] = call  # type: ignore[index] # a plain request has an id
            account.held[CALLS] += 1  # as book does
            account.total[CALLS] += 1
        else:
            self.running.add(call)
        call.coroutine = coroutine
        context = self._surroundings.copy()
        context.run(scope.set, call)
        running = self._run(call, coroutine)
        try:
            self._starter.start(context, call, running)
        except BaseException as exc:  # a task factory may raise what it likes
            self._not_started(call, coroutine, running, exc)
            return
        if call.deadline_ns is not None and call.task is not None:
            delay = min((call.deadline_ns - time.monotonic_ns()) / 1e9, LONGEST_TIMER)
            call.timer = self._link.alarms.set(delay, self._deadline_passed, call)

    def _refuse_caller(self, request: Request, caller: Credentials | None) -> None:
        """Refuse the request of a caller whom nobody knows, or whose user has too many calls under way."""
        if caller is None:  # whatever a policy says, handlers must know who calls
            self._refuse(request, caller, *self.denied(request.method, caller))
        else:
            self._refuse(request, caller, "rpc.Overloaded", self._account.lack(CALLS) or "too many calls run already")

    def _not_started(
        self,
        call: HandledCall,
        coroutine: Coroutine[Any, Any, Any],
        running: Coroutine[Any, Any, None],
        exc: BaseException,
    ) -> None:
        """Answer a call whose task could not be made."""
        if call.has_begun:  # the factory keeps its task, and that answers
            _log.exception("! the task factory of %r failed after its handler began", call.request.method)
        else:
            running.close()
            coroutine.close()
            self._answer_error(call, exc)
            self.running.end(call)
        self._pass_on(exc)

    def _answer_at_once(self, request: Request, caller: Credentials | None, entry: Entry) -> None:
        """Answer a request for a built-in method."""
        close_all(request.fds)
        entry.latency[0] += 1
        if self.running.is_attended and (watching := self._registry.tallies.watching) is not None:
            watching.ended_unrun(request.method, None, caller, oneway=request.call_id is None)
        if request.call_id is not None:
            self._answers.send_result(request.call_id, entry.handler())

    def _refuse(self, request: Request, caller: Credentials | None, code: str, message: str) -> None:
        """Answer a request whose handler does not run."""
        close_all(request.fds)
        self._registry.tallies.refuse(request.method, code, caller, oneway=request.call_id is None)
        if request.call_id is not None:
            self._answers.send_error(request.call_id, code, message)
        else:  # nobody else hears of it
            _log.debug("! a NOTIFY of %r is dropped: %s: %s", bounded_name(request.method), code, shown(message))

    def _prepare(self, call: HandledCall) -> bool:
        """Check what a call has besides a method and arguments; refuse it and return False if it may not go on.

        A caller who is admitted is told why; nothing of the request has been converted.
        """
        request, deadline = call.request, call.request.options.deadline
        if deadline is not None and deadline <= time.monotonic_ns():
            self._refuse(request, call.caller, "rpc.DeadlineExceeded", "the deadline passed before the call began")
            return False
        call.deadline_ns = deadline
        if request.call_id is None and self.running.number >= self._max_calls:
            self._refuse(request, call.caller, "rpc.Overloaded", f"{self.running.number} handlers are running")
            return False
        return True

    def _refuse_params(self, request: Request, caller: Credentials, exc: BaseException) -> None:
        method, withheld = request.method, self._entries[request.method].spec.is_sensitive
        try:
            if isinstance(exc, RpcError):
                code, message = str(exc.code), str(exc.message)
            else:  # the application's own types may raise anything while they are built
                what = "failed: its arguments could not be converted, or not be taken"
                code, message = internal_error(exc, method, what, withheld=withheld)
        except BaseException as another:  # as where the error of a handler is told
            code, message = untold_error(another, method, withheld=withheld)
            self._pass_on(another)
        self._refuse(request, caller, code, message)
        self._pass_on(exc)

    async def _run(self, call: HandledCall, work: Work) -> None:
        """Run a handler, answer, and end the call. Nothing the handler does gets further than this."""
        call.has_begun = True
        try:
            call.coroutine = None
            if call.is_paced:
                if call.task is not None:
                    call.task.remove_done_callback(call)
                pace = self._starter.pace
                pace.started -= 1
                if (pace.started or pace.waiting or pace.turn_ends) and pace.must_wait():
                    await self._starter.wait()
            result = await work
        except BaseException as exc:
            self._failed(call, work, exc)
        else:
            try:
                lenders = self._answers.send_result(call.request.call_id, result, call.entry.result_check)
            except BaseException as exc:  # the result does not fit, or cannot be sent
                self._unsent(call, result, exc)
            else:
                if lenders:
                    call.deadline_ns = None  # the deadline was for the call; a stream in its result lives on
        finally:
            self.running.end(call)

    def _succeeded(self, call: HandledCall, result: Any) -> None:
        """Answer with what a handler returned to something native, which does not answer with it, and end the call."""
        call.is_paced = False  # it has begun
        with contextlib.suppress(StopIteration):
            self._run(call, _returned(result)).send(None)

    def _unsent(self, call: HandledCall, result: Any, exc: BaseException) -> None:
        """Answer for a result that could not be sent because of ``exc``."""
        try:
            self._answers.give_up(result)
        finally:
            self._answer_error(call, exc)
            self._pass_on(exc)

    def _failed(self, call: HandledCall, work: Work, exc: BaseException) -> None:
        """Answer for a handler that raised, or was stopped.

        Raises:
            GeneratorExit: the loop has ended: nobody waits for an answer.
        """
        kind = type(exc)  # its own attributes may raise, also that which isinstance() asks for
        if issubclass(kind, asyncio.CancelledError):
            work.close()  # in case its turn had not come
            self._answer_stopped(call)
        elif issubclass(kind, GeneratorExit) and not self._runs(call):
            work.close()
            raise exc
        else:
            self._answer_error(call, exc)
            self._pass_on(exc)

    def _pass_on(self, exc: BaseException) -> None:
        """Let the loop raise what is for it, as of any task."""
        if issubclass(type(exc), (KeyboardInterrupt, SystemExit)):
            self._loop.call_soon(_raise, exc)

    def _runs(self, call: HandledCall) -> bool:
        """Return whether the handler is still run by its loop, rather than being thrown away."""
        try:
            task = asyncio.current_task(self._loop)
        except RuntimeError:  # no loop runs here
            return False
        return task is not None and call.task in (None, task)

    def end_unbegun(self, call: HandledCall) -> None:
        """Answer a call whose task was cancelled before its first step."""
        coroutine, call.coroutine = call.coroutine, None
        if coroutine is not None:
            self._starter.never_begun()
            coroutine.close()
            self._answer_stopped(call)
            self.running.end(call)

    def _answer_error(self, call: HandledCall, exc: BaseException) -> None:
        """Answer with an error that was meant to cross, or with rpc.Internal and a traceback in the log here."""
        method, withheld = call.request.method, call.entry.spec.is_sensitive
        try:
            self._send_error(call, *answer_for(exc, method, withheld=withheld))
        except BaseException as another:  # exceptions, too, may raise what they like while they are looked at
            self._send_error(call, *untold_error(another, method, withheld=withheld))
            self._pass_on(another)

    def _answer_stopped(self, call: HandledCall) -> None:
        """Answer for a handler that was cancelled."""
        error = call.stopped
        if error is None:
            self._send_error(call, "rpc.Cancelled", "the work was cancelled")
        else:
            self._send_error(call, error.code, error.message)

    def _send_error(self, call: HandledCall, code: str, message: str, data: Any = None) -> None:
        """Answer with an error, if an answer is wanted."""
        count(call.entry.tally.errors, code)
        call.code = code
        call_id = call.request.call_id
        if call_id is None:
            self._answers.give_up(data)
            return
        try:
            self._answers.send_error(call_id, code, message, data)
        except BaseException as exc:  # a descriptor in ``data`` is closed, or it cannot be taken apart
            log_unsent_data(exc, call.request.method, withheld=call.entry.spec.is_sensitive)
            self._answers.give_up(data)
            self._answers.send_error(call_id, code, message)
            self._pass_on(exc)

    def cancel_received(self, call_id: int) -> None:
        """Cancel the handler of a call."""
        call = self._requests.get(call_id)
        if call is not None:
            call.stop()

    def _deadline_passed(self, call: HandledCall) -> bool:
        """Stop a call in its user's turn; return whether that has still to come, so that no other alarm need wait."""
        call.stopped = DeadlineExceeded("the deadline passed while the call ran")
        return self._starter.pace.end(call.stop)

    def connection_lost(self) -> None:
        """Cancel the handlers whose answers nobody waits for any more."""
        self.running.connection_lost()


use_dispatcher(Dispatcher)


async def _returned(result: Any) -> Any:
    """Return at once what a handler has returned."""
    return result


def _raise(exc: BaseException) -> NoReturn:
    raise exc
