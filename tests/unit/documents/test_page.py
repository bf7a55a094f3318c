"""The page as a whole: what is in it, that it needs nothing else, and that no document makes it do anything."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from support.described import BUFFER, LOGS, STR, document, hostile, large, method, param
from support.html import Node, tree_of

from seqrpc.documents.markup import own
from seqrpc.documents.model import DocumentError
from seqrpc.documents.page import render

WHOLE = {"full": LOGS, "hostile": hostile(), "empty": document(), "large": large(40)}


@pytest.fixture(params=WHOLE, scope="module")
def page(request: pytest.FixtureRequest) -> Node:
    """Return a page as a tree."""
    return tree_of(render(WHOLE[request.param]).removeprefix("<!DOCTYPE html>\n"))


def ids_of(page: Node) -> list[str]:
    return [str(node.attributes["id"]) for node in page.every() if "id" in node.attributes]


def test_nothing_in_it_comes_from_elsewhere(page: Node) -> None:
    assert {node.tag for node in page.every()} <= {
        *("html", "head", "meta", "title", "link", "style", "script", "body", "header", "nav", "main", "footer"),
        *("section", "article", "div", "h1", "h2", "h3", "h4", "p", "ul", "ol", "li", "dl", "dt", "dd", "pre"),
        *("code", "b", "strong", "em", "a", "span", "kbd", "label", "input", "details", "summary", "blockquote"),
    }
    assert {name for node in page.every() for name in node.attributes} <= {
        *("lang", "charset", "http-equiv", "content", "name", "rel", "href", "class", "id", "tabindex", "aria-label"),
        *("type", "autocomplete", "spellcheck", "role", "hidden", "open", "for"),
    }
    for node in page.every():
        href = node.attributes.get("href")
        is_icon = node.tag == "link" and href == "data:,"
        is_of_the_web = node.tag == "a" and str(href).startswith(("http://", "https://"))
        assert href is None or href.startswith("#") or is_icon or is_of_the_web


def test_its_policy_allows_its_own_style_and_script_and_nothing_else(page: Node) -> None:
    (policy,) = [node.attributes["content"] for node in page.every("meta") if "http-equiv" in node.attributes]
    (script,), (style,) = page.every("script"), page.every("style")
    assert (script.text, style.text) == (own("page.js"), own("page.css"))
    digests = [base64.b64encode(hashlib.sha256(node.text.encode()).digest()).decode() for node in (style, script)]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = next(page.every("head"))
    assert [*head.every("meta")][1].attributes["http-equiv"] == "Content-Security-Policy"  # before what it is about


def test_every_id_is_there_once_and_every_link_leads_to_one(page: Node) -> None:
    ids = ids_of(page)
    assert len(ids) == len({*ids})
    links = {str(node.attributes["href"]) for node in page.every("a")}
    assert {link[1:] for link in links if link.startswith("#")} <= {*ids}


def test_headings_are_in_order(page: Node) -> None:
    levels = [int(node.tag[1]) for node in page.every() if re.fullmatch("h[1-6]", node.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(second <= first + 1 for first, second in pairwise(levels))


def test_landmarks_and_labels_are_there(page: Node) -> None:
    for tag in ("header", "nav", "main", "footer"):
        assert len([*page.every(tag)]) == 1
    (search,) = page.every("input")
    assert [label.attributes["for"] for label in page.every("label")] == [search.attributes["id"]]
    skip = next(page.every("a"))
    assert (skip.attributes["href"], skip.attributes["class"]) == ("#page:main", "skip")
    assert page.by_id("page:main").tag == "main"


def test_it_is_text_that_can_be_written(page: Node) -> None:
    assert page.text.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.text)


def test_every_method_is_in_the_contents_and_in_the_page() -> None:
    page = tree_of(render(LOGS))
    (contents,) = page.every("nav")
    for one in LOGS["methods"]:
        assert page.by_id(one["name"]).tag == "article"
        assert f"#{one['name']}" in [link.attributes["href"] for link in contents.every("a")]


def test_it_begins_with_what_the_whole_is() -> None:
    page = tree_of(render(LOGS))
    assert next(page.every("h1")).text == "Logs, Search"
    (header,), (title,) = page.every("header"), page.every("title")
    assert title.text == "Logs, Search"
    assert next(header.every("p")).text == "Version 2.1, 7 methods, 6 types"
    main = page.by_id("page:main")
    assert next(main.every("p")).text == "The log files of a machine."
    one = tree_of(render(document(method("S.f"), schemas={"A": STR})))
    assert "Version 0, 1 method, 1 type" in one.text


def test_what_is_said_of_the_services_is_not_said_twice() -> None:
    services = [{"name": "A", "description": "Is a.", "bases": []}, {"name": "B", "description": "Is b.", "bases": []}]
    told = document(services=services, info={"description": "Is a.\n\nIs b."})
    assert tree_of(render(told)).by_id("page:main").text.count("Is b.") == 1


def test_the_address_is_in_the_lines() -> None:
    told = tree_of(render(LOGS, address="/run/<x>.sock")).by_id("page:main").text
    assert "seqrpc.connect('/run/<x>.sock')" in told
    assert "seqrpc call '/run/<x>.sock' Logs.follow name=..." in told


def test_of_what_travels_besides_data_only_what_there_is_is_explained() -> None:
    def about(*schemas: dict[str, Any]) -> list[str]:
        told = document(method("S.f", *[param(f"p{at}", schema) for at, schema in enumerate(schemas)]))
        return [id_ for id_ in ids_of(tree_of(render(told))) if id_.startswith("about:")]

    assert about() == []
    assert about(BUFFER, {"x-seqrpc": {"type": "memory"}}) == ["about:buffer", "about:memory"]
    assert about({**STR, "title": 'href="#about:stream"'}) == []


def test_documents_of_other_servers_are_shown_without_what_they_do_not_have() -> None:
    told = {"openrpc": "1.2.6", "info": {"title": "Shop", "version": "1"}, "methods": [method("buy", result=STR)]}
    page = tree_of(render(told))
    assert page.by_id("buy").tag == "article"
    assert "page:calling" not in ids_of(page)
    assert "page:errors" not in ids_of(page)
    assert "seqrpc call" not in page.text


@pytest.mark.parametrize("told", [None, [], {}, {"openrpc": "2.0"}, document(method("a"), method("a"))])
def test_what_is_no_document_is_refused(told: Any) -> None:
    with pytest.raises(DocumentError):
        render(told)


def steps(told: dict[str, Any]) -> int:
    """Return how many functions are called to render a document."""
    number = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal number
        number += event == "call"

    sys.setprofile(count)
    try:
        render(told)
    finally:
        sys.setprofile(None)
    return number


def test_the_work_grows_with_the_document_and_no_faster() -> None:
    for make in (large, shared):
        small, much = make(40), make(160)
        assert steps(much) < 4.5 * steps(small)
        assert len(render(much)) < 4.5 * len(render(small))


def shared(number: int) -> dict[str, Any]:
    """Return a document whose methods all have one large type, which has itself, and one long example."""
    whole = {"$ref": "#/components/schemas/Whole"}
    fields = {f"f{at}": {"type": "array", "items": whole} for at in range(number)}
    schemas = {
        "Whole": {"type": "object", "properties": fields, "required": [*fields], "x-seqrpc": {"type": "dataclass"}},
        "Text": {**STR, "examples": ["x" * number * 100]},
        "Long": {"enum": ["x" * number * 100]},
    }
    texts = [param(name, {"$ref": f"#/components/schemas/{name}"}) for name in ("Text", "Long")]
    return document(
        *[method(f"S.m{at}", param("a", whole), *texts, result=whole) for at in range(number)], schemas=schemas
    )


def colours(scheme: str) -> dict[str, str]:
    """Return the colours of the page, light or dark."""
    light, dark = re.findall(r":root \{(.*?)\}", own("page.css"), re.DOTALL)
    found = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", light))
    return found if scheme == "light" else {**found, **dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", dark))}


def luminance(colour: str) -> float:
    """Return the relative luminance that WCAG 2.2 defines."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


PAIRS = [(ink, ground) for ground in ("ground", "raised", "mark") for ink in ("ink", "faint", "link", "good", "bad")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ink, ground", PAIRS)
def test_colours_contrast_as_wcag_aa_wants(scheme: str, ink: str, ground: str) -> None:
    found = colours(scheme)
    lighter, darker = sorted([luminance(found[ink]), luminance(found[ground])], reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5
