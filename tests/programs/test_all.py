"""Every program in examples/, and those that need few words."""

from __future__ import annotations

import array
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from support.processes import AS_ROOT
from support.programs import EXAMPLES, WITHIN, command, output_of

import seqrpc


def test_every_example_is_run_here() -> None:
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    programs = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py")}
    unnamed = {program for program in programs if f'"{program}"' not in here}

    assert programs
    assert unnamed == set()


def test_each_says_in_its_docstring_how_to_run_it() -> None:
    for path in EXAMPLES.rglob("*.py"):
        text, name = path.read_text(), path.relative_to(EXAMPLES)
        program = f"-m pytest examples/{name.parent}" if name.name.startswith("test_") else f"examples/{name}"

        assert f"    python {program}" in text or "Nothing to run" in text


@pytest.mark.parametrize("interface", ["logs.py", "netcfg/interface.py"])
def test_an_interface_is_a_module_without_a_program(interface: str) -> None:
    assert output_of(interface) == ""


def test_the_demonstration_of_the_log_daemon(logs: Path) -> None:
    os.utime(logs / "system.log", (2_000_000_000, 2_000_000_000))
    printed = output_of("logdaemon.py", "--demo", "--directory", logs)

    assert printed.startswith(f"seqrpc {seqrpc.__version__}, its {seqrpc.__twin__} twin\n")
    assert "is served" in printed
    assert "apt/history.log" in printed
    assert "the end of system.log, read from the descriptor" in printed
    assert "  line 9999\n" in printed
    assert ("another user, uid 54321, is refused: rpc.PermissionDenied" in printed) == AS_ROOT


def test_the_demonstration_ends_well_where_there_is_no_log(tmp_path: Path) -> None:
    assert "none of them" in output_of("logdaemon.py", "--demo", "--directory", tmp_path)


def test_the_demonstration_works_on_the_logs_of_this_machine() -> None:
    if not os.path.isdir("/var/log"):
        pytest.skip("this machine has no /var/log")

    assert "is served" in output_of("logdaemon.py", "--demo")


def test_parent_and_child_call_each_other_and_know_who_calls() -> None:
    lines = output_of("parent_child.py").splitlines()
    told = re.compile(rf"(child|parent) \(process (\d+)\): called by process (\d+), user {os.geteuid()}(.*)")
    child, parent = told.fullmatch(lines[0]), told.fullmatch(lines[1])

    assert child is not None
    assert parent is not None
    assert (child[1], child[4]) == ("child", "")
    assert (parent[1], parent[4]) == ("parent", ": adding 2 and 3")
    assert (child[3], parent[3]) == (parent[2], child[2])
    assert child[2] != parent[2]
    assert lines[2:] == [f"parent (process {parent[2]}): the child (process {child[2]}) says 5"]


def test_an_open_vault_is_let_go_passed_on_and_taken_back() -> None:
    told = [re.fullmatch(r"\[process (\d+)\] (.*)", line) for line in output_of("vault.py").splitlines()]
    lines = [(int(line[1]), line[2]) for line in told if line is not None]
    owner, vault = lines[0][0], next(process for process, line in lines if line.startswith("vault: "))
    said_by = {process: [line for by, line in lines if by == process] for process in (owner, vault)}
    helper = re.search(r"helper \(process (\d+)\)", str(said_by[owner]))

    assert None not in told
    assert helper is not None
    assert len({owner, vault, int(helper[1])}) == 3
    assert said_by[owner] == [
        "owner: refused: vault.WrongPassphrase: that is not the passphrase",
        "owner: there is no open vault to be found by a name",
        "owner: reads '1983'",
        f"owner: helper (process {helper[1]}) says that it has 4 characters",
        "owner: what was handed on is no longer here",
        "owner: taken back: rpc.Unavailable: the other side takes no new requests: the object was revoked",
    ]
    assert said_by[vault] == [
        f"vault: process {owner} reads 'door'",
        f"vault: process {helper[1]} reads 'door'",
        "vault: closed",
        "vault: closed",
    ]


def test_arrays_are_the_same_memory_in_both_processes() -> None:
    pytest.importorskip("numpy")
    lines = output_of("arrays.py", "--side", "300").splitlines()
    memory = re.compile(r"\[process (\d+)\] (sends: |received:) +(\S+) inode (\d+) /memfd:seqrpc-buffer \(deleted\)")
    told = [memory.fullmatch(line) for line in lines[:4]]
    processes, what, permissions, inodes = zip(*(line.groups() for line in told if line is not None), strict=True)

    assert len(inodes) == 4
    assert processes == (processes[0], processes[1], processes[1], processes[0])
    assert processes[0] != processes[1]
    assert what == ("sends: ", "received:") * 2
    assert permissions == ("rw-s", "r--p") * 2
    assert inodes[0] == inodes[1] != inodes[2] == inodes[3]
    assert lines[4:] == [f"[process {processes[0]}] 300 times 300 numbers, 720,000 bytes, are right"]


def test_a_child_of_a_lost_parent_ends(tmp_path: Path) -> None:
    """The child is a program on its own: here this test is its parent, and goes away."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ours:
        number = theirs.fileno()
        child = subprocess.Popen(command("parent_child.py", "--child", f"fd:{number}"), pass_fds=[number])
        theirs.close()
        ours.send(b"\x94\x00\x01\xa8rpc.ping\x90")
        data, control, _flags, _address = ours.recvmsg(100, socket.CMSG_SPACE(array.array("i").itemsize))
        ours.close()
    with child:
        assert child.wait(WITHIN) == 0
    assert (data, control) == (b"\x94\x01\x01\xc0\xc0", [])
