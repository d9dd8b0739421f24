"""When an ACK goes out, what it says, and that no rejection is passed over."""

from __future__ import annotations

from typing import Any

import pytest

from networkio_proto import (
    COST_PER_MESSAGE,
    Config,
    ConfigurationError,
    Limits,
    MessagesFailed,
    MessagesRead,
    MessagesReceived,
    Outcome,
)
from networkio_proto.frames import ACK, DATA, FIN, REJECT
from tests.proto.helpers import live, pair
from tests.proto.helpers_session import (
    ACCEPTOR,
    DIALER,
    KIB,
    acks,
    hear,
    hosts,
    inject,
    kinds,
    noticed,
    one,
    promised,
    quiet_pair,
    reconnect,
    said,
)

# -- acknowledging ----------------------------------------------------------------------------------------------------


def test_an_ack_goes_out_at_once_when_the_application_has_settled_all_that_it_holds() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2")
    hear(world, DIALER)
    one_, two = b.take("a", 2)
    b.settle("a", one_)
    assert acks(world, ACCEPTOR) == []
    b.settle("a", two)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(3, 3)]


@pytest.mark.parametrize(("settled", "at_once"), [(63, False), (64, True)])
def test_an_ack_waits_while_the_application_reads_on_but_not_for_more_than_64(settled: int, at_once: bool) -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", *100 * [b"x"])
    hear(world, DIALER)
    hear(world, ACCEPTOR)
    assert len(b.read("a", settled)) == settled
    assert [ack[1] for ack in acks(world, ACCEPTOR)] == ([1 + settled] if at_once else [])
    world.advance(0.03)
    assert [ack[1] for ack in acks(world, ACCEPTOR)] == [1 + settled]
    hear(world, ACCEPTOR)
    assert len(b.read("a")) == 100 - settled
    assert [ack[1] for ack in acks(world, ACCEPTOR)] == [101]  # nothing is left: at once


@pytest.mark.parametrize(("settled", "at_once"), [(2, False), (3, True)])
def test_an_ack_does_not_wait_when_half_of_a_window_can_be_had_again(settled: int, at_once: bool) -> None:
    world = quiet_pair(Config(window=6000, window_guaranteed=6000, window_max=6000))
    a, b = hosts(world)
    a.send("b", *5 * [bytes(1000 - COST_PER_MESSAGE)])
    hear(world, DIALER)
    world.advance(0.03)
    hear(world, ACCEPTOR)
    b.read("a", settled)
    assert [ack[1] for ack in acks(world, ACCEPTOR)] == ([1 + settled] if at_once else [])


def test_what_was_released_is_not_settled_and_lets_the_ack_wait() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2")
    hear(world, DIALER)
    one_, two = b.take("a", 2)
    b.release("a", one_)
    b.settle("a", two)
    assert acks(world, ACCEPTOR) == []


@pytest.mark.parametrize("leave", ["close", "disconnect"])
def test_what_was_read_before_leaving_is_acknowledged_before_the_close(leave: str) -> None:
    """The application reads the last message and closes at once: the driver had no time to write in between."""
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"the last")
    hear(world, DIALER)
    session = b.session("a")
    session.take_settled(1, world.now)
    if leave == "close":
        b.endpoint.close(world.now)
    else:
        session.disconnect(world.now)
    b.pump()
    world.deliver_all()
    assert a.session("b").outcome(2) is Outcome.READ


def test_an_ack_waits_for_company_for_25_ms_and_no_longer() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2")
    hear(world, DIALER)
    world.advance(0.0249)
    assert said(world, ACCEPTOR) == []
    world.advance(0.0002)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(3, 1)]
    hear(world, ACCEPTOR)
    held, _ = b.take("a", 2)
    b.settle("a", held)
    world.advance(0.0249)
    assert said(world, ACCEPTOR) == []
    world.advance(0.0002)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(3, 2)]
    hear(world, ACCEPTOR)
    world.advance(1.0)
    assert said(world, ACCEPTOR) == []


def test_an_ack_joins_a_message_that_goes_the_same_way() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1")
    hear(world, DIALER)
    assert said(world, ACCEPTOR) == []
    b.send("a", b"answer")
    assert kinds(said(world, ACCEPTOR)) == [ACK, DATA]
    hear(world, ACCEPTOR)
    world.advance(1.0)
    assert said(world, ACCEPTOR) == []


