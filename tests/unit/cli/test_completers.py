"""What shells complete."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from support.desk import Desk
from support.sync import served

import seqrpc
from seqrpc.cli.call import command
from seqrpc.cli.completers import CHAIN, completes_addresses, completes_arguments, completes_files, completes_methods
from seqrpc.cli.offers import is_plain


def context(**params: Any) -> click.Context:
    ctx = click.Context(command)
    ctx.params.update(params)
    return ctx


def texts(items: Any) -> list[str]:
    return [item.value for item in items]


PARAM = command.params[0]


def test_addresses_are_those_that_listen_else_files(desk: Path) -> None:
    found = completes_addresses(context(), PARAM, str(desk)[:-2])
    assert texts(found) == [str(desk)]
    (rest,) = completes_addresses(context(), PARAM, "/nothing/here")
    assert (rest.value, rest.type) == ("/nothing/here", "file")


def test_methods_are_those_at_the_address(desk: Path) -> None:
    found = completes_methods(context(address=str(desk)), PARAM, "Desk.a")
    assert [(item.value, item.help) for item in found] == [("Desk.add", "Return the sum."), ("Desk.anything", "")]
    assert texts(completes_methods(context(address=str(desk)), PARAM, "Other.")) == ["Other.echo", "Other.only"]


def test_a_method_is_found_without_its_service(desk: Path) -> None:
    assert texts(completes_methods(context(address=str(desk)), PARAM, "on")) == ["only"]
    assert texts(completes_methods(context(address=str(desk)), PARAM, "ech")) == []  # there are two
    assert "add" not in texts(completes_methods(context(address=str(desk)), PARAM, ""))


@pytest.mark.parametrize(
    "rest, typed, expected",
    [
        (["--"], "", ["Box.look", "Box.put"]),
        (["--"], "l", ["look"]),
        (["--", "put"], "", ["text="]),
        (["--", "put", "x", "--"], "Box.l", ["Box.look"]),
        (["--", "nothing", "--"], "", []),
    ],
)
def test_after_a_call_of_a_chain_those_of_its_object_are_offered(
    desk: Path, rest: list[str], typed: str, expected: list[str]
) -> None:
    given = context(address=str(desk), method="box", args=("a",))
    given.meta[CHAIN] = rest
    assert texts(completes_arguments(given, PARAM, typed)) == expected


def test_open_files_are_for_the_parameters_that_take_them(desk: Path) -> None:
    given = context(address=str(desk), method="write")
    assert [(each.value, each.type) for each in completes_files(given, PARAM, "")] == [("file=", "open")]
    assert [(each.value, each.type) for each in completes_files(given, PARAM, "file=/x")] == [("/x", "file")]
    assert completes_files(context(address=str(desk), method="Desk.zzz"), PARAM, "") == []
    assert completes_files(context(address=str(desk)), PARAM, "") == []


def test_parameters_are_those_of_the_method_that_are_not_given(desk: Path) -> None:
    found = completes_arguments(context(address=str(desk), method="Desk.add", args=()), PARAM, "")
    assert [(item.value, item.help) for item in found] == [("a=", "int"), ("b=", "int")]
    found = completes_arguments(context(address=str(desk), method="add", args=("a=1",)), PARAM, "")
    assert texts(found) == ["b="]
    assert texts(completes_arguments(context(address=str(desk), method="told", args=()), PARAM, "po")) == ["point="]


@pytest.mark.parametrize(
    "typed, expected",
    [
        ("colour=", ["colour=red", "colour=blue"]),
        ("colour=b", ["colour=blue"]),
        ("yes=", ["yes=true", "yes=false"]),
        ("path=/x", ["/x"]),
        ("path=@/x", ["/x"]),
        ("@x", ["x"]),
        ("r", ["red"]),
        ("", ["red", "blue", "colour=", "bits=", "point=", "when=", "wait=", "path="]),
    ],
)
def test_values_are_those_that_there_are(desk: Path, typed: str, expected: list[str]) -> None:
    found = completes_arguments(context(address=str(desk), method="told", args=()), PARAM, typed)
    assert texts(found)[: len(expected)] == expected
    assert found[0].type == {"path=/x": "file", "path=@/x": "content", "@x": "content"}.get(typed, "plain")


def test_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[object] = []
    monkeypatch.setattr("seqrpc.cli.places._started", lambda *args: begun.append(args))
    monkeypatch.setattr("seqrpc.cli.ssh.through_ssh", lambda *args: begun.append(args))
    for address in ("exec:x", "ssh://localhost/x"):
        assert completes_methods(context(address=address), PARAM, "") == []
    assert begun == []


def test_no_value_that_is_offered_stands_for_a_file(socket_path: Path) -> None:
    class Evil(seqrpc.Service):
        @seqrpc.method
        async def run(self, text: Literal["@/etc/passwd", "-", "--save", "text=@/etc/passwd", "x"]) -> None: ...

    with served(socket_path, Evil()):
        given = context(address=str(socket_path), method="run")
        found = {typed: texts(completes_arguments(given, PARAM, typed)) for typed in ("text=", "", "@", "te")}
    assert found["text="] == ["text=@@/etc/passwd", "text=--save", "text=text=@/etc/passwd", "text=x"]
    assert found[""] == ["@@/etc/passwd", "x", "text="]
    assert found["@"] == [""]  # the path that is typed
    assert found["te"] == ["text="]


@pytest.mark.parametrize("params", [{}, {"address": "/nothing/here"}, {"address": "exec:false"}, {"address": "exec:"}])
def test_without_a_description_nothing_is_offered(params: Any) -> None:
    assert completes_methods(context(**params), PARAM, "") == []
    assert completes_arguments(context(**params, method="x"), PARAM, "") == []


def test_of_an_unknown_method_nothing_is_offered(desk: Path) -> None:
    assert completes_arguments(context(address=str(desk), method="Desk.zzz"), PARAM, "") == []
    assert completes_arguments(context(address=str(desk)), PARAM, "") == []


def test_who_does_not_answer_is_not_waited_for_long(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrpc.cli.completers.SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(socket_path))
        sock.listen()
        assert completes_methods(context(address=str(socket_path)), PARAM, "") == []


@pytest.mark.parametrize("text", ["a b", "--exec=x", "-h", "$(id)", "`id`", "a;b", "a\nb", "é", "a'b", "\x1b"])
def test_what_a_shell_would_obey_is_not_offered(text: str) -> None:
    assert not is_plain(text)


def test_names_that_a_shell_would_obey_are_left_out(socket_path: Path) -> None:
    class Evil(seqrpc.Service, name="E$(id)"):
        @seqrpc.method
        async def run(self) -> None: ...

    with served(socket_path, [Evil(), Desk()]):
        assert texts(completes_methods(context(address=str(socket_path)), PARAM, "E")) == []


def test_an_option_without_its_value_leaves_what_stands_before_it() -> None:
    ctx = command.make_context("call", ["desk.sock", "add", "--timeout"], resilient_parsing=True)
    assert (ctx.params["address"], ctx.params["method"]) == ("desk.sock", "add")
    with pytest.raises(click.BadOptionUsage):
        command.make_context("call", ["desk.sock", "add", "--timeout"])
