"""The command ``stub``: the interface of a service as Python, for those who call it."""

from __future__ import annotations

import difflib
import itertools
import re
from typing import Final

import click

from seqrpc.cli import sources
from seqrpc.cli.completers import completes_addresses
from seqrpc.cli.endings import FAILED, HELP, OK
from seqrpc.cli.options import Seconds
from seqrpc.cli.outputs import write_whole
from seqrpc.cli.screen import Screen, Styled
from seqrpc.documents.stubs import is_current, write_stub

SECONDS = 10.0

_PLACE: Final = re.compile(r"@@ -([0-9]+)")

_CONTEXT: Final = 3  # lines above and below

_MOST_COMPARED: Final = 2_000  # lines, from the first on that differs

_MOST_LINES: Final = 100
"""Of a difference: who sees so many writes the stub anew."""


@click.command(
    "stub",
    help=f"""Write the interface of what is at ADDRESS as a Python module, for proxies and type checkers.

    {sources.HELP}

    With --check FILE nothing is written: the status tells whether that file is what would be written, and
    standard output what differs.""",
    epilog=f"\b\n{HELP}",
)
@click.argument("source", metavar="ADDRESS", shell_complete=completes_addresses)
@click.option(
    "-o", "--output", type=click.Path(), metavar="FILE", help="Where to write it; by default to standard output."
)
@click.option("--check", type=click.Path(), metavar="FILE", help="A stub that was written before.")
@click.option("--timeout", type=Seconds(), default=SECONDS, show_default=True, help="How long it may take.")
def command(source: str, *, output: str | None, check: str | None, timeout: float) -> int:
    """Write a stub, or check one."""
    screen = Screen()
    document = sources.document_from(source, timeout)
    if check is not None:
        with open(check, encoding="utf-8", errors="replace") as file:
            kept = file.read()
        if is_current(kept, document):
            return OK
        _tell_difference(screen, kept, write_stub(document, source), (check, source))
        screen.complain(f"{check} is not what {source} is now: write it anew with 'seqrpc stub {source} -o {check}'")
        return FAILED
    text = write_stub(document, source)
    if output is None:
        screen.code(text)
    else:
        write_whole(output, text)
    return OK


def _tell_difference(screen: Screen, old: str, new: str, names: tuple[str, str]) -> None:
    """Write how a stub differs from what it would be, as ``diff -u`` does."""
    was, now = old.splitlines(), new.splitlines()
    if was and was[0].partition(" from ")[0] == now[0].partition(" from ")[0]:
        now[0] = was[0]  # where it was made from is no difference
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(was, now, strict=False))
    begin = max(0, sum(1 for _ in same) - _CONTEXT)
    # To look for a difference takes the square of what there is to compare, which a server may have made long.
    was, now = (lines[begin : begin + _MOST_COMPARED] for lines in (was, now))
    for number, line in enumerate(difflib.unified_diff(was, now, *names, lineterm="", n=_CONTEXT)):
        if number == _MOST_LINES:
            screen.line(f"… (these are the first {_MOST_LINES} lines)")
            break
        found = _PLACE.match(line)
        text = f"@@ line {int(found[1]) + begin} @@" if found else line
        style = {"+": "good", "-": "bad", "@": "faint"}.get(line[:1])
        screen.line(text if style is None else Styled(text, style))
