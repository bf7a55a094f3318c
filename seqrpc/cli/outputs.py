"""Files that commands write: whole, or as they were before."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile


def write_whole(path: str, text: str) -> None:
    """Write a text into a file, in UTF-8; what was there before stays until all of it is on the disk.

    The file is replaced, with the mode and the owner of the one that was there; where a link leads to is replaced, not
    the link. What is no regular file, as a pipe, or is where none can be made, is written to as it is.

    Raises:
        OSError: it cannot be written.
        UnicodeEncodeError: the text has half of a surrogate pair.
    """
    data = text.encode()
    target = os.path.realpath(path)
    before = _status_of(target)
    if before is not None and (not stat.S_ISREG(before.st_mode) or not os.access(os.path.dirname(target), os.W_OK)):
        with open(path, "wb") as file:
            file.write(data)
        return
    try:
        fd, temporary = tempfile.mkstemp(prefix=".seqrpc-", dir=os.path.dirname(target))
    except OSError as exc:
        exc.filename = path  # and not that of a file which nobody asked for
        raise
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
            if before is not None:
                with contextlib.suppress(PermissionError):  # it becomes that of whoever writes
                    os.fchown(fd, before.st_uid, before.st_gid)
            os.fchmod(fd, _usual_mode() if before is None else stat.S_IMODE(before.st_mode) & 0o777)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _status_of(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _usual_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
