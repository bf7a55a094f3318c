"""Whom a policy admits, without a server, and the same that a server says."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

import seqrpc
from seqrpc import policy
from seqrpc.testing import admits, caller, memory_server

ANN, BOB, ROOT = caller(uid=1001, groups=[4]), caller(uid=1002), caller(uid=0)
ME = caller(uid=os.geteuid())


class Base(seqrpc.Service, allow=policy.uid(1001)):
    @seqrpc.method
    async def plain(self) -> str:
        return ""

    @seqrpc.method(allow=policy.gid(4))
    def in_a_thread(self) -> str:
        return ""

    @seqrpc.method(allow=policy.root)
    async def stream(self) -> AsyncIterator[int]:
        yield 1

    async def unmarked(self) -> None: ...


class Derived(Base, name="org.example.Derived", allow=policy.uid(1002)):
    @seqrpc.method
    async def own(self) -> str:
        return ""


class Silent(seqrpc.Service):
    @seqrpc.method
    async def word(self) -> str:
        return ""


def fails(who: seqrpc.Credentials) -> bool:
    raise LookupError(who)


class Odd(seqrpc.Service, allow=fails):
    @seqrpc.method
    async def one(self) -> str:
        return ""

    @seqrpc.method(allow=lambda who: who.uid)  # answers no bool
    async def other(self) -> str:
        return ""


@pytest.mark.parametrize("who", [ANN, BOB, ROOT], ids=["ann", "bob", "root"])
async def test_it_says_what_a_server_says(who: seqrpc.Credentials) -> None:
    for service in (Base(), Derived(), Silent(), Odd()):
        for allow in (None, policy.anyone, policy.uid(1002)):
            async with memory_server(service, allow=allow) as server, server.connect(caller=who) as connection:
                for name in ("plain", "in_a_thread", "own", "word", "one", "other"):
                    if not hasattr(service, name):
                        continue
                    try:
                        await connection.call(f"{type(service).service_name}.{name}")
                    except seqrpc.PermissionDenied:
                        admitted = False
                    else:
                        admitted = True
                    told = admits(getattr(service, name), who, allow=allow)
                    assert told is admitted, (service, name, allow)


def test_a_method_may_be_told_in_several_ways() -> None:
    assert admits(Derived.own, BOB)
    assert not admits(Derived.own, ANN)
    assert admits(Base.in_a_thread, ANN)
    assert not admits(Base.in_a_thread, BOB)
    assert admits(Base.stream, ROOT)
    assert not admits(Base().stream, ANN)
    for name in ("own", "org.example.Derived.own"):
        assert admits(name, BOB, service=Derived)
        assert not admits(name, ANN, service=Derived())


def test_of_an_inherited_method_the_class_has_to_be_told() -> None:
    with pytest.raises(TypeError, match=r"Base\.plain is a method of Base, Derived, whose policies differ: write serv"):
        admits(Base.plain, ANN)
    assert admits(Base().plain, ANN)
    assert not admits(Derived().plain, ANN)
    assert admits(Base.plain, BOB, service=Derived)
    assert not admits(Base.plain, BOB, service=Base)
    assert admits("plain", BOB, service=Derived)


def test_classes_that_nobody_has_any_more_have_no_say() -> None:
    class Mother(seqrpc.Service, allow=policy.uid(1001)):
        @seqrpc.method
        async def word(self) -> None: ...

    def derive() -> None:
        class Daughter(Mother, allow=policy.anyone):
            pass

    derive()
    assert not admits(Mother.word, BOB)


def test_where_nothing_is_said_the_server_s_policy_holds_else_the_default() -> None:
    assert admits(Silent.word, ME)
    assert admits(Silent.word, ROOT)
    assert not admits(Silent.word, caller(uid=54_321))
    assert admits(Silent.word, BOB, allow=policy.uid(1002))
    assert admits(Silent.word, BOB, allow=lambda who: who.uid == 1002)
    assert not admits(Base.in_a_thread, BOB, allow=policy.anyone)


def test_nobody_is_never_admitted_and_a_policy_that_fails_admits_nobody(caplog: pytest.LogCaptureFixture) -> None:
    assert not admits(Silent.word, None, allow=policy.anyone)
    assert not admits(Odd.one, ANN)
    assert "the policy fails failed, which admits nobody" in caplog.text
    assert not admits(Odd.other, ANN)
    assert "answered 1001, not True or False, which admits nobody" in caplog.text


async def proxy_of(cls: Any) -> Any:
    async with memory_server(Silent(), allow=policy.anyone) as server, server.connect() as connection:
        return connection.proxy(cls)


async def test_what_is_no_method_is_told_with_a_way_out() -> None:
    proxy: Any = await proxy_of(Silent)
    mistaken: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (
            Base.unmarked,
            {},
            TypeError,
            "Base.unmarked is no method of a service that others may call: write Calculator",
        ),
        (Base().unmarked, {}, TypeError, r"Base\.unmarked is no method of Base that others may call: write Calculator"),
        (Silent.word, {"service": Base}, TypeError, r"Silent\.word is no method of Base that others may call"),
        (print, {}, TypeError, "print is no method of a service"),
        (5, {}, TypeError, "5 is no method of a service"),
        (proxy.word, {}, TypeError, "this is a method of a proxy, whose policy is at the other side: write Calculator"),
        ("word", {}, TypeError, "the method 'word' is of some service: write service=, its class"),
        ("wird", {"service": Silent}, ValueError, "Silent has no method 'wird' that others may call, but word"),
        ("word", {"service": 5}, TypeError, r"service= takes a class of seqrpc\.Service, or an object of one, got 5"),
        ("word", {"service": int}, TypeError, "service= takes a class"),
    ]
    for method, options, kind, text in mistaken:
        with pytest.raises(kind, match=text):
            admits(method, ANN, **options)
    who: Any = 1001
    with pytest.raises(TypeError, match=r"admits takes what seqrpc\.testing\.caller\(uid=\.\.\.\) returns, got 1001"):
        admits(Silent.word, who)
    with pytest.raises(TypeError, match="a policy, or a plain function"):
        admits(Silent.word, ANN, allow=who)
