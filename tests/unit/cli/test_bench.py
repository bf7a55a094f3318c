"""The command ``bench``."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.answering import answering, error, result, undescribed
from support.commands import SEQRPC, Done, Terminal, at_terminal, seqrpc_command, started, terminal
from support.processes import AS_ROOT
from support.sync import served
from support.waiting import PATIENCE

import seqrpc
from seqrpc.cli.program import COMPLETION

Run = Callable[..., Done]


def told(done: Done) -> Any:
    """Return the one object that was written."""
    assert done.out.count("\n") == 1, done
    return json.loads(done.out)


@pytest.mark.parametrize(
    "args",
    [
        ("Desk.add", "2", "3"),
        ("add", "b=3", "a=-2"),
        ("Desk.echo", "7"),
        ("only",),
        ("count", "3"),
        ("box", "a"),
        ("blob", "70000"),
        ("memory", "3"),
        ("open", "/dev/null"),
        ("add", "1", "--in-flight", "5"),
        ("add", "1", "--connections", "3", "--warm-up", "0.01"),
        ("add", "1", "--rate", "2000"),
        ("add", "1", "--timeout", "inf"),
        ("add", "1", "--seconds", "inf"),
        ("length", "--fd", "file=/etc/passwd"),
    ],
)
def test_a_pipe_gets_one_object_of_json(desk: Path, seqrpc_run: Run, args: tuple[str, ...]) -> None:
    done = seqrpc_run("bench", desk, *args, "--count", "20")
    assert (done.status, done.err) == (0, "")
    data = told(done)
    assert (data["calls"], data["succeeded"], data["errors"], data["ended"]) == (20, 20, {}, "done")
    assert data["latency_ns"]["min"] <= data["latency_ns"]["p50"] <= data["latency_ns"]["max"]
    assert sum(count for _low, _high, count in data["histogram_ns"]) == 20
    assert data["latency_is"] == ("since due" if "--rate" in args else "service time")
    assert data["address"] == str(desk)


def test_it_runs_for_as_long_as_was_said(desk: Path, seqrpc_run: Run) -> None:
    data = told(seqrpc_run("bench", desk, "add", "1", "--seconds", "0.2"))
    assert data["calls"] > 1
    data = told(seqrpc_run("bench", desk, "add", "1", "--seconds", "0.2", "--rate", "100"))
    assert (data["calls"], data["asked_rate"], data["in_flight"]) == (20, 100.0, 1_024)


@pytest.mark.parametrize(
    "args, status, err",
    [
        (("add",), 2, "seqrpc: Desk.add needs a: int\n"),
        (("add", "x"), 2, "seqrpc: a=x: int is wanted\n"),
        (("ad", "1"), 3, "seqrpc: there is no method 'ad'; did you mean 'add'?\n"),
        (("hint", "3"), 2, "seqrpc: Desk.hint is one-way: there is no answer whose time could be measured\n"),
        (
            ("total", "[1]"),
            2,
            "seqrpc: Desk.total takes a stream, which can be sent only once: a call of it cannot be repeated\n",
        ),
        (
            ("add", "1", "--seconds", "0"),
            2,
            (
                "seqrpc: Invalid value for '--seconds': '0' is no number of seconds, of 0.001 or more"
                " ('seqrpc bench --help' says more)\n"
            ),
        ),
        (("add", "1", "--rate", "nan"), 2, "seqrpc: --rate nan: a number is wanted\n"),
        (
            ("add", "1", "--in-fligt", "3"),
            2,
            (
                "seqrpc: there is no option --in-fligt; did you mean '--in-flight'?"
                " (a text that begins so is written NAME=--in-fligt)\n"
            ),
        ),
        (("add", "1", "--rate", "1e8"), 2, None),
        (("add", "1", "--warm-up", "nan"), 2, None),
        (
            ("add", "1", "--connections", "100", "--in-flight", "656"),
            2,
            "seqrpc: --connections 100 --in-flight 656: together at most 65536 calls are made at a time\n",
        ),
        (("add", "1", "--fd", "x"), 2, "seqrpc: --fd takes NAME=PATH, got 'x'\n"),
        (("length", "--fd", "file=/nothing"), 3, "seqrpc: ENOENT: No such file or directory: /nothing\n"),
        (("add", "1", "--as-user", "nobody here"), 2, None),
        (("add", "1", "--rate", "0"), 2, None),
        (("add", "1", "--count", "0"), 2, None),
        (("add", "1", "--count", "9" * 400, "--rate", "1000"), 2, None),  # which is no float
        ((), 2, "seqrpc: Missing argument 'METHOD' ('seqrpc bench --help' says more)\n"),
    ],
)
def test_what_cannot_be_measured_is_told_and_nothing_is_sent(
    desk: Path, seqrpc_run: Run, args: tuple[str, ...], status: int, err: str | None
) -> None:
    done = seqrpc_run("bench", desk, *args)
    assert (done.status, done.out) == (status, "")
    assert done.err.count("\n") == 1
    assert err is None or done.err == err


@pytest.mark.parametrize(
    "args, ending, err",
    [
        (("fail",), (1, "desk.Empty"), "seqrpc: no call succeeded: desk.Empty: nothing there\n"),
        (
            ("Desk.zzz",),
            (3, "rpc.MethodNotFound"),
            "seqrpc: no call succeeded: rpc.MethodNotFound: there is no method 'Desk.zzz'\n",
        ),
        (("open", "/nothing"), (1, "rpc.Internal"), None),
        (("sleep", "600", "--timeout", "0.05"), (5, "rpc.DeadlineExceeded"), None),
        (
            ("secret",),
            (4, "rpc.PermissionDenied"),
            (
                "seqrpc: no call succeeded: rpc.PermissionDenied: Desk.secret: this caller is not admitted"
                " (who may call it: uid(4000000000))\n"
            ),
        ),
    ],
)
def test_if_all_calls_fail_the_status_is_of_their_error(
    desk: Path, seqrpc_run: Run, args: tuple[str, ...], ending: tuple[int, str], err: str | None
) -> None:
    status, code = ending
    done = seqrpc_run("bench", desk, *args, "--count", "3")
    assert done.status == status
    assert told(done)["errors"] == {code: 3}
    assert done.err.startswith("seqrpc: no call succeeded: ")
    assert err is None or done.err == err


def test_some_errors_do_no_harm(socket_path: Path, seqrpc_run: Run) -> None:
    def answer(message: list[Any]) -> bytes:
        return error(message, "x.Busy\x1b[2J") if message[1] % 2 else result(message, 1)

    with answering(socket_path, undescribed(answer)):
        done = seqrpc_run("bench", socket_path, "X.y", "--count", "10")
        assert (done.status, done.err) == (0, "")
        assert told(done)["errors"] == {"x.Busy\\x1b[2J": 5}
        status, text = at_terminal("bench", socket_path, "X.y", "--count", "10", env={"NO_COLOR": "1"})
        assert status == 0
        assert "10 calls in " in text
        assert text.endswith("\nerrors\n  x.Busy\\x1b[2J  5\n")


def test_nobody_listens(seqrpc_run: Run) -> None:
    done = seqrpc_run("bench", "/nothing/here", "x")
    assert (done.status, done.out) == (3, "")
    assert done.err.startswith("seqrpc: NobodyListens: cannot connect to /nothing/here: ")


def test_who_does_not_answer_at_all_is_late(socket_path: Path, seqrpc_run: Run) -> None:
    with answering(socket_path, lambda _message: None):
        done = seqrpc_run("bench", socket_path, "x", "--timeout", "0.1")
    assert (done.status, done.out) == (5, "")
    assert done.err.startswith("seqrpc: rpc.DeadlineExceeded: ")


@pytest.mark.parametrize("answer", [b"", b"\xc1garbage"])
def test_a_connection_that_is_lost_is_told_beside_what_was_measured(
    socket_path: Path, seqrpc_run: Run, answer: bytes
) -> None:
    def answering_some(message: list[Any]) -> bytes:
        return result(message, 1) if message[1] < 5 else answer

    with answering(socket_path, undescribed(answering_some)):
        done = seqrpc_run("bench", socket_path, "X.y")
    assert done.status == 1
    data = told(done)
    assert (data["ended"], data["errors"]) == ("lost", {"ConnectionLost": 1})
    assert data["succeeded"] > 0
    assert done.err.startswith("seqrpc: ConnectionLost: ")
    assert done.err.count("\n") == 1


class Counter(seqrpc.Service):
    """Counts its calls."""

    calls = 0

    @seqrpc.method
    async def count(self) -> None:
        self.calls += 1


def test_ctrl_c_tells_what_was_measured(socket_path: Path) -> None:
    counter = Counter()
    with served(socket_path, counter), started("bench", socket_path, "count", "--seconds", "600") as process:
        until = time.monotonic() + PATIENCE
        while counter.calls < 100:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (-signal.SIGINT, b"")
        data = json.loads(out)
        assert (data["ended"], data["calls"], data["unanswered"]) == ("interrupted", counter.calls, 0)


def test_ctrl_c_at_a_terminal_leaves_it_as_it_was(desk: Path) -> None:
    with terminal("bench", desk, "add", "1", "--seconds", "600", env={"NO_COLOR": "1"}) as opened:
        opened.wait_for(" calls, ")  # it is under way, and drawn
        opened.type("\x03")
        assert opened.end() == -signal.SIGINT
        assert opened.after == opened.before
        assert "ended early: Ctrl-C\n" in opened.text
        assert b"\x1b[?25l" not in opened.seen  # nothing to bring back


BARS = re.compile(r"  ≥ +[\d.,]+ [nµm]?s  [█▏▎▍▌▋▊▉ ]{40}  +[\d,]+")


@pytest.mark.parametrize("how", [(), ("--rate", "1000")])
def test_a_terminal_gets_tables_and_bars(desk: Path, how: tuple[str, ...]) -> None:
    status, text = at_terminal("bench", desk, "add", "1", "--count", "1500", *how, env={"NO_COLOR": "1"})
    assert status == 0
    report = text[text.rindex("Desk.add: ") :]
    heading, _numbers, _empty, meaning, *rest = report.splitlines()
    if how:
        assert heading == "Desk.add: 1,000 calls/s asked for, 1 connection, at most 1,024 in flight on each"
        assert meaning.startswith("latencies: from when a call was due, ")
        assert "% " in text[: text.rindex("Desk.add: ")], "it was not drawn how far it is"
    else:
        assert heading == "Desk.add: closed loop, 1 connection, 1 in flight on each"
        assert meaning.startswith("service times: from when a call was sent, ")
    bars = [line for line in rest if line.startswith("  ≥")]
    assert bars
    assert all(BARS.fullmatch(line) for line in bars)
    assert sum(int(line.split()[-1].replace(",", "")) for line in bars) == 1_500


def test_how_far_it_is_is_drawn_on_standard_error(desk: Path, tmp_path: Path) -> None:
    command = shlex.join([*SEQRPC, "bench", str(desk), "add", "1", "--seconds", "1.2"])
    opened = Terminal(["sh", "-c", f"{command} | cat > {tmp_path}/out"])
    try:
        assert opened.end() == 0
        assert " calls, " in opened.text
        assert "{" not in opened.text
    finally:
        opened.close()
    assert json.loads((tmp_path / "out").read_text())["succeeded"] > 0
    done = seqrpc_command("bench", desk, "add", "1", "--seconds", "1.2")
    assert (done.status, done.err) == (0, "")


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_somebody_else_measures(desk: Path) -> None:
    desk.parent.chmod(0o711)
    desk.chmod(0o666)
    done = seqrpc_command("bench", desk, "add", "1", "--count", "5", "--as-user", "54321:54321")
    assert done.status == 4
    assert told(done)["errors"] == {"rpc.PermissionDenied": 5}
    desk.chmod(0o600)
    done = seqrpc_command("bench", desk, "add", "1", "--count", "5", "--as-user", "54321:54321")
    assert (done.status, done.out) == (4, "")
    assert "ConnectDenied" in done.err


@pytest.mark.parametrize(
    "typed, offered",
    [
        (("", "Desk.ad"), "plain,Desk.add"),
        (("add", ""), "plain,a=\tint\nplain,b=\tint"),
        (("told", "colour=b"), "plain,colour=blue"),
        (("add", "--in"), "plain,--in-flight"),
    ],
)
def test_methods_parameters_and_options_are_completed(
    desk: Path, seqrpc_run: Run, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, str], offered: str
) -> None:
    *words, last = typed
    monkeypatch.setenv(COMPLETION, "fish_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["seqrpc", "bench", str(desk), *filter(None, words)]))
    monkeypatch.setenv("COMP_CWORD", last)
    done = seqrpc_run()
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(offered)
