"""Traces and metrics by OpenTelemetry, with the extra ``seqrpc[otel]``.

Names are those of OpenTelemetry's semantic conventions for RPC: https://opentelemetry.io/docs/specs/semconv/rpc/
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import Histogram, Meter, MeterProvider
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from seqrpc import blocking
from seqrpc.aio.current import CurrentCall
from seqrpc.aio.interceptors import Interceptor, Proceed
from seqrpc.calls.records import CallRecord, OutgoingCall
from seqrpc.errors import RpcError
from seqrpc.interface.current import HandledView
from seqrpc.interface.policy import PolicyLike, as_policy
from seqrpc.interface.policy import default as default_policy
from seqrpc.interface.scope import metadata

_SYSTEM: Final = "seqrpc"

_OTHER: Final = "_OTHER"
"""What OpenTelemetry calls a method that is not known: anybody may make up names, and each would be a time series."""

_SECONDS: Final = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25,
    0.5, 0.75, 1, 2.5, 5, 7.5, 10,
)  # fmt: skip
"""Bounds of histograms: those of the conventions, and below them those of calls that do not leave the machine."""

_W3C: Final = TraceContextTextMapPropagator()


class _Instruments:
    """What spans and measurements are made with.

    Args:
        tracers: where spans go; by default wherever the program says.
        meters: where measurements go; likewise.
        trust: whose trace a call may be part of.
    """

    def __init__(self, tracers: TracerProvider | None, meters: MeterProvider | None, trust: PolicyLike | None) -> None:
        self._tracer: Tracer = trace.get_tracer("seqrpc", tracer_provider=tracers)
        meter: Meter = metrics.get_meter("seqrpc", meter_provider=meters)
        self._trust = default_policy if trust is None else as_policy(trust)
        self._served = _histogram(meter, "rpc.server.call.duration", "Duration of incoming calls.")
        self._made = _histogram(meter, "rpc.client.call.duration", "Duration of outgoing calls.")
        self._known: set[str] = set()  # methods that exist, for their handlers ran

    @contextmanager
    def serving(self, call: HandledView) -> Iterator[None]:
        """Surround a handler with a span."""
        remote = _W3C.extract(call.meta)
        is_trusted = self._trust.admits(call.caller)
        theirs = trace.get_current_span(remote).get_span_context()
        links = [Link(theirs)] if theirs.is_valid and not is_trusted else []
        span = self._tracer.start_as_current_span(
            call.method,
            remote if is_trusted else None,
            SpanKind.SERVER,
            _about(call.method),
            links,
            record_exception=False,  # what exceptions say, and their tracebacks, may quote arguments
            set_status_on_exception=False,
        )
        with _told(span, "rpc.Internal"):
            yield

    @contextmanager
    def calling(self, call: OutgoingCall) -> Iterator[None]:
        """Surround a call with a span, which goes along with it."""
        began, code = time.monotonic(), None
        span = self._tracer.start_as_current_span(
            call.method,
            None,
            SpanKind.CLIENT,
            _about(call.method),
            record_exception=False,
            set_status_on_exception=False,
        )
        try:
            with _told(span):
                carrier: dict[str, str] = {}
                _W3C.inject(carrier)
                with metadata(**carrier):
                    yield
        except BaseException as exc:
            code = _code_of(exc)
            raise
        finally:
            self._made.record(time.monotonic() - began, _about(call.method, code))

    def ended(self, record: CallRecord) -> None:
        """Measure a request that has ended."""
        method = record.method or _OTHER
        if record.duration or record.code is None:
            self._known.add(method)
        elif method not in self._known:
            method = _OTHER
        self._served.record(record.duration, _about(method, record.code))


def _histogram(meter: Meter, name: str, text: str) -> Histogram:
    return meter.create_histogram(name, "s", text, explicit_bucket_boundaries_advisory=_SECONDS)


def _about(method: str, code: str | None = None) -> Mapping[str, str]:
    """Return the attributes of a call, which has ended with the error of this code, if any."""
    about = {"rpc.system.name": _SYSTEM, "rpc.method": method}
    return about if code is None else {**about, "rpc.response.status_code": code, "error.type": code}


@contextmanager
def _told(starting: AbstractContextManager[Span], unforeseen: str | None = None) -> Iterator[None]:
    """Surround something with a span, and note in it that it failed, by the code of the error alone.

    Args:
        starting: the span.
        unforeseen: the code of all that is no error with a code.
    """
    with starting as span:
        try:
            yield
        except BaseException as exc:
            code = _code_of(exc, unforeseen)
            span.set_attributes({"rpc.response.status_code": code, "error.type": code})
            span.set_status(Status(StatusCode.ERROR))
            raise


def _code_of(exc: BaseException, unforeseen: str | None = None) -> str:
    """Return the code of the error that something ended with, or what the caller met instead of an answer."""
    if isinstance(exc, RpcError):
        return exc.code
    if isinstance(exc, asyncio.CancelledError):
        return "rpc.Cancelled"
    return unforeseen or type(exc).__qualname__


class Telemetry(Interceptor):
    """Makes spans and measurements of calls: for ``interceptors=`` of servers and of connections, alike.

    A call is a span at its caller and a span at its callee, which are joined by the W3C trace context: ``traceparent``
    and ``tracestate`` go along as metadata. Whoever is not trusted cannot have its calls become part of a trace of its
    choice, nor decide that they are recorded: its trace is a link of the span. Durations go to
    ``rpc.server.call.duration``, also of requests that are refused, and ``rpc.client.call.duration``, in seconds.

    There are no arguments, results, messages of errors and tracebacks in it; a failure is known by its code. Methods
    are named if their handlers have run; all others are ``_OTHER``.

    Args:
        tracers: where spans go; by default the program's ``opentelemetry.trace.get_tracer_provider()``.
        meters: where measurements go; by default the program's ``opentelemetry.metrics.get_meter_provider()``.
        trust: whose trace a call may be part of; by default the same user's and root's.
    """

    def __init__(
        self,
        *,
        tracers: TracerProvider | None = None,
        meters: MeterProvider | None = None,
        trust: PolicyLike | None = None,
    ) -> None:
        """Make what measures."""
        self._instruments = _Instruments(tracers, meters, trust)

    async def handle(self, call: CurrentCall, proceed: Proceed) -> Any:
        """Surround a handler with a span."""
        with self._instruments.serving(call):
            return await proceed()

    def ended(self, record: CallRecord) -> None:
        """Measure a request that has ended."""
        self._instruments.ended(record)

    async def request(self, call: OutgoingCall, proceed: Proceed) -> Any:
        """Surround a call with a span, which goes along with it."""
        with self._instruments.calling(call):
            return await proceed()


class BlockingTelemetry(blocking.Interceptor):
    """Does the same for ``interceptors=`` of :func:`seqrpc.blocking.connect`.

    Args:
        tracers: as for :class:`Telemetry`.
        meters: likewise.
        trust: likewise.
    """

    def __init__(
        self,
        *,
        tracers: TracerProvider | None = None,
        meters: MeterProvider | None = None,
        trust: PolicyLike | None = None,
    ) -> None:
        """Make what measures."""
        self._instruments = _Instruments(tracers, meters, trust)

    def handle(self, call: blocking.CurrentCall, proceed: Any) -> Any:
        """Surround a handler with a span."""
        with self._instruments.serving(call):
            return proceed()

    def ended(self, record: CallRecord) -> None:
        """Measure a request that has ended."""
        self._instruments.ended(record)

    def request(self, call: OutgoingCall, proceed: Any) -> Any:
        """Surround a call with a span, which goes along with it."""
        with self._instruments.calling(call):
            return proceed()
