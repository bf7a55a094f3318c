"""Which twin runs: the native one, seqrpc._native, or Python alone, which does all of it."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import Final

from seqrpc.text import shown

INTERFACE: Final = 1
"""What this Python counts on in seqrpc._native, which has the same number (native/module.c)."""


def load() -> tuple[ModuleType | None, str]:
    """Return the extension module, if it can be used, and why it cannot."""
    if os.environ.get("SEQRPC_PURE", "0") not in ("", "0"):
        return None, "SEQRPC_PURE is set"
    try:
        module = import_module("seqrpc._native")
    except ModuleNotFoundError as exc:
        if exc.name == "seqrpc._native":
            return None, "seqrpc._native was not built"
        return None, shown(f"seqrpc._native cannot be loaded: {exc}")
    except ImportError as exc:
        return None, shown(f"seqrpc._native cannot be loaded: {exc}")
    found = getattr(module, "INTERFACE", None)
    if found != INTERFACE:
        return None, shown(f"seqrpc._native was built for another version: its interface is {found}, not {INTERFACE}")
    return module, ""


native, REASON = load()
"""The extension module, None if Python does it alone; and why that is so, in one line, empty if it is not."""

TWIN: Final = "pure" if native is None else "native"
"""Which of the two runs."""
