"""Whom to talk to."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import sys
from pathlib import Path

import pytest

import seqrpc
from seqrpc.cli import identity, places
from seqrpc.cli.endings import Ending
from seqrpc.cli.places import Elsewhere, Program, bounded, connected, end, place_of
from seqrpc.kernel.addresses import AbstractAddress, FdAddress, PathAddress
from seqrpc.kernel.processes import start
from seqrpc.kernel.sockets import socket_pair

SERVE = f"exec:{sys.executable} -W error -m seqrpc serve support.desk:Desk fd:3"


@pytest.mark.parametrize(
    "text, place",
    [
        ("/run/x.sock", PathAddress("/run/x.sock")),
        ("@x", AbstractAddress(b"x")),
        ("fd:3", FdAddress(3)),
        ("exec:/bin/thing -v 'a b'", Program(("/bin/thing", "-v", "a b"))),
        ("ssh://host/run/x", Elsewhere("host", None, "/run/x")),
        ("ssh://me@host:22/run/x y", Elsewhere("me@host", 22, "/run/x y")),
        ("ssh://me@[::1]:22/run/x", Elsewhere("me@[::1]", 22, "/run/x")),
        ("ssh://host/@name", Elsewhere("host", None, "@name")),
    ],
)
def test_addresses_are_read(text: str, place: object) -> None:
    assert place_of(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "exec:",
        "exec:'",
        "ssh://",
        "ssh://host",
        "ssh:///x",
        "ssh://-oProxyCommand=x/y",
        "ssh://a b/x",
        "ssh://h/\0",
        "ssh://h:x/y",
    ],
)
def test_what_is_no_address_is_misuse(text: str) -> None:
    with pytest.raises(Ending) as raised:
        place_of(text)
    assert raised.value.status == 2


@pytest.mark.parametrize("text", ["tcp://host:1/x", "ssh:host", "unix:/run/x", "https://host/x", "tcp:1", "x+y://z"])
def test_addresses_of_elsewhere_are_told_from_paths(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Ending, match=f"{re.escape(text)} is no address: a path, @NAME, .*, ssh://.* is one") as raised:
        place_of(text)
    assert raised.value.status == 2
    assert place_of(f"./{text}") == PathAddress(f"./{text}")
    if "/" not in text:
        monkeypatch.chdir(tmp_path)
        (tmp_path / text).touch()
        assert place_of(text) == PathAddress(text)
    assert place_of("cups:1.sock") == PathAddress("cups:1.sock")


def test_a_path_is_connected_to(desk: Path) -> None:
    with bounded(5), connected(place_of(str(desk))) as connection:
        assert connection.call("Desk.add", 1, 2) == 3


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])]))


@pytest.mark.usefixtures("on_path")
def test_a_program_is_started_and_has_ended_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with connected(place_of(SERVE)) as connection:
        assert connection.call("Desk.add", 1, 2) == 3
    out, err = capfd.readouterr()
    assert out == ""  # what it writes does not mix with results
    assert "serving Desk at fd:3" in err


def test_a_program_that_ends_is_told() -> None:
    with (
        pytest.raises(
            Ending, match=r"WorkerCrashed: .*sh .* exited with status 7: .* serves at descriptor 3"
        ) as raised,
        connected(place_of("exec:sh -c 'exit 7'")),
    ):
        pass
    assert raised.value.status == 1


@pytest.mark.parametrize(
    "program, status, text",
    [
        ("seqrpc-no-such", 3, "exec: there is no program 'seqrpc-no-such' in PATH"),
        ("/nothing/here", 3, "exec: there is no program '/nothing/here'"),
        ("/dev/null", 4, "exec: '/dev/null' is no program that this user may run"),
    ],
)
def test_a_program_that_is_not_there_is_told(program: str, status: int, text: str) -> None:
    with pytest.raises(Ending, match=f"^{text}$") as raised, connected(place_of(f"exec:{program} x")):
        pass
    assert raised.value.status == status


def of_the_program(capfd: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Start a program that tells what it has been given."""
    told = "import os, sys; print('sid', os.getsid(0)); [print(*pair) for pair in os.environ.items()]"
    with pytest.raises(Ending, match="exited with status 0"), connected(place_of(f'exec:{sys.executable} -c "{told}"')):
        pass
    return dict(line.partition(" ")[::2] for line in capfd.readouterr().err.splitlines())


def test_somebody_else_s_program_gets_neither_the_terminal_nor_secrets(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hush")
    told = of_the_program(capfd)
    assert (told["sid"], told["SECRET"]) == (str(os.getsid(0)), "hush")
    entry = pwd.getpwuid(os.getuid())
    monkeypatch.setattr(identity, "_others", [identity.Identity(entry.pw_uid, entry.pw_gid, ())])
    told = of_the_program(capfd)
    assert told["sid"] != str(os.getsid(0))
    assert "SECRET" not in told
    assert (told["HOME"], told["USER"], told["PATH"]) == (entry.pw_dir, entry.pw_name, os.environ["PATH"])


def test_a_directory_is_no_place(tmp_path: Path) -> None:
    text = f"{tmp_path} is a directory: 'seqrpc list {tmp_path}' tells"
    with pytest.raises(Ending, match=text) as raised, connected(place_of(str(tmp_path))):
        pass
    assert raised.value.status == 2


def test_who_is_late_by_the_word_of_the_other_side_is_not_by_ours() -> None:
    with pytest.raises(seqrpc.DeadlineExceeded), bounded(60):
        raise seqrpc.DeadlineExceeded("of another")
    with pytest.raises(seqrpc.DeadlineExceeded), bounded(None):
        raise seqrpc.DeadlineExceeded("of another")


def test_who_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "GRACE", 0.1)
    with (
        pytest.raises(Ending, match=r"rpc.DeadlineExceeded: not done within 0\.2 s") as raised,
        bounded(0.2),
        connected(place_of("exec:sleep 600")),
    ):
        pass
    assert raised.value.status == 5


def test_what_waits_for_no_call_is_interrupted_when_the_time_is_up() -> None:
    reader, writer = os.pipe()
    before = signal.getsignal(signal.SIGALRM)
    try:
        late = pytest.raises(Ending, match=r"not done within 0\.1 s")
        with late as raised, bounded(0.1), contextlib.suppress(OSError):  # a time-out is one
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)
    assert raised.value.status == 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_program_that_lives_on_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "GRACE", 0.1)
    ours, theirs = socket_pair()
    with ours, theirs:
        process = start(["sleep", "600"], theirs.fileno(), name="sleep")
    end(process)
    assert process.returncode == -signal.SIGKILL


def test_a_program_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing/here")
    with pytest.raises(FileNotFoundError), connected(place_of("exec:true")):
        pass


def test_an_error_is_an_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import socket, msgpack\n"
        "sock = socket.socket(fileno=3)\n"
        "while data := sock.recv(65536):\n"
        "    sock.send(msgpack.packb([1, msgpack.unpackb(data)[1], ['x.Y', 'no', None], None]))\n"
    )
    with (
        connected(place_of(f"exec:{sys.executable} {program}")) as connection,
        pytest.raises(seqrpc.RpcError, match=r"x\.Y"),
    ):
        connection.call("Any.thing")
    assert capfd.readouterr() == ("", "")
