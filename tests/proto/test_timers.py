"""The heap of deadlines: nobody is called early or forgotten, whatever was scheduled, moved and cancelled before."""

from __future__ import annotations

import heapq
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from networkio_proto.timers import Timed, Timers

thorough = settings(derandomize=True, deadline=None, max_examples=100)


class Owner(Timed):
    """Knows its true deadline, does its work then, and notes when."""

    def __init__(self, name: int = 0, log: list[tuple[float, int]] | None = None) -> None:
        super().__init__()
        self.name = name
        self.log = [] if log is None else log
        self.due: float | None = None
        #: what it asks for when its work is done
        self.then: float | None = None
        self.calls = 0

    def on_timer(self, now: float) -> float | None:
        self.calls += 1
        if self.due is not None and now >= self.due:
            self.log.append((now, self.name))
            self.due, self.then = self.then, None
        return self.due

    def on_ack_timer(self, now: float) -> None:
        self.log.append((now, self.name))


def owners(count: int) -> tuple[list[Owner], list[tuple[float, int]]]:
    log: list[tuple[float, int]] = []
    return [Owner(number, log) for number in range(count)], log


def at(timers: Timers, owner: Owner, deadline: float) -> None:
    """The owner's deadline is now this; the heap is told as the owners of the core tell it."""
    owner.due = deadline
    timers.schedule(owner, deadline)


