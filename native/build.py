"""Compile seqrpc._native, as hatch_build.py does for a wheel, or here.

::

    python native/build.py                into seqrpc/ of this checkout, for this Python
    python native/build.py --sanitize     likewise, with AddressSanitizer and UndefinedBehaviorSanitizer

It needs a C compiler (``CC``, else the one of this Python, else cc, gcc or clang) and Python's headers, nothing else.
``CFLAGS``, ``LDFLAGS`` and then ``SEQRPC_NATIVE_CFLAGS`` of the environment are added to its own flags.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

FLAGS = ("-std=c11", "-O2", "-DNDEBUG", "-fwrapv", "-fPIC", "-fvisibility=hidden", "-shared")

STRICT = ("-Wall", "-Wextra", "-Werror")

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g", "-O1")

VERSIONS = ((3, 11), (3, 12), (3, 13))


class NotBuiltError(Exception):
    """It cannot be built here; the text says why in one line, ``details`` what the compiler said."""

    def __init__(self, why: str, details: str = "") -> None:
        super().__init__(why)
        self.details = details


def name() -> str:
    """Return the name of the file that this Python loads as ``seqrpc._native``."""
    return f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"


def digest() -> str:
    """Return the SHA-256 of the sources in hexadecimal: of each its name, a zero, what it says, in order of names."""
    found = hashlib.sha256()
    for path in sorted([*HERE.glob("*.c"), *HERE.glob("*.h")]):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def build(directory: Path, flags: tuple[str, ...] = ()) -> Path:
    """Compile the extension into ``directory``, in place of one that is there, and return its path.

    Raises:
        NotBuiltError: no compiler, no headers, a Python that it is not for, or sources that do not compile.
    """
    headers = check_python()
    with tempfile.TemporaryDirectory(prefix="seqrpc-") as work:
        made = Path(work, name())
        wanted = (*FLAGS, *flags, *extra_flags(), f'-DSEQRPC_SOURCES="{digest()}"', *(f"-I{path}" for path in headers))
        sources = sorted(map(str, HERE.glob("*.c")))
        try:
            done = subprocess.run(  # noqa: S603 - whoever builds names the compiler
                [*compiler(), *wanted, *sources, "-o", str(made)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as exc:
            raise NotBuiltError(f"the compiler cannot be started: {exc}") from exc
        said = done.stdout + done.stderr
        if done.returncode or not made.exists():
            raise NotBuiltError(f"{compiler()[0]} ended with status {done.returncode}{first_error(said)}", said)
        # Under another name first: whoever has the old one loaded keeps it, and nobody sees half of the new one.
        beside = directory / f".{name()}.{os.getpid()}"
        shutil.copy(made, beside)
        beside.replace(directory / name())
    return directory / name()


def check_python() -> list[str]:
    """Return the directories of this Python's headers.

    Raises:
        NotBuiltError: they are not there, or the extension is not for this Python.
    """
    version = "{}.{}".format(*sys.version_info)
    if sys.implementation.name != "cpython":
        raise NotBuiltError(f"it is for CPython, and this is {sys.implementation.name}")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise NotBuiltError("it counts on the GIL, and this Python is free-threaded")
    if sys.version_info[:2] not in VERSIONS:
        raise NotBuiltError(f"it is for Python {'.'.join(map(str, VERSIONS[0]))} to 3.{VERSIONS[-1][1]}, not {version}")
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").is_file():
        raise NotBuiltError(f"{include}/Python.h is not there (Debian: python3-dev)")
    return list(dict.fromkeys([include, sysconfig.get_path("platinclude")]))


def compiler() -> list[str]:
    """Return the command of the C compiler: of the environment, of this Python, or what there is.

    Raises:
        NotBuiltError: there is none.
    """
    asked = os.environ.get("CC")
    # That of this Python is where it was built, which may have been elsewhere.
    for command in [asked] if asked else [sysconfig.get_config_var("CC") or "cc", "cc", "gcc", "clang"]:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    raise NotBuiltError(f"there is no C compiler {asked}" if asked else "there is no C compiler")


def extra_flags() -> list[str]:
    """Return what the environment adds."""
    names = ("CFLAGS", "LDFLAGS", "SEQRPC_NATIVE_CFLAGS")
    return [flag for name in names for flag in shlex.split(os.environ.get(name, ""))]


def first_error(said: str) -> str:
    """Return what a compiler complained of first, to follow its status."""
    lines = [line for line in said.splitlines() if "error" in line] or said.splitlines()
    return f": {lines[0]}" if lines else ""


def main() -> None:
    """Compile it into this checkout."""
    parser = argparse.ArgumentParser(description="Compile seqrpc._native into seqrpc/ of this checkout.")
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UndefinedBehaviorSanitizer")
    options = parser.parse_args()
    try:
        made = build(HERE.parent / "seqrpc", (*STRICT, *(SANITIZERS if options.sanitize else ())))
    except NotBuiltError as exc:
        sys.exit(f"{exc.details}seqrpc._native is not built: {exc}")
    print(made)


if __name__ == "__main__":
    main()
