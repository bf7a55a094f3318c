"""What is neither data nor known to msgspec."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from seqrpc.protocol.flattening import Borrowed, flatten


class Holder(msgspec.Struct):
    item: Any


@pytest.mark.parametrize("value", [object(), 1j, print], ids=repr)
def test_what_nobody_knows_cannot_be_sent(value: Any) -> None:
    name = type(value).__name__
    with pytest.raises(
        TypeError, match=f"^a value of type {name} cannot be sent; make it a dataclass, or send its parts$"
    ):
        flatten(value)


def test_what_msgspec_does_not_know_is_left_in_what_it_takes_apart() -> None:
    unknown = object()
    flat = flatten(Holder([1, unknown]))
    assert isinstance(flat["item"], Borrowed)
    assert flat["item"].value == [1, unknown]
