"""Stories that broke earlier rules, each with the rule that mends it; without that rule the story breaks again.

The first thirteen are about choosing between connections and stand in ``tests/proto/test_collision.py``; the others,
about journals and outcomes, stand here.  :data:`RULES` says for each which text of the core is its rule, and
``test_the_story_breaks_again_without_its_rule`` takes that out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest

from networkio_proto import Config, Outcome
from tests.proto import test_collision as collision
from tests.proto.helpers_session import inject, restart
from tests.proto.helpers_wire import DATA, REDELIVERED, REJECT, Line, Node, Peer, ack, data
from tests.scenarios.helpers import Scene, drop_rule, flags, outcomes, payloads, redelivered
from tests.scenarios.test_journal import Desk, until

# -- stories ----------------------------------------------------------------------------------------------------------


def test_a_run_that_was_merely_announced_does_not_speak_for_what_an_earlier_one_sent() -> None:
    """An old copy of the sender's journal gives used numbers to new messages.  If the receiver echoed the new run with
    the positions of the old one, they would count as read, and nobody ever saw them."""
    desk = Desk("a")
    desk.send(b"1", b"2", b"3")
    desk.connect(1.0)
    assert desk.read() == [b"1", b"2", b"3"]
    desk.connect(1.0)
    desk.s.restart(until(desk.s.records, 1))
    new = desk.send(b"new 2", b"new 3")
    assert new == [2, 3]
    desk.connect()
    assert desk.ends(*new) == [None, None]
    assert desk.read()[-2:] == [b"new 2", b"new 3"]
    desk.connect(1.0)
    assert desk.ends(*new) == [Outcome.READ] * 2


def test_the_last_positions_of_a_session_that_was_given_up_do_not_speak_for_numbers_used_again() -> None:
    """The receiver aborts while nobody is connected, and the sender comes back with an old copy of its journal."""
    desk = Desk("a")
    desk.send(b"1", b"2", b"3")
    desk.connect(1.0)
    assert desk.read() == [b"1", b"2", b"3"]
    desk.connect(1.0)
    desk.s.host.crash()
    desk.world.run(1.0)
    desk.r.host.abort("a")
    desk.s.restart(until(desk.s.records, 1))
    new = desk.send(b"new 2", b"new 3")
    desk.connect()
    assert desk.ends(*new) == [None, None]
    assert desk.read()[-2:] == [b"new 2", b"new 3"]
    desk.connect(1.0)
    assert desk.ends(*new) == [Outcome.READ] * 2


def test_the_last_positions_of_a_session_do_not_pass_a_rejection_that_was_never_told() -> None:
    scene = Scene()
    scene.a.send("b", b"good", b"bad", b"good too")
    scene.wire.deliver(0)
    good, bad, after = scene.b.take("a", 3)
    scene.b.settle("a", good)
    scene.b.settle("a", bad, (7, "no"))
    scene.b.settle("a", after)
    scene.wire.cut()  # and with it the REJECT
    scene.b.abort("a")
    scene.world.run(60.0)
    session = scene.a.session("b")
    assert outcomes(session, (1, 2, 3)) == [Outcome.READ, Outcome.ABANDONED, Outcome.ABANDONED]
    assert session.failure(2).seen == "unknown"  # type: ignore[union-attr]


def test_rejections_of_a_dead_process_s_messages_leave_its_successor_its_window() -> None:
    """Nobody is left whose word could bring that credit back."""
    window = 10_000
    scene = Scene(Config(window=window, window_guaranteed=window, window_max=window))
    scene.a.send("b", *[bytes(1000 - 64)] * 10)
    scene.wire.deliver(0)
    for delivery in scene.b.take("a", 10):
        scene.b.settle("a", delivery, (7, "no"))
    assert scene.b.session("a").unsettled == window
    scene.wire.pipes[1].data.clear()
    restart(scene.a)  # it never heard of the rejections
    scene.a.send("b", *[b"new"] * 30)
    scene.world.run(60.0)
    assert scene.b.session("a").unread == 30
    assert scene.b.session("a").unsettled == 30 * 67
    scene.rest()
    assert scene.got() == [b"new"] * 30


def test_a_durable_receiver_that_knows_less_than_it_once_said_gets_the_difference_flagged() -> None:
    """Its old copy was put back; what it had and lost was perhaps seen."""
    node, before, after = Node(), Peer("a", life=1), Peer("a", life=2)
    node.send("a", b"1", b"2", b"3", b"4")
    outbox = node.session("a").outbox
    line = node.connect(before, durable=True)
    line.say(ack(3, 0))
    line.lose()
    echo = {"outbox": outbox.outbox_id, "run": outbox.run, "received": 1, "read": 0, "first": 1}
    line = node.connect(after, durable=True, inbox=echo)
    assert heard(line) == [(2, True), (3, True), (4, False)]


def test_a_durable_receiver_that_comes_back_with_nothing_gets_everything_that_was_sent_flagged() -> None:
    """Its disk is gone, and with it what it knew of the messages that its application may have seen."""
    node, before, after = Node(), Peer("a", life=1), Peer("a", life=2)
    node.send("a", b"1", b"2", b"3")
    line = node.connect(before, durable=True)
    line.lose()
    node.send("a", b"4")  # nobody was there
    line = node.connect(after, durable=True)
    assert heard(line) == [(1, True), (2, True), (3, True), (4, False)]


def heard(line: Line) -> list[tuple[int, bool]]:
    """The messages that were sent, and which of them are flagged."""
    return [(item.u64(), bool(item.flags & REDELIVERED)) for item in line.heard() if item.kind == DATA]


@pytest.mark.parametrize("policy", ["redeliver", "report"])
def test_a_sender_with_a_journal_that_restarts_knows_that_the_receiver_is_the_same(policy: str) -> None:
    """Else everything would be flagged, or given up, though nothing can come twice."""
    desk = Desk("a")
    desk.s.host.config = Config(on_peer_restart=policy)  # type: ignore[arg-type]
    desk.s.restart()
    desk.connect()
    sequences = desk.send(b"1", b"2", b"3")
    desk.connect(1.0)
    assert desk.read(1) == [b"1"]
    desk.connect(1.0)
    for wire in desk.world.open_wires():
        wire.pipes[0].data.clear()
    desk.s.restart()
    assert desk.s.host.session("b").unacknowledged == 2
    desk.send(b"4")
    desk.connect()
    assert desk.ends(*sequences) == [Outcome.READ, None, None]
    taken = desk.r.host.take("a", 9)
    assert payloads(taken) == [b"2", b"3", b"4"]
    assert flags(taken) == [False] * 3
    assert desk.s.host.session("b").outbox.marked == 0


def test_an_old_copy_with_an_outbox_that_was_left_since_gives_no_old_numbers_to_new_messages() -> None:
    """They would be taken for repetitions, dropped, and told as read."""
    desk = Desk("b")
    desk.send(b"1", b"2", b"3")
    desk.connect(1.0)
    assert desk.read() == [b"1", b"2", b"3"]
    desk.connect(1.0)
    copy = until(desk.s.records, 1)
    left = desk.outbox_id()
    desk.s.restart(copy)
    desk.send(b"in another outbox")
    desk.connect()
    assert desk.outbox_id() != left
    assert desk.read()[-1] == b"in another outbox"
    desk.connect(1.0)
    desk.s.restart(copy)
    assert desk.outbox_id() == left
    new = desk.send(b"new 2", b"new 3")
    desk.connect()
    assert desk.ends(*new) == [None, None]
    taken = desk.r.host.take("b", 9)
    assert payloads(taken)[-2:] == [b"new 2", b"new 3"]
    assert all(redelivered(delivery) for delivery in taken[:-2])
    assert desk.outbox_id() != left


def test_an_old_copy_from_before_a_rejection_that_both_sides_had_settled_is_not_told_that_it_was_read() -> None:
    desk = Desk("a")
    [sequence] = desk.send(b"bad")
    desk.connect(1.0)
    copy = list(desk.s.records)
    [delivery] = desk.r.host.take("a")
    desk.r.host.settle("a", delivery, (7, "no"))
    desk.connect(1.0)
    assert desk.ends(sequence) == [Outcome.REJECTED]
    assert not desk.r.host.session("a").inbox.rejects  # type: ignore[union-attr]
    desk.s.restart(copy)
    assert desk.ends(sequence) == [None]
    desk.connect()
    assert desk.ends(sequence) == [None]
    [delivery] = desk.r.host.take("a")
    assert redelivered(delivery)
    desk.r.host.settle("a", delivery, (7, "no"))
    desk.connect(1.0)
    assert desk.ends(sequence) == [Outcome.REJECTED]


def test_a_rejection_of_what_the_sender_has_settled_long_ago_is_settled_at_once() -> None:
    """It would wait for a word that has been said already, and hold credit for ever."""
    node, peer = Node(), Peer("a")
    line = node.connect(peer)
    line.say(data(1, b"one"), data(2, bytes(1000)))
    session = node.session(peer)
    held = session.take(2)
    line.lose()
    line = node.connect(peer, first=3, next=3)
    line.raw()
    session.settle(held[0], node.now)
    session.settle(held[1], node.now, reject=(7, "no"))
    node.pump()
    node.advance(1.0)
    assert REJECT not in line.kinds()
    assert session.unsettled == 0
    assert session.inbox.read == 2  # type: ignore[union-attr]
    assert session.inbox.idle  # type: ignore[union-attr]


def test_what_is_left_of_an_old_outbox_is_handed_over_before_its_flagged_copies() -> None:
    """The sender's journal went back in time while the receiver held something unread."""
    desk = Desk("a")
    desk.send(b"1", b"2", b"3")
    desk.connect(1.0)
    assert desk.read(1) == [b"1"]
    desk.s.restart(until(desk.s.records, 2))
    desk.send(b"new")
    desk.connect()
    taken = desk.r.host.take("a", 9)
    assert payloads(taken) == [b"2", b"3", b"1", b"2", b"new"]
    assert flags(taken) == [False, False, True, True, False]


