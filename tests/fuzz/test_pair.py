"""Machines: two nodes that work, a network that delivers byte by byte and is cut, and how they part.

``Pair``: nobody leaves and nobody dies, so two lists are the whole model: what was sent is read, once, in its order.
``Close``: either side ends, aborts, disconnects, drains or closes its node at any moment, comes back or does not; every
message has one outcome, nothing happens on a connection after its end, and what was taken is given back.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from networkio_proto import (
    Close,
    Config,
    Connection,
    ConnectionState,
    Delivery,
    Effect,
    Limits,
    NodeClosed,
    Outcome,
    SessionClosed,
    TargetState,
    Transmit,
)
from networkio_testing.world import Host, Watcher, World
from tests.fuzz.profiles import machine

SIZES = (0, 1, 30, 2049, 8190, 20_000)
CONFIG = Config(limits=Limits(frame=8192), window=20_000, window_guaranteed=10_000, window_max=40_000,
                inbox_budget=50_000, session_expiry=120.0)  # fmt: skip
OTHER = {"a": "b", "b": "a"}

names = st.sampled_from("ab")
ends = st.sampled_from((0, 1))
pieces = st.sampled_from((1, 6, 20, 300, 9000, 1 << 20))


class Ends(Watcher):
    """Who was told to close what: after that, nothing more but, once, to drop what said goodbye."""

    def __init__(self) -> None:
        self.over: set[Connection] = set()
        self.dropped: set[Connection] = set()

    def effect(self, host: Host, effect: Effect) -> None:
        if isinstance(effect, Transmit):
            assert effect.connection not in self.over, "something to write after Close"
        elif isinstance(effect, Close):
            assert effect.connection not in (self.over if effect.flush else self.dropped), "a second Close"
            self.over.add(effect.connection)
            if not effect.flush:
                self.dropped.add(effect.connection)
            assert effect.connection.error is not None
            assert effect.connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED)


class Two(RuleBasedStateMachine):
    """What both machines do with the network."""

    config = CONFIG

    @initialize(seed=st.integers(0, 99), dialers=st.sampled_from(("a", "b", "ab")))
    def begin(self, seed: int, dialers: str) -> None:
        self.world = World(seed)
        self.ends = Ends()
        self.world.watchers.append(self.ends)
        self.hosts = {name: self.world.host(name, self.config) for name in "ab"}
        self.dialers = dialers
        for name in dialers:
            self.hosts[name].dial(OTHER[name])
        self.count = 0
        self.prepare()

    def prepare(self) -> None:
        """What the model holds at first."""
        raise NotImplementedError

    def payload(self, name: str, size: int) -> bytes:
        self.count += 1
        return b"%s%d." % (name.encode(), self.count) + bytes(size)

    @rule(end=ends, index=st.integers(0, 2), count=pieces, chunk=st.sampled_from((None, None, 1, 7)))
    def deliver(self, end: int, index: int, count: int, chunk: int | None) -> None:
        wires = self.world.open_wires()
        if wires:
            wires[index % len(wires)].deliver(end, count, chunk)

    @rule(index=st.integers(0, 2), how=st.sampled_from(("rst", "fin", "half")), end=ends)
    def cut(self, index: int, how: str, end: int) -> None:
        wires = self.world.open_wires()
        if wires and how == "half":
            wires[index % len(wires)].cut_half(end)
        elif wires:
            wires[index % len(wires)].cut(how)

    @rule(name=names, refuse=st.sampled_from((False, False, True)))
    def answer(self, name: str, refuse: bool) -> None:
        self.hosts[name].answer_dials(refuse=refuse)

    @rule(seconds=st.sampled_from((0.001, 0.03, 1.0)))
    def run_on(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(seconds=st.sampled_from((0.03, 1.0, 50.0)))
    def stand_still(self, seconds: float) -> None:
        self.world.advance(seconds)

    def session(self, name: str) -> Any:
        return self.hosts[name].session(OTHER[name])


class Pair(Two):
    """What was sent is read, once, in its order; and read is what was read."""

    config = replace(CONFIG, session_expiry=86_400.0)  # however long the machine stands still

    def prepare(self) -> None:
        self.sent: dict[str, list[bytes]] = {"a": [], "b": []}
        self.got: dict[str, list[bytes]] = {"a": [], "b": []}

    @rule(name=names, size=st.sampled_from(SIZES), count=st.sampled_from((1, 1, 5)))
    def send(self, name: str, size: int, count: int) -> None:
        for _ in range(count):
            payload = self.payload(name, size)
            self.hosts[name].send(OTHER[name], payload)
            self.sent[name].append(payload)

    @rule(name=names, limit=st.sampled_from((1, 3, 100)))
    def read(self, name: str, limit: int) -> None:
        self.got[OTHER[name]] += self.hosts[name].read(OTHER[name], limit)

    @invariant()
    def lists_agree(self) -> None:
        for name in "ab":
            sent, got, outbox = self.sent[name], self.got[name], self.session(name).outbox
            assert got == sent[: len(got)]
            assert outbox.read <= len(got) <= len(sent) == outbox.next - 1
            assert outbox.read <= outbox.received < outbox.next
            assert outbox.cost == sum(64 + len(payload) for payload in sent[outbox.read :])

    def teardown(self) -> None:
        for _ in range(40):
            for name in "ab":
                self.read(name, 1 << 20)
            self.world.run(2.0)
        assert self.got == self.sent
        for name in "ab":
            assert self.session(name).outbox.all_read
            assert self.session(name).ledger.failed == 0


class Closing(Two):
    """How they part."""

    def prepare(self) -> None:
        self.held: dict[str, list[Delivery]] = {"a": [], "b": []}
        self.accepted: dict[str, list[int]] = {"a": [], "b": []}
        #: how often a message of each side was told to have ended
        self.told: dict[str, Counter[int]] = {"a": Counter(), "b": Counter()}
        self.outcomes: dict[str, dict[int, Outcome]] = {"a": {}, "b": {}}
        self.drains: dict[str, deque[None]] = {"a": deque(), "b": deque()}
        self.gone: set[str] = set()
        for name in "ab":
            self.session(name).outbox.on_outcome = self.listener(name)

    def listener(self, name: str) -> Any:
        def ended(sequence: int, outcome: Outcome) -> None:
            self.told[name][sequence] += 1
            self.outcomes[name][sequence] = outcome
        return ended

    # -- applications ---------------------------------------------------------------------------------------------

    @rule(name=names, size=st.sampled_from(SIZES), ttl=st.sampled_from((None, None, None, 0.5)))
    def send(self, name: str, size: int, ttl: float | None) -> None:
        refused = not self.session(name).can_send
        try:
            self.accepted[name] += self.hosts[name].send(OTHER[name], self.payload(name, size), ttl=ttl)
        except NodeClosed:
            assert name in self.gone
        except SessionClosed:
            assert refused
        else:
            assert not refused

    @rule(name=names)
    def cancel(self, name: str) -> None:
        if self.accepted[name]:
            self.hosts[name].cancel(OTHER[name], self.accepted[name][-1])

    @rule(name=names, limit=st.sampled_from((1, 3)))
    def take(self, name: str, limit: int) -> None:
        self.held[name] += self.hosts[name].take(OTHER[name], limit)

    @rule(name=names, how=st.sampled_from(("ack", "ack", "reject", "release")))
    def settle(self, name: str, how: str) -> None:
        if self.held[name]:
            delivery = self.held[name].pop(0)
            if how == "release":
                self.hosts[name].release(OTHER[name], delivery)
            else:
                self.hosts[name].settle(OTHER[name], delivery, (7, "no") if how == "reject" else None)

    @rule(name=names)
    def read_all(self, name: str) -> None:
        self.hosts[name].read(OTHER[name])

    @rule(name=names, how=st.sampled_from(("end", "end", "abort", "disconnect")))
    def leave(self, name: str, how: Literal["end", "abort", "disconnect"]) -> None:
        host = self.hosts[name]
        {"end": host.end, "abort": host.abort, "disconnect": host.disconnect}[how](OTHER[name])

    @rule(name=names)
    def drain(self, name: str) -> None:
        if self.drains[name]:
            self.drains[name].pop()
            self.session(name).undrain()
        else:
            self.drains[name].append(None)
            self.session(name).drain(self.world.now)
        self.hosts[name].pump()

    @rule(name=names)
    def dial_again(self, name: str) -> None:
        endpoint = self.hosts[name].endpoint
        if name in self.gone:
            return
        for target in list(endpoint.targets):
            if target.state is TargetState.STOPPED:
                endpoint.remove_target(target)
        if not endpoint.targets:
            self.hosts[name].dial(OTHER[name])

    @precondition(lambda self: len(self.accepted["a"]) + len(self.accepted["b"]) > 3)
    @rule(name=names)
    def close_node(self, name: str) -> None:
        self.hosts[name].endpoint.close(self.world.now)
        self.hosts[name].pump()
        self.gone.add(name)

    @rule()
    def expire(self) -> None:
        self.world.advance(200.0)

    # -- the oracle -----------------------------------------------------------------------------------------------

    @invariant()
    def one_outcome_each(self) -> None:
        for name in "ab":
            session, told = self.session(name), self.told[name]
            assert not told or max(told.values()) == 1, "told twice"
            for sequence in self.accepted[name]:
                assert session.outcome(sequence) is self.outcomes[name].get(sequence)
            ledger = session.ledger
            assert ledger.accepted == len(self.accepted[name])
            assert ledger.read + ledger.failed == len(self.outcomes[name])
            assert self.hosts[name].endpoint.outbox_cost == session.outbox.cost
            assert self.hosts[name].endpoint.inbox_reserved == session.window.reserved
            live = [connection for connection in self.hosts[name].endpoint.connections if connection.live]
            assert live == ([session.connection] if session.connection else [])

    def teardown(self) -> None:
        """Both give up what is left, and take what came: everything is given back."""
        for name in "ab":
            self.session(name).abort(self.world.now)
            self.hosts[name].pump()
        self.world.run(10.0)
        for name in "ab":
            session, endpoint = self.session(name), self.hosts[name].endpoint
            while self.held[name]:
                self.settle(name, "ack")
            self.read_all(name)
            if session.connected:  # its peer dialled once more before it gave up, or waits for the last word
                session.abort(self.world.now)
                self.hosts[name].pump()
        self.world.run(10.0)
        self.one_outcome_each()
        for name in "ab":
            session, endpoint = self.session(name), self.hosts[name].endpoint
            assert set(self.outcomes[name]) == set(self.accepted[name]), "a message without an outcome"
            assert session.unsettled == 0
            assert endpoint.outbox_cost == endpoint.inbox_reserved == 0
            assert not endpoint.connections
            assert not session.receipts.all()
            assert not session.requests.all()


pytestmark = pytest.mark.slow
TestPair, TestClosing = Pair.TestCase, Closing.TestCase
TestPair.settings = machine(examples=30, steps=40)
TestClosing.settings = machine(examples=50, steps=40)
