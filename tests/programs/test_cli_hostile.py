"""What servers may send that mean harm: it moves no terminal, takes no memory to speak of, and is told on one line."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import at_terminal, seqrpc_command, started, terminal
from support.emulator import Emulator
from support.hostile_server import CONTROL, EVIL, error, server
from support.sync import Thread, served
from support.waiting import PATIENCE

import seqrpc


def described(*methods: Any, **more: Any) -> dict[str, Any]:
    return {
        "openrpc": "1.3.2",
        "info": {"title": EVIL, "version": EVIL, "description": EVIL},
        "methods": list(methods),
        "components": {"schemas": {}},
        "x-seqrpc": {"services": [{"name": f"A{EVIL}", "description": EVIL}], "interfaces": {}},
        **more,
    }


def method(name: str, schema: Any = None, param: str = "p") -> dict[str, Any]:
    return {
        "name": name,
        "summary": EVIL,
        "description": EVIL,
        "params": [{"name": param, "required": True, "schema": schema or {"type": "string", "default": EVIL}}],
        "result": {"name": "result", "schema": {"enum": [EVIL]}},
        "errors": [{"code": -32000, "message": EVIL, "x-seqrpc": {"code": EVIL, "description": EVIL}}],
        "x-seqrpc": {"rule": EVIL, "allowed": False},
    }


DOCUMENT = described(method(f"A{EVIL}.m{EVIL}"), method("A.import", param=f"x{EVIL}"), method("A.ok", {"enum": [EVIL]}))

CALLS: list[tuple[tuple[str, ...], Any]] = [
    (("call", "{path}", "A.x"), [None, EVIL]),
    (("call", "{path}", "A.x"), [None, {EVIL: [EVIL, EVIL.encode(), {EVIL: EVIL}]}]),
    (("call", "{path}", "A.x", "--json"), [None, {EVIL: [EVIL]}]),
    (("call", "{path}", "A.x", "--raw"), [None, EVIL]),
    (("call", "{path}", "A.x"), [None, EVIL.encode()]),
    (("call", "{path}", "A.x"), error(EVIL, EVIL)),
    (("call", "{path}", "A.x"), error("rpc.PermissionDenied", EVIL)),
    (("call", "{path}", "ok", "x"), [None, EVIL]),
    (("call", "{path}", "ok"), [None, EVIL]),
    (("call", "{path}", "A.import", "y=1"), [None, EVIL]),
    (("call", "{path}", "mm"), [None, EVIL]),
    (("describe", "{path}"), None),
    (("describe", "{path}", "A.import"), None),
    (("describe", "{path}", "x"), None),
    (("list", "{path}"), None),
    (("list", "{path}", "--json"), None),
    (("stub", "{path}"), None),
    (("stub", "{path}", "--check", "{file}"), None),
    (("docs", "{path}", "-o", "{file}"), None),
    (("docs", "{path}"), None),
    (("diff", "support.desk:Desk", "{path}"), None),
    (("diff", "{path}", "support.desk:Desk"), None),
    (("call", "{path}", "--shell"), [None, EVIL]),
]


def words_of(args: tuple[str, ...], path: Path, directory: Path) -> list[str]:
    return [arg.format(path=path, file=directory / "file") for arg in args]


@pytest.mark.parametrize("args, answer", CALLS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
@pytest.mark.parametrize("document", [DOCUMENT, None], ids=["described", "undescribed"])
def test_a_terminal_is_what_it_was_whatever_a_server_sends(
    socket_path: Path, tmp_path: Path, args: tuple[str, ...], answer: Any, document: Any
) -> None:
    def respond(called: str, _params: Any) -> Any:
        if called == "rpc.discover":
            return [None, document] if document is not None else error("rpc.MethodNotFound", EVIL)
        return answer if answer is not None else error(EVIL, EVIL)

    (tmp_path / "file").touch()
    with server(socket_path, respond), terminal(*words_of(args, socket_path, tmp_path)) as opened:
        if "--shell" in args:
            opened.type("methods\nA.x\nhelp\nzzz\nA.import x\nexit\n")
        opened.end()
        assert opened.after == opened.before
        emulator = Emulator(is_prompt="--shell" in args).feed(opened.seen)
        assert emulator.is_as_before()
        if args[0] == "list" or (answer and answer[0]):  # where a line break would make a line of its own of a text
            assert not [line for line in emulator.lines if line.startswith("forged: ")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("words", [("call", "{path}", ""), ("call", "{path}", "A.ok", ""), ("describe", "{path}", "A")])
def test_completion_offers_nothing_that_a_terminal_or_a_shell_obeys(
    socket_path: Path, shell: str, words: tuple[str, ...]
) -> None:
    typed = ["seqrpc", *(word.format(path=socket_path) for word in words)]
    env = {"_SEQRPC_COMPLETE": f"{shell}_complete", "COMP_WORDS": ("\n" if shell == "bash" else " ").join(typed)}
    env["COMP_CWORD"] = words[-1] if shell == "fish" else str(len(typed) - 1)
    with server(socket_path, lambda _called, _params: [None, DOCUMENT]), terminal(env=env) as opened:
        assert opened.end() == 0
        assert opened.after == opened.before
        emulator = Emulator().feed(opened.seen.replace(b"\t", b" "))  # which is for fish
    assert emulator.is_as_before()
    offered = " ".join(emulator.lines)
    assert "A.ok" in offered or "p=" in offered or "A.import" in offered
    assert "A\\" not in offered.replace("\\x", "")


@pytest.mark.parametrize("args, answer", CALLS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_pipe_gets_what_programs_read(socket_path: Path, tmp_path: Path, args: tuple[str, ...], answer: Any) -> None:
    is_as_it_is = args in (("stub", "{path}"), ("docs", "{path}")) or "--raw" in args or "--shell" in args
    if is_as_it_is or (answer and answer[1] == EVIL.encode()):
        pytest.skip("that is as it is, or no data")

    def respond(called: str, _params: Any) -> Any:
        return [None, DOCUMENT] if called == "rpc.discover" else answer if answer is not None else error(EVIL, EVIL)

    (tmp_path / "file").touch()
    with server(socket_path, respond):
        done = seqrpc_command(*words_of(args, socket_path, tmp_path))
    assert CONTROL.findall(done.out) == []
    assert CONTROL.findall(done.err) == []
    assert done.err.count("\n") <= 1
    if "--check" not in args:  # which shows what differs
        for line in done.out.splitlines():
            json.loads(line)


def test_a_hundred_megabytes_are_cut_at_a_terminal_and_whole_in_a_pipe_as_far_as_they_are_taken(
    socket_path: Path,
) -> None:
    def respond(called: str, params: Any) -> Any:
        if called == "rpc.discover":
            return error("rpc.MethodNotFound", "no")
        return [None, "\x1b" * params[0]] if called == "A.text" else error("x.Y", "\x1b" * params[0])

    with server(socket_path, respond):
        status, text = at_terminal("call", socket_path, "A.text", "100000000")
        assert status == 1
        assert "rpc.TooLarge" in text
        status, text = at_terminal("call", socket_path, "A.text", "30000000")
        assert status == 0
        assert len(text) < 20_000_000
        assert CONTROL.findall(text) == []
        assert text.endswith("characters)\n")
        status, text = at_terminal("call", socket_path, "A.error", "30000000")
        assert (status, len(text) < 2_000) == (1, True)
        done = seqrpc_command("call", socket_path, "A.text", "3000000")
        assert json.loads(done.out) == "\x1b" * 3_000_000


@pytest.mark.parametrize(
    "document",
    [
        7,
        {"openrpc": EVIL},
        described(*[method("A.same")] * 2),
        described(method("A.x", {"$ref": f"#/components/schemas/{EVIL}"})),
        described(
            method("A.x", {"$ref": "#/components/schemas/Loop"}),
            components={"schemas": {"Loop": {"$ref": "#/components/schemas/Loop"}}},
        ),
        described({"name": 7}),
        described(method("x" * 1_000_000)),
    ],
)
@pytest.mark.parametrize("command", ["describe", "call"])
def test_a_description_that_is_none_is_told_on_one_line(socket_path: Path, document: Any, command: str) -> None:
    def respond(called: str, _params: Any) -> Any:
        return [None, document]

    with server(socket_path, respond):
        done = seqrpc_command(command, socket_path, "A.x")
    assert (done.status, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert len(done.err) < 5_000
    assert CONTROL.findall(done.err) == []


@pytest.mark.parametrize("odd", [b"bytes", {b"key": 1}, float("nan"), float("inf")])
def test_a_description_that_json_cannot_have_is_told(socket_path: Path, odd: Any) -> None:
    def respond(_called: str, _params: Any) -> Any:
        return [None, described(method("A.x"), **{"x-odd": odd})]

    with server(socket_path, respond):
        done = seqrpc_command("describe", socket_path)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("seqrpc: the description that came is none: ")


def test_a_server_that_breaks_the_protocol_is_told(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(socket_path))
        sock.listen()

        def work() -> None:
            connected, _address = sock.accept()
            with connected:
                connected.recv(65_536)
                connected.send(b"\xc1\x1b[2J")

        thread = Thread(work)
        done = seqrpc_command("call", socket_path, "A.x")
        thread.result()
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert CONTROL.findall(done.err) == []


class Silent(seqrpc.Service):
    """Gives what never ends, and what never comes."""

    _writer: seqrpc.OwnedFd | None = None

    def shut(self) -> None:
        if self._writer is not None:
            self._writer.close()

    @seqrpc.method
    async def pipe(self) -> seqrpc.OwnedFd:
        reader, writer = os.pipe()
        self._writer = seqrpc.OwnedFd(writer)
        return seqrpc.OwnedFd(reader)

    @seqrpc.method
    async def zero(self) -> seqrpc.OwnedFd:
        return seqrpc.OwnedFd(os.open("/dev/zero", os.O_RDONLY))

    @seqrpc.method
    async def inside(self) -> Any:
        async def items() -> AsyncIterator[str]:
            while True:
                yield "x" * 60_000

        return {"items": items()}


@pytest.mark.parametrize(
    "name, more", [("pipe", ()), ("zero", ()), ("pipe", ("--save", "saved")), ("pipe", ("--exec", "cat"))]
)
def test_a_file_without_an_end_takes_no_longer_than_the_time_out(
    socket_path: Path, tmp_path: Path, name: str, more: tuple[str, ...]
) -> None:
    silent = Silent()
    with served(socket_path, silent):
        begun = started("call", socket_path, name, "--timeout", "0.5", *more, cwd=tmp_path)
        with begun as process, open(os.devnull, "wb") as nothing:
            shutil.copyfileobj(process.stdout, nothing)
            assert process.stderr.read().decode().endswith("not done within 0.5 s, which is what --timeout allows\n")
            assert process.wait(PATIENCE) == 5
    silent.shut()


def test_a_stream_without_an_end_inside_of_a_value_is_not_kept(socket_path: Path) -> None:
    with served(socket_path, Silent()):
        done = seqrpc_command("call", socket_path, "inside")
    assert (done.status, done.out) == (1, "")
    assert done.err == "seqrpc: a stream inside of the result has more than 16,777,216 characters\n"
