"""What is neither data nor known to msgspec."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from seqrpc.protocol.flattening import Borrowed, flatten


class Holder(msgspec.Struct):
    item: Any


def travels_not(_value: Any) -> bool:
    return False


@pytest.mark.parametrize("value", [object(), 1j, print], ids=repr)
def test_what_nobody_knows_cannot_be_sent(value: Any) -> None:
    with pytest.raises(TypeError, match=f"^a value of type {type(value).__name__} cannot be sent$"):
        flatten(value, travels_not)


def test_what_msgspec_does_not_know_is_left_in_what_it_takes_apart() -> None:
    unknown = object()
    flat = flatten(Holder([1, unknown]), travels_not)
    assert flat["item"][0] == 1
    assert isinstance(flat["item"][1], Borrowed)
    assert flat["item"][1].value is unknown
