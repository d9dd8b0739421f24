"""One journal: what goes in comes back, who else may open it, and what happens when there is no room or no disk."""

from __future__ import annotations

import errno
import gzip
import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

from networkio_journal import SQLiteJournal, defects, load, rows, store
from networkio_journal.inspection import inspecting
from networkio_journal.store import Store
from networkio_proto import Endpoint, UsageError
from networkio_proto.errors import (
    ConfigurationError,
    JournalDamaged,
    JournalFailed,
    JournalFull,
    JournalLocked,
    JournalMismatch,
    Outcome,
)
from networkio_proto.events import GapRange, Positions
from networkio_proto.handshake import Ended, InboxFacts
from networkio_proto.journal import (
    InboxesEnded,
    InboxMoved,
    JournalBatch,
    JournalRecord,
    KeptMessage,
    MessageAccepted,
    OutboxOpened,
    OutboxTrimmed,
    ReceiverKnown,
    RestoredRecord,
)
from networkio_proto.ledger import FAILURE_RANGES, Failure

from .helpers import assert_same

OPENED = OutboxOpened("b", b"outbox".ljust(16), b"run".ljust(16), 1)

ONE_OF_EACH: list[JournalRecord] = [
    OPENED,
    ReceiverKnown("b", b"process".ljust(16), 3, durable=True),
    MessageAccepted("b", 1, b"first", b"", 0x40),
    MessageAccepted("b", 2, b"", b"headers", 0),
    MessageAccepted("b", 3, b"\x00" * 10_000, b"", 0),
    MessageAccepted("b", 4, b"", b"", 0, skip=3),
    MessageAccepted("b", 5, b"", b"", 0, fin=True),
    OutboxTrimmed("b", 2, (Failure(1, 1, Outcome.REJECTED, "no \u2603 \ud800", "yes", 65535),)),
    InboxMoved("b", InboxFacts(b"theirs".ljust(16), b"r".ljust(16), 7, 7, 2), ((3, 65535, "no \u2603"),), 7),
    InboxMoved("b", InboxFacts(b"theirs".ljust(16), b"r".ljust(16), 0, 0, 1), (), 0, ((2, 2), (4, 2**60))),
    InboxesEnded("b", (Ended(b"old".ljust(16), b"r".ljust(16), 9, 8, 7, 1),)),
    InboxMoved(
        "b", InboxFacts(b"kept".ljust(16), b"r".ljust(16), 14, 9, 2), (), 0, ((11, 11), (13, 14)),
        (
            KeptMessage(10, b"ten", b"\x81\xa1k\1", 0x40, (GapRange(8, 9, 2),), Positions(bytes(16), 3, 2), bytes(24)),
            KeptMessage(12, b"\x00" * 5_000, b"", 0),
        ),
        (GapRange(13, 14, 3),), Positions(bytes(16), 7, 5), 2,
    ),
]  # fmt: skip

#: what the file of version 1 has
VERSION_1 = [OPENED, ReceiverKnown("b", b"process".ljust(16), 3), *ONE_OF_EACH[2:-1]]


def message(sequence: int, payload: bytes = b"") -> MessageAccepted:
    return MessageAccepted("b", sequence, payload, b"", 0x40)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


def write(journal: SQLiteJournal, *records: JournalRecord) -> BaseException | None:
    """Write one batch, and wait for what becomes of it."""
    told: SimpleQueue[BaseException | None] = SimpleQueue()
    journal.write(JournalBatch(1, records), told.put)
    return told.get(timeout=10)


@pytest.fixture
def journal(path: str) -> Iterator[SQLiteJournal]:
    """An open journal with an outbox to "b"."""
    journal = SQLiteJournal(path)
    assert journal.open("node") == []
    assert write(journal, OPENED) is None
    yield journal
    journal.close()


def contents(path: str) -> list[RestoredRecord]:
    """What is there when a next process opens it."""
    journal = SQLiteJournal(path)
    try:
        return journal.open("node")
    finally:
        journal.close()


# -- what goes in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_kind_of_record_comes_back(path: str, size: int) -> None:
    journal = SQLiteJournal(path)
    journal.open("node")
    for start in range(0, len(ONE_OF_EACH), size):
        assert write(journal, *ONE_OF_EACH[start : start + size]) is None
    journal.close()
    kept = contents(path)
    assert_same(ONE_OF_EACH, kept)
    assert [record for record in kept if record not in ONE_OF_EACH] == [
        OutboxOpened("b", OPENED.outbox_id, OPENED.run, 2)  # it begins behind what is over
    ]
    assert {type(record) for record in kept} == {type(record) for record in ONE_OF_EACH}


