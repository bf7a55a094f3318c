"""For those who run daemons: how a server is, as numbers and as logs (docs/oversight.md)."""

from seqrpc.interface.monitor import CallEvent, Monitor
from seqrpc.interface.stats import CallStats, ConnectionStats, MethodStats, Statistics, Stats
from seqrpc.oversight.accesslog import AccessLog
from seqrpc.oversight.prometheus import prometheus_text
from seqrpc.oversight.slowlog import SlowLog
from seqrpc.oversight.textfile import MetricsFile

__all__ = (
    "AccessLog",
    "CallEvent",
    "CallStats",
    "ConnectionStats",
    "MethodStats",
    "MetricsFile",
    "Monitor",
    "SlowLog",
    "Statistics",
    "Stats",
    "prometheus_text",
)
