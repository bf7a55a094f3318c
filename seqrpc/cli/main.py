"""Where the program begins. What it needs is loaded only now, to say what is missing."""

from __future__ import annotations

import sys
from typing import NoReturn

from seqrpc.cli.program import without


def main() -> NoReturn:
    """Be the command ``seqrpc``."""
    try:
        from seqrpc.cli.commands import run  # noqa: PLC0415 - it may not be there
    except ModuleNotFoundError as exc:
        sys.exit(without(exc))
    sys.exit(run(sys.argv[1:]))
