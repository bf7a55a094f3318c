"""The log daemon lists and opens logs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.processes import OTHER_UID
from support.programs import EXAMPLES, NO_LOGS, WITHIN, as_root, daemon, in_background, wait_for

import seqrpc


async def call(address: Path, method: str, *args: Any) -> Any:
    async with seqrpc.timeout(WITHIN), seqrpc.connect(address) as connection:
        return await connection.call(method, *args)


def contents(address: Path, name: str) -> bytes:
    """Return what is in the log that the daemon opens."""
    fd: seqrpc.OwnedFd = asyncio.run(call(address, "Logs.open_log", name))
    with fd.open("rb") as file:
        data: bytes = file.read()
        return data


def refusal(address: Path, name: str) -> str:
    """Return the code of the error with which the daemon refuses to open a name."""
    with pytest.raises(seqrpc.RpcError) as caught:
        asyncio.run(call(address, "Logs.open_log", name))
    return caught.value.code


def names(address: Path) -> list[str]:
    """Return the names that the daemon lists, over all pages."""
    found: list[str] = []
    while page := asyncio.run(call(address, "Logs.list_logs", found[-1] if found else "")):
        found += [log["name"] for log in page]
    return found


def test_the_interface_is_what_the_daemon_serves(logs: Path, socket_path: Path) -> None:
    """The proxy's class and the service's are two; here the one is called through the other."""
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(EXAMPLES)!r})
from logs import Logs, LogFile, NoSuchLog, every_log
import seqrpc

async def main():
    async with seqrpc.connect({str(socket_path)!r}) as connection:
        logs = connection.proxy(Logs)
        found = await every_log(logs)
        assert all(isinstance(log, LogFile) for log in found), found
        (await logs.open_log(name="system.log")).close()
        async for line in logs.follow("system.log", start=found[2].size - len("line 9999") - 1):
            assert line == "line 9999", line
            break
        try:
            await logs.open_log("nothing")
        except NoSuchLog as exc:
            print(len(found), exc)

asyncio.run(main())
"""
    with daemon(socket_path, logs):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=WITHIN, check=True
        )

    assert done.stdout.decode() == "3 logs.NoSuchLog: there is no log 'nothing'\n"


def test_lists_names_sizes_and_times(logs: Path, socket_path: Path) -> None:
    os.utime(logs / "empty.log", (0, 1_700_000_000))
    os.utime(logs / "apt" / "history.log", (0, -5))
    with daemon(socket_path, logs):
        page = asyncio.run(call(socket_path, "Logs.list_logs"))

    assert [(log["name"], log["size"]) for log in page] == [
        ("apt/history.log", 26),
        ("empty.log", 0),
        ("system.log", (logs / "system.log").stat().st_size),
    ]
    assert page[1]["modified"].timestamp() == 1_700_000_000
    assert page[0]["modified"].timestamp() == 0


def test_lists_more_than_one_packet_holds(tmp_path: Path, socket_path: Path) -> None:
    made = [f"{number:04}-{'x' * 200}.log" for number in range(500)]
    for name in made:
        (tmp_path / name).touch()
    with daemon(socket_path, tmp_path):
        assert names(socket_path) == made


def test_lists_no_deeper_than_a_bound(tmp_path: Path, socket_path: Path) -> None:
    """Whoever may write to a directory of logs could otherwise make the daemon run out of descriptors."""
    deep = tmp_path.joinpath(*("d" * 1 for _ in range(300)))
    deep.mkdir(parents=True)
    (deep / "bottom.log").touch()
    (tmp_path / "top.log").touch()
    with daemon(socket_path, tmp_path):
        assert names(socket_path) == ["top.log"]


def test_opens_by_name_for_reading_only(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs):
        assert contents(socket_path, "system.log") == (logs / "system.log").read_bytes()
        assert contents(socket_path, "apt/history.log") == (logs / "apt" / "history.log").read_bytes()

        fd: seqrpc.OwnedFd = asyncio.run(call(socket_path, "Logs.open_log", "system.log"))
        with fd, pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd.fileno(), b"forged\n")