def test_an_old_copy_that_is_put_back_twice_brings_no_message_after_its_flagged_copies() -> None:
    """The sender states the outbox that it left after the first time, and the receiver still holds that."""
    desk = Desk("a")
    desk.send(b"1", b"2")
    desk.connect(1.0)
    copy = until(desk.s.records, 1)
    for _ in range(2):
        desk.s.restart(copy)
        desk.connect()
    taken = desk.r.host.take("a", 9)
    assert payloads(taken) == [b"1", b"2", b"1", b"1"]
    assert flags(taken) == [False, False, True, True]


def test_duplicates_on_the_way_of_two_honest_nodes_take_no_credit_for_good() -> None:
    """Somebody on the way repeats a message again and again."""
    window = 4000
    scene = Scene(Config(window=window, window_guaranteed=window, window_max=window))
    scene.a.send("b", bytes(936))
    said = bytes(scene.wire.pipes[0].data)
    scene.world.run(1.0)
    scene.read()
    for _ in range(20):
        inject(scene.world, 0, said)
        scene.world.run(0.1)
        scene.a.send("b", b"x")
        scene.world.run(0.1)
        scene.read()
    assert scene.got() == [bytes(936)] + [b"x"] * 20
    assert scene.a.session("b").connections == 1
    scene.rest()


