"""How messages ended: the log of failures against a dict of every sequence, and the counters."""

from __future__ import annotations

from dataclasses import astuple, fields
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from networkio_proto.errors import (
    DeliveryFailure,
    MessageAbandoned,
    MessageCancelled,
    MessageExpired,
    MessageLost,
    MessageRejected,
    Outcome,
    OutcomeForgotten,
)
from networkio_proto.ledger import FAILURE_RANGES, Failure, FailureLog, Ledger

thorough = settings(derandomize=True, deadline=None, max_examples=100)

FAILED = [outcome for outcome in Outcome if outcome is not Outcome.READ]

#: an end: outcome, reason, seen, code
End = tuple[Outcome, str, str, int]

TTL: End = (Outcome.EXPIRED, "ttl", "no", 0)

ends = st.sampled_from(
    [
        TTL,
        (Outcome.EXPIRED, "ttl", "unknown", 0),
        (Outcome.EXPIRED, "session", "no", 0),
        (Outcome.REJECTED, "ttl", "no", 0),
        (Outcome.REJECTED, "ttl", "no", 1),
    ]
)
Plan = list[tuple[int, int, End]]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Disjoint ranges in any order: (first, last, end)."""
    plan, position = [], 1
    for gap, size, end in draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), ends), max_size=12)):
        plan.append((position + gap, position + gap + size - 1, end))
        position += gap + size
    return draw(st.permutations(plan))


def failure(first: int, last: int, end: End) -> Failure:
    outcome, reason, seen, code = end
    return Failure(first, last, outcome, reason, seen, code)


def end_of(found: Failure) -> End:
    return found.outcome, found.reason, found.seen, found.code


def check_order(log: FailureLog) -> None:
    ranges = log.ranges()
    assert len(log) == len(ranges)
    assert all(found.first <= found.last for found in ranges)
    assert all(left.last < right.first for left, right in pairwise(ranges))
    for found in ranges:
        for sequence in (found.first, found.last):
            assert log.find(sequence) is found


@thorough
@given(plans())
@example([(1, 1, TTL), (3, 3, TTL), (2, 2, TTL)])
def test_within_its_bound_the_log_knows_what_a_dict_of_every_sequence_knows(plan: Plan) -> None:
    log = FailureLog()
    model: dict[int, End] = {}
    for first, last, end in plan:
        log.add(failure(first, last, end))
        model.update(dict.fromkeys(range(first, last + 1), end))
        check_order(log)
        for sequence in range(60):
            found = log.find(sequence)
            assert (None if found is None else end_of(found)) == model.get(sequence)
            assert found is None or found.exact


ranges = st.builds(
    lambda first, size, end: (first, first + size, end), st.integers(1, 30), st.integers(0, 12), ends
)


@thorough
@given(st.lists(ranges, max_size=10))
@example([(3, 3, TTL), (6, 6, TTL), (1, 9, (Outcome.REJECTED, "no", "yes", 1)), (5, 7, TTL)])
def test_what_is_known_of_a_message_is_not_learned_anew(plan: Plan) -> None:
    log = FailureLog()
    model: dict[int, End] = {}
    for first, last, end in plan:
        log.learn(failure(first, last, end))
        model = dict.fromkeys(range(first, last + 1), end) | model
        check_order(log)
        for sequence in range(50):
            found = log.find(sequence)
            assert (None if found is None else end_of(found)) == model.get(sequence)


@thorough
@given(plans())
def test_neighbours_with_the_same_end_are_one_range(plan: Plan) -> None:
    log = FailureLog()
    for first, last, end in plan:
        log.add(failure(first, last, end))
    for left, right in pairwise(log.ranges()):
        assert left.last + 1 < right.first or end_of(left) != end_of(right)


@thorough
@given(plans(), st.integers(1, 5))
@example([(1, 1, TTL), (9, 9, TTL), (4, 4, TTL)], 1)
def test_past_its_bound_the_log_forgets_ends_and_no_failure(plan: Plan, limit: int) -> None:
    log = FailureLog(limit)
    model: dict[int, End] = {}
    for first, last, end in plan:
        log.add(failure(first, last, end))
        model.update(dict.fromkeys(range(first, last + 1), end))
        check_order(log)
        assert len(log) <= limit
        for sequence, true in model.items():
            found = log.find(sequence)
            assert found is not None, f"{sequence} failed, and would pass for read"
            if found.exact:
                assert end_of(found) == true
            else:
                assert end_of(found) == (Outcome.LOST, "several ends", "unknown", 0)
        for sequence in set(range(60)) - set(model):
            found = log.find(sequence)
            assert found is None or not found.exact


def test_the_oldest_melt_first_and_the_newest_stay_exact() -> None:
    log = FailureLog(3)
    for first in range(1, 20, 2):
        log.add(failure(first, first, (Outcome.REJECTED, f"number {first}", "yes", first)))
    assert [(found.first, found.last, found.exact) for found in log.ranges()] == [
        (1, 15, False),
        (17, 17, True),
        (19, 19, True),
    ]


def test_a_failure_inside_of_a_melted_range_melts_with_it() -> None:
    log = FailureLog(2)
    for first in (1, 10, 20):
        log.add(failure(first, first, TTL))
    log.add(failure(5, 6, (Outcome.REJECTED, "bad", "yes", 1)))
    assert [(found.first, found.last, found.exact) for found in log.ranges()] == [(1, 10, False), (20, 20, True)]
    for sequence in (5, 7, 10):
        assert log.find(sequence) == log.ranges()[0]


@pytest.mark.parametrize("neighbour", [4, 11])
def test_a_melted_range_never_becomes_exact_through_a_neighbour_that_looks_like_it(neighbour: int) -> None:
    log = FailureLog(2)
    for first in (5, 10, 20):
        log.add(failure(first, first, (Outcome.REJECTED, "", "yes", first)))
    melted = log.ranges()[0]
    assert (melted.first, melted.last, melted.exact) == (5, 10, False)
    log.add(failure(neighbour, neighbour, end_of(melted)))
    found = log.find(7)
    assert found is not None
    assert not found.exact


def test_a_million_neighbours_are_one_range() -> None:
    log = FailureLog()
    for first in range(1, 1_000_001, 1000):
        log.add(failure(first, first + 999, TTL))
    assert len(log) == 1
    assert log.find(1_000_000) == Failure(1, 1_000_000, Outcome.EXPIRED, "ttl", "no")
    assert log.find(1_000_001) is None
    assert log.find(0) is None


def test_the_bound_is_1024_ranges() -> None:
    assert FAILURE_RANGES == 1024
    log = FailureLog()
    for first in range(2, 2 * 1025, 2):
        log.add(failure(first, first, TTL))
    assert len(log) == 1024
    assert all(found.exact for found in log.ranges())
    log.add(failure(5000, 5000, TTL))
    assert len(log) == 1024
    assert [found.exact for found in log.ranges()].count(False) == 1


def test_nothing_is_found_where_nothing_failed() -> None:
    assert FailureLog().find(1) is None
    assert FailureLog().ranges() == []


def test_ranges_are_a_copy() -> None:
    log = FailureLog()
    log.ranges().append(failure(1, 1, TTL))
    assert log.find(1) is None


# -- as exceptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome.REJECTED, MessageRejected),
        (Outcome.EXPIRED, MessageExpired),
        (Outcome.CANCELLED, MessageCancelled),
        (Outcome.LOST, MessageLost),
        (Outcome.ABANDONED, MessageAbandoned),
    ],
)
def test_a_range_makes_the_exception_for_each_of_its_messages(outcome: Outcome, kind: type[DeliveryFailure]) -> None:
    error = Failure(3, 9, outcome, "because", "no", 7).error(5)
    assert type(error) is kind
    assert (error.sequence, error.reason, error.seen, error.code) == (5, "because", "no", 7)


def test_of_a_melted_range_it_says_that_the_end_was_forgotten() -> None:
    error = Failure(3, 9, Outcome.LOST, "several ends", "unknown", exact=False).error(5)
    assert type(error) is OutcomeForgotten
    assert (error.sequence, error.seen) == (5, "unknown")
    assert "may have been read" in error.reason


# -- the counters -----------------------------------------------------------------------------------------------------

counts = st.dictionaries(st.sampled_from(list(Outcome)), st.integers(0, 9))


def ledger(accepted: int, outcomes: dict[Outcome, int]) -> Ledger:
    made = Ledger(accepted=accepted)
    for outcome, messages in outcomes.items():
        made.count(outcome, messages)
    return made


@thorough
@given(st.integers(0, 99), counts)
def test_every_accepted_message_is_unread_or_read_or_failed(accepted: int, outcomes: dict[Outcome, int]) -> None:
    made = ledger(accepted, outcomes)
    assert made.unread + made.read + made.failed == made.accepted == accepted
    assert made.read == outcomes.get(Outcome.READ, 0)
    assert made.failed == sum(outcomes.get(outcome, 0) for outcome in FAILED)
    for outcome in Outcome:
        assert getattr(made, outcome.value) == outcomes.get(outcome, 0)


def test_one_message_is_counted_where_no_number_is_told() -> None:
    made = Ledger(accepted=2)
    made.count(Outcome.LOST)
    made.count(Outcome.LOST)
    assert (made.lost, made.unread) == (2, 0)


@thorough
@given(st.integers(0, 9), counts, st.integers(0, 9), counts)
def test_the_sum_of_two_ledgers_counts_both(
    accepted: int, outcomes: dict[Outcome, int], more: int, others: dict[Outcome, int]
) -> None:
    left, right = ledger(accepted, outcomes), ledger(more, others)
    total = left + right
    assert astuple(total) == tuple(a + b for a, b in zip(astuple(left), astuple(right), strict=True))
    assert left == ledger(accepted, outcomes)  # and changes neither


def test_a_copy_does_not_follow() -> None:
    made = Ledger(accepted=3)
    copy = made.copy()
    made.count(Outcome.READ)
    assert (copy.read, made.read) == (0, 1)
    assert [item.name for item in fields(Ledger)] == ["accepted", *(outcome.value for outcome in Outcome)]


def test_what_is_on_record_of_some_sequences_is_cut_to_them() -> None:
    log = FailureLog()
    assert log.within(1, 9) == ()
    for first, last, outcome in ((2, 4, Outcome.EXPIRED), (6, 6, Outcome.CANCELLED), (8, 9, Outcome.EXPIRED)):
        log.add(Failure(first, last, outcome, "", "no"))
    for first, last in ((1, 1), (1, 2), (3, 3), (3, 8), (5, 5), (6, 20), (10, 20)):
        found = [number for each in log.within(first, last) for number in range(each.first, each.last + 1)]
        assert found == [number for number in (2, 3, 4, 6, 8, 9) if first <= number <= last]
