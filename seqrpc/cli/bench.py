"""The command ``bench``: how long calls of a method take, and how many there are in a second."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING, Any, Final

import click

from seqrpc.cli.completers import Calling, completes_addresses, completes_arguments, completes_files, completes_methods
from seqrpc.cli.endings import FAILED, HELP, REFUSED, misused, told
from seqrpc.cli.gauge import Gauge
from seqrpc.cli.identity import become, identity_of
from seqrpc.cli.options import Seconds, check_unknown
from seqrpc.cli.places import place_of
from seqrpc.cli.screen import Screen
from seqrpc.limits import DEFAULT_LIMITS, LONGEST_TIMER

if TYPE_CHECKING:
    from seqrpc.cli.outcomes import Outcomes

SECONDS: Final = 10.0
"""That it takes, unless it is said otherwise."""

MOST_CONNECTIONS: Final = 4_096
MOST_IN_FLIGHT: Final = 65_536
"""On all connections together: each has a task."""

MOST_CALLS: Final = 10**15
"""Those of three years at the highest rate."""

AT_A_RATE: Final = 1_024
"""Calls of one connection that may be unanswered at a fixed rate, if nothing is said: as many as a server takes."""

_RATES: Final = click.FloatRange(0.001, 1e7)

_LEAST_SECONDS: Final = 0.001

_BRIEF: Final = 1.0
"""Seconds in which nobody needs to be told how far it is."""


@click.command(
    "bench",
    cls=Calling,
    context_settings={"ignore_unknown_options": True},
    help="""Measure calls of METHOD of what listens at ADDRESS.

    ADDRESS, METHOD and ARGS are as for 'call'. Arguments are read once, and sent with each call; files are opened anew
    for each. Streams cannot be sent. Streams, objects, files and buffers that come back are closed at once.

    Without --rate it is a closed loop: each of so many callers calls as soon as its last call is answered. So latencies
    are service times: nobody waits while the service stands still. With --rate calls are due at times, and latencies
    count from then.

    Ctrl-C ends it early; what was measured is told. At a terminal that is tables and bars, else JSON on one line.""",
    epilog=f"\b\n{HELP}",
)
@click.argument("address", shell_complete=completes_addresses)
@click.argument("method", shell_complete=completes_methods)
@click.argument("args", nargs=-1, type=click.UNPROCESSED, shell_complete=completes_arguments)
@click.option(
    "--fd",
    "files",
    multiple=True,
    metavar="NAME=PATH",
    help="Send an open file: PATH, >PATH, >>PATH, <>PATH.",
    shell_complete=completes_files,
)
@click.option("--connections", type=click.IntRange(1, MOST_CONNECTIONS), default=1, metavar="N", help="1 by default.")
@click.option(
    "--in-flight",
    type=click.IntRange(1, MOST_IN_FLIGHT),
    metavar="N",
    help="Calls of each connection that may be unanswered: 1 by default, with --rate 1024.",
)
@click.option("--rate", type=_RATES, metavar="N", help="Calls in a second, all together.")
@click.option("--seconds", type=Seconds(_LEAST_SECONDS), help="How long: 10 by default.")
@click.option(
    "--count", type=click.IntRange(1, MOST_CALLS), metavar="N", help="How many calls; the first of both ends it."
)
@click.option("--warm-up", type=Seconds(), default=0.0, help="How long to call before it counts.")
@click.option("--timeout", type=Seconds(), help="How long each call may take.")
@click.option("--as-user", metavar="USER", help="As this user, or UID:GID; for root.")
@click.option("--json", is_flag=True, help="Write JSON, at a terminal too.")
@click.pass_context
def command(ctx: click.Context, /, address: str, method: str, args: tuple[str, ...], **options: Any) -> int:
    """Measure."""
    check_unknown([method, *args], [name for option in ctx.command.params for name in option.opts])
    # Only now, for they load asyncio, and other commands do without; and all of it before this is another user.
    from seqrpc.cli.benchreport import Report  # noqa: PLC0415
    from seqrpc.cli.measuring import Measurement, Plan  # noqa: PLC0415
    from seqrpc.cli.reaching import Client  # noqa: PLC0415
    from seqrpc.cli.repeating import Repeated  # noqa: PLC0415

    plan = Plan(**_checked(options))
    connections = options["connections"]
    place = place_of(address)
    identity = None if options["as_user"] is None else identity_of(options["as_user"])
    screen = Screen(json=options["json"])
    is_brief = plan.seconds is not None and plan.seconds + plan.warm_up < _BRIEF
    limits = dataclasses.replace(
        DEFAULT_LIMITS, max_calls_in_flight=max(plan.in_flight, DEFAULT_LIMITS.max_calls_in_flight)
    )
    client = Client(place, connections, limits)
    with contextlib.ExitStack() as stack:
        gauge = stack.enter_context(Gauge(method, shows=screen.err.isatty() and not is_brief))
        if identity is not None:
            become(identity)
        stack.enter_context(client)
        document = client.run(client.description(plan.timeout))
        call = stack.enter_context(contextlib.closing(Repeated(document, method, args, options["files"])))

        def tell(part: float, outcomes: Outcomes) -> None:
            gauge.tell(part, outcomes.calls, outcomes.failed, outcomes.rate)

        measurement = Measurement(plan, call, client.connections, tell)
        client.run(measurement.run())
    lost = measurement.lost
    ended = "lost" if lost is not None else "interrupted" if measurement.is_interrupted else "done"
    outcomes, used = measurement.outcomes, measurement.processor
    Report(call.name, address, connections, plan.in_flight, plan.rate, outcomes, used, ended).write(screen)
    screen.flush()
    if lost is not None:
        screen.complain(told(lost))
        return FAILED
    if measurement.is_interrupted:
        raise KeyboardInterrupt
    status, text = outcomes.verdict
    if text:
        rule = f" (who may call it: {call.rule})" if status == REFUSED and call.rule else ""
        screen.complain(f"{text}{rule}")
    return status


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Return what is to be done, as a plan has it.

    Raises:
        Ending: it cannot be done.
    """
    if options["rate"] is not None and math.isnan(options["rate"]):  # which click takes to be in any range
        raise misused(f"--rate {options['rate']}: a number is wanted")
    rate, count, seconds, connections = options["rate"], options["count"], options["seconds"], options["connections"]
    most = MOST_IN_FLIGHT // connections
    in_flight = options["in_flight"] or (1 if rate is None else min(AT_A_RATE, most))
    if in_flight > most:
        raise misused(
            f"--connections {connections} --in-flight {in_flight}: together at most {MOST_IN_FLIGHT} calls are made at"
            " a time"
        )
    seconds = SECONDS if seconds is None and count is None else seconds
    return {
        "seconds": None if seconds is None else min(seconds, LONGEST_TIMER),
        "calls": count,
        "rate": rate,
        "in_flight": in_flight,
        "warm_up": min(options["warm_up"], LONGEST_TIMER),
        "timeout": None if options["timeout"] is None else min(options["timeout"], LONGEST_TIMER),
    }
