"""The command ``top``: how a server is, as long as one looks."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Final

import click

from seqrpc.cli.clock import now
from seqrpc.cli.completers import completes_addresses
from seqrpc.cli.endings import HELP, OK
from seqrpc.cli.identity import become, identity_of
from seqrpc.cli.looks import Look, Looker, looks
from seqrpc.cli.options import Seconds
from seqrpc.cli.places import place_of
from seqrpc.cli.rates import NAME, SORTS, MethodRates, in_order
from seqrpc.cli.screen import Screen

INTERVAL: Final = 2.0
SECONDS: Final = 10.0

_LONGEST: Final = 86_400.0  # seconds between looks, which timers know


@click.command(
    "top",
    help="""Show how what listens at ADDRESS is, anew in each interval: connections, who made them and what they wait
    for, calls a second and how long they take, by method, and what each user holds. rpc.stats tells it, to the same
    user and root.

    P50 and P99 are what half and 99 of 100 handlers took at most in the last interval, to a power of two. The first
    look tells of the time since the server began.

    q ends it, and Ctrl-C; s sorts by something else. Output that is no terminal gets a line of JSON for each look.""",
    epilog=f"\b\n{HELP}",
)
@click.argument("address", shell_complete=completes_addresses)
@click.option(
    "--interval",
    type=Seconds(0.05),
    default=INTERVAL,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look once.")
@click.option(
    "--sort",
    type=click.Choice([*SORTS, NAME]),
    default="calls",
    show_default=True,
    help="What methods are sorted by: calls and errors of the interval, calls in total, refused ones, latency, name.",
)
@click.option("--json", is_flag=True, help="Lines of JSON, at a terminal too.")
@click.option(
    "--timeout",
    type=Seconds(0.01),
    default=SECONDS,
    show_default=True,
    help="Seconds that a look may take.",
)
@click.option("--as-user", metavar="USER", help="As this user, or UID:GID; for root.")
def command(address: str, *, interval: float, once: bool, sort: str, timeout: float, **options: Any) -> int:
    """Show how a server is."""
    interval = min(interval, _LONGEST)
    screen = Screen(json=options["json"])
    place = place_of(address)
    if screen.is_for_people:
        from seqrpc.cli import live  # noqa: PLC0415 - it loads rich, which may lie where another user cannot read

        live.prepare()
    if options["as_user"] is not None:
        become(identity_of(options["as_user"]))
    with contextlib.closing(Looker(place, timeout)) as looker:
        stats = looker.look()
        if screen.is_for_people:
            watched = live.Watched(address, place, looker, stats, sort)
            if once:
                watched.write(screen)
            else:
                watched.show(screen, interval)
            return OK
        for look in itertools.islice(looks(screen, looker, stats, interval), 1 if once else None):
            screen.value(as_data(look, looker.services, sort))
            screen.flush()
    return OK


def as_data(look: Look, services: Sequence[str], sort: str) -> dict[str, Any]:
    """Return a look as programs get it: what is served, what ``rpc.stats`` told, and rates."""
    stats, rates = look
    told = dataclasses.asdict(stats)
    bounds = told.pop("latency_bounds")
    del told["methods"], told["others"]
    return {
        "time": now(),
        "services": [*services],
        **told,
        "seconds": rates.seconds,
        "calls_per_second": rates.calls_per_second,
        "errors_per_second": rates.errors_per_second,
        "methods": [_row(row, bounds) for row in in_order(rates.methods, sort)],
    }


def _row(row: MethodRates, bounds: list[float]) -> dict[str, Any]:
    told = row._asdict()
    for name in ("p50", "p99"):
        if told[name] == math.inf:
            told[name] = bounds[-1] if bounds else None
    return told
