"""A call that is made again and again."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from support.descriptors import open_fds
from support.desk import both
from support.sync import served

from seqrpc import Buffer, OwnedFd, Service, blocking, method
from seqrpc.cli.endings import Ending
from seqrpc.cli.learning import description_of
from seqrpc.cli.repeating import Repeated
from seqrpc.documents.trees import Document

Make = Callable[..., Repeated]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    path = tmp_path_factory.mktemp("s") / "s"
    with served(path, both()), blocking.connect(path) as connection:
        return description_of(connection)


@pytest.fixture
def make(document: Document) -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def of(name: str, *words: str, files: tuple[str, ...] = (), known: bool = True) -> Repeated:
            return stack.enter_context(contextlib.closing(Repeated(document if known else None, name, words, files)))

        yield of


def test_arguments_go_by_position_where_they_can(make: Make) -> None:
    assert make("add", "2", "3").params == make("add", "b=3", "a=2").params == (2, 3)
    assert make("add", "2").params == (2,)
    assert make("Desk.told", "BLUE", "data=x").params == {"colour": "blue", "data": b"x"}
    assert make("Desk.told", "bits=1").params == {"bits": 1}
    assert make("only").params == ()
    assert make("add", "2").name == "Desk.add"
    assert make("only").rule == "(same_user | uid(0))"


def test_without_a_description_words_are_what_they_look_like(make: Make) -> None:
    assert make("Desk.add", "2", "x", known=False).params == (2, "x")
    assert make("Desk.add", "a=2", known=False).params == {"a": 2}
    assert make("Desk.add", known=False).rule == ""


def test_what_can_be_sent_again_is_made_once(make: Make, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    call = make("size", f"@{tmp_path}/x")
    assert (call.is_constant, call.params) == (True, (b"abc",))
    call = make("held", f"@{tmp_path}/x")
    assert call.is_constant
    (buffer,) = call.params
    assert isinstance(buffer, Buffer)
    with memoryview(buffer) as view:
        assert view.tobytes() == b"abc"


@pytest.mark.parametrize("word", ["--fd", "@"])
def test_files_are_opened_anew_for_each_call(make: Make, tmp_path: Path, word: str) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    before = open_fds()
    call = make("length", f"file=@{tmp_path}/x") if word == "@" else make("length", files=(f"file={tmp_path}/x",))
    assert not call.is_constant
    assert open_fds() == before
    for _ in range(3):
        with call.opened() as params:
            assert isinstance(params, tuple)
            (file,) = params
            assert os.read(file.fileno(), 10) == b"abc"
        assert open_fds() == before


def test_files_inside_of_others_are_found(make: Make, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    call = make("Desk.anything", files=(f"value={tmp_path}/x",))
    assert not call.is_constant
    with call.opened() as params:
        assert isinstance(params, tuple)
        assert isinstance(params[0], OwnedFd)


def test_standard_input_is_read_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text")))
    assert make("Desk.echo", "-").params == ("text",)


@pytest.mark.parametrize(
    "words, files, text",
    [
        (("total", "[1, 2]"), (), "Desk.total takes a stream, which can be sent only once"),
        (("total", "@{path}"), (), "Desk.total takes a stream, which can be sent only once"),
        (("length", "-"), (), "files are opened anew for each call, and standard input can be read only once"),
        (("write", "text=-"), ("file=>/dev/null",), "files are opened anew"),
        (("length",), ("file=-",), "files are opened anew for each call, and standard input can be read only once"),
        (("hint", "3"), (), "Desk.hint is one-way: there is no answer"),
        (("add", "x"), (), "a=x: int is wanted"),
        (("nothing",), (), "there is no method 'nothing'"),
    ],
)
def test_what_cannot_be_repeated_is_told(
    make: Make, tmp_path: Path, words: tuple[str, ...], files: tuple[str, ...], text: str
) -> None:
    path = tmp_path / "x"
    path.write_text("1\n")
    with open(path) as standard, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", standard)
        before = open_fds()
        with pytest.raises(Ending, match=text):
            make(*(word.format(path=path) for word in words), files=files)
        assert open_fds() == before


def test_a_stream_that_need_not_be_given_is_one(socket_path: Path) -> None:
    class Maybe(Service):
        @method
        async def total(self, first: int, rest: AsyncIterator[int] | None = None) -> int:
            return first if rest is None else sum([number async for number in rest], first)

    with served(socket_path, Maybe()), blocking.connect(socket_path) as connection:
        told = description_of(connection)
    with contextlib.closing(Repeated(told, "total", ["1"])) as call:
        assert call.params == (1,)
    with pytest.raises(Ending, match=r"Maybe\.total takes a stream"):
        Repeated(told, "total", ["1", "[2]"])


def test_a_file_that_is_not_there_is_told(make: Make) -> None:
    with pytest.raises(FileNotFoundError):
        make("length", files=("file=/nothing/here",))
