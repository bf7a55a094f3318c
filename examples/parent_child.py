"""A parent and its child program call each other over a socket pair.

    python examples/parent_child.py

A pair has no address: only the two processes that hold its ends can use it. The kernel names the sender of
every packet, so each end knows who calls, although the same process made both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

import seqrpc


def introduce(name: str) -> str:
    """Return who called the running handler, by the kernel's word."""
    caller = seqrpc.current_call().caller
    return f"{name} (process {os.getpid()}): called by process {caller.pid}, user {caller.uid}"


class Parent(seqrpc.Service):
    """What the child may ask of the parent."""

    @seqrpc.method
    async def announce(self, text: str) -> None:
        """Print ``text``."""
        print(f"{introduce('parent')}: {text}", flush=True)


class Child(seqrpc.Service):
    """What the parent may ask of the child."""

    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        """Tell the parent about the work, and return the sum."""
        print(introduce("child"), flush=True)
        parent = seqrpc.current_call().connection.proxy(Parent)
        await parent.announce(f"adding {a} and {b}")
        return a + b


async def run_parent() -> int:
    """Start the child, call it, and return its exit status."""
    ours, theirs = seqrpc.socket_pair()
    with theirs:  # the child gets a copy; we close ours, so that each side notices the end of the other
        number = theirs.fileno()
        child = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--child", f"fd:{number}", pass_fds=[number]
        )
    async with seqrpc.connect(sock=ours, services=Parent()) as connection:
        total = await connection.proxy(Child).add(2, 3)
        print(f"parent (process {os.getpid()}): the child (process {child.pid}) says {total}", flush=True)
    return await child.wait()  # it ends by itself: its connection has ended


def main() -> None:
    """Be the parent, or with ``--child`` the child."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", metavar="fd:N", help="be the child, on this socket")
    args = parser.parse_args()
    if args.child:
        seqrpc.run(Child(), args.child)
    else:
        sys.exit(asyncio.run(run_parent()))


if __name__ == "__main__":
    main()
