"""Two processes pass numpy arrays to each other, both ways, without copying a byte of them.

    python examples/arrays.py

The elements are in a ``seqrpc.Buffer``, memory that travels as a descriptor. numpy works on it in place at either
end. The inode of the memory, which /proc/self/maps tells for the address of an array, shows that it is the same.
Only this example needs numpy; seqrpc does not use it.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import seqrpc


@dataclass
class Array:
    """An array as an argument or a result: its elements as a buffer, and how numpy reads them."""

    dtype: str
    shape: tuple[int, ...]
    elements: seqrpc.Buffer

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array of zeros, to fill in place."""
        return cls(dtype, shape, seqrpc.Buffer.allocate(math.prod(shape) * np.dtype(dtype).itemsize))

    def view(self) -> NDArray[Any]:
        """Return the array over this very memory; it is read-only if it was received.

        Raises:
            ValueError: the fields do not make an array of numbers.
        """
        if np.dtype(self.dtype).hasobject:  # pointers, which mean nothing here
            raise ValueError(f"elements are numbers, not {self.dtype!r}")
        return np.frombuffer(self.elements, dtype=self.dtype).reshape(self.shape)


def memory_of(array: NDArray[Any]) -> str:
    """Return what /proc/self/maps says about the memory in which an array begins: permissions, inode and name."""
    address = array.ctypes.data
    with open("/proc/self/maps") as maps:
        for line in maps:
            addresses, permissions, _offset, _device, inode, *name = line.split(maxsplit=5)
            begin, end = (int(number, 16) for number in addresses.split("-"))
            if begin <= address < end:
                return f"{permissions} inode {inode} {''.join(name).strip()}"
    raise LookupError("it is in no memory of this process")


def say(text: str) -> None:
    """Print a line with the process that prints it, in one piece, because other processes print, too."""
    sys.stdout.write(f"[process {os.getpid()}] {text}\n")
    sys.stdout.flush()


class Mathematician(seqrpc.Service):
    """The other process."""

    @seqrpc.method
    async def square(self, numbers: Array) -> Array:
        """Return the squares of the numbers, in new memory."""
        received = numbers.view()
        say(f"received: {memory_of(received)}")
        squares = Array.empty(numbers.shape, numbers.dtype)
        np.square(received, out=squares.view())
        say(f"sends:    {memory_of(squares.view())}")
        return squares


async def run(side: int) -> int:
    """Start the other process, let it square a matrix, and return its exit status."""
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        number = theirs.fileno()
        child = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--child", f"fd:{number}", pass_fds=[number]
        )
    async with seqrpc.connect(sock=ours) as connection:
        numbers = Array.empty((side, side), "float64")
        numbers.view()[:] = np.arange(side * side).reshape(side, side)
        say(f"sends:    {memory_of(numbers.view())}")
        squares = (await connection.proxy(Mathematician).square(numbers)).view()
        say(f"received: {memory_of(squares)}")
        right = np.array_equal(squares, numbers.view() ** 2)
        say(f"{side} times {side} numbers, {squares.nbytes:,} bytes, are {'right' if right else 'wrong'}")
    return await child.wait() or not right


def main() -> None:
    """Be the one process, or with ``--child`` the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1000, help="rows and columns of the matrix (default: %(default)s)")
    parser.add_argument("--child", metavar="fd:N", help="be the other process, on this socket")
    args = parser.parse_args()
    if args.child:
        seqrpc.run(Mathematician(), args.child)
    else:
        sys.exit(asyncio.run(run(args.side)))


if __name__ == "__main__":
    main()
