"""The service manager: sockets that it passed to us (sd_listen_fds(3)), and what we tell it (sd_notify(3))."""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections.abc import Sequence

from seqrpc.errors import AddressError
from seqrpc.kernel import ancillary
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import MAX_DESCRIPTORS, NOTIFY_TIMEOUT
from seqrpc.logs import get_logger
from seqrpc.text import shown

_log = get_logger("seqrpc.systemd")

_FIRST_FD = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_COUNT = re.compile(r"[0-9]{1,6}")
_NUMBER = re.compile(r"[0-9]{1,20}")
_MOST_NAME = 100  # characters that are shown of what the environment says
_MOST_STATUS = 500  # characters; a message to the manager has 4,096 bytes at most (its NOTIFY_BUFFER_MAX)
_MOST_FDNAME = 255  # characters (systemd's fdname_is_valid)

_passed: dict[str, list[int]] = {}
"""The sockets of each name that nobody has taken yet; a name whose sockets were all taken stays."""

_trouble: list[str] = []
"""Why there are no sockets, or not all, once that is known: the environment tells it only once."""


def take_passed_socket(name: str) -> OwnedFd:
    """Return the next socket that was passed under ``name``; the caller owns it.

    The first call in a process takes over all sockets that were passed: it makes every descriptor
    close-on-exec, and removes the ``LISTEN_*`` variables so that children do not take them for theirs.

    Raises:
        AddressError: no socket of that name is left; the message names those that are, or says why there are none.
    """
    values = {variable: os.environ.pop(variable, "") for variable in _VARIABLES}
    if any(values.values()):
        _trouble[:] = [trouble] if (trouble := _take_in(values)) else []
    fds = _passed.get(name)
    if not fds or _trouble:
        raise AddressError(f"systemd:{name}: {_lack_of(name)}")
    return OwnedFd(fds.pop(0))


def _lack_of(name: str) -> str:
    """Return why there is no socket of this name."""
    if _trouble:
        return _trouble[0]
    if not _passed:
        return (
            "the service manager passed no socket to this process (LISTEN_FDS is not set):"
            " start it by its .socket unit, or give it a path as its address"
        )
    left = ", ".join(sorted(shown(known, _MOST_NAME) for known, rest in _passed.items() if rest)) or "none"
    if name in _passed:
        return f"all sockets of that name are in use already (passed and not yet used: {left})"
    return f"the service manager passed no socket of that name (passed and not yet used: {left})"


def _take_in(values: dict[str, str]) -> str | None:
    """Own the sockets that the environment names, if they are meant for this process; return what is wrong."""
    trouble = _whose_they_are(values["LISTEN_PID"], values["LISTEN_PIDFDID"])
    if trouble is not None:
        return trouble
    if not _COUNT.fullmatch(values["LISTEN_FDS"]):
        return f"LISTEN_FDS is not the number of sockets that were passed: {shown(values['LISTEN_FDS'])!r}"
    count = int(values["LISTEN_FDS"])
    names = values["LISTEN_FDNAMES"].split(":") if values["LISTEN_FDNAMES"] else []
    for index in range(count):
        fd = _FIRST_FD + index
        try:
            os.set_inheritable(fd, False)
        except OSError:
            return f"LISTEN_FDS says {count}, but descriptor {fd} is not open"
        name = names[index] if index < len(names) and names[index] else "unknown"  # as sd_listen_fds_with_names(3)
        _passed.setdefault(name, []).append(fd)
    return None


def _whose_they_are(pid: str, pidfd_id: str) -> str | None:
    """Return why the sockets are not for this process; None if they are.

    ``LISTEN_PID`` says it and, because pids are reused, ``LISTEN_PIDFDID`` if the manager sets it (systemd 257).
    """
    if not pid:
        return "LISTEN_FDS is set, but LISTEN_PID does not say for which process"
    if pid != str(os.getpid()):
        return (
            f"the sockets were passed to process {shown(pid, _MOST_NAME)} (LISTEN_PID), and this is process"
            f" {os.getpid()}: a shell or another wrapper that starts this program must replace itself with it (exec)"
        )
    if not pidfd_id or _own_pidfd_id() in (None, pidfd_id):
        return None
    return f"the sockets were passed to another process that had the number {pid}, too (LISTEN_PIDFDID)"


