"""Looking into a journal without a node: what waits in it, for whom, and whether it is whole.

Theory of operation
-------------------
:func:`inspecting` takes the journal's lock, so that no node opens it meanwhile, and a connection that cannot write.  A
journal that was closed in order has no log, and SQLite is told that the file will not change (``immutable``): it makes
no file then.  Where there is a log it has to be read too, which takes a ``-shm``; that is removed again.  Neither the
file nor its log is ever written.  The journal of a running node cannot be looked into: SQLite keeps it to that node.

:meth:`Inspection.peers` and :meth:`Inspection.messages` read row by row, and hold one payload at a time.
:meth:`Inspection.faults` names everything that is wrong, where opening stops at the first.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from networkio_proto.errors import JournalDamaged, JournalFailed, JournalLocked, printable
from networkio_proto.journal import InboxMoved, KeptMessage, MessageAccepted

from .load import faults, identify, owner_of, tables_of
from .lock import LockFile
from .rows import (
    LAST_SEQUENCE,
    Damage,
    Row,
    ended_of,
    failure_of,
    inbox_of,
    journal_of,
    kept_of,
    key,
    message_of,
    opening_of,
    peer_of,
    reading_of,
    split,
)

__all__ = ["Inspection", "PeerFound", "inspecting"]

#: how many of SQLite's own complaints are listed
_COMPLAINTS: Final = 100

_PENDING: Final = (
    "SELECT count(*), total(length(headers) + length(payload)), min(id), max(id), min(accepted) "
    "FROM networkio_message WHERE id BETWEEN ? AND ? AND fin = 0 AND skip = 0"
)

_KEPT: Final = (
    "SELECT count(*), total(length(headers) + length(payload)), min(came) FROM networkio_received "
    "WHERE id BETWEEN ? AND ?"
)


@dataclass(frozen=True, slots=True)
class PeerFound:
    """What a journal has of one peer.

    ``pending`` messages, of ``size`` bytes, from the sequence ``first`` to ``last`` (both 0 if there is none), wait to
    be read; the first was accepted at ``oldest``, in seconds of the wall clock.  ``accepted`` is the last sequence that
    was ever given out, and all below ``over`` have their outcome.  ``failed``: ranges of messages that were not read.
    ``inboxes``: what was read from the peer, the latest last; ``present``: is that the one in use?  ``kept`` messages,
    of ``kept_size`` bytes, came and are kept for their reader, since ``kept_oldest``.
    """

    peer_id: str
    pending: int
    size: int
    first: int
    last: int
    oldest: int | None
    accepted: int
    over: int
    failed: int
    inboxes: tuple[InboxMoved, ...]
    present: bool
    kept: int = 0
    kept_size: int = 0
    kept_oldest: int | None = None


class Inspection:
    """A journal that is being looked into; good within :func:`inspecting`."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        #: bytes of the file, and of the log beside it: 0 if it was closed in order
        self.size = os.path.getsize(path)
        self.log = _size(path + "-wal")

    def version(self) -> int:
        """The version of its schema.  Raises JournalMismatch, and what :meth:`peers` raises."""
        with self._reading():
            return identify(self._connection, self.path)

    def node_id(self) -> str:
        """Whose it is.  Raises as :meth:`version`."""
        self.version()
        with self._reading():
            return owner_of(self._connection)[0]

    def peers(self) -> Iterator[PeerFound]:
        """One after the other, in the order in which they were met.  Raises JournalDamaged."""
        keeps = self.version() > 1
        with self._reading():
            for row in self._connection.execute("SELECT * FROM networkio_peer ORDER BY id").fetchall():
                peer, _ = peer_of(row)
                ends = (key(peer.number, 0), key(peer.number, LAST_SEQUENCE))
                count, size, first, last, oldest = self._connection.execute(_PENDING, ends).fetchone()
                (failed,) = self._one("SELECT count(*) FROM networkio_failure WHERE id BETWEEN ? AND ?", ends)
                places = self._connection.execute("SELECT * FROM networkio_inbox WHERE id BETWEEN ? AND ?", ends)
                inboxes = [inbox_of(each, peer.peer_id, f"an inbox for {printable(peer.peer_id)}") for each in places]
                kept, kept_size, kept_oldest = self._one(_KEPT, ends) if keeps else (0, 0, None)
                yield PeerFound(
                    peer.peer_id, count, int(size), (first or 0) & LAST_SEQUENCE, (last or 0) & LAST_SEQUENCE, oldest,
                    peer.next - 1, peer.first, failed, tuple(inboxes), peer.present, kept, int(kept_size), kept_oldest,
                )  # fmt: skip

    def messages(self) -> Iterator[tuple[MessageAccepted, int]]:
        """What waits, peer by peer, and when each was accepted (seconds of the wall clock).  Raises JournalDamaged."""
        self.version()
        with self._reading():
            for peer_id, row in self._named("networkio_message"):
                message = message_of(row, peer_id)
                if not (message.fin or message.skip):
                    yield message, row[4]

    def received(self) -> Iterator[tuple[str, KeptMessage, int]]:
        """What came and is kept for its reader: from whom, and when (as :meth:`messages`).  Raises JournalDamaged."""
        if self.version() > 1:
            with self._reading():
                for peer_id, row in self._named("networkio_received"):
                    yield peer_id, kept_of(row, f"a message from {printable(peer_id)}")[1], row[4]

    def _named(self, table: str) -> Iterator[tuple[str, Row]]:
        names = dict(self._connection.execute("SELECT id, name FROM networkio_peer").fetchall())
        for row in self._connection.execute(f"SELECT * FROM {table} ORDER BY id"):
            peer_id = names.get(split(row[0])[0])
            if type(peer_id) is not str:
                raise Damage(f"{table} has rows of a peer that there is not")
            yield peer_id, row

    def faults(self) -> Iterator[str]:
        """What is wrong, a sentence each; nothing if it is whole.  Raises JournalMismatch for what is no journal."""
        found = 0
        for text in self._all_faults():
            found += 1
            yield text
        if not found:  # each row for itself is sound; do they fit each other?
            yield from _told(lambda: faults(self._connection))

    def _all_faults(self) -> Iterator[str]:
        if not self.size:
            yield "the file is empty"
            return
        try:
            tables = tables_of(identify(self._connection, self.path))
        except (Damage, sqlite3.DatabaseError) as error:
            self._check_kept(error)
            yield f"the head of the file: {printable(error)}"
            return
        yield from _told(self._sqlite)
        for table in tables:
            yield from self._table(table, _CHECKS[table])

    def _sqlite(self) -> Iterator[str]:
        for (text,) in self._connection.execute(f"PRAGMA integrity_check({_COMPLAINTS})"):
            if text != "ok":
                yield from (f"SQLite: {printable(line)}" for line in text.splitlines())

    def _table(self, table: str, check: Callable[[Row], object]) -> Iterator[str]:
        """The rows of a table that are not what was written."""

        def rows() -> Iterator[str]:
            for row in self._connection.execute(f"SELECT * FROM {table} ORDER BY id"):
                try:
                    check(row)
                except Damage as damage:
                    yield str(damage)

        for text in _told(rows):
            yield f"{table}: {text}"

    def _one(self, query: str, values: tuple[int, ...]) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._connection.execute(query, values).fetchone()
        return row

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Errors of SQLite as those of a journal."""
        try:
            yield
        except (Damage, UnicodeError) as error:
            raise self._damaged(error) from error
        except sqlite3.Error as error:
            self._check_kept(error)
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> JournalDamaged:
        return JournalDamaged(
            f"the journal {self.path} is damaged: {printable(error)}. It was left as it is; "
            f"networkio journal verify lists everything"
        )

    def _check_kept(self, error: BaseException) -> None:
        """Raise JournalLocked, or JournalFailed for what is no damage."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise JournalLocked(f"the journal {self.path} is open in another program; close it there") from error
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL):
            raise JournalFailed(f"the journal {self.path} cannot be read: {printable(error)}") from error


