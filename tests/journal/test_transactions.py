"""Functions of an application in the journal's transactions: what is theirs is on disk with the batch, or nowhere."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from networkio_journal import SQLiteJournal, store
from networkio_journal.store import Store
from networkio_proto import JournalFailed, JournalFull, UsageError
from networkio_proto.journal import JournalBatch, MessageAccepted, OutboxOpened

BATCH = JournalBatch(
    1, (OutboxOpened("b", b"o" * 16, b"r" * 16, 1), MessageAccepted("b", 1, b"payload", b"", 0))
)
NOTHING = JournalBatch(2, ())


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "j.db")


@pytest.fixture
def opened(path: str) -> Iterator[Store]:
    journal = Store(path, "node")
    journal.run(lambda db: db.execute("CREATE TABLE mine (x UNIQUE)"))
    journal.commit(NOTHING)
    yield journal
    journal.close()


def put(value: object) -> Callable[[sqlite3.Connection], object]:
    return lambda db: db.execute("INSERT INTO mine VALUES (?)", (value,))


def rows(journal: Store) -> list[object]:
    return [x for (x,) in journal._connection.execute("SELECT x FROM mine ORDER BY x")]


def test_rows_and_records_are_on_disk_together(opened: Store, path: str) -> None:
    opened.run(put(1))
    copy = path + ".copy"
    for suffix in ("", "-wal"):
        Path(copy + suffix).write_bytes(Path(path + suffix).read_bytes())
    opened.commit(BATCH)
    opened.close()
    for name, kept in ((copy, []), (path, [1])):
        again = Store(name, "node")
        assert rows(again) == kept
        assert bool(again.records) == bool(kept)
        again.close()


def test_what_is_undone_was_never_there_and_records_go_on(opened: Store) -> None:
    opened.run(put(1))
    opened.undo()
    opened.commit(BATCH)
    assert rows(opened) == []
    opened.run(put(2))
    opened.commit(NOTHING)
    assert rows(opened) == [2]


def test_a_function_that_raises_leaves_nothing_open(opened: Store) -> None:
    def fails(db: sqlite3.Connection) -> None:
        put(1)(db)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        opened.run(fails)
    assert raised.value.__cause__ is None
    assert not opened._connection.in_transaction
    with pytest.raises(sqlite3.IntegrityError):
        opened.run(lambda db: (put(1)(db), put(1)(db)))
    assert rows(opened) == []


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("COMMIT", "COMMIT is not its own"),
        ("ROLLBACK", "ROLLBACK is not its own"),
        ("BEGIN", "BEGIN is not its own"),
        ("END", "COMMIT is not its own"),
        ("ATTACH ':memory:' AS other", "no other file"),
        ("DETACH other", "no other file"),
        ("PRAGMA synchronous = OFF", "PRAGMA synchronous sets"),
        ("PRAGMA temp_store = MEMORY", "PRAGMA temp_store sets"),
        ("PRAGMA user_version = 7", "PRAGMA user_version sets"),
        ("PRAGMA writable_schema = ON", "PRAGMA writable_schema sets"),
        ("DELETE FROM networkio_message", "networkio_message is networkio's"),
        ("UPDATE NetworkIO_peer SET first = 7", "networkio_peer is networkio's"),
        ("INSERT INTO networkio_journal VALUES (2, 'x', 3, 4)", "networkio_journal is networkio's"),
        ("DROP TABLE networkio_inbox", "networkio_inbox is networkio's"),
        ("ALTER TABLE networkio_inbox RENAME TO mine_too", "networkio_inbox is networkio's"),
        ("CREATE TABLE networkio_new (x)", "networkio_new is networkio's"),
        ("CREATE TEMP TABLE networkio_message (x)", "networkio_message is networkio's"),
        ("CREATE INDEX by_name ON networkio_peer (name)", "networkio_peer is networkio's"),
        ("CREATE TRIGGER t AFTER INSERT ON networkio_message BEGIN SELECT 1; END", "networkio_message is networkio's"),
        ("CREATE TEMP TRIGGER t AFTER INSERT ON networkio_message BEGIN SELECT 1; END", "networkio_message is"),
    ],
)
def test_what_is_not_the_application_s_is_kept_from_it(opened: Store, statement: str, why: str) -> None:
    def tries(db: sqlite3.Connection) -> None:
        put(1)(db)
        db.execute(statement)

    with pytest.raises(UsageError, match=f"a function may not do that in the journal .*: {why}"):
        opened.run(tries)
    assert rows(opened) == []
    opened.commit(BATCH)


@pytest.mark.parametrize("how", ["commit", "rollback", "script", "with"])
def test_the_connection_s_own_ways_to_end_a_transaction_are_kept_from_it_too(opened: Store, how: str) -> None:
    def tries(db: sqlite3.Connection) -> None:
        put(1)(db)
        if how == "script":
            db.executescript("INSERT INTO mine VALUES (2);")
        elif how == "with":
            with db:
                put(2)(db)
        else:
            getattr(db, how)()

    with pytest.raises(UsageError, match="the transaction ends when it returns"):
        opened.run(tries)
    assert rows(opened) == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM networkio_peer",
        "PRAGMA table_info(mine)",
        "PRAGMA user_version",
        "CREATE TABLE another (x)",
        "CREATE INDEX by_x ON mine (x)",
        "CREATE VIEW seen AS SELECT count(*) FROM networkio_message",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) INSERT INTO mine SELECT i FROM n",
        "SAVEPOINT here",
    ],
)
def test_everything_else_is_its_own(opened: Store, statement: str, path: str) -> None:
    opened.run(lambda db: db.execute(statement))
    opened.commit(BATCH)
    opened.close()
    again = Store(path, "node")
    assert len(again.records) == 2
    again.close()


def test_a_function_may_go_back_to_a_place_of_its_own(opened: Store) -> None:
    def tries(db: sqlite3.Connection) -> None:
        put(1)(db)
        db.execute("SAVEPOINT here")
        put(2)(db)
        db.execute("ROLLBACK TO here")

    opened.run(tries)
    opened.commit(BATCH)
    assert rows(opened) == [1]


def test_a_conflict_that_ends_the_transaction_is_told(opened: Store) -> None:
    def tries(db: sqlite3.Connection) -> None:
        put(1)(db)
        try:
            db.execute("INSERT OR ROLLBACK INTO mine VALUES (1)")
        except sqlite3.IntegrityError:
            pass

    with pytest.raises(UsageError, match="ended the transaction"):
        opened.run(tries)
    assert rows(opened) == []
    opened.commit(BATCH)


#: what ends a transaction from within
ENDS = ("INSERT OR ROLLBACK INTO mine VALUES (1)", "UPDATE OR ROLLBACK mine SET x = 1",
        "INSERT INTO strict VALUES (1)", "DELETE FROM mine WHERE x = 1")  # fmt: skip

#: how a function goes on
ON: tuple[Callable[[Any, sqlite3.Cursor], object], ...] = (
    lambda db, cursor: db.execute("INSERT INTO mine VALUES (?)", (7,)),  # prepared before
    lambda db, cursor: db.executemany("INSERT INTO mine VALUES (?)", [(7,), (8,)]),
    lambda db, cursor: db.executescript("INSERT INTO mine VALUES (7)"),
    lambda db, cursor: cursor.execute("INSERT INTO mine VALUES (?)", (7,)),
    lambda db, cursor: cursor.executemany("INSERT INTO mine VALUES (?)", [(7,), (8,)]),
    lambda db, cursor: cursor.executescript("INSERT INTO mine VALUES (7)"),
    lambda db, cursor: db.execute("SAVEPOINT here"),
    lambda db, cursor: db.blobopen("mine", "x", 1),
)


def test_nothing_is_executed_after_the_end_of_the_transaction(opened: Store) -> None:
    opened.run(lambda db: [db.execute(statement) for statement in (
        "CREATE TABLE strict (x UNIQUE ON CONFLICT ROLLBACK)",
        "CREATE TRIGGER kept BEFORE DELETE ON mine BEGIN SELECT RAISE(ROLLBACK, 'kept'); END",
        "INSERT INTO mine VALUES (1), (2)", "INSERT INTO strict VALUES (1)",
    )])  # fmt: skip
    opened.commit(NOTHING)
    for ends, on, caught in product(ENDS, ON, (True, False)):
        went: list[str] = []

        def tries(
            db: sqlite3.Connection, ends: str = ends, on: Any = on, caught: bool = caught, went: list[str] = went
        ) -> None:
            cursor = db.cursor()
            put(3)(db)
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(ends)
            try:
                on(db, cursor)
                went.append(ends)
                put(9)(db)
            except UsageError:
                if not caught:
                    raise

        with pytest.raises(UsageError, match=r"ended the transaction .* let conflicts be resolved by ABORT"):
            opened.run(tries)
        assert went == []
        assert rows(opened) == [1, 2]
    opened.run(put(4))
    opened.commit(BATCH)
    assert rows(opened) == [1, 2, 4]


def test_a_function_may_make_cursors_of_its_own_kind_and_open_a_blob(opened: Store) -> None:
    class Mine(sqlite3.Cursor):
        pass

    def uses(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE pictures (data)")
        db.cursor(Mine).execute("INSERT INTO pictures VALUES (zeroblob(3))")
        with db.blobopen("pictures", "data", 1) as blob:
            blob.write(b"abc")
        db.cursor().executemany("INSERT INTO mine SELECT data FROM pictures WHERE ?", [(1,)])

    opened.run(uses)
    opened.commit(NOTHING)
    assert rows(opened) == [b"abc"]


def test_what_a_function_sets_on_the_connection_ends_with_it(opened: Store) -> None:
    def sets(db: sqlite3.Connection) -> None:
        db.row_factory = sqlite3.Row
        db.text_factory = bytes

    opened.run(sets)
    opened.commit(BATCH)
    assert (opened._connection.row_factory, opened._connection.text_factory) == (None, str)


def test_without_room_the_function_is_told_and_the_journal_goes_on(path: str) -> None:
    journal = Store(path, "node", limit=256 * 1024)
    journal.run(lambda db: db.execute("CREATE TABLE mine (x UNIQUE)"))
    journal.commit(NOTHING)
    with pytest.raises(JournalFull, match="no room"):
        journal.run(put(bytes(1 << 20)))
    journal.run(put(1))
    journal.commit(BATCH)
    assert rows(journal) == [1]
    journal.run(put(2))
    with pytest.raises(JournalFull):  # of the batch: the rows go with it
        journal.commit(JournalBatch(3, (MessageAccepted("b", 2, bytes(1 << 20), b"", 0),)))
    assert rows(journal) == [1]
    journal.run(put(3))
    journal._longest = 10
    with pytest.raises(JournalFull, match="split it"):  # before anything is written
        journal.commit(JournalBatch(3, (MessageAccepted("b", 2, bytes(100), b"", 0),)))
    assert rows(journal) == [1]
    journal.close()


def test_a_disk_that_fails_under_a_function_poisons_the_journal(opened: Store) -> None:
    def breaks(db: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    with pytest.raises(JournalFailed, match="disk I/O error"):
        opened.run(breaks)
    with pytest.raises(JournalFailed):
        opened.run(put(1))
    with pytest.raises(JournalFailed):
        opened.commit(BATCH)


def test_another_file_that_is_no_database_is_the_functions_trouble_alone(opened: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"no database at all, and long enough to be looked at" * 100)

    def looks(db: sqlite3.Connection) -> None:
        with contextlib.closing(sqlite3.connect(other)) as second:
            second.execute("SELECT * FROM anything")

    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        opened.run(looks)
    opened.commit(BATCH)


def test_the_log_stays_small_whatever_a_function_writes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_LOG", 256 * 1024)
    journal = Store(path, "node", synchronous="OFF")
    journal.run(lambda db: db.execute("CREATE TABLE mine (x UNIQUE)"))
    journal.commit(NOTHING)
    sizes = []
    for number in range(40):
        journal.run(put(f"{number} {'x' * 50_000}"))
        journal.tidy()  # not in the middle of it
        journal.commit(NOTHING)
        journal.tidy()
        sizes.append(os.path.getsize(path + "-wal"))
    assert 0 in sizes
    assert max(sizes) < 3 * 256 * 1024
    journal.close()


# -- in its thread ----------------------------------------------------------------------------------------------


def test_a_function_runs_in_the_journal_s_thread_and_ends_with_the_next_batch(path: str) -> None:
    journal = SQLiteJournal(path)
    journal.open("node")
    said: SimpleQueue[Any] = SimpleQueue()

    def creates(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE mine (x)")
        said.put(journal.here())

    journal.run(creates, said.put)
    assert (said.get(timeout=5), journal.here(), said.get(timeout=5)) == (True, False, None)
    journal.write(BATCH, said.put)
    assert said.get(timeout=5) is None
    journal.run(put(1), said.put)
    journal.undo()
    journal.run(lambda db: 1 // 0, said.put)
    assert (said.get(timeout=5), type(said.get(timeout=5))) == (None, ZeroDivisionError)
    journal.run(put(2), said.put)
    assert said.get(timeout=5) is None
    journal.close()  # and nobody has ended it
    with pytest.raises(UsageError, match="not open"):
        journal.run(put(3), said.put)
    with pytest.raises(UsageError, match="not open"):
        journal.undo()
    again = Store(path, "node")
    assert (rows(again), len(again.records)) == ([], 2)
    again.close()


def test_a_cursor_that_a_function_returns_is_closed_in_the_journal_s_thread(opened: Store) -> None:
    """Freed by whoever asked, in another thread, it disturbed the statement that ran at that moment."""
    kept: list[sqlite3.Cursor] = []

    def read(db: sqlite3.Connection) -> sqlite3.Cursor:
        kept.append(db.execute("SELECT 1 UNION SELECT 2"))
        return kept[0]

    opened.run(read)
    opened.commit(NOTHING)
    with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
        kept[0].fetchone()


def test_the_error_of_a_function_keeps_nothing_of_the_database_alive(opened: Store) -> None:
    dead: list[weakref.ref[sqlite3.Cursor]] = []

    def fails(db: sqlite3.Connection) -> None:
        rows = db.execute("SELECT 1 UNION SELECT 2")
        dead.append(weakref.ref(rows))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        opened.run(fails)
    assert caught.value.__traceback__ is not None
    assert dead[0]() is None
