from __future__ import annotations

import copy
import errno
import gc
import io
import os
import pickle
import resource
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.descriptors import is_open
from support.lingering import lingering
from support.processes import in_child
from support.waiting import PATIENCE

from seqrpc.kernel.closing import CLOSER
from seqrpc.kernel.descriptors import (
    OwnedFd,
    ValueFd,
    as_value,
    book,
    close_all,
    close_checked,
    received_fd,
    sender_of,
    socket_of,
    tell_senders,
    value_fd,
    widen_table,
)
from seqrpc.limits import LOG_BURST
from seqrpc.logs import meter


def duplicate(pipe: tuple[int, int]) -> int:
    return os.dup(pipe[0])


def test_lends_the_number_and_stays_the_owner(pipe: tuple[int, int]) -> None:
    number = duplicate(pipe)
    with OwnedFd(number) as fd:
        assert fd.fileno() == number
        assert fd.fileno() == number
        assert not fd.closed
        assert is_open(number)
    assert not is_open(number)


def test_what_is_no_number_is_refused_and_nothing_is_warned_of() -> None:
    with tempfile.TemporaryFile() as file, pytest.raises(TypeError, match=r"got <.*>: write OwnedFd\.dup\(file\)$"):
        OwnedFd(file)  # type: ignore[arg-type]


def test_a_negative_number_is_refused_and_nothing_is_warned_of() -> None:
    with pytest.raises(ValueError, match="not negative, got -1"):
        OwnedFd(-1)
    gc.collect()


def test_an_object_whose_init_never_ran_dies_in_peace() -> None:
    OwnedFd.__new__(OwnedFd)
    gc.collect()


def test_detach_gives_the_number_away(pipe: tuple[int, int]) -> None:
    number = duplicate(pipe)
    fd = OwnedFd(number)
    assert fd.detach() == number
    assert fd.closed
    with pytest.raises(ValueError, match="detached"):
        fd.fileno()
    with pytest.raises(ValueError, match="detached"):
        fd.detach()
    fd.close()
    assert is_open(number)
    with pytest.raises(ValueError, match="detached"):
        fd.fileno()
    os.close(number)


def test_the_old_name_of_detach_still_works_and_names_the_new_one(pipe: tuple[int, int]) -> None:
    number = duplicate(pipe)
    fd = OwnedFd(number)
    with pytest.warns(DeprecationWarning, match=r"OwnedFd\.detach") as told:
        assert fd.take() == number
    assert [warning.filename for warning in told] == [__file__]
    with pytest.raises(ValueError, match="detached"):
        fd.fileno()
    os.close(number)


def test_closing_twice_closes_once(pipe: tuple[int, int]) -> None:
    number = duplicate(pipe)
    fd = OwnedFd(number)
    fd.close()
    assert fd.closed
    reused = duplicate(pipe)
    assert reused == number
    fd.close()
    assert is_open(reused)
    os.close(reused)
    with pytest.raises(ValueError, match="closed"):
        fd.detach()


def test_close_reports_what_the_kernel_says_once(pipe: tuple[int, int]) -> None:
    number = duplicate(pipe)
    fd = OwnedFd(number)
    os.close(number)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fd.close()
    assert fd.closed
    fd.close()


def test_detached_in_a_with_block_it_stays_open(pipe: tuple[int, int]) -> None:
    with OwnedFd(duplicate(pipe)) as fd:
        number = fd.detach()
    assert is_open(number)
    os.close(number)


def test_a_dropped_one_is_closed_with_a_warning(pipe: tuple[int, int]) -> None:
    number = duplicate(pipe)
    fd = OwnedFd(number)
    with pytest.warns(ResourceWarning, match=rf"unclosed <OwnedFd {number}>"):
        del fd
    assert not is_open(number)


def test_a_dropped_one_is_closed_also_where_warnings_are_errors(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda caught: unraisable.append(str(caught.exc_value)))
    number = duplicate(pipe)
    fd = OwnedFd(number)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del fd
    assert unraisable == [f"unclosed <OwnedFd {number}>"]
    assert not is_open(number)


def test_dup_borrows_a_number_or_anything_with_fileno(pipe: tuple[int, int]) -> None:
    with OwnedFd.dup(pipe[0]) as first, OwnedFd.dup(first) as second:
        assert len({pipe[0], first.fileno(), second.fileno()}) == 3
        assert os.path.sameopenfile(first.fileno(), second.fileno())
        assert not os.get_inheritable(second.fileno())
    assert is_open(pipe[0])


