"""Print the last lines of a log file that the log daemon opened for us, or list the log files.

    python examples/logtail.py
    python examples/logtail.py dpkg.log --lines 20
    python examples/logtail.py dpkg.log --follow

The daemon hands over an open descriptor: the lines themselves never cross the socket. With ``--follow`` they do, in a
stream that goes on until one of the two ends it: only the daemon can notice rotation and open the new file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys

from logs import DEFAULT_ADDRESS, Logs, every_log

import seqrpc

BLOCK_BYTES = 8192

# We trust only a daemon of root's or our own to tell us what is in the logs.
TRUSTED = seqrpc.policy.root | seqrpc.policy.same_user


def last_lines(fd: int, count: int, end: int | None = None) -> bytes:
    """Return the last lines of a file, or of its first ``end`` bytes, and read no more of it than needed.

    ``pread`` leaves the file's offset alone, which all processes that have this open file share.
    """
    blocks: list[bytes] = []
    line_ends = 0
    start = os.fstat(fd).st_size if end is None else end
    while start > 0 and line_ends <= count:  # one more than lines: the last line has an end, too
        end, start = start, max(0, start - BLOCK_BYTES)
        block = os.pread(fd, end - start, start)
        line_ends += block.count(b"\n")
        blocks.append(block)
    lines = b"".join(reversed(blocks)).splitlines(keepends=True)
    return b"".join(lines[-count:])


async def show(address: str, name: str | None, count: int) -> None:
    """Ask the daemon, and print."""
    async with seqrpc.timeout(30), seqrpc.connect(address, server=TRUSTED) as connection:
        logs = connection.proxy(Logs)
        if name is None:
            for log in await every_log(logs):
                print(f"{log.modified:%Y-%m-%d %H:%M} {log.size:12,} {log.name}")
        else:
            with await logs.open_log(name) as fd:
                write(last_lines(fd.fileno(), count))


async def follow(address: str, name: str, count: int) -> None:
    """Print the last lines, and those that are appended from then on."""
    async with seqrpc.connect(address, server=TRUSTED) as connection:
        logs = connection.proxy(Logs)
        with await logs.open_log(name) as fd:
            end = os.fstat(fd.fileno()).st_size
            write(last_lines(fd.fileno(), count, end))
        async for line in logs.follow(name, end):
            write(line.encode() + b"\n")


def write(data: bytes) -> None:
    """Print bytes as they are, at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def positive(text: str) -> int:
    """Return ``text`` as a number."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="a log file, as the list names it; without one, the list")
    parser.add_argument("-n", "--lines", type=positive, default=10, help="how many lines (default: %(default)s)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is appended, until interrupted")
    parser.add_argument("--address", default=DEFAULT_ADDRESS, help="where the daemon listens (default: %(default)s)")
    args = parser.parse_args()
    if args.follow and args.name is None:
        parser.error("--follow needs the name of a log")
    work = follow if args.follow else show
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(work(args.address, args.name, args.lines))
    except seqrpc.SeqrpcError as exc:
        sys.exit(f"logtail: {exc}")


if __name__ == "__main__":
    main()
