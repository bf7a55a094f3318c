"""Files where a parameter says that a descriptor has an owner."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NewType

import msgspec
import pytest

from seqrpc.interface.description import MethodDescription, describe
from seqrpc.interface.lending import check_of_owners, with_owners
from seqrpc.interface.signature import spec_of
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

Kept = NewType("Kept", OwnedFd)


class Special(OwnedFd):
    pass


class Journal(msgspec.Struct):
    """Data that lends a descriptor itself."""

    fd: int = 0

    def fileno(self) -> int:
        return self.fd


@dataclasses.dataclass
class Entry:
    """Data with a field of that name."""

    fileno: int


class Files:
    async def put(self, name: str, file: OwnedFd, *, other: OwnedFd | None = None) -> None: ...

    async def plain(self, name: str, files: list[str]) -> None: ...

    async def anything(self, file: Any) -> None: ...

    async def nothing(self) -> None: ...


def method_with(annotation: Any) -> MethodDescription:
    async def take(self: Any, value: Any) -> None: ...

    take.__annotations__["value"] = annotation
    return describe(type("Files", (), {"take": take})).methods["take"]


@pytest.fixture
def file() -> Iterator[Any]:
    with tempfile.TemporaryFile() as opened:
        yield opened


@pytest.mark.parametrize("name", ["plain", "anything", "nothing"])
def test_methods_without_such_parameters_have_nothing_to_check(name: str) -> None:
    assert check_of_owners(describe(Files).methods[name]) is None


MESSAGE = (
    r"^Files\.{}: `{}` is annotated with OwnedFd, got `.+`: pass seqrpc\.OwnedFd\.dup\(\.\.\.\) of it, which stays"
    r" yours to close, or use call, which takes any file$"
)


def test_a_file_is_refused_by_position_and_by_name(file: Any) -> None:
    check = check_of_owners(describe(Files).methods["put"])
    assert check is not None
    with OwnedFd.dup(file) as fd, socket.socket() as sock:
        check(("name", fd))
        check({"file": fd, "other": fd})
        check({"file": fd, "other": None})
        check(("too few",))
        check(())
        check({})
        for params in (("name", file), ["name", sock], {"file": file}):
            with pytest.raises(TypeError, match=MESSAGE.format("put", "file")):
                check(params)
        with pytest.raises(TypeError, match=MESSAGE.format("put", "other")):
            check({"file": fd, "other": file})


@pytest.mark.parametrize(
    "annotation",
    [OwnedFd, OwnedFd | None, OwnedFd | str, Annotated[OwnedFd, "more"], Kept, OwnedFd | Entry, Kept | None],
)
def test_an_owner_is_wanted_wherever_the_annotation_is_one(annotation: Any, file: Any) -> None:
    check = check_of_owners(method_with(annotation))
    assert check is not None
    with Special(os.dup(file.fileno())) as special, OwnedFd.dup(file) as fd:
        check([special])
        check([fd])
    for value in ("text", 5, None, Entry(7)):
        check([value])  # whether it fits is for the other side to say
    with pytest.raises(TypeError, match=MESSAGE.format("take", "value")):
        check([file])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is younger")
def test_an_alias_is_what_it_stands_for(file: Any) -> None:
    scope: dict[str, Any] = {"OwnedFd": OwnedFd}
    exec("type Alias = OwnedFd | None", scope)
    check = check_of_owners(method_with(scope["Alias"]))
    assert check is not None
    with pytest.raises(TypeError, match=MESSAGE.format("take", "value")):
        check([file])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is younger")
def test_a_type_within_itself_is_looked_into_once(file: Any) -> None:
    scope: dict[str, Any] = {"OwnedFd": OwnedFd}
    exec("type Tree = OwnedFd | list[Tree]", scope)
    check = check_of_owners(method_with(scope["Tree"]))
    assert check is not None
    check([[[file]]])
    with pytest.raises(TypeError, match=MESSAGE.format("take", "value")):
        check([file])


def test_what_else_the_annotation_takes_is_taken() -> None:
    check = check_of_owners(method_with(OwnedFd | Buffer))
    assert check is not None
    with Buffer.allocate(1) as buffer:
        check([buffer])
        only = check_of_owners(method_with(OwnedFd))
        assert only is not None
        with pytest.raises(TypeError, match="got `Buffer`"):
            only([buffer])
    mixed = check_of_owners(method_with(OwnedFd | Journal))
    assert mixed is not None
    mixed([Journal()])
    assert check_of_owners(method_with(OwnedFd | Any)) is None


@pytest.mark.parametrize(
    "annotation, wrap",
    [
        (list[OwnedFd], lambda value: [value]),
        (tuple[str, OwnedFd], lambda value: ("name", value)),
        (tuple[OwnedFd, ...] | None, lambda value: (value, value)),
        (Sequence[OwnedFd], lambda value: [value]),
        (Iterable[OwnedFd], lambda value: (value,)),
        (dict[str, OwnedFd], lambda value: {"name": value}),
        (Mapping[str, list[OwnedFd]], lambda value: {"name": [value]}),
        (list[list[OwnedFd | None]], lambda value: [[None, value]]),
        (list[OwnedFd] | OwnedFd, lambda value: value),
        (list[OwnedFd] | OwnedFd, lambda value: [value]),
        (tuple[OwnedFd, list[OwnedFd]], lambda value: (None, [value])),
    ],
)
def test_owners_are_wanted_in_containers_too(annotation: Any, wrap: Callable[[Any], Any], file: Any) -> None:
    check = check_of_owners(method_with(annotation))
    assert check is not None
    with OwnedFd.dup(file) as fd:
        check([wrap(fd)])
    others: list[Any] = ["text", 5, None, [], {}]
    for value in others:
        check([value])
    with pytest.raises(TypeError, match=MESSAGE.format("take", "value")):
        check([wrap(file)])


@pytest.mark.parametrize(
    "annotation", [list[Any], list[str], dict[str, Any], AsyncIterator[OwnedFd], list[OwnedFd | Any], Entry, object]
)
def test_nothing_is_looked_for_where_no_owner_is_wanted(annotation: Any) -> None:
    assert check_of_owners(method_with(annotation)) is None


class Rows:
    """Methods with one place for an owner, with several, and with none that has a position."""

    async def one(self, name: str, file: OwnedFd, mode: int = 0) -> None: ...

    async def two(self, file: OwnedFd, other: OwnedFd) -> None: ...

    async def named(self, name: str, *, file: OwnedFd | None = None) -> None: ...

    async def plain(self, name: str) -> None: ...


def made(name: str) -> tuple[Any, list[Any]]:
    """Return a proxy's method, and what it calls with."""
    calls: list[Any] = []

    def calling(self: Any, /, *args: Any, **kwargs: Any) -> str:
        calls.append((self, args, kwargs))
        return "called"

    return with_owners(spec_of(Rows).methods[name], calling), calls


