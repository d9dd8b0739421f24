"""The threads adapter with a journal: the same promises, without an event loop."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from networkio_journal import SQLiteJournal
from networkio_proto.journal import Store
from networkio_threads import JournalFailed, JournalFull, JournalLocked, Node, Outcome, Peer
from tests.adapters.helpers import HASTY
from tests.adapters.shelf import Shelf
from tests.adapters.threads.helpers import Crew, read_all, until


def keeping(peer_id: str, journal: Store | str, **changes: Any) -> Node:
    """A hasty node with a journal; ``changes`` are settings of its Config."""
    return Node(peer_id, config=replace(HASTY, drain_timeout=1.0, **changes), journal=journal)


@contextmanager
def met(client: Store | str, server: Store | str) -> Iterator[tuple[Peer, Peer]]:
    """Each one's peer for the other, connected."""
    with keeping("server", server) as there, keeping("client", client) as here:
        listener = there.listen("127.0.0.1", 0)
        near, far = here.connect("127.0.0.1", listener.port, "server"), there.peer("client")
        near.wait_connected(5)
        far.wait_connected(5)
        yield near, far


def test_send_returns_when_the_message_is_on_disk() -> None:
    shelf = Shelf()
    with keeping("a", shelf) as node, Crew() as crew:
        sequences: list[int] = []
        shelf.going.clear()
        crew.start(lambda: sequences.append(node.peer("b").send("x").sequence))
        until(lambda: node.peer("b").unacknowledged)
        assert (sequences, shelf.messages) == ([], [])
        shelf.going.set()
        until(lambda: sequences)
        assert shelf.messages == [1]


def test_threads_that_send_at_once_share_a_write() -> None:
    shelf = Shelf()
    with keeping("a", shelf) as node, Crew() as crew:
        shelf.going.clear()
        for number in range(20):
            crew.start(node.peer("b").send, number)
        until(lambda: node.peer("b").unacknowledged == 20)
        shelf.going.set()
        until(lambda: sum(shelf.messages) == 20)
        assert len(shelf.batches) <= 3


def test_a_send_that_takes_too_long_was_not_sent() -> None:
    shelf = Shelf()
    with met(shelf, Shelf()) as (near, far):
        shelf.going.clear()
        with pytest.raises(TimeoutError):
            near.send("given up", 0.05)
        assert near.send_many(["and", "these"], 0.05) == []
        shelf.going.set()
        near.send("sent")
        assert far.read(5) == "sent"
        assert [near.receipt(sequence).outcome for sequence in (1, 2, 3)] == [Outcome.CANCELLED] * 3


def test_what_is_unread_outlives_both_and_what_was_acknowledged_does_not_come_again(tmp_path: Path) -> None:
    out, into = str(tmp_path / "out.db"), str(tmp_path / "in.db")
    with keeping("client", out) as node:
        node.peer("server").send_many(range(10))
    with met(out, into) as (near, far):
        assert near.unacknowledged == 10
        assert read_all(far, 4) == [0, 1, 2, 3]
        near.receipt(4).read(5)
        held = far.receive(5)
        assert held.data == 4
    with met(out, into) as (near, far):
        message = far.receive(5)
        assert (message.data, message.redelivered) == (4, True)
        message.ack()
        assert read_all(far, 5) == [5, 6, 7, 8, 9]
        near.receipt(10).read(5)


def test_a_journal_that_is_in_use_is_named_and_the_node_does_not_open(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    with keeping("a", path):
        second = keeping("a", path)
        with pytest.raises(JournalLocked, match=r"journal\.db"), second:
            pytest.fail("two nodes have one journal")
        assert second.closed
    with keeping("a", path):
        pass


def test_a_disk_that_fails(logged: list[str]) -> None:
    shelf = Shelf()
    with met(shelf, Shelf()) as (near, far):
        shelf.error = JournalFull("no room")
        with pytest.raises(JournalFull, match="message 1 to server was not accepted: no room"):
            near.send("refused")
        shelf.error = None
        until(lambda: near.node.keeper is not None and near.node.keeper.error is None)
        assert near.send("accepted").sequence == 1
        assert far.read(5) == "accepted"
        shelf.error = OSError(5, "input/output error")
        with pytest.raises(JournalFailed, match="input/output error"):
            near.send("refused")
        with pytest.raises(JournalFailed, match="nothing is accepted for server"):
            near.send("refused")
        assert near.connected
    assert [line.split(": ")[1] for line in logged] == [
        "its journal cannot be written, so nothing is accepted or acknowledged until there is room",
        "its journal cannot be written, so nothing is accepted or acknowledged any more; mend the disk, and start it "
        "anew",
    ]
    logged.clear()


def _send_numbers(node: Node, first: int, last: int) -> None:
    for start in range(first, last, 500):
        node.peer("b").send_many([number.to_bytes(4, "big") * 16 for number in range(start, start + 500)])


def _in_memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
def test_what_waits_for_a_peer_that_is_away_stays_on_disk_and_comes_in_order(tmp_path: Path) -> None:
    store = SQLiteJournal(tmp_path / "a.db", durability="os")
    with keeping("a", store, outbox_resident=20_000, outbox_limit=1 << 30) as node:
        _send_numbers(node, 0, 1000)
        tracemalloc.start()
        try:
            before = _in_memory()
            _send_numbers(node, 1000, 6000)
            assert _in_memory() - before < 5000 * 40
        finally:
            tracemalloc.stop()
    with keeping("a", store, outbox_resident=20_000, outbox_limit=1 << 30) as node, Node("b") as there:
        assert node.peer("b").unacknowledged == 6000
        _send_numbers(node, 6000, 12_000)
        node.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "b")
        read: list[int] = []
        while len(read) < 12_000:
            read += [int.from_bytes(data[:4], "big") for data in there.peer("a").read_many(1000, timeout=10)]
        assert read == list(range(12_000))


def test_what_cannot_be_read_back_is_an_error_of_the_journal(logged: list[str]) -> None:
    shelf = Shelf()
    with keeping("a", shelf, outbox_resident=1000) as node, Node("b") as there:
        peer = node.peer("b")
        peer.send_many([bytes(36)] * 100)
        shelf.unreadable = OSError("no such sector")
        node.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "b")
        until(lambda: node.keeper is not None and node.keeper.error is not None)
        with pytest.raises(JournalFailed, match="no such sector"):
            peer.send("more")
    assert len(logged) == 1
    logged.clear()
    shelf.unreadable = None
    with keeping("a", shelf) as node, Node("b") as there:
        node.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "b")
        assert read_all(there.peer("a"), 100) == [bytes(36)] * 100
