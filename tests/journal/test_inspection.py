"""A journal that is looked into: it is told as it is, damage by damage, and neither it nor its log is touched."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from pathlib import Path
from random import Random
from time import time

import pytest

from networkio_journal.inspection import inspecting
from networkio_journal.store import Store
from networkio_proto.errors import JournalDamaged, JournalError, JournalLocked, JournalMismatch
from networkio_proto.journal import JournalBatch, MessageAccepted, OutboxOpened, OutboxTrimmed

from .helpers import DurableHistory, History
from .test_damage import Specimen


def made(path: Path, *, killed: bool) -> None:
    """Three of five messages wait for b, and two for c."""
    store = Store(str(path), "node", synchronous="OFF")
    for peer, count in (("b", 5), ("c", 2)):
        messages = [MessageAccepted(peer, number, bytes([number]) * 10, b"", 0x40) for number in range(1, count + 1)]
        store.commit(JournalBatch(0, (OutboxOpened(peer, bytes(16), bytes(16), 1), *messages)))
    store.commit(JournalBatch(0, (OutboxTrimmed("b", 3),)))
    if killed:
        file, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
        store.close()
        path.write_bytes(file)
        Path(f"{path}-wal").write_bytes(log)
    else:
        store.close()


def files(directory: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in directory.iterdir() if not each.name.endswith(".lock")}


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_it_tells_what_waits_and_leaves_every_file_as_it_was(killed: bool, tmp_path: Path) -> None:
    path, began = tmp_path / "journal.db", int(time())
    made(path, killed=killed)
    before = files(tmp_path)
    with inspecting(path) as found:
        b, c = found.peers()
        assert (found.node_id(), found.version(), bool(found.log)) == ("node", 2, killed)
        assert (b.peer_id, b.pending, b.size, b.first, b.last, b.accepted, b.over) == ("b", 3, 30, 3, 5, 5, 3)
        assert (c.pending, c.first, c.last, c.inboxes) == (2, 1, 2, ())
        assert b.oldest is not None
        assert began <= b.oldest <= time()
        assert [(m.peer_id, m.sequence) for m, _ in found.messages()] == [
            ("b", 3), ("b", 4), ("b", 5), ("c", 1), ("c", 2)
        ]
        assert list(found.faults()) == []
    assert files(tmp_path) == before


def test_a_journal_that_is_in_use_is_not_looked_into_and_a_node_waits_for_the_look(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    made(path, killed=False)
    store = Store(str(path), "node")
    with pytest.raises(JournalLocked, match="in use by another node of this process"), inspecting(path):
        pass
    store.close()
    with inspecting(path), pytest.raises(JournalLocked):
        Store(str(path), "node")
    Store(str(path), "node").close()


def test_what_is_not_there_is_not_made_and_what_is_no_journal_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), inspecting(tmp_path / "none.db"):
        pass
    with pytest.raises(IsADirectoryError), inspecting(tmp_path):
        pass
    assert files(tmp_path) == {}
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with inspecting(tmp_path / "other.db") as found, pytest.raises(JournalMismatch):
        list(found.faults())
    (tmp_path / "text").write_text("no database at all" * 100)
    with inspecting(tmp_path / "text") as found:
        assert list(found.faults())
        with pytest.raises(JournalDamaged, match="journal verify"):
            list(found.peers())


def test_every_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    made(path, killed=False)

    def faults(*statements: str) -> list[str]:
        whole = path.read_bytes()
        editor = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            editor.execute(statement)
        editor.close()
        with inspecting(path) as found:
            told = list(found.faults())
        path.write_bytes(whole)
        return told

    flags = "UPDATE networkio_message SET flags = 1 WHERE id IN (1 << 43 | 3, 1 << 43 | 5)"
    assert faults(flags, "UPDATE networkio_peer SET next = 9 WHERE name = 'c'") == [
        "networkio_peer: the row of peer c does not fit its checksum",
        "networkio_message: message 3 to peer 1 does not fit its checksum",
        "networkio_message: message 5 to peer 1 does not fit its checksum",
    ]
    assert faults("DELETE FROM networkio_message WHERE id IN (1 << 43 | 4, 2 << 43 | 2)") == [
        "message 4 to b is missing", "message 2 to c is missing"
    ]
    assert faults("DELETE FROM networkio_peer WHERE id = 1")[0] == "rows of peers are missing: there are 1 of 2"
    assert faults("DROP TABLE networkio_ended") == ["networkio_ended: no such table: networkio_ended"]
    assert faults("UPDATE networkio_message SET accepted = accepted - 1 WHERE id = 1 << 43 | 3")
    assert faults() == []


@pytest.mark.parametrize("log", [False, True], ids=["closed", "killed"])
def test_what_keeps_a_node_from_opening_it_verify_finds_and_nothing_else(log: bool, tmp_path: Path) -> None:
    specimen, chance = Specimen(tmp_path, log=log), Random(5)
    seen = {True: 0, False: 0}
    for _ in range(60):
        place = chance.randrange(len(specimen.file))
        data = bytearray(specimen.file)
        data[place] ^= chance.choice([0xFF, 1])
        opens = specimen.verdict(bytes(data), specimen.log) in ("as it was", "earlier")
        Path(specimen.path).write_bytes(data)
        if specimen.log is not None:
            Path(specimen.path + "-wal").write_bytes(specimen.log)
        try:
            with inspecting(specimen.path) as found:
                whole = not list(found.faults())
        except JournalError:
            whole = False
        assert not whole or opens, place
        seen[whole] += 1
    assert min(seen.values()) > 5


@pytest.mark.parametrize("seed", range(10))
def test_any_history_is_whole(seed: int, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "journal.db"), "node", synchronous="OFF")
    source = (DurableHistory if seed % 2 else History)(Random(seed))
    store.commit(JournalBatch(0, tuple(source.records(200))))
    store.close()
    with inspecting(tmp_path / "journal.db") as found:
        assert list(found.faults()) == []
        kept = Counter(peer_id for peer_id, _, _ in found.received())
        assert {peer.peer_id: peer.kept for peer in found.peers() if peer.kept} == kept
        assert bool(kept) == seed % 2
        waiting = [(message.peer_id, message.sequence) for message, _ in found.messages()]
        assert sum(peer.pending for peer in found.peers()) == len(waiting)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the administrator may read everything")
def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    made(tmp_path / "journal.db", killed=False)
    (tmp_path / "journal.db").chmod(0)
    with inspecting(tmp_path / "journal.db") as found, pytest.raises(JournalError):
        list(found.peers())
