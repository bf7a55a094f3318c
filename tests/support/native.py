"""The native twin, compiled for a test."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

NATIVE = Path(__file__).parents[2] / "native"


def builder() -> ModuleType:
    """Return native/build.py."""
    spec = importlib.util.spec_from_file_location("native_build", NATIVE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(directory: Path, *flags: str) -> Path:
    """Compile the extension into a directory, and return its path; skip the test where it cannot be built at all."""
    build = builder()
    try:
        path = build.build(directory, flags)
    except build.NotCompiledError as exc:
        pytest.fail(exc.said)
    except build.CannotBuildError as exc:
        pytest.skip(str(exc))
    assert isinstance(path, Path)
    return path
