"""The command line on the log daemon and other programs, as people and programs run it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest
from support.commands import SEQRPC, Done, at_terminal, environment, seqrpc_command, started, terminal
from support.desk import both
from support.programs import EXAMPLES, as_root, daemon
from support.sync import served
from support.waiting import PATIENCE

SOMEBODY = "54321:54321"


def test_a_log_daemon_is_found_described_and_called(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs) as process:
        (line,) = seqrpc_command("list", socket_path).out.splitlines()
        told = json.loads(line)
        assert (told["status"], told["pid"], told["services"]) == ("answers", process.pid, ["Logs"])
        assert at_terminal("list", socket_path)[1].splitlines()[1].split()[-1] == "Logs"

        status, text = at_terminal("describe", socket_path, "open_log")
        assert status == 0
        assert text.startswith("open_log(name: str) -> OwnedFd\n    Return a log file, open for reading.\n")
        assert "    you may call it: " in text
        assert json.loads(seqrpc_command("describe", socket_path, "follow").out)["x-seqrpc"]["streams"] is True

        listed = json.loads(seqrpc_command("call", socket_path, "Logs.list_logs").out)
        assert "apt/history.log" in [log["name"] for log in listed]
        assert '"name": "apt/history.log"' in at_terminal("call", socket_path, "list_logs")[1]
        opened = seqrpc_command("call", socket_path, "open_log", "name=apt/history.log")
        assert opened == Done(0, "first\nlast, without an end", "")
        assert at_terminal("call", socket_path, "open_log", "apt/history.log") == (0, "first\nlast, without an end\n")
        count = seqrpc_command("call", socket_path, "open_log", "system.log", "--exec", "wc -l")
        assert count == Done(0, "10000\n", "")
        missing = seqrpc_command("call", socket_path, "open_log", "../secret")
        assert (missing.status, missing.out) == (1, "")
        assert missing.err.startswith("seqrpc: logs.NoSuchLog: not the name of a log: ")


def test_a_log_is_followed_until_ctrl_c(logs: Path, socket_path: Path) -> None:
    with (
        daemon(socket_path, logs),
        terminal(
            "call", socket_path, "follow", "system.log", f"start={(logs / 'system.log').stat().st_size}"
        ) as opened,
        open(logs / "system.log", "a") as log,
    ):
        log.write("new \x1b[2J\n")
        log.flush()
        opened.wait_for("new")
        opened.type("\x03")
        assert opened.end() == -signal.SIGINT
        assert opened.after == opened.before
        assert opened.text.splitlines()[0] == "new \\x1b[2J"


def test_a_pipe_that_is_closed_ends_it_quietly(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs):
        command = shlex.join([*SEQRPC, "call", str(socket_path), "follow", "system.log", "start=0"])
        script = f"{command} | head -n 2; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, timeout=PATIENCE, check=False, env=environment()
        )
        assert (done.stderr, done.stdout) == (b"", b'"line 0"\n"line 1"\n141\n')


@as_root
def test_somebody_else_is_refused_and_told_by_what_rule(logs: Path, open_socket_path: Path) -> None:
    with daemon(open_socket_path, logs, "--mode", "666"):
        done = seqrpc_command("call", open_socket_path, "Logs.list_logs", "--as-user", SOMEBODY)
        assert (done.status, done.out) == (4, "")
        assert done.err.startswith("seqrpc: rpc.PermissionDenied: Logs.list_logs: ")
        done = seqrpc_command("describe", open_socket_path, "--as-user", SOMEBODY)
        assert (done.status, done.out) == (4, "")
        assert "rpc.PermissionDenied" in done.err
        told = json.loads(seqrpc_command("list", open_socket_path, "--as-user", SOMEBODY).out)
        assert told["status"] == "refused"
        status, text = at_terminal("list", open_socket_path, "--as-user", SOMEBODY)
        assert (status, "(refused: rpc.PermissionDenied" in text) == (4, True)
    with daemon(open_socket_path, logs):
        done = seqrpc_command("call", open_socket_path, "Logs.list_logs", "--as-user", SOMEBODY)
        assert done.status == 4
        assert done.err.startswith(f"seqrpc: ConnectDenied: cannot connect to {open_socket_path}: ")


@as_root
def test_a_rule_is_told_to_who_may_call_something_else(open_socket_path: Path) -> None:
    with served(open_socket_path, both(), mode=0o666, allow=lambda caller: caller.uid == 54_321):
        done = seqrpc_command("call", open_socket_path, "add", "1", "--as-user", SOMEBODY)
        assert done == Done(0, "2\n", "")
        done = seqrpc_command("call", open_socket_path, "secret", "--as-user", SOMEBODY)
        assert done.status == 4
        assert done.err.endswith("(who may call it: uid(4000000000))\n")
        text = at_terminal("describe", open_socket_path, "secret", "--as-user", SOMEBODY)[1]
        assert "you may not call it: uid(4000000000)" in text


def test_objects_and_descriptors_of_the_examples_are_reached(socket_path: Path) -> None:
    """The vault and the worker in Python are started for the call, on a socket pair."""
    serve = f"exec:{sys.executable} -m seqrpc serve vault:Helper fd:3"
    env = {"PYTHONPATH": os.pathsep.join([str(EXAMPLES), environment()["PYTHONPATH"]])}
    done = seqrpc_command("describe", serve, "length_of", env=env)
    assert json.loads(done.out)["name"] == "Helper.length_of"
    done = seqrpc_command("call", serve, "length_of", "x", "y", env=env)
    assert done.status == 2
    assert done.err.endswith("seqrpc: vault=x: an object of this side is wanted, and the command line has none\n")
    script = "import vault, seqrpc; seqrpc.run(vault.Vault('secret'), 'fd:3')"
    address = f"exec:{sys.executable} -c {shlex.quote(script)}"
    done = seqrpc_command(
        "call", address, "unlock", "secret", "--", "put", "door", "1983", "--", "get", "door", env=env
    )
    assert done.status == 0
    assert done.out == 'null\n"1983"\n'
    done = seqrpc_command("call", address, "unlock", "wrong", env=env)
    assert (done.status, done.out) == (1, "")
    assert "seqrpc: vault.WrongPassphrase: that is not the passphrase\n" in done.err


def test_a_worker_in_c_is_called_without_a_description(tmp_path: Path) -> None:
    compiler = os.environ.get("CC", "cc")
    program = tmp_path / "worker"
    try:
        subprocess.run([compiler, "-o", program, EXAMPLES / "worker.c"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no compiler")
    assert seqrpc_command("call", f"exec:{program}", "Adder.add", "2", "3") == Done(0, "5\n", "")
    assert seqrpc_command("call", f"exec:{program}", "Adder.add", "a=2", "b=-3") == Done(0, "-1\n", "")
    done = seqrpc_command("call", f"exec:{program}", "Adder.add", "two", "3")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("seqrpc: rpc.InvalidParams: ")


def test_a_stream_comes_from_standard_input(socket_path: Path) -> None:
    with served(socket_path, both()):
        assert seqrpc_command("call", socket_path, "total", "-", given=b"1\n2\n3\n") == Done(0, "6\n", "")
        done = seqrpc_command("call", socket_path, "loud", "-", given=b"a\nb\n")
        assert done == Done(0, '"A"\n"B"\n', "")
        assert seqrpc_command("call", socket_path, "length", "--fd", "file=-", given=b"abc") == Done(0, "3\n", "")
        with terminal("call", socket_path, "loud", "-") as opened:
            opened.type("a\n")
            opened.wait_for("a\r\nA\r\n")
            opened.type("\x04")
            assert opened.end() == 0


def test_abstract_sockets_are_reached() -> None:
    name = f"@seqrpc-cli-{os.getpid()}"
    with started("serve", "support.desk:Desk", name) as process:
        assert process.stderr.readline().startswith(b"serving Desk at @")
        assert seqrpc_command("call", name, "add", "1") == Done(0, "2\n", "")
        assert json.loads(seqrpc_command("list", name).out)["services"] == ["Desk"]
        assert name in [json.loads(line)["address"] for line in seqrpc_command("list").out.splitlines()]


def test_an_inherited_socket_is_an_address() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.settimeout(PATIENCE)
        number = ours.fileno()
        argv = [*SEQRPC, "call", f"fd:{number}", "rpc.ping"]
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[number], env=environment()
        ) as process:
            ours.close()
            calls = []
            while data := theirs.recv(65_536):
                _kind, called, method, _params = msgpack.unpackb(data)
                calls.append(method)
                error = ["rpc.MethodNotFound", "no", None] if method == "rpc.discover" else None
                theirs.send(msgpack.packb([1, called, error, None]))
            out, err = process.communicate(timeout=PATIENCE)
    assert calls == ["rpc.discover", "rpc.ping"]
    assert (process.returncode, out, err) == (0, b"null\n", b"")
