"""What the program is called, and what it says where the extra is missing. It loads nothing else."""

from __future__ import annotations

import sys
from typing import Final

PROGRAM: Final = "seqrpc"

COMPLETION: Final = "_SEQRPC_COMPLETE"
"""The environment variable by which shells ask for completion."""

_INSTALL: Final = "pip install 'seqrpc[cli]', or in a checkout '.[cli]'"

_EXTRA: Final = ("click", "rich")


def is_extra(exc: BaseException) -> bool:
    """Return whether what was not found is a part of the extra."""
    return isinstance(exc, ModuleNotFoundError) and exc.name is not None and exc.name.partition(".")[0] in _EXTRA


def without(exc: ModuleNotFoundError) -> int:
    """Say what to install, if it is the extra that is missing; return the exit status.

    Raises:
        ModuleNotFoundError: it is something else.
    """
    if not is_extra(exc):
        raise exc
    sys.stderr.write(f"{PROGRAM}: {exc.name} is not there, which the command line needs: {_INSTALL}\n")
    return 2
