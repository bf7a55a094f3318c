"""What ``MODULE:NAME`` names."""

from __future__ import annotations

import functools
import os
import re
import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from seqrpc.cli.endings import FAILED, Ending, misused
from seqrpc.cli.faults import located, place_of
from seqrpc.text import offered, shown

_NAMED: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")

_ADDRESSES: Final = ("fd:", "systemd:", "exec:")


def is_named(text: str) -> bool:
    """Return whether a text is of that form, and no address."""
    return _NAMED.fullmatch(text) is not None and not text.startswith(_ADDRESSES)


def named(text: str) -> tuple[str, str]:
    """Return the module and the name.

    Raises:
        Ending: it is something else.
    """
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise misused(f"a service is named as MODULE:CLASS, got {text!r}")
    return module, name


def thing_at(module: str, name: str) -> Any:
    """Return what is at a name in a module, which is looked for in the working directory, too.

    Raises:
        Ending: it is not there, or the module fails.
    """
    with located():
        imported = _imported(module)
    try:
        return functools.reduce(getattr, name.split("."), imported)
    except AttributeError:
        raise misused(f"{module} has no {name!r}{offered(name, vars(imported))}") from None


def _imported(module: str) -> ModuleType:
    missing = f"there is no module {module}, neither here nor on the path{_dotted(module)}"
    if not all(map(str.isidentifier, module.split("."))):
        raise misused(missing)
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(module)
    except ModuleNotFoundError as exc:
        parents = [module[:at] for at, char in enumerate(module) if char == "."]
        if exc.name not in (module, *parents):
            raise Ending(FAILED, f"{place_of(exc)}{module} imports {exc.name}, which is not there") from exc
        raise misused(missing) from None
    except SystemExit as exc:  # of a script, or a guess at what it needs: its status is not this program's
        why = shown(repr(exc.code))
        told = f"{place_of(exc)}{module} ends the program where it is imported: SystemExit({why})"
        raise Ending(FAILED, told) from exc


def _dotted(path: str) -> str:
    """Return how a module is written whose file was named."""
    name = path.removeprefix("./").removesuffix(".py").strip("/").replace("/", ".")
    return f"; a module is written as {name}" if name != path else ""
