"""Which connection is live: each rule by itself, and every order in which a few connections of two nodes can go.

The exploration at the end plays both sides of up to three connections, message by message: who dials when, which bytes
are read how late, which end is lost, and when the other one learns of it.  It holds the rules to what they are for: no
side takes facts from before a connection on which both have been live, and when nothing is under way any more, both
are live on the same connection, or neither is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import PeerConnected
from networkio_proto.arbiter import Arbitration, Decision, Newcomer
from tests.proto.helpers import live, pair

thorough = settings(derandomize=True, deadline=None, max_examples=100)

ONE, TWO = b"1" * 16, b"2" * 16

peer_ids = st.text("AZaz09._:@-", min_size=1, max_size=6)


def arbiter() -> Arbitration:
    return Arbitration("b", "a")


def follower() -> Arbitration:
    return Arbitration("a", "b")


def dial(number: int, seen: int = 0, generation: int = 0, incarnation: bytes = ONE) -> Newcomer:
    """What the other side dialled."""
    return Newcomer(incarnation, dialled_here=False, dial=number, generation=generation, seen=seen)


def reply(generation: int, incarnation: bytes = ONE) -> Newcomer:
    """What this side dialled."""
    return Newcomer(incarnation, dialled_here=True, dial=1, generation=generation, seen=0)


# -- who decides ------------------------------------------------------------------------------------------------------


@thorough
@given(peer_ids, peer_ids)
def test_of_two_nodes_the_one_with_the_greater_id_is_the_arbiter(one: str, other: str) -> None:
    if one == other:
        return
    assert Arbitration(one, other).arbiter == (one.encode() > other.encode())
    assert Arbitration(one, other).arbiter != Arbitration(other, one).arbiter


@pytest.mark.parametrize(("greater", "lesser"), [("a", "Z"), ("ab", "a"), ("b", "aa"), (":", "9"), ("_", "Z")])
def test_ids_are_compared_as_bytes(greater: str, lesser: str) -> None:
    assert Arbitration(greater, lesser).arbiter
    assert not Arbitration(lesser, greater).arbiter


def test_the_first_generation_is_1_and_each_is_greater_than_all_before() -> None:
    side = arbiter()
    assert [side.next_generation() for _ in range(5)] == [1, 2, 3, 4, 5]
    assert side.generation == 5


# -- another incarnation (P-ARB-2, P-ARB-3) ---------------------------------------------------------------------------


@pytest.mark.parametrize("side", [arbiter, follower])
def test_a_newcomer_of_another_incarnation_than_the_incumbents_is_parked(side: Callable[[], Arbitration]) -> None:
    arbitration = side()
    for newcomer in (dial(1, generation=1), reply(1), dial(0, generation=0)):
        assert arbitration.decide(newcomer, TWO) is Decision.PARK


@pytest.mark.parametrize("side", [arbiter, follower])
@pytest.mark.parametrize("incumbent", [None, ONE])
def test_without_an_incumbent_or_with_its_own_it_is_judged_at_once(
    side: Callable[[], Arbitration], incumbent: bytes | None
) -> None:
    arbitration = side()
    assert arbitration.decide(dial(1, generation=1), incumbent) is Decision.TAKE
    arbitration.took(dial(1, generation=1))
    assert arbitration.decide(dial(1, generation=1), incumbent) is Decision.STALE


# -- the arbiter (P-ARB-10 to P-ARB-12) -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "newcomer", "decision"),
    [
        pytest.param(None, dial(0), Decision.TAKE, id="nothing was taken before"),
        pytest.param(dial(5, generation=1), dial(6), Decision.TAKE, id="dialled after the last"),
        pytest.param(dial(5, generation=1), dial(5), Decision.STALE, id="the same dial"),
        pytest.param(dial(5, generation=1), dial(4, seen=9), Decision.STALE, id="dialled before the last"),
        pytest.param(reply(3), dial(1, seen=2), Decision.STALE, id="sent before it had taken our last"),
        pytest.param(reply(3), dial(1, seen=3), Decision.TAKE, id="sent after it had taken our last"),
        pytest.param(reply(3), dial(1, seen=4), Decision.TAKE, id="sent after a later one of ours"),
        pytest.param(dial(5, incarnation=TWO), dial(1), Decision.TAKE, id="another process counts from the beginning"),
        pytest.param(reply(3, TWO), dial(1), Decision.TAKE, id="another process has seen nothing"),
        pytest.param(dial(5, generation=9), reply(3), Decision.TAKE, id="a dial of our own"),
        pytest.param(reply(9), reply(3), Decision.TAKE, id="a dial of our own after a later one"),
    ],
)
def test_the_arbiter_measures_a_dial_of_the_follower_by_the_last_it_took(
    last: Newcomer | None, newcomer: Newcomer, decision: Decision
) -> None:
    side = arbiter()
    if last is not None:
        side.took(last)
    assert side.stale(newcomer) is (decision is Decision.STALE)
    assert side.decide(newcomer, None) is decision
    assert side.decide(newcomer, ONE) is decision


def test_the_arbiter_remembers_the_last_only() -> None:
    side = arbiter()
    side.took(dial(9))
    side.took(dial(1, incarnation=TWO))
    assert side.decide(dial(1), None) is Decision.TAKE


# -- the follower (P-ARB-14 to P-ARB-16) ------------------------------------------------------------------------------


@thorough
@given(st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.integers(0, 6), st.booleans()), max_size=12))
def test_the_follower_takes_what_is_news_of_its_incarnation_and_nothing_else(
    newcomers: list[tuple[bytes, int, bool]],
) -> None:
    side = follower()
    highest = {ONE: 0, TWO: 0}
    for incarnation, generation, dialled_here in newcomers:
        newcomer = Newcomer(incarnation, dialled_here, dial=0, generation=generation, seen=0)
        news = generation > highest[incarnation]
        assert side.decide(newcomer, None) is (Decision.TAKE if news else Decision.STALE)
        if news:
            side.took(newcomer)
            highest[incarnation] = generation
        assert {known: side.seen(known) for known in highest} == highest


def test_of_an_arbiter_that_it_never_met_the_follower_has_seen_nothing() -> None:
    assert follower().seen(ONE) == 0
    assert follower().decide(dial(1, generation=0), None) is Decision.STALE


def test_the_follower_forgets_all_but_the_sixteen_incarnations_that_it_took_last() -> None:
    side = follower()
    names = [bytes([number]) * 16 for number in range(20)]
    for generation, name in enumerate(names[:16], 1):
        side.took(reply(generation, name))
    side.took(reply(99, names[0]))  # it is among the newest again
    for name in names[16:19]:
        side.took(reply(7, name))
    assert [side.seen(name) for name in names[:5]] == [99, 0, 0, 0, 5]
    assert [side.seen(name) for name in names[16:]] == [7, 7, 7, 0]


# -- every order of a few connections ---------------------------------------------------------------------------------

FOLLOWER, ARBITER = 0, 1
INCARNATIONS = (ONE, TWO)
Pair = tuple[int, int]


@dataclass(frozen=True)
class Link:
    """A connection: what is under way on it, which ends are open, and what its two ATTACHes state."""

    dialer: int
    dial: int
    under_way: str = "HELLO"
    open: tuple[bool, bool] = (True, True)
    generation: int = 0
    seen: int = 0
    #: on how many connections each side had been live, and was no longer, when it sent its ATTACH: the age of its facts
    stamps: Pair = (0, 0)


@dataclass(frozen=True)
class State:
    """Both sides; a pair has the follower's value first."""

    arbitrations: tuple[Arbitration, Arbitration]
    links: tuple[Link, ...] = ()
    live: tuple[int | None, int | None] = (None, None)
    #: the links that each side was live on, in order
    history: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    dials: Pair = (0, 0)
    losses: int = 0

    def key(self) -> object:
        """Equal for states that go on alike."""
        memories = [(side.generation, side._taken, tuple(side._seen.items())) for side in self.arbitrations]
        return self.links, self.live, self.history, self.dials, self.losses, tuple(memories)


