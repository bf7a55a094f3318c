"""``seqrpc bench`` on the log daemon and other programs, as people and programs run it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import SEQRPC, Done, at_terminal, environment, seqrpc_command
from support.desk import both
from support.programs import EXAMPLES, as_root, daemon
from support.sync import served
from support.waiting import PATIENCE

COUNT = ("--count", "50")


def told(done: Done) -> Any:
    assert done.err == ""
    assert done.status == 0
    return json.loads(done.out)


def files_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_log_daemon_is_measured(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs) as process:
        before = files_of(process.pid)
        data = told(seqrpc_command("bench", socket_path, "Logs.list_logs", *COUNT))
        assert (data["method"], data["succeeded"]) == ("Logs.list_logs", 50)
        for words in (("open_log", "apt/history.log"), ("follow", "system.log", "start=0")):
            data = told(seqrpc_command("bench", socket_path, *words, "--connections", "2", "--in-flight", "3", *COUNT))
            assert (data["succeeded"], data["connections"], data["in_flight"]) == (50, 2, 3)
        data = told(seqrpc_command("bench", socket_path, "open_log", "apt/history.log", "--rate", "500", *COUNT))
        assert (data["succeeded"], data["latency_is"]) == (50, "since due")
        status, text = at_terminal("bench", socket_path, "open_log", "apt/history.log", *COUNT)
        assert status == 0
        assert "Logs.open_log: closed loop, 1 connection, 1 in flight on each\n50 calls in " in text
        assert "  ≥ " in text
        done = seqrpc_command("bench", socket_path, "open_log", "../secret", *COUNT)
        assert json.loads(done.out)["errors"] == {"logs.NoSuchLog": 50}
        assert done.status == 1
        assert done.err.startswith("seqrpc: no call succeeded: logs.NoSuchLog: not the name of a log: ")
        assert files_of(process.pid) <= before + 2


@as_root
def test_somebody_else_is_refused(logs: Path, open_socket_path: Path) -> None:
    with daemon(open_socket_path, logs, "--mode", "666"):
        done = seqrpc_command("bench", open_socket_path, "Logs.list_logs", *COUNT, "--as-user", "54321:54321")
    assert done.status == 4
    assert done.err.startswith("seqrpc: no call succeeded: rpc.PermissionDenied: Logs.list_logs: ")
    assert json.loads(done.out)["errors"] == {"rpc.PermissionDenied": 50}


def test_objects_of_a_vault_are_let_go() -> None:
    script = "import vault, seqrpc; seqrpc.run(vault.Vault('secret'), 'fd:3')"
    address = f"exec:{sys.executable} -c {shlex.quote(script)}"
    env = {"PYTHONPATH": os.pathsep.join([str(EXAMPLES), environment()["PYTHONPATH"]])}
    done = seqrpc_command("bench", address, "unlock", "secret", "--count", "2000", "--in-flight", "4", env=env)
    assert json.loads(done.out)["succeeded"] == 2_000  # a connection may have 1,024 at a time
    assert done.status == 0
    assert done.err.count("vault: closed") > 1_900
    done = seqrpc_command("bench", address, "unlock", "secret", "--connections", "2", env=env)
    assert (done.status, done.out) == (2, "")
    assert done.err == "seqrpc: --connections 2: there is one only to such an address\n"


@pytest.mark.parametrize(
    "words", [("forever",), ("count", "100"), ("memory", "100000"), ("box", "a"), ("open", "/dev/null")]
)
def test_streams_descriptors_and_buffers_are_closed_at_once(socket_path: Path, words: tuple[str, ...]) -> None:
    """In a process that may have few descriptors."""
    script = f'ulimit -n 64; exec {shlex.join(SEQRPC)} "$@"'
    with served(socket_path, both()):
        done = subprocess.run(
            ["sh", "-c", script, "sh", "bench", socket_path, *words, "--count", "500", "--in-flight", "4"],
            env=environment(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, json.loads(done.stdout)["succeeded"]) == (0, 500), done.stderr
