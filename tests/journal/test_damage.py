"""A journal of which bytes changed or a part is gone: said, or as it was, or as it was a commit earlier; never else."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from networkio_journal.rows import kept_row, peer_row, positions
from networkio_journal.store import Store
from networkio_proto.errors import JournalDamaged, JournalError
from networkio_proto.journal import (
    JournalBatch,
    JournalRecord,
    KeptMessage,
    MessageAccepted,
    OutboxOpened,
    RestoredRecord,
)

from .helpers import batches
from .test_journal import ONE_OF_EACH, OPENED, message

#: everything instead of a sample
EXHAUST = bool(os.environ.get("NETWORKIO_EXHAUST"))

MORE: list[JournalRecord] = [
    OutboxOpened("c", bytes(16), bytes(16), 1),
    *(MessageAccepted("c", sequence, bytes([sequence]) * 400, b"", 0x40) for sequence in range(1, 31)),
]


def _store(path: str) -> Store:
    return Store(path, "node", synchronous="OFF")


class Specimen:
    """A small journal as bytes, the way a process that died left it, and what it held after each of its commits."""

    def __init__(self, directory: Path, *, log: bool) -> None:
        self.path = str(directory / "journal.db")
        #: the records after each commit that may come back
        self.states: list[list[RestoredRecord]] = []
        store = _store(self.path)
        made = [JournalBatch(0, tuple(MORE)), *batches(ONE_OF_EACH, 3)]
        for number, batch in enumerate(made):
            if number == 1 or not log:  # what came before stands in the file, the rest in the log
                store.close()
                store = _store(self.path)
            store.commit(batch)
            if log and number:
                self.states.append(self._look())
            elif log or batch is made[-1]:
                self.states = [self._look()]
        self.log = Path(self.path + "-wal").read_bytes() if log else None
        if not log:
            store.close()
        self.file = Path(self.path).read_bytes()
        if log:
            store.close()
        assert self.log is None or len(self.log) > 4 * 4096

    def _look(self) -> list[RestoredRecord]:
        """What a process would find that began now."""
        copy = f"{self.path}.copy"
        for end in ("", "-wal"):
            if os.path.exists(self.path + end):
                Path(copy + end).write_bytes(Path(self.path + end).read_bytes())
        return self._open(copy)

    def _open(self, path: str) -> list[RestoredRecord]:
        try:
            store = _store(path)
            store.close()
            return store.records
        finally:
            for end in ("", "-wal", "-shm"):
                Path(path + end).unlink(missing_ok=True)

    def verdict(self, file: bytes, log: bytes | None) -> str:
        """What a process makes of such a journal."""
        Path(self.path).write_bytes(file)
        os.chmod(self.path, 0o600)
        if log is not None:
            Path(self.path + "-wal").write_bytes(log)
        try:
            store = _store(self.path)
        except JournalError as error:
            if isinstance(error, JournalDamaged):  # it was left as it was found
                assert Path(self.path).read_bytes() == file
                assert log is None or Path(self.path + "-wal").read_bytes() == log
            return type(error).__name__
        finally:
            Path(self.path + "-shm").unlink(missing_ok=True)
        store.close()
        Path(self.path + "-wal").unlink(missing_ok=True)
        assert store.records in self.states
        return "as it was" if store.records == self.states[-1] else "earlier"


@pytest.fixture(params=[False, True], ids=["closed", "died"])
def specimen(request: pytest.FixtureRequest, tmp_path: Path) -> Specimen:
    return Specimen(tmp_path, log=request.param)


def sample(places: Iterable[int], count: int, seed: int) -> list[int]:
    everything = list(places)
    return everything if EXHAUST or len(everything) <= count else Random(seed).sample(everything, count)


def flipped(data: bytes, place: int, mask: int) -> bytes:
    return data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]


def test_the_specimens_are_sound(specimen: Specimen) -> None:
    assert specimen.verdict(specimen.file, specimen.log) == "as it was"
    if specimen.log is not None:
        assert len(specimen.states) == 5
        assert specimen.verdict(specimen.file, None) == "earlier"


def test_a_byte_of_the_file_that_changed_is_noticed_or_of_no_consequence(specimen: Specimen) -> None:
    """Where the log has a newer copy of a page, or nothing stands, it is of none."""
    seen: Counter[str] = Counter()
    for place in sample(range(len(specimen.file)), 40, 1):
        for mask in (0xFF, 1 << place % 8):
            seen[specimen.verdict(flipped(specimen.file, place, mask), specimen.log)] += 1
    print(seen)
    assert seen["JournalDamaged"] > 2
    assert seen["as it was"] > 20
    assert not seen["earlier"]


def test_a_name_that_is_no_text_any_more_is_damage(tmp_path: Path) -> None:
    """SQLite names it in an error that Python cannot decode."""
    specimen = Specimen(tmp_path, log=False)
    for table in (b"networkio_peer", b"networkio_message"):
        place = specimen.file.index(table)
        for at in range(place, place + len(table) + 2):
            assert specimen.verdict(flipped(specimen.file, at, 0xFF), None) == "JournalDamaged"


def test_a_byte_of_the_log_that_changed_loses_what_came_after_it_at_most(tmp_path: Path) -> None:
    specimen = Specimen(tmp_path, log=True)
    assert specimen.log is not None
    seen: Counter[str] = Counter()
    for place in sample(range(len(specimen.log)), 30, 2):
        seen[specimen.verdict(specimen.file, flipped(specimen.log, place, 0xFF))] += 1
    print(seen)
    assert seen["earlier"] > 10


@pytest.mark.parametrize("stand_in", ["cut off", "zeros", "ones"])
def test_a_page_that_is_gone_is_noticed_or_of_no_consequence(specimen: Specimen, stand_in: str) -> None:
    seen: Counter[str] = Counter()
    for start in range(0, len(specimen.file), 4096):
        page = {"cut off": b"", "zeros": bytes(4096), "ones": b"\xff" * 4096}[stand_in]
        rest = specimen.file[start + 4096 :] if page else b""
        seen[specimen.verdict(specimen.file[:start] + page + rest, specimen.log)] += 1
    print(seen)
    assert seen["JournalDamaged"] > 0


def test_a_file_or_log_that_was_cut_is_noticed_or_lost_its_tail(tmp_path: Path) -> None:
    specimen = Specimen(tmp_path, log=True)
    assert specimen.log is not None
    for length in sample(range(0, len(specimen.log), 128), 12, 3):
        assert specimen.verdict(specimen.file, specimen.log[:length]) in ("earlier", "as it was")
    for length in sample(range(0, len(specimen.file), 128), 12, 4):
        specimen.verdict(specimen.file[:length], specimen.log)
        specimen.verdict(specimen.file[:length], None)


def test_pages_of_an_earlier_time_among_newer_ones_are_noticed(tmp_path: Path) -> None:
    """A write that the disk swallowed: each page by itself is sound."""
    path = str(tmp_path / "journal.db")
    images = []
    history: list[JournalRecord] = [*MORE, *ONE_OF_EACH]
    states: list[list[RestoredRecord]] = []
    for number, batch in enumerate(batches(history, 10)):
        store = _store(path)
        store.commit(batch)
        store.close()
        check = _store(path)
        states.append(check.records)
        check.close()
        images.append(Path(path).read_bytes())
        assert number < 9
    last, seen = images[-1], Counter[str]()
    for image in images[:-1]:
        for start in range(0, len(image), 4096):
            old = image[start : start + 4096]
            if old == last[start : start + 4096]:
                continue
            Path(path).write_bytes(last[:start] + old + last[start + 4096 :])
            try:
                store = _store(path)
            except JournalDamaged:
                seen["damaged"] += 1
                continue
            store.close()
            assert store.records in states
            seen["as at some time"] += 1
    print(seen)
    assert seen["damaged"] > 5


# -- rows that are gone, changed, or too many -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("DELETE FROM networkio_message WHERE id = 2 << 43 | 3", "message 3 to b is missing"),
        ("DELETE FROM networkio_message WHERE id = 2 << 43 | 5", "message 5 to b is missing"),
        ("UPDATE networkio_message SET id = 2 << 43 | 6 WHERE id = 2 << 43 | 5", "message 6 to b does not fit"),
        ("UPDATE networkio_message SET payload = x'00' WHERE id = 2 << 43 | 3", "message 3 to b does not fit"),
        ("UPDATE networkio_message SET payload = 'text' WHERE id = 2 << 43 | 3", "message 3 to b does not fit"),
        ("UPDATE networkio_message SET flags = NULL WHERE id = 2 << 43 | 3", "message 3 to b does not fit"),
        ("INSERT INTO networkio_message SELECT 9 << 43, flags, fin, skip, accepted, crc, headers, payload "
         "FROM networkio_message LIMIT 1", "networkio_message has rows of a peer that there is not"),
        ("DELETE FROM networkio_opening WHERE id = 2 << 43 | 1", "there are 0 of 1 openings of the outbox to b"),
        ("UPDATE networkio_opening SET id = 2 << 43 | 2 WHERE id = 2 << 43 | 1", "what was before opening 2 of the"),
        ("UPDATE networkio_opening SET after = 7", "opening 1 of the outbox to c does not fit"),
        ("UPDATE networkio_opening SET run = 7", "opening 1 of the outbox to c has columns of other types"),
        ("UPDATE networkio_opening SET id = id - (9 << 43)", "the keys of networkio_opening"),
        ("DELETE FROM networkio_peer WHERE id = 2", "rows of peers are missing: there are 1 of 2"),
        ("UPDATE networkio_peer SET marked = 4 WHERE id = 2", "the row of peer b does not fit"),
        ("UPDATE networkio_peer SET name = x'62' WHERE id = 2", "the row of a peer has columns of other types"),
        ("UPDATE networkio_peer SET present = 2 WHERE id = 2", "the row of peer b does not fit"),
        ("UPDATE networkio_peer SET present = present + 4 WHERE id = 2", "the row of peer b does not fit"),
        ("UPDATE networkio_peer SET receiver = x'' WHERE id = 1", "the row of peer c does not fit"),
        ("DELETE FROM networkio_inbox", "an inbox for b is missing"),
        ("DELETE FROM networkio_inbox WHERE outbox_id < x'6c'", "an inbox for b is missing"),
        ("DELETE FROM networkio_inbox WHERE outbox_id > x'6c'", "the positions and outcomes for b do not fit each"),
        ("DELETE FROM networkio_reading", "the positions and outcomes for b do not fit each other"),
        ("UPDATE networkio_reading SET turn = 3", "an inbox for b does not fit"),
        ("UPDATE networkio_reading SET gap = NULL", "an inbox for b has columns of other types"),
        ("DELETE FROM networkio_received", "there are 0 of 2 messages from b"),
        ("DELETE FROM networkio_received WHERE sequence = 10", "there are 1 of 2 messages from b"),
        ("UPDATE networkio_received SET payload = x'00' WHERE sequence = 12", "a message from b does not fit"),
        ("UPDATE networkio_received SET origin = NULL", "a message from b has columns of other types"),
        ("UPDATE networkio_received SET id = id + 5 WHERE sequence = 10", "a message from b does not fit"),
        ("INSERT INTO networkio_received SELECT 9 << 43, outbox_id, sequence, flags, came, crc, gap, restarted, "
         "origin, headers, payload FROM networkio_received LIMIT 1", "networkio_received has a row of a peer that"),
        ("UPDATE networkio_inbox SET read = 6", "an inbox for b does not fit"),
        ("DELETE FROM networkio_ended", "the positions and outcomes for b do not fit each other"),
        ("UPDATE networkio_ended SET why = 2", "an ended inbox for b does not fit"),
        ("INSERT INTO networkio_ended SELECT 9 << 43, outbox_id, run, received, read, first, why, crc FROM "
         "networkio_ended", "networkio_ended has a row of a peer that there is not"),
        ("DELETE FROM networkio_failure", "the positions and outcomes for b do not fit each other"),
        ("UPDATE networkio_failure SET outcome = 'expired'", "the outcome of message 1 to b does not fit"),
        ("UPDATE networkio_failure SET reason = 'none'", "the outcome of message 1 to b has columns of other types"),
        ("DELETE FROM networkio_journal", "the row that names the node is missing"),
        ("UPDATE networkio_journal SET node = 'nodf'", "the row that names the node does not fit"),
        ("DROP TABLE networkio_inbox", "the table networkio_inbox"),
        ("ALTER TABLE networkio_inbox RENAME COLUMN fin TO fim", "the table networkio_inbox"),
        ("PRAGMA user_version = 0", "the version of the journal"),
        ("UPDATE networkio_peer SET name = CAST(x'ff' AS TEXT)", "Could not decode to UTF-8"),
    ],
)  # fmt: skip
def test_a_row_that_is_gone_or_changed_is_named(tmp_path: Path, statement: str, where: str) -> None:
    path = str(tmp_path / "journal.db")
    store = _store(path)
    store.commit(JournalBatch(1, tuple(MORE)))
    store.commit(JournalBatch(2, tuple(ONE_OF_EACH)))
    store.close()
    _with_a_tool(path, statement)
    before = Path(path).read_bytes()
    with pytest.raises(JournalDamaged) as caught:
        _store(path)
    assert where in str(caught.value)
    assert str(caught.value).startswith(f"the journal {path} is damaged: ")
    assert Path(path).read_bytes() == before


def _with_a_tool(path: str, statement: str, parameters: Sequence[object] = ()) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement, parameters)
    connection.close()


@pytest.mark.parametrize(
    ("outbox", "sequences", "where"),
    [
        ("kept", (10, 11, 12), "there is a message 11 from b too many"),
        ("kept", (12, 10), "there is a message 10 from b too many, or out of its place"),
        ("kept", (9, 10, 12), "there is a message 9 from b too many"),
        ("none", (10, 12), "there are messages from b of an inbox that there is not"),
    ],
)
def test_messages_that_came_are_those_that_their_inbox_speaks_of(
    tmp_path: Path, outbox: str, sequences: Sequence[int], where: str
) -> None:
    path = str(tmp_path / "journal.db")
    store = _store(path)
    store.commit(JournalBatch(1, tuple(ONE_OF_EACH)))
    store.close()
    _with_a_tool(path, "DELETE FROM networkio_received")
    for place, sequence in enumerate(sequences, 1):
        row = kept_row(1, place, outbox.encode().ljust(16), KeptMessage(sequence, b"", b"", 0), 0)
        _with_a_tool(path, f"INSERT INTO networkio_received VALUES ({', '.join('?' * 11)})", row)
    with pytest.raises(JournalDamaged, match=where):
        _store(path)


def test_one_message_too_many_is_damage(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    store = _store(path)
    store.commit(JournalBatch(1, (OPENED, message(1), message(2))))
    store.close()
    row = peer_row(replace(store.peers["b"], next=2), positions([], [], []))
    _with_a_tool(path, "REPLACE INTO networkio_peer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    with pytest.raises(JournalDamaged, match="there is one too many to b"):
        _store(path)
