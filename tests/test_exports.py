from __future__ import annotations

import ast
import importlib.metadata
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import seqrpc


def imported_names() -> list[str]:
    """Return the names that the face imports, read from its source."""
    assert seqrpc.__file__ is not None
    tree = ast.parse(Path(seqrpc.__file__).read_text(encoding="utf-8"))
    return [
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]


def test_all_is_sorted_constants_first_then_classes_then_functions() -> None:
    def key(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2), name

    assert list(seqrpc.__all__) == sorted(seqrpc.__all__, key=key)
    assert len(set(seqrpc.__all__)) == len(seqrpc.__all__)


def test_all_is_what_the_face_imports_and_nothing_else() -> None:
    assert sorted(seqrpc.__all__) == sorted(imported_names())


def test_every_error_is_public() -> None:
    from seqrpc import errors

    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined <= set(seqrpc.__all__)


def test_every_policy_is_public() -> None:
    for name in ("same_user", "root", "anyone", "default", "uid", "gid", "group"):
        assert hasattr(seqrpc.policy, name)


@pytest.mark.parametrize("name", [name for name in seqrpc.__all__ if not name.isupper()])
def test_every_public_name_has_a_docstring_of_its_own(name: str) -> None:
    value = getattr(seqrpc, name)
    inherited = [base.__doc__ for base in value.__mro__[1:]] if isinstance(value, type) else []
    assert (value.__doc__ or "").strip()
    assert value.__doc__ not in inherited
    if isinstance(value, type) and not issubclass(value, Exception):
        for attribute, member in vars(value).items():
            if not attribute.startswith("_") and isinstance(member, types.FunctionType | property | classmethod):
                assert inspect.getdoc(member), f"{name}.{attribute} has no docstring"


def test_constants_are_documented_in_their_module() -> None:
    source = inspect.getsource(seqrpc.limits)
    for name in seqrpc.__all__:
        if name.isupper():
            after = source[source.index(f"{name} =") :].splitlines()[1]
            assert after.startswith('"""'), f"{name} has no docstring"


def test_the_version_is_the_distribution_s() -> None:
    assert seqrpc.__version__ == importlib.metadata.version("seqrpc")


def test_the_package_says_that_it_has_types() -> None:
    assert seqrpc.__file__ is not None
    assert Path(seqrpc.__file__).with_name("py.typed").is_file()


def test_importing_seqrpc_imports_no_uvloop_and_starts_nothing() -> None:
    program = """
import sys, threading
import seqrpc
print("uvloop" in sys.modules, threading.active_count())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "1"]
