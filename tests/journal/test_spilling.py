"""Messages that stay in the journal: opened as what they cost, read back when wanted, and checked both times."""

from __future__ import annotations

import gc
import sqlite3
import tracemalloc
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue

import pytest

from networkio_journal import SQLiteJournal
from networkio_journal.rows import key
from networkio_journal.store import Store
from networkio_proto.errors import JournalDamaged, JournalFailed, UsageError
from networkio_proto.journal import (
    JournalBatch,
    JournalRecord,
    MessageAccepted,
    MessagesKept,
    OutboxOpened,
    OutboxTrimmed,
    RestoredRecord,
)
from networkio_proto.spill import JournalLoad

from .test_journal import OPENED, Failing, message

AGAIN = OutboxOpened("b", b"other".ljust(16), b"second".ljust(16), 1)


def numbered(first: int, last: int) -> list[MessageAccepted]:
    return [message(sequence, b"%06d" % sequence) for sequence in range(first, last + 1)]


def opened(path: str, resident: int | None = None) -> Store:
    return Store(path, "node", resident, synchronous="OFF")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """With the messages 1 to 20, of cost 70."""
    store = opened(str(tmp_path / "j.db"))
    store.commit(JournalBatch(1, (OPENED, *numbered(1, 20))))
    yield store
    store.close()


def kept(first: int, count: int) -> MessagesKept:
    return MessagesKept("b", first, array("Q", [70] * count))


# -- opening ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resident", "whole"),
    [(0, 0), (1, 1), (70, 1), (71, 2), (700, 10), (1400, 20), (None, 20)],
)
def test_the_first_of_a_peer_come_whole_and_of_the_others_what_they_cost(
    store: Store, resident: int | None, whole: int
) -> None:
    store.close()
    again = opened(store.path, resident)
    again.close()
    rest = [kept(whole + 1, 20 - whole)] if whole < 20 else []
    assert again.records == [OPENED, *numbered(1, whole), *rest]


def test_those_of_one_opening_stay_with_it(store: Store) -> None:
    store.commit(JournalBatch(2, (OutboxTrimmed("b", 4), AGAIN, *numbered(21, 25), AGAIN, AGAIN, *numbered(26, 26))))
    store.close()
    again = opened(store.path, 0)
    again.close()
    assert again.records[1:3] == [kept(4, 17), AGAIN.__class__("b", AGAIN.outbox_id, AGAIN.run, 4)]
    assert [record for record in again.records if isinstance(record, MessagesKept)] == [
        kept(4, 17), kept(21, 5), kept(26, 1),
    ]  # fmt: skip


def test_ends_come_whole_wherever_they_stand(store: Store) -> None:
    skip, fin = MessageAccepted("b", 21, b"", b"", 0, skip=2), MessageAccepted("b", 23, b"", b"", 0, fin=True)
    store.commit(JournalBatch(2, (skip, *numbered(22, 22), fin)))
    store.close()
    again = opened(store.path, 0)
    again.close()
    assert again.records == [OPENED, kept(1, 20), skip, kept(22, 1), fin]


@pytest.mark.parametrize("sequence", [1, 5, 20])
def test_one_that_is_missing_is_damage(store: Store, sequence: int) -> None:
    store._connection.execute("DELETE FROM networkio_message WHERE id = ?", (key(1, sequence),))
    store.close()
    with pytest.raises(JournalDamaged, match=f"message {sequence} to b is missing"):
        opened(store.path, 0)


def test_one_that_is_not_what_was_written_is_damage(store: Store) -> None:
    store._connection.execute("UPDATE networkio_message SET payload = x'00' WHERE id = ?", (key(1, 15),))
    store.close()
    with pytest.raises(JournalDamaged, match="message 15 to b does not fit its checksum"):
        opened(store.path, 0)


def test_opening_holds_what_stays_in_memory_and_a_number_for_each_other(tmp_path: Path) -> None:
    path = str(tmp_path / "j.db")
    store = opened(path)
    store.commit(JournalBatch(1, (OPENED,)))
    for first in range(1, 4001, 1000):
        store.commit(JournalBatch(2, tuple(message(number, bytes(2000)) for number in range(first, first + 1000))))
    store.close()
    del store
    opened(path, 0).close()
    gc.collect()
    tracemalloc.start()
    try:
        store = opened(path, 100_000)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    store.close()
    assert most < 4000 * 16 + 5 * 100_000 < 4000 * 2000 / 10


# -- reading back -----------------------------------------------------------------------------------------------------


