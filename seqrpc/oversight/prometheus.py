"""What a server tells of itself as text that Prometheus reads (its text exposition format, 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from seqrpc.interface.stats import MethodStats, Stats

Sample = tuple[str, Mapping[str, str], float]
"""What is appended to the name of a metric, the labels, and the value."""

_STEP: Final = 2
"""Of the bounds of ``Stats``, each second is told: buckets four times as wide, and half as many series."""

_NONE: Final[Mapping[str, str]] = {}


def prometheus_text(stats: Stats) -> str:
    """Return what a server tells of itself as Prometheus reads it: for an endpoint of the program's own, or a file.

    All names begin with ``seqrpc_``. Times are in seconds. Of methods that were never called there is nothing; what is
    not a method of the server has the label ``method="others"``. Connections are counted, not listed.

    Args:
        stats: of :meth:`seqrpc.Server.stats`, or what ``rpc.stats`` answered.
    """
    return "".join(_lines(stats))


def _lines(stats: Stats) -> Iterator[str]:
    methods = {name: of for name, of in {**stats.methods, "others": stats.others}.items() if of.calls}
    yield from _metric("info", "gauge", "The version of seqrpc.", [("", {"version": stats.version}, 1)])
    yield from _number("uptime_seconds", "gauge", "Seconds since the server began.", stats.uptime)
    yield from _number("stopping", "gauge", "1 if the server takes no new connections any more.", stats.is_stopping)
    yield from _number("connections", "gauge", "Connections that are open.", stats.connections_open)
    yield from _number("connections_made_total", "counter", "Connections that there ever were.", stats.connections_made)
    yield from _by("connections_refused_total", "Connections that were refused.", "reason", stats.connections_refused)
    yield from _number(
        "connections_malformed_total",
        "counter",
        "Connections whose other side broke the protocol.",
        stats.connections_malformed,
    )
    yield from _number(
        "accept_failures_total",
        "counter",
        "How often the system could not give a waiting connection.",
        stats.accept_failures,
    )
    yield from _number("calls_in_flight", "gauge", "Calls that run.", stats.calls_in_flight)
    yield from _number("unsent_bytes", "gauge", "Bytes that wait for peers to read.", stats.unsent_bytes)
    yield from _number("unsent_packets", "gauge", "Packets that wait for peers to read.", stats.unsent_packets)
    yield from _number("streams", "gauge", "Streams that are produced.", stats.streams)
    yield from _number("objects", "gauge", "Holders of objects that were given away.", stats.objects)
    yield from _by("refusals_total", "Requests that no handler ran for.", "code", stats.refusals)
    errors = _errors({name: of.errors for name, of in methods.items()})
    yield from _metric("errors_total", "counter", "Errors that were answered.", errors)
    errors = _errors({name: of.stream_errors for name, of in methods.items()})
    yield from _metric("stream_errors_total", "counter", "Streams that ended with an error.", errors)
    yield from _metric(
        "call_duration_seconds",
        "histogram",
        "How long handlers ran.",
        _durations(methods, stats.latency_bounds),
    )
    yield from _metric("account", "gauge", "What each user holds.", _accounts(stats.accounts))


def _metric(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    """Yield the lines of one metric, none if there are no samples."""
    heading = f"# HELP seqrpc_{name} {text}\n# TYPE seqrpc_{name} {kind}\n"
    for suffix, labels, value in samples:
        yield heading
        heading = ""
        told = ",".join(f'{label}="{_escaped(content)}"' for label, content in labels.items())
        yield f"seqrpc_{name}{suffix}{f'{{{told}}}' if told else ''} {_spelled(value)}\n"


def _number(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    return _metric(name, kind, text, [("", _NONE, value)])


def _by(name: str, text: str, label: str, table: Mapping[str, int]) -> Iterator[str]:
    return _metric(name, "counter", text, [("", {label: key}, value) for key, value in table.items()])


def _errors(methods: Mapping[str, Mapping[str, int]]) -> Iterator[Sample]:
    for method, errors in methods.items():
        for code, number in errors.items():
            yield "", {"method": method, "code": code}, number


def _durations(methods: Mapping[str, MethodStats], bounds: list[float]) -> Iterator[Sample]:
    for method, of in methods.items():
        labels, within = {"method": method}, [*accumulate(of.latency)]
        for index in range(0, len(bounds), _STEP):
            yield "_bucket", {**labels, "le": _spelled(bounds[index])}, within[index]
        yield "_bucket", {**labels, "le": "+Inf"}, within[-1]
        yield "_sum", labels, of.seconds
        yield "_count", labels, within[-1]


def _accounts(accounts: Mapping[str, Mapping[str, int]]) -> Iterator[Sample]:
    for uid, held in accounts.items():
        for what, amount in held.items():
            yield "", {"uid": uid, "what": what}, amount


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _spelled(value: float) -> str:
    """Return a number as Prometheus reads it."""
    return repr(int(value) if isinstance(value, bool) else value)
