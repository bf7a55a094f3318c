"""Compile seqrpc._native, as hatch_build.py does for a wheel, or here.

::

    python native/build.py                into seqrpc/ of this checkout, for this Python
    python native/build.py --into DIR     elsewhere
    python native/build.py --sanitize     with AddressSanitizer and UndefinedBehaviorSanitizer (.ci/sanitized)

It needs a C compiler (``CC``, else the one of this Python, else cc, gcc or clang) and Python's headers, nothing else.
``CPPFLAGS``, ``CFLAGS``, ``LDFLAGS`` and then ``SEQRPC_NATIVE_CFLAGS`` of the environment are added to its own flags.
Warnings are errors here, and not where others install. The status is 1 if something is wrong in the sources, and 3 if
it cannot be built here at all.
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

VERSIONS = ((3, 11), (3, 12), (3, 13))
"""Pythons that it is tested with: it knows more of them than newer ones promise to keep."""

FLAGS = (
    *("-std=c11", "-O3", "-DNDEBUG", "-fwrapv", "-fPIC", "-fvisibility=hidden", "-shared"),
    # It reads what peers send.
    *("-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-Wl,-z,relro,-z,now"),
)
"""Not those of this Python, which another compiler may have built: this one would refuse some of them."""

STRICT = ("-Wall", "-Wextra", "-Werror")

SANITIZERS = (
    *("-O1", "-g", "-UNDEBUG", "-U_FORTIFY_SOURCE", "-fno-omit-frame-pointer", "-fno-wrapv"),
    # Of the two libraries only AddressSanitizer's writes to a file, and what is undefined is to be in there, too.
    *("-fsanitize=address,undefined", "-fsanitize-undefined-trap-on-error"),
)


class CannotBuildError(Exception):
    """It cannot be built here; the text says why in one line."""


class NotCompiledError(CannotBuildError):
    """The compiler was not content with the sources."""

    def __init__(self, why: str, said: str) -> None:
        """Keep all that the compiler said."""
        super().__init__(why)
        self.said = said


def name() -> str:
    """Return the name of the file that this Python loads as ``seqrpc._native``."""
    return f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"


def digest() -> str:
    """Return the SHA-256 of the sources, in hexadecimal: of each its name, a zero, what it says, in order of names."""
    found = hashlib.sha256()
    for path in sorted([*HERE.glob("*.c"), *HERE.glob("*.h")]):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def build(directory: Path, flags: tuple[str, ...] = ()) -> Path:
    """Compile the extension into ``directory``, in place of one that is there, and return its path.

    Raises:
        CannotBuildError: no compiler, no headers, or a Python that it is not for.
        NotCompiledError: the sources do not compile.
    """
    headers = [f"-I{path}" for path in headers_of_python()]
    program = compiler()
    with tempfile.TemporaryDirectory(prefix="seqrpc-") as work:
        made = Path(work, name())
        sources = sorted(map(str, HERE.glob("*.c")))
        wanted = [*FLAGS, *flags, *extra_flags(), f'-DSEQRPC_SOURCES="{digest()}"', *headers, *sources, "-o", str(made)]
        try:
            done = subprocess.run(  # noqa: S603 - whoever builds names the compiler
                [*program, *wanted], stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
        except OSError as exc:
            raise CannotBuildError(f"{program[0]} cannot be started: {exc}") from exc
        said = (done.stdout + done.stderr).decode(errors="backslashreplace")
        if done.returncode or not made.exists():
            raise NotCompiledError(f"{program[0]} ended with status {done.returncode}{first_error(said)}", said)
        sys.stderr.write(said)  # warnings
        # Under another name first: whoever has the old one loaded keeps it, and nobody sees half of the new one.
        beside = directory / f".{name()}.{os.getpid()}"
        shutil.copy(made, beside)
        beside.replace(directory / name())
    return directory / name()


def headers_of_python() -> list[str]:
    """Return the directories of this Python's headers.

    Raises:
        CannotBuildError: they are not there, or the extension is not for this Python.
    """
    if sys.implementation.name != "cpython":
        raise CannotBuildError(f"it is for CPython, and this is {sys.implementation.name}")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise CannotBuildError("it counts on the GIL, and this Python is free-threaded")
    if sys.version_info[:2] not in VERSIONS:
        first, *_, last = (f"{major}.{minor}" for major, minor in VERSIONS)
        raise CannotBuildError(
            f"it is for Python {first} to {last}, and this is {sys.version_info[0]}.{sys.version_info[1]}"
        )
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").is_file():
        raise CannotBuildError(f"there is no {include}/Python.h (Debian's package python3-dev)")
    return list(dict.fromkeys([include, sysconfig.get_path("platinclude")]))


def compiler() -> list[str]:
    """Return the command of the C compiler: of the environment, of this Python, or what there is.

    Raises:
        CannotBuildError: there is none.
    """
    asked = os.environ.get("CC")
    # That of this Python is where it was built, which may have been elsewhere.
    for command in [asked] if asked else [sysconfig.get_config_var("CC") or "cc", "cc", "gcc", "clang"]:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    raise CannotBuildError(f"there is no C compiler {asked}" if asked else "there is no C compiler")


def extra_flags() -> list[str]:
    """Return what the environment adds."""
    names = ("CPPFLAGS", "CFLAGS", "LDFLAGS", "SEQRPC_NATIVE_CFLAGS")
    return [flag for name in names for flag in shlex.split(os.environ.get(name, ""))]


def first_error(said: str) -> str:
    """Return what a compiler complained of first, to follow its status."""
    lines = [line for line in said.splitlines() if "error" in line] or said.splitlines()
    return f": {lines[0]}" if lines else ""


def main() -> None:
    """Compile it into this checkout."""
    parser = argparse.ArgumentParser(
        prog="native/build.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=HERE.parent / "seqrpc", metavar="DIR", help="where it is put")
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UndefinedBehaviorSanitizer")
    options = parser.parse_args()
    try:
        print(build(options.into, (*STRICT, *(SANITIZERS if options.sanitize else ()))))
    except CannotBuildError as exc:
        if isinstance(exc, NotCompiledError):
            sys.stderr.write(exc.said)
        sys.stderr.write(f"seqrpc._native cannot be built: {exc}\n")
        sys.exit(1 if isinstance(exc, NotCompiledError) else 3)


if __name__ == "__main__":
    main()
