"""Asyncio RPC over SOCK_SEQPACKET Unix sockets: one packet a call, descriptors with it, known callers."""

from importlib import import_module
from typing import TYPE_CHECKING

from seqrpc.errors import (
    AddressError,
    AddressInUse,
    Cancelled,
    ConnectDenied,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DescriptorsLost,
    Execution,
    Internal,
    InvalidParams,
    InvalidResult,
    ListenError,
    LocalProtocolError,
    MethodNotFound,
    NobodyListens,
    Overloaded,
    PermissionDenied,
    ProtocolError,
    RemoteProtocolError,
    RpcError,
    SeqrpcError,
    ServerBusy,
    TooLarge,
    Unavailable,
    UntrustedServer,
    WrongLoop,
    WrongProcess,
    WrongSocketType,
)
from seqrpc.interface import policy
from seqrpc.interface.methods import method
from seqrpc.interface.reconnecting import Reconnect
from seqrpc.interface.registering import register_type
from seqrpc.interface.scope import metadata
from seqrpc.interface.service import Service
from seqrpc.interface.streams import Items
from seqrpc.interface.timeouts import timeout
from seqrpc.kernel.buffers import Buffer, BytesLike
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.sockets import socket_pair
from seqrpc.limits import MAX_DESCRIPTORS, MAX_PACKET, Limits

if TYPE_CHECKING:
    from seqrpc.aio.channels import Channel
    from seqrpc.aio.client import connect
    from seqrpc.aio.connection import Connection
    from seqrpc.aio.current import CurrentCall, current_call
    from seqrpc.aio.endpoints import create_connection, create_server
    from seqrpc.aio.interceptors import Interceptor
    from seqrpc.aio.listener import SeqpacketServer
    from seqrpc.aio.objects import revoke
    from seqrpc.aio.packets import SeqpacketProtocol
    from seqrpc.aio.run import run
    from seqrpc.aio.server import Server, serve
    from seqrpc.aio.streams import Stream
    from seqrpc.aio.transport import SeqpacketTransport
    from seqrpc.calls.records import CallRecord, OutgoingCall

__version__ = "0.1.0"

__all__ = (
    "MAX_DESCRIPTORS",
    "MAX_PACKET",
    "AddressError",
    "AddressInUse",
    "Buffer",
    "BytesLike",
    "CallRecord",
    "Cancelled",
    "Channel",
    "ConnectDenied",
    "ConnectError",
    "Connection",
    "ConnectionLost",
    "Credentials",
    "CurrentCall",
    "DeadlineExceeded",
    "DescriptorsLost",
    "Execution",
    "Interceptor",
    "Internal",
    "InvalidParams",
    "InvalidResult",
    "Items",
    "Limits",
    "ListenError",
    "LocalProtocolError",
    "MethodNotFound",
    "NobodyListens",
    "OutgoingCall",
    "Overloaded",
    "OwnedFd",
    "PermissionDenied",
    "ProtocolError",
    "Reconnect",
    "RemoteProtocolError",
    "RpcError",
    "SeqpacketProtocol",
    "SeqpacketServer",
    "SeqpacketTransport",
    "SeqrpcError",
    "Server",
    "ServerBusy",
    "Service",
    "Stream",
    "TooLarge",
    "Unavailable",
    "UntrustedServer",
    "WrongLoop",
    "WrongProcess",
    "WrongSocketType",
    "connect",
    "create_connection",
    "create_server",
    "current_call",
    "metadata",
    "method",
    "policy",
    "register_type",
    "revoke",
    "run",
    "serve",
    "socket_pair",
    "timeout",
)

_LAZY = {
    "CallRecord": "seqrpc.calls.records",
    "Channel": "seqrpc.aio.channels",
    "Connection": "seqrpc.aio.connection",
    "CurrentCall": "seqrpc.aio.current",
    "Interceptor": "seqrpc.aio.interceptors",
    "OutgoingCall": "seqrpc.calls.records",
    "SeqpacketProtocol": "seqrpc.aio.packets",
    "SeqpacketServer": "seqrpc.aio.listener",
    "SeqpacketTransport": "seqrpc.aio.transport",
    "Server": "seqrpc.aio.server",
    "Stream": "seqrpc.aio.streams",
    "connect": "seqrpc.aio.client",
    "create_connection": "seqrpc.aio.endpoints",
    "create_server": "seqrpc.aio.endpoints",
    "current_call": "seqrpc.interface.current",
    "revoke": "seqrpc.aio.objects",
    "run": "seqrpc.aio.run",
    "serve": "seqrpc.aio.server",
}
"""Where the names are that need asyncio, or are needed seldom. It takes longer to load than all the rest, and who only
declares services, policies and errors does without it. They are loaded as they are first asked for."""

_PARTS = ("aio", "blocking", "interface", "protocol")

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        """Load what needs asyncio."""
        if name in _PARTS:
            return import_module(f"seqrpc.{name}")
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value

    def __dir__() -> list[str]:
        """Return all names, loaded or not."""
        return sorted({*globals(), *_LAZY, *_PARTS})
