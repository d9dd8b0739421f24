"""What applications settle, in any order and at any time, and what the other side's receipts come to."""

from __future__ import annotations

import pytest

from networkio_proto import (
    Config,
    MessageExpired,
    MessageNotHeld,
    MessagesRead,
    Outcome,
)
from networkio_testing import SimulatedMessage, SimulatedNode
from tests.proto.helpers import two
from tests.proto.helpers_session import acks, inject, noticed, restart
from tests.proto.helpers_wire import ACK, Node, Peer, ack, data, fin
from tests.scenarios.helpers import Scene, outcomes


def test_messages_may_be_acknowledged_in_any_order_and_read_is_the_part_without_holes() -> None:
    scene = Scene()
    sequences = scene.a.send("b", *(b"%d" % number for number in range(1, 7)))
    scene.world.run(1.0)
    held = scene.b.take("a", 6)
    session = scene.a.session("b")
    for index, read in ((4, 0), (2, 0), (0, 1), (1, 3), (5, 3), (3, 6)):
        scene.b.settle("a", held[index])
        scene.world.run(0.1)
        assert session.outbox.read == read
        assert outcomes(session, sequences) == [Outcome.READ] * read + [None] * (6 - read)
    assert [notice.through for notice in noticed(scene.a, MessagesRead)] == [1, 3, 6]
    scene.rest()


def test_what_is_acknowledged_twice_or_after_a_rejection_is_told_to_whoever_did_it() -> None:
    scene = Scene()
    scene.a.send("b", b"1", b"2")
    scene.world.run(1.0)
    one, other = scene.b.take("a", 2)
    scene.b.settle("a", one)
    scene.b.settle("a", other, (9, "no"))
    for delivery in (one, other):
        with pytest.raises(MessageNotHeld):
            scene.b.session("a").settle(delivery, scene.world.now)
    scene.world.run(1.0)
    assert outcomes(scene.a.session("b"), (1, 2)) == [Outcome.READ, Outcome.REJECTED]
    assert scene.a.session("b").ledger.read == scene.a.session("b").ledger.rejected == 1
    scene.rest()


def test_what_is_held_while_its_sender_restarts_can_be_acknowledged_and_the_new_one_hears_nothing_of_it() -> None:
    scene = Scene()
    scene.a.send("b", b"old")
    scene.world.run(1.0)
    [delivery] = scene.b.take("a")
    restart(scene.a)
    scene.world.run(5.0)
    scene.a.send("b", b"new")
    scene.b.settle("a", delivery)
    scene.world.run(1.0)
    assert outcomes(scene.a.session("b"), [1]) == [None]
    scene.rest()
    assert scene.got() == [b"new"]


def test_a_handler_may_acknowledge_inside_of_itself_and_the_rest_of_it_may_fail() -> None:
    pair = two()
    seen: list[object] = []

    def handler(message: SimulatedMessage) -> None:
        seen.append((message.data, message.attempt))
        if message.data == "settles":
            message.ack()
            raise RuntimeError("after that")

    pair.b.serve(handler)
    receipts = [pair.to_b.send(word) for word in ("settles", "next")]
    for receipt in receipts:
        receipt.read()
    assert seen == [("settles", 1), ("next", 1)]


def test_a_message_that_nobody_acknowledges_stays_unread_and_holds_up_nobody_behind_it() -> None:
    scene = Scene()
    scene.a.send("b", *(b"%d" % number for number in range(20)))
    scene.world.run(1.0)
    held = scene.b.take("a", 20)
    for delivery in held[1:]:
        scene.b.settle("a", delivery)
    scene.world.run(24 * 60.0)
    session = scene.a.session("b")
    assert (session.outbox.received, session.outbox.read, session.unacknowledged) == (20, 0, 20)
    assert session.ledger.failed == 0
    scene.b.settle("a", held[0])
    scene.rest()
    assert session.ledger.read == 20


def test_a_handler_that_fails_keeps_its_message_unread_and_a_poisonous_one_is_rejected_by_its_count() -> None:
    pair = two()
    attempts: list[int] = []

    def handler(message: SimulatedMessage) -> None:
        if message.data == "poison":
            attempts.append(message.attempt)
            raise ValueError("cannot be handled")

    pair.b.serve(handler, max_attempts=4)
    poison, good = pair.to_b.send("poison"), pair.to_b.send("good")
    good.read()
    assert (poison.sequence, good.sequence) == (1, 2)
    assert attempts == [1, 2, 3, 4]
    session = pair.to_b.session
    assert outcomes(session, (1, 2)) == [Outcome.REJECTED, Outcome.READ]
    failure = session.failure(1)
    assert failure is not None
    assert "ValueError" in failure.reason or "cannot be handled" in failure.reason


def test_a_receiver_that_dies_in_its_handler_leaves_the_message_unread() -> None:
    pair = two()

    def handler(message: SimulatedMessage) -> None:
        pair.b.host.crash()

    pair.b.serve(handler)
    receipt = pair.to_b.send("fatal")
    with pytest.raises(TimeoutError):
        receipt.read(timeout=30.0)
    pair.b.host.restart()
    again = SimulatedNode(pair.b.host)
    message = again.peer("a").receive(timeout=60.0)
    assert (message.data, message.redelivered) == ("fatal", True)
    message.ack()
    receipt.read(timeout=5.0)


