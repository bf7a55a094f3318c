"""Moments: aware datetimes are MessagePack's timestamps, naive ones are texts."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgpack

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST_DAY: Final = (dt.datetime.min.replace(tzinfo=dt.UTC) - _EPOCH).days
_END_DAY: Final = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH).days + 1


def moment(value: dt.datetime) -> Any:
    """Return what msgpack knows in place of a datetime.

    Raises:
        ValueError: in UTC it is out of the range of datetimes.
    """
    if value.tzinfo is None:
        return value.isoformat()  # not a moment, so not a timestamp
    since = value - _EPOCH
    if not _FIRST_DAY <= since.days < _END_DAY:  # and so datetime cannot hold it at the receiver
        raise ValueError("a moment is before the year 1 or after 9999, in UTC")
    return msgpack.Timestamp(since.days * 86_400 + since.seconds, since.microseconds * 1000)
