"""What a driver does with a journal: batches go to the store one by one, and calls wait for theirs."""

from __future__ import annotations

from typing import Any

import pytest

from networkio_proto import Config, ConfigurationError, JournalError, JournalFailed, JournalFull, NodeClosed, Outcome
from networkio_proto.journal import MessageAccepted, MessagesEnded, Store
from tests.proto.helpers import Waiting
from tests.proto.helpers_node import Driver, Far, Net, Slate


class Desk:
    """A node with a journal, and one without that it is connected to."""

    def __init__(self, **changes: Any) -> None:
        self.net = Net()
        self.slate = Slate()
        self.a = self.net.node("a", Config(**changes), journal=self.slate)
        self.b = self.net.node("b")
        self.to_b: Far = self.a.peer("b")
        assert self.a.keeper is not None
        self.keeper = self.a.keeper
        self.slate.finish_all()

    def meet(self) -> Far:
        """Connect them; a, as b sees it."""
        with self.a.inside as now:
            self.a.endpoint.add_target("b", now, to="b")
        self.settle()
        return self.b.peer("a")

    def settle(self) -> None:
        """Write and move everything."""
        self.net.run()
        while self.slate.writing is not None:
            self.slate.finish()
            self.net.run()

    def send(self, data: object, **options: Any) -> Waiting[Any]:
        """Begin to send."""
        return Waiting(self.a, self.to_b.accepting(self.a.codec.encode(data), **options))

    def many(self, *data: object) -> Waiting[Any]:
        """Begin to send several."""
        return Waiting(self.a, self.to_b._accepting_many(data, None, None, False))

    def messages(self) -> list[int]:
        """The numbers in each batch that was written."""
        return [sum(isinstance(record, MessageAccepted) for record in batch.records) for batch in self.slate.batches]


def test_a_file_is_the_driver_s_kind_of_store() -> None:
    class Filing(Driver):
        @staticmethod
        def store_in(path: str) -> Store:
            assert path == "journal.db"
            return slate

    slate = Slate()
    node = Filing(Net(), "a", journal="journal.db")
    node.peer("b").send_nowait(1)
    slate.finish_all()
    assert len(slate.batches) == 1


def test_sending_waits_for_the_disk_and_one_batch_is_written_at_a_time() -> None:
    desk = Desk()
    first = desk.send(1)
    assert not first.woken
    later = [desk.send(number) for number in range(2, 9)]
    desk.slate.finish()
    assert first.look().result.sequence == 1
    assert not any(waiting.woken for waiting in later)
    desk.slate.finish()
    assert [waiting.look().result.sequence for waiting in later] == list(range(2, 9))
    assert desk.messages() == [1, 7]
    assert desk.slate.writing is None


def test_many_wait_for_the_last_of_them() -> None:
    desk = Desk()
    many = Waiting(desk.a, desk.to_b._accepting_many(range(100), None, None, False))
    desk.slate.finish_all()
    assert [receipt.sequence for receipt in many.look().result] == list(range(1, 101))
    assert desk.messages() == [100]
    assert Waiting(desk.a, desk.to_b._accepting_many([], None, None, False)).result == []


def test_of_many_those_on_disk_are_told_when_time_is_up_and_the_others_end() -> None:
    desk = Desk()
    desk.to_b.send_nowait(0)
    many = Waiting(desk.a, desk.to_b._accepting_many([1, 2], None, None, False))
    assert many.time_up().result == []
    desk.settle()
    assert [desk.to_b.receipt(sequence).outcome for sequence in (1, 2, 3)] == [
        None, Outcome.CANCELLED, Outcome.CANCELLED,
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["cancel", "time_up"])
def test_what_is_given_up_before_it_is_on_disk_is_not_sent(how: str) -> None:
    desk = Desk()
    far = desk.meet()
    waiting = desk.send(1)
    getattr(waiting, how)()
    desk.settle()
    desk.to_b.send_nowait(2)
    desk.settle()
    assert far.read_nowait() == 2
    assert far.unread == 0
    assert desk.to_b.receipt(1).outcome is Outcome.CANCELLED


def test_what_is_given_up_too_late_was_sent() -> None:
    desk = Desk()
    far = desk.meet()
    waiting = desk.send(1)
    desk.settle()
    waiting.cancel()
    assert far.read_nowait() == 1


