"""Nobody is talked into taking somebody for another one: at an address, on a pair of serve's, by whatever comes in."""

from __future__ import annotations

import ast
import functools
import inspect
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.daemons import as_user, needs_root, raw_client
from support.processes import OTHER_GID, OTHER_UID
from support.waiting import PATIENCE

import seqrpc
from seqrpc import policy
from seqrpc.aio.connection import link_of
from seqrpc.aio.interception import Interception
from seqrpc.aio.packets import SeqpacketProtocol
from seqrpc.aio.server import hub_of
from seqrpc.limits import DEFAULT_LIMITS
from seqrpc.testing import caller, memory_server
from seqrpc.testing.pretending import open_as

PACKAGE = Path(seqrpc.__file__).parent
ANN = caller(uid=4_242, gid=4_242, groups=[4_242])

DEBIANS = "/usr/bin/python3"
"""Which other users may run, and which has nothing of this project's."""


class Safe(seqrpc.Service, allow=policy.uid(4_242)):
    @seqrpc.method
    async def open(self) -> str:
        return "the money"

    @seqrpc.method(allow=policy.anyone)
    async def who(self) -> list[int | None]:
        who = seqrpc.current_call().caller
        return [who.uid, who.gid]

    @seqrpc.method(allow=policy.anyone)
    async def box(self) -> Box:
        return Box()


class Box(seqrpc.Service, allow=policy.uid(4_242)):
    @seqrpc.method
    async def open(self) -> str:
        return "more money"


# By an address


@pytest.mark.parametrize("pass_credentials", [False, True])
async def test_at_an_address_a_socket_cannot_be_opened_as_somebody(socket_path: Path, pass_credentials: bool) -> None:
    async with seqrpc.serve(Safe(), socket_path, pass_credentials=pass_credentials) as server:
        listening = server.sockets[0]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(os.fspath(socket_path))
            hub = hub_of(server)
            for sock in (client, socket.socket(fileno=os.dup(client.fileno()))):  # what connected
                with pytest.raises(ValueError, match="nobody can pretend to be another one at an address"):
                    open_as(ANN, sock, hub.new_link(), DEFAULT_LIMITS)
                assert sock.fileno() == -1
        assert listening.fileno() >= 0


async def test_nor_can_one_that_was_accepted(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(os.fspath(socket_path))
        listening.listen()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(os.fspath(socket_path))
            accepted, _address = listening.accept()
            with pytest.raises(ValueError, match="at an address"):
                open_as(ANN, accepted, SeqpacketProtocol(), DEFAULT_LIMITS)
            assert accepted.fileno() == -1


async def test_nor_one_of_a_pair_whose_other_end_was_given_a_name(socket_path: Path) -> None:
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        theirs.bind(os.fspath(socket_path))
        with pytest.raises(ValueError, match="at an address"):
            open_as(ANN, ours, SeqpacketProtocol(), DEFAULT_LIMITS)


async def test_a_server_that_pretends_has_no_address_and_cannot_get_one(socket_path: Path) -> None:
    with pytest.raises(TypeError, match="positional"):
        memory_server(Safe(), socket_path)  # type: ignore[call-arg,arg-type]
    for name in ("sock", "address"):
        with pytest.raises(TypeError, match="unexpected keyword"):
            memory_server(Safe(), **{name: socket_path})  # type: ignore[arg-type]
    async with memory_server(Safe()) as server:
        assert (server.address, server.sockets) == (None, ())


async def test_objects_of_a_server_at_an_address_are_called_by_whom_the_kernel_says(socket_path: Path) -> None:
    async with seqrpc.serve(Safe(), socket_path) as server, seqrpc.connect(socket_path) as connection:
        box = await connection.proxy(Safe).box()
        with pytest.raises(seqrpc.PermissionDenied):
            await box.open()
        assert {link_of(each).peer for each in server.connections} == {
            seqrpc.Credentials(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
        }


# By what one can write


PUBLIC: list[Callable[..., Any]] = [
    seqrpc.serve,
    seqrpc.run,
    seqrpc.connect,
    seqrpc.create_server,
    seqrpc.create_connection,
    seqrpc.SeqpacketTransport,
    seqrpc.socket_pair,
]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda function: function.__name__)
def test_no_public_function_takes_anybody_s_credentials(function: Callable[..., Any]) -> None:
    for name, parameter in inspect.signature(function).parameters.items():
        assert "Credentials" not in str(parameter.annotation), name
        assert name not in ("caller", "peer", "opens")
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)


async def test_what_carries_the_pretence_is_no_interceptor(socket_path: Path) -> None:
    pretence: Any = Interception((), functools.partial(open_as, ANN))
    for given in (pretence, [pretence]):
        with pytest.raises(TypeError, match=r"interceptors=|an object of a seqrpc\.Interceptor was expected"):
            await seqrpc.serve(Safe(), socket_path, interceptors=given)


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == name:
            yield node


