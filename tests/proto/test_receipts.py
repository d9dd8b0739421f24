"""Who waits for which message: every waiter is told once, when its wait is over and not before."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto.errors import Outcome
from networkio_proto.ledger import Failure
from networkio_proto.outbox import Outbox
from networkio_proto.receipts import ReceiptWaiters, Waiter


def outbox(messages: int) -> Outbox:
    """An outbox with so many messages, all transmitted."""
    made = Outbox(b"o" * 16, b"r" * 16)
    for _ in range(messages):
        made.append(b"x", raw=True)
    made.attach(8192, 1 << 20, 1 << 30)
    made.pull([], 1 << 20, 0.0)
    return made


def fail(made: Outbox, waiters: ReceiptWaiters, sequence: int) -> None:
    made.failures.add(Failure(sequence, sequence, Outcome.REJECTED, "no", "yes"))
    waiters.failed = True


def test_nobody_waits_at_first() -> None:
    waiters = ReceiptWaiters()
    assert len(waiters) == 0
    assert waiters.due(outbox(3)) == waiters.all() == []


def test_received_comes_before_read() -> None:
    waiters, box = ReceiptWaiters(), outbox(3)
    waiters.add(1, "received 1", read=False)
    waiters.add(1, "read 1", read=True)
    waiters.add(2, "received 2", read=False)
    box.acknowledge(1, 0)
    assert waiters.due(box) == ["received 1"]
    box.acknowledge(2, 1)
    assert waiters.due(box) == ["received 2", "read 1"]
    assert waiters.due(box) == []
    assert len(waiters) == 0


def test_what_is_read_counts_as_received() -> None:
    waiters, box = ReceiptWaiters(), outbox(1)
    waiters.add(1, "received", read=False)
    box.first = 2  # its outcome was learned without an acknowledgement of its receipt
    assert waiters.due(box) == ["received"]


def test_a_failure_ends_both_waits_of_its_message_only() -> None:
    waiters, box = ReceiptWaiters(), outbox(3)
    for sequence in (1, 2, 3):
        waiters.add(sequence, f"received {sequence}", read=False)
        waiters.add(sequence, f"read {sequence}", read=True)
    fail(box, waiters, 2)
    assert sorted(waiters.due(box)) == ["read 2", "received 2"]
    assert waiters.due(box) == []
    assert len(waiters) == len(waiters.all()) == 4


def test_whoever_stopped_waiting_is_not_told() -> None:
    waiters, box = ReceiptWaiters(), outbox(2)
    gone, failed = waiters.add(1, "gone", read=True), waiters.add(2, "gone too", read=True)
    waiters.add(1, "stays", read=True)
    waiters.remove(gone)
    waiters.remove(gone)
    waiters.remove(failed)
    assert len(waiters) == 1
    assert waiters.all() == ["stays"]
    fail(box, waiters, 2)
    box.acknowledge(1, 1)
    assert waiters.due(box) == ["stays"]
    assert len(waiters) == 0


def test_stopping_after_being_told_is_harmless() -> None:
    waiters, box = ReceiptWaiters(), outbox(1)
    waiter = waiters.add(1, "told", read=True)
    box.acknowledge(1, 1)
    assert waiters.due(box) == ["told"]
    waiters.remove(waiter)
    assert len(waiters) == 0


def test_holes_are_filled_when_they_are_the_majority() -> None:
    waiters = ReceiptWaiters()
    made = [waiters.add(sequence, sequence, read=sequence % 2 == 0) for sequence in range(1, 101)]
    for waiter in made[:90]:
        waiters.remove(waiter)
    assert len(waiters) == 10
    assert len(waiters._received) + len(waiters._read) < 40
    assert sorted(waiters.all()) == list(range(91, 101))


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 60), st.booleans()),
        st.tuples(st.just("remove"), st.integers(0, 200)),
        st.tuples(st.just("acknowledge"), st.integers(0, 60), st.integers(0, 60)),
        st.tuples(st.just("fail"), st.integers(1, 60)),
        st.tuples(st.just("due")),
    ),
    max_size=120,
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(OPERATIONS)
def test_it_behaves_like_a_set_that_is_looked_through_each_time(operations: list[tuple[object, ...]]) -> None:
    waiters, box = ReceiptWaiters(), outbox(60)
    made: list[tuple[Waiter, bool]] = []
    waiting: dict[int, tuple[int, bool]] = {}

    def over(sequence: int, read: bool) -> bool:
        through = box.read if read else max(box.received, box.read)
        return sequence <= through or box.failures.find(sequence) is not None

    def check_due() -> None:
        expected = {token for token, (sequence, read) in waiting.items() if over(sequence, read)}
        told = waiters.due(box)
        assert len(told) == len(set(told))
        assert set(told) == expected
        for token in told:
            del waiting[token]

    for name, *arguments in operations:
        numbers = [argument for argument in arguments if isinstance(argument, int)]
        if name == "add":
            token = len(made)
            if not over(numbers[0], bool(numbers[1])):  # else there is nothing to wait for
                made.append((waiters.add(numbers[0], token, read=bool(numbers[1])), bool(numbers[1])))
                waiting[token] = (numbers[0], bool(numbers[1]))
        elif name == "remove" and made:
            token = numbers[0] % len(made)
            waiters.remove(made[token][0])
            waiting.pop(token, None)
        elif name == "acknowledge":
            box.acknowledge(max(numbers), min(numbers))
        elif name == "fail" and numbers[0] > box.read and box.failures.find(numbers[0]) is None:
            fail(box, waiters, numbers[0])
        elif name == "due":
            check_due()
        assert len(waiters) == len(waiting)
        assert sorted(waiters.all()) == sorted(waiting)
    check_due()
