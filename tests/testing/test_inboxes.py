"""The judge of durable inboxes: each promise is broken once, and it notices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from networkio_proto.inbox import Inbox
from networkio_proto.journal import InboxMoved, SessionJournal
from networkio_proto.session import Session
from networkio_testing.disk import Disk
from networkio_testing.durable import DurableJudge
from networkio_testing.judges import Violation
from networkio_testing.swarm import draw, play
from networkio_testing.world import World


def conversation() -> DurableJudge:
    """A sender that is restarted, and a receiver with a durable inbox that is restarted after it; all is read."""
    world = World()
    judge = DurableJudge(world)
    a, b = world.host("a"), world.host("b", disk=Disk(inbox=True))
    assert b.disk is not None
    b.dial("a")
    world.run(1.0)
    a.send("b", b"1", b"2", b"3")
    world.run(1.0)
    for delivery in b.take("a", 1):
        b.settle("a", delivery)
    world.run(1.0)
    a.crash()
    a.restart()
    world.run(60.0)
    a.send("b", b"4")
    b.disk.delay = inf
    world.run(1.0)
    b.read("a", 1)
    b.disk.delay = 0.0
    b.disk.finish(b)
    b.pump()
    world.run(1.0)
    b.crash()
    b.restart()
    b.dial("a")
    world.run(60.0)
    while b.read("a", 10):
        world.run(1.0)
    world.run(60.0)
    judge.at_rest()
    return judge


def test_where_all_is_well_it_has_no_objection() -> None:
    tally = conversation().tally
    assert (tally["kept"], tally["from disk"]) == (4, 2)


def _hand_over_early(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(self: Inbox, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        self.arriving = self.ready

    def came(self: Session, fresh: int, urgent: bool, now: float) -> None:
        received(self, fresh, urgent, now)
        self._ready(now)

    made, received = Inbox.__init__, Session.received_something
    monkeypatch.setattr(Inbox, "__init__", begin)
    monkeypatch.setattr(Session, "received_something", came)


def _state_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inbox, "stated_received", property(lambda self: self.received))


def _forget_old_inboxes(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: Callable[[SessionJournal, float], InboxMoved] = SessionJournal._moved
    monkeypatch.setattr(SessionJournal, "_moved", lambda self, room: replace(moved(self, room), old=()))


def _hand_over_unflagged(monkeypatch: pytest.MonkeyPatch) -> None:
    def admit(self: Inbox, deliveries: Any) -> None:
        plain(self, [(*each[:4], each[4] and replace(each[4], redelivered=False)) for each in deliveries])

    plain = Inbox.admit_stored
    monkeypatch.setattr(Inbox, "admit_stored", admit)


@pytest.mark.parametrize(
    ("mistake", "objection"),
    [
        (_hand_over_early, "I10 .* hands over 1 from a, which is not on disk"),
        (_state_early, "I10 .* as received, on disk is 0"),
        (_forget_old_inboxes, "I10 .* on disk, and nobody got it"),
        (_hand_over_unflagged, "I9 .* was on the disk of .* and is not flagged"),
    ],
)
def test_each_mistake_is_noticed(
    mistake: Callable[[pytest.MonkeyPatch], None], objection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    with pytest.raises(Violation, match=objection):
        conversation()


def test_games_have_hosts_with_durable_inboxes_and_their_judges_see_what_comes_from_there() -> None:
    seen, seed = 0, 0
    while seen < 20:
        tape = draw(seed, 200)
        seed += 1
        if tape.world.get("inboxes"):
            seen += play(tape).judge.tally["from disk"]
