"""What ACK and REJECT of the peer do here, and what they must not claim."""

from __future__ import annotations

import pytest

from networkio_proto import COST_PER_MESSAGE, Config, MessagesRead, MessagesReceived
from networkio_proto.frames import encode_ack, encode_reject
from tests.proto.helpers import live, pair
from tests.proto.helpers_session import ACCEPTOR, hear, hosts, inject, quiet_pair, reconnect

# -- acknowledging ----------------------------------------------------------------------------------------------------


def test_an_acknowledgement_is_news_to_the_application_once() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.notices.clear()
    a.send("b", b"1", b"2", b"3")
    world.run(0.1)
    assert a.notices == [MessagesReceived("b", 4)]
    b.read("a", 2)
    world.run(0.1)
    assert a.notices[1:] == [MessagesRead("b", 3)]
    b.read("a")
    world.run(0.1)
    assert a.notices[2:] == [MessagesRead("b", 4)]


def test_each_value_of_an_ack_counts_for_itself() -> None:
    world = quiet_pair()
    a, _ = hosts(world)
    outbox = a.session("b").outbox
    credit = outbox.credit
    a.send("b", b"1", b"2", b"3")
    inject(world, ACCEPTOR, encode_ack(3, 0, 0, 1))
    assert (outbox.received, outbox.read, outbox.credit) == (3, 1, credit)
    inject(world, ACCEPTOR, encode_ack(2, 2, credit + 5, 1))
    assert (outbox.received, outbox.read, outbox.credit) == (3, 2, credit + 5)
    inject(world, ACCEPTOR, encode_ack(0, 0, credit, 0))
    assert (outbox.received, outbox.read, outbox.credit) == (3, 2, credit + 5)


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (encode_ack(2, 0, 0, 1), "ACK of received 2, read 0 where 1 was sent"),
        (encode_ack(0, 1, 0, 1), "ACK of received 0, read 1"),
        (encode_ack(1, 1, 0, 3), "ACK says first 3 where only 0 came"),
    ],
    ids=["more than was sent", "read beyond received", "first beyond what came"],
)
def test_an_ack_of_what_never_was_closes_the_connection(frame: bytes, complaint: str) -> None:
    world = quiet_pair()
    a, _ = hosts(world)
    inject(world, ACCEPTOR, frame)
    error = a.session("b").error
    assert complaint in str(error)
    assert (a.session("b").outbox.received, a.session("b").outbox.read) == (1, 1)


@pytest.mark.parametrize("news", ["credit", "first", "received", "nothing"])
def test_acks_are_a_flood_only_if_they_tell_nothing(news: str) -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", *300 * [b"x"])
    b.send("a", *300 * [b"x"])
    world.run(1.0)
    credit = a.session("b").outbox.credit
    for number in range(1, 301):
        received, more, first = 0, 0, 1
        if news == "received":
            received = number
        elif news == "credit":
            more = credit + number
        elif news == "first":
            first = number
        if a.session("b").connected:
            inject(world, ACCEPTOR, encode_ack(received, received, more, first))
    assert a.session("b").connected == (news != "nothing")


# -- rejecting --------------------------------------------------------------------------------------------------------


def test_a_rejection_that_arrived_is_repeated_until_first_has_passed_it_and_changes_nothing_any_more() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"bad", b"good")
    world.run(1.0)
    taken = b.take("a", 2)
    b.settle("a", taken[0], reject=(7, "first"))
    hear(world, ACCEPTOR)  # the rejection is known; what a makes of it is not
    live(world).cut()
    for _ in range(3):
        reconnect(world)
        live(world).cut()
    reconnect(world)
    session = a.session("b")
    assert session.ledger.rejected == 1
    b.settle("a", taken[1])
    world.run(0.1)
    assert session.ledger.read == 2
    inbox = b.session("a").inbox
    assert inbox is not None
    assert inbox.idle
    assert inbox.rejects == {}


def test_the_credit_of_a_rejection_is_back_although_a_later_one_is_not_passed_yet() -> None:
    """P-ACK-10: whoever rejected waits for each of them, not for the last."""
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"bad", b"held", b"bad too")
    world.run(1.0)
    taken = b.take("a", 3)
    b.settle("a", taken[2], reject=(7, "second"))
    b.settle("a", taken[0], reject=(7, "first"))
    world.run(1.0)
    inbox = b.session("a").inbox
    assert inbox is not None
    assert list(inbox.rejects) == [taken[2][1]]
    assert b.session("a").unsettled == sum(COST_PER_MESSAGE + len(delivery[2]) for delivery in taken[1:])


def test_a_rejection_of_an_earlier_connection_does_not_keep_the_credit_of_a_later_one() -> None:
    """The reader restarts after it rejected the second of two, gets the first again, and rejects that too."""
    world = pair(b=Config(window=64, window_guaranteed=64))
    a, b = hosts(world)
    a.send("b", b"", b"", b"")
    world.run(0.1)
    (first,) = b.take("a")
    b.settle("a", first)
    world.run(0.1)
    taken = b.take("a", 2)
    b.settle("a", taken[1], reject=(7, "no"))
    world.run(0.1)
    b.restart()
    world.run(1.0)
    (again,) = b.take("a")
    b.settle("a", again, reject=(7, "no"))
    world.run(1.0)
    assert a.session("b").outbox.all_read
    assert b.session("a").unsettled == 0


@pytest.mark.parametrize("what", ["another outbox", "read long ago", "twice", "fin"])
def test_a_rejection_of_what_is_over_is_ignored(what: str) -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"x")
    a.end("b")
    world.run(0.01)
    session = a.session("b")
    outbox_id, sequence = session.outbox.outbox_id, 2
    if what == "another outbox":
        outbox_id = bytes(16)
    elif what == "read long ago":
        sequence = 1
    elif what == "twice":
        inject(world, ACCEPTOR, encode_reject(outbox_id, 2, 1, "once"))
    else:
        sequence = 3
    before = session.ledger
    inject(world, ACCEPTOR, encode_reject(outbox_id, sequence, 9, "again"))
    assert session.ledger == before
    assert session.connected
    assert b.session("a").connected


def test_a_rejection_of_what_was_never_sent_closes_the_connection() -> None:
    world = quiet_pair()
    a, _ = hosts(world)
    inject(world, ACCEPTOR, encode_reject(a.session("b").outbox.outbox_id, 2, 0, ""))
    assert "REJECT of 2 where 1 was sent" in str(a.session("b").error)
