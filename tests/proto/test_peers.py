"""A peer as its application sees it: sending into bounds, taking, waiting, giving up, serving, draining, ending."""

from __future__ import annotations

import pytest

from networkio_proto import (
    Config,
    DecodeError,
    EncodeError,
    Limits,
    MessageAbandoned,
    MessagesReady,
    MessageTooLarge,
    NodeClosed,
    NoMessage,
    NoMoreMessages,
    OutboxFull,
    Outcome,
    PeerDisconnected,
    SessionClosed,
    Watch,
)
from networkio_proto.turns import Turns
from tests.proto.helpers import Moody, Two, Waiting, two
from tests.proto.helpers_node import Net

#: an outbox that is full after one message
TIGHT = Config(outbox_limit=1)


def said(pair: Two, *things: object) -> None:
    """Let "a" send things, and let them arrive."""
    for thing in things:
        pair.to_b.send_nowait(thing)
    pair.world.run(1.0)


def raw(pair: Two, payload: bytes) -> None:
    """Let "a" send bytes that claim to be its codec's."""
    pair.to_b.session.send(payload, pair.world.now)
    pair.world.hosts["a"].pump()
    pair.world.run(1.0)


# -- facts ------------------------------------------------------------------------------------------------------------


def test_a_peer_shows_what_its_session_knows() -> None:
    pair = two()
    assert (pair.to_b.id, pair.to_b.connected, repr(pair.to_b)) == ("b", True, "<Peer b connected>")
    said(pair, 1, 2)
    assert (pair.to_a.unread, pair.to_b.unacknowledged) == (2, 2)
    assert pair.to_b.ledger.accepted == 2
    assert pair.to_b.failures() == []
    assert "the application of b has not acknowledged message 1" in pair.to_b.why()
    pair.to_b.disconnect()
    assert not pair.to_b.connected
    assert repr(pair.to_b) == "<Peer b not connected>"


def test_notices_carry_the_peer_itself() -> None:
    pair = two()
    said(pair, 1)
    assert MessagesReady(pair.to_a) in [pair.b.next_notice(0) for _ in range(3)]


# -- sending ----------------------------------------------------------------------------------------------------------


def test_sending_waits_for_room_and_takes_it_when_it_comes() -> None:
    pair = two(TIGHT)
    pair.to_b.send_nowait(1)
    with pytest.raises(OutboxFull):
        pair.to_b.send_nowait(2)
    waiting = Waiting(pair.a, pair.to_b.accepting(pair.a.codec.encode(2)))
    assert pair.to_b.session.watch == Watch.ROOM
    pair.world.run(1.0)
    assert not waiting.woken
    assert pair.to_a.read() == 1
    pair.world.run(1.0)
    assert waiting.look().result.sequence == 2
    assert pair.left() == []


def test_sending_that_is_given_up_sends_nothing_and_says_what_it_waited_for() -> None:
    pair = two(TIGHT)
    said(pair, 1)
    payload = pair.a.codec.encode(2)
    Waiting(pair.a, pair.to_b.accepting(payload)).cancel()
    late = Waiting(pair.a, pair.to_b.accepting(payload)).time_up()
    with pytest.raises(TimeoutError, match="the application of b has not acknowledged message 1"):
        _ = late.result
    assert pair.left() == []
    assert pair.to_a.read_many() == [1]
    pair.world.run(1.0)
    assert pair.to_b.ledger.accepted == 1


def test_whoever_waits_for_room_hears_that_the_session_was_ended() -> None:
    pair = two(TIGHT)
    said(pair, 1)
    waiting = Waiting(pair.a, pair.to_b.accepting(b"x", raw=True))
    pair.to_b.end()
    with pytest.raises(SessionClosed):
        _ = waiting.look().result


def test_many_are_accepted_as_room_comes() -> None:
    pair = two(TIGHT)
    pair.b.serve(lambda message: message.ack())
    receipts = pair.to_b.send_many(range(5), headers={"k": 1})
    assert [receipt.sequence for receipt in receipts] == [1, 2, 3, 4, 5]
    receipts[-1].read()


def test_when_time_is_up_those_that_were_accepted_are_told() -> None:
    pair = two(TIGHT)
    receipts = pair.to_b.send_many([1, 2, 3], timeout=5.0)
    assert [receipt.sequence for receipt in receipts] == [1]
    assert pair.left() == []
    assert pair.to_a.read_many() == [1]


def test_many_are_looked_at_before_the_first_is_accepted() -> None:
    pair = two(Config(limits=Limits(message=100)))
    with pytest.raises(EncodeError):
        pair.to_b.send_many([1, object()])
    with pytest.raises(MessageTooLarge):
        pair.to_b.send_many([b"x", bytes(101)], raw=True)
    with pytest.raises(MessageTooLarge):
        pair.to_b.send_many([bytes(99)], raw=True, headers={"k": "v"})
    with pytest.raises(EncodeError, match="reserved"):
        pair.to_b.send_many([b"x"], raw=True, headers={".mine": 1})
    assert pair.to_b.ledger.accepted == 0


