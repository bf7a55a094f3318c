"""Connections on an event loop to the addresses of the command line."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.answering import answering, error, result
from support.descriptors import open_fds

import seqrpc
from seqrpc.cli import places, reaching
from seqrpc.cli.endings import Ending
from seqrpc.cli.places import place_of
from seqrpc.cli.reaching import Client, _have_room_for
from seqrpc.limits import DEFAULT_LIMITS, RESERVED_DESCRIPTORS

SERVE = f"exec:{sys.executable} -m seqrpc serve support.desk:Desk fd:3"


def client_of(address: object, number: int = 1) -> Client:
    return Client(place_of(str(address)), number, DEFAULT_LIMITS)


def test_there_are_as_many_connections_as_were_asked_for(desk: Path) -> None:
    with client_of(desk, 3) as client:
        assert len({*client.connections}) == 3
        for connection in client.connections:
            assert client.run(connection.call("Desk.add", 1, 2)) == 3
    assert all(connection.closed for connection in client.connections)


def test_the_description_is_asked_for(desk: Path) -> None:
    with client_of(desk) as client:
        document = client.run(client.description(None))
        assert document is not None
        assert "Desk.add" in [method.name for method in document.methods]


def test_there_is_room_for_many(desk: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = len(open_fds()) + 100
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
        with client_of(desk, 1):
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (low, hard)
        _have_room_for(low)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (low + RESERVED_DESCRIPTORS, hard)
        _have_room_for(low)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (low + RESERVED_DESCRIPTORS, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("code", ["rpc.MethodNotFound", "rpc.PermissionDenied"])
def test_there_may_be_no_description(socket_path: Path, code: str) -> None:
    with answering(socket_path, lambda message: error(message, code)), client_of(socket_path) as client:
        assert client.run(client.description(5)) is None


def test_a_description_that_is_none_is_told(socket_path: Path) -> None:
    with (
        answering(socket_path, lambda message: result(message, {"methods": 7})),
        client_of(socket_path) as client,
        pytest.raises(Ending, match="the description that came is none"),
    ):
        client.run(client.description(None))


def test_who_does_not_say_what_it_offers_is_not_waited_for_long(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(socket_path, lambda _message: None), client_of(socket_path) as client:
        with pytest.raises(seqrpc.DeadlineExceeded):
            client.run(client.description(0.05))
        monkeypatch.setattr(reaching, "ANSWER_WITHIN", 0.05)
        with pytest.raises(seqrpc.DeadlineExceeded):
            client.run(client.description(None))


def test_who_hangs_up_is_told(socket_path: Path) -> None:
    with (
        answering(socket_path, lambda _message: b""),
        client_of(socket_path) as client,
        pytest.raises(seqrpc.ConnectionLost),
    ):
        client.run(client.description(None))


def test_nobody_is_told(socket_path: Path) -> None:
    before = open_fds()
    with pytest.raises(seqrpc.ConnectError), client_of(socket_path, 2):
        pass
    assert open_fds() == before


def test_a_directory_is_no_socket(tmp_path: Path) -> None:
    with pytest.raises(Ending, match="is a directory: 'seqrpc list"), client_of(tmp_path):
        pass


def test_one_of_several_that_fails_closes_the_others(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[seqrpc.Connection] = []

    async def third_fails(*args: Any, **options: Any) -> seqrpc.Connection:
        if len(made) == 2:
            raise seqrpc.NobodyListens(2, "gone")
        made.append(await seqrpc.connect(*args, **options))
        return made[-1]

    monkeypatch.setattr(reaching, "connect", third_fails)
    with pytest.raises(seqrpc.NobodyListens), client_of(desk, 3):
        pass
    assert [connection.closed for connection in made] == [True, True]


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])]))


@pytest.mark.usefixtures("on_path")
def test_a_program_is_started_and_has_ended_afterwards() -> None:
    with client_of(SERVE) as client:
        assert client.run(client.description(None)) is not None
        assert client.run(client.connections[0].call("Desk.add", 1, 2)) == 3
        assert client._process is not None
    assert client._process.returncode in (0, -signal.SIGTERM)


def test_a_program_that_ends_is_told() -> None:
    with (
        client_of("exec:sh -c 'exit 7'") as client,
        pytest.raises(Ending, match=r"WorkerCrashed: .*sh .* exited with status 7.*: what exec: starts serves at"),
    ):
        client.run(client.description(None))


@pytest.mark.parametrize("address", ["exec:sleep 600", "fd:0", "systemd:x"])
def test_there_is_one_connection_only_to_some(address: str) -> None:
    with pytest.raises(Ending, match="--connections 2: there is one only"), client_of(address, 2):
        pass


def test_an_inherited_socket_is_taken() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve() -> None:
        theirs.send(result([0, *msgpack.unpackb(theirs.recv(65_536))[1:]], 7))

    with ours, theirs:
        thread = threading.Thread(target=serve)
        thread.start()
        with client_of(f"fd:{ours.detach()}") as client:
            assert client.run(client.connections[0].call("X.y")) == 7
        thread.join()


def test_another_machine_is_reached_through_ssh(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``ssh`` is a script that runs what it was told on this machine."""
    ssh, tests = tmp_path / "ssh", Path(__file__).parents[2]
    ssh.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift 2\nexec sh -c "$1"\n')
    (tmp_path / "seqrpc").write_text(f'#!/bin/sh\nexec {sys.executable} -m seqrpc "$@"\n')
    for program in (ssh, tmp_path / "seqrpc"):
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:{tests}:{tests.parent}")
    with client_of(f"ssh://host{desk}", 2) as client:
        calls = [connection.call("Desk.add", 1, 2) for connection in client.connections]

        async def both() -> list[Any]:
            return await asyncio.gather(*calls)

        assert client.run(both()) == [3, 3]


def test_a_program_may_not_end_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "GRACE", 0.1)
    with client_of("exec:sleep 600") as client, pytest.raises(seqrpc.DeadlineExceeded):
        client.run(client.description(0.1))
    assert client._process is not None
    assert client._process.returncode == -signal.SIGKILL
