"""Print the last lines of a log file that the log daemon opened for us, or list what there is.

    python examples/logtail.py
    python examples/logtail.py dpkg.log --lines 20

The daemon hands over an open descriptor: the lines themselves never cross the socket.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from logs import DEFAULT_ADDRESS, Logs, every_log

import seqrpc

BLOCK_BYTES = 8192


def last_lines(fd: int, count: int) -> bytes:
    """Return the last lines of a file, reading backwards only as far as they reach.

    ``pread`` leaves the file's offset alone, which every process that has this open file shares.
    """
    blocks: list[bytes] = []
    line_ends = 0
    start = os.fstat(fd).st_size
    while start > 0 and line_ends <= count:  # one more than lines: the last line has an end, too
        end, start = start, max(0, start - BLOCK_BYTES)
        block = os.pread(fd, end - start, start)
        line_ends += block.count(b"\n")
        blocks.append(block)
    lines = b"".join(reversed(blocks)).splitlines(keepends=True)
    return b"".join(lines[-count:])


async def show(address: str, name: str | None, count: int) -> None:
    """Ask the daemon, and print."""
    # Only a daemon of root's or our own is trusted to tell us what is in the logs.
    trusted = seqrpc.policy.root | seqrpc.policy.same_user
    async with seqrpc.timeout(30), seqrpc.connect(address, server=trusted) as connection:
        logs = connection.proxy(Logs)
        if name is None:
            for log in await every_log(logs):
                print(f"{log.modified:%Y-%m-%d %H:%M} {log.size:12,} {log.name}")
        else:
            with await logs.open_log(name) as fd:
                sys.stdout.buffer.write(last_lines(fd.fileno(), count))


def positive(text: str) -> int:
    """Return the number that ``text`` is."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="a log file, as the list names it; without one, the list")
    parser.add_argument("-n", "--lines", type=positive, default=10, help="how many lines (default: %(default)s)")
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="where the daemon listens (default: %(default)s)")
    args = parser.parse_args()
    try:
        asyncio.run(show(args.address, args.name, args.lines))
    except seqrpc.SeqrpcError as exc:
        sys.exit(f"logtail: {exc}")


if __name__ == "__main__":
    main()
