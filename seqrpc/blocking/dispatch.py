"""From a request to a handler and back to an answer, in a thread that waits for something else."""

from __future__ import annotations

import contextlib
import inspect
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from contextvars import copy_context
from typing import Any, Final

from seqrpc.blocking.answers import Answers
from seqrpc.blocking.current import ServedCall
from seqrpc.blocking.driving import Driven, drive
from seqrpc.blocking.interceptors import NO_INTERCEPTION, Interception
from seqrpc.blocking.line import Line
from seqrpc.blocking.waiting import earlier
from seqrpc.calls.departures import Source
from seqrpc.calls.failures import answer_for, internal_error, log_unsent_data
from seqrpc.calls.records import tell_ended
from seqrpc.errors import InvalidParams, RpcError
from seqrpc.interface.conversion import Terms
from seqrpc.interface.current import answered_call, view_of
from seqrpc.interface.entries import Entry, MethodTable
from seqrpc.interface.functions import Runs, wraps_wrongly
from seqrpc.interface.policy import Policy
from seqrpc.interface.scope import scope
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import ValueFd, close_all
from seqrpc.limits import Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.admission import Admission, Refused
from seqrpc.protocol.messages import Request
from seqrpc.text import shown

_log = get_logger("seqrpc.dispatch")

MAX_NESTED_CALLS: Final = 32
"""Handlers of one thread that wait for calls of their own, during which others run: each takes some of the stack."""


