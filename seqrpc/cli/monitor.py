"""The command ``monitor``: the calls of a server as they pass."""

from __future__ import annotations

import contextlib
import pwd
from collections.abc import Sequence
from typing import Any, Final

import click

from seqrpc.blocking.connection import Connection
from seqrpc.blocking.streams import Stream
from seqrpc.cli import figures
from seqrpc.cli.completers import completes_addresses, completes_methods
from seqrpc.cli.endings import ABSENT, FAILED, HELP, OK, Ending, misused
from seqrpc.cli.events import Choice, Log, event_in
from seqrpc.cli.identity import become, identity_of
from seqrpc.cli.learning import by_name, description_if_any, found
from seqrpc.cli.looks import tell_rule
from seqrpc.cli.options import Seconds
from seqrpc.cli.places import Elsewhere, Place, bounded, connected, place_of
from seqrpc.cli.readings import LIMITS
from seqrpc.cli.results import batches
from seqrpc.cli.screen import Screen
from seqrpc.cli.window import size_of
from seqrpc.errors import MethodNotFound, PermissionDenied, Unavailable
from seqrpc.text import offered

_LARGEST: Final = 0xFFFF_FFFE
"""The largest number that a user may have."""


@click.command(
    "monitor",
    help="""Write the calls of what listens at ADDRESS as they pass, until Ctrl-C: when each came, who called, what, how
    it ended, how long it took, and its arguments where the service shows them. rpc.monitor tells it, to the same user
    and root. METHOD is Service.method, or a service for all of its methods; the service may be left out where one only
    has such a method.

    At a terminal each is a line of text, else a line of JSON.""",
    epilog=f"\b\n{HELP}",
)
@click.argument("address", shell_complete=completes_addresses)
@click.argument("methods", nargs=-1, metavar="[METHOD]...", shell_complete=completes_methods)
@click.option("--user", metavar="NAME|UID", help="Only calls of this user.")
@click.option("--errors", is_flag=True, help="Only calls that failed.")
@click.option("--slow", type=Seconds(), default=0.0, help="Only calls that took so long.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many.")
@click.option("--timeout", type=Seconds(), help="How long all of it may take.")
@click.option("--json", is_flag=True, help="Lines of JSON, at a terminal too.")
@click.option("--as-user", metavar="USER", help="As this user, or UID:GID; for root.")
def command(
    address: str, methods: tuple[str, ...], *, errors: bool, slow: float, count: int | None, **options: Any
) -> int:
    """Write calls."""
    screen = Screen(json=options["json"])
    place = place_of(address)
    uid = None if options["user"] is None else _uid_of(options["user"], place)
    if options["as_user"] is not None:
        become(identity_of(options["as_user"]))
    log = Log(screen, Choice(errors, slow), str if isinstance(place, Elsewhere) else figures.user)
    with bounded(options["timeout"]), connected(place, limits=LIMITS) as connection:
        names = _names(screen, connection, methods) if methods else []
        with _watched(connection, names, uid) as stream, contextlib.suppress(Unavailable):  # it ends at once, or died
            _write(screen, log, stream, count)
    if count is None:
        screen.remark("the server has stopped")
    elif log.written < count:
        raise Ending(FAILED, f"the server has stopped after {log.written} of {count} calls")
    return OK


def _write(screen: Screen, log: Log, stream: Stream[Any], count: int | None) -> None:
    for items in batches(stream):
        width = size_of(screen.out)[0]
        for item in items:
            log.write(event_in(item), width)
            if log.written == count:
                return
        screen.flush()


def _watched(connection: Connection, names: Sequence[str], uid: int | None) -> Stream[Any]:
    """Begin to watch.

    Raises:
        Ending: the server cannot tell.
        RpcError, ConnectionLost: it does not.
    """
    try:
        stream = connection.call("rpc.monitor", names, uid)
    except MethodNotFound:
        raise Ending(ABSENT, "what listens there has no rpc.monitor: its seqrpc is older") from None
    except PermissionDenied as exc:
        tell_rule(exc)
        raise
    if not isinstance(stream, Stream):
        raise Ending(FAILED, "what rpc.monitor answered is no stream")
    return stream


def _names(screen: Screen, connection: Connection, typed: Sequence[str]) -> list[str]:
    """Return the names of methods and services on the wire, and say which of them nobody knows."""
    document = description_if_any(connection)
    if document is None:
        return [*typed]
    services = {service.name for service in document.services}
    interfaces = document.interfaces.values()
    methods = by_name([*document.methods, *(method for one in interfaces for method in one.methods)])
    known = {*services, *(one.name for one in interfaces), *methods}
    names = [name if name in known else found(name, methods)[0] for name in typed]
    for name in names:
        if name not in known and not name.startswith("rpc."):
            screen.remark(f"there is no method {name!r} that is told of{offered(name, known)}")
    return names


def _uid_of(text: str, place: Place) -> int:
    """Return the number of a user, who may have none but that.

    Raises:
        Ending: nobody is called so here.
    """
    if text.isascii() and text.isdigit() and int(text) <= _LARGEST:
        return int(text)
    if isinstance(place, Elsewhere):
        raise misused(f"--user {text}: the number of a user of that machine is wanted, whose names are not known here")
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise misused(f"--user {text}: the user database does not know it") from None
