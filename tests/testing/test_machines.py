"""Disks, clocks and strangers: each of their moves, and each of their judges, catches a mistake planted in the core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import pytest

from networkio_proto import Config
from networkio_proto.journal import InboxMoved, MessageAccepted
from networkio_testing.clocks import Clock
from networkio_testing.disk import DEATHS, Disk
from networkio_testing.durable import DurableJudge
from networkio_testing.game import Game
from networkio_testing.judges import Violation
from networkio_testing.stalls import StallJudge
from networkio_testing.swarm import MOVES, play
from networkio_testing.tape import Tape
from networkio_testing.world import Host, World
from tests.broken import break_core

WORLD: dict[str, Any] = {
    "configs": [{}, {}],
    "pairs": ["ab", "ba"],
    "dialers": ["ab"],
    "sizes": [20],
    "vigil": False,
}
QUICK = {"dead_after": 9.0, "ping_after": 2.0}
CLOCKS = {"configs": [QUICK, QUICK], "clocks": {"a": [0.0, 1.0003], "b": [1e6, 0.995]}}
ALL = 1_000_000


@dataclass(frozen=True)
class Mistake:
    """Texts of the core that become others, and a game in which one of these invariants objects to that."""

    edits: tuple[tuple[str, str, str], ...]
    world: dict[str, Any]
    moves: tuple[tuple[Any, ...], ...]
    noticed: tuple[str, ...]

    @property
    def tape(self) -> Tape:
        return Tape(1, {**WORLD, **self.world}, list(self.moves))


#: the sender keeps one message in memory
SPILLING = {"durable": "a", "configs": [{"outbox_resident": 1}, {}]}
START = (("send_many", "ab", 20, 3), ("run", 0.3))
BELIEVES = (("negotiation", "if not self._verified(proof, attach.mac, now):", "if False:"),)
FORGETS_THE_TRANSCRIPT = (("negotiation", "transcript=self._transcript,", 'transcript=b"",'),)

MISTAKES = {
    "slow_disk: transmits what is not on disk": Mistake(
        (("journal", "self._queue.add(self, MessageAccepted, sequence)\n", "self._queue.add(self, MessageAccepted, "
          "sequence)\n        self._session.outbox.sendable = sequence\n"),),
        {"durable": "a"},
        (*START, ("slow_disk", "a", 3.0), ("send", "ab", 20), ("run", 0.3)),
        ("I10",),
    ),
    "finish_sync: transmits what was accepted during a sync": Mistake(
        (("journal", "self._session.outbox.sendable = self.accepted", "self._session.outbox.sendable = "
          "self._session.outbox.next - 1"),),
        {"durable": "a"},
        (*START, ("slow_disk", "a", inf), ("send", "ab", 20), ("send", "ab", 20), ("finish_sync", "a"), ("run", 0.3)),
        ("I10",),
    ),
    "sends what is on disk only without its bytes": Mistake(
        (("outbox", "            elif type(entry) is Spilled:\n                break\n", ""),),
        SPILLING,
        (("run", 0.3), *START),
        ("I3", "I10"),
    ),
    "asks for nothing that is on disk only": Mistake(
        (("journal", "self._queue.loads.add(self._session, self.spill, *missing)", "pass"),),
        SPILLING,
        (("run", 0.3), *START),
        ("I23",),
    ),
    "finish_sync: reads back what was cancelled meanwhile": Mistake(
        (("outbox", "if sequence >= self.first and type(self.entries[index]) is Spilled:",
          "if sequence >= self.first:"),),
        SPILLING,
        (("send_many", "ab", 20, 3), ("slow_disk", "a", inf), ("run", 0.3), ("finish_sync", "a"), ("finish_sync", "a"),
         ("cancel", "ab", 2), ("finish_sync", "a"), ("run", 0.3)),
        ("I5", "I7", "I18"),
    ),
    "full_disk: keeps what found no room": Mistake(
        (("journal", "            journal.unaccept(error)", "            pass"),),
        {"durable": "a"},
        (*START, ("full_disk", "a", 1), ("send", "ab", 20), ("run", 3.0)),
        ("I22",),
    ),
    "failed_sync: takes an error for success": Mistake(
        (("endpoint", "self.journal.done(token, now, error)", "self.journal.done(token, now, None)"),),
        {"durable": "a"},
        (*START, ("failed_sync", "a", "lost"), ("send", "ab", 20), ("run", 0.3)),
        ("I10",),
    ),
    "crash_writing: loses the last record": Mistake(
        (("endpoint", "for record in records:", "for record in list(records)[:-1]:"),),
        {"durable": "a"},
        (*START, ("crash_writing", "a", "told", True), ("send", "ab", 20), ("restart", "a")),
        ("I10",),
    ),
    "crash_writing: forgets what was read": Mistake(
        (("journal", "    if not passing:\n", "    if not passing:\n        return\n    if not passing:\n"),),
        {"durable": "b"},
        (*START, ("read", "ba", 2), ("crash_writing", "b", "after", True), ("read", "ba", 1), ("restart", "b")),
        ("I10",),
    ),
    "writes that a message is over which is not": Mistake(
        (("journal", "return OutboxTrimmed(session.peer_id, outbox.first,",
          "return OutboxTrimmed(session.peer_id, outbox.first + (outbox.first < outbox.next),"),),
        {"durable": "a"},
        (*START, ("read", "ba", 1), ("run", 0.3), ("crash", "a", True), ("crash", "b", True), ("restart", "a"),
         ("restart", "b"), ("run", 0.3)),
        ("I10",),
    ),
    "forgets how messages ended": Mistake(
        (("journal", "outbox.failures.within(self.first, outbox.first - 1)", "()"),
         ("journal", "failures.add(replace(known, first=sequence, last=sequence))", "pass")),
        {"durable": "a"},
        (*START, ("take", "ba", 1), ("reject", "ba", 0), ("run", 0.3), ("crash", "a", True)),
        ("I10",),
    ),
    "passes over a message whose end is not on disk": Mistake(
        (("outbox", "self.sendable = min(self.sendable, min(ahead) - 1)", "pass"),),
        {"durable": "a"},
        (("send", "ab", 20), ("send", "ab", 20), ("slow_disk", "a", inf), ("run", 0.3), ("cancel", "ab", 0),
         ("finish_sync", "a"), ("run", 0.3)),
        ("I10",),
    ),
    "old_copy: does not flag what it sends again": Mistake(
        (("attachment", "self._doubt(0, max(outbox.sent, *outbox.runs.values(), 0))", "self._doubt(0, outbox.sent)"),),
        {"durable": "a"},
        (("send_many", "ab", 20, 3), ("send_many", "ab", 20, 3), ("run", 0.3), ("old_copy", "a", 0.5)),
        ("I4",),
    ),
    "old_copy: does not notice that it is one": Mistake(
        (("resume", "return last is None or received > last or first > mine.first", "return False"),),
        {"durable": "a"},
        (*START, ("send_many", "ab", 20, 3), ("run", 0.3), ("read", "ba", 6), ("run", 0.3), ("old_copy", "a", 0.5),
         ("send_many", "ab", 20, 8)),
        ("I1", "I3", "I5", "I20", "AttributeError", "IndexError"),
    ),
    "hands over again what was settled out of turn": Mistake(
        (("inbox", "        if sequence not in self.ahead:\n            return False\n", "        return False\n"),),
        {"durable": "b"},
        (*START, ("take", "ba", 2), ("settle", "ba", 1), ("run", 0.3), ("crash", "b", True), ("run", 0.3),
         ("read", "ba", 3)),
        ("I4",),
    ),
    "forgets what was settled out of turn": Mistake(
        (("journal", "    inbox.ahead = Ranges(record.settled)\n", "    record = replace(record, settled=())\n"),),
        {"durable": "b"},
        (*START, ("take", "ba", 2), ("settle", "ba", 1), ("run", 0.3), ("crash", "b", True)),
        ("I10",),
    ),
    "old_copy: takes a new message for one that was settled out of turn": Mistake(
        (("resume", "max(inbox.received, inbox.seen)", "inbox.received"),),
        {"durable": "ab"},
        (("send_many", "ab", 20, 3), ("run", 0.3), ("send", "ab", 20), ("run", 0.3), ("take", "ba", 4),
         ("settle", "ba", 3), ("run", 0.3), ("crash", "b", True, False), ("old_copy", "a", 0.9), ("send", "ab", 20),
         ("restart", "b"), ("run", 9.0), ("read", "ba", 9), ("run", 0.3)),
        ("I5", "I22"),
    ),
    "acknowledges as read what is not on disk": Mistake(
        (("inbox", "return self.read if self.durable_read is None else min(self.read, self.durable_read)",
          "return self.read"),),
        {"durable": "b"},
        (*START, ("slow_disk", "b", 20.0), ("read", "ba", 1), ("run", 0.3)),
        ("I10",),
    ),
    "rejects before it is on disk": Mistake(
        (("acknowledger", "if journal is None or r.sequence in inbox.durable_rejects]", "]"),),
        {"durable": "b"},
        (*START, ("slow_disk", "b", 20.0), ("take", "ba", 1), ("reject", "ba", 0), ("run", 0.3)),
        ("I10",),
    ),
    "states a first that is not on disk": Mistake(
        (("session", "if self.journal is None else min(self.outbox.first, self.journal.first)", ""),),
        {"durable": "a"},
        (*START, ("slow_disk", "a", 20.0), ("read", "ba", 3), ("run", 0.3), ("send", "ba", 20), ("run", 0.3)),
        ("I10",),
    ),
    "does not write to whom it sends": Mistake(
        (("attachment", "= receiver\n            journal = self._session.open_journal()",
          "= receiver\n            journal = None"),),
        {"durable": "a"},
        START,
        ("I10",),
    ),
    "stall: does not know that it was paused": Mistake(
        (("endpoint", "self.paused = now - due > self.config.pause_threshold", "self.paused = False"),),
        CLOCKS,
        (*START, ("stall", "b", 60.0)),
        ("I26",),
    ),
    "suspend: does not give the peer time to answer": Mistake(
        (("liveness", "self._grace = now + config.probe_timeout", "self._grace = now"),),
        CLOCKS,
        (*START, ("suspend", "b", 20.0, True)),
        ("I26",),
    ),
    "suspend: does not ask": Mistake(
        (("liveness", "            self.ping(now)\n        if now >= self._dead_at():",
          "            self._last_ping = now\n        if now >= self._dead_at():"),),
        {**CLOCKS, "configs": [{}, {}]},
        (*START, ("suspend", "b", 60.0, True)),
        ("I26",),
    ),
    "stranger_comes: believes a stolen id": Mistake(
        BELIEVES,
        {"stranger": "secret"},
        (*START, ("stranger_comes", "b", "stolen", ALL), ("run", 0.3)),
        ("I11",),
    ),
    "stranger_comes: makes a session for whoever says HELLO": Mistake(
        (("endpoint", "self._introduced.setdefault(connection.peer_id, {})[connection] = None",
          "self._introduced.setdefault(self.session(connection.peer_id).peer_id, {})[connection] = None"),),
        {"stranger": "open"},
        (*START, ("stranger_comes", "b", "foreign", ALL), ("run", 0.3)),
        ("I11", "I25"),
    ),
    "stranger_comes: believes a replay": Mistake(
        FORGETS_THE_TRANSCRIPT,
        {"stranger": "secret"},
        (*START, *(("stranger_comes", "b", "replay", ALL),) * 3, ("run", 0.3)),
        ("I11", "I15", "I20"),
    ),
    "stranger_says: believes it byte by byte": Mistake(
        BELIEVES,
        {"stranger": "secret"},
        (*START, ("stranger_comes", "b", "stolen", 1), ("run", 0.3), ("stranger_says", 0, 1), ("run", 0.3),
         ("stranger_says", 0, ALL), ("run", 0.3)),
        ("I11",),
    ),
    "stranger_answers: believes a replay": Mistake(
        BELIEVES,
        {"stranger": "secret"},
        (*START, ("cut", 0, 0, "rst", 1), ("advance", 0.1), ("stranger_answers", "a", "replay", ALL), ("run", 0.3)),
        ("I11", "I14", "I20"),
    ),
    "stranger_floods: shakes every hand": Mistake(
        (("endpoint", "if len(self._answering) > most:", "if self.closed:"),
         ("endpoint", "or self._pending_by_source[source] > self.config.max_pending_per_source", "")),
        {"stranger": "open", "configs": [{}, {"max_pending": 4}]},
        (*START, ("stranger_floods", "b", "first frame", 30), ("run", 0.3)),
        ("I18",),
    ),
    "stranger_leaves: takes its end for the peer's": Mistake(
        (("endpoint", "was_live = session is not None and session.connection is connection",
          "was_live = session is not None or (session := self.sessions.get(connection.peer_id)) is not None"),),
        {"stranger": "secret"},
        (*START, ("stranger_comes", "b", "first frame", ALL), ("run", 0.3), ("stranger_leaves", 0, "rst")),
        ("I11", "I13"),
    ),
    "impersonate: believes a wrong key": Mistake(
        BELIEVES,
        {"stranger": "secret"},
        (*START, ("impersonate", "ab"), ("run", 0.3)),
        ("I11",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_the_core_as_it_is_passes(name: str) -> None:
    play(MISTAKES[name].tape)


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_core_is_caught(name: str, tmp_path: Path) -> None:
    mistake = MISTAKES[name]
    break_core(tmp_path, mistake.edits)
    mistake.tape.save(tmp_path / "tape")
    command = [sys.executable, "-m", "networkio_testing", "replay", "tape"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    said = done.stderr
    assert any(f" {what} is broken" in said or f": {what}: " in said for what in mistake.noticed), said


def test_every_move_of_special_machines_has_a_mistake_that_it_catches() -> None:
    special = {name for name, move in MOVES.items() if move.needs}
    assert special == {name.partition(":")[0] for name in MISTAKES} & special


# -- the disk ---------------------------------------------------------------------------------------------------------


def pair(*durable: str) -> tuple[World, Host, Host]:
    world = World(3)
    DurableJudge(world)
    a, b = (world.host(name, disk=Disk() if name in durable else None) for name in "ab")
    a.dial("b")
    world.run(1)
    return world, a, b


def kinds(disk: Disk) -> list[type]:
    return [type(record) for batch in disk.batches for record in batch]


def disk_of(host: Host) -> Disk:
    assert host.disk is not None
    return host.disk


def test_a_slow_sync_ends_at_its_time_and_everything_else_goes_on() -> None:
    world, a, b = pair("a")
    disk = disk_of(a)
    disk.delay = 2.0
    a.send("b", b"slow")
    b.send("a", b"meanwhile")
    world.run(1.9)
    assert b.session("a").unread == 0
    assert a.read("b") == [b"meanwhile"]
    world.run(1.0)
    assert b.read("a") == [b"slow"]


def test_the_one_who_finishes_a_sync_early_is_not_followed_by_its_time() -> None:
    world, a, b = pair("a")
    disk = disk_of(a)
    disk.delay = 2.0
    a.send("b", b"1")
    assert disk.finish(a)
    assert not disk.finish(a)
    world.run(5.0)
    assert b.read("a") == [b"1"]


@pytest.mark.parametrize(("where", "kept"), [(where, where in ("after", "told")) for where in DEATHS])
def test_where_a_process_dies_decides_what_it_finds(where: str, kept: bool) -> None:
    world, a, b = pair("a")
    disk = disk_of(a)
    disk.doom = where  # type: ignore[assignment]
    a.send("b", b"1")
    assert not a.up
    assert disk.torn == (where == "torn")
    assert (MessageAccepted in kinds(disk)) == kept
    a.restart()
    a.dial("b")
    world.run(5)
    assert b.read("a") == [b"1"] * kept


def test_a_disk_that_was_full_is_tried_again() -> None:
    world, a, b = pair("a", "b")
    a.send("b", b"1")
    world.run(1)
    disk_of(b).full = 2
    assert b.read("a") == [b"1"]
    assert InboxMoved not in kinds(disk_of(b))
    world.run(2)
    assert InboxMoved in kinds(disk_of(b))
    assert a.session("b").outbox.first == 2


@pytest.mark.parametrize("outcome", ["kept", "lost"])
def test_after_a_failed_sync_nothing_more_is_written_by_this_process(outcome: str) -> None:
    world, a, b = pair("a")
    disk = disk_of(a)
    disk.failing = outcome  # type: ignore[assignment]
    a.send("b", b"1")
    a.send("b", b"2")
    world.run(5)
    assert disk.stopped
    assert b.read("a") == []
    a.crash()
    a.restart()
    a.dial("b")
    world.run(5)
    assert b.read("a") == [b"1"] * (outcome == "kept")


def spilling() -> tuple[World, Host, Host, Disk]:
    """A sender that has ten messages, nine of them on disk only, for a receiver that it has just met again."""
    world = World(3)
    DurableJudge(world)
    a, b = world.host("a", Config(outbox_resident=1), disk=Disk()), world.host("b")
    a.send("b", *(b"%d" % number for number in range(10)))
    disk = disk_of(a)
    disk.delay = inf
    a.dial("b")
    world.run(1)
    while disk.writing is not None:
        disk.finish(a)
    world.run(1)
    return world, a, b, disk


def test_a_slow_load_ends_at_its_time_and_in_order() -> None:
    world, _, b, disk = spilling()
    assert b.read("a") == [b"0"]
    assert disk.loading is not None
    disk.delay = 2.0
    assert disk.finish(world.hosts["a"])
    world.run(1.9)
    assert b.read("a") == [b"1"]
    world.run(20)
    assert b.read("a") == [b"%d" % number for number in range(2, 10)]
    assert disk.tally["loaded"] == 9


def test_after_a_failed_load_nothing_more_is_written_or_loaded_by_this_process() -> None:
    world, a, b, disk = spilling()
    disk.failing, disk.delay = "lost", 0.0
    disk.finish(a)
    world.run(5)
    assert disk.stopped
    assert disk.tally["not loaded"] == 1
    a.send("b", b"never")
    a.crash()
    a.restart()
    a.dial("b")
    world.run(5)
    assert b.read("a") == [b"%d" % number for number in range(10)]


def test_a_message_that_a_disk_lost_is_missed() -> None:
    _, a, _ = pair("a")
    a.send("b", b"1")
    a.crash()
    disk_of(a).batches.pop()
    with pytest.raises(Violation, match=r"I10 is broken .* lost 1 messages"):
        a.restart()


def test_an_old_copy_is_excused_for_that() -> None:
    _, a, _ = pair("a")
    a.send("b", b"1")
    a.crash()
    disk_of(a).rewind(0.0)
    a.restart()
    assert a.session("b").outbox.next == 1


def test_what_was_acknowledged_and_written_never_comes_again() -> None:
    world, a, b = pair("a", "b")
    a.send("b", b"1")
    world.run(1)
    b.read("a")
    b.crash()
    b.restart()
    inbox = b.session("a").inbox
    assert inbox is not None
    inbox.received = inbox.read = 0
    a.session("b").outbox.received = 0
    inbox.ready.append((inbox, 1, b"1", 64 | 4, None))
    with pytest.raises(Violation, match=r"I4 is broken .* has on disk that it was read"):
        b.take("a")


# -- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shows", [0.0, 7.25, 1e6])
@pytest.mark.parametrize("rate", [0.97, 0.9997, 1.0, 1.005, 1.03])
def test_a_clock_shows_what_it_was_asked_for_at_the_time_that_it_tells(shows: float, rate: float) -> None:
    clock = Clock(rate, shows, 1000.0)
    for later in (0.0, 1e-7, 0.1, 3.3, 1e5):
        wanted = shows + later
        assert clock.read(clock.when(wanted)) >= wanted
        assert clock.when(wanted) == pytest.approx(1000.0 + later / rate, abs=1e-6)


@pytest.mark.parametrize("leap", [False, True])
def test_a_suspended_clock_stands_still_and_leaps_or_does_not(leap: bool) -> None:
    clock = Clock(2.0, 0.0, 0.0)
    clock.stop(10.0)
    assert (clock.read(15.0), clock.when(21.0)) == (20.0, inf)
    clock.go(20.0, leap=leap)
    clock.go(30.0, leap=leap)  # it goes already
    assert clock.read(21.0) == (42.0 if leap else 22.0)


def test_a_host_lives_by_its_clock() -> None:
    world = World()
    host = world.host("a", clock=Clock(0.5, 0.0, world.now))
    host.dial("nobody")
    world.run(0.001)
    (target,) = host.endpoint.targets
    assert target.retry_at is not None
    world.advance(1.9 * target.retry_at)
    assert not host.dials
    world.advance(0.3)
    assert host.dials


def test_a_connection_on_which_bytes_came_is_not_given_up() -> None:
    world = World()
    StallJudge(world)
    a = world.host("a")
    world.host("b")
    a.dial("b")
    world.run(1)
    wire = world.live("a", "b")
    assert wire is not None
    connection = wire.ends[0]
    assert connection is not None
    connection.liveness.heard = -100.0
    a.endpoint.timers.schedule(connection, world.now)
    with pytest.raises(Violation, match=r"I26 is broken .* gives b up, heard 1.000 s ago"):
        a.tick()


# -- the game ---------------------------------------------------------------------------------------------------------


def moves(names: Iterable[str]) -> list[tuple[Any, ...]]:
    """Each of them, with the first of every argument."""
    values: dict[Any, Any] = {"pair": "ab", "host": "a", "size": 20, "durable": "a"}
    return [
        (name, *(values[domain] if isinstance(domain, str) else domain[0] for domain in MOVES[name].arguments))
        for name in names
    ]


def test_the_moves_of_special_machines_do_nothing_where_there_are_none() -> None:
    special = [name for name, move in MOVES.items() if move.needs]
    tape = Tape(0, WORLD, [*START, *moves(special)])
    game = play(tape)
    assert game.judge.tally["handed over"] == 3


def test_a_twin_in_a_world_with_a_key_has_it() -> None:
    game = play(Tape(0, {**WORLD, "stranger": "secret"}, [*START, ("pause", "a"), ("twin",), ("run", 60.0)]))
    assert isinstance(game, Game)
    assert game.judge.tally["closed: AUTH_FAILED"] == 0
    assert game.hosts["A"].lives == 1
