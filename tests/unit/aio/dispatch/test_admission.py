"""Who may call what, asked before anything is converted."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from support.daemons import as_user, descriptor, needs_root, on_a_pair, raw_client
from support.dispatch import CONVERTED, Everything, Witness, open_count
from support.incidents import AN_INCIDENT
from support.waiting import PATIENCE, comes_true

import seqrpc
from seqrpc import policy
from seqrpc.aio.connection import link_of
from seqrpc.aio.link import Link


async def test_arguments_of_a_refused_caller_are_never_converted() -> None:
    CONVERTED.clear()
    async with on_a_pair(Everything(), allow=~policy.anyone) as connection:
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Everything.trace", {"word": "refused"})
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Everything.trace", 5)
    assert CONVERTED == []
    async with on_a_pair(Everything()) as connection:
        assert await connection.call("Everything.trace", {"word": "admitted"}) == "admitted"
    assert CONVERTED == ["admitted"]


@needs_root
async def test_another_user_is_refused_and_its_arguments_are_never_converted(socket_path: Path) -> None:
    CONVERTED.clear()
    socket_path.parent.chmod(0o755)
    program = "sock = connected(argv[0])\nshow([ask(sock, 0, 1, name, [{'word': 'other'}]) for name in argv[1:]])"
    async with seqrpc.serve(Everything(), socket_path, mode=0o666):
        answers = await as_user(program, socket_path, "Everything.trace", "Everything.nothing", "rpc.ping")
    assert [error and error[0] for error, _result in answers] == ["rpc.PermissionDenied", "rpc.PermissionDenied", None]
    assert CONVERTED == []


async def test_a_type_that_explodes_while_it_is_converted_costs_its_call_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with on_a_pair(Everything()) as connection:
        with pytest.raises(seqrpc.Internal) as caught:
            await connection.call("Everything.trace", {"word": "explode"})
        assert caught.value.message == AN_INCIDENT
        assert "KeyError: 'explode'" in caplog.text
        assert await connection.call("Everything.add", 1) == 111


async def test_a_policy_that_panics_refuses_and_costs_its_call_only(caplog: pytest.LogCaptureFixture) -> None:
    def panics(_caller: Any) -> bool:
        raise Witness("of the house")

    class Guarded(seqrpc.Service):
        @seqrpc.method(allow=panics)
        async def enter(self) -> None: ...

    async with on_a_pair(Guarded(), Everything()) as connection:
        with pytest.raises(seqrpc.PermissionDenied):
            await asyncio.wait_for(connection.call("Guarded.enter"), PATIENCE)
        assert "Witness: of the house" in caplog.text
        assert await connection.call("Everything.add", 1) == 111


async def test_refusals_are_logged_with_who_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seqrpc.dispatch")
    async with on_a_pair(Everything(), allow=~policy.anyone) as connection:
        with pytest.raises(seqrpc.PermissionDenied):
            await connection.call("Everything.add", 1)
    assert f"'Everything.add' refused to Credentials(pid={os.getpid()}" in caplog.text


@pytest.mark.parametrize(
    "method, params, reason",
    [
        ("Everything.nothing", [], "rpc.MethodNotFound: there is no method 'Everything.nothing'"),
        ("Forbidden.tell", [], "rpc.PermissionDenied: Forbidden.tell: this caller is not admitted"),
        ("Forbidden.nothing", [1] * 300, "rpc.PermissionDenied: Forbidden.nothing: this caller is not admitted"),
        ("x" * 10_000, [], f"rpc.MethodNotFound: there is no method '{'x' * 200}…'"),
    ],
    ids=["unknown", "refused", "hidden", "long"],
)
async def test_a_notify_that_is_refused_leaves_a_line_in_the_log(
    method: str, params: list[int], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Forbidden(seqrpc.Service, allow=~policy.anyone):
        @seqrpc.method(oneway=True)
        async def tell(self) -> None:
            raise AssertionError("nobody may call this")

    caplog.set_level(logging.DEBUG, "seqrpc.dispatch")
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve([Everything(), Forbidden()], sock=theirs):
        with raw_client(ours) as client:
            await client.send(2, method, params)
            await client.send(0, 1, "rpc.ping", [])
            assert await client.receive() == [1, 1, None, None]
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert f"! a NOTIFY is dropped: {reason}" in lines


async def test_so_does_one_that_comes_after_closing_was_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "seqrpc.dispatch")
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Everything(), sock=theirs) as server:
        with raw_client(ours) as client:
            await client.send(0, 1, "rpc.ping", [])
            assert await client.receive() == [1, 1, None, None]
            (connection,) = server.connections
            link_of(connection).answers.send_closing("going home")
            await client.send(2, "Everything.tell", ["never"])
            await client.send(0, 2, "rpc.ping", [])
            assert await client.receive() == [5, "going home"]
            refusal = ["rpc.Unavailable", "this side takes no new requests", None]
            assert await client.receive() == [1, 2, refusal, None]
    assert "a NOTIFY is dropped: rpc.Unavailable: this side takes no new requests" in caplog.text


async def test_a_connection_that_ends_while_a_policy_is_asked_owes_nothing_and_stops_what_begins(
    pipe: tuple[int, int],
) -> None:
    def hang_up(caller: seqrpc.Credentials) -> bool:
        (connection,) = server.connections
        link_of(connection).end_by(seqrpc.ConnectionLost("the policy wants it so"))
        links.append(link_of(connection))
        return True

    links: list[Link] = []
    service = Everything()
    ours, theirs = seqrpc.socket_pair()
    before = open_count() - 2
    async with seqrpc.serve(service, sock=theirs, allow=hang_up) as server:
        with raw_client(ours) as client:
            await client.send(0, 1, "Everything.wait", ["a", [descriptor(0)]], fds=[pipe[0]])
            assert await client.receive() is None
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()
        await comes_true(lambda: not links[0].session.requests)
        assert service.stage.reached in ([], ["a began", "a cancelled", "a ended"])
    assert len(links) == 1
    assert open_count() == before


async def test_a_policy_of_one_s_own_that_fails_ends_the_connection_of_who_asks_and_no_other(
    socket_path: Path, loop_errors: list[dict[str, Any]]
) -> None:
    """Rules that are combined of others fail by refusing; what replaces the whole question is not caught."""

    class Failing(policy.Policy):
        def admits(self, caller: seqrpc.Credentials | None) -> bool:
            raise LookupError("nobody is known here")

    class Guarded(seqrpc.Service):
        @seqrpc.method(allow=Failing())
        async def secret(self) -> None:
            raise AssertionError("nobody may call this")

    async with (
        seqrpc.serve([Everything(), Guarded()], socket_path) as server,
        seqrpc.connect(socket_path) as one,
        seqrpc.connect(socket_path) as other,
    ):
        with pytest.raises(seqrpc.ConnectionLost):
            await one.call("Guarded.secret")
        assert await other.call("Everything.add", 1) == 111
        assert len(server.connections) == 1
    assert [str(context["exception"]) for context in loop_errors] == ["nobody is known here"]
    loop_errors.clear()
