"""The command ``diff``: what changed from one interface to another, and whom that breaks."""

from __future__ import annotations

from typing import Any

import click

from seqrpc.cli import sources
from seqrpc.cli.apart import done_apart
from seqrpc.cli.completers import completes_addresses
from seqrpc.cli.endings import FAILED, HELP, OK
from seqrpc.cli.options import Seconds
from seqrpc.cli.screen import Screen, Styled
from seqrpc.cli.sources import is_module
from seqrpc.documents.changes import Change, compare

SECONDS = 10.0


@click.command(
    "diff",
    help=f"""Compare two interfaces: tell what changed from OLD to NEW, and whom that breaks while a system is updated.

    {sources.HELP}

    At a terminal this is text, else a line of JSON for each change. The status is 1 if there are any.""",
    epilog=f"\b\n{HELP}",
)
@click.argument("old", shell_complete=completes_addresses)
@click.argument("new", shell_complete=completes_addresses)
@click.option("--breaking", is_flag=True, help="Only what breaks somebody.")
@click.option("--json", is_flag=True, help="Lines of JSON, at a terminal too.")
@click.option("--timeout", type=Seconds(), default=SECONDS, show_default=True, help="How long each may take.")
def command(old: str, new: str, *, breaking: bool, json: bool, timeout: float) -> int:
    """Compare."""
    screen = Screen(json=json)
    was = _apart(old, screen) if is_module(old) and is_module(new) else sources.document_from(old, timeout)
    changes = compare(was, sources.document_from(new, timeout))
    told = [change for change in changes if not breaking or change.breaks_callers or change.breaks_servers]
    for change in told:
        if screen.is_for_people:
            _write(screen, change)
        else:
            screen.value({name: getattr(change, name) for name in change.__struct_fields__})
    return FAILED if told else OK


def _apart(source: str, screen: Screen) -> Any:
    """Return the document of a class that another process imports: one has one class of errors for each code."""
    return done_apart(lambda: sources.description_from(source, seconds=None).document, screen)


def _write(screen: Screen, change: Change) -> None:
    broken = [
        who for who, is_broken in (("callers", change.breaks_callers), ("servers", change.breaks_servers)) if is_broken
    ]
    verdict = Styled(f"breaks {' and '.join(broken)}", "bad") if broken else Styled("breaks nobody", "good")
    screen.line(Styled(change.path, "name"), f": {change.text}")
    screen.line("    ", verdict, f": {change.why}")
