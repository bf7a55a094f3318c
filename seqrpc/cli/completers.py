"""What shells complete, by asking the address that was typed: methods, parameters and their values."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

import click

from seqrpc.cli.screen import clean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SECONDS: Final = 1.0
"""That the other side has to answer: somebody waits, with a finger on a key."""

_PLAIN: Final = re.compile(r"(?!-)[\w.@:/=+,%-]*")
"""What a shell takes for one word, and this program for no option; nothing else is offered, whoever thought of it."""


def _item(value: str, *, kind: str = "plain", told: str | None = None) -> CompletionItem:
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - commands that are run do without

    return CompletionItem(value, type=kind, help=None if told is None else clean(told, 100))


def completes_addresses(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's
    """Return the sockets on this machine that begin so; a shell adds files."""
    from seqrpc.cli.listeners import here  # noqa: PLC0415 - seldom needed

    with contextlib.suppress(OSError):
        texts = [str(each.address) for each in here() if not each.remark]
        items = [_item(text) for text in texts if text.startswith(incomplete) and is_plain(text)]
        if items:
            return items
    return [_item(incomplete, kind="file")]


def completes_methods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's
    """Return the methods at the address that begin so."""
    document = _asked(ctx.params.get("address"))
    methods = () if document is None else document.methods
    return [
        _item(method.name, told=method.summary)
        for method in methods
        if method.name.startswith(incomplete) and is_plain(method.name)
    ]


def completes_arguments(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's
    """Return the parameters of the method that begin so, and the values of one that has only some."""
    from seqrpc.cli.learning import by_name, found  # noqa: PLC0415 - seldom needed
    from seqrpc.documents.model import spelled  # noqa: PLC0415 - likewise

    document = _asked(ctx.params.get("address"))
    if document is None or not ctx.params.get("method"):
        return []
    method = found(ctx.params["method"], by_name(document.methods))[1]
    if method is None:
        return []
    name, equals, _value = incomplete.partition("=")
    if equals:
        values = [each for param in method.params if param.name == name for each in _values(param.type, document)]
        # A text that begins with "@" is written "@@": else the server would choose a file that is read and sent.
        words = [f"@{value}" if value.startswith("@") else value for value in values if value != "-"]
        texts = [f"{name}={word}" for word in words]
        items = [_item(text) for text in texts if text.startswith(incomplete) and is_plain(text)]
        return items or [_item(incomplete, kind="file")]
    given = {word.partition("=")[0] for word in ctx.params.get("args") or ()}
    return [
        _item(f"{each.name}=", told=spelled(each.type))
        for each in method.params
        if each.name.startswith(incomplete)
        and each.name not in given
        and each.name.isidentifier()
        and is_plain(each.name)
    ]


def _values(wanted: Any, document: Any) -> list[str]:
    from seqrpc.cli.learning import choices  # noqa: PLC0415 - seldom needed
    from seqrpc.documents.trees import EnumOf, LiteralOf, Scalar  # noqa: PLC0415 - likewise

    values: list[str] = []
    for choice in choices(wanted, document):
        if isinstance(choice, LiteralOf):
            values += [str(value) for value in choice.values if isinstance(value, str | int)]
        elif isinstance(choice, EnumOf):
            values += [str(value) for _name, value in choice.members]
        elif isinstance(choice, Scalar) and choice.name == "bool":
            values += ["true", "false"]
    return values


def _asked(address: Any) -> Any:
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


def is_plain(text: str) -> bool:
    """Return whether a shell takes a text for one word that does nothing."""
    return _PLAIN.fullmatch(text) is not None and text.isascii()
