"""One of the two processes: runs cases on its twin, and tells what came of them.

It reads commands from its standard input, a line of JSON each, and answers with a line each:

* ``{"run": [numbers], "seed": n, "profile": p}``: the digest of each case's report, and figures of all of them;
* ``{"tell": place}``: the whole report of one of the cases that were run last;
* ``{"script": {...}}``: runs a script, and answers with its whole report.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import hashlib
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from asyncio import runners
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from fuzz.twins import services
from fuzz.twins.clock import StillLoop, StillUvloop, hold_threads
from fuzz.twins.making import make
from fuzz.twins.told import steady, told, told_record
from fuzz.twins.world import World

import seqrpc
from seqrpc.aio import carrier, listener, producers, readers, shares, starting
from seqrpc.aio.accounts import Account
from seqrpc.aio.answers import Answers
from seqrpc.aio.caller import Caller
from seqrpc.aio.carrier import Carrier
from seqrpc.aio.connection import Connection
from seqrpc.aio.current import CurrentCall, HandledCall
from seqrpc.aio.dispatch import Dispatcher
from seqrpc.aio.hub import Hub
from seqrpc.aio.intake import Intake
from seqrpc.aio.link import Link
from seqrpc.aio.running import RunningCalls
from seqrpc.aio.starting import Pace
from seqrpc.aio.transport import SeqpacketTransport
from seqrpc.calls import failures
from seqrpc.interface import offers
from seqrpc.kernel.closing import CLOSER
from seqrpc.logs import meter
from seqrpc.protocol import items, messages
from seqrpc.protocol.session import Session

HANGS_AFTER: Final = 60.0
"""Seconds after which a case is said to hang."""

_COUNTED: Final = (
    Session, Link, Carrier, Intake, Dispatcher, RunningCalls, Caller, Connection, CurrentCall, HandledCall, Answers,
    Hub, Pace, Account, SeqpacketTransport, messages.Request, messages.Response, messages.Cancel, messages.Closing,
    messages.Options, seqrpc.OwnedFd, seqrpc.Server, services.Plain, services.Point, World,
)  # fmt: skip
"""Classes whose instances are counted by the references to their class: also those that the collector does not know."""

_CONSTANTS: Final = (
    messages.NO_OPTIONS, seqrpc.policy.same_user, seqrpc.policy.default, services.Plain.add, services.Plain.echo,
    services.Guarded.counted,
)  # fmt: skip

_KINDS: Final = frozenset({"Task", "Future", "coroutine", "generator", "async_generator", "Context", "TimerHandle"})

_WARM: Final = 3  # cases that are run before any counts

_BUDGET: Final = 1e6
"""Seconds that one connection may be read in a turn: else what is read in a turn would depend on the machine."""


def _be_steady() -> None:
    """Take out of seqrpc what depends on time and chance."""
    for module in (shares, listener, carrier, starting, readers, producers):
        for name in ("TURN_SECONDS", "_LEAST_SECONDS", "_AT_ONCE_SECONDS", "_ALONE_SECONDS"):
            if hasattr(module, name):
                setattr(module, name, _BUDGET)
    setattr(offers, "MOST_OFFERS", 1 << 60)  # noqa: B010 - it is imported there
    hold_threads()
    meter._burst = 1 << 60
    incidents = iter(range(1 << 62))
    for module in (failures, items):
        module.new_incident = lambda: (  # type: ignore[attr-defined] # it is imported there
            incident := f"{next(incidents) % (1 << 32):08x}",
            f"incident {incident}; the log of the other side has more",
        )


class _Lines(logging.Handler):
    """Writes what is logged into a list."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[list[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(told_record(record))


class Runner:
    """Runs cases, each on a loop of its own."""

    def __init__(self) -> None:
        _be_steady()
        self._lines = _Lines()
        for name in ("seqrpc", "asyncio"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.DEBUG)
            logger.propagate = False
            logger.addHandler(self._lines)
        self._directory = tempfile.TemporaryDirectory(prefix="seqrpc-twins-")
        os.chmod(self._directory.name, 0o755)  # for callers who are somebody else
        self._trouble: list[list[str]] = []
        sys.unraisablehook = lambda args: self._trouble.append(
            ["unraisable", told(args.exc_value), steady(repr(args.object))]
        )
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, category, *_rest, **_more: self._trouble.append(
            ["warning", category.__name__, steady(str(message))]
        )
        uvloop.new_event_loop().close()  # libuv keeps a pipe
        self.packets = 0

    def run(self, script: dict[str, Any]) -> dict[str, Any]:
        """Run a case and return its report."""
        meter.forget()
        self._lines.lines = []
        self._trouble = []
        gc.collect()
        gc.freeze()
        gc.disable()
        thresholds = gc.get_threshold()
        before, fds = _counts(), _descriptors()
        if script.get("collects"):
            gc.set_threshold(1, 1, 1)
            gc.enable()
        diary = self._run_on_loop(script)
        gc.disable()
        gc.set_threshold(*thresholds)
        closed = CLOSER.wait_idle(20)
        uncollected = _grown(before, _counts())
        for _ in range(3):  # what a finalizer lets go of is found by the next
            gc.collect()
        left = _grown(before, _counts())
        gc.collect()
        alive = Counter(type(each).__name__ for each in gc.get_objects())
        gc.enable()
        self.packets += sum(len(op[2]) for step in script["steps"] for op in step["do"] if op[0] == "send")
        return {
            "diary": diary,
            "log": sorted(self._lines.lines) if script.get("ends") else self._lines.lines,
            "trouble": sorted(self._trouble) if script.get("ends") else self._trouble,
            "descriptors": sorted((Counter(_descriptors().values()) - Counter(fds.values())).items()),
            "uncollected": {} if script.get("collects") else uncollected,
            "left": left,
            "alive": {name: count for name, count in sorted(alive.items()) if name in _KINDS},
            "closer": closed,
        }

    def _run_on_loop(self, script: dict[str, Any]) -> list[list[Any]]:
        world = World(script, Path(self._directory.name))
        services.HERE[:] = [world]
        try:
            _run(world, script)
        except Exception as exc:
            world.note("the case failed", told(exc))
            if os.environ.get("SEQRPC_TWINS_RAISE"):
                raise
        finally:
            services.HERE.clear()
        diary, world.diary = world.diary, []
        # What is left over ends in the order in which a set of tasks has them: by their addresses.
        over = diary.index(["over"]) if ["over"] in diary else len(diary)
        return diary[:over] + sorted(diary[over:], key=str)


