"""Asyncio RPC over SOCK_SEQPACKET Unix sockets: one packet a call, descriptors with it, known callers."""

from seqrpc.carriers.endpoints import create_connection, create_server
from seqrpc.carriers.listener import SeqpacketServer
from seqrpc.carriers.streams import Stream
from seqrpc.carriers.transport import SeqpacketProtocol, SeqpacketTransport
from seqrpc.client import connect
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
)
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.credentials import Credentials
from seqrpc.kernel.descriptors import OwnedFd
from seqrpc.kernel.sockets import socket_pair
from seqrpc.limits import MAX_DESCRIPTORS, MAX_PACKET, Limits
from seqrpc.server import Server, run, serve
from seqrpc.services import policy
from seqrpc.services.channels import Channel
from seqrpc.services.context import metadata, timeout
from seqrpc.services.current import CurrentCall, current_call
from seqrpc.services.objects import revoke
from seqrpc.services.peer import Connection
from seqrpc.services.service import Service, method

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