# -- their rules ------------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """A story, and the rule in the core that it needs: in that module this text stands once; without it, that."""

    story: Callable[[], None]
    module: str
    old: str
    new: str


here = globals()
_AT_ATTACH = "            inbox.passed(attach.first)\n        if durable and "
_OTHER_INCARNATION = "            if other or (session.arbitration.arbiter and rival.dialer):\n"
_LIVE_DIALER = "if session.connection is not None and not session.finished:"
_LATE_DIAL = "        return newcomer.dial <= last.dial"
_LATE_SEEN = "            return newcomer.seen < last.generation\n"

RULES = {
    "a live dialer does not attach": Rule(
        collision.test_counterexample_01_facts_from_before_a_connection_are_not_stated_after_it,
        "negotiation", _LIVE_DIALER, "if False:",
    ),
    "a dial that had not seen the present connection is stale": Rule(
        collision.test_counterexample_02_stale_facts_change_neither_credit_nor_verdict,
        "arbiter", _LATE_SEEN, "            return False\n",
    ),
    "a dialer's credit includes what was settled since": Rule(
        collision.test_counterexample_02_a_dialer_judges_by_what_it_knows_when_the_answer_comes,
        "attachment", "untold or connection.settled_told != self._settled()", "untold",
    ),
    "the last connection taken is remembered when it is dead": Rule(
        partial(
            collision.test_counterexample_03_an_attach_that_is_read_late_is_stale_even_if_nothing_is_live, "ATTACH"
        ),
        "arbiter", _LATE_DIAL, "        return False",
    ),
    "taking closes what another incarnation has pending": Rule(
        partial(collision.test_counterexample_04_a_dead_process_is_not_taken_after_its_successor, "a"),
        "endpoint", _OTHER_INCARNATION, "            if session.arbitration.arbiter and rival.dialer:\n",
    ),
    "taking closes the dials to a dead arbiter": Rule(
        collision.test_counterexample_05_the_answer_of_a_dead_arbiter_is_not_taken_later,
        "endpoint", _OTHER_INCARNATION, "            if session.arbitration.arbiter and rival.dialer:\n",
    ),
    "an inbox that holds nothing is nil": Rule(
        partial(collision.test_counterexample_06_a_receiver_that_restarted_says_so_though_its_answer_is_lost, "a"),
        "inboxes", "if told and (inbox is self.present", "if (inbox is self.present",
    ),
    "a mark lasts": Rule(
        collision.test_counterexample_07_a_mark_lasts_over_a_cut_and_a_normal_resume,
        "attachment", "        receiver = connection.peer_incarnation, attach.durable\n",
        "        receiver = connection.peer_incarnation, attach.durable\n"
        "        outbox.marked = outbox.marked if other else 0\n",
    ),
    "taking closes every parked connection": Rule(
        collision.test_counterexample_08_a_parked_connection_is_not_taken_after_another_of_its_process,
        "endpoint", "        for rival in parked:\n", "        for rival in parked[:0]:\n",
    ),
    "seen is that of the process that answered": Rule(
        collision.test_counterexample_09_seen_speaks_of_the_process_that_it_is_told_to,
        "arbiter", "return self._seen.get(incarnation, 0)", "return max(self._seen.values(), default=0)",
    ),
    "what a duplicate cost comes back": Rule(
        test_duplicates_on_the_way_of_two_honest_nodes_take_no_credit_for_good,
        "inbox", "and not self.expect(sequence):\n            return False\n",
        "and not self.expect(sequence):\n            self.unsettled += cost\n            return False\n",
    ),
    "what a duplicate cost comes back, to a peer made of bytes": Rule(
        collision.test_counterexample_10_duplicates_do_not_eat_credit,
        "inbox", "and not self.expect(sequence):\n            return False\n",
        "and not self.expect(sequence):\n            self.unsettled += cost\n            return False\n",
    ),
    "a follower keeps the dial on which it attached": Rule(
        collision.test_counterexample_11_a_follower_does_not_close_its_claimed_dial_for_another_connection,
        "endpoint", _OTHER_INCARNATION, "            if other or rival.dialer:\n",
    ),
    "the arbiter closes its own dials": Rule(
        collision.test_counterexample_11_the_arbiter_closes_its_own_dials_when_it_takes_one,
        "endpoint", _OTHER_INCARNATION, "            if other:\n",
    ),
    "the positions of an outbox that was left are kept": Rule(
        collision.test_counterexample_12_who_returns_after_a_twin_is_not_heard_twice,
        "inboxes", "if box is not inbox and not (box.empty and box.idle)]", "if box is not inbox and box.unread]",
    ),
    "each resume says where the receiver stands": Rule(
        collision.test_counterexample_13_unread_bytes_of_the_old_connection_are_not_delivered_twice,
        "attachment", "            outbox.resume(inbox.received)\n", "            outbox.resume(outbox.sent)\n",
    ),
    "the run comes with the first sequence taken": Rule(
        test_a_run_that_was_merely_announced_does_not_speak_for_what_an_earlier_one_sent,
        "inboxes", _AT_ATTACH, _AT_ATTACH.replace("passed(attach.first)\n", "passed(attach.first)\n"
                                                  "            inbox.run = attach.run\n"),
    ),
    "ended positions are held against the run": Rule(
        test_the_last_positions_of_a_session_that_was_given_up_do_not_speak_for_numbers_used_again,
        "resume", "if _impossible(mine, entry.run, entry.received, entry.first):", "if False:",
    ),
    "ended positions stop below a rejection": Rule(
        test_the_last_positions_of_a_session_do_not_pass_a_rejection_that_was_never_told,
        "inbox", "received, self.told_read,", "received, self.stated_read,",
    ),
    "rejections of an outbox that was left hold no credit": Rule(
        test_rejections_of_a_dead_process_s_messages_leave_its_successor_its_window,
        "inbox", "            self.unsettled -= reject.cost\n", "            self.unsettled -= 0\n",
    ),
    "less than was known is marked": Rule(
        test_a_durable_receiver_that_knows_less_than_it_once_said_gets_the_difference_flagged,
        "attachment", "        elif position < outbox.received:\n", "        elif False:\n",
    ),
    "a durable receiver that echoes nothing is like any other": Rule(
        test_a_durable_receiver_that_comes_back_with_nothing_gets_everything_that_was_sent_flagged,
        "attachment", "if other and not (outbox.receiver_durable and echoed):",
        "if other and not outbox.receiver_durable:",
    ),
    "the receiver is on disk, for flags": Rule(
        partial(test_a_sender_with_a_journal_that_restarts_knows_that_the_receiver_is_the_same, "redeliver"),
        "journal", "= record.incarnation, record.durable\n", "= bytes(16), record.durable\n",
    ),
    "the receiver is on disk, for losses": Rule(
        partial(test_a_sender_with_a_journal_that_restarts_knows_that_the_receiver_is_the_same, "report"),
        "journal", "= record.incarnation, record.durable\n", "= bytes(16), record.durable\n",
    ),
    "an outbox that the journal never had is a roll-back": Rule(
        test_an_old_copy_with_an_outbox_that_was_left_since_gives_no_old_numbers_to_new_messages,
        "resume", "    if mine.history is not None:\n", "    if False and mine.history is not None:\n",
    ),
    "an echo of a first beyond one's own is a roll-back": Rule(
        test_an_old_copy_from_before_a_rejection_that_both_sides_had_settled_is_not_told_that_it_was_read,
        "resume", " or first > mine.first", "",
    ),
    "a rejection below first is settled": Rule(
        test_a_rejection_of_what_the_sender_has_settled_long_ago_is_settled_at_once,
        "inbox", "        if sequence < self.first:\n            self.unsettled",
        "        if False:\n            self.unsettled",
    ),
    "the old outbox goes first": Rule(
        test_what_is_left_of_an_old_outbox_is_handed_over_before_its_flagged_copies,
        "inboxes", "        for inbox in self.in_turn():\n            while",
        "        for inbox in self.in_turn()[::-1]:\n            while",
    ),
    "an outbox that is stated again keeps its turn": Rule(
        test_an_old_copy_that_is_put_back_twice_brings_no_message_after_its_flagged_copies,
        "inboxes", "if not inbox.holding:", "if True:",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_the_story_breaks_again_without_its_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = RULES[name]
    drop_rule(monkeypatch, [(rule.module, rule.old, rule.new)])
    with pytest.raises((AssertionError, ValueError, KeyError)):
        rule.story()
    monkeypatch.undo()
    rule.story()


def test_every_story_of_this_module_has_its_rule() -> None:
    told = {getattr(rule.story, "func", rule.story) for rule in RULES.values()}
    stories = {value for name, value in here.items() if name.startswith("test_") and value.__module__ == __name__}
    stories |= {value for name, value in vars(collision).items() if name.startswith("test_counterexample_")}
    of_the_rules = {test_the_story_breaks_again_without_its_rule, test_every_story_of_this_module_has_its_rule}
    assert stories - of_the_rules == told
