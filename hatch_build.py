"""What hatchling asks as it builds a wheel, or installs this checkout with ``-e``: to compile seqrpc._native.

Where that cannot be compiled, or ``SEQRPC_PURE=1`` says that it is not to be, it says so in one line, and the wheel is
the pure one: Python does all of it. ``SEQRPC_PURE=0`` makes that an error.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def load() -> ModuleType:
    """Return native/build.py. There is a package ``build``, which may be what runs this."""
    spec = importlib.util.spec_from_file_location("native_build", Path(__file__).resolve().parent / "native/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


native = load()


class NativeBuildHook(BuildHookInterface[Any]):
    """Puts seqrpc._native into what is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile it, before the files are gathered."""
        is_editable = version == "editable"
        self._work = None if is_editable else tempfile.TemporaryDirectory(prefix="seqrpc-")
        directory = Path(self.root, "seqrpc") if self._work is None else Path(self._work.name)
        wanted = os.environ.get("SEQRPC_PURE", "")
        try:
            if wanted not in ("", "0"):
                raise native.CannotBuildError("SEQRPC_PURE is set")
            made = native.build(directory)
        except native.CannotBuildError as exc:
            if wanted == "0":
                sys.exit(
                    f"{getattr(exc, 'said', '')}seqrpc._native cannot be built, and SEQRPC_PURE=0 asks for it: {exc}"
                )
            self.app.display_warning(f"seqrpc._native is left out, and Python does its part: {exc}")
            (directory / native.name()).unlink(missing_ok=True)  # of an earlier time
            return
        if not is_editable:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["force_include"][str(made)] = f"seqrpc/{made.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was compiled for the wheel, which has it now."""
        if self._work is not None:
            self._work.cleanup()
