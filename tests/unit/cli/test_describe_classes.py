"""The command ``describe`` of classes, and what it tells of errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Done, at_terminal

Run = Callable[..., Done]

SHOP = """
import seqrpc


class Gone(seqrpc.RpcError, code="shop.Gone"):
    '''It is
    sold.

    All of it.
    '''


class Odd(seqrpc.RpcError, code="shop.Odd"):
    '''It is \\x1b[2Jodd.'''


class Bare(seqrpc.RpcError, code="shop.Bare"):
    pass


class Shop(seqrpc.Service):
    @seqrpc.method(errors=[Gone, Odd, Bare], allow=seqrpc.policy.root)
    async def buy(self, name: str) -> int:
        '''Buy something.'''
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop_to_describe.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_a_class_is_described_without_a_server(seqrpc_run: Run) -> None:
    done = seqrpc_run("describe", "shop_to_describe:Shop")
    assert (done.status, done.err) == (0, "")
    assert [method["name"] for method in json.loads(done.out)["methods"]] == ["Shop.buy"]
    assert seqrpc_run("describe", "shop_to_describe:Nothing").status == 2


@pytest.mark.usefixtures("here")
def test_what_errors_mean_is_told() -> None:
    status, text = at_terminal("describe", "shop_to_describe:Shop", "buy")
    assert status == 0, text
    assert text == (
        "buy(name: str) -> int\n"
        "    Buy something.\n"
        "    errors:\n"
        "        shop.Gone: It is sold.\n"
        "        shop.Odd: It is \\x1b[2Jodd.\n"
        "        shop.Bare\n"
        "    may be called by: uid(0)\n"
    )
