"""The tables of the journal's file, and how each thing becomes a row and a row becomes the thing again.

Theory of operation
-------------------
Messages, openings, inboxes and ended positions are rows under one INTEGER PRIMARY KEY each, in which the peer's number
stands above the sequence or place: the rows of a peer lie side by side in the file, new ones at the end, and a range of
them is a ``BETWEEN``.  The payload is the last column, so that what stands before it is read without it.

Every row ends up in a checksum over the table, the key and all columns.  That a row is *missing* its checksum cannot
tell: so the journal's row counts the peers, and the peer's row has ``first`` and ``next`` of its messages, the number
of its openings, and one checksum over all of its positions.  An inbox's row says which messages are kept in it: those
above ``read`` up to ``received`` that are not settled.  ``present`` of a peer's row is 1 if its last inbox is the
present one, and 2 more (since version 2) if the inbox of the process that receives outlives that.

What is read back is believed only when every column has the type that was written, and the checksum fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from struct import Struct
from struct import error as StructError
from typing import Any, Final, TypeAlias
from zlib import crc32

from networkio_proto.errors import Outcome, printable
from networkio_proto.events import GapRange, Positions
from networkio_proto.handshake import Ended, InboxFacts
from networkio_proto.journal import InboxMoved, KeptMessage, MessageAccepted
from networkio_proto.ledger import Failure

from .state import Opening, Peer

__all__ = [
    "APPLICATION",
    "LAST_PEER",
    "LAST_SEQUENCE",
    "SCHEMA",
    "SINCE",
    "Damage",
    "Row",
    "check_message",
    "ended_of",
    "ended_row",
    "failure_of",
    "failure_row",
    "inbox_of",
    "inbox_row",
    "journal_of",
    "journal_row",
    "kept_of",
    "kept_row",
    "key",
    "message_of",
    "message_row",
    "opening_of",
    "opening_row",
    "peer_of",
    "peer_row",
    "positions",
    "reading_of",
    "reading_row",
    "split",
]

Row: TypeAlias = Sequence[Any]

#: "nwio": the application_id of the file
APPLICATION: Final = 0x6E77696F

_BITS: Final = 43
LAST_SEQUENCE: Final = 2**_BITS - 1
LAST_PEER: Final = 2 ** (63 - _BITS) - 1

SCHEMA: Final[dict[str, str]] = {
    "networkio_journal": "id INTEGER PRIMARY KEY, node TEXT, peers INTEGER, crc INTEGER",
    "networkio_peer": "id INTEGER PRIMARY KEY, name TEXT, first INTEGER, next INTEGER, receiver BLOB, marked INTEGER, "
    "openings INTEGER, present INTEGER, positions INTEGER, crc INTEGER",
    "networkio_opening": "id INTEGER PRIMARY KEY, outbox_id BLOB, run BLOB, after INTEGER, crc INTEGER",
    "networkio_message": "id INTEGER PRIMARY KEY, flags INTEGER, fin INTEGER, skip INTEGER, accepted INTEGER, "
    "crc INTEGER, headers BLOB, payload BLOB",
    "networkio_inbox": "id INTEGER PRIMARY KEY, outbox_id BLOB, run BLOB, received INTEGER, read INTEGER, "
    "first INTEGER, fin INTEGER, rejects BLOB, settled BLOB, crc INTEGER",
    "networkio_ended": "id INTEGER PRIMARY KEY, outbox_id BLOB, run BLOB, received INTEGER, read INTEGER, "
    "first INTEGER, why INTEGER, crc INTEGER",
    "networkio_failure": "id INTEGER PRIMARY KEY, last INTEGER, outcome TEXT, seen TEXT, code INTEGER, exact INTEGER, "
    "reason BLOB, crc INTEGER",
    "networkio_reading": "id INTEGER PRIMARY KEY, turn INTEGER, gap BLOB, restarted BLOB, crc INTEGER",
    "networkio_received": "id INTEGER PRIMARY KEY, outbox_id BLOB, sequence INTEGER, flags INTEGER, came INTEGER, "
    "crc INTEGER, gap BLOB, restarted BLOB, origin BLOB, headers BLOB, payload BLOB",
}

#: the tables that came with a version
SINCE: Final[dict[int, tuple[str, ...]]] = {2: ("networkio_reading", "networkio_received")}

_REJECT = Struct(">qqI")
_RANGE = Struct(">qq")
_GAP = Struct(">qqI")
_POSITIONS = Struct(">16sqq")


class Damage(Exception):
    """Something in the file is not what was written; the text names it."""


def key(number: int, place: int) -> int:
    """The key of a peer's row in one of the tables that have several for each."""
    return number << _BITS | place


