"""What an application holds: messages, receipts and iterations, as a driver with a virtual clock shows them."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest

from networkio_proto import (
    DecodeError,
    EncodeError,
    GapRange,
    IteratorBusy,
    JournalFull,
    MessageCancelled,
    MessageNotHeld,
    MessageRejected,
    NodeClosed,
    NoMessage,
    NotARequest,
    Outcome,
    SkipReason,
    UsageError,
)
from networkio_proto.handles import IteratorHandle
from networkio_testing.node import SimulatedMessage
from tests.proto.helpers import Moody, Two, Waiting, two
from tests.proto.helpers_node import Net, Slate


def said(pair: Two, *things: object, **options: object) -> None:
    """Let "a" send things, and let them arrive."""
    for thing in things:
        pair.to_b.send_nowait(thing, **options)  # type: ignore[arg-type]
    pair.world.run(1.0)


def waiting_to_be_taken(pair: Two) -> list[tuple[object, int]]:
    """Take what is there: the data, and how often it was handed over."""
    taken = []
    while (message := pair.to_a.receive_nowait(default=None)) is not None:
        taken.append((message.data, message.attempt))
    return taken


# -- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_shows_what_was_sent() -> None:
    pair = two()
    said(pair, {"hello": [1, 2]}, headers={"kind": "test"})
    got = pair.to_a.receive_nowait()
    assert got.data == {"hello": [1, 2]}
    assert got.data is got.data  # decoded once
    assert got.raw == pair.a.codec.encode({"hello": [1, 2]})
    assert (got.sequence, got.headers, got.attempt, got.peer) == (1, {"kind": "test"}, 1, pair.to_a)
    assert (got.redelivered, got.gap, got.peer_restarted, got.wants_reply) == (False, (), None, False)
    assert repr(got) == f"<Message 1 from a: {len(got.raw)} bytes held>"


def test_a_plain_message_has_nothing_special() -> None:
    pair = two()
    said(pair, None)
    got = pair.to_a.receive_nowait()
    assert got.data is None
    assert (got.headers, got.attempt, got.redelivered, got.gap, got.peer_restarted) == ({}, 1, False, (), None)


def test_raw_bytes_are_not_decoded() -> None:
    pair = two()
    said(pair, b"\xc1 no msgpack", raw=True)
    assert pair.to_a.read_nowait() == b"\xc1 no msgpack"


def test_what_cannot_be_decoded_can_still_be_read_raw_and_settled() -> None:
    pair = two()
    sequence = pair.to_b.session.send(b"\xc1", pair.world.now)
    pair.world.hosts["a"].pump()
    pair.world.run(1.0)
    got = pair.to_a.receive_nowait()
    for _ in range(2):
        with pytest.raises(DecodeError, match=r"message 1 from a cannot be decoded: .* read raw, rejected or ack"):
            _ = got.data
    assert got.raw == b"\xc1"
    assert got.held
    got.reject("garbage", 7)
    pair.world.run(1.0)
    assert pair.to_b.receipt(sequence).outcome is Outcome.REJECTED


def test_whatever_the_codec_raises_says_that_it_cannot_be_decoded() -> None:
    pair = two()
    said(pair, "bad")
    got = pair.to_a.receive_nowait()
    error = ZeroDivisionError("\x1bmine")
    pair.b.codec = Moody(bad=error)
    for _ in range(2):
        with pytest.raises(DecodeError, match=r"1 from a cannot be decoded: ZeroDivisionError: \\x1bmine; ") as told:
            _ = got.data
        assert told.value.__cause__ is error
    pair.b.codec = Moody(bad=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        _ = got.data
    assert got.held
    pair.b.codec = Moody()
    assert got.data == "bad"


def test_ids_name_a_message_and_no_other() -> None:
    pair = two()
    said(pair, 0, 1, 2)
    ids = [pair.to_a.receive_nowait().id for _ in range(3)]
    outbox_id = pair.to_b.session.outbox.outbox_id
    assert ids == [f"{outbox_id.hex()}-{number}" for number in (1, 2, 3)]


def test_a_gap_is_told_with_the_message_after_it() -> None:
    pair = two(connected=False)
    receipts = [pair.to_b.send_nowait(number) for number in range(3)]
    assert receipts[1].cancel()
    pair.a.connect("b", "b")
    pair.world.run(1.0)
    assert pair.to_a.receive_nowait().gap == ()
    assert pair.to_a.receive_nowait().gap == (GapRange(2, 2, SkipReason.CANCELLED),)
    with pytest.raises(MessageCancelled):
        receipts[1].read()


def test_settling_twice_the_same_way_is_harmless_and_otherwise_refused() -> None:
    pair = two()
    said(pair, 0, 1, 2)
    acked, rejected, released = (pair.to_a.receive_nowait() for _ in range(3))
    for _ in range(2):
        acked.ack()
        rejected.reject("no")
        released.release()
    assert (acked.settled, rejected.settled, released.settled) == (True, True, False)
    assert (acked.held, rejected.held, released.held) == (False, False, False)
    assert repr(acked).endswith("acknowledged>")
    with pytest.raises(MessageNotHeld, match="message 1 from a was acknowledged before"):
        acked.reject()
    with pytest.raises(MessageNotHeld, match="message 2 from a was rejected before"):
        rejected.release()
    with pytest.raises(MessageNotHeld, match="message 3 from a was released before"):
        released.ack()
    assert pair.to_a.receive_nowait().attempt == 2


def test_a_block_acknowledges_and_releases_on_an_exception_unless_it_settled_by_itself() -> None:
    pair = two()
    said(pair, 0, 1)
    with pytest.raises(ZeroDivisionError), pair.to_a.receive_nowait() as message:
        raise ZeroDivisionError
    assert message.attempt == 1
    with pair.to_a.receive_nowait() as message:
        assert (message.data, message.attempt) == (0, 2)
    with suppress(ZeroDivisionError), pair.to_a.receive_nowait() as message:
        message.reject("no")
        raise ZeroDivisionError
    pair.world.run(1.0)
    assert [pair.to_b.receipt(number).outcome for number in (1, 2)] == [Outcome.READ, Outcome.REJECTED]


def test_only_a_request_can_be_replied_to() -> None:
    pair = two()
    said(pair, 0)
    message = pair.to_a.receive_nowait()
    with pytest.raises(NotARequest, match="message 1 from a is no request"):
        message.reply(1)
    assert message.held
    assert pair.to_a.unacknowledged == 0


# -- receipts ---------------------------------------------------------------------------------------------------------


def test_a_receipt_follows_its_message() -> None:
    pair = two(connected=False)
    sent = pair.to_b.send_nowait(1)
    assert (sent.outcome, sent.failure, sent.sequence, sent.peer) == (None, None, 1, pair.to_b)
    assert repr(sent) == "<Receipt 1 to b: under way>"
    received, read = Waiting(pair.a, sent._until(read=False)), Waiting(pair.a, sent._until(read=True))
    pair.a.connect("b", "b")
    pair.world.run(1.0)
    assert received.look().over
    assert not read.woken
    pair.to_a.receive_nowait().ack()
    pair.world.run(1.0)
    assert read.look().over
    assert sent.outcome is Outcome.READ
    assert repr(sent) == "<Receipt 1 to b: read>"
    assert pair.left() == []


def test_a_receipt_raises_what_became_of_its_message() -> None:
    pair = two()
    sent = pair.to_b.send_nowait(1)
    waiting = Waiting(pair.a, sent._until(read=True))
    pair.to_a.receive(1.0).reject("not today", 42)
    pair.world.run(1.0)
    with pytest.raises(MessageRejected, match="not today"):
        _ = waiting.look().result
    for wait in (sent.received, sent.read):
        with pytest.raises(MessageRejected, match="not today") as caught:
            wait()
        assert (caught.value.code, caught.value.seen, caught.value.sequence) == (42, "yes", 1)
    assert sent.failure is not None
    assert repr(sent) == "<Receipt 1 to b: rejected>"


def test_whoever_waits_for_a_receipt_too_long_hears_what_it_waits_for() -> None:
    pair = two()
    sent = pair.to_b.send_nowait(1)
    pair.world.run(1.0)
    waiting = Waiting(pair.a, sent._until(read=True)).time_up()
    with pytest.raises(TimeoutError, match=r"not within 1 s: the application of b has not acknowledged message 1"):
        _ = waiting.result
    assert pair.left() == []


def test_a_wait_for_a_receipt_that_is_cancelled_leaves_the_message_alone() -> None:
    pair = two()
    sent = pair.to_b.send_nowait(1)
    Waiting(pair.a, sent._until(read=True)).cancel()
    assert pair.left() == []
    assert pair.to_a.read(1.0) == 1
    sent.read(1.0)


def test_only_what_nobody_has_seen_is_cancelled_for_certain() -> None:
    pair = two()
    sent = pair.to_b.send_nowait(1)
    pair.world.run(1.0)
    assert not sent.cancel()
    pair.world.live("a", "b").cut()  # type: ignore[union-attr]
    unsent = pair.to_b.send_nowait(2)
    assert unsent.cancel()
    assert unsent.outcome is Outcome.CANCELLED


# -- iterations -------------------------------------------------------------------------------------------------------


def test_an_iteration_acknowledges_each_message_when_the_next_is_asked_for() -> None:
    pair = two()
    said(pair, 0, 1, 2)
    messages: list[SimulatedMessage] = []
    for message in pair.to_a:
        assert message.held
        assert [earlier.settled for earlier in messages] == [True] * len(messages)
        messages.append(message)
        if len(messages) == 3:
            pair.to_b.end()
    assert [message.data for message in messages] == [0, 1, 2]
    assert messages[-1].settled


def test_what_the_loop_settled_by_itself_stays_so() -> None:
    pair = two()
    said(pair, 0, 1)
    pair.to_b.end()
    for message in pair.to_a:
        message.reject("no")
    pair.world.run(1.0)
    assert [failure.outcome for failure in pair.to_b.failures()] == [Outcome.REJECTED]
    assert (pair.to_b.failures()[0].first, pair.to_b.failures()[0].last) == (1, 2)


def test_leaving_the_loop_gives_the_message_in_hand_back() -> None:
    pair = two()
    said(pair, 0, 1)
    for message in pair.to_a:
        assert message.data == 0
        break
    pair.world.run(0.0)
    with suppress(ZeroDivisionError):
        for message in pair.to_a:
            assert (message.data, message.attempt) == (0, 2)
            raise ZeroDivisionError
    pair.world.run(0.0)
    assert waiting_to_be_taken(pair) == [(0, 3), (1, 1)]


def test_closing_what_settled_its_message_gives_nothing_back() -> None:
    pair = two()
    said(pair, 0)
    messages = iter(pair.to_a)
    next(messages).ack()
    messages.close()
    messages.close()
    with pytest.raises(NoMessage):
        pair.to_a.receive_nowait()


def test_one_iterator_at_a_time() -> None:
    pair = two()
    said(pair, 0)
    messages = iter(pair.to_a)
    with pytest.raises(IteratorBusy, match="the messages of a are iterated over already"):
        iter(pair.to_a)
    assert next(messages).data == 0
    messages.close()
    again = iter(pair.to_a)
    messages.close()  # it is over, and another one's turn is not its business
    with pytest.raises(IteratorBusy):
        iter(pair.to_a)
    again.close()


def test_an_iterator_that_could_not_be_made_leaves_the_other_one_alone() -> None:
    pair = two()
    said(pair, 0, 1)
    messages: IteratorHandle[SimulatedMessage] = IteratorHandle(pair.to_a)
    first = Waiting(pair.b, messages._iteration.advancing()).result
    with pytest.raises(IteratorBusy):
        IteratorHandle(pair.to_a)
    gc.collect()  # its finalizer has nothing to close
    pair.world.run(0.0)
    assert first.held
    with pytest.raises(IteratorBusy):
        iter(pair.to_a)
    assert messages._node is pair.b
    messages.close()
    messages.close()
    pair.world.run(0.0)
    assert waiting_to_be_taken(pair) == [(0, 2), (1, 1)]


def test_an_iteration_that_is_cancelled_takes_nothing_and_is_over() -> None:
    pair = two()
    iteration = pair.to_a.iterate()
    Waiting(pair.b, iteration.advancing()).cancel()
    assert pair.left() == []
    said(pair, 0)
    assert next(iter(pair.to_a)).attempt == 1


def test_what_the_garbage_collector_drops_is_given_back_when_the_core_is_entered_next() -> None:
    pair = two()
    said(pair, 0, 1)
    messages = iter(pair.to_a)
    assert next(messages).data == 0
    pair.b.enter()  # a command is under way when the collector comes
    before = pair.to_a.session.unread
    del messages
    gc.collect()
    assert pair.to_a.session.unread == before == 1
    pair.b.leave()
    assert pair.to_a.session.unread == 1
    assert waiting_to_be_taken(pair) == [(0, 2), (1, 1)]


def test_what_is_given_back_is_there_for_those_who_wait_without_another_command() -> None:
    pair = two()
    said(pair, 0)
    messages = iter(pair.to_a)
    assert next(messages).data == 0
    waiting = Waiting(pair.b, pair.to_a.receiving())
    del messages
    gc.collect()
    pair.world.run(0.0)
    assert (waiting.look().result.data, waiting.result.attempt) == (0, 2)


def test_what_is_given_back_after_the_end_of_the_node_stays_where_it_is() -> None:
    pair = two()
    said(pair, 0)
    messages = iter(pair.to_a)
    assert next(messages).data == 0
    pair.b.close(0)
    messages.close()
    pair.world.run(0.0)
    assert (pair.to_a.session.unread, pair.to_a.session.held) == (0, 1)
    with pytest.raises(NodeClosed):
        pair.to_a.receive(1.0)


def test_reserved_headers_cannot_be_given_and_are_not_shown() -> None:
    pair = two()
    with pytest.raises(EncodeError, match=r"'\.request' is reserved"):
        pair.to_b.send_nowait(1, headers={".request": bytes(16)})
    for odd in ({".reply": b"short"}, {".reply": 7}, {".request": bytes(15)}, {".else": bytes(16)}):
        pair.to_b.session.send(pair.a.codec.encode(1), pair.world.now, headers={"mine": 1}, reserved=odd)
        pair.world.hosts["a"].pump()
        pair.world.run(1.0)
        message = pair.to_a.receive_nowait()
        assert (message.data, message.headers, message.wants_reply) == (1, {"mine": 1}, False)


# -- the names of messages ----------------------------------------------------------------------------------------


def test_a_message_has_one_id_on_both_sides_and_its_receipt_is_found_by_it() -> None:
    net = Net()
    a, b = net.node("a"), net.node("b")
    a.peer("c").send_nowait("to somebody else")
    to_b, from_a = net.connected(a, b)
    receipts = [to_b.send_nowait(number) for number in range(3)]
    net.run()
    messages = [from_a.receive_nowait() for _ in range(3)]
    assert [receipt.id for receipt in receipts] == [message.id for message in messages]
    messages[0].ack()
    net.wait(1.0)
    for receipt, outcome in zip(receipts, (Outcome.READ, None, None), strict=True):
        found = a.receipt(receipt.id)
        assert (found.peer, found.sequence, found.outcome) == (to_b, receipt.sequence, outcome)
    with pytest.raises(UsageError, match="node b has accepted no message"):
        b.receipt(receipts[0].id)


@pytest.mark.parametrize("text", ["", "-", "0" * 32, "0" * 30 + "-1", "0" * 32 + "-x", "0" * 32 + "-01", "g" * 33])
def test_what_is_no_id_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="is no id of a message"):
        Net().node("a").receipt(text)


def test_an_id_outlives_the_name_of_its_outbox_but_for_the_oldest_of_many() -> None:
    a = Net().node("a")
    peer = a.peer("b")
    receipts, ids = [], []
    for number in range(70):
        receipts.append(peer.send_nowait(number))
        ids.append(receipts[-1].id)
        peer.session.rename_outbox(mark=False)
        peer.session.rename_outbox(mark=False)  # nothing was accepted under that name
    assert [receipt.id for receipt in receipts[6:]] == ids[6:]
    assert [a.receipt(each).sequence for each in ids[6:]] == list(range(7, 71))
    with pytest.raises(UsageError, match="message 6 to b was accepted so long ago that its name is forgotten"):
        _ = receipts[5].id
    with pytest.raises(UsageError, match="or has forgotten it"):
        a.receipt(ids[5])
    outbox_id, _, sequence = ids[-1].partition("-")
    for other in (f"{outbox_id}-{int(sequence) + 1}", f"{outbox_id}-0", f"{outbox_id}-{int(sequence) - 1}"):
        with pytest.raises(UsageError, match="has accepted no message"):
            a.receipt(other)


def test_after_a_restart_a_receipt_tells_what_became_of_its_message() -> None:
    net, slate = Net(), Slate()
    a, b = net.node("a", journal=slate), net.node("b")
    to_b, from_a = net.connected(a, b)
    ids = []
    for number in range(4):
        receipt = to_b.send_nowait(number)
        ids.append(receipt.id)
        slate.finish_all()
        net.run()
    read, refused, held = (from_a.receive_nowait() for _ in range(3))
    read.ack()
    refused.reject("no", code=7)
    for _ in range(3):
        net.wait(1.0)
        slate.finish_all()
    again = net.node("a", journal=slate)
    found = [again.receipt(each) for each in ids]
    assert [receipt.outcome for receipt in found] == [Outcome.READ, Outcome.REJECTED, None, None]
    assert [receipt.id for receipt in found] == ids
    failure = found[1].failure
    assert failure is not None
    assert (failure.reason, failure.code, failure.seen) == ("no", 7, "yes")
    assert held.held


def test_a_message_that_the_journal_refused_has_no_id() -> None:
    slate = Slate()
    node = Net().node("a", journal=slate)
    receipt = node.peer("b").send_nowait(1)
    slate.finish(JournalFull("no room"))
    with pytest.raises(UsageError, match="message 1 to b was never accepted"):
        _ = receipt.id