# -- receiving --------------------------------------------------------------------------------------------------------


def test_without_waiting_there_is_a_message_or_a_default_or_an_error() -> None:
    pair = two()
    for take in (pair.to_a.receive_nowait, pair.to_a.read_nowait):
        assert take(default=None) is None
        with pytest.raises(NoMessage, match="nothing from a is waiting to be read"):
            take()
    said(pair, 1, 2)
    with pair.to_a.receive_nowait(default=None) as message:
        assert message.data == 1
    assert pair.to_a.read_nowait(default=None) == 2


@pytest.mark.parametrize("what", ["receiving", "_reading", "_reading_many"])
def test_receiving_that_is_cancelled_takes_nothing_and_leaves_nobody_waiting(what: str) -> None:
    pair = two()
    arguments = (9,) if what == "_reading_many" else ()
    begun = Waiting(pair.b, getattr(pair.to_a, what)(*arguments))
    said(pair, 1)
    assert begun.woken  # it was told, and cancelled before it could look
    begun.cancel()
    assert pair.left() == []
    message = pair.to_a.receive_nowait()
    assert (message.data, message.attempt) == (1, 1)


def test_a_wait_that_is_cancelled_leaves_the_others_alone() -> None:
    pair = two()
    gone, stays = Waiting(pair.b, pair.to_a.receiving()), Waiting(pair.b, pair.to_a.receiving())
    gone.cancel()
    said(pair, 1)
    assert stays.look().result.data == 1
    assert pair.left() == []


def test_receiving_in_vain_says_from_whom() -> None:
    pair = two()
    late = Waiting(pair.b, pair.to_a.receiving()).time_up()
    with pytest.raises(TimeoutError, match=r"^not within 1 s: nothing came from a$"):
        _ = late.result
    assert pair.left() == []


def test_after_the_end_what_is_there_is_read_and_nothing_follows() -> None:
    pair = two()
    waiting = Waiting(pair.b, pair.to_a.receiving())
    second = Waiting(pair.b, pair.to_a.receiving())
    said(pair, 1)
    assert waiting.look().result.data == 1
    assert not second.look().over
    pair.to_b.end()
    pair.world.run(1.0)
    for late in (second.look(), Waiting(pair.b, pair.to_a._reading())):
        with pytest.raises(NoMoreMessages, match="a ended the conversation and everything it sent was read"):
            _ = late.result


def test_reading_many_waits_for_the_first_only() -> None:
    pair = two()
    waiting = Waiting(pair.b, pair.to_a._reading_many(3))
    assert not waiting.over
    said(pair, 0, 1, 2, 3)
    assert waiting.look().result == [0, 1, 2]
    assert pair.to_a.read_many() == [3]


def test_what_was_read_before_the_end_is_not_lost_to_it() -> None:
    pair = two()
    said(pair, 0, 1)
    pair.to_b.end()
    pair.world.run(1.0)
    assert pair.to_a.read_many(10) == [0, 1]
    with pytest.raises(NoMoreMessages):
        pair.to_a.read_many(10)


def test_what_cannot_be_decoded_among_many_is_the_next_ones_trouble() -> None:
    pair = two()
    said(pair, 0, 1)
    raw(pair, b"\xc1")
    said(pair, 3, 4)
    assert pair.to_a.read_many() == [0, 1]
    with pytest.raises(DecodeError) as caught:
        pair.to_a.read()
    broken = caught.value.message
    assert (broken.sequence, broken.attempt, broken.held) == (3, 2, True)
    broken.reject("garbage")
    later = pair.to_a.receive()
    assert (later.data, later.attempt) == (3, 1)
    later.ack()
    assert pair.to_a.read_many() == [4]


def test_what_cannot_be_decoded_is_held_by_whoever_caught_the_error() -> None:
    pair = two()
    raw(pair, b"\xc1")
    with pytest.raises(DecodeError) as caught:
        pair.to_a.read_nowait()
    assert caught.value.message.raw == b"\xc1"
    assert pair.to_a.session.held == 1
    caught.value.message.ack()
    assert pair.to_a.session.held == 0


def test_whatever_the_codec_raises_is_a_decode_error_with_the_message() -> None:
    pair = two()
    error = ZeroDivisionError("\x1bmine")
    pair.b.codec = Moody(bad=error)
    said(pair, "bad", "bad", "good")
    with pytest.raises(DecodeError, match=r"1 from a cannot be decoded: ZeroDivisionError: \\x1bmine; it") as caught:
        pair.to_a.read_nowait()
    assert caught.value.__cause__ is error
    assert (caught.value.message.held, pair.to_a.session.held) == (True, 1)
    caught.value.message.ack()
    with pytest.raises(DecodeError) as caught:
        pair.to_a.read_many()
    assert (caught.value.__cause__, caught.value.message.sequence) == (error, 2)
    caught.value.message.reject("bad")
    assert pair.to_a.read() == "good"
    assert pair.to_a.session.held == 0


