"""Stubs of the examples: written of what each daemon answers, and used where there is nothing but seqrpc.

Each example is served by a process of its own. Its stub stands in an empty directory, beside a program that calls it
with an event loop and without, and that both type checkers pass. Their Python finds nothing but its standard library,
seqrpc, and what seqrpc needs to run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from support.programs import EXAMPLES, WITHIN, wait_for
from support.pyright import ROOT, complaints_of_pyright

import seqrpc
import seqrpc.blocking
from seqrpc.documents import write_stub

HEAD = """\
import asyncio
import sys

import seqrpc
import seqrpc.blocking
import stub
"""

FOOT = """

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    blocking(sys.argv[1])
"""


class Example(NamedTuple):
    served: str
    """The services, as an expression of the modules of the examples."""

    program: str
    """``main`` and ``blocking``, which call it at an address."""

    printed: list[str]


CASES = {
    "logs": Example(
        "logdaemon.LogDaemon(seqrpc.OwnedFd(os.open(sys.argv[2], os.O_RDONLY)))",
        """
async def main(address: str) -> None:
    async with seqrpc.connect(address) as connection:
        logs = connection.proxy(stub.Logs)
        page: list[stub.LogFile] = await logs.list_logs(after="")
        print([(log.name, log.size, log.modified.tzinfo is not None) for log in page if log.name == "a.log"])
        with (await logs.open_log("a.log")).open() as file:
            print(file.read().split())
        async with logs.follow("a.log", start=0) as lines:
            print([await anext(lines), await anext(lines)])
        try:
            await logs.open_log("b.log")
        except stub.NoSuchLog as exc:
            print(exc.code)


def blocking(address: str) -> None:
    with seqrpc.blocking.connect(address) as connection:
        logs = connection.proxy(stub.BlockingLogs)
        print([log.name for log in logs.list_logs()][:1])
        with logs.open_log("a.log").open() as file:
            print(file.read().split())
        with logs.follow("a.log", 0) as lines:
            print(next(lines))
""",
        [
            "[('a.log', 8, True)]",
            "['one', 'two']",
            "['one', 'two']",
            "logs.NoSuchLog",
            "['a.log']",
            "['one', 'two']",
            "one",
        ],
    ),
    "vault": Example(
        "[vault.Vault('x'), vault.Helper()]",
        '''
async def main(address: str) -> None:
    async with seqrpc.connect(address) as connection:
        vault, helper = connection.proxy(stub.Vault), connection.proxy(stub.Helper)
        async with await vault.unlock("x") as opened:
            await opened.put("door", "1983")
            print(await opened.get("door"))
            print(await helper.length_of(opened, "door"))
        await vault.lock()
        try:
            await vault.unlock("y")
        except stub.WrongPassphrase as exc:
            print(exc.message)


class Fake(stub.OpenVault):
    """An object of this side."""

    @seqrpc.method
    def get(self, name: str) -> str:
        return 3 * name


def blocking(address: str) -> None:
    with seqrpc.blocking.connect(address) as connection:
        vault, helper = connection.proxy(stub.BlockingVault), connection.proxy(stub.BlockingHelper)
        with vault.unlock(passphrase="x") as opened:
            opened.put("door", "1984")
            print(opened.get("door"))
            print(helper.length_of(opened, "door"))
        print(helper.length_of(Fake(), "ab"))
''',
        ["1983", "4", "that is not the passphrase", "1984", "4", "6"],
    ),
    "parent_child": Example(
        "[parent_child.Child(), parent_child.Parent()]",
        '''
class Ears(stub.Parent, name="Parent"):
    """What the child calls back."""

    @seqrpc.method
    def announce(self, text: str) -> None:
        print(text)


async def main(address: str) -> None:
    async with seqrpc.connect(address, services=Ears()) as connection:
        print(await connection.proxy(stub.Child).add(a=2, b=3))


def blocking(address: str) -> None:
    with seqrpc.blocking.connect(address, services=Ears()) as connection:
        print(connection.proxy(stub.BlockingChild).add(2, 4))
''',
        ["adding 2 and 3", "5", "adding 2 and 4", "6"],
    ),
    "matrices": Example(
        "matrices.Matrices()",
        """