def test_a_message_that_ends_before_it_is_written_is_waited_for_no_longer() -> None:
    desk = Desk()
    desk.to_b.send_nowait(0)  # in the batch that is being written
    waiting = desk.send(1)
    desk.to_b.abort()
    desk.slate.finish_all()
    assert waiting.look().result.sequence == 2
    assert waiting.result.outcome is Outcome.ABANDONED


def test_who_waits_for_the_disk_hears_that_the_node_is_closed() -> None:
    desk = Desk()
    written, waiting = desk.send(1), desk.send(2)
    desk.a.close()
    assert not waiting.woken
    desk.slate.close = desk.slate.finish  # type: ignore[method-assign]  # as a store does
    desk.keeper.close()
    desk.keeper.close()
    assert written.look().result.sequence == 1
    with pytest.raises(NodeClosed):
        _ = waiting.look().result
    assert desk.net.node("a", journal=desk.slate).peer("b").unacknowledged == 1


def test_a_cancellation_waits_for_the_disk_and_says_so_if_that_fails() -> None:
    desk = Desk()
    receipts = [desk.to_b.send_nowait(number) for number in range(3)]
    desk.slate.finish_all()
    first, second = (Waiting(desk.a, receipt._cancelling()) for receipt in receipts[:2])
    assert not first.look().over
    desk.slate.finish()
    assert first.look().result is True
    desk.slate.finish(JournalFull("no room"))  # the second came when the first was being written
    with pytest.raises(JournalFull, match="nothing is accepted for the end of message 2 to b"):
        _ = second.look().result
    assert receipts[1].outcome is Outcome.CANCELLED
    desk.net.wait(0.6)
    desk.a.visit()
    third = Waiting(desk.a, receipts[2]._cancelling())
    desk.a.close()
    desk.slate.finish()
    with pytest.raises(NodeClosed):
        _ = third.look().result
    ends = [record.ends for record in desk.slate.batches[-1].records if isinstance(record, MessagesEnded)]
    assert [sequence for sequence, _ in ends[0]] == [2]  # there is room again


def test_full_is_tried_again_and_told_once() -> None:
    desk = Desk()
    waiting, receipt = desk.send(1), desk.to_b.send_nowait(2)
    desk.slate.finish(JournalFull("no room"))
    with pytest.raises(JournalFull, match="message 1 to b was not accepted: no room") as raised:
        _ = waiting.look().result
    assert str(raised.value.__cause__) == "no room"
    assert (receipt.refused, receipt.outcome, receipt.failure) == (True, None, None)
    assert Waiting(desk.a, receipt._cancelling()).look().result is True
    with pytest.raises(JournalFull, match="nothing is accepted for b: no room"):
        desk.to_b.send_nowait(3)
    broadcast = desk.a.broadcast(4)
    assert isinstance(broadcast[desk.to_b], JournalFull)
    desk.net.wait(0.3)
    with pytest.raises(JournalFull):
        desk.to_b.send_nowait(3)
    desk.net.wait(0.3)
    again = desk.send(5)
    desk.slate.finish(JournalFull("no room"))
    with pytest.raises(JournalFull):
        _ = again.look().result
    desk.net.wait(0.6)
    good = desk.send(6)
    desk.slate.finish_all()
    assert good.look().result.sequence == 1
    assert receipt.refused
    lines = [line.text.split(": ")[1] for line in desk.a.lines if "journal" in line.text]
    assert lines == [
        "its journal cannot be written, so nothing is accepted or acknowledged %s",
        "its journal is written again",
    ]


