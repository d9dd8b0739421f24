"""Reading a journal at opening: everything is looked at, and nothing is written.

Theory of operation
-------------------
:func:`identify` looks at what the file says it is; :func:`load` reads all rows in the order of their keys, checks each,
and makes of them the peers and the records for ``Endpoint.restore``.  Rows must be exactly those that the peers' rows
speak of: one that is missing is damage, and so is one too many.  A damaged page makes SQLite itself complain, or brings
rows that do not fit; both end as :class:`~networkio_journal.rows.Damage`.  :func:`faults` goes on where it can.

Every message is checked; in memory stay the first of each peer, up to a bound of cost.  Of those behind only their cost
is kept (:class:`~networkio_proto.journal.MessagesKept`), one number each, so that a journal may hold far more messages
than there is memory.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from math import inf
from typing import Final

from networkio_proto.config import COST_PER_MESSAGE
from networkio_proto.errors import JournalMismatch, printable
from networkio_proto.handshake import Ended
from networkio_proto.journal import InboxMoved, KeptMessage, MessageAccepted, MessagesKept, RestoredRecord
from networkio_proto.ledger import Failure
from networkio_proto.ranges import Ranges

from .rows import (
    APPLICATION,
    SCHEMA,
    SINCE,
    Damage,
    Row,
    check_message,
    ended_of,
    failure_of,
    inbox_of,
    journal_of,
    kept_of,
    message_of,
    opening_of,
    peer_of,
    positions,
    reading_of,
    split,
)
from .state import Opening, Peer, records_of

__all__ = ["MIGRATIONS", "VERSION", "check_node", "faults", "identify", "load", "owner_of", "tables_of"]

#: version of the schema, as ``user_version`` has it
VERSION: Final = 2


def _keep_received(connection: sqlite3.Connection) -> None:
    """Version 2: what came is kept for its reader, if the node wants it so."""
    for name in SINCE[2]:
        connection.execute(f"CREATE TABLE {name} ({SCHEMA[name]})")


#: what makes of a file of this version one of the next, within a transaction
MIGRATIONS: Final[dict[int, Callable[[sqlite3.Connection], None]]] = {1: _keep_received}


@dataclass(slots=True)
class _Found:
    """What the tables have of one peer."""

    peer: Peer
    positions: int
    openings: list[Opening] = field(default_factory=list)
    messages: list[MessageAccepted | MessagesKept] = field(default_factory=list)
    #: the sequence of the next message, and the cost of those that stay in memory
    next: int = 0
    resident: int = 0
    #: those of the last MessagesKept, while others follow it
    costs: array[int] | None = None
    #: sequences that should have come, and did not
    gaps: list[int] = field(default_factory=list)
    inboxes: dict[int, InboxMoved] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    #: the rows of its positions
    inbox_rows: list[Row] = field(default_factory=list)
    ended_rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failure_rows: list[Row] = field(default_factory=list)
    reading_rows: list[Row] = field(default_factory=list)
    #: what came and is kept, by outbox, and where
    kept: dict[bytes, list[KeptMessage]] = field(default_factory=dict)
    places: dict[bytes, dict[int, int]] = field(default_factory=dict)
    last_kept: int = 0


def identify(connection: sqlite3.Connection, path: str) -> int:
    """The version of the journal's schema.  Raises JournalMismatch for what is no journal, or a newer one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise JournalMismatch(f"{path} is an SQLite file, and no journal of networkio; correct the path")
    if version > VERSION:
        raise JournalMismatch(
            f"the journal {path} has version {version}, and this networkio knows versions up to {VERSION}; upgrade it"
        )
    if version < 1:
        raise Damage("the version of the journal")
    return int(version)


def owner_of(connection: sqlite3.Connection) -> tuple[str, int]:
    """The node whose journal this is, and how many peers it has.  Raises Damage."""
    rows = connection.execute("SELECT * FROM networkio_journal ORDER BY id LIMIT 2").fetchall()
    if len(rows) != 1:
        raise Damage("the row that names the node is missing")
    return journal_of(rows[0])


def check_node(connection: sqlite3.Connection, path: str, node_id: str) -> int:
    """How many peers there are.  Raises JournalMismatch for the journal of another node."""
    owner, peers = owner_of(connection)
    if owner != node_id:
        raise JournalMismatch(
            f"the journal {path} belongs to the node {printable(owner)}, not to {printable(node_id)}; "
            f"give each node a journal of its own"
        )
    return peers