class Dispatcher:
    """Runs handlers for the requests that come in on one line, each in the thread that read it, to its end.

    Args:
        table: the methods.
        limits: ``max_held_bytes`` and ``max_other_keys`` are used.
        interception: what surrounds handlers.
        view_of_line: makes the connection that handlers see.
    """

    __slots__ = (
        "_answers",
        "_held_bytes",
        "_interception",
        "_limits",
        "_line",
        "_made",
        "_table",
        "_terms",
        "_view_of_line",
        "on_lost",
        "policies",
        "running",
        "unread",
    )  # fmt: skip

    def __init__(
        self,
        table: MethodTable,
        limits: Limits,
        interception: Interception = NO_INTERCEPTION,
        view_of_line: Callable[[Line], Any] = repr,
    ) -> None:
        """Begin with no call."""
        self._table = table
        self._limits = limits
        self._interception = interception
        self._view_of_line = view_of_line
        self.policies: Mapping[str, Policy] = table.policies
        self.unread: Collection[str] = table.unread
        self._terms = Terms(InvalidParams, limits.max_other_keys)
        self._held_bytes = 0
        self.running = 0
        """How many handlers run."""
        self.on_lost: Callable[[], object] | None = None
        """Called when the line has ended, and no handler runs any more, under its lock."""
        self._line: weakref.ref[Line]
        self._made: weakref.ref[Any] | None = None
        self._answers: Answers

    @property
    def admission(self) -> Admission:
        """Say which requests are taken: those for existing methods whose policies admit the caller."""
        return self

    @property
    def serves(self) -> bool:
        """Whether there is anything to call here."""
        return bool(self._table.services)

    def line_made(self, line: Line) -> None:
        """Remember the line."""
        self._line = weakref.ref(line)

    def line_lost(self) -> None:
        """Hear that nobody waits for answers any more."""
        if not self.running:
            self._tell_lost()

    def _tell_lost(self) -> None:
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def denied(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        """Return code and message of the error for a caller who may not call a method."""
        return self._table.denied(method, caller)

    def unknown(self, method: str, caller: Credentials | None) -> tuple[str, str]:
        """Return code and message of the error for the caller of a method that no service has."""
        return self._table.unknown(method, caller)

    def lack_of_room(self, size: int) -> str | None:
        """Return why a request that keeps ``size`` bytes cannot be taken; None if it can. One alone always can."""
        if self._held_bytes and self._held_bytes + size > self._limits.max_held_bytes:
            return f"{self._held_bytes} bytes of large requests are being worked on already (max_held_bytes)"
        return None

    def lack_of_descriptors(self) -> str | None:
        """Return None: there is one connection only, which has all the room that there is."""
        return None

    def request_refused(self, refused: Refused, caller: Credentials | None) -> None:
        """Log that a request that wanted no answer was dropped, and tell the interceptors."""
        if refused.call_id is None:
            _log.debug("! a NOTIFY is dropped: %s: %s", refused.code, shown(refused.message))
        self._tell(refused.method, caller, refused.code, oneway=refused.call_id is None)

    def serve(self, request: Request, caller: Credentials | None) -> None:
        """Answer a request that was admitted. Nothing that its handler raises gets further than this.

        Raises:
            BaseException: a handler, or a signal handler, raised what is no Exception, such as KeyboardInterrupt and
                SystemExit; the request is answered.
        """
        line = self._line()
        if line is None:
            close_all(request.fds)
            return
        answers = Answers(line)
        entry = self._table.entries[request.method]
        try:
            if entry.is_immediate:
                close_all(request.fds)
                answers.send_result(request.call_id, entry.handler())
            else:
                self._run(line, answers, entry, request, caller)
        except BaseException as exc:
            if request.call_id is None or request.call_id in line.session.requests:
                answers.send_error(request.call_id, "rpc.Cancelled", "the work was interrupted")
            if isinstance(exc, Exception):
                what = "! %r: a signal handler raised while it was answered"
                _log.error(what, request.method, exc_info=not entry.spec.is_sensitive)
            raise
        finally:
            self._tell(
                request.method,
                caller,
                answers.sent_code,
                oneway=request.call_id is None,
                duration=0.0 if answers.began is None else time.monotonic() - answers.began,
                options=request.options,
            )

    def _run(self, line: Line, answers: Answers, entry: Entry, request: Request, caller: Credentials | None) -> None:
        refusal = self._refusal(request, caller)
        if refusal is not None or caller is None:
            close_all(request.fds)
            answers.send_error(request.call_id, *(refusal or self.denied(request.method, caller)))
            return
        call = ServedCall(request=request, caller=caller, connection=self._connection, entry=entry, dispatcher=self)
        # What this thread waits for itself goes on once the handler has ended: its deadline holds, too.
        call.deadline_ns = earlier(request.options.deadline, scope.get().deadline_ns)
        call.depth = _depth() + 1
        request.fds = [fd for fd in request.fds if not isinstance(fd, ValueFd)]
        try:
            with line.lock:  # nothing in it is a call, so that no signal handler comes between
                self._held_bytes += request.held_bytes
                self.running += 1
                call.is_counted = True
            try:
                args, kwargs = entry.spec.bind(request.params, self._terms)
            except Exception as exc:
                answers.send_error(request.call_id, *self._misfit(entry, request, exc))
                return
            answers.began = time.monotonic()
            context = copy_context()
            context.run(scope.set, call)
            context.run(self._answer, answers, call, args, kwargs)
        finally:
            try:
                self._end(line, call)
            except BaseException:  # a signal handler came between
                self._end(line, call)
                raise

    def _end(self, line: Line, call: ServedCall) -> None:
        """Clean up after a handler; what is done already is not done again."""
        request = call.request
        request.params = []
        close_all(request.fds)
        actions = call.afterwards or []
        while actions:
            actions.pop(0)()
        with line.lock:
            if call.is_counted:
                call.is_counted = False
                self._held_bytes -= request.held_bytes
                self.running -= 1
            if not self.running and line.is_lost and not line.forked:
                self._tell_lost()

    def _connection(self) -> Any:
        """Return the connection, as handlers see it."""
        made = None if self._made is None else self._made()
        if made is None:
            line = self._line()
            assert line is not None
            made = self._view_of_line(line)
            self._made = weakref.ref(made)
        return made

    def remember(self, connection: Any) -> None:
        """Let handlers see this connection; it is not held here."""
        self._made = weakref.ref(connection)

    def _refusal(self, request: Request, caller: Credentials | None) -> tuple[str, str] | None:
        """Return code and message of the error for a request that is not to be run, before it is converted."""
        if caller is None:  # whatever a policy says, handlers must know who calls
            return self.denied(request.method, caller)
        deadline = request.options.deadline
        if deadline is not None and deadline <= time.monotonic_ns():
            return "rpc.DeadlineExceeded", "the deadline passed before the call began"
        if _depth() >= MAX_NESTED_CALLS:
            return "rpc.Overloaded", f"{MAX_NESTED_CALLS} handlers of this thread wait for one another already"
        return None

    def _misfit(self, entry: Entry, request: Request, exc: Exception) -> tuple[str, str]:
        if isinstance(exc, RpcError):
            return exc.code, exc.message
        what = "failed: its arguments could not be converted, or not be taken"
        return internal_error(exc, request.method, what, withheld=entry.spec.is_sensitive)

    def _proceed(self, index: int, answers: Answers, call: ServedCall, args: Any, kwargs: dict[str, Any]) -> Any:
        """Go on with the interceptor at ``index``, or after the last with the handler."""
        around = self._interception.around
        if index == len(around):
            return _handle(call, args, kwargs)
        handed: list[Any] = []
        has_proceeded = is_over = False

        def proceed() -> Any:
            nonlocal has_proceeded
            if has_proceeded or is_over:
                raise RuntimeError("a handler runs once, and while handle() of its interceptors does")
            has_proceeded = True
            result = self._proceed(index + 1, answers, call, args, kwargs)
            if is_over:  # it was left in a thread
                answers.give_up(result)
                return None
            handed.append(result)
            return result

        kept: Any = None
        try:
            kept = result = around[index].handle(view_of(call), proceed)
        except BaseException as exc:
            with contextlib.suppress(Exception):  # it may be computed
                kept = exc.data if isinstance(exc, RpcError) else None
            raise
        else:
            return result
        finally:
            is_over = True
            if handed and handed[0] is not kept:
                answers.give_up(handed[0], kept)

    def _answer(self, answers: Answers, call: ServedCall, args: Any, kwargs: dict[str, Any]) -> None:
        """Run a handler, with what surrounds it, and answer."""
        request, check = call.request, call.entry.result_check
        try:
            result = self._proceed(0, answers, call, args, kwargs)
        except Exception as exc:
            self._answer_error(answers, call, exc)
            return
        call.deadline_ns = None  # the deadline was for the call; a stream in its result lives on
        try:
            answers.send_result(request.call_id, result, check)
        except Exception as exc:  # the result does not fit, or cannot be sent
            answers.give_up(result)
            self._answer_error(answers, call, exc)

    def _answer_error(self, answers: Answers, call: ServedCall, exc: BaseException) -> None:
        request, withheld = call.request, call.entry.spec.is_sensitive
        code, message, data = answer_for(exc, request.method, withheld=withheld)
        try:
            answers.send_error(request.call_id, code, message, data)
        except Exception as unsent:  # a descriptor in ``data`` is closed
            log_unsent_data(unsent, request.method, withheld=withheld)
            answers.give_up(data)
            answers.send_error(request.call_id, code, message)

    def _tell(
        self, method: str | None, caller: Credentials | None, code: str | None, *, oneway: bool, **rest: Any
    ) -> None:
        """Tell the interceptors of a request that has ended (:func:`~seqrpc.calls.records.tell_ended`)."""
        hearing, line = self._interception.hearing, self._line()
        if hearing and line is not None and not line.forked:  # in a forked child nothing of it is ours
            tell_ended(hearing, method, caller, code, oneway=oneway, **rest)


def _depth() -> int:
    """Return how many handlers run in this thread."""
    call = answered_call()
    return call.depth if isinstance(call, ServedCall) else 0


def _handle(call: ServedCall, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run a handler, of whatever kind it is."""
    spec, name = call.entry.spec, call.request.method
    try:
        result = call.entry.handler(*args, **kwargs)
    except StopIteration as exc:  # whoever iterates while it waits is not to take it for the end
        raise RuntimeError("a handler raised StopIteration") from exc
    if spec.description.runs is Runs.COROUTINE:
        if not inspect.isawaitable(result):
            raise wraps_wrongly(spec.function, "a coroutine function", result, "something to await")
        return drive(result, name)
    if spec.description.runs is Runs.GENERATOR:
        if not hasattr(type(result), "__aiter__"):
            raise wraps_wrongly(spec.function, "an async generator function", result, "an async iterator")
        items = Driven(result, name)
        fds, call.request.fds = call.request.fds, []
        return Source(items, name, fds, is_sensitive=spec.is_sensitive)
    if inspect.iscoroutine(result):
        result.close()
        raise RuntimeError(f"{name} is a plain function, and returned a coroutine, which nobody awaits")
    return result