def test_what_came_and_finds_no_room_is_told_once_and_keeps_nobody_from_sending() -> None:
    net, slate = Net(), Slate()
    a, b = net.node("a", journal=slate, durable_inbox=True), net.node("b")
    slate.finish_all()
    with a.inside as now:
        a.endpoint.add_target("b", now, to="b")
    net.run()
    slate.finish_all()
    net.run()
    b.peer("a").send_nowait("x")
    net.run()
    slate.finish(JournalFull("no room"))
    optional = []
    for _ in range(4):
        net.wait(0.6)
        a.visit()
        assert slate.writing is not None
        optional.append(slate.writing.optional)
        slate.finish(JournalFull("no room") if slate.writing.optional else None)
    assert optional == [False, True, True, True]
    sending = Waiting(a, a.peer("b").accepting(b"y"))
    slate.finish()
    assert sending.look().result.sequence == 1
    net.wait(0.6)
    a.visit()
    slate.finish_all()
    net.run()
    assert a.peer("b").read_nowait() == "x"
    lines = [line.text.split(": ")[1] for line in a.lines if "journal" in line.text]
    assert lines == [
        "its journal cannot be written, so nothing is accepted or acknowledged %s",
        "its journal is written again",
        "its journal has no room for what comes in, which is not acknowledged until there is",
    ]


def test_whoever_waits_for_a_message_that_could_not_be_written_hears_of_it() -> None:
    desk = Desk()
    desk.meet()
    receipt, later = desk.to_b.send_nowait(1), desk.to_b.send_nowait(2)
    reading = Waiting(desk.a, receipt._until(read=True))
    desk.slate.finish(JournalFull("no room"))
    with pytest.raises(JournalFull, match="message 1 to b was not accepted"):
        _ = reading.look().result
    with pytest.raises(JournalFull, match="message 2 to b was not accepted"):
        later.done(read=False)


@pytest.mark.parametrize("error", [JournalFailed("the disk is broken"), OSError(5, "the disk is broken")])
def test_after_any_other_error_nothing_is_written(error: Exception) -> None:
    desk = Desk()
    far = desk.meet()
    waiting = desk.send(1)
    desk.slate.finish(error)
    with pytest.raises(JournalFailed, match="the disk is broken"):
        _ = waiting.look().result
    desk.net.wait(60.0)
    with pytest.raises(JournalFailed, match="nothing is accepted for b"):
        desk.to_b.send_nowait(2)
    late = far.send_nowait("hello")
    desk.settle()
    assert desk.to_b.read_nowait() == "hello"
    desk.net.wait(1.0)
    assert (late.outcome, desk.slate.writing) == (None, None)
    assert isinstance(desk.keeper.error, JournalError)


def test_what_was_read_is_told_when_that_is_on_disk() -> None:
    desk = Desk()
    far = desk.meet()
    receipt = far.send_nowait("hello")
    desk.settle()
    assert desk.to_b.read_nowait() == "hello"
    desk.net.wait(1.0)
    assert receipt.outcome is None
    desk.settle()
    desk.net.wait(1.0)
    assert receipt.outcome is Outcome.READ


def test_leaving_waits_for_the_disk() -> None:
    desk = Desk()
    desk.meet()
    desk.b.peer("a").send_nowait("hello")
    desk.settle()
    desk.to_b.read_nowait()
    draining, emptying = Waiting(desk.a, desk.a._draining()), Waiting(desk.a, desk.a.emptying())
    assert not draining.over
    desk.settle()
    assert draining.look().over
    assert not emptying.look().over
    desk.a.close()
    desk.settle()
    assert emptying.look().over


def test_a_restored_node_has_its_peers_and_what_they_have_not_read() -> None:
    desk = Desk()
    desk.to_b.send_nowait(1)
    desk.slate.finish_all()
    desk.keeper.close()
    assert desk.slate.closed
    desk.to_b.send_nowait("into the void")
    assert desk.slate.writing is None
    again = desk.net.node("a", journal=desk.slate)
    [peer] = again.peers
    assert (peer.id, peer.unacknowledged) == ("b", 1)


def test_a_driver_s_send_takes_the_long_way_and_peers_without_messages_wait_for_no_disk() -> None:
    desk = Desk()
    desk.a.peer("c")
    assert desk.to_b.accept_or_none(b"x", headers=None, ttl=None, raw=True) is None
    assert desk.to_b.unacknowledged == 0
    waiting = desk.send(1)
    desk.a.close()
    desk.slate.close = desk.slate.finish  # type: ignore[method-assign]  # as a store does
    desk.keeper.close()
    assert waiting.look().result.sequence == 1


def test_a_journal_does_not_go_with_dropping_the_oldest() -> None:
    with pytest.raises(ConfigurationError, match="drop_oldest"):
        Net().node("a", Config(overflow="drop_oldest"), journal=Slate())
