"""How far something is, for who waits for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from seqrpc.cli.screen import Screen


@contextlib.contextmanager
def progress(screen: Screen) -> Iterator[Callable[[str], None]]:
    """Yield what tells how far something is: on one line of a terminal, a few times in a second, if it takes long."""
    if not screen.err.isatty():
        yield lambda _text: None
        return
    began = last = time.monotonic()
    is_shown = False

    def tell(text: str) -> None:
        nonlocal last, is_shown
        now = time.monotonic()
        if now - last >= 0.25 and now - began >= 0.5:
            last, is_shown = now, True
            screen.err.write(f"\r{text}, {now - began:.0f} s\x1b[K")
            screen.err.flush()

    try:
        yield tell
    finally:
        if is_shown:
            screen.err.write("\r\x1b[K")
            screen.err.flush()