@pytest.mark.parametrize(
    ("messages", "size", "at_once"),
    [(63, 1, False), (64, 1, True), (1, 64 * KIB - 65, False), (1, 64 * KIB - 64, True)],
    ids=["63 messages", "64 messages", "less than 64 KiB", "64 KiB"],
)
def test_an_ack_goes_out_at_once_after_64_messages_or_64_kib(messages: int, size: int, at_once: bool) -> None:
    world = quiet_pair()
    a, _ = hosts(world)
    a.send("b", *messages * [bytes(size)])
    hear(world, DIALER)
    assert [ack[0] for ack in acks(world, ACCEPTOR)] == ([messages + 1] if at_once else [])


def test_what_counts_for_an_ack_is_what_came_since_the_last() -> None:
    world = quiet_pair()
    a, _ = hosts(world)
    for _ in range(3):
        a.send("b", *40 * [b"x"])
        hear(world, DIALER)
        assert len(acks(world, ACCEPTOR)) == 0
        world.advance(0.03)
        assert len(acks(world, ACCEPTOR)) == 1
        hear(world, ACCEPTOR)


@pytest.mark.parametrize(("size", "at_once"), [(4999, False), (5001, True)])
def test_an_ack_goes_out_at_once_when_half_of_the_credit_is_used_up(size: int, at_once: bool) -> None:
    window = 10_000 + 2 * (2 * COST_PER_MESSAGE + 5)  # what the greeting used of it is behind us
    world = quiet_pair(Config(window=window, window_guaranteed=window, window_max=window))
    a, b = hosts(world)
    a.send("b", bytes(size - COST_PER_MESSAGE + (window - 10_000) // 2))
    inbox = b.session("a").inbox
    assert inbox is not None
    told = inbox.allowed - inbox.used
    hear(world, DIALER)
    assert bool(acks(world, ACCEPTOR)) == at_once == (inbox.allowed - inbox.used < window // 2)
    assert told == window


@pytest.mark.parametrize("fragments", [1, 3])
def test_an_ack_goes_out_at_once_when_the_sender_asks_for_it(fragments: int) -> None:
    world = quiet_pair(Config(limits=Limits(frame=8192), ack_cost=1 << 30))
    a, _ = hosts(world)
    a.send("b", bytes(7000 * fragments), ack_now=True)
    hear(world, DIALER)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(2, 1)]


def test_an_ack_goes_out_at_once_for_fin_and_while_ending_or_draining() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    b.session("a").drain(world.now)
    b.pump()
    hear(world, ACCEPTOR)
    a.send("b", b"1", b"2")
    hear(world, DIALER)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(3, 1)]
    hear(world, ACCEPTOR)
    b.settle("a", one(b, "a"))
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(3, 2)]
    b.session("a").undrain()
    hear(world, ACCEPTOR)
    a.end("b")
    hear(world, DIALER)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(4, 2)]
    hear(world, ACCEPTOR)
    one(b, "a")
    b.end("a")
    assert kinds(said(world, ACCEPTOR)) == [FIN]  # nothing else is new: the message is held


def test_at_most_one_ack_waits_however_much_there_is_to_acknowledge() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    live(world).throttle(ACCEPTOR, 0)
    for number in range(300):
        a.send("b", b"%d" % number, ack_now=True)
        hear(world, DIALER)
        b.read("a")
    assert said(world, ACCEPTOR) == []
    live(world).throttle(ACCEPTOR)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(301, 301)]


def test_an_ack_joins_what_waits_to_be_written() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1")
    hear(world, DIALER)
    live(world).throttle(ACCEPTOR, 0)
    b.send("a", b"answer")
    b.read("a")
    live(world).throttle(ACCEPTOR)
    assert kinds(said(world, ACCEPTOR)) == [ACK, DATA]
    assert acks(world, ACCEPTOR)[0][:2] == (2, 2)


def test_a_duplicate_is_acknowledged_as_if_it_were_new_and_its_cost_comes_back() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", bytes(1000))
    data = bytes(live(world).pipes[DIALER].data)
    hear(world, DIALER)
    b.read("a")
    before = acks(world, ACCEPTOR)[-1]
    hear(world, ACCEPTOR)
    inject(world, DIALER, data)
    assert b.session("a").unread == 0
    world.advance(0.03)
    (after,) = acks(world, ACCEPTOR)
    assert after[:2] == before[:2]
    assert after[2] == before[2] + 1000 + COST_PER_MESSAGE


def test_positions_are_told_within_25_ms_of_a_connection_if_they_moved_while_it_was_made() -> None:
    """What the dialer stated in its ATTACH may be old when it goes live; else a credit of 0 would last for ever."""
    window = Config(window=64 * KIB, window_max=64 * KIB)
    world = pair(window)
    a, b = hosts(world)
    b.send("a", *100 * [bytes(1000)])
    world.run(1.0)
    assert b.session("a").outbox.untransmitted
    live(world).cut()
    world.advance(1.0)
    (wire,) = a.answer_dials()
    wire.deliver(DIALER)
    wire.deliver(ACCEPTOR)  # a has stated its facts: no credit at all
    taken = len(a.read("b"))
    world.run(0.1)
    assert b.session("a").outbox.read == taken
    assert a.session("b").unread == 100 - taken


