"""The sockets on this machine that somebody listens at, as the kernel tells (proc_net(5), ``/proc/net/unix``)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from typing import Final

from seqrpc.errors import AddressError
from seqrpc.kernel.addresses import AbstractAddress, Address, PathAddress, parse_address

TABLE: Final = "/proc/net/unix"

_LINE: Final = re.compile(
    rb"[0-9a-f]+: [0-9A-F]{8} [0-9A-F]{8} (?P<flags>[0-9A-F]{8}) (?P<type>[0-9A-F]{4}) [0-9A-F]{2} +\d+ (?P<name>.+)"
)

_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON
_SEQPACKET: Final = 5


def listeners(table: bytes) -> list[Address]:
    """Return the addresses in a table of the kernel's, each once, in their order.

    A socket that was bound to a relative path is left out: nobody knows relative to what. A name with a line break in
    it makes lines that are none.

    Args:
        table: the content of :data:`TABLE`.
    """
    found: dict[Address, None] = {}
    for line in table.split(b"\n")[1:]:
        parts = _LINE.fullmatch(line)
        if parts is None or int(parts["type"], 16) != _SEQPACKET or not int(parts["flags"], 16) & _ACCEPTS:
            continue
        name = parts["name"]
        if name.startswith(b"@") and 1 < len(name) <= 108:  # NUL bytes inside are shown as "@", too
            found[AbstractAddress(name[1:])] = None
        elif name.startswith(b"/") and not name.startswith(b"/proc/self/"):
            found[PathAddress(os.fsdecode(name))] = None
    return [*found]


def here() -> list[Address]:
    """Return where somebody listens on this machine, as far as this process's network namespace goes.

    Raises:
        OSError: the kernel does not tell.
    """
    with open(TABLE, "rb") as file:
        return listeners(file.read())


def named(paths: Iterable[str]) -> list[Address]:
    """Return the addresses that are written, and for a directory those of the sockets in it.

    Raises:
        AddressError: one cannot be read, or names no single socket.
    """
    found: dict[Address, None] = {}
    for path in paths:
        address = parse_address(path)
        if not isinstance(address, PathAddress | AbstractAddress):
            raise AddressError(f"{address} is no place that is listed: only paths and @names are")
        if isinstance(address, PathAddress) and os.path.isdir(address.path):
            found.update(dict.fromkeys(_sockets_in(address.path)))
        else:
            found[address] = None
    return [*found]


def _sockets_in(directory: str) -> list[Address]:
    with os.scandir(directory) as entries:
        paths = sorted(entry.path for entry in entries if _is_socket(entry))
    return [PathAddress(path) for path in paths]


def _is_socket(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
    except OSError:  # it went
        return False
