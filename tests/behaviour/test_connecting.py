"""Connecting, whom to, and what is refused before anything is sent; interceptors and services of a client."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from support.echo import Echo
from support.faces import Kind
from support.outcomes import outcome_of

import seqrpc
from seqrpc import policy


async def test_paths_names_pairs_and_inherited_sockets(kind: Kind, socket_path: Path) -> None:
    async with seqrpc.serve(Echo(), socket_path):
        for address in (socket_path, str(socket_path)):
            async with kind.connected(address) as client:
                assert await client.call("Echo.give", 1) == 1
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(os.fspath(socket_path))
        async with kind.connected(sock=sock) as client:
            assert await client.call("Echo.give", 2) == 2
    name = f"@seqrpc-behaviour-{os.getpid()}"
    async with seqrpc.serve(Echo(), name), kind.connected(name) as client:
        assert await client.call("Echo.give", 3) == 3
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Echo(), sock=theirs), kind.connected(f"fd:{ours.detach()}") as client:
        assert await client.call("Echo.give", 4) == 4


async def refusals(kind: Kind, path: Path) -> list[Any]:
    """Return what is seen of connects that fail."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ours, theirs = seqrpc.socket_pair()
    file = path.with_name("file")
    file.touch()
    ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((path.with_name("missing.sock"),), {}),
        ((file,), {}),
        (("@a-name-that-nobody-has",), {}),
        ((), {}),
        (("fd:x",), {}),
        (("",), {}),
        (("systemd:nothing",), {}),
        ((path,), {"sock": ours}),
        ((), {"sock": stream}),
        ((path,), {"server": policy.uid(4242)}),
        ((path,), {"server": "root"}),
        ((path,), {"limits": 5}),
        ((path,), {"services": Echo}),
        ((path,), {"services": [Echo(), Echo()]}),
        ((path,), {"services": 5}),
        ((path,), {"allow": "root"}),
        ((path,), {"interceptors": 5}),
        ((path,), {"interceptors": [5]}),
    ]

    class _Nothing:
        def __init__(self, kind: Kind) -> None:
            self.kind = kind

    seen = []
    async with seqrpc.serve(Echo(), path):
        for args, options in ways:
            seen.append(await outcome_of(_Nothing(kind), lambda _c, a=args, o=options: kind.connect(*a, **o)))  # type: ignore[arg-type,misc]
    for end in (stream, ours, theirs):
        end.close()
    return seen


async def test_what_cannot_be_connected_says_why_alike(both: tuple[Kind, Kind], socket_path: Path) -> None:
    one, other = [await refusals(kind, socket_path) for kind in both]
    for mine, theirs in zip(one, other, strict=True):
        text = repr(theirs).replace("a seqrpc.blocking.Interceptor", "a seqrpc.Interceptor")
        assert repr(mine) == text


async def test_the_server_is_looked_at_before_a_byte_is_sent(kind: Kind, socket_path: Path) -> None:
    async with seqrpc.serve(Echo(), socket_path):
        for rule in (policy.same_user, policy.uid(os.geteuid()), lambda who: who.pid == os.getpid()):
            async with kind.connected(socket_path, server=rule) as client:
                assert await client.call("Echo.give", 1) == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(socket_path.with_name("other.sock")))
        listener.listen()
        with pytest.raises(seqrpc.UntrustedServer, match=r"server=uid\(4242\) does not admit who listens there"):
            await kind.connect(socket_path.with_name("other.sock"), server=policy.uid(4242))
        accepted, _address = listener.accept()
        with accepted:
            assert accepted.recv(100) == b""
    ours, theirs = seqrpc.socket_pair()
    with theirs:
        with pytest.raises(seqrpc.UntrustedServer, match="sock=: server=uid"):
            await kind.connect(sock=ours, server=policy.uid(4242))
        assert theirs.recv(100) == b""


class Guest(seqrpc.Service):
    @seqrpc.method
    async def answer(self, question: str) -> str:
        return question


async def test_interceptors_surround_what_is_called_and_what_is_asked_of_us(both: tuple[Kind, Kind]) -> None:
    seen = []
    for kind in both:
        lines: list[str] = []
        around = [kind.diary("outer", lines), kind.diary("inner", lines)]
        async with kind.serving(Echo(), services=Guest(), interceptors=around) as client:
            assert await client.call("Echo.give", 5) == 5
            assert await client.proxy(Echo).give(6) == 6
            await client.notify("Echo.tell", "x")
            assert await client.call("Echo.ask_back", "a") == "the guest says: a"
            with pytest.raises(seqrpc.MethodNotFound):
                await client.call("Echo.nothing")
            with pytest.raises(seqrpc.DeadlineExceeded):
                async with kind.timeout(0):
                    await client.call("Echo.give", 1)
        seen.append(lines)
    assert seen[0] == seen[1]
    assert "outer = Guest.answer: None" in seen[0]


class Asker(seqrpc.Service):
    @seqrpc.method
    async def ask(self, methods: list[str]) -> list[Any]:
        seen: list[Any] = []
        for method in methods:
            try:
                seen.append(await seqrpc.current_call().connection.call(method, "x"))
            except seqrpc.RpcError as exc:
                seen.append([exc.code, exc.message])
        return seen


class Host(seqrpc.Service):
    @seqrpc.method(allow=~policy.anyone)
    async def secret(self, what: str) -> str:
        return what

    @seqrpc.method
    async def number(self, what: int) -> int:
        return what

    @seqrpc.method
    async def wrong(self, what: str) -> int:
        return what  # type: ignore[return-value]

    @seqrpc.method
    def plain(self, what: str) -> str:
        return what

    @seqrpc.method(allow=policy.anyone)
    async def fails(self, what: str) -> None:
        raise seqrpc.RpcError(what, code="host.Failed")

    @seqrpc.method(allow=policy.anyone)
    async def odd(self, what: str) -> Any:
        return object()


async def test_a_client_serves_what_its_policies_admit_alike(both: tuple[Kind, Kind]) -> None:
    methods = [f"Host.{name}" for name in ("secret", "number", "plain", "fails", "nothing")]
    seen = []
    for kind in both:
        async with kind.serving(Asker(), services=Host()) as client:
            seen.append(await client.call("Asker.ask", [*methods, "Guest.answer", "rpc.nothing"]))
            odd = await client.call("Asker.ask", ["Host.wrong", "Host.odd"])
            assert [code for code, _message in odd] == ["rpc.Internal"] * 2
    assert seen[0] == seen[1]
    assert seen[0][2] == "x"