def matrix(*numbers: float) -> stub.Matrix:
    made = stub.Matrix(2, seqrpc.Buffer.allocate(32))
    memoryview(made.numbers).cast("d")[:] = memoryview(bytes(32)).cast("d")
    for index, number in enumerate(numbers):
        memoryview(made.numbers).cast("d")[index] = number
    return made


async def main(address: str) -> None:
    async with seqrpc.connect(address) as connection:
        matrices = connection.proxy(stub.Matrices)
        print(await matrices.sum(matrix(1, 2, 3, 4)))
        product = await matrices.multiply(matrix(1, 0, 0, 1), matrix(1, 2, 3, 4))
        print(product.side, memoryview(product.numbers).cast("d").tolist())


def blocking(address: str) -> None:
    with seqrpc.blocking.connect(address) as connection:
        print(connection.proxy(stub.BlockingMatrices).sum(matrix(1, 2)))
""",
        ["10.0", "2 [1.0, 2.0, 3.0, 4.0]", "3.0"],
    ),
    "arrays": Example(
        "arrays.Mathematician()",
        """
def array() -> stub.Array:
    made = stub.Array(dtype="uint8", shape=(3,), elements=seqrpc.Buffer.allocate(3))
    for index in range(3):
        made.elements[index] = index + 1
    return made


async def main(address: str) -> None:
    async with seqrpc.connect(address) as connection:
        squares = await connection.proxy(stub.Mathematician).square(array())
        print(squares.dtype, squares.shape, list(bytes(squares.elements)))


def blocking(address: str) -> None:
    with seqrpc.blocking.connect(address) as connection:
        print(list(bytes(connection.proxy(stub.BlockingMathematician).square(array()).elements)))
""",
        ["uint8 (3,) [1, 4, 9]", "[1, 4, 9]"],
    ),
    "netcfg": Example(
        "(it := netcfgd.SettingsService(pathlib.Path(sys.argv[2], 'netcfg.toml')), netcfgd.SocketService(it))",
        """
async def main(address: str) -> None:
    async with seqrpc.connect(address) as connection:
        settings = connection.proxy(stub.Settings)
        print((await settings.current()).tunnels)
        async for configuration in settings.watch():
            print(configuration.version)
            break
        try:
            await connection.proxy(stub.Sockets).listen(1)
        except stub.NotConfigured as exc:
            print(exc.code, exc.data)


def blocking(address: str) -> None:
    with seqrpc.blocking.connect(address) as connection:
        settings = connection.proxy(stub.BlockingSettings)
        print(settings.current() == stub.Configuration(["tun7"], [], [], 1))
        print(next(settings.watch()).ports)
""",
        ["['tun7']", "1", "netcfg.NotConfigured []", "True", "[]"],
    ),
    "privsep": Example(
        "fingerd.Keeper(seqrpc.OwnedFd(os.open(sys.argv[2], os.O_RDONLY)))",
        """
async def main(address: str) -> None:
    async with seqrpc.connect(address) as connection:
        with (await connection.proxy(stub.Plans).open("ann")).open() as file:
            print(file.read())


def blocking(address: str) -> None:
    with seqrpc.blocking.connect(address) as connection:
        with connection.proxy(stub.BlockingPlans).open("ann").open() as file:
            print(file.read())
""",
        ["to rest", "to rest"],
    ),
    "finger": Example(
        "(port := socket.create_server(('127.0.0.1', 0)),"
        " pathlib.Path(sys.argv[2], 'port').write_text(str(port.getsockname()[1])),"
        " finger.Finger(*(seqrpc.OwnedFd(fd) for fd in (port.detach(), os.open(os.devnull, os.O_WRONLY)))))[2]",
        """
import pathlib


class NoPlan(seqrpc.RpcError, code="finger.NoPlan"):
    '''As the other half has it.'''


