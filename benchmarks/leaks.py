"""What calls leave behind: ``python -m benchmarks.leaks --calls 1000000``.

For each kind of calls (:mod:`benchmarks.leaking`) some are made first, so that what is made once is there. Then so many
are made, with client and server in this process, and what the process has before and after is compared: references, if
this is a debug build of Python, blocks of memory, objects, bytes and descriptors. It ends with status 1 if there is
more than a few of anything (:data:`benchmarks.footprint.FEW`), or more than one for a thousand calls.

``sys.gettotalrefcount``, which sees a reference too many to None or to a class that lives anyway, is there in debug
builds of Python alone. Debian has one for its own Python, python3.11-dbg. msgpack, msgspec and seqrpc._native have to
be compiled for it: what is compiled for the other Python can be loaded, but does not count its references. Without
touching the system::

    apt-get download python3.11-dbg libpython3.11-dbg libpython3.11-dev libpython3.11-stdlib libpython3.11-minimal
    for each in *.deb; do dpkg-deb -x $each root; done
    export PYTHONHOME=$PWD/root/usr CPATH=$PWD/root/usr/include
    python=$PWD/root/usr/bin/python3.11d
    PYTHONPATH=<where pip is> $python -m pip install --target site --no-binary :all: msgpack msgspec
    PYTHONPATH=site $python <checkout>/native/build.py
    cd <checkout>; PYTHONPATH=$OLDPWD/site:. $python -m benchmarks.leaks --loop asyncio
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import seqrpc
from benchmarks.footprint import NAMES, Footprint, faults, footprint
from benchmarks.leaking import KINDS, Ends, Kind, ends
from seqrpc.twin import TWIN

_FIRST = 2_000
"""Calls that are made before the first look, if so many are made after it; in any case half of that."""

_TURNS = 50
"""Turns of the loop after which what calls started has ended."""


async def _make(kind: Kind, there: Ends, calls: int) -> int:
    """Make so many calls; return how many that were."""
    rounds = max(1, calls // kind.counts)
    numbers = iter(range(rounds))

    async def work() -> None:
        for number in numbers:
            await kind.call(there, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(kind.at_once):
            group.create_task(work())
    await there.connection.call("rpc.ping")
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    return rounds * kind.counts


async def measured(kind: Kind, path: Path, calls: int) -> tuple[int, Footprint]:
    """Return how many calls were made, and what there is more after them."""
    wanted = max(1, int(calls * kind.share))
    async with ends(path) as there:
        await _make(kind, there, min(max(wanted, _FIRST // 2), _FIRST))
        await _make(kind, there, min(wanted, 4 * kind.at_once * kind.counts))
        before = footprint()
        made = await _make(kind, there, wanted)
        return made, footprint().since(before)


def _loop_of(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "uvloop":
        import uvloop  # noqa: PLC0415 - a debug build of Python may do without

        return uvloop.new_event_loop

    def make() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        if name == "eager" and sys.version_info >= (3, 12):
            loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    return make


def _run(work: Coroutine[Any, Any, tuple[int, Footprint]], loop: str) -> tuple[int, Footprint]:
    with asyncio.Runner(loop_factory=_loop_of(loop)) as runner:
        return runner.run(work)


def measure(names: Sequence[str], calls: int, loop: str, tell: Callable[[str], object]) -> list[dict[str, Any]]:
    """Make calls of the kinds, tell of each in a line, and return what was found."""
    logging.getLogger("seqrpc").setLevel(logging.CRITICAL + 1)  # a traceback for each that fails
    found: list[dict[str, Any]] = []
    tell(f"{'kind':<28}{'calls':>9}{'s':>7}" + "".join(f"{name:>13}" for name in NAMES))
    for name in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="seqrpc-") as directory:
            made, grown = _run(measured(KINDS[name], Path(directory, "leaks"), calls), loop)
        if faults(grown, made):  # something may be loaded late, once and for all: a busy machine takes rare paths
            with tempfile.TemporaryDirectory(prefix="seqrpc-") as directory:
                made, grown = _run(measured(KINDS[name], Path(directory, "leaks"), calls), loop)
        wrong = faults(grown, made)
        found.append({"kind": name, "calls": made, "grown": asdict(grown), "faults": wrong})
        figures = "".join(f"{value:>13,}" for value in asdict(grown).values())
        tell(f"{name:<28}{made:>9,}{time.monotonic() - began:>7.0f}{figures}{'  LEAKS' if wrong else ''}")
    return found


def main() -> int:
    """Measure what the arguments say, and return the status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaks", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--calls", type=int, default=100_000, help="of each kind; of some that take long fewer")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "eager"], default="uvloop")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    counts = "counts references" if hasattr(sys, "gettotalrefcount") else "no debug build"
    print(f"seqrpc {seqrpc.__version__}, {TWIN}, Python {sys.version.split()[0]} ({counts}), {options.loop}")
    found = measure(options.kinds, options.calls, options.loop, lambda line: print(line, flush=True))
    if options.json is not None:
        options.json.write_text(json.dumps({"twin": TWIN, "loop": options.loop, "kinds": found}, indent=1) + "\n")
    wrong = [f"{each['kind']}: {', '.join(each['faults'])}" for each in found if each["faults"]]
    print(*wrong or ["nothing is left behind"], sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
