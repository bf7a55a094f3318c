from __future__ import annotations

import gc
import os
import sys
from typing import Any

import pytest
from support.processes import fork_as_a_library_does, in_child

import seqrpc
from seqrpc.kernel import forks


class Noting:
    """Something that notes in which processes it heard of a fork."""

    def __init__(self) -> None:
        self.heard_in: list[int] = []
        forks.register(self, lambda thing: thing.forked())

    def forked(self) -> None:
        self.heard_in.append(os.getpid())


def test_what_is_registered_hears_of_a_fork_in_the_child_once() -> None:
    thing = Noting()
    child, heard_in = in_child(lambda: (os.getpid(), thing.heard_in))
    assert heard_in == [child]
    assert thing.heard_in == []


def test_what_is_gone_is_not_kept_for_it() -> None:
    thing = Noting()
    heard_in = thing.heard_in
    del thing
    gc.collect()
    assert in_child(lambda: heard_in) == []


def test_a_child_s_own_things_hear_of_its_forks_and_inherited_ones_do_not_again() -> None:
    inherited = Noting()

    def work() -> tuple[int, int, list[int], list[int]]:
        own = Noting()
        grandchild, own_heard, inherited_heard = in_child(lambda: (os.getpid(), own.heard_in, inherited.heard_in))
        assert own.heard_in == []
        return os.getpid(), grandchild, own_heard, inherited_heard

    child, grandchild, own_heard, inherited_heard = in_child(work)
    assert own_heard == [grandchild]
    assert inherited_heard == [child]


def test_each_process_has_its_generation() -> None:
    here = forks.generation
    assert in_child(lambda: (forks.generation, in_child(lambda: forks.generation))) == (here + 1, here + 2)
    assert forks.generation == here


def test_one_that_fails_is_told_of_and_keeps_no_other_from_hearing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Noting):
        def forked(self) -> None:
            super().forked()
            raise OSError("it fails")

    told: list[str] = []
    things = [Noting(), Failing(), Failing(), Noting()]
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(repr(what.exc_value)))

    def work() -> tuple[list[int], list[str]]:
        return [len(thing.heard_in) for thing in things], told

    assert in_child(work) == ([1, 1, 1, 1], ["OSError('it fails')"])


def test_what_is_registered_while_others_hear_is_the_child_s_own() -> None:
    class Registering(Noting):
        made: Any = None

        def forked(self) -> None:
            super().forked()
            self.made = Noting()

    thing = Registering()

    def work() -> tuple[list[int], bool]:
        made = thing.made
        return made.heard_in, in_child(lambda: made.heard_in == [os.getpid()])

    assert in_child(work) == ([], True)


def test_children_that_python_makes_are_not_missed() -> None:
    assert forks.was_missed() is False
    assert in_child(forks.was_missed) is False


def test_a_child_that_a_library_made_is() -> None:
    pid = fork_as_a_library_does()
    if pid == 0:
        os._exit(forks.was_missed())
    assert os.waitpid(pid, 0) == (pid, 1 << 8)


def test_what_is_used_in_a_fork_says_whose_it_is_and_what_to_do() -> None:
    error = forks.wrong_process("this connection")
    assert isinstance(error, seqrpc.WrongProcess)
    assert str(error) == (
        "this connection belongs to the process that made it, and this is a fork of that one: connect again here,"
        " or start child processes before connecting, or by multiprocessing's method 'spawn'"
    )
