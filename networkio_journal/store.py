"""The journal's file: made, checked, opened, written.  Blocking, and all of it in one thread.

Theory of operation
-------------------
A file is made beside its place and renamed into it when it is whole, so that a file which is there is a whole journal,
and an empty one is damage.  Opening reads everything over a connection that cannot write (:mod:`.load`), be it of this
version or an older one; a journal that turns out to be damaged, or another node's, is so left as it was found, its log
included.  Only then an older one is brought up to date, and the file is opened for writing, with an exclusive lock of
SQLite's own, which holds other programs off and needs no shared memory.

:meth:`Store.commit` makes one transaction of one batch.  It applies the records to drafts of the peers concerned
(:mod:`.state`), writes the rows that differ, and takes the drafts over when the transaction is on disk.  What fails for
want of room failed whole.  After any other failure nobody knows what a next sync would be worth: the store is poisoned
and every later batch gets the same error.

:meth:`Store.load` reads messages back, with the checks of opening; what does not pass them poisons the store too.

SQLite copies its log back into the file when asked to, not by itself: it would not tell of a sync that failed.  It is
asked between batches, when about :data:`_LOG` bytes are in the log, after the batch has been reported.

:meth:`Store.run` begins the transaction early, for a function of the application, which a :class:`~.guard.Guard` keeps
from what is not its own.  The next commit ends it.  How much such a function writes is not known, so from the first one
on the log's size is looked at, and the log is cut when it has been copied.
"""

from __future__ import annotations

import os
import sqlite3
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from networkio_proto.errors import (
    JournalDamaged,
    JournalError,
    JournalFailed,
    JournalFull,
    JournalLocked,
    UsageError,
    printable,
)
from networkio_proto.journal import JournalBatch, JournalRecord, MessageAccepted
from networkio_proto.spill import JournalLoad

from .defects import warnings_for
from .guard import ENDED, Guard, Lent
from .load import MIGRATIONS, VERSION, identify, load
from .lock import LockFile
from .rows import (
    APPLICATION,
    LAST_PEER,
    LAST_SEQUENCE,
    SCHEMA,
    Damage,
    ended_row,
    failure_row,
    inbox_row,
    journal_row,
    kept_row,
    key,
    message_of,
    message_row,
    opening_row,
    peer_row,
    positions,
    reading_row,
)
from .state import Draft, Peer

__all__ = ["Store"]

#: so many bytes may be in the log before it is copied into the file
_LOG: Final = 4 * 1024 * 1024

#: what a commit puts there beside what it was given, and what each record does: pages are written whole
_PER_COMMIT: Final = 4 * 4096
_PER_RECORD: Final = 100

#: codes of SQLite for bytes that make no sense, as opposed to those that could not be had
_CORRUPT: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT}

#: what becomes of a journal that turned out to be damaged while it is open
_TAKES_NO_MORE: Final = "It takes no more"

_WANTED: Final = "SELECT * FROM networkio_message WHERE id BETWEEN ? AND ? ORDER BY id"

Connect = Callable[[str], sqlite3.Connection]


def connect(uri: str) -> sqlite3.Connection:
    """A connection that waits for nobody and begins no transaction by itself."""
    return sqlite3.connect(uri, timeout=0, isolation_level=None, uri=True, factory=Lent)


