"""Where a description comes from: an address, a class, a file."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.desk import Desk
from support.processes import AS_ROOT, OTHER_UID
from support.sync import served

import seqrpc
from seqrpc import policy
from seqrpc.cli import sources
from seqrpc.cli.endings import FAILED, MISUSED, Ending
from seqrpc.cli.sources import Described, description_from, document_from
from seqrpc.documents.model import read
from seqrpc.documents.trees import Document
from seqrpc.interface.openrpc import document_of
from seqrpc.testing.leaks import assert_no_leaks

SECONDS = 30.0

DOCUMENT = {"openrpc": "1.3.2", "methods": []}


class Lamp(seqrpc.Service):
    @seqrpc.method
    async def turn(self, on: bool) -> None: ...

    @seqrpc.method(allow=policy.root)
    async def break_(self) -> None: ...


class Part:
    Lamp = Lamp


def of(source: object) -> Described:
    return description_from(str(source), seconds=SECONDS)


def refused(source: object) -> tuple[int, str]:
    with pytest.raises(Ending) as caught:
        of(source)
    return caught.value.status, str(caught.value)


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Let the path be what it was, and nothing imported stay."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        del sys.modules[name]


def test_a_server_is_asked(socket_path: Path) -> None:
    with served(socket_path, Lamp()):
        found = of(socket_path)
    assert [method.name for method in read(found.document).methods] == ["Lamp.break_", "Lamp.turn"]
    assert found.address == str(socket_path)


ASK = """
import sys
from seqrpc.cli.sources import description_from
document = description_from(sys.argv[1], seconds=30, as_user=sys.argv[2] or None).document
print(*[method["x-seqrpc"]["allowed"] for method in document["methods"]])
"""


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_a_server_sees_whom_it_is_to_see(socket_path: Path) -> None:
    def allowed(user: str) -> str:
        command = [sys.executable, "-W", "error", "-c", ASK, str(socket_path), user]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout.decode()

    socket_path.parent.chmod(0o711)
    with served(socket_path, Lamp(), mode=0o666, allow=policy.root | policy.uid(OTHER_UID)):
        assert allowed("") == "True True\n"
        assert allowed(f"{OTHER_UID}:{OTHER_UID}") == "False True\n"


def test_a_program_is_started_and_asked(tmp_path: Path) -> None:
    program = tmp_path / "lamp.py"
    program.write_text(
        "import seqrpc\n"
        "class Lamp(seqrpc.Service):\n"
        "    @seqrpc.method\n"
        "    async def turn(self, on: bool) -> None: ...\n"
        "seqrpc.run(Lamp(), 'fd:3')\n"
    )
    with assert_no_leaks():
        found = of(f"exec:{sys.executable} {program}")
    assert read(found.document).title == "Lamp"
    assert found.address is None


def test_a_class_is_described_without_a_server(tmp_path: Path) -> None:
    (tmp_path / "lamps.py").write_text(Path(__file__).read_text().split("\n\n\ndef of(")[0])
    assert of("lamps:Lamp") == Described(document_of(Lamp))
    assert of("lamps:Part.Lamp") == Described(document_of(Lamp))


def test_what_is_no_class_is_told(tmp_path: Path) -> None:
    (tmp_path / "lamps.py").write_text("import no_such_module_at_all")
    (tmp_path / "lights.py").write_text("Lamp = 1")
    assert refused("nowhere_at_all:Lamp") == (
        MISUSED,
        "there is no module nowhere_at_all, neither here nor on the path",
    )
    assert refused("lights.deep:Lamp")[0] == MISUSED
    assert refused("lamps:Lamp") == (FAILED, "lamps.py:1: lamps imports no_such_module_at_all, which is not there")
    assert refused("lights:Lamb") == (MISUSED, "lights has no 'Lamb'; did you mean 'Lamp'?")
    with pytest.raises(TypeError, match="1"):
        of("lights:Lamp")


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "saved:odd"
    file.write_text(json.dumps(DOCUMENT))
    assert of(file) == Described(DOCUMENT)
    assert of("saved:odd") == Described(DOCUMENT)


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(json.dumps(DOCUMENT).encode())))
    assert of("-") == Described(DOCUMENT)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 10_000])
def test_what_is_no_json_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "saved"
    file.write_bytes(content)
    status, text = refused(file)
    assert status == MISUSED
    assert text.startswith(f"{file}: this is no JSON: ")


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "saved"
    file.touch()
    os.truncate(file, sources.MOST_BYTES + 1)
    assert refused(file) == (MISUSED, f"{file}: a document has at most {sources.MOST_BYTES} bytes")


def test_where_nobody_listens_is_told(tmp_path: Path) -> None:
    with pytest.raises(seqrpc.NobodyListens):
        of(tmp_path / "nothing")
    with pytest.raises(seqrpc.AddressError):
        of("a\0b")


def names_in(document: Document) -> list[str]:
    return [service.name for service in document.services]


def test_all_sources_tell_the_same(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(document_of(Desk))
    (tmp_path / "desk.json").write_text(text)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    assert names_in(document_from(str(tmp_path / "desk.json"), 5)) == ["Desk"]
    assert names_in(document_from("-", 5)) == ["Desk"]
    assert names_in(document_from("support.desk:Desk", 5)) == ["Desk"]
    assert names_in(document_from("support.desk:both", 5)) == ["Desk", "Other"]
    assert names_in(document_from(str(desk), 5)) == ["Desk", "Other"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"openrpc": "2"}', "[" * 100_000])
def test_what_is_no_document_is_told_with_its_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(Ending, match=str(path)) as raised:
        document_from(str(path), 5)
    assert raised.value.status == MISUSED


def test_what_is_no_service_is_no_empty_one(desk: Path) -> None:
    for name in ("Colour", "Point", "Empty"):
        text = f"support.desk:{name} is no seqrpc.Service, nor makes any, and has no methods that can be called"
        assert refused(f"support.desk:{name}") == (MISUSED, text)


def test_interfaces_and_empty_services_are_described(tmp_path: Path) -> None:
    (tmp_path / "lamps.py").write_text(
        "import enum, seqrpc, typing\n"
        "class Lamp(typing.Protocol):\n    async def turn(self, on: bool) -> None: ...\n"
        "class None_(seqrpc.Service): pass\n"
        "class Odd(enum.Enum): A = 1\n"
        "def both(): return [None_(), None_()][:1]\n"
        "def odd(): return [None_(), Odd]\n"
    )
    assert len(of("lamps:Lamp").document["methods"]) == 1
    assert of("lamps:None_").document["methods"] == []
    assert names_in(document_from("lamps:both", 5)) == ["None_"]
    assert refused("lamps:odd")[0] == MISUSED


def test_nobody_is_told_either() -> None:
    with pytest.raises(seqrpc.NobodyListens):
        document_from("/nothing/here", 5)
