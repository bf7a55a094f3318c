"""What is counted cannot be made to grow by who calls."""

from __future__ import annotations

from seqrpc.interface.tallies import BUCKETS, OTHERS, UNSEEN, Tallies, count


def test_only_methods_that_exist_are_counted_by_name() -> None:
    tallies = Tallies()
    known = tallies.of("Work.add")
    assert tallies.of("Work.add") is known
    for number in range(1_000):
        tallies.refuse(f"Work.made_up_{number}", "rpc.MethodNotFound")
    tallies.refuse("Work.add", "rpc.InvalidParams")
    tallies.refuse(None, "rpc.DescriptorsLost")
    assert tallies.methods == {"Work.add": known}
    assert (known.refused, known.errors) == (1, {"rpc.InvalidParams": 1})
    assert (tallies.others.refused, tallies.others.errors["rpc.MethodNotFound"]) == (1_001, 1_000)
    assert tallies.refusals == {"rpc.MethodNotFound": 1_000, "rpc.InvalidParams": 1, "rpc.DescriptorsLost": 1}


def test_methods_beyond_a_number_are_counted_together() -> None:
    tallies = Tallies()
    for number in range(2_048):
        tallies.of(f"Made.{number}")
    assert tallies.of("Made.one_more") is tallies.others
    assert tallies.of("Made.0") is not tallies.others


def test_codes_beyond_a_number_are_counted_together_and_are_cut() -> None:
    table: dict[str, int] = {}
    for number in range(100):
        count(table, f"app.Made{number}")
        count(table, "app.Made0")
    assert len(table) == 65
    assert (table["app.Made0"], table[OTHERS]) == (101, 36)
    long: dict[str, int] = {}
    count(long, "x\n" * 10_000)
    assert max(map(len, long)) < 150
    assert "\n" not in next(iter(long))


def test_there_is_a_bucket_for_each_duration() -> None:
    tally = Tallies().of("Work.add")
    assert len(tally.latency) == BUCKETS + 1
    assert (2**63 - 1).bit_length() < BUCKETS


def test_what_nobody_looks_at_is_counted_in_one_place() -> None:
    assert UNSEEN.of("Work.add") is UNSEEN.of("Work.wait") is UNSEEN.others
    assert not UNSEEN.methods
