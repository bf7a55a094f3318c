"""What hatchling asks as it builds a wheel, or installs this checkout with ``-e``: to compile seqrpc._native.

Where that cannot be compiled the wheel has the Python alone, which does all of it.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def load() -> ModuleType:
    """Return native/build.py. There is a package ``build``, which may be what runs this."""
    spec = importlib.util.spec_from_file_location(
        "native_build", Path(__file__).resolve().parent / "native" / "build.py"
    )
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
        package = Path(self.root, "seqrpc")
        if version == "editable":
            (package / native.name()).unlink(missing_ok=True)  # if none comes of it now, an older one would be used
            directory = package
        else:
            self._work = tempfile.TemporaryDirectory(prefix="seqrpc-")
            directory = Path(self._work.name)
        try:
            if os.environ.get("SEQRPC_PURE", "0") not in ("", "0"):
                raise native.NotBuiltError("SEQRPC_PURE is set")
            made = native.build(directory)
        except native.NotBuiltError as exc:
            self.app.display_warning(f"seqrpc._native is left out, Python does its work: {exc}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version != "editable":
            build_data["force_include"][str(made)] = f"seqrpc/{made.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was compiled for the wheel, which has it now."""
        if version != "editable":
            self._work.cleanup()
