"""What connect(reconnect=...) is not for."""

from __future__ import annotations

import pytest

import seqrpc


async def test_what_reconnect_is_not_for() -> None:
    with pytest.raises(TypeError, match=r"reconnect= takes True, False or a seqrpc\.Reconnect"):
        seqrpc.connect("/run/x.sock", reconnect=1)  # type: ignore[arg-type]
    ours, theirs = seqrpc.socket_pair()
    with ours, theirs:
        with pytest.raises(ValueError, match="takes an address; what sock= is connected to"):
            await seqrpc.connect(sock=ours, reconnect=True)
        with pytest.raises(ValueError, match="and fd:3 is one socket"):
            await seqrpc.connect("fd:3", reconnect=True)
