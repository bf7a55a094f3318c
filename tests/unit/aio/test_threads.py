from __future__ import annotations

import functools
import gc
import queue
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future

import pytest
from support.daemons import daemon
from support.processes import in_child
from support.waiting import PATIENCE

from seqrpc.aio.threads import Threads
from seqrpc.errors import Overloaded


@pytest.fixture
def threads() -> Iterator[Threads]:
    pool = Threads(2)
    yield pool
    pool.close()


def test_functions_run_in_another_thread(threads: Threads) -> None:
    thread = threads.submit(threading.current_thread).result(PATIENCE)
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name.startswith("seqrpc")


def test_what_a_function_raises_is_raised_by_its_future(threads: Threads) -> None:
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(PATIENCE)
    with pytest.raises(SystemExit):
        threads.submit(sys.exit).result(PATIENCE)
    assert threads.submit(lambda: 5).result(PATIENCE) == 5


def test_a_thread_that_is_free_is_used_again(threads: Threads) -> None:
    seen = {threads.submit(threading.get_ident).result(PATIENCE) for _ in range(100)}
    assert len(seen) <= 2


def test_there_are_no_more_threads_than_were_asked_for(threads: Threads) -> None:
    go_on = threading.Event()
    running = threading.Barrier(3)

    def work() -> int:
        running.wait(PATIENCE)
        go_on.wait(PATIENCE)
        return threading.get_ident()

    first = [threads.submit(work) for _ in range(2)]
    running.wait(PATIENCE)
    third: Future[int] = threads.submit(threading.get_ident)
    assert not third.running()
    go_on.set()
    assert third.result(PATIENCE) in {future.result(PATIENCE) for future in first}


def test_what_has_not_begun_is_cancelled_at_the_end_and_what_runs_is_not() -> None:
    threads = Threads(1)
    began, go_on = threading.Event(), threading.Event()

    def work() -> threading.Thread:
        began.set()
        go_on.wait(PATIENCE)
        return threading.current_thread()

    running, waiting, given_up = threads.submit(work), threads.submit(work), threads.submit(work)
    assert began.wait(PATIENCE)
    assert given_up.cancel()
    threads.close()
    threads.close()
    with pytest.raises(CancelledError):
        waiting.result(PATIENCE)
    assert not running.done()
    go_on.set()
    thread = running.result(PATIENCE)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="the threads were let go"):
        threads.submit(work)


def test_what_was_cancelled_before_its_turn_does_not_run(threads: Threads) -> None:
    began, go_on = threading.Barrier(3), threading.Event()

    def work() -> None:
        began.wait(PATIENCE)
        go_on.wait(PATIENCE)

    busy = [threads.submit(work) for _ in range(2)]
    began.wait(PATIENCE)
    ran: list[int] = []
    given_up = threads.submit(lambda: ran.append(1))
    assert given_up.cancel()
    last = threads.submit(lambda: ran.append(2))
    go_on.set()
    last.result(PATIENCE)
    for future in busy:
        future.result(PATIENCE)
    assert ran == [2]


def test_what_is_discarded_before_its_turn_is_forgotten_at_once_and_what_runs_is_not(threads: Threads) -> None:
    began, go_on = threading.Barrier(3), threading.Event()

    def work() -> int:
        began.wait(PATIENCE)
        go_on.wait(PATIENCE)
        return 1

    busy = [threads.submit(work) for _ in range(2)]
    began.wait(PATIENCE)

    def never() -> None: ...

    futures = [threads.submit(never) for _ in range(3)]
    function = weakref.ref(never)
    del never
    for future in futures:
        threads.discard(future)
        threads.discard(future)
    gc.collect()
    assert function() is None
    assert all(future.cancelled() for future in futures)
    last = threads.submit(lambda: 2)
    threads.discard(busy[0])
    go_on.set()
    assert [future.result(PATIENCE) for future in (*busy, last)] == [1, 1, 2]


def test_owners_take_turns_and_none_has_more_than_its_share() -> None:
    threads = Threads(3)
    go_on, order = threading.Event(), queue.SimpleQueue[str]()

    def work(name: str) -> None:
        order.put(name)
        go_on.wait(PATIENCE)

    greedy = [threads.submit(functools.partial(work, "greedy"), "greedy", 2) for _ in range(6)]
    assert [order.get(timeout=PATIENCE) for _ in range(2)] == ["greedy"] * 2
    assert threads.some_wait
    other = threads.submit(functools.partial(work, "other"), "other", 2)
    assert order.get(timeout=PATIENCE) == "other"
    more = [threads.submit(functools.partial(work, "other"), "other", 2) for _ in range(2)]
    threads.discard(more.pop())
    threads.discard(greedy.pop())
    go_on.set()
    for future in (*greedy, other, *more):
        future.result(PATIENCE)
    assert sorted(order.get(timeout=PATIENCE) for _ in range(4)) == ["greedy"] * 3 + ["other"]
    assert not threads.some_wait
    threads.close()


