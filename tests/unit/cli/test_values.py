"""What is sent for a word, by the type that is wanted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from seqrpc import Buffer, OwnedFd
from seqrpc.cli.endings import Ending
from seqrpc.cli.values import NOTHING, Values, parsed_json, takes_bytes, takes_text
from seqrpc.documents.trees import (
    Anything,
    Bounds,
    BufferType,
    Coded,
    Constrained,
    Descriptor,
    Document,
    EnumOf,
    Field,
    Fields,
    FlagOf,
    ListOf,
    LiteralOf,
    MapOf,
    Memory,
    ObjectOf,
    Ref,
    Scalar,
    StreamOf,
    Tag,
    TupleOf,
    Type,
    UnionOf,
)

INT, STR, NONE, BOOL, FLOAT, BYTES = map(Scalar, ("int", "str", "None", "bool", "float", "bytes"))
COLOUR = EnumOf(members=(("RED", "red"), ("BLUE", "blue")))
LEVEL = EnumOf(members=(("LOW", 1), ("HIGH", 2)))
BITS = FlagOf(members=(("READ", 1), ("WRITE", 2)))
POINT = Fields(
    kind="dataclass",
    fields=(
        Field(name="x", wire_name="x", type=INT, required=True),
        Field(name="data", wire_name="d", type=BYTES, required=False),
    ),
)
COPIES = Fields(kind="struct", fields=(Field(name="copies", wire_name="copies", type=INT, required=False),))
PAIR = Fields(kind="namedtuple", fields=POINT.fields, is_array=True)

DOCUMENT = Document(
    title="",
    version="",
    services=(),
    methods=(),
    interfaces={},
    schemas={"Point": POINT, "Loop": UnionOf((Ref("Loop"), INT))},
)


@pytest.fixture
def values() -> Iterator[Values]:
    with ExitStack() as opened:
        yield Values(DOCUMENT, opened)


@pytest.mark.parametrize(
    "word, wanted, value",
    [
        ("7", STR, "7"),
        ('"7"', STR, '"7"'),
        ("null", STR, "null"),
        ("", STR, ""),
        ("7", INT, 7),
        ("-7", INT, -7),
        ("7", FLOAT, 7),
        ("1e3", FLOAT, 1000.0),
        ("true", BOOL, True),
        ("null", NONE, None),
        ("null", UnionOf((STR, NONE)), None),
        ("x", UnionOf((STR, NONE)), "x"),
        ("7", UnionOf((INT, STR)), 7),
        ("x7", UnionOf((INT, STR)), "x7"),
        ("2020-01-01", Scalar("date"), "2020-01-01"),
        ("7", Scalar("Decimal"), "7"),
        ("hé", BYTES, "hé".encode()),
        ("x", Memory(), b"x"),
        ("7", Anything(), 7),
        ("seven", Anything(), "seven"),
        ('"7"', Anything(), "7"),
        ('{"a": [1]}', Anything(), {"a": [1]}),
        ("red", COLOUR, "red"),
        ("RED", COLOUR, "red"),
        ("1", LEVEL, 1),
        ("HIGH", LEVEL, 2),
        ("3", BITS, 3),
        ("READ|WRITE", BITS, 3),
        ("a", LiteralOf(("a", 1)), "a"),
        ("1", LiteralOf(("a", 1)), 1),
        ("[1, 2]", ListOf("list", INT), [1, 2]),
        ('[1, "a"]', TupleOf((INT, STR)), [1, "a"]),
        ('{"1": "a"}', MapOf(INT, STR), {1: "a"}),
        ('{"[1, 2]": 3}', MapOf(TupleOf((INT, INT)), INT), {(1, 2): 3}),
        ('{"x": 1, "d": "aGk="}', Ref("Point"), {"x": 1, "d": b"hi"}),
        ('{"x": 1, "more": 2}', UnionOf((Ref("Point"), MapOf(STR, INT))), {"x": 1, "more": 2}),
        ('["red", "BLUE"]', ListOf("list", COLOUR), ["red", "blue"]),
        ('["HIGH", 1]', ListOf("list", LEVEL), [2, 1]),
        ('["READ|WRITE", "READ", 2]', ListOf("list", BITS), [3, 1, 2]),
        ('[1, "aGk="]', PAIR, [1, b"hi"]),
        ("[1]", PAIR, [1]),
        ("/x", Coded("Path", STR), "/x"),
        ("5", Constrained(INT, Bounds(ge=0)), 5),
        ("5", Ref("Loop"), 5),
        ('["aGk="]', ListOf("list", Memory()), [b"hi"]),
        ('[""]', ListOf("list", BufferType()), [b""]),
    ],
)
def test_a_word_is_read_by_the_type(values: Values, word: str, wanted: Type, value: Any) -> None:
    made = values.of_word(word, wanted, "it")
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    "word, wanted, text",
    [
        ("x", INT, "it=x: int is wanted"),
        ("true", INT, "it=true: int is wanted"),
        ("1.5", INT, "it=1.5: int is wanted"),
        ("1", BOOL, "bool is wanted"),
        ("green", COLOUR, "it=green: .* is wanted: one of red, blue$"),
        ("READ|X", BITS, "is wanted: one of READ, WRITE$"),
        ("true", LiteralOf((1,)), "is wanted: one of 1$"),
        ("x", LiteralOf((*map(str, range(20)), None)), "is wanted: one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …$"),
        ("", INT, "it='': int is wanted$"),
        ("x", Ref("Point"), r"is wanted: '{\"x\": …}'$"),
        ("{x: 1}", Ref("Point"), r"is wanted, and this is no JSON: '{\"x\": …}', in quotes"),
        ("x", MapOf(INT, INT), r"is wanted: '{\"key\": …}'$"),
        ("x", ListOf("list", INT), r"is wanted: '\[…\]'$"),
        ("x", PAIR, r"is wanted: '\[.*\]'$"),
        ('["x"]', ListOf("list", INT), r'it\[0\]: "x" is no int'),
        ("{}", ListOf("list", INT), "is wanted"),
        ("[1]", TupleOf((INT, STR)), "is wanted"),
        ('{"x": "1"}', Ref("Point"), r"it\.x: "),
        ('{"a": 1}', MapOf(INT, INT), "a key of it=a: int is wanted"),
        ("[]", MapOf(STR, INT), "is wanted"),
        ("[]", Ref("Point"), "is wanted"),
        ("{}", PAIR, "is wanted"),
        ("[1, 2, 3]", PAIR, "is wanted"),
        ('{"d": "!"}', Ref("Point"), "bytes in JSON are base64, got '!'"),
        ('{"d": 1}', Ref("Point"), r"it\.d: 1 is no bytes"),
        ("1.5", BITS, "is wanted"),
        ('["green"]', ListOf("list", COLOUR), r'it\[0\]: "green" is no .*: one of red, blue$'),
        ("[3]", ListOf("list", LEVEL), r"it\[0\]: 3 is no .*: one of 1, 2$"),
        ('["X"]', ListOf("list", BITS), r"it\[0\]: .* is no .*: one of READ, WRITE$"),
        ('["x"]', ListOf("list", LiteralOf((1, None))), r"it\[0\]: .*: one of 1, null$"),
        ('{"x": 1, "more": 2}', Ref("Point"), "it has no field 'more': one of x, d$"),
        ('{"xyz": 1, "\\u001b": 2}', Fields(kind="dataclass", fields=()), "it has no field 'xyz'$"),
        ('{"copis": 7}', COPIES, "it has no field 'copis'; did you mean 'copies'"),
        ("x", ObjectOf("Box"), "an object of this side is wanted"),
        ("x", Descriptor(), "write @PATH, or - for standard input"),
        ("1", Descriptor(), "write @PATH"),
        ("{}", StreamOf(INT), "write @PATH"),
        ("[" * 100_000, INT, "is wanted"),
    ],
)
def test_what_does_not_fit_is_told_with_the_place(values: Values, word: str, wanted: Type, text: str) -> None:
    with pytest.raises(Ending, match=text) as raised:
        values.of_word(word, wanted, "it")
    assert raised.value.status == 2


def test_every_choice_is_tried_to_its_end(values: Values) -> None:
    lists = UnionOf((ListOf("list", INT), ListOf("list", STR)))
    assert values.of_word('["a"]', lists, "it") == ["a"]
    with pytest.raises(Ending, match=r"it\[0\]: null is no int"):
        values.of_word("[null]", lists, "it")
    one, two = (
        Fields(
            kind="struct",
            fields=(Field(name="data", wire_name="data", type=kind, required=True),),
            tag=Tag(field="type", value=value),
        )
        for kind, value in ((STR, "text"), (BYTES, "bytes"))
    )
    made = values.of_word('{"type": "bytes", "data": "aGk="}', UnionOf((one, two)), "it")
    assert made == {"type": "bytes", "data": b"hi"}


def test_unions_inside_of_unions_are_not_tried_for_ever(values: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrpc.cli.values._MOST_TRIES", 1_000)
    wanted: Type = INT
    for _ in range(40):
        wanted = UnionOf((ListOf("list", wanted), ListOf("tuple", wanted), ListOf("set", wanted)))
    with pytest.raises(Ending, match="is no int"):
        values.of_word("[" * 40 + "null" + "]" * 40, wanted, "it")
    assert values._tries < 2_000


def test_a_list_may_be_a_stream(values: Values) -> None:
    made = values.of_word("[1, 2]", StreamOf(INT), "it")
    assert (next(made), [*made]) == (1, [2])


def test_within_json_a_text_with_an_at_sign_is_an_open_file_and_base64_memory(tmp_path: Path, values: Values) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    (fd,) = values.of_word(f'["@{path}"]', ListOf("list", Descriptor()), "it")
    assert isinstance(fd, OwnedFd)
    assert os.read(fd.fileno(), 10) == b"content"
    (memory,) = values.of_word('["aGk="]', ListOf("list", BufferType()), "it")
    assert isinstance(memory, Buffer)
    assert bytes(memory) == b"hi"


def test_no_text_is_a_file_because_the_server_says_so(tmp_path: Path, values: Values) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    for text in (f"{path}", f">{path}", f">{tmp_path}/new"):
        with pytest.raises(Ending, match=r"it\[0\]: .* is no OwnedFd"):
            values.of_word(f'["{text}"]', ListOf("list", Descriptor()), "it")
    with ExitStack() as opened, pytest.raises(Ending, match=r"it\[0\]: .* is no OwnedFd"):
        Values(DOCUMENT, opened, opens=False).of_word(f'["@{path}"]', ListOf("list", Descriptor()), "it")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.parametrize("prefix, content", [("", "old"), ("<", "old"), (">", "new"), (">>", "oldnew"), ("<>", "new")])
def test_a_file_is_opened_as_its_path_says(tmp_path: Path, values: Values, prefix: str, content: str) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    fd = values.file(f"{prefix}{path}")
    if prefix in ("", "<"):
        with pytest.raises(OSError, match="Bad file"):
            os.write(fd.fileno(), b"new")
    else:
        os.write(fd.fileno(), b"new")
    assert path.read_text() == content


def test_the_kinds_are_told_apart() -> None:
    assert parsed_json("x") is NOTHING
    assert [takes_text(each) for each in (STR, BYTES, INT)] == [True, False, False]
    assert [takes_bytes(each) for each in (STR, BYTES, Memory())] == [False, True, True]
