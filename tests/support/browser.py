"""Chromium without a window, told what to do by the DevTools protocol over a pair of pipes.

https://chromedevtools.github.io/devtools-protocol/: JSON with a NUL after it, on the browser's descriptors 3 and 4.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from select import select
from typing import Any

import pytest

from support.waiting import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

with_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium fonts-dejavu-core)"
)

_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root has none, nor has a container; the pages are ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--hide-scrollbars",
    "--password-store=basic",
)

_KEYS = {
    "Tab": {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9},
    "Enter": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Escape": {"key": "Escape", "code": "Escape", "windowsVirtualKeyCode": 27},
    "/": {"key": "/", "code": "Slash", "windowsVirtualKeyCode": 191, "text": "/"},
}


class Browser:
    """A browser with one tab."""

    def __init__(self, to_it: int, from_it: int) -> None:
        self._to_it = to_it
        self._from_it = from_it
        self._rest = b""
        self._number = 0
        self._arrived: deque[dict[str, Any]] = deque()
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def attach(self) -> None:
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Have it do something; return what it answered."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to_it, data) :]
        number = self._number
        answer = self._until(lambda message: message.get("id") == number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def event(self, method: str) -> dict[str, Any]:
        """Wait for the next event of this name that comes after the last command."""
        return self._until(lambda message: message.get("method") == method)

    def open(self, url: str) -> None:
        """Open a page, and wait until it is there; what is known of the one before is forgotten."""
        self.events.clear()
        self.command("Page.navigate", url=url)
        if not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.event("Page.loadEventFired")
        self.settle()

    def settle(self) -> None:
        """Wait until what was to be drawn is drawn, and what was done had its effect."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression is, if JSON can tell it; promises are awaited."""
        answer = self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, *, modifiers: int = 0) -> None:
        """Press and release a key: a character, or the name of one."""
        told = _KEYS.get(key) or {"key": key, "text": key}
        self.command("Input.dispatchKeyEvent", type="keyDown", modifiers=modifiers, **told)
        self.command("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **told)

    def look(self, *, width: int, height: int = 900, dark: bool = False, media: str = "screen") -> None:
        """Be a screen of this size, in CSS pixels, whose user likes it dark or light; or paper."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.settle()

    def picture(self) -> bytes:
        """Return what is seen now, as a PNG."""
        return b64decode(self.command("Page.captureScreenshot", format="png")["data"])

    def requested(self) -> list[str]:
        """Return the addresses that it asked for since the page was opened."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[str]:
        """Return what was written to the console since the page was opened."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while True:
            while self._arrived:
                message = self._arrived.popleft()
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            ready, _, _ = select([self._from_it], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._from_it, 1 << 20)
            assert data, "the browser has ended"
            *messages, self._rest = (self._rest + data).split(b"\0")
            self._arrived.extend(map(json.loads, messages))


@contextlib.contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """Run a browser that keeps its files in a directory."""
    assert CHROMIUM is not None
    to_it, from_it = os.pipe(), os.pipe()
    ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (to_it[0], from_it[1])]  # none is 3 or 4 already
    with open(os.devnull, "r+b") as null:
        process = os.posix_spawn(
            CHROMIUM,
            [CHROMIUM, *_OPTIONS, f"--user-data-dir={directory}", "about:blank"],
            {**os.environ, "HOME": str(directory)},
            file_actions=[
                *[(os.POSIX_SPAWN_DUP2, null.fileno(), fd) for fd in (0, 1, 2)],
                (os.POSIX_SPAWN_DUP2, ends[0], 3),
                (os.POSIX_SPAWN_DUP2, ends[1], 4),
            ],
            setpgroup=0,
        )
    for fd in (*ends, to_it[0], from_it[1]):
        os.close(fd)
    try:
        found = Browser(to_it[1], from_it[0])
        found.attach()
        yield found
    finally:
        os.close(to_it[1])
        os.close(from_it[0])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
