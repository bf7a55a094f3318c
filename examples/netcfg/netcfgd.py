"""Open tun interfaces, raw sockets and low ports for members of a group, as far as a configuration lists them.

    python examples/netcfg/netcfgd.py --config examples/netcfg/netcfg.toml --group adm

SIGHUP makes it read the configuration again. Each call is logged: who called what, and how it ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import fcntl
import grp
import logging
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import TypeVar

import msgspec
from interface import DEFAULT_ADDRESS, CannotOpen, Configuration, NotConfigured, Settings, Sockets

import seqrpc
from seqrpc import policy

TUN_DEVICE = "/dev/net/tun"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # <linux/if_tun.h>
STOP_SECONDS = 1.0  # that a stopping daemon gives those who watch, who would go on for ever

T = TypeVar("T")

audit_log = logging.getLogger("netcfg.audit")


class SettingsService(seqrpc.Service, Settings, name="Settings", allow=policy.anyone):
    """The configuration, and those who watch it.

    Args:
        path: a TOML file with the fields of :class:`interface.Configuration`.
    """

    def __init__(self, path: Path) -> None:
        """Read the file."""
        self._path = path
        self._changed = asyncio.Condition()
        self.configuration = self._read(version=1)

    def _read(self, version: int) -> Configuration:
        configuration = msgspec.toml.decode(self._path.read_bytes(), type=Configuration)
        return dataclasses.replace(configuration, version=version)

    async def reload(self, _server: seqrpc.Server) -> None:
        """Read the file again, and tell those who watch. If it cannot be read, all stays as it was."""
        self.configuration = self._read(self.configuration.version + 1)
        async with self._changed:
            self._changed.notify_all()

    @seqrpc.method(idempotent=True)
    async def current(self) -> Configuration:
        """Return the configuration."""
        return self.configuration

    @seqrpc.method(idempotent=True)
    async def watch(self) -> AsyncIterator[Configuration]:
        """Stream the configuration each time that it was read."""
        told = 0
        while True:
            async with self._changed:
                while self.configuration.version == told:
                    await self._changed.wait()
            told = self.configuration.version
            yield self.configuration


class SocketService(seqrpc.Service, Sockets, name="Sockets"):
    """Opens what is configured. Its methods may wait for the kernel, so they are plain functions, run in threads.

    What they return is given away: seqrpc closes the daemon's copy once it is sent.
    """

    def __init__(self, settings: SettingsService) -> None:
        """Open what ``settings`` lists at the time of each call."""
        self._settings = settings

    @seqrpc.method
    def open_tunnel(self, name: str) -> seqrpc.OwnedFd:
        """Return a tun interface."""
        check_listed(name, self._settings.configuration.tunnels)
        request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI)  # struct ifreq
        with explained(f"tunnel {name}"), seqrpc.OwnedFd(os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC)) as tunnel:
            fcntl.ioctl(tunnel.fileno(), TUNSETIFF, request)
            return seqrpc.OwnedFd(tunnel.detach())

    @seqrpc.method
    def open_raw(self, protocol: int) -> seqrpc.OwnedFd:
        """Return a raw IPv4 socket."""
        check_listed(protocol, self._settings.configuration.protocols)
        with explained(f"raw socket of protocol {protocol}"):
            return seqrpc.OwnedFd(socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol).detach())

    @seqrpc.method
    def listen(self, port: int) -> seqrpc.OwnedFd:
        """Return a TCP socket that listens."""
        check_listed(port, self._settings.configuration.ports)
        with explained(f"port {port}"):
            return seqrpc.OwnedFd(socket.create_server(("", port)).detach())


def members(group: str) -> policy.Policy:
    """Return who may have sockets opened: the daemon's own user, root, and the members of a group."""
    return policy.default | policy.group(group)


def check_listed(wanted: T, listed: list[T]) -> None:
    """Refuse what the configuration does not list."""
    if wanted not in listed:
        raise NotConfigured(f"{wanted!r} is not configured", data=listed)


@contextlib.contextmanager
def explained(what: str) -> Generator[None]:
    """Tell the caller why something cannot be opened; without this it would be an internal error of the daemon."""
    try:
        yield
    except OSError as exc:
        raise CannotOpen(f"cannot open {what}: {exc.strerror}", data={"what": what, "errno": exc.errno}) from exc


class Audit(seqrpc.Interceptor):
    """Logs each call, also those that were refused."""

    def ended(self, record: seqrpc.CallRecord) -> None:
        """Log one. A caller who is refused may have called anything, hence the ``%r``."""
        caller = record.caller
        who = "somebody" if caller is None else f"user {caller.uid}, process {caller.pid},"
        audit_log.info("%s called %r: %s", who, record.method, record.code or "ok")


def main() -> None:
    """Be the daemon, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="where to listen (default: %(default)s)")
    parser.add_argument("--config", type=Path, default="/etc/netcfg.toml", help="what to open (default: %(default)s)")
    parser.add_argument("--group", default="netdev", help="whose members may open it (default: %(default)s)")
    args = parser.parse_args()
    try:
        grp.getgrnam(args.group)
    except KeyError:
        sys.exit(f"netcfgd: there is no group {args.group!r} whose members could be let in: name one by --group")
    logging.basicConfig(level=logging.INFO)
    try:
        settings = SettingsService(args.config)
    except (OSError, msgspec.MsgspecError) as exc:
        sys.exit(f"netcfgd: {args.config}: {exc}")
    seqrpc.run(
        [SocketService(settings), settings],
        args.address,
        mode=0o666,  # everybody may ask for the configuration; the policy is about the rest
        allow=members(args.group),
        interceptors=[Audit()],
        on_reload=settings.reload,
        drain_timeout=STOP_SECONDS,
    )


if __name__ == "__main__":
    main()
