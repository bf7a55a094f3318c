"""The page of a document in a browser: it asks for nothing, is used by keyboard, and is read on phones and on paper.

``SEQRPC_WRITE_DOCS=1 pytest tests/test_page.py`` takes the picture in ``docs/pictures`` anew.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import Browser, browser, with_browser
from support.described import LOGS, document, hostile, large, method

from seqrpc.documents.page import render

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "page.png"

MOST_OF_PICTURE = 200_000  # bytes

WIDE, PHONE, NARROW = 1280, 390, 320  # CSS pixels; the last is what WCAG 1.4.10 wants

CONTROL = 2  # DevTools' modifiers are bits

pytestmark = with_browser

Opening = Callable[..., Browser]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser."""
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def opened(chromium: Browser, tmp_path: Path) -> Opening:
    """Return what opens the page of a document, on a screen of some kind."""

    def open_page(told: dict[str, Any], *, fragment: str = "", width: int = WIDE, **look: Any) -> Browser:
        path = tmp_path / "page.html"
        path.write_text(render(told), encoding="utf-8")
        chromium.open("about:blank")  # a new page, not another place in the same one
        chromium.look(width=width, **look)
        chromium.open(path.as_uri() + fragment)
        return chromium

    return open_page


def focused(page: Browser) -> str:
    """Return the target of the link that has the focus, or the id of what has it."""
    return str(page.evaluate("document.activeElement.getAttribute('href') ?? document.activeElement.id"))


def shown_entries(page: Browser) -> list[str]:
    return [*page.evaluate("Array.from(document.querySelectorAll('main article:not([hidden])'), (one) => one.id)")]


def is_in_view(page: Browser, name: str) -> bool:
    expression = f"document.getElementById({name!r}).querySelector('h3').getBoundingClientRect()"
    return bool(page.evaluate(f"(({{top, bottom}}) => top >= 0 && bottom <= innerHeight)({expression})"))


def typed(page: Browser, text: str) -> None:
    for char in text:
        page.press(char)
    page.settle()


METHODS = [one["name"] for one in LOGS["methods"]]


@pytest.mark.parametrize("told", [LOGS, hostile()], ids=["full", "hostile"])
def test_it_asks_for_nothing_and_has_no_complaints(opened: Opening, told: dict[str, Any]) -> None:
    page = opened(told)
    page.press("/")
    typed(page, "a")
    assert [url.partition(":")[0] for url in page.requested() if not url.startswith("data:,")] == ["file"]
    assert page.complaints() == []


def test_a_server_is_asked_for_the_page_alone(chromium: Browser) -> None:
    asked: list[str] = []
    connections: list[socket.socket] = []
    body = render(LOGS).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def setup(self) -> None:
            super().setup()
            connections.append(self.connection)

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False  # they are waited for
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            chromium.open(f"http://127.0.0.1:{server.server_port}/")
            assert chromium.evaluate("document.querySelector('h1').textContent") == "Logs, Search"
            chromium.open("about:blank")
        finally:
            server.shutdown()
            thread.join()
            for connection in connections:
                with contextlib.suppress(OSError):  # a browser makes some that it may need, and keeps them
                    connection.shutdown(socket.SHUT_RDWR)
    assert asked == ["/"]


def test_what_is_hostile_makes_no_element_and_runs_nothing(opened: Opening) -> None:
    page = opened(hostile())
    assert page.evaluate("document.scripts.length") == 1
    assert page.evaluate("document.querySelectorAll('img, iframe, object, svg, form, base').length") == 0
    assert page.evaluate(
        "Array.from(document.querySelectorAll('*')).flatMap((one) => one.getAttributeNames())"
        ".filter((name) => name.startsWith('on') || name === 'style' || name === 'src').length"
    ) == 0  # fmt: skip
    opened_by_others = "Array.from(document.links, (one) => one.protocol)"
    assert {*page.evaluate(opened_by_others)} <= {"file:", "http:"}


@pytest.mark.parametrize("name", [*METHODS, "type:LogFile", "object:Finder/Finder.next", "error:logs.NoSuchLog"])
def test_an_anchor_leads_to_its_entry(opened: Opening, name: str) -> None:
    page = opened(LOGS, fragment=f"#{name}")
    assert page.evaluate("document.querySelector(':target').id") == name
    assert is_in_view(page, name)


