"""The service manager: sockets that it passed to us (sd_listen_fds(3)), and what we tell it (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time

from seqrpc.errors import AddressError
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import NOTIFY_TIMEOUT
from seqrpc.logs import get_logger

_log = get_logger("seqrpc.systemd")

_FIRST_FD = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")

_passed: dict[str, list[int]] = {}


def take_passed_socket(name: str) -> OwnedFd:
    """Return the next socket that was passed under ``name``; the caller owns it.

    The first call in a process takes over all sockets that were passed: it makes every descriptor
    close-on-exec, and removes the ``LISTEN_*`` variables so that children do not take them for theirs.

    Raises:
        AddressError: no socket of that name is left; the message names those that are.
    """
    _take_in()
    fds = _passed.get(name)
    if not fds:
        left = ", ".join(sorted(known for known, rest in _passed.items() if rest)) or "none"
        raise AddressError(f"the service manager passed no socket named {name!r} (passed and not yet used: {left})")
    return OwnedFd(fds.pop(0))


def _take_in() -> None:
    """Own the sockets that the environment names, if they are meant for this process."""
    values = {variable: os.environ.pop(variable, "") for variable in _VARIABLES}
    if not _is_meant_for_us(values["LISTEN_PID"], values["LISTEN_PIDFDID"]):
        return
    try:
        count = int(values["LISTEN_FDS"])
    except ValueError:
        raise AddressError(f"LISTEN_FDS is not a number: {values['LISTEN_FDS']!r}") from None
    names = values["LISTEN_FDNAMES"].split(":") if values["LISTEN_FDNAMES"] else []
    for index in range(count):
        fd = _FIRST_FD + index
        try:
            os.set_inheritable(fd, False)
        except OSError as exc:
            raise AddressError(f"LISTEN_FDS says {count}, but descriptor {fd} is not open") from exc
        name = names[index] if index < len(names) and names[index] else "unknown"  # as sd_listen_fds_with_names(3)
        _passed.setdefault(name, []).append(fd)


def _is_meant_for_us(pid: str, pidfd_id: str) -> bool:
    """Check ``LISTEN_PID`` and, because pids are reused, ``LISTEN_PIDFDID`` if the manager sets it (systemd 257)."""
    if pid != str(os.getpid()):
        return False
    if not pidfd_id or not hasattr(os, "pidfd_open"):
        return True
    with OwnedFd(os.pidfd_open(os.getpid())) as pidfd:
        return str(os.fstat(pidfd.fileno()).st_ino) == pidfd_id


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
