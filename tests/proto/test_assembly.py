"""DATA frames become messages: whole, in fragments, again, too big, beyond the credit, at the end of the sequences."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import CloseCode, Config, Limits, Outcome
from tests.proto.helpers_wire import (
    ACK,
    ATTACH,
    CONTINUED,
    HEADERS,
    MORE,
    PREAMBLE,
    RAW,
    REDELIVERED,
    SMALL,
    Node,
    Peer,
    ack,
    close,
    data,
    fin,
    fingerprint,
    frame,
    mapping,
    opened,
    ping,
    pong,
    reject,
    skip,
)


def fragments(payload: bytes, step: int, **first: Any) -> bytes:
    """Message 1 in fragments of ``step`` bytes."""
    pieces = [payload[start : start + step] for start in range(0, len(payload), step)]
    extra = len(mapping(first["headers"])) if "headers" in first else 0
    return b"".join(
        data(1, piece, total=len(payload) + extra, **first)
        if number == 0
        else data(1, piece, CONTINUED | (MORE if number < len(pieces) - 1 else 0))
        for number, piece in enumerate(pieces)
    )


@given(st.binary(min_size=2, max_size=200), st.integers(1, 99), st.booleans(), st.integers(1, 1000))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_fragments_add_up_to_the_message(payload: bytes, step: int, headers: bool, chunk: int) -> None:
    step = min(step, len(payload) - 1)
    node, peer, line = opened()
    first = {"headers": {"kind": "x"}} if headers else {}
    line.say(fragments(payload, step, **first), chunk=chunk)
    [delivery] = node.session(peer).take()
    assert delivery[2] == payload
    assert delivery[3] == RAW
    assert delivery[4] is not None
    assert delivery[4].headers == first.get("headers")
    line.say(data(2, b"next"))
    assert node.read(peer) == [b"next"]


def test_acknowledgements_pings_and_rejections_may_stand_between_fragments() -> None:
    node, peer, line = opened()
    node.send(peer, b"one", b"two")
    line.raw()
    line.say(data(1, b"a", total=3), ping(3), ack(1, 1), data(1, b"b", MORE | CONTINUED))
    assert pong(3) in line.raw()
    line.say(reject(node.session(peer).outbox.outbox_id, 2), pong(9), frame(0xA0), data(1, b"c", CONTINUED))
    assert node.read(peer) == [b"abc"]
    assert node.session(peer).outcome(1) is Outcome.READ
    assert node.session(peer).outcome(2) is Outcome.REJECTED


@pytest.mark.parametrize(
    "between",
    [data(2), data(1), data(1, total=9), data(2, b"x", CONTINUED), skip(1, 1), fin(1), data(1, b"x", CONTINUED | RAW)],
    ids=["next", "again", "begun again", "of another", "skip", "fin", "with a flag"],
)
def test_nothing_else_of_the_outbox_may_stand_between_fragments(between: bytes) -> None:
    node, peer, line = opened()
    line.say(data(1, b"a", total=3), between)
    assert line.farewell() is CloseCode.PROTOCOL
    assert node.session(peer).unread == 0


@pytest.mark.parametrize(
    "pieces",
    [
        [data(1, b"abcd", total=3)],
        [data(1, b"abc", total=3)],
        [data(1, b"", total=0)],
        [data(1, b"a", total=3), data(1, b"bc", MORE | CONTINUED)],
        [data(1, b"a", total=3), data(1, b"bcd", MORE | CONTINUED)],
        [data(1, b"a", total=3), data(1, b"b", CONTINUED)],
        [data(1, b"a", total=3), data(1, b"bcd", CONTINUED)],
        [data(1, b"a", total=3), data(1, b"", MORE | CONTINUED)],
        [data(1, b"a", total=3), data(1, b"", CONTINUED)],
        [data(1, b"a", total=3, headers={"longer": "than that"})],
    ],
    ids=lambda pieces: " ".join(piece[14:].hex() or "-" for piece in pieces),
)
def test_fragments_that_do_not_add_up_are_refused(pieces: list[bytes]) -> None:
    node, peer, line = opened()
    line.say(*pieces)
    assert line.farewell() is CloseCode.PROTOCOL
    assert node.session(peer).unread == 0


def test_a_message_that_was_cut_off_is_forgotten_and_starts_again() -> None:
    node, peer, line = opened()
    line.say(data(1, b"half", total=8))
    line.lose()
    assert node.session(peer).unread == 0
    again = node.connect(peer, next=2)
    again.say(data(1, b"full", total=8), data(1, b"mess", CONTINUED))
    assert node.read(peer) == [b"fullmess"]


def test_duplicates_are_dropped_whole_or_in_fragments_and_acknowledged_again() -> None:
    node, peer, line = opened()
    line.say(data(1, b"first"))
    node.advance(1.0)
    line.raw()
    for again in (data(1, b"again"), fragments(b"again", 2), data(1, b"again", headers={"a": 1})):
        line.say(again)
        node.advance(1.0)
        assert line.kinds()[-1] == ACK
    line.say(data(2, b"second"))
    assert node.read(peer) == [b"first", b"second"]


def test_limits_are_judged_at_the_first_fragment_with_room_for_the_id() -> None:
    most = SMALL.limits.message + 64
    size = SMALL.limits.frame - 14
    node, peer, line = opened()
    line.say(data(1, bytes(size), total=most + 1))
    assert line.farewell() is CloseCode.TOO_LARGE
    node, peer, line = opened()
    line.say(fragments(bytes(most), size))
    assert [len(payload) for payload in node.read(peer)] == [most]
    tight = Config(limits=Limits(frame=8192, message=10))
    node, peer, line = opened(tight)
    line.say(data(1, bytes(74)))
    assert [len(payload) for payload in node.read(peer)] == [74]
    line.say(data(2, bytes(75)))
    assert line.farewell() is CloseCode.TOO_LARGE


def test_headers_come_with_the_message_and_a_malformed_map_ends_the_connection() -> None:
    node, peer, line = opened()
    origin = b"o" * 16 + bytes(7) + b"\5"
    line.say(data(1, b"x", REDELIVERED | RAW, headers={"kind": "image", "id": origin, ".later": 1}))
    [(_, _, payload, flags, details)] = node.session(peer).take()
    assert (payload, flags) == (b"x", RAW)
    assert details is not None
    assert (details.redelivered, details.origin) == (True, origin)
    assert details.headers is not None
    assert details.headers["kind"] == "image"
    for headers in (b"\x81\xa1a", b"\x80\x80", b"\x81\x01\x02", b"\xc0"):
        node, peer, line = opened()
        line.say(data(1, len(headers).to_bytes(2, "big") + headers, HEADERS))
        assert line.farewell() is CloseCode.PROTOCOL
    for wrong in (7, b"short", "a text of twenty-four bytes"[:24], None):
        node, peer, line = opened()
        line.say(data(1, headers={"id": wrong}))
        assert line.farewell() is CloseCode.PROTOCOL, wrong


def test_one_message_may_pass_the_credit_and_the_next_one_may_not() -> None:
    node, peer, line = opened()
    line.say(data(1, bytes(8000)), data(2, bytes(8000)), data(3, bytes(8000)))
    assert line.closed is None
    line.say(data(4, b""))
    assert line.farewell() is CloseCode.FLOW
    assert len(node.read(peer)) == 3


@pytest.mark.parametrize("beyond", [skip(4, 4), fin(4), data(4, b"a", total=2)], ids=["skip", "fin", "fragment"])
def test_everything_that_has_a_sequence_needs_credit(beyond: bytes) -> None:
    _, _, line = opened()
    line.say(data(1, bytes(8000)), data(2, bytes(8000)), data(3, bytes(8000)), ack(0, 0), ping(), beyond)
    assert line.farewell() is CloseCode.FLOW


def test_the_greatest_sequence_is_taken_and_nothing_beyond_it() -> None:
    last = 2**63 - 1
    for beyond in (data(last + 1), skip(last + 1, last + 1), fin(last + 1), skip(last, last + 1)):
        node, peer, line = opened(first=last - 1, next=last - 1)
        line.say(data(last - 1, b"last but one"))
        line.say(beyond)
        assert line.farewell() is CloseCode.PROTOCOL
        assert node.read(peer) == [b"last but one"]
    node, peer, line = opened(first=last - 1, next=last - 1)
    line.say(data(last - 1), fin(last))
    node.read(peer)
    assert node.session(peer).peer_ended


def test_nothing_comes_after_fin() -> None:
    for after in (data(3), skip(3, 3), fin(3), skip(1, 3)):
        _, _, line = opened()
        line.say(data(1), fin(2), after)
        assert line.farewell() is CloseCode.PROTOCOL
    _, _, line = opened()
    line.say(data(1), fin(2), data(1), fin(2), skip(1, 2))
    assert line.closed is None


@pytest.mark.parametrize(
    ("taken", "adopted"),
    [
        (data(2, b"plain"), True),
        (data(2, b"with a flag", REDELIVERED | RAW), True),
        (data(2, b"be", total=5) + data(2, b"gun", CONTINUED), True),
        (data(2, b"be", total=5), False),
        (skip(2, 3), True),
        (fin(2), True),
        (data(1, b"again"), False),
        (skip(1, 1), False),
        (ack(0, 0) + ping(), False),
        (b"", False),
    ],
    ids=["data", "flagged", "fragments", "a fragment", "skip", "fin", "duplicate", "old skip", "control", "nothing"],
)
def test_a_new_run_of_an_outbox_is_adopted_with_the_first_sequence_that_is_taken_under_it(
    taken: bytes, adopted: bool
) -> None:
    """P-RUN-3 and P-RUN-4: a journal's sender states a new run at every start, under the same outbox."""
    node, peer, line = opened()
    line.say(data(1))
    line.lose()
    old, new = peer.run, b"a run that is new"[:16]
    line = node.connect(peer, next=3, run=new)
    line.say(taken)
    line.lose()
    again = node.dial(peer.peer_id)
    again.say(PREAMBLE, peer.hello_ack())
    attach = again.heard()[-1]
    assert attach.kind == ATTACH
    assert (new if adopted else old) in attach.body
    assert (old if adopted else new) not in attach.body


def test_a_session_that_is_over_on_this_side_listens_only_for_ping_and_close() -> None:
    """P-END-5: a finished dialer waits for the acceptor's last word."""
    node, peer = Node(), Peer()
    line = node.connect(peer, "dialer")
    node.session(peer).end(node.now)
    node.pump()
    line.say(fin(1), ack(1, 1))
    line.raw()
    before = fingerprint(node.endpoint)
    line.say(data(9), ack(9, 9), skip(7, 8), fin(5), reject(bytes(16), 1), ping(4), frame(0x80, b"x"))
    assert line.raw() == pong(4)
    assert fingerprint(node.endpoint) == before
    line.say(close(CloseCode.NORMAL, flags=0))
    assert line.ended() is CloseCode.NORMAL
    assert node.dials == []
    node.advance(1000.0)
    assert node.dials == []