class Store:
    """One open journal.

    ``synchronous``: SQLite's setting of that name.  ``limit``: the file may grow to so many bytes, None: any.
    ``records``: what the journal held at opening; whole are messages to a peer up to a cost of ``resident``, None: all.
    Raises JournalError, with nothing left open.
    """

    def __init__(
        self,
        path: str,
        node_id: str,
        resident: int | None = None,
        *,
        synchronous: str = "FULL",
        limit: int | None = None,
        connect: Connect = connect,
    ) -> None:
        self.path = os.path.realpath(path)
        self.node_id = node_id
        self.poison: JournalError | None = None
        self._resident = resident
        self._connect = connect
        self._logged = 0
        #: does an application write here too?
        self._shared = False
        for text in warnings_for(sqlite3.sqlite_version_info):
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        self._lock = LockFile(self.path)
        try:
            self._connection = self._open(synchronous, limit)
            self._longest = self._longest_of(self._connection)
        except BaseException:
            self._lock.release()
            raise

    # -- opening --------------------------------------------------------------------------------------------------

    def _open(self, synchronous: str, limit: int | None) -> sqlite3.Connection:
        try:
            if not os.path.exists(self.path):
                _make(self.path, self.node_id, self._connect)
            if not os.path.getsize(self.path):
                raise Damage("all of it: the file is empty")
            self._load()
            _tighten(self.path)
            return self._writer(synchronous, limit)
        except Damage as damage:
            raise self._damaged(str(damage)) from damage
        except OSError as error:
            raise JournalFailed(f"the journal {self.path} cannot be opened: {error.strerror}") from error
        except UnicodeError as error:  # of SQLite's own message, which names a table by bytes that are no text
            raise self._damaged("its schema") from error
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._unreadable(error) from error

    def _load(self) -> None:
        """Read everything, over a connection that can change nothing."""
        reader = self._connect(f"{Path(self.path).as_uri()}?mode=ro")
        try:
            reader.execute("PRAGMA trusted_schema = OFF")
            reader.execute("PRAGMA cell_size_check = ON")
            reader.execute("BEGIN")
            version = identify(reader, self.path)
            if version == VERSION:
                self.peers, self.records = load(reader, self.path, self.node_id, self._resident)
                return
            load(reader, self.path, self.node_id, 0, version)  # a writer changes the file and its log by closing
        finally:
            reader.close()
        self._migrate()

    def _migrate(self) -> None:
        """Make a sound journal of an older version one of this, or leave what is in it as it is."""
        writer = self._connect(Path(self.path).as_uri())
        try:
            writer.execute("BEGIN EXCLUSIVE")
            for version in range(identify(writer, self.path), VERSION):
                MIGRATIONS[version](writer)
                writer.execute(f"PRAGMA user_version = {version + 1}")
            self.peers, self.records = load(writer, self.path, self.node_id, self._resident)
            writer.execute("COMMIT")
        finally:
            writer.close()

    def _writer(self, synchronous: str, limit: int | None) -> sqlite3.Connection:
        writer = self._connect(Path(self.path).as_uri())
        try:
            writer.execute("PRAGMA locking_mode = EXCLUSIVE")
            (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise JournalFailed(f"the journal {self.path} is where SQLite cannot keep a log ({mode}); move it")
            writer.execute(f"PRAGMA synchronous = {synchronous}")
            writer.execute("PRAGMA fullfsync = ON")  # without it a sync on macOS does not reach the disk
            writer.execute("PRAGMA checkpoint_fullfsync = ON")
            writer.execute("PRAGMA wal_autocheckpoint = 0")
            if limit is not None:
                (size,) = writer.execute("PRAGMA page_size").fetchone()
                writer.execute(f"PRAGMA max_page_count = {max(1, limit // size)}")
            writer.execute("BEGIN EXCLUSIVE")  # nobody else has it open, from here on
            writer.execute("COMMIT")
            _remove(self.path + "-shm")  # the reader's
        except BaseException:
            writer.close()
            raise
        return writer

    @staticmethod
    def _longest_of(connection: sqlite3.Connection) -> int:
        """How long payload and headers of a message may be together."""
        return connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - 1024  # the other columns

    def _damaged(self, where: str, so: str = "It was left as it is") -> JournalDamaged:
        return JournalDamaged(
            f"the journal {self.path} is damaged: {where}. {so}. Restore a copy of it, or move it away "
            f"and begin anew: what it held is lost then, and the peers are told"
        )

    def _unreadable(self, error: Exception) -> JournalError:
        """An error of SQLite at opening."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # none: text that is no text
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return JournalLocked(f"the journal {self.path} is open in another program; close it there")
        if code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:  # the reader's shared memory
            return JournalFull(f"the journal {self.path} cannot be opened, for the disk is full; make room")
        if code & 0xFF in _CORRUPT or code == sqlite3.SQLITE_IOERR_SHORT_READ:
            return self._damaged(printable(error))
        return JournalFailed(f"the journal {self.path} cannot be opened: {printable(error)}")

    # -- writing --------------------------------------------------------------------------------------------------

    def run(self, call: Callable[[Any], object]) -> None:
        """Begin a transaction and call ``call(connection)`` in it; it is left open for :meth:`commit` or :meth:`undo`.

        Raises what that raises, with everything undone: JournalFull for want of room, JournalFailed if the disk failed,
        UsageError if it was kept from what is not its own.
        """
        if self.poison is not None:
            raise self.poison
        connection, guard = self._connection, Guard()
        self._shared = True
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.set_authorizer(guard)
            try:
                value = call(connection)
                if isinstance(value, sqlite3.Cursor):  # freed in another thread it would disturb what runs here then
                    value.close()
            finally:
                connection.set_authorizer(None)
                connection.row_factory, connection.text_factory = None, str
            if not connection.in_transaction:
                raise UsageError(ENDED)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # cursors among their variables are freed here, too
            self._roll_back()
            meant = self._of_function(error, guard)
            if meant is error:
                raise
            raise meant from error

    def _of_function(self, error: BaseException, guard: Guard) -> BaseException:
        """What an error in a function means."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF if isinstance(error, sqlite3.Error) else 0
        if code == sqlite3.SQLITE_AUTH:
            return UsageError(f"a function may not do that in the journal {self.path}: {guard.refused}")
        if code == sqlite3.SQLITE_FULL:
            return self._full()
        if code == sqlite3.SQLITE_IOERR:
            return self._poisoned(error)
        # What is corrupt may be another database of the function's.  If it is this one, the next batch will say so.
        return error

    def undo(self) -> None:
        """What :meth:`run` left open comes to nothing."""
        self._roll_back()

    def commit(self, batch: JournalBatch) -> None:
        """Make a batch durable, whole, and what :meth:`run` left open with it.

        Raises JournalFull, after which the store goes on; else JournalFailed.
        """
        if self.poison is not None:
            raise self.poison
        try:
            drafts = self._drafts(batch.records)
            if not self._connection.in_transaction:
                self._connection.execute("BEGIN IMMEDIATE")
            self._write(drafts)
            self._connection.execute("COMMIT")
        except JournalFull:
            self._roll_back()
            raise
        except Exception as error:
            self._roll_back()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                self._logged = max(self._logged, _LOG)  # copied into the file, the log has room again
                raise self._full() from error
            raise self._poisoned(error) from error
        self.peers |= {draft.peer.peer_id: draft.taken_over() for draft in drafts}
        size = sum(len(message.payload) + len(message.headers) for draft in drafts for message in draft.all_messages)
        self._logged += size + _PER_COMMIT + _PER_RECORD * len(batch.records)
        if self._shared:
            with suppress(OSError):
                self._logged = os.path.getsize(self.path + "-wal")

    def tidy(self) -> None:
        """Copy the log into the file, if there is enough of it.  What fails is told to the next batch."""
        if self._logged < _LOG or self.poison is not None or self._connection.in_transaction:
            return
        try:
            how = "TRUNCATE" if self._shared else "RESTART"
            busy, _, _ = self._connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
            self._logged = self._logged if busy else 0
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_FULL:  # then it stays in the log for now
                self._poisoned(error)

    # -- reading back -----------------------------------------------------------------------------------------------

    def load(self, load: JournalLoad) -> list[MessageAccepted]:
        """The messages that are wanted, but for those that are trimmed.  Raises JournalDamaged, JournalFailed."""
        if self.poison is not None:
            raise self.poison
        peer = self.peers[load.peer_id]
        first = max(load.first, peer.first)
        ends = (key(peer.number, first), key(peer.number, load.last))
        try:
            rows = self._connection.execute(_WANTED, ends)
            messages = [message_of(row, peer.peer_id) for row in rows]
            if [message.sequence for message in messages] != list(range(first, load.last + 1)):
                raise Damage(f"some of the messages {first} to {load.last} to {printable(peer.peer_id)} are missing")
        except Damage as damage:
            self.poison = self._damaged(str(damage), _TAKES_NO_MORE)
            raise self.poison from damage
        except Exception as error:
            code = getattr(error, "sqlite_errorcode", 0)
            corrupt = code & 0xFF in _CORRUPT or code == sqlite3.SQLITE_IOERR_SHORT_READ
            self.poison = self._damaged(printable(error), _TAKES_NO_MORE) if corrupt else self._lost(error)
            raise self.poison from error
        return messages

    def _lost(self, error: Exception) -> JournalFailed:
        return JournalFailed(
            f"messages could not be read back from the journal {self.path} ({printable(error)}). It takes no more; "
            f"look after the disk, then start the process again"
        )

    def close(self) -> None:
        """Give file and lock back."""
        try:
            self._connection.close()
        finally:
            self._lock.release()

    def _full(self) -> JournalFull:
        return JournalFull(
            f"the journal {self.path} has no room left, on the disk or below its limit; nothing was written. "
            f"Make room, or wait until peers have read what waits for them"
        )

    def _poisoned(self, error: BaseException) -> JournalFailed:
        self.poison = poison = JournalFailed(
            f"writing to the journal {self.path} failed ({printable(error)}), and nobody knows what is on the disk. "
            f"It takes no more; look after the disk, then start the process again"
        )
        return poison

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._poisoned(error)

    def _drafts(self, records: Iterable[JournalRecord]) -> list[Draft]:
        """What the peers concerned come to."""
        drafts: dict[str, Draft] = {}
        known = len(self.peers)
        for record in records:
            draft = drafts.get(record.peer_id)
            if draft is None:
                peer = self.peers.get(record.peer_id)
                if peer is None:
                    known += 1
                    peer = Peer(known, record.peer_id)
                draft = drafts[record.peer_id] = Draft(peer)
            draft.take(record)
        for draft in drafts.values():
            for message in draft.all_messages:
                if (size := len(message.payload) + len(message.headers)) > self._longest:
                    way = "to" if isinstance(message, MessageAccepted) else "from"
                    name = f"message {message.sequence} {way} {printable(draft.peer.peer_id)}"
                    raise JournalFull(f"{name} has {size} bytes, and a row of SQLite at most {self._longest}; split it")
        if known > LAST_PEER or any(
            max(draft.peer.next, draft.peer.last_kept) > LAST_SEQUENCE for draft in drafts.values()
        ):
            raise JournalFull(f"the journal {self.path} has no numbers left; begin a new one")
        return list(drafts.values())

    def _write(self, drafts: list[Draft]) -> None:
        execute, executemany, now = self._connection.execute, self._connection.executemany, int(time.time())
        for draft in drafts:
            before, peer = draft.before, draft.peer
            number = peer.number
            if peer.first > before.first:
                ends = (key(number, before.first), key(number, min(peer.first, before.next) - 1))
                execute("DELETE FROM networkio_message WHERE id BETWEEN ? AND ?", ends)
            rows = [message_row(number, message, now) for message in draft.retained]
            executemany(f"INSERT INTO networkio_message VALUES ({_MARKS[8]})", rows)
            rows = [message_row(number, tombstone, now) for tombstone in draft.tombstones]
            executemany(f"REPLACE INTO networkio_message VALUES ({_MARKS[8]})", rows)
            rows = [opening_row(number, at, opening) for at, opening in enumerate(draft.openings, before.openings + 1)]
            executemany("INSERT INTO networkio_opening VALUES (?, ?, ?, ?, ?)", rows)
            gone, came = draft.changes()
            executemany("DELETE FROM networkio_received WHERE id = ?", [(key(number, place),) for place in gone])
            rows = [kept_row(number, place, outbox_id, message, now) for place, outbox_id, message in came]
            executemany(f"INSERT INTO networkio_received VALUES ({_MARKS[11]})", rows)
            digest = self._write_positions(before, peer)
            execute(f"REPLACE INTO networkio_peer VALUES ({_MARKS[10]})", peer_row(peer, digest))
        if any(draft.peer.peer_id not in self.peers for draft in drafts):
            count = max(len(self.peers), *(draft.peer.number for draft in drafts))
            execute("REPLACE INTO networkio_journal VALUES (?, ?, ?, ?)", journal_row(self.node_id, count))

    def _write_positions(self, before: Peer, peer: Peer) -> int:
        """The rows of inboxes and of failures that differ; returns the checksum over all."""
        number, execute = peer.number, self._connection.execute
        inboxes = [inbox_row(number, place, moved) for place, moved in peer.inboxes.items()]
        reading = {place: reading_row(number, place, moved) for place, moved in peer.inboxes.items()}
        for place in before.inboxes.keys() - peer.inboxes.keys():
            execute("DELETE FROM networkio_inbox WHERE id = ?", (key(number, place),))
            execute("DELETE FROM networkio_reading WHERE id = ?", (key(number, place),))
        for (place, moved), row in zip(peer.inboxes.items(), inboxes, strict=True):
            if before.inboxes.get(place) is not moved:
                execute(f"REPLACE INTO networkio_inbox VALUES ({_MARKS[10]})", row)
                execute("DELETE FROM networkio_reading WHERE id = ?", (key(number, place),))
                if (beside := reading[place]) is not None:
                    execute(f"INSERT INTO networkio_reading VALUES ({_MARKS[5]})", beside)
        ended = [ended_row(number, place, item) for place, item in enumerate(peer.ended, 1)]
        if peer.ended != before.ended:
            ends = (key(number, 0), key(number, LAST_SEQUENCE))
            execute("DELETE FROM networkio_ended WHERE id BETWEEN ? AND ?", ends)
            self._connection.executemany(f"INSERT INTO networkio_ended VALUES ({_MARKS[8]})", ended)
        failures = [failure_row(number, failure) for failure in peer.failures.values()]
        for place in before.failures.keys() - peer.failures.keys():
            execute("DELETE FROM networkio_failure WHERE id = ?", (key(number, place),))
        for failure, row in zip(peer.failures.values(), failures, strict=True):
            if before.failures.get(failure.first) != failure:
                execute(f"REPLACE INTO networkio_failure VALUES ({_MARKS[8]})", row)
        return positions(inboxes, ended, failures, [row for row in reading.values() if row is not None])


_MARKS: Final = {count: ", ".join("?" * count) for count in (5, 8, 10, 11)}


# -- a new file -------------------------------------------------------------------------------------------------------


def _make(path: str, node_id: str, connect: Connect) -> None:
    """An empty journal, there as a whole or not at all."""
    beside = path + ".new"
    for leftover in (beside, f"{beside}-wal", f"{beside}-shm", f"{beside}-journal", f"{path}-wal", f"{path}-shm"):
        _remove(leftover)  # half made by a process that was killed, or of a journal that was deleted
    os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection = connect(Path(beside).as_uri())
    try:
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        for name, columns in SCHEMA.items():
            connection.execute(f"CREATE TABLE {name} ({columns})")
        connection.execute("INSERT INTO networkio_journal VALUES (?, ?, ?, ?)", journal_row(node_id, 0))
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    finally:
        connection.close()
    os.replace(beside, path)
    if os.name == "posix":  # the name is durable too
        directory = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _tighten(path: str) -> None:
    """Make a journal legible to its owner only, once it is known to be one.

    A tool that copied it may have given it a wider mode.  To refuse it would keep the node from its messages, and undo
    nothing for those who could read it until now.
    """
    for name in (path, path + "-wal"):
        if os.name == "posix" and os.path.exists(name) and os.stat(name).st_mode & 0o077:
            os.chmod(name, 0o600)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
