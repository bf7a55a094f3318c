"""Ask the netcfg daemon what it opens, and try that.

    python examples/netcfg/ctl.py show
    python examples/netcfg/ctl.py watch
    python examples/netcfg/ctl.py try

A plain script: it has no event loop, and waits where it calls.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from interface import DEFAULT_ADDRESS, TRUSTED, CannotOpen, Configuration

import seqrpc
import seqrpc.blocking

T = TypeVar("T")


class Settings(Protocol):
    """The daemon's ``interface.Settings``, as one sees it who waits."""

    def current(self) -> Configuration:
        """Return the configuration."""
        ...

    def watch(self) -> Iterator[Configuration]:
        """Stream the configuration each time that it was read."""
        ...


class Sockets(Protocol):
    """Its ``interface.Sockets``, likewise."""

    def open_tunnel(self, name: str) -> seqrpc.OwnedFd:
        """Return a tun interface."""
        ...

    def open_raw(self, protocol: int) -> seqrpc.OwnedFd:
        """Return a raw IPv4 socket."""
        ...

    def listen(self, port: int) -> seqrpc.OwnedFd:
        """Return a TCP socket that listens."""
        ...


def show(connection: seqrpc.blocking.Connection) -> None:
    """Print the configuration."""
    print(connection.proxy(Settings).current())


def watch(connection: seqrpc.blocking.Connection) -> None:
    """Print it each time that it was read, until interrupted."""
    with contextlib.suppress(KeyboardInterrupt):
        for configuration in connection.proxy(Settings).watch():
            print(configuration, flush=True)


def try_all(connection: seqrpc.blocking.Connection) -> None:
    """Have everything opened that is configured, and print how that went."""
    configuration = connection.proxy(Settings).current()
    sockets = connection.proxy(Sockets)
    for name in configuration.tunnels:
        attempt(f"tunnel {name}", sockets.open_tunnel, name)
    for protocol in configuration.protocols:
        attempt(f"raw socket of protocol {protocol}", sockets.open_raw, protocol)
    for port in configuration.ports:
        attempt(f"port {port}", sockets.listen, port)


def attempt(what: str, open_one: Callable[[T], seqrpc.OwnedFd], wanted: T) -> None:
    """Have one thing opened, and let go of it."""
    try:
        open_one(wanted).close()
    except CannotOpen as exc:
        print(f"{exc.message} (errno {exc.data['errno']})")
    else:
        print(f"{what} is ours")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = {"show": show, "watch": watch, "try": try_all}
    parser.add_argument("command", choices=commands)
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="where the daemon listens (default: %(default)s)")
    args = parser.parse_args()
    try:
        with seqrpc.blocking.connect(args.address, server=TRUSTED) as connection:
            commands[args.command](connection)
    except seqrpc.SeqrpcError as exc:
        sys.exit(f"ctl: {exc}")


if __name__ == "__main__":
    main()
