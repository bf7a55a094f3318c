"""What OpenTelemetry is told: spans of both sides that are one trace, and durations by its names."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.daemons import on_a_pair
from support.sync import Thread
from support.waiting import comes_true

import seqrpc
from seqrpc import blocking

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from seqrpc.oversight.telemetry import BlockingTelemetry, Telemetry

SECRET = "hunter2"


class Oops(seqrpc.RpcError, code="telemetry.Oops"):
    pass


class Back(seqrpc.Service):
    @seqrpc.method
    async def ask(self) -> int:
        return 7


class Work(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def ask_back(self) -> int:
        return await seqrpc.current_call().connection.proxy(Back).ask()

    @seqrpc.method
    async def trace(self) -> str:
        return format(trace.get_current_span().get_span_context().trace_id, "032x")

    @seqrpc.method
    async def fail(self, secret: str) -> None:
        raise ValueError(secret)

    @seqrpc.method
    async def refuse(self, secret: str) -> None:
        raise Oops(secret)

    @seqrpc.method
    async def hold(self) -> None:
        await asyncio.get_running_loop().create_future()


class Kept:
    """What was exported."""

    def __init__(self) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    @property
    def options(self) -> dict[str, Any]:
        return {"tracers": self.tracers, "meters": self.meters}

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def named(self, name: str) -> dict[str, ReadableSpan]:
        """Return the spans of a method by their kinds."""
        return {span.kind.name: span for span in self.spans if span.name == name}

    def measured(self, name: str) -> dict[tuple[Any, Any], int]:
        """Return how many of a metric there are, by method and error."""
        data: Any = self._reader.get_metrics_data()
        found: dict[tuple[Any, Any], int] = {}
        for metric in [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics:
            if metric.name == name:
                assert metric.unit == "s"
                for point in metric.data.data_points:
                    assert point.attributes["rpc.system.name"] == "seqrpc"
                    assert point.attributes.get("rpc.response.status_code") == point.attributes.get("error.type")
                    assert point.explicit_bounds[0] < 0.0001
                    found[point.attributes["rpc.method"], point.attributes.get("error.type")] = point.count
        return found


async def test_both_sides_of_a_call_and_what_it_calls_are_one_trace() -> None:
    kept = Kept()
    here = [Telemetry(**kept.options)]
    async with on_a_pair(Work(), client=[Back()], interceptors=here, client_interceptors=here) as connection:
        tracer = trace.get_tracer("test", tracer_provider=kept.tracers)
        with tracer.start_as_current_span("whole"):
            assert await connection.call("Work.ask_back") == 7
        await connection.notify("Work.add", 1, 2)
        await comes_true(lambda: "SERVER" in kept.named("Work.add"))
    (whole,) = [span for span in kept.spans if span.name == "whole"]
    ask_back, ask = kept.named("Work.ask_back"), kept.named("Back.ask")
    chain = [whole, ask_back["CLIENT"], ask_back["SERVER"], ask["CLIENT"], ask["SERVER"]]
    for outer, inner in zip(chain, chain[1:], strict=False):  # noqa: RUF007 - mypy knows no more of pairwise
        assert inner.parent is not None
        assert outer.context is not None
        assert (inner.parent.trace_id, inner.parent.span_id) == (outer.context.trace_id, outer.context.span_id)
    assert ask["SERVER"].attributes == {"rpc.system.name": "seqrpc", "rpc.method": "Back.ask"}
    assert ask["SERVER"].status.status_code.name == "UNSET"
    for name in ("rpc.server.call.duration", "rpc.client.call.duration"):
        assert kept.measured(name) == {("Work.ask_back", None): 1, ("Back.ask", None): 1, ("Work.add", None): 1}


async def test_failures_are_told_by_their_codes_alone() -> None:
    kept = Kept()
    here = [Telemetry(**kept.options)]
    async with on_a_pair(Work(), interceptors=here, client_interceptors=here) as connection:
        for method in ("Work.fail", "Work.refuse", "Work.nothing"):
            with pytest.raises(seqrpc.RpcError):
                await connection.call(method, SECRET)
        with pytest.raises(seqrpc.InvalidParams):
            await connection.call("Work.add", SECRET, SECRET)
        await connection.call("Work.add", 1, 2)
        with pytest.raises(seqrpc.InvalidParams):
            await connection.call("Work.add", SECRET, SECRET)
        await connection.call("rpc.ping")
        holding = asyncio.ensure_future(connection.call("Work.hold"))
        await asyncio.sleep(0)
        holding.cancel()
        await asyncio.wait([holding])
        await comes_true(lambda: ("Work.hold", "rpc.Cancelled") in kept.measured("rpc.client.call.duration"))
    assert kept.named("Work.fail")["SERVER"].attributes == {
        "rpc.system.name": "seqrpc",
        "rpc.method": "Work.fail",
        "rpc.response.status_code": "rpc.Internal",
        "error.type": "rpc.Internal",
    }
    assert kept.named("Work.refuse")["CLIENT"].status.status_code.name == "ERROR"
    assert not any(SECRET in span.to_json() for span in kept.spans)
    assert not any(span.events for span in kept.spans)
    measured = kept.measured("rpc.server.call.duration")
    measured.pop(("Work.hold", "rpc.Cancelled"), None)
    assert measured == {
        ("Work.fail", "rpc.Internal"): 1,
        ("Work.refuse", "telemetry.Oops"): 1,
        ("_OTHER", "rpc.MethodNotFound"): 1,
        ("_OTHER", "rpc.InvalidParams"): 1,
        ("Work.add", "rpc.InvalidParams"): 1,
        ("Work.add", None): 1,
        ("rpc.ping", None): 1,
    }


async def test_the_trace_of_whoever_is_not_trusted_is_a_link() -> None:
    kept = Kept()
    strict = [Telemetry(**kept.options, trust=seqrpc.policy.uid(12_345))]
    theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with on_a_pair(Work(), interceptors=strict) as connection:
        with seqrpc.metadata(traceparent=theirs):
            assert await connection.call("Work.trace") not in theirs
        with seqrpc.metadata(traceparent="nonsense"):
            await connection.call("Work.trace")
    linked, alone = kept.spans
    assert [format(link.context.trace_id, "032x") for link in linked.links] == [theirs[3:35]]
    assert linked.parent is alone.parent is None
    assert not alone.links


async def test_a_trusted_caller_s_trace_goes_on_and_a_sampled_out_one_stays_so() -> None:
    kept = Kept()
    async with on_a_pair(Work(), interceptors=[Telemetry(**kept.options)]) as connection:
        for flag, spans in (("01", 1), ("00", 1)):
            theirs = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flag}"
            with seqrpc.metadata(traceparent=theirs, tracestate="a=b"):
                assert await connection.call("Work.trace") in theirs
            assert len(kept.spans) == spans
    (span,) = kept.spans
    assert span.context is not None
    assert span.context.trace_state.to_header() == "a=b"


async def test_without_an_event_loop_it_is_the_same(socket_path: Path) -> None:
    kept = Kept()
    async with seqrpc.serve(Work(), socket_path, interceptors=[Telemetry(**kept.options)]):

        def call() -> int:
            telemetry = BlockingTelemetry(**kept.options)
            with blocking.connect(socket_path, services=Back(), interceptors=[telemetry]) as connection:
                with pytest.raises(Oops):
                    connection.call("Work.refuse", SECRET)
                answer: int = connection.call("Work.ask_back")
                return answer

        thread = Thread(call)
        assert await asyncio.to_thread(thread.result) == 7
    ask_back, ask = kept.named("Work.ask_back"), kept.named("Back.ask")
    parent, context = ask_back["SERVER"].parent, ask_back["CLIENT"].context
    assert parent is not None
    assert context is not None
    assert (parent.trace_id, parent.span_id) == (context.trace_id, context.span_id)
    assert ask["SERVER"].attributes == {"rpc.system.name": "seqrpc", "rpc.method": "Back.ask"}
    assert kept.measured("rpc.client.call.duration")["Work.refuse", "telemetry.Oops"] == 1
    assert kept.measured("rpc.server.call.duration")["Back.ask", None] == 1
