"""Asyncio RPC over SOCK_SEQPACKET Unix sockets: one packet a call, descriptors with it, known callers."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Literal

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
        WorkerCrashed,
        WrongLoop,
        WrongProcess,
        WrongSocketType,
    )
    from seqrpc.interface import policy
    from seqrpc.interface.annotations import SENSITIVE
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
    from seqrpc.workers.executor import WorkerExecutor
    from seqrpc.workers.pool import WorkerPool
    from seqrpc.workers.worker import Worker

    __twin__: Literal["native", "pure"]

__version__ = "0.1.0"

__all__ = (
    "MAX_DESCRIPTORS",
    "MAX_PACKET",
    "SENSITIVE",
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
    "Worker",
    "WorkerCrashed",
    "WorkerExecutor",
    "WorkerPool",
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
    "MAX_DESCRIPTORS": "seqrpc.limits",
    "MAX_PACKET": "seqrpc.limits",
    "SENSITIVE": "seqrpc.interface.annotations",
    "AddressError": "seqrpc.errors",
    "AddressInUse": "seqrpc.errors",
    "Buffer": "seqrpc.kernel.buffers",
    "BytesLike": "seqrpc.kernel.buffers",
    "CallRecord": "seqrpc.calls.records",
    "Cancelled": "seqrpc.errors",
    "Channel": "seqrpc.aio.channels",
    "ConnectDenied": "seqrpc.errors",
    "ConnectError": "seqrpc.errors",
    "Connection": "seqrpc.aio.connection",
    "ConnectionLost": "seqrpc.errors",
    "Credentials": "seqrpc.kernel.credentials",
    "CurrentCall": "seqrpc.aio.current",
    "DeadlineExceeded": "seqrpc.errors",
    "DescriptorsLost": "seqrpc.errors",
    "Execution": "seqrpc.errors",
    "Interceptor": "seqrpc.aio.interceptors",
    "Internal": "seqrpc.errors",
    "InvalidParams": "seqrpc.errors",
    "InvalidResult": "seqrpc.errors",
    "Items": "seqrpc.interface.streams",
    "Limits": "seqrpc.limits",
    "ListenError": "seqrpc.errors",
    "LocalProtocolError": "seqrpc.errors",
    "MethodNotFound": "seqrpc.errors",
    "NobodyListens": "seqrpc.errors",
    "OutgoingCall": "seqrpc.calls.records",
    "Overloaded": "seqrpc.errors",
    "OwnedFd": "seqrpc.kernel.descriptors",
    "PermissionDenied": "seqrpc.errors",
    "ProtocolError": "seqrpc.errors",
    "Reconnect": "seqrpc.interface.reconnecting",
    "RemoteProtocolError": "seqrpc.errors",
    "RpcError": "seqrpc.errors",
    "SeqpacketProtocol": "seqrpc.aio.packets",
    "SeqpacketServer": "seqrpc.aio.listener",
    "SeqpacketTransport": "seqrpc.aio.transport",
    "SeqrpcError": "seqrpc.errors",
    "Server": "seqrpc.aio.server",
    "ServerBusy": "seqrpc.errors",
    "Service": "seqrpc.interface.service",
    "Stream": "seqrpc.aio.streams",
    "TooLarge": "seqrpc.errors",
    "Unavailable": "seqrpc.errors",
    "UntrustedServer": "seqrpc.errors",
    "Worker": "seqrpc.workers.worker",
    "WorkerCrashed": "seqrpc.errors",
    "WorkerExecutor": "seqrpc.workers.executor",
    "WorkerPool": "seqrpc.workers.pool",
    "WrongLoop": "seqrpc.errors",
    "WrongProcess": "seqrpc.errors",
    "WrongSocketType": "seqrpc.errors",
    "connect": "seqrpc.aio.client",
    "create_connection": "seqrpc.aio.endpoints",
    "create_server": "seqrpc.aio.endpoints",
    "current_call": "seqrpc.interface.current",
    "metadata": "seqrpc.interface.scope",
    "method": "seqrpc.interface.methods",
    "register_type": "seqrpc.interface.registering",
    "revoke": "seqrpc.aio.objects",
    "run": "seqrpc.aio.run",
    "serve": "seqrpc.aio.server",
    "socket_pair": "seqrpc.kernel.sockets",
    "timeout": "seqrpc.interface.timeouts",
}
"""Where the names are. They are loaded as they are first asked for: what needs asyncio takes longer to load than all
the rest, and who only calls, or only declares services, does without most of it."""

_PARTS = {
    "aio": "seqrpc.aio",
    "blocking": "seqrpc.blocking",
    "documents": "seqrpc.documents",
    "interface": "seqrpc.interface",
    "oversight": "seqrpc.oversight",
    "policy": "seqrpc.interface.policy",
    "protocol": "seqrpc.protocol",
}
"""Those that are modules."""

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        """Load what is asked for."""
        if name in _PARTS:
            part = globals()[name] = import_module(_PARTS[name])
            return part
        if name == "__twin__":
            twin = globals()[name] = import_module("seqrpc.twin").TWIN
            return twin
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value

    def __dir__() -> list[str]:
        """Return all names, loaded or not."""
        return sorted({*globals(), *_LAZY, *_PARTS, "__twin__"})
