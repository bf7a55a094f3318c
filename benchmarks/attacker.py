"""The hostile caller of ``python -m benchmarks.hostile``: another user, who attacks until told to stop.

Commands are lines of JSON: ``attack``; ``busy``, which is to be as busy without a word to the server; and ``stop``,
which is answered with what was sent and what came of it. It works for 5 ms and then rests for as long, so that it
takes half of a processor at most, busy or attacking.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Callable

from benchmarks.attacks import ATTACKS
from benchmarks.behaviours import BEHAVIOURS
from benchmarks.processes import become_other
from benchmarks.serving import many_files

ALL = ATTACKS | {f"peer-{name}": behaviour for name, behaviour in BEHAVIOURS.items()}
"""Every attack by its name."""

WORKS = 0.005
"""Seconds of a burst, and of the rest after it."""


def _nothing() -> None:
    """Be busy."""


def _until_told(step: Callable[[], None]) -> None:
    """Go on until there is a command."""
    while not select.select([sys.stdin], [], [], 0)[0]:
        end = time.monotonic() + WORKS
        while time.monotonic() < end:
            step()
        time.sleep(WORKS)


def main() -> None:
    """Do as told until the standard input ends."""
    name, address = sys.argv[1:]
    many_files()
    become_other()
    attack = ALL[name](address)
    print(json.dumps({}), flush=True)
    with open(0, "rb", buffering=0) as commands:  # a buffer would hide the next one from select
        while line := commands.readline():
            command = json.loads(line)["do"]
            if command == "stop":
                print(json.dumps(dict(attack.answers)), flush=True)
            else:
                _until_told(attack.step if command == "attack" else _nothing)


if __name__ == "__main__":
    main()