def with_item(items: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], value, *items[index + 1 :])


def with_link(state: State, number: int, **changes: object) -> State:
    return replace(state, links=with_item(state.links, number, replace(state.links[number], **changes)))  # type: ignore[arg-type]


def forked(state: State, side: int) -> tuple[State, Arbitration]:
    """The state with an arbitration of its own for a side that is about to remember something."""
    arbitration = copy.copy(state.arbitrations[side])
    arbitration._seen = dict(arbitration._seen)
    return replace(state, arbitrations=with_item(state.arbitrations, side, arbitration)), arbitration


def close(state: State, number: int, side: int) -> State:
    """One side is done with a link."""
    state = with_link(state, number, open=with_item(state.links[number].open, side, False))
    return replace(state, live=with_item(state.live, side, None)) if state.live[side] == number else state


def send_attach(state: State, number: int, side: int) -> State:
    """State the facts of the present."""
    state, arbitration = forked(state, side)
    ended = len(state.history[side]) - (state.live[side] is not None)
    state = with_link(state, number, stamps=with_item(state.links[number].stamps, side, ended))
    if side == ARBITER:
        return with_link(state, number, generation=arbitration.next_generation())
    return with_link(state, number, seen=arbitration.seen(INCARNATIONS[ARBITER]))


def newcomer(state: State, number: int, side: int) -> Newcomer:
    link = state.links[number]
    return Newcomer(INCARNATIONS[1 - side], link.dialer == side, link.dial, link.generation, link.seen)


