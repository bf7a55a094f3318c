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
    with pytest.raises(TypeError, match=f"^a value of type {type(value).__name__} cannot be sent$"):
        flatten(value)


def test_what_msgspec_does_not_know_is_left_in_what_it_takes_apart() -> None:
    unknown = object()
    flat = flatten(Holder([1, unknown]))
    assert isinstance(flat["item"], Borrowed)
    assert flat["item"].value == [1, unknown]
