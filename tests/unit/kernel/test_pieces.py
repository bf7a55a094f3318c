from __future__ import annotations

import pytest

from seqrpc.kernel.pieces import Pieces


@pytest.mark.parametrize("parts", [(), (b"",), (b"abc", memoryview(b"-x-")[1:2], b"", b"y" * 1_000)])
def test_pieces_are_as_long_and_read_the_same_as_their_parts_together(parts: tuple[bytes | memoryview, ...]) -> None:
    pieces = Pieces(parts)
    assert bytes(pieces) == b"".join(parts)
    assert len(pieces) == len(bytes(pieces))


def test_no_part_is_copied() -> None:
    parts = [b"head", bytes(100_000)]
    assert all(mine is theirs for mine, theirs in zip(Pieces(parts).parts, parts, strict=True))
