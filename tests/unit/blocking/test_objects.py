from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.descriptors import is_open
from support.processes import in_child
from support.sync import Notes, Raw, Thread, far, is_free, raw_peer

import seqrpc
from seqrpc import blocking
from seqrpc.blocking import objects
from seqrpc.blocking.channels import Surroundings
from seqrpc.blocking.family import Family
from seqrpc.blocking.interceptors import NO_INTERCEPTION
from seqrpc.blocking.living import LivingValues
from seqrpc.blocking.objects import ObjectDeparture, let_go_of, revoke
from seqrpc.errors import WrongProcess
from seqrpc.interface.scope import EVERYWHERE, scope
from seqrpc.limits import DEFAULT_LIMITS
from seqrpc.protocol.values import EXT_CHANNEL


class Object(seqrpc.Service):
    """An object that notes its end."""

    def __init__(self, act: Callable[[], Any] = lambda: None) -> None:
        self.notes = Notes()
        self.act = act

    @seqrpc.method
    def hit(self) -> Any:
        return self.act()

    @seqrpc.method(allow=~seqrpc.policy.anyone)
    def forbidden(self) -> None: ...

    def close(self) -> None:  # type: ignore[override]
        self.notes.note("close")


class Derived(Object):
    """One that may be known as its base."""


def give(connection: blocking.Connection, raw: Raw, service: seqrpc.Service) -> Raw:
    """Give an object away in a call; return the raw end of its channel."""
    call_id = connection._line.session._next_id
    raw.send(1, call_id, None, None)
    connection.call("Other.take", service)
    message, end = raw.receive_end()
    assert message[3][0].code == EXT_CHANNEL
    return end


def ask(connection: blocking.Connection, end: Raw, method: str = "Object.hit") -> Any:
    end.send(0, 1, method, [])
    connection.process()
    _kind, _id, error, result = end.receive()
    return result if error is None else error[0]


@contextmanager
def given(service: seqrpc.Service) -> Iterator[tuple[blocking.Connection, Raw]]:
    """Yield a connection, and the end of the channel of an object that was given away over it."""
    with raw_peer() as (connection, raw):
        end = give(connection, raw, service)
        yield connection, end
        end.close()
        connection.process()
    assert not objects._known.held


# Holders


def test_holding_an_object_is_the_right_to_call_it() -> None:
    service = Object(lambda: 7)
    with given(service) as (connection, end):
        assert ask(connection, end) == 7
        assert ask(connection, end, "Object.forbidden") == "rpc.PermissionDenied"
        assert ask(connection, end, "Object.none") == "rpc.MethodNotFound"
        assert service.notes.what == []
    assert service.notes.what == ["close"]


def test_an_object_can_be_called_by_the_names_of_its_bases() -> None:
    with given(Derived(lambda: 7)) as (connection, end):
        assert ask(connection, end, "Object.hit") == 7
        assert ask(connection, end, "Derived.hit") == 7


def test_it_is_closed_when_the_last_of_several_lets_go() -> None:
    service = Object()
    with raw_peer() as (connection, raw), raw_peer() as (another, other_raw):
        ends = [give(connection, raw, service), give(connection, raw, service), give(another, other_raw, service)]
        ends[0].close()
        ends[2].close()
        connection.process()
        another.process()
        assert service.notes.what == []
        assert ask(connection, ends[1]) is None
        ends[1].close()
        connection.process()
        assert service.notes.what == ["close"]
        again = give(connection, raw, service)
        again.close()
        connection.process()
        assert service.notes.what == ["close", "close"]


def test_closing_the_connection_closes_what_was_given_away_over_it() -> None:
    service = Object()
    with raw_peer() as (connection, raw):
        end = give(connection, raw, service)
        connection.close()
        assert service.notes.what == ["close"]
        assert end.rest() == [[5, "the connection of its service ended"]]
        end.close()


def test_an_object_of_a_connection_that_is_dropped_is_closed() -> None:
    service = Object()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    raw = Raw(theirs)
    connection = blocking.connect(sock=ours)
    end = give(connection, raw, service)
    with pytest.warns(ResourceWarning, match="unclosed <Connection open"):
        del connection
    assert service.notes.what == ["close"]
    assert end.rest()[-1][0] == 5
    end.close()
    raw.close()


def test_what_needs_no_closing_is_let_go_in_silence() -> None:
    class Plain(seqrpc.Service):
        @seqrpc.method
        def hit(self) -> None: ...

    with given(Plain()) as (connection, end):
        assert ask(connection, end, "Plain.hit") is None
    let_go_of(Plain(), Family())


def test_a_close_that_fails_or_waits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Object):
        def close(self) -> None:  # type: ignore[override]
            raise ValueError("no")

    class Coroutine(Object):
        async def close(self) -> None:  # type: ignore[override]
            self.notes.note("closed")

    with given(Failing()):
        pass
    assert "closing" in caplog.text
    coroutine = Coroutine()
    with given(coroutine):
        pass
    assert coroutine.notes.what == ["closed"]


def test_close_runs_in_no_scope_and_without_locks() -> None:
    seen = Notes()

    class Looking(Object):
        def close(self) -> None:  # type: ignore[override]
            lock = objects._known.lock
            seen.note(scope.get() is EVERYWHERE)
            seen.note(Thread(lambda: is_free(lock)).result())

    with raw_peer() as (connection, raw):
        end = give(connection, raw, Looking())
        end.close()
        with seqrpc.timeout(100):
            while not seen.what:
                connection.process()
        assert seen.what == [True, True]


