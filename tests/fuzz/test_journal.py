"""Machine: two nodes with a store that is written late, or not at all, and processes that die at any moment.

The model is what was accepted, and what of it is on disk.  A new process must go on with exactly that: every durable
message that has no outcome is retained under its number, nothing comes back that was given up or never written, and no
number is used for two messages.
"""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from networkio_proto import Config, Delivery, OutboxFull, SessionClosed
from networkio_proto.inbox import message_id
from networkio_proto.journal import MessageAccepted
from networkio_testing.world import World
from tests.fuzz.profiles import machine
from tests.proto.test_journal import Store

CONFIG = Config(window=20_000, window_guaranteed=10_000, session_expiry=300.0)
OTHER = {"a": "b", "b": "a"}
names = st.sampled_from("ab")


class Journal(RuleBasedStateMachine):
    """Applications, disks, processes, and a network that mostly works."""

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        self.world = World(seed)
        self.stores = {name: Store(self.world.host(name, CONFIG), sync=False) for name in "ab"}
        self.stores["a"].host.dial("b")
        #: what was accepted and is not given up, by its number; and how much of that is on disk
        self.accepted: dict[str, dict[int, bytes]] = {"a": {}, "b": {}}
        self.written: dict[str, set[int]] = {"a": set(), "b": set()}
        self.seen: dict[str, set[str]] = {"a": set(), "b": set()}
        self.payloads: set[bytes] = set()
        self.count = 0

    @rule(name=names, size=st.sampled_from((0, 5, 3000, 9000)), headers=st.sampled_from((None, None, {"k": 1})))
    def send(self, name: str, size: int, headers: dict[str, object] | None) -> None:
        self.count += 1
        payload = b"%s%d." % (name.encode(), self.count) + bytes(size)
        try:
            [sequence] = self.stores[name].host.send(OTHER[name], payload, headers=headers)
        except (SessionClosed, OutboxFull):
            return
        assert sequence not in self.accepted[name], "a number for two messages"
        self.accepted[name][sequence] = payload
        self.payloads.add(payload)

    @rule(name=names)
    def write(self, name: str) -> None:
        """The disk keeps up; what is written is what was accepted under that number."""
        store = self.stores[name]
        before = len(store.records)
        store.write()
        for record in store.records[before:]:
            if isinstance(record, MessageAccepted) and not record.fin and not record.skip:
                assert record.payload == self.accepted[name].get(record.sequence), record.sequence
                self.written[name].add(record.sequence)

    @rule(name=names)
    def disk_is_full(self, name: str) -> None:
        store = self.stores[name]
        if (batch := store.host.endpoint.journal_request()) is None:
            return
        store.host.endpoint.journal_done(batch.token, self.world.now, OSError("disk full"))
        store.host.pump()
        self.forget_unwritten(name)

    @rule(name=names)
    def die_while_it_writes(self, name: str) -> None:
        """The batch was asked for, and perhaps it is on disk; nobody was told."""
        self.stores[name].host.endpoint.journal_request()
        self.die(name)

    @rule(name=names)
    def die(self, name: str) -> None:
        store = self.stores[name]
        before = store.host.session(OTHER[name]).outbox
        unread = {
            sequence for sequence in self.written[name]
            if sequence >= before.first and before.failures.find(sequence) is None
        }  # fmt: skip
        store.crash()
        self.forget_unwritten(name)
        outbox = store.host.session(OTHER[name]).outbox
        assert outbox.next > max(self.written[name], default=0)
        retained = {sequence: outbox.entry(sequence) for sequence in range(outbox.first, outbox.next)}
        kept = {sequence: entry.payload for sequence, entry in retained.items() if not (entry.skip or entry.fin)}
        assert unread <= set(kept), "lost"
        assert kept.items() <= self.accepted[name].items(), "what was given up, or never accepted"
        assert outbox.cost == sum(entry.cost for entry in retained.values())
        store.host.dial(OTHER[name])

    def forget_unwritten(self, name: str) -> None:
        for sequence in self.accepted[name].keys() - self.written[name]:
            del self.accepted[name][sequence]

    @rule(name=names)
    def abort(self, name: str) -> None:
        self.stores[name].host.abort(OTHER[name])
        self.world.run(0.001)

    @rule(name=names)
    def end(self, name: str) -> None:
        self.stores[name].host.end(OTHER[name])

    @rule(name=names, back=st.integers(0, 3))
    def cancel(self, name: str, back: int) -> None:
        if self.accepted[name]:
            sequence = sorted(self.accepted[name])[-1 - back % len(self.accepted[name])]
            self.stores[name].host.cancel(OTHER[name], sequence)

    @rule(name=names)
    def dial(self, name: str) -> None:
        host = self.stores[name].host
        for target in list(host.endpoint.targets):
            host.endpoint.remove_target(target)
        host.dials.clear()
        host.dial(OTHER[name])

    @rule(name=names, how=st.sampled_from(("ack", "ack", "reject")))
    def read(self, name: str, how: str) -> None:
        host = self.stores[name].host
        for delivery in host.take(OTHER[name], 3):
            self.handed_over(name, delivery)
            host.settle(OTHER[name], delivery, (7, "no") if how == "reject" else None)

    def handed_over(self, name: str, delivery: Delivery) -> None:
        """Once, or flagged: a dead process may have seen it."""
        identity = message_id(delivery)
        assert delivery[2] in self.payloads, "never accepted"
        flagged = delivery[4] is not None and delivery[4].redelivered
        assert flagged or identity not in self.seen[name], "again, and not flagged"
        self.seen[name].add(identity)

    @rule(seconds=st.sampled_from((0.001, 1.0, 40.0)))
    def run_on(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(end=st.sampled_from((0, 1)), count=st.sampled_from((10, 500, 1 << 20)))
    def deliver_and_cut(self, end: int, count: int) -> None:
        for wire in self.world.open_wires():
            wire.deliver(end, count)
            wire.cut()

    @rule()
    def expire(self) -> None:
        self.world.advance(400.0)

    @invariant()
    def nothing_leaves_before_it_is_written(self) -> None:
        for name in "ab":
            outbox = self.stores[name].host.session(OTHER[name]).outbox
            sent = range(outbox.first, outbox.transmitted + 1)
            entries = [sequence for sequence in sent if not (outbox.entry(sequence).skip or outbox.entry(sequence).fin)]
            assert set(entries) <= self.written[name]

    def teardown(self) -> None:
        """Both disks work again: everything durable that nobody gave up comes to its end."""
        for name in "ab":
            self.write(name)
            self.stores[name].sync = True
        for _ in range(30):
            for name in "ab":
                host = self.stores[name].host
                if not host.session(OTHER[name]).connected and not host.endpoint.targets:
                    self.dial(name)
                self.read(name, "ack")
            self.world.run(20.0)
        for name in "ab":
            assert self.stores[name].host.session(OTHER[name]).ledger.unread == 0


pytestmark = pytest.mark.slow
TestJournal = Journal.TestCase
TestJournal.settings = machine(examples=40, steps=30)
