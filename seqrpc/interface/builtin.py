"""The service that every server has, under names that are the protocol's (protocol section 8)."""

from __future__ import annotations

from seqrpc.interface.methods import method
from seqrpc.interface.policy import Policy, Verdict
from seqrpc.interface.service import Service
from seqrpc.kernel.credentials import Credentials


class _Everybody(Policy):
    """Admits everybody, also callers whom the kernel does not name."""

    def verdict(self, caller: Credentials) -> Verdict:  # noqa: ARG002 - whoever it is
        return True

    def admits(self, caller: Credentials | None) -> bool:  # noqa: ARG002 - as above
        return True

    def __repr__(self) -> str:
        return "everybody"


everybody: Policy = _Everybody()


class BuiltIn(Service):
    """Answers questions about the server itself.

    Its methods are called on the event loop, without a task, for whoever asks: they take no arguments, look at
    nothing that came with the request, and take no time.
    """

    @method(allow=everybody)
    def ping(self) -> None:
        """Answer: the server is there."""


BuiltIn.service_name = "rpc"
