"""What is built of this tree has what is needed, natively where it can; and the command line without its extra."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from support.commands import Done
from support.native import builder, compiled
from support.waiting import PATIENCE

ROOT = Path(__file__).parent.parent

pytestmark = [
    pytest.mark.skipif(not (ROOT / "seqrpc").is_dir(), reason="the suite runs on a wheel, which .ci/run has compared"),
    pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed"),
]

RUN_TIME = ["msgpack", "msgspec", "uvloop"]
EXTRA = ["click", "rich", "markdown_it", "mdurl", "pygments"]

MESSAGE = (
    "seqrpc: click is not there, which the command line needs: pip install 'seqrpc[cli]', or in a checkout '.[cli]'\n"
)


def run(*command: object, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Done:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, timeout=4 * PATIENCE, check=False, cwd=cwd, env=env
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def building(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment that says nothing of the native twin but what is given."""
    ours = ("SEQRPC_PURE", "CC", "CPPFLAGS", "CFLAGS", "LDFLAGS", "SEQRPC_NATIVE_CFLAGS")
    return {name: value for name, value in os.environ.items() if name not in ours} | dict(more or {})


def build_wheel(directory: Path, more: Mapping[str, str] | None = None, cwd: Path = ROOT) -> tuple[Path, str]:
    """Return the wheel that is built with something more in the environment, and what is said meanwhile."""
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory)
    done = run(*command, env=building(more), cwd=cwd)
    assert done.status == 0, done.err
    (path,) = directory.glob("*.whl")
    return path, done.err


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the wheel and the sdist."""
    directory = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "hatchling", "build", "-d", directory, env=building())
    assert done.status == 0, done.err
    return directory


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def files_in(directory: str) -> set[str]:
    paths = (ROOT / directory).rglob("*")
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file() and not is_left_over(path)}


def is_left_over(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return (
        "__pycache__" in parts
        or any(part.startswith((".", "_mypy")) for part in parts)
        or (path.suffix == ".so" and parts[0] == "seqrpc")
    )


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_has_all_of_the_package_and_nothing_besides(wheel: Path) -> None:
    names = files_of(wheel)
    assert {name for name in names if not name.endswith(".so")} == files_in("seqrpc")
    assert {"seqrpc/documents/page.css", "seqrpc/documents/page.js", "seqrpc/py.typed"} <= names


def test_the_wheel_has_the_extension_for_this_python_and_says_so(wheel: Path, tmp_path: Path) -> None:
    compiled(tmp_path)  # else it is skipped
    assert [name for name in files_of(wheel) if name.endswith(".so")] == [f"seqrpc/{builder().name()}"]
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(rf"seqrpc-[\d.]+-{python}-{python}-linux_\w+\.whl", wheel.name)


LEFT_OUT = "seqrpc._native is left out, and Python does its part: "


@pytest.mark.parametrize(
    "more, why",
    [
        ({"SEQRPC_PURE": "1"}, "SEQRPC_PURE is set"),
        ({"PATH": "/nowhere"}, "there is no C compiler"),
        ({"CC": "no-such-compiler"}, "there is no C compiler no-such-compiler"),
        ({"CC": "/bin/false"}, "/bin/false ended with status 1"),
    ],
)
def test_where_it_cannot_be_compiled_the_wheel_is_pure_and_one_line_says_so(
    more: dict[str, str], why: str, tmp_path: Path
) -> None:
    if "CC" in more:
        compiled(tmp_path).unlink()  # else there is another reason
    path, said = build_wheel(tmp_path, more)
    assert path.name.endswith("-py3-none-any.whl")
    assert files_of(path) == files_in("seqrpc")
    assert [line for line in said.splitlines() if "native" in line] == [LEFT_OUT + why]


def test_whoever_insists_on_it_is_told_that_it_cannot_be_built(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    done = run(*command, env=building({"SEQRPC_PURE": "0", "PATH": "/nowhere"}))
    assert done.status != 0
    assert "seqrpc._native cannot be built, and SEQRPC_PURE=0 asks for it: there is no C compiler" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def unpacked(built: Path, tmp_path: Path) -> Path:
    """Return a tree made of the sdist, with an extension in it that somebody built at another time."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.glob("seqrpc-*")
    for name in (builder().name(), "_native.cpython-399-x86_64-linux-gnu.so"):
        (tree / "seqrpc" / name).write_bytes(b"of another time")
    return tree


def test_an_extension_of_another_time_is_in_no_wheel(unpacked: Path, tmp_path: Path) -> None:
    for pure in ("1", ""):
        (tmp_path / f"dist{pure}").mkdir()
        path, _said = build_wheel(tmp_path / f"dist{pure}", {"SEQRPC_PURE": pure}, cwd=unpacked)
        with zipfile.ZipFile(path) as archive:
            extensions = {name: archive.read(name) for name in archive.namelist() if name.endswith(".so")}
        assert extensions.keys() <= (set() if pure else {f"seqrpc/{builder().name()}"})
        assert all(content.startswith(b"\x7fELF") for content in extensions.values())