def test_anchors_of_odd_names_lead_to_their_entries(opened: Opening) -> None:
    page = opened(hostile())
    found = page.evaluate(
        "Array.from(document.querySelectorAll('nav .entry > a'), (link) => {"
        " link.click(); return document.querySelector(':target')?.id === link.getAttribute('href').slice(1); })"
    )
    assert len(found) > 50
    assert all(found)


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_everything_is_reached_by_keyboard_with_the_focus_seen(opened: Opening, width: int) -> None:
    page = opened(LOGS, width=width)
    page.press("Tab")
    assert focused(page) == "#page:main"  # to skip the contents
    order = []
    while (place := focused(page)) not in order:
        order.append(place)
        outline = page.evaluate(
            "(({outlineStyle, outlineWidth}) => [outlineStyle, parseFloat(outlineWidth)])"
            "(getComputedStyle(document.activeElement))"
        )
        assert outline[0] == "solid", place
        assert outline[1] >= 2, place
        if width == PHONE and page.evaluate("document.activeElement.tagName") == "SUMMARY":
            assert page.evaluate("document.getElementById('page:contents').open") is False
            page.press("Enter")
        page.press("Tab")
        if len(order) > 20:
            break
    assert order[:2] == ["#page:main", "page:search"]
    assert [place[1:] for place in order if place[1:] in METHODS] == METHODS


def test_enter_on_a_link_of_the_contents_leads_there(opened: Opening) -> None:
    page = opened(LOGS)
    while focused(page) != "#Search.index":
        page.press("Tab")
    page.press("Enter")
    page.settle()
    assert is_in_view(page, "Search.index")
    page.press("Tab")  # goes on from there, not from the contents
    assert page.evaluate("document.activeElement.closest('article').id") == "Search.index"


def test_the_skip_link_leads_behind_the_contents(opened: Opening) -> None:
    page = opened(LOGS)
    page.press("Tab")
    page.press("Enter")
    page.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null") is True


def test_the_search_filters_by_name_and_summary(opened: Opening) -> None:
    page = opened(LOGS)
    page.press("/")
    assert focused(page) == "page:search"
    typed(page, "FOLLOW")
    assert shown_entries(page) == ["Logs.follow"]
    page.press("Escape")
    assert len(shown_entries(page)) > len(METHODS)
    typed(page, "open read")
    assert shown_entries(page) == ["Logs.open_log"]
    assert page.evaluate("document.getElementById('page:found').textContent") == "1 of 16 found"
    visible = "Array.from(document.querySelectorAll('nav a')).filter((one) => one.offsetParent).map((one) => one.hash)"
    assert page.evaluate(visible) == ["#service:Logs", "#Logs.open_log"]
    assert page.evaluate("getComputedStyle(document.getElementById('service:Search')).display") == "none"


def test_enter_in_the_search_goes_to_the_first_that_is_found(opened: Opening) -> None:
    page = opened(LOGS)
    page.press("/")
    typed(page, "index")
    page.press("Enter")
    page.settle()
    assert page.evaluate("location.hash") == "#Search.index"
    assert is_in_view(page, "Search.index")


def test_a_slash_that_is_typed_into_the_search_or_with_control_is_none_of_ours(opened: Opening) -> None:
    page = opened(LOGS)
    page.press("/", modifiers=CONTROL)
    assert focused(page) != "page:search"
    page.press("/")
    typed(page, "/")
    assert page.evaluate("document.getElementById('page:search').value") == "/"


def test_whoever_follows_a_link_to_what_is_filtered_out_sees_it(opened: Opening) -> None:
    page = opened(LOGS)
    page.press("/")
    typed(page, "follow")
    page.evaluate("document.querySelector('a[href=\"#error:logs.NoSuchLog\"]').click()")
    page.settle()
    assert is_in_view(page, "error:logs.NoSuchLog")
    assert len(shown_entries(page)) > 1


