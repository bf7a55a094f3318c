"""What is wrong with the references of a message, and that nothing of it is left to the next."""

from __future__ import annotations

from typing import Any

import pytest
from support.coding import Life, buffer_data
from support.descriptors import owned

from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.limits import DEFAULT_LIMITS
from seqrpc.protocol.longbytes import EXT_TAKEN
from seqrpc.protocol.references import References
from seqrpc.protocol.values import EXT_CHANNEL, EXT_DESCRIPTOR, EXT_STREAM, BareValues


def new() -> References:
    return References(DEFAULT_LIMITS, BareValues())


@pytest.mark.parametrize(
    "kind, data, problem",
    [
        (EXT_DESCRIPTOR, b"\x00", None),
        (EXT_STREAM, b"\x00", None),
        (EXT_CHANNEL, b"\x00", None),
        (4, buffer_data(0, 0, 1 << 62)[3:], None),
        (EXT_DESCRIPTOR, b"\x01", "descriptor 1 is referred to, but 1 came"),
        (EXT_STREAM, b"\x00\x00", "a reference to a stream has 1 byte, this one 2"),
        (4, b"\x00", "a reference to a buffer has 17 bytes, this one 1"),
        (5, b"\x00", "unknown extension type 5"),
        (EXT_TAKEN, b"\x00", f"unknown extension type {EXT_TAKEN}"),
    ],
)
def test_what_is_only_checked_makes_nothing(kind: int, data: bytes, problem: str | None) -> None:
    life = Life()
    references = References(DEFAULT_LIMITS, life)
    with owned(1) as fds:
        references.begin(fds)
        references.check(kind, data)
        assert references.problem == problem
        assert references.end() == problem
        assert [type(fd) for fd in fds] == [OwnedFd]
    assert references.end() is None, "nothing is left of it"


def test_more_than_a_thousand_bad_references_are_not_looked_at() -> None:
    for look_at in ("check", "resolve"):
        references = new()
        for _ in range(1_000):
            getattr(references, look_at)(9, b"")
        with pytest.raises(ValueError, match="more than 1000 bad references, one of them: unknown extension type 9"):
            getattr(references, look_at)(9, b"")


def test_what_was_taken_out_is_put_in_again() -> None:
    references = new()
    references.taken = [b"first", b"second"]
    assert [references.resolve(EXT_TAKEN, bytes((index,))) for index in (1, 0)] == [b"second", b"first"]
    assert references.end() is None


def test_a_message_that_is_read_again_refers_to_the_same_objects() -> None:
    references = new()
    with owned(2) as fds:
        references.begin(fds)
        first: list[Any] = [references.resolve(EXT_STREAM, b"\x01"), references.resolve(EXT_DESCRIPTOR, b"\x00")]
        references.begin_again()
        again: list[Any] = [references.resolve(EXT_STREAM, b"\x01"), references.resolve(EXT_DESCRIPTOR, b"\x00")]
        assert all(one is other for one, other in zip(first, again, strict=True))
        assert references.end() is None


def test_once_let_go_nobody_is_told_or_asked() -> None:
    references = new()
    references.on_work = lambda: pytest.fail("it is told")
    references.lack_of_room = lambda _size: "it is asked"
    references.let_go()
    references.on_work()
    assert references.lack_of_room(1) is None
