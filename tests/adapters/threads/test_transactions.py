"""Rows, acknowledgements and messages in one transaction of the journal, with threads."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from networkio_threads import ConfigurationError, MessageNotHeld, Outcome, Peer, WrongThread
from tests.adapters.threads.helpers import Crew, node, until
from tests.adapters.threads.test_journal import keeping


@contextmanager
def met(path: Path) -> Iterator[tuple[Peer, Peer]]:
    """The client's peer for the server, which has a journal and a table, and the server's for the client."""
    with keeping("server", str(path / "server.db")) as there, node("client") as here:
        there.transaction(lambda db, send: db.execute("CREATE TABLE IF NOT EXISTS mine (x)"))
        near, far = here.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "server"), there.peer("client")
        far.wait_connected(5)
        yield near, far


def put(db: sqlite3.Connection, value: object) -> int:
    return db.execute("INSERT INTO mine VALUES (?)", (value,)).rowcount


def rows(peer: Peer) -> list[object]:
    return peer.node.commit([], lambda db: [x for (x,) in db.execute("SELECT x FROM mine ORDER BY x")])


def test_a_message_is_read_when_what_became_of_it_is_on_disk(tmp_path: Path) -> None:
    with met(tmp_path) as (near, far):
        receipt = near.send("x")
        message = far.receive(5)
        assert message.commit(lambda db: put(db, message.data), timeout=5) == 1
        receipt.read(5)
        near.send("y")
        message = far.receive(5)
        with pytest.raises(ZeroDivisionError):
            message.commit(lambda db: put(db, "y") // 0)
        assert message.held
    with met(tmp_path) as (near, far):
        assert rows(far) == ["x"]


def test_rows_acknowledgements_and_answers_go_together(tmp_path: Path) -> None:
    with met(tmp_path) as (near, far):
        receipt = near.send("question")
        message = far.receive(5)
        sent = far.node.transaction(
            lambda db, send: [put(db, "x"), send(far, "answer")][1], timeout=5, messages=[message]
        )
        assert near.read(5) == "answer"
        sent.read(5)
        receipt.read(5)
        assert (sent.outcome, rows(far)) == (Outcome.READ, ["x"])


def test_threads_that_commit_at_once_wait_for_each_other(tmp_path: Path) -> None:
    with met(tmp_path) as (near, far), Crew() as crew:
        near.send_many(range(20))

        def work() -> None:
            message = far.receive(5)
            message.commit(lambda db: put(db, message.data))

        for _ in range(20):
            crew.start(work)
        until(lambda: near.ledger.read == 20)
        assert rows(far) == list(range(20))


def test_a_commit_that_has_begun_when_time_is_up_is_carried_out(tmp_path: Path) -> None:
    with met(tmp_path) as (near, far):
        near.send_many(["a", "b"])
        first, second = far.receive(5), far.receive(5)
        going = threading.Event()

        def slow(db: sqlite3.Connection) -> None:
            put(db, "a")
            going.wait(5)

        with pytest.raises(TimeoutError):
            first.commit(slow, timeout=0.05)
        with pytest.raises(TimeoutError):
            second.commit(lambda db: put(db, "b"), timeout=0.05)
        assert second.held
        with pytest.raises(MessageNotHeld, match="is being committed"):
            first.ack()
        going.set()
        until(lambda: first.settled)
        assert rows(far) == ["a"]


def test_a_function_must_not_wait_for_the_node(tmp_path: Path) -> None:
    with met(tmp_path) as (near, far):
        with pytest.raises(WrongThread, match="the function of a transaction of node server must not wait"):
            far.node.transaction(lambda db, send: far.send("x"))
        with pytest.raises(ConfigurationError, match="node client has no journal"):
            near.node.commit([], lambda db: None)
