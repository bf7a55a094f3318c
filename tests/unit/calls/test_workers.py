from __future__ import annotations

import subprocess
import sys
import types
from typing import Any

import pytest
from support.workers import Desk, Parent, Refuses, echo

import seqrpc
from seqrpc.calls.workers import MAIN, Origin, Tail, crashed, make, make_params, origin_of, python_argv, setup_for
from seqrpc.errors import InvalidParams
from seqrpc.kernel.privileges import Restraints
from seqrpc.limits import Limits


def in_main(monkeypatch: pytest.MonkeyPatch, **main: Any) -> Any:
    """Return a class of the program's own module, which has such attributes."""
    cls = type("Own", (seqrpc.Service,), {"__module__": "__main__", "__qualname__": "Own"})
    module = types.SimpleNamespace(Own=cls, **main)
    monkeypatch.setitem(sys.modules, "__main__", module)
    return cls


def test_a_class_is_found_where_it_is() -> None:
    assert origin_of(Desk) == Origin("support.workers", "Desk")
    assert origin_of(echo) == Origin("support.workers", "echo")
    assert origin_of("some.module:Outer.Inner") == Origin("some.module", "Outer.Inner")


def test_one_of_the_program_itself_is_found_by_its_file_or_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    own = in_main(monkeypatch, __spec__=None, __file__=__file__)
    assert origin_of(own) == Origin(MAIN, "Own", main_path=__file__)
    own = in_main(monkeypatch, __spec__=types.SimpleNamespace(name="package.__main__"))
    assert origin_of(own) == Origin(MAIN, "Own", main_module="package.__main__")


def test_what_a_child_cannot_import_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(seqrpc.Service): ...

    for thing in (Local, lambda: None):
        with pytest.raises(ValueError, match="cannot be imported in a child: put it at the top of a module"):
            origin_of(thing)
    for text in ("Desk", ":Desk", "module:", ""):
        with pytest.raises(ValueError, match="a class is named as 'module:Class', got"):
            origin_of(text)
    for main in ({"__spec__": None}, {"__spec__": None, "__file__": "/nowhere/<stdin>"}):
        with pytest.raises(ValueError, match="Own is defined in a session"):
            origin_of(in_main(monkeypatch, **main))


def test_a_child_is_told_what_differs_from_the_default() -> None:
    setup = setup_for(Origin("a", "B"), Restraints(nice=1), Limits(max_depth=10))
    assert setup.limits == {"max_depth": 10}
    assert setup.argv == sys.argv
    assert all(entry.startswith("/") for entry in setup.path)


def test_a_child_is_a_python_as_this_one() -> None:
    program = "from seqrpc.calls.workers import python_argv; print(python_argv('x')[1:-4])"
    options = ["-O", "-s", "-B", "-b", "-X", "dev", "-X", "importtime=0", "-W", "ignore"]
    ran = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, check=True)
    told = ran.stdout.strip()
    for option in ("'-O'", "'-s'", "'-B'", "'-b'", "'-Xdev'", "'-Ximporttime=0'", "'-Wignore'"):
        assert option in told
    isolated = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {program}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert isolated.strip() == "['-I', '-S']"


def test_without_a_python_there_is_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(OSError, match="does not know its own Python"):
        python_argv("child")


def test_what_a_class_is_made_with_is_converted_by_its_annotations() -> None:
    desk = make(Desk, [3], {})
    assert (desk.start, desk.name, desk.file) == (3, "nobody", None)
    assert make(Desk, [3], {"name": "ann"}).name == "ann"
    assert isinstance(make(Parent, [], {}), Parent)
    with pytest.raises(InvalidParams, match="Expected `int`, got `str`"):
        make(Desk, ["three"], {})
    with pytest.raises(ValueError, match=r"^not today$"):
        make(Refuses, ["not today"], {})


def test_a_class_that_takes_nothing_is_given_nothing() -> None:
    class Plain(seqrpc.Service): ...

    assert isinstance(make(Plain, [], {}), Plain)
    make_params(Plain, (), {})
    with pytest.raises(InvalidParams, match="Plain takes no arguments"):
        make(Plain, [1], {})
    with pytest.raises(TypeError, match=r"Plain\(\) takes no arguments"):
        make_params(Plain, (1,), {})


def test_arguments_that_do_not_fit_are_told_before_a_child_is_started() -> None:
    make_params(Desk, (1,), {"name": "ann"})
    with pytest.raises(TypeError, match="unexpected argument 'nmae'"):
        make_params(Desk, (1,), {"nmae": "ann"})
    with pytest.raises(TypeError, match="missing 1 required argument: 'text'"):
        make_params(Refuses, (), {})


def test_the_last_lines_are_kept() -> None:
    tail = Tail()
    assert tail.add(b"one\ntw") == ["one"]
    assert tail.lines == ("one", "tw")
    assert tail.add(b"o\r\n\xff\n") == ["two", "\\xff"]
    assert tail.end() == []
    tail.add(b"no end")
    assert tail.end() == ["no end"]
    tail.add(b"x" * 10_000)
    assert len(tail.lines[-1]) < 1000
    tail.add(b"".join(b"%d\n" % number for number in range(100)))
    assert tail.lines == tuple(map(str, range(80, 100)))


def test_the_end_of_a_worker_is_told() -> None:
    error = crashed("Desk", 5, -9, ["first", "last"])
    assert str(error) == "the worker Desk (process 5) died of SIGKILL; its last line: last"
    assert (error.returncode, error.last_lines) == (-9, ("first", "last"))
    assert isinstance(error, seqrpc.ConnectionLost)
    assert error.execution is seqrpc.Execution.MAY_HAVE_RUN
    assert str(crashed("Desk", None, None, why="did not begin: no")) == "the worker Desk did not begin: no"
