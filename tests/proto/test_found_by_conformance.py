"""Defects that the conformance scripts brought up, each as the case that showed it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from networkio_proto import CloseCode
from networkio_proto.journal import JournalRecord
from networkio_proto.maps import decode_map
from tests.proto.helpers_wire import (
    DATA,
    HEADERS,
    RAW,
    REDELIVERED,
    Line,
    Node,
    Peer,
    ack,
    data,
    fin,
    opened,
    skip,
)

LAST = 2**63 - 1


@pytest.mark.parametrize("more", [data(1), skip(1, 1), fin(1)], ids=["DATA", "SKIP", "FIN"])
def test_no_sequence_is_left_after_a_skip_up_to_the_last(more: bytes) -> None:
    """P-SKIP-13: also what would else be dropped or ignored is a breach of the protocol."""
    _, _, line = opened()
    line.say(skip(1, LAST))
    line.heard()
    line.say(more)
    assert line.farewell() is CloseCode.PROTOCOL


def journaled(records: list[JournalRecord]) -> tuple[Node, Callable[[], None]]:
    """A process over these records, and what writes its batches to them."""
    node = Node(journal=True, seed=len(records))
    node.endpoint.restore(list(records), node.now)

    def write() -> None:
        while (batch := node.endpoint.journal_request()) is not None:
            records.extend(batch.records)
            node.endpoint.journal_done(batch.token, node.now)
            node.pump()

    write()
    return node, write


def sent(line: Line) -> list[tuple[int, int, object]]:
    """Sequence, flags and ``id`` of every message that was heard."""
    found = []
    for item in line.heard():
        if item.kind == DATA:
            headers = decode_map(item.body[10 : 10 + int.from_bytes(item.body[8:10])]) if item.flags & HEADERS else {}
            found.append((int.from_bytes(item.body[:8]), item.flags, headers.get("id")))
    return found


def test_a_message_keeps_its_first_name_and_its_mark_over_a_restart() -> None:
    """P-OUT-6, P-MARK-3: an outbox was renamed, and then the process ended."""
    records: list[JournalRecord] = []
    node, write = journaled(records)
    peer = Peer()
    line = node.connect(peer)
    write()
    node.send(peer, b"one")
    write()
    assert sent(line) == [(1, RAW, None)]
    first_name = node.session(peer).outbox.outbox_id + (1).to_bytes(8, "big")
    stranger = {"outbox": node.session(peer).outbox.outbox_id, "run": b"?" * 16, "received": 0, "read": 0, "first": 1}
    line = node.connect(peer, inbox=stranger)
    write()
    assert sent(line) == [(1, RAW | HEADERS | REDELIVERED, first_name)]

    node, write = journaled(records)
    line = node.connect(peer)
    write()
    assert sent(line) == [(1, RAW | HEADERS | REDELIVERED, first_name)]


def test_a_mark_outlives_the_process_of_the_sender() -> None:
    """P-MARK-3: the receiver's process was another one, then so was the sender's."""
    records: list[JournalRecord] = []
    node, write = journaled(records)
    node.send(Peer(), b"one")
    for life in (1, 2):
        line = node.connect(Peer(life=life))
        write()
        assert sent(line) == [(1, RAW | (REDELIVERED if life == 2 else 0), None)]
        line.lose()
    node, write = journaled(records)
    line = node.connect(Peer(life=2))
    write()
    assert sent(line) == [(1, RAW | REDELIVERED, None)]


def test_a_mark_for_what_the_receiver_forgot_outlives_the_process_of_the_sender() -> None:
    """P-MARK-3 with P-MARK-2: nobody's process changed before ours did."""
    records: list[JournalRecord] = []
    node, write = journaled(records)
    peer = Peer()
    node.send(peer, b"one", b"two")
    line = node.connect(peer)
    write()
    line.say(ack(1, 0))
    line.heard()
    line = node.connect(peer)
    write()
    assert sent(line) == [(1, RAW | REDELIVERED, None), (2, RAW, None)]
    node, write = journaled(records)
    line = node.connect(peer)
    write()
    assert sent(line) == [(1, RAW | REDELIVERED, None), (2, RAW, None)]
