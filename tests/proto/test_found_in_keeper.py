"""What a review of nodes with a journal found: batches that fail, calls that are given up, ends, and bounds."""

from __future__ import annotations

from time import process_time

import pytest

from networkio_proto import JournalFull, NodeClosed, NoMoreMessages, Outcome
from networkio_proto.journal import InboxMoved
from tests.proto.helpers import Waiting
from tests.proto.test_keeper import Desk

FULL = JournalFull("no room")


# -- receipts ---------------------------------------------------------------------------------------------------------


def test_a_message_on_disk_is_not_refused_by_a_later_batch_that_fails() -> None:
    desk = Desk(outbox_limit=1000)
    far = desk.meet()
    many = desk.many(bytes(2000), bytes(2000))  # the second waits for room
    desk.settle()
    many.time_up()
    if not many.over:
        many.time_up()  # the deadline has passed already
    [receipt] = many.result
    assert far.read_nowait() == bytes(2000)
    desk.net.wait(1.0)  # read; that is being written
    assert desk.slate.writing is not None
    assert receipt.outcome is Outcome.READ
    desk.to_b.send_nowait("another one")
    desk.slate.finish(FULL)
    assert not receipt.refused
    assert receipt.outcome is Outcome.READ


def test_a_message_that_was_aborted_is_not_refused_too() -> None:
    desk = Desk()
    receipt = desk.to_b.send_nowait(1)
    desk.to_b.abort()
    assert receipt.outcome is Outcome.ABANDONED
    desk.slate.finish(FULL)
    assert desk.to_b.ledger.accepted == desk.to_b.ledger.abandoned == 1
    assert receipt.outcome is Outcome.ABANDONED


def test_send_many_returns_no_receipt_of_a_message_that_was_refused() -> None:
    desk = Desk(outbox_limit=1000)
    many = desk.many(bytes(2000), bytes(2000))
    desk.slate.finish(FULL)
    assert many.woken
    desk.net.wait(0.6)  # the caller has its turn only when there is room again
    many.look()
    desk.settle()
    many.look()
    try:
        receipts = many.result
    except JournalFull:
        return
    assert not any(receipt.refused for receipt in receipts)
    assert [receipt.sequence for receipt in receipts] == [1, 2]


def test_send_many_whose_time_is_up_does_not_count_the_message_of_another_with_the_same_number() -> None:
    desk = Desk()
    many = desk.many(1)
    desk.slate.finish(FULL)
    desk.net.wait(0.6)
    desk.to_b.send_nowait("another one")
    desk.slate.finish_all()
    assert many.time_up().result == []


def test_the_repr_of_a_refused_receipt_does_not_say_that_it_is_under_way() -> None:
    desk = Desk()
    receipt = desk.to_b.send_nowait("refused")
    desk.slate.finish(FULL)
    assert "under way" not in repr(receipt)


# -- giving up --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "time_up"])
def test_what_is_given_up_when_it_is_just_on_disk_and_not_transmitted_is_not_sent(how: str) -> None:
    desk = Desk()
    waiting = desk.send("given up")
    desk.slate.finish_all()
    assert waiting.woken  # and has not had its turn when its caller is cancelled
    getattr(waiting, how)()
    desk.settle()
    far = desk.meet()
    assert far.unread == 0
    assert desk.to_b.receipt(1).outcome is Outcome.CANCELLED


def test_a_request_that_is_given_up_when_it_is_just_on_disk_is_cancelled() -> None:
    desk = Desk()
    waiting = Waiting(desk.a, desk.to_b._requesting("given up", None, False))
    desk.slate.finish_all()
    assert waiting.woken
    waiting.cancel()
    desk.settle()
    far = desk.meet()
    assert far.unread == 0


# -- the end ----------------------------------------------------------------------------------------------------------


def test_an_end_that_could_not_be_written_is_not_forgotten() -> None:
    desk = Desk()
    far = desk.meet()
    desk.to_b.end()
    desk.slate.finish(FULL)
    desk.net.wait(0.6)
    desk.settle()
    desk.net.wait(1.0)
    desk.settle()
    with pytest.raises(NoMoreMessages):
        far.read_nowait(None)


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_batches_do_not_grow_while_the_disk_is_full() -> None:
    desk = Desk()
    far = desk.meet()
    sizes = []
    for number in range(30):
        far.send_nowait(number)
    desk.settle()
    for _ in range(30):
        desk.to_b.read_nowait()
        desk.net.run()
        if desk.slate.writing is not None:
            desk.to_b.node.visit()
            sizes.append(sum(isinstance(record, InboxMoved) for record in desk.slate.writing.records))
            desk.slate.finish(FULL)
        desk.net.wait(0.6)
    assert max(sizes) <= 2, sizes


def test_a_batch_that_fails_is_taken_back_in_reasonable_time() -> None:
    desk = Desk()
    many = [desk.to_b.send_nowait(number) for number in range(1000)]
    with desk.a.inside as now:
        for receipt in many[::2]:
            desk.to_b.session.cancel(receipt.sequence, now)
    desk.slate.finish_all()
    waiting = desk.many(*range(500))
    assert desk.slate.writing is not None
    begun = process_time()
    desk.slate.finish(FULL)
    assert process_time() - begun < 0.2  # it was 1.4 s
    assert waiting.woken


# -- told to others ---------------------------------------------------------------------------------------------------


# -- ttl --------------------------------------------------------------------------------------------------------------


def test_a_closed_node_says_so_whatever_its_journal_says() -> None:
    desk = Desk()
    desk.to_b.send_nowait(1)
    desk.slate.finish(OSError(5, "broken"))
    desk.a.close()
    with pytest.raises(NodeClosed):
        desk.to_b.send_nowait(2)


# -- draining ---------------------------------------------------------------------------------------------------------


def test_a_drain_ends_though_others_go_on_writing() -> None:
    desk = Desk()
    far = desk.meet()
    far.send_nowait("before")
    desk.settle()
    desk.to_b.read_nowait()
    draining = Waiting(desk.a, desk.a._draining())
    for number in range(20):  # what comes in is read all the time
        far.send_nowait(number)
        desk.net.run()
        desk.to_b.read_nowait(None)
        desk.slate.finish()
        draining.look()
    assert desk.to_b.unacknowledged == 0
    assert draining.over