def test_a_batch_is_reported_in_the_journals_thread_and_what_was_handed_over_is_written_before_it_closes(
    journal: SQLiteJournal, path: str
) -> None:
    told: list[tuple[str, BaseException | None]] = []
    for sequence in range(1, 51):
        batch = JournalBatch(sequence, (message(sequence),))
        journal.write(batch, lambda error: told.append((threading.current_thread().name, error)))
    journal.close()
    assert told == [("networkio-journal", None)] * 50
    assert contents(path) == [OPENED, *map(message, range(1, 51))]


def test_messages_to_many_peers_are_kept_apart_and_peers_in_their_order(path: str) -> None:
    journal = SQLiteJournal(path)
    journal.open("node")
    names = [f"peer-{number % 7}" for number in range(7)]
    opened = [OutboxOpened(name, bytes(16), name.encode().ljust(16), 1) for name in names]
    accepted = [MessageAccepted(name, at, name.encode(), b"", 0) for at in range(1, 9) for name in reversed(names)]
    assert write(journal, *opened, *accepted) is None
    assert write(journal, OutboxTrimmed("peer-3", 5)) is None
    journal.close()
    kept = contents(path)
    assert list(dict.fromkeys(record.peer_id for record in kept)) == names
    assert_same([*opened, *accepted, OutboxTrimmed("peer-3", 5)], kept)


def test_it_is_opened_once_closed_as_often_as_you_like_and_opened_again(path: str) -> None:
    journal = SQLiteJournal(path)
    journal.close()
    with pytest.raises(UsageError, match="is not open"):
        journal.write(JournalBatch(1, ()), print)
    journal.open("node")
    with pytest.raises(JournalLocked, match="is open already"):
        journal.open("node")
    journal.close()
    journal.close()
    assert journal.open("node") == []
    assert write(journal, OPENED) is None
    journal.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "networkio-journal"]