def receive_attach(state: State, number: int, side: int) -> State:
    """The other side's ATTACH is read: choose, and take (P-HS-9, P-ARB-13)."""
    other = 1 - side
    incumbent = state.live[side]
    name = None if incumbent is None else INCARNATIONS[other]
    if state.arbitrations[side].decide(newcomer(state, number, side), name) is Decision.STALE:
        return close(state, number, side)
    later = set(state.history[other][state.links[number].stamps[other] :]) & set(state.history[side])
    assert not later - {number}, f"side {side} takes {number} with facts from before {later}"
    if incumbent is not None:
        state = close(state, incumbent, side)
    if side == ARBITER:
        for rival, link in enumerate(state.links):
            if rival != number and link.dialer == side and link.open[side]:
                state = close(state, rival, side)
    dialled = state.links[number].dialer == side
    if not dialled:
        state = send_attach(state, number, side)
    state, arbitration = forked(state, side)
    arbitration.took(newcomer(state, number, side))
    state = replace(
        state,
        live=with_item(state.live, side, number),
        history=with_item(state.history, side, (*state.history[side], number)),
    )
    return with_link(state, number, under_way="" if dialled else "ATTACH of the acceptor")


#: what keeps a dialer from stating its facts when HELLO_ACK comes, each by its name
KEEPS_BACK: dict[str, Callable[[State, int, int], bool]] = {
    # P-HS-8
    "it is live": lambda state, number, side: state.live[side] is not None,
    # its facts would be old on the one that is taken last ...
    "they are stated on another dial": lambda state, number, side: any(
        link.dialer == side and link.open[side] and link.under_way.startswith("ATTACH") for link in state.links
    ),
    # ... also if that one is lost here and still on its way there: then the order of dials has to tell
    "they were stated on a later dial": lambda state, number, side: any(
        link.dialer == side and link.dial > state.links[number].dial and not link.under_way.startswith("HELLO")
        for link in state.links
    ),
}


def receive(state: State, number: int, keeps_back: Collection[str]) -> State | None:
    """What is under way on a link is read; None if nothing is, or nobody reads it."""
    link = state.links[number]
    side = link.dialer if link.under_way in ("HELLO_ACK", "ATTACH of the acceptor") else 1 - link.dialer
    if not link.under_way or not link.open[side]:
        return None
    if link.under_way == "HELLO":
        return with_link(state, number, under_way="HELLO_ACK")
    if link.under_way == "HELLO_ACK":
        if any(KEEPS_BACK[name](state, number, side) for name in keeps_back):
            return close(state, number, side)
        return with_link(send_attach(state, number, side), number, under_way="ATTACH of the dialer")
    return receive_attach(state, number, side)