def test_who_has_its_share_waits_for_its_own_threads_only() -> None:
    threads = Threads(3)
    go_on, began = threading.Event(), threading.Barrier(3)

    def hang() -> None:
        began.wait(PATIENCE)
        go_on.wait(PATIENCE)

    hung = [threads.submit(hang, "greedy", 2) for _ in range(2)]
    began.wait(PATIENCE)
    late = threads.submit(lambda: 1, "greedy", 2)
    time.sleep(0.1)  # the time that counts
    assert threads.submit(lambda: 2, "other", 2).result(PATIENCE) == 2
    threads.refuse_stalled(0.1)
    with pytest.raises(Overloaded, match="all 2 threads that one user may have are busy"):
        late.result(PATIENCE)
    go_on.set()
    for future in hung:
        future.result(PATIENCE)
    threads.close()


def test_what_waits_while_no_thread_comes_free_is_refused(threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    assert threads.refuse_stalled(0.01) is None
    assert not threads.some_wait
    began, go_on = threading.Barrier(3), threading.Event()

    def work() -> int:
        began.wait(PATIENCE)
        go_on.wait(PATIENCE)
        return 1

    busy = [threads.submit(work) for _ in range(2)]
    began.wait(PATIENCE)
    ran: list[int] = []
    early = [threads.submit(lambda: ran.append(1)) for _ in range(3)]
    assert threads.some_wait
    assert early[1].cancel()
    left = threads.refuse_stalled(60)
    assert left is not None
    assert 59 < left <= 60
    time.sleep(0.2)  # the time that counts
    late = threads.submit(lambda: ran.append(2))
    left = threads.refuse_stalled(0.2)
    assert left is not None
    assert 0 < left <= 0.2
    text = r"all 2 threads are busy \(max_threads\), and none came free for 0.2 s \(stall_timeout\)"
    for future in early[::2]:
        with pytest.raises(Overloaded, match=text):
            future.result(0)
    assert early[1].cancelled()
    assert "! 3 calls of plain functions are refused or dropped: all 2 threads are busy" in caplog.text
    go_on.set()
    assert [future.result(PATIENCE) for future in busy] == [1, 1]
    late.result(PATIENCE)
    assert ran == [2]
    assert threads.refuse_stalled(0.2) is None


def test_what_waits_while_threads_come_free_is_not_refused() -> None:
    threads = Threads(1)
    steps = [threading.Event() for _ in range(2)]
    first, second = [threads.submit(functools.partial(step.wait, PATIENCE)) for step in steps]
    last = threads.submit(lambda: 5)
    time.sleep(0.3)  # the time that counts
    steps[0].set()
    assert first.result(PATIENCE)
    while not second.running():  # there is no event for it
        time.sleep(0.001)
    left = threads.refuse_stalled(0.3)  # it has waited for longer, but not since that one ended
    assert left is not None
    assert left > 0
    assert not last.done()
    steps[1].set()
    assert last.result(PATIENCE) == 5
    threads.close()


def test_letting_the_threads_go_while_they_take_jobs_does_not_hang() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def use() -> None:
            for _ in range(400):
                threads = Threads(4)
                for _ in range(30):
                    threads.submit(int)
                threads.close()

        user = threading.Thread(target=use, daemon=True)
        user.start()
        user.join(PATIENCE)
        assert not user.is_alive()
    finally:
        sys.setswitchinterval(interval)


def test_a_thread_that_cannot_be_started_leaves_nothing_behind(
    threads: Threads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ran: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                threads.submit(lambda: ran.append(1))
    began, go_on = threading.Event(), threading.Event()

    def work() -> int:
        began.set()
        go_on.wait(PATIENCE)
        return threading.get_ident()

    first = threads.submit(work)
    assert began.wait(PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        second = threads.submit(threading.get_ident)  # has to wait for the one that there is
    assert "there are 1 threads, and no other can be started" in caplog.text
    third = threads.submit(threading.get_ident)
    assert third.result(PATIENCE) == second.result(PATIENCE) != threading.main_thread().ident
    go_on.set()
    assert first.result(PATIENCE) != third.result(PATIENCE)
    assert ran == []


def test_a_function_that_hangs_does_not_keep_the_process_from_ending() -> None:
    program = """
import threading
from seqrpc.aio.threads import Threads
began = threading.Event()
threads = Threads(1)
threads.submit(lambda: (began.set(), threading.Event().wait()))
began.wait()
threads.close()
"""
    with daemon(program) as child:
        assert child.wait(PATIENCE) == 0


def test_a_fork_has_no_threads_and_waits_for_no_lock_of_theirs() -> None:
    threads = Threads(1)
    busy = threads.submit(lambda: None)
    busy.result(PATIENCE)

    def use() -> str:
        threads.discard(busy)
        threads.close()
        try:
            threads.submit(lambda: None)
        except RuntimeError as exc:
            return str(exc)
        return "submitted"

    with threads._changed:  # as a thread of the pool may, at the time of a fork in another
        assert in_child(use) == "the threads were let go"
    assert threads.submit(lambda: 1).result(PATIENCE) == 1
    threads.close()