def split(key: int) -> tuple[int, int]:
    """The number of the peer, and the sequence or place."""
    return key >> _BITS, key & LAST_SEQUENCE


@cache
def _numbers(count: int) -> Struct:
    return Struct(f">{count}q")


def _checksum(table: int, numbers: Sequence[int], *blobs: bytes) -> int:
    crc = crc32(_numbers(1 + len(numbers) + len(blobs)).pack(table, *numbers, *map(len, blobs)))
    for blob in blobs:
        crc = crc32(blob, crc)
    return crc


def _check(row: Row, types: Sequence[type], what: str) -> None:
    if [type(value) for value in row] != list(types):
        raise Damage(f"{what} has columns of other types")


def _agree(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise Damage(f"{what} does not fit its checksum")


# -- the journal itself -----------------------------------------------------------------------------------------------


def journal_row(node_id: str, peers: int) -> Row:
    """The one row that says whose journal this is."""
    return 1, node_id, peers, _checksum(1, (1, peers), node_id.encode())


def journal_of(row: Row) -> tuple[str, int]:
    """The node's name, and how many peers there are."""
    what = "the row that names the node"
    _check(row, (int, str, int, int), what)
    _, node_id, peers, crc = row
    _agree(crc, journal_row(node_id, peers)[-1], what)
    return node_id, peers


# -- a peer -----------------------------------------------------------------------------------------------------------


def peer_row(peer: Peer, positions: int) -> Row:
    """``positions``: the checksum over its inboxes and ended positions."""
    present = int(peer.present) + 2 * int(peer.receiver_durable)
    numbers = (peer.number, peer.first, peer.next, peer.marked, peer.openings, present, positions)
    crc = _checksum(2, (*numbers, peer.receiver is None), peer.peer_id.encode(), peer.receiver or b"")
    number, first, next_, marked, openings, _, _ = numbers
    return number, peer.peer_id, first, next_, peer.receiver, marked, openings, present, positions, crc


def peer_of(row: Row) -> tuple[Peer, int]:
    """The peer without its positions, and the checksum over them."""
    what = f"the row of peer {printable(row[1])}" if type(row[1]) is str else "the row of a peer"
    receiver = type(None) if row[4] is None else bytes
    _check(row, (int, str, int, int, receiver, int, int, int, int, int), what)
    number, name, first, next_, incarnation, marked, openings, present, positions, crc = row
    peer = Peer(number, name, first, next_, incarnation, marked, openings)
    peer.present, peer.receiver_durable = present & 1 == 1, present & 2 == 2
    made = peer_row(peer, positions)
    _agree(present, made[7], what)
    _agree(crc, made[-1], what)
    return peer, positions


# -- its outbox -------------------------------------------------------------------------------------------------------


def opening_row(number: int, place: int, opening: Opening) -> Row:
    at = key(number, place)
    crc = _checksum(3, (at, opening.after), opening.outbox_id, opening.run)
    return at, opening.outbox_id, opening.run, opening.after, crc


def opening_of(row: Row, what: str) -> Opening:
    """``what``: how to name the row where it is damaged."""
    _check(row, (int, bytes, bytes, int, int), what)
    opening = Opening(row[1], row[2], row[3])
    _agree(row[-1], opening_row(*split(row[0]), opening)[-1], what)
    return opening


def message_row(number: int, message: MessageAccepted, accepted: int) -> Row:
    """``accepted``: the seconds of the wall clock, for people who look into the file; nothing rests on it."""
    at, fin = key(number, message.sequence), int(message.fin)
    headers, payload = message.headers, message.payload
    crc = _checksum(4, (at, message.flags, fin, message.skip, accepted), headers, payload)
    return at, message.flags, fin, message.skip, accepted, crc, headers, payload


def message_of(row: Row, peer_id: str) -> MessageAccepted:
    check_message(row, peer_id)
    at, flags, fin, skip, _, _, headers, payload = row
    return MessageAccepted(peer_id, at & LAST_SEQUENCE, payload, headers, flags, fin == 1, skip)


def check_message(row: Row, peer_id: str) -> int:
    """How many bytes the message has; raises Damage if it is not what was written."""
    at, flags, fin, skip, accepted, crc, headers, payload = row
    try:
        if crc == _checksum(4, (at, flags, fin, skip, accepted), headers, payload):
            return len(headers) + len(payload)
    except (TypeError, StructError):  # columns of other types
        pass
    raise Damage(f"message {at & LAST_SEQUENCE} to {printable(peer_id)} does not fit its checksum")


# -- its positions ----------------------------------------------------------------------------------------------------


def inbox_row(number: int, place: int, moved: InboxMoved) -> Row:
    facts, at = moved.facts, key(number, place)
    rejects = b"".join(
        _REJECT.pack(sequence, code, len(reason)) + reason
        for sequence, code, text in moved.rejects
        for reason in [text.encode("utf-8", "surrogatepass")]
    )
    settled = b"".join(_RANGE.pack(*each) for each in moved.settled)
    numbers = (at, facts.received, facts.read, facts.first, moved.fin)
    crc = _checksum(5, numbers, facts.outbox_id, facts.run, rejects, settled)
    return at, facts.outbox_id, facts.run, facts.received, facts.read, facts.first, moved.fin, rejects, settled, crc


def inbox_of(row: Row, peer_id: str, what: str) -> InboxMoved:
    _check(row, (int, bytes, bytes, int, int, int, int, bytes, bytes, int), what)
    at, outbox_id, run, received, read, first, fin, rejects, settled, crc = row
    _agree(crc, _checksum(5, (at, received, read, first, fin), outbox_id, run, rejects, settled), what)
    facts, ranges = InboxFacts(outbox_id, run, received, read, first), tuple(_RANGE.iter_unpack(settled))
    return InboxMoved(peer_id, facts, _rejects(rejects), fin, ranges)


def _rejects(data: bytes) -> tuple[tuple[int, int, str], ...]:
    rejects = []
    while data:
        sequence, code, size = _REJECT.unpack_from(data)
        end = _REJECT.size + size
        rejects.append((sequence, code, data[_REJECT.size : end].decode("utf-8", "surrogatepass")))
        data = data[end:]
    return tuple(rejects)


def reading_row(number: int, place: int, moved: InboxMoved) -> Row | None:
    """What an inbox in which messages are kept has beside its positions; None for any other."""
    if not (moved.turn or moved.gap or moved.restarted):
        return None
    at, gap, restarted = key(number, place), _gap(moved.gap), _restarted(moved.restarted)
    return at, moved.turn, gap, restarted, _checksum(9, (at, moved.turn), gap, restarted)


def reading_of(row: Row, what: str) -> tuple[int, tuple[GapRange, ...], Positions | None]:
    """The turn of an inbox, and what its next message says beside itself."""
    _check(row, (int, int, bytes, bytes, int), what)
    at, turn, gap, restarted, crc = row
    _agree(crc, _checksum(9, (at, turn), gap, restarted), what)
    return turn, _gap_of(gap), _restarted_of(restarted)


def _gap(gap: tuple[GapRange, ...]) -> bytes:
    return b"".join(_GAP.pack(part.first, part.last, part.reason) for part in gap)


def _gap_of(data: bytes) -> tuple[GapRange, ...]:
    return tuple(GapRange(*part) for part in _GAP.iter_unpack(data))


def _restarted(restarted: Positions | None) -> bytes:
    return b"" if restarted is None else _POSITIONS.pack(restarted.outbox_id, restarted.received, restarted.read)


def _restarted_of(data: bytes) -> Positions | None:
    return Positions(*_POSITIONS.unpack(data)) if data else None


def kept_row(number: int, place: int, outbox_id: bytes, message: KeptMessage, came: int) -> Row:
    """A message that came, and is kept for its reader.  ``came``: as ``accepted`` of those to be sent."""
    at, gap, restarted = key(number, place), _gap(message.gap), _restarted(message.restarted)
    numbers, blobs = (at, message.sequence, message.flags, came), (gap, restarted, message.origin or b"")
    crc = _checksum(10, numbers, outbox_id, *blobs, message.headers, message.payload)
    return at, outbox_id, message.sequence, message.flags, came, crc, *blobs, message.headers, message.payload


def kept_of(row: Row, what: str) -> tuple[bytes, KeptMessage]:
    """The outbox that it came in, and the message."""
    _check(row, (int, bytes, int, int, int, int, bytes, bytes, bytes, bytes, bytes), what)
    at, outbox_id, sequence, flags, came, crc, gap, restarted, origin, headers, payload = row
    numbers = (at, sequence, flags, came)
    _agree(crc, _checksum(10, numbers, outbox_id, gap, restarted, origin, headers, payload), what)
    told = _gap_of(gap), _restarted_of(restarted), origin or None
    return outbox_id, KeptMessage(sequence, payload, headers, flags, *told)


def ended_row(number: int, place: int, ended: Ended) -> Row:
    at = key(number, place)
    numbers = (ended.received, ended.read, ended.first, ended.why)
    return at, ended.outbox_id, ended.run, *numbers, _checksum(6, (at, *numbers), ended.outbox_id, ended.run)


def ended_of(row: Row, what: str) -> Ended:
    _check(row, (int, bytes, bytes, int, int, int, int, int), what)
    ended = Ended(*row[1:-1])
    _agree(row[-1], ended_row(*split(row[0]), ended)[-1], what)
    return ended


def failure_row(number: int, failure: Failure) -> Row:
    at, reason = key(number, failure.first), failure.reason.encode("utf-8", "surrogatepass")
    numbers, words = (failure.last, failure.code, int(failure.exact)), (failure.outcome.value, failure.seen)
    crc = _checksum(8, (at, *numbers), *(word.encode() for word in words), reason)
    return at, failure.last, *words, failure.code, int(failure.exact), reason, crc


def failure_of(row: Row, what: str) -> Failure:
    _check(row, (int, int, str, str, int, int, bytes, int), what)
    at, last, outcome, seen, code, exact, reason, crc = row
    _agree(crc, _checksum(8, (at, last, code, exact), outcome.encode(), seen.encode(), reason), what)
    text = reason.decode("utf-8", "surrogatepass")
    return Failure(split(at)[1], last, Outcome(outcome), text, seen, code, exact == 1)


def positions(
    inboxes: Iterable[Row], ended: Iterable[Row], failures: Iterable[Row], reading: Sequence[Row] = ()
) -> int:
    """One checksum over all positions of a peer, in their order; that of version 1, if nothing is kept to be read."""
    parts = [[row[-1] for row in rows] for rows in (inboxes, ended, failures, *([reading] if reading else []))]
    return _checksum(7, (*map(len, parts), *chain.from_iterable(parts)))
