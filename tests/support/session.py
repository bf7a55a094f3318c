"""What the tests of protocol/session have in common."""

from __future__ import annotations

from typing import Any

import pytest

from seqrpc.errors import RemoteProtocolError
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.messages import Request
from seqrpc.protocol.session import Session
from seqrpc.protocol.values import BareValue, BareValues
from support.descriptors import owned

encode = Encoder().encode


def packet(*message: Any) -> bytes:
    """Return what another implementation might send."""
    return bytes(encode(message)[0])


def receive(session: Session[Any, Any], *message: Any, fds: list[OwnedFd] | None = None, lost: bool = False) -> Any:
    return session.receive_packet(packet(*message), [] if fds is None else fds, lost=lost)


def request_in_flight(session: Session[Any, Any], call_id: int = 1) -> Request:
    request = receive(session, 0, call_id, "m", [])
    assert isinstance(request, Request)
    return request


def is_malformed(session: Session[Any, Any], data: bytes, descriptors: int = 1) -> str:
    """Check that a packet is malformed, its descriptors are closed and nothing has changed; return the reason."""
    before = (dict(session.calls), dict(session.requests), session.closing_received)
    with owned(descriptors) as fds:
        every = list(fds)
        with pytest.raises(RemoteProtocolError) as caught:
            session.receive_packet(data, fds)
        assert all(fd.closed for fd in every)
    assert (session.calls, session.requests, session.closing_received) == before
    return str(caught.value)


class Nobody(BareValues):
    """Makes nothing, or says so."""

    def receive(self, ext_type: int, fd: OwnedFd) -> BareValue:
        raise AssertionError("somebody who was refused had something made")