def test_what_has_to_have_no_owner_is_called_directly() -> None:
    def calling() -> None: ...

    assert with_owners(spec_of(Rows).methods["plain"], calling) is calling


@pytest.mark.parametrize(
    "name, args, kwargs",
    [
        ("one", ("name", "owner", 5), {}),  # the shortest way
        ("one", ("name", "owner"), {}),
        ("one", ("name",), {"file": "owner"}),
        ("one", ("name", "owner"), {"mode": 5}),
        ("one", ("name", 5, 5), {}),  # whether it fits is for the other side to say
        ("two", ("owner", "owner"), {}),
        ("named", ("name",), {}),
        ("named", ("name",), {"file": "owner"}),
    ],
)
def test_calls_pass_with_owners_however_they_are_written(
    file: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    method, calls = made(name)
    with OwnedFd.dup(file) as fd:
        args = tuple(fd if arg == "owner" else arg for arg in args)
        kwargs = {key: fd if arg == "owner" else arg for key, arg in kwargs.items()}
        assert method("it", *args, **kwargs) == "called"
        assert calls == [("it", args, kwargs)]


@pytest.mark.parametrize(
    "name, args, kwargs",
    [
        ("one", ("name", "file", 5), {}),
        ("one", ("name", "file"), {}),
        ("one", ("name",), {"file": "file"}),
        ("two", ("owner", "file"), {}),
        ("two", ("file", "owner"), {}),
        ("named", ("name",), {"file": "file"}),
    ],
)
def test_no_call_passes_with_a_file(file: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    method, calls = made(name)
    with OwnedFd.dup(file) as fd:
        meant = {"owner": fd, "file": file}
        with pytest.raises(TypeError, match="is annotated with OwnedFd, got"):
            method("it", *(meant.get(arg, arg) for arg in args), **{key: meant[arg] for key, arg in kwargs.items()})
    assert calls == []


@pytest.mark.parametrize(
    "name, args", [("one", ("name",)), ("one", ("a", "b", 3, 4)), ("two", ("owner",)), ("named", ())]
)
def test_arguments_that_do_not_fit_are_told_at_once(name: str, args: tuple[Any, ...]) -> None:
    method, calls = made(name)
    with pytest.raises(TypeError, match=rf"Rows\.{name}"):
        method("it", *args)
    assert calls == []
