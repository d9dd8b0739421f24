"""What is written, acknowledged and sent in one transaction: all of it is on disk, or nothing has happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from networkio_proto import (
    Config,
    ConfigurationError,
    EncodeError,
    JournalError,
    JournalFailed,
    JournalFull,
    MessageNotHeld,
    MessageTooLarge,
    NodeClosed,
    OutboxFull,
    Outcome,
    Quota,
    SessionClosed,
    UsageError,
)
from networkio_proto.config import Limits
from networkio_proto.handles import MessageHandle, ReceiptHandle
from networkio_proto.journal import InboxMoved, MessageAccepted
from tests.proto.helpers import Waiting
from tests.proto.helpers_node import Driver, Net, Slate


class Desk:
    """ "b" with a journal, connected to "a" that has none; ``fn(rows)`` writes to a list."""

    def __init__(self, **changes: Any) -> None:
        self.net = Net()
        self.slate = Slate()
        self.a = self.net.node("a")
        self.b = self.net.node("b", Config(**changes), journal=self.slate)
        self.to_b, self.from_a = self.net.connected(self.a, self.b)
        self.settle()

    def settle(self) -> None:
        """Write and move everything."""
        for _ in range(20):
            self.net.run()
            self.slate.finish_all()

    def received(self, *data: object) -> list[MessageHandle]:
        """b holds these."""
        for each in data:
            self.to_b.send_nowait(each)
        self.settle()
        return [self.from_a.receive_nowait() for _ in data]

    def commit(self, messages: Iterable[MessageHandle], function: Callable[[Any], Any]) -> Waiting[Any]:
        return Waiting(self.b, self.b._committing(messages, function))

    def transact(self, function: Callable[[Any, Any], Any], messages: Iterable[MessageHandle] = ()) -> Waiting[Any]:
        return Waiting(self.b, self.b._transacting(function, messages))

    def outcomes(self, *sequences: int) -> list[Outcome | None]:
        self.settle()
        self.net.wait(1.0)
        self.settle()
        return [self.to_b.receipt(sequence).outcome for sequence in sequences]

    def restarted(self) -> Driver:
        """What a new process of b begins with."""
        return self.net.node("b", journal=self.slate)


def row(value: object) -> Callable[[list[object]], object]:
    """Write that, and return it."""

    def write(rows: list[object]) -> object:
        rows.append(value)
        return value

    return write


# -- acknowledgements ---------------------------------------------------------------------------------------------


def test_a_message_is_acknowledged_when_the_rows_are_on_disk_and_not_before() -> None:
    desk = Desk()
    [message] = desk.received("x")
    waiting = desk.commit([message], row("x"))
    desk.slate.finish_run()
    desk.net.wait(1.0)
    assert (desk.slate.rows, waiting.woken, message.held, message.settled) == ([], False, False, False)
    assert desk.to_b.receipt(1).outcome is None
    batch = desk.slate.writing
    assert batch is not None
    assert [(record.facts.read, record.settled) for record in batch.records if isinstance(record, InboxMoved)] == [
        (1, ())
    ]
    desk.slate.finish()
    assert (waiting.look().result, desk.slate.rows, message.settled) == ("x", ["x"], True)
    assert desk.outcomes(1) == [Outcome.READ]
    assert desk.slate.writing is None


def test_the_acknowledgement_is_not_written_once_more() -> None:
    """Be it in turn or not: that would be another sync for each message."""
    desk = Desk()
    messages = desk.received(1, 2, 3)
    for which in (1, 2, 0):
        before = len(desk.slate.batches)
        desk.commit([messages[which]], row(which))
        desk.settle()
        desk.net.wait(1.0)
        moved = [record for batch in desk.slate.batches[before:] for record in batch.records]
        assert [type(record) for record in moved] == [InboxMoved]
    assert desk.outcomes(1, 2, 3) == [Outcome.READ] * 3


def test_what_is_committed_out_of_turn_does_not_come_again() -> None:
    desk = Desk()
    messages = desk.received(1, 2, 3)
    desk.commit([messages[1]], row(2))
    desk.settle()
    inbox = desk.restarted().endpoint.session("a").inbox
    assert inbox is not None
    assert (inbox.read, list(inbox.ahead)) == (0, [(2, 2)])


def test_many_messages_of_several_peers_are_one_transaction() -> None:
    desk = Desk()
    third = desk.net.node("c")
    to_b, from_c = desk.net.connected(third, desk.b)
    to_b.send_nowait("c")
    messages = desk.received(1, 2)
    messages.append(from_c.receive_nowait())
    desk.settle()
    before = len(desk.slate.batches)
    waiting = desk.commit([*messages, messages[0]], row("all"))
    desk.settle()
    assert (waiting.look().result, len(desk.slate.batches)) == ("all", before + 1)
    desk.net.wait(1.0)
    desk.settle()
    assert to_b.receipt(1).outcome is Outcome.READ
    assert desk.outcomes(1, 2) == [Outcome.READ] * 2


def test_what_else_was_asked_for_is_in_the_same_batch() -> None:
    desk = Desk()
    first, second = desk.received(1, 2)
    desk.from_a.send_nowait("answer")  # it is being written
    waiting = desk.commit([first], row(1))
    second.ack()
    sent = desk.from_a.send_nowait("more")
    desk.slate.finish()
    desk.slate.finish_run()
    batch = desk.slate.writing
    assert batch is not None
    assert {type(record) for record in batch.records} == {InboxMoved, MessageAccepted}
    desk.settle()
    assert waiting.look().result == 1
    assert desk.outcomes(1, 2) == [Outcome.READ] * 2
    assert sent.done(read=False)


def test_a_function_that_raises_has_done_nothing() -> None:
    desk = Desk()
    [message] = desk.received("x")

    def fails(rows: list[object]) -> None:
        rows.append("x")
        raise ZeroDivisionError

    waiting = desk.commit([message], fails)
    desk.settle()
    with pytest.raises(ZeroDivisionError):
        _ = waiting.look().result
    assert (desk.slate.rows, message.held) == ([], True)
    message.ack()
    assert desk.outcomes(1) == [Outcome.READ]


def test_transactions_that_fail_one_after_the_other_do_not_keep_the_rest_from_the_disk() -> None:
    desk = Desk()
    waiting = [desk.commit([], lambda rows: 1 // 0) for _ in range(3)]
    desk.from_a.send_nowait("x")
    desk.slate.finish_run()
    assert desk.slate.writing is not None
    desk.slate.finish()
    assert desk.slate.running is not None
    desk.settle()
    assert desk.to_b.read_nowait() == "x"
    for each in waiting:
        with pytest.raises(ZeroDivisionError):
            _ = each.look().result


@pytest.mark.parametrize("error", [JournalFull("no room"), JournalFailed("broken"), OSError(5, "broken")])
def test_when_the_disk_fails_the_message_is_still_held(error: Exception) -> None:
    desk = Desk()
    first, second = desk.received(1, 2)
    waiting, later = desk.commit([first], row(1)), desk.commit([second], row(2))
    desk.slate.finish_run()
    desk.slate.finish(error)
    for each, message in ((waiting, first), (later, second)):
        with pytest.raises(JournalError, match=r"no room|broken"):
            _ = each.look().result
        assert message.held
    assert (desk.slate.rows, desk.slate.running) == ([], None)
    with pytest.raises(JournalError, match="nothing is accepted for the transaction"):
        _ = desk.commit([first], row(1)).result
    desk.net.wait(1.0)
    assert desk.outcomes(1, 2) == [None, None]
    if isinstance(error, JournalFull):
        again = desk.commit([first, second], row("both"))
        desk.settle()
        assert again.look().result == "both"
        assert desk.outcomes(1, 2) == [Outcome.READ] * 2


def test_no_room_that_the_function_meets_is_its_error_and_costs_nobody_else_anything() -> None:
    desk = Desk()
    [message] = desk.received("x")

    def fills(rows: list[object]) -> None:
        raise JournalFull("no room")

    waiting = desk.commit([message], fills)
    desk.settle()
    with pytest.raises(JournalFull):
        _ = waiting.look().result
    assert message.held
    desk.from_a.send_nowait("goes on")
    desk.settle()
    assert desk.to_b.read_nowait() == "goes on"


def test_while_a_message_is_committed_nobody_else_settles_it() -> None:
    desk = Desk()
    message, other = desk.received("x", "y")
    waiting = desk.commit([message], row("x"))
    for settle in (message.ack, message.reject, message.release):
        with pytest.raises(MessageNotHeld, match="message 1 from a is being committed"):
            settle()
    with pytest.raises(MessageNotHeld, match="is being committed"):
        _ = desk.commit([other, message], row("y")).result
    assert other.held
    assert "committing" in repr(message)
    desk.settle()
    assert waiting.look().result == "x"
    message.ack()  # as ever, the same once more is harmless
    with pytest.raises(MessageNotHeld, match="was acknowledged before"):
        _ = desk.commit([message], row("x")).result


def test_a_message_of_another_node_and_a_node_without_a_journal_have_no_transaction() -> None:
    desk = Desk()
    desk.from_a.send_nowait("x")
    desk.settle()
    theirs = desk.to_b.receive_nowait()
    with pytest.raises(UsageError, match="message 1 from b belongs to another node"):
        _ = desk.commit([theirs], row(1)).result
    with pytest.raises(ConfigurationError, match="node a has no journal"):
        _ = Waiting(desk.a, desk.a._committing([theirs], row(1))).result
    assert theirs.held


def test_a_coroutine_is_refused_and_never_runs() -> None:
    desk = Desk()
    [message] = desk.received("x")

    async def forgets(rows: list[object]) -> None:
        rows.append("x")

    class Promise:
        def __await__(self) -> Any:
            raise AssertionError

    for function in (forgets, lambda rows: Promise()):
        waiting = desk.commit([message], function)
        desk.settle()
        with pytest.raises(UsageError, match="plain function"):
            _ = waiting.look().result
        assert (desk.slate.rows, message.held) == ([], True)


def test_what_comes_of_an_outbox_that_its_sender_left_is_committed_too() -> None:
    """Its acknowledgement tells nobody, and no record is made of it."""
    desk = Desk()
    [message] = desk.received("x")
    desk.a.close()
    desk.settle()
    successor = desk.net.node("a")
    desk.net.connected(successor, desk.b)
    desk.settle()
    waiting = desk.commit([message], row("x"))
    desk.settle()
    assert (waiting.look().result, desk.slate.rows, message.settled) == ("x", ["x"], True)


# -- giving up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "time_up"])
def test_what_has_not_begun_never_will(how: str) -> None:
    desk = Desk()
    first, second = desk.received(1, 2)
    waiting, given_up = desk.commit([first], row(1)), desk.commit([second], row(2))
    getattr(given_up, how)()
    assert second.held
    desk.settle()
    assert (waiting.look().result, desk.slate.rows, second.held) == (1, [1], True)


@pytest.mark.parametrize("how", ["cancel", "time_up"])
@pytest.mark.parametrize("begun", [0, 1])
def test_what_has_begun_is_carried_out(how: str, begun: int) -> None:
    desk = Desk()
    [message] = desk.received("x")
    waiting = desk.commit([message], row("x"))
    for _ in range(begun):
        desk.slate.finish_run()
    getattr(waiting, how)()
    assert not message.held
    assert desk.outcomes(1) == [Outcome.READ]
    assert (desk.slate.rows, message.settled) == (["x"], True)


def test_what_has_begun_and_fails_with_nobody_waiting_releases_its_messages() -> None:
    desk = Desk()
    [message] = desk.received("x")
    waiting = desk.commit([message], row("x"))
    desk.slate.finish_run()
    waiting.cancel()
    desk.slate.finish(JournalFull("no room"))
    again = desk.from_a.receive_nowait()
    assert (again.data, again.attempt, desk.slate.rows) == ("x", 2, [])


def test_a_transaction_that_was_over_when_its_caller_gave_up_stays_so() -> None:
    desk = Desk()
    [message] = desk.received("x")
    waiting = desk.commit([message], row("x"))
    desk.settle()
    waiting.cancel()
    assert (desk.slate.rows, message.settled) == (["x"], True)


def test_who_waits_for_a_transaction_hears_that_the_node_is_closed() -> None:
    desk = Desk()
    first, second = desk.received(1, 2)
    waiting, later = desk.commit([first], row(1)), desk.commit([second], row(2))
    desk.b.close()
    assert desk.b.keeper is not None
    desk.b.keeper.close()
    desk.slate.finish_run()  # the news comes too late
    assert not desk.b.keeper.here()
    for each in (waiting, later):
        with pytest.raises(NodeClosed):
            _ = each.look().result
    assert (desk.slate.rows, desk.slate.writing) == ([], None)


def test_a_function_that_returns_while_the_journal_is_being_closed_comes_to_nothing() -> None:
    desk = Desk()
    [message] = desk.received("x")
    waiting = desk.commit([message], row("x"))
    assert desk.b.keeper is not None
    desk.b.keeper._open = False  # whoever closes it waits for the function's end
    desk.slate.finish_run()
    with pytest.raises(NodeClosed, match="was closed before the transaction was written"):
        _ = waiting.look().result
    assert (desk.slate.writing, message.held) == (None, True)


def test_a_deserted_transaction_of_a_closed_node_releases_nothing() -> None:
    desk = Desk()
    [message] = desk.received("x")
    desk.commit([message], row("x")).cancel()
    desk.b.close()
    assert desk.b.keeper is not None
    desk.b.keeper.close()
    assert desk.from_a.unread == 0


def test_leaving_waits_for_the_transactions_that_were_asked_for() -> None:
    desk = Desk()
    messages = desk.received(1, 2, 3)
    waiting = [desk.commit([message], row(message.data)) for message in messages]
    draining = Waiting(desk.b, desk.b._draining())
    desk.settle()
    assert draining.look().over
    assert [each.look().result for each in waiting] == [1, 2, 3]


# -- sending ----------------------------------------------------------------------------------------------------


def test_rows_and_messages_are_on_disk_together_and_go_out_then() -> None:
    desk = Desk()

    def both(rows: list[object], send: Any) -> list[ReceiptHandle]:
        rows.append("x")
        receipts = [send(desk.from_a, "to a", headers={"k": 1}), send("new", b"to new", raw=True)]
        assert [receipt.outcome for receipt in receipts] == [None, None]
        return receipts

    waiting = desk.transact(both)
    desk.slate.finish_run()
    desk.net.run()
    assert (desk.to_b.unread, desk.slate.rows) == (0, [])
    desk.slate.finish()
    receipts = waiting.look().result
    assert desk.slate.rows == ["x"]
    assert [(receipt.peer.id, receipt.sequence) for receipt in receipts] == [("a", 1), ("new", 1)]
    desk.settle()
    message = desk.to_b.receive_nowait()
    assert (message.data, message.headers) == ("to a", {"k": 1})
    message.ack()
    desk.settle()
    desk.net.wait(1.0)
    assert [receipt.outcome for receipt in receipts] == [Outcome.READ, None]
    assert desk.restarted().peer("new").unacknowledged == 1


def test_acknowledgements_rows_and_answers_are_one_transaction() -> None:
    desk = Desk()
    [message] = desk.received("question")
    waiting = desk.transact(lambda rows, send: (rows.append("x"), send(message.peer, "answer"))[1], [message])
    before = len(desk.slate.batches)
    desk.settle()
    assert {type(record) for record in desk.slate.batches[before].records} == {InboxMoved, MessageAccepted}
    assert waiting.look().result.sequence == 1
    assert desk.outcomes(1) == [Outcome.READ]
    assert desk.to_b.read_nowait() == "answer"


@pytest.mark.parametrize(
    ("peer", "data", "options", "error"),
    [
        ("a", object(), {}, EncodeError),
        ("a", b"x" * 5001, {"raw": True}, MessageTooLarge),
        ("new", b"x" * 5001, {"raw": True}, MessageTooLarge),
        ("small", b"x" * 101, {"raw": True}, MessageTooLarge),
        ("new", b"", {"headers": {"k": "x" * 4990}}, EncodeError),
        ("b", 1, {}, ConfigurationError),
        ("no id", 1, {}, ConfigurationError),
    ],
)
def test_what_cannot_be_sent_is_an_error_in_the_function(
    peer: str, data: object, options: dict[str, Any], error: type[Exception]
) -> None:
    desk = Desk(limits=Limits(message=5000, frame=8192))
    desk.b.set_quota("small", Quota(message=100))
    told: list[Exception] = []

    def sends(rows: list[object], send: Any) -> None:
        rows.append("x")
        send("a", "never")
        try:
            send(peer, data, **options)
        except Exception as raised:
            told.append(raised)
            raise

    waiting = desk.transact(sends)
    desk.settle()
    with pytest.raises(error) as raised:
        _ = waiting.look().result
    assert told == [raised.value]
    assert ("or raise message in the quota of small here" in str(raised.value)) is (peer == "small")
    assert (desk.slate.rows, desk.to_b.unread, desk.from_a.unacknowledged) == ([], 0, 0)


def test_receipts_of_a_transaction_that_failed_say_so() -> None:
    desk = Desk()
    receipts: list[ReceiptHandle] = []

    def sends(rows: list[object], send: Any) -> None:
        receipts.append(send("a", 1))
        with pytest.raises(UsageError, match="sent when its transaction is on disk"):
            next(receipts[-1]._cancelling())
        if len(receipts) == 1:
            raise ZeroDivisionError

    desk.transact(sends)
    desk.settle()
    desk.transact(sends)
    desk.slate.finish_run()
    desk.slate.finish(JournalFull("no room"))
    first, second = receipts
    assert (first.outcome, first.failure, second.outcome, second.failure) == (None, None, None, None)
    with pytest.raises(UsageError, match="it was not sent: its transaction was undone"):
        next(first._until(read=True))
    with pytest.raises(JournalFull):
        next(second._until(read=True))
    assert repr(first) == "<Receipt 0 to a: refused by the journal>"
    desk.settle()
    assert desk.to_b.unread == 0


def test_a_receipt_for_a_new_peer_has_none_before_the_end() -> None:
    desk = Desk()
    looks: list[str] = []
    desk.transact(lambda rows, send: looks.append(repr(send("new", 1))))
    desk.settle()
    assert looks == ["<Receipt 0 to a new peer: under way>"]


def test_a_session_that_ends_while_the_function_runs_undoes_it() -> None:
    desk = Desk()
    waiting = desk.transact(lambda rows, send: (rows.append("x"), send("a", 1)))
    assert desk.slate.running is not None
    call, done = desk.slate.running

    def while_it_ends(rows: object) -> None:
        call(rows)
        desk.from_a.end()

    desk.slate.running = (while_it_ends, done)
    desk.slate.finish_run()
    with pytest.raises(SessionClosed):
        _ = waiting.look().result
    assert desk.slate.rows == []
    told = desk.transact(lambda rows, send: send("a", 1))
    desk.settle()
    with pytest.raises(SessionClosed):
        _ = told.look().result


def test_send_is_of_no_use_outside() -> None:
    desk = Desk()
    kept: list[Any] = []
    desk.transact(lambda rows, send: kept.append(send))
    desk.settle()
    with pytest.raises(UsageError, match="a transaction that is over"):
        kept[0]("a", 1)


# -- room -------------------------------------------------------------------------------------------------------


def test_where_there_is_no_room_the_function_is_undone_and_called_again_when_there_is() -> None:
    desk = Desk(outbox_limit=500)
    for number in range(8):
        desk.from_a.send_nowait(number)
    desk.settle()
    [message] = desk.received("x")
    calls: list[int] = []

    def sends(rows: list[object], send: Any) -> None:
        calls.append(1)
        rows.append("x")
        send("a", "more")
        send("a", "and more: a transaction is whole, though the first has filled the outbox")

    waiting = desk.transact(sends, [message])
    desk.settle()
    waiting.look()
    assert (len(calls), desk.slate.rows, message.held, waiting.over) == (1, [], True, False)
    assert desk.to_b.read_nowait() == 0
    desk.settle()
    desk.net.wait(1.0)
    desk.settle()
    waiting.look()
    desk.settle()
    assert waiting.look().over
    assert (len(calls), desk.slate.rows, message.settled) == (2, ["x"], True)
    desk.net.wait(1.0)
    desk.settle()
    assert [desk.to_b.read_nowait() for _ in range(7)] == list(range(1, 8))
    desk.net.wait(1.0)
    desk.settle()
    assert desk.to_b.read_nowait() == "more"


def test_a_function_may_see_to_a_full_outbox_by_itself() -> None:
    desk = Desk(outbox_limit=500)
    for number in range(8):
        desk.from_a.send_nowait(number)
    desk.settle()

    def sends(rows: list[object], send: Any) -> str:
        try:
            send("a", "more")
        except OutboxFull:
            rows.append("later")
        return "done"

    waiting = desk.transact(sends)
    desk.settle()
    assert (waiting.look().result, desk.slate.rows) == ("done", ["later"])


def test_waiting_for_room_can_be_given_up() -> None:
    desk = Desk(outbox_limit=500)
    for number in range(8):
        desk.from_a.send_nowait(number)
    desk.settle()
    [message] = desk.received("x")
    waiting = desk.transact(lambda rows, send: send("a", "more"), [message])
    desk.settle()
    waiting.look().time_up()
    with pytest.raises(TimeoutError):
        _ = waiting.result
    assert message.held
