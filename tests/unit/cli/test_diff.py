"""The command ``diff``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Done, at_terminal, seqrpc_command
from support.desk import Desk

from seqrpc.interface.openrpc import document_of

Run = Callable[..., Done]


@pytest.fixture
def older(tmp_path: Path) -> str:
    """Return a file that describes the desk as it was once."""
    document = document_of(Desk)
    document["methods"] = [method for method in document["methods"] if method["name"] != "Desk.hint"]
    for method in document["methods"]:
        if method["name"] == "Desk.add":
            method["params"][0]["schema"] = {"type": "string"}
    path = tmp_path / "older.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_the_same_differs_in_nothing(seqrpc_run: Run, desk: Path) -> None:
    assert seqrpc_run("diff", "support.desk:both", desk) == Done(0, "", "")


def test_changes_are_lines_of_json(seqrpc_run: Run, older: str) -> None:
    done = seqrpc_run("diff", older, "support.desk:Desk")
    assert (done.status, done.err) == (1, "")
    changes = [json.loads(line) for line in done.out.splitlines()]
    assert sorted(change["path"] for change in changes) == ["Desk.add(a)", "Desk.hint"]
    assert all({*change} == {"path", "text", "why", "breaks_callers", "breaks_servers"} for change in changes)


def test_only_what_breaks_somebody_may_be_asked_for(seqrpc_run: Run, older: str) -> None:
    done = seqrpc_run("diff", older, "support.desk:Desk", "--breaking")
    assert all(
        change["breaks_callers"] or change["breaks_servers"] for change in map(json.loads, done.out.splitlines())
    )
    assert done.status == 1


def test_a_terminal_gets_sentences(older: str) -> None:
    status, text = at_terminal("diff", older, "support.desk:Desk")
    assert status == 1
    assert "Desk.add(a): " in text
    assert "    breaks callers" in text


MODULE = """
import seqrpc


class Gone(seqrpc.RpcError, code="shop.Gone"):
    pass


class Shop(seqrpc.Service):
    @seqrpc.method(errors=[Gone])
    async def {name}(self) -> int: ...
"""


def test_two_modules_may_have_the_same_errors(tmp_path: Path) -> None:
    (tmp_path / "shop1.py").write_text(MODULE.format(name="buy"))
    (tmp_path / "shop2.py").write_text(MODULE.format(name="sell"))
    done = seqrpc_command("diff", "shop1:Shop", "shop2:Shop", cwd=tmp_path)
    assert (done.status, done.err) == (1, "")
    assert [json.loads(line)["path"] for line in done.out.splitlines()] == ["Shop.buy", "Shop.sell"]
    assert seqrpc_command("diff", "shop2:Shop", "shop2:Shop", cwd=tmp_path) == Done(0, "", "")
    done = seqrpc_command("diff", "shop1:Shp", "shop2:Shop", cwd=tmp_path)
    assert done == Done(2, "", "seqrpc: shop1 has no 'Shp'; did you mean 'Shop'?\n")


JOBS = """
from dataclasses import dataclass

import seqrpc


@dataclass
class Job:
    pages: {type} = {default}


class Queue(seqrpc.Service):
    @seqrpc.method
    async def put(self, job: Job) -> Job: ...

    @seqrpc.method
    async def find(self) -> list[Job]: ...

    @seqrpc.method
    async def swap(self, job: Job, other: Job | None = None) -> Job | None: ...
"""


def test_it_tells_the_same_with_each_seed_of_hashes(tmp_path: Path) -> None:
    (tmp_path / "jobs1.py").write_text(JOBS.format(type="int | str", default="0"))
    (tmp_path / "jobs2.py").write_text(JOBS.format(type="int | bytes", default="1"))
    texts = {
        seqrpc_command("diff", "jobs1:Queue", "jobs2:Queue", cwd=tmp_path, env={"PYTHONHASHSEED": str(seed)}).out
        for seed in range(4)
    }
    (text,) = texts
    for line in text.splitlines():
        reasons = json.loads(line)["why"].split(", and ")
        assert len(reasons) == len({*reasons})


def test_what_breaks_nobody_is_told_so(tmp_path: Path) -> None:
    old, new = document_of(Desk), document_of(Desk)
    for method in new["methods"]:
        if method["name"] == "Desk.add":
            method["x-seqrpc"] = {"idempotent": True}
    for name, document in (("old", old), ("new", new)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    text = at_terminal("diff", tmp_path / "old.json", tmp_path / "new.json")[1]
    assert text == "" or "breaks" in text
