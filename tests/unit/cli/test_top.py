"""The command ``top``."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Done, Terminal, environment, seqrpc_command, started, terminal
from support.desk import both
from support.processes import AS_ROOT
from support.sync import served
from support.waiting import PATIENCE

import seqrpc
from seqrpc import blocking
from seqrpc.cli.rates import MethodRates
from seqrpc.cli.top import _row

Run = Callable[..., Done]


def test_one_look_is_a_line_of_json(desk: Path, seqrpc_run: Run) -> None:
    with blocking.connect(desk) as connection:
        connection.call("Desk.add", 1)
        with pytest.raises(seqrpc.MethodNotFound):
            connection.call("Desk.zzz")
        done = seqrpc_run("top", desk, "--once", "--sort", "name")
    assert (done.status, done.err) == (0, "")
    (line,) = done.out.splitlines()
    told = json.loads(line)
    assert (told["pid"], told["connections_open"], told["seconds"]) == (os.getpid(), 2, told["uptime"])
    assert told["services"] == ["Desk", "Other"]
    assert [one["pid"] for one in told["connections"]] == [os.getpid()] * 2
    add, other = told["methods"]
    assert (add["method"], add["calls"], add["errors"], add["p50"] > 0) == ("Desk.add", 1, 0, True)
    assert add["calls_per_second"] == 1 / told["uptime"]
    assert (other["method"], other["calls"], other["errors"], other["p50"]) == (None, 1, 1, None)
    assert told["errors_per_second"] == 1 / told["uptime"]
    assert told["accounts"][str(os.getuid())]["connections"] == 2


def test_a_pipe_gets_a_line_for_each_look(desk: Path) -> None:
    with started("top", desk, "--interval", "0.05") as process, blocking.connect(desk) as connection:
        first = json.loads(process.stdout.readline())
        assert first["seconds"] == first["uptime"]
        for _ in range(5):
            connection.call("Desk.add", 1)
        added, before = 0.0, first
        while added < 4.99:
            now = json.loads(process.stdout.readline())
            assert now["seconds"] == pytest.approx(now["uptime"] - before["uptime"])
            before = now
            added += sum(
                row["calls_per_second"] * now["seconds"] for row in now["methods"] if row["method"] == "Desk.add"
            )
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT
        assert process.stderr.read() == b""


def test_a_pipe_that_is_closed_ends_it(desk: Path) -> None:
    with started("top", desk, "--interval", "0.05") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == -signal.SIGPIPE
        assert process.stderr.read() == b""


def test_a_server_that_goes_is_waited_for(socket_path: Path) -> None:
    assert seqrpc_command("top", socket_path).status == 3
    with served(socket_path, both()):
        process = subprocess.Popen(
            [sys.executable, "-m", "seqrpc", "top", str(socket_path), "--interval", "0.05"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
    with process:
        try:
            told = process.stderr.readline()
            while b"NobodyListens" not in told:
                told = process.stderr.readline()
            assert told.endswith(b"; the next look is in 0.05 s\n")
            with served(socket_path, both()):
                while (line := json.loads(process.stdout.readline()))["seconds"] != line["uptime"]:
                    pass
        finally:
            process.kill()


def test_a_latency_behind_the_last_bound_is_that_bound_in_json(seqrpc_run: Run) -> None:
    row = MethodRates("a", 1.0, 0.0, 1, 0, 0, 0.5, math.inf)
    assert (_row(row, [0.5, 60.0])["p50"], _row(row, [0.5, 60.0])["p99"]) == (0.5, 60.0)
    assert _row(row, [])["p99"] is None


@pytest.mark.parametrize(
    "args",
    [("--interval", "0"), ("--interval", "nan"), ("--sort", "x"), ("--timeout", "0"), ("--as-user", "nobody here")],
)
def test_wrong_use_is_told(desk: Path, seqrpc_run: Run, args: tuple[str, ...]) -> None:
    done = seqrpc_run("top", desk, *args)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_who_is_refused_is_told_by_what_rule(desk: Path) -> None:
    desk.parent.chmod(0o711)
    desk.chmod(0o666)
    done = seqrpc_command("top", desk, "--as-user", "54321:54321")
    assert (done.status, done.out) == (4, "")
    assert done.err.startswith(
        "seqrpc: rpc.PermissionDenied: rpc.stats: this caller is not admitted (who may call it: (same_user | uid(0)))\n"
    )
    with terminal("top", desk, "--as-user", "54321:54321") as opened:
        assert opened.end() == 4
        assert opened.after == opened.before
        assert opened.text.startswith("seqrpc: rpc.PermissionDenied: rpc.stats: ")


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_another_user_draws_with_what_root_has_loaded(socket_path: Path) -> None:
    """What draws may lie where only root can read, as in root's own environment: nothing more of it is loaded then."""
    socket_path.parent.chmod(0o711)
    with served(socket_path, both(), mode=0o666, allow=lambda _caller: True):
        code = (
            "import sys\n"
            "from seqrpc.cli import identity\n"
            "before = identity.become\n"
            "def become(who):\n"
            "    before(who)\n"
            "    for name, module in sys.modules.items():\n"
            "        if name.partition('.')[0] == 'rich' and hasattr(module, '__path__'):\n"
            "            module.__path__ = ['/nowhere']\n"
            "import seqrpc.cli.top as top\n"
            "top.become = become\n"
            "from seqrpc.cli.commands import run\n"
            "sys.exit(run(sys.argv[1:]))\n"
        )
        argv = [sys.executable, "-c", code, "top", str(socket_path), "--as-user", "0:0", "--interval", "0.05"]
        opened = Terminal(argv)
        try:
            opened.wait_for("rates of the last ")
            opened.type("q")
            assert opened.end() == 0
        finally:
            opened.close()