def dials_and_losses(state: State, links: int, losses: int) -> Iterator[State]:
    """What may happen at any time."""
    for side in (FOLLOWER, ARBITER):
        if len(state.links) < links and state.live[side] is None:
            count = state.dials[side] + 1
            yield replace(
                state, links=(*state.links, Link(side, count)), dials=with_item(state.dials, side, count)
            )
        for number, link in enumerate(state.links):
            if link.open == (True, True) and state.losses < losses:
                yield replace(close(state, number, side), losses=state.losses + 1)


def arrivals(state: State, keeps_back: Collection[str]) -> Iterator[State]:
    """What happens by itself: bytes are read, and the end of the other side is noticed, in whatever order."""
    for number, link in enumerate(state.links):
        after = receive(state, number, keeps_back)
        if after is not None:
            yield after
        for side in (FOLLOWER, ARBITER):
            if link.open[side] and not link.open[1 - side]:
                yield close(state, number, side)


def explore(links: int, losses: int, keeps_back: Collection[str] = KEEPS_BACK) -> int:
    """Visit every state; returns how many in which nothing is under way had a live connection."""
    todo = [State((follower(), arbiter()))]
    known = {todo[0].key()}
    agreed = 0
    while todo:
        state = todo.pop()
        arriving = list(arrivals(state, keeps_back))
        if not arriving:
            assert state.live[FOLLOWER] == state.live[ARBITER], state.links
            agreed += state.live[FOLLOWER] is not None
        for after in (*arriving, *dials_and_losses(state, links, losses)):
            key = after.key()
            if key not in known:
                known.add(key)
                todo.append(after)
    return agreed


@pytest.mark.slow
@pytest.mark.parametrize(("links", "losses"), [(2, 2), (3, 1)])
def test_in_every_order_both_sides_choose_the_same_connection_and_never_one_with_old_facts(
    links: int, losses: int
) -> None:
    assert explore(links, losses) > 10


def last_was_ours(side: Arbitration) -> bool | None:
    return side._taken.dialled_here if side._taken is not None else None


@pytest.mark.parametrize(
    "dropped",
    [
        pytest.param(lambda side: side.arbiter, id="P-ARB-10"),
        pytest.param(lambda side: side.arbiter and last_was_ours(side) is True, id="P-ARB-11 (seen)"),
        pytest.param(lambda side: side.arbiter and last_was_ours(side) is False, id="P-ARB-11 (dial)"),
        pytest.param(lambda side: not side.arbiter, id="P-ARB-16"),
    ],
)
def test_the_exploration_finds_what_goes_wrong_without_a_rule(
    dropped: Callable[[Arbitration], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = Arbitration.stale
    monkeypatch.setattr(Arbitration, "stale", lambda side, newcomer: not dropped(side) and stale(side, newcomer))
    with pytest.raises(AssertionError):
        explore(links=2, losses=2)


@pytest.mark.parametrize("dropped", KEEPS_BACK)
def test_the_exploration_finds_what_goes_wrong_when_facts_are_stated_although(dropped: str) -> None:
    with pytest.raises(AssertionError, match="with facts from before"):
        explore(links=2, losses=1, keeps_back=[name for name in KEEPS_BACK if name != dropped])


# -- the same in the simulated world ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialer", ["a", "b"])
def test_facts_that_were_stated_on_a_lost_dial_are_not_followed_by_facts_on_an_older_one(dialer: str) -> None:
    """Else the old dial goes live, and the ATTACH of the lost one, read late, makes it seem that this side forgot."""
    world = pair(connected=False)
    ours, other = (world.hosts[name] for name in (dialer, "ab".replace(dialer, "")))
    ours.dial(other.name)
    ours.dial(other.name)
    older, newer = ours.answer_dials()
    for end in (0, 1):
        newer.deliver(end)
    newer.cut_half(0, late=1.0)
    for end in (0, 1, 0, 1):
        older.deliver(end)
    other.send(ours.name, b"one", b"two")
    world.run(1.5)
    assert newer.waiting(0)
    world.run(5.0)
    live(world)
    reports = [notice.resumed for notice in other.notices if isinstance(notice, PeerConnected)]
    assert [report.verdict for report in reports[1:]] == ["B"] * (len(reports) - 1)
    assert sum(report.retransmitted for report in reports) == 0
    assert ours.read(other.name) == [b"one", b"two"]
