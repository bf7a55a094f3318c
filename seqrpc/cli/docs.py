"""The command ``docs``: what a service offers, as a page for people."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path

import click

from seqrpc.cli.completers import completes_addresses
from seqrpc.cli.endings import FAILED, HELP, Ending, misused
from seqrpc.cli.options import Seconds
from seqrpc.cli.outputs import write_whole
from seqrpc.cli.screen import Screen
from seqrpc.cli.sources import HELP as SOURCES
from seqrpc.cli.sources import description_from
from seqrpc.documents.page import render
from seqrpc.documents.raw import DocumentError

_SECONDS = 10.0


@click.command(
    "docs",
    help=f"""Write what a service offers as one HTML page, which needs nothing else: no network, no other file.

    {SOURCES}""",
    epilog=f"\b\n{HELP}",
)
@click.argument("source", metavar="ADDRESS", shell_complete=completes_addresses)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file; by default standard output."
)
@click.option("--open", "is_shown", is_flag=True, help="Show it in the browser.")
@click.option("--address", help="What the page calls the address, in the lines that call methods.")
@click.option("--timeout", type=Seconds(), default=_SECONDS, show_default=True, help="How long it may take.")
@click.option("--as-user", metavar="USER", help="What this user, or UID:GID, may see and call; for root.")
def command(
    source: str, *, output: Path | None, is_shown: bool, address: str | None, timeout: float, as_user: str | None
) -> None:
    """Write the page."""
    screen = Screen()
    if screen.is_terminal and output is None and not is_shown:
        raise misused("a page is for a browser: take --open, name a file with -o, or pipe it")
    described = description_from(source, seconds=timeout, as_user=as_user)
    try:
        page = render(described.document, address=address or described.address or "ADDRESS")
    except DocumentError as exc:
        raise misused(f"{source}: this is no description of a service: {exc}") from None
    if is_shown and output is None:
        with tempfile.NamedTemporaryFile(prefix="seqrpc-", suffix=".html", delete=False) as file:
            output = Path(file.name)  # it stays: nobody knows when the browser has read it
    if output is None:
        screen.out.write(page)
        return
    write_whole(str(output), page)
    if is_shown:
        _show(output.resolve(), screen)


def _show(path: Path, screen: Screen) -> None:
    screen.remark(str(path))
    if not webbrowser.open(path.as_uri()):
        raise Ending(FAILED, "there is no browser here that could show it")
