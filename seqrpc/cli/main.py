"""Where the program begins. What it needs is loaded only now, to say what is missing."""

from __future__ import annotations

import sys
from typing import NoReturn

from seqrpc.cli.program import is_extra, without


def main() -> NoReturn:
    """Be the command ``seqrpc``."""
    try:
        from seqrpc.cli.commands import run  # noqa: PLC0415 - it may not be there
    except ModuleNotFoundError as exc:
        if is_extra(exc) and sys.argv[1:] == ["--version"]:  # for reports, which those without the extra write, too
            from seqrpc.cli.versions import versions  # noqa: PLC0415 - seldom needed

            sys.stdout.write(f"{versions()}\n")
            sys.exit()
        sys.exit(without(exc))
    sys.exit(run(sys.argv[1:]))
