"""pyright --strict passes what shows how the face is used, and the examples; `.ci/quick types` is mypy's part."""

from __future__ import annotations

from support.pyright import CONFIGURED, ROOT, complaints_of_pyright

FILES = [file for part in CONFIGURED["include"] for file in (ROOT / part).rglob("*.py")]
SHOWN = [file for file in FILES if file.parent == ROOT / "tests" / "typed"]


def test_both_checkers_are_strict_and_complain_of_what_they_need_not_ignore() -> None:
    assert CONFIGURED["typeCheckingMode"] == "strict"
    assert CONFIGURED["reportUnnecessaryTypeIgnoreComment"]
    assert "strict = true\n" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_they_are_told_the_same_of_each_line() -> None:
    lines = "".join(file.read_text(encoding="utf-8") for file in SHOWN).splitlines()
    assert sum("# type: ignore[" in line for line in lines) >= 80, "what must not pass"
    assert sum("assert_type(" in line for line in lines) >= 90, "what must"
    assert not [line for line in lines if "# pyright:" in line or "# mypy:" in line]


def test_pyright_passes_them_and_the_examples() -> None:
    looked_at, complaints = complaints_of_pyright(ROOT)
    assert complaints == []
    assert looked_at == len(FILES)
