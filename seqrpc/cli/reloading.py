"""Noticing that a file of an imported module has changed, and beginning the program anew in the same process."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

INTERVAL: Final = 0.25
"""Seconds between two looks: soon enough for somebody who has saved a file. Some hundred files take 1 ms."""

Version = tuple[int, int, int] | None
"""What of a file changes when it is written or replaced; None if it is not there."""


def imported_files() -> list[str]:
    """Return the files of all modules that are loaded."""
    files = (getattr(module, "__file__", None) for module in [*sys.modules.values()])
    return sorted({file for file in files if isinstance(file, str)})


def version_of(path: str) -> Version:
    """Return what a file is now."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class Watch:
    """Looks whether files change, from the moment at which it hears of each."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self.changed: str | None = None
        """The file that has changed first."""
        self._known: dict[str, Version] = {}
        self._stop = threading.Event()

    def look(self, more: Iterable[str] = ()) -> str | None:
        """Look at the files of what is loaded now, and at some more; return one that has changed, if one has."""
        for path in (*imported_files(), *more):
            now = version_of(path)
            if self._known.setdefault(path, now) != now:
                self.changed = path
                return path
        return None

    def begin(self, tell: Callable[[], object]) -> None:
        """Look from now on, in a thread, and tell once when something has changed."""
        self.look()

        def work() -> None:
            while not self._stop.wait(INTERVAL):
                if self.look() is not None:
                    tell()
                    return

        threading.Thread(target=work, name="seqrpc-reload", daemon=True).start()

    def end(self) -> None:
        """Look no more."""
        self._stop.set()

    def wait(self, more: Iterable[str] = ()) -> None:
        """Look until something changes, at some more files, too."""
        while self.look(more) is None:
            self._stop.wait(INTERVAL)


def files_of(error: BaseException) -> list[str]:
    """Return the files in which an error arose, which is in none of the modules if it was an import that failed."""
    files: list[str] = []
    known: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in known:
        known.add(id(cause))
        files += [frame.filename for frame in traceback.extract_tb(cause.__traceback__)]
        if isinstance(cause, SyntaxError) and cause.filename is not None:
            files.append(cause.filename)
        cause = cause.__cause__ or cause.__context__
    return [file for file in files if os.path.isfile(file)]


def place_of(error: BaseException) -> str:
    """Return where an error arose, as it is put before what it says."""
    if isinstance(error, SyntaxError):
        return ""  # it says so itself
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""


def execute_anew() -> NoReturn:
    """Begin this program anew, as it was begun, in this process."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this program itself
