"""The service manager: sockets that it passed to us (sd_listen_fds(3)), and what we tell it (sd_notify(3))."""

from __future__ import annotations

import os
import re
import socket
import time

from seqrpc.errors import AddressError
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import NOTIFY_TIMEOUT
from seqrpc.logs import get_logger
from seqrpc.text import shown

_log = get_logger("seqrpc.systemd")

_FIRST_FD = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_COUNT = re.compile(r"[0-9]{1,6}")
_MOST_NAME = 100  # characters that are shown of what the environment says

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
    if not pidfd_id or not hasattr(os, "pidfd_open"):
        return None
    with OwnedFd(os.pidfd_open(os.getpid())) as pidfd:
        if str(os.fstat(pidfd.fileno()).st_ino) == pidfd_id:
            return None
    return f"the sockets were passed to another process that had the number {pid}, too (LISTEN_PIDFDID)"


class Manager:
    """The service manager that started this process, for the daemon to say how it is; there may be none.

    A word that does not arrive is logged, and nothing else happens: the daemon does its work all the same.
    """

    def __init__(self) -> None:
        """Take ``NOTIFY_SOCKET`` out of the environment, as sd_notify(3) does with ``unset_environment``.

        A child that inherited it, and is a daemon itself, would say "stopping" in this daemon's name.
        """
        self._where = os.environ.pop("NOTIFY_SOCKET", "")

    def ready(self) -> None:
        """Say that the daemon has started, or has finished reloading."""
        self._tell("READY=1")

    @property
    def where(self) -> str:
        """The manager's address, empty if there is none: for a process that is to speak in this one's place."""
        return self._where

    def main_pid(self, pid: int) -> None:
        """Say which process is the daemon from now on."""
        self._tell(f"MAINPID={pid}")

    def reloading(self) -> None:
        """Say that the daemon reloads until :meth:`ready`, and since when: managers compare that with their signal."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the daemon begins to stop."""
        self._tell("STOPPING=1")

    def _tell(self, *assignments: str) -> None:
        if not self._where:
            return
        try:
            _send(self._where, "\n".join(assignments).encode())
        except OSError as exc:
            _log.warning("! the service manager was not told %s: %s", assignments[0], exc)


def _send(where: str, message: bytes) -> None:
    """Send a datagram to the manager's address.

    Raises:
        OSError: it cannot be sent, or the manager does not take it within ``NOTIFY_TIMEOUT``.
    """
    if where[0] not in "/@":
        raise OSError(f"{where!r} is neither a path nor an abstract name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(NOTIFY_TIMEOUT)
        # A socket that is not connected always counts as writable (unix_dgram_poll): waiting for room would spin.
        sock.connect("\0" + where[1:] if where[0] == "@" else where)
        sock.send(message)