def test_what_is_wanted_comes_as_it_was_written(store: Store) -> None:
    message = MessageAccepted("c", 1, b"x" * 5000, b"headers", 3)
    other: list[JournalRecord] = [OutboxOpened("c", bytes(16), bytes(16), 1), message]
    store.commit(JournalBatch(2, tuple(other)))
    assert store.load(JournalLoad(1, "b", 5, 9)) == numbered(5, 9)
    assert store.load(JournalLoad(2, "b", 20, 20)) == numbered(20, 20)
    assert store.load(JournalLoad(3, "c", 1, 1)) == [message]


def test_what_was_trimmed_meanwhile_does_not_come(store: Store) -> None:
    store.commit(JournalBatch(2, (OutboxTrimmed("b", 8),)))
    assert store.load(JournalLoad(1, "b", 5, 9)) == numbered(8, 9)
    assert store.load(JournalLoad(2, "b", 5, 7)) == []


def test_within_a_transaction_of_the_application_it_comes_too(store: Store) -> None:
    store.run(lambda db: db.execute("CREATE TABLE mine (x)"))
    assert store.load(JournalLoad(1, "b", 5, 9)) == numbered(5, 9)
    store.commit(JournalBatch(2, tuple(numbered(21, 21))))
    assert store._connection.execute("SELECT * FROM mine").fetchall() == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE networkio_message SET payload = x'00' WHERE id = ?", "message 7 to b does not fit its checksum"),
        ("UPDATE networkio_message SET flags = 'x' WHERE id = ?", "message 7 to b does not fit its checksum"),
        ("DELETE FROM networkio_message WHERE id = ?", "some of the messages 5 to 9 to b are missing"),
    ],
)
def test_what_is_damaged_is_said_and_nothing_is_written_any_more(store: Store, damage: str, words: str) -> None:
    store._connection.execute(damage, (key(1, 7),))
    assert store.load(JournalLoad(1, "b", 8, 9)) == numbered(8, 9)
    for load in (JournalLoad(2, "b", 5, 9), JournalLoad(3, "b", 8, 9)):
        with pytest.raises(JournalDamaged, match=rf"{words}\. It takes no more\. "):
            store.load(load)
    with pytest.raises(JournalDamaged, match=words):
        store.commit(JournalBatch(2, tuple(numbered(21, 21))))


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (sqlite3.SQLITE_IOERR_READ, JournalFailed, "messages could not be read back from the journal"),
        (sqlite3.SQLITE_CORRUPT, JournalDamaged, "disk I/O error"),
        (sqlite3.SQLITE_IOERR_SHORT_READ, JournalDamaged, "disk I/O error"),
    ],
)
def test_what_cannot_be_read_is_said_and_nothing_is_written_any_more(
    store: Store, code: int, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    monkeypatch.setattr(Failing, "statement", "none")
    monkeypatch.setattr(Failing, "code", code)

    def connect(uri: str) -> sqlite3.Connection:
        return sqlite3.connect(uri, timeout=0, isolation_level=None, uri=True, factory=Failing)

    again = Store(store.path, "node", 0, synchronous="OFF", connect=connect)
    monkeypatch.setattr(Failing, "statement", "SELECT * FROM networkio_message WHERE")
    with pytest.raises(error, match=rf"{words}.* It takes no more(\.|;)"):
        again.load(JournalLoad(1, "b", 5, 9))
    monkeypatch.setattr(Failing, "statement", "none")
    with pytest.raises(error, match=words):
        again.commit(JournalBatch(2, tuple(numbered(21, 21))))
    again.close()


def load(journal: SQLiteJournal, wanted: JournalLoad) -> tuple[Sequence[MessageAccepted], BaseException | None]:
    told: SimpleQueue[tuple[Sequence[MessageAccepted], BaseException | None]] = SimpleQueue()
    journal.load(wanted, lambda records, error: told.put((records, error)))
    return told.get(timeout=10)


def test_the_journal_s_thread_reads_back(store: Store) -> None:
    store.close()
    journal = SQLiteJournal(store.path)
    with pytest.raises(UsageError, match="is not open"):
        journal.load(JournalLoad(1, "b", 1, 1), lambda records, error: None)
    records: list[RestoredRecord] = journal.open("node", 140)
    assert records == [OPENED, *numbered(1, 2), kept(3, 18)]
    assert load(journal, JournalLoad(1, "b", 3, 20)) == (numbered(3, 20), None)
    found, error = load(journal, JournalLoad(2, "b", 3, 21))
    assert found == []
    assert isinstance(error, JournalDamaged)
    journal.close()
