"""For those who run daemons: how a server is, as numbers and as logs (docs/oversight.md)."""

from seqrpc.interface.stats import CallStats, ConnectionStats, MethodStats, Statistics, Stats
from seqrpc.oversight.prometheus import prometheus_text
from seqrpc.oversight.textfile import MetricsFile

__all__ = (
    "CallStats",
    "ConnectionStats",
    "MethodStats",
    "MetricsFile",
    "Statistics",
    "Stats",
    "prometheus_text",
)
