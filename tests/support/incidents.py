"""What the other side is told of a failure that nobody foresaw."""

from __future__ import annotations

import re
from typing import Any


class _Incident:
    """Equal to what the other side is told of a failure that nobody foresaw: a number, and no word of the inside."""

    def __eq__(self, other: object) -> bool:
        pattern = r"incident [0-9a-f]{8}; the log of the other side has more"
        return isinstance(other, str) and re.fullmatch(pattern, other) is not None

    __hash__ = None  # type: ignore[assignment] # as of whatever is equal to things that are not equal

    def __repr__(self) -> str:
        return "<an incident>"


AN_INCIDENT: Any = _Incident()
