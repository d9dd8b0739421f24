"""Nodes with a journal: what is on disk when a call returns, what a restart brings back, and disks that fail."""

from __future__ import annotations

import gc
import os
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from networkio_asyncio import JournalFailed, JournalFull, JournalLocked, Node, Outcome, Peer
from networkio_journal import SQLiteJournal
from networkio_proto.journal import Store
from tests.adapters.helpers import HASTY, bounded, read_all, until
from tests.adapters.shelf import Shelf

pytestmark = pytest.mark.anyio


def keeping(peer_id: str, journal: Store | str, **changes: Any) -> Node:
    """A hasty node with a journal; ``changes`` are settings of its Config."""
    return Node(peer_id, config=replace(HASTY, drain_timeout=1.0, **changes), journal=journal)


@asynccontextmanager
async def met(client: Store | str, server: Store | str) -> AsyncIterator[tuple[Peer, Peer]]:
    """Each one's peer for the other, connected."""
    async with keeping("server", server) as there, keeping("client", client) as here:
        listener = await there.listen("127.0.0.1", 0)
        near, far = await here.connect("127.0.0.1", listener.port, "server"), there.peer("client")
        await near.wait_connected()
        await far.wait_connected()
        yield near, far


def works(peer: Peer) -> bool:
    """Can its node's journal be written?"""
    return peer.node.keeper is not None and peer.node.keeper.error is None


# -- what is on disk when a call returns --------------------------------------------------------------------------


@bounded(10)
async def test_send_returns_when_the_message_is_on_disk() -> None:
    shelf, returned = Shelf(), []
    async with keeping("a", shelf) as node, anyio.create_task_group() as tasks:
        peer = node.peer("b")
        shelf.going.clear()

        async def send() -> None:
            returned.append(await peer.send("x"))

        tasks.start_soon(send)
        await anyio.sleep(0.05)
        assert returned == []
        assert shelf.messages == []
        shelf.going.set()
        await until(lambda: returned)
        assert shelf.messages == [1]
        assert returned[0].sequence == 1


@bounded(10)
async def test_many_messages_are_one_write() -> None:
    shelf = Shelf()
    async with keeping("a", shelf) as node:
        receipts = await node.peer("b").send_many(range(1000))
        assert [receipt.sequence for receipt in receipts] == list(range(1, 1001))
        assert shelf.messages == [1000]


@bounded(10)
async def test_tasks_that_send_at_once_share_a_write() -> None:
    shelf = Shelf()
    async with keeping("a", shelf) as node:
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(node.peer("b").send, number)
        assert sum(shelf.messages) == 100
        assert len(shelf.batches) <= 3


@bounded(10)
async def test_nothing_is_transmitted_before_it_is_on_disk() -> None:
    shelf = Shelf()
    async with met(shelf, Shelf()) as (near, far):
        shelf.going.clear()
        receipt = near.send_nowait("x")
        await anyio.sleep(0.05)
        assert far.unread == 0
        shelf.going.set()
        assert await far.read() == "x"
        await receipt.read()


@bounded(10)
async def test_read_is_told_when_that_is_on_the_disk_of_the_reader() -> None:
    shelf = Shelf()
    async with met(Shelf(), shelf) as (near, far):
        receipt = await near.send("x")
        await receipt.received()
        shelf.going.clear()
        assert await far.read() == "x"
        await anyio.sleep(0.05)
        assert receipt.outcome is None
        assert near.unacknowledged == 1
        shelf.going.set()
        await receipt.read()


@bounded(10)
async def test_a_send_that_is_given_up_while_it_is_written_was_not_sent() -> None:
    shelf = Shelf()
    async with met(shelf, Shelf()) as (near, far):
        shelf.going.clear()
        with anyio.move_on_after(0.05):
            await near.send("given up")
        shelf.going.set()
        await near.send("sent")
        message = await far.receive()
        assert message.data == "sent"
        message.ack()
        assert near.receipt(1).outcome is Outcome.CANCELLED


