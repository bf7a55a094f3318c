"""The command ``describe``: what a service offers, and what you may call of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import click

from seqrpc.cli.completers import completes_addresses, completes_methods
from seqrpc.cli.endings import ABSENT, FAILED, HELP, Ending
from seqrpc.cli.identity import become, identity_of
from seqrpc.cli.importing import is_named
from seqrpc.cli.learning import by_name, found
from seqrpc.cli.options import Seconds
from seqrpc.cli.places import bounded, connected, place_of
from seqrpc.cli.screen import Part, Screen, Styled, clean_lines
from seqrpc.cli.sources import description_from
from seqrpc.documents.model import DocumentError, read, signature
from seqrpc.documents.trees import Document, Method
from seqrpc.text import offered

SECONDS: Final = 10.0

_INDENT: Final = "    "


@click.command(
    "describe",
    help="""Tell what listens at ADDRESS offers: its methods as they are written in Python, what they do, who may call
    them, and whether you may. METHOD is one of them.

    ADDRESS may also be MODULE:CLASS, a service without a server. At a terminal this is text, else the OpenRPC document,
    or its part, as JSON.""",
    epilog=f"\b\n{HELP}",
)
@click.argument("address", shell_complete=completes_addresses)
@click.argument("method", required=False, shell_complete=completes_methods)
@click.option("--json", is_flag=True, help="The document as JSON, at a terminal too.")
@click.option("--timeout", type=Seconds(), default=SECONDS, show_default=True, help="How long it may take.")
@click.option("--as-user", metavar="USER", help="As this user, or UID:GID; for root.")
def command(address: str, method: str | None, *, json: bool, timeout: float, as_user: str | None) -> None:
    """Describe."""
    screen = Screen(json=json)
    document = description_from(address, seconds=timeout).document if is_named(address) else None
    if document is None:
        place = place_of(address)
        if as_user is not None:
            become(identity_of(as_user))
        with bounded(timeout), connected(place) as connection:
            document = connection.call("rpc.discover")
    try:
        described = read(document)
    except DocumentError as exc:
        raise Ending(FAILED, f"the description that came is none: {exc}") from None
    only = None if method is None else _one(method, described)
    if not screen.is_for_people:
        _write_json(screen, document if only is None else _part(document, only))
    elif only is None:
        _write(screen, described)
    else:
        _write_method(screen, only, "")


def _write_json(screen: Screen, told: Any) -> None:
    """Write a part of a document, in which anything may be besides what was read.

    Raises:
        Ending: JSON has no such thing.
    """
    try:
        screen.value(told)
    except (TypeError, ValueError) as exc:
        raise Ending(FAILED, f"the description that came is none: {exc}") from None


def _one(name: str, document: Document) -> Method:
    """Return a method of the services, or of the objects that they give."""
    methods = [*document.methods, *(each for one in document.interfaces.values() for each in one.methods)]
    whole, method = found(name, by_name(methods))
    if method is None:
        raise Ending(ABSENT, f"there is no method {whole!r}{_near(whole, methods)}")
    return method


def _near(name: str, methods: list[Method]) -> str:
    service, _dot, short = name.rpartition(".")
    same = [each.short_name for each in methods if each.service == service]
    return offered(short, same) if same else offered(name, [each.name for each in methods])


def _part(document: Any, method: Method) -> Any:
    lists = [document["methods"], *(one["methods"] for one in document["x-seqrpc"].get("interfaces", {}).values())]
    return next(each for methods in lists for each in methods if each["name"] == method.name)


def _write(screen: Screen, document: Document) -> None:
    for number, service in enumerate(document.services):
        if number:
            screen.line()
        bases = f" ({', '.join(service.bases)})" if service.bases else ""
        _write_head(screen, service.name, bases, service.description)
        _write_methods(screen, [method for method in document.methods if method.service == service.name])
    for interface in document.interfaces.values():
        screen.line()
        _write_head(screen, interface.name, ", an object", interface.description)
        _write_methods(screen, interface.methods)


def _write_head(screen: Screen, name: str, more: str, description: str) -> None:
    screen.line(Styled(name, "name"), *([Styled(more, "faint")] if more else []))
    _write_paragraphs(screen, description, _INDENT)


def _write_methods(screen: Screen, methods: Iterable[Method]) -> None:
    for method in methods:
        screen.line()
        _write_method(screen, method, _INDENT)


def _write_method(screen: Screen, method: Method, indent: str) -> None:
    name, bracket, rest = signature(method, screen.width - len(indent)).partition("(")
    first, *more = rest.split("\n")
    screen.line(indent, Styled(name, "name"), Styled(f"{bracket}{first}", "type"))
    for line in more:
        screen.line(indent, Styled(line, "type"))
    inner = indent + _INDENT
    _write_paragraphs(screen, method.summary, inner)
    if method.description:
        screen.line()
        _write_paragraphs(screen, method.description, inner)
    notes = [note for note, holds in (("one-way", method.oneway), ("idempotent", method.idempotent)) if holds]
    if notes:
        screen.line(inner, Styled(", ".join(notes), "faint"))
    if method.errors:
        screen.line(inner, Styled("errors: ", "faint"), ", ".join(failure.code for failure in method.errors))
        for failure in method.errors:
            if failure.description:
                summary = " ".join(failure.description.partition("\n\n")[0].split())
                screen.line(inner, _INDENT, failure.code, Styled(": ", "faint"), summary)
    parts = _allowance(method)
    if parts:
        screen.line(inner, *parts)


def _allowance(method: Method) -> list[Part]:
    """Return who may call a method, and whether the one who asks may."""
    rule: list[Part] = [f": {method.rule}"] if method.rule else []
    if method.allowed is None:
        return [Styled("may be called by", "faint"), *rule] if rule else []
    said = Styled("you may call it", "good") if method.allowed else Styled("you may not call it", "bad")
    return [said, *rule]


def _write_paragraphs(screen: Screen, text: str, indent: str) -> None:
    for line in clean_lines(text) if text else ():
        screen.line(*([indent, line] if line else []))
