"""The command ``stub``: the interface of a service as Python, for those who call it."""

from __future__ import annotations

import click

from seqrpc.cli import sources
from seqrpc.cli.completers import completes_addresses
from seqrpc.cli.endings import FAILED, HELP, OK
from seqrpc.cli.options import Seconds
from seqrpc.cli.outputs import write_whole
from seqrpc.cli.screen import Screen
from seqrpc.documents.stubs import is_current, write_stub

SECONDS = 10.0


@click.command(
    "stub",
    help=f"""Write the interface of what is at ADDRESS as a Python module, for proxies and type checkers.

    {sources.HELP}

    With --check FILE nothing is written: the status tells whether that file is what would be written.""",
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
            if is_current(file.read(), document):
                return OK
        screen.complain(f"{check} is not what {source} is now: write it anew with 'seqrpc stub {source} -o {check}'")
        return FAILED
    text = write_stub(document, source)
    if output is None:
        screen.code(text)
    else:
        write_whole(output, text)
    return OK
