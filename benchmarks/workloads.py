"""What is measured: the table of workloads. The loops that measure are in ``loops`` and ``blocking``."""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 1 << 20
IN_FLIGHT = 64


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One thing that is measured, of each peer that can do it."""

    name: str
    what: str
    unit: str
    floor: str | None = None
    """The peer whose figure is the floor of this workload's ratios, if there is one."""
    beside: str | None = None
    """The workload whose figures this one's are to be set beside, floor included: the same done in another way."""
    size: int = 0
    """Bytes that one unit of work carries, where rates are in bytes."""
    connections: int = 1
    step: int = 1
    """Units of work that are done together: a measurement does a multiple of them."""
    variants: dict[str, str] = field(default_factory=dict)
    """Where there are several figures: their names and what they are."""
    base: str | None = None
    """The variant to whose figure the others have their ratios."""
    fresh: bool = False
    """Whether each round needs processes of its own: what was once grown does not shrink."""

    @property
    def less_is_better(self) -> bool:
        """Whether it is a time or a size, and not a rate."""
        return not self.unit.endswith("/s")

    @property
    def rows(self) -> list[str]:
        """The names of its figures: its own, or one for each variant."""
        return [f"{self.name}/{variant}" for variant in self.variants] or [self.name]

    def reference(self, row: str) -> str:
        """Return the row to whose figures this one's have their ratios."""
        return f"{self.name}/{self.base}" if self.base else self.beside or row

    def figure(self, seconds: float, units: int) -> float:
        """Return in this workload's unit what it means that so many units of work took so long."""
        if self.unit == "GB/s":
            return units * self.size / seconds / 1e9
        return seconds / units * 1e6 if self.less_is_better else units / seconds


def _connections(count: int) -> Workload:
    what = f"{count:,} connections, one call outstanding on each"
    return Workload(name=f"connections-{count}", what=what, unit="calls/s", connections=count, step=count)


def _payload(how: str, name: str, size: int, *, what: str) -> Workload:
    beside = None if how == "upload" else f"upload-{size // MIB}m"
    return Workload(name=name, what=f"{what}, {size // MIB} MiB", unit="GB/s", floor="memcpy", beside=beside, size=size)


_UPLOADS = {
    ("upload", "upload-{}m"): "bytes to the server, which holds them whole",
    ("buffer", "buffer-{}m"): "a Buffer made, filled and sent; its receiver looks at a byte of each page",
    ("again", "buffer-{}m-again"): "a Buffer sent again; its receiver looks at a byte of each page",
}

_ALL = (
    Workload(name="lone", what="one caller, one call at a time", unit="µs a call", floor="floor"),
    Workload(
        name="in-flight",
        what=f"{IN_FLIGHT} calls in flight on one connection",
        unit="calls/s",
        floor="floor",
        step=IN_FLIGHT,
    ),
    _connections(64),
    _connections(100),
    _connections(1000),
    Workload(name="record", what="a record of twenty fields each way, one at a time", unit="µs a call", floor="floor"),
    Workload(
        name="record-untyped",
        what="the same with parameters that are not checked or converted",
        unit="µs a call",
        beside="record",
    ),
    *(
        _payload(how, name.format(mib), mib * MIB, what=what)
        for mib in (1, 64)
        for (how, name), what in _UPLOADS.items()
    ),
    Workload(
        name="buffer-unread",
        what="a Buffer that was filled before and whose receiver does not look at it",
        unit="µs a call",
        variants={
            "1m": "1 MiB, sent again",
            "1g": "1 GiB, sent again",
        },
        base="1m",
    ),
    Workload(name="descriptors", what="an open file to the server with each call", unit="calls/s", floor="floor"),
    Workload(name="stream", what="a stream of ints", unit="items/s", floor="floor", step=100),
    Workload(
        name="stream-lone",
        what="from the producer's yield to the reader, beside a handler's return to its caller",
        unit="µs",
        variants={"item": "an item alone", "answer": "an answer"},
        base="answer",
    ),
    Workload(
        name="memory",
        what="memory of the server's process at 1,000 connections",
        unit="KiB",
        connections=1000,
        variants={"idle": "each idle connection", "in-flight": "each call in flight"},
        fresh=True,
    ),
    Workload(name="import", what="time to import it, over that of bare Python", unit="ms"),
    Workload(
        name="features",
        what="a lone call without and with parameters that are checked, a policy, a deadline",
        unit="µs a call",
        variants={
            "off": "none of them",
            "validation": "parameters checked",
            "policy": "a policy of three rules",
            "deadline": "a deadline around each",
            "on": "all of them",
        },
        base="off",
    ),
)

WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _ALL}
