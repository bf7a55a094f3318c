"""The hidden command ``relay``: at the other end of ``ssh``, what connects a socket there with our standard streams."""

from __future__ import annotations

import sys

import click

from seqrpc.blocking.client import connected_socket
from seqrpc.cli.endings import status_of, told
from seqrpc.cli.tunnel import Tunnel, refuse
from seqrpc.kernel.addresses import parse_address
from seqrpc.limits import DEFAULT_LIMITS


@click.command("relay", hidden=True, help="Carry packets between standard input and output, and the socket at ADDRESS.")
@click.argument("address")
def command(address: str) -> int:
    """Relay."""
    incoming, outgoing = sys.stdin.fileno(), sys.stdout.fileno()
    try:
        sock = connected_socket(parse_address(address), DEFAULT_LIMITS.connect_timeout)
    except Exception as exc:
        refuse(outgoing, status_of(exc), told(exc))
        return status_of(exc)
    Tunnel(incoming, outgoing).carry(sock, is_far=True)
    return 0
