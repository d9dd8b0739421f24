"""Rows, acknowledgements and messages in one transaction of the journal, on an event loop."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from networkio_asyncio import (
    ConfigurationError,
    MessageNotHeld,
    Node,
    NodeClosed,
    Outcome,
    Peer,
    UsageError,
    WrongThread,
)
from tests.adapters.helpers import bounded, node, until
from tests.adapters.test_journal import keeping

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def met(path: Path) -> AsyncIterator[tuple[Peer, Peer]]:
    """The client's peer for the server, which has a journal and a table, and the server's for the client."""
    async with keeping("server", str(path / "server.db")) as there, node("client") as here:
        await there.transaction(lambda db, send: db.execute("CREATE TABLE IF NOT EXISTS mine (x)"))
        listener = await there.listen("127.0.0.1", 0)
        near, far = await here.connect("127.0.0.1", listener.port, "server"), there.peer("client")
        await far.wait_connected()
        yield near, far


def put(db: sqlite3.Connection, value: object) -> int:
    return db.execute("INSERT INTO mine VALUES (?)", (value,)).rowcount


async def rows(node: Node) -> list[object]:
    return await node.commit([], lambda db: [x for (x,) in db.execute("SELECT x FROM mine ORDER BY x")])


@bounded(10)
async def test_a_message_is_read_when_what_became_of_it_is_on_disk(tmp_path: Path) -> None:
    async with met(tmp_path) as (near, far):
        receipt = await near.send("x")
        message = await far.receive()
        assert await message.commit(lambda db: put(db, message.data)) == 1
        await receipt.read()
        assert await rows(far.node) == ["x"]
        await near.send("y")
        with pytest.raises(ZeroDivisionError):
            await (await far.receive()).commit(lambda db: 1 // put(db, "y") * 0 / 0)
    async with met(tmp_path) as (near, far):
        assert await rows(far.node) == ["x"]


@bounded(10)
async def test_an_effect_that_failed_leaves_the_message_to_its_handler(tmp_path: Path) -> None:
    async with met(tmp_path) as (near, far):
        await near.send_many([1, 2, 3])
        tries: list[int] = []

        async def handler(message: Any) -> None:
            tries.append(message.data)
            await message.commit(lambda db: put(db, 6 // (message.data - 2 * (len(tries) == 2))))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(far.node.serve, handler)
            await until(lambda: near.ledger.read == 3)
            tasks.cancel_scope.cancel()
        assert tries == [1, 2, 2, 3]
        assert await rows(far.node) == [2, 3, 6]


@bounded(10)
async def test_rows_acknowledgements_and_answers_go_together(tmp_path: Path) -> None:
    async with met(tmp_path) as (near, far):
        receipt = await near.send("question")
        message = await far.receive()
        sent = await far.node.transaction(
            lambda db, send: [put(db, "x"), send(far, "answer"), send("nobody", "later")][1:], messages=[message]
        )
        assert await near.read() == "answer"
        await sent[0].read()
        await receipt.read()
        assert (sent[0].outcome, sent[1].outcome, sent[1].peer.id) == (Outcome.READ, None, "nobody")
    async with met(tmp_path) as (near, far):
        assert far.node.peer("nobody").unacknowledged == 1


@bounded(10)
async def test_many_are_one_transaction(tmp_path: Path) -> None:
    async with met(tmp_path) as (near, far):
        receipts = await near.send_many(range(100))
        messages = [await far.receive() for _ in range(100)]
        count = await far.node.commit(
            messages, lambda db: db.executemany("INSERT INTO mine VALUES (?)", [(m.data,) for m in messages]).rowcount
        )
        assert count == 100
        await receipts[-1].read()
        assert await rows(far.node) == list(range(100))


@bounded(10)
async def test_cancelled_before_it_begins_it_was_not_done_and_later_it_is(tmp_path: Path) -> None:
    async with met(tmp_path) as (near, far):
        await near.send_many(["a", "b"])
        first, second = await far.receive(), await far.receive()
        going, begun = threading.Event(), threading.Event()

        def slow(db: sqlite3.Connection) -> None:
            put(db, "a")
            begun.set()
            going.wait(5)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.commit, slow)
            await until(begun.is_set)
            with anyio.move_on_after(0.05):
                await second.commit(lambda db: put(db, "b"))
            tasks.cancel_scope.cancel()
        assert (first.held, second.held) == (False, True)
        with pytest.raises(MessageNotHeld, match="is being committed"):
            first.ack()
        going.set()
        await until(lambda: first.settled)
        assert await rows(far.node) == ["a"]


@bounded(10)
async def test_a_function_that_calls_the_node_is_told_so(tmp_path: Path) -> None:
    async with met(tmp_path) as (_, far):
        with pytest.raises(WrongThread):
            await far.node.transaction(lambda db, send: far.send_nowait("x"))

        async def forgets(db: sqlite3.Connection) -> None:
            raise AssertionError

        with pytest.raises(UsageError, match="plain function"):
            _ = await far.node.commit([], forgets)


@bounded(10)
async def test_there_is_no_transaction_without_a_journal_or_after_the_end(tmp_path: Path) -> None:
    async with met(tmp_path) as (near, far):
        await far.send("x")
        with pytest.raises(ConfigurationError, match="node client has no journal"):
            await (await near.receive()).commit(lambda db: None)
    with pytest.raises(NodeClosed):
        await far.node.transaction(lambda db, send: None)