def test_what_an_ack_lost_with_its_connection_had_to_say_is_told_once_after_the_resume() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2")
    hear(world, DIALER)
    b.read("a", 1)
    live(world).cut()
    a.notices.clear()
    reconnect(world)
    assert noticed(a, MessagesReceived) == [MessagesReceived("b", 3)]
    assert noticed(a, MessagesRead) == [MessagesRead("b", 2)]
    assert b.read("a") == [b"2"]


# -- rejecting --------------------------------------------------------------------------------------------------------


def test_a_rejection_ends_the_message_with_its_code_and_reason_and_is_settled_on_both_sides() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"bad", b"good")
    hear(world, DIALER)
    bad, good = b.take("a", 2)
    b.settle("a", bad, reject=(7, "bad order"))
    b.settle("a", good)
    assert kinds(said(world, ACCEPTOR)) == [REJECT, ACK]
    world.run(0.1)
    session = a.session("b")
    assert [session.outcome(sequence) for sequence in (2, 3)] == [Outcome.REJECTED, Outcome.READ]
    failure = session.failure(2)
    assert failure is not None
    assert (failure.reason, failure.code, failure.seen) == ("bad order", 7, "yes")
    assert len(noticed(a, MessagesFailed)) == 1
    inbox = b.session("a").inbox
    assert inbox is not None
    assert inbox.idle
    assert inbox.unsettled == 0
    assert inbox.first == 4


@pytest.mark.parametrize("reject", [(-1, ""), (65536, ""), ("7", ""), (0.5, ""), (7, None), (7, b"bad")])
def test_a_rejection_that_cannot_be_told_is_refused_and_changes_nothing(reject: Any) -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"bad")
    hear(world, DIALER)
    (bad,) = b.take("a", 1)
    with pytest.raises(ConfigurationError, match="of a rejection is"):
        b.settle("a", bad, reject=reject)
    b.settle("a", bad, reject=(65535, "it is held as before"))
    world.run(0.1)
    failure = a.session("b").failure(2)
    assert failure is not None
    assert failure.code == 65535


def test_a_rejection_goes_before_any_ack_that_passes_it() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2", b"3")
    hear(world, DIALER)
    taken = b.take("a", 3)
    b.settle("a", taken[1], reject=(1, ""))
    b.settle("a", taken[0])
    b.settle("a", taken[2], reject=(2, ""))
    assert kinds(said(world, ACCEPTOR)) == [REJECT, REJECT, ACK]
    assert [frame.u64(2) for frame in said(world, ACCEPTOR)[:2]] == [3, 4]


def test_a_rejection_that_was_lost_comes_again_with_the_next_connection() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"bad")
    world.run(1.0)
    b.settle("a", one(b, "a"), reject=(7, "no"))
    live(world).cut()
    world.run(1.0)
    live(world)
    assert a.session("b").outcome(2) is Outcome.REJECTED
    inbox = b.session("a").inbox
    assert inbox is not None
    assert inbox.idle


def test_a_rejection_while_there_is_no_connection_is_told_on_the_next_one() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"bad", b"good")
    world.run(1.0)
    live(world).cut()
    taken = b.take("a", 2)
    b.settle("a", taken[0], reject=(7, "no"))
    b.settle("a", taken[1])
    reconnect(world)
    assert [a.session("b").outcome(sequence) for sequence in (2, 3)] == [Outcome.REJECTED, Outcome.READ]


def test_a_rejected_message_keeps_its_credit_until_the_sender_has_passed_it() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", bytes(1000))
    hear(world, DIALER)
    b.settle("a", one(b, "a"), reject=(0, ""))
    inbox = b.session("a").inbox
    assert inbox is not None
    before = inbox.allowed
    hear(world, ACCEPTOR)
    hear(world, DIALER)  # a's ACK with its ``first``
    assert [ack[2] for ack in acks(world, ACCEPTOR)] == [before + 1064]


def test_a_rejected_message_keeps_its_credit_over_a_cut() -> None:
    world = pair(Config(window=64 * KIB, window_max=64 * KIB))
    a, b = hosts(world)
    a.send("b", b"unread", bytes(1000))
    world.run(0.1)
    _, bad = b.take("a", 2)
    b.settle("a", bad, reject=(0, ""))
    live(world).cut()
    reconnect(world)
    assert a.session("b").outcome(2) is Outcome.REJECTED
    assert promised(b, "a") == 64 * KIB - (64 + 6) - (64 + 1000)
