"""Stubs as modules, and checks of their text."""

from __future__ import annotations

import ast
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from seqrpc.documents.model import read
from seqrpc.documents.stubs import write_stub
from seqrpc.errors import RpcError
from support.discovered import OURS

RUFF = Path(sys.executable).with_name("ruff")


def document_with(*methods: dict[str, Any], interfaces: Any = None, **schemas: Any) -> dict[str, Any]:
    """Return a document with some methods and some schemas."""
    return {
        "openrpc": "1.3.2",
        "info": {"title": "S", "version": "0"},
        "methods": list(methods),
        "components": {"schemas": schemas},
        OURS: {"interfaces": interfaces or {}},
    }


def stub_of(document: dict[str, Any]) -> str:
    return write_stub(read(document), "a test")


@contextmanager
def module_of(text: str, name: str = "stub_under_test") -> Iterator[Any]:
    """Run the text of a stub, and yield its module; what it registered is gone at the end."""
    module = types.ModuleType(name)
    errors = dict(RpcError._classes)
    sys.modules[name] = module
    try:
        exec(compile(text, f"{name}.py", "exec"), vars(module))
        yield module
    finally:
        del sys.modules[name]
        RpcError._classes.clear()
        RpcError._classes.update(errors)


def body_of(text: str) -> str:
    """Return what comes after the imports of a stub."""
    return text.partition("import annotations\n")[2].partition("\n\n\n")[2].strip()


def difference_from_ruff(directory: Path) -> str:
    """Return what ruff would change in the files of a directory; nothing if it is content."""
    if not RUFF.exists():
        pytest.skip("ruff comes with the extra dev")
    command: list[str | Path] = [
        RUFF,
        "format",
        "--isolated",
        "--line-length",
        "120",
        "--target-version",
        "py311",
        "--diff",
        directory,
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout


ALLOWED = (ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.AsyncFunctionDef)
"""What a stub consists of, besides docstrings and what follows."""

CALLED = {
    *("dataclass", "field", "Struct", "Meta", "TypedDict", "cast", "method", "OwnedFd"),
    *("datetime", "date", "time", "timedelta", "timezone", "UUID", "Decimal", "Path", "PurePath", "PurePosixPath"),
    *("IPv4Address", "IPv6Address", "set", "frozenset"),
}
"""Functions that it calls, besides the classes that it defines itself."""


def actions_in(text: str) -> list[str]:
    """Return what a stub does besides defining classes and names; nothing, as it should."""
    tree = ast.parse(text)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    own |= {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "?")
            if name not in CALLED | own:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.stmt) and not isinstance(node, (*ALLOWED, ast.Raise, ast.Pass, ast.If)):
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.partition(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
            found += names - {*sys.stdlib_module_names, "msgspec", "seqrpc"}
    return found
