"""Every program in examples/, run as its users run it."""

from __future__ import annotations

import array
import asyncio
import contextlib
import functools
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from processes import AS_ROOT, OTHER_UID, in_child

import seqrpc

EXAMPLES = Path(__file__).parent.parent / "examples"
WITHIN = 60.0  # seconds: far more than anything here takes

as_root = pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")


def command(program: str, *args: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / program), *map(str, args)]


def output_of(program: str, *args: str | Path, env: dict[str, str] | None = None) -> str:
    """Run an example that must succeed without a word on stderr; return what it printed."""
    done = subprocess.run(
        command(program, *args),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WITHIN,
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout.decode(errors="surrogateescape")


def failure_of(program: str, *args: str | Path) -> str:
    """Run an example that must fail, tell why on stderr, and print nothing else; return the reason."""
    done = subprocess.run(
        command(program, *args), stdin=subprocess.DEVNULL, capture_output=True, timeout=WITHIN, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    return done.stderr.decode()


@contextlib.contextmanager
def daemon(address: Path, directory: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the log daemon; it must end well when it is told to stop, having said nothing on stderr."""
    args = command("logdaemon.py", "--address", address, "--directory", directory, *options)
    with subprocess.Popen(args, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            wait_for(address, process)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            _out, complaints = process.communicate(timeout=WITHIN)
    assert (process.returncode, complaints.decode()) == (0, "")
    assert not address.exists()


def wait_for(address: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    until = time.monotonic() + WITHIN
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            if sock.connect_ex(str(address)) == 0:
                return
        assert process is None or process.poll() is None, "the daemon did not start"
        assert time.monotonic() < until, "the daemon does not listen"
        time.sleep(0.005)


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


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Return a directory of logs with all sorts of things in it, and a secret beside it."""
    (tmp_path / "secret").write_text("secret\n")
    directory = tmp_path / "log"
    (directory / "apt").mkdir(parents=True)
    (directory / "system.log").write_bytes(b"".join(b"line %d\n" % number for number in range(10_000)))
    (directory / "apt" / "history.log").write_text("first\nlast, without an end")
    (directory / "empty.log").touch()
    (directory / "file-link").symlink_to("../secret")
    (directory / "inner-link").symlink_to("system.log")
    (directory / "directory-link").symlink_to("..", target_is_directory=True)
    (directory / "loop").symlink_to("loop")
    os.mkfifo(directory / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.open(directory, os.O_PATH)
        sock.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    (Path(os.fsdecode(os.fsencode(directory) + b"/not-utf-8-\xff.log"))).write_text("odd\n")
    (directory / "with\nnewline").write_text("odd\n")
    return directory


@pytest.fixture
def open_socket_path(socket_path: Path) -> Path:
    """Return a socket path that other users can reach."""
    socket_path.parent.chmod(0o711)
    return socket_path


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text()
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    unnamed = {program for program in programs if f'"{program}"' not in here}

    assert programs
    assert unnamed == set()


def test_each_says_in_its_docstring_how_to_run_it() -> None:
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text()

        assert f"    python examples/{path.name}" in text or "Nothing to run" in text


def test_the_interface_is_a_module_without_a_program() -> None:
    assert output_of("logs.py") == ""


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


NO_LOGS = [
    "../secret",
    "apt/../../secret",
    "..",
    ".",
    "",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "apt//history.log",
    "apt/./history.log",
    "system.log/",
    "system.log/..",
    "file-link",
    "inner-link",
    "directory-link/secret",
    "directory-link/log/system.log",
    "loop",
    "loop/secret",
    "fifo",
    "socket",
    "apt",
    "nothing",
    "nothing/at/all",
    "nul\0",
    "x" * 300,
    "x/" * 3000,
    "not-utf-8-\ufffd.log",
    "\x1b[2J",
]


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


@contextlib.contextmanager
def in_background(work: Callable[..., None], *args: Any) -> Iterator[None]:
    """Run ``work`` over and over in a forked process."""
    pid = os.fork()
    if pid == 0:
        while True:
            work(*args)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


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


VISITS = [("Logs.list_logs",), ("Logs.open_log", "system.log"), ("Logs.follow", "system.log")]


def visitor(address: Path) -> dict[str, str]:
    """Call as whoever this process is; return what came of listing, opening and following."""

    async def visit() -> dict[str, str]:
        outcomes = {}
        async with seqrpc.timeout(WITHIN), seqrpc.connect(address) as connection:
            for method, *args in VISITS:
                try:
                    result = await connection.call(method, *args)
                except seqrpc.RpcError as exc:
                    outcomes[method] = exc.code
                else:
                    outcomes[method] = type(result).__name__
                    if isinstance(result, seqrpc.OwnedFd | seqrpc.Stream):
                        result.close()
        return outcomes

    return asyncio.run(visit())


@as_root
def test_refuses_another_user_by_its_policy(logs: Path, open_socket_path: Path) -> None:
    with daemon(open_socket_path, logs, "--mode", "666"):
        outcomes = in_child(lambda: visitor(open_socket_path), uid=OTHER_UID)

    assert outcomes == {method: "rpc.PermissionDenied" for method, *_args in VISITS}


@as_root
def test_admits_members_of_the_group_adm(logs: Path, open_socket_path: Path) -> None:
    grp = pytest.importorskip("grp")
    try:
        adm = grp.getgrnam("adm").gr_gid
    except KeyError:
        pytest.skip("this machine has no group adm")
    with daemon(open_socket_path, logs, "--mode", "660", "--group", "adm"):
        status = open_socket_path.stat()
        outcomes = in_child(lambda: visitor(open_socket_path), uid=OTHER_UID, groups=[adm])

    assert (status.st_mode & 0o777, status.st_gid) == (0o660, adm)
    assert outcomes == {"Logs.list_logs": "list", "Logs.open_log": "OwnedFd", "Logs.follow": "Stream"}


@as_root
def test_by_default_others_cannot_even_connect(logs: Path, open_socket_path: Path) -> None:
    def visit() -> str:
        with pytest.raises(seqrpc.ConnectError) as caught:
            visitor(open_socket_path)
        return str(caught.value)

    with daemon(open_socket_path, logs):
        assert "permission denied" in in_child(visit, uid=OTHER_UID)


@contextlib.contextmanager
def followed(address: Path, name: str, start: int | None = None) -> Iterator[Callable[[], str]]:
    """Follow a log; yield what waits for its next line."""

    async def begin() -> tuple[seqrpc.Connection, seqrpc.Stream[str]]:
        connection = await seqrpc.connect(address)
        return connection, await connection.call("Logs.follow", name, start)

    async def next_line() -> str:
        async with seqrpc.timeout(WITHIN):
            return await anext(stream)

    with asyncio.Runner() as runner:
        connection, stream = runner.run(begin())
        try:
            yield lambda: runner.run(next_line())
        finally:
            stream.close()
            runner.run(connection.close())


def test_follows_what_is_appended(tmp_path: Path, socket_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("one\ntwo\nthr")
    with (
        daemon(socket_path, tmp_path),
        open(log, "ab", buffering=0) as file,
        followed(socket_path, "x.log", 4) as next_line,
    ):
        assert next_line() == "two"
        file.write(b"ee\nfour\n\xff")
        assert [next_line(), next_line()] == ["three", "four"]
        file.write(b"\n")
        assert next_line() == "\\xff"


def test_follows_from_what_is_the_end_at_first(logs: Path, socket_path: Path) -> None:
    def append() -> None:
        with open(logs / "system.log", "a") as file:
            print("new", file=file)

    with daemon(socket_path, logs), in_background(append), followed(socket_path, "system.log") as next_line:
        assert next_line() == "new"


def test_follows_a_log_that_is_cut_short_and_one_that_takes_its_place(tmp_path: Path, socket_path: Path) -> None:
    log, old = tmp_path / "x.log", tmp_path / "x.log.1"
    log.write_text("a beginning, and half of a line")
    with daemon(socket_path, tmp_path), followed(socket_path, "x.log", 0) as next_line:
        with open(log, "a") as writer:
            print(" and the rest", file=writer)
        assert next_line() == "a beginning, and half of a line and the rest"

        log.write_text("shorter\n")
        assert next_line() == "shorter"

        with open(log, "a") as writer:
            log.rename(old)
            print("a late one", file=writer)
            writer.write("and one without an end")
        log.write_text("the first of the new\n")
        assert [next_line() for _ in range(3)] == ["a late one", "and one without an end", "the first of the new"]

        log.unlink()
        log.symlink_to(old)  # which is not served as a log
        log.unlink()
        log.write_text("the first of another\n")
        assert next_line() == "the first of another"


def test_a_line_without_an_end_comes_in_pieces(tmp_path: Path, socket_path: Path) -> None:
    (tmp_path / "x.log").write_text("x" * 300_000 + "\nshort\n")
    with daemon(socket_path, tmp_path), followed(socket_path, "x.log", 0) as next_line:
        pieces = [*iter(next_line, "short")]

    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 2 * 65_536
    assert "".join(pieces) == "x" * 300_000


def test_follows_nothing_that_is_no_log(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs):
        for name in NO_LOGS:
            with followed(socket_path, name) as next_line, pytest.raises(seqrpc.RpcError) as caught:
                next_line()
            assert caught.value.code == "logs.NoSuchLog"


def test_what_was_followed_does_not_stay_open_in_the_daemon(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs) as process, followed(socket_path, "empty.log"):
        descriptors = Path(f"/proc/{process.pid}/fd")
        with followed(socket_path, "system.log", 0) as next_line:
            assert next_line() == "line 0"
            before = len(list(descriptors.iterdir()))
        for _ in range(10):
            with followed(socket_path, "system.log", 0) as next_line:
                assert next_line() == "line 0"
        until = time.monotonic() + WITHIN
        while len(list(descriptors.iterdir())) >= before:  # it notices a moment later that its clients have gone
            assert time.monotonic() < until
            time.sleep(0.005)


def follower(*args: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("logtail.py", "--follow", *args),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_logtail_follows_until_it_is_interrupted(logs: Path, socket_path: Path) -> None:
    with (
        daemon(socket_path, logs),
        follower("--address", socket_path, "system.log", "-n", "2") as tail,
        open(logs / "system.log", "a") as log,
    ):
        assert tail.stdout is not None
        assert [tail.stdout.readline() for _ in range(2)] == [b"line 9998\n", b"line 9999\n"]
        print("new", file=log, flush=True)
        assert tail.stdout.readline() == b"new\n"
        tail.send_signal(signal.SIGINT)
        assert tail.communicate(timeout=WITHIN) == (b"", b"")
    assert tail.returncode == 0


def test_logtail_says_what_went_wrong_while_it_followed(logs: Path, socket_path: Path) -> None:
    """A daemon that is told to stop does not wait for those who follow."""
    assert "there is no such file" in failure_of("logtail.py", "--follow", "--address", socket_path, "x")
    args = command("logdaemon.py", "--address", socket_path, "--directory", logs)
    with subprocess.Popen(args, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_for(socket_path, process)
        with follower("--address", socket_path, "system.log", "-n1") as tail, open(logs / "system.log", "a") as log:
            assert tail.stdout is not None
            assert tail.stdout.readline() == b"line 9999\n"
            print("new", file=log, flush=True)
            assert tail.stdout.readline() == b"new\n"
            process.send_signal(signal.SIGTERM)
            assert tail.communicate(timeout=WITHIN) == (b"", b"logtail: rpc.Unavailable: the server is stopping\n")
        complaints = process.communicate(timeout=WITHIN)[1]
    assert (tail.returncode, process.returncode) == (1, 0)
    assert b"Traceback" not in complaints


def test_logtail_follows_no_list() -> None:
    done = subprocess.run(command("logtail.py", "--follow"), capture_output=True, timeout=WITHIN, check=False)

    assert done.returncode == 2
    assert b"--follow needs the name of a log" in done.stderr


def test_logtail_prints_the_last_lines(logs: Path, socket_path: Path) -> None:
    written = (logs / "system.log").read_text().splitlines(keepends=True)
    with daemon(socket_path, logs):
        for lines in (1, 2, 3000, 20_000):
            printed = output_of("logtail.py", "--address", socket_path, "system.log", "--lines", str(lines))

            assert printed == "".join(written[-lines:])


def test_logtail_takes_any_file_as_it_is(logs: Path, socket_path: Path) -> None:
    (logs / "no-lines").write_bytes(b"x" * 100_000)
    (logs / "bytes").write_bytes(b"\xff\r\x00\n\n\n")
    with daemon(socket_path, logs):
        tail = functools.partial(output_of, "logtail.py", "--address", socket_path)

        assert tail("apt/history.log", "-n", "1") == "last, without an end"
        assert tail("empty.log") == ""
        assert tail("no-lines") == "x" * 100_000
        assert tail("bytes", "-n", "2") == "\n\n"


def test_logtail_reads_the_end_only(tmp_path: Path, socket_path: Path) -> None:
    """A terabyte is read as quickly as a page."""
    with open(tmp_path / "huge.log", "wb") as file:
        file.truncate(1 << 40)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    with daemon(socket_path, tmp_path):
        assert output_of("logtail.py", "--address", socket_path, "huge.log", "-n", "1") == "the end\n"


def test_logtail_without_a_name_prints_the_list(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs):
        printed = output_of("logtail.py", "--address", socket_path)

    assert [line.split()[-1] for line in printed.splitlines()] == ["apt/history.log", "empty.log", "system.log"]


def test_logtail_says_what_went_wrong(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path, logs):
        assert failure_of("logtail.py", "--address", socket_path, "../secret") == (
            "logtail: logs.NoSuchLog: not the name of a log: '../secret'\n"
        )
    assert "there is no such file" in failure_of("logtail.py", "--address", socket_path, "x")


def test_logtail_finds_the_daemon_without_being_told(logs: Path, socket_path: Path) -> None:
    with daemon(socket_path.with_name("logs.sock"), logs):
        printed = output_of("logtail.py", "system.log", "-n1", env={"XDG_RUNTIME_DIR": str(socket_path.parent)})

    assert printed == "line 9999\n"


def test_the_daemon_says_why_it_cannot_serve(logs: Path, socket_path: Path) -> None:
    start = functools.partial(failure_of, "logdaemon.py", "--address", socket_path, "--directory")
    with daemon(socket_path, logs):
        assert "is in use" in start(logs)
    assert "No such file or directory" in start(logs / "nowhere")
    assert "names no group" in start(logs, "--group", "no such group")


def test_the_demonstration_of_the_log_daemon(logs: Path) -> None:
    os.utime(logs / "system.log", (2_000_000_000, 2_000_000_000))
    printed = output_of("logdaemon.py", "--demo", "--directory", logs)

    assert "is served" in printed
    assert "apt/history.log" in printed
    assert "the end of system.log, read from the descriptor" in printed
    assert "  line 9999\n" in printed
    assert ("another user, uid 54321, is refused: rpc.PermissionDenied" in printed) == AS_ROOT


def test_the_demonstration_ends_well_where_there_is_no_log(tmp_path: Path) -> None:
    assert "none of them" in output_of("logdaemon.py", "--demo", "--directory", tmp_path)


def test_the_demonstration_works_on_the_logs_of_this_machine() -> None:
    if not os.path.isdir("/var/log"):
        pytest.skip("this machine has no /var/log")

    assert "is served" in output_of("logdaemon.py", "--demo")


def test_parent_and_child_call_each_other_and_know_who_calls() -> None:
    lines = output_of("parent_child.py").splitlines()
    told = re.compile(rf"(child|parent) \(process (\d+)\): called by process (\d+), user {os.geteuid()}(.*)")
    child, parent = told.fullmatch(lines[0]), told.fullmatch(lines[1])

    assert child is not None
    assert parent is not None
    assert (child[1], child[4]) == ("child", "")
    assert (parent[1], parent[4]) == ("parent", ": adding 2 and 3")
    assert (child[3], parent[3]) == (parent[2], child[2])
    assert child[2] != parent[2]
    assert lines[2:] == [f"parent (process {parent[2]}): the child (process {child[2]}) says 5"]


def test_an_open_vault_is_let_go_passed_on_and_taken_back() -> None:
    told = [re.fullmatch(r"\[process (\d+)\] (.*)", line) for line in output_of("vault.py").splitlines()]
    lines = [(int(line[1]), line[2]) for line in told if line is not None]
    owner, vault = lines[0][0], next(process for process, line in lines if line.startswith("vault: "))
    said_by = {process: [line for by, line in lines if by == process] for process in (owner, vault)}
    helper = re.search(r"helper \(process (\d+)\)", str(said_by[owner]))

    assert None not in told
    assert helper is not None
    assert len({owner, vault, int(helper[1])}) == 3
    assert said_by[owner] == [
        "owner: refused: vault.WrongPassphrase: that is not the passphrase",
        "owner: there is no open vault to be found by a name",
        "owner: reads '1983'",
        f"owner: helper (process {helper[1]}) says that it has 4 characters",
        "owner: what was handed on is no longer here",
        "owner: taken back: rpc.Unavailable: the other side takes no new requests: the object was revoked",
    ]
    assert said_by[vault] == [
        f"vault: process {owner} reads 'door'",
        f"vault: process {helper[1]} reads 'door'",
        "vault: closed",
        "vault: closed",
    ]


def test_arrays_are_the_same_memory_in_both_processes() -> None:
    pytest.importorskip("numpy")
    lines = output_of("arrays.py", "--side", "300").splitlines()
    memory = re.compile(r"\[process (\d+)\] (sends: |received:) +(\S+) inode (\d+) /memfd:seqrpc-buffer \(deleted\)")
    told = [memory.fullmatch(line) for line in lines[:4]]
    processes, what, permissions, inodes = zip(*(line.groups() for line in told if line is not None), strict=True)

    assert len(inodes) == 4
    assert processes == (processes[0], processes[1], processes[1], processes[0])
    assert processes[0] != processes[1]
    assert what == ("sends: ", "received:") * 2
    assert permissions == ("rw-s", "r--p") * 2
    assert inodes[0] == inodes[1] != inodes[2] == inodes[3]
    assert lines[4:] == [f"[process {processes[0]}] 300 times 300 numbers, 720,000 bytes, are right"]


def test_a_child_of_a_lost_parent_ends(tmp_path: Path) -> None:
    """The child is a program on its own: here this test is its parent, and goes away."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, ours:
        number = theirs.fileno()
        child = subprocess.Popen(command("parent_child.py", "--child", f"fd:{number}"), pass_fds=[number])
        theirs.close()
        ours.send(b"\x94\x00\x01\xa8rpc.ping\x90")
        data, control, _flags, _address = ours.recvmsg(100, socket.CMSG_SPACE(array.array("i").itemsize))
        ours.close()
    with child:
        assert child.wait(WITHIN) == 0
    assert (data, control) == (b"\x94\x01\x01\xc0\xc0", [])
