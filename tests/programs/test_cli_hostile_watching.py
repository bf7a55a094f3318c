"""What servers may tell of themselves that mean harm, to ``top`` and ``monitor``."""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from support.commands import at_terminal, seqrpc_command, terminal
from support.hostile_server import CONTROL, EVIL, Streamed, error, server
from support.waiting import PATIENCE

DOCUMENT = {
    "openrpc": "1.3.2",
    "info": {"title": EVIL, "version": EVIL, "description": EVIL},
    "methods": [{"name": f"A{EVIL}.m{EVIL}", "params": [], "result": {"name": "result", "schema": {}}}],
    "components": {"schemas": {}},
    "x-seqrpc": {"services": [{"name": f"A{EVIL}", "description": EVIL}], "interfaces": {}},
}

CALL = {"method": EVIL, "age": -1, EVIL: EVIL}

METHOD = {"calls": 2**60, "errors": {EVIL: 2**63}, "latency": [1, 2**62, -3, EVIL], "refused": -1, "seconds": math.nan}

STATS = {
    "version": EVIL,
    "uptime": math.nan,
    "pid": -7,
    "connections": [{"pid": 2**63, "uid": -1, "calls": [CALL, EVIL], "age": math.inf}, EVIL, None],
    "methods": {EVIL: METHOD, f"{EVIL}2": METHOD, 7: EVIL, "x": None},
    "others": METHOD,
    "latency_bounds": [0.5, math.inf, math.nan],
    "accounts": {EVIL: {EVIL: 7}, "0": EVIL, "99999999999": {"connections": 1}},
    "connections_refused": {EVIL: 1},
    EVIL: EVIL,
}

EVENT = {"method": EVIL, "code": EVIL, "arguments": EVIL, "began": 2.0**80, "duration": -math.inf, "missed": -1}

EVENTS = Streamed([EVENT, EVIL, None, {**EVENT, "missed": 2**63, "began": math.nan, "uid": 2**63, "pid": EVIL}])

CALLS: list[tuple[tuple[str, ...], Any]] = [
    (("top", "{path}", "--once"), [None, STATS]),
    (("top", "{path}", "--once", "--json"), [None, STATS]),
    (("top", "{path}", "--once"), [None, EVIL]),
    (("top", "{path}"), error(EVIL, EVIL)),
    (("top", "{path}"), error("rpc.PermissionDenied", EVIL)),
    (("monitor", "{path}"), [None, EVENTS]),
    (("monitor", "{path}", "--json"), [None, EVENTS]),
    (("monitor", "{path}", "A.x"), [None, Streamed([], [EVIL, EVIL, None])]),
    (("monitor", "{path}", "x.y"), error("rpc.PermissionDenied", EVIL)),
    (("monitor", "{path}"), [None, EVIL]),
]


@pytest.mark.parametrize("args, answer", CALLS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
@pytest.mark.parametrize("document", [DOCUMENT, EVIL, None], ids=["described", "misdescribed", "undescribed"])
def test_a_terminal_is_what_it_was(socket_path: Path, args: tuple[str, ...], answer: Any, document: Any) -> None:
    def respond(called: str, _params: Any) -> Any:
        if called == "rpc.discover":
            return [None, document] if document is not None else error("rpc.MethodNotFound", EVIL)
        return answer

    with server(socket_path, respond):
        status, text = at_terminal(*(arg.format(path=socket_path) for arg in args))
    assert status in (0, 1, 3, 4)
    assert CONTROL.findall(text) == []
    assert "\nforged: " not in text


@pytest.mark.parametrize("args, answer", CALLS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_pipe_gets_what_programs_read(socket_path: Path, args: tuple[str, ...], answer: Any) -> None:
    def respond(called: str, _params: Any) -> Any:
        return [None, DOCUMENT] if called == "rpc.discover" else answer

    with server(socket_path, respond):
        done = seqrpc_command(*(arg.format(path=socket_path) for arg in args))
    assert CONTROL.findall(done.out + done.err) == []
    assert done.err.count("\n") <= 1 + ("told of" in done.err)
    for line in done.out.splitlines():
        json.loads(line)


def test_top_draws_whatever_a_server_tells(socket_path: Path) -> None:
    """What it tells is something else in each look: more than can be drawn, what was not there, fewer than before."""
    told: list[Any] = [
        {"methods": {f"A.{number}": {"calls": number} for number in range(60_000)}, "uptime": 1.0},
        STATS,
        7,
        {"methods": {}, "uptime": -1.0},
        {"methods": {"A.x": METHOD}, "uptime": 5e-324, "connections": [{}] * 50_000},
        {"methods": {"A.x": {"calls": 1}}, "uptime": 1e300, "pid": 2**64 - 1},
    ]
    looks = itertools.count()

    def respond(called: str, _params: Any) -> Any:
        return [None, DOCUMENT if called == "rpc.discover" else told[next(looks) % len(told)]]

    with server(socket_path, respond), terminal("top", socket_path, "--interval", "0.05") as opened:
        while next(looks) < 4 * len(told):
            opened.read()
        opened.wait_for("what rpc.stats answered is none")
        opened.type("q")
        assert opened.end() == 0
        assert opened.after == opened.before
    drawn = re.sub(r"\x1b\[(?:[0-9;]*m|H|\?25[lh]|\?1049[lh])", "", opened.text)
    assert CONTROL.findall(drawn) == []


def test_top_takes_no_answer_that_is_made_to_be_long(socket_path: Path) -> None:
    def respond(_called: str, _params: Any) -> Any:
        return [None, {"methods": {str(number): {} for number in range(1_000_000)}}]

    with server(socket_path, respond):
        done = seqrpc_command("top", socket_path)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "rpc.TooLarge" in done.err or "rpc.InvalidResult" in done.err


def test_top_ends_while_a_server_does_not_answer(socket_path: Path) -> None:
    asked, is_over = threading.Semaphore(0), threading.Event()

    def respond(called: str, _params: Any) -> Any:
        if called == "rpc.stats":
            asked.release()
            if is_silent:
                is_over.wait(PATIENCE)
        return [None, STATS]

    is_silent = False
    with server(socket_path, respond), terminal("top", socket_path, "--interval", "0.05") as opened:
        try:
            opened.wait_for("calls 0 in flight")
            is_silent = True
            asked.acquire(timeout=PATIENCE)
            while asked.acquire(timeout=0.5):
                pass
            opened.type("q")
            assert opened.end() == 0
            assert opened.after == opened.before
        finally:
            is_over.set()
