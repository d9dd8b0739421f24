"""What an application holds: messages and receipts as the core shows them, without an adapter."""

from __future__ import annotations

import pytest

from networkio_proto import (
    DecodeError,
    GapRange,
    MessageCancelled,
    MessageNotHeld,
    MessageRejected,
    MsgpackCodec,
    Outcome,
)
from networkio_proto.handles import MessageHandle, ReceiptHandle
from networkio_testing.world import World
from tests.proto.helpers import live, pair

CODEC = MsgpackCodec()


def go_on(world: World) -> None:
    """Carry out what the handles' commands led to."""
    for host in world.hosts.values():
        host.pump()
    world.run(1.0)


def message(world: World, at: str = "b") -> MessageHandle:
    """The next message at a host."""
    session = world.hosts[at].endpoint.session("a" if at == "b" else "b")
    (delivery,) = session.take()
    return MessageHandle(session, delivery, CODEC)


def receipt(world: World, payload: bytes = b"", *, data: object = None, **options: object) -> ReceiptHandle:
    """Send a message from "a" and let it arrive."""
    session = world.hosts["a"].endpoint.session("b")
    sequence = session.send(payload or CODEC.encode(data), world.now, **options)  # type: ignore[arg-type]
    go_on(world)
    return ReceiptHandle(session, sequence)


# -- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_shows_what_was_sent() -> None:
    world = pair()
    receipt(world, data={"hello": [1, 2]}, headers={"kind": "test"})
    got = message(world)
    assert got.data == {"hello": [1, 2]}
    assert got.data is got.data  # decoded once
    assert got.raw == CODEC.encode({"hello": [1, 2]})
    assert (got.sequence, got.headers, got.attempt) == (1, {"kind": "test"}, 1)
    assert (got.redelivered, got.gap, got.peer_restarted) == (False, (), None)
    assert repr(got) == f"<Message 1 from a: {len(got.raw)} bytes held>"


def test_a_plain_message_has_nothing_special() -> None:
    world = pair()
    receipt(world, data=None)
    got = message(world)
    assert got.data is None
    assert (got.headers, got.attempt, got.redelivered, got.gap, got.peer_restarted) == ({}, 1, False, (), None)


def test_raw_bytes_are_not_decoded() -> None:
    world = pair()
    receipt(world, b"\xc1 no msgpack", raw=True)
    assert message(world).data == b"\xc1 no msgpack"


def test_what_cannot_be_decoded_can_still_be_read_raw_and_settled() -> None:
    world = pair()
    sent = receipt(world, b"\xc1")
    got = message(world)
    for _ in range(2):
        with pytest.raises(DecodeError, match=r"message 1 from a cannot be decoded: .* read raw, rejected or ack"):
            _ = got.data
    assert got.raw == b"\xc1"
    assert got.held
    got._settle("rejected", world.now, (7, "garbage"))
    go_on(world)
    assert sent.outcome is Outcome.REJECTED


def test_ids_name_a_message_and_no_other() -> None:
    world = pair()
    for number in range(3):
        receipt(world, data=number)
    ids = [message(world).id for _ in range(3)]
    outbox_id = world.hosts["a"].endpoint.session("b").outbox.outbox_id
    assert ids == [f"{outbox_id.hex()}-{number}" for number in (1, 2, 3)]


def test_a_gap_is_told_with_the_message_after_it() -> None:
    world = pair(connected=False)
    session = world.hosts["a"].endpoint.session("b")
    receipts = [receipt(world, data=number) for number in range(3)]
    assert session.cancel(2, world.now)
    world.hosts["a"].dial("b")
    go_on(world)
    assert message(world).gap == ()
    assert [(gap.first, gap.last) for gap in message(world).gap if isinstance(gap, GapRange)] == [(2, 2)]
    with pytest.raises(MessageCancelled):
        receipts[1]._done(read=True)


def test_settling_twice_the_same_way_is_harmless_and_otherwise_refused() -> None:
    world = pair()
    for number in range(3):
        receipt(world, data=number)
    acked, rejected, released = (message(world) for _ in range(3))
    for _ in range(2):
        acked._settle("acknowledged", world.now)
        rejected._settle("rejected", world.now, (0, "no"))
        released._give_back(world.now)
    assert (acked.settled, rejected.settled, released.settled) == (True, True, False)
    assert (acked.held, rejected.held, released.held) == (False, False, False)
    assert repr(acked).endswith("acknowledged>")
    with pytest.raises(MessageNotHeld, match="message 1 from a was acknowledged before"):
        acked._settle("rejected", world.now, (0, ""))
    with pytest.raises(MessageNotHeld, match="message 2 from a was rejected before"):
        rejected._give_back(world.now)
    with pytest.raises(MessageNotHeld, match="message 3 from a was released before"):
        released._settle("acknowledged", world.now)
    assert message(world).attempt == 2


# -- receipts ---------------------------------------------------------------------------------------------------------


def test_a_receipt_follows_its_message() -> None:
    world = pair()
    world.hosts["a"].endpoint.session("b").disconnect(world.now)
    go_on(world)
    sent = receipt(world, data=1)
    assert (sent.outcome, sent.failure, sent.sequence) == (None, None, 1)
    assert not sent._done(read=False)
    assert repr(sent) == "<Receipt 1 to b: under way>"
    world.hosts["a"].dial("b")
    go_on(world)
    live(world)
    assert sent._done(read=False)
    assert not sent._done(read=True)
    message(world)._settle("acknowledged", world.now)
    go_on(world)
    assert sent._done(read=True)
    assert sent.outcome is Outcome.READ
    assert repr(sent) == "<Receipt 1 to b: read>"


def test_a_receipt_raises_what_became_of_its_message() -> None:
    world = pair()
    sent = receipt(world, data=1)
    message(world)._settle("rejected", world.now, (42, "not today"))
    go_on(world)
    for read in (False, True):
        with pytest.raises(MessageRejected, match="not today") as caught:
            sent._done(read=read)
        assert (caught.value.code, caught.value.seen, caught.value.sequence) == (42, "yes", 1)
    assert sent.failure is not None
    assert repr(sent) == "<Receipt 1 to b: rejected>"
