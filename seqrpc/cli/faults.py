"""What went wrong in code that is somebody else's: a module that is imported, a class that is made."""

from __future__ import annotations

import contextlib
import os
import sysconfig
import traceback
from collections.abc import Iterator
from typing import Final

from seqrpc.cli.endings import FAILED, Ending
from seqrpc.text import shown

_OURS: Final = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")

_INSTALLED: Final = tuple(
    os.path.join(path, "") for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib")
)


@contextlib.contextmanager
def located() -> Iterator[None]:
    """Run code of somebody else's: if it fails, the command does, and tells in which line of that code.

    Raises:
        Ending: it failed. The exception is its cause.
    """
    try:
        yield
    except Ending:
        raise
    except Exception as exc:
        raise Ending(FAILED, fault_of(exc)) from exc


def fault_of(error: BaseException) -> str:
    """Return an error as Python tells it, after the place where it arose."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        place = f"{_near(error.filename)}:{error.lineno}: "
        return f"{place}{type(error).__name__}: {shown(error.msg)}"
    return f"{place_of(error)}{type(error).__name__}: {shown(error)}"


def place_of(error: BaseException) -> str:
    """Return where an error arose, as it is put before what it says: the innermost line of the user's own files.

    That is none of seqrpc's, of Python's, or of what is installed beside them, as long as there is another one. It is
    nothing if there is no line at all.
    """
    frames = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_OURS, "<"))
    ]
    own = [each for each in frames if not _is_installed(each[0])]
    for file, line in reversed(own or frames):
        return f"{_near(file)}:{line}: "
    return ""


def _is_installed(file: str) -> bool:
    return file.startswith(_INSTALLED) or not {"site-packages", "dist-packages"}.isdisjoint(file.split(os.sep))


def _near(file: str) -> str:
    """Return a path as it is written here, if it is a path below."""
    try:
        here = os.path.join(os.getcwd(), "")
    except OSError:  # the working directory is gone
        return file
    return file.removeprefix(here)