def load(
    connection: sqlite3.Connection, path: str, node_id: str, resident: int | None = None, version: int | None = None
) -> tuple[dict[str, Peer], list[RestoredRecord]]:
    """All peers, and what their sessions are restored from.  Raises Damage, JournalMismatch, sqlite3.Error.

    ``resident``: of each peer messages of so much cost come whole; None: all.  ``version``: what the journal is of;
    None: this one.
    """
    version = VERSION if version is None else version
    _check_schema(connection, version)
    count = check_node(connection, path, node_id)
    found = _peers(connection)
    _check_count(found, count)
    _messages(connection, found, inf if resident is None else resident)
    for read in _others(version):
        read(connection, found)
    records: list[RestoredRecord] = []
    for one in found.values():
        _complete(one)
        records += records_of(one.peer, one.openings, one.messages, one.kept)
    return {one.peer.peer_id: one.peer for one in found.values()}, records


def faults(connection: sqlite3.Connection) -> Iterator[str]:
    """What does not fit each other, where each row by itself is sound.  Raises Damage where it cannot go on."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    _check_schema(connection, version)
    _, count = owner_of(connection)
    found = _peers(connection)
    others = [partial(read, connection, found) for read in _others(version)]
    tables = [partial(_messages, connection, found, 0), *others]
    yield from _damages([partial(_check_count, found, count), *tables])
    yield from _damages([partial(_complete, one) for one in found.values()])


def _damages(checks: Iterable[Callable[[], None]]) -> Iterator[str]:
    for check in checks:
        try:
            check()
        except Damage as damage:
            yield str(damage)


def _peers(connection: sqlite3.Connection) -> dict[int, _Found]:
    found: dict[int, _Found] = {}
    for row in connection.execute("SELECT * FROM networkio_peer ORDER BY id"):
        peer, digest = peer_of(row)
        found[peer.number] = _Found(peer, digest)
    return found


def _check_count(found: dict[int, _Found], count: int) -> None:
    if list(found) != list(range(1, count + 1)):
        raise Damage(f"rows of peers are missing: there are {len(found)} of {count}")


def tables_of(version: int) -> list[str]:
    """The tables that a journal of this version has."""
    later = {name for since, names in SINCE.items() if since > version for name in names}
    return [name for name in SCHEMA if name not in later]


def _check_schema(connection: sqlite3.Connection, version: int) -> None:
    """The tables are those that were made: a name or type that has changed there would be of consequence later."""
    made = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
    for name in tables_of(version):
        if made.get(name) != f"CREATE TABLE {name} ({SCHEMA[name]})":
            raise Damage(f"the table {name}")


def _rows(connection: sqlite3.Connection, found: dict[int, _Found], table: str) -> Iterator[tuple[_Found, int, Row]]:
    """Each row in its order, with the peer that it belongs to and its place."""
    before = 0
    for row in connection.execute(f"SELECT * FROM {table} ORDER BY id"):
        if type(row[0]) is not int or row[0] <= before:
            raise Damage(f"the keys of {table}")
        before = row[0]
        number, place = split(before)
        if number not in found:
            raise Damage(f"{table} has a row of a peer that there is not")
        yield found[number], place, row


def _openings(connection: sqlite3.Connection, found: dict[int, _Found]) -> None:
    for one, place, row in _rows(connection, found, "networkio_opening"):
        what = f"opening {place} of the outbox to {printable(one.peer.peer_id)}"
        if place != len(one.openings) + 1:
            raise Damage(f"what was before {what} is missing")
        one.openings.append(opening_of(row, what))


def _messages(connection: sqlite3.Connection, found: dict[int, _Found], resident: float) -> None:
    """``resident``: so much of each peer stays in memory."""
    names = {number: one.peer.peer_id for number, one in found.items()}
    nobody = False
    for row in connection.execute("SELECT * FROM networkio_message ORDER BY id"):
        number = split(row[0])[0] if type(row[0]) is int else 0
        if number not in names:
            nobody = True
            continue
        _keep(found[number], row, names[number], resident)
    if nobody:
        raise Damage("networkio_message has rows of a peer that there is not")


def _keep(one: _Found, row: Row, peer_id: str, resident: float) -> None:
    """The next message of a peer: whole, or what it costs."""
    sequence = split(row[0])[1]
    expected, one.next = one.next or one.peer.first, sequence + 1
    if sequence != expected:
        one.gaps.append(expected)
    if one.resident < resident or row[2] or row[3]:  # FIN, or an early end
        message = message_of(row, peer_id)
        one.messages.append(message)
        one.resident += COST_PER_MESSAGE + len(message.headers) + len(message.payload)
        one.costs = None
        return
    if one.costs is None:
        one.costs = array("Q")
        one.messages.append(MessagesKept(peer_id, sequence, one.costs))
    one.costs.append(COST_PER_MESSAGE + check_message(row, peer_id))


def _inboxes(connection: sqlite3.Connection, found: dict[int, _Found]) -> None:
    for one, place, row in _rows(connection, found, "networkio_inbox"):
        peer_id = one.peer.peer_id
        one.inboxes[place] = inbox_of(row, peer_id, f"an inbox for {printable(peer_id)}")
        one.inbox_rows.append(row)


def _ended(connection: sqlite3.Connection, found: dict[int, _Found]) -> None:
    for one, _, row in _rows(connection, found, "networkio_ended"):
        one.ended.append(ended_of(row, f"an ended inbox for {printable(one.peer.peer_id)}"))
        one.ended_rows.append(row)


def _failures(connection: sqlite3.Connection, found: dict[int, _Found]) -> None:
    for one, place, row in _rows(connection, found, "networkio_failure"):
        one.failures.append(failure_of(row, f"the outcome of message {place} to {printable(one.peer.peer_id)}"))
        one.failure_rows.append(row)


def _reading(connection: sqlite3.Connection, found: dict[int, _Found]) -> None:
    for one, place, row in _rows(connection, found, "networkio_reading"):
        what = f"an inbox for {printable(one.peer.peer_id)}"
        turn, gap, restarted = reading_of(row, what)
        if place not in one.inboxes:
            raise Damage(f"{what} is missing")
        one.inboxes[place] = replace(one.inboxes[place], turn=turn, gap=gap, restarted=restarted)
        one.reading_rows.append(row)


def _received(connection: sqlite3.Connection, found: dict[int, _Found]) -> None:
    for one, place, row in _rows(connection, found, "networkio_received"):
        outbox_id, message = kept_of(row, f"a message from {printable(one.peer.peer_id)}")
        one.kept.setdefault(outbox_id, []).append(message)
        one.places.setdefault(outbox_id, {})[message.sequence] = one.last_kept = place


_FIRST_TABLES: Final = (_openings, _inboxes, _ended, _failures)
_TABLES: Final = (*_FIRST_TABLES, _reading, _received)


def _others(version: int) -> tuple[Callable[[sqlite3.Connection, dict[int, _Found]], None], ...]:
    """What reads the tables of a journal of this version, but for its messages."""
    return _TABLES if version > 1 else _FIRST_TABLES


def _complete(one: _Found) -> None:
    """Are the rows exactly those that the peer's row speaks of?"""
    peer, name = one.peer, printable(one.peer.peer_id)
    if len(one.openings) != peer.openings:
        raise Damage(f"there are {len(one.openings)} of {peer.openings} openings of the outbox to {name}")
    last = max(peer.first, one.next)
    if one.gaps or last < peer.next:
        raise Damage(f"message {one.gaps[0] if one.gaps else last} to {name} is missing")
    if last > peer.next:
        raise Damage(f"there is one too many to {name}")
    if positions(one.inbox_rows, one.ended_rows, one.failure_rows, one.reading_rows) != one.positions:
        raise Damage(f"the positions and outcomes for {name} do not fit each other")
    _complete_received(one)
    peer.kept, peer.last_kept = one.places, one.last_kept
    peer.inboxes, peer.ended = one.inboxes, tuple(one.ended)
    peer.failures = {failure.first: failure for failure in one.failures}


def _complete_received(one: _Found) -> None:
    """Are the messages that are kept those that the inboxes speak of?"""
    name, boxes = printable(one.peer.peer_id), {box.facts.outbox_id: box for box in one.inboxes.values()}
    if not one.kept.keys() <= boxes.keys():
        raise Damage(f"there are messages from {name} of an inbox that there is not")
    for outbox_id, box in boxes.items():
        read, received, settled = box.facts.read, box.facts.received, Ranges(box.settled)
        sequences = [message.sequence for message in one.kept.get(outbox_id, ())]
        for before, sequence in pairwise([read, *sequences]):
            if not before < sequence <= received or sequence in settled:
                raise Damage(f"there is a message {sequence} from {name} too many, or out of its place")
        over = sum(max(0, min(last, received) - max(first, read + 1) + 1) for first, last in settled)
        if len(sequences) != received - read - over:
            raise Damage(f"there are {len(sequences)} of {received - read - over} messages from {name}")
