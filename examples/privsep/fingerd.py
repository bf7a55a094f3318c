"""A finger daemon in two halves: one is root and talks to nobody, the other is nobody and talks to the world.

    python examples/privsep/fingerd.py --plans /var/lib/plans --log /var/log/finger.log

It has to be root, and says so otherwise. This half binds the port, opens the log, and starts the other half
(finger.py), which gets both as descriptors and can open nothing by itself. For each plan the other half asks this
one, which opens files of one directory and no others. Try it with ``--port 7979``, and ``nc localhost 7979``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import socket
import stat
import sys
import tempfile

from finger import Finger, NoPlan, Plans

import seqrpc

NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


class Keeper(seqrpc.Service, Plans, name="Plans"):
    """What the half that is nobody may ask for: the answers are all that it can get of what is root's.

    Args:
        directory: where the plans are, a descriptor.
    """

    def __init__(self, directory: seqrpc.OwnedFd) -> None:
        """Open nothing yet."""
        self._directory = directory

    @seqrpc.method(errors=[NoPlan])
    async def open(self, name: str) -> seqrpc.OwnedFd:
        """Return the plan of that name. The name comes from a stranger, by way of a half that may have been taken over.

        Raises:
            NoPlan: there is none.
        """
        if NAME.fullmatch(name) is None:
            raise NoPlan(f"{name!r} is no name")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            plan = seqrpc.OwnedFd(os.open(name, flags, dir_fd=self._directory.fileno()))
        except OSError:
            raise NoPlan(f"there is no plan of {name!r}") from None
        if not stat.S_ISREG(os.fstat(plan.fileno()).st_mode):
            plan.close()
            raise NoPlan(f"the plan of {name!r} is no file")
        return plan


async def serve(port: socket.socket, log: seqrpc.OwnedFd, plans: seqrpc.OwnedFd) -> None:
    """Start the other half, and have it serve until this program is told to end."""
    with tempfile.TemporaryDirectory() as empty:  # root's own: whoever is in it as nobody can neither list nor write
        worker = seqrpc.Worker(
            Finger,
            port,
            log,
            serve=Keeper(plans),
            user="nobody",
            cwd=empty,
            no_new_privileges=True,
            limits={"nofile": 256, "core": 0, "as": 2**30},
            environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
        async with worker:
            port.close()  # the other half has it now
            print(f"fingerd: process {worker.pid} serves as nobody", flush=True)
            await worker.proxy(Finger).serve()


async def run(args: argparse.Namespace) -> None:
    """Open what only root can open, and serve until SIGTERM or Ctrl-C."""
    port = socket.create_server((args.host, args.port))
    print(f"fingerd: process {os.getpid()} listens at port {port.getsockname()[1]}", flush=True)
    with (
        port,
        seqrpc.OwnedFd(os.open(args.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)) as log,
        seqrpc.OwnedFd(os.open(args.plans, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as plans,
    ):
        serving = asyncio.ensure_future(serve(port, log, plans))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serving


def main() -> None:
    """Be the half that is root."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="localhost", help="where it listens (default: %(default)s)")
    parser.add_argument("--port", type=int, default=79, help="likewise; 0 is any (default: %(default)s)")
    parser.add_argument("--plans", required=True, metavar="DIRECTORY", help="the plans, a file for each name")
    parser.add_argument("--log", required=True, metavar="FILE", help="who was asked for")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("fingerd: this has to be root, so that a half of it can become nobody")
    try:
        asyncio.run(run(args))
    except (OSError, seqrpc.WorkerCrashed) as exc:
        sys.exit(f"fingerd: {exc}")


if __name__ == "__main__":
    main()
