"""What the netcfg daemon offers, for the daemon itself, its app, its script and their tests.

Nothing to run. ``netcfgd.py`` serves it, ``app.py`` calls it; ``ctl.py`` has an interface without ``async`` of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import seqrpc

DEFAULT_ADDRESS = "/run/netcfg.sock"

TRUSTED = seqrpc.policy.root | seqrpc.policy.same_user
"""Whom clients let be the daemon: what they are told, and the sockets they are given, are root's or their own."""


class NotConfigured(seqrpc.RpcError, code="netcfg.NotConfigured"):
    """The configuration does not list what was asked for. ``data`` is the list of what could be."""


class CannotOpen(seqrpc.RpcError, code="netcfg.CannotOpen"):
    """The kernel refuses it to the daemon: there is no such device, a capability is missing, or the port is in use.

    ``data`` is a dict: ``what`` was to be opened, and the ``errno`` with which that failed.
    """


@dataclass(frozen=True)
class Configuration:
    """What the daemon opens for members of its group."""

    tunnels: list[str]
    """Names of tun interfaces."""
    protocols: list[int]
    """IP protocols of raw sockets, such as 1, ICMP."""
    ports: list[int]
    """TCP ports."""
    version: int = 0
    """How often the daemon had read it: 1 at its start. The file does not say."""


class Sockets(Protocol):
    """Opens what only root can open. For members of the daemon's group."""

    @seqrpc.method(errors=[NotConfigured, CannotOpen])
    async def open_tunnel(self, name: str) -> seqrpc.OwnedFd:
        """Return a tun interface: each read and each write is an IP packet."""
        ...

    @seqrpc.method(errors=[NotConfigured, CannotOpen])
    async def open_raw(self, protocol: int) -> seqrpc.OwnedFd:
        """Return a raw IPv4 socket."""
        ...

    @seqrpc.method(errors=[NotConfigured, CannotOpen])
    async def listen(self, port: int) -> seqrpc.OwnedFd:
        """Return a TCP socket that listens at a port of every IPv4 address."""
        ...


class Settings(Protocol):
    """Tells what is configured. For everybody.

    Asking twice does no harm, so a client that reconnects asks again by itself if an answer was lost.
    """

    @seqrpc.method(idempotent=True)
    async def current(self) -> Configuration:
        """Return the configuration."""
        ...

    @seqrpc.method(idempotent=True)
    def watch(self) -> AsyncIterator[Configuration]:
        """Stream the configuration, and again each time that the daemon has read it, until somebody ends it.

        A reader who is slow misses versions, but never the last.
        """
        ...