@pytest.mark.parametrize("what", ["read_nowait", "read", "read_many"])
def test_what_strikes_in_the_middle_of_the_codec_passes_through_and_the_message_is_given_back(what: str) -> None:
    pair = two()
    said(pair, "struck", "last")
    pair.b.codec = Moody(struck=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        getattr(pair.to_a, what)()
    assert (pair.to_a.session.held, pair.to_a.unread) == (0, 2)
    pair.b.codec = Moody()
    message = pair.to_a.receive()
    assert (message.data, message.attempt) == ("struck", 2)
    message.ack()
    assert pair.to_a.read() == "last"


def test_reading_many_that_is_struck_acknowledges_none_of_them() -> None:
    pair = two()
    said(pair, "first", "struck", "last")
    pair.b.codec = Moody(struck=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        pair.to_a.read_many()
    pair.world.run(1.0)
    assert (pair.to_a.session.held, pair.to_b.ledger.read) == (0, 0)
    pair.b.codec = Moody()
    assert pair.to_a.read_many() == ["first", "struck", "last"]


# -- serving ----------------------------------------------------------------------------------------------------------


def test_a_handlers_message_is_acknowledged_when_it_returns() -> None:
    pair = two()
    said(pair, 1)
    message = pair.to_a.receive_nowait()
    assert pair.to_a.judged(message, None, None) == 0.0
    assert message.settled


def test_a_handler_that_fails_gets_the_message_again_after_a_growing_pause() -> None:
    pair = two()
    said(pair, 1)
    pauses = []
    for attempt in range(1, 10):
        message = pair.to_a.receive_nowait()
        assert message.attempt == attempt
        pauses.append(pair.to_a.judged(message, ValueError(), None))
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_handler_that_fails_too_often_rejects_the_message() -> None:
    pair = two()
    said(pair, 1)
    assert pair.to_a.judged(pair.to_a.receive_nowait(), ValueError(), 2) == 0.05
    assert pair.to_a.judged(pair.to_a.receive_nowait(), ValueError("secret"), 2) == 0.0
    pair.world.run(1.0)
    (failure,) = pair.to_b.failures()
    assert (failure.outcome, failure.reason) == (Outcome.REJECTED, "the handler failed 2 times: ValueError")


@pytest.mark.parametrize("error", [None, ValueError()])
def test_what_the_handler_settled_by_itself_stays_so(error: Exception | None) -> None:
    pair = two()
    said(pair, 1)
    message = pair.to_a.receive_nowait()
    message.release()
    assert pair.to_a.judged(message, error, 1) == 0.0
    assert pair.to_a.receive_nowait().attempt == 2


def test_around_the_call_of_a_handler_its_failure_is_told_and_ends() -> None:
    net = Net()
    a, b = net.node("a"), net.node("b")
    to_b, to_a = net.connected(a, b)
    to_b.send_nowait(1)
    to_b.send_nowait(2)
    net.run()
    message, error = to_a.receive_nowait(), ValueError("mine")
    b.lines.clear()
    with to_a.handling(message) as handling:
        raise error
    assert (handling.pause, message.held, message.settled) == (0.05, False, False)
    (line,) = b.lines
    assert (line.level, line.text % line.arguments) == (40, "the handler failed on message 1 of a")
    assert line.error is error
    message = to_a.receive_nowait()
    with to_a.handling(message, max_attempts=2) as handling:
        raise error
    assert (handling.pause, message.settled) == (0.0, True)
    message = to_a.receive_nowait()
    assert message.data == 2
    with to_a.handling(message) as handling:
        pass
    assert (handling.pause, message.settled) == (0.0, True)
    assert len(b.lines) == 2


def test_what_is_no_failure_of_the_handler_passes_through_and_its_message_comes_again() -> None:
    net = Net()
    a, b = net.node("a"), net.node("b")
    to_b, to_a = net.connected(a, b)
    to_b.send_nowait(1)
    net.run()
    b.lines.clear()
    with pytest.raises(KeyboardInterrupt), to_a.handling(to_a.receive_nowait()):
        raise KeyboardInterrupt
    assert b.lines == []
    message = to_a.receive_nowait()
    assert message.attempt == 2
    with to_a.handling(message, failures=BaseException) as handling:
        raise SystemExit
    assert (len(b.lines), handling.pause) == (1, 0.1)


def test_a_message_that_was_settled_elsewhere_meanwhile_or_whose_node_has_ended_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Net()
    a, b = net.node("a"), net.node("b")
    to_b, to_a = net.connected(a, b)
    to_b.send_nowait(1)
    to_b.send_nowait(2)
    net.run()
    message, other = to_a.receive_nowait(), to_a.receive_nowait()
    monkeypatch.setattr(type(message), "held", True)  # another thread is about to settle it
    with to_a.handling(message) as handling:
        message.release()
    assert handling.pause == 0.0
    monkeypatch.undo()
    with to_a.handling(other):
        b.close()
    assert other.held


def test_a_peer_that_is_woken_tells_those_who_serve_many() -> None:
    net = Net()
    a, b = net.node("a"), net.node("b")
    to_b, to_a = net.connected(a, b)
    turns = b.turns = Turns(b)
    receiving = Waiting(b, to_a.receiving())  # whoever waits at the peer itself is woken as well
    assert list(turns._queue) == []
    to_b.send_nowait(1)
    net.run()
    assert list(turns._queue) == [to_a]
    assert receiving.look().result.data == 1
    assert turns._queue.count(to_a) == 1


def test_serving_waits_the_peers_end_out() -> None:
    pair = two()
    waiting = Waiting(pair.b, pair.to_a.serving())
    pair.to_b.end()
    pair.to_a.end()
    pair.world.run(1.0)
    assert not waiting.look().over
    pair.a.connect("b", "b")
    said(pair, "again")
    message = waiting.look().result
    assert message is not None
    assert message.data == "again"


@pytest.mark.parametrize("ended", [False, True])
def test_serving_is_over_with_the_node(ended: bool) -> None:
    pair = two()
    if ended:
        pair.to_b.end()
        pair.world.run(1.0)
    waiting = Waiting(pair.b, pair.to_a.serving())
    pair.b.close(0)
    assert waiting.look().result is None
    assert Waiting(pair.b, pair.to_a.serving()).result is None
    assert pair.left() == []


# -- waiting and ending -----------------------------------------------------------------------------------------------


def test_whoever_waits_for_a_connection_is_told_when_it_stands() -> None:
    pair = two(connected=False)
    waiting = Waiting(pair.a, pair.to_b._connecting())
    late = Waiting(pair.a, pair.to_b._connecting()).time_up()
    with pytest.raises(TimeoutError, match=r"no connection to b for .*; this side has no address to dial"):
        _ = late.result
    pair.a.connect("b", "b")
    pair.to_b.wait_connected()
    assert waiting.look().result is None
    assert pair.left() == []


def test_draining_refuses_new_messages_until_everything_is_read() -> None:
    pair = two()
    said(pair, 1)
    draining = Waiting(pair.a, pair.to_b.draining())
    with pytest.raises(SessionClosed, match="it is draining"):
        pair.to_b.send_nowait(2)
    assert pair.to_a.read() == 1
    pair.world.run(1.0)
    assert draining.look().result.unread == 0
    pair.to_b.send_nowait(2)
    assert pair.left() == []


def test_draining_that_takes_too_long_returns_the_ledger_and_sending_goes_on() -> None:
    pair = two()
    pair.to_b.send_nowait(1)
    ledger = pair.to_b.drain(1.0)
    assert (ledger.accepted, ledger.unread) == (1, 1)
    pair.to_b.send_nowait(2)
    Waiting(pair.a, pair.to_b.draining()).cancel()
    pair.to_b.send_nowait(3)
    assert pair.left() == []


def test_aborting_gives_up_what_is_unread() -> None:
    pair = two()
    receipt = pair.to_b.send_nowait(1)
    waiting = Waiting(pair.a, receipt._until(read=True))
    pair.to_b.abort()
    with pytest.raises(MessageAbandoned):
        _ = waiting.look().result


def test_the_end_of_the_node_wakes_all_who_wait() -> None:
    pair = two(TIGHT)
    receipt = pair.to_b.send_nowait(1)
    while pair.a.next_notice(0) is not None:
        pass
    waits: list[Waiting[object]] = [
        Waiting(pair.a, pair.to_b.receiving()),
        Waiting(pair.a, pair.to_b.accepting(b"")),
        Waiting(pair.a, receipt._until(read=False)),
        Waiting(pair.a, receipt._until(read=True)),
    ]
    draining = Waiting(pair.a, pair.to_b.draining())
    noticing = Waiting(pair.a, pair.a._noticing())
    pair.a.enter()
    pair.a.gone()
    pair.a.leave()
    assert [wait.woken for wait in waits] == [True] * 4
    assert (draining.woken, noticing.woken) == (True, True)
    for wait in waits:
        with pytest.raises(NodeClosed):
            _ = wait.look().result
    assert draining.look().result.unread == 1
    assert isinstance(noticing.look().result, PeerDisconnected)
    assert pair.left() == []
