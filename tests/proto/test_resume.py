"""The resume verdict: the table of the specification case by case, in its order, and over all small facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto.handshake import Ended, InboxFacts, Why
from networkio_proto.resume import OutboxFacts, Verdict, judge

thorough = settings(derandomize=True, deadline=None, max_examples=100)

L, K, LEFT, ALIEN = (bytes([number]) * 16 for number in range(1, 5))
PRESENT, EARLIER, NEVER = (bytes([number]) * 16 for number in range(11, 14))

#: our outbox L retains 5 to 9; the run before this one ended at 7
MINE = OutboxFacts(L, {EARLIER: 7, PRESENT: 9}, first=5)
#: the same, loaded from a journal that has known one other outbox for the peer
STORED = OutboxFacts(L, {EARLIER: 7, PRESENT: 9}, first=5, history=(LEFT, L))


def echo(outbox_id: bytes = L, run: bytes = PRESENT, received: int = 6, first: int = 5) -> InboxFacts:
    return InboxFacts(outbox_id, run, received, min(received, 5), first)


def end(outbox_id: bytes = L, run: bytes = PRESENT, received: int = 6, first: int = 5, why: int = Why.EXPIRED) -> Ended:
    return Ended(outbox_id, run, received, min(received, 5), first, why)


Row = tuple[str, OutboxFacts, InboxFacts | None, Sequence[Ended], Verdict]

TABLE: list[Row] = [
    # U: before everything else
    ("U an inbox that the journal does not know", STORED, echo(K), [], Verdict.ROLLED_BACK),
    ("U an end that the journal does not know", STORED, None, [end(K)], Verdict.ROLLED_BACK),
    ("U among ends that it knows", STORED, echo(), [end(LEFT), end(K)], Verdict.ROLLED_BACK),
    ("U before G", STORED, None, [end(), end(K)], Verdict.ROLLED_BACK),
    ("U before G, named by the inbox", STORED, echo(K), [end()], Verdict.ROLLED_BACK),
    ("U before E", STORED, echo(ALIEN), [], Verdict.ROLLED_BACK),
    ("U before B", STORED, echo(), [end(K)], Verdict.ROLLED_BACK),
    ("U is for journals only", MINE, echo(K), [end(ALIEN)], Verdict.NEW_OUTBOX),
    # G
    ("G ended", MINE, None, [end()], Verdict.ENDED),
    ("G ended, told by a journal's peer", STORED, echo(LEFT), [end(LEFT), end()], Verdict.ENDED),
    ("G under an earlier run", MINE, None, [end(run=EARLIER, received=7)], Verdict.ENDED),
    ("G at the last of its run", MINE, None, [end(received=9)], Verdict.ENDED),
    ("G when nothing was received", MINE, None, [end(received=0)], Verdict.ENDED),
    ("G whatever the reason", MINE, None, [end(why=200)], Verdict.ENDED),
    ("G before A", MINE, None, [end(K), end()], Verdict.ENDED),
    ("G before E", MINE, echo(K), [end()], Verdict.ENDED),
    ("G before C", MINE, echo(run=NEVER), [end()], Verdict.ENDED),
    ("G before D", MINE, echo(received=1), [end()], Verdict.ENDED),
    ("G before B", MINE, echo(), [end()], Verdict.ENDED),
    ("G as C: an unknown run", MINE, None, [end(run=NEVER)], Verdict.ROLLED_BACK),
    ("G as C: more than that run had", MINE, None, [end(run=EARLIER, received=8)], Verdict.ROLLED_BACK),
    ("G as C: more than there is", MINE, None, [end(received=10)], Verdict.ROLLED_BACK),
    ("G as C: a first that was never stated", MINE, None, [end(first=6)], Verdict.ROLLED_BACK),
    ("G as C, though the inbox is in order", MINE, echo(), [end(received=10)], Verdict.ROLLED_BACK),
    # A
    ("A nothing is held", MINE, None, [], Verdict.FORGOT),
    ("A beside ends of other outboxes", MINE, None, [end(K), end(LEFT)], Verdict.FORGOT),
    ("A of a journal that was left before", STORED, None, [end(LEFT)], Verdict.FORGOT),
    # E
    ("E another outbox is held", MINE, echo(K), [], Verdict.NEW_OUTBOX),
    ("E of a journal that was left before", STORED, echo(LEFT), [], Verdict.NEW_OUTBOX),
    ("E before C", MINE, echo(K, run=NEVER, received=99, first=99), [], Verdict.NEW_OUTBOX),
    ("E before D", MINE, echo(K, received=1), [], Verdict.NEW_OUTBOX),
    # C
    ("C an unknown run", MINE, echo(run=NEVER), [], Verdict.ROLLED_BACK),
    ("C more than that run had", MINE, echo(run=EARLIER, received=8), [], Verdict.ROLLED_BACK),
    ("C more than there is", MINE, echo(received=10), [], Verdict.ROLLED_BACK),
    ("C a first that was never stated", MINE, echo(first=6), [], Verdict.ROLLED_BACK),
    ("C before D", MINE, echo(run=NEVER, received=1), [], Verdict.ROLLED_BACK),
    # D
    ("D a hole of one", MINE, echo(received=3), [], Verdict.HOLE),
    ("D a hole of everything before first", MINE, echo(received=0, first=1), [], Verdict.HOLE),
    ("D under an earlier run", MINE, echo(run=EARLIER, received=3), [], Verdict.HOLE),
    # B
    ("B with nothing retained received", MINE, echo(received=4), [], Verdict.NORMAL),
    ("B in the midst", MINE, echo(received=6), [], Verdict.NORMAL),
    ("B with everything received", MINE, echo(received=9), [], Verdict.NORMAL),
    ("B at the last of an earlier run", MINE, echo(run=EARLIER, received=7), [], Verdict.NORMAL),
    ("B with an old first", MINE, echo(first=1), [], Verdict.NORMAL),
    ("B of a journal", STORED, echo(), [end(LEFT)], Verdict.NORMAL),
    ("B at position zero", OutboxFacts(L, {PRESENT: 0}, 1), echo(received=0, first=1), [], Verdict.NORMAL),
]


@pytest.mark.parametrize(("mine", "inbox", "ended", "expected"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_the_first_case_that_holds_decides(
    mine: OutboxFacts, inbox: InboxFacts | None, ended: Sequence[Ended], expected: Verdict
) -> None:
    verdict, entry = judge(mine, inbox, ended)
    assert verdict is expected
    assert entry == (next(e for e in ended if e.outbox_id == L) if expected is Verdict.ENDED else None)


def test_the_letters_are_those_of_the_specification() -> None:
    assert {verdict.value: verdict.name for verdict in Verdict} == {
        "A": "FORGOT",
        "B": "NORMAL",
        "C": "ROLLED_BACK",
        "D": "HOLE",
        "E": "NEW_OUTBOX",
        "G": "ENDED",
    }


# -- every combination of small facts ---------------------------------------------------------------------------------


def by_the_page(mine: OutboxFacts, inbox: InboxFacts | None, ended: Sequence[Ended]) -> str:
    """The table as the page has it: the letters whose conditions hold, in its order; the first one decides."""
    last = mine.runs
    named = {e.outbox_id for e in ended} | ({inbox.outbox_id} if inbox else set())

    def went_back(told: InboxFacts | Ended) -> bool:
        return told.run not in last or told.received > last[told.run] or told.first > mine.first

    mine_ended = [e for e in ended if e.outbox_id == mine.outbox_id]
    cases = {
        "U": mine.history is not None and bool(named - set(mine.history)),
        "G as C": bool(mine_ended) and went_back(mine_ended[0]),
        "G": bool(mine_ended),
        "A": inbox is None,
        "E": inbox is not None and inbox.outbox_id != mine.outbox_id,
        "C": inbox is not None and went_back(inbox),
        "D": inbox is not None and inbox.received < mine.first - 1,
        "B": True,
    }
    return next(letter for letter, holds in cases.items() if holds)


#: what the page tells to do "as C" is verdict C
AS_C = {"U": "C", "G as C": "C"}


def inboxes() -> Iterator[InboxFacts | None]:
    yield None
    runs = (PRESENT, EARLIER, NEVER)
    for outbox_id, run, received, first in product((L, LEFT, ALIEN), runs, (0, 1, 2, 4), (1, 2, 3)):
        yield InboxFacts(outbox_id, run, received, 0, first)


def endings() -> Iterator[list[Ended]]:
    yield []
    for outbox_id, run, received, first in product((L, LEFT, ALIEN), (PRESENT, EARLIER, NEVER), (0, 4), (1, 3)):
        yield [Ended(LEFT, PRESENT, 0, 0, 1, Why.EXPIRED), Ended(outbox_id, run, received, 0, first, Why.ABORTED)]


def test_every_small_combination_is_judged_as_the_page_says() -> None:
    met = set()
    for history, last, first in product((None, (L, LEFT)), (1, 3), (1, 2)):
        mine = OutboxFacts(L, {EARLIER: 1, PRESENT: last}, first, history)
        for inbox, ended in product(inboxes(), endings()):
            letter = by_the_page(mine, inbox, ended)
            verdict, entry = judge(mine, inbox, ended)
            assert verdict.value == AS_C.get(letter, letter), (mine, inbox, ended)
            assert (entry is None) == (letter != "G")
            met.add(letter)
    assert met == {"U", "G as C", "G", "A", "E", "C", "D", "B"}


# -- what the cases mean ----------------------------------------------------------------------------------------------

ids = st.sampled_from([L, K, LEFT])
runs = st.sampled_from([PRESENT, EARLIER, NEVER])
numbers = st.integers(0, 12)
echoes = st.none() | st.builds(InboxFacts, ids, runs, numbers, st.just(0), numbers)
ends = st.lists(st.builds(Ended, ids, runs, numbers, st.just(0), numbers, st.integers(1, 3)), max_size=3)
outboxes = st.builds(
    OutboxFacts,
    st.just(L),
    st.fixed_dictionaries({PRESENT: numbers}, optional={EARLIER: numbers}),
    numbers,
    st.none() | st.just((L,)) | st.just((L, K, LEFT)),
)


@thorough
@given(outboxes, echoes, ends)
def test_positions_are_applied_only_where_this_sender_could_have_been(
    mine: OutboxFacts, inbox: InboxFacts | None, ended: list[Ended]
) -> None:
    verdict, entry = judge(mine, inbox, ended)
    applied: InboxFacts | Ended | None = entry if verdict is Verdict.ENDED else None
    if verdict in (Verdict.NORMAL, Verdict.HOLE):
        applied = inbox
    if applied is not None:
        assert applied.outbox_id == L
        assert applied.received <= mine.runs[applied.run]
        assert applied.first <= mine.first
    if verdict is Verdict.NORMAL:
        assert inbox is not None
        assert inbox.received >= mine.first - 1  # so that sending goes on without a hole


@thorough
@given(outboxes, echoes, ends)
def test_without_a_journal_what_is_told_of_other_outboxes_changes_nothing(
    mine: OutboxFacts, inbox: InboxFacts | None, ended: list[Ended]
) -> None:
    mine = OutboxFacts(mine.outbox_id, mine.runs, mine.first)
    assert judge(mine, inbox, ended) == judge(mine, inbox, [entry for entry in ended if entry.outbox_id == L])


@thorough
@given(outboxes, echoes, ends)
def test_the_verdict_depends_on_nothing_but_the_facts(
    mine: OutboxFacts, inbox: InboxFacts | None, ended: list[Ended]
) -> None:
    before = (repr(mine), repr(inbox), repr(ended))
    assert judge(mine, inbox, ended) == judge(mine, inbox, tuple(ended))
    assert (repr(mine), repr(inbox), repr(ended)) == before
