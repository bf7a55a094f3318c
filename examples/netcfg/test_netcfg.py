"""Test the netcfg daemon, its app and its script.

    python -m pytest examples/netcfg

Whoever runs this need not be root: `caller` makes the members of the group, and others. Nothing listens at an address.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import app
import ctl
import interface
import msgspec
import netcfgd
import pytest
from interface import CannotOpen, NotConfigured, Settings, Sockets
from netcfgd import Audit, SettingsService, SocketService

import seqrpc
from seqrpc.testing import (
    MemoryServer,
    admits,
    assert_fits,
    assert_no_leaks,
    caller,
    faulty_pair,
    memory_server,
    serve_in_memory,
    serve_in_thread,
)

GROUP = "daemon"  # one that every machine has; nobody needs to be in it
MEMBERS = netcfgd.members(GROUP)
ANN = caller(uid=54_001, groups=[GROUP])
BOB = caller(uid=54_002)


def configure(path: Path, ports: str) -> None:
    """Write a configuration."""
    path.write_text(f'tunnels = ["tun7"]\nprotocols = [1]\nports = {ports}\n')


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration with port 0, for which the kernel takes any that is free."""
    path = tmp_path / "netcfg.toml"
    configure(path, "[0]")
    return path


@pytest.fixture
def settings(config: Path) -> SettingsService:
    """Return what the daemon serves of it."""
    return SettingsService(config)


@pytest.fixture
async def server(settings: SettingsService) -> AsyncIterator[MemoryServer]:
    """Return the daemon, without an address. Whatever a test leaves behind fails it."""
    async with (
        assert_no_leaks(),
        memory_server([SocketService(settings), settings], allow=MEMBERS, interceptors=[Audit()]) as server,
    ):
        yield server


def test_members_open_and_everybody_watches() -> None:
    for method in (SocketService.open_tunnel, SocketService.open_raw, SocketService.listen):
        assert admits(method, ANN, allow=MEMBERS)
        assert not admits(method, BOB, allow=MEMBERS)
    assert admits(SettingsService.watch, BOB)


def test_the_script_has_the_interface_of_the_app() -> None:
    assert_fits(interface.Settings, ctl.Settings)
    assert_fits(interface.Sockets, ctl.Sockets)


async def test_a_member_is_given_a_socket_that_listens(server: MemoryServer) -> None:
    async with server.connect(caller=ANN) as connection:
        fd = await connection.proxy(Sockets).listen(0)
    with socket.socket(fileno=fd.detach()) as listener:
        socket.create_connection(listener.getsockname()).close()


async def test_others_are_refused_and_that_is_logged(server: MemoryServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with server.connect(caller=BOB) as connection:
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.proxy(Sockets).listen(0)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "netcfg.audit"]
    assert line == f"user 54002, process {BOB.pid}, called 'Sockets.listen': rpc.PermissionDenied"


async def test_what_is_not_configured_is_not_opened(server: MemoryServer) -> None:
    async with server.connect(caller=ANN) as connection:
        with pytest.raises(NotConfigured) as caught:
            await connection.proxy(Sockets).listen(80)
    assert caught.value.data == [0]


async def test_what_the_kernel_refuses_is_told_with_its_errno(
    server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netcfgd, "TUN_DEVICE", tmp_path / "tun")  # a machine that has none
    async with server.connect(caller=ANN) as connection:
        with pytest.raises(CannotOpen) as caught:
            await connection.proxy(Sockets).open_tunnel("tun7")
    assert caught.value.data == {"what": "tunnel tun7", "errno": errno.ENOENT}


async def test_watchers_see_what_was_read_again(server: MemoryServer, settings: SettingsService, config: Path) -> None:
    async with server.connect(caller=BOB) as connection, connection.proxy(Settings).watch() as versions:
        assert (await anext(versions)).ports == [0]
        configure(config, "[0, 80]")
        await settings.reload(server)
        assert (await anext(versions)).ports == [0, 80]


async def test_a_mistake_in_the_file_changes_nothing(
    server: MemoryServer, settings: SettingsService, config: Path
) -> None:
    configure(config, "80")
    with pytest.raises(msgspec.ValidationError, match="Expected `array`"):
        await settings.reload(server)
    async with server.connect(caller=BOB) as connection:
        assert (await connection.proxy(Settings).current()).version == 1


async def test_a_lost_answer_leaves_no_socket_behind(settings: SettingsService) -> None:
    async with (
        assert_no_leaks(),
        faulty_pair() as pair,
        serve_in_memory(SocketService(settings), allow=MEMBERS, caller=ANN, pair=pair) as connection,
    ):
        pair.to_client.disconnect()  # in place of the next packet
        with pytest.raises(seqrpc.ConnectionLost) as caught:
            await connection.proxy(Sockets).listen(0)
    assert caught.value.execution is seqrpc.Execution.MAY_HAVE_RUN


async def test_a_socket_that_is_lost_on_the_way_is_missed(settings: SettingsService) -> None:
    async with (
        assert_no_leaks(),
        faulty_pair() as pair,
        serve_in_memory(SocketService(settings), allow=MEMBERS, caller=ANN, pair=pair) as connection,
    ):
        pair.to_client.cut_control()
        with pytest.raises(seqrpc.DescriptorsLost):
            await connection.proxy(Sockets).listen(0)


async def test_the_app_opens_and_closes_ports_as_configured(
    server: MemoryServer, settings: SettingsService, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    monkeypatch.setattr(app, "say", said.put_nowait)
    async with server.connect(caller=ANN) as connection, asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(app.Greeter(connection).follow())
        assert [await said.get(), await said.get()] == ["port 0 is open", "this is version 1"]
        configure(config, "[]")
        await settings.reload(server)
        assert [await said.get(), await said.get()] == ["port 0 is closed", "this is version 2"]
        following.cancel()


def test_the_script_shows_and_tries(
    settings: SettingsService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(netcfgd, "TUN_DEVICE", tmp_path / "tun")
    with (
        serve_in_thread([SocketService(settings), settings], allow=MEMBERS) as server,
        server.connect(caller=ANN) as connection,
    ):
        ctl.show(connection)
        ctl.try_all(connection)
    shown, tunnel, _raw, port = capsys.readouterr().out.splitlines()
    assert "ports=[0]" in shown
    assert tunnel == "cannot open tunnel tun7: No such file or directory (errno 2)"
    assert port == "port 0 is ours"
