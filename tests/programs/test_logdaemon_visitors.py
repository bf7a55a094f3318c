"""Whom the log daemon admits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.processes import OTHER_UID, in_child
from support.programs import WITHIN, as_root, daemon

import seqrpc

VISITS = [("Logs.list_logs",), ("Logs.open_log", "system.log"), ("Logs.follow", "system.log")]


def visitor(address: Path) -> dict[str, str]:
    """Call as whoever this process is; return what came of listing, opening and following."""

    async def visit() -> dict[str, str]:
        outcomes = {}
        async with seqrpc.timeout(WITHIN), seqrpc.connect(address) as connection:
            for method, *args in VISITS:
                try:
                    result = await connection.call(method, *args)
                except seqrpc.RpcError as exc:
                    outcomes[method] = exc.code
                else:
                    outcomes[method] = type(result).__name__
                    if isinstance(result, seqrpc.OwnedFd):
                        result.close()
                    elif isinstance(result, seqrpc.Stream):
                        await result.aclose()
        return outcomes

    return asyncio.run(visit())


@as_root
def test_refuses_another_user_by_its_policy(logs: Path, open_socket_path: Path) -> None:
    with daemon(open_socket_path, logs, "--mode", "666"):
        outcomes = in_child(lambda: visitor(open_socket_path), uid=OTHER_UID)

    assert outcomes == {method: "rpc.PermissionDenied" for method, *_args in VISITS}


@as_root
def test_admits_members_of_the_group_adm(logs: Path, open_socket_path: Path) -> None:
    grp = pytest.importorskip("grp")
    try:
        adm = grp.getgrnam("adm").gr_gid
    except KeyError:
        pytest.skip("this machine has no group adm")
    with daemon(open_socket_path, logs, "--mode", "660", "--group", "adm"):
        status = open_socket_path.stat()
        outcomes = in_child(lambda: visitor(open_socket_path), uid=OTHER_UID, groups=[adm])

    assert (status.st_mode & 0o777, status.st_gid) == (0o660, adm)
    assert outcomes == {"Logs.list_logs": "list", "Logs.open_log": "OwnedFd", "Logs.follow": "Stream"}


@as_root
def test_by_default_others_cannot_even_connect(logs: Path, open_socket_path: Path) -> None:
    def visit() -> str:
        with pytest.raises(seqrpc.ConnectError) as caught:
            visitor(open_socket_path)
        return str(caught.value)

    with daemon(open_socket_path, logs):
        assert "permission denied" in in_child(visit, uid=OTHER_UID)
