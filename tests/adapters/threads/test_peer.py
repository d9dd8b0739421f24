"""Peers of networkio_threads: what each way of sending, receiving and ending promises."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from networkio_threads import (
    DecodeError,
    EncodeError,
    IteratorBusy,
    MessageAbandoned,
    MessageCancelled,
    MessageExpired,
    MessageNotHeld,
    MessageRejected,
    NoMessage,
    NoMoreMessages,
    NotARequest,
    OutboxFull,
    Outcome,
    Receipt,
    SessionClosed,
    SessionEnded,
    WrongThread,
)
from tests.adapters.helpers import note_encoding
from tests.adapters.threads.helpers import Crew, connected, fill, node, notice_of, read_all, send_all, until

# -- sending and reading ----------------------------------------------------------------------------------------------


def test_what_is_sent_is_read_in_order_both_ways() -> None:
    with connected() as pair:
        up = [pair.near.send(number) for number in range(300)]
        down = [pair.far.send(number) for number in range(300)]
        assert read_all(pair.far, 300) == read_all(pair.near, 300) == list(range(300))
        up[-1].read(5)
        down[-1].read(5)
        assert pair.near.ledger.read == pair.far.ledger.read == 300
        assert pair.near.unacknowledged == pair.near.unread == 0


@pytest.mark.parametrize("size", [0, 1, 2048, 65536, 300_000, 5_000_000])
def test_raw_bytes_of_any_size_pass_as_they_are(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with connected() as pair:
        buffer = bytearray(payload)
        pair.near.send(memoryview(buffer), raw=True)
        buffer[:] = bytes(size)  # what was accepted is beyond reach
        message = pair.far.receive(10)
        assert message.data == message.raw == payload
        message.ack()
        with pytest.raises(EncodeError, match="int"):
            pair.near.send(5, raw=True)


def test_headers_ttl_and_facts_go_along() -> None:
    with connected() as pair:
        pair.near.send("x", headers={"kind": "test"})
        first = pair.far.receive(5)
        assert (first.headers, first.sequence, first.attempt, first.peer) == ({"kind": "test"}, 1, 1, pair.far)
        first.ack()
        receipt = pair.client.send("stranger", "y", ttl=0.02)
        with pytest.raises(MessageExpired, match="ttl"):
            receipt.read(5)


def test_send_waits_for_room_and_send_nowait_does_not() -> None:
    with connected(outbox_limit=2000) as pair, Crew() as crew:
        accepted = fill(pair.near)
        with pytest.raises(OutboxFull, match="outbox_limit 2000"):
            pair.near.send_nowait("no room")
        crew.start(pair.near.send, "waited")
        until(lambda: pair.near.session.watch)
        assert pair.near.ledger.accepted == accepted
        assert read_all(pair.far, accepted + 1) == [*range(accepted), "waited"]


def test_a_message_that_waits_for_room_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(outbox_limit=2000) as pair, Crew() as crew:
        accepted = fill(pair.near)
        encoded = note_encoding(monkeypatch, pair.client.codec)
        crew.start(pair.near.send, "waited")
        until(lambda: pair.near.session.watch)
        assert read_all(pair.far, accepted + 1) == [*range(accepted), "waited"]
        assert encoded == ["waited"]


def test_send_waits_for_room_in_the_node_whoever_gives_it_back() -> None:
    with connected(outbox_node_limit=2000) as pair:
        accepted = fill(pair.near)
        with Crew() as crew:
            crew.start(pair.client.send, "another", "waited")
            until(lambda: pair.client.endpoint.starved)
            read_all(pair.far, accepted)
        assert pair.client.peer("another").unacknowledged == 1


@pytest.mark.parametrize("ending", ["end", "abort"])
def test_a_send_that_waits_for_room_gives_up_when_the_session_is_ended(ending: str) -> None:
    with connected(outbox_limit=1000) as pair, Crew() as crew:
        fill(pair.near)

        def send() -> None:
            with pytest.raises(SessionClosed, match="takes no new messages"):
                pair.near.send("too late")

        crew.start(send)
        until(lambda: pair.near.session.watch)
        getattr(pair.near, ending)()


def test_send_many_is_in_order_and_tells_how_far_it_came() -> None:
    with connected(outbox_limit=2000) as pair:
        receipts = pair.near.send_many(range(1000), 0.05)
        assert 0 < len(receipts) < 1000
        assert read_all(pair.far, len(receipts)) == list(range(len(receipts)))
        with Crew() as crew:
            crew.start(pair.near.send_many, range(1000))
            assert read_all(pair.far, 1000) == list(range(1000))


def test_an_iterable_may_ask_the_node_while_it_is_sent() -> None:
    """It is gone through before anything is locked."""
    with connected() as pair:
        pair.far.send_many(range(3))
        until(lambda: pair.near.unread == 3)
        assert len(pair.near.send_many(pair.near.read(5) for _ in range(3))) == 3
        assert read_all(pair.far, 3) == [0, 1, 2]
        assert len(pair.client.broadcast("x", (pair.client.peer(name) for name in ("server", "stranger")))) == 2
        assert pair.far.read(5) == "x"


def test_a_codec_that_calls_its_node_is_told_and_nothing_hangs() -> None:
    with connected() as pair:
        decode = pair.server.codec.decode
        pair.near.send("x")
        pair.near.send("y")
        until(lambda: pair.far.unread == 2)

        class Nosy:
            name = "msgpack"

            def encode(self, data: Any) -> bytes:
                return pair.server.peer("client").id.encode()

            def decode(self, data: bytes | memoryview) -> object:
                return pair.far.why()

        pair.server.codec = Nosy()
        with pytest.raises(DecodeError, match="in the middle of another call") as caught:
            pair.far.read(5)
        assert isinstance(caught.value.__cause__, WrongThread)
        caught.value.message.ack()
        assert pair.far.send("anything")  # encoding is not done inside
        pair.server.codec.decode = decode  # type: ignore[method-assign]
        assert pair.far.read(5) == "y"
        assert pair.far.session.held == 0


def test_requests_replies_and_what_is_none() -> None:
    with connected() as pair, Crew() as crew:

        def answer() -> None:
            for _ in range(20):
                with pair.far.receive(5) as request:
                    assert request.wants_reply
                    request.reply(request.data * 2)

        crew.start(answer)
        assert [pair.near.request(number, 5) for number in range(20)] == [number * 2 for number in range(20)]
        pair.near.send("no request")
        with pair.far.receive(5) as message, pytest.raises(NotARequest):
            message.reply("to nobody")


def test_cancel_tells_whether_the_message_may_be_seen() -> None:
    with connected() as pair:
        seen = pair.near.send("seen")
        seen.received(5)
        assert not seen.cancel()
        unseen = pair.client.send("stranger", "unseen")
        assert unseen.cancel()
        with pytest.raises(MessageCancelled):
            unseen.read(5)


# -- receiving --------------------------------------------------------------------------------------------------------


def test_without_a_message_nothing_waits_where_nowait_is_said() -> None:
    with connected() as pair:
        for call in (pair.far.read_nowait, pair.far.receive_nowait):
            with pytest.raises(NoMessage, match="nothing from client"):
                call()
            assert call(default=None) is None
        pair.near.send("x")
        until(lambda: pair.far.unread)
        assert pair.far.read_nowait() == "x"


def test_read_many_waits_for_the_first_only() -> None:
    with connected() as pair:
        send_all(pair.near, 10)
        until(lambda: pair.far.unread == 10)
        assert pair.far.read_many(4) == [0, 1, 2, 3]
        assert pair.far.read_many() == [4, 5, 6, 7, 8, 9]
        with Crew() as crew:
            crew.start(pair.near.send, "late")
            assert pair.far.read_many(timeout=5) == ["late"]


def test_settling_twice_the_same_way_is_harmless_and_otherwise_refused() -> None:
    with connected() as pair:
        send_all(pair.near, 3)
        acked, rejected, released = [pair.far.receive(5) for _ in range(3)]
        for _ in range(2):
            acked.ack()
            rejected.reject("no")
            released.release()
        for message, ways in ((acked, "reject release"), (rejected, "ack release"), (released, "ack reject")):
            for way in ways.split():
                with pytest.raises(MessageNotHeld, match=f"message {message.sequence} from client was"):
                    getattr(message, way)()
        again = pair.far.receive(5)
        assert (again.data, again.attempt) == (2, 2)
        again.ack()


def test_a_rejection_reaches_the_sender_with_its_words() -> None:
    with connected() as pair:
        receipt = pair.near.send("x")
        pair.far.receive(5).reject("not today\n", 42)
        with pytest.raises(MessageRejected, match="not today") as caught:
            receipt.read(5)
        assert (caught.value.code, caught.value.seen, receipt.outcome) == (42, "yes", Outcome.REJECTED)
        assert str(caught.value).isprintable()
        assert [(failure.first, failure.last) for failure in pair.near.failures()] == [(1, 1)]


def test_with_acknowledges_on_success_and_releases_on_failure() -> None:
    with connected() as pair:
        receipt = pair.near.send("x")
        with pytest.raises(LookupError), pair.far.receive(5):
            raise LookupError
        with pair.far.receive(5) as message:
            assert message.attempt == 2
        receipt.read(5)


def test_what_cannot_be_decoded_can_be_settled_and_the_stream_goes_on() -> None:
    with connected() as pair:
        for end in ("reject", "ack", "release"):
            with pair.client.inside as now:
                pair.near.session.send(b"\xc1", now)  # what another implementation might have made
            with pytest.raises(DecodeError, match="read raw, rejected or acknowledged") as caught:
                pair.far.read(5)
            message = caught.value.message
            assert (message.held, message.raw) == (True, b"\xc1")
            getattr(message, end)()
        with pytest.raises(DecodeError) as caught:
            pair.far.read_nowait()
        caught.value.message.ack()
        pair.near.send("after")
        assert pair.far.read(5) == "after"


# -- iterating --------------------------------------------------------------------------------------------------------


def test_iterating_acknowledges_each_message_when_the_next_is_asked_for() -> None:
    with connected() as pair:
        receipts = [pair.near.send(number) for number in range(3)]
        iterator = iter(pair.far)
        first, second = next(iterator), next(iterator)
        assert (first.settled, second.held) == (True, True)
        receipts[0].read(5)
        with pytest.raises(IteratorBusy, match="use receive"):
            iter(pair.far)
        iterator.close()
        assert read_all(pair.far, 2) == [1, 2]


def test_a_break_or_an_exception_gives_back_the_message_in_hand() -> None:
    with connected() as pair:
        send_all(pair.near, 3)
        for message in pair.far:
            if message.data == 1:
                break
        del message
        assert pair.far.read(5) == 1

        def fail() -> None:
            for _ in pair.far:
                raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            fail()
        gc.collect()
        with pair.far.receive(5) as again:
            assert (again.data, again.attempt) == (2, 2)


def test_an_iteration_ends_where_the_peer_ended() -> None:
    with connected() as pair:
        send_all(pair.near, 3)
        pair.near.end()
        assert [message.data for message in pair.far] == [0, 1, 2]
        with pytest.raises(NoMoreMessages, match="client ended the conversation"):
            pair.far.read(5)
        pair.far.end()
        assert notice_of(pair.server, SessionEnded).peer is pair.far


# -- receipts and ends ------------------------------------------------------------------------------------------------


def test_hundreds_of_receipts_wait_and_each_is_woken() -> None:
    with connected() as pair, Crew() as crew:
        receipts = [pair.near.send(number) for number in range(200)]
        for receipt in receipts:
            crew.start(receipt.read, 10)
        read_all(pair.far, 200)


def test_every_receipt_has_an_end_when_the_session_is_aborted() -> None:
    def wait(receipt: Receipt) -> None:
        with pytest.raises(MessageAbandoned):
            receipt.read(10)

    with connected() as pair, Crew() as crew:
        for receipt in [pair.near.send(number) for number in range(50)]:
            crew.start(wait, receipt)
        until(lambda: len(pair.near.session.receipts) == 50)
        pair.near.abort()


def test_drain_takes_nothing_new_and_ends_when_everything_is_read_or_time_is_up() -> None:
    with connected() as pair:
        send_all(pair.near, 20)
        ledger = pair.near.drain(0.05)
        assert (ledger.accepted, ledger.unread) == (20, 20)
        with Crew() as crew:
            crew.start(pair.near.drain)
            until(lambda: pair.near.session.watch)
            with pytest.raises(SessionClosed, match="draining"):
                pair.near.send("too late")
            read_all(pair.far, 20)
        pair.near.send("after")
        assert pair.far.read(5) == "after"
        pair.client.send("stranger", "x")
        assert pair.client.drain(0.05).unread == 1


def test_a_disconnected_session_can_be_resumed() -> None:
    with connected() as pair:
        send_all(pair.near, 3)
        assert pair.far.read(5) == 0
        pair.near.disconnect()
        until(lambda: not pair.near.connected and not pair.far.connected)
        pair.near.send(3)
        pair.client.connect("127.0.0.1", pair.listener.port, "server")
        assert read_all(pair.far, 3) == [1, 2, 3]
        until(lambda: pair.near.ledger.read == 4)


def test_use_after_the_end_is_refused() -> None:
    with connected() as pair:
        pair.near.end()
        with pytest.raises(SessionClosed, match="server takes no new messages from this side"):
            pair.near.send("x")


def test_a_message_is_taken_while_nobody_is_there() -> None:
    with node("client") as here:
        assert here.send("server", "x").outcome is None
        assert here.peer("server").unacknowledged == 1
        assert "server" in here.peer("server").why()
