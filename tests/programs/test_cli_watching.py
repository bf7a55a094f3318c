"""``top`` and ``monitor`` on the log daemon and on one with streams and objects, as people and programs run them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from support.commands import seqrpc_command, started, terminal
from support.desk import both
from support.programs import as_root, daemon
from support.sync import served
from support.waiting import PATIENCE

from seqrpc import blocking

SOMEBODY = "54321:54321"


def wait_for_watchers(path: Path) -> None:
    """Wait until somebody holds a stream, which tells of the calls from then on."""
    with blocking.connect(path) as connection:
        while not connection.call("rpc.stats")["streams"]:
            pass


def test_a_log_daemon_is_looked_at(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs) as process:
        seqrpc_command("call", socket_path, "list_logs")
        told = json.loads(seqrpc_command("top", socket_path, "--once").out)
        assert told["pid"] == process.pid
        assert {row["method"]: row["calls"] for row in told["methods"]}["Logs.list_logs"] == 1
        with terminal("top", socket_path, "--interval", "0.1") as opened:
            opened.wait_for("Logs.list_logs")
            opened.wait_for("rates of the last ")
            opened.type("q")
            assert opened.end() == 0
            assert opened.after == opened.before
        assert f"pid {process.pid}" in opened.text


def test_the_calls_of_a_log_daemon_are_seen(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs):
        with started("monitor", socket_path, "open_log", "--count", "2") as process:
            wait_for_watchers(socket_path)
            seqrpc_command("call", socket_path, "open_log", "system.log")
            seqrpc_command("call", socket_path, "open_log", "../secret")
            out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, b"")
        found = [json.loads(line) for line in out.splitlines()]
        assert [(one["method"], one["code"], one["arguments"]) for one in found] == [
            ("Logs.open_log", None, None),
            ("Logs.open_log", "logs.NoSuchLog", None),
        ]
        with terminal("monitor", socket_path, "--errors") as opened:
            wait_for_watchers(socket_path)
            seqrpc_command("call", socket_path, "open_log", "../secret")
            opened.wait_for("logs.NoSuchLog")
            opened.type("\x03")
            assert opened.end() == -signal.SIGINT
            assert opened.after == opened.before


def test_streams_and_objects_are_looked_at_and_their_calls_seen(socket_path: Path) -> None:
    with served(socket_path, both()), blocking.connect(socket_path) as connection:
        with started("monitor", socket_path, "Box", "forever", "--count", "3") as process:
            wait_for_watchers(socket_path)
            with connection.call("Desk.forever") as numbers, connection.call("Desk.box", "a") as box:
                next(numbers)
                box.call("Box.put", "a pen")
                box.call("Box.look")
                out, _err = process.communicate(timeout=PATIENCE)
                with terminal("top", socket_path, "--once") as opened:
                    assert opened.end() == 0
                text = opened.text
        assert [json.loads(line)["method"] for line in out.splitlines()] == ["Desk.forever", "Box.put", "Box.look"]
        assert "streams 1   objects 1" in text
        assert "living values 2" in text


@as_root
def test_somebody_else_is_refused_and_told_by_what_rule(logs: Path, open_socket_path: Path) -> None:
    with daemon(open_socket_path, logs, "--mode", "666"):
        for command in ("top", "monitor"):
            done = seqrpc_command(command, open_socket_path, "--as-user", SOMEBODY)
            assert (done.status, done.out) == (4, "")
            assert done.err.startswith("seqrpc: rpc.PermissionDenied: rpc.")
            assert "(who may call it: (same_user | uid(0)))" in done.err
