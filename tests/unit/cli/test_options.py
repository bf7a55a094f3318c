"""What values options take."""

from __future__ import annotations

import click
import pytest

from seqrpc.cli.endings import Ending
from seqrpc.cli.options import Octal, Seconds, check_misplaced, check_unknown


@click.command()
@click.option("--timeout", type=Seconds(0.5), default=10.0, show_default=True, help="How long.")
@click.option("--mode", type=Octal())
def command(timeout: float, mode: int | None) -> tuple[float, int | None]:
    return timeout, mode


def ran(*args: str) -> object:
    return command.main([*args], standalone_mode=False)


def test_values_are_read() -> None:
    assert ran() == (10.0, None)
    assert ran("--timeout", "1.5", "--mode", "660") == (1.5, 0o660)
    assert ran("--timeout", "inf") == (float("inf"), None)


@pytest.mark.parametrize(
    "args, text",
    [
        (("--timeout", "x"), "'x' is no number of seconds, of 0.5 or more"),
        (("--timeout", "nan"), "'nan' is no number of seconds"),
        (("--timeout", "0.1"), "'0.1' is no number of seconds, of 0.5 or more"),
        (("--mode", "9"), "'9' is no number in octal, as 660 is"),
    ],
)
def test_what_is_none_is_refused(args: tuple[str, ...], text: str) -> None:
    with pytest.raises(click.UsageError, match=text):
        ran(*args)


def test_help_says_seconds() -> None:
    with click.Context(command) as ctx:
        assert "--timeout SECONDS  How long.  [default: 10.0]\n" in command.get_help(ctx)


def test_words_that_look_like_options_are_refused() -> None:
    check_unknown(["x", "-", "--", "-5", "--5", "-x", "--X", "name=--x", "- -x"], ["--timeout"])
    with pytest.raises(Ending, match=r"no option --tiemout; did you mean '--timeout'\? .*NAME=--tiemout") as raised:
        check_unknown(["x", "--tiemout=3\n"], ["--timeout"])
    assert raised.value.status == 2


def test_options_where_none_are_read_are_refused() -> None:
    check_misplaced(["--other", "x=--timeout"], ["--timeout"], "before it")
    with pytest.raises(Ending, match="--timeout stands before it") as raised:
        check_misplaced(["--timeout=3"], ["--timeout"], "before it")
    assert raised.value.status == 2
