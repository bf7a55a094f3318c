"""Which kernel this is."""

from __future__ import annotations

import sys

from seqrpc.kernel.credentials import Platform
from seqrpc.kernel.linux import Linux


def choose(name: str) -> Platform:
    """Return the platform for a value of ``sys.platform``.

    Raises:
        ImportError: this system has no Unix sockets of type SOCK_SEQPACKET that seqrpc knows; macOS has none.
    """
    if name == "linux":
        return Linux()
    if name.startswith("freebsd"):
        from seqrpc.kernel.freebsd import FreeBSD  # noqa: PLC0415 - of use there only

        return FreeBSD()
    raise ImportError(f"seqrpc needs SOCK_SEQPACKET Unix sockets and knows those of Linux and FreeBSD, not {name!r}")


PLATFORM: Platform = choose(sys.platform)
