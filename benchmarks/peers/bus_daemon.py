"""A bus of our own for the D-Bus peers: they have no server that clients connect to, only a daemon between the two.

It is the ``dbus-daemon`` of this machine with its own configuration of a session bus, so with the limits that sessions
have. It listens at the peer's address and nowhere else.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any
from urllib.parse import quote

from benchmarks.peers.base import Record

NAME = "org.seqrpc.Benchmark"
PATH = "/machine"
INTERFACE = "org.seqrpc.Machine"

RECORD = "(xsssssxxxxddddbbasaxa{ss}ax)"
"""``Record`` as a structure. D-Bus has no null: ``parent`` is an array of none or one, as is usual."""

fields_of: Callable[[Record], tuple[Any, ...]] = attrgetter(*Record.__dataclass_fields__)


def structure(record: Record) -> tuple[Any, ...]:
    """Return the record as D-Bus has it."""
    *fields, parent = fields_of(record)
    return (*fields, [] if parent is None else [parent])


def record_of(structure: Sequence[Any]) -> Record:
    """Return the record that such a structure is."""
    (*fields,) = structure
    fields[-1] = fields[-1][0] if fields[-1] else None
    return Record(*fields)


def missing() -> str | None:
    """Why there can be no bus on this machine, or None."""
    return None if shutil.which("dbus-daemon") else "dbus-daemon is not installed"


def bus_address(path: str) -> str:
    """Return the D-Bus address of the socket at this path."""
    return f"unix:path={quote(path)}"


def command(address: str) -> list[str]:
    """Return what starts a bus, which where there is setpriv(1) ends also when this process is killed."""
    options = ("--session", "--nofork", "--nopidfile", "--print-address", f"--address={address}")
    ends_with_us = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
    return [*ends_with_us, "dbus-daemon", *options]


@contextlib.contextmanager
def bus(path: str) -> Iterator[str]:
    """Have a bus at this path, and return its D-Bus address; it is there when this returns, and ends with the context.

    Raises:
        OSError: the daemon did not start; the text is what it said.
    """
    address = bus_address(path)
    with (
        open(f"{path}.log", "w+") as log,  # it complains where it may not have 65,536 descriptors, and goes on
        subprocess.Popen(command(address), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log) as daemon,
    ):
        try:
            assert daemon.stdout is not None
            if not daemon.stdout.readline():  # it prints its address when it listens
                log.seek(0)
                raise OSError(f"dbus-daemon did not start: {log.read().strip()}")
            yield address
        finally:
            daemon.terminate()
