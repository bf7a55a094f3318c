"""The command ``list``: the services on this machine."""

from __future__ import annotations

import pwd
from typing import Any, Final

import click

from seqrpc.cli.asking import Sighting, ask_all
from seqrpc.cli.endings import ABSENT, HELP, LATE, OK, REFUSED
from seqrpc.cli.identity import become, identity_of
from seqrpc.cli.listeners import Listener, here, named
from seqrpc.cli.options import Seconds
from seqrpc.cli.places import Elsewhere
from seqrpc.cli.screen import Screen, Styled, columns

SECONDS: Final = 1.0
"""That each socket has by default: far more than a daemon takes that is well."""

SECONDS_ELSEWHERE: Final = 10.0
"""The same for those of other machines, to which somebody has to log in before."""

_HEADS: Final = ("ADDRESS", "OWNER", "PID", "CONNECTIONS", "SERVICES")


@click.command(
    "list",
    help="""List the services that listen on this machine, or at PATHS: sockets, @names, directories of sockets,
    ssh://HOST/PATH.

    Every socket of type SEQPACKET that is in /proc/net/unix is asked with one packet what it is, all at once. A socket
    of a service manager starts its service.

    At a terminal this is a table, else a line of JSON for each.""",
    epilog=f"\b\n{HELP}",
)
@click.argument("paths", nargs=-1, type=click.Path())
@click.option("--all", "everything", is_flag=True, help="Also those that do not answer, or not as seqrpc does.")
@click.option(
    "--timeout",
    type=Seconds(0.01),
    help=f"For each socket; {SECONDS:g} by default, with ssh {SECONDS_ELSEWHERE:g}.",
)
@click.option("--json", is_flag=True, help="Lines of JSON, at a terminal too.")
@click.option("--as-user", metavar="USER", help="As this user, or UID:GID; for root.")
def command(paths: tuple[str, ...], *, everything: bool, timeout: float | None, json: bool, as_user: str | None) -> int:
    """List services."""
    screen = Screen(json=json)
    if as_user is not None:
        become(identity_of(as_user))
    listeners = named(paths) if paths else here()
    if timeout is None:
        timeout = SECONDS_ELSEWHERE if any(isinstance(each.address, Elsewhere) for each in listeners) else SECONDS
    found = [
        (listener, sighting)
        for listener, sighting in zip(listeners, _asked(listeners, timeout), strict=True)
        if sighting.answers or listener.is_named or listener.remark or everything
    ]
    shown = [sighting for _listener, sighting in found]
    if screen.is_for_people:
        _write_table(screen, shown)
        left_out = len(listeners) - len(shown)
        if left_out:
            screen.remark(f"{left_out} more {'does' if left_out == 1 else 'do'} not answer as seqrpc does (--all)")
        elif not shown:
            screen.remark("no socket is there" if paths else "nobody listens on this machine")
    else:
        for sighting in shown:
            screen.value(as_data(sighting))
    statuses = [sighting.status for listener, sighting in found if listener.is_named or sighting.status != REFUSED]
    return max(statuses, default=OK) if paths else OK


def _asked(listeners: list[Listener], seconds: float) -> list[Sighting]:
    """Return what each of some sockets is; one that no path leads to is not asked."""
    answers = iter(ask_all([each.address for each in listeners if not each.remark], seconds))
    return [Sighting(each.address, ABSENT, each.remark) if each.remark else next(answers) for each in listeners]


def as_data(sighting: Sighting) -> dict[str, Any]:
    """Return a sighting as programs get it."""
    return {
        "address": str(sighting.address),
        "status": _word(sighting),
        "uid": sighting.uid,
        "pid": sighting.pid,
        "services": None if sighting.services is None else [*sighting.services],
        "connections": sighting.connections,
        "remark": sighting.remark or None,
    }


def _word(sighting: Sighting) -> str:
    return {OK: "answers", REFUSED: "refused", LATE: "silent"}.get(sighting.status, "failed")


def _write_table(screen: Screen, sightings: list[Sighting]) -> None:
    if not sightings:
        return
    rows = [(*_cells(sighting), _last_cell(sighting)) for sighting in sightings]
    for number, row in enumerate(columns([_HEADS, *rows])):
        style = "faint" if number == 0 else "name"
        bad = number > 0 and sightings[number - 1].status != OK
        screen.line(Styled(row[0], style), "  ", "  ".join(row[1:-1]), "  ", Styled(row[-1], "bad") if bad else row[-1])


def _cells(sighting: Sighting) -> tuple[str, str, str, str]:
    def told(number: int | None) -> str:
        return "-" if number is None else str(number)

    owner = "-" if sighting.uid is None else _user(sighting.uid)
    return str(sighting.address), owner, told(sighting.pid), told(sighting.connections)


def _last_cell(sighting: Sighting) -> str:
    if sighting.services is None:
        remark = sighting.remark.replace(f"cannot connect to {sighting.address}: ", "", 1)  # which the row says
        return f"({_word(sighting)}: {remark})" if sighting.status != OK else f"({remark})"
    return ", ".join(sighting.services)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
