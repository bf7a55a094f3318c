"""The arguments of a call, from words."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk

from seqrpc import Buffer, InvalidParams, OwnedFd
from seqrpc.cli.endings import Ending
from seqrpc.cli.words import Words
from seqrpc.documents.model import read
from seqrpc.documents.trees import Descriptor, ListOf, Scalar, UnionOf
from seqrpc.interface.openrpc import document_of

DOCUMENT = read(document_of(Desk))
METHODS = {method.short_name: method for method in DOCUMENT.methods}

Make = Callable[[bytes], Words]


@pytest.fixture
def words_of() -> Iterator[Make]:
    made: list[Words] = []
    lasting = ExitStack()

    def make(given: bytes = b"") -> Words:
        made.append(Words(DOCUMENT, lambda: io.BytesIO(given), lasting))
        return made[-1]

    yield make
    for each in made:
        each.close()
    lasting.close()


def bound(make: Make, method: str, *words: str, files: tuple[str, ...] = (), given: bytes = b"") -> dict[str, Any]:
    by_position, by_name = make(given).arguments(words, files, METHODS[method])
    assert by_position == []
    return by_name


@pytest.mark.parametrize(
    "words, expected",
    [
        (("1", "2"), {"a": 1, "b": 2}),
        (("1",), {"a": 1}),
        (("b=2", "1"), {"a": 1, "b": 2}),
        (("a=1", "2"), {"a": 1, "b": 2}),
    ],
)
def test_words_are_bound_by_position_and_by_name(words_of: Make, words: tuple[str, ...], expected: Any) -> None:
    assert bound(words_of, "add", *words) == expected


@pytest.mark.parametrize(
    "method, words, text",
    [
        ("add", (), "Desk.add needs a: int"),
        ("add", ("1", "2", "3"), "Desk.add: '3' is too much: it takes a: int, b: int \\(quote spaces\\)"),
        ("add", ("1", "a=1", "2"), "Desk.add: '2' is too much"),
        ("add", ("a=1", "a=2"), "a is given twice"),
        ("add", ("1", "bb=2"), "has no parameter 'bb'; did you mean 'b'"),
        ("fail", ("x=1",), "Desk.fail has no parameter 'x'$"),
        ("fail", ("x",), "it takes nothing"),
        ("echo", ("x=1",), "written with its parameter: value=x=1"),
        ("told", ("RED", "READ", "{}"), "'{}' is too much: it takes colour: Colour, bits: Bits; by name point: Po"),
        ("size", ("-", "-"), "Desk.size: '-' is too much"),
    ],
)
def test_what_does_not_fit_is_misuse(words_of: Make, method: str, words: tuple[str, ...], text: str) -> None:
    with pytest.raises(Ending, match=text) as raised:
        bound(words_of, method, *words)
    assert raised.value.status == 2


@pytest.mark.parametrize(
    "words, files, text",
    [
        (("write", "text=x"), ("fil=>{}",), r"--fd: Desk.write has no parameter 'fil'; did you mean 'file'\?$"),
        (("write", "text=x"), ("tex=>{}",), r"--fd: Desk.write has no parameter 'tex'; for open files is file$"),
        (("write", "x"), ("text=>{}",), r"--fd: text: str takes no open file; for open files is file$"),
        (("add", "1"), ("aa=>{}",), r"--fd: Desk.add has no parameter 'aa'$"),
        (("write", "x"), ("file=>{}", "file=>{}"), r"--fd: file is given twice$"),
        (("write", "file=-", "x"), ("file=>{}",), r"Desk.write: file is given twice$"),
        (("write",), ("file=>{}",), r"Desk.write needs text: str$"),
    ],
)
def test_a_file_is_for_what_takes_one_and_is_not_touched_else(
    words_of: Make, tmp_path: Path, words: tuple[str, ...], files: tuple[str, ...], text: str
) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(Ending, match=text):
        bound(words_of, *words, files=tuple(each.format(path) for each in files))
    assert path.read_text() == "before"


def test_without_a_description_words_are_json_or_text() -> None:
    words = Words(None, io.BytesIO, ExitStack())
    assert words.arguments(["1", "x", '"1"', "a.b=c"], [], None) == ([1, "x", "1", "a.b=c"], {})
    assert words.arguments(["a=1", "b=x"], [], None) == ([], {"a": 1, "b": "x"})
    with pytest.raises(Ending, match="all arguments by name, or all by position"):
        words.arguments(["a=1", "x"], [], None)


def test_files_and_standard_input_stand_for_what_is_in_them(words_of: Make, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content\n")
    assert bound(words_of, "echo", f"@{path}") == {"value": "content\n"}
    assert bound(words_of, "echo", "-", given=b"given") == {"value": "given"}
    assert bound(words_of, "echo", "@@x") == {"value": "@x"}
    assert bound(words_of, "echo", "\\-") == {"value": "-"}
    assert bound(words_of, "size", f"@{path}") == {"data": b"content\n"}
    assert bound(words_of, "add", "-", given=b"7\n") == {"a": 7}
    memory = bound(words_of, "held", f"@{path}")["memory"]
    assert isinstance(memory, Buffer)
    assert bytes(memory) == b"content\n"
    assert bound(words_of, "held", "-") == {"memory": b""}
    file = bound(words_of, "length", f"@{path}")["file"]
    assert os.read(file.fileno(), 100) == b"content\n"
    assert bound(words_of, "anything", "-", given=b"\xff") == {"value": b"\xff"}


def test_what_is_in_a_file_names_no_files_to_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(f'["@{path}"]')
    wanted = ListOf("list", Descriptor())
    with (
        ExitStack() as lasting,
        contextlib.closing(Words(None, lambda: io.BytesIO(path.read_bytes()), lasting)) as words,
    ):
        (fd,) = words.value(f'["@{path}"]', wanted, "x")
        assert isinstance(fd, OwnedFd)
        for word in (f"@{path}", "-"):
            with pytest.raises(Ending, match=r"x\[0\]: .* is no OwnedFd"):
                words.value(word, wanted, "x")


def test_a_text_from_a_file_is_one_where_a_word_would_be_something_else() -> None:
    wanted = UnionOf((Scalar("str"), Scalar("None"), Scalar("int")))
    for word, text in (("null", b"null"), ("7", b"7")):
        made = Words(None, lambda text=text: io.BytesIO(text), ExitStack())  # type: ignore[misc]  # bound now
        assert made.value(word, wanted, "x") != text.decode()
        assert made.value("-", wanted, "x") == text.decode()
    assert Words(None, io.BytesIO, ExitStack()).value('"null"', wanted, "x") == '"null"'
    assert Words(None, lambda: io.BytesIO(b"hello\n"), ExitStack()).value("-", wanted, "x") == "hello\n"


def test_bytes_without_a_description_are_bytes() -> None:
    assert Words(None, lambda: io.BytesIO(b"\xff"), ExitStack()).arguments(["-"], [], None) == ([b"\xff"], {})


def test_what_is_no_text_is_refused_where_one_is_wanted(words_of: Make) -> None:
    with pytest.raises(Ending, match="value: what is in the file is no text, which str wants"):
        bound(words_of, "echo", "-", given=b"\xff")


def test_standard_input_is_one_argument(words_of: Make) -> None:
    with pytest.raises(Ending, match="one argument, not two"):
        bound(words_of, "add", "-", "-", given=b"1")


def test_files_are_opened_by_name(words_of: Make, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    made = bound(words_of, "write", "text=x", files=(f"file=>{path}",))
    assert made["text"] == "x"
    assert path.read_text() == ""
    made = bound(words_of, "length", files=("file=-",), given=b"x")
    assert made["file"].read() == b"x"
    for file, text in ((f"fil={path}", "has no parameter 'fil'; did you mean 'file'"), ("file", "takes NAME=PATH")):
        with pytest.raises(Ending, match=text):
            bound(words_of, "length", files=(file,))
    with pytest.raises(FileNotFoundError):
        bound(words_of, "length", files=("file=/nothing/here",))


def test_lines_are_the_items_of_a_stream(words_of: Make) -> None:
    assert [*bound(words_of, "total", "-", given=b"1\n2")["numbers"]] == [1, 2]
    assert [*bound(words_of, "loud", "-", given=b"1\n\nx\n")["lines"]] == ["1", "", "x"]


@pytest.mark.parametrize(
    "method, given, text",
    [("total", b"1\nx\n", "numbers, line 2=x: int is wanted"), ("loud", b"\xff\n", "line 1: this is no text")],
)
def test_a_line_that_does_not_fit_ends_the_stream_with_an_error(method: str, given: bytes, text: str) -> None:
    with ExitStack() as lasting:
        words = Words(DOCUMENT, lambda: io.BytesIO(given), lasting)
        (items,) = words.arguments(["-"], [], METHODS[method])[1].values()
        with pytest.raises(InvalidParams, match=text):
            list(items)
    assert words.failure is not None
    assert text in str(words.failure)
    words.close()
