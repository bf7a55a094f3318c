"""Helpers for the tests of those who serve and call with seqrpc; ``docs/testing.md`` shows how they are used.

Nothing here needs pytest. With pytest the same things are fixtures, too (:mod:`seqrpc.testing.plugin`).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqrpc.testing.admission import admits
    from seqrpc.testing.callers import caller
    from seqrpc.testing.faults import Fault, Packet
    from seqrpc.testing.fits import assert_fits
    from seqrpc.testing.leaks import assert_no_leaks
    from seqrpc.testing.memory import MemoryServer, memory_server, serve_in_memory
    from seqrpc.testing.pairs import FaultyPair, faulty_pair
    from seqrpc.testing.threads import ThreadedServer, serve_in_thread
    from seqrpc.testing.ways import Way

__all__ = (
    "Fault",
    "FaultyPair",
    "MemoryServer",
    "Packet",
    "ThreadedServer",
    "Way",
    "admits",
    "assert_fits",
    "assert_no_leaks",
    "caller",
    "faulty_pair",
    "memory_server",
    "serve_in_memory",
    "serve_in_thread",
)

_WHERE = {
    "Fault": "faults",
    "FaultyPair": "pairs",
    "MemoryServer": "memory",
    "Packet": "faults",
    "ThreadedServer": "threads",
    "Way": "ways",
    "admits": "admission",
    "assert_fits": "fits",
    "assert_no_leaks": "leaks",
    "caller": "callers",
    "faulty_pair": "pairs",
    "memory_server": "memory",
    "serve_in_memory": "memory",
    "serve_in_thread": "threads",
}
"""Where the names are. They are loaded as they are first asked for: pytest loads this package for everybody."""

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        """Load what is asked for."""
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"seqrpc.testing.{_WHERE[name]}"), name)
        return value

    def __dir__() -> list[str]:
        """Return all names, loaded or not."""
        return sorted({*globals(), *_WHERE})
