"""Files that results are saved in: opened before a call is made, so that nothing was done if one cannot be written."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import IO, NamedTuple


class _Opened(NamedTuple):
    path: str
    fd: int
    made: str
    """Where it was made, without links; nothing if it was there before."""


class Saves:
    """Files, taken in their order.

    What is in them stays until one is taken; those that were made and are not taken are removed.

    Args:
        paths: where they are, or are to be.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Open nothing yet."""
        self._paths = [*paths]
        self._opened: list[_Opened] = []

    def __bool__(self) -> bool:
        """Return whether one is left."""
        return bool(self._paths)

    @property
    def path(self) -> str:
        """The next."""
        return self._paths[0]

    def open(self) -> None:
        """Open all; as the user that this process is then.

        Raises:
            OSError: one cannot be opened.
        """
        for path in self._paths:
            self._opened.append(_opened(path))

    def take(self) -> IO[bytes]:
        """Return the next file, which is the caller's, empty.

        Raises:
            OSError: it cannot be emptied.
        """
        path = self._paths.pop(0)
        fd = self._opened.pop(0).fd if self._opened else _opened(path).fd
        file = open(fd, "wb")  # noqa: SIM115 - the caller's
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                os.ftruncate(fd, 0)
        except BaseException:
            file.close()
            raise
        return file

    def close(self) -> None:
        """Close those that were not taken, and remove what was made for them, if nobody has written to it since."""
        while self._opened:
            _path, fd, made = self._opened.pop()
            with contextlib.suppress(OSError):
                ours = os.fstat(fd)
                if made and ours.st_size == 0 and os.path.samestat(ours, os.lstat(made)):
                    os.unlink(made)
            os.close(fd)


def _opened(path: str) -> _Opened:
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY
    try:
        return _Opened(path, os.open(path, flags), "")
    except FileNotFoundError:  # or it is a link that leads nowhere yet
        made = os.path.realpath(path)
        try:
            return _Opened(path, os.open(made, flags | os.O_CREAT | os.O_EXCL, 0o666), made)
        except FileExistsError:  # somebody else has just made it
            return _Opened(path, os.open(path, flags), "")
        except OSError as exc:
            exc.filename = path
            raise
