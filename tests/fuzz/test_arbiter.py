"""Machines: which of several connections is the live one, judged by the rules P-ARB as they are written.

The node is "m": towards "a" it is the arbiter, towards "z" the follower.  The other side is made of bytes and dials as
several processes, with old and new numbers, while the incumbent answers, babbles or is silent.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgpack
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from networkio_proto import CloseCode, Config
from tests.fuzz.profiles import machine
from tests.proto import helpers_wire as wire
from tests.proto.helpers_wire import PREAMBLE, Line, Node, Peer

#: no PING but those of probes, and nobody is silent for too long
PATIENT = Config(dead_after=80_000.0, ping_after=30_000.0, backoff_base=30_000.0, backoff_max=30_000.0)

COLLISION, SUPERSEDED, DUPLICATE = CloseCode.COLLISION, CloseCode.SUPERSEDED, CloseCode.DUPLICATE_IDENTITY


@dataclass
class Newcomer:
    """A connection whose ATTACH the node has verified, and what the rules look at."""

    line: Line
    life: int
    dialled_here: bool
    dial: int
    generation: int
    seen: int


@dataclass
class Probe:
    """P-ARB-5: ``begun`` is None while it waits for its turn (P-ARB-9)."""

    begun: float | None
    deadline: float
    since: float
    extensions: int = 0


class Arbiter(RuleBasedStateMachine):
    """The node decides."""

    peer_id = "a"

    @initialize()
    def begin(self) -> None:
        self.node = Node(config=PATIENT)
        self.peers = {life: Peer(self.peer_id, life=life) for life in (1, 2, 3)}
        self.session = self.node.session(self.peer_id)
        self.incumbent: Newcomer | None = None
        self.parked: list[Newcomer] = []
        self.last: Newcomer | None = None
        self.taken_generations: dict[int, int] = {}
        self.probe: Probe | None = None
        self.probe_begun = float("-inf")
        self.heard = 0.0
        self.last_ping: int | None = None

    @property
    def arbiter(self) -> bool:
        return self.peer_id < "m"

    # -- what happens ---------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.parked) < 4)
    @rule(life=st.sampled_from((1, 1, 1, 2, 3)), behind=st.sampled_from((0, 0, 0, 0, 1, 2, 50)))
    def peer_dials(self, life: int, behind: int) -> None:
        """With numbers of now, or of a while ago."""
        peer = self.peers[life]
        line = self.node.accept()
        newcomer = self.facts(line, life, behind, dialled_here=False)
        peer.dials = newcomer.dial - 1
        line.say(PREAMBLE, peer.hello(), self.attach(newcomer))
        self.judge(newcomer)

    @precondition(lambda self: self.incumbent is None)
    @rule(life=st.sampled_from((1, 1, 2)), behind=st.sampled_from((0, 0, 1, 50)))
    def node_dials(self, life: int, behind: int) -> None:
        for target in list(self.node.endpoint.targets):
            self.node.endpoint.remove_target(target)
        self.node.dials.clear()
        line = self.node.dial(self.peer_id)
        line.say(PREAMBLE, self.peers[life].hello_ack())
        generation = self.told_generation(line)
        newcomer = self.facts(line, life, behind, dialled_here=True)
        if self.arbiter:
            assert generation is not None
            newcomer.generation = generation
        line.say(self.attach(newcomer))
        self.judge(newcomer)

    def facts(self, line: Line, life: int, behind: int, *, dialled_here: bool) -> Newcomer:
        peer = self.peers[life]
        dial = 0 if dialled_here else max(1, peer.dials + 1 - behind)
        newest = max(self.taken_generations.get(life, 0), peer.generation) + 1
        return Newcomer(line, life, dialled_here, dial, generation=0 if self.arbiter else max(1, newest - behind),
                        seen=max(0, self.session.arbitration.generation - behind))  # fmt: skip

    def attach(self, newcomer: Newcomer) -> bytes:
        number = {"seen": newcomer.seen} if self.arbiter else {"generation": newcomer.generation}
        return self.peers[newcomer.life].attach("m", **number)

    @precondition(lambda self: self.incumbent is not None and self.last_ping is not None)
    @rule()
    def incumbent_answers(self) -> None:
        assert self.incumbent is not None
        assert self.last_ping is not None
        self.heard = self.node.now
        self.incumbent.line.say(wire.pong(self.last_ping))
        if self.probe is not None and self.probe.begun is not None:
            self.alive()
        self.last_ping = None

    @precondition(lambda self: self.incumbent is not None)
    @rule()
    def incumbent_babbles(self) -> None:
        assert self.incumbent is not None
        self.heard = self.node.now
        self.incumbent.line.say(wire.frame(0x99, b"babble"))

    @precondition(lambda self: self.incumbent is not None)
    @rule()
    def incumbent_is_lost(self) -> None:
        assert self.incumbent is not None
        incumbent, self.incumbent, self.probe = self.incumbent, None, None
        incumbent.line.lose()
        self.newest_takes_over()

    @precondition(lambda self: self.parked)
    @rule(index=st.integers(0, 3))
    def parked_one_is_lost(self, index: int) -> None:
        self.parked.pop(index % len(self.parked)).line.lose()

    @rule(seconds=st.sampled_from((0.3, 1.0, 2.01)))
    def wait(self, seconds: float) -> None:
        end = self.node.now + seconds
        self.node.advance(seconds)
        while self.probe is not None and self.probe.deadline <= end:
            probe = self.probe
            if probe.begun is None:
                self.probe = Probe(probe.deadline, probe.deadline + 2.0, probe.deadline)
                self.probe_begun = probe.deadline
            elif self.heard <= probe.since:
                self.probe = None
                self.newest_takes_over()
            elif probe.extensions < 5:
                self.probe = Probe(probe.begun, probe.deadline + 2.0, probe.deadline, probe.extensions + 1)
            else:
                self.alive()
        self.collect_pings()

    # -- the rules ------------------------------------------------------------------------------------------------

    def judge(self, newcomer: Newcomer) -> None:
        incumbent = self.incumbent
        if incumbent is not None and incumbent.life != newcomer.life:  # P-ARB-3
            assert newcomer.line.parked
            self.parked.append(newcomer)
            if self.probe is None:  # P-ARB-8, P-ARB-9
                now = self.node.now
                if now < self.probe_begun + 1.0:
                    self.probe = Probe(None, self.probe_begun + 1.0, now)
                else:
                    self.probe, self.probe_begun = Probe(now, now + 2.0, now), now
            self.collect_pings()
        elif self.stale(newcomer):
            assert newcomer.line.farewell() is COLLISION
        else:
            self.take(newcomer)

    def stale(self, newcomer: Newcomer) -> bool:
        """P-ARB-11, P-ARB-12, P-ARB-16."""
        if not self.arbiter:
            return newcomer.generation <= self.taken_generations.get(newcomer.life, 0)
        if newcomer.dialled_here or self.last is None or self.last.life != newcomer.life:
            return False
        if self.last.dialled_here:
            return newcomer.seen < self.last.generation
        return newcomer.dial <= self.last.dial

    def take(self, newcomer: Newcomer) -> None:
        """P-HS-9, P-ARB-13."""
        assert newcomer.line.live, newcomer.line.connection.error
        if self.incumbent is not None:
            assert self.incumbent.line.farewell() is SUPERSEDED
        for other in self.parked:
            assert other.line.farewell() is COLLISION
        self.parked.clear()
        self.probe, self.probe_begun, self.last_ping = None, float("-inf"), None
        if self.arbiter and not newcomer.dialled_here:
            generation = self.told_generation(newcomer.line)
            assert generation is not None
            newcomer.generation = generation
        if not self.arbiter:
            self.taken_generations[newcomer.life] = newcomer.generation
        peer = self.peers[newcomer.life]
        peer.dials, peer.generation = max(peer.dials, newcomer.dial), max(peer.generation, newcomer.generation)
        self.incumbent = self.last = newcomer
        self.heard = self.node.now

    def newest_takes_over(self) -> None:
        """P-ARB-7."""
        while self.parked:
            newcomer = self.parked.pop()
            if self.stale(newcomer):
                assert newcomer.line.farewell() is COLLISION
            else:
                self.take(newcomer)

    def alive(self) -> None:
        """P-ARB-6."""
        self.probe = None
        for newcomer in self.parked:
            assert newcomer.line.farewell() is DUPLICATE
        self.parked.clear()

    # -- what is heard --------------------------------------------------------------------------------------------

    def told_generation(self, line: Line) -> int | None:
        """In the last ATTACH that the node said there."""
        told = [msgpack.unpackb(item.body) for item in line.heard() if item.kind == wire.ATTACH]
        generation: int | None = told[-1].get("generation")
        return generation

    def collect_pings(self) -> None:
        if self.incumbent is not None:
            said = wire.pings(self.incumbent.line)
            assert len(said) <= 1, "more than one probe a second"
            self.last_ping = said[-1] if said else self.last_ping

    @invariant()
    def at_most_one_lives(self) -> None:
        live = [line for line in self.node.lines.values() if line.live]
        assert live == ([] if self.incumbent is None else [self.incumbent.line])
        assert self.session.connected == bool(live)
        assert [item.connection for item in [newcomer.line for newcomer in self.parked]] == self.session.parked
        for line in live:
            assert not line.closed

    def teardown(self) -> None:
        if self.incumbent is not None and self.parked:
            self.incumbent_is_lost()
        assert not self.parked


class Follower(Arbiter):
    """The node obeys."""

    peer_id = "z"


pytestmark = pytest.mark.slow
TestArbiter, TestFollower = Arbiter.TestCase, Follower.TestCase
TestArbiter.settings = TestFollower.settings = machine(examples=50, steps=40)