def test_opened_logs_do_not_stay_open_in_the_daemon(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs) as process:
        descriptors = Path(f"/proc/{process.pid}/fd")
        contents(socket_path, "system.log")
        before = len(list(descriptors.iterdir()))
        for name in ("system.log", "apt/history.log", "apt", "fifo", "file-link", "directory-link/secret") * 20:
            with contextlib.suppress(seqrpc.RpcError):
                asyncio.run(call(socket_path, "Logs.open_log", name)).close()
        until = time.monotonic() + WITHIN
        while len(list(descriptors.iterdir())) > before:  # it notices a moment later that its clients have gone
            assert time.monotonic() < until
            time.sleep(0.005)


def test_refuses_names_that_are_no_logs(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs):
        outcomes = {name: refusal(socket_path, name) for name in NO_LOGS}

    assert outcomes == dict.fromkeys(NO_LOGS, "logs.NoSuchLog")


@as_root
def test_refuses_devices(logs: Path, socket_path: Path) -> None:
    os.mknod(logs / "device.log", 0o600 | 0o020000, os.makedev(1, 3))  # the null device
    with daemon(socket_path, logs):
        assert refusal(socket_path, "device.log") == "logs.NoSuchLog"
        assert "device.log" not in names(socket_path)


def test_a_component_swapped_for_a_link_never_leads_out(logs: Path, socket_path: Path) -> None:
    """What is a directory at one moment and a link to a directory outside at the next is never followed."""
    outside = logs.parent / "outside"
    outside.mkdir()
    (outside / "history.log").write_text("secret\n")
    (logs / "link").symlink_to(outside)
    swapper = in_background(swap, logs / "apt", logs / "link")
    with daemon(socket_path, logs), swapper:
        seen = set()
        for _ in range(200):
            try:
                seen.add(contents(socket_path, "apt/history.log"))
            except seqrpc.RpcError as exc:
                seen.add(exc.code.encode())

    assert b"secret\n" not in seen
    assert seen <= {b"first\nlast, without an end", b"logs.NoSuchLog"}


def swap(one: Path, other: Path) -> None:
    spare = one.with_name("spare")
    with contextlib.suppress(OSError):
        one.rename(spare)
        other.rename(one)
        spare.rename(other)


@as_root
def test_says_what_the_daemon_itself_may_not_read(open_socket_path: Path) -> None:
    """Here the daemon is not root's, and this test, its client, is."""
    open_socket_path.parent.chmod(0o777)
    directory = open_socket_path.with_name("log")
    directory.mkdir(0o755)
    for name in ("closed.log", "open.log"):
        (directory / name).write_text("a line\n")
    (directory / "closed.log").chmod(0o600)
    (directory / "closed").mkdir(0o744)  # its names can be read, and nothing else
    (directory / "closed" / "inner.log").touch()
    pid = os.fork()
    if pid == 0:
        be_daemon(open_socket_path, directory, OTHER_UID)
    try:
        wait_for(open_socket_path)

        assert refusal(open_socket_path, "closed.log") == "logs.NotReadable"
        assert refusal(open_socket_path, "closed/inner.log") == "logs.NotReadable"
        assert contents(open_socket_path, "open.log") == b"a line\n"
        assert names(open_socket_path) == ["closed.log", "open.log"]
    finally:
        os.kill(pid, signal.SIGTERM)
        assert os.waitpid(pid, 0)[1] == 0


def be_daemon(address: Path, directory: Path, uid: int) -> NoReturn:
    """Be the log daemon of another user, who may not be able to read where Python is installed."""
    status = 1
    try:
        sys.path.insert(0, str(EXAMPLES))
        program: Any = importlib.import_module("logdaemon")
        for name in ("uvloop", "concurrent.futures.thread", "encodings.ascii"):  # what a daemon imports later
            importlib.import_module(name)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        program.serve(str(address), str(directory), 0o600, None)
        status = 0
    finally:
        os._exit(status)
