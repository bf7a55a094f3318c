"""Which twin runs: the native one, seqrpc._native, or Python alone, which does all of it.

The native one is there if it could be compiled as seqrpc was installed, and takes the plainest packets alone. What it
does not take, and what is not there, is Python's. ``SEQRPC_PURE=1`` in the environment leaves it out, and so does what
keeps objects otherwise than it knows, as another msgspec may. Whoever uses it looks at ``native`` each time.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal

from seqrpc.text import shown

INTERFACE: Final = 7
"""What this Python counts on in seqrpc._native, which has the same number (native/module.c)."""

VARIABLE: Final = "SEQRPC_PURE"
"""The environment variable: anything but nothing and ``0`` leaves the native one out, here and as one is built."""


def load() -> tuple[ModuleType | None, str]:
    """Return the extension module, None if it cannot be used; and why not, in one line, empty if it can.

    It never fails: an extension that is broken, or of other sources, is as good as none.
    """
    if os.environ.get(VARIABLE, "0") not in ("", "0"):
        return None, f"{VARIABLE} is set"
    try:
        module = import_module("seqrpc._native")
    except Exception as exc:  # one of other sources may look for names that are not there any more
        if isinstance(exc, ModuleNotFoundError) and exc.name == "seqrpc._native":
            return None, shown(f"seqrpc._native was not built in {os.path.dirname(__file__)}")
        return None, shown(f"seqrpc._native cannot be loaded: {type(exc).__name__}: {exc}")
    found = getattr(module, "INTERFACE", None)
    if found != INTERFACE:
        return None, shown(f"seqrpc._native was built for another version: its interface is {found}, not {INTERFACE}")
    return module, ""


def leave_out(reason: str) -> None:
    """Have Python do all of it from now on, for a reason: one line, as it may be shown."""
    global native, _reason
    native, _reason = None, reason


native, _reason = load()
"""The extension module, None if Python does it alone; and why that is so, in one line, empty if it is not."""

_USER: Final = "seqrpc.aio.dispatch"
"""What gives the native one the classes that it works with, and leaves it out if it cannot take them."""

if TYPE_CHECKING:
    TWIN: Literal["native", "pure"]
    """Which of the two runs; ``seqrpc.__twin__``."""

    REASON: str
    """Why it is the pure one, in one line; empty if it is the native one."""

    TOLD: str
    """Which it is for people, with the reason."""
else:

    def __getattr__(name: str) -> object:
        """Tell which of the two runs. It is known only when the native one has been taken into use."""
        if name not in ("TWIN", "REASON", "TOLD"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if native is not None:
            import_module(_USER)
        if name == "REASON":
            return _reason
        twin = "pure" if native is None else "native"
        return f"{twin} ({_reason})" if name == "TOLD" and _reason else twin
