"""Ranges of sequences, against a plain set of them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from networkio_proto.ranges import Ranges

SEQUENCES = st.integers(1, 30)
RANGES = st.tuples(SEQUENCES, st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(RANGES), st.integers(0, 40), st.integers(0, 40))
def test_ranges_are_the_set_of_what_was_added_and_do_not_touch_each_other(
    added: list[tuple[int, int]], position: int, limit: int
) -> None:
    ranges, expected = Ranges(added), {number for first, last in added for number in range(first, last + 1)}
    assert {number for first, last in ranges for number in range(first, last + 1)} == expected
    assert [number for number in range(50) if number in ranges] == sorted(expected)
    found = list(ranges)
    assert len(ranges) == len(found)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))
    assert bool(ranges.firsts) == bool(expected)


@given(st.lists(RANGES), st.integers(0, 40), st.integers(0, 40))
def test_a_position_goes_on_over_what_joins_it_and_no_further_than_its_limit(
    added: list[tuple[int, int]], position: int, limit: int
) -> None:
    ahead = [(max(first, position + 1), last) for first, last in added if last > position]
    ranges, left = Ranges(ahead), {number for first, last in ahead for number in range(first, last + 1)}
    expected = position
    while expected + 1 in left and expected < limit:
        expected += 1
        left.discard(expected)
    assert ranges.pass_over(position, limit) == expected
    assert {number for first, last in ranges for number in range(first, last + 1)} == left


def test_a_range_of_any_width_is_one() -> None:
    ranges = Ranges([(1, 2**60), (2**61, 2**62)])
    ranges.add(2**60 + 1, 2**61 - 1)
    assert list(ranges) == [(1, 2**62)]
