"""The client of the log daemon."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from pathlib import Path

from support.programs import WITHIN, command, daemon, output_of, wait_for


def failure_of(program: str, *args: str | Path) -> str:
    """Run an example that must fail, tell why in one line on stderr, and print nothing else; return the reason."""
    done = subprocess.run(
        command(program, *args), stdin=subprocess.DEVNULL, capture_output=True, timeout=WITHIN, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    return done.stderr.decode()


def follower(*args: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("logtail.py", "--follow", *args),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_logtail_follows_until_it_is_interrupted(logs: Path, socket_path: Path) -> None:
    with (
        daemon(socket_path, logs),
        follower("--address", socket_path, "system.log", "-n", "2") as tail,
        open(logs / "system.log", "a") as log,
    ):
        assert tail.stdout is not None
        assert [tail.stdout.readline() for _ in range(2)] == [b"line 9998\n", b"line 9999\n"]
        print("new", file=log, flush=True)
        assert tail.stdout.readline() == b"new\n"
        tail.send_signal(signal.SIGINT)
        assert tail.communicate(timeout=WITHIN) == (b"", b"")
    assert tail.returncode == 0


def test_logtail_says_what_went_wrong_while_it_followed(logs: Path, socket_path: Path) -> None:
    """A daemon that is told to stop does not wait for those who follow."""
    assert "there is no such file" in failure_of("logtail.py", "--follow", "--address", socket_path, "x")
    args = command("logdaemon.py", "--address", socket_path, "--directory", logs)
    with subprocess.Popen(args, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_for(socket_path, process)
        with follower("--address", socket_path, "system.log", "-n1") as tail, open(logs / "system.log", "a") as log:
            assert tail.stdout is not None
            assert tail.stdout.readline() == b"line 9999\n"
            print("new", file=log, flush=True)
            assert tail.stdout.readline() == b"new\n"
            process.send_signal(signal.SIGTERM)
            assert tail.communicate(timeout=WITHIN) == (b"", b"logtail: rpc.Unavailable: the server is stopping\n")
        complaints = process.communicate(timeout=WITHIN)[1]
    assert (tail.returncode, process.returncode) == (1, 0)
    assert b"Traceback" not in complaints


def test_logtail_follows_no_list() -> None:
    done = subprocess.run(command("logtail.py", "--follow"), capture_output=True, timeout=WITHIN, check=False)

    assert done.returncode == 2
    assert b"--follow needs the name of a log" in done.stderr


def test_logtail_prints_the_last_lines(logs: Path, socket_path: Path) -> None:
    written = (logs / "system.log").read_text().splitlines(keepends=True)
    with daemon(socket_path, logs):
        for lines in (1, 2, 3000, 20_000):
            printed = output_of("logtail.py", "--address", socket_path, "system.log", "--lines", str(lines))

            assert printed == "".join(written[-lines:])


def test_logtail_takes_any_file_as_it_is(logs: Path, socket_path: Path) -> None:
    (logs / "no-lines").write_bytes(b"x" * 100_000)
    (logs / "bytes").write_bytes(b"\xff\r\x00\n\n\n")
    with daemon(socket_path, logs):
        tail = functools.partial(output_of, "logtail.py", "--address", socket_path)

        assert tail("apt/history.log", "-n", "1") == "last, without an end"
        assert tail("empty.log") == ""
        assert tail("no-lines") == "x" * 100_000
        assert tail("bytes", "-n", "2") == "\n\n"


def test_logtail_reads_the_end_only(tmp_path: Path, socket_path: Path) -> None:
    """A terabyte is read as quickly as a page."""
    with open(tmp_path / "huge.log", "wb") as file:
        file.truncate(1 << 40)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    with daemon(socket_path, tmp_path):
        assert output_of("logtail.py", "--address", socket_path, "huge.log", "-n", "1") == "the end\n"


def test_logtail_without_a_name_prints_the_list(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs):
        printed = output_of("logtail.py", "--address", socket_path)

    assert [line.split()[-1] for line in printed.splitlines()] == ["apt/history.log", "empty.log", "system.log"]


def test_logtail_says_what_went_wrong(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs):
        assert failure_of("logtail.py", "--address", socket_path, "../secret") == (
            "logtail: logs.NoSuchLog: not the name of a log: '../secret'\n"
        )
    assert "there is no such file" in failure_of("logtail.py", "--address", socket_path, "x")


def test_logtail_finds_the_daemon_without_being_told(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path.with_name("logs.sock"), logs):
        printed = output_of("logtail.py", "system.log", "-n1", env={"XDG_RUNTIME_DIR": str(socket_path.parent)})

    assert printed == "line 9999\n"


def test_the_daemon_says_why_it_cannot_serve(logs: Path, socket_path: Path) -> None:
    start = functools.partial(failure_of, "logdaemon.py", "--address", socket_path, "--directory")
    with daemon(socket_path, logs):
        assert "is in use" in start(logs)
    assert "No such file or directory" in start(logs / "nowhere")
    assert "names no group" in start(logs, "--group", "no such group")
    missing = socket_path.with_name("missing") / "x.sock"
    assert "there is no directory" in failure_of("logdaemon.py", "--address", missing, "--directory", logs)
    assert "SocketMode=" in failure_of("logdaemon.py", "--address", "systemd:x", "--mode", "660", "--directory", logs)