class TimersMachine(RuleBasedStateMachine):
    """Many owners whose deadlines come, move both ways and go, against the truth that they know themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = Timers()
        self.now = 0.0
        self.owners, self.log = owners(4)
        self.acks: list[tuple[float, int]] = []

    @rule(number=st.integers(0, 3), delay=st.integers(0, 9), then=st.none() | st.integers(0, 9))
    def schedule(self, number: int, delay: int, then: int | None) -> None:
        owner = self.owners[number]
        owner.then = None if then is None else self.now + delay + then
        at(self.timers, owner, self.now + delay)

    @rule(number=st.integers(0, 3))
    def cancel(self, number: int) -> None:
        owner = self.owners[number]
        owner.due = None
        self.timers.cancel(owner)

    @rule(number=st.integers(0, 3))
    def cancel_and_schedule_again(self, number: int) -> None:
        before = self.owners[number].due
        self.cancel(number)
        if before is not None:
            at(self.timers, self.owners[number], before)

    @rule(number=st.integers(0, 3))
    def acknowledge_later(self, number: int) -> None:
        self.acks.append((self.now + 2, number))
        self.timers.schedule_ack(self.owners[number], self.now + 2)

    @rule(passed=st.integers(0, 5))
    def run(self, passed: int) -> None:
        self.now += passed
        due = {owner.name for owner in self.owners if owner.due is not None and owner.due <= self.now}
        acks = [number for deadline, number in self.acks if deadline <= self.now]
        self.acks = [entry for entry in self.acks if entry[0] > self.now]
        before = [owner.calls for owner in self.owners]
        self.log.clear()
        self.timers.run(self.now)
        assert self.log[: len(acks)] == [(self.now, number) for number in acks]
        worked = [number for _, number in self.log[len(acks) :]]
        assert sorted(worked) == sorted(due)
        assert all(owner.calls - calls <= 1 for owner, calls in zip(self.owners, before, strict=True))

    @precondition(lambda self: self.timers.next() is not None)
    @rule()
    def run_when_next_says(self) -> None:
        following = self.timers.next()
        assert following is not None
        self.now = max(self.now, following)
        self.run(0)

    @invariant()
    def next_is_never_later_than_the_truth(self) -> None:
        following = self.timers.next()
        truth = [owner.due for owner in self.owners if owner.due is not None] + [due for due, _ in self.acks]
        assert (following is None) <= (not truth)
        assert following is None or following <= min(truth, default=inf)

    @invariant()
    def every_place_in_the_heap_is_somebodys_or_stale(self) -> None:
        for owner in self.owners:
            assert owner.timer_at <= (inf if owner.due is None else owner.due)
        assert len(self.timers) <= 64 + len(self.acks)


TimersMachine.TestCase.settings = settings(thorough, max_examples=60, stateful_step_count=20)
test_owners_are_called_when_they_are_due_and_not_before = TimersMachine.TestCase


def run_all(timers: Timers, now: float) -> int:
    """As a driver does it, until nothing is due; in how many goes."""
    runs = 0
    while (due := timers.next()) is not None and due <= now:
        timers.run(now)
        runs += 1
    return runs


def test_nothing_is_due_where_nothing_was_asked_for() -> None:
    timers = Timers()
    assert timers.next() is None
    assert len(timers) == 0
    timers.run(1e9)


@thorough
@given(st.lists(st.integers(0, 5), max_size=12))
def test_those_who_are_due_are_called_in_the_order_of_their_deadlines_then_of_scheduling(deadlines: list[int]) -> None:
    timers = Timers()
    everybody, log = owners(len(deadlines))
    for owner, deadline in zip(everybody, deadlines, strict=True):
        at(timers, owner, deadline)
    timers.run(10.0)
    assert log == [(10.0, number) for number in sorted(range(len(deadlines)), key=lambda number: deadlines[number])]


@thorough
@given(st.lists(st.integers(0, 5), max_size=6), st.lists(st.integers(0, 5), max_size=6))
def test_next_is_the_earliest_of_both_queues(deadlines: list[int], acks: list[int]) -> None:
    timers = Timers()
    for deadline in deadlines:
        at(timers, Owner(), deadline)
    for deadline in sorted(acks):
        timers.schedule_ack(Owner(), deadline)
    assert timers.next() == min(deadlines + acks, default=None)


def test_a_deadline_that_moves_later_costs_nothing_and_is_found_when_it_comes_up() -> None:
    timers, owner = Timers(), Owner()
    at(timers, owner, 1.0)
    for deadline in range(1, 1000):
        at(timers, owner, float(deadline))
    assert len(timers) == 1
    assert timers.next() == 1.0
    timers.run(1.0)
    assert owner.log == []
    assert timers.next() == 999.0
    timers.run(998.9)
    assert owner.calls == 1
    timers.run(999.0)
    assert owner.log == [(999.0, 0)]
    assert timers.next() is None


def test_a_deadline_that_moves_earlier_is_met() -> None:
    timers, owner = Timers(), Owner()
    at(timers, owner, 9.0)
    at(timers, owner, 3.0)
    assert timers.next() == 3.0
    timers.run(3.0)
    assert owner.log == [(3.0, 0)]
    assert timers.next() is None  # the stale place is gone, and nobody is called for it
    timers.run(9.0)
    assert owner.calls == 1


def test_an_owner_who_asks_for_the_present_again_is_called_once_in_a_run() -> None:
    class Eager(Owner):
        def on_timer(self, now: float) -> float:
            self.calls += 1
            return now

    timers, owner = Timers(), Eager()
    timers.schedule(owner, 1.0)
    timers.run(1.0)
    assert owner.calls == 1
    assert timers.next() == 1.0


def test_when_one_fails_the_others_have_their_turn_the_next_time() -> None:
    class Broken(Owner):
        def on_timer(self, now: float) -> float | None:
            raise LookupError("a hook of the program's own")

    log: list[tuple[float, int]] = []
    timers = Timers()
    for name, kind in enumerate([Owner, Broken, Owner, Owner]):
        owner = kind(name, log)
        owner.due = 1.0 + name
        timers.schedule(owner, owner.due)
    with pytest.raises(LookupError):
        timers.run(9.0)
    assert log == [(9.0, 0)]
    timers.run(9.5)
    assert log == [(9.0, 0), (9.5, 2), (9.5, 3)]
    assert timers.next() is None


def test_an_owner_may_schedule_and_cancel_others_while_it_is_served() -> None:
    timers = Timers()
    (first, second, third), log = owners(3)

    class Busy(Owner):
        def on_timer(self, now: float) -> None:
            timers.cancel(second)
            second.due = None
            at(timers, third, now)

    at(timers, Busy(), 1.0)
    at(timers, first, 2.0)
    at(timers, second, 2.0)
    timers.run(1.0)
    assert log == []  # what is asked for while others are served waits for the next run
    timers.run(2.0)
    assert log == [(2.0, 2), (2.0, 0)]


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_the_heap_stays_below_twice_the_number_of_owners(count: int) -> None:
    timers = Timers()
    everybody, log = owners(count)
    for deadline in range(50, 0, -1):
        for owner in everybody:
            at(timers, owner, deadline + owner.name / count)
            assert len(timers) <= max(64, 2 * count)
    run_all(timers, 51.0)
    assert log == [(51.0, number) for number in range(count)]
    assert len(timers) == 0


def test_those_who_cancel_are_not_kept_though_nobody_schedules_any_more() -> None:
    timers = Timers()
    everybody, _ = owners(1000)
    for owner in everybody:
        at(timers, owner, 1.0 + owner.name)
    for count, owner in enumerate(everybody, 1):
        timers.cancel(owner)
        assert len(timers) <= max(64, 2 * (1000 - count))


def test_those_who_were_served_do_not_count_as_owners() -> None:
    timers = Timers()
    everybody, _ = owners(1000)
    for owner in everybody:
        at(timers, owner, 1.0)
    run_all(timers, 1.0)
    for deadline in range(1000, 0, -1):
        at(timers, everybody[0], float(deadline))
        assert len(timers) <= 64


def test_when_most_were_served_the_stale_places_of_those_go_too() -> None:
    timers, owners = Timers(), [Owner(number) for number in range(90)]
    for owner in owners:
        timers.schedule(owner, 100.0)
    for owner in owners:
        timers.schedule(owner, 1.0)  # and so the place at 100 is stale
    run_all(timers, 1.0)
    assert len(timers) == 0


def test_a_heap_without_stale_places_is_not_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heapq, "heapify", lambda heap: pytest.fail("rebuilt for nothing"))
    timers = Timers()
    for owner in owners(1000)[0]:
        at(timers, owner, 1.0)


def test_those_who_cancelled_do_not_hide_who_did_not() -> None:
    timers = Timers()
    everybody, _ = owners(1000)
    for owner in everybody:
        at(timers, owner, 5.0)
    for owner in everybody[1:]:
        timers.cancel(owner)
    at(timers, everybody[0], 4.0)
    assert len(timers) <= 64
    assert timers.next() == 4.0


def test_cancelling_what_was_never_scheduled_changes_nothing() -> None:
    timers, owner = Timers(), Owner()
    timers.cancel(owner)
    timers.cancel(owner)
    at(timers, owner, 1.0)
    timers.run(1.0)
    assert owner.log == [(1.0, 0)]


def test_an_owner_has_to_say_what_it_does() -> None:
    timers, owner = Timers(), Timed()
    timers.schedule(owner, 1.0)
    with pytest.raises(NotImplementedError):
        timers.run(1.0)
    timers.schedule_ack(owner, 1.0)
    with pytest.raises(NotImplementedError):
        timers.run(1.0)


def test_a_driver_must_ask_again_only_for_what_is_due_before_it_was_told() -> None:
    timers, (one, two) = Timers(), owners(2)[0]
    assert not timers.sooner
    at(timers, one, 10.0)
    assert timers.sooner
    assert timers.next() == 10.0
    assert not timers.sooner
    at(timers, two, 11.0)
    assert not timers.sooner
    at(timers, one, 9.0)
    assert timers.sooner
    assert timers.next() == 9.0
    timers.schedule_ack(two, 9.0)
    assert not timers.sooner
    assert timers.next() == 9.0
    timers.schedule_ack(two, 9.5)
    assert not timers.sooner
    at(timers, two, 8.0)
    assert timers.sooner
    assert timers.next() == 8.0
    timers.run(20.0)
    assert timers.next() is None
    timers.schedule_ack(one, 50.0)
    assert timers.sooner


def test_of_very_many_who_are_due_some_are_left_for_the_next_time() -> None:
    """So a driver can let others have their turn, and nobody is called twice or forgotten."""
    timers, called = Timers(), list[int]()

    class Owner(Timed):
        def __init__(self, name: int) -> None:
            super().__init__()
            self.name = name

        def on_timer(self, now: float) -> float | None:
            called.append(self.name)
            return None

    owners = [Owner(name) for name in range(1000)]
    for owner in owners:
        timers.schedule(owner, 1.0)
    assert 10 <= run_all(timers, 2.0) <= 20
    assert called == list(range(1000))
