"""The process in which the guard counts: ``python -m benchmarks.counting WHAT LOOP KIND,...``.

WHAT is ``instructions`` or ``functions``, whose counts it prints as JSON; ``marks``, which tells whoever traces system
calls where runs begin and end; or a number of calls, to be made and counted from outside.

Its clock stands still, so that nothing is done or left undone for the time it takes: time-outs are set and never come,
and a producer that looks at the clock finds itself fast. Nor does it collect garbage while it counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.guarded import Caller, Kind

MARK = "/no-such-file-of-the-guard/"
"""Begins the paths that are looked for before and after what is to be counted."""


def stop_the_clock() -> None:
    """Let clocks tell one time for ever, by built-in functions: these are counted as the real ones are."""
    for name in ("monotonic", "perf_counter"):
        seconds = int(getattr(time, name)())
        setattr(time, name, float(seconds).conjugate)
        setattr(time, f"{name}_ns", (seconds * 10**9).conjugate)


class Counting(ABC):
    """Counts what happens between ``start`` and ``stop``."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.counts: Counter[Any] = Counter()

    @abstractmethod
    def start(self) -> None:
        """Begin to count."""

    @abstractmethod
    def stop(self) -> None:
        """Count no more."""

    @staticmethod
    def figures(counts: Counter[Any]) -> dict[str, int]:
        """Return what is guarded, of what was counted."""
        return dict(counts)


class Instructions(Counting):
    """The interpreter's instructions, by file and function."""

    if sys.version_info >= (3, 12):

        def start(self) -> None:
            counts, monitoring, ours = self.counts, sys.monitoring, threading.get_ident()

            def instruction(code: CodeType, _offset: int) -> None:
                if threading.get_ident() == ours:  # else how long a thread was there would count
                    counts[code.co_filename, code.co_qualname] += 1

            monitoring.use_tool_id(monitoring.PROFILER_ID, "benchmarks.counting")
            monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION, instruction)
            monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION)

        def stop(self) -> None:
            sys.monitoring.set_events(sys.monitoring.PROFILER_ID, sys.monitoring.events.NO_EVENTS)
            sys.monitoring.free_tool_id(sys.monitoring.PROFILER_ID)

    else:

        def start(self) -> None:
            counts = self.counts

            def trace(frame: FrameType, event: str, _arg: object) -> Callable[..., Any]:
                if event == "opcode":
                    counts[frame.f_code.co_filename, frame.f_code.co_qualname] += 1
                else:
                    frame.f_trace_lines, frame.f_trace_opcodes = False, True
                return trace

            sys.settrace(trace)

        def stop(self) -> None:
            sys.settrace(None)

    @staticmethod
    def figures(counts: Counter[Any]) -> dict[str, int]:
        own = sum(count for (file, _function), count in counts.items() if module_of(file).startswith("seqrpc."))
        return {"byte code": counts.total(), "byte code of seqrpc": own}


class Functions(Counting):
    """Calls of functions; coroutines count each time they go on."""

    def start(self) -> None:
        counts = self.counts

        def profile(_frame: FrameType, event: str, _arg: object) -> None:
            counts[event] += 1

        sys.setprofile(profile)

    def stop(self) -> None:
        sys.setprofile(None)

    @staticmethod
    def figures(counts: Counter[Any]) -> dict[str, int]:
        return {"Python functions": counts["call"], "C functions": counts["c_call"]}


class Marks(Counting):
    """Nothing itself: who traces this process counts."""

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.stat(MARK + self.mark)

    stop = start


COUNTINGS: dict[str, type[Counting]] = {"instructions": Instructions, "functions": Functions, "marks": Marks}


def module_of(file: str) -> str:
    """Return the name of the module that a file is, as far as there is need to know."""
    for package in ("seqrpc", "benchmarks", "asyncio"):
        (directory,) = sys.modules[package].__path__
        if file.startswith(directory + os.sep):
            file = os.path.join(package, os.path.relpath(file, directory))
            return os.path.splitext(file)[0].replace(os.sep, ".")
    return os.path.splitext(os.path.basename(file))[0]


async def counted(name: str, kind: Kind, caller: Caller, counting: type[Counting]) -> Counter[Any]:
    """Return what a long run of a kind of calls has more than a short one, all calls together."""
    await kind.go(caller, kind.short)
    await kind.go(caller, kind.long)  # what is done but once, by us and by the interpreter, is done now
    found = []
    for length in (kind.short, kind.long):
        run = counting(f"{name}/{length}")
        gc.collect()
        run.start()
        await kind.go(caller, length)
        run.stop()
        found.append(run.counts)
    short, long = found
    long.subtract(short)
    return long


def by_function(counts: Counter[Any], units: float) -> dict[str, float]:
    """Return what was counted by function with the functions' names, the most first."""
    found: Counter[str] = Counter()
    for (file, function), count in counts.items():
        found[f"{module_of(file)}: {function}"] += count
    return {function: round(count / units, 1) for function, count in found.most_common() if count}


async def _count(what: str, names: list[str]) -> dict[str, Any]:
    from benchmarks.guarded import KINDS, ready  # noqa: PLC0415 - the clock was to stand still before
    from seqrpc.twin import native  # noqa: PLC0415 - as above

    if native is not None:
        native.stop_clock(time.monotonic_ns())  # it asks the kernel itself
    told: dict[str, Any] = {}
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="guard-") as directory:
        for name in names:
            kind = KINDS[name]
            async with ready(os.path.join(directory, name)) as caller:
                if what not in COUNTINGS:
                    await kind.go(caller, int(what))
                    continue
                counting = COUNTINGS[what]
                counts = await counted(name, kind, caller, counting)
            told[name] = {
                "figures": {figure: round(count / kind.units, 3) for figure, count in counting.figures(counts).items()},
                "where": by_function(counts, kind.units) if counting is Instructions else {},
            }
    return told


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Return a loop of asyncio or of uvloop."""
    if name == "asyncio":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - as above

    return uvloop.new_event_loop()


def main() -> None:
    """Count."""
    what, loop, kinds = sys.argv[1:]
    stop_the_clock()
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        print(json.dumps(runner.run(_count(what, kinds.split(",")))))


if __name__ == "__main__":
    main()
