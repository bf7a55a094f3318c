"""Asyncio RPC over SOCK_SEQPACKET Unix sockets: one packet a call, descriptors with it, known callers."""

from importlib import import_module
from typing import TYPE_CHECKING

from seqrpc.errors import (
    AddressError,
    AddressInUse,
    Cancelled,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DescriptorsLost,
    Internal,
    InvalidParams,
    InvalidResult,
    LocalProtocolError,
    MethodNotFound,
    Overloaded,
    PermissionDenied,
    ProtocolError,
    RemoteProtocolError,
    RpcError,
    SeqrpcError,
    TooLarge,
    Unavailable,
    UntrustedServer,
    WrongLoop,
    WrongProcess,
)
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.sockets import socket_pair
from seqrpc.limits import MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.services import policy
from seqrpc.services.service import Service, method

if TYPE_CHECKING:
    from seqrpc.carriers.endpoints import create_connection, create_server
    from seqrpc.carriers.listener import SeqpacketServer
    from seqrpc.carriers.streams import Stream
    from seqrpc.carriers.transport import SeqpacketProtocol, SeqpacketTransport
    from seqrpc.client import connect
    from seqrpc.server import Server, run, serve
    from seqrpc.services.channels import Channel
    from seqrpc.services.context import metadata, timeout
    from seqrpc.services.current import CurrentCall, current_call
    from seqrpc.services.objects import revoke
    from seqrpc.services.peer import Connection

__version__ = "0.1.0"

__all__ = (
    "MAX_DESCRIPTORS",
    "MAX_PACKET",
    "AddressError",
    "AddressInUse",
    "Buffer",
    "Cancelled",
    "Channel",
    "ConnectError",
    "Connection",
    "ConnectionLost",
    "Credentials",
    "CurrentCall",
    "DeadlineExceeded",
    "DescriptorsLost",
    "Internal",
    "InvalidParams",
    "InvalidResult",
    "Limits",
    "LocalProtocolError",
    "MethodNotFound",
    "Overloaded",
    "OwnedFd",
    "PermissionDenied",
    "ProtocolError",
    "RemoteProtocolError",
    "RpcError",
    "SeqpacketProtocol",
    "SeqpacketServer",
    "SeqpacketTransport",
    "SeqrpcError",
    "Server",
    "Service",
    "Stream",
    "TooLarge",
    "Unavailable",
    "UntrustedServer",
    "WrongLoop",
    "WrongProcess",
    "connect",
    "create_connection",
    "create_server",
    "current_call",
    "metadata",
    "method",
    "policy",
    "revoke",
    "run",
    "serve",
    "socket_pair",
    "timeout",
)

_WITH_A_LOOP = {
    "Channel": "seqrpc.services.channels",
    "Connection": "seqrpc.services.peer",
    "CurrentCall": "seqrpc.services.current",
    "SeqpacketProtocol": "seqrpc.carriers.transport",
    "SeqpacketServer": "seqrpc.carriers.listener",
    "SeqpacketTransport": "seqrpc.carriers.transport",
    "Server": "seqrpc.server",
    "Stream": "seqrpc.carriers.streams",
    "connect": "seqrpc.client",
    "create_connection": "seqrpc.carriers.endpoints",
    "create_server": "seqrpc.carriers.endpoints",
    "current_call": "seqrpc.services.current",
    "metadata": "seqrpc.services.context",
    "revoke": "seqrpc.services.objects",
    "run": "seqrpc.server",
    "serve": "seqrpc.server",
    "timeout": "seqrpc.services.context",
}
"""Where the names are that need asyncio: it takes longer to load than all the rest, and who only declares services,
policies and errors does without it. They are loaded as they are first asked for."""

_PARTS = ("carriers", "client", "protocol", "server")

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        """Load what needs asyncio."""
        if name in _PARTS:
            return import_module(f"seqrpc.{name}")
        if name not in _WITH_A_LOOP:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_WITH_A_LOOP[name]), name)
        return value

    def __dir__() -> list[str]:
        """Return all names, loaded or not."""
        return sorted({*globals(), *_WITH_A_LOOP, *_PARTS})
