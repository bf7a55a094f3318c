"""The sockets on this machine that somebody listens at, as the kernel tells (proc_net(5), ``/proc/net/unix``)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Container, Iterable
from typing import Final, NamedTuple

from seqrpc.cli.places import Elsewhere, Place, place_of
from seqrpc.cli.whereabouts import Bound, files_of_listeners, located
from seqrpc.errors import AddressError
from seqrpc.kernel.addresses import AbstractAddress, Address, PathAddress

TABLE: Final = "/proc/net/unix"

_LINE: Final = re.compile(
    rb"[0-9a-f]+: [0-9A-F]{8} [0-9A-F]{8} (?P<flags>[0-9A-F]{8}) (?P<type>[0-9A-F]{4}) [0-9A-F]{2} +"
    rb"(?P<inode>\d+) (?P<name>.+)"
)

_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON
_SEQPACKET: Final = 5


class Listener(NamedTuple):
    """A socket that may be asked what it is."""

    address: Place
    remark: str = ""
    """Why it cannot be asked: somebody listens, and no path leads there."""

    is_named: bool = False
    """Whether it was asked for by its name, and not found."""


def listeners(table: bytes, with_files: Container[int] = ()) -> list[AbstractAddress | Bound]:
    """Return what is in a table of the kernel's, each name once, in their order.

    A name with a line break in it makes lines that are none.

    Args:
        table: the content of :data:`TABLE`.
        with_files: the inodes of sockets that certainly have files: names of files may begin with ``@``, too.
    """
    found: dict[AbstractAddress | Bound, None] = {}
    paths: set[bytes] = set()
    for line in table.split(b"\n")[1:]:
        parts = _LINE.fullmatch(line)
        if parts is None or int(parts["type"], 16) != _SEQPACKET or not int(parts["flags"], 16) & _ACCEPTS:
            continue
        name, inode = parts["name"], int(parts["inode"])
        if name.startswith(b"@") and inode not in with_files:
            if 1 < len(name) <= 108:  # NUL bytes inside are shown as "@", too
                found[AbstractAddress(name[1:])] = None
        elif inode not in with_files and name in paths:
            continue  # one of both has lost its file, and nobody tells which
        else:
            paths.add(name)
            found[Bound(inode, os.fsdecode(name))] = None
    return [*found]


def here() -> list[Listener]:
    """Return where somebody listens on this machine, as far as this process's network namespace goes.

    Raises:
        OSError: the kernel does not tell.
    """
    with open(TABLE, "rb") as file:
        table = file.read()
    files = files_of_listeners()
    found = listeners(table, files)
    places = iter(located([each for each in found if isinstance(each, Bound)], files))
    listed: dict[Listener, None] = {}
    for each in found:
        if isinstance(each, AbstractAddress):
            listed[Listener(each)] = None
        else:
            place = next(places)
            listed[Listener(PathAddress(place.path), place.remark)] = None
    return [*listed]


def named(paths: Iterable[str]) -> list[Listener]:
    """Return the addresses that are written, and for a directory those of the sockets in it.

    Raises:
        AddressError: one cannot be read, or names no single socket.
        OSError: a directory cannot be read.
    """
    found: dict[Place, Listener] = {}
    for path in paths:
        address = place_of(path)
        if isinstance(address, Elsewhere):
            found[address] = Listener(address, is_named=True)
            continue
        if not isinstance(address, PathAddress | AbstractAddress):
            raise AddressError(f"{path} is no place that is listed: only paths, @names and ssh://HOST/PATH are")
        if isinstance(address, PathAddress) and os.path.isdir(address.path):
            for each in _sockets_in(address.path):
                found.setdefault(each, Listener(each))
        else:
            found[address] = Listener(address, is_named=True)
    return [*found.values()]


def _sockets_in(directory: str) -> list[Address]:
    with os.scandir(directory) as entries:
        paths = sorted(entry.path for entry in entries if _is_socket(entry))
    return [PathAddress(path) for path in paths]


def _is_socket(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
    except OSError:  # it went
        return False
