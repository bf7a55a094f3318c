"""What is encoded once: by itself it says nothing of what it holds."""

from __future__ import annotations

from seqrpc.protocol.encoded import Encoded


def test_it_holds_its_bytes_and_does_not_show_them() -> None:
    assert Encoded(b"\xa6secret").data == b"\xa6secret"
    assert repr(Encoded(b"\xa6secret")) == "<Encoded 7 bytes>"
