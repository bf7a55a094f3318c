"""What values options take, with the words of this program where they do not fit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, Final

import click

from seqrpc.cli.endings import misused
from seqrpc.text import offered

_OPTION: Final = re.compile(r"(--[a-z][a-z-]*)(?:=.*)?", re.DOTALL)


class Seconds(click.ParamType):  # type: ignore[type-arg]  # as below
    """A number of seconds.

    Args:
        least: the smallest.
    """

    name = "seconds"

    def __init__(self, least: float = 0) -> None:
        """Bound it below."""
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not seconds >= self._least:
            self.fail(f"{value!r} is no number of seconds, of {self._least:g} or more", param, ctx)
        return seconds


class Octal(click.ParamType):  # type: ignore[type-arg]  # it has parameters since click 8.4 only
    """Permissions as chmod(1) takes them."""

    name = "octal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        try:
            return int(str(value), 8)
        except ValueError:
            self.fail(f"{value!r} is no number in octal, as 660 is", param, ctx)


def check_unknown(words: Iterable[str], known: Iterable[str]) -> None:
    """Refuse words that look like an option which is none: a text that begins so is given by the name of its parameter.

    Args:
        words: what an option that is unknown would be taken for.
        known: the options that there are.

    Raises:
        Ending: one does.
    """
    for word in words:
        found = _OPTION.fullmatch(word)
        if found is not None:
            near = offered(found[1], known)
            raise misused(f"there is no option {found[1]}{near} (a text that begins so is written NAME={found[1]})")


def check_misplaced(words: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse words that are options which stand where none is read.

    Raises:
        Ending: one is.
    """
    options = {*known}
    for word in words:
        found = _OPTION.fullmatch(word)
        if found is not None and found[1] in options:
            raise misused(f"{found[1]} stands {where} (a text that begins so is written NAME={found[1]})")
