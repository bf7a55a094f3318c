"""What docs/oversight.md says is true: its programs do what it says, and its tables are whole."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.daemons import wait_until_it_listens
from support.pages import ROOT, blocks_of, check_types, programs_of, text_of, write
from support.waiting import PATIENCE

import seqrpc
from seqrpc import blocking, oversight
from seqrpc.oversight import prometheus

PAGE = text_of("oversight.md")
BLOCKS = blocks_of(PAGE)
FILES = programs_of(BLOCKS)
PRINTED = re.findall(
    r"^(?:It prints|which prints[^\n]*|[^\n]* logs)\n\n```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which everything from the page is in files."""
    return write(FILES, tmp_path_factory.mktemp("page"))


def run(written: Path, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", name, *map(str, arguments)],
        cwd=written,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_every_block_is_a_file_that_is_run_here() -> None:
    assert len(FILES) == len(BLOCKS)
    assert set(FILES) == {"daemon.py", "look.py", "watch.py", "traced.py"}


def test_the_daemon_is_watched(written: Path, socket_path: Path) -> None:
    metrics = socket_path.parent / "vault.prom"
    program = [sys.executable, "-W", "error", "daemon.py", str(socket_path), str(metrics)]
    with subprocess.Popen(program, cwd=written, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            wait_until_it_listens(socket_path)
            with blocking.connect(socket_path) as connection:
                assert connection.call("Vault.open", "ann", "correct horse") is True
                with pytest.raises(seqrpc.Internal):
                    connection.call("Vault.open", "ann", "hunter2")
                with pytest.raises(seqrpc.InvalidParams):
                    connection.call("Vault.open", "ann", ["hunter2"])
                daemon_pid = connection.call("rpc.stats")["pid"]
            assert daemon_pid == daemon.pid
            looked = run(written, "look.py", socket_path)
            daemon.send_signal(signal.SIGTERM)
            _output, log = daemon.communicate(timeout=PATIENCE)
        finally:
            daemon.kill()
    assert (looked.returncode, looked.stderr) == (0, "")
    lines = looked.stdout.splitlines()
    expected = PRINTED[0].replace("user 0", f"user {os.geteuid()}").splitlines()
    assert re.fullmatch(r"1 of \d+ connections are open", lines[0])  # one more was to see whether it listens
    assert lines[1:4] == expected[1:4]
    assert lines[5:] == expected[5:]
    assert "hunter2" not in log
    assert "ValueError: (withheld)" in log
    accesses = [line for line in log.splitlines() if line.startswith("seqrpc.access ")]
    pattern = re.sub(r"0\.\d+", r"0.\\d+", re.sub(r"=\d+", r"=\\d+", PRINTED[2].strip()))
    assert re.fullmatch(pattern, accesses[0])
    assert daemon.returncode == 0
    assert not metrics.exists()


def test_calls_are_watched_as_they_pass(written: Path, socket_path: Path) -> None:
    program = [sys.executable, "-W", "error", "daemon.py", str(socket_path), str(socket_path.parent / "vault.prom")]
    with subprocess.Popen(program, cwd=written, stderr=subprocess.DEVNULL) as daemon:
        try:
            wait_until_it_listens(socket_path)
            watch = [sys.executable, "-W", "error", "-u", "watch.py", str(socket_path)]
            with (
                subprocess.Popen(watch, cwd=written, stdout=subprocess.PIPE, text=True) as watcher,
                blocking.connect(socket_path) as connection,
            ):
                assert watcher.stdout is not None
                expected = PRINTED[1].replace("user 0", f"user {os.geteuid()}").splitlines()
                deadline = time.monotonic() + PATIENCE
                while connection.call("rpc.stats")["streams"] == 0:  # it watches
                    assert time.monotonic() < deadline
                connection.call("Vault.open", "ann", "correct horse")
                with pytest.raises(seqrpc.Internal):
                    connection.call("Vault.open", "ann", "hunter2")
                with pytest.raises(seqrpc.InvalidParams):
                    connection.call("Vault.open", "ann", ["hunter2"])
                assert [watcher.stdout.readline().rstrip() for _ in expected] == expected
                daemon.send_signal(signal.SIGTERM)
                assert watcher.wait(timeout=PATIENCE) == 0
            assert daemon.wait(timeout=PATIENCE) == 0
        finally:
            daemon.kill()


def test_the_table_of_calls_has_every_field() -> None:
    table = PAGE.partition("## `rpc.monitor`")[2].partition("| field | what it tells |")[2].partition("\n\n")[0]
    names = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)))
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(oversight.CallEvent))


@pytest.mark.skipif(importlib.util.find_spec("opentelemetry") is None, reason="the extra otel is not installed")
def test_the_traced_program_does_what_it_says(written: Path, socket_path: Path) -> None:
    done = run(written, "traced.py", socket_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    assert "It prints `True`." in PAGE


def test_everything_passes_the_type_checker(written: Path) -> None:
    check_types(written, FILES)


@pytest.mark.parametrize(
    "cls", [oversight.Stats, oversight.ConnectionStats, oversight.CallStats, oversight.MethodStats]
)
def test_its_table_has_every_field(cls: type) -> None:
    table = PAGE.partition("| field | what it tells |")[2].partition("\n\n")[0]
    for field in dataclasses.fields(cls):
        assert f"`{field.name}`" in table, field.name
    if cls is oversight.Stats:
        names = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)))
        assert sorted(names) == sorted(field.name for field in dataclasses.fields(cls))


def test_its_table_has_every_metric() -> None:
    source = Path(prometheus.__file__).read_text(encoding="utf-8")
    made = re.findall(r'_(?:metric|number|by)\(\s*"(\w+)"', source)
    assert len(made) > 15
    assert set(re.findall(r"`(seqrpc_\w+)`", PAGE)) == {f"seqrpc_{name}" for name in made}


def test_the_page_of_names_has_what_is_public() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = page.partition("\n## For those who run daemons: ")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\* `(\w+)`", section, re.MULTILINE)) == sorted(
        (*oversight.__all__, "Telemetry", "BlockingTelemetry")
    )


def test_every_public_name_it_writes_exists() -> None:
    for name in set(re.findall(r"\bseqrpc\.([A-Za-z_]+)", PAGE)):
        assert hasattr(seqrpc, name) or name in ("access", "slow"), name


def test_it_can_be_found() -> None:
    for page in ("README.md", "docs/reference.md", "docs/protocol.md", "docs/design.md"):
        assert "oversight.md" in (ROOT / page).read_text(encoding="utf-8"), page
