"""Modules that are made of text: for syntax that not every Python here has, and for names at the top of a module."""

from __future__ import annotations

import itertools
import sys
import textwrap
import types
from typing import Any

_numbers = itertools.count()


def module_of(source: str) -> Any:
    """Return a module of this source, which other modules of its own kind cannot import."""
    module = types.ModuleType(f"seqrpc_test_source_{next(_numbers)}")
    sys.modules[module.__name__] = module  # as annotations that are text are resolved there
    exec(compile(textwrap.dedent(source), module.__name__, "exec", dont_inherit=True), module.__dict__)
    return module
