"""Plans of workers, and programs for them."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

from seqrpc.calls.plans import Plan, plan_for
from seqrpc.limits import DEFAULT_LIMITS

_HERE = str(Path(__file__).parents[1])

USUAL: dict[str, Any] = {
    "kwargs": None,
    "command": None,
    "serve": (),
    "allow": None,
    "interceptors": (),
    "connection_limits": DEFAULT_LIMITS,
    "grace": 5.0,
    "start_timeout": 30.0,
    "output": "capture",
    "environment": None,
}


def planned(service: Any = None, *args: Any, **options: Any) -> Plan:
    """Return a plan, with what is usual where nothing else is said."""
    return plan_for(service, args, **{**USUAL, **options})


def program(code: str) -> list[str]:
    """Return the command line of a Python program that finds its peer at descriptor 3, as ``sock``."""
    prelude = f"""
import os, signal, socket, sys, time
sys.path.append({_HERE!r})
import msgpack
sock = socket.socket(fileno=int(os.environ["SEQRPC_FD"]))
"""
    return [sys.executable, "-c", prelude + textwrap.dedent(code)]


ANSWERS = """
while data := sock.recv(100_000):
    kind, number, *_ = msgpack.unpackb(data)
    if kind == 0:
        sock.send(msgpack.packb([1, number, None, None]))
"""
"""A program that answers each call with None."""

REFUSES = """
while data := sock.recv(100_000):
    kind, number, *_ = msgpack.unpackb(data)
    if kind == 0:
        sock.send(msgpack.packb([1, number, ["app.No", "not today", None], None]))
time.sleep(60)
"""
"""One that answers each call with an error, and lives on."""

DEAF = "sock.close(); time.sleep(60)"
"""One that ends its connection, and lives on."""

SILENT = "time.sleep(60)"
"""One that says nothing."""

LINGERS = f"""{ANSWERS}
time.sleep(60)
"""
"""One that answers, and lives on when its connection has ended."""