@contextmanager
def inspecting(path: str | os.PathLike[str]) -> Iterator[Inspection]:
    """Look into the journal at ``path``, for the length of a block; no node can open it meanwhile.

    Raises OSError if there is no such file, JournalLocked if a node has it open, JournalFailed if it cannot be read.
    """
    real = os.path.realpath(path)
    if not os.path.isfile(real):
        code = errno.EISDIR if os.path.isdir(real) else errno.ENOENT
        raise OSError(code, os.strerror(code), os.fspath(path))
    lock = LockFile(real)
    try:
        logged = _size(real + "-wal") > 0
        uri = f"{Path(real).as_uri()}?mode=ro{'' if logged else '&immutable=1'}"
        connection = sqlite3.connect(uri, timeout=0, isolation_level=None, uri=True)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            yield Inspection(real, connection)
        finally:
            connection.close()
            if logged:
                with suppress(FileNotFoundError):
                    os.unlink(real + "-shm")
    finally:
        lock.release()


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def _told(reading: Callable[[], Iterator[str]]) -> Iterator[str]:
    """What it yields, and the damage that ends it."""
    try:
        yield from reading()
    except (Damage, sqlite3.DatabaseError, UnicodeError) as error:
        yield printable(error)


def _name(row: Row) -> str:
    return f"row {printable(row[0])}"


#: by table, what finds a row of it damaged
_CHECKS: Final[dict[str, Callable[[Row], object]]] = {
    "networkio_journal": journal_of,
    "networkio_peer": peer_of,
    "networkio_opening": lambda row: opening_of(row, _name(row)),
    "networkio_message": lambda row: message_of(row, f"peer {split(row[0])[0]}"),
    "networkio_inbox": lambda row: inbox_of(row, "", _name(row)),
    "networkio_ended": lambda row: ended_of(row, _name(row)),
    "networkio_failure": lambda row: failure_of(row, _name(row)),
    "networkio_reading": lambda row: reading_of(row, _name(row)),
    "networkio_received": lambda row: kept_of(row, _name(row)),
}