class Plans(seqrpc.Service):
    @seqrpc.method(errors=[NoPlan])
    async def open(self, name: str) -> seqrpc.OwnedFd:
        raise NoPlan(name)


async def main(address: str) -> None:
    async with seqrpc.connect(address, services=Plans()) as connection:
        serving = asyncio.create_task(connection.proxy(stub.Finger).serve())
        port = int((pathlib.Path(address).parent / "data" / "port").read_text())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"ann\\r\\n")
        print(await reader.read())
        writer.close()
        serving.cancel()


def blocking(address: str) -> None:
    with seqrpc.blocking.connect(address) as connection:
        try:
            connection.proxy(stub.BlockingFinger).serve()
        except seqrpc.Internal as exc:  # it has served: its port is closed
            print(exc.code)
""",
        ["b'no plan\\r\\n'", "rpc.Internal"],
    ),
}

IN_C = Example(
    "c_worker.Adder",
    """
async def main(program: str) -> None:
    async with seqrpc.Worker(command=[program]) as worker:
        print(await worker.proxy(stub.Adder).add(2, 3))


def blocking(program: str) -> None:
    with seqrpc.blocking.Worker(command=[program]) as worker:
        print(worker.proxy(stub.BlockingAdder).add(a=-40, b=-2))
""",
    ["5", "-42"],
)
"""The worker in C, which says nothing of itself: its stub is that of the interface that is there for it."""

SERVER = """\
import os, pathlib, socket, sys
import seqrpc
{imports}
seqrpc.run({served}, sys.argv[1])
"""

WRITER = """\
import os, pathlib, socket, sys
import seqrpc
from seqrpc.documents import document_of, write_stub
{imports}
for name, make in {services}.items():
    pathlib.Path(sys.argv[1], name + "_stub.py").write_text(write_stub(document_of(make()), name))
os._exit(0)  # some of them hold descriptors
"""


def has_numpy() -> bool:
    return importlib.util.find_spec("numpy") is not None


def cases() -> dict[str, Example]:
    """Return the examples that are there."""
    served = {name: example for name, example in CASES.items() if name != "arrays" or has_numpy()}
    return {**served, "c_worker": IN_C}


def imports() -> str:
    modules = "logdaemon, vault, parent_child, matrices, netcfgd, fingerd, finger, c_worker"
    return f"import {modules}, arrays" if has_numpy() else f"import {modules}"


def prepared(data: Path) -> Path:
    """Return a directory with what the examples serve."""
    data.mkdir()
    (data / "a.log").write_text("one\ntwo\n")
    (data / "ann").write_text("to rest")
    (data / "netcfg.toml").write_text('tunnels = ["tun7"]\nprotocols = []\nports = []\n')
    return data


def command_with_examples(code: str, *args: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command of a process that finds the examples, and its environment."""
    path = os.pathsep.join(map(str, (ROOT, EXAMPLES, EXAMPLES / "netcfg", EXAMPLES / "privsep")))
    return [sys.executable, "-c", code, *map(str, args)], {**os.environ, "PYTHONPATH": path}


def run_with_examples(code: str, *args: Path) -> None:
    command, environment = command_with_examples(code, *args)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert (ran.stderr, ran.returncode) == ("", 0)


@contextmanager
def served(example: Example, directory: Path) -> Iterator[Path]:
    """Serve an example in a process of its own; yield its address."""
    address = directory / "socket"
    code = SERVER.format(served=example.served, imports=imports())
    command, environment = command_with_examples(code, address, prepared(directory / "data"))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment) as process:
        try:
            wait_for(address, process)
            yield address
        finally:
            process.terminate()


