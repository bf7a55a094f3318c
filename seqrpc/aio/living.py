"""How streams and channels travel over one connection: the asyncio side's :class:`seqrpc.protocol.values.Living`."""

from __future__ import annotations

import errno
import functools
import inspect
from collections.abc import AsyncIterable
from contextvars import Context
from typing import Any, Final

from seqrpc.aio.accounts import DESCRIPTORS, LIVING, Account, Booked, Ledger
from seqrpc.aio.channels import Channel, ChannelEnd, end_of
from seqrpc.aio.departures import StreamDeparture
from seqrpc.aio.held import Held, HeldValues
from seqrpc.aio.interception import NO_INTERCEPTION, Interception
from seqrpc.aio.objects import ObjectDeparture, let_go_of
from seqrpc.aio.producers import Producer
from seqrpc.aio.proxy import Proxy, callee_of
from seqrpc.aio.remote import Remote
from seqrpc.aio.streams import Stream, reader_of
from seqrpc.calls.departures import MovedEnd, Source
from seqrpc.errors import LocalProtocolError, Overloaded
from seqrpc.interface.current import answered_call
from seqrpc.interface.service import Service
from seqrpc.kernel.descriptors import OwnedFd, close_all
from seqrpc.kernel.sockets import is_connected_seqpacket
from seqrpc.limits import Limits
from seqrpc.logs import get_logger
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.items import ItemReader
from seqrpc.protocol.values import EXT_CHANNEL, EXT_STREAM, Departure

_log = get_logger("seqrpc.living")

_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Tally:
    """How many streams and channels left, or are about to leave, over a connection and its channels' connections."""

    __slots__ = ("alive",)

    def __init__(self) -> None:
        """Begin with none."""
        self.alive = 0


class _Place:
    """One stream or object that counts, from when it is made for a message until it has ended."""

    __slots__ = ("_account", "_tally")

    def __init__(self, tally: Tally, account: Account) -> None:
        """Count one more."""
        self._tally: Tally | None = tally
        self._account = account
        tally.alive += 1
        account.book(LIVING)

    def free(self) -> None:
        """Count one less, once."""
        tally, self._tally = self._tally, None
        if tally is not None:
            tally.alive -= 1
            self._account.release(LIVING)