def test_dup_of_a_closed_number_is_an_error() -> None:
    with tempfile.TemporaryFile() as file:
        number = file.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        OwnedFd.dup(number)


def test_open_makes_a_file_that_owns_it(pipe: tuple[int, int]) -> None:
    fd = OwnedFd(os.dup(pipe[1]))
    number = fd.fileno()
    with fd.open("w", encoding="utf-8") as file:
        assert fd.closed
        assert file.fileno() == number
        file.write("grüße")
    assert not is_open(number)
    assert os.read(pipe[0], 100) == "grüße".encode()


def test_open_reads_text_by_default() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"one\ntwo\n")
        file.seek(0)
        with OwnedFd.dup(file).open(encoding="ascii") as copied:
            assert copied.readlines() == ["one\n", "two\n"]


def test_open_with_a_wrong_mode_leaves_it_owned(pipe: tuple[int, int]) -> None:
    with OwnedFd(duplicate(pipe)) as fd:
        with pytest.raises(ValueError, match="mode"):
            fd.open("x+w")
        assert not fd.closed


@pytest.mark.parametrize("case", ["directory", "encoding", "seeking"])
def test_open_closes_what_no_file_can_be_made_of(case: str, pipe: tuple[int, int]) -> None:
    if case == "directory":
        fd = OwnedFd(os.open("/", os.O_RDONLY))
        number = fd.fileno()
        with pytest.raises(IsADirectoryError):
            fd.open("rb")
    elif case == "encoding":
        fd = OwnedFd(duplicate(pipe))
        number = fd.fileno()
        with pytest.raises(LookupError):
            fd.open("r", encoding="no such encoding")
    else:
        fd = OwnedFd(duplicate(pipe))
        number = fd.fileno()
        with pytest.raises(io.UnsupportedOperation):
            fd.open("r+", encoding="ascii")
    gc.collect()
    assert fd.closed
    assert not is_open(number)


def test_open_of_a_detached_one_is_an_error(pipe: tuple[int, int]) -> None:
    fd = OwnedFd(duplicate(pipe))
    os.close(fd.detach())
    with pytest.raises(ValueError, match="detached"):
        fd.open("rb")


def test_it_is_neither_copied_nor_pickled(pipe: tuple[int, int]) -> None:
    with OwnedFd(duplicate(pipe)) as fd:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=r"OwnedFd\.dup"):
                attempt(fd)


def test_repr_tells_the_state(pipe: tuple[int, int]) -> None:
    number = duplicate(pipe)
    fd = OwnedFd(number)
    assert repr(fd) == f"<OwnedFd {number}>"
    os.close(fd.detach())
    assert repr(fd) == "<OwnedFd detached>"
    closed = OwnedFd(duplicate(pipe))
    closed.close()
    assert repr(closed) == "<OwnedFd closed>"


def test_the_descriptor_of_a_value_goes_with_the_last_reference_without_a_word(pipe: tuple[int, int]) -> None:
    fd = ValueFd(duplicate(pipe))
    number = fd.fileno()
    other = [fd]
    del fd
    assert is_open(number)
    other.clear()
    assert not is_open(number)


def test_the_descriptor_of_a_value_that_was_detached_or_closed_is_left_alone(pipe: tuple[int, int]) -> None:
    detached, closed = ValueFd(duplicate(pipe)), ValueFd(duplicate(pipe))
    number = detached.detach()
    closed.close()
    again = duplicate(pipe)
    del detached, closed
    gc.collect()
    assert is_open(number)
    assert is_open(again)
    for fd in (number, again):
        os.close(fd)
    with pytest.raises(ValueError, match="not negative"):
        ValueFd(-1)
    ValueFd.__new__(ValueFd)
    gc.collect()


def test_close_all_closes_the_rest_when_one_fails(pipe: tuple[int, int]) -> None:
    numbers = [duplicate(pipe) for _ in range(3)]
    fds = [OwnedFd(number) for number in numbers]
    os.close(numbers[1])
    close_all(fds)
    assert fds == []
    assert [is_open(number) for number in numbers] == [False, False, False]


def test_close_all_passes_over_those_that_were_detached(pipe: tuple[int, int]) -> None:
    detached, owned = OwnedFd(duplicate(pipe)), OwnedFd(duplicate(pipe))
    number, other = detached.detach(), owned.fileno()
    close_all([detached, owned])
    assert is_open(number)
    assert not is_open(other)
    os.close(number)


def drop(number: int) -> None:
    for _ in range(number):
        OwnedFd(os.open(os.devnull, os.O_RDONLY))


