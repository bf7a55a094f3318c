"""The addresses of services, from text and back.

====================  =========================================================================
``/run/x.sock``       a path in the file system, of any length; relative ones may say ``./x``
``@name``             a name in Linux's abstract namespace (unix(7)): no file, no permissions
``fd:3``              a socket that this process inherited as descriptor 3
``systemd:name``      a socket that the service manager passed under that name (sd_listen_fds(3))
====================  =========================================================================
"""

from __future__ import annotations

import os
import re

import msgspec

from seqrpc.errors import AddressError

_ABSTRACT_BYTES = 107  # sun_path's 108 less the leading NUL
_FD_NUMBER = r"0|[1-9][0-9]{0,9}"
_LARGEST_INT = 2**31 - 1


class PathAddress(msgspec.Struct, frozen=True):
    """A socket file. ``path`` is kept as it was written."""

    path: str

    def __str__(self) -> str:
        """Return the path; if it could be read as another form, it begins with ``./``."""
        return self.path


class AbstractAddress(msgspec.Struct, frozen=True):
    """A name in the abstract namespace: 1 to 107 bytes of any value, without the leading NUL."""

    name: bytes

    def __str__(self) -> str:
        """Return ``@`` and the name; bytes that are not UTF-8 become surrogates, as in file names."""
        return "@" + os.fsdecode(self.name)


class FdAddress(msgspec.Struct, frozen=True):
    """An inherited descriptor."""

    fd: int

    def __str__(self) -> str:
        """Return ``fd:N``."""
        return f"fd:{self.fd}"


class SystemdAddress(msgspec.Struct, frozen=True):
    """A socket with the name that its unit gives it (``FileDescriptorName=``)."""

    name: str

    def __str__(self) -> str:
        """Return ``systemd:NAME``."""
        return f"systemd:{self.name}"


Address = PathAddress | AbstractAddress | FdAddress | SystemdAddress

AddressLike = str | bytes | os.PathLike[str] | Address
"""What public functions take: text, bytes (for abstract names), a path object, or an address."""


def parse_address(address: AddressLike) -> Address:
    """Return the address for which ``address`` stands.

    A path object is always a path, whatever it begins with.

    Raises:
        AddressError: it has none of the four forms; the message names the text and the reason.
        TypeError: it is none of the types of :data:`AddressLike`.
    """
    if isinstance(address, PathAddress | AbstractAddress | FdAddress | SystemdAddress):
        return address
    if isinstance(address, os.PathLike):
        path = os.fspath(address)
        return _path(f"./{path}" if path.startswith(("@", "fd:", "systemd:")) else path)
    if not isinstance(address, str | bytes):
        raise TypeError(f"an address is text, bytes or a path, not {type(address).__name__}")
    text = os.fsdecode(address)
    if text.startswith("@"):
        return _abstract(text)
    if text.startswith("fd:"):
        return _fd(text)
    if text.startswith("systemd:"):
        return _systemd(text)
    return _path(text)


def _path(text: str) -> PathAddress:
    if not text:
        raise AddressError("an address is not empty")
    if "\0" in text:
        raise AddressError(f"a path holds no NUL byte, got {text!r} (abstract names begin with '@')")
    _encode(text)
    return PathAddress(text)


def _abstract(text: str) -> AbstractAddress:
    name = _encode(text[1:])
    if not 1 <= len(name) <= _ABSTRACT_BYTES:
        raise AddressError(f"an abstract name has 1 to {_ABSTRACT_BYTES} bytes, {text!r} has {len(name)}")
    return AbstractAddress(name)


def _encode(text: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError as exc:
        raise AddressError(f"{text!r} cannot be written in this system's file names: {exc.reason}") from exc


def _fd(text: str) -> FdAddress:
    digits = text[3:]
    if not re.fullmatch(_FD_NUMBER, digits) or int(digits) > _LARGEST_INT:
        raise AddressError(f"an inherited socket is written 'fd:' and its number, as in 'fd:3', got {text!r}")
    return FdAddress(int(digits))


def _systemd(text: str) -> SystemdAddress:
    name = text[len("systemd:") :]
    if not name or ":" in name or not name.isascii() or not name.isprintable():
        raise AddressError(f"a systemd socket name is printable ASCII without ':', got {text!r}")
    return SystemdAddress(name)