@bounded(10)
async def test_closing_writes_what_was_read_last() -> None:
    disk, other = Shelf(), Shelf()
    async with met(disk, other) as (near, far):
        receipt = await near.send("x")
        assert await far.read() == "x"
    assert receipt.outcome is Outcome.READ
    async with met(disk, other) as (near, far):
        assert near.unacknowledged == far.unread == 0
        await near.send("y")
        assert await far.read() == "y"


# -- another process --------------------------------------------------------------------------------------------------


@bounded(20)
async def test_what_is_unread_outlives_the_sender(tmp_path: Path) -> None:
    out, into = str(tmp_path / "out.db"), str(tmp_path / "in.db")
    async with keeping("client", out, session_expiry=None) as node:
        await node.peer("server").send_many(range(10))
    async with keeping("client", out) as node:
        [peer] = node.peers
        assert (peer.id, peer.unacknowledged) == ("server", 10)
    async with met(out, into) as (near, far):
        late = await near.send(10)
        assert late.sequence == 11
        assert await read_all(far, 11) == list(range(11))
        await late.read()
    async with met(out, into) as (near, far):
        assert near.unacknowledged == 0


@bounded(20)
async def test_what_was_acknowledged_does_not_come_again_and_what_was_not_does(tmp_path: Path) -> None:
    out, into = str(tmp_path / "out.db"), str(tmp_path / "in.db")
    async with met(out, into) as (near, far):
        receipts = await near.send_many(range(4))
        assert await read_all(far, 2) == [0, 1]
        await receipts[1].read()
        held = await far.receive()
        assert held.data == 2
    async with met(out, into) as (near, far):
        again, never = await far.receive(), await far.receive()
        assert (again.data, again.redelivered) == (2, True)
        assert never.data == 3
        again.ack()
        never.ack()


