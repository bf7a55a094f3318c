"""The worker in C."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.programs import EXAMPLES, WITHIN, output_of

COMPILER = os.environ.get("CC", "cc")

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="there is no C compiler")

SOURCE = EXAMPLES / "worker.c"


def test_it_is_compiled_started_and_called() -> None:
    lines = output_of("c_worker.py").splitlines()

    assert re.fullmatch(r"2 \+ 3 is 5, says process \d+", lines[0])
    assert lines[1:] == [
        "by name: -42",
        "many at a time: [0, 2, 4, 6, 8]",
        "rpc.InvalidParams: add takes two integers, a and b",
        "rpc.MethodNotFound: there is no method Adder.subtract",
        "it ended with status 0",
    ]


def test_without_a_compiler_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "c_worker.py"],
        env={**os.environ, "CC": "/no/compiler"},
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "c_worker: [Errno 2] No such file or directory: '/no/compiler'\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("worker") / "worker"
    subprocess.run([COMPILER, "-Wall", "-Wextra", "-Werror", "-std=c11", "-o", path, SOURCE], check=True)
    return path


class Talk:
    """The other end of a worker's socket."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.sock = sock
        self.process = process

    def send(self, *parts: object) -> None:
        self.sock.send(msgpack.packb(list(parts)))

    def ask(self, *parts: object) -> Any:
        self.send(*parts)
        return msgpack.unpackb(self.sock.recv(65_536))


@pytest.fixture
def talk(program: Path) -> Iterator[Talk]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(WITHIN)
        number = theirs.fileno()
        environment = {"SEQRPC_FD": str(number)}
        process = subprocess.Popen([program], pass_fds=[number], env=environment, stderr=subprocess.PIPE)
        theirs.close()
        with process:
            yield Talk(ours, process)
            ours.close()


def test_numbers_of_all_sizes(talk: Talk) -> None:
    for number, (a, b) in enumerate(
        [(0, 1), (127, 128), (-32, -33), (-129, 70_000), (2**40, -(2**63)), (2**62, 2**61)]
    ):
        assert talk.ask(0, number, "Adder.add", [a, b]) == [1, number, None, a + b]
        assert talk.ask(0, number, "Adder.add", {"b": b, "a": a}, {"deadline": 5}) == [1, number, None, a + b]


@pytest.mark.parametrize(
    "params",
    [[], [1], [1, 2, 3], [1.0, 2], [None, 1], [2**63, 1], {"a": 1}, {"a": 1, "c": 2}, {"a": 1, 2: 3}, [[1], 2]],
)
def test_arguments_that_do_not_fit(talk: Talk, params: object) -> None:
    _kind, _number, error, result = talk.ask(0, 1, "Adder.add", params)
    assert (error[0], result) == ("rpc.InvalidParams", None)
    assert talk.ask(0, 2**32 - 1, "rpc.ping", []) == [1, 2**32 - 1, None, None]


def test_a_sum_that_is_too_large(talk: Talk) -> None:
    _kind, _number, error, _result = talk.ask(0, 1, "Adder.add", [2**63 - 1, 1])
    assert error[0] == "rpc.InvalidParams"


@pytest.mark.parametrize("name", ["", "Adder.ad", "Adder.addd", "rpc.pin", "x" * 60_000, "ä" * 50])
def test_methods_that_are_not_there(talk: Talk, name: str) -> None:
    _kind, _number, error, _result = talk.ask(0, 1, name, [])
    assert error[0] == "rpc.MethodNotFound"


def test_what_is_to_be_ignored_is(talk: Talk) -> None:
    for message in (
        [2, "Adder.add", [1, 2]],
        [3, 1],
        [5, "done"],
        [1, 1, None, None],
        [99, {"new": [1.5, b"x", None]}],
    ):
        talk.send(*message)
    assert talk.ask(0, 1, "rpc.ping", []) == [1, 1, None, None]


def test_a_long_message_is_too_large(talk: Talk) -> None:
    with open(SOURCE, "rb") as file:
        socket.send_fds(talk.sock, [msgpack.packb([4, 100_000, 7])], [file.fileno()])
    _kind, number, error, _result = msgpack.unpackb(talk.sock.recv(65_536))
    assert (number, error[0]) == (7, "rpc.TooLarge")


def test_descriptors_are_closed(talk: Talk) -> None:
    descriptors = Path(f"/proc/{talk.process.pid}/fd")
    assert talk.ask(0, 1, "rpc.ping", []) == [1, 1, None, None]
    before = len(list(descriptors.iterdir()))
    with open(SOURCE, "rb") as file:
        message = [0, 1, "Adder.add", [msgpack.ExtType(1, b"\0"), 1]]
        socket.send_fds(talk.sock, [msgpack.packb(message)], [file.fileno()] * 253)
    _kind, _number, error, _result = msgpack.unpackb(talk.sock.recv(65_536))
    assert error[0] == "rpc.InvalidParams"
    assert len(list(descriptors.iterdir())) == before


@pytest.mark.parametrize(
    "packet",
    [
        b"\xc1",
        b"\x94\x00\x01\xa8rpc.ping\x90\x00",
        b"\x94\x00\x01\xa8rpc.pin",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 100,
        b"\x93\x00\x01\xa8rpc.ping",
        b"\x94\x00\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa8rpc.ping\x90",
        b"\x92\x04\x05",
        b"\xa1x",
        bytes(70_000),
    ],
)
def test_what_is_malformed_costs_the_connection(talk: Talk, packet: bytes) -> None:
    talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    talk.sock.send(packet)
    kind, reason = msgpack.unpackb(talk.sock.recv(65_536))
    assert (kind, type(reason)) == (5, str)
    assert talk.sock.recv(1) == b""
    assert talk.process.wait(WITHIN) == 1


def test_it_ends_at_the_end_of_file(talk: Talk) -> None:
    talk.sock.close()
    assert talk.process.wait(WITHIN) == 0
