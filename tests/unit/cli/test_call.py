"""The command ``call``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Done, at_terminal, seqrpc_command
from support.processes import AS_ROOT

from seqrpc import blocking
from seqrpc.cli.call import _known_of
from seqrpc.cli.places import Elsewhere, Program
from seqrpc.kernel.addresses import FdAddress, PathAddress

Run = Callable[..., Done]


@pytest.mark.parametrize(
    "args, out",
    [
        (("Desk.add", "2", "3"), "5\n"),
        (("add", "b=3", "a=-2"), "1\n"),
        (("add", "-5"), "-4\n"),
        (("Desk.echo", "7"), '"7"\n'),
        (("Other.echo", "7"), "7\n"),
        (("only",), "null\n"),
        (("hint", "3"), "null\n"),
        (("count", "3"), "0\n1\n2\n"),
        (("total", "[1, 2]"), "3\n"),
        (("blob", "3"), "xxx"),
        (("memory", "3"), "mmm"),
        (("box", "a", "--", "put", "x", "--", "look"), 'null\n"x"\n'),
        (("box", "a", "--", "Box.put", "x"), "null\n"),
        (("box", "a"), '{"object":["Box.look","Box.put"]}\n'),
        (("echo", "--raw", "x"), ""),
    ],
)
def test_results_go_to_a_pipe_as_json_and_bytes_as_they_are(
    desk: Path, seqrpc_run: Run, args: tuple[str, ...], out: str
) -> None:
    if args[0] == "echo":
        args, out = ("Desk.echo", "--raw", "x"), "x"
    assert seqrpc_run("call", desk, *args) == Done(0, out, "")


@pytest.mark.parametrize(
    "args, status, err",
    [
        ((), 2, "seqrpc: Missing argument 'METHOD' ('seqrpc call --help' says more)\n"),
        (("add", "x"), 2, "seqrpc: a=x: int is wanted\n"),
        (("add",), 2, "seqrpc: Desk.add needs a: int\n"),
        (("echo", "x"), 2, "seqrpc: echo: which of Desk.echo, Other.echo?\n"),
        (
            ("add", "--tiemout", "3"),
            2,
            (
                "seqrpc: there is no option --tiemout; did you mean '--timeout'? (a text that begins so is written"
                " NAME=--tiemout)\n"
            ),
        ),
        (
            ("box", "a", "--", "look", "--json"),
            2,
            "seqrpc: --json stands before the first -- (a text that begins so is written NAME=--json)\n",
        ),
        (("add", "1", "--"), 2, "seqrpc: a method follows after --\n"),
        (("add", "1", "--shell"), 2, "seqrpc: with --shell calls are typed in, and none is in the command line\n"),
        (("ad", "1"), 3, "seqrpc: there is no method 'ad'; did you mean 'add'?\n"),
        (
            ("add", "1", "--", "status"),
            3,
            "seqrpc: add gives no object to be called by what follows after --, and there is no method 'status'\n",
        ),
        (("box", "a", "--", "zzz"), 3, "seqrpc: there is no method 'zzz'\n"),
        (("Desk.zzz",), 3, "seqrpc: rpc.MethodNotFound: there is no method 'Desk.zzz'\n"),
        (("fail",), 1, "seqrpc: desk.Empty: nothing there\n"),
        (("fail_with", '{"a": 1}'), 1, 'seqrpc: desk.Empty: nothing there; data: {"a":1}\n'),
        (("box", "a", "--", "look"), 1, "seqrpc: desk.Empty: the box a is empty\n"),
        (
            ("sleep", "60", "--timeout", "0.1"),
            5,
            "seqrpc: rpc.DeadlineExceeded: not done within 0.1 s, which is what --timeout allows\n",
        ),
        (
            ("secret",),
            4,
            (
                "seqrpc: rpc.PermissionDenied: Desk.secret: this caller is not admitted"
                " (who may call it: uid(4000000000))\n"
            ),
        ),
        (("add", "1", "--save", "/nothing/here"), 3, "seqrpc: ENOENT: No such file or directory: /nothing/here\n"),
        (("add", "1", "--exec", "'"), 2, 'seqrpc: --exec "\'": No closing quotation\n'),
        (("add", "1", "--as-user", "nobody here"), 2, None),
    ],
)
def test_errors_are_one_line_and_a_status(
    desk: Path, seqrpc_run: Run, args: tuple[str, ...], status: int, err: str | None
) -> None:
    done = seqrpc_run("call", desk, *args)
    assert (done.status, done.out) == (status, "")
    assert done.err.count("\n") == 1
    assert err is None or done.err == err


def test_nobody_listens(seqrpc_run: Run) -> None:
    done = seqrpc_run("call", "/nothing/here", "x")
    assert (done.status, done.out) == (3, "")
    assert done.err.startswith("seqrpc: NobodyListens: cannot connect to /nothing/here: ")


def test_a_stream_of_lines_that_do_not_fit_is_told_as_it_is(desk: Path, seqrpc_run: Run, tmp_path: Path) -> None:
    (tmp_path / "numbers").write_text("1\nx\n")
    done = seqrpc_run("call", desk, "total", f"@{tmp_path}/numbers")
    assert done == Done(2, "", "seqrpc: numbers, line 2=x: int is wanted\n")


def test_a_terminal_gets_results_for_people(desk: Path) -> None:
    assert at_terminal("call", desk, "Desk.echo", "a\x1b[2Jb") == (0, "a\\x1b[2Jb\n")
    assert at_terminal("call", desk, "anything", '{"a": 1}') == (0, '{\n  "a": 1\n}\n')
    assert at_terminal("call", desk, "anything", '{"a": 1}', "--json") == (0, '{"a":1}\n')
    assert at_terminal("call", desk, "only") == (0, "")
    assert at_terminal("call", desk, "blob", "3") == (0, "xxx\n")
    status, text = at_terminal("call", desk, "box", "a")
    assert (status, text) == (0, "an object, with Box.look, Box.put: it is called by what follows after --\n")


def test_types_of_all_sorts_arrive(desk: Path, seqrpc_run: Run) -> None:
    words = ["BLUE", "READ|WRITE", 'point={"x": 1, "data": "aGk="}', "when=2020-01-01T00:00:00Z", "wait=PT1S"]
    words += ["path=/x", "numbers=[1]", 'names={"1": "x"}', 'tags=["a"]', 'pair=[1, "a"]', "data=hi", "either=x"]
    done = seqrpc_run("call", desk, "told", *words, "ratio=2", "yes=true")
    assert json.loads(done.out) == (
        "(<Colour.BLUE: 'blue'>, <Bits.READ|WRITE: 3>, Point(x=1, y=0, data=b'hi'),"
        " datetime.datetime(2020, 1, 1, 0, 0, tzinfo=datetime.timezone.utc), datetime.timedelta(seconds=1),"
        " PosixPath('/x'), [1], {1: 'x'}, {'a'}, (1, 'a'), b'hi', 'x', 2.0, True)"
    )


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_root_is_told_by_what_rule_another_is_refused(desk: Path) -> None:
    desk.parent.chmod(0o711)
    desk.chmod(0o666)
    done = seqrpc_command("call", desk, "count", "3", "--as-user", "54321:54321")
    assert (done.status, done.out) == (4, "")
    assert done.err.startswith(  # who measures what ran cannot write it down as that user, which is told, too
        "seqrpc: rpc.PermissionDenied: Desk.count: this caller is not admitted"
        " (who may call it: (same_user | uid(0)))\n"
    )
    done = seqrpc_command("call", f"{desk}.gone", "add", "1", "--as-user", "54321:54321")
    assert (done.status, done.out) == (3, "")


def test_what_has_one_connection_is_not_asked_before(desk: Path) -> None:
    assert _known_of(PathAddress(str(desk))) is not None
    for place in (
        Program(("seqrpc-no-such",)),
        Elsewhere("host", None, "/x"),
        FdAddress(3),
        PathAddress(f"{desk}.gone"),
    ):
        assert _known_of(place) is None


def test_nothing_is_called_if_what_comes_cannot_be_saved(desk: Path, seqrpc_run: Run, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("before")
    done = seqrpc_run("call", desk, "write", f"file=@{tmp_path}/kept", "x", "--save", "/nothing/here")
    assert done == Done(3, "", "seqrpc: ENOENT: No such file or directory: /nothing/here\n")
    with blocking.connect(desk) as connection:
        assert connection.call("rpc.stats")["methods"]["Desk.write"]["calls"] == 0


def test_a_call_that_failed_leaves_no_file_and_takes_none_away(desk: Path, seqrpc_run: Run, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("before")
    saves = ("--save", tmp_path / "kept", "--save", tmp_path / "made")
    assert seqrpc_run("call", desk, "fail", *saves).status == 1
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept").read_text() == "before"


def test_what_fails_here_after_a_call_was_made_is_no_absence(desk: Path, seqrpc_run: Run) -> None:
    done = seqrpc_run("call", desk, "box", "a", "--", "put", "@/nothing/here")
    assert done == Done(1, "", "seqrpc: ENOENT: No such file or directory: /nothing/here\n")
    assert seqrpc_run("call", desk, "Desk.echo", "@/nothing/here").status == 3


def test_a_chain_is_not_begun_if_one_of_its_methods_is_not_there(desk: Path, seqrpc_run: Run) -> None:
    assert seqrpc_run("call", desk, "box", "a", "--", "zzz").status == 3
    with blocking.connect(desk) as connection:
        assert connection.call("rpc.stats")["methods"]["Desk.box"]["calls"] == 0
    assert seqrpc_run("call", desk, "add", "1", "--", "add", "2") == Done(0, "2\n3\n", "")
    done = seqrpc_run("call", desk, "maybe", "--", "look")
    assert done == Done(1, "null\n", "seqrpc: maybe gave no object: there is no method 'look'\n")
