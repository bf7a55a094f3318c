"""Docstrings as HTML: what they usually have is understood, and the rest stays as it is."""

from __future__ import annotations

import pytest
from support.described import NASTY
from support.html import tree_of

from seqrpc.documents.prose import described, inline, prose


def test_paragraphs_are_divided_by_empty_lines() -> None:
    assert prose("One\nline.\n\n\nTwo,\nand three.\n") == "<p>One line.</p><p>Two, and three.</p>"


def test_nothing_is_nothing() -> None:
    assert prose("") == prose("\n\n  \n") == ""


def test_windows_line_ends_and_tabs_are_understood() -> None:
    assert prose("A\r\n\r\n- b\r\n\tc") == "<p>A</p><ul><li>b c</li></ul>"


@pytest.mark.parametrize(
    "written, told",
    [
        ("``a <b>``", "<code>a &lt;b&gt;</code>"),
        ("`a`", "<code>a</code>"),
        (":class:`~a.B`", "<code>a.B</code>"),
        (":py:class:`B`", "<code>B</code>"),
        ("`a`_ and `b`__", "<code>a</code> and <code>b</code>"),
        ("**bold** and *it*", "<strong>bold</strong> and <em>it</em>"),
        ("2 * 3 * 4, *args, **kwargs", "2 * 3 * 4, *args, **kwargs"),
        ("a`b", "a`b"),
        ("(https://x.org/?a&b).", '(<a href="https://x.org/?a&amp;b" rel="noreferrer">https://x.org/?a&amp;b</a>).'),
        ("xhttps://x.org", "xhttps://x.org"),
        ("javascript:f() [a](b) ftp://x", "javascript:f() [a](b) ftp://x"),
    ],
)  # fmt: skip
def test_what_stands_in_a_line(written: str, told: str) -> None:
    assert inline(written) == told


def test_lists_have_items_of_several_lines_and_blocks() -> None:
    told = prose("Either:\n\n- one,\n  which goes on\n- two\n\n  and more\n* three\n\n1. first\n2) second\n#. third\n")
    assert told == (
        "<p>Either:</p><ul><li>one, which goes on</li><li><p>two</p><p>and more</p></li><li>three</li></ul>"
        "<ol><li>first</li><li>second</li><li>third</li></ol>"
    )


def test_a_list_may_follow_a_line_and_have_lists() -> None:
    assert prose("Of\n- a\n  - b\n  - c") == "<p>Of</p><ul><li><p>a</p><ul><li>b</li><li>c</li></ul></li></ul>"


def test_examples_keep_their_lines() -> None:
    assert prose("So::\n\n    a = 1\n\n      b <2>\n\nThen.") == (
        "<p>So:</p><pre><code>a = 1\n\n  b &lt;2&gt;</code></pre><p>Then.</p>"
    )
    assert prose("So. ::\n\n    a") == "<p>So.</p><pre><code>a</code></pre>"
    assert prose("::\n\n    a") == "<pre><code>a</code></pre>"
    assert prose("```python\na\n\n- b\n```\nc") == "<pre><code>a\n\n- b</code></pre><p>c</p>"
    assert prose("~~~\na") == "<pre><code>a</code></pre>"
    assert prose("```a``` b") == "<p><code>a</code> b</p>"
    assert prose(">>> 1 + 1\n2") == "<pre><code>&gt;&gt;&gt; 1 + 1\n2</code></pre>"
    assert prose("It ends::") == "<p>It ends:</p>"


def test_quotations_and_titles() -> None:
    assert prose("As\n\nshe\n\n    said\n") == "<p>As</p><p>she</p><blockquote><p>said</p></blockquote>"
    assert prose("Notes\n-----\nText") == '<p class="part"><strong>Notes</strong></p><p>Text</p>'
    assert prose("# Notes\nText") == '<p class="part"><strong>Notes</strong></p><p>Text</p>'


GOOGLE = """Do it.

Args:
    name (str): the name,
        on two lines.
    *others: more.

Returns:
    Something.

Raises:
    NoSuchLog, NotReadable: as always.

Note:
    - one
    - two
"""


def test_sections_of_google_style() -> None:
    tree = tree_of(prose(GOOGLE))
    assert [node.text for node in tree.every(class_="part")] == ["Args", "Returns", "Raises", "Note"]
    assert [node.text for node in tree.every("dt")] == ["name", "others", "NoSuchLog, NotReadable"]
    assert [node.text for node in tree.every("dd")] == ["the name, on two lines.", "more.", "as always."]
    assert [node.text for node in tree.every("li")] == ["one", "two"]


def test_what_is_said_of_known_names_is_handed_over() -> None:
    body, told = described(GOOGLE, {"name", "unknown", "NoSuchLog, NotReadable"})
    assert told == {"name": "the name, on two lines."}
    assert [node.text for node in tree_of(body).every("dt")] == ["others", "NoSuchLog, NotReadable"]


def test_a_section_that_is_all_handed_over_leaves_nothing() -> None:
    assert described("Args:\n    a: b\n", {"a"}) == ("", {"a": "b"})
    assert described(":param a: b\n", {"a"}) == ("", {"a": "b"})


def test_a_section_that_is_no_list_of_names_is_text() -> None:
    body, told = described("Args:\n    whatever comes\n    a: b\n", {"a"})
    assert told == {}
    assert body == '<p class="part"><strong>Args</strong></p><div class="section">whatever comes a: b</div>'


def test_fields_of_sphinx() -> None:
    body, told = described("Do it.\n\n:param int a: first,\n  and more\n:param b: second\n:returns: it\n", {"a"})
    assert told == {"a": "first, and more"}
    tree = tree_of(body)
    assert [node.text for node in tree.every("dt")] == ["b", "returns"]
    assert [node.text for node in tree.every("dd")] == ["second", "it"]


def test_what_is_nested_deeper_than_anybody_writes_is_shown_as_it_stands() -> None:
    tree = tree_of(prose("a\n" + "\n".join(" " * number + "x" for number in range(1, 50))))
    assert len([*tree.every("blockquote")]) < 10
    assert tree.text.count("x") == 49
    tree = tree_of(prose("- " * 50 + "x"))
    assert len([*tree.every("ul")]) < 10
    assert tree.text.endswith("- x")


@pytest.mark.parametrize("content", NASTY)
@pytest.mark.parametrize(
    "around", ["{}", "- {}", "``{}``", "*{}*", "{}::\n\n    {}", "Args:\n    {}: {}", ":param {}: {}"]
)
def test_no_docstring_is_more_than_text(content: str, around: str) -> None:
    for told in (prose(around.replace("{}", content)), inline(content)):
        for node in tree_of(told).every():
            assert node.tag in {
                "p",
                "ul",
                "li",
                "code",
                "pre",
                "strong",
                "em",
                "dl",
                "dt",
                "dd",
                "blockquote",
                "div",
                "a",
            }
            assert set(node.attributes) <= {"class", "href", "rel"}
            assert str(node.attributes.get("href", "https://")).startswith(("http://", "https://"))
