"""The command ``describe``."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import msgpack
from support.commands import Done, at_terminal
from support.sync import Thread

Run = Callable[..., Done]


def test_a_pipe_gets_the_document(desk: Path, seqrpc_run: Run) -> None:
    done = seqrpc_run("describe", desk)
    document = json.loads(done.out)
    assert (done.status, done.err) == (0, "")
    assert document["openrpc"].startswith("1.")
    assert [service["name"] for service in document["x-seqrpc"]["services"]] == ["Desk", "Other"]


def test_a_method_is_a_part_of_it(desk: Path, seqrpc_run: Run) -> None:
    assert json.loads(seqrpc_run("describe", desk, "add").out)["name"] == "Desk.add"
    assert json.loads(seqrpc_run("describe", desk, "Box.look").out)["summary"] == "Return what is in it."
    assert seqrpc_run("describe", desk, "Desk.zzz") == Done(3, "", "seqrpc: there is no method 'Desk.zzz'\n")
    assert seqrpc_run("describe", desk, "Desk.ad").err == "seqrpc: there is no method 'Desk.ad'; did you mean 'add'?\n"
    assert seqrpc_run("describe", desk, "Dsk.add").err == (
        "seqrpc: there is no method 'Dsk.add'; did you mean 'Desk.add'?\n"
    )
    assert seqrpc_run("describe", desk, "zzz") == Done(3, "", "seqrpc: there is no method or type 'zzz'\n")


def test_a_terminal_gets_what_a_person_writes(desk: Path) -> None:
    status, text = at_terminal("describe", desk)
    assert status == 0
    assert text.startswith("Desk\n    A desk.\n\n    It has boxes.\n\n    add(a: int, b: int = 1) -> int\n")
    assert "        Return the sum.\n\n        Both are numbers.\n" in text
    assert "    hint(number: int) -> None\n        one-way\n" in text
    assert "Box, an object\n    A box.\n\n    look() -> str\n        Return what is in it.\n" in text
    assert "uid(4000000000)" in text
    assert at_terminal("describe", desk, "Box.look")[1].startswith("look() -> str\n    Return what is in it.\n")


def test_a_method_brings_what_its_schemas_refer_to(desk: Path, seqrpc_run: Run) -> None:
    told = json.loads(seqrpc_run("describe", desk, "told").out)
    assert sorted(told["components"]["schemas"]) == ["Bits", "Colour", "Point"]
    box = json.loads(seqrpc_run("describe", desk, "box").out)
    assert [each["name"] for each in box["x-seqrpc"]["interfaces"]["Box"]["methods"]] == ["Box.look", "Box.put"]
    assert box["x-seqrpc"]["rule"]
    assert "components" not in json.loads(seqrpc_run("describe", desk, "add").out)


def test_types_objects_and_services_are_described(desk: Path, seqrpc_run: Run) -> None:
    point = json.loads(seqrpc_run("describe", desk, "Point").out)
    assert (point["name"], [*point["schema"]["properties"]]) == ("Point", ["x", "y", "data"])
    assert json.loads(seqrpc_run("describe", desk, "Box").out)["description"] == "A box."
    other = json.loads(seqrpc_run("describe", desk, "Other").out)
    assert (other["name"], [each["name"] for each in other["methods"]]) == ("Other", ["Other.echo", "Other.only"])
    assert seqrpc_run("describe", desk, "Pont").err == (
        "seqrpc: there is no method or type 'Pont'; did you mean 'Point'?\n"
    )


def test_a_terminal_gets_types_as_python_has_them(desk: Path) -> None:
    point = "Point, a dataclass\n    x: int\n    y: int = 0\n    data: bytes = b''\n"
    assert at_terminal("describe", desk, "Point") == (0, point)
    assert at_terminal("describe", desk, "Colour") == (0, "Colour, an enum\n    RED = 'red'\n    BLUE = 'blue'\n")
    text = at_terminal("describe", desk, "told")[1]
    assert "\n\nColour, an enum\n    RED = 'red'\n" in text
    assert "\n\nBits, flags\n    READ = 1\n    WRITE = 2\n" in text
    assert f"\n\n{point}" in text
    assert "\n\nBox, an object\n    A box.\n\n    look() -> str\n" in at_terminal("describe", desk, "box")[1]
    assert at_terminal("describe", desk, "Other")[1].startswith("Other\n    Another service, which")
    assert f"\n\n{point}" in at_terminal("describe", desk)[1]


def test_methods_that_every_server_has_are_described(desk: Path, seqrpc_run: Run) -> None:
    stats = json.loads(seqrpc_run("describe", desk, "rpc.stats").out)
    assert (stats["name"], stats["result"]["schema"]) == ("rpc.stats", {"$ref": "#/components/schemas/Stats"})
    assert "MethodStats" in stats["components"]["schemas"]
    assert seqrpc_run("describe", desk, "rpc.stat").err == (
        "seqrpc: there is no method 'rpc.stat'; did you mean 'rpc.stats'?\n"
    )


def test_a_document_that_was_kept_is_described(desk: Path, seqrpc_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "desk.json"
    whole = seqrpc_run("describe", desk).out
    path.write_text(whole)
    assert seqrpc_run("describe", path) == Done(0, whole, "")
    assert at_terminal("describe", path, "Box.look")[1].startswith("look() -> str\n")
    path.write_text("{")
    assert seqrpc_run("describe", path).status == 2


def test_nobody_and_nonsense_are_told(socket_path: Path, seqrpc_run: Run) -> None:
    assert seqrpc_run("describe", socket_path).status == 3
    assert seqrpc_run("describe", socket_path, "--as-user", "nobody here").status == 2
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(socket_path))
        sock.listen()

        def work() -> None:
            connected, _address = sock.accept()
            with connected:
                number = msgpack.unpackb(connected.recv(65_536))[1]
                connected.send(msgpack.packb([1, number, None, {"openrpc": "\x1b[2J"}]))
                connected.recv(65_536)

        thread = Thread(work)
        done = seqrpc_run("describe", socket_path)
        thread.result()
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("seqrpc: the description that came is none: openrpc: ")
    assert "\x1b" not in done.err


def test_what_the_document_says_of_who_asks_is_told(socket_path: Path) -> None:
    document = {
        "openrpc": "1.3.2",
        "info": {"title": "A", "version": "0"},
        "methods": [
            {"name": "A.may", "params": [], "result": {"name": "result", "schema": {}}, "x-seqrpc": {"allowed": True}},
            {
                "name": "A.not",
                "params": [],
                "result": {"name": "result", "schema": {}},
                "errors": [{"code": -32000, "message": "a.\x1bE", "x-seqrpc": {"code": "a.\x1bE"}}],
                "x-seqrpc": {"allowed": False, "rule": "ro\x1bot", "idempotent": True},
            },
        ],
        "components": {"schemas": {}},
        "x-seqrpc": {"services": [{"name": "A", "bases": ["B\x1b"]}], "interfaces": {}},
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(socket_path))
        sock.listen()

        def work() -> None:
            connected, _address = sock.accept()
            with connected:
                number = msgpack.unpackb(connected.recv(65_536))[1]
                connected.send(msgpack.packb([1, number, None, document]))
                connected.recv(65_536)

        thread = Thread(work)
        status, text = at_terminal("describe", socket_path)
        thread.result()
    assert status == 0
    assert text == (
        "A (B\\x1b)\n\n    may() -> Any\n        you may call it\n\n    not() -> Any\n        idempotent\n"
        "        errors:\n            a.\\x1bE\n        you may not call it: ro\\x1bot\n"
    )


def test_a_signature_that_is_too_long_has_a_line_for_each_parameter(desk: Path) -> None:
    text = at_terminal("describe", desk, "told", env={"COLUMNS": "60"})[1]
    lines = text.splitlines()
    assert lines[:3] == ["told(", "    colour: Colour = 'red',", "    bits: Bits = 1,"]
    assert "    *," in lines
    assert ") -> str" in lines
    whole = at_terminal("describe", desk, env={"COLUMNS": "60"})[1]
    assert "\n    told(\n        colour: Colour = 'red',\n" in whole
    assert "\n    add(a: int, b: int = 1) -> int\n" in whole
    assert at_terminal("describe", desk, "told", env={"COLUMNS": "500"})[1].startswith("told(colour: Colour = 'red', b")
