"""The receiver's mirror of an outbox against a model of it: any order of arriving, taking, settling and giving back.

The model is a list of stretches, each a message or a range that settled itself; every position and every sum is worked
out from it anew each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from networkio_proto.config import COST_PER_MESSAGE
from networkio_proto.errors import CloseCode, MessageNotHeld
from networkio_proto.events import GapRange, Positions
from networkio_proto.frames import DataFlag, PeerFault
from networkio_proto.handshake import InboxFacts
from networkio_proto.inbox import GAP_RANGES, Delivery, Details, Inbox, Reject
from networkio_proto.ranges import Ranges

OUTBOX, RUN = b"o" * 16, b"r" * 16
PLENTY = 1 << 40
WIDE = 1 << 60
RAW = DataFlag.RAW


def fault(call: Callable[[], object]) -> CloseCode:
    """The code with which the peer is answered for what this call takes in."""
    with pytest.raises(PeerFault) as raised:
        call()
    return raised.value.code


@dataclass
class Stretch:
    """One message, or a range of sequences that will not come (FIN is one of them)."""

    first: int
    last: int
    payload: bytes | None = None
    headers_size: int = 0
    attempt: int = 0
    #: "waiting", "held", "settled", "rejected" (settled, but the peer may not know)
    state: str = "waiting"
    #: what the message says of those before it
    gap: list[GapRange] = field(default_factory=list)
    #: it never waits to be taken, and is not given back
    reply: bool = False

    @property
    def cost(self) -> int:
        return 0 if self.payload is None else COST_PER_MESSAGE + self.headers_size + len(self.payload)


class InboxMachine(RuleBasedStateMachine):
    """Everything that a connection and an application may do to an inbox."""

    @initialize(first=st.sampled_from([1, 2, 1000, 2**62]))
    def begin(self, first: int) -> None:
        self.inbox = Inbox(OUTBOX, RUN, first)
        self.base = first - 1
        self.first = first
        self.stretches: list[Stretch] = []
        self.taken: dict[int, Delivery] = {}
        self.gap: list[GapRange] = []
        self.fin = 0
        self.used = 0
        self.attach(PLENTY)

    # what the model says

    @property
    def received(self) -> int:
        return self.stretches[-1].last if self.stretches else self.base

    @property
    def read(self) -> int:
        read = self.base
        for stretch in self.stretches:
            if stretch.state not in ("settled", "rejected"):
                break
            read = stretch.last
        return read

    def in_state(self, *states: str) -> list[Stretch]:
        return [stretch for stretch in self.stretches if stretch.payload is not None and stretch.state in states]

    def message(self, sequence: int) -> Stretch:
        return next(stretch for stretch in self.stretches if stretch.first == sequence)

    def add(self, stretch: Stretch) -> None:
        self.stretches.append(stretch)
        if stretch.payload is not None:
            stretch.gap, self.gap = self.gap, []

    # arriving

    @rule(credit=st.sampled_from([PLENTY, 1, 300]))
    def attach(self, credit: int) -> None:
        self.inbox.attach(credit)
        self.used = 0
        self.allowed = credit

    @precondition(lambda self: not self.fin and self.used < self.allowed)
    @rule(size=st.integers(0, 50), raw=st.booleans())
    def accept(self, size: int, raw: bool) -> None:
        stretch = Stretch(self.received + 1, self.received + 1, bytes(size))
        assert self.inbox.accept(stretch.first, bytes(size), RAW if raw else 0)
        self.used += stretch.cost
        self.add(stretch)

    @precondition(lambda self: not self.fin and self.used < self.allowed)
    @rule(size=st.integers(0, 50), headers=st.integers(0, 30))
    def accept_special(self, size: int, headers: int) -> None:
        stretch = Stretch(self.received + 1, self.received + 1, bytes(size), headers)
        self.inbox.admit(stretch.cost)
        assert self.inbox.expect(stretch.first)
        details = Details({"k": "v"}, headers, redelivered=True, origin=b"i" * 24)
        assert self.inbox.accept_special(stretch.first, bytes(size), 0, details)
        self.used += stretch.cost
        self.add(stretch)

    @precondition(lambda self: not self.fin and self.used < self.allowed)
    @rule(size=st.integers(0, 50))
    def reply(self, size: int) -> None:
        """It does not join the stream, and what waits to be told is told by the next message that does."""
        stretch = Stretch(self.received + 1, self.received + 1, bytes(size), 20, state="held", reply=True)
        self.inbox.admit(stretch.cost)
        assert self.inbox.expect(stretch.first)
        details = Details({".reply": b"n" * 16}, 20)
        assert not self.inbox.accept_special(stretch.first, bytes(size), 0, details)
        delivery = self.inbox.replies.pop()
        assert delivery[4] is details
        self.taken[stretch.first] = delivery
        self.used += stretch.cost
        self.stretches.append(stretch)

    @precondition(lambda self: self.used < self.allowed and self.received > 0)
    @rule(back=st.integers(0, 5), size=st.integers(0, 5))
    def duplicate(self, back: int, size: int) -> None:
        """It costs credit as any message does, and gives it back at once."""
        assert not self.inbox.accept(max(1, self.received - back), bytes(size), 0)
        self.used += COST_PER_MESSAGE + size

    @precondition(lambda self: self.used < self.allowed)
    @rule(ahead=st.integers(1, 3), how=st.sampled_from(["message", "skip", "fin"]))
    def hole(self, ahead: int, how: str) -> None:
        sequence = self.received + 1 + ahead
        if how == "message":
            self.used += COST_PER_MESSAGE
            assert fault(lambda: self.inbox.accept(sequence, b"", 0)) is CloseCode.PROTOCOL
        elif how == "skip":
            assert fault(lambda: self.inbox.skip(sequence, sequence + 1, 2)) is CloseCode.PROTOCOL
        else:
            assert fault(lambda: self.inbox.expect(sequence)) is CloseCode.PROTOCOL

    @precondition(lambda self: self.used >= self.allowed)
    @rule(size=st.integers(0, 5))
    def without_credit(self, size: int) -> None:
        assert fault(lambda: self.inbox.accept(self.received + 1, bytes(size), 0)) is CloseCode.FLOW

    @precondition(lambda self: not self.fin and self.received < 2**62)
    @rule(back=st.integers(0, 3), width=st.sampled_from([1, 2, 5, WIDE]), reason=st.sampled_from([1, 2, 2, 99]))
    def skip(self, back: int, width: int, reason: int) -> None:
        first = max(1, self.received + 1 - back)
        last = first + width - 1
        told = self.inbox.skip(first, last, reason)
        if last <= self.received:
            assert told is None
            return
        expected = GapRange(self.received + 1, last, reason)
        assert told == expected
        if self.gap and self.gap[-1].reason == reason:
            expected = GapRange(self.gap.pop().first, last, reason)
        self.gap.append(expected)
        self.add(Stretch(self.received + 1, last, state="settled"))

    @precondition(lambda self: not self.fin and self.stretches)
    @rule()
    def finish(self) -> None:
        self.fin = self.received + 1
        assert self.inbox.expect(self.fin)
        self.inbox.finish(self.fin)
        self.add(Stretch(self.fin, self.fin, state="settled"))

    @precondition(lambda self: self.fin)
    @rule(how=st.sampled_from(["message", "skip", "old skip", "fin again"]))
    def after_fin(self, how: str) -> None:
        if how == "old skip":
            assert self.inbox.skip(self.fin, self.fin, 2) is None
        elif how == "fin again":
            assert not self.inbox.expect(self.fin)
        elif how == "message":
            assert fault(lambda: self.inbox.expect(self.fin + 1)) is CloseCode.PROTOCOL
        else:
            assert fault(lambda: self.inbox.skip(self.fin, self.fin + 1, 2)) is CloseCode.PROTOCOL

    @rule(ahead=st.integers(-2, 6))
    def passed(self, ahead: int) -> None:
        first = max(1, min(self.first + ahead, self.received + 1))
        known = [stretch for stretch in self.in_state("rejected") if self.first <= stretch.first < first]
        assert self.inbox.passed(first) == bool(known)
        self.first = max(first, self.first)
        for stretch in known:
            stretch.state = "settled"

    # the application

    @rule()
    def take(self) -> None:
        self.judge_taken(self.inbox.take(), "held")

    @rule(limit=st.sampled_from([1, 2, 3, 1000]))
    def take_settled(self, limit: int) -> None:
        expected = min(limit, len(self.in_state("waiting")))
        taken = self.inbox.take_settled(limit)
        assert len(taken) == expected
        for delivery in taken:
            self.judge_taken(delivery, "settled")

    def judge_taken(self, delivery: Delivery | None, state: str) -> None:
        waiting = self.in_state("waiting")
        if not waiting:
            assert delivery is None
            return
        stretch = waiting[0]
        stretch.attempt += 1
        stretch.state = state
        assert delivery is not None
        inbox, sequence, payload, _, details = delivery
        assert inbox is self.inbox
        assert (sequence, payload) == (stretch.first, stretch.payload)
        assert (details.attempt if details else 1) == stretch.attempt
        assert (details.gap if details else ()) == tuple(stretch.gap)
        assert (details.headers_size if details else 0) == stretch.headers_size
        if stretch.headers_size:
            assert details is not None
            assert (details.headers, details.redelivered, details.origin) == ({"k": "v"}, True, b"i" * 24)
        if state == "held":
            self.taken[sequence] = delivery

    @precondition(lambda self: self.in_state("held"))
    @rule(data=st.data(), how=st.sampled_from(["settle", "settle", "release", "reject"]))
    def end(self, data: st.DataObject, how: str) -> None:
        stretch = data.draw(st.sampled_from(self.in_state("held")), label="held")
        if how == "settle":
            self.inbox.settle(stretch.first)
            stretch.state = "settled"
        elif how == "release" and not stretch.reply:
            self.inbox.release(stretch.first)
            stretch.state = "waiting"
        else:
            told = self.inbox.reject(stretch.first, 7, "bad")
            if stretch.first < self.first:
                assert told is None
                stretch.state = "settled"
            else:
                assert told == Reject(stretch.first, 7, "bad", stretch.cost)
                stretch.state = "rejected"

    @rule(data=st.data(), how=st.sampled_from(["settle", "release", "reject"]))
    def end_what_is_not_held(self, data: st.DataObject, how: str) -> None:
        loose = [stretch.first for stretch in self.stretches if stretch.state != "held"]
        sequence = data.draw(st.sampled_from([*loose, 0, self.received + 1]), label="not held")
        arguments = (sequence, 1, "") if how == "reject" else (sequence,)
        with pytest.raises(MessageNotHeld, match=f"message {sequence} is not held"):
            getattr(self.inbox, how)(*arguments)

    # always

    @invariant()
    def positions_agree(self) -> None:
        inbox, rejected = self.inbox, [stretch.first for stretch in self.in_state("rejected")]
        assert (inbox.received, inbox.read, inbox.first) == (self.received, self.read, self.first)
        told = min([self.read, *(sequence - 1 for sequence in rejected)])
        assert inbox.facts() == InboxFacts(OUTBOX, RUN, self.received, told, self.first)
        assert inbox.empty == (not self.stretches)
        assert inbox.idle == (self.read == self.received and not rejected)
        assert inbox.finished == (self.fin > 0 and self.read == self.received and not rejected)
        assert sorted(inbox.rejects) == rejected

    @invariant()
    def sums_agree(self) -> None:
        inbox = self.inbox
        assert inbox.unread == len(self.in_state("waiting"))
        assert sorted(inbox.held) == [stretch.first for stretch in self.in_state("held")]
        assert inbox.unsettled == sum(s.cost for s in self.in_state("waiting", "held", "rejected"))
        assert (inbox.used, inbox.allowed) == (self.used, self.allowed)

    @invariant()
    def what_is_settled_leaves_nothing_behind(self) -> None:
        """A range of any width is one tuple, and goes when the prefix has reached it."""
        ahead = [stretch for stretch in self.stretches if stretch.last > self.read]
        assert len(self.inbox.ahead) <= len(ahead)


@pytest.mark.slow
def test_an_inbox_agrees_with_its_model_whatever_arrives_and_is_done() -> None:
    run_state_machine_as_test(
        InboxMachine,
        settings=settings(max_examples=120, stateful_step_count=40, deadline=None, derandomize=True, database=None),
    )


# -- single promises ---------------------------------------------------------------------------------------------------


def an_inbox(first: int = 1) -> Inbox:
    inbox = Inbox(OUTBOX, RUN, first)
    inbox.attach(PLENTY)
    return inbox


def with_messages(count: int) -> Inbox:
    inbox = an_inbox()
    for sequence in range(1, count + 1):
        assert inbox.accept(sequence, b"x", RAW)
    return inbox


def order(inbox: Inbox) -> list[tuple[int, int]]:
    """Take everything: (sequence, attempt) of each."""
    found = []
    while (delivery := inbox.take()) is not None:
        found.append((delivery[1], delivery[4].attempt if delivery[4] else 1))
    return found


def test_a_plain_message_is_one_light_tuple() -> None:
    inbox = with_messages(1)
    assert inbox.take() == (inbox, 1, b"x", RAW, None)


def test_released_messages_come_again_in_their_old_order_before_all_others() -> None:
    inbox = with_messages(5)
    for _ in range(3):
        inbox.take()
    for sequence in (3, 1, 2):
        inbox.release(sequence)
    assert order(inbox) == [(1, 2), (2, 2), (3, 2), (4, 1), (5, 1)]


def test_a_message_that_is_released_keeps_what_it_had_to_say() -> None:
    inbox = an_inbox()
    inbox.skip(1, 3, 2)
    inbox.restarted = Positions(b"p" * 16, 9, 8)
    inbox.accept_special(4, b"x", 0, Details({"k": "v"}, 5, redelivered=True))
    for attempt in (1, 2, 3):
        delivery = inbox.take()
        assert delivery is not None
        assert delivery[4] == Details(
            {"k": "v"}, 5, True, attempt, (GapRange(1, 3, 2),), Positions(b"p" * 16, 9, 8)
        )
        inbox.release(4)


def test_what_is_said_of_those_before_a_reply_is_said_by_the_next_message_of_the_stream() -> None:
    inbox = an_inbox()
    inbox.skip(1, 1, 3)
    inbox.restarted = Positions(b"p" * 16, 9, 8)
    assert not inbox.accept_special(2, b"x", 0, Details({".reply": b"n" * 16}, 26))
    assert inbox.replies == [inbox.held[2]]
    assert inbox.held[2][4] == Details({".reply": b"n" * 16}, 26)
    assert (inbox.unread, inbox.telling) == (0, True)
    assert inbox.accept(3, b"y", 0)
    message = inbox.take()
    assert message is not None
    assert message[4] == Details(gap=(GapRange(1, 1, 3),), peer_restarted=Positions(b"p" * 16, 9, 8))
    inbox.settle(3)
    assert inbox.read == 1
    inbox.settle(2)
    assert (inbox.read, inbox.unsettled) == (3, 0)


def test_what_is_said_of_those_before_a_message_is_said_once() -> None:
    inbox = an_inbox()
    inbox.skip(1, 1, 3)
    inbox.restarted = Positions(b"p" * 16, 9, 8)
    assert inbox.accept(2, b"x", 0)
    assert inbox.accept(3, b"y", 0)
    one, two = inbox.take(), inbox.take()
    assert one is not None
    assert two is not None
    assert one[4] == Details(gap=(GapRange(1, 1, 3),), peer_restarted=Positions(b"p" * 16, 9, 8))
    assert two[4] is None


def test_read_moves_over_what_was_settled_ahead_of_it_and_over_ranges() -> None:
    inbox = an_inbox()
    inbox.accept(1, b"", 0)
    inbox.accept(2, b"", 0)
    inbox.skip(3, WIDE, 2)
    inbox.skip(WIDE + 1, WIDE + 5, 3)
    inbox.accept(WIDE + 6, b"", 0)
    inbox.finish(WIDE + 7)
    order(inbox)
    reads = []
    for sequence in (WIDE + 6, 2, 1):
        inbox.settle(sequence)
        reads.append(inbox.read)
    assert reads == [0, 0, WIDE + 7]
    assert inbox.finished
    assert not inbox.ahead.firsts


def after_a_crash(read: int, *settled: tuple[int, int]) -> Inbox:
    """Up to ``read`` everything is settled, and beyond it these ranges: by an earlier process."""
    inbox = Inbox.restored(InboxFacts(OUTBOX, RUN, read, read, 1))
    inbox.ahead, inbox.known = Ranges(settled), settled[-1][1]
    inbox.attach(PLENTY)
    return inbox


def test_what_an_earlier_process_settled_out_of_turn_is_not_handed_over_again() -> None:
    inbox = after_a_crash(1, (3, 3), (5, 6))
    assert (inbox.facts().seen, inbox.idle, inbox.empty) == (6, False, False)
    came = [inbox.accept(sequence, b"x", 0) for sequence in (2, 3, 4)]
    came += [inbox.accept_special(5, b"x", 0, Details(headers={".reply": b"n" * 16})), inbox.accept(6, b"x", 0)]
    assert came == [True, False, True, False, False]
    assert (inbox.replies, inbox.unsettled, inbox.facts().seen) == ([], 2 * 65, 0)
    assert order(inbox) == [(2, 1), (4, 1)]
    inbox.settle(2)
    assert inbox.read == 3
    inbox.settle(4)
    assert (inbox.read, inbox.idle) == (6, True)


def test_read_does_not_pass_what_has_not_come_again() -> None:
    inbox = after_a_crash(0, (2, 4))
    inbox.accept(1, b"x", 0)
    order(inbox)
    inbox.settle(1)
    assert (inbox.received, inbox.read, inbox.facts().seen) == (1, 1, 4)
    reads = [(inbox.accept(sequence, b"x", 0), inbox.read) for sequence in (2, 3, 4, 5)]
    assert reads == [(False, 2), (False, 3), (False, 4), (True, 4)]


def test_a_skip_over_what_an_earlier_process_settled_leaves_nothing_of_it_behind() -> None:
    inbox = after_a_crash(1, (3, 3), (5, 9))
    inbox.skip(2, 6, 1)
    assert (inbox.received, inbox.read, list(inbox.ahead)) == (6, 6, [(7, 9)])
    inbox.finish(7)
    assert (inbox.received, inbox.read, inbox.finished) == (7, 7, True)


def test_what_is_settled_in_turn_needs_no_record_of_what_is_ahead() -> None:
    inbox = with_messages(3)
    order(inbox)
    inbox.settle(1)
    assert not inbox.unwritten
    inbox.settle(3)
    assert inbox.unwritten


def test_neighbouring_ranges_wait_as_one() -> None:
    inbox = with_messages(1)
    for sequence in range(2, 1000):
        inbox.skip(sequence, sequence, 2 + sequence % 2)
    assert len(inbox.ahead) == 1


def test_neighbouring_gaps_of_one_reason_are_told_as_one() -> None:
    inbox = an_inbox()
    for first, last, reason in ((1, 1, 2), (2, 5, 2), (6, 6, 3), (7, 7, 2)):
        assert inbox.skip(first, last, reason) == GapRange(first, last, reason)
    inbox.accept(8, b"", 0)
    delivery = inbox.take()
    assert delivery is not None
    assert delivery[4] == Details(gap=(GapRange(1, 5, 2), GapRange(6, 6, 3), GapRange(7, 7, 2)))


def test_gaps_beyond_a_bound_melt_into_the_last() -> None:
    inbox = an_inbox()
    for sequence in range(1, 1001):
        inbox.skip(sequence, sequence, 2 + sequence % 2)
    inbox.accept(1001, b"", 0)
    delivery = inbox.take()
    assert delivery is not None
    assert delivery[4] is not None
    gap = delivery[4].gap
    assert len(gap) == GAP_RANGES
    assert gap[0] == GapRange(1, 1, 3)
    assert (gap[-1].first, gap[-1].last) == (GAP_RANGES, 1000)


@pytest.mark.parametrize(("first", "last"), [(2, 1), (5, 4)])
def test_an_impossible_skip_is_a_fault(first: int, last: int) -> None:
    inbox = an_inbox()
    assert fault(lambda: inbox.skip(first, last, 2)) is CloseCode.PROTOCOL
    assert inbox.empty


@pytest.mark.parametrize("first", [1, 5, 2**62])
def test_an_inbox_that_holds_nothing_takes_its_base_anew(first: int) -> None:
    inbox = an_inbox(3)
    assert inbox.empty
    inbox.rebase(first, b"s" * 16)
    assert inbox.facts() == InboxFacts(OUTBOX, b"s" * 16, first - 1, first - 1, first)
    assert inbox.empty
    assert inbox.accept(first, b"", 0)
    assert not inbox.empty


def test_one_message_may_pass_the_credit_and_no_more() -> None:
    inbox = an_inbox()
    inbox.attach(65)
    assert inbox.accept(1, b"", 0)
    assert inbox.accept(2, bytes(1000), 0)
    assert fault(lambda: inbox.accept(3, b"", 0)) is CloseCode.FLOW
    assert (inbox.received, inbox.used) == (2, 64 + 1064)


def test_there_is_no_sequence_zero() -> None:
    inbox = with_messages(3)
    assert fault(lambda: inbox.accept(0, b"", 0)) is CloseCode.PROTOCOL
    assert fault(lambda: inbox.expect(0)) is CloseCode.PROTOCOL
    assert inbox.unread == 3


def test_a_rejection_is_kept_with_its_cost_until_first_has_passed_it() -> None:
    inbox = with_messages(3)
    order(inbox)
    assert inbox.reject(2, 5, "bad") == Reject(2, 5, "bad", 65)
    inbox.settle(1)
    inbox.settle(3)
    assert (inbox.read, inbox.told_read, inbox.unsettled) == (3, 1, 65)
    assert not inbox.idle
    assert not inbox.passed(2)
    assert inbox.unsettled == 65
    assert inbox.passed(3)
    assert (inbox.read, inbox.told_read, inbox.unsettled) == (3, 3, 0)
    assert inbox.idle


def test_a_rejection_below_first_is_settled_at_once() -> None:
    inbox = with_messages(2)
    order(inbox)
    inbox.passed(2)
    assert inbox.reject(1, 5, "bad") is None
    assert (inbox.read, inbox.told_read, inbox.unsettled) == (1, 1, 65)


def test_rejections_of_a_forsaken_inbox_hold_no_credit() -> None:
    inbox = with_messages(4)
    order(inbox)
    inbox.reject(1, 5, "before")
    assert inbox.unsettled == 4 * 65
    inbox.forsake()
    assert inbox.unsettled == 3 * 65
    inbox.reject(2, 5, "after")
    assert inbox.unsettled == 2 * 65
    inbox.settle(3)
    inbox.settle(4)
    assert inbox.unsettled == 0
    inbox.passed(5)
    assert inbox.unsettled == 0


def test_a_connection_begins_with_nothing_used_and_no_message_under_way() -> None:
    inbox = with_messages(2)
    inbox.partial = 100
    inbox.attach(500)
    assert (inbox.used, inbox.allowed, inbox.partial, inbox.unsettled) == (0, 500, 0, 130)


def test_a_message_of_fragments_is_no_longer_under_way_when_it_is_complete() -> None:
    inbox = an_inbox()
    inbox.partial = 64 + 100
    inbox.accept_special(1, bytes(100), 0, Details())
    assert (inbox.partial, inbox.unsettled) == (0, 164)


def test_nothing_of_an_outbox_that_was_told_as_ended_is_taken() -> None:
    inbox = an_inbox()
    inbox.barred = True
    assert fault(lambda: inbox.expect(1)) is CloseCode.PROTOCOL
    assert fault(lambda: inbox.skip(1, 5, 2)) is CloseCode.PROTOCOL
    assert inbox.empty


def test_an_inbox_that_shrank_to_its_positions_goes_on_from_them() -> None:
    inbox = with_messages(3)
    while inbox.take_settled(1):
        pass
    inbox.passed(3)
    again = Inbox.restored(inbox.facts())
    assert again.facts() == inbox.facts()
    assert not again.empty
    assert again.idle
    again.attach(PLENTY)
    assert not again.accept(3, b"x", 0)
    assert again.accept(4, b"y", 0)
    assert again.take_settled(1)
    assert again.read == 4
