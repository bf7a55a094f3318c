"""The command ``describe``: what a service offers, and what you may call of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import click

from seqrpc.cli.completers import completes_addresses, completes_methods
from seqrpc.cli.definitions import INDENT, write_head, write_paragraphs, write_type
from seqrpc.cli.endings import ABSENT, FAILED, HELP, Ending
from seqrpc.cli.everywhere import NAMESPACE, document_with
from seqrpc.cli.learning import by_name, found
from seqrpc.cli.options import Seconds
from seqrpc.cli.screen import Part, Screen, Styled
from seqrpc.cli.sources import description_from
from seqrpc.documents.model import DocumentError, read, signature
from seqrpc.documents.parts import needs_of, part_of
from seqrpc.documents.raw import OURS
from seqrpc.documents.trees import Document, Interface, Method, Service, Type
from seqrpc.documents.walks import methods_in
from seqrpc.text import offered

SECONDS: Final = 10.0

_Thing = Service | Interface | Method | Type
"""What a name stands for."""


@click.command(
    "describe",
    help="""Tell what listens at ADDRESS offers: its methods as they are written in Python, what they do, who may call
    them, and whether you may. NAME is one of them, or a type, an object or a service: it is told with the types that
    it needs.

    ADDRESS may also be MODULE:CLASS, a service without a server, a file with a document, or - for standard input. At a
    terminal this is text, else the OpenRPC document, or its part, as JSON.""",
    epilog=f"\b\n{HELP}",
)
@click.argument("address", shell_complete=completes_addresses)
@click.argument("name", required=False, shell_complete=completes_methods)
@click.option("--json", is_flag=True, help="The document as JSON, at a terminal too.")
@click.option("--timeout", type=Seconds(), default=SECONDS, show_default=True, help="How long it may take.")
@click.option("--as-user", metavar="USER", help="As this user, or UID:GID; for root.")
def command(address: str, name: str | None, *, json: bool, timeout: float, as_user: str | None) -> None:
    """Describe."""
    screen = Screen(json=json)
    document = description_from(address, seconds=timeout, as_user=as_user).document
    try:
        described = read(document)
    except DocumentError as exc:
        raise Ending(FAILED, f"the description that came is none: {exc}") from None
    if name is not None and name.startswith(NAMESPACE) and described.of_seqrpc:
        document = document_with(name)
        described = read(document)
    if name is None:
        part, things = document, None
    else:
        thing = _named(name, described)
        alone = _part(document, thing, name)
        part, things = part_of(alone, document), [(name, thing), *_needed(alone, document, described, thing)]
    if not screen.is_for_people:
        _write_json(screen, part)
    elif things is None:
        _write(screen, described)
    else:
        for number, (called, each) in enumerate(things):
            if number:
                screen.line()
            _write_thing(screen, called, each, described)


def _write_json(screen: Screen, told: Any) -> None:
    """Write a part of a document, in which anything may be besides what was read.

    Raises:
        Ending: JSON has no such thing.
    """
    try:
        screen.value(told)
    except (TypeError, ValueError) as exc:
        raise Ending(FAILED, f"the description that came is none: {exc}") from None


def _named(name: str, document: Document) -> _Thing:
    """Return what has a name: a method of the services, or of the objects that they give; a type, an object, a service.

    Raises:
        Ending: nothing has.
    """
    methods = [*methods_in(document)]
    services = {service.name: service for service in document.services}
    for others in (document.schemas, document.interfaces, services):
        if name in others and not any(name in (each.name, each.short_name) for each in methods):
            return others[name]
    if "." not in name and not any(each.short_name == name for each in methods):
        names = [each.short_name for each in methods] + [*document.schemas, *document.interfaces, *services]
        raise Ending(ABSENT, f"there is no method or type {name!r}{offered(name, names)}")
    whole, method = found(name, by_name(methods))
    if method is None:
        raise Ending(ABSENT, f"there is no method {whole!r}{_near(whole, methods)}")
    return method


def _near(name: str, methods: list[Method]) -> str:
    service, _dot, short = name.rpartition(".")
    same = [each.short_name for each in methods if each.service == service]
    return offered(short, same) if same else offered(name, [each.name for each in methods])


def _part(document: Any, thing: _Thing, name: str) -> dict[str, Any]:
    """Return what of a document is about something, as it came."""
    interfaces = document.get(OURS, {}).get("interfaces", {})
    if isinstance(thing, Method):
        lists = [document["methods"], *(one["methods"] for one in interfaces.values())]
        parts: Iterator[dict[str, Any]] = (each for methods in lists for each in methods)
        return next(each for each in parts if each["name"] == thing.name)
    if isinstance(thing, Interface):
        return {**interfaces[name]}
    if isinstance(thing, Service):
        known = {each["name"]: each for each in document.get(OURS, {}).get("services", [])}
        methods = [each for each in document["methods"] if each["name"].rpartition(".")[0] == name]
        return {"name": name, **known.get(name, {}), "methods": methods}
    return {"name": name, "schema": document["components"]["schemas"][name]}


def _needed(part: Any, document: Any, described: Document, thing: _Thing) -> list[tuple[str, _Thing]]:
    """Return the types and objects that are told with something, each with its name."""
    needs = needs_of(part, document)
    things: list[tuple[str, _Thing]] = [(name, described.schemas[name]) for name in needs.schemas]
    things += [(key, described.interfaces[key]) for key in needs.interfaces]
    return [(name, each) for name, each in things if each is not thing]


def _write(screen: Screen, document: Document) -> None:
    things: list[tuple[str, _Thing]] = [(service.name, service) for service in document.services]
    things += [*document.interfaces.items(), *document.schemas.items()]
    for number, (name, thing) in enumerate(things):
        if number:
            screen.line()
        _write_thing(screen, name, thing, document)


def _write_thing(screen: Screen, name: str, thing: _Thing, document: Document) -> None:
    if isinstance(thing, Method):
        _write_method(screen, thing, "")
    elif isinstance(thing, Service):
        bases = f" ({', '.join(thing.bases)})" if thing.bases else ""
        write_head(screen, thing.name, bases, thing.description)
        _write_methods(screen, document.methods_of(thing.name))
    elif isinstance(thing, Interface):
        write_head(screen, thing.name, ", an object", thing.description)
        _write_methods(screen, thing.methods)
    else:
        write_type(screen, name, thing)


def _write_methods(screen: Screen, methods: Iterable[Method]) -> None:
    for method in methods:
        screen.line()
        _write_method(screen, method, INDENT)


def _write_method(screen: Screen, method: Method, indent: str) -> None:
    name, bracket, rest = signature(method, screen.width - len(indent)).partition("(")
    first, *more = rest.split("\n")
    screen.line(indent, Styled(name, "name"), Styled(f"{bracket}{first}", "type"))
    for line in more:
        screen.line(indent, Styled(line, "type"))
    inner = indent + INDENT
    write_paragraphs(screen, method.summary, inner)
    if method.description:
        screen.line()
        write_paragraphs(screen, method.description, inner)
    notes = [note for note, holds in (("one-way", method.oneway), ("idempotent", method.idempotent)) if holds]
    if notes:
        screen.line(inner, Styled(", ".join(notes), "faint"))
    if method.errors:
        screen.line(inner, Styled("errors:", "faint"))
        for failure in method.errors:
            summary = " ".join(failure.description.partition("\n\n")[0].split())
            told: list[Part] = [Styled(": ", "faint"), summary] if summary else []
            screen.line(inner, INDENT, failure.code, *told)
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