def test_only_here_is_another_word_taken_than_the_kernel_s() -> None:
    saying, opening, importing = set(), set(), set()
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        saying |= {name for call in calls(tree, "Carrier") if "peer" in {each.arg for each in call.keywords}}
        opening |= {name for call in calls(tree, "Interception") if len(call.args) > 1 or call.keywords}
        importing |= {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seqrpc.testing")
        }
    assert saying == {"testing/pretending.py"}
    assert opening == {"testing/memory.py"}
    assert {name for name in importing if not name.startswith("testing/")} == set()


# By what comes in


ATTACK = """
import json, os, socket, struct, sys

def packed(call, method, meta):
    def text(word):
        return bytes([0xD9, len(word)]) + word.encode()
    options = b"\\x81" + text("meta") + bytes([0x80 + len(meta)]) + b"".join(text(k) + text(v) for k, v in meta.items())
    return b"\\x95\\x00" + bytes([call]) + text(method) + b"\\x90" + options

def answer(sock):
    data = sock.recv(65536)
    return "permission" if b"rpc.PermissionDenied" in data else "money" if b"money" in data else "other"

sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if sys.argv[2]:
    sock.bind(sys.argv[2].replace("@", "\\0"))
sock.connect(sys.argv[1])
said = []
sock.send(packed(1, "Safe.open", {"uid": "4242", "caller": "4242", "SEQRPC_CALLER": "4242"}))
said.append(answer(sock))
for pid, uid, gid in ((os.getpid(), 4242, 4242), (1, 0, 0)):
    try:
        ucred = struct.pack("3i", pid, uid, gid)
        sock.sendmsg([packed(2, "Safe.open", {"a": "b"})], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, ucred)])
        said.append(answer(sock))
    except PermissionError:
        said.append("the kernel says no")
print(json.dumps([os.geteuid(), said]))
"""


@asynccontextmanager
async def served_to_all(path: Path, **options: Any) -> AsyncIterator[None]:
    path.parent.chmod(0o755)
    async with seqrpc.serve(Safe(), path, mode=0o666, **options):
        yield


@needs_root
@pytest.mark.skipif(not os.path.exists(DEBIANS), reason="another user needs a Python that it may run")
@pytest.mark.parametrize("pass_credentials", [False, True])
@pytest.mark.parametrize("name", ["", "@4242", "@seqrpc.testing"])
async def test_another_user_who_claims_to_be_somebody_is_not_believed(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pass_credentials: bool
) -> None:
    import asyncio
    import json

    for variable in ("SEQRPC_CALLER", "SEQRPC_TESTING", "SEQRPC_PEER", "SEQRPC_UID"):
        monkeypatch.setenv(variable, "4242")
    become = ["setpriv", f"--reuid={OTHER_UID}", f"--regid={OTHER_GID}", "--clear-groups", DEBIANS, "-I", "-c", ATTACK]
    name = name and f"{name}.{os.getpid()}"  # suites run at the same time
    async with (
        served_to_all(socket_path, pass_credentials=pass_credentials),
        memory_server(Safe()) as beside,
        beside.connect(caller=ANN) as ann,  # which changes nothing for others
    ):
        assert await ann.proxy(Safe).open() == "the money"
        child = await asyncio.create_subprocess_exec(
            *become, os.fspath(socket_path), name, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE):
            out, complaints = await child.communicate()
    assert child.returncode == 0, complaints.decode()
    uid, said = json.loads(out)
    assert uid == OTHER_UID
    assert said == ["permission", "the kernel says no", "the kernel says no"]


@needs_root
async def test_it_is_seen_as_who_it_is(socket_path: Path) -> None:
    async with served_to_all(socket_path):
        program = "sock = connected(argv[0])\nshow(ask(sock, 0, 1, 'Safe.who', [], {'meta': {'uid': '4242'}}))"
        assert await as_user(program, socket_path) == [None, [OTHER_UID, OTHER_GID]]


@needs_root
async def test_on_a_pair_of_serve_s_the_kernel_s_word_counts_too() -> None:
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Safe(), sock=ours):
        with raw_client(theirs) as client:
            await client.send(0, 1, "Safe.who", [], {"meta": {"uid": "4242"}})
            assert await client.receive() == [1, 1, None, [os.geteuid(), os.getegid()]]
            await client.send(0, 2, "Safe.open", [])
            assert (await client.receive())[2][0] == "rpc.PermissionDenied"


@needs_root
async def test_on_a_pretending_pair_what_comes_in_changes_nothing() -> None:
    async with memory_server(Safe()) as server:
        with raw_client(server.open_socket(caller=caller(uid=7, gid=7))) as client:
            for number, (uid, gid) in enumerate([(0, 0), (4_242, 4_242)]):  # which root may claim
                claim = struct.pack("3i", os.getpid(), uid, gid)
                message = msgpack.packb([0, number, "Safe.who", []])
                client.sock.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, claim)])
                assert await client.receive() == [1, number, None, [7, 7]]
