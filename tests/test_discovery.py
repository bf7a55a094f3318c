"""Who learns what of a server from ``rpc.discover``: other users, through real sockets, and callers of tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from support.daemons import RawClient, as_user, needs_root, raw_client
from support.documents import check_document
from support.processes import OTHER_UID
from support.waiting import PATIENCE, comes_true, turns_of_the_loop
from support.workers import Desk as WorkersDesk

import seqrpc
from seqrpc import policy
from seqrpc.testing import caller, memory_server


class Token(seqrpc.Service):
    """Known to those who get one."""

    @seqrpc.method
    async def look(self) -> str:
        raise NotImplementedError


class Logs(seqrpc.Service):
    """Keeps logs."""

    version = "2"

    @seqrpc.method(allow=policy.anyone)
    async def names(self) -> list[str]:
        """Return the names of all logs."""
        return ["system"]

    @seqrpc.method
    async def wipe(self, name: str) -> None:
        """Forget a log."""

    @seqrpc.method(allow=policy.hidden(policy.root))
    async def tap(self, target: str) -> Token:
        """Nobody is to know of this."""
        raise NotImplementedError


class Shadow(seqrpc.Service, allow=policy.hidden(policy.uid(0))):
    """A service that is nobody's business."""

    @seqrpc.method
    async def lurk(self) -> None: ...


class Ours(seqrpc.Service):
    """For the same user and root."""

    @seqrpc.method
    async def work(self) -> None: ...


SECRETS = ("tap", "Token", "Shadow", "lurk", "nobody's business", "Nobody is to know", "hidden(")

ATTEMPTS = ("Logs.tap", "Logs.tapp", "Shadow.lurk", "Shadow.lurc", "Shadow.none", "tap", "lurk", "Logs.ta")


VISIT = """
sock = connected(argv[0])
document = ask(sock, 0, 1, "rpc.discover", [])
answers = {name: (ask(sock, 0, 2, name, [])[0] or ["called"])[:2] for name in argv[1:]}
show([document, answers])
"""


@contextlib.asynccontextmanager
async def served(path: Path, *services: seqrpc.Service, **options: Any) -> AsyncIterator[None]:
    path.parent.chmod(0o711)
    async with seqrpc.serve(services, path, mode=0o666, **options):
        yield


async def visited(path: Path, uid: int = OTHER_UID) -> Any:
    """Return what a user is told, and the errors of calling what is hidden."""
    (error, document), answers = await as_user(VISIT, path, *ATTEMPTS, "rpc.stats", uid=uid)
    return document or error[:2], {name: tuple(answer) for name, answer in answers.items()}


@needs_root
async def test_a_user_is_told_what_it_may_call_and_may_know_of(socket_path: Path) -> None:
    async with served(socket_path, Logs(), Shadow(), Ours()):
        mine, _answers = await visited(socket_path, uid=0)
        theirs, answers = await visited(socket_path)
    check_document(mine)
    check_document(theirs)
    assert [one["name"] for one in mine["methods"]] == [
        "Logs.names",
        "Logs.tap",
        "Logs.wipe",
        "Ours.work",
        "Shadow.lurk",
    ]
    assert all(one["x-seqrpc"]["allowed"] for one in mine["methods"])
    assert {one["name"]: one["x-seqrpc"] for one in theirs["methods"]} == {
        "Logs.names": {"allowed": True, "rule": "anyone"},
        "Logs.wipe": {"allowed": False, "rule": "(same_user | uid(0))"},
        "Ours.work": {"allowed": False, "rule": "(same_user | uid(0))"},
    }
    assert theirs["info"]["version"] == "2"
    assert answers["rpc.stats"][0] == "rpc.PermissionDenied"


@needs_root
async def test_what_is_hidden_is_told_by_nothing(socket_path: Path) -> None:
    async with served(socket_path, Logs(), Shadow(), Ours(), allow=policy.anyone):
        told, answers = await visited(socket_path)
    assert not [secret for secret in SECRETS if secret in json.dumps(told)]
    for name in ATTEMPTS:
        code, message = answers[name]
        assert code == "rpc.MethodNotFound"
        assert message.startswith(f"there is no method {name!r}")
        rest = message.removeprefix(f"there is no method {name!r}")
        assert not [secret for secret in SECRETS if secret in rest]


@needs_root
async def test_hidden_methods_answer_as_others_do_where_nobody_may_know_anything(socket_path: Path) -> None:
    async with served(socket_path, Logs(), Shadow(), Ours()):
        _told, answers = await visited(socket_path)
    for name in ATTEMPTS:
        assert answers[name] == ("rpc.PermissionDenied", f"{name}: this caller is not admitted")


@needs_root
async def test_whoever_may_call_nothing_is_refused(socket_path: Path) -> None:
    async with served(socket_path, Ours(), Shadow()):
        told, _answers = await visited(socket_path)
    assert told == ["rpc.PermissionDenied", "rpc.discover: this caller is not admitted"]


async def test_callers_of_tests_are_told_what_they_would_be() -> None:
    async with memory_server([Logs(), Shadow()]) as server:
        for uid, names in (
            (4_242, ["Logs.names", "Logs.wipe"]),
            (0, ["Logs.names", "Logs.tap", "Logs.wipe", "Shadow.lurk"]),
        ):
            async with server.connect(caller=caller(uid=uid)) as connection:
                document = await connection.call("rpc.discover")
                assert [one["name"] for one in document["methods"]] == names
                assert [one["x-seqrpc"]["allowed"] for one in document["methods"]] == [
                    uid == 0 or name == "Logs.names" for name in names
                ]
                assert bool(document["x-seqrpc"]["interfaces"]) == (uid == 0)


async def test_a_worker_tells_what_it_does() -> None:
    async with seqrpc.Worker(WorkersDesk) as worker:
        document = await worker.call("rpc.discover")
    check_document(document)
    assert document["info"]["title"] == "Desk"
    assert "Desk.add" in [one["name"] for one in document["methods"]]
    assert all(one["x-seqrpc"]["allowed"] for one in document["methods"])


async def work(self: Any, name: str) -> None:
    """Work."""


async def test_documents_that_nobody_reads_are_bounded_as_other_answers_are() -> None:
    work.__doc__ = "Work.\n\n" + "Much is said of it. " * 2_000
    service = type("Long", (seqrpc.Service,), {"work": seqrpc.method(work)})
    ours, theirs = seqrpc.socket_pair()
    limits = seqrpc.Limits(max_unsent_bytes=100_000)
    async with asyncio.timeout(PATIENCE), seqrpc.serve(service(), sock=theirs, limits=limits) as server:
        with raw_client(ours) as client:
            for call_id in range(40):
                await client.send(0, call_id, "rpc.discover", [])
            await comes_true(lambda: server.stats().unsent_bytes > 100_000)
            await turns_of_the_loop(10)
            assert server.stats().unsent_bytes < 200_000
            codes = [None if error is None else error[0] for _kind, _id, error, _result in await answers_of(client, 40)]
    assert None in codes
    assert set(codes) <= {None, "rpc.Overloaded"}, "as many are refused as came before it read no more"


async def answers_of(client: RawClient, number: int) -> list[Any]:
    return [await client.receive() for _ in range(number)]
