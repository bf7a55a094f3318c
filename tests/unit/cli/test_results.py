"""What a call gave, written."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.commands import Done, at_terminal, terminal

from seqrpc import Buffer, OwnedFd, blocking
from seqrpc.cli.endings import Ending
from seqrpc.cli.results import Writer, kind_of
from seqrpc.cli.saving import Saves
from seqrpc.cli.screen import Screen

Run = Callable[..., Done]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("content\nmore")
    return path


def owned(path: Path, flags: int = os.O_RDONLY) -> OwnedFd:
    return OwnedFd(os.open(path, flags))


def written(value: Any, **options: Any) -> str:
    out = io.StringIO()
    options["saves"] = Saves(options.get("saves", ()))
    writer = Writer(Screen(out, io.StringIO()), **options)
    writer.write(value)
    writer.close()
    return out.getvalue()


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "null"),
        ("a\x1b", '"a\\u001b"'),
        ([b"hi", bytearray(b"hi"), (1, 2)], '["aGk=","aGk=",[1,2]]'),
        ({1: "a", (1, 2): "b", b"k": "c", None: 1}, '{"1":"a","[1,2]":"b","aw==":"c","null":1}'),
        ({float("nan"): 1, (b"k", float("inf")): 2}, '{"nan":1,"[\\"aw==\\",\\"inf\\"]":2}'),
        (datetime(2020, 1, 2, tzinfo=UTC), '"2020-01-02T00:00:00+00:00"'),
        ([float("nan"), float("-inf"), 1.5], '["nan","-inf",1.5]'),
    ],
)
def test_plain_data_are_json(value: Any, text: str) -> None:
    assert written(value) == text + "\n"


def test_files_in_data_are_told_and_saved_in_their_order(file: Path, tmp_path: Path) -> None:
    value = {"a": owned(file), "b": [Buffer.copy_of(b"hi")], "c": owned(tmp_path)}
    told = json.loads(written(value))
    assert told == {"a": {"descriptor": "file", "size": 12}, "b": ["aGk="], "c": {"descriptor": "directory"}}
    value = {"a": owned(file), "b": [Buffer.copy_of(b"hi")]}
    saves = [str(tmp_path / "1"), str(tmp_path / "2")]
    told = json.loads(written(value, saves=saves))
    assert told["a"] == {"descriptor": "file", "size": 12, "saved": saves[0]}
    assert told["b"] == [{"bytes": 2, "saved": saves[1]}]
    assert [(tmp_path / name).read_text() for name in ("1", "2")] == ["content\nmore", "hi"]


def test_data_are_saved_if_that_is_asked_for(tmp_path: Path) -> None:
    path = str(tmp_path / "saved")
    assert written({"a": 1}, saves=[path]) == ""
    assert Path(path).read_text() == '{"a":1}\n'
    written("text", saves=[path])
    assert Path(path).read_text() == "text"
    written(b"\xff", saves=[path])
    assert Path(path).read_bytes() == b"\xff"
    with pytest.raises(Ending, match=f"nothing came that could be saved as {path}"):
        written(1, saves=[path, path])


def test_files_are_copied_saved_and_given_to_programs(desk: Path, seqrpc_run: Run, file: Path, tmp_path: Path) -> None:
    assert seqrpc_run("call", desk, "Desk.open", file) == Done(0, "content\nmore", "")
    saved = tmp_path / "saved"
    assert seqrpc_run("call", desk, "Desk.open", file, "--save", saved) == Done(0, "", "")
    assert saved.read_text() == "content\nmore"
    assert seqrpc_run("call", desk, "Desk.open", file, "--exec", "wc -c") == Done(0, "12\n", "")
    assert seqrpc_run("call", desk, "Desk.open", file, "--exec", "sh -c 'exit 7'") == Done(7, "", "")
    assert seqrpc_run("call", desk, "Desk.open", file, "--exec", "sh -c 'kill -9 $$'") == Done(137, "", "")
    done = seqrpc_run("call", desk, "Desk.open", file, "--exec", "/nothing/here")
    assert done == Done(3, "", "seqrpc: --exec: there is no program '/nothing/here'\n")
    assert seqrpc_run("call", desk, "blob", "3", "--exec", "cat") == Done(0, "xxx", "")
    done = seqrpc_run("call", desk, "Desk.open", tmp_path)
    assert done == Done(1, "", "seqrpc: the directory that came cannot be read: Is a directory\n")


def test_a_terminal_is_shown_files_and_never_obeys_them(desk: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil"
    path.write_bytes(b"\x1b[2Jfirst\n\xffsecond" + b"x" * 600_000 + b"\n\x07end")
    status, text = at_terminal("call", desk, "Desk.open", path)
    assert status == 0
    assert text.startswith("\\x1b[2Jfirst\n\\xffsecondxxx")
    assert text.endswith("\n\\x07end\n")
    (tmp_path / "long").write_bytes(b"y" * 600_000)
    assert at_terminal("call", desk, "Desk.open", tmp_path / "long")[1].startswith("yyy")


def test_what_is_not_there_yet_is_waited_for() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    pid = os.fork()
    if pid == 0:
        ours.close()
        time.sleep(0.05)
        theirs.send(b"late\n")
        os._exit(0)
    theirs.close()
    reader, writer = os.pipe()
    with open(reader, "rb") as got, open(writer, "w") as pipe:
        Writer(Screen(pipe, io.StringIO())).write(OwnedFd(ours.detach()))
        pipe.close()
        assert got.read() == b"late\n"
    os.waitpid(pid, 0)


def test_streams_are_written_item_by_item(desk: Path, seqrpc_run: Run, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a\n\x1b\n")
    assert seqrpc_run("call", desk, "loud", f"@{tmp_path}/lines") == Done(0, '"A"\n"\\u001b"\n', "")
    assert seqrpc_run("call", desk, "loud", f"@{tmp_path}/lines", "--raw") == Done(0, "A\n\x1b\n", "")
    saved = tmp_path / "saved"
    assert seqrpc_run("call", desk, "count", "3", "--save", saved) == Done(0, "", "")
    assert saved.read_text() == "0\n1\n2\n"
    assert at_terminal("call", desk, "loud", f"@{tmp_path}/lines") == (0, "A\n\\x1b\n")
    assert at_terminal("call", desk, "count", "2") == (0, "0\n1\n")


def test_a_long_stream_into_a_file_tells_how_far_it_is(desk: Path, tmp_path: Path) -> None:
    with terminal("call", desk, "forever", "--save", tmp_path / "saved") as opened:
        opened.wait_for(" items, ")
        opened.type("\x03")
        opened.end()
    assert (tmp_path / "saved").read_text().startswith("0\n1\n2\n")


def test_kinds_of_files_have_names(file: Path, pipe: tuple[int, int]) -> None:
    with owned(file) as fd, owned(Path("/dev/null")) as null, OwnedFd.dup(pipe[0]) as reader:
        assert (kind_of(fd), kind_of(null), kind_of(reader)) == ("file", "device", "pipe")


def test_a_program_that_cannot_be_read_is_misuse() -> None:
    with pytest.raises(Ending, match="No closing quotation"):
        Writer(Screen(io.StringIO(), io.StringIO()), program="'")


def test_texts_and_memory_are_written_for_people_and_saved(tmp_path: Path) -> None:
    tty = Tty()
    writer = Writer(Screen(tty, io.StringIO()))
    for value in ("a\x1b", None, [1], b"x\n", Buffer.copy_of(b"m"), b""):
        writer.write(value)
    assert tty.getvalue() == "a\\x1b\n[\n  1\n]\nx\nm\n"
    raw = Tty()
    Writer(Screen(raw, io.StringIO()), raw=True).write("a\x1b")
    assert raw.getvalue() == "a\\x1b"
    written(Buffer.copy_of(b"hi"), saves=[str(tmp_path / "saved")])
    assert (tmp_path / "saved").read_bytes() == b"hi"


def test_streams_of_all_sorts_are_written(desk: Path, seqrpc_run: Run, tmp_path: Path) -> None:
    with blocking.connect(desk) as connection:
        assert written({"items": connection.call("Desk.count", 2)}) == '{"items":[0,1]}\n'
        with connection.call("Desk.box", "a") as box:
            assert written([box]) == '[{"object":true}]\n'
        tty = Tty()
        Writer(Screen(tty, io.StringIO())).write(connection.call("Desk.count", 300))
        assert tty.getvalue().splitlines() == [str(number) for number in range(300)]
    assert seqrpc_run("call", desk, "memory", "3", "--exec", "cat") == Done(0, "mmm", "")


def test_what_is_read_is_shown_in_whole_lines_at_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\n" + b"x" * 600_000 + b"\nend")
    tty = Tty()
    Writer(Screen(tty, io.StringIO())).write(owned(path))
    assert tty.getvalue().startswith("a\nxxx")
    assert tty.getvalue().endswith("\nend\n")


def test_what_is_no_file_is_given_to_programs_as_it_is_saved(desk: Path, seqrpc_run: Run, tmp_path: Path) -> None:
    for words, text in (
        (("Desk.echo", "a b"), "a b"),
        (("anything", '{"a": 1}'), '{"a":1}\n'),
        (("only",), "null\n"),
        (("count", "3"), "0\n1\n2\n"),
    ):
        assert seqrpc_run("call", desk, *words, "--save", tmp_path / "saved") == Done(0, "", "")
        assert (tmp_path / "saved").read_text() == text
        assert seqrpc_run("call", desk, *words, "--exec", "cat") == Done(0, text, "")
        assert seqrpc_run("call", desk, *words, "--exec", "sh -c 'exit 7'").status == 7
    (tmp_path / "lines").write_text("a\n")
    assert seqrpc_run("call", desk, "loud", f"@{tmp_path}/lines", "--raw", "--exec", "cat") == Done(0, "A\n", "")
    assert seqrpc_run("call", desk, "forever", "--exec", "head -2") == Done(0, "0\n1\n", "")


def test_in_a_chain_what_is_nothing_is_not_given_on(desk: Path, seqrpc_run: Run, tmp_path: Path) -> None:
    chain = ("--", "put", "x", "--", "look")
    assert seqrpc_run("call", desk, "box", "--exec", "cat", "a", *chain) == Done(0, "null\nx", "")
    assert seqrpc_run("call", desk, "box", "--save", tmp_path / "saved", "a", *chain) == Done(0, "null\n", "")
    assert (tmp_path / "saved").read_text() == "x"


def test_a_program_that_gets_nothing_is_told(desk: Path, seqrpc_run: Run, tmp_path: Path) -> None:
    done = seqrpc_run("call", desk, "box", "a", "--exec", "cat")
    assert (done.status, done.err) == (1, "seqrpc: nothing came that could be given to cat\n")
    done = seqrpc_run("call", desk, "only", "--exec", "cat", "--save", tmp_path / "saved")
    assert done == Done(2, "", "seqrpc: what comes goes to --save, or to --exec: give one of them\n")
