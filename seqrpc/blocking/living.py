"""How streams and channels travel over one line: the blocking side's :class:`seqrpc.protocol.values.Living`."""

from __future__ import annotations

import contextlib
import errno
import functools
import resource
from collections.abc import Iterable
from typing import Any, Final

from seqrpc.blocking.channels import Channel, ChannelEnd, Surroundings, end_of
from seqrpc.blocking.family import Family
from seqrpc.blocking.interceptors import Interception
from seqrpc.blocking.objects import ObjectDeparture, let_go_of
from seqrpc.blocking.producers import Producer, StreamDeparture
from seqrpc.blocking.proxy import Proxy, callee_of
from seqrpc.blocking.remote import Remote
from seqrpc.blocking.streams import Stream, reader_of
from seqrpc.calls.departures import MovedEnd, Source
from seqrpc.errors import LocalProtocolError, Overloaded
from seqrpc.interface.service import Service
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.interrupts import hold
from seqrpc.kernel.sockets import is_connected_seqpacket
from seqrpc.limits import Limits, free_descriptors
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.items import ItemReader
from seqrpc.protocol.values import EXT_CHANNEL, EXT_STREAM, Departure

_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class LivingValues:
    """Makes streams and channels of what comes in on a line, and descriptors of what leaves.

    Args:
        limits: ``max_living_values`` and those of messages are used, and all passed on to channels.
        family: where what leaves goes on.
        interception: of this connection, and of those of channels.
        own: the end of the channel whose line this is, if it is a channel's.
    """

    __slots__ = ("_around", "_family", "_interception", "_limits", "_own_id")

    def __init__(
        self, limits: Limits, family: Family, interception: Interception, own: ChannelEnd | None = None
    ) -> None:
        """Begin with none that left."""
        self._limits = limits
        self._family = family
        self._interception = interception
        self._around = Surroundings(limits, family, interception, self._within)
        self._own_id = None if own is None else id(own)  # not the end itself, which this must not keep alive

    def travels(self, value: Any) -> bool:
        """Return whether ``value`` is a stream or a channel."""
        return isinstance(value, Service | Proxy | Remote | Source | Stream) or _streams(value)

    def departure_of(self, value: Any) -> Departure | None:
        """Return how ``value`` travels, or None if it is neither a stream nor a channel.

        Raises:
            Overloaded: the connection has ``max_living_values`` already, or the process too many descriptors.
            LocalProtocolError: it is a channel that cannot be passed on, or waits for an event loop.
        """
        moved = self._move(value)
        if moved is not None:
            return moved
        if not isinstance(value, Service | Source | Stream) and not _streams(value):
            if hasattr(type(value), "__aiter__"):
                kind = type(value).__name__
                text = "a blocking connection streams iterators: write a generator without 'async'"
                raise LocalProtocolError(f"what a value of type {kind} yields needs an event loop, and {text}")
            return None
        hold()  # until the message has left: nobody would tell what is made here that it was not sent
        self._check_room()
        self._family.alive += 1
        try:
            return self._new(value)
        except BaseException as exc:
            self._family.alive -= 1
            if not isinstance(exc, OSError) or exc.errno not in _NO_ROOM:
                raise
            raise Overloaded(f"no socket pair for a stream or a channel: {exc.strerror}") from exc

    def _check_room(self) -> None:
        alive = self._family.alive
        if alive >= self._limits.max_living_values:
            raise Overloaded(f"this connection has {alive} streams and channels already (max_living_values)")
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(1, free_descriptors(soft) // 2)
        if soft != resource.RLIM_INFINITY and alive >= most:
            raise Overloaded(f"{most} streams and channels are alive here already (half of RLIMIT_NOFILE)")

    def _move(self, value: Any) -> Departure | None:
        """Return how a received stream or channel is passed on; None if it is neither, or can only be relayed."""
        if isinstance(value, Proxy | Channel):
            end = callee_of(value) if isinstance(value, Proxy) else end_of(value)
            if not isinstance(end, ChannelEnd):
                raise LocalProtocolError("only the proxy of a channel can be sent, this one is of a whole connection")
            if id(end) == self._own_id:
                raise LocalProtocolError("a channel cannot be sent over itself")
            hold()  # as below
            return MovedEnd(EXT_CHANNEL, end.detach(), end.attach)
        if isinstance(value, Remote):
            raise LocalProtocolError("a connection cannot be sent; send the proxy of an object, or the object itself")
        if not isinstance(value, Stream):
            return None
        reader = reader_of(value)
        hold()
        fd = reader.detach()
        return None if fd is None else MovedEnd(EXT_STREAM, fd, reader.attach)

    def _new(self, value: Service | Source | Iterable[Any]) -> Departure:
        family = self._family
        if isinstance(value, Service):
            return ObjectDeparture(value, self._around, self._ended)
        if not isinstance(value, Source):
            value = Source(value, getattr(value, "__qualname__", type(value).__qualname__))
        encoder = Encoder(self._limits, self)  # of its own: its items may be made while another one is encoded
        return StreamDeparture(
            value,
            encoder,
            rested=family.look_again,
            started=family.add,
            ended=self._producer_ended,
            dropped=self._ended,
        )

    def _within(self, own: ChannelEnd | None) -> LivingValues:
        """Return what carries streams and channels over the line of a channel."""
        return LivingValues(self._limits, self._family, self._interception, own)

    def _ended(self) -> None:
        self._family.alive -= 1

    def _producer_ended(self, producer: Producer) -> None:
        self._family.discard(producer)
        self._ended()

    def give_up(self, value: Any) -> None:
        """Let go of a stream or a channel that was given away and that nobody gets, as if its holder had let go.

        It may be repeated.
        """
        if isinstance(value, Proxy | Channel):
            end = callee_of(value) if isinstance(value, Proxy) else end_of(value)
            if isinstance(end, ChannelEnd) and id(end) != self._own_id:
                end.drop()
        elif isinstance(value, Service):
            let_go_of(value, self._family)
        elif isinstance(value, Source):
            close_all(value.fds)
            self.give_up(value.items)
        elif isinstance(value, Stream):
            reader_of(value).drop()
        elif _streams(value) and hasattr(value, "close"):
            self._family.errands.append(functools.partial(_close, value))  # code of the application's runs in it

    def receive(self, ext_type: int, fd: OwnedFd) -> Stream[Any] | Channel:
        """Return the object for a stream or a channel that came in.

        Raises:
            ValueError: the descriptor is no connected Unix socket of type SOCK_SEQPACKET.
        """
        if not is_connected_seqpacket(fd):
            what = "stream" if ext_type == EXT_STREAM else "channel"
            raise ValueError(f"the descriptor of a {what} is no connected SOCK_SEQPACKET socket")
        if ext_type == EXT_STREAM:
            decoder = Decoder(self._limits, self)
            return Stream(self._family, fd, ItemReader(decoder, self._limits.max_message_bytes))
        return Channel(ChannelEnd(fd, self._around))


def _streams(value: Any) -> bool:
    """Return whether a value is sent as a stream: an iterator, and no file, which has a descriptor."""
    return hasattr(type(value), "__next__") and not hasattr(value, "fileno")


def _close(stream: Any) -> None:
    with contextlib.suppress(Exception):  # it may raise anything, and may be running
        stream.close()