@pytest.mark.parametrize("width", [WIDE, PHONE, NARROW])
@pytest.mark.parametrize("told", [LOGS, hostile(), large(150)], ids=["full", "hostile", "long"])
def test_nothing_is_wider_than_the_screen(opened: Opening, told: dict[str, Any], width: int) -> None:
    page = opened(told, width=width)
    page.evaluate("document.getElementById('page:contents').open = true")
    page.evaluate("document.styleSheets[0].insertRule('main.long article { content-visibility: visible }', 0)")
    page.settle()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wider = page.evaluate(
        "Array.from(document.querySelectorAll('body *:not(.skip)'))"
        ".filter((one) => one.getBoundingClientRect().right > innerWidth || one.scrollWidth > one.clientWidth + 1"
        " && getComputedStyle(one).display !== 'inline' && one.tagName !== 'INPUT')"
        ".map((one) => one.outerHTML.slice(0, 200))"
    )
    assert wider == []


CONTRASTS = """
(() => {
    const parsed = (colour) => colour.match(/[0-9.]+/g).map(Number);
    const luminance = (colour) => parsed(colour).slice(0, 3).map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const ground = (one) => {
        for (; one; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            if ((parsed(colour)[3] ?? 1) === 1) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    return Array.from(document.querySelectorAll("body *"))
        .filter((one) => Array.from(one.childNodes).some((part) => part.nodeType === 3 && part.data.trim()))
        .filter((one) => one.tagName !== "SCRIPT" && one.getClientRects().length)
        .map((one) => {
            const pair = [luminance(getComputedStyle(one).color), luminance(ground(one))].sort((a, b) => b - a);
            return [(pair[0] + 0.05) / (pair[1] + 0.05), one.outerHTML.slice(0, 200)];
        });
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_contrasts_as_wcag_aa_wants(opened: Opening, dark: bool) -> None:
    page = opened(LOGS, fragment="#Logs.rotate", dark=dark)
    grounds = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (grounds == "rgb(255, 255, 255)") is not dark
    found = page.evaluate(CONTRASTS)
    assert len(found) > 100
    assert [told for ratio, told in found if ratio < 4.5] == []


@pytest.mark.parametrize("told, dark", [(LOGS, False), (LOGS, True), (large(150), False)])
def test_paper_has_the_whole_text_and_no_controls(opened: Opening, told: dict[str, Any], dark: bool) -> None:
    page = opened(told, media="print", dark=dark)
    assert page.evaluate("document.querySelector('nav').offsetParent") is None
    assert (
        page.evaluate("Array.from(document.querySelectorAll('article')).every((one) => one.offsetHeight > 0)") is True
    )
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 32, 38)"
    pdf = page.command("Page.printToPDF", printBackground=False)["data"]
    assert len(pdf) > 10_000


def test_it_is_read_without_scripts_too(opened: Opening) -> None:
    page = opened(LOGS, width=PHONE, fragment="#Logs.touch")
    page.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.command("Page.reload")
        page.event("Page.loadEventFired")
        assert page.evaluate("document.querySelector('[role=search]').offsetParent") is None
        assert page.evaluate("document.getElementById('page:contents').open") is True
        assert is_in_view(page, "Logs.touch")
    finally:
        page.command("Emulation.setScriptExecutionDisabled", value=False)


def test_what_readers_of_screens_are_told(opened: Opening) -> None:
    page = opened(LOGS)
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    told = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]}
    assert ("navigation", "Contents") in told
    assert ("searchbox", "Find /") in told
    assert ("heading", "Logs.follow") in told
    assert {"main", "search", "status", "banner", "contentinfo"} <= {role for role, _name in told}


def test_one_of_hundreds_of_methods_is_found(opened: Opening) -> None:
    page = opened(large(300), fragment="#Service9.method_00199")
    assert is_in_view(page, "Service9.method_00199")
    page.press("/")
    typed(page, "method_00221")
    assert shown_entries(page) == ["Service1.method_00221"]


def test_a_page_with_nothing_has_no_complaints(opened: Opening) -> None:
    for told in (document(), document(method("ping"))):
        page = opened(told)
        page.press("/")
        typed(page, "x")
        assert page.complaints() == []


def test_the_picture_in_the_docs_is_of_the_page(opened: Opening) -> None:
    page = opened(LOGS, fragment="#Logs.follow", width=1120, height=760)
    if "SEQRPC_WRITE_DOCS" in os.environ:
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_bytes(page.picture())
    data = PICTURE.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < MOST_OF_PICTURE
