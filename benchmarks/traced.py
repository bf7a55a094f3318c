"""What the guard counts from outside: system calls, by strace, and the processor's instructions, by valgrind."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.counting import MARK
from benchmarks.guarded import KINDS

Figures = dict[str, dict[str, float]]
"""By kind of call and by what is counted: how many for each call."""

COUNTING: tuple[str, ...] = ("-m", "benchmarks.counting")
"""The program that makes the calls."""

GROUPS: dict[str, frozenset[str]] = {
    "sends": frozenset({"sendto", "sendmsg", "sendmmsg", "write", "writev"}),
    "receives": frozenset({"recvfrom", "recvmsg", "recvmmsg", "read", "readv"}),
    "waits": frozenset({"epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6"}),
    # Not guarded: the allocator's, now and then, and handing a lock to a thread.
    "": frozenset({"brk", "mmap", "munmap", "mremap", "madvise", "futex"}),
}
"""System calls that do the same: which of them it is, the processor and the C library have a say in."""

_ROOT = Path(__file__).parent.parent
_WITHIN = 100.0  # seconds; it takes about one, and under valgrind twenty
_STRACE = ("strace", "-f", "-qq", "-e", "signal=none", "-o")
_CALL = re.compile(r"((?:\d+ +)?)(\w+)\(")
_MARK = re.compile(r"((?:\d+ +)?)\w+\(.*" + re.escape(MARK) + r'([^"/]+)/(\d+)"')


class CannotCountError(Exception):
    """Something cannot be counted on this machine; the text says why."""


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program where nothing of ours counts or hashes in another way."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    return subprocess.run(
        command,
        cwd=_ROOT,
        env={**ours, "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_WITHIN,
        check=False,
    )


def checked(command: Sequence[str]) -> str:
    """Return what a program prints; end if it fails."""
    done = run(command)
    if done.returncode:
        sys.exit(f"{' '.join(command[-4:])} failed with status {done.returncode}:\n{done.stderr}")
    return done.stdout


@functools.cache
def _why_no_strace() -> str | None:
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = run([*_STRACE, os.devnull, "true"])
    return f"strace cannot trace here: {tried.stderr.strip()}" if tried.returncode else None


def system_calls(kinds: Sequence[str], loop: str, program: Sequence[str] = COUNTING) -> Figures:
    """Return by kind of call how many system calls it needs, by name.

    Raises:
        CannotCountError: strace is not there, or may not trace.
    """
    if (reason := _why_no_strace()) is not None:
        raise CannotCountError(reason)
    with tempfile.TemporaryDirectory(prefix="guard-") as directory:
        log = Path(directory, "log")
        checked([*_STRACE, str(log), sys.executable, *program, "marks", loop, ",".join(kinds)])
        return parsed(log.read_text(errors="replace"))


def parsed(log: str) -> Figures:
    """Return how many system calls a log of strace has for each call, by kind and name: of the thread that calls."""
    counts: dict[str, Counter[str]] = {}
    kind, sign, thread = None, 0, ""
    for line in log.splitlines():
        if mark := _MARK.match(line):
            if kind is None:
                thread, kind, length = mark.groups()
                sign = 1 if int(length) == KINDS[kind].long else -1
            else:
                kind = None
        elif kind is not None and (call := _CALL.match(line)) and call[1] == thread:
            counts.setdefault(kind, Counter())[call[2]] += sign
    return {
        kind: {name: round(number / KINDS[kind].units, 3) for name, number in sorted(names.items()) if number}
        for kind, names in counts.items()
    }


def grouped(names: dict[str, float]) -> dict[str, float]:
    """Return how many system calls there are of each group."""
    groups = dict.fromkeys([*filter(None, GROUPS), "others"], 0.0)
    for name, number in names.items():
        group = next((group for group, members in GROUPS.items() if name in members), "others")
        if group:
            groups[group] = round(groups[group] + number, 3)
    return groups


def machine_instructions(kind: str) -> float:
    """Return how many instructions of the processor one of these calls needs, by valgrind.

    Raises:
        CannotCountError: valgrind is not there.
    """
    if shutil.which("valgrind") is None:
        raise CannotCountError("valgrind is not installed")
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={os.devnull}"]
    found = []
    lengths = KINDS[kind].long, 5 * KINDS[kind].long
    for length in lengths:
        done = run([*valgrind, sys.executable, *COUNTING, str(length), "asyncio", kind])
        refs = re.search(r"I +refs: +([\d,]+)", done.stderr)
        if done.returncode or refs is None:
            raise CannotCountError(f"valgrind failed: {done.stderr}")
        found.append(int(refs[1].replace(",", "")))
    return round((found[1] - found[0]) / (lengths[1] - lengths[0]) * KINDS[kind].unit)