def test_an_editable_install_puts_it_beside_the_python_or_takes_it_away(unpacked: Path, tmp_path: Path) -> None:
    compiled(tmp_path)  # else it is skipped
    extension = unpacked / "seqrpc" / builder().name()
    program = "import sys, hatchling.build; hatchling.build.build_editable(sys.argv[1])"
    for pure, is_there in (("", True), ("1", False), ("1", False)):
        done = run(sys.executable, "-c", program, tmp_path, env=building({"SEQRPC_PURE": pure}), cwd=unpacked)
        assert done.status == 0, done.err
        assert extension.exists() is is_there
        assert not is_there or extension.read_bytes().startswith(b"\x7fELF")
    assert len(list(extension.parent.glob("*.so"))) == 1, "that of another Python was touched"


def test_the_sdist_has_what_the_tests_need(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for directory in ("seqrpc", "native", "tests", "docs", "examples", "benchmarks"):
        assert files_in(directory) <= names
    assert {
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "hatch_build.py",
        ".ci/run",
        ".ci/quick",
        ".github/workflows/ci.yml",
    } <= names


def link(packages: Iterable[str], directory: Path) -> None:
    """Have packages of this environment in another, with what is compiled for them beside them."""
    for name in packages:
        found = importlib.util.find_spec(name)
        if found is None:
            assert name in EXTRA[2:], f"{name} is not installed"  # one version of rich needs it, another does not
            continue
        assert found.submodule_search_locations is not None
        (place,) = found.submodule_search_locations
        (directory / name).symlink_to(place)


Make = Callable[[Iterable[str]], Path]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return what makes an environment with the wheel and some packages, and nothing else."""

    def make(packages: Iterable[str]) -> Path:
        directory = tmp_path_factory.mktemp("environment")
        venv.create(directory, with_pip=False, symlinks=True)
        python = directory / "bin" / "python"
        pip = (sys.executable, "-m", "pip", "--python", python)
        done = run(*pip, "install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
        if "No module named pip" in done.err:
            pytest.skip("this environment has no pip")
        assert done.status == 0, done.err
        (site,) = (directory / "lib").glob("python3.*/site-packages")
        link(packages, site)
        return directory / "bin"

    return make


def without_paths() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_", "COVERAGE_"))}


def seqrpc(where: Path, *args: str) -> list[Done]:
    """Run the command both ways."""
    ways = ([where / "seqrpc"], [where / "python", "-P", "-W", "error", "-m", "seqrpc"])
    return [run(*way, *args, env=without_paths()) for way in ways]


def test_without_the_extra_both_ways_say_what_to_install(installed: Make) -> None:
    where = installed(RUN_TIME)
    for args in ((), ("--help",), ("call", "x", "y")):
        assert seqrpc(where, *args) == [Done(2, "", MESSAGE)] * 2
    program = "import seqrpc, sys; print(seqrpc.connect.__name__, 'click' in sys.modules)"
    assert run(where / "python", "-P", "-c", program, env=without_paths()) == Done(0, "connect False\n", "")
    one, other = seqrpc(where, "--version")
    assert one == other
    assert (one.status, one.err) == (0, "")
    assert "\nclick: not installed\n" in one.out


CALL = """
import asyncio, seqrpc
class Sums(seqrpc.Service):
    @seqrpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b
async def main():
    ours, theirs = seqrpc.socket_pair()
    async with seqrpc.serve(Sums(), sock=theirs), seqrpc.connect(sock=ours) as connection:
        print(seqrpc.__twin__, await connection.proxy(Sums).add(2, 3), seqrpc.__file__)
asyncio.run(main())
"""


def test_what_is_installed_runs_natively_unless_it_is_not_to(wheel: Path, installed: Make) -> None:
    is_native = not wheel.name.endswith("-none-any.whl")
    where = installed(RUN_TIME)
    for pure, expected in (("", "native" if is_native else "pure"), ("1", "pure")):
        env = {**without_paths(), "SEQRPC_PURE": pure}
        done = run(where / "python", "-P", "-W", "error", "-c", CALL, env=env)
        assert (done.status, done.err) == (0, "")
        assert done.out.split()[:2] == [expected, "5"]
        assert done.out.split()[2].startswith(str(where.parent))


def test_with_the_extra_both_ways_do_the_same(installed: Make, tmp_path: Path) -> None:
    where = installed([*RUN_TIME, *EXTRA])
    one, other = seqrpc(where, "--help")
    assert one == other
    assert (one.status, one.out.startswith("Usage: seqrpc [OPTIONS] COMMAND"), one.err) == (0, True, "")
    one, other = seqrpc(where, "call", str(tmp_path / "nobody"), "x")
    assert one == other
    assert (one.status, one.out) == (3, "")
    (tmp_path / "shelf.py").write_text(
        "import seqrpc\n\nclass Shelf(seqrpc.Service):\n    @seqrpc.method\n    async def look(self) -> int:\n"
        "        return 7\n"
    )
    serve = f"exec:sh -c 'cd {tmp_path} && exec {where}/seqrpc serve shelf:Shelf fd:3'"
    for done in seqrpc(where, "call", serve, "look"):
        assert (done.status, done.out) == (0, "7\n"), done.err
    one, other = seqrpc(where, "docs", serve)  # the page is made of files that are no modules
    assert one.status == other.status == 0
    assert one.out == other.out
    assert "<style>" in one.out
