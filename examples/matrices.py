"""A pool of workers multiplies matrices, or sums them, and a bar shows how far they are.

    python examples/matrices.py
    python examples/matrices.py sum --count 100 --side 500

The numbers of a matrix are in a ``seqrpc.Buffer``, memory that travels as a descriptor: no byte of them is copied on
its way, nor pickled. With numpy the workers compute by it, without it in plain Python. With rich there is a progress
bar, if this runs in a terminal. Only examples use these two; seqrpc does not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import operator
import os
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass

import seqrpc

HAS_NUMPY = importlib.util.find_spec("numpy") is not None
HAS_RICH = importlib.util.find_spec("rich") is not None

FLOAT = 8  # bytes


@dataclass
class Matrix:
    """A square matrix as an argument or a result: how many rows it has, and its numbers, row by row."""

    side: int
    numbers: seqrpc.Buffer

    @classmethod
    def empty(cls, side: int) -> Matrix:
        """Return a matrix of zeros, to fill in place."""
        return cls(side, seqrpc.Buffer.allocate(side * side * FLOAT))

    @classmethod
    def made_of(cls, seed: int, side: int) -> Matrix:
        """Return a matrix with something in it."""
        matrix = cls.empty(side)
        view = matrix.view()
        for index in range(side * side):
            view[index] = (index * 7 + seed) % 10
        return matrix

    def view(self) -> memoryview[float]:
        """Return the numbers, in this very memory; it is read-only if it was received.

        Raises:
            ValueError: there are not as many as there have to be.
        """
        if len(self.numbers) != self.side * self.side * FLOAT:
            raise ValueError(f"{len(self.numbers)} bytes are no {self.side} times {self.side} numbers")
        return memoryview(self.numbers).cast("d")


class Matrices(seqrpc.Service):
    """What a worker does. Each runs in a process of its own, so it may keep a processor busy."""

    @seqrpc.method
    async def multiply(self, left: Matrix, right: Matrix) -> Matrix:
        """Return the product, in new memory."""
        if left.side != right.side:
            raise seqrpc.InvalidParams(f"{left.side} times {left.side} numbers do not go with {right.side}")
        side, product = left.side, Matrix.empty(left.side)
        ours, theirs, out = left.view(), right.view(), product.view()
        if HAS_NUMPY:
            import numpy as np  # noqa: PLC0415 - it need not be there

            a, b, c = (np.frombuffer(each.numbers).reshape(side, side) for each in (left, right, product))
            np.matmul(a, b, out=c)
            return product
        columns = [theirs[column::side].tolist() for column in range(side)]
        for row in range(side):
            numbers = ours[row * side : (row + 1) * side].tolist()
            for column in range(side):
                out[row * side + column] = sum(map(operator.mul, numbers, columns[column]))
        return product

    @seqrpc.method
    async def sum(self, matrix: Matrix) -> float:
        """Return the sum of all numbers."""
        numbers = matrix.view()
        if HAS_NUMPY:
            import numpy as np  # noqa: PLC0415 - it need not be there

            return float(np.frombuffer(matrix.numbers).sum())
        return sum(numbers)


async def multiply_one(matrices: Matrices, seed: int, side: int) -> bool:
    """Have two matrices multiplied, and return whether that looks right: whether the sum of all numbers is."""
    left, right = Matrix.made_of(seed, side), Matrix.made_of(seed + 1, side)
    product = await matrices.multiply(left, right)
    ours, theirs = left.view(), right.view()
    columns = [sum(ours[column::side].tolist()) for column in range(side)]
    rows = [sum(theirs[row * side : (row + 1) * side].tolist()) for row in range(side)]
    return bool(sum(product.view().tolist()) == sum(map(operator.mul, columns, rows)))


async def sum_one(matrices: Matrices, seed: int, side: int) -> bool:
    """Have a matrix summed, and return whether that is right."""
    matrix = Matrix.made_of(seed, side)
    return bool(await matrices.sum(matrix) == sum(matrix.view().tolist()))


WORK = {"multiply": multiply_one, "sum": sum_one}


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Generator[Callable[[int], object]]:
    """Show a bar in one line; yield what is to be called with the number of items that are done."""
    if not (HAS_RICH and sys.stderr.isatty()):
        yield int  # which does nothing
        return
    from rich.console import Console  # noqa: PLC0415 - it need not be there
    from rich.progress import Progress  # noqa: PLC0415 - likewise

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


async def run(args: argparse.Namespace) -> bool:
    """Have it all done, and return whether it was done right."""
    # Else each worker would have a thread of BLAS's for each processor.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    pool = seqrpc.WorkerPool(Matrices, size=args.workers, calls_per_worker=1, environment=environment)
    async with pool:
        matrices = pool.proxy(Matrices)

        async def one(seed: int) -> bool:
            return await WORK[args.what](matrices, seed, args.side)

        with progress_bar(args.what, args.count) as progress:
            right = [result async for result in pool.map(one, range(args.count), ordered=False, progress=progress)]
        by = f"{pool.size} workers and {'numpy' if HAS_NUMPY else 'Python'}"
        print(f"{args.what}: {sum(right)} of {args.count} are right, of {args.side} times {args.side} numbers, by {by}")
    return all(right)


def main() -> None:
    """Start the pool, and let it work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=WORK, default="multiply", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=20, help="how many times (default: %(default)s)")
    parser.add_argument("--side", type=int, default=100, help="rows and columns of a matrix (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="default: as many as there are processors")
    sys.exit(0 if asyncio.run(run(parser.parse_args())) else 1)


if __name__ == "__main__":
    main()
