"""A document as one HTML page, for people: nothing in it comes from elsewhere, and nothing in it goes there.

The page has a script of its own, which filters its entries; without scripts it is as readable. What the document says
is never a script, a style or an address: its texts are escaped (:mod:`seqrpc.documents.markup`), and a policy in the
page has browsers refuse what is not the page's own.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final, LiteralString

from seqrpc.documents.entries import Group, error_group, interface_group, service_group, type_group
from seqrpc.documents.markup import Markup, element, joined, literal, name, own, text, to
from seqrpc.documents.model import read
from seqrpc.documents.prose import prose
from seqrpc.documents.recipes import Recipes
from seqrpc.documents.trees import Document, Method

_ABOUT: Final[dict[str, LiteralString]] = {
    "descriptor": "<h3>Descriptors</h3><p>An open file travels as itself. In Python it is a "
    "<code>seqrpc.OwnedFd</code>: whoever receives it owns it and closes it. As an argument, anything with a "
    "<code>fileno</code> will do, and the caller keeps it.</p>",
    "buffer": "<h3>Buffers</h3><p>Memory of any size, which is not copied on its way. In Python it is a "
    "<code>seqrpc.Buffer</code>.</p>",
    "memory": "<h3>Memory that is read</h3><p>Bytes, which are copied on their way, or a <code>seqrpc.Buffer</code>, "
    "which is not.</p>",
    "stream": "<h3>Streams</h3><p>Items come one after the other, and whoever makes them waits for whoever reads them. "
    "In Python they are read with <code>async for</code>, or with <code>for</code> where there is no event loop.</p>",
}
"""What there is to know of what travels besides data, by what links to it are made of."""

_MANY: Final = 200
"""Entries of a page whose browsers lay out only those that are seen: it would take seconds to do that for thousands."""

_UNTITLED: Final = "Services"


def render(document: Any, *, address: str = "ADDRESS") -> str:
    """Return a document as an HTML page that needs nothing else.

    Args:
        document: what ``rpc.discover`` answers, or what :func:`seqrpc.documents.read` made of it; nothing in it is
            trusted.
        address: where the services are, for the lines that call them.

    Raises:
        DocumentError: it is no such document.
    """
    described = read(document)
    groups = [*_groups(described, Recipes(described.schemas, address) if described.of_seqrpc else None)]
    style, script = own("page.css"), own("page.js")
    entries = joined([group.section() for group in groups])
    body = element(
        "body",
        element("a", literal("Skip to the content"), class_="skip", href=to("page:main")),
        _header(described),
        _contents(groups),
        element(
            "main",
            _intro(described),
            _calling(address) if described.of_seqrpc else text(""),
            entries,
            _about(entries),
            id="page:main",
            class_="long" if sum(len(group.entries) for group in groups) > _MANY else None,
            tabindex="-1",
        ),
        element(
            "footer", literal("<p>Made by <code>seqrpc docs</code> of what <code>rpc.discover</code> answered.</p>")
        ),
        element("script", script),
    )
    return f"<!DOCTYPE html>\n{element('html', _head(described, style, script), body, lang='en')}\n"


def _intro(document: Document) -> Markup:
    """Return what is said of the whole, but for what is said of its services below."""
    of_services = "\n\n".join([service.description for service in document.services if service.description])
    return text("") if document.description == of_services else prose(document.description)


def _groups(document: Document, recipes: Recipes | None) -> Iterator[Group]:
    of: dict[str, list[Method]] = {service.name: [] for service in document.services}
    for method in document.methods:
        of[method.service].append(method)
    for service in document.services:
        yield service_group(service, of[service.name], recipes)
    for key, interface in document.interfaces.items():
        yield interface_group(key, interface, recipes)
    if document.schemas:
        yield type_group(document.schemas)
    errors = error_group(document)
    if errors.entries:
        yield errors


def _head(document: Document, style: Markup, script: Markup) -> Markup:
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", name(document.title or _UNTITLED)),
        element("link", rel="icon", href="data:,"),  # else browsers ask the server for one
        element("style", style),
    )


def _digest(source: Markup) -> str:
    """Return how a content security policy names the one script, or style, that may be there."""
    return f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _header(document: Document) -> Markup:
    methods, types = len(document.methods), len(document.schemas)
    facts = [
        f"Version {document.version}",
        "1 method" if methods == 1 else f"{methods} methods",
        "1 type" if types == 1 else f"{types} types",
    ]
    title = element("h1", name(document.title or _UNTITLED))
    return element("header", title, element("p", joined(map(name, facts), ", "), class_="note"))


def _contents(groups: list[Group]) -> Markup:
    search = element(
        "div",
        element("label", literal("Find <kbd>/</kbd>"), for_="page:search"),
        element("input", type="search", id="page:search", autocomplete="off", spellcheck="false"),
        element("p", class_="found", id="page:found", role="status"),
        role="search",
        hidden="",  # until there is a script
    )
    lists = element("ul", *[group.contents() for group in groups])
    details = element("details", literal("<summary>Contents</summary>"), lists, id="page:contents", open="")
    return element("nav", search, details, aria_label="Contents")


def _calling(address: str) -> Markup:
    """Return how a program begins; each method has the lines that call it."""
    with_loop = f"async with seqrpc.connect({address!r}) as connection:\n    ..."
    without = f"with seqrpc.blocking.connect({address!r}) as connection:\n    ..."
    return element(
        "section",
        literal('<h2><a href="#page:calling">How to call it</a></h2>'),
        literal("<p>Each method below has the lines that call it. In Python, first connect, with asyncio:</p>"),
        element("pre", element("code", text(with_loop))),
        literal("<p>or without an event loop:</p>"),
        element("pre", element("code", text(without))),
        literal(
            "<p><code>seqrpc stub</code> writes the classes that <code>connection.proxy</code> takes; with these type "
            "checkers know what is on this page. The command line is there after <code>pip install "
            "'seqrpc[cli]'</code>, or in a checkout of seqrpc <code>'.[cli]'</code>.</p>"
        ),
        id="page:calling",
    )


def _about(entries: Markup) -> Markup:
    """Return what there is to know of what travels besides data, as far as something links to it."""
    told = [
        element("div", literal(words), id=f"about:{what}")
        for what, words in _ABOUT.items()
        if f'href="#about:{what}"' in entries  # no text of a document has a quotation mark that is not escaped
    ]
    if not told:
        return text("")
    return element("section", literal("<h2>What travels besides data</h2>"), *told)
