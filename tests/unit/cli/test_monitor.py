"""The command ``monitor``."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import Done, seqrpc_command, started, terminal
from support.desk import both
from support.hostile_server import Streamed, error, server
from support.processes import AS_ROOT
from support.sync import served
from support.waiting import PATIENCE

import seqrpc
from seqrpc import blocking
from seqrpc.cli.endings import Ending
from seqrpc.cli.monitor import _uid_of
from seqrpc.cli.places import Elsewhere, place_of
from seqrpc.cli.program import COMPLETION

Run = Callable[..., Done]

ME = pwd.getpwuid(os.getuid()).pw_name


class Open(seqrpc.Service, show_arguments=True):
    @seqrpc.method
    async def add(self, a: int, b: int = 1) -> int:
        return a + b


def wait_for_watchers(connection: blocking.Connection, number: int) -> None:
    """Wait until so many watch, who hold a stream each."""
    while connection.call("rpc.stats")["streams"] != number:
        pass


def some_calls(path: Path) -> None:
    with blocking.connect(path) as connection:
        wait_for_watchers(connection, 1)
        connection.call("Desk.add", 1, 2)
        for wrong in ("Desk.fail", "Desk.secret"):
            with pytest.raises(seqrpc.RpcError):
                connection.call(wrong)
        connection.call("Desk.sleep", 0.05)
        connection.call("Other.only")


def lines_of(desk: Path, *args: object, status: int = 0) -> list[dict[str, Any]]:
    with blocking.connect(desk) as connection:
        wait_for_watchers(connection, 0)
    with started("monitor", desk, *args) as process:
        some_calls(desk)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (status, b"")
    return [json.loads(line) for line in out.splitlines()]


def test_programs_get_json(desk: Path) -> None:
    lines = lines_of(desk, "Desk", "--count", "4")
    assert [(line["method"], line["code"], line["refused"]) for line in lines] == [
        ("Desk.add", None, False),
        ("Desk.fail", "desk.Empty", False),
        ("Desk.secret", "rpc.PermissionDenied", True),
        ("Desk.sleep", None, False),
    ]
    assert {(line["uid"], line["pid"], line["missed"], line["arguments"]) for line in lines} == {
        (os.getuid(), os.getpid(), 0, None)
    }


def test_calls_are_chosen(desk: Path) -> None:
    assert [line["method"] for line in lines_of(desk, "--errors", "--count", 2)] == ["Desk.fail", "Desk.secret"]
    assert [line["method"] for line in lines_of(desk, "--slow", "0.05", "--count", 1)] == ["Desk.sleep"]
    assert [line["method"] for line in lines_of(desk, "only", "fail", "--count", 2)] == ["Desk.fail", "Other.only"]
    assert [line["method"] for line in lines_of(desk, "add", "--user", ME, "--count", 1)] == ["Desk.add"]
    assert [line["method"] for line in lines_of(desk, "add", "--user", os.getuid(), "--count", 1)] == ["Desk.add"]


def test_calls_of_others_are_not_seen(desk: Path) -> None:
    with started("monitor", desk, "--user", "4000000000") as process:
        some_calls(desk)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (-signal.SIGINT, b"", b"")


def test_a_terminal_gets_a_line_for_each_call(socket_path: Path) -> None:
    with served(socket_path, Open()), terminal("monitor", socket_path, "Open") as opened:
        with blocking.connect(socket_path) as connection:
            wait_for_watchers(connection, 1)
            connection.call("Open.add", 1, 2)
            with pytest.raises(seqrpc.MethodNotFound):
                connection.call("Open.ad\x1b[2J")
        opened.wait_for("rpc.MethodNotFound")
        opened.type("\x03")
        assert opened.end() == -signal.SIGINT
        assert opened.after == opened.before
    first, second = opened.text.splitlines()[:2]
    assert first.split()[1:3] == [f"{ME}/{os.getpid()}", "Open.add"]
    assert first.endswith("  ok  a=1, b=2")
    assert second.split()[1:] == [f"{ME}/{os.getpid()}", "Open.ad\\x1b[2J", "-", "rpc.MethodNotFound"]


@pytest.mark.parametrize(
    "args, status, told",
    [
        ((), 0, b"the server has stopped\n"),
        (("--count", 3), 1, b"seqrpc: the server has stopped after 0 of 3 calls\n"),
    ],
)
def test_it_ends_when_the_server_stops(socket_path: Path, args: tuple[object, ...], status: int, told: bytes) -> None:
    with contextlib.ExitStack() as opened:
        with served(socket_path, both()):
            process = opened.enter_context(started("monitor", socket_path, "Other", *args))
            with blocking.connect(socket_path) as connection:
                wait_for_watchers(connection, 1)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (status, b"", told)


def test_nobody_is_absence(socket_path: Path, seqrpc_run: Run) -> None:
    done = seqrpc_run("monitor", socket_path)
    assert (done.status, done.out) == (3, "")
    assert done.err.startswith("seqrpc: NobodyListens: ")


def test_names_that_nobody_knows_are_told(desk: Path, seqrpc_run: Run) -> None:
    with started("monitor", desk, "Desk.ad", "rpc.ping", "Box.look", "--errors") as process:
        assert process.stderr.readline() == (
            b"there is no method 'Desk.ad' that is told of; did you mean 'Desk.add'?\n"
        )
    done = seqrpc_run("monitor", desk, "zzz")
    assert (done.status, done.out, done.err) == (3, "", "seqrpc: there is no method 'zzz'\n")
    assert seqrpc_run("monitor", desk, "echo").status == 2


@pytest.mark.parametrize("args", [("--user", "nobody here"), ("--count", "0"), ("--slow", "-1"), ("--user", "9" * 11)])
def test_wrong_use_is_told(desk: Path, seqrpc_run: Run, args: tuple[str, ...]) -> None:
    done = seqrpc_run("monitor", desk, *args)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)


def test_users_of_another_machine_are_numbers(desk: Path) -> None:
    there = Elsewhere("there", None, "/x")
    assert _uid_of("7", there) == 7
    with pytest.raises(Ending, match="number of a user of that machine"):
        _uid_of(ME, there)
    assert _uid_of(ME, place_of(str(desk))) == os.getuid()


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_who_is_refused_is_told_by_what_rule(desk: Path) -> None:
    desk.parent.chmod(0o711)
    desk.chmod(0o666)
    done = seqrpc_command("monitor", desk, "--as-user", "54321:54321")
    assert (done.status, done.out) == (4, "")
    assert done.err.startswith(
        "seqrpc: rpc.PermissionDenied: rpc.monitor: this caller is not admitted "
        "(who may call it: (same_user | uid(0)))\n"
    )


def test_an_older_server_cannot_tell(socket_path: Path) -> None:
    def respond(_method: str, _params: Any) -> Any:
        return error("rpc.MethodNotFound", "there is no method 'rpc.monitor'")

    with server(socket_path, respond):
        done = seqrpc_command("monitor", socket_path, "A.x")
    assert (done.status, done.out) == (3, "")
    assert done.err == "seqrpc: what listens there has no rpc.monitor: its seqrpc is older\n"


@pytest.mark.parametrize("answer", [None, 7, "x\x1b", [], {}])
def test_an_answer_that_is_no_stream_is_told(socket_path: Path, answer: Any) -> None:
    with server(socket_path, lambda _method, _params: [None, answer]):
        done = seqrpc_command("monitor", socket_path)
    assert (done.status, done.out, done.err) == (1, "", "seqrpc: what rpc.monitor answered is no stream\n")


def test_what_a_slow_reader_misses_is_told(desk: Path) -> None:
    """Nobody reads the output of the command until more calls have passed than wait for it anywhere."""
    with started("monitor", desk, "Desk") as process, blocking.connect(desk) as connection:
        wait_for_watchers(connection, 1)
        process.send_signal(signal.SIGSTOP)
        for _ in range(20_000):
            connection.call("Desk.add", 1)
        process.send_signal(signal.SIGCONT)
        made, heard, missed, unread = 20_000, 0, 0, b""
        while heard + missed < made:
            # The next call is told how many were left out; where nothing comes any more, the last one was, too.
            is_quiet = not select.select([process.stdout], [], [], 0.5)[0]
            if is_quiet or (heard > 100 and not missed):
                connection.call("Desk.add", 1)
                made += 1
            unread += os.read(process.stdout.fileno(), 65_536)
            *lines, unread = unread.split(b"\n")
            heard += len(lines)
            missed += sum(json.loads(line)["missed"] for line in lines)
        assert missed > 0


def test_without_a_description_names_are_as_typed(socket_path: Path, seqrpc_run: Run) -> None:
    asked: list[Any] = []

    def respond(method: str, params: Any) -> Any:
        asked.append((method, params))
        return error("rpc.MethodNotFound", "no") if method == "rpc.discover" else [None, Streamed([{}, 7])]

    with server(socket_path, respond):
        done = seqrpc_run(
            "monitor", socket_path, "x", "A.y", "--user", "7", "--as-user", f"{os.getuid()}:{os.getgid()}"
        )
    assert asked[1] == ("rpc.monitor", [["x", "A.y"], 7])
    assert (done.status, done.out.count("\n"), done.err) == (0, 2, "the server has stopped\n")


def test_methods_are_completed(desk: Path, seqrpc_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPLETION, "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", f"seqrpc monitor {desk} Desk.add Desk.co")
    monkeypatch.setenv("COMP_CWORD", "4")
    assert "Desk.count" in seqrpc_run().out