def test_close_waits_for_the_handlers_of_the_object() -> None:
    service = Object()

    with raw_peer() as (connection, raw):
        end = give(connection, raw, service)

        def act() -> str:
            end.close()
            connection.process()
            raw.send(1, 1, None, None)
            connection.call("Other.side")
            service.notes.note("handler ends")
            return "nobody gets it"

        service.act = act
        end.send(0, 1, "Object.hit", [])
        connection.process()
        assert service.notes.what == ["handler ends", "close"]


# Not sent


def new_departure(service: seqrpc.Service, notes: Notes) -> tuple[ObjectDeparture, Family]:
    family = Family()
    living = LivingValues(DEFAULT_LIMITS, family, NO_INTERCEPTION)
    around = Surroundings(DEFAULT_LIMITS, family, NO_INTERCEPTION, lambda _own: living)
    return ObjectDeparture(service, around, lambda: notes.note("dropped")), family


def test_one_that_is_not_sent_is_left_as_it_was() -> None:
    service, notes = Object(), Notes()
    departure, family = new_departure(service, notes)
    number = departure.fileno()
    departure.unsent()
    family.run_errands()
    assert notes.what == ["dropped"]
    assert not is_open(number)
    assert service.notes.what == []
    assert not objects._known.held


def test_one_that_was_given_away_and_is_not_sent_is_closed() -> None:
    service, notes = Object(), Notes()
    departure, family = new_departure(service, notes)
    departure.given_up()
    family.run_errands()
    assert service.notes.what == ["close"]
    let_go_of(service, family)
    family.run_errands()
    assert service.notes.what == ["close", "close"]


def test_one_that_cannot_leave_is_forgotten() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match=r"[Tt]oo many open files"):
            new_departure(Object(), Notes())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not objects._known.held


# Revoking


def test_revoking_takes_an_object_back_and_closes_it_at_once() -> None:
    service = Object()
    with given(service) as (connection, end):
        revoke(service)
        assert service.notes.what == ["close"]
        assert end.rest() == [[5, "the object was revoked"]]
        revoke(service)
        connection.process()
    assert service.notes.what == ["close"]


def test_a_holder_hears_that_it_was_revoked() -> None:
    class Giving(seqrpc.Service):
        @seqrpc.method
        def give(self) -> Any:
            return service

        @seqrpc.method
        def take_back(self) -> None:
            revoke(service)

    service = Object(lambda: 7)
    with far(Giving()) as (connection, _other):
        channel = connection.call("Giving.give")
        assert channel.call("Object.hit") == 7
        connection.call("Giving.take_back")
        with pytest.raises(seqrpc.Unavailable, match="the object was revoked"):
            channel.call("Object.hit")
        assert service.notes.what == ["close"]


def test_the_call_that_revokes_is_answered_and_the_object_closed_after_it() -> None:
    def act() -> str:
        revoke(service)
        revoke(service)
        service.notes.note("revoked")
        return "answer"

    service = Object(act)
    with raw_peer() as (connection, raw):
        end = give(connection, raw, service)
        other = give(connection, raw, service)
        end.send(0, 1, "Object.hit", [])
        connection.process()
        assert end.rest() == [[5, "the object was revoked"], [1, 1, None, "answer"]]
        assert other.rest() == [[5, "the object was revoked"]]
        assert service.notes.what == ["revoked", "close"]
        end.close()
        other.close()


def test_what_is_revoked_before_it_leaves_ends_when_it_does() -> None:
    service = Object()
    departure, family = new_departure(service, Notes())
    end = Raw(socket.socket(fileno=os.dup(departure.fileno())))
    revoke(service)
    departure.sent()
    family.run_errands()
    assert end.rest() == [[5, "the object was revoked"]]
    assert service.notes.what == ["close"]
    assert not family.pumps
    end.close()


def test_only_owners_revoke() -> None:
    with raw_peer() as (connection, _raw):
        with pytest.raises(TypeError, match="an object is revoked by its owner"):
            revoke(connection)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="an object is revoked by its owner"):
            revoke(connection.proxy(Object))
        with pytest.raises(TypeError):
            revoke(3)  # type: ignore[arg-type]


# Forks


def test_a_forked_child_holds_nothing_of_the_parents() -> None:
    service = Object(lambda: 7)
    with given(service) as (connection, end):

        def act() -> Any:
            try:
                revoke(service)
            except WrongProcess as exc:
                refusal = str(exc)
            with raw_peer() as (another, raw):
                mine = give(another, raw, service)
                assert ask(another, mine) == 7
                mine.close()
                another.process()
            connection.close()
            return refusal, service.notes.what

        refusal, closed = in_child(act)
        assert "what others hold of this object belongs to the process that made it" in refusal
        assert closed == ["close"]  # of what the child itself gave away
        assert ask(connection, end) == 7
        assert service.notes.what == []


def test_a_departure_is_closed_in_a_forked_child() -> None:
    departure, _family = new_departure(Object(), Notes())
    number = departure.fileno()
    assert in_child(lambda: is_open(number)) is False
    assert is_open(number)
    departure.unsent()
