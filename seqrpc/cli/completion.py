"""The command ``completion``, and how shells ask for completion."""

from __future__ import annotations

import os
import re
from typing import Any, Final

import click
from click.shell_completion import BashComplete as ClickBashComplete
from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)
from click.shell_completion import FishComplete as ClickFishComplete
from click.shell_completion import ZshComplete as ClickZshComplete

from seqrpc.cli.offers import CONTENT, FILE, OPEN, PLAIN, paths
from seqrpc.cli.program import COMPLETION, PROGRAM

_SHELLS: Final = ("bash", "zsh", "fish")

_BREAKS: Final = "=:@"
"""Characters that end a word for bash (COMP_WORDBREAKS), and are in the midst of one here."""


_TYPED: Final = "COMP_TYPED"

_BASH: Final = """\
%(complete_func)s() {
    local - IFS=$'\\n' response completion type value
    set -f

    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD COMP_TYPED="$2" \\
        %(complete_var)s=bash_complete "$1")

    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            content)  # readline would take what follows an @ for a host
                for value in $(compgen -f -- "$value"); do
                    [[ -d $value ]] && value+=/ && compopt -o nospace
                    [[ ${COMP_WORDS[COMP_CWORD]} == [\\'\\"]* ]] || printf -v value %%q "$value"
                    COMPREPLY+=("@$value")
                done ;;
            open) COMPREPLY+=("$value"); compopt -o nospace ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done

    return 0
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""
"""As click's, but for what is no whole word, and for paths behind an ``@``."""


class BashComplete(ClickBashComplete):
    """As click's, but it reads words as the shell will: bash tears them at ``=``, ``:`` and ``@``."""

    source_template = _BASH
    _torn = ""  # what of the word stands before what readline replaces

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before, and the one that is being typed."""
        words = os.environ["COMP_WORDS"].split("\n")
        number = int(os.environ["COMP_CWORD"])
        typed = words[number] if number < len(words) else ""
        whole = _mended([*words[:number], typed])
        last = whole[-1]
        self._torn = last.removesuffix(_unquoted(os.environ.get(_TYPED, "" if typed in _BREAKS else typed)))
        return whole[1:-1], last

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """Return what fits; of paths behind an ``@`` only what bash does not tear once more."""
        items = super().get_completions(args, incomplete)
        return [item for item in items if item.type != CONTENT or incomplete == f"{self._torn}@{item.value}"]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return an item as the script reads it."""
        value = item.value.removeprefix(self._torn) if item.type in (PLAIN, OPEN) else item.value
        return f"{item.type},{value}"


class ZshComplete(ClickZshComplete):
    """As click's, but for what is no whole word, and with paths that are only a part of one."""

    source_template = re.sub(
        r"\n( +)if \[ -n \"\$completions\" \]",
        r"""
\1if [ -n "$opened" ]; then
\1    _describe -V unsorted opened -U -S ''
\1fi
\g<0>""",
        ClickZshComplete.source_template.replace(
            "    local -a response\n", "    local -a opened\n    local -a response\n"
        ).replace(
            '        elif [[ "$type" == "dir" ]]',
            """\
        elif [[ "$type" == "open" ]]; then
            [[ "$descr" == "_" ]] && opened+=("$key") || opened+=("$key":"$descr")
        elif [[ "$type" == "dir" ]]""",
        ),
    )

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """Return what fits."""
        return _with_files(super().get_completions(args, incomplete), incomplete)

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return an item as the script reads it."""
        if item.type != OPEN:
            return super().format_completion(item)
        value = item.value.replace(":", "\\:")  # what _describe takes for the end of it
        return f"{item.type}\n{value}\n{item.help or '_'}"


class FishComplete(ClickFishComplete):
    """As click's, with paths that are only a part of a word."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """Return what fits; fish itself knows that a word goes on behind ``=`` and ``/``."""
        items = _with_files(super().get_completions(args, incomplete), incomplete)
        return [CompletionItem(each.value, PLAIN if each.type == OPEN else each.type, each.help) for each in items]


def _with_files(items: list[CompletionItem[Any]], incomplete: str) -> list[CompletionItem[Any]]:
    """Return items with files in place of paths that are only a part of the word."""
    result: list[CompletionItem[Any]] = []
    for item in items:
        before = incomplete.removesuffix(item.value)
        if item.type == CONTENT or (item.type == FILE and before):
            result += [
                CompletionItem(before + path, OPEN if path.endswith("/") else PLAIN) for path in paths(item.value)
            ]
        else:
            result.append(item)
    return result


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


for _kind in (BashComplete, ZshComplete, FishComplete):
    add_completion_class(_kind)


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
