"""What says that a message asks for too much."""

from __future__ import annotations

import msgspec
import pytest

from seqrpc.interface.exhaustion import Exhausted


def test_msgspec_lets_it_pass() -> None:
    def hook(_wanted: type, _value: object) -> object:
        raise Exhausted("too many")

    assert not issubclass(Exhausted, ValueError | TypeError)  # of which msgspec makes misfits
    with pytest.raises(Exhausted, match="too many"):
        msgspec.convert([1], list[complex], dec_hook=hook)
