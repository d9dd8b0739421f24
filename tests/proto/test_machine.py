"""Two nodes and everything that can go wrong between them: the machine, the swarm, and the bugs that they found."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from networkio_proto import Config, Effect, GapRange, Limits, OutboxFull, Outcome, Session, SkipReason, Wake, Watch
from networkio_testing.game import Game
from networkio_testing.judges import Judge
from networkio_testing.swarm import PIECES, SIZES, draw, draw_settings, make_config, play
from networkio_testing.world import CUTS, Cut, Host, Watcher, World
from tests.broken import break_core

# -- the machine ------------------------------------------------------------------------------------------------------

names = st.sampled_from("ab")
pairs = st.sampled_from(("ab", "ba"))
ends = st.sampled_from((0, 1))
indices = st.integers(0, 3)
pieces = st.sampled_from(PIECES) | st.integers(0, 400)


class Talk(RuleBasedStateMachine):
    """One side dials; connections break at any byte, and applications do what they like."""

    dialers: ClassVar[tuple[str, ...]] = ("ab",)
    crashes: ClassVar[bool] = False
    game: Game | None = None

    @initialize(seed=st.integers(0, 1000), draw=st.randoms(use_true_random=False))
    def begin(self, seed: int, draw: random.Random) -> None:
        configs = [make_config(draw_settings(draw)) for _ in "ab"]
        self.game = Game(seed, configs, dialers=self.dialers)

    def teardown(self) -> None:
        if self.game is not None:
            self.game.heal()

    @property
    def play(self) -> Game:
        assert self.game is not None
        return self.game

    # applications

    @rule(pair=pairs, size=st.sampled_from(SIZES), count=st.sampled_from((1, 1, 3, 30)))
    def send(self, pair: str, size: int, count: int) -> None:
        for _ in range(count):
            self.play.send(pair, size)

    @rule(
        pair=pairs,
        size=st.sampled_from(SIZES),
        ttl=st.sampled_from((None, 0.01, 1.0, 30.0)),
        headers=st.sampled_from((0, 1, 9)),
        ack_now=st.booleans(),
    )
    def send_special(self, pair: str, size: int, ttl: float | None, headers: int, ack_now: bool) -> None:
        self.play.send(pair, size, ttl=ttl, headers=headers, ack_now=ack_now)

    @rule(pair=pairs, index=st.integers(0, 19))
    def cancel(self, pair: str, index: int) -> None:
        self.play.cancel(pair, index)

    @rule(pair=pairs, limit=st.sampled_from((1, 3, 100)))
    def take(self, pair: str, limit: int) -> None:
        self.play.take(pair, limit)

    @rule(pair=pairs, index=st.integers(0, 99), how=st.sampled_from(("ack", "ack", "ack", "reject", "release")))
    def settle(self, pair: str, index: int, how: Literal["ack", "reject", "release"]) -> None:
        self.play.settle(pair, index, how)

    @rule(pair=pairs, how=st.sampled_from(("end", "abort", "disconnect")))
    def leave(self, pair: str, how: Literal["end", "abort", "disconnect"]) -> None:
        self.play.leave(pair, how)

    @rule(pair=pairs)
    def dial(self, pair: str) -> None:
        self.play.dial(pair)

    # the network

    @rule(index=indices, end=ends, count=pieces, chunk=st.sampled_from((None, None, 1, 7)))
    def deliver(self, index: int, end: int, count: int, chunk: int | None) -> None:
        self.play.deliver(index, end, count, chunk)

    @rule(refuse=st.sampled_from((False, False, False, True)))
    def answer(self, refuse: bool) -> None:
        self.play.answer(refuse=refuse)

    @rule(index=indices, end=ends, how=st.sampled_from(CUTS), count=pieces)
    def cut(self, index: int, end: int, how: Cut, count: int) -> None:
        self.play.cut(index, end, how, count)

    @rule(index=indices, end=ends, capacity=st.sampled_from((0, 10, 1000, 1 << 20)))
    def throttle(self, index: int, end: int, capacity: int) -> None:
        self.play.throttle(index, end, capacity)

    @rule(index=indices)
    def black_hole(self, index: int) -> None:
        self.play.black_hole(index)

    @rule(late=st.sampled_from((None, 0.01, 0.3, 3.0)))
    def straggle(self, late: float | None) -> None:
        self.play.straggle(late)

    @rule(index=indices, end=ends)
    def replay(self, index: int, end: int) -> None:
        self.play.replay(index, end)

    # time

    @rule(seconds=st.sampled_from((0.001, 0.03, 0.3, 3.0, 30.0)))
    def run(self, seconds: float) -> None:
        self.play.world.run(seconds)

    @rule(seconds=st.sampled_from((0.01, 0.1, 1.0, 60.0)))
    def advance(self, seconds: float) -> None:
        self.play.world.advance(seconds)

    @rule(seconds=st.sampled_from((1.0, 6.0, 60.0)))
    def jump(self, seconds: float) -> None:
        self.play.world.jump(seconds)

    # machines

    @precondition(lambda self: self.crashes)
    @rule(name=names, reset=st.booleans(), restart=st.booleans())
    def crash(self, name: str, reset: bool, restart: bool) -> None:
        self.play.crash(name, reset=reset, restart=restart)

    @precondition(lambda self: self.crashes)
    @rule(name=names)
    def restart(self, name: str) -> None:
        self.play.restart(name)

    @precondition(lambda self: self.crashes)
    @rule(name=names)
    def pause(self, name: str) -> None:
        self.play.pause(name)

    @precondition(lambda self: self.crashes)
    @rule()
    def twin(self) -> None:
        self.play.twin()


class BothDial(Talk):
    """Both sides dial, so connections collide."""

    dialers = ("ab", "ba")


class Crashes(BothDial):
    """Processes die, come back, stand still, and have doubles."""

    crashes = True


TALK = settings(
    max_examples=25,
    stateful_step_count=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestTalk = Talk.TestCase
TestBothDial, TestCrashes = pytest.mark.slow(BothDial.TestCase), pytest.mark.slow(Crashes.TestCase)
TestTalk.settings = TestBothDial.settings = TestCrashes.settings = TALK


# -- the swarm --------------------------------------------------------------------------------------------------------

#: how many times as much as usual is played
VOLUME = float(os.environ.get("NETWORKIO_SWARM", "1"))
GAMES = round(200 * VOLUME)

#: what must happen at least once, or the swarm has become blind
EVENTFUL = (
    *("accepted", "handed over", "handed over again", "redelivered", "gap"),
    *("OutboxFull", "SessionClosed", "MessageTooLarge"),
    *(outcome.name for outcome in Outcome),
    *("verdict A", "verdict B", "verdict E", "verdict G"),
    *("closed: COLLISION", "closed: SUPERSEDED", "closed: DUPLICATE_IDENTITY", "closed: TIMEOUT", "closed: ABORT"),
    *("closed: NORMAL", "closed: RETRY"),
)


@pytest.mark.slow
def test_every_promise_holds_in_a_swarm_of_games_with_everything_that_can_go_wrong() -> None:
    """Set NETWORKIO_SWARM=100 for a hundred times as many; a failure says how to play its seed again."""
    tally: Counter[str] = Counter()
    calls = 0
    for seed in range(GAMES):
        game = play(draw(seed, 400))
        tally += game.judge.tally
        calls += game.world.steps.total
    assert calls > 1000 * GAMES
    assert [event for event in EVENTFUL if not tally[event]] == []


# -- one session, a thousand cuts -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_session_survives_a_thousand_cuts_and_loses_doubles_and_reorders_nothing() -> None:
    draw = random.Random(1000)
    game = Game(1000, dialers=("ab", "ba"))
    world, hosts = game.world, game.hosts
    sent: dict[str, list[bytes]] = {"a": [], "b": []}
    got: dict[str, list[bytes]] = {"a": [], "b": []}
    cuts = 0
    while cuts < 1000:
        for name, peer in ("ab", "ba"):
            payload = f"{len(sent[name])} ".encode() + bytes(draw.choice((0, 10, 1000, 20_000)))
            hosts[name].send(peer, payload)
            sent[name].append(payload)
        world.run(draw.choice((0.0, 0.0, 0.0, 0.05, 0.5)))
        for _ in range(draw.randrange(9)):
            game.answer()
            game.deliver(draw.randrange(2), draw.randrange(2), draw.randrange(draw.choice((30, 300, 30_000))))
        for name, peer in ("ab", "ba"):
            got[name] += hosts[peer].read(name, draw.randrange(9))
        wires = world.open_wires()
        for wire in wires:
            wire.cut(draw.choice(("rst", "fin")))
        cuts += len(wires)
        world.advance(draw.choice((0.01, 0.1, 2.0)))
    world.run(60.0)
    for name, peer in ("ab", "ba"):
        got[name] += hosts[peer].read(name)
    game.heal()
    assert got == sent
    assert [host.session(peer).connections > 100 for host, peer in ((hosts["a"], "b"), (hosts["b"], "a"))]


# -- the test of the tests --------------------------------------------------------------------------------------------


class Bug(NamedTuple):
    """A mistake: in each of these modules, this text stands once and becomes that.

    ``seed``: where the swarm begins; the games before that one do not notice, and only take time.  Should games be
    drawn otherwise one day, some of the 400 that follow will notice.
    """

    what: str
    edits: tuple[tuple[str, str, str], ...]
    seed: int


def bug(what: str, module: str, old: str, new: str, seed: int = 0) -> Bug:
    return Bug(what, ((module, old, new),), seed)


BUGS = (
    bug("resumes from read, not received", "attachment", "outbox.resume(inbox.received)", "outbox.resume(inbox.read)"),
    bug("does not rewind", "outbox", "cursor = position + 1", "cursor = max(self.cursor, position + 1)"),
    bug("leaves one out when it resumes", "outbox", "cursor = position + 1", "cursor = position + 2"),
    bug("takes duplicates", "inbox", "            return False\n        if self.fin:", "        if self.fin:", 4),
    bug("loses credit when it resumes", "outbox", "self.used = 0\n        self.credit = c", "self.credit = c"),
    bug("keeps what was superseded", "endpoint", 'incumbent.close(CloseCode.SUPERSEDED, "", now)', "pass"),
    bug("keeps simultaneous dials", "endpoint", "or (session.arbitration.arbiter and rival.dialer)", "", 43),
    bug("replaces a process that answers", "arbiter", "return Decision.PARK", "return Decision.TAKE", 1),
    bug("takes an old dial that comes late", "arbiter", "return newcomer.dial <= last.dial", "return False", 1),
    # from 0 on, the first to notice is 105, by a game that hangs for half a minute
    bug("goes on inside of a message", "outbox", "position + 1\n        self.fragment = 0", "position + 1", 1040),
    bug("goes back with an old ACK", "outbox", "max(0, received - self.received)", "received - self.received", 6),
    bug("acknowledges what is released", "session", "[0].release(delivery[1])", "[0].settle(delivery[1])", 1),
    bug("marks one too few", "outbox", "if sequence <= self.marked:", "if sequence < self.marked:", 1),
    bug("never resets the back-off", "endpoint", "target.attempts = 0", "pass"),
    bug("arms the ACK timer once", "acknowledger", "self._delayed = False\n        if", "if", 6),
    bug("ends before its last message is read", "farewell", "outbox.all_read and inbox", "inbox", 13),
    bug("makes a session for a stranger", "endpoint", "self._provisional[peer_id] = ", "self.sessions[peer_id] = ", 3),
    bug("rejects on one connection only", "acknowledger", "sorted(inbox.rejects.values(), key", "sorted([], key", 1),
    bug("reads over what is still held", "inbox", "if sequence == self.read + 1:", "if sequence > self.read:"),
    bug("expires what the peer holds", "outbox",
        "if self.seen_by_peer(sequence):\n            self.", "if 0: self.", 4),
    bug("cancels what the peer may hold", "outbox", "self.next or self.seen_by_peer(sequence):", "self.next:", 2),
    bug("loses the cost of a tombstone", "outbox", "        self.cost += tombstone.cost\n", ""),
    bug("does not say what was passed over", "inbox", "gap=tuple(self.gap)", "gap=()"),
    bug(
        "does not tell of every message",
        "session",
        "self.notices.add(Notice.READY)",
        "if self.unread < 2: self.notices.add(1)",
    ),
    bug("speaks after CLOSE", "connection", "        self.state = ConnectionState.CLOSING\n        self._ended(error",
        "        self._ended(error"),
)


@pytest.mark.slow
@pytest.mark.parametrize("planted", BUGS, ids=lambda planted: planted.what)
def test_the_swarm_catches_a_core_that(planted: Bug, tmp_path: Path) -> None:
    break_core(tmp_path, planted.edits)
    began = time.perf_counter()
    seeds = f"{planted.seed}:{planted.seed + 400}"
    swarm = [sys.executable, "-m", "networkio_testing", "run", "--seeds", seeds, "--tapes", str(tmp_path)]
    run = subprocess.run(swarm, cwd=tmp_path, capture_output=True, text=True, check=False)
    print(f"caught in {time.perf_counter() - began:.1f} s: {run.stderr.splitlines()[-2:]}")
    assert run.returncode != 0, "nobody noticed"
    assert "play it again" in run.stderr
    assert not any(mistake in run.stderr for mistake in ("NameError", "AttributeError", "SyntaxError", "ImportError"))


# -- what the machine and the swarm found ---------------------------------------------------------------------------


class Woken(Watcher):
    """The sessions for which a Wake came."""

    def __init__(self, world: World) -> None:
        self.sessions: list[Session | None] = []
        world.watchers.append(self)

    def effect(self, host: Host, effect: Effect) -> None:
        if isinstance(effect, Wake):
            self.sessions.append(effect.session)


def test_room_that_one_peer_gives_back_wakes_those_who_wait_to_send_to_another() -> None:
    world = World()
    node = world.host("a", Config(outbox_node_limit=1000))
    node.send("b", bytes(2000))
    with pytest.raises(OutboxFull):
        node.send("c", b"waits")
    node.session("c").watch = Watch.ROOM
    woken = Woken(world)
    node.abort("b")
    assert node.session("c") in woken.sessions


def test_a_gap_is_told_with_the_next_message_however_long_the_session_lay_idle() -> None:
    world = World()
    a, b = world.host("a"), world.host("b", Config(shrink_after=2.0))
    a.send("b", b"1")
    (cancelled,) = a.send("b", b"2")
    assert a.cancel("b", cancelled)
    a.dial("b")
    world.run(1.0)
    assert b.read("a") == [b"1"]
    world.run(1.0)
    a.disconnect("b")
    world.run(60.0)
    a.send("b", b"3")
    a.dial("b")
    world.run(1.0)
    (delivery,) = b.take("a")
    assert delivery[4] is not None
    assert delivery[4].gap == (GapRange(2, 2, SkipReason.CANCELLED),)


def test_a_rejection_is_told_again_on_a_connection_that_has_nothing_else_to_say() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    a.send("b", b"1")
    world.run(1.0)
    (delivery,) = b.take("a")
    a.disconnect("b")
    b.settle("a", delivery, reject=(7, "no"))
    a.dial("b")
    world.run(1.0)
    assert a.session("b").outcome(1) is Outcome.REJECTED
    assert b.session("a").inboxes.boxes[0].rejects == {}


def test_what_is_settled_while_a_dial_is_under_way_is_told_when_it_succeeds() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    a.send("b", b"1")
    b.dial("a")
    world.run(1.0)
    (delivery,) = b.take("a")
    b.disconnect("a")
    b.dial("a")
    (wire,) = b.answer_dials()
    wire.deliver(0)
    wire.deliver(1)
    wire.deliver(0)  # b's ATTACH says that nothing is read
    b.settle("a", delivery)
    world.run(1.0)
    assert a.session("b").outcome(1) is Outcome.READ


def test_a_dial_that_stated_an_outbox_which_is_no_more_does_not_become_live() -> None:
    world = World()
    Judge(world)
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    (wire,) = a.answer_dials()
    wire.deliver(0)
    wire.deliver(1)
    wire.deliver(0)  # b has a's ATTACH, a has no answer yet
    a.abort("b")
    a.dial("b")
    a.send("b", b"1")
    wire.deliver(1)
    wire.deliver(0)
    wire.cut()
    world.run(5.0)
    assert b.read("a") == [b"1"]


def test_an_abort_keeps_the_positions_of_every_outbox_that_the_peer_id_ever_had() -> None:
    world = World()
    a, b, twin = world.host("a"), world.host("b"), world.host("twin", peer_id="a")
    a.dial("b")
    a.send("b", b"1")
    world.deliver_all()
    wire = world.live("a", "b")
    assert wire is not None
    assert b.read("a") == [b"1"]
    wire.cut()  # a does not learn that
    a.disconnect("b")
    twin.dial("b")
    twin.send("b", b"another")
    world.run(1.0)
    assert b.read("a") == [b"another"]
    b.abort("a")
    twin.crash()
    a.dial("b")
    b.dial("a")
    world.run(5.0)
    assert b.read("a") == []
    assert a.session("b").outcome(1) is Outcome.READ


def test_an_idle_session_shrinks_once_and_remembers_where_it_was() -> None:
    world = World()
    a, b = world.host("a"), world.host("b", Config(shrink_after=2.0))
    a.dial("b")
    a.send("b", b"1")
    world.deliver_all()
    wire = world.live("a", "b")
    assert wire is not None
    assert b.read("a") == [b"1"]
    wire.cut()  # a does not learn that
    a.disconnect("b")
    world.run(3.0)
    b.send("a", b"short-lived", ttl=1.0)
    world.run(3.0)
    a.dial("b")
    world.run(1.0)
    assert b.read("a") == []
    assert a.session("b").outcome(1) is Outcome.READ


def test_half_a_message_takes_no_credit_from_the_session_after_an_abort() -> None:
    world = World()
    a, b = world.host("a"), world.host("b", Config(window=65536, limits=Limits(frame=8192)))
    a.dial("b")
    world.run(1.0)
    wire = world.live("a", "b")
    assert wire is not None
    a.send("b", b"1", bytes(90_000))
    wire.deliver(0, 20_000)
    held = b.take("a")
    b.abort("a")
    a.dial("b")
    b.dial("a")
    world.run(5.0)
    a.send("b", bytes(90_000))
    world.run(5.0)
    assert b.read("a") == [bytes(90_000)]
    assert len(held) == 1  # to the end, so that the old inbox is still there
