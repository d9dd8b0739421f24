"""Requests and replies: each request has one end, and whatever else comes back disturbs nobody.

"a" asks and dials, "b" replies.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import (
    CloseCode,
    Config,
    DecodeError,
    DeliveryFailure,
    EncodeError,
    GapRange,
    MessageAbandoned,
    MessageRejected,
    MessagesReady,
    NodeClosed,
    NoMoreMessages,
    Outcome,
    SessionClosed,
    SkipReason,
    Watch,
)
from networkio_proto.frames import DATA
from networkio_proto.inbox import Details, Inbox
from networkio_proto.maps import encode_map
from networkio_proto.requests import REPLY, REQUEST, Requests, reply_to, request_of
from networkio_testing.node import Flag, SimulatedMessage, SimulatedNode
from tests.proto.helpers import Moody, Two, Waiting, frames, live, two
from tests.proto.helpers_wire import HEADERS, Node, Peer, close, data

NUMBER = b"n" * 16


def asked(pair: Two, thing: object = "?") -> tuple[Waiting[object], SimulatedMessage]:
    """A request under way, and what "b" has taken of it."""
    waiting: Waiting[object] = Waiting(pair.a, pair.to_b._requesting(thing, None, False))
    pair.world.run(1.0)
    return waiting, pair.to_a.receive_nowait()


def at_rest(pair: Two) -> None:
    """Nobody waits, nothing is held, and all credit has come back."""
    pair.world.run(1.0)
    assert pair.left() == []
    for peer in (pair.to_b, pair.to_a):
        assert (peer.unread, peer.session.held, peer.session.unsettled) == (0, 0, 0)
        assert peer.session.requests.due() == []


# -- the table by itself ----------------------------------------------------------------------------------------------


def reply(number: object = NUMBER) -> tuple[Inbox, int, bytes, int, Details | None]:
    return Inbox(b"o" * 16, b"r" * 16, 1), 1, b"", 0, Details({REPLY: number})


def test_only_sixteen_bytes_make_a_request_or_a_reply() -> None:
    for key, number in ((REQUEST, request_of), (REPLY, reply_to)):
        assert number({key: NUMBER, "k": 1}) == NUMBER
        for odd in (None, {}, {"k": NUMBER}, {key: b""}, {key: bytes(15)}, {key: bytes(17)}, {key: "n" * 16}):
            assert number(odd) is None  # type: ignore[arg-type]


def test_a_reply_goes_to_the_request_with_its_number_and_only_the_first() -> None:
    requests = Requests()
    mine, other = requests.open(NUMBER), requests.open(b"m" * 16)
    mine.token, other.token = Flag(), Flag()
    first = reply()
    assert requests.answer(first)
    assert not requests.answer(reply())
    assert not requests.answer(reply(b"x" * 16))
    assert not requests.answer(reply("odd"))
    assert not requests.answer((*reply()[:4], None))
    assert (mine.delivery, other.delivery, requests.dropped) == (first, None, 4)
    assert requests.due() == [mine.token]
    assert requests.due() == []
    assert requests.all() == [mine.token, other.token]
    requests.close(mine)
    requests.close(mine)
    assert len(requests) == 1
    assert not requests.answer(reply())


def test_giving_up_is_told_to_all_who_wait_and_to_nobody_later() -> None:
    requests = Requests()
    early, looking = requests.open(NUMBER), requests.open(b"m" * 16)
    early.token = Flag()
    requests.give_up()
    later = requests.open(b"l" * 16)
    later.token = Flag()
    assert (early.over, looking.over, later.over) == (True, True, False)
    assert requests.due() == [early.token]


# -- between two nodes ------------------------------------------------------------------------------------------------


def test_a_request_gets_its_reply() -> None:
    pair = two()
    waiting, request = asked(pair, {"add": [1, 2]})
    assert (request.data, request.headers, request.wants_reply) == ({"add": [1, 2]}, {}, True)
    receipt = request.reply(3, headers={"k": 1})
    request.ack()
    pair.world.run(1.0)
    assert waiting.look().result == 3
    receipt.read(1.0)
    at_rest(pair)


def test_a_reply_comes_before_the_messages_that_wait_to_be_read_and_is_none_of_them() -> None:
    pair = two()
    waiting, request = asked(pair)
    for number in range(3):
        pair.to_a.send_nowait(number)
    request.reply("!")
    pair.to_a.send_nowait(3)
    request.ack()
    pair.world.run(1.0)
    assert waiting.look().result == "!"
    assert pair.to_b.unread == 4
    assert pair.to_b.read_many() == [0, 1, 2, 3]
    at_rest(pair)


def test_a_reply_is_no_messages_ready() -> None:
    pair = two()
    waiting, request = asked(pair)
    while pair.a.next_notice(0) is not None:
        pass
    request.reply("!")
    pair.world.run(1.0)
    told = [pair.a.next_notice(0) for _ in range(3)]
    assert MessagesReady(pair.to_b) not in told
    assert waiting.look().result == "!"
    pair.to_a.send_nowait(1)
    pair.world.run(1.0)
    assert pair.a.next_notice(0) == MessagesReady(pair.to_b)


def test_messages_that_nobody_waits_for_do_not_wake_those_who_wait_for_a_reply() -> None:
    pair = two()
    waiting, request = asked(pair)
    request.ack()
    pair.world.run(1.0)
    assert not waiting.look().over  # told that it is read, it waits for the reply alone
    assert pair.to_b.session.watch == Watch.REPLY
    pair.to_a.send_nowait("noise")
    pair.to_b.send_nowait("noise")
    pair.world.run(1.0)
    assert not waiting.woken
    request.reply("!")
    pair.world.run(1.0)
    assert waiting.woken


def test_large_replies_come_in_fragments_and_go_past_the_stream_too() -> None:
    pair = two()
    waiting, request = asked(pair)
    pair.to_a.send_nowait(0)
    request.reply(bytes(200_000))
    request.ack()
    pair.world.run(1.0)
    assert waiting.look().result == bytes(200_000)
    assert pair.to_b.read_many() == [0]
    at_rest(pair)


def test_many_requests_are_answered_in_any_order() -> None:
    pair = two()
    waits = [Waiting(pair.a, pair.to_b._requesting(number, None, False)) for number in range(5)]
    pair.world.run(1.0)
    requests = [pair.to_a.receive_nowait() for _ in range(5)]
    for request in reversed(requests):
        request.reply(request.data * 10)
        request.ack()
    pair.world.run(1.0)
    assert [wait.look().result for wait in waits] == [0, 10, 20, 30, 40]
    at_rest(pair)


def test_the_second_reply_is_dropped_and_settled() -> None:
    pair = two()
    waiting, request = asked(pair)
    first, second = request.reply("first"), request.reply("second")
    request.ack()
    pair.world.run(1.0)
    assert waiting.look().result == "first"
    assert pair.to_b.session.requests.dropped == 1
    first.read(1.0)
    second.read(1.0)
    third = request.reply("third")
    third.read(1.0)
    at_rest(pair)


def test_a_reply_to_whoever_gave_up_is_dropped_and_settled() -> None:
    pair = two()
    waiting, request = asked(pair)
    waiting.cancel()
    assert pair.left() == []
    receipt = request.reply("late")
    request.ack()
    receipt.read(1.0)
    assert pair.to_b.session.requests.dropped == 1
    at_rest(pair)


def test_a_reply_that_came_before_its_requester_was_cancelled_is_settled() -> None:
    pair = two()
    waiting, request = asked(pair)
    receipt = request.reply("too late")
    request.ack()
    pair.world.run(1.0)
    assert waiting.woken
    assert pair.to_b.session.held == 1
    waiting.cancel()
    receipt.read(1.0)
    at_rest(pair)


def test_a_reply_to_a_requester_that_restarted_is_dropped_and_settled() -> None:
    pair = two()
    _, request = asked(pair)
    pair.world.hosts["a"].restart()
    again = SimulatedNode(pair.world.hosts["a"])
    to_b = again.connect("b", "b")
    pair.world.run(1.0)
    receipt = request.reply("who are you?")
    request.ack()
    receipt.read(1.0)
    assert to_b.session.requests.dropped == 1
    assert (to_b.unread, to_b.session.held, to_b.session.unsettled) == (0, 0, 0)


def test_a_reply_that_nobody_waits_for_does_not_use_up_the_window() -> None:
    pair = two(Config(window_guaranteed=1000, window=1000, window_max=1000))
    waiting, request = asked(pair)
    waiting.cancel()
    for _ in range(50):
        request.reply(bytes(300)).read(1.0)
    request.ack()
    at_rest(pair)


def test_the_crashed_repliers_request_comes_again_and_its_reply_answers_it() -> None:
    pair = two()
    waiting, request = asked(pair)
    assert not request.redelivered
    pair.world.hosts["b"].restart()
    again = SimulatedNode(pair.world.hosts["b"])
    to_a = again.peer("a")
    repeated = to_a.receive(10.0)
    assert (repeated.data, repeated.redelivered, repeated.wants_reply) == ("?", True, True)
    repeated.reply("!")
    repeated.ack()
    pair.world.run(1.0)
    assert waiting.look().result == "!"
    with pytest.raises(NodeClosed, match="the process of node b is gone"):
        request.reply("from the grave")
    assert pair.to_b.session.unsettled == 0


def test_a_cut_delays_a_request_and_its_reply_and_no_more() -> None:
    pair = two()
    waiting: Waiting[object] = Waiting(pair.a, pair.to_b._requesting("?", None, False))
    live(pair.world).cut()
    request = pair.to_a.receive(10.0)
    request.reply("!")
    live(pair.world).cut()
    request.ack()
    pair.world.run(10.0)
    assert waiting.look().result == "!"
    at_rest(pair)


def test_a_rejected_request_raises_what_became_of_it() -> None:
    pair = two()
    waiting, request = asked(pair)
    request.reject("not you", 3)
    pair.world.run(1.0)
    with pytest.raises(MessageRejected, match="not you"):
        _ = waiting.look().result
    at_rest(pair)


def test_the_peers_end_before_the_reply_ends_the_wait() -> None:
    pair = two()
    waiting, request = asked(pair)
    pair.to_a.send_nowait("unread, and stays so")
    pair.to_a.end()
    pair.world.run(1.0)
    with pytest.raises(NoMoreMessages, match="b ended the conversation and did not reply to 1"):
        _ = waiting.look().result
    with pytest.raises(SessionClosed):
        request.reply("too late")
    with pytest.raises(NoMoreMessages, match="b ended the conversation and replies to nothing any more"):
        pair.to_b.request("anybody?")
    assert pair.to_b.ledger.accepted == 1
    request.ack()
    assert pair.to_b.read() == "unread, and stays so"
    at_rest(pair)


def test_a_reply_right_before_the_end_is_a_reply() -> None:
    pair = two()
    waiting, request = asked(pair)
    request.reply("!")
    request.ack()
    pair.to_a.end()
    pair.world.run(1.0)
    assert waiting.look().result == "!"
    at_rest(pair)


def test_a_request_after_ones_own_end_is_refused() -> None:
    pair = two()
    waiting, request = asked(pair)
    pair.to_b.end()
    with pytest.raises(SessionClosed):
        pair.to_b.request("one more")
    request.reply("!").received(1.0)
    assert waiting.look().result == "!"
    pair.to_a.end()
    request.ack()
    pair.world.run(1.0)
    with pytest.raises(SessionClosed):
        pair.to_b.request("one more")


@pytest.mark.parametrize("by", ["requester", "replier"])
def test_a_session_that_is_aborted_raises_the_typed_failure(by: str) -> None:
    pair = two()
    waiting, _ = asked(pair)
    (pair.to_b if by == "requester" else pair.to_a).abort()
    pair.world.run(1.0)
    with pytest.raises(MessageAbandoned, match=f"aborted by {'this side' if by == 'requester' else 'the peer'}"):
        _ = waiting.look().result
    assert pair.left() == []


def test_the_end_is_not_overlooked_when_the_session_begins_anew_before_anybody_looks() -> None:
    pair = two()
    waiting, request = asked(pair)
    request.ack()
    pair.world.run(1.0)
    assert not waiting.look().over
    pair.to_a.end()
    pair.to_b.end()
    pair.world.run(1.0)
    pair.a.connect("b", "b")
    pair.world.run(1.0)
    assert not pair.to_b.session.nothing_follows
    with pytest.raises(NoMoreMessages):
        _ = waiting.look().result


def test_a_session_that_expires_ends_the_wait_for_a_reply() -> None:
    pair = two(Config(session_expiry=60.0))
    waiting, request = asked(pair)
    request.ack()
    pair.world.run(1.0)
    assert not waiting.look().over
    pair.world.hosts["b"].crash(reset=False)
    pair.world.run(300.0)
    with pytest.raises(NoMoreMessages):
        _ = waiting.look().result


def test_the_end_of_the_node_ends_the_wait_for_a_reply() -> None:
    pair = two()
    waiting, request = asked(pair)
    request.ack()
    pair.world.run(1.0)
    assert not waiting.look().over
    pair.a.enter()
    pair.a.gone()
    pair.a.leave()
    assert waiting.woken
    with pytest.raises(NodeClosed):
        _ = waiting.look().result
    assert pair.left() == []


def test_a_reply_and_an_abort_in_one_chunk_are_told_in_this_order() -> None:
    node, peer = Node("m"), Peer("a")
    line = node.connect(peer)
    session = node.session("a")
    request = session.requests.open(NUMBER)
    request.token = Flag()
    session.watch = Watch.REPLY
    line.say(data(1, b"!", headers={REPLY: NUMBER}) + close(CloseCode.ABORT, flags=0))
    assert request.delivery is not None
    assert session.requests.due() == [request.token]
    assert not any(isinstance(event, MessagesReady) for event in node.events)
    session.settle(request.delivery, 0.0)
    assert (session.held, session.unsettled) == (0, 0)


# -- giving up --------------------------------------------------------------------------------------------------------


def test_a_request_whose_time_is_up_before_it_was_sent_is_cancelled() -> None:
    pair = two(connected=False)
    with pytest.raises(TimeoutError, match=r"^not within 5 s: b did not reply; no connection to b for .* s; this side"):
        pair.to_b.request("?", 5.0)
    assert pair.to_b.receipt(1).outcome is Outcome.CANCELLED
    pair.a.connect("b", "b")
    pair.to_b.send_nowait("later")
    assert pair.to_a.receive(10.0).gap == (GapRange(1, 1, SkipReason.CANCELLED),)
    assert pair.left() == []


def test_a_request_whose_time_is_up_after_it_was_sent_is_not_cancelled() -> None:
    pair = two()
    with pytest.raises(TimeoutError, match="b did not reply; the application of b has not acknowledged message 1"):
        pair.to_b.request("?", 5.0)
    assert pair.to_b.receipt(1).outcome is None
    assert pair.to_a.read() == "?"
    at_rest(pair)
    assert pair.to_b.receipt(1).outcome is Outcome.READ


def test_a_request_that_finds_no_room_in_time_was_never_sent() -> None:
    pair = two(Config(outbox_limit=1))
    pair.to_b.send_nowait(1)
    pair.world.run(1.0)
    late = Waiting(pair.a, pair.to_b._requesting("?", None, False)).time_up()
    with pytest.raises(TimeoutError, match="the application of b has not acknowledged message 1"):
        _ = late.result
    assert pair.to_a.read_many() == [1]
    at_rest(pair)
    assert pair.to_b.ledger.accepted == 1


def test_whoever_lets_messages_fill_the_window_hears_why_no_reply_came() -> None:
    pair = two(Config(window_guaranteed=1000, window=1000, window_max=1000))
    waiting, request = asked(pair)
    for _ in range(4):
        pair.to_a.send_nowait(bytes(300))
    request.reply("behind them")
    request.ack()
    pair.world.run(1.0)
    assert not waiting.look().over
    late = waiting.time_up()
    with pytest.raises(TimeoutError, match="b did not reply; nothing more can come from b before its messages are set"):
        _ = late.result
    assert pair.to_b.read_many() == [bytes(300)] * 3
    pair.world.run(1.0)
    assert pair.to_b.read_many() == [bytes(300)]
    at_rest(pair)


def test_a_reply_that_cannot_be_decoded_is_rejected() -> None:
    pair = two()
    waiting, request = asked(pair)
    number = request_of(request._details.headers)
    sequence = pair.to_a.session.send(b"\xc1", pair.world.now, reserved={REPLY: number})
    pair.world.hosts["b"].pump()
    pair.world.run(1.0)
    with pytest.raises(DecodeError) as caught:
        _ = waiting.look().result
    assert (caught.value.message.raw, caught.value.message.settled) == (b"\xc1", True)
    with pytest.raises(MessageRejected, match="the reply cannot be decoded"):
        pair.to_a.receipt(sequence).read()
    request.ack()
    at_rest(pair)


def test_a_reply_that_the_codec_chokes_on_is_rejected_too() -> None:
    pair = two()
    waiting, request = asked(pair)
    error = ZeroDivisionError()
    pair.a.codec = Moody(bad=error)
    receipt = request.reply("bad")
    pair.world.run(1.0)
    with pytest.raises(DecodeError) as caught:
        _ = waiting.look().result
    assert (caught.value.__cause__, caught.value.message.settled) == (error, True)
    with pytest.raises(MessageRejected, match="the reply cannot be decoded"):
        receipt.read()
    request.ack()
    at_rest(pair)


def test_a_request_that_is_struck_while_its_reply_is_decoded_was_given_up() -> None:
    pair = two()
    waiting, request = asked(pair)
    pair.a.codec = Moody(struck=KeyboardInterrupt())
    receipt = request.reply("struck")
    request.ack()
    pair.world.run(1.0)
    with pytest.raises(KeyboardInterrupt):
        waiting.look()
    receipt.read()
    at_rest(pair)


def test_a_request_that_cannot_be_encoded_leaves_nobody_waiting() -> None:
    pair = two()
    for thing, headers in ((object(), None), (1, {"id": 1})):
        with pytest.raises(EncodeError):
            pair.to_b.request(thing, headers=headers)
    at_rest(pair)


# -- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [b"short", "n" * 16, 7, None, [NUMBER]])
def test_what_only_looks_like_a_reply_is_a_message_like_any_other(number: object) -> None:
    pair = two()
    pair.to_a.session.send(pair.b.codec.encode(1), pair.world.now, headers={"k": 1}, reserved={REPLY: number})
    pair.world.hosts["b"].pump()
    message = pair.to_b.receive(1.0)
    assert (message.data, message.headers) == (1, {"k": 1})
    message.ack()
    at_rest(pair)


def test_what_was_told_before_a_reply_is_told_by_the_next_message_of_the_stream() -> None:
    pair = two()
    waiting, request = asked(pair)
    live(pair.world).cut()
    assert pair.to_a.send_nowait("cancelled").cancel()
    request.reply("!")
    request.ack()
    pair.world.run(10.0)
    assert waiting.look().result == "!"
    pair.to_a.send_nowait("next")
    message = pair.to_b.receive(1.0)
    assert (message.data, message.gap) == ("next", (GapRange(1, 1, SkipReason.CANCELLED),))


def test_the_room_for_an_id_is_kept_beside_the_librarys_own_headers() -> None:
    pair = two(connected=False)
    most = {f"k{number}": 0 for number in range(62)}
    with pytest.raises(EncodeError, match="63 headers are more than 62"):
        Waiting(pair.a, pair.to_b._requesting(1, {**most, "one more": 0}, False)).result  # noqa: B018
    waiting: Waiting[object] = Waiting(pair.a, pair.to_b._requesting(1, most, False))
    pair.to_b.session.outbox.rename(b"n" * 16, mark=False)  # from now on it carries an id
    pair.a.connect("b", "b")
    request = pair.to_a.receive(1.0)
    assert request.headers == most
    request.reply("!")
    pair.world.run(1.0)
    assert waiting.look().result == "!"


def test_a_request_and_its_reply_look_on_the_wire_as_the_specification_says() -> None:
    pair = two()
    waiting: Waiting[object] = Waiting(pair.a, pair.to_b._requesting(1, None, False))
    wire = live(pair.world)
    (sent,) = [frame for frame in frames(wire.pipes[0].data) if frame.kind == DATA]
    number = sent.body[-17:-1]
    assert sent.flags == HEADERS
    assert sent.body[10:] == encode_map({".request": number}) + b"\x01"
    wire.deliver(0)
    pair.to_a.receive_nowait().reply(2)
    (sent,) = [frame for frame in frames(wire.pipes[1].data) if frame.kind == DATA]
    assert sent.body[10:] == encode_map({".reply": number}) + b"\x02"
    pair.world.run(1.0)
    assert waiting.look().result == 2


# -- everything at once -----------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["request", "request", "take", "take", "reply", "reply", "reply", "settle", "settle", "cancel", "time up",
             "look", "message", "read", "cut", "half", "run", "bytes", "reject", "crash"]
        ),
        st.integers(0, 9),
    ),
    min_size=20,
    max_size=80,
)  # fmt: skip


class Exchange:
    """One story of requests, replies and accidents."""

    def __init__(self) -> None:
        self.pair = two(seed=5)
        self.draw = random.Random(5)
        self.to_a = self.pair.to_a
        self.asked = 0
        self.told = 0
        self.waits: dict[int, Waiting[object]] = {}
        self.taken: list[SimulatedMessage] = []
        #: requests with a reply, and those that were acknowledged without one
        self.replied: set[int] = set()
        self.ignored: set[int] = set()
        #: how each request ended
        self.ends: dict[int, str] = {}
        self.read: list[object] = []

    def act(self, what: str, index: int) -> None:
        getattr(self, what.replace(" ", "_"))(index)
        self.look(index)

    def request(self, _: int) -> None:
        number = self.asked = self.asked + 1
        self.waits[number] = Waiting(self.pair.a, self.pair.to_b._requesting(number, None, False))

    def take(self, _: int) -> None:
        message = self.to_a.receive_nowait(default=None)
        if message is not None:
            self.taken.append(message)

    def reply(self, index: int) -> None:
        if self.taken:
            request = self.taken[index % len(self.taken)]
            request.reply(request.data * 10)
            self.replied.add(request.data)

    def settle(self, index: int) -> None:
        if self.taken:
            request = self.taken.pop(index % len(self.taken))
            request.ack()
            if request.data not in self.replied:
                self.ignored.add(request.data)

    def reject(self, index: int) -> None:
        if self.taken:
            self.taken.pop(index % len(self.taken)).reject("no")

    def cancel(self, index: int) -> None:
        if self.waits:
            number = list(self.waits)[index % len(self.waits)]
            self.waits.pop(number).cancel()
            self.end(number, "cancelled")

    def time_up(self, index: int) -> None:
        if self.waits:
            number = list(self.waits)[index % len(self.waits)]
            self.close(number, self.waits[number].time_up())

    def look(self, _: int) -> None:
        for number, waiting in list(self.waits.items()):
            if waiting.look().over:
                self.close(number, waiting)

    def close(self, number: int, waiting: Waiting[object]) -> None:
        del self.waits[number]
        try:
            assert waiting.result == number * 10
        except TimeoutError:
            self.end(number, "time up")
        except DeliveryFailure:
            self.end(number, "failed")
        else:
            self.end(number, "answered")

    def end(self, number: int, how: str) -> None:
        assert number not in self.ends
        self.ends[number] = how

    def message(self, _: int) -> None:
        self.told += 1
        self.to_a.send_nowait(f"message {self.told}")

    def read_(self, limit: int) -> None:
        while limit and (thing := self.pair.to_b.read_nowait(default=None)) is not None:
            self.read.append(thing)
            limit -= 1

    def cut(self, index: int) -> None:
        for wire in self.pair.world.open_wires():
            wire.deliver(index % 2, index * 20)
            wire.cut("fin" if index % 3 else "rst")

    def half(self, index: int) -> None:
        for wire in self.pair.world.open_wires():
            wire.cut_half(index % 2)

    def bytes(self, index: int) -> None:
        for wire in self.pair.world.open_wires():
            wire.deliver(index % 2, 30 * index)

    def run(self, index: int) -> None:
        self.pair.world.run((0.0, 0.01, 0.1, 1.0, 60.0)[index % 5])

    def crash(self, _: int) -> None:
        """The replier's process dies; the requests that it held come again."""
        self.taken.clear()
        self.pair.world.hosts["b"].restart()
        self.to_a = SimulatedNode(self.pair.world.hosts["b"]).peer("a")

    def heal(self) -> None:
        """Everything works again; whoever still waits is answered, and nothing is left."""
        pair = self.pair
        for _ in range(3):
            pair.world.run(120.0)
            self.read_(1 << 20)
            for request in self.taken:
                request.reply(request.data * 10)
                request.ack()
            self.taken.clear()
            while (request := self.to_a.receive_nowait(default=None)) is not None:
                self.taken.append(request)
            self.look(0)
        crashed = pair.world.hosts["b"].lives > 1  # and its replies are gone with it
        for number, waiting in list(self.waits.items()):
            assert crashed or number in self.ignored
            self.close(number, waiting.time_up())
        pair.world.run(120.0)
        assert set(self.ends) == set(range(1, self.asked + 1))
        assert all(isinstance(thing, str) for thing in self.read), "a reply among the messages"
        told = [f"message {number}" for number in range(1, self.told + 1)]
        assert [thing for thing in told if thing in self.read] == self.read
        assert crashed or self.read == told
        assert pair.left() == []
        for peer in (pair.to_b, self.to_a):
            assert (peer.unread, peer.session.held, peer.session.unsettled) == (0, 0, 0)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=100)
@given(STEPS)
def test_each_request_has_one_end_and_nothing_is_left(steps: list[tuple[str, int]]) -> None:
    story = Exchange()
    for what, index in steps:
        story.act("read_" if what == "read" else what, index)
    story.heal()