@pytest.mark.parametrize("burst", [1, 2, 63, 64, 65, 200])
def test_the_tail_of_a_burst_is_acknowledged_within_its_time(burst: int) -> None:
    scene = Scene()
    scene.a.send("b", *[b"x"] * burst)
    scene.wire.deliver(0)
    scene.world.advance(scene.b.config.ack_delay)
    assert acks(scene.world, 1)[-1][0] == burst
    scene.wire.deliver(1)
    assert scene.a.session("b").outbox.received == burst
    scene.rest()


def test_who_asks_for_it_hears_at_once() -> None:
    scene = Scene()
    scene.a.send("b", b"1")
    scene.wire.deliver(0)
    assert acks(scene.world, 1) == []
    scene.a.send("b", b"2", ack_now=True)
    scene.wire.deliver(0)
    assert [told[0] for told in acks(scene.world, 1)] == [2]
    scene.rest()


# -- positions that cannot be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "closed"),
    [
        pytest.param(ack(3, 0), True, id="received beyond what was sent"),
        pytest.param(ack(2, 3), True, id="read beyond received"),
        pytest.param(ack(0, 0), False, id="of nothing"),
        pytest.param(ack(2, 1) + ack(1, 0), False, id="going backwards"),
        pytest.param(ack(2, 2, credit=0), False, id="credit going backwards"),
        pytest.param(fin(1) + ack(2, 1), False, id="after the end of the other direction"),
    ],
)
def test_an_acknowledgement_is_believed_where_it_can_be_true(said: bytes, closed: bool) -> None:
    node, peer = Node(), Peer()
    line = node.connect(peer)
    node.send(peer, b"1", b"2")
    line.raw()
    line.say(said)
    outbox = node.session(peer).outbox
    assert line.live is not closed
    if closed:
        assert (outbox.received, outbox.read) == (0, 0)
    else:
        assert outbox.received in (0, 2)
        assert outbox.received >= outbox.read
        line.say(ack(2, 2))
        assert outcomes(node.session(peer), (1, 2)) == [Outcome.READ] * 2


def test_an_acknowledgement_before_anything_was_sent_and_one_after_the_end_change_nothing() -> None:
    node, peer = Node(), Peer()
    line = node.connect(peer)
    line.raw()
    line.say(ack(0, 0), data(1, b"x"))
    node.session(peer).end(node.now)
    node.pump()
    line.say(ack(1, 1))  # covers our FIN
    line.say(ack(1, 1))
    assert line.live
    assert node.session(peer).outbox.fin_read
    assert ACK in line.kinds()


def test_a_false_acknowledgement_on_the_way_of_two_honest_nodes_costs_a_connection_and_no_message() -> None:
    scene = Scene()
    scene.a.send("b", b"1", b"2")
    inject(scene.world, 1, ack(7, 7))
    assert scene.world.live("a", "b") is None
    assert outcomes(scene.a.session("b"), (1, 2)) == [None, None]
    scene.rest()
    assert scene.got() == [b"1", b"2"]


# -- receipts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["abort", "abort of the peer", "expiry", "end"])
def test_of_thousands_of_receipts_each_gets_exactly_one_end(end: str) -> None:
    count = 5000
    config = Config(outbox_limit=16 << 20)
    scene = Scene(config, b=Config(session_expiry=600.0))
    told: list[tuple[int, Outcome]] = []
    session = scene.a.session("b")
    session.outbox.on_outcome = lambda sequence, outcome: told.append((sequence, outcome))
    sequences = scene.a.send("b", *[b"x" * 10] * count)
    scene.world.run(1.0)
    assert scene.b.session("a").unread >= 3000
    read = len(scene.b.read("a", 1000))
    scene.world.run(1.0)
    assert len(told) == read == 1000
    if end == "abort":
        scene.a.abort("b")
    elif end == "abort of the peer":
        scene.b.abort("a")
        scene.world.run(1.0)
    elif end == "expiry":
        scene.wire.cut()
        scene.b.listening = False
        scene.world.run(700.0)
    else:
        scene.a.end("b")
        while session.unacknowledged:
            scene.read()
            scene.world.run(0.1)
    other = {"expiry": Outcome.EXPIRED, "end": Outcome.READ}.get(end, Outcome.ABANDONED)
    assert sorted(sequence for sequence, _ in told if sequence <= count) == sequences
    assert [outcome for _, outcome in sorted(told)][: count] == [Outcome.READ] * 1000 + [other] * (count - 1000)
    ledger = session.ledger
    assert (ledger.accepted, ledger.read, ledger.unread) == (count, count if end == "end" else 1000, 0)
    scene.world.run(3600.0)
    assert len([1 for sequence, _ in told if sequence <= count]) == count


def test_waiting_for_a_receipt_ends_with_the_outcome_and_not_before() -> None:
    pair = two()
    receipt = pair.to_b.send("x", ttl=5.0)
    pair.world.live("a", "b").black_hole()  # type: ignore[union-attr]
    pair.b.host.listening = False
    late = pair.to_b.send("y", ttl=5.0)
    with pytest.raises(TimeoutError):
        receipt.read(timeout=20.0)
    pair.b.host.listening = True
    for waiting in (receipt, late):
        with pytest.raises(MessageExpired):
            waiting.read(timeout=120.0)
    third = pair.to_b.send("z")
    with pytest.raises(TimeoutError):
        third.read(timeout=1.0)
    assert pair.to_a.receive().data == "z"
