"""The runs: two processes for each peer, which stay, and rounds in which one pair works at a time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.peers.base import BlockingPeer, Peer
from benchmarks.peers.registry import LeftOutError
from benchmarks.workloads import Workload

Figures = dict[str, dict[str, list[float]]]
"""By row and peer the figures of its rounds."""

_ROOT = Path(__file__).parent.parent
_ANSWER_WITHIN = 90.0  # seconds: connecting 1,000 times, or 64 MiB through what is not made for it
_END_WITHIN = 5.0


class Pair:
    """A peer's server and the process with its clients, started when they are first needed."""

    def __init__(
        self, name: str, directory: Path, environment: Mapping[str, str], processors: tuple[int, int] | None = None
    ) -> None:
        self.name = name
        self._environment = environment
        self._processors = processors
        self._all_directories = directory
        self._directory = directory
        self._starts = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._driver: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._driver is None:
            self._starts += 1
            self._directory = self._all_directories / f"{self.name}.{self._starts}"
            self._directory.mkdir()
            address = str(self._directory / "socket")
            self._server = self._process("serving", self.name, address)
            self._driver = self._process("driver", self.name, address, str(self._server.pid))
            for process, processor in zip((self._server, self._driver), self._processors or (), strict=False):
                os.sched_setaffinity(process.pid, {processor})
        return self._driver

    def _process(self, module: str, *args: str) -> subprocess.Popen[bytes]:
        with open(self._directory / f"{module}.log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.{module}", *args],
                cwd=_ROOT,
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if module == "driver" else log,
                stderr=log,
            )

    def ask(self, **command: Any) -> dict[str, float]:
        """Have the driver do something, and return the figures that it answers.

        Raises:
            LeftOutError: it cannot be done; the text says why.
        """
        driver = self._start()
        assert driver.stdin is not None
        assert driver.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            driver.stdin.write(json.dumps(command).encode() + b"\n")
            driver.stdin.flush()
        if not select.select([driver.stdout], [], [], _ANSWER_WITHIN)[0]:
            self.stop()
            raise LeftOutError(f"no answer to {command['do']} in {_ANSWER_WITHIN:g} s")
        line = driver.stdout.readline()
        if not line:
            said = self._last_words("driver")
            self.stop()
            raise LeftOutError(f"its client ended: {said}")
        answer = json.loads(line)
        if "figures" not in answer:
            raise LeftOutError(answer.get("unsupported") or self._why(answer["failed"]))
        figures: dict[str, float] = answer["figures"]
        return figures

    def finish(self) -> None:
        """Close the connections of a workload, if they are still there."""
        if self._driver is not None:
            with contextlib.suppress(LeftOutError):
                self.ask(do="finish")

    def _why(self, failed: str) -> str:
        """Say why its driver failed: because its server had, if that is so."""
        if self._server is None or self._server.poll() is None:
            return failed
        said = self._last_words("serving")
        self.stop()
        return f"its server ended: {said}"

    def _last_words(self, module: str) -> str:
        lines = (self._directory / f"{module}.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "without a word"

    def tell_to_end(self) -> None:
        """Let both processes end, by the end of their standard input."""
        for process in self.processes():
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()

    def processes(self) -> list[subprocess.Popen[bytes]]:
        """Return the processes that are there: the driver, and the server."""
        return [process for process in (self._driver, self._server) if process is not None]

    def stop(self) -> None:
        """End both processes."""
        self.tell_to_end()
        for process in self.processes():
            _see_the_end(process)
        self._driver = self._server = None


def _see_the_end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was told to end; kill it if it does not."""
    if process.stdout is not None:
        process.stdout.close()
    try:
        process.wait(_END_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Run:
    """All that is measured by one command. Use it in ``with``: processes end with it.

    ``processors`` are those of servers and of drivers; without them the kernel chooses.
    """

    def __init__(
        self,
        peers: dict[str, Peer | BlockingPeer],
        directory: str,
        seconds: float,
        processors: tuple[int, int] | None = None,
    ) -> None:
        self.peers = peers
        self.seconds = seconds
        self.pairs = {name: Pair(name, Path(directory), peer.environment, processors) for name, peer in peers.items()}
        self.left_out: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pair in self.pairs.values():
            pair.tell_to_end()
        for pair in self.pairs.values():
            pair.stop()

    def measure(
        self, workload: Workload, rounds: int, say: Callable[[str], None], only: Collection[str] | None = None
    ) -> Figures:
        """Measure a workload of all peers that do it, or of only these, in interleaved rounds."""
        figures: Figures = {row: {} for row in workload.rows}
        able = [name for name, peer in self.peers.items() if workload.name in peer.workloads]
        taking_part = [self.pairs[name] for name in able if only is None or name in only]
        started = list(taking_part)
        if not workload.fresh:
            say(f"{workload.name}: getting ready")
            taking_part = self._each(taking_part, workload, self._prepare)
        for number in range(rounds):
            say(f"{workload.name}: round {number + 1} of {rounds}")
            taking_part = self._each(taking_part, workload, lambda pair, workload: self._round(pair, workload, figures))
        for pair in started:
            pair.stop() if workload.fresh else pair.finish()
        return figures

    def _each(self, pairs: list[Pair], workload: Workload, do: Callable[[Pair, Workload], None]) -> list[Pair]:
        """Do something with each pair, and return those that could."""
        left_out = self.left_out.setdefault(workload.name, {})
        able = []
        for pair in pairs:
            try:
                do(pair, workload)
                able.append(pair)
            except LeftOutError as exc:
                left_out[pair.name] = str(exc)
        return able

    def _prepare(self, pair: Pair, workload: Workload) -> None:
        pair.ask(do="prepare", workload=workload.name, seconds=self.seconds)

    def _round(self, pair: Pair, workload: Workload, figures: Figures) -> None:
        if workload.fresh:
            pair.stop()
            self._prepare(pair, workload)
        for variant, figure in pair.ask(do="measure").items():
            row = f"{workload.name}/{variant}" if variant else workload.name
            figures[row].setdefault(pair.name, []).append(figure)
