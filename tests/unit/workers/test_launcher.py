from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from support.daemons import needs_root
from support.processes import OTHER_GID, OTHER_UID, in_child

from seqrpc.kernel.privileges import Restraints
from seqrpc.workers.launcher import FD, main

PACKAGES = Path(__file__).parents[3]

TELLS = """
import os, sys
told = f"{os.environ['SEQRPC_FD']} {os.getcwd()} {os.getresuid()} {os.listdir('/proc/self/fd')} {sys.argv[1:]}"
os.write(int(os.environ['SEQRPC_FD']), told.encode())
"""


def launched(argv: Sequence[str], *, fd: int, what: Restraints | None = None) -> tuple[int, str]:
    """Become another program in a child, which has a socket at ``fd``; return its status and what it complains of."""
    told = msgspec.json.encode(Restraints() if what is None else what).decode()
    code = "import sys; sys.path.insert(0, sys.argv.pop()); from seqrpc.workers.launcher import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, told, *argv, str(PACKAGES)],
        pass_fds=(fd,),
        env={**os.environ, "SEQRPC_FD": str(fd)},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stderr


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_a_program_has_the_socket_where_programs_look_for_it(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs:
        assert theirs.fileno() != FD
        status = launched([sys.executable, "-c", TELLS, "an argument"], fd=theirs.fileno(), what=Restraints(cwd="/"))
        assert status == (0, "")
        told = ours.recv(10_000).decode()
        assert told.startswith(f"3 / ({os.getuid()}, ")
        assert told.endswith("['0', '1', '2', '3', '4'] ['an argument']"), "the last is of the directory it lists"


def test_one_that_has_it_there_already_keeps_it() -> None:
    def work() -> tuple[tuple[int, str], str]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        higher = ours.fileno() if ours.fileno() > FD else os.dup(ours.fileno())
        os.dup2(theirs.fileno(), FD)
        status = launched([sys.executable, "-c", TELLS], fd=FD)
        return status, os.read(higher, 10_000).decode()

    status, told = in_child(work)
    assert status == (0, "")
    assert told.startswith("3 ")


@needs_root
def test_it_gives_up_what_it_is_to_give_up(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with ours, theirs:
        what = Restraints(uid=OTHER_UID, gid=OTHER_GID, groups=(), cwd="/")
        tells = ["/bin/sh", "-c", "grep ^Uid: /proc/self/status >&3"]  # no Python that only root can read
        assert launched(tells, fd=theirs.fileno(), what=what)[0] == 0
        assert ours.recv(10_000).decode().split()[1:] == [str(OTHER_UID)] * 4


def in_place(argv: list[str], fd: int, what: Restraints) -> tuple[int, str]:
    """Call it in a fork of this process, which it does not become; return its status and what it complains of."""

    def work() -> tuple[int, str]:
        reader, writer = os.pipe()
        sys.stderr = os.fdopen(writer, "w")
        number = fd
        if fd == FD:
            os.dup2(os.open(os.devnull, os.O_RDONLY), FD)
        os.environ["SEQRPC_FD"] = str(number)
        sys.argv = ["launcher", msgspec.json.encode(what).decode(), *argv]
        with pytest.raises(SystemExit) as caught:
            main()
        sys.stderr.close()
        if not what.limits:
            assert os.get_inheritable(FD)
            assert os.environ["SEQRPC_FD"] == "3"
        return int(caught.value.code or 0), os.read(reader, 10_000).decode()

    return in_child(work)


@pytest.mark.parametrize("moved", [True, False])
def test_a_program_that_is_not_there_is_told(moved: bool, pipe: tuple[int, int]) -> None:
    status, told = in_place(["/nowhere/program"], pipe[0] if moved else FD, Restraints())
    assert status == 126
    assert told == "cannot start /nowhere/program: [Errno 2] No such file or directory\n"


def test_a_restraint_that_the_system_does_not_allow_is_told(pipe: tuple[int, int]) -> None:
    what = Restraints(limits=((resource.RLIMIT_NOFILE, 10, 5),))
    status, told = in_place(["/bin/true"], pipe[0], what)
    assert status == 126
    assert told == "cannot start /bin/true: current limit exceeds maximum limit\n"
