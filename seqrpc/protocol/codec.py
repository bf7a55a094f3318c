"""What encodes and what decodes, for those who do both."""

from __future__ import annotations

from collections.abc import Callable

from seqrpc.limits import DEFAULT_LIMITS, Limits
from seqrpc.protocol.decoder import Decoder
from seqrpc.protocol.encoder import Encoder
from seqrpc.protocol.values import Handles, Living


class Codec:
    """An encoder and a decoder with the same limits.

    Args:
        limits: those of what is in a message are used.
        living: what streams and channels are here.
    """

    __slots__ = (
        "array_header", "decode", "decode_long", "decode_plain", "decode_unwanted", "decoder", "encode", "encode_run",
        "encoder", "give_up",
    )  # fmt: skip

    def __init__(self, limits: Limits = DEFAULT_LIMITS, living: Living | None = None) -> None:
        """Make both."""
        living = Handles() if living is None else living
        self.encoder = encoder = Encoder(limits, living)
        self.decoder = decoder = Decoder(limits, living)
        self.encode, self.encode_run, self.array_header = encoder.encode, encoder.encode_run, encoder.array_header
        self.give_up = encoder.give_up
        self.decode, self.decode_long = decoder.decode, decoder.decode_long
        self.decode_plain, self.decode_unwanted = decoder.decode_plain, decoder.decode_unwanted

    @property
    def on_work(self) -> Callable[[], object]:
        """See :class:`~seqrpc.protocol.references.References`."""
        return self.decoder.references.on_work

    @on_work.setter
    def on_work(self, function: Callable[[], object]) -> None:
        self.decoder.references.on_work = function

    @property
    def lack_of_room(self) -> Callable[[int], str | None]:
        """See :class:`~seqrpc.protocol.references.References`."""
        return self.decoder.references.lack_of_room

    @lack_of_room.setter
    def lack_of_room(self, function: Callable[[int], str | None]) -> None:
        self.decoder.references.lack_of_room = function

    @property
    def copied_bytes(self) -> int:
        """See :class:`~seqrpc.protocol.references.References`."""
        return self.decoder.references.copied_bytes