def _run(world: World, script: dict[str, Any]) -> None:
    """Run a case on a loop of its own, and end that, more or less properly."""
    loop = _new_loop(script, world)
    asyncio.set_event_loop(loop)
    calls = _traced(world) if script.get("traced") else contextlib.nullcontext()
    try:
        with calls:
            task = loop.create_task(world.run())
            while not task.done():
                try:
                    loop.run_until_complete(task)
                except (KeyboardInterrupt, SystemExit) as exc:  # a handler's, which is for the loop
                    world.note("the loop stopped", told(exc))
    finally:
        if script.get("ends") != "torn":
            runners._cancel_all_tasks(loop)  # type: ignore[attr-defined] # what asyncio.run does
            loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


@contextlib.contextmanager
def _traced(world: World) -> Iterator[None]:
    """Note the calls and returns of the services' functions, as a debugger or profiler sees them."""

    def see(frame: Any, event: str, _arg: Any) -> None:
        code = frame.f_code
        if event in ("call", "return") and code.co_filename == services.__file__ and code.co_name != "note":
            world.diary.append(["traced", event, code.co_name])

    sys.setprofile(see)
    try:
        yield
    finally:
        sys.setprofile(None)


def _new_loop(script: dict[str, Any], world: World) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = StillUvloop() if script["loop"] == "uvloop" else StillLoop()
    if script["debug"]:
        loop.set_debug(True)
        loop.slow_callback_duration = 1e9
    if script["loop"] == "eager" and sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    elif script["factory"]:
        loop.set_task_factory(_factory(script["factory"]))

    def trouble(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        world.note("the loop's handler", steady(context["message"]), told(context.get("exception")))

    loop.set_exception_handler(trouble)
    return loop


def _factory(kind: str) -> Any:
    made = 0

    class Own(asyncio.Task):  # type: ignore[type-arg]
        """A task of the application's own class."""

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        nonlocal made
        if kind == "raising" and getattr(coro, "__qualname__", "") == "Dispatcher._run":
            made += 1
            if made % 3 == 0:
                raise ZeroDivisionError("no task today")
        return Own(coro, loop=loop, **options)

    return factory


def _counts() -> dict[str, int]:
    counts = {cls.__name__: sys.getrefcount(cls) for cls in _COUNTED}
    for number, constant in enumerate(_CONSTANTS):
        counts[f"constant {number}"] = sys.getrefcount(constant)
    return counts


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in after.items() if count != before[name]}


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            what = os.readlink(f"/proc/self/fd/{name}")
            found[int(name)] = what.partition(":")[0] if ":[" in what else steady(what)
    return found


def digest_of(report: dict[str, Any]) -> tuple[str, bytes]:
    """Return a short name for what must be the same in a report, and all of the report as JSON."""
    data = msgspec.json.encode({name: part for name, part in report.items() if name != "uncollected"})
    return hashlib.sha256(data).hexdigest()[:32], msgspec.json.encode(report)


def commands() -> Iterator[dict[str, Any]]:
    """Yield what is asked for."""
    for line in sys.stdin.buffer:
        yield msgspec.json.decode(line)


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that is printed gets among the answers
    faulthandler.enable()
    runner, kept = Runner(), list[bytes]()
    for each in range(_WARM):  # what is loaded and cached once must not count as left by the first case
        runner.run(make(each, 0))
    for command in commands():
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        if "run" in command:
            kept, digests, uncollected, began = [], [], [], time.process_time()
            packets = runner.packets
            for number in command["run"]:
                faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
                script = make(number, command["seed"], command.get("profile", ""))
                report = runner.run(script)
                digest, data = digest_of(report)
                digests.append(digest)
                uncollected.append(report["uncollected"])
                kept.append(data)
            answer = {
                "digests": digests, "packets": runner.packets - packets, "seconds": time.process_time() - began,
                "bytes": sum(map(len, kept)), "uncollected": uncollected,
            }  # fmt: skip
            answers.write(json.dumps(answer).encode() + b"\n")
        elif "tell" in command:
            answers.write(kept[command["tell"]] + b"\n")
        elif "twin" in command:
            twin = {
                "twin": getattr(seqrpc, "__twin__", "pure"), "python": sys.version.split()[0], "file": seqrpc.__file__,
            }  # fmt: skip
            answers.write(json.dumps(twin).encode() + b"\n")
        else:
            answers.write(digest_of(runner.run(command["script"]))[1] + b"\n")
        faulthandler.cancel_dump_traceback_later()
        answers.flush()


if __name__ == "__main__":
    main()
