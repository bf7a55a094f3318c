"""Each request is logged once, with who, how and how long, and nothing of what it said."""

from __future__ import annotations

import logging
import os

import pytest
from support.daemons import on_a_pair
from support.waiting import comes_true

import seqrpc
from seqrpc.calls.records import CallRecord
from seqrpc.kernel.credentials import Credentials
from seqrpc.oversight import AccessLog


class Work(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @seqrpc.method
    async def fail(self, secret: str) -> None:
        raise ValueError(secret)

    @seqrpc.method(allow=seqrpc.policy.uid(12_345))
    async def hidden(self) -> None: ...


def record(method: str | None = "Work.add", uid: int | None = 1000, code: str | None = None) -> CallRecord:
    caller = None if uid is None else Credentials(pid=1, uid=uid, gid=1000, groups=None)
    return CallRecord(method=method, caller=caller, code=code, duration=0.0, oneway=False, meta={})


async def test_what_is_told_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with on_a_pair(Work(), interceptors=[AccessLog()]) as connection:
            await connection.call("Work.add", 2, 3)
            for method, arguments in (("Work.fail", ["hunter2"]), ("Work.hidden", []), ("Work.\n", [])):
                with pytest.raises(seqrpc.RpcError):
                    await connection.call(method, *arguments)
            with seqrpc.metadata(token="hunter2"):
                await connection.notify("Work.add", 2, 3)
            await connection.call("rpc.ping")
            await comes_true(lambda: len([each for each in caplog.records if each.name == "seqrpc.access"]) == 6)
    told = [vars(each) for each in caplog.records if each.name == "seqrpc.access"]
    assert [(each["method"], each["outcome"], each["code"], each["oneway"]) for each in told] == [
        ("Work.add", "ok", None, False),
        ("Work.fail", "error", "rpc.Internal", False),
        ("Work.hidden", "refused", "rpc.PermissionDenied", False),
        ("Work.\\n", "refused", "rpc.MethodNotFound", False),
        ("Work.add", "ok", None, True),
        ("rpc.ping", "ok", None, False),
    ]
    assert {(each["uid"], each["gid"], each["pid"]) for each in told} == {(os.geteuid(), os.getegid(), os.getpid())}
    assert [each["duration"] > 0 for each in told] == [True, True, False, False, True, False]
    lines = [each.getMessage() for each in caplog.records if each.name == "seqrpc.access"]
    assert lines[0].startswith(f"Work.add ok uid={os.geteuid()} pid={os.getpid()} 0.")
    assert "Work.hidden refused rpc.PermissionDenied" in lines[2]
    assert "hunter2" not in "".join(lines)


def test_one_user_cannot_fill_it_for_others(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("access of the test")
    log = AccessLog(logger, level=logging.WARNING, most_per_second=3)
    log._meter.window = 1e9  # however slow the machine is
    for _ in range(10):
        log.ended(record())
    log.ended(record(uid=1001))
    log.ended(record(None, uid=None, code="rpc.DescriptorsLost"))
    log._meter.tell_due()
    told = [vars(each) for each in caplog.records]
    assert [each["uid"] for each in told] == [1000, 1000, 1000, 1001, None, 1000]
    assert told[-1]["left_out"] == 7
    assert caplog.records[-1].getMessage() == "7 more calls of user 1000 were left out"
    assert {each["levelname"] for each in told} == {"WARNING"}


def test_nothing_is_counted_where_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("nobody listens to this")
    logger.setLevel(logging.ERROR)
    log = AccessLog(logger, most_per_second=1)
    for _ in range(3):
        log.ended(record())
    assert not caplog.records
    assert log._meter.admits(1000, lambda _count: None)


def test_none_at_all_is_no_bound() -> None:
    with pytest.raises(ValueError, match="most_per_second="):
        AccessLog(most_per_second=0)