def test_of_many_dropped_ones_some_are_told_singly_and_the_others_counted() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        drop(50)
        assert len(told) == LOG_BURST
        meter.tell_due()
    assert str(told[-1].message) == "40 more descriptors were dropped unclosed"
    assert {warning.category for warning in told} == {ResourceWarning}


def test_where_warnings_are_errors_the_log_has_the_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    drop(50)
    meter.tell_due()
    assert len(unraisable) == LOG_BURST
    assert caplog.messages == ["= 40 more descriptors were dropped unclosed"]


def test_a_copy_that_a_fork_inherited_is_closed_without_a_warning(pipe: tuple[int, int]) -> None:
    inherited = [OwnedFd(duplicate(pipe))]

    def drop() -> tuple[bool, list[str]]:
        number = inherited[0].fileno()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            inherited.clear()
            gc.collect()
            own = OwnedFd(duplicate(pipe))
            del own
            gc.collect()
        return is_open(number), [str(one.message) for one in told]

    left_open, told = in_child(drop)
    assert len(told) == 1, "of its own, and of no other"
    assert told[0].startswith("unclosed <OwnedFd ")
    assert not left_open
    assert is_open(inherited[0].fileno())
    inherited[0].close()


# Those that others sent


@pytest.mark.parametrize("how", ["close", "with", "drop", "value", "close_all"])
def test_closing_one_that_lingers_takes_no_time(how: str) -> None:
    with lingering(60) as made:
        number = made.make().detach()
        begin = time.monotonic()
        if how == "value":
            value = value_fd(number, 1001)
            del value
        else:
            fd = received_fd(number, 1001)
            if how == "close":
                fd.close()
            elif how == "with":
                with fd:
                    pass
            elif how == "close_all":
                close_all([fd])
            else:
                with pytest.warns(ResourceWarning, match=rf"unclosed <OwnedFd {number}>"):
                    del fd
        assert time.monotonic() - begin < 10
        assert not CLOSER.wait_idle(0.01)
    assert CLOSER.wait_idle(30)
    assert not is_open(number)


def test_one_that_was_received_is_as_any_other(pipe: tuple[int, int]) -> None:
    fd = received_fd(duplicate(pipe), os.geteuid())
    number = fd.fileno()
    assert type(fd) is OwnedFd
    assert repr(fd) == f"<OwnedFd {number}>"
    fd.close()
    fd.close()
    assert not is_open(number)
    detached = received_fd(duplicate(pipe))
    os.close(detached.detach())
    detached.close()


def test_whose_they_are_is_known(pipe: tuple[int, int]) -> None:
    fds = [received_fd(duplicate(pipe)), received_fd(duplicate(pipe), 1)]
    assert [sender_of(fd) for fd in fds] == [None, 1]
    tell_senders(fds, 1001)
    assert [sender_of(fd) for fd in fds] == [1001, 1001]
    kept = as_value(fds[0])
    assert type(kept) is ValueFd
    assert fds[0].closed
    assert sender_of(kept) == 1001
    with OwnedFd(duplicate(pipe)) as ours:
        assert sender_of(ours) is None
    assert sender_of(None) is None
    close_all([kept, *fds])


def test_numbers_are_kept_somewhere_as_long_as_they_are_open_and_owned() -> None:
    numbers: set[int] = set()
    fds = [OwnedFd(os.dup(0)) for _ in range(4)]
    closed = OwnedFd(os.dup(0))
    closed.close()
    for fd in (*fds, closed):
        book(fd, numbers)
    assert numbers == {fd.fileno() for fd in fds}
    fds[0].close()
    os.close(fds[1].detach())
    value = as_value(fds[2])
    assert numbers == {value.fileno(), fds[3].fileno()}
    value.close()
    close_all(fds[3:])
    fds[3].close()
    assert numbers == set()


def test_one_that_was_made_here_is_closed_before_close_returns() -> None:
    fd = OwnedFd(socket.socket().detach())
    number = fd.fileno()
    fd.close()
    assert not is_open(number)
    kept = as_value(OwnedFd(socket.socket().detach()))
    number = kept.fileno()
    del kept
    assert not is_open(number)


@pytest.mark.parametrize(
    "what, way_out",
    [
        ("a.txt", "'a.txt': open the file first, as in OwnedFd(os.open(...))"),
        (b"a.txt", "b'a.txt': open the file first, as in OwnedFd(os.open(...))"),
        (Path("a.txt"), "PosixPath('a.txt'): open the file first, as in OwnedFd(os.open(...))"),
        (None, "None: write OwnedFd.dup(file)"),
        ([], "[]: write OwnedFd.dup(file)"),
    ],
)
def test_what_is_no_number_is_told_with_the_way_out(what: Any, way_out: str) -> None:
    with pytest.raises(TypeError) as caught:
        OwnedFd(what)
    assert str(caught.value) == f"OwnedFd takes a descriptor's number, got {way_out}"


