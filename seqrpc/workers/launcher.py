"""What becomes another program: it gives up what it is to give up, and has the socket where programs look for it."""

from __future__ import annotations

import os
import sys
from typing import Final

import msgspec

from seqrpc.kernel.privileges import Restraints, give_up

FD: Final = 3
"""Where programs find the socket."""

_CANNOT: Final = 126
"""The status of a program that could not be started, as of shells."""


def main() -> None:
    """Become the program in ``sys.argv``, after the restraints."""
    _name, told, *argv = sys.argv
    number = int(os.environ["SEQRPC_FD"])
    try:
        give_up(msgspec.json.decode(told, type=Restraints))
        if number != FD:
            os.dup2(number, FD)
            os.close(number)
        else:
            os.set_inheritable(FD, True)
        os.environ["SEQRPC_FD"] = str(FD)
        os.execvp(argv[0], argv)  # noqa: S606 - the program that the parent has named
    except (OSError, ValueError, OverflowError) as exc:  # the latter of setrlimit(2)
        sys.stderr.write(f"cannot start {argv[0]}: {exc}\n")
    sys.exit(_CANNOT)
