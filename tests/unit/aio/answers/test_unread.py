"""Peers that ask more than they read."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from support.descriptors import owned
from support.link import next_message, one_end, raises
from support.packets import wire
from support.waiting import comes_true, turns_of_the_loop

from seqrpc import (
    ConnectionLost,
    InvalidResult,
    Overloaded,
)
from seqrpc.aio.transport import carrier_of
from seqrpc.interface.planning import plan
from seqrpc.interface.results import ResultCheck
from seqrpc.limits import Limits


@pytest.mark.parametrize("refused", [False, True])
async def test_a_peer_that_does_not_read_its_answers_is_not_read_from(refused: bool) -> None:
    async with one_end() as (end, raw):
        if refused:
            end.answers.send_closing("no more")
        else:
            end.handler.on_request = end.handler.echo
        end.jam()
        raw.send(wire(2, "m", []))
        await turns_of_the_loop()
        assert end.transport.is_reading(), "that one wants no answer"
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: not end.transport.is_reading())
        for call_id in range(2, 20):
            raw.send(wire(0, call_id, "m", []))
        await turns_of_the_loop()
        queued = end.transport.get_write_buffer_packets()
        assert end.connection.session.requests == {}

        answers: list[int] = []
        while len(answers) < 19:  # it reads again, and is read from again
            message = await next_message(raw)
            if message[0] == 1:
                answers.append(message[1])
        assert answers == list(range(1, 20))
        assert end.transport.is_reading()
        assert queued <= 4


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_peer_that_owes_answers_itself_is_cut_off_once_it_leaves_too_many_unread(given_up: bool) -> None:
    async with one_end(Limits(max_unsent_bytes=200_000, max_message_bytes=65_536)) as (end, raw):
        end.handler.on_request = end.handler.echo
        call = end.call("m")
        await next_message(raw)
        if given_up:
            call.cancel()
        await turns_of_the_loop()
        end.jam()
        for call_id in range(500):  # the large answers are bounded, and so are the short refusals that follow them
            assert end.transport.is_reading()
            raw.send(wire(0, call_id, "m", [b"x" * 60_000]))
            await turns_of_the_loop()
            if end.connection.closed:
                break
        assert end.connection.closed
        if not given_up:
            await raises(ConnectionLost, call, r"left \d+ bytes of answers unread")


@pytest.mark.parametrize("how", ["pipe", "reset"])
@pytest.mark.parametrize("refused", [False, True])
async def test_a_peer_that_dies_with_answers_unread_and_requests_unanswered_is_lost(how: str, refused: bool) -> None:
    async with one_end() as (end, raw):
        end.handler.on_request = end.handler.echo
        if refused:
            end.answers.send_closing("no more")
        end.jam()
        assert end.transport.is_reading()
        waiting = end.call("m")
        await turns_of_the_loop()
        for _ in range(70):  # more than a wake-up: what comes last is read when nothing can be sent any more
            raw.send(wire(99))
        raw.send(wire(0, 1, "m", []))
        if how == "pipe":
            raw.shutdown(socket.SHUT_RD)
            carrier_of(end.transport).writable()
        else:
            raw.close()
        await comes_true(lambda: end.connection.closed)
        await raises(ConnectionLost, waiting)
        assert len(end.handler.requests) == (not refused), "what came before is read"


# Answers that nobody reads


async def test_results_that_find_too_much_unread_are_refused_before_they_are_encoded() -> None:
    class Uncodable:
        """Fails whoever encodes it."""

    async with one_end(Limits(max_unsent_bytes=300_000)) as (end, raw):
        for call_id in range(20):
            raw.send(wire(0, call_id, "m", []))
        await comes_true(lambda: len(end.handler.requests) == 20)
        end.jam()
        refused = 0
        for call_id in range(20):
            try:
                end.answers.send_result(call_id, b"x" * 50_000)
            except Overloaded:
                refused += 1
                with pytest.raises(
                    Overloaded, match=r"\d+ bytes of answers are not read yet \(max_unsent_bytes\)$"
                ) as exc:
                    end.answers.send_result(call_id, Uncodable())
                end.answers.send_error(call_id, exc.value.code, exc.value.message)
        assert 0 < refused < 20
        assert end.transport.get_write_buffer_size() < 300_000 + 65_536 + 20 * 200
        answers: dict[int, Any] = {}
        while len(answers) < 20:
            message = await next_message(raw)
            if message[0] == 1:
                answers[message[1]] = message[2]
        assert [error and error[0] for error in answers.values()].count("rpc.Overloaded") == refused
        assert end.connection.session.requests == {}


async def test_nothing_that_is_short_is_refused_for_what_is_unread() -> None:
    async with one_end(Limits(max_unsent_bytes=1)) as (end, raw):
        raw.send(wire(0, 0, "m", []))
        raw.send(wire(0, 1, "m", []))
        raw.send(wire(0, 2, "m", []))
        await comes_true(lambda: len(end.handler.requests) == 3)
        end.jam()
        end.answers.send_result(0, None)
        end.answers.send_error(1, "a.Code", "x" * 10_000, b"x" * 60_000)
        end.answers.send_error(2, "c" * 10_000, "", None)
        answers: list[Any] = []
        while len(answers) < 3:
            message = await next_message(raw)
            if message[0] == 1:
                answers.append(message)
        assert answers == [
            [1, 0, None, None],
            [1, 1, ["a.Code", "x" * 200, None], None],
            [1, 2, ["rpc.Overloaded", "", None], None],
        ]


async def test_errors_are_whole_while_little_is_unread() -> None:
    async with one_end() as (end, raw):
        raw.send(wire(0, 0, "m", []))
        await comes_true(lambda: len(end.handler.requests) == 1)
        end.jam()
        end.answers.send_error(0, "a.Code", "x" * 1_000, [1])
        while (message := await next_message(raw))[0] != 1:
            pass
        assert message == [1, 0, ["a.Code", "x" * 1_000, [1]], None]


@pytest.mark.parametrize("answer", ["wrong", "x" * 50_000], ids=["short", "long"])
async def test_a_result_that_does_not_fit_is_told_to_be_so_also_while_nobody_reads(answer: str) -> None:
    """Whose fault it is does not depend on the peer."""
    async with one_end(Limits(max_unsent_bytes=1)) as (end, raw):
        raw.send(wire(0, 1, "m", []))
        await comes_true(lambda: bool(end.handler.requests))
        end.jam()
        with pytest.raises(InvalidResult, match=r"S\.m"):
            end.answers.send_result(1, answer, ResultCheck("S.m", plan(int)))
        assert set(end.connection.session.requests) == {1}, "it is still to be answered"
        end.answers.send_result(1, None, ResultCheck("S.m", plan(None)))
        while (message := await next_message(raw))[0] != 1:
            pass
        assert message == [1, 1, None, None]


async def test_the_data_of_an_error_that_finds_too_much_unread_is_given_up() -> None:
    async with one_end(Limits(max_unsent_bytes=1)) as (end, _raw):
        end.jam()
        with owned(1) as fds:
            (fd,) = fds
            end.answers.send_error(1, "a.Code", "text", [fd])
            assert fd.closed
