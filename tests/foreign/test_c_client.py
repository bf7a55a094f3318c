"""Clients in C, written from docs/protocol.md, against a served process."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.foreign import WITHIN, served

HERE = Path(__file__).parent
COMPILER = shutil.which("gcc") or shutil.which("cc")

CALLS = """\
ping: [1, 0, nil, nil]
by position: [1, 1, nil, 42]
by name: [1, 4294967295, nil, 1000001]
descriptors passed: [1, 2, nil, [5, 10]]
descriptors got: [1, 3, nil, {"from Python": descriptor 0, "to C": descriptor 1}], \
holding "from Python", holding "to C"
refused: [1, 4, ["rpc.PermissionDenied", "…", nil], nil]
no such method: [1, 5, ["rpc.MethodNotFound", "…", nil], nil]
wrong arguments: [1, 6, ["rpc.InvalidParams", "…", nil], nil]
an error of the service's own: [1, 7, ["foreign.Empty", "nothing is left", [1, 2]], nil]
waiting: [1, 9, nil, 1]
cancelled: [1, 8, ["rpc.Cancelled", "…", nil], nil]
no longer waiting: [1, 8, nil, 0]
too late: [1, 10, ["rpc.DeadlineExceeded", "…", nil], nil]
after a notification: [1, 11, nil, ["noted"]]
called back: [0, 0, "Client.greet", ["Python"]]
the answer, after its own: [1, 12, nil, "hello from C"]
malformed: [5, "…"]
then: the end
"""

STREAMS = """\
many items, then nil: 5000 items, their sum 12497500, some of them in one packet
a producer that fails: 0 1 2, then ["foreign.Empty", "nothing is left", [1, 2]]
small, large, with a file: "small" a string of 200000 descriptor 0 "small", then nil
the producer stopped: [1, 5, nil, true]
a total: [1, 6, nil, 155]
a producer of ours fails: [1, 7, ["client.Broken", "out of paper", 7], nil]
a producer of ours dies: [1, 8, nil, [[1, 2, 3], "rpc.Unavailable"]]
large items: [1, 9, nil, [4, 200000]]
the reader wants no more: [1, 10, nil, 42]
"""

CHANNELS = """\
called by the right user: [0, 0, "Greeter.greet", ["Ada"]]
called by the right user: [0, 1, "Greeter.greet", ["Grace"]]
called by the right user: [0, 2, "Greeter.greet", [a string of 200000]]
let go
what it answered: [1, 11, nil, ["hello from C", "hello from C", "client.Shy"]]
an object: [1, 0, nil, 7]
is the same still: [1, 1, nil, 10]
and no other: [1, 2, ["rpc.MethodNotFound", "…", nil], nil]
closed when it is let go: [1, 13, nil, 1]
taken back: [5, "…"]
but the call is answered: [1, 0, nil, nil]
then: the end
"""

LARGE_VALUES = """\
a long answer: [1, 15, nil, a string of 200000]
a long answer with a file: [1, 16, nil, [a string of 200000, descriptor 0]], holding "content"
a long request: [1, 17, nil, 200000]
one without an id: [1, 18, nil, 200000]
one with a file: [1, 19, nil, [200000, "of the file"]]
too long a request: [1, 20, ["rpc.TooLarge", "…", nil], nil]
one without an id: [1, 21, ["rpc.TooLarge", "…", nil], nil]
too long an answer: [1, 22, ["rpc.TooLarge", "…", nil], nil]
the connection lives on: [1, 23, nil, nil]
buffers: [1, 24, nil, [buffer 0, from 0 "gninnigeb eht morf", buffer 1, from 0 "egap dnoces eht morf"]]
"""

DEATH = """\
a producer that dies: "the last", the producer died
"""

TEXT_FOR_PEOPLE = r'("rpc\.\w+", |: \[5, )".*?"(?=[,\]])'

Compile = Callable[[str], Path]


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """Return what compiles one of the programs, and returns where it is."""

    def compile_program(name: str) -> Path:
        if COMPILER is None:
            pytest.skip("there is no C compiler")
        program = tmp_path / name
        warnings = ["-Wall", "-Wextra", "-Werror", "-Wpedantic"]
        sources = [str(HERE / f"{name}.c"), str(HERE / "wire.c")]
        done = subprocess.run(
            [COMPILER, "-std=c11", "-O1", *warnings, "-o", str(program), *sources],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return program

    return compile_program


def run(program: Path, *arguments: str | Path) -> str:
    """Run a program and return what it printed, without what is there for people and may change."""
    called = subprocess.run(
        [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WITHIN, check=False
    )
    assert (called.stderr, called.returncode) == ("", 0)
    return re.sub(TEXT_FOR_PEOPLE, r'\1"…"', called.stdout)


def test_a_client_in_c_is_understood_and_understands(compiled: Compile, socket_path: Path) -> None:
    client = compiled("client")

    with served(socket_path) as process:
        assert run(client, socket_path) == CALLS

    assert process.returncode == 0


def test_streams_channels_buffers_and_long_messages_pass_between_c_and_python(
    compiled: Compile, socket_path: Path
) -> None:
    client = compiled("values")

    with served(socket_path) as process:
        assert run(client, socket_path) == STREAMS + CHANNELS + LARGE_VALUES

    assert process.returncode == 0


def test_a_client_in_c_can_tell_a_producer_that_died_from_one_that_ended(compiled: Compile, socket_path: Path) -> None:
    client = compiled("values")

    with served(socket_path) as process:
        assert run(client, socket_path, "death") == DEATH

    assert process.returncode == -signal.SIGKILL
