"""Values, errors and log records as texts, with exact types, and without what no two processes have alike."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
from collections.abc import Callable
from typing import Any

from seqrpc import Credentials, OwnedFd, RpcError
from seqrpc.kernel.buffers import Buffer

_LONGEST = 160
_DEEPEST = 100
_MOST = 100

_VARIES = (
    (re.compile(r"0x[0-9a-f]{6,}"), "0x…"),
    (re.compile(r"\b(fd|pid)=\d+"), r"\1=…"),
    (re.compile(r"\b(OwnedFd|ValueFd) \d+"), r"\1 …"),  # threads close others, and their numbers are given again
    (re.compile(r"Task-\d+"), "Task-…"),
    (re.compile(r"/[^ '\"]*/seqrpc-twins-[^/]*/"), "…/"),
    (re.compile(r"coro=<[^>]*>"), "coro=<…>"),
    (re.compile(r"(?<=addr=b')\\x00[0-9a-f]{5}"), "…"),  # a name that the kernel chose
    (re.compile(r"(coroutine|seqrpc\.coroutine|seqrpc\._native\.\w+) object( \S+(?= at))?"), "coroutine object"),
    (re.compile(r"(?<=incident )[0-9a-f]{8}\b"), "…"),
)

_OF_SERVERS = {"latency_bounds", "openrpc"}

_TIMES = frozenset({"began", "duration", "deadline", "pid", "age", "uptime", "latency", "seconds"})

_MINE = re.compile(rf"(?<=\bprocess ){os.getpid()}\b")  # elsewhere the same number is a call's, or of bytes


def steady(text: str) -> str:
    """Return a text without addresses, numbers of descriptors and processes, and the like."""
    for pattern, instead in _VARIES:
        text = pattern.sub(instead, text)
    return _MINE.sub("(mine)", text)


def told(value: Any, depth: int = 0) -> str:
    """Return what a value is, with the exact type of each part."""
    kind = type(value)
    if kind in (list, tuple, dict):
        return _told_parts(value, depth)
    if kind in (float, str, bytes):
        text = value.hex() if kind is float else repr(value)
        return text if len(text) <= _LONGEST else f"{text[:40]}… {len(value)} {_hash(text)}"
    for known, tell in _TELLING.items():
        if isinstance(value, known):
            return tell(value, depth)
    if dataclasses.is_dataclass(value):
        names = [each.name for each in dataclasses.fields(value) if each.name not in _TIMES]
        return f"{kind.__name__}({', '.join(f'{name}={told(getattr(value, name), depth + 1)}' for name in names)})"
    return repr(value) if value is None or kind in (bool, int) else steady(f"{kind.__name__}:{value!r}")


def _told_parts(value: Any, depth: int) -> str:
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, dict):
        if _OF_SERVERS & value.keys():
            return "what a server tells of itself"
        pairs = ((key, item) for key, item in value.items() if key not in _TIMES)
        return "{" + ", ".join(f"{told(key, depth + 1)}: {told(item, depth + 1)}" for key, item in pairs) + "}"
    if len(value) > _MOST:
        return f"{type(value).__name__} of {len(value)}: {_hash(repr(value))}"
    return f"{'[' if isinstance(value, list) else '('}{', '.join(told(item, depth + 1) for item in value)})"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def moment(seconds: float | None) -> str:
    """Return a deadline; of one that was made of the time of the call only that there is one."""
    return "of a timeout" if seconds is not None and 1 < seconds < 1e8 else told(seconds)


def _told_error(exc: BaseException, depth: int) -> str:
    parts = [type(exc).__name__, steady(str(exc))]
    if isinstance(exc, RpcError):
        parts += [exc.code, told(exc.data, depth + 1), exc.execution.name, f"remote={exc.remote}"]
    for name in ("__cause__", "__context__"):
        other = getattr(exc, name)
        if other is not None:
            parts.append(f"{name}: {type(other).__name__} {steady(str(other))}"[:300])
    if isinstance(exc, BaseExceptionGroup):
        parts += [told(each, depth + 1) for each in exc.exceptions]
    return "<" + " | ".join(part if len(part) < 400 else f"{part[:200]}… {len(part)}" for part in parts) + ">"


def _told_caller(caller: Credentials, _depth: int) -> str:
    return f"caller {caller.uid} {caller.gid} {caller.groups} {'mine' if caller.pid == os.getpid() else caller.pid}"


_TELLING: dict[type, Callable[[Any, int], str]] = {
    BaseException: _told_error,
    Credentials: _told_caller,
    OwnedFd: lambda fd, _depth: f"OwnedFd {'closed' if fd.closed else 'open'}",
    Buffer: lambda buffer, _depth: f"Buffer of {buffer.nbytes}",
}


def told_record(record: logging.LogRecord) -> list[str]:
    """Return what is logged: of a traceback the error, and where in the services it was raised."""
    try:
        message = record.getMessage()
    except Exception as exc:  # a text that does not fit its arguments would be a finding
        message = f"{record.msg!r} cannot be formatted: {exc!r}"
    text = "\n".join(line for line in steady(message).splitlines() if not _is_machinery(line))
    parts = [record.name, record.levelname, text]
    if record.exc_info and record.exc_info[1] is not None:
        raised = record.exc_info[1]
        frames, trace = [], raised.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if "seqrpc/aio" not in code.co_filename and "seqrpc/calls" not in code.co_filename:
                frames.append(f"{code.co_filename.rpartition('/')[2]}:{code.co_name}:{trace.tb_lineno}")
            trace = trace.tb_next
        parts += [_told_error(raised, 0), *frames]
    return parts


def _is_machinery(line: str) -> bool:
    """Return whether a line of a traceback as text is of the machinery, whose frames may be others."""
    return line.startswith(("    ", '  File "')) or bool(re.fullmatch(r"\s*[\^~]+\s*", line))
