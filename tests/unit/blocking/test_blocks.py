"""What is entered by 'with' alone."""

from __future__ import annotations

from typing import Any

import pytest

from seqrpc.blocking.blocks import Block


class Door(Block):
    def __repr__(self) -> str:
        return "<Door>"


async def test_async_with_is_told_what_to_write() -> None:
    door: Any = Door()
    with pytest.raises(TypeError, match=r"^<Door> is entered by 'with', not by 'async with'$"):
        async with door:
            pass


def test_it_takes_no_room() -> None:
    assert Block.__slots__ == ()
    assert Door().__aexit__(None, None, None) is None  # type: ignore[attr-defined]