@pytest.mark.parametrize("failure", [ZeroDivisionError, SystemExit])
def test_a_callback_may_close_the_journal_and_one_that_raises_stops_nothing(
    journal: SQLiteJournal, path: str, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    shown: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_type))

    def fail(_: BaseException | None) -> None:
        raise failure

    journal.write(JournalBatch(1, (message(1),)), fail)
    journal.write(JournalBatch(2, (message(2),)), lambda _: journal.close())
    thread = journal._thread
    assert thread is not None
    thread.join(10)
    assert shown == [failure]
    assert contents(path) == [OPENED, message(1), message(2)]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"durability": "none"}, "durability is 'none'"), ({"limit": 9}, "limit of a journal is 9")],
)
def test_settings_that_make_no_sense_are_refused(path: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        SQLiteJournal(path, **options)  # type: ignore[arg-type]
    assert not os.path.exists(path)


@pytest.mark.parametrize(("durability", "synchronous"), [("full", "FULL"), ("os", "NORMAL")])
def test_full_durability_is_what_sqlite_is_told(path: str, durability: str, synchronous: str) -> None:
    seen: list[str] = []
    journal = SQLiteJournal(path, durability=durability)  # type: ignore[arg-type]
    journal._connect = lambda uri: _listening(uri, seen)
    journal.open("node")
    journal.close()
    assert [text for text in seen if text.startswith("PRAGMA synchronous")] == [f"PRAGMA synchronous = {synchronous}"]
    assert "PRAGMA journal_mode = WAL" in seen
    assert "PRAGMA fullfsync = ON" in seen


def _listening(uri: str, seen: list[str]) -> sqlite3.Connection:
    connection = store.connect(uri)
    connection.set_trace_callback(seen.append)
    return connection


def test_no_payload_is_in_what_a_journal_says_of_itself(journal: SQLiteJournal) -> None:
    write(journal, message(1, b"secret"))
    assert repr(journal) == f"SQLiteJournal({journal.path!r}, durability='full', limit=None)"


@pytest.mark.skipif(os.name != "posix", reason="there are no modes")
def test_nobody_else_can_read_it_from_its_first_byte_on(path: str, journal: SQLiteJournal) -> None:
    write(journal, message(1))
    assert {name: os.stat(path + name).st_mode & 0o777 for name in ("", "-wal", ".lock")} == {
        "": 0o600, "-wal": 0o600, ".lock": 0o600
    }  # fmt: skip
    assert not os.path.exists(path + "-shm")
    copy = path + ".copy"
    for name in ("", "-wal"):  # as a tool makes it
        Path(copy + name).write_bytes(Path(path + name).read_bytes())
        os.chmod(copy + name, 0o644)
    other = SQLiteJournal(copy)
    assert other.open("node") == [OPENED, message(1)]
    assert {name: os.stat(copy + name).st_mode & 0o777 for name in ("", "-wal")} == {"": 0o600, "-wal": 0o600}
    other.close()


@pytest.mark.skipif(os.name != "posix", reason="there are no modes")
def test_a_file_that_is_no_journal_keeps_its_mode(tmp_path: Path) -> None:
    """A wrong path must do no harm."""
    foreign = tmp_path / "passwd"
    foreign.write_text("root:x:0:0\n" * 100)
    os.chmod(foreign, 0o644)
    with pytest.raises(JournalDamaged):
        contents(str(foreign))
    assert os.stat(foreign).st_mode & 0o777 == 0o644
    assert foreign.read_text() == "root:x:0:0\n" * 100


def test_a_journal_that_was_deleted_leaves_nothing_for_the_next(journal: SQLiteJournal, path: str) -> None:
    write(journal, message(1))
    (Path(path).parent / "copy-wal").write_bytes(Path(path + "-wal").read_bytes())
    journal.close()
    os.unlink(path)
    os.rename(Path(path).parent / "copy-wal", path + "-wal")
    assert contents(path) == []


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_a_second_node_of_this_process_is_told_who_has_it(journal: SQLiteJournal, path: str) -> None:
    second = SQLiteJournal(path)
    with pytest.raises(JournalLocked, match=rf"{path} is in use by another node of this process \(pid {os.getpid()}\)"):
        second.open("node")
    assert write(journal, message(1)) is None
    journal.close()
    assert second.open("node") == [OPENED, message(1)]
    second.close()


def test_another_process_is_told_who_has_it(journal: SQLiteJournal, path: str) -> None:
    code = f"from networkio_journal import SQLiteJournal; SQLiteJournal({path!r}).open('node')"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert other.returncode == 1
    assert f"JournalLocked: the journal {path} is in use by the process {os.getpid()};" in other.stderr


def test_another_program_that_has_the_file_open_keeps_a_node_out_and_the_other_way_round(path: str) -> None:
    assert contents(path) == []
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    other.execute("SELECT * FROM networkio_peer").fetchall()
    with pytest.raises(JournalLocked, match="is open in another program"):
        contents(path)
    other.close()
    journal = SQLiteJournal(path)
    journal.open("node")
    late = sqlite3.connect(path, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        late.execute("SELECT * FROM networkio_peer")
    late.close()
    journal.close()


@pytest.mark.skipif(os.name != "posix", reason="the lock is another one")
def test_where_nothing_can_be_locked_there_is_no_journal(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(JournalFailed, match=r"journal\.db\.lock cannot be locked: No locks available"):
        contents(path)
    monkeypatch.undo()
    assert contents(path) == []


def test_a_lock_file_that_was_left_behind_blocks_nobody(path: str) -> None:
    Path(path + ".lock").write_text("12345678901234567890\n")
    assert contents(path) == []
    assert Path(path + ".lock").read_text() == f"{os.getpid()}\n"


def test_the_journal_of_another_node_and_what_is_no_journal_are_refused(path: str, tmp_path: Path) -> None:
    assert contents(path) == []
    with pytest.raises(JournalMismatch, match=r"belongs to the node node, not to other\\n"):
        SQLiteJournal(path).open("other\n")
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(JournalMismatch, match=r"foreign\.db is an SQLite file, and no journal"):
        contents(str(foreign))
    (tmp_path / "text").write_text("to whom it may concern " * 1000)
    with pytest.raises(JournalDamaged, match="file is not a database"):
        contents(str(tmp_path / "text"))
    (tmp_path / "empty").touch()
    with pytest.raises(JournalDamaged, match="the file is empty"):
        contents(str(tmp_path / "empty"))
    with pytest.raises(JournalFailed, match=r"the lock file .* cannot be opened: No such file"):
        contents(str(tmp_path / "no" / "directory"))


def test_a_newer_version_is_refused_and_an_older_one_is_brought_up_to_date_or_left(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SQLiteJournal(path)
    journal.open("node")
    write(journal, OPENED, message(1))
    journal.close()

    def migrate(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE networkio_more (id INTEGER PRIMARY KEY)")
        if fails:
            connection.execute("CREATE TABLE networkio_more (id INTEGER PRIMARY KEY)")

    fails = True
    monkeypatch.setitem(rows.SCHEMA, "networkio_more", "id INTEGER PRIMARY KEY")
    monkeypatch.setitem(rows.SINCE, load.VERSION + 1, ("networkio_more",))
    monkeypatch.setattr(load, "VERSION", load.VERSION + 1)
    monkeypatch.setattr(store, "VERSION", load.VERSION)
    monkeypatch.setitem(load.MIGRATIONS, load.VERSION - 1, migrate)
    before = Path(path).read_bytes()
    with pytest.raises(JournalDamaged):
        contents(path)
    assert Path(path).read_bytes() == before
    fails = False
    assert contents(path) == [OPENED, message(1)]
    assert contents(path) == [OPENED, message(1)]
    monkeypatch.undo()
    now = load.VERSION
    with pytest.raises(JournalMismatch, match=f"has version {now + 1}, and this networkio knows versions up to {now}"):
        contents(path)


def version_1() -> bytes:
    return gzip.decompress((Path(__file__).parent / "version1.db.gz").read_bytes())


@pytest.mark.parametrize("durable", [False, True])
def test_a_journal_of_version_1_is_opened_and_can_keep_what_comes_from_then_on(path: str, durable: bool) -> None:
    """The file was written by the last code that knew version 1 only."""
    Path(path).write_bytes(version_1())
    with inspecting(path) as found:
        assert found.version() == 1
        assert list(found.faults()) == []
        assert [(peer.peer_id, peer.kept) for peer in found.peers()] == [("b", 0)]
        assert list(found.received()) == []
    assert_same(VERSION_1, contents(path), durable=durable)
    moved = kept_in(b"theirs".ljust(16), 9, KeptMessage(9, b"nine", b"", 0))
    known = ReceiverKnown("b", b"process".ljust(16), 3, durable=True)
    journal = SQLiteJournal(path)
    journal.open("node")
    assert write(journal, moved, known) is None
    journal.close()
    assert_same([*VERSION_1, moved, known], contents(path), durable=durable)
    with inspecting(path) as found:
        assert found.version() == 2
        assert list(found.faults()) == []


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("node_id", "statement", "error", "text"),
    [
        ("node", "UPDATE networkio_message SET payload = x'00'", JournalDamaged, "does not fit its checksum"),
        ("node", "DELETE FROM networkio_failure", JournalDamaged, "the positions and outcomes for b do not fit"),
        ("node", "DROP TABLE networkio_ended", JournalDamaged, "the table networkio_ended"),
        ("other", "CREATE TABLE mine (id)", JournalMismatch, "belongs to the node node, not to other"),
    ],
)
def test_a_journal_of_version_1_that_is_not_taken_is_left_as_it_is_with_its_log(
    path: str, node_id: str, statement: str, error: type[Exception], text: str, log: bool
) -> None:
    made = path + ".made"
    Path(made).write_bytes(version_1())
    with closing(sqlite3.connect(made, isolation_level=None)) as tool:
        tool.execute(statement)
        if log:  # as a process that was killed left it
            before = [Path(made + end).read_bytes() for end in ("", "-wal")]
    if not log:
        before = [Path(made).read_bytes(), b""]
    assert bool(before[1]) is log
    for end, data in zip(("", "-wal"), before, strict=True):
        if data:
            Path(path + end).write_bytes(data)
    with pytest.raises(error, match=text):
        SQLiteJournal(path).open(node_id)
    assert Path(path).read_bytes() == before[0]
    left = Path(path + "-wal")
    assert (left.read_bytes() if left.exists() else b"") == before[1]


# -- what comes -------------------------------------------------------------------------------------------------------


def kept_in(outbox_id: bytes, received: int, *messages: KeptMessage, read: int = 8) -> InboxMoved:
    return InboxMoved("b", InboxFacts(outbox_id, b"r".ljust(16), received, read, 1), (), messages=messages, turn=1)


def test_what_came_is_kept_until_it_is_settled_and_only_its_own_rows_are_touched(path: str) -> None:
    theirs, count = b"theirs".ljust(16), 3000
    journal = SQLiteJournal(path)
    journal.open("node")
    messages = [KeptMessage(number, b"%d" % number, b"", 0) for number in range(9, 9 + count)]
    assert write(journal, kept_in(theirs, 8 + count, *messages)) is None
    settled = ((20, 29), (31, 31))
    assert write(journal, replace(kept_in(theirs, 8 + count, read=10), settled=settled)) is None
    journal.close()
    (record,) = contents(path)
    assert isinstance(record, InboxMoved)
    assert [message.sequence for message in record.messages] == [
        number for number in range(11, 9 + count) if number not in range(20, 30) and number != 31
    ]
    journal.open("node")
    assert write(journal, replace(kept_in(theirs, 8 + count, read=10), settled=((12, 8 + count - 1),))) is None
    assert write(journal, kept_in(theirs, 13, KeptMessage(13, b"anew", b"", 0), read=12)) is None
    journal.close()
    (record,) = contents(path)
    assert isinstance(record, InboxMoved)
    assert record.messages == (KeptMessage(13, b"anew", b"", 0),)


def test_a_message_that_came_and_is_too_long_for_a_row_is_said_and_the_journal_goes_on(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.Store, "_longest_of", staticmethod(lambda connection: 100))
    journal = SQLiteJournal(path)
    journal.open("node")
    error = write(journal, kept_in(bytes(15) + b"x", 9, KeptMessage(9, bytes(101), b"", 0)))
    assert isinstance(error, JournalFull)
    assert "message 9 from b has 101 bytes" in str(error)
    assert write(journal, OPENED) is None
    journal.close()


# -- no room, no disk -------------------------------------------------------------------------------------------------


def test_over_its_limit_a_batch_fails_whole_and_the_next_may_succeed(path: str) -> None:
    journal = SQLiteJournal(path, limit=256 * 1024)
    journal.open("node")
    write(journal, OPENED, *(message(sequence, bytes(10_000)) for sequence in range(1, 11)))
    full = write(journal, *(message(sequence, bytes(10_000)) for sequence in range(11, 41)))
    assert isinstance(full, JournalFull)
    assert f"the journal {path} has no room left" in str(full)
    assert write(journal, message(11, b"small")) is None
    assert write(journal, OutboxTrimmed("b", 11)) is None
    assert write(journal, *(message(sequence, bytes(10_000)) for sequence in range(12, 22))) is None
    journal.close()
    assert os.path.getsize(path) <= 256 * 1024
    assert [record.sequence for record in contents(path) if isinstance(record, MessageAccepted)] == [*range(11, 22)]


def test_numbers_run_out_one_day_and_that_is_said(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LAST_SEQUENCE", 3)
    journal = SQLiteJournal(path)
    journal.open("node")
    assert write(journal, OPENED, message(1), message(2)) is None
    assert isinstance(write(journal, message(3)), JournalFull)
    monkeypatch.setattr(store, "LAST_PEER", 1)
    assert isinstance(write(journal, OutboxOpened("c", bytes(16), bytes(16), 1)), JournalFull)
    journal.close()
    assert contents(path) == [OPENED, message(1), message(2)]


def test_a_message_that_is_longer_than_sqlite_can_hold_fails_with_its_batch_alone(path: str) -> None:
    opened = Store(path, "node")
    opened._longest = 100
    opened.commit(JournalBatch(1, (OPENED, message(1, bytes(100)))))
    with pytest.raises(JournalFull, match="message 2 to b has 101 bytes, and a row of SQLite at most 100"):
        opened.commit(JournalBatch(2, (message(2, bytes(101)),)))
    opened.commit(JournalBatch(3, (message(2),)))
    assert 900_000_000 < Store._longest_of(opened._connection) < 1_000_000_000
    opened.close()


class Failing(sqlite3.Connection):
    """A connection on which statements that begin so fail with this code of SQLite's."""

    statement: str | tuple[str, ...] = "none"
    code = sqlite3.SQLITE_IOERR_FSYNC

    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        if statement.startswith(Failing.statement):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = Failing.code
            raise error
        return super().execute(statement, *parameters)  # type: ignore[arg-type]


@pytest.fixture
def failing(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteJournal]:
    monkeypatch.setattr(Failing, "statement", "none")
    journal = SQLiteJournal(path)
    journal._connect = lambda uri: sqlite3.connect(uri, timeout=0, isolation_level=None, uri=True, factory=Failing)
    journal.open("node")
    assert write(journal, OPENED, message(1)) is None
    yield journal
    journal.close()


@pytest.mark.parametrize("statement", ["COMMIT", "BEGIN", "REPLACE INTO networkio_peer"])
def test_after_a_failed_sync_nothing_is_written_any_more(
    failing: SQLiteJournal, path: str, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "statement", statement)
    first = write(failing, message(2))
    assert isinstance(first, JournalFailed)
    assert str(first).startswith(f"writing to the journal {path} failed (disk I/O error), and nobody knows")
    monkeypatch.setattr(Failing, "statement", "none")
    assert write(failing, message(2)) is first
    assert write(failing) is first
    failing.close()
    assert contents(path) == [OPENED, message(1)]


def test_a_rollback_that_fails_changes_nothing_about_it(
    failing: SQLiteJournal, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "statement", ("REPLACE INTO networkio_peer", "ROLLBACK"))
    first = write(failing, message(2))
    assert isinstance(first, JournalFailed)
    assert "disk I/O error" in str(first)
    failing.close()
    assert contents(path) == [OPENED, message(1)]


def test_a_batch_that_does_not_follow_is_a_failure(journal: SQLiteJournal) -> None:
    missing = write(journal, message(7))
    assert isinstance(missing, JournalFailed)
    assert "message 7 to b does not follow 0" in str(missing)


@pytest.mark.parametrize(("code", "goes_on"), [(sqlite3.SQLITE_IOERR_FSYNC, False), (sqlite3.SQLITE_FULL, True)])
def test_what_fails_while_the_log_is_copied_back_is_told_to_the_next_batch(
    failing: SQLiteJournal, path: str, monkeypatch: pytest.MonkeyPatch, code: int, goes_on: bool
) -> None:
    monkeypatch.setattr(store, "_LOG", 1)
    monkeypatch.setattr(Failing, "code", code)
    monkeypatch.setattr(Failing, "statement", "PRAGMA wal_checkpoint")
    assert write(failing, message(2)) is None
    assert (write(failing, message(3)) is None) is goes_on
    failing.close()
    assert contents(path) == [OPENED, *map(message, range(1, 4 if goes_on else 3))]


def test_the_log_stays_small_and_what_was_copied_back_is_there(journal: SQLiteJournal, path: str) -> None:
    for sequence in range(1, 31):
        assert write(journal, message(sequence, bytes(1_000_000)), OutboxTrimmed("b", sequence)) is None
    assert os.path.getsize(path + "-wal") < 8_000_000
    assert os.path.getsize(path) < 8_000_000  # places of what is over are taken again
    journal.close()
    assert contents(path)[-1] == message(30, bytes(1_000_000))


def fill(ballast: Path) -> None:
    """Leave no room on the disk of this file."""
    with open(ballast, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
def test_a_disk_that_is_full_takes_the_rest_when_there_is_room_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("nobody may mount here")
    try:
        path = str(disk / "journal.db")
        journal = SQLiteJournal(path)
        journal.open("node")
        write(journal, OPENED, message(1))
        (disk / "ballast").write_bytes(bytes(500_000))
        full = write(journal, message(2, bytes(600_000)))
        assert isinstance(full, JournalFull)
        os.unlink(disk / "ballast")
        assert write(journal, message(2, bytes(400_000))) is None
        journal.close()
        fill(disk / "ballast")
        for other in (path, str(disk / "another.db")):
            with pytest.raises(JournalFull, match="cannot be opened, for the disk is full"):
                contents(other)
        os.unlink(disk / "ballast")
        assert contents(path) == [OPENED, message(1), message(2, bytes(400_000))]
        assert contents(str(disk / "another.db")) == []
    finally:
        subprocess.run(["umount", disk], check=True)


LIMITED = """
import resource, sys, tests.journal.test_journal as t
from networkio_journal import SQLiteJournal
journal = SQLiteJournal(sys.argv[1])
journal.open("node")
t.write(journal, t.OPENED, t.message(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
first = t.write(journal, t.message(2, bytes(300_000)))
second = t.write(journal, t.message(2))
print(type(first).__name__, second is first)
journal.close()
"""


@pytest.mark.skipif(os.name != "posix", reason="there are no such limits")
def test_a_write_that_the_system_refuses_for_another_reason_is_a_failure(path: str) -> None:
    child = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, timeout=60)
    assert child.stdout.split() == ["JournalFailed", "True"], child.stderr
    assert contents(path) == [OPENED, message(1)]


def test_what_the_system_says_at_opening_is_passed_on(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_make", _refuse)
    with pytest.raises(JournalFailed, match="cannot be opened: No space left"):
        contents(path)
    monkeypatch.undo()
    assert contents(path) == []
    monkeypatch.setattr(Failing, "statement", "BEGIN")
    with pytest.raises(JournalFailed, match="cannot be opened: disk I/O error"):
        Store(path, "node", connect=lambda uri: sqlite3.connect(uri, factory=Failing, uri=True))
    assert contents(path) == []


def test_where_there_can_be_no_log_there_is_no_journal(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert contents(path) == []
    with pytest.raises(JournalFailed, match=r"cannot keep a log \(delete\); move it"):
        Store(path, "node", connect=lambda uri: sqlite3.connect(uri, factory=Unlogged, uri=True))
    assert contents(path) == []


class Unlogged(sqlite3.Connection):
    """A connection to where SQLite cannot have a log, and says so."""

    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        answered = "SELECT 'delete'" if statement.startswith("PRAGMA journal_mode") else statement
        return super().execute(answered, *parameters)  # type: ignore[arg-type]


def test_any_path_will_do(tmp_path: Path) -> None:
    path = tmp_path / "100% #1? \u00fc.db"
    assert contents(str(path)) == []
    assert sorted(item.name for item in tmp_path.iterdir()) == [path.name, path.name + ".lock"]


def _refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# -- SQLite itself ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ((3, 6, 23), False), ((3, 7, 0), True), ((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False),
        ((3, 45, 0), True), ((3, 50, 6), True), ((3, 50, 7), False), ((3, 51, 2), True), ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)  # fmt: skip
def test_the_wal_reset_bug_is_known_by_its_versions_and_needs_several_connections(
    version: defects.Version, has: bool
) -> None:
    found = defects.warnings_for(version, {"connections"})
    assert len(found) == has
    assert all(f"SQLite {version[0]}.{version[1]}.{version[2]} can damage" in text for text in found)
    assert defects.warnings_for(version) == []


@pytest.mark.parametrize(("version", "has"), [((3, 34, 1), 0), ((3, 35, 0), 1), ((3, 37, 1), 1), ((3, 37, 2), 0)])
def test_the_savepoint_bug_is_known_by_its_versions(version: defects.Version, has: int) -> None:
    assert len(defects.warnings_for(version, {"savepoints"})) == has


def test_a_defect_that_the_journal_could_meet_is_warned_of(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert contents(path) == []
    known = defects.Defect("test", "connections", (((3, 0, 0), (4, 0, 0)),))
    monkeypatch.setattr(store, "warnings_for", lambda version: [f"{version} has {known.name}"])
    with pytest.warns(RuntimeWarning, match="has test"):
        Store(path, "node").close()


def test_the_oldest_outcomes_melt_and_the_file_does_not_grow_with_them(path: str) -> None:
    journal = Store(path, "node", synchronous="OFF")
    journal.commit(JournalBatch(1, (OPENED,)))
    for place in range(FAILURE_RANGES // 100 + 2):
        numbers = range(place * 200 + 1, place * 200 + 200, 2)
        failures = tuple(Failure(number, number, Outcome.CANCELLED, "", "no") for number in numbers)
        journal.commit(JournalBatch(1, (OutboxTrimmed("b", numbers[-1] + 2, failures),)))
    [(count,)] = journal._connection.execute("SELECT count(*) FROM networkio_failure")
    assert count == FAILURE_RANGES
    journal.close()
    again = Store(path, "node")
    endpoint = Endpoint("node", journal=True)
    endpoint.restore(again.records, 0.0)
    again.close()
    session = endpoint.session("b")
    assert [session.outcome(number) for number in (1, 2, 2399, 2400)] == [None, None, Outcome.CANCELLED, Outcome.READ]
    assert len(session.failures()) == FAILURE_RANGES
    assert not session.failures()[0].exact
