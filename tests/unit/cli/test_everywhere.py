"""What every server has, described."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.desk import Desk
from support.sync import served

from seqrpc import blocking
from seqrpc.cli.endings import ABSENT, Ending
from seqrpc.cli.everywhere import document_with
from seqrpc.documents import read


@pytest.mark.parametrize("name", ["rpc.ping", "rpc.discover", "rpc.stats", "rpc.monitor"])
def test_each_is_described(name: str) -> None:
    (method,) = read(document_with(name)).methods
    assert method.name == name
    assert method.summary


def test_what_is_described_can_be_called(socket_path: Path) -> None:
    with served(socket_path, Desk()), blocking.connect(str(socket_path)) as connection:
        for name in ("rpc.ping", "rpc.discover", "rpc.stats"):
            connection.call(name)


def test_others_are_not_there() -> None:
    with pytest.raises(Ending, match=r"there is no method 'rpc\.stat'; did you mean 'rpc\.stats'\?") as raised:
        document_with("rpc.stat")
    assert raised.value.status == ABSENT
