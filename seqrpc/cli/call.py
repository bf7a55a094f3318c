"""The command ``call``: one call, or a chain of them, of which each is of what the one before gave."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import click

from seqrpc.blocking.channels import Channel
from seqrpc.cli.completers import (
    BETWEEN,
    CHAIN,
    Calling,
    chained,
    completes_addresses,
    completes_arguments,
    completes_files,
    completes_methods,
)
from seqrpc.cli.conversation import Conversation, Target
from seqrpc.cli.endings import ABSENT, FAILED, HELP, Ending, after_a_call, misused
from seqrpc.cli.identity import become, identity_of
from seqrpc.cli.learning import description_if_any
from seqrpc.cli.options import Seconds, check_misplaced, check_unknown
from seqrpc.cli.places import Elsewhere, Place, Program, bounded, connected, place_of
from seqrpc.cli.results import Writer
from seqrpc.cli.saving import Saves
from seqrpc.cli.screen import Screen
from seqrpc.documents.trees import Document
from seqrpc.kernel.addresses import FdAddress, SystemdAddress

_SECONDS: Final = 1.0  # for a description, without which the call goes on


class _Chained(Calling):
    """A command whose arguments have calls between ``--``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what follows the first ``--``, which click would take for a mark of its own."""
        at = args.index(BETWEEN) if BETWEEN in args else len(args)
        ctx.meta[CHAIN] = args[at:]
        return super().parse_args(ctx, args[:at])


@click.command(
    "call",
    cls=_Chained,
    context_settings={"ignore_unknown_options": True},
    help="""Call METHOD of what listens at ADDRESS, and write its result.

    ADDRESS is a path, @NAME, fd:N, 'exec:PROGRAM ARGS', a program that serves at descriptor 3, or
    ssh://[USER@]HOST/PATH. METHOD is Service.method; the service may be left out where one only has such a method.

    ARGS are values, by position, or NAME=VALUE. They are read by the types that the service says: 7 is a text where a
    text is wanted. Where it says none, they are JSON, else text. @PATH stands for what is in a file, - for standard
    input (once); @@ begins a text with @, and \\- is one dash. A stream is sent from lines. Bytes inside of JSON are
    base64.

    An object that a method gives is called by a chain: call ADDRESS Vault.open box -- read 7 -- close.

    At a terminal results are laid out, else they are JSON on one line, and streams a line for each item. Bytes, buffers
    and open files are written as they are.""",
    epilog=f"\b\n{HELP}",
)
@click.argument("address", shell_complete=completes_addresses)
@click.argument("method", required=False, shell_complete=completes_methods)
@click.argument("args", nargs=-1, type=click.UNPROCESSED, shell_complete=completes_arguments)
@click.option(
    "--fd",
    "files",
    multiple=True,
    metavar="NAME=PATH",
    help="Send an open file: PATH, >PATH, >>PATH, <>PATH.",
    shell_complete=completes_files,
)
@click.option("--timeout", type=Seconds(), help="How long all of it may take.")
@click.option("--json", is_flag=True, help="Write JSON, at a terminal too.")
@click.option("--raw", is_flag=True, help="Write texts and bytes as they are.")
@click.option(
    "--save",
    "saves",
    multiple=True,
    type=click.Path(),
    metavar="PATH",
    help="Write files, buffers and bytes there, in order.",
)
@click.option("--exec", "program", metavar="PROGRAM", help="Run a program with what came as its input.")
@click.option("--as-user", metavar="USER", help="As this user, or UID:GID; for root.")
@click.option("--shell", is_flag=True, help="Read calls line by line.")
@click.pass_context
def command(ctx: click.Context, /, address: str, method: str | None, args: tuple[str, ...], **options: Any) -> int:
    """Call."""
    rest = ctx.meta[CHAIN]
    known = [name for option in ctx.command.params for name in option.opts if name.startswith("--")]
    check_unknown([method or "", *args], known)
    check_misplaced(rest, known, f"before the first {BETWEEN}")
    calls = _chain(method, args, rest)
    if options["shell"] and calls:
        raise misused("with --shell calls are typed in, and none is in the command line")
    if not options["shell"] and not calls:
        raise click.UsageError("Missing argument 'METHOD'", ctx)
    place = place_of(address)
    ours: Document | None = None
    if options["as_user"] is not None:
        who = identity_of(options["as_user"])
        ours = _known_of(place)
        become(who)
    screen = Screen(json=options["json"])
    saves = Saves(options["saves"])
    writer = Writer(screen, raw=options["raw"], saves=saves, program=options["program"])
    with (
        bounded(options["timeout"]),
        connected(place) as connection,
        contextlib.closing(Conversation(connection, description_if_any(connection) or ours)) as conversation,
        contextlib.closing(saves),
    ):
        writer.prepare()
        if options["shell"]:
            from seqrpc.cli.shell import Shell  # noqa: PLC0415 - seldom needed

            Shell(conversation, screen, writer).run()
        else:
            _run(conversation, calls, options["files"], screen, writer)
    writer.close()
    return writer.status


def _known_of(place: Place) -> Document | None:
    """Return what this user is told, before it becomes another: who is refused is told nothing, nor by what rule."""
    if isinstance(place, Program | Elsewhere | FdAddress | SystemdAddress):
        return None  # there is one connection, which is the other's
    with contextlib.suppress(Exception), bounded(_SECONDS), connected(place) as connection:
        return description_if_any(connection)
    return None


def _chain(method: str | None, args: Sequence[str], rest: Sequence[str]) -> list[list[str]]:
    """Return the calls of a command line, each a method with its arguments."""
    if method is None:
        return []
    calls = chained(method, args, rest)
    if not all(calls):
        raise misused(f"a method follows after {BETWEEN}")
    return calls


def _run(
    conversation: Conversation, calls: Sequence[Sequence[str]], files: Sequence[str], screen: Screen, writer: Writer
) -> None:
    target, before = conversation.services, ""
    conversation.check([name for name, *_words in calls])
    for number, (name, *words) in enumerate(calls):
        is_last = number == len(calls) - 1
        try:
            result, target = conversation.call(target, name, words, files if is_last else ())
        except Ending as exc:
            if exc.status != ABSENT or not before:
                raise
            raise Ending(FAILED, f"{before} gave no object: {exc}") from None
        before = "" if isinstance(result, Channel) else name
        with after_a_call():
            if not isinstance(result, Channel):
                writer.write(result, is_last=is_last)
            elif is_last:
                _tell_object(screen, target)


def _tell_object(screen: Screen, target: Target) -> None:
    """Write that an object came."""
    names = [*(target.methods or {})]
    if screen.is_for_people:
        offer = f", with {', '.join(names)}" if names else ""
        screen.line(f"an object{offer}: it is called by what follows after {BETWEEN}")
    else:
        screen.value({"object": names or True})