class LivingValues(Booked):
    """Makes streams and channels of what comes in on a connection, and descriptors of what leaves.

    Args:
        limits: ``max_living_values`` and those of messages are used, and all passed on to channels.
        held: keeps what leaves.
        own: the end of the channel whose connection this is, if it is a channel's.
        tally: counts what left, together with the connection that the channel came over.
        interception: of this connection, and of those of channels.
        account: what it holds counts on; if it is None, that of the connection, once this is made.
        surroundings: the context that the connection, and those of channels, are in (:class:`Booked`).
    """

    __slots__ = (
        "_held", "_interception", "_limits", "_made_decoder", "_made_encoder", "_own_id", "_tally",
    )  # fmt: skip

    def __init__(
        self,
        limits: Limits,
        held: HeldValues,
        own: ChannelEnd | None = None,
        tally: Tally | None = None,
        interception: Interception = NO_INTERCEPTION,
        *,
        account: Account | None = None,
        surroundings: Context | None = None,
    ) -> None:
        """Begin with none that left."""
        super().__init__(account, surroundings)
        self._limits = limits
        self._held = held
        self._interception = interception
        # Not the end itself: its connection refers to this and must not keep the end alive.
        self._own_id = None if own is None else id(own)
        self._made_encoder: Encoder | None = None
        self._made_decoder: Decoder | None = None
        self._tally = Tally() if tally is None else tally

    @property
    def _encoder(self) -> Encoder:
        """What encodes the items of all streams that leave; made late, for most connections never have one."""
        if self._made_encoder is None:
            self._made_encoder = Encoder(self._limits, self)
        return self._made_encoder

    @property
    def _decoder(self) -> Decoder:
        """What decodes the items of all streams that come in; made late, for most connections never have one."""
        if self._made_decoder is None:
            self._made_decoder = Decoder(self._limits, self)
        return self._made_decoder

    def let_go(self) -> None:
        """Be freed at once with the connection, which has ended; streams go on, and have what they need themselves."""
        super().let_go()
        if self._made_encoder is not None:
            self._made_encoder.let_go()
        self._made_encoder = self._made_decoder = None

    def travels(self, value: Any) -> bool:
        """Return whether ``value`` is a stream or a channel."""
        return isinstance(value, Service | Proxy | Remote | Source) or hasattr(type(value), "__aiter__")

    def departure_of(self, value: Any) -> Departure | None:
        """Return how ``value`` travels, or None if it is neither a stream nor a channel.

        Raises:
            Overloaded: the connection has ``max_living_values`` already, or the process too many descriptors.
            LocalProtocolError: it is a channel that cannot be passed on.
        """
        moved = self._move(value)
        if moved is not None:
            return moved
        if not isinstance(value, Service | Source) and not hasattr(type(value), "__aiter__"):
            return None
        place = self._take_place()
        try:
            return self._new(value, place)
        except BaseException as exc:
            place.free()
            if not isinstance(exc, OSError) or exc.errno not in _NO_ROOM:
                raise
            raise Overloaded(f"no socket pair for a stream or a channel: {exc.strerror}") from exc

    def _take_place(self) -> _Place:
        alive = self._tally.alive
        if alive >= self._limits.max_living_values:
            raise Overloaded(f"this connection has {alive} streams and channels already (max_living_values)")
        account = self.account
        if account is None:  # there is no connection yet
            account = self.account = Ledger(self._limits, is_shared=False).account_of(None)
        lack = account.lack(LIVING) or account.lack(DESCRIPTORS)
        if lack is not None:
            raise Overloaded(lack)
        return _Place(self._tally, account)

    def _move(self, value: Any) -> Departure | None:
        """Return how a received stream or channel is passed on; None if it is neither, or can only be relayed."""
        if isinstance(value, Proxy | Channel):
            end = callee_of(value) if isinstance(value, Proxy) else end_of(value)
            if not isinstance(end, ChannelEnd):
                raise LocalProtocolError("only the proxy of a channel can be sent, this one is of a whole connection")
            if id(end) == self._own_id:
                raise LocalProtocolError("a channel cannot be sent over itself")
            return MovedEnd(EXT_CHANNEL, end.detach(), end.attach)
        if isinstance(value, Remote):
            raise LocalProtocolError("a connection cannot be sent; send the proxy of an object, or the object itself")
        if not isinstance(value, Stream):
            return None
        reader = reader_of(value)
        fd = reader.detach()
        return None if fd is None else MovedEnd(EXT_STREAM, fd, reader.attach)

    def _new(self, value: Service | Source | AsyncIterable[Any], place: _Place) -> Departure:
        ended = functools.partial(self._ended, place)
        if isinstance(value, Service):
            keep, free, calls = self._held.add, place.free, self._interception
            return ObjectDeparture(
                value,
                self._limits,
                self._within,
                keep,
                ended,
                dropped=free,
                interception=calls,
                tallies=self._held.tallies,
            )
        if not isinstance(value, Source):
            value = Source(value, getattr(value, "__qualname__", type(value).__qualname__))
        call = answered_call()
        if call is not None:
            value.errors = call.entry.tally.stream_errors
        return StreamDeparture(value, self._encoder, self._begun, ended, dropped=place.free, account=self.account)

    def _begun(self, producer: Producer) -> None:
        """Keep a producer, and have its source begin before the other side is heard again: it may know the stream."""
        self._held.add(producer)
        if self.intake is not None:
            self.intake.read_later()

    def _within(self, own: ChannelEnd | None) -> LivingValues:
        """Return what carries streams and channels over the connection of a channel."""
        return LivingValues(
            self._limits, self._held, own, self._tally, self._interception,
            account=self.account, surroundings=self.surroundings,
        )  # fmt: skip

    def _ended(self, place: _Place, value: Held) -> None:
        place.free()
        self._held.remove(value)

    def give_up(self, value: Any) -> None:
        """Let go of a stream or a channel that was given away and that nobody gets, as if its holder had let go.

        It closes an object that nobody else holds, and an async iterator. It lets go of what was received and was to
        be passed on, except the channel whose connection this is: whoever called over it has that. It may be repeated.
        """
        if isinstance(value, Proxy | Channel):
            end = callee_of(value) if isinstance(value, Proxy) else end_of(value)
            if isinstance(end, ChannelEnd) and id(end) != self._own_id:
                end.drop()
        elif isinstance(value, Service):
            closing = let_go_of(value, self._limits)
            if closing is not None:
                self._held.keep(value, closing)
        elif isinstance(value, Source):
            close_all(value.fds)
            self.give_up(value.items)
        elif isinstance(value, Stream):
            reader_of(value).drop()
        elif _can_be_closed(value):
            self._held.end(value, _close)

    def receive(self, ext_type: int, fd: OwnedFd) -> Stream[Any] | Channel:
        """Return the object for a stream or a channel that came in.

        Raises:
            ValueError: the descriptor is no connected Unix socket of type SOCK_SEQPACKET.
        """
        if not is_connected_seqpacket(fd):
            what = "stream" if ext_type == EXT_STREAM else "channel"
            raise ValueError(f"the descriptor of a {what} is no connected SOCK_SEQPACKET socket")
        if ext_type == EXT_STREAM:
            return Stream(fd, ItemReader(self._decoder, self._limits.max_message_bytes))
        return Channel(ChannelEnd(fd, self._limits, self._within, self._interception))


def _can_be_closed(value: Any) -> bool:
    """Return whether closing an async iterable does anything: it is an iterator, and has begun if that can be known."""
    if inspect.isasyncgen(value):
        return value.ag_frame is not None and value.ag_frame.f_lasti >= 0
    return hasattr(type(value), "__anext__") and hasattr(value, "aclose")


async def _close(iterator: Any) -> None:
    try:
        done = iterator.aclose()
        if inspect.isawaitable(done):
            await done
    except Exception:  # it may raise anything, and may be running
        _log.exception("! closing %r failed, which nobody got", iterator)
