"""The commands, each loaded when it is asked for, and how the program runs one and ends."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from seqrpc.cli import endings
from seqrpc.cli.program import COMPLETION, PROGRAM, is_extra, without
from seqrpc.cli.screen import Screen
from seqrpc.errors import RpcError
from seqrpc.text import offered, shown

COMMANDS: Final = {
    "bench": ("seqrpc.cli.bench", "Measure calls of a method."),
    "call": ("seqrpc.cli.call", "Call a method, and write its result."),
    "completion": ("seqrpc.cli.completion", "Write what a shell needs to complete commands."),
    "describe": ("seqrpc.cli.describe", "Tell what a service offers, and what you may call."),
    "diff": ("seqrpc.cli.diff", "Compare two interfaces."),
    "docs": ("seqrpc.cli.docs", "Write the documentation of a service as a page."),
    "list": ("seqrpc.cli.listing", "List the services on this machine."),
    "monitor": ("seqrpc.cli.monitor", "Write calls as they pass."),
    "serve": ("seqrpc.cli.serve", "Serve a class."),
    "stub": ("seqrpc.cli.stub", "Write the interface of a service as Python."),
    "top": ("seqrpc.cli.top", "Show how a server is, again and again."),
    "relay": ("seqrpc.cli.relay", ""),
}
"""Where each command is, as ``command`` of a module, and what the list of commands says of it: nothing, if it is
hidden."""


class Commands(click.Group):
    """The program, whose commands are loaded when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the names of those that there are."""
        return [name for name, (module, _help) in COMMANDS.items() if is_there(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Load one."""
        module, _help = COMMANDS.get(cmd_name, ("", ""))
        if not module or not is_there(module):
            return None
        command: click.Command = import_module(module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named, and its arguments; offer the nearest if there is none."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            known = [each for each in self.list_commands(ctx) if COMMANDS[each][1]]
            raise click.UsageError(f"there is no command {shown(name, 50)!r}{offered(name, known)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without loading them."""
        rows = [(name, COMMANDS[name][1]) for name in self.list_commands(ctx) if COMMANDS[name][1]]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Return the names that begin so."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - seldom needed

        names = [name for name in self.list_commands(ctx) if COMMANDS[name][1] and name.startswith(incomplete)]
        named = [CompletionItem(name, help=COMMANDS[name][1]) for name in names]
        return named or click.Command.shell_complete(self, ctx, incomplete)


def is_there(module: str) -> bool:
    """Return whether a module is there, without loading it."""
    return importlib.util.find_spec(module) is not None


def _tell_versions(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:  # noqa: FBT001 - click calls it
    """Write them, if they are asked for."""
    if asked and not ctx.resilient_parsing:
        from seqrpc.cli.versions import versions  # noqa: PLC0415 - seldom needed

        click.echo(versions())
        ctx.exit()


@click.command(
    cls=Commands,
    help="Call, describe and serve seqrpc services.",
    epilog=f"\b\n{endings.HELP}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_tell_versions,
    help="Show versions, and which twin runs, and exit.",
)
def program() -> None:
    """Do nothing before a command."""


def run(args: Sequence[str]) -> int:
    """Run the program with arguments; return its exit status, or end as the signal does that ended it."""
    _provide_streams()
    screen = Screen()
    logging.getLogger(PROGRAM).addHandler(logging.NullHandler())  # what a client logs it also raises
    try:
        return _run_and_tell(args, screen)
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            screen.flush()
        endings.die_of(signal.SIGINT)
    except BrokenPipeError:  # nobody reads the output any more
        endings.die_of(signal.SIGPIPE)


def _provide_streams() -> None:
    """Put something in place of standard streams that were closed, for else sockets would have their numbers.

    What is written to standard output then is an error, as in other programs; complaints are lost.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays


def _run_and_tell(args: Sequence[str], screen: Screen) -> int:
    try:
        status = _run(args)
        screen.flush()
    except BrokenPipeError:
        raise
    except click.exceptions.Exit as exc:
        screen.flush()
        return exc.exit_code
    except click.ClickException as exc:
        _tell_misuse(exc, screen)
        return endings.MISUSED
    except SystemExit as exc:  # of what makes a service: no command of ours ends so
        screen.complain(f"SystemExit: {exc.code!r}")
        return endings.FAILED
    except Exception as exc:
        if isinstance(exc, ModuleNotFoundError) and is_extra(exc):
            return without(exc)
        text = _told(exc)
        if isinstance(exc, OSError) or isinstance(exc.__cause__, OSError):
            _drop_what_cannot_be_written(screen)
        if text:
            screen.complain(text)
        return endings.status_of(exc)
    return status


def _told(exc: Exception) -> str:
    if isinstance(exc, RpcError) and exc.data is not None:
        from seqrpc.cli.failures import failure  # noqa: PLC0415 - seldom needed

        return failure(exc)
    return endings.told(exc)


def _drop_what_cannot_be_written(screen: Screen) -> None:
    """Keep the interpreter from trying once more at its end, which would be told, too, and with another status."""
    try:
        screen.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, screen.out.fileno())
        os.close(nowhere)


def _run(args: Sequence[str]) -> int:
    instruction = os.environ.get(COMPLETION)
    if instruction:
        from seqrpc.cli.completion import complete  # noqa: PLC0415 - seldom needed

        return complete(program, instruction)
    with program.make_context(PROGRAM, [*args]) as ctx:
        status = program.invoke(ctx)
    return status if isinstance(status, int) else endings.OK


def _tell_misuse(exc: click.ClickException, screen: Screen) -> None:
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        click.echo(exc.format_message(), err=True)
    elif isinstance(exc, click.UsageError):
        where = PROGRAM if exc.ctx is None else exc.ctx.command_path
        text = " ".join(exc.format_message().split()).rstrip(".")  # choices are on lines of their own
        screen.complain(f"{text} ('{where} --help' says more)")
    else:
        screen.complain(exc.format_message())
