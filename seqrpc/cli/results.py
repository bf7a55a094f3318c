"""What a call gave, written: values as JSON or for people, bytes and files as they are, streams item by item."""

from __future__ import annotations

import base64
import contextlib
import math
import os
import select
import stat
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from seqrpc.blocking.channels import Channel
from seqrpc.blocking.streams import Stream
from seqrpc.cli.endings import FAILED, Ending, misused
from seqrpc.cli.progress import progress
from seqrpc.cli.recipient import Recipient
from seqrpc.cli.saving import Saves
from seqrpc.cli.screen import Screen, as_json
from seqrpc.kernel.buffers import Buffer
from seqrpc.kernel.descriptors import OwnedFd

_AT_ONCE: Final = 1 << 18  # bytes

_MOST_NESTED: Final = 16 << 20
"""Characters of JSON of the streams inside of one result, or of all items of one: they are kept until it is whole."""

_KINDS: Final = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
)


class Writer:
    """Writes results.

    Args:
        screen: where they go.
        raw: whether texts are written as they are, without quotes, to what is no terminal.
        saves: files for what comes, in its order; lent.
        program: what is given each result as its standard input, with its arguments; None is none.
    """

    def __init__(
        self, screen: Screen, *, raw: bool = False, saves: Saves | None = None, program: str | None = None
    ) -> None:
        """Write nothing yet."""
        self._screen = screen
        self._raw = raw
        self._saves = Saves(()) if saves is None else saves
        self._program = Recipient(program)
        if self._program and self._saves:
            raise misused("what comes goes to --save, or to --exec: give one of them")
        self._left = _MOST_NESTED

    @property
    def status(self) -> int:
        """Of the program."""
        return self._program.status

    def prepare(self) -> None:
        """Look for what results are to be given to, before there are any.

        Raises:
            Ending: there is no such program.
            OSError: a file cannot be opened.
        """
        self._saves.open()
        self._program.check()

    def write(self, value: Any, *, is_last: bool = True) -> None:
        """Write a result, and close what is in it, but for objects, which stay their owner's.

        Args:
            value: the result.
            is_last: whether it is that of the last call. Before, what is nothing is neither saved nor given on.

        Raises:
            Ending: it cannot be written so.
            RpcError, ConnectionLost: it is a stream, and that failed.
        """
        self._left = _MOST_NESTED
        if isinstance(value, Stream):
            with value:
                self._write_stream(value)
        elif isinstance(value, OwnedFd):
            with value:
                self._write_file(value)
        elif isinstance(value, Buffer):
            with value, memoryview(value) as view:
                self._write_bytes(view)
        elif isinstance(value, bytes):
            self._write_bytes(value)
        elif _holds_files(value) or (value is None and not is_last):
            self._write_data(value)
        elif self._saves:
            with self._saves.take() as file:
                file.write(self._as_file(value))
        elif self._program:
            self._give(self._as_file(value))
        else:
            self._write_data(value)

    def close(self) -> None:
        """Check that all was used that was asked for.

        Raises:
            Ending: it was not.
        """
        if self._saves:
            raise Ending(FAILED, f"nothing came that could be saved as {self._saves.path}")
        self._program.close()

    # Plain data

    def _write_data(self, value: Any) -> None:
        if self._raw and isinstance(value, str):
            self._screen.raw(value.encode(errors="surrogateescape"))
        elif self._screen.is_for_people and isinstance(value, str):
            self._screen.text(value)
        elif value is not None or not self._screen.is_for_people:
            self._screen.value(self.data_of(value))

    def _as_file(self, value: Any) -> bytes:
        text = value if isinstance(value, str) else as_json(self.data_of(value)) + "\n"
        return text.encode(errors="surrogateescape")

    def data_of(self, value: Any) -> Any:
        """Return a value as JSON has it; files in it are saved as far as there are paths, and closed."""
        if isinstance(value, dict):
            return {_key(key): self.data_of(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.data_of(each) for each in value]
        if isinstance(value, OwnedFd | Buffer | Stream):
            with value:
                return self._told(value)
        return {"object": True} if isinstance(value, Channel) else _plain(value)

    def _told(self, value: Any) -> Any:
        if isinstance(value, OwnedFd):
            return self._told_file(value)
        if isinstance(value, Stream):
            return self._told_stream(value)
        with memoryview(value) as view:
            return self._told_buffer(view)

    def _told_stream(self, stream: Stream[Any]) -> Any:
        """Return the items of a stream that is inside of something else, which has to be there whole.

        Raises:
            Ending: they are more than anybody reads so.
        """
        items: list[Any] = []
        for item in stream:
            data = self.data_of(item)
            self._left -= len(as_json(data)) + 1
            if self._left < 0:
                raise Ending(FAILED, f"a stream inside of the result has more than {_MOST_NESTED:,} characters")
            items.append(data)
        return items

    def _told_file(self, fd: OwnedFd) -> dict[str, Any]:
        told: dict[str, Any] = {"descriptor": kind_of(fd)}
        if told["descriptor"] == "file":
            told["size"] = os.fstat(fd.fileno()).st_size
        if self._saves:
            told["saved"] = self._saves.path
            self._save(fd)
        return told

    def _told_buffer(self, view: memoryview) -> Any:
        if not self._saves:
            return base64.b64encode(view).decode()
        path = self._saves.path
        with self._saves.take() as file:
            file.write(view)
        return {"bytes": len(view), "saved": path}

    # Bytes and files

    def _write_bytes(self, data: bytes | memoryview) -> None:
        if self._saves:
            with self._saves.take() as file:
                file.write(data)
        elif self._program:
            self._give(data)
        else:
            self._screen.raw(data)
            self._end_line(data[-1:] == b"\n" or not data)

    def _write_file(self, fd: OwnedFd) -> None:
        if self._program:
            self._screen.flush()
            self._program.run(fd.fileno())
        elif self._saves:
            self._save(fd)
        else:
            self._copy(fd)

    def _give(self, data: bytes | memoryview) -> None:
        self._screen.flush()
        with self._program.fed() as file:
            file.write(data)

    def _save(self, fd: OwnedFd) -> None:
        with self._saves.take() as file, progress(self._screen) as tell:
            done = 0
            for data in _read(fd):
                file.write(data)
                done += len(data)
                tell(f"{done:,} bytes")

    def _copy(self, fd: OwnedFd) -> None:
        last = b"\n"
        for data in _lines(fd) if self._screen.is_terminal else _read(fd):
            self._screen.raw(data)
            last = data[-1:]
        self._end_line(last == b"\n")

    def _end_line(self, whole: bool) -> None:  # noqa: FBT001 - whether it has ended by itself
        if self._screen.is_terminal and not whole:
            self._screen.line()

    # Streams

    def _write_stream(self, stream: Stream[Any]) -> None:
        with contextlib.ExitStack() as opened:
            file = None
            if self._program:
                self._screen.flush()
                file = opened.enter_context(self._program.fed())
            elif self._saves:
                file = opened.enter_context(self._saves.take())
            quiet = self._screen.is_terminal and file is None  # the items show that something happens
            tell = None if quiet else opened.enter_context(progress(self._screen))
            count = 0
            for items in batches(stream):
                for item in items:
                    count += 1
                    self._write_item(item, file)
                if tell is not None:
                    tell(f"{count:,} items")
                (self._screen if file is None or not self._program else file).flush()

    def _write_item(self, item: Any, file: Any) -> None:
        if file is not None and self._raw and isinstance(item, str):
            file.write(f"{item}\n".encode(errors="surrogateescape"))
        elif file is not None:
            file.write(item if isinstance(item, bytes) else (as_json(self.data_of(item)) + "\n").encode())
        elif self._raw and isinstance(item, bytes):
            self._screen.raw(item)
        elif self._raw and isinstance(item, str):
            self._screen.raw(f"{item}\n".encode(errors="surrogateescape"))
        elif self._screen.is_for_people:
            self._screen.line(item if isinstance(item, str) else as_json(self.data_of(item)))
        else:
            self._screen.value(self.data_of(item))


def batches(stream: Stream[Any]) -> Iterator[list[Any]]:
    """Yield the items of a stream, as many together as are there."""
    for item in stream:
        yield [item]
        ready: list[Any] = stream.take_ready()
        if ready:
            yield ready


def _read(fd: OwnedFd) -> Iterator[bytes]:
    """Yield what is in a descriptor.

    Raises:
        Ending: it cannot be read.
    """
    while True:
        try:
            data = os.read(fd.fileno(), _AT_ONCE)
        except BlockingIOError:
            poller = select.poll()
            poller.register(fd.fileno(), select.POLLIN)
            poller.poll()
            continue
        except OSError as exc:
            raise Ending(FAILED, f"the {kind_of(fd)} that came cannot be read: {exc.strerror}") from None
        if not data:
            return
        yield data


def _lines(fd: OwnedFd) -> Iterator[bytes]:
    """Yield what is in a descriptor, in pieces that end where a line does, unless that is very long."""
    rest = b""
    for data in _read(fd):
        whole, newline, rest = (rest + data).rpartition(b"\n")
        if newline:
            yield whole + newline
        if len(rest) > _AT_ONCE:
            yield rest
            rest = b""
    if rest:
        yield rest


def kind_of(fd: OwnedFd) -> str:
    """Return what kind of file a descriptor is of."""
    mode = os.fstat(fd.fileno()).st_mode
    return next((kind for test, kind in _KINDS if test(mode)), "something")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _holds_files(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_files, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_files, value))
    return isinstance(value, OwnedFd | Buffer)


def _key(key: Any) -> str:
    plain = _plain_key(key)
    return plain if isinstance(plain, str) else as_json(plain)


def _plain_key(key: Any) -> Any:
    if isinstance(key, tuple):
        return [_plain_key(each) for each in key]
    plain = _plain(key)
    return plain if isinstance(plain, str | int | float | None) else str(plain)
