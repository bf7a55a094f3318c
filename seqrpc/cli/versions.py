"""What ``seqrpc --version`` tells: what a report of a fault needs. It does without the extra."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from importlib import metadata
from typing import Final

from seqrpc.cli.program import PROGRAM
from seqrpc.twin import TOLD

_NEEDED: Final = ("msgpack", "msgspec", "uvloop", "click", "rich")

_EXTENSION: Final = "msgpack._cmsgpack"
"""Without it, or where MSGPACK_PUREPYTHON says so, msgpack is Python alone, and takes ten times as long."""


def versions() -> str:
    """Return the versions of seqrpc and of what it stands on, a line each, and which twin runs."""
    system = os.uname()
    lines = [
        f"{PROGRAM} {sys.modules['seqrpc'].__version__}",  # no module imports the package root, which is loaded by then
        f"twin: {TOLD}",
        f"Python {platform.python_version()} ({platform.python_implementation()})",
        *map(_version, _NEEDED),
        f"{system.sysname} {system.release} ({system.machine})",
    ]
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        told = f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name}: not installed"
    if name == "msgpack" and (os.environ.get("MSGPACK_PUREPYTHON") or not importlib.util.find_spec(_EXTENSION)):
        return f"{told} (without its extension)"
    return told
