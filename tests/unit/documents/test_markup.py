"""HTML of what others wrote: everything is escaped, and ids are never taken for others."""

from __future__ import annotations

import pytest
from support.described import NASTY
from support.html import tree_of

from seqrpc.documents.markup import anchor, element, joined, literal, name, own, text, to


@pytest.mark.parametrize("content", NASTY)
def test_text_is_nothing_but_text(content: str) -> None:
    tree = tree_of(element("p", text(content), title=content))
    assert [node.tag for node in tree.every()] == ["p"]
    printable = all(char.isprintable() or char == "\n" for char in content)
    assert not printable or tree.text == content


@pytest.mark.parametrize("content", NASTY)
def test_an_attribute_is_nothing_but_its_value(content: str) -> None:
    (node,) = tree_of(element("p", title=content, class_="x")).every()
    assert sorted(node.attributes) == ["class", "title"]
    assert not content.isprintable() or node.attributes["title"] == content


def test_what_does_not_print_is_shown_as_an_escape() -> None:
    assert text("a\u202eb\x1b[1m\x00\ud800") == r"a\u202eb\x1b[1m\x00\ud800"
    assert name("a\nb\u2066") == r"a\nb\u2066"
    assert element("p", title="a\nb\x85") == r'<p title="a\nb\x85"></p>'


def test_spaces_and_joiners_of_languages_stay() -> None:
    for told in (
        "12\N{NO-BREAK SPACE}000",
        "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}",
        "نمی\N{ZERO WIDTH NON-JOINER}خواهم",
    ):
        assert text(told) == told


def test_lines_of_a_text_stay_and_a_name_has_one() -> None:
    assert text("a\nb") == "a\nb"
    assert "\n" not in name("a\nb")


def test_a_name_is_cut() -> None:
    assert name("x" * 201) == "x" * 200 + "… (201 characters)"
    assert name("<" * 10, 5) == "&lt;" * 5 + "… (10 characters)"


def test_elements_have_their_attributes_and_what_is_in_them() -> None:
    inner = joined([element("b", text("1")), literal("<br>")], ", ")
    assert element("p", inner, aria_label="a", http_equiv=None, for_="b", hidden="") == (
        '<p aria-label="a" for="b" hidden=""><b>1</b>, <br></p>'
    )
    assert element("input", type="search") == '<input type="search">'


def test_an_id_is_the_name_where_that_is_usual() -> None:
    assert anchor("Logs.follow") == "Logs.follow"
    assert anchor("LogFile", "type") == "type:LogFile"
    assert to("type:LogFile") == "#type:LogFile"


def test_no_two_names_have_one_id() -> None:
    names = [*NASTY, "a b", "a%20b", "a%2520b", "type:a", "a", "A", "ä", "a/b", "a%2Fb", "\ud801", "\\ud801"]
    ids = {anchor(name, kind) for name in names for kind in ("", "type", "page")}
    assert len(ids) == 3 * len(names)
    assert all(id_.isascii() and not set(id_) & set(" \"'<>&#?") for id_ in ids)


def test_the_files_of_the_package_are_there() -> None:
    assert "prefers-color-scheme" in own("page.css")
    assert "</script" not in own("page.js")
