"""A node with a journal that is cancelled, or fails, while it opens or leaves gives its journal back."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from networkio_asyncio import JournalLocked, Node, NodeClosed
from networkio_journal import SQLiteJournal
from networkio_journal.journal import Done
from networkio_proto.journal import JournalBatch, JournalRecord, OutboxTrimmed
from tests.adapters.helpers import HASTY, bounded
from tests.adapters.shelf import Shelf

pytestmark = pytest.mark.anyio


def keeping(peer_id: str, journal: Any) -> Node:
    return Node(peer_id, config=replace(HASTY, drain_timeout=0.5), journal=journal)


class Watched(Shelf):
    """Says whether it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0
        self.may_open = threading.Event()
        self.may_open.set()

    def open(self, node_id: str, resident: int) -> list[JournalRecord]:
        self.may_open.wait(5)
        self.opened += 1
        return super().open(node_id, resident)

    def close(self) -> None:
        self.opened -= 1
        super().close()


class Nonsense(Watched):
    """What it holds cannot be restored."""

    def open(self, node_id: str, resident: int) -> list[JournalRecord]:
        super().open(node_id, resident)
        return [OutboxTrimmed("not a usable id \0", 1)]


async def send_and_leave(store: Watched) -> None:
    async with asyncio.timeout(0.9), keeping("a", store) as node:
        store.going.clear()  # the disk is slow
        node.peer("b").send_nowait(1)


# asyncio's own cancellation: asyncio.timeout(), wait_for, task.cancel(), Ctrl-C in asyncio.run


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_node_that_is_cancelled_while_its_journal_opens_gives_it_back() -> None:
    store = Watched()
    store.may_open.clear()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), keeping("a", store):
                pytest.fail("it is not open")
        store.may_open.set()
        await asyncio.sleep(0.3)
        assert store.opened == 0
    finally:
        if store.opened:
            store.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_node_that_is_cancelled_while_it_leaves_gives_its_journal_back() -> None:
    store = Watched()
    try:
        with pytest.raises(TimeoutError):
            await send_and_leave(store)
        assert store.opened == 0
    finally:
        if store.opened:
            store.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_file_is_free_when_its_node_was_cancelled_while_it_left(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    journal = SQLiteJournal(path)
    going = threading.Event()
    write = journal.write

    def slow(batch: JournalBatch, done: Done) -> None:
        def held(error: BaseException | None) -> None:
            going.wait(10)
            done(error)

        write(batch, held)

    journal.write = slow  # type: ignore[method-assign]
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.7), keeping("a", journal) as node:
                node.peer("b").send_nowait(1)
        going.set()
        async with keeping("a", path):
            pass
    finally:
        going.set()
        journal.close()


@bounded(5)
async def test_a_journal_that_cannot_be_restored_is_given_back() -> None:
    store = Nonsense()
    try:
        with pytest.raises(Exception):  # noqa: B017, PT011
            async with keeping("a", store):
                pass
        assert store.opened == 0
    finally:
        if store.opened:
            store.close()


@bounded(10)
async def test_a_node_whose_journal_did_not_open_is_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    async with keeping("a", path):
        second = keeping("a", path)
        with pytest.raises(JournalLocked):
            await second.__aenter__()
        assert second.closed  # as with networkio_threads
        with pytest.raises(NodeClosed), anyio.fail_after(1):
            await second.peer("b").send("x")  # it waits for ever


@bounded(10)
async def test_two_nodes_with_one_journal_object_are_told_as_two_nodes_with_one_file_are(tmp_path: Path) -> None:
    journal = SQLiteJournal(tmp_path / "journal.db")
    async with keeping("a", journal):
        with pytest.raises(JournalLocked):
            async with keeping("a", journal):
                pass


@bounded(10)
async def test_a_path_is_taken_as_the_name_of_a_file(tmp_path: Path) -> None:
    async with keeping("edge-7", tmp_path / "journal.db") as node:
        await node.peer("b").send(1)


@bounded(10)
async def test_a_closed_node_has_given_its_journal_back(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    async with keeping("a", path) as node:
        await node.aclose()  # networkio_threads: close() gives it back
        async with keeping("a", path):
            pass