def _own_pidfd_id() -> str | None:
    """Return the id of this process, which no other has until the machine starts anew: the inode of its pidfd.

    None where there is none: before Linux 6.9 all pidfds had one inode, which they shared with what else has no file,
    and elsewhere than on Linux, and where a filter forbids to ask. ``LISTEN_PID`` says it all then.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        with OwnedFd(os.pidfd_open(os.getpid())) as pidfd, OwnedFd(os.eventfd(0, os.EFD_CLOEXEC)) as nameless:
            status, shared = os.fstat(pidfd.fileno()), os.fstat(nameless.fileno())
    except OSError:
        return None
    return None if status.st_dev == shared.st_dev else str(status.st_ino)


class Manager:
    """The service manager that started this process, for the daemon to say how it is; there may be none.

    A word that does not arrive is logged, and nothing else happens: the daemon does its work all the same. A copy in a
    forked child says nothing.
    """

    def __init__(self) -> None:
        """Take ``NOTIFY_SOCKET`` and ``WATCHDOG_*`` out of the environment, as sd_notify(3) does if it is asked to.

        A child that inherited them, and is a daemon itself, would say "stopping" in this daemon's name.
        """
        self._where = os.environ.pop("NOTIFY_SOCKET", "")
        self._pid = os.getpid()
        watchdog = _watchdog_seconds(os.environ.pop("WATCHDOG_PID", ""), os.environ.pop("WATCHDOG_USEC", ""))
        self.watchdog = watchdog if self._where else None
        """Seconds within which it wants to hear the next :meth:`ping`, or it ends this process; None if it wants none
        (sd_watchdog_enabled(3))."""

    @property
    def is_there(self) -> bool:
        """Whether there is one that listens to this process."""
        return bool(self._where)

    def ready(self) -> None:
        """Say that the daemon has started, or has finished reloading."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Say that the daemon reloads until :meth:`ready`, and since when: managers compare that with their signal."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the daemon begins to stop."""
        self._tell("STOPPING=1")

    def report(self, status: str | None, *, ping: bool) -> bool:
        """Say what people are to read, and that the daemon works, in one message; without waiting.

        Args:
            status: a line of text; None leaves the last one.
            ping: whether to say that the daemon works (``WATCHDOG=1``).

        Returns:
            Whether it was told.
        """
        words = ["WATCHDOG=1"] if ping else []
        if status is not None:
            words.append(f"STATUS={shown(status, _MOST_STATUS)}")
        return self._tell(*words, patience=0.0)

    def main_pid(self, pid: int) -> None:
        """Say which process is the daemon from now on."""
        self._tell(f"MAINPID={pid}")

    def environment(self) -> dict[str, str]:
        """Return the variables with which a process that is to be the daemon in this one's place tells the manager."""
        if not self._where:
            return {}
        watchdog = {} if self.watchdog is None else {"WATCHDOG_USEC": str(round(self.watchdog * 1e6))}
        return {"NOTIFY_SOCKET": self._where, **watchdog}

    def store(self, name: str, fds: Sequence[int], *, poll: bool = True) -> bool:
        """Have the manager keep duplicates of descriptors, and pass them to the daemon when it starts it again.

        It keeps as many as ``FileDescriptorStoreMax=`` of the unit says, by default none, and tells nobody what it
        drops. They come back as sockets do: :func:`take_passed_socket`.

        Args:
            name: under which they come back: 1 to 255 printable characters of ASCII without a colon.
            fds: borrowed.
            poll: False has it keep a socket, too, whose other end is gone.

        Returns:
            Whether it was told; False where there is no manager.

        Raises:
            ValueError: the name is none.
        """
        words = ["FDSTORE=1", _fdname(name)] + ([] if poll else ["FDPOLL=0"])
        parts = [fds[start : start + MAX_DESCRIPTORS] for start in range(0, len(fds), MAX_DESCRIPTORS)]
        return self.is_there and all(self._tell(*words, fds=part) for part in parts)

    def forget(self, name: str) -> bool:
        """Have the manager close all that it keeps under a name; return whether it was told.

        Raises:
            ValueError: the name is none.
        """
        return self._tell("FDSTOREREMOVE=1", _fdname(name))

    def _tell(self, *words: str, fds: Sequence[int] = (), patience: float | None = None) -> bool:
        if not self._where or self._pid != os.getpid():
            return False
        try:
            _send(self._where, "\n".join(words).encode(), fds, NOTIFY_TIMEOUT if patience is None else patience)
        except OSError as exc:
            _log.warning("! the service manager was not told %s: %s", words[0], exc)
            return False
        return True


def _watchdog_seconds(pid: str, microseconds: str) -> float | None:
    """Return within how many seconds the manager wants to hear from this process; None if it does not."""
    if not microseconds or (pid and pid != str(os.getpid())):
        return None
    if not _NUMBER.fullmatch(microseconds) or not int(microseconds):
        _log.warning("! WATCHDOG_USEC is not a number of microseconds: %s", shown(repr(microseconds), _MOST_NAME))
        return None
    return int(microseconds) / 1e6


def _fdname(name: str) -> str:
    """Return what names descriptors in a message."""
    if not name.isascii() or not name.isprintable() or ":" in name or not 1 <= len(name) <= _MOST_FDNAME:
        raise ValueError(f"a name of descriptors is printable ASCII without ':', of 1 to 255 characters, got {name!r}")
    return f"FDNAME={name}"


def _send(where: str, message: bytes, fds: Sequence[int], patience: float) -> None:
    """Send a datagram to the manager's address.

    Raises:
        OSError: it cannot be sent, or the manager does not take it within ``patience`` seconds.
    """
    if where[0] not in "/@":
        raise OSError(f"{where!r} is neither a path nor an abstract name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        # A socket that is not connected always counts as writable (unix_dgram_poll): waiting for room would spin.
        sock.connect("\0" + where[1:] if where[0] == "@" else where)
        room = select.poll()
        room.register(sock, select.POLLOUT)
        ends = time.monotonic() + patience
        while True:
            try:
                ancillary.send(sock, message, fds)
            except BlockingIOError:
                left = ends - time.monotonic()
                if left <= 0 or not room.poll(1000 * left):
                    raise TimeoutError("timed out") from None
            else:
                return
