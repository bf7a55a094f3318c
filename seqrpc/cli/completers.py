"""What shells complete, by asking the address that was typed: methods, parameters and their values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from seqrpc.cli.screen import clean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from seqrpc.cli.offers import Offer
    from seqrpc.documents.trees import Document

SECONDS: Final = 1.0
"""That the other side has to answer: somebody waits, with a finger on a key."""

CHAIN: Final = "seqrpc.chain"
"""Where the context of a command has the words from the first ``--`` on, if that stands between calls."""

BETWEEN: Final = "--"
"""What stands between two calls of a chain."""


class Calling(click.Command):
    """A command that calls: what stands before an option without its value is known while that is completed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave out an option that is last, for whose lack of a value click would forget the rest."""
        if ctx.resilient_parsing and args and args[-1] in {name for each in self.params for name in each.opts}:
            args = args[:-1]
        return super().parse_args(ctx, args)


def completes_addresses(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's
    """Return the sockets on this machine that begin so; a shell adds files."""
    from seqrpc.cli.listeners import here  # noqa: PLC0415 - seldom needed
    from seqrpc.cli.offers import FILE, Offer, is_plain  # noqa: PLC0415 - likewise

    with contextlib.suppress(OSError):
        texts = [str(each.address) for each in here() if not each.remark]
        offers = [Offer(text) for text in texts if text.startswith(incomplete) and is_plain(text)]
        if offers:
            return _items(offers)
    return _items([Offer(incomplete, kind=FILE)])


def completes_methods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's
    """Return the methods at the address that begin so."""
    return _asked_for(ctx, [[]], incomplete)


def completes_arguments(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's
    """Return the parameters of the method that begin so, and values of one that has few; after ``--`` methods."""
    if not ctx.params.get("method"):
        return []
    return _asked_for(ctx, chained(ctx.params["method"], ctx.params.get("args"), ctx.meta.get(CHAIN, ())), incomplete)


def completes_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's
    """Return the parameters of the method that take open files, and files behind their names."""
    from seqrpc.cli.learning import by_name, found  # noqa: PLC0415 - seldom needed
    from seqrpc.cli.offers import of_files  # noqa: PLC0415 - likewise

    document = _asked(ctx.params.get("address"))
    if document is None or not ctx.params.get("method"):
        return []
    method = found(ctx.params["method"], by_name(document.methods))[1]
    return [] if method is None else _items(of_files(method, incomplete, document))


def chained(method: str, args: Sequence[str] | None, rest: Sequence[str]) -> list[list[str]]:
    """Return the calls of a command line, each a method with its arguments; nothing stands for one if it is left out.

    Args:
        method: the first.
        args: its arguments.
        rest: what follows, from the first ``--`` on.
    """
    calls = [[method, *(args or ())]]
    for word in rest:
        if word == BETWEEN:
            calls.append([])
        else:
            calls[-1].append(word)
    return calls


def _asked_for(ctx: click.Context, calls: Sequence[Sequence[str]], incomplete: str) -> list[CompletionItem]:
    from seqrpc.cli.endings import Ending  # noqa: PLC0415 - seldom needed
    from seqrpc.cli.offers import of_chain  # noqa: PLC0415 - likewise

    document = _asked(ctx.params.get("address"))
    with contextlib.suppress(Ending):
        return [] if document is None else _items(of_chain(calls, incomplete, document))
    return []


def _items(offers: Iterable[Offer]) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - commands that are run do without

    return [CompletionItem(text, type=kind, help=clean(told, 100)) for text, told, kind in offers]


def _asked(address: Any) -> Document | None:
    """Return the description of what listens at an address; None if there is none. Nothing is started for that."""
    from seqrpc.cli.learning import description_if_any  # noqa: PLC0415 - seldom needed
    from seqrpc.cli.places import Elsewhere, Program, bounded, connected, place_of  # noqa: PLC0415 - likewise

    if not isinstance(address, str):
        return None
    with contextlib.suppress(Exception):
        place = place_of(address)
        if not isinstance(place, Program | Elsewhere):
            with bounded(SECONDS), connected(place) as connection:
                return description_if_any(connection)
    return None