# Sockets of received values


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return a pair of sockets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("how", ["close", "detach"])
def test_the_socket_of_a_value_counts_where_its_descriptor_was_booked(
    how: str, pair: tuple[socket.socket, socket.socket]
) -> None:
    numbers: set[int] = set()
    owned = value_fd(pair[0].detach())
    book(owned, numbers)
    with socket_of(owned) as sock:
        assert owned.closed
        assert numbers == {sock.fileno()}
        sock.send(b"1")
        assert pair[1].recv(9) == b"1"
        if how == "detach":
            os.close(sock.detach())
        else:
            sock.close()
        assert numbers == set()


def test_the_socket_of_another_user_is_closed_by_a_thread(pair: tuple[socket.socket, socket.socket]) -> None:
    sock = socket_of(value_fd(pair[0].detach(), os.geteuid() + 4_242))
    number = sock.fileno()
    with CLOSER._lock:  # no thread takes anything meanwhile
        sock.close()
        assert sock.fileno() == -1
        assert is_open(number)
    assert CLOSER.wait_idle(PATIENCE)
    assert not is_open(number)
    assert pair[1].recv(1) == b""
    sock.close()


def test_the_socket_of_a_value_that_nobody_counts_is_as_any_other(pair: tuple[socket.socket, socket.socket]) -> None:
    with socket_of(value_fd(pair[0].detach())) as sock:
        assert pair[1].send(b"2") == 1
        assert sock.recv(9) == b"2"


def test_what_is_no_socket_is_still_owned(pipe: tuple[int, int]) -> None:
    owned = OwnedFd(pipe[0])
    with pytest.raises(OSError, match="Socket operation on non-socket"):
        socket_of(owned)
    assert owned.fileno() == pipe[0]
    owned.detach()


# Many at once


def test_of_many_that_were_received_a_thread_closes_all() -> None:
    pairs = [os.pipe() for _ in range(40)]
    numbers: set[int] = set()
    fds = [received_fd(reader, 4321) for reader, _writer in pairs]
    for owned in fds:
        book(owned, numbers)
    mine, detached, closed = OwnedFd(os.dup(0)), received_fd(os.dup(0), 4321), received_fd(os.dup(0), 4321)
    kept = detached.detach()
    closed.close()
    close_all([mine, *(all_of_them := list(fds)), detached, closed])
    assert all(owned.closed for owned in [mine, *all_of_them])
    assert numbers == set()
    assert CLOSER.wait_idle(PATIENCE)
    for reader, writer in pairs:
        assert not is_open(reader)
        os.close(writer)
    assert is_open(kept)
    os.close(kept)


def test_of_many_that_were_received_a_fork_closes_its_own_copies() -> None:
    fds = [received_fd(os.dup(0), 4321) for _ in range(40)]
    numbers = [owned.fileno() for owned in fds]

    def child() -> list[bool]:
        close_all(fds)
        return [is_open(number) for number in numbers]

    assert in_child(child) == [False] * 40
    assert all(map(is_open, numbers))
    close_all(fds)
    assert CLOSER.wait_idle(PATIENCE)


# The table


def test_the_table_is_widened_at_once() -> None:
    def child() -> list[Any]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        before = os.listdir("/proc/self/fd")
        widen_table(3000)
        (size,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("FDSize")]
        try:
            widen_table(4097)
        except OSError as exc:
            return [int(size.split()[1]) >= 3000, os.listdir("/proc/self/fd") == before, exc.errno]
        return []

    assert in_child(child) == [True, True, errno.EINVAL]


def test_a_memory_file_that_was_checked_is_closed_by_what_is_known_of_it() -> None:
    booked: set[int] = set()
    with lingering(60) as made:  # a small file would be closed here, and this would take long
        for held, is_closed_here in ((8 << 20, True), ((8 << 20) + 1, False)):
            number = os.memfd_create("checked") if is_closed_here else made.make().detach()
            file = received_fd(number, os.geteuid())
            book(file, booked)
            begin = time.monotonic()
            close_checked(file, held)
            assert time.monotonic() - begin < PATIENCE
            assert file.closed
            assert not booked
            assert is_open(number) is not is_closed_here
            close_checked(file, 1)  # closing twice does nothing
