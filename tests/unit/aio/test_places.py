from __future__ import annotations

import asyncio

import pytest

from seqrpc.aio.places import check_loop, runs_here, wrong_loop
from seqrpc.errors import SeqrpcError, WrongLoop, WrongProcess
from seqrpc.kernel.forks import wrong_process


async def test_a_loop_runs_here_and_no_other() -> None:
    loop = asyncio.get_running_loop()
    other = asyncio.new_event_loop()
    assert runs_here(loop)
    assert not runs_here(other)
    assert not runs_here(None)
    check_loop("this", loop)
    with pytest.raises(WrongLoop, match=r"^this belongs to another event loop: .*run_coroutine_threadsafe"):
        check_loop("this", other)
    other.close()
    with pytest.raises(WrongLoop, match=r"^this belongs to an event loop that has ended: connect again"):
        check_loop("this", other)


async def test_it_does_not_run_in_other_threads() -> None:
    loop = asyncio.get_running_loop()
    assert not await asyncio.to_thread(runs_here, loop)
    with pytest.raises(WrongLoop, match=r"current_call\(\).run\(...\)"):
        await asyncio.to_thread(check_loop, "this", loop)


def test_without_any_loop_none_runs() -> None:
    assert not runs_here(None)
    loop = asyncio.new_event_loop()
    assert not runs_here(loop)
    loop.close()


def test_the_errors_say_what_to_do_and_are_our_own() -> None:
    error = wrong_process("this connection")
    assert str(error).startswith("this connection belongs to the process that made it, and this is a fork")
    assert "connect again" in str(error)
    assert "'spawn'" in str(error)
    loop = asyncio.new_event_loop()
    for one in (error, wrong_loop("this", loop)):
        assert isinstance(one, SeqrpcError)
        assert isinstance(one, RuntimeError)
    loop.close()
    assert isinstance(error, WrongProcess)
