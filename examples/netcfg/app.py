"""Greet whoever connects to the configured ports, which the netcfg daemon opens for us.

    python examples/netcfg/app.py

It needs no privileges. When the configuration changes it opens and closes ports. The daemon may be started, stopped and
replaced at any time: what is open stays open meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys

from interface import DEFAULT_ADDRESS, TRUSTED, CannotOpen, Configuration, NotConfigured, Settings, Sockets

import seqrpc


class Greeter:
    """The ports that are open."""

    def __init__(self, connection: seqrpc.Connection) -> None:
        """Open ports by a connection to the daemon."""
        self._settings = connection.proxy(Settings)
        self._sockets = connection.proxy(Sockets)
        self._servers: dict[int, asyncio.Server] = {}

    async def follow(self) -> None:
        """Adapt to each configuration that there is, for ever.

        A connection that reconnects makes a call wait until there is a daemon. A stream ends with its daemon, so we
        watch again: the next daemon begins with its present configuration, and nothing is missed.
        """
        try:
            while True:
                with contextlib.suppress(seqrpc.Unavailable, seqrpc.ConnectionLost):
                    async for configuration in self._settings.watch():
                        await self._adapt(configuration)
        finally:
            for port in list(self._servers):
                self._close(port)

    async def _adapt(self, configuration: Configuration) -> None:
        for port in self._servers.keys() - configuration.ports:
            self._close(port)
        for port in sorted({*configuration.ports} - self._servers.keys()):
            try:
                fd = await self._sockets.listen(port)
            except (CannotOpen, NotConfigured) as exc:  # the next configuration is another chance
                say(exc.message)
            else:
                self._servers[port] = await asyncio.start_server(greet, sock=socket.socket(fileno=fd.detach()))
                say(f"port {port} is open")
        say(f"this is version {configuration.version}")

    def _close(self, port: int) -> None:
        self._servers.pop(port).close()
        say(f"port {port} is closed")


async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greet, and hang up."""
    writer.write(b"hello\n")
    writer.close()


def say(what: str) -> None:
    """Print a line, at once."""
    print(f"app: {what}", flush=True)


async def run(address: str) -> None:
    """Connect, and follow; wait for a daemon whenever there is none."""
    patient = seqrpc.Reconnect(ready_timeout=None, on_reconnect=lambda _connection: say("connected again"))
    async with seqrpc.connect(address, server=TRUSTED, reconnect=patient) as connection:
        await Greeter(connection).follow()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="where the daemon listens (default: %(default)s)")
    args = parser.parse_args()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(run(args.address))
    except seqrpc.SeqrpcError as exc:
        sys.exit(f"app: {exc}")


if __name__ == "__main__":
    main()
