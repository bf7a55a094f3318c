"""The peers by name, in the order of the tables. Nothing of a peer is imported before it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import inspect

from benchmarks.peers.base import BlockingPeer, Peer

MODULES = {
    "seqrpc": "benchmarks.peers.seqrpc_peer",
    "seqrpc.pure": "benchmarks.peers.seqrpc_peer",
    "seqrpc.busy-poll": "benchmarks.peers.seqrpc_peer",
    "seqrpc.unbounded": "benchmarks.peers.seqrpc_peer",
    "seqrpc.blocking": "benchmarks.peers.seqrpc_blocking",
    "handwritten.protocol": "benchmarks.peers.handwritten_protocol",
    "handwritten.streams": "benchmarks.peers.handwritten_streams",
    "multiprocessing.connection": "benchmarks.peers.multiprocessing_connection",
    "multiprocessing.connection+msgpack": "benchmarks.peers.multiprocessing_connection",
    "pyzmq": "benchmarks.peers.pyzmq_peer",
    "rpyc": "benchmarks.peers.rpyc_peer",
    "grpc.aio": "benchmarks.peers.grpc_aio",
    "grpclib": "benchmarks.peers.grpclib_peer",
    "asyncvarlink": "benchmarks.peers.asyncvarlink_peer",
    "aiohttp": "benchmarks.peers.aiohttp_peer",
    "dbus-fast": "benchmarks.peers.dbus_fast_peer",
    "sdbus": "benchmarks.peers.sdbus_peer",
    "floor": "benchmarks.floors",
    "floor.c": "benchmarks.floors",
    "memcpy": "benchmarks.floors",
}

OURS = "seqrpc"

PURE = "seqrpc.pure"
"""The same without its native part: seqrpc's other twin."""

OURS_OTHERWISE = (PURE, "seqrpc.busy-poll", "seqrpc.unbounded", "seqrpc.blocking")
"""The other twin, with an option that is not the default, or another client: shown, and not what others are compared
to, nor among them."""

FLOORS = ("floor", "floor.c", "memcpy")
"""What no library can be better than, with the same tools: measured in every run, whatever ``--only`` says, in the
workloads that have them."""


class LeftOutError(Exception):
    """A peer that cannot take part here; the text says why."""


def load(name: str) -> Peer | BlockingPeer:
    """Return the peer of this name, which can serve and connect on this machine.

    Raises:
        LeftOutError: it cannot, or its module is not there.
    """
    peer = find(name)
    why = peer.missing()
    if why is not None:
        raise LeftOutError(why)
    return peer


def find(name: str) -> Peer | BlockingPeer:
    """Return the peer of this name, as its processes do, which are there since it can serve and connect.

    Raises:
        LeftOutError: its module is not there.
    """
    path = MODULES[name]
    if importlib.util.find_spec(path) is None:
        raise LeftOutError(f"{path} is not there")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as exc:
        raise LeftOutError(f"{exc.name} is not installed") from exc
    except ImportError as exc:
        raise LeftOutError(str(exc)) from exc
    own = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == path]
    for kind in own:
        if issubclass(kind, Peer | BlockingPeer) and getattr(kind, "name", None) == name:
            peer: Peer | BlockingPeer = kind()
            return peer
    raise LeftOutError(f"{path} has no peer of that name")
