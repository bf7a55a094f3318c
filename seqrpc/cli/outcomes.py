"""What is counted of the calls that are measured, in memory that no number of calls and no other side makes grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from seqrpc.cli.endings import FAILED, LATE, OK, status_of, told
from seqrpc.cli.histogram import Histogram
from seqrpc.errors import DeadlineExceeded, RpcError
from seqrpc.interface.tallies import count

_MOST_CODES: Final = 64
"""Of errors, which the other side may make up; the rest are counted together."""

_MOST_STEPS: Final = 1_000
"""Into which calls that were never sent are grouped: there may be millions."""


class Outcomes:
    """Counts calls.

    Args:
        began: when the first could be made, in nanoseconds of the monotonic clock.
    """

    __slots__ = ("_kinds", "began", "ended", "errors", "latencies", "lateness", "succeeded", "unanswered", "unsent")

    def __init__(self, began: int) -> None:
        """Begin with none."""
        self.began = began
        self.ended = began
        """When the last one ended."""
        self.succeeded = 0
        self.errors: dict[str, int] = {}
        """Those that failed, by code; of what was not on the wire by the name of the class."""
        self.unanswered = 0
        """Those that were sent, and not waited for any longer."""
        self.unsent = 0
        """Those that were due, and never sent."""
        self.latencies = Histogram()
        """Of calls that succeeded; and of those that were given up, as long as they were waited for."""
        self.lateness = Histogram()
        """How long after calls were due they were sent, where they are due at times."""
        self._kinds: dict[str, tuple[int, str]] = {}

    @property
    def failed(self) -> int:
        """How many calls failed."""
        return sum(self.errors.values())

    @property
    def calls(self) -> int:
        """How many calls ended, well or not."""
        return self.succeeded + self.failed

    @property
    def seconds(self) -> float:
        """How long it took until the last one ended."""
        return max(0, self.ended - self.began) / 1e9

    @property
    def rate(self) -> float:
        """How many calls ended in a second."""
        return self.calls / self.seconds if self.seconds else 0.0

    def succeed(self, now: int, took: int) -> None:
        """Count a call that succeeded.

        Args:
            now: the time.
            took: nanoseconds.
        """
        self.ended = now
        self.succeeded += 1
        self.latencies.add(took)

    def fail(self, now: int, took: int, error: Exception) -> None:
        """Count a call that failed; if it ran out of time, it took at least that long."""
        self.ended = now
        code = error.code if isinstance(error, RpcError) else type(error).__name__
        before = len(self.errors)
        count(self.errors, code, _MOST_CODES)
        if len(self.errors) > before:
            self._kinds[next(reversed(self.errors))] = status_of(error), told(error)
        if isinstance(error, DeadlineExceeded):
            self.latencies.add(took)

    def give_up(self, now: int, took: int) -> None:
        """Count a call that was sent, and not answered as long as it was waited for."""
        self.ended = now
        self.unanswered += 1
        self.latencies.add(took)

    def leave_out(self, now: int, numbers: Sequence[int], due: Callable[[int], int]) -> None:
        """Count calls that were due, and never sent: they waited all the time.

        Args:
            now: the time.
            numbers: which.
            due: returns when one was due.
        """
        self.unsent += len(numbers)
        step = max(1, len(numbers) // _MOST_STEPS)
        for at in range(0, len(numbers), step):
            group = numbers[at : at + step]
            self.latencies.add(now - due(group[len(group) // 2]), len(group))

    @property
    def verdict(self) -> tuple[int, str]:
        """The exit status, and what is told beside it: of the most frequent error if no call succeeded."""
        if self.succeeded or not (self.errors or self.unanswered or self.unsent):
            return OK, ""
        if not self.errors:
            return LATE, "no call was answered"
        code = max(self.errors, key=lambda each: self.errors[each])
        status, text = self._kinds.get(code, (FAILED, code))
        return status, f"no call succeeded: {text}"
