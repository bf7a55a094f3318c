"""What is built of this tree has what is needed; and without the extra the command line says what to install."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from support.commands import Done
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


def run(*command: object, env: dict[str, str] | None = None) -> Done:
    done = subprocess.run([*map(str, command)], capture_output=True, timeout=PATIENCE, check=False, cwd=ROOT, env=env)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the wheel and the sdist."""
    directory = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "hatchling", "build", "-d", directory)
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
    return "__pycache__" in path.parts or any(part.startswith((".", "_mypy")) for part in path.relative_to(ROOT).parts)


def test_the_wheel_has_all_of_the_package_and_nothing_besides(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files_in("seqrpc")
    assert {"seqrpc/documents/page.css", "seqrpc/documents/page.js", "seqrpc/py.typed"} <= names


def test_the_sdist_has_what_the_tests_need(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for directory in ("seqrpc", "tests", "docs", "examples", "benchmarks"):
        assert files_in(directory) <= names
    assert {"README.md", "CHANGELOG.md", "pyproject.toml", ".ci/run", ".ci/quick", ".github/workflows/ci.yml"} <= names


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
