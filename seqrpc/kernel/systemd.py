"""Socket activation: sockets that a service manager passed to this process (sd_listen_fds(3))."""

from __future__ import annotations

import os

from seqrpc.errors import AddressError
from seqrpc.kernel.descriptors import OwnedFd

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
