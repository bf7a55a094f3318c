"""The command ``completion``, and how shells ask for completion."""

from __future__ import annotations

import os
from typing import Final

import click
from click.shell_completion import BashComplete as ClickBashComplete
from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from seqrpc.cli.program import COMPLETION, PROGRAM

_SHELLS: Final = ("bash", "zsh", "fish")

_BREAKS: Final = "=:@"
"""Characters that end a word for bash (COMP_WORDBREAKS), and are in the midst of one here."""


class BashComplete(ClickBashComplete):
    """As click's, but it reads words as the shell will: bash tears them at ``=``, ``:`` and ``@``."""

    _torn = ""  # what of the word, for bash, is words before it

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before, and the one that is being typed."""
        words = os.environ["COMP_WORDS"].split("\n")
        number = int(os.environ["COMP_CWORD"])
        typed = words[number] if number < len(words) else ""
        whole = _mended([*words[:number], typed])
        last = whole[-1]
        self._torn = last[: len(last) - len(typed)] if typed not in _BREAKS else last
        return whole[1:-1], last

    def format_completion(self, item: CompletionItem) -> str:
        """Return an item as the script reads it."""
        value = item.value.removeprefix(self._torn) if item.type == "plain" else item.value
        return f"{item.type},{value}"


def _mended(words: list[str]) -> list[str]:
    """Return words as the program would get them: what bash has torn is put together again, and unquoted."""
    mended: list[str] = []
    joins = False
    for word in words:
        is_break = word != "" and all(char in _BREAKS + "/" for char in word) and word[0] in _BREAKS
        begins = word.startswith("@") and not mended[-1].startswith("ssh:")
        if mended[1:] and (joins or (is_break and not begins)):
            mended[-1] += word
        else:
            mended.append(word)
        joins = is_break
    return [_unquoted(word) for word in mended]


def _unquoted(word: str) -> str:
    return "".join(split_arg_string(word)) if word else word


add_completion_class(BashComplete)


def complete(program: click.Command, instruction: str) -> int:
    """Answer a shell; return the exit status.

    Args:
        program: the command.
        instruction: ``SHELL_complete`` or ``SHELL_source``.
    """
    shell, _, what = instruction.partition("_")
    made = _made(program, shell)
    if made is None or what not in ("complete", "source"):
        return 1
    click.echo((made.complete() if what == "complete" else made.source()).encode(), nl=what == "complete")
    return 0


def _made(program: click.Command, shell: str) -> ShellComplete | None:
    kind = get_completion_class(shell)
    return None if kind is None else kind(program, {}, PROGRAM, COMPLETION)


@click.command(
    "completion",
    help="""Write what SHELL needs to complete commands, methods and parameters.

    For bash: eval "$(seqrpc completion bash)" in ~/.bashrc; for zsh the same in ~/.zshrc; for fish: seqrpc completion
    fish > ~/.config/fish/completions/seqrpc.fish""",
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(ctx: click.Context, /, shell: str) -> None:
    """Write the script."""
    made = _made(ctx.find_root().command, shell)
    assert made is not None
    click.echo(made.source(), nl=False)
