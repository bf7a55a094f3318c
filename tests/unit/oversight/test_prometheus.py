"""The text is what Prometheus reads."""

from __future__ import annotations

import dataclasses
import re

import pytest

import seqrpc
from seqrpc.interface.stats import BOUNDS, MethodStats, Stats
from seqrpc.oversight import prometheus_text


def method(calls: int = 0, **errors: int) -> MethodStats:
    latency = [0] * (len(BOUNDS) + 1)
    if calls:
        latency[0], latency[3], latency[-1] = calls - 2, 1, 1
    ended = {code: 7 * number for code, number in errors.items()}
    return MethodStats(calls=calls, refused=0, errors=errors, seconds=0.25, latency=latency, stream_errors=ended)


STATS = Stats(
    version="0.1.0",
    pid=17,
    uptime=12.5,
    is_stopping=False,
    connections_open=2,
    connections=[],
    connections_made=9,
    connections_refused={"full": 3},
    connections_malformed=1,
    accept_failures=0,
    calls_in_flight=4,
    object_calls=[],
    methods={"Work.add": method(5), "Work.never": method(), "Work.fail": method(2, **{'x.a"b\\\n': 2})},
    others=method(2, MethodNotFound=2),
    refusals={"rpc.MethodNotFound": 2},
    latency_bounds=list(BOUNDS),
    unsent_bytes=100,
    unsent_packets=1,
    streams=0,
    objects=6,
    accounts={"1000": {"connections": 2}},
)

LINE = re.compile(r'^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*\})? ([0-9.e+-]+)$')


def samples(text: str) -> dict[str, float]:
    assert text.endswith("\n")
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = LINE.match(line)
            assert match is not None, line
            assert line.rpartition(" ")[0] not in found
            found[f"{match[1]}{match[2] or ''}"] = float(match[3])
    return found


def test_each_number_is_a_sample() -> None:
    found = samples(prometheus_text(STATS))
    assert found['seqrpc_info{version="0.1.0"}'] == 1
    assert found["seqrpc_uptime_seconds"] == 12.5
    assert found["seqrpc_stopping"] == 0
    assert (found["seqrpc_connections"], found["seqrpc_connections_made_total"]) == (2, 9)
    assert found['seqrpc_connections_refused_total{reason="full"}'] == 3
    assert found['seqrpc_refusals_total{code="rpc.MethodNotFound"}'] == 2
    assert found[r'seqrpc_errors_total{method="Work.fail",code="x.a\"b\\\n"}'] == 2
    assert found[r'seqrpc_stream_errors_total{method="Work.fail",code="x.a\"b\\\n"}'] == 14
    assert found['seqrpc_account{uid="1000",what="connections"}'] == 2


def test_histograms_are_cumulative_and_end_without_a_bound() -> None:
    found = samples(prometheus_text(STATS))
    add = {name: value for name, value in found.items() if 'method="Work.add"' in name}
    buckets = [value for name, value in add.items() if "_bucket" in name]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-1]) == (3, 5)
    assert add['seqrpc_call_duration_seconds_bucket{method="Work.add",le="+Inf"}'] == 5
    assert add['seqrpc_call_duration_seconds_count{method="Work.add"}'] == 5
    assert add['seqrpc_call_duration_seconds_sum{method="Work.add"}'] == 0.25
    assert not any("Work.never" in name for name in found)


def test_each_metric_is_described_once_before_its_samples() -> None:
    text = prometheus_text(STATS)
    headings = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(dict(headings)) == len(headings) == text.count("# HELP ")
    kinds, current = dict(headings), ""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            current = line.split()[2]
        elif not line.startswith("#"):
            name = re.split(r"[{ ]", line)[0]
            assert name == current or (kinds[current] == "histogram" and name.startswith(f"{current}_"))
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in headings)


def test_what_there_is_none_of_is_not_told() -> None:
    nothing = dataclasses.replace(STATS, accounts={}, connections_refused={}, methods={}, others=method(), refusals={})
    text = prometheus_text(nothing)
    for name in ("account", "refused", "refusals", "errors", "duration"):
        assert name not in text


async def test_it_is_made_of_what_a_server_tells() -> None:
    class Work(seqrpc.Service):
        @seqrpc.method
        async def add(self, a: int, b: int) -> int:
            return a + b

    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Work(), sock=theirs) as server, seqrpc.connect(sock=ours) as connection:
        await connection.call("Work.add", 1, 2)
        with pytest.raises(seqrpc.MethodNotFound):
            await connection.call("Work.sub", 1, 2)
        found = samples(prometheus_text(server.stats()))
    assert found['seqrpc_call_duration_seconds_count{method="Work.add"}'] == 1
    assert found['seqrpc_errors_total{method="others",code="rpc.MethodNotFound"}'] == 1
