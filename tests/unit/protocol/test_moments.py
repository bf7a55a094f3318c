"""Moments, and naive datetimes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgpack
import pytest

from seqrpc.protocol.moments import moment


def test_aware_datetimes_are_timestamps_and_naive_ones_texts() -> None:
    aware = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    assert moment(aware) == msgpack.Timestamp(int(aware.timestamp()), 678_000)
    assert moment(aware.astimezone(timezone(timedelta(hours=5)))) == moment(aware)
    assert moment(datetime(1969, 12, 31, tzinfo=UTC)) == msgpack.Timestamp(-86_400, 0)
    assert moment(aware.replace(tzinfo=None)) == "2026-01-02T03:04:05.000678"


@pytest.mark.parametrize(
    "out",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
    ],
)
def test_a_moment_that_is_no_datetime_in_utc_is_not_sent(out: datetime) -> None:
    with pytest.raises(ValueError, match="a moment is before the year 1 or after 9999, in UTC"):
        moment(out)
