"""What a process and its successor say to each other, and how the successor knows its predecessor."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.descriptors import is_open, same_file
from support.processes import in_child
from support.workers import gone_within

from seqrpc.errors import AddressError
from seqrpc.kernel.addresses import PathAddress
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.handover import VARIABLE, Heard, Talk, Word, start_successor, take_predecessor
from seqrpc.kernel.listening import listen
from seqrpc.kernel.sockets import socket_pair

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="successors are Linux's")


@pytest.fixture
def ends() -> Iterator[tuple[Talk, Talk]]:
    """Return both ends of a pair, each of which hears this process."""
    one, other = (Talk(sock, os.getpid()) for sock in socket_pair())
    yield one, other
    for end in (one, other):
        end.close()
        end.close()


def test_everything_can_be_said_and_is_heard_in_order(ends: tuple[Talk, Talk], pipe: tuple[int, int]) -> None:
    with pytest.raises(BlockingIOError):
        ends[1].hear()
    for word in Word:
        ends[0].say(word, b"more", [pipe[0]])
    for word in Word:
        heard = ends[1].hear()
        assert heard is not None
        assert (heard.word, heard.data) == (word, b"more")
        (fd,) = heard.fds
        assert same_file(fd, pipe[0])
        close_all(heard.fds)


def test_what_is_listened_with_is_offered(ends: tuple[Talk, Talk], socket_path: Path) -> None:
    path = os.fsdecode(os.fsencode(socket_path) + b"\xff")
    listening = listen(PathAddress(path), mode=0o640)
    ends[0].give(listening)
    heard = ends[1].hear()
    assert heard is not None
    assert heard.word is Word.GIVE
    assert heard.offer == listening.offer()[0]
    assert heard.offer.address == os.fsencode(path)
    assert len(heard.fds) == 2
    close_all(heard.fds)
    listening.close()


@pytest.mark.parametrize("data", [b"", b"[1]", b"{}", b"\xff"])
def test_an_offer_that_makes_no_sense_is_said_to(data: bytes) -> None:
    with pytest.raises(AddressError, match="says what this one does not understand"):
        _ = Heard(Word.GIVE, data, []).offer


@pytest.mark.parametrize("packet", [b"", b"x", b"?" * 9_000])
def test_what_makes_no_sense_is_the_end(ends: tuple[Talk, Talk], packet: bytes, pipe: tuple[int, int]) -> None:
    socket.send_fds(ends[0].sock, [packet], [pipe[0]])
    assert ends[1].hear() is None


def test_another_process_is_not_heard() -> None:
    one, other = socket_pair()
    talk = Talk(other, os.getppid())
    with one:
        one.send(b"?")
        assert talk.hear() is None
    talk.close()


def test_what_was_said_before_the_end_is_heard(ends: tuple[Talk, Talk]) -> None:
    ends[1].say(Word.ASK)  # nobody hears this
    ends[0].say(Word.SERVING)
    ends[0].say(Word.STOPPING)
    ends[0].close()
    said = [ends[1].hear() for _ in range(3)]
    assert [heard and heard.word for heard in said] == [Word.SERVING, Word.STOPPING, None]
    with pytest.raises(OSError, match="Broken pipe"):
        ends[1].say(Word.ASK)
    ends[1].close()
    assert ends[1].hear() is None


def test_a_successor_is_this_program_started_anew_with_one_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "import os, sys; os.write(int(os.environ['%s']), (os.environ['MORE'] + sys.argv[1] + os.getcwd()).encode())"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", code % VARIABLE, "argument"])
    monkeypatch.chdir(tmp_path)
    ours, theirs = socket_pair()
    with ours, theirs:
        process = start_successor(theirs.fileno(), {"MORE": "environment "})
        assert gone_within(20, [process.pid])
        assert process.poll()
        assert ours.recv(1000).decode() == f"environment argument{tmp_path}"


def taken(number: Callable[[int], str] = str) -> tuple[bool, bool]:
    """Return whether a child finds its parent's end, and whether the variable is still there."""
    ours, theirs = socket_pair()

    def work() -> tuple[bool, bool]:
        os.environ[VARIABLE] = number(theirs.fileno())
        talk = take_predecessor()
        assert talk is not None
        theirs.detach()
        talk.say(Word.ASK)
        talk.close()
        return talk.pid == os.getppid(), VARIABLE in os.environ

    with ours, theirs:
        return in_child(work)


def test_a_child_finds_its_parent_and_its_own_children_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert taken() == (True, False)
    assert take_predecessor() is None


@pytest.mark.parametrize(
    "text, complaint",
    [("", "number"), ("-1", "number"), ("x" * 300, "number"), ("999999", "not open"), ("9999999999", "not open")],
)
def test_a_variable_that_names_nothing_ends_the_start(
    text: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(AddressError, match=rf"^SEQRPC_PREDECESSOR=.*: .*{complaint}"):
        take_predecessor()
    assert VARIABLE not in os.environ


def test_what_is_not_a_pair_of_the_parent_s_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket_pair()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(f"\0seqrpc-{os.getpid()}-pair")
    listening.listen()
    with ours, theirs, listening, OwnedFd(os.open(os.devnull, os.O_RDONLY)) as null:
        for thing in (theirs, listening, null):
            monkeypatch.setenv(VARIABLE, str(thing.fileno()))
            with pytest.raises(AddressError, match="socket"):
                take_predecessor()
            assert is_open(thing.fileno())