def stub_from(address: Path) -> str:
    """Return the stub of whatever is served at an address, by what it says of itself."""
    with seqrpc.blocking.connect(address) as connection:
        return write_stub(connection.call("rpc.discover"), str(address))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with seqrpc and what it needs to run, and nothing else: what a plain installation has."""
    directory = tmp_path_factory.mktemp("alone")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]]  # type: ignore[index] # each has a name
    assert sorted(needed) == ["msgpack", "msgspec", "uvloop"]
    for name in ("seqrpc", *needed):  # the suite may run on a wheel, far from its sources
        spec = importlib.util.find_spec(name)
        assert spec is not None
        (directory / name).symlink_to(Path(spec.origin or "").parent)
    return directory


def run_alone(alone: Path, directory: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a directory, without what is installed in its environment."""
    return subprocess.run(
        [sys.executable, "-S", "-W", "error", *args],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(alone)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


@pytest.mark.parametrize("name", CASES)
def test_a_stub_drives_its_service(name: str, alone: Path, tmp_path: Path) -> None:
    if name not in cases():
        pytest.skip("the example needs numpy")
    example = CASES[name]
    empty = tmp_path / "empty"
    empty.mkdir()
    with served(example, tmp_path) as address:
        (empty / "stub.py").write_text(stub_from(address))
        (empty / "program.py").write_text(f"{HEAD}{example.program}{FOOT}")
        ran = run_alone(alone, empty, "program.py", address)
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert ran.stdout.splitlines() == example.printed


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_stub_drives_the_worker_in_c(all_stubs: Path, alone: Path, tmp_path: Path) -> None:
    subprocess.run(["cc", "-std=c11", "-o", tmp_path / "worker", EXAMPLES / "worker.c"], check=True)
    for name in ("c_worker_stub.py", "c_worker_program.py"):
        shutil.copy(all_stubs / name, tmp_path)
    ran = run_alone(alone, tmp_path, "c_worker_program.py", tmp_path / "worker")
    assert (ran.stderr, ran.stdout.splitlines()) == ("", IN_C.printed)


def test_where_stubs_run_there_is_nothing_but_seqrpc(alone: Path, tmp_path: Path) -> None:
    ran = run_alone(alone, tmp_path, "-c", "import attrs")
    assert "ModuleNotFoundError: No module named 'attrs'" in ran.stderr
    names = "pytest", "click", "rich", "numpy", "typing_extensions", "site", "seqrpc", "msgspec"
    found = f"import importlib.util; print([name for name in {names} if importlib.util.find_spec(name)])"
    assert run_alone(alone, tmp_path, "-c", found).stdout == "['site', 'seqrpc', 'msgspec']\n"


@pytest.fixture(scope="module")
def all_stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a package for each example, which has its stub and the program that uses it."""
    directory = tmp_path_factory.mktemp("stubs")
    services = "".join(f"{name!r}: lambda: {example.served}, " for name, example in cases().items())
    run_with_examples(
        WRITER.format(services=f"{{{services}}}", imports=imports()), directory, prepared(directory / "data")
    )
    for name, example in cases().items():
        program = f"{HEAD}{example.program}{FOOT}".replace("import stub\n", f"import {name}_stub as stub\n")
        (directory / f"{name}_program.py").write_text(program)
    return directory


def test_mypy_passes_stubs_and_programs(all_stubs: Path) -> None:
    pytest.importorskip("mypy")
    configuration = all_stubs / "mypy.ini"
    configuration.write_text(
        f"[mypy]\nstrict = True\npython_version = 3.11\nmypy_path = {ROOT}\n"
        "[mypy-seqrpc.*,msgpack.*]\nfollow_imports = silent\nignore_missing_imports = True\n"
    )
    files = sorted(all_stubs.glob("*.py"))
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", configuration, "--cache-dir", all_stubs / "cache", *files],
        cwd=all_stubs,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.startswith("Success: no issues found in"), ran.stdout + ran.stderr


def test_pyright_passes_stubs_and_programs(all_stubs: Path) -> None:
    configuration = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "extraPaths": [str(ROOT)]}
    (all_stubs / "pyrightconfig.json").write_text(json.dumps(configuration))
    looked_at, complaints = complaints_of_pyright(all_stubs)
    assert complaints == []
    assert looked_at == 2 * len(cases())