@bounded(10)
async def test_a_journal_that_is_in_use_is_named_and_the_node_does_not_open(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    async with keeping("a", path):
        with pytest.raises(JournalLocked, match=r"journal\.db"):
            async with keeping("a", path):
                pytest.fail("two nodes have one journal")
    async with keeping("a", path):
        pass


@bounded(10)
async def test_a_node_that_fails_gives_its_journal_back(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")

    async def program() -> None:
        async with keeping("a", path) as node:
            await node.peer("b").send(1)
            raise RuntimeError("the application")

    with pytest.raises(RuntimeError, match="application"):
        await program()
    async with keeping("a", path) as node:
        assert node.peer("b").unacknowledged == 1


# -- disks that fail --------------------------------------------------------------------------------------------------


@bounded(10)
async def test_without_room_nothing_is_accepted_or_acknowledged_until_there_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "networkio.asyncio")
    shelf = Shelf()
    async with met(shelf, Shelf()) as (near, far):
        before = await far.send("read while the disk is full")
        await before.received()
        shelf.error = JournalFull("no room")
        with pytest.raises(JournalFull, match="message 1 to server was not accepted: no room"):
            await near.send("refused")
        with pytest.raises(JournalFull, match="nothing is accepted for server: no room"):
            near.send_nowait("refused too")
        with pytest.raises(JournalFull):
            await near.send_many(["and", "these"])
        assert await near.read() == "read while the disk is full"
        await until(lambda: shelf.tried >= 3)
        assert before.outcome is None
        assert near.connected
        assert near.ledger.accepted == 0
        shelf.error = None
        await before.read()
        await until(lambda: works(near))
        await near.send("accepted")
        assert await far.read() == "accepted"
    lines = [record.getMessage() for record in caplog.records if "journal" in record.getMessage()]
    assert [line.split(": ")[1] for line in lines] == [
        "its journal cannot be written, so nothing is accepted or acknowledged until there is room",
        "its journal is written again",
    ]


@bounded(10)
async def test_after_an_error_nothing_is_written_any_more() -> None:
    shelf = Shelf()
    async with met(shelf, Shelf()) as (near, far):
        shelf.error = OSError(5, "input/output error")
        with pytest.raises(JournalFailed, match="input/output error"):
            await near.send("refused")
        tried, shelf.error = shelf.tried, None
        for _ in range(3):
            with pytest.raises(JournalFailed, match="nothing is accepted for server"):
                await near.send("refused")
        late = await far.send("nobody is told that this is read")
        assert await near.read() == "nobody is told that this is read"
        await anyio.sleep(0.7)
        assert (shelf.tried, late.outcome) == (tried, None)
        assert near.connected


@bounded(10)
async def test_the_receipt_of_what_could_not_be_written_says_so_and_is_not_of_another_message() -> None:
    shelf = Shelf()
    async with met(shelf, Shelf()) as (near, far):
        shelf.going.clear()
        receipt, request = near.send_nowait("refused"), near.node.broadcast("refused")[near]
        shelf.error = JournalFull("no room")
        shelf.going.set()
        with pytest.raises(JournalFull, match="message 1 to server was not accepted: no room"):
            await receipt.read()
        shelf.error = None
        await until(lambda: works(near))
        other = await near.send("accepted")
        assert (receipt.sequence, request.sequence, other.sequence) == (1, 2, 1)
        assert await far.read() == "accepted"
        await other.read()
        assert (receipt.outcome, receipt.failure) == (None, None)
        assert await receipt.cancel()
        with pytest.raises(JournalFull):
            await request.received()


@bounded(10)
async def test_cancel_returns_when_that_is_on_disk() -> None:
    shelf, returned = Shelf(), []
    async with keeping("a", shelf) as node, anyio.create_task_group() as tasks:
        receipt = await node.peer("b").send("never mind")
        shelf.going.clear()

        async def cancel() -> None:
            returned.append(await receipt.cancel())

        tasks.start_soon(cancel)
        await anyio.sleep(0.05)
        assert (returned, receipt.outcome) == ([], Outcome.CANCELLED)
        shelf.going.set()
        await until(lambda: bool(returned))
        assert returned == [True]
    async with keeping("a", shelf) as again:
        outcome = again.receipt(receipt.id).outcome
    assert outcome is Outcome.CANCELLED


@bounded(10)
async def test_cancel_says_that_the_disk_did_not_take_it() -> None:
    shelf = Shelf()
    async with keeping("a", shelf) as node:
        receipt = await node.peer("b").send("never mind")
        shelf.error = JournalFull("no room")
        with pytest.raises(JournalFull, match="nothing is accepted for the end of message 1 to b, which"):
            await receipt.cancel()
        shelf.error = None
        await until(lambda: works(node.peer("b")))
        assert not await receipt.cancel()  # once is enough
    async with keeping("a", shelf) as again:
        assert again.receipt(receipt.id).outcome is Outcome.CANCELLED


@bounded(10)
async def test_of_many_those_that_are_on_disk_when_the_time_is_over_are_told_and_the_others_cancelled() -> None:
    shelf = Shelf()
    async with keeping("a", shelf) as node:
        peer = node.peer("b")
        await peer.send("x")
        shelf.going.clear()
        with anyio.move_on_after(0.05) as scope:
            await peer.send_many(["y", "z"])
        assert scope.cancelled_caught
        shelf.going.set()
        await peer.send("w")
        assert [peer.receipt(sequence).outcome for sequence in (1, 2, 3, 4)] == [
            None, Outcome.CANCELLED, Outcome.CANCELLED, None,
        ]  # fmt: skip


@bounded(10)
async def test_a_full_disk_for_real(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SQLiteJournal(path, limit=256 * 1024)
    async with keeping("a", journal, outbox_limit=1 << 24) as node:
        peer = node.peer("b")
        with pytest.raises(JournalFull, match=r"journal\.db has no room left"):
            await peer.send_many([bytes(30_000) for _ in range(20)])
        assert peer.unacknowledged == 0  # they were one batch
        await until(lambda: works(peer))
        for _ in range(5):
            await peer.send(bytes(30_000))
        with pytest.raises(JournalFull, match=r"journal\.db has no room left"):
            await peer.send_many([bytes(30_000) for _ in range(5)])
        kept = peer.unacknowledged
        assert kept == 5
    assert os.stat(path).st_size <= 256 * 1024
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM networkio_message").fetchone() == (kept,)
    db.close()


# -- more than there is memory for --------------------------------------------------------------------------------


async def _send_numbers(node: Node, first: int, last: int) -> None:
    for start in range(first, last, 500):
        await node.peer("b").send_many([number.to_bytes(4, "big") * 16 for number in range(start, start + 500)])


@pytest.mark.slow
@bounded(30)
async def test_what_one_peer_sends_and_finds_no_room_keeps_nobody_else_from_a_durable_inbox(tmp_path: Path) -> None:
    journal = SQLiteJournal(str(tmp_path / "hub.db"), limit=1 << 20)
    async with (
        Node("hub", config=HASTY, journal=journal, durable_inbox=True) as hub,
        Node("guest", config=HASTY) as guest,
        Node("other", config=HASTY) as other,
    ):
        listener = await hub.listen("127.0.0.1", 0)
        to_hub = [await node.connect("127.0.0.1", listener.port, "hub") for node in (guest, other)]
        large = await to_hub[0].send(bytes(2 << 20), raw=True)
        await until(lambda: not works(hub.peer("guest")))
        await until(lambda: works(hub.peer("guest")))
        await to_hub[1].send("hello")
        assert await hub.peer("other").read() == "hello"
        await hub.peer("other").send("hello yourself")
        assert await to_hub[1].read() == "hello yourself"
        assert (hub.peer("guest").unread, large.outcome, to_hub[0].connected) == (0, None, True)


def _in_memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@bounded(60)
async def test_what_waits_for_a_peer_that_is_away_stays_on_disk_and_comes_in_order(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    store, limits = SQLiteJournal(path, durability="os"), {"outbox_resident": 20_000, "outbox_limit": 1 << 30}
    async with keeping("a", store, **limits) as node:
        await _send_numbers(node, 0, 1000)
        tracemalloc.start()
        try:
            before = _in_memory()
            await _send_numbers(node, 1000, 6000)
            assert _in_memory() - before < 5000 * 40
        finally:
            tracemalloc.stop()
    async with keeping("a", store, **limits) as node, Node("b") as there:
        assert node.peer("b").unacknowledged == 6000
        await _send_numbers(node, 6000, 12_000)
        listener = await there.listen("127.0.0.1", 0)
        await node.connect("127.0.0.1", listener.port, "b")
        read: list[int] = []
        while len(read) < 12_000:
            read += [int.from_bytes(data[:4], "big") for data in await there.peer("a").read_many(1000)]
        assert read == list(range(12_000))
        assert (await node.drain(10)).unread == 0


@bounded(10)
async def test_what_cannot_be_read_back_is_an_error_of_the_journal() -> None:
    shelf = Shelf()
    async with keeping("a", shelf, outbox_resident=1000) as node, Node("b") as there:
        peer = node.peer("b")
        receipts = await peer.send_many([bytes(36)] * 100)
        listener = await there.listen("127.0.0.1", 0)
        shelf.unreadable = OSError("no such sector")
        await node.connect("127.0.0.1", listener.port, "b")
        await until(lambda: not works(peer))
        with pytest.raises(JournalFailed, match="no such sector"):
            await peer.send("more")
        assert receipts[-1].outcome is None
        assert there.peer("a").unread < 100
    shelf.unreadable = None
    async with keeping("a", shelf) as node, Node("b") as there:
        listener = await there.listen("127.0.0.1", 0)
        await node.connect("127.0.0.1", listener.port, "b")
        assert await read_all(there.peer("a"), 100) == [bytes(36)] * 100
