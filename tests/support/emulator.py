"""A terminal that shows text, and fails a test at whatever could do more than the command line means to do."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"(?P<text>[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+)"
    r"|(?P<newline>\n)|(?P<home>\r)|(?P<erase>\x1b\[K)|\x1b\[(?P<style>0|1|2|31|32|36)m"
)

_KEYS = re.compile(
    r"\x07|(?P<back>\x08)|\x1b\[(?P<right>\d*)C|\x1b\[(?P<left>\d*)D|\x1b\[\d*P|\x1b\[\?2004(?P<paste>[hl])"
)
"""What readline writes besides, at a prompt."""


class Emulator:
    """Shows what is fed, which is to be text in UTF-8, line breaks, our colours, and progress on one line.

    Args:
        is_prompt: whether there is a prompt, at which readline moves the cursor in its line.
    """

    def __init__(self, *, is_prompt: bool = False) -> None:
        self._is_prompt = is_prompt
        self._column = 0
        self.lines = [""]
        self.style = "0"
        self.is_pasting = False

    def feed(self, data: bytes) -> Emulator:
        text = data.decode()  # a terminal makes of what is no UTF-8 what it likes
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at) or (_KEYS.match(text, at) if self._is_prompt else None)
            assert found is not None, (
                f"a terminal would obey {text[at : at + 20]!r} after {text[max(0, at - 80) : at]!r}"
            )
            self._do({name: value for name, value in found.groupdict().items() if value is not None})
            at = found.end()
        return self

    def _do(self, found: dict[str, str]) -> None:
        line = self.lines[-1]
        if "text" in found:
            self.lines[-1] = line[: self._column] + found["text"] + line[self._column + len(found["text"]) :]
            self._column += len(found["text"])
        elif "newline" in found:
            self.lines.append("")
            self._column = 0
        elif "home" in found:
            self._column = 0
        elif "erase" in found:
            self.lines[-1] = line[: self._column]
        elif "style" in found:
            self.style = found["style"]
        elif "back" in found or "left" in found:
            self._column = max(0, self._column - int(found.get("left") or 1))
        elif "right" in found:
            self._column += int(found["right"] or 1)
        elif "paste" in found:
            self.is_pasting = found["paste"] == "h"

    def is_as_before(self) -> bool:
        """Return whether nothing is left of what was selected."""
        return self.style == "0" and not self.is_pasting
