"""What the README says is true: its programs run as printed, so do its fragments, and its numbers are right."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType

import pytest
from support.pyright import CONFIGURED, complaints_of_pyright

import seqrpc
from seqrpc.twin import TOLD

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
WITHIN = 60.0  # seconds: far more than anything here takes

PROGRAMS = {name[1]: block for block in BLOCKS if (name := re.match(r"# (\w+\.py)\n", block))}
OTHERS = [block for block in BLOCKS if block not in PROGRAMS.values()]
DEFINITIONS = [block for block in OTHERS if block.startswith(("class ", "def ", "async def "))]
FRAGMENTS = [block for block in OTHERS if block not in DEFINITIONS]


def module_of_the_rest() -> str:
    """Return a module of all that is not a program: definitions as they are, each fragment in a function."""
    head = """\
        from __future__ import annotations

        import asyncio
        import contextlib
        import logging
        import os
        import stat
        from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
        from contextvars import ContextVar
        from typing import Any

        import seqrpc
        import seqrpc.blocking
        from daemon import Machine
    """
    functions = [
        f"async def fragment_{number}(connection: seqrpc.Connection, machine: Machine) -> None:\n"
        + textwrap.indent(block, "    ")
        for number, block in enumerate(FRAGMENTS)
    ]
    return "\n\n".join([textwrap.dedent(head), *DEFINITIONS, *functions])


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, in which everything from the README is in files."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "rest.py").write_text(module_of_the_rest())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def load(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


IN_A_SHELL = dict(
    re.findall(r"^\$ (.*)\n((?:[^$`].*\n)*)", README.partition("```console\n")[2].partition("```")[0], re.MULTILINE)
)


def in_a_shell(command: str, directory: Path) -> str:
    """Return what a shell writes for a command of the README."""
    program = shlex.join([sys.executable, "-W", "error", "-m", "seqrpc"])
    done = subprocess.run(
        f'seqrpc() {{ {program} "$@"; }}; {command}',
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=WITHIN,
        check=False,
        cwd=directory,
    )
    return done.stdout.decode()


def test_there_is_a_daemon_and_a_client_of_about_twenty_lines() -> None:
    lines = [line for text in PROGRAMS.values() for line in text.splitlines() if line and not line.startswith("#")]

    assert list(PROGRAMS) == ["daemon.py", "client.py"]
    assert len(lines) <= 32


def test_daemon_and_client_run_as_printed(written: Path) -> None:
    program = [sys.executable, "-W", "error"]
    with subprocess.Popen([*program, "daemon.py"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as daemon:
        try:
            until = time.monotonic() + WITHIN
            client: subprocess.CompletedProcess[bytes] | None = None
            while client is None or client.returncode == 1:
                assert time.monotonic() < until
                if client is not None:  # it came first
                    assert client.stderr.startswith(b"client: cannot connect to machine.sock: ")
                    assert client.stderr.count(b"\n") == 1
                client = subprocess.run([*program, "client.py"], capture_output=True, timeout=WITHIN, check=False)
            said = [in_a_shell(command, written) for command in IN_A_SHELL]
        finally:
            daemon.send_signal(signal.SIGTERM)
            _out, complaints = daemon.communicate(timeout=WITHIN)

    assert (client.returncode, client.stderr) == (0, b"")
    assert client.stdout.decode().splitlines() == ["5", Path("/etc/os-release").read_text().splitlines()[0].strip()]
    assert (daemon.returncode, complaints) == (0, b"")
    assert not (written / "machine.sock").exists()
    lines = len(Path("/etc/os-release").read_text().splitlines())
    assert len(said) == 3
    assert said == [text.replace("9", str(lines)) for text in IN_A_SHELL.values()]


def test_a_client_without_a_daemon_ends_in_one_line(written: Path) -> None:
    client = subprocess.run(
        [sys.executable, "-W", "error", "client.py"], capture_output=True, timeout=WITHIN, check=False, cwd=written
    )
    assert (client.returncode, client.stdout) == (1, b"")
    assert client.stderr.decode() == (
        "client: cannot connect to machine.sock: there is no such file:"
        " the daemon has not started yet, or listens elsewhere\n"
    )


WHAT_IT_PRINTS = [
    ["48", "1000000"],  # a buffer sent, and one received
    # streams as parameters, one passed on, and one that a plain function reads
    ["285", str([2 * number * number for number in range(10)]), "45", "328350"],
    ["ann"],
    ["nobody holds the session of ann any more"],
    ["nobody holds the session of bob any more"],
    ["100 % done"],
    ["the other side takes no new requests: the object was revoked"],
    ["working", "computing", "9"],
    ["the diary is open"],
    ["the diary is closed"],
    [f"Machine.add by user {os.geteuid()}: ok {{'traceparent': '00-4bf9-b7ad-01'}}"],
]


def test_everything_else_runs(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = load("daemon", written / "daemon.py", monkeypatch)
    rest = load("rest", written / "rest.py", monkeypatch)
    rest.test_who_may_read()
    archive = rest.Archive()
    names = ("Journal", "Library", "Worker", "Images", "Numbers", "Sums", "Desk", "Diary")
    services = [machine.Machine(), archive, *(getattr(rest, name)() for name in names)]

    async def run() -> None:
        async with (
            seqrpc.timeout(WITHIN),
            seqrpc.serve(services, "machine.sock"),
            seqrpc.connect("machine.sock") as connection,
        ):
            for number in range(len(FRAGMENTS)):
                await getattr(rest, f"fragment_{number}")(connection, connection.proxy(machine.Machine))
            assert await connection.proxy(rest.Journal).lines() == 7
            await connection.proxy(rest.Journal).rotate() if os.geteuid() == 0 else None
            await rest.watch("machine.sock")
            assert await asyncio.to_thread(rest.sum_of, [1, 2, 3]) == 6
            await connection.proxy(rest.Diary).write("today it rained")
            fd = await connection.proxy(rest.Archive).get()
            with fd:
                assert os.path.samestat(os.fstat(fd.fileno()), os.stat("/etc/os-release"))

    assert len(FRAGMENTS) >= 10
    asyncio.run(run())
    archive.file.close()
    assert (written / "diary.txt").read_text() == "today it rained\n"
    printed = capsys.readouterr().out.splitlines()
    for lines in WHAT_IT_PRINTS:
        assert lines in [printed[index : index + len(lines)] for index in range(len(printed))]


def test_the_greeter_reads_its_greeting_at_the_start_and_at_a_hangup(written: Path) -> None:
    async def greeting() -> str:
        async with seqrpc.connect("greeter.sock") as connection:
            result: str = await connection.call("Greeter.greet", "world")
            return result

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("notify.sock")
        manager.settimeout(WITHIN)
        (written / "greeting.txt").write_text("hello\n")
        program = [sys.executable, "-W", "error", "-c", "import rest\nrest.be_a_greeter()"]
        environment = {**os.environ, "NOTIFY_SOCKET": str(written / "notify.sock")}
        with subprocess.Popen(program, stderr=subprocess.PIPE, env=environment) as daemon:
            try:
                assert manager.recv(100) == b"READY=1"
                assert asyncio.run(greeting()) == "hello, world!"
                (written / "greeting.txt").write_text("good morning\n")
                daemon.send_signal(signal.SIGHUP)
                assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert manager.recv(100) == b"READY=1"
                assert asyncio.run(greeting()) == "good morning, world!"
            finally:
                daemon.send_signal(signal.SIGTERM)
                _out, complaints = daemon.communicate(timeout=WITHIN)
        assert manager.recv(100) == b"STOPPING=1"
    assert (daemon.returncode, complaints) == (0, b"")


def test_everything_passes_the_type_checker(written: Path) -> None:
    pytest.importorskip("mypy")
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(written / "cache")),
            *("--config-file", str(ROOT / "pyproject.toml"), "rest.py", *PROGRAMS),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_everything_passes_the_other_type_checker(written: Path) -> None:
    # Of what a fragment gives a name to, another may make use.
    lenient = {"reportUnusedImport": False, "reportUnusedVariable": False}
    configured = {**CONFIGURED, "include": ["."], "extraPaths": [str(ROOT)], **lenient}
    (written / "pyrightconfig.json").write_text(json.dumps(configured))
    looked_at, complaints = complaints_of_pyright(written)

    assert complaints == []
    assert looked_at == len(PROGRAMS) + 1


def test_the_commands_are_one_line_each_and_name_what_is_there() -> None:
    installing, activating, first, second = re.findall(r"^```sh\n(.*)\n```$", README, re.MULTILINE)
    extra = re.search(r"\.\[(\w+)\]", second)

    assert activating in installing.split(" && ")
    assert shlex.split(installing)[-3:] == ["pip", "install", "."]
    assert README.index(installing) < README.index("```python")  # before anything that needs it
    assert "examples/logdaemon.py" in shlex.split(first)
    assert (ROOT / "examples" / "logdaemon.py").exists()
    assert second.endswith(" -m pytest -q")
    assert extra is not None
    assert f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text()


def test_the_limits_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| ([a-z ]+|`\w+`) \| ([\d,]+).* \|$", README, re.MULTILINE)
    table = {name.strip("`"): int(number.replace(",", "")) for name, number in rows}
    limits = seqrpc.Limits()

    assert table.pop("bytes in a packet") == seqrpc.MAX_PACKET
    assert table.pop("descriptors in a packet") == seqrpc.MAX_DESCRIPTORS
    assert table.pop("arrays and maps inside one another") == limits.max_depth
    assert len(table) == 22
    assert table == {name: getattr(limits, name) for name in table}


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        file, _, title = link.partition("#")
        page = README if not file else (ROOT / file).read_text(encoding="utf-8") if title else ""
        assert not file or (ROOT / file).exists(), link
        assert not title or title in headlines(page), link


def headlines(page: str) -> set[str]:
    """Return what the titles of a page are called in links."""
    return {name_in_links(title) for title in re.findall(r"^##+ (.*)$", page, re.MULTILINE)}


def name_in_links(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    "path", [Path("README.md"), *sorted(file.relative_to(ROOT) for file in ROOT.glob("docs/*.md"))]
)
def test_a_page_begins_with_a_list_of_all_that_is_on_it(path: Path) -> None:
    page = (ROOT / path).read_text(encoding="utf-8")
    listed = re.findall(r"\]\(#([^)]+)\)", page.partition("\nOn this page:")[2].partition("\n## ")[0])
    assert listed == [name_in_links(title) for title in re.findall(r"^## (.*)$", page, re.MULTILINE)]


def test_every_public_name_it_writes_exists() -> None:
    written_names = set(re.findall(r"\bseqrpc\.([A-Za-z_]+)", "\n".join(BLOCKS)))

    assert {name for name in written_names if not hasattr(seqrpc, name)} == set()


def log_calls() -> list[tuple[Path, str]]:
    """Return the beginnings of all lines that the package logs, with their files."""
    found = re.compile(r"_log\.(?:debug|info|warning|error|exception)[(,]\s*\"([^\"]*)")
    files = sorted(Path(seqrpc.__file__).parent.rglob("*.py"))
    return [(file, template) for file in files for template in found.findall(file.read_text())]


def test_each_logger_is_named_in_the_table_and_each_line_has_its_prefix() -> None:
    sources = "".join(file.read_text() for file in Path(seqrpc.__file__).parent.rglob("*.py"))
    table = README.partition("\n### Logs\n")[2].partition("\n#")[0]
    named = [name for row in re.findall(r"^\| (`seqrpc\..*?) \|", table, re.MULTILINE) for name in row.split(", ")]

    assert sorted(named) == sorted({f"`{name}`" for name in re.findall(r"get_logger\(\"(.*?)\"\)", sources)})
    assert len(log_calls()) > 30
    assert [call for call in log_calls() if not call[1].startswith(("! ", "= ", "x "))] == []


def test_the_line_that_turns_logs_on_shows_where_a_daemon_serves(written: Path) -> None:
    (line,) = [block for block in BLOCKS if block.startswith("logging.basicConfig")]
    program = f"import logging, daemon, seqrpc\n{line}seqrpc.run(daemon.Machine(), 'machine.sock')"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, cwd=written) as child:
        assert child.stderr is not None
        said = child.stderr.readline().decode()
        child.terminate()
        rest, status = child.stderr.read(), child.wait(WITHIN)
    assert (said, rest, status) == (f"INFO:seqrpc.server:= serving at machine.sock; twin: {TOLD}\n", b"", 0)
