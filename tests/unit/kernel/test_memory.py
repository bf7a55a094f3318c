from __future__ import annotations

import ctypes
import sys

import pytest
from support.measures import peak_bytes

from seqrpc.kernel import memory
from seqrpc.kernel.memory import HUGE, fresh_bytes

SIZES = [2, 100, 100_000, HUGE - 1, HUGE, HUGE + 4_097]


def filled(size: int) -> bytes:
    """Return fresh bytes with a pattern in them."""
    data, room = fresh_bytes(size)
    with room:
        room[:] = (bytes(range(251)) * (size // 251 + 1))[:size]
    return data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("huge_pages", [True, False])
def test_fresh_bytes_are_what_was_written_to_their_memory(
    size: int, *, huge_pages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not huge_pages:
        monkeypatch.setattr(memory, "_MADV_HUGEPAGE", None)
    memory.prepare()
    data = filled(size)
    assert type(data) is bytes
    assert len(data) == size
    expected = (bytes(range(251)) * (size // 251 + 1))[:size]
    assert data == expected
    assert hash(data) == hash(expected)


def test_where_bytes_are_is_told() -> None:
    data, room = fresh_bytes(1_000)
    room[:] = b"x" * 1_000
    assert ctypes.string_at(memory.address_of(data), 1_000) == data
    assert ctypes.string_at(memory.address_of(b"abc")) == b"abc"


def test_fresh_bytes_belong_to_their_holder_alone_and_are_made_once() -> None:
    data = filled(HUGE)
    assert sys.getrefcount(data) == 2

    def make() -> None:
        _data, room = fresh_bytes(10 * HUGE)
        room.release()

    assert peak_bytes(make) < 10 * HUGE + 100_000


def test_where_there_is_no_room_it_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        fresh_bytes(1 << 60)
