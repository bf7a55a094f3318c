"""Noticing that a file of an imported module has changed, and beginning the program anew in the same process."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NoReturn

INTERVAL: Final = 0.25
"""Seconds between two looks: soon enough for somebody who has saved a file. Some hundred files take 1 ms."""

QUIET_SECONDS: Final = 0.5
"""For which none of the program's own files changes, once they have been installed anew."""

MOST_SECONDS: Final = 60.0
"""That such an installation may take."""

_OWN: Final = frozenset({"__main__", "click", "msgpack", "msgspec", "rich", "seqrpc", "uvloop"})

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
    for cause in _causes(error):
        files += [frame.filename for frame in traceback.extract_tb(cause.__traceback__)]
        if isinstance(cause, SyntaxError) and cause.filename is not None:
            files.append(cause.filename)
    return [file for file in files if os.path.isfile(file)]


def missed_by(error: BaseException) -> list[str]:
    """Return the files for want of which an error arose: where a module would be, and what could not be opened."""
    files: list[str] = []
    for cause in _causes(error):
        if isinstance(cause, FileNotFoundError) and isinstance(cause.filename, str):
            files.append(cause.filename)
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            path = cause.name.replace(".", os.sep)
            ends = (f"{path}.py", os.path.join(path, "__init__.py"))
            files += [os.path.join(place, end) for place in sys.path for end in ends]
    return [*dict.fromkeys(files)]


def come_back(error: BaseException) -> str | None:
    """Return the file of a module that an error missed, and that is there now; None if it is not."""
    names = [cause.name for cause in _causes(error) if isinstance(cause, ModuleNotFoundError) and cause.name]
    importlib.invalidate_caches()
    for name in names:
        with contextlib.suppress(Exception):  # of the packages that it is in
            spec = importlib.util.find_spec(name)
            if spec is not None:
                return spec.origin or name
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    known: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in known:
        known.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def own_files() -> list[str]:
    """Return the files without which this program does not begin: its own, and those of what it needs."""
    modules = [module for name, module in [*sys.modules.items()] if name.partition(".")[0] in _OWN]
    files = (getattr(module, "__file__", None) for module in modules)
    return sorted({file for file in files if isinstance(file, str)})


def wait_for_own_files(changed: str, *, quiet: float = QUIET_SECONDS, most: float = MOST_SECONDS) -> None:
    """Wait until the program is whole, if what has changed is a part of it: it is being installed anew.

    Args:
        changed: the file that has changed.
        quiet: seconds for which nothing changes any more.
        most: seconds after which it is taken as it is.
    """
    files = own_files()
    if changed not in files:
        return
    needed = {*files} & {getattr(sys.modules[name], "__file__", "") for name in ("__main__", "seqrpc")}
    end = time.monotonic() + most
    known, since = None, time.monotonic()
    while (now := time.monotonic()) < end:
        versions = [version_of(file) for file in files]
        if versions != known or not all(map(os.path.exists, needed)):
            known, since = versions, now
        elif now - since >= quiet:
            return
        time.sleep(INTERVAL)


def execute_anew() -> NoReturn:
    """Begin this program anew, as it was begun, in this process."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this program itself
