"""The workshop says the same everywhere: which Pythons are supported, how long lines are, and what checks what."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOOLS = PYPROJECT["tool"]
CLASSIFIERS: list[str] = PYPROJECT["project"]["classifiers"]
SUPPORTED = [version[1] for name in CLASSIFIERS if (version := re.fullmatch(r"Programming .* :: (3\.\d+)", name))]
OLDEST = SUPPORTED[0]
RUN = (ROOT / ".ci/run").read_text(encoding="utf-8")
QUICK = (ROOT / ".ci/quick").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")


def values(text: str, key: str) -> list[str]:
    """Return what YAML has for a key, at whatever depth, one value a line, without comments."""
    return re.findall(rf"^[ -]*{key}: *(\S.*?)(?: +#.*)?$", text, re.MULTILINE)


def parts(script: str) -> set[str]:
    """Return the parts of a script of .ci that can be named."""
    (names,) = re.findall(r'^all_parts="([a-z ]+)"$', script, re.MULTILINE)
    return set(names.split())


def test_the_supported_pythons_follow_one_another() -> None:
    assert [f"3.{minor}" for minor in range(11, 11 + len(SUPPORTED))] == SUPPORTED
    assert len(SUPPORTED) >= 3


def test_the_tools_and_the_installer_know_the_oldest_python() -> None:
    assert PYPROJECT["project"]["requires-python"] == f">={OLDEST}"
    assert TOOLS["mypy"]["python_version"] == OLDEST
    assert TOOLS["ruff"]["target-version"] == f"py{OLDEST.replace('.', '')}"


def test_the_workflow_runs_on_the_supported_pythons() -> None:
    oldest, matrix, of_the_matrix = values(WORKFLOW, "python-version")

    assert json.loads(oldest) == OLDEST
    assert json.loads(matrix) == SUPPORTED
    assert of_the_matrix == "${{ matrix.python-version }}"


def test_what_calls_cost_is_recorded_of_the_supported_pythons() -> None:
    recorded = json.loads((ROOT / "benchmarks/recorded.json").read_text(encoding="utf-8"))
    assert sorted(recorded) == sorted([*SUPPORTED, *(f"{python} native" for python in SUPPORTED)])


def test_the_scripts_read_the_supported_pythons_and_have_no_list() -> None:
    assert "pyproject.toml" in RUN
    assert re.findall(r"3\.\d+", RUN + QUICK) == []


def test_the_readme_lists_the_supported_pythons() -> None:
    lists = re.findall(r"Python (3\.\d+(?:,? (?:or |and )?3\.\d+)+)", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert lists
    for found in lists:
        assert re.findall(r"3\.\d+", found) == SUPPORTED


def test_the_workflow_runs_every_part_of_the_check() -> None:
    commands = [command.partition(".ci/run ")[2].split() for command in values(WORKFLOW, "run") if ".ci/" in command]

    assert {part for command in commands for part in command} == parts(RUN) - {"suites"}  # the matrix has those


def test_the_workflow_may_only_read_and_uses_only_what_is_pinned() -> None:
    uses = values(WORKFLOW, "uses")
    jobs = len(values(WORKFLOW, "runs-on"))

    assert re.findall(r"^ *permissions:.*\n(?:  .*\n)*", WORKFLOW, re.MULTILINE) == ["permissions:\n  contents: read\n"]
    assert uses
    assert all(re.fullmatch(r"actions/(checkout|setup-python)@v\d+\.\d+\.\d+", action) for action in uses)
    assert values(WORKFLOW, "persist-credentials") == ["false"] * sum("checkout" in action for action in uses)
    assert len(values(WORKFLOW, "timeout-minutes")) == jobs


def test_the_last_job_says_whether_all_others_succeeded() -> None:
    *others, last = re.findall(r"^  ([a-z-]+):(?: +#.*)?$", WORKFLOW.partition("\njobs:\n")[2], re.MULTILINE)
    (needed,) = values(WORKFLOW, "needs")
    (verdict,) = (command for command in values(WORKFLOW, "run") if "needs." in command)

    assert last == "all-is-well"
    assert needed == f"[{', '.join(others)}]"
    assert re.findall(r"needs\.([a-z-]+)\.result", verdict) == others
    assert verdict.endswith(f'= "{" ".join("success" for _ in others)}"')


def test_nothing_is_fetched_but_from_where_the_tools_are_set_to() -> None:
    for text in (WORKFLOW, HOOKS, RUN, QUICK):
        assert re.findall(r"[a-z]+://|index-url|find-links", text) == []


def test_the_hooks_are_parts_of_the_quick_check() -> None:
    assert values(HOOKS, "repo") == ["local"]
    assert set(values(HOOKS, "language")) == {"system"}
    for script, *named in map(str.split, values(HOOKS, "entry")):
        assert script == ".ci/quick"
        assert set(named) <= parts(QUICK)


def test_the_scripts_can_be_run() -> None:
    for name in ("run", "quick", "modules", "sanitized"):
        path = ROOT / ".ci" / name
        assert path.stat().st_mode & 0o111 == 0o111, name
        assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env ")


def test_editors_are_told_what_the_formatter_does() -> None:
    config = configparser.ConfigParser()
    config.read_string("[root]\n" + (ROOT / ".editorconfig").read_text(encoding="utf-8"))
    everywhere = config["*"]

    assert int(everywhere["max_line_length"]) == TOOLS["ruff"]["line-length"]
    assert (everywhere["charset"], everywhere["end_of_line"]) == ("utf-8", "lf")
    assert (everywhere["indent_style"], everywhere["indent_size"]) == ("space", "4")


def test_contributing_names_scripts_and_parts_that_there_are() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

    for name in re.findall(r"\.ci/(\w+)", text):
        assert (ROOT / ".ci" / name).exists()
    for named in re.findall(r"`\.ci/quick ([a-z ]+)`", text):
        assert set(named.split()) <= parts(QUICK) | {"most"}
    assert "\nmost() {" in QUICK


def test_the_extra_for_development_leaves_out_the_benchmark_s_peers() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]

    assert "seqrpc[test]" in extras["dev"]
    assert not [wanted for wanted in extras["dev"] if "bench" in wanted]
    assert {"mypy", "pyright[nodejs]", "ruff", "build", "pre-commit"} == {
        re.split("[><=]", name)[0] for name in extras["dev"][1:]
    }
