"""A differential fuzzer of the two twins: the same packets and calls to both, and all that they do compared.

Run it in a checkout in which the native twin is built::

    PYTHONPATH=tests:. python -m fuzz.twins --seconds 3600 --seed 7

Two processes run the same scripts, one with ``SEQRPC_PURE=1``. A script is made from the seed and its number. What it
comes to is compared to the byte: what handlers saw, what raw ends received and when, errors, logs, counters, states of
sessions, descriptors and objects that are left. What differs is run again; if it differs each time, the script is
shrunk and written to a file, else it is counted as unsteady (something in it depends on time). Status 1 tells of
differences.

Again::

    python -m fuzz.twins --replay differences/difference-7-4711.json      the script in a file
    python -m fuzz.twins --seed 7 --first 4711 --cases 1                  one case
    python -m fuzz.twins --same --seconds 600                             pure against pure: all differences are chance
    python -m fuzz.twins --tree ../other --same                           this seqrpc against another checkout's
    python -m fuzz.twins --show 4711 --seed 7                             prints a script
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

from fuzz.twins.driver import Twins, difference, hunt
from fuzz.twins.making import PROFILES, make


def main() -> int:
    """Run what the arguments say, and return the status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.twins", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long; by default for ever")
    parser.add_argument("--cases", type=int, default=1 << 60, help="how many at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--profile", choices=PROFILES, default="", help="what scripts mostly have")
    parser.add_argument("--same", action="store_true", help="both pure")
    parser.add_argument("--loose", action="store_true", help="the order of what happens in one step does not count")
    parser.add_argument("--tree", type=Path, help="a checkout, whose seqrpc the second process runs")
    parser.add_argument("--into", type=Path, default=Path("differences"), help="where differences are written")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between lines of figures")
    parser.add_argument("--most", type=int, default=20, help="end after so many differences")
    parser.add_argument("--replay", type=Path, help="run the script in a file")
    parser.add_argument("--show", type=int, help="print the script of this number")
    options = parser.parse_args()
    if options.show is not None:
        print(json.dumps(make(options.show, options.seed, options.profile), indent=1))
        return 0
    with Twins(tree=options.tree, same=options.same, loose=options.loose) as twins:
        found = [worker.twin() for worker in (twins.pure, twins.native)]
        print(*(f"{each['twin']} ({each['file']}, Python {each['python']})" for each in found), sep=" and ", flush=True)
        if not options.same and found[1]["twin"] == "pure":
            print("the native twin is not there: build it, or say --same", file=sys.stderr)
            return 2
        if options.replay is not None:
            return _replay(twins, options.replay)
        with contextlib.suppress(KeyboardInterrupt):
            hunt(
                twins, seed=options.seed, first=options.first, seconds=options.seconds, cases=options.cases,
                most=options.most, profile=options.profile, into=options.into, every=options.every,
            )  # fmt: skip
        print(twins.figures)
        return 1 if twins.figures.differences else 0


def _replay(twins: Twins, path: Path) -> int:
    script = json.loads(path.read_text())["script"]
    one, other = twins.both({"script": script})
    if twins.are_same(one, other):
        print("no difference")
        return 0
    print(*difference(one, other, 200), sep="\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
