"""What a journal keeps of a history brings the same process back as the whole history would."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from networkio_journal.state import Draft, Peer, records_of
from networkio_journal.store import Store
from networkio_proto.journal import InboxMoved, JournalRecord, MessageAccepted, OutboxOpened, OutboxTrimmed
from networkio_testing import game, world
from networkio_testing.swarm import draw, play

from .helpers import CountingEndpoint, DurableHistory, History, StoreDisk, assert_same, batches

#: how many games, and from which seed on: NETWORKIO_GAMES=3000 NETWORKIO_FIRST=0 for a thorough run
GAMES = int(os.environ.get("NETWORKIO_GAMES", "8"))
FIRST = int(os.environ.get("NETWORKIO_FIRST", "0"))


@pytest.mark.parametrize("seed", range(15))
def test_any_history_comes_back_as_the_process_that_it_makes(seed: int, tmp_path: Path) -> None:
    chance = Random(seed)
    history: list[JournalRecord] = []
    source, path = History(chance), str(tmp_path / "j.db")
    for _ in range(5):
        store = Store(path, "node", synchronous="OFF")
        assert_same(history, store.records)
        for resident in (0, 100, 6000):
            store.close()
            store = Store(path, "node", resident, synchronous="OFF")
            assert_same(history, store.records, spilled=True)
        records = source.records(chance.choice([1, 6, 30]))
        for batch in batches(records, chance.choice([1, 3, 100])):
            store.commit(batch)
        history += records
        store.close()


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_any_history_of_what_came_comes_back_too(seed: int, durable: bool, tmp_path: Path) -> None:
    """``durable``: the process that begins goes on with a durable inbox."""
    chance = Random(seed)
    history: list[JournalRecord] = []
    source, path = DurableHistory(chance), str(tmp_path / "j.db")
    restored = 0
    for _ in range(6):
        store = Store(path, "node", synchronous="OFF")
        assert_same(history, store.records, durable=durable)
        restored += sum(len(record.messages) for record in store.records if isinstance(record, InboxMoved))
        records = source.records(chance.choice([30, 100]))
        for batch in batches(records, chance.choice([1, 3, 100])):
            store.commit(batch)
        history += records
        store.close()
    assert restored


@pytest.mark.slow
def test_games_whose_disks_are_journals_begin_every_process_as_their_whole_history_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds of durable worlds only; their judges watch what comes of it."""
    monkeypatch.setattr(StoreDisk, "directory", tmp_path)
    monkeypatch.setattr(StoreDisk, "reopened", 0)
    monkeypatch.setattr(StoreDisk, "loaded", 0)
    monkeypatch.setattr(game, "Disk", StoreDisk)
    monkeypatch.setattr(world, "Endpoint", CountingEndpoint)
    played, seed = 0, FIRST
    while played < GAMES:
        tape = draw(seed, 150 if GAMES < 100 else None)
        seed += 1
        if not tape.world.get("durable"):
            continue
        played += 1
        if GAMES < 100:  # as many restarts in less time
            for place in range(len(tape.moves), 0, -15):
                tape.moves.insert(place, ("crash", Random(place).choice(tape.world["durable"]), True, True))
        for disk in play(tape).disks.values():
            disk.end()  # type: ignore[attr-defined]
        for path in tmp_path.iterdir():
            path.unlink()
    print(f"{played} games to seed {seed}, {StoreDisk.reopened} restarts, {StoreDisk.loaded} messages read back")
    assert StoreDisk.reopened > 2 * played
    assert StoreDisk.loaded > played


def test_a_history_of_renames_keeps_what_was_accepted_under_which_name() -> None:
    peer = Draft(Peer(1, "b"))
    history: list[JournalRecord] = [
        OutboxOpened("b", b"A" * 16, b"1" * 16, 3),
        MessageAccepted("b", 3, b"three", b"", 0),
        OutboxOpened("b", b"B" * 16, b"2" * 16, 3),
        MessageAccepted("b", 4, b"four", b"", 0),
        MessageAccepted("b", 5, b"five", b"", 0),
        OutboxOpened("b", b"C" * 16, b"3" * 16, 3),
        OutboxTrimmed("b", 5),
        MessageAccepted("b", 6, b"six", b"", 0),
    ]
    for record in history:
        peer.take(record)
    kept = records_of(peer.peer, peer.openings, peer.retained, {})
    assert kept == [
        OutboxOpened("b", b"A" * 16, b"1" * 16, 4),
        OutboxOpened("b", b"B" * 16, b"2" * 16, 5),
        OutboxTrimmed("b", 5),
        MessageAccepted("b", 5, b"five", b"", 0),
        OutboxOpened("b", b"C" * 16, b"3" * 16, 5),
        MessageAccepted("b", 6, b"six", b"", 0),
    ]
    assert_same(history, kept)


def test_a_peer_without_an_outbox_is_known_all_the_same() -> None:
    for history in ([OutboxTrimmed("b", 7)], [OutboxTrimmed("b", 1)]):
        peer = Draft(Peer(1, "b"))
        for record in history:
            peer.take(record)
        assert_same(history, records_of(peer.peer, [], [], {}))


def test_a_message_out_of_order_is_refused() -> None:
    peer = Draft(Peer(1, "b"))
    with pytest.raises(ValueError, match="message 1 to b does not follow 0"):
        peer.take(MessageAccepted("b", 1, b"before any opening", b"", 0))
    peer.take(OutboxOpened("b", b"A" * 16, b"1" * 16, 1))
    with pytest.raises(ValueError, match="message 2 to b does not follow 0"):
        peer.take(MessageAccepted("b", 2, b"", b"", 0))
