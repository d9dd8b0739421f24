"""The swarm repeats: one seed, one game, one trace, wherever it is played; what fails is put on tape and made short."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from networkio_testing.__main__ import COMMANDS, main
from networkio_testing.game import Game
from networkio_testing.judges import INVARIANTS, Violation
from networkio_testing.run import run
from networkio_testing.shrink import shrink
from networkio_testing.swarm import MOVES, Move, draw, make_config, play
from networkio_testing.tape import Tape, TapeError

ROOT = Path(__file__).parents[2]

#: a seed of each kind: two nodes, and many; in memory, and (20) with disks, clocks of their own and a third party
SEEDS = (0, 1, 2, 3, 20)


def traces(python: str, hash_seed: str) -> list[str]:
    """The traces of some seeds, in another process.

    It imports what is installed here; parts of that in C fit this Python alone, and the others do without them.
    """
    script = (
        "from networkio_testing.swarm import draw, play\n"
        f"for seed in {SEEDS}: print(play(draw(seed, 150)).recorder.trace)\n"
    )
    path = os.pathsep.join((str(ROOT), sysconfig.get_path("purelib")))
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def here() -> list[str]:
    """The same, in this one."""
    return [play(draw(seed, 150)).recorder.trace for seed in SEEDS]


# -- the same again ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_seed_is_one_trace_in_every_process_with_every_hash_seed() -> None:
    expected = here()
    assert len(set(expected)) == len(SEEDS)
    assert {"durable", "clocks", "stranger"} <= draw(SEEDS[-1], 0).world.keys()
    for hash_seed in ("0", "1", "4242"):
        assert traces(sys.executable, hash_seed) == expected


@pytest.mark.slow
def test_one_seed_is_one_trace_on_every_python() -> None:
    found = subprocess.run([ROOT / "tools" / "pythons"], capture_output=True, text=True, check=True).stdout.split()
    if not found:
        pytest.skip("tools/pythons finds no other Python here")
    expected = here()
    for python in found:
        assert traces(python, "7") == expected, python


@pytest.mark.slow
def test_the_summary_of_a_run_does_not_depend_on_how_it_was_done(tmp_path: Path) -> None:
    whole = run(range(10))
    state = tmp_path / "state"
    assert run(range(8), state=state).seeds == 8
    parts = run(range(10), state=state)
    for summary in (whole, parts):
        summary.seconds = 0.0
    assert parts == whole
    assert whole.seeds == 10
    assert whole.events > 10_000


@pytest.mark.slow
def test_two_workers_come_to_the_same_summary_as_one() -> None:
    one, two = run(range(12)), run(range(12), jobs=2)
    one.seconds = two.seconds = 0.0
    assert one == two


@pytest.mark.slow
def test_a_run_ends_when_there_were_enough_events_and_enough_seeds() -> None:
    assert run(range(1000), events=1, least=9).seeds == 16
    assert run(range(1000), events=30_000).events >= 30_000


# -- the tape ---------------------------------------------------------------------------------------------------------


def test_leaving_a_kind_of_move_out_changes_nothing_about_the_others() -> None:
    whole = draw(11, 2000)
    for kind in ("cut", "send", "run"):
        part = draw(11, 2000, without=(kind,))
        assert part.world == whole.world
        assert part.moves == [move for move in whole.moves if move[0] != kind]
    assert any(move[0] == "send" for move in whole.moves)


def test_a_tape_that_was_saved_and_loaded_is_the_same_game(tmp_path: Path) -> None:
    tape = draw(5, 200)
    tape.save(tmp_path / "tape")
    again = Tape.load(tmp_path / "tape")
    assert (again.seed, again.moves) == (tape.seed, tape.moves)
    assert play(again).recorder.trace == play(tape).recorder.trace


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no tape"),
        ("[]", "is no tape"),
        ("{}", "is no tape"),
        ('{"networkio tape": 2}', "version 2"),
        ('{"networkio tape": 1}', "is no tape"),
    ],
)
def test_what_is_no_tape_is_told_so(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tape").write_text(text)
    with pytest.raises(TapeError, match=complaint):
        Tape.load(tmp_path / "tape")
    assert main(["replay", str(tmp_path / "tape")]) == 2
    assert complaint in capsys.readouterr().err


def test_any_list_of_moves_is_a_game() -> None:
    """Each move alone, as the first and only one, with the first and the last of every argument."""
    tape = draw(0, 10)
    special = {"durable": "a", "clocks": {"a": [7.25, 1.03]}, "stranger": "secret"}
    for name, move in MOVES.items():
        for which in (0, -1):
            values = {"pair": "ab", "host": "a", "size": 20, "durable": "a"}
            arguments = [values[domain] if isinstance(domain, str) else domain[which] for domain in move.arguments]
            world = {**tape.world, "vigil": False, **(special if move.needs else {})}
            play(Tape(0, world, [(name, *arguments)]))


def test_every_world_that_is_drawn_can_be_made_and_all_its_pairs_have_a_dialer() -> None:
    sizes: Counter[int] = Counter()
    for seed in range(200):
        world = draw(seed, 0).world
        sizes[len(world["configs"])] += 1
        for settings in world["configs"]:
            make_config(settings)
        dialled = {frozenset(pair) for pair in world["dialers"]}
        assert dialled == {frozenset(pair) for pair in world["pairs"]}
    assert set(sizes) == {2, 3, 4, 8}


# -- failures ---------------------------------------------------------------------------------------------------------


def stumble(game: Game, size: int) -> None:
    """A planted violation: it takes a message in a held state, a cut before, and this move."""
    if any(game.held.values()) and game.world.connections_made > 1:
        raise Violation("I4", f"planted, {size}", game.world)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOVES, "stumble", Move(stumble, (1.0,), ((1, 2, 3),)))


@pytest.mark.usefixtures("planted")
def test_a_failure_writes_its_tape_and_prints_how_to_play_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--seeds", "0:40", "--json", "--tapes", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["violations"] == 1
    path = Path(report["failures"][0]["tape"])
    assert f"python -m networkio_testing replay {path} --trace" in err
    tape = Tape.load(path)
    assert tape.failure == "I4"
    assert tape.moves[-1][0] == "stumble"

    assert main(["replay", str(path), "--trace"]) == 1
    out, err = capsys.readouterr()
    assert "-- stumble" in out.splitlines()[-1]
    assert "sends 1 to" in out
    assert "I4 is broken" in err

    assert main(["shrink", str(path), "--tries", "1500"]) == 0
    short = Tape.load(path.with_name(path.name + ".short"))
    assert short.failure == "I4"
    assert len(short.moves) <= 12, short.moves
    assert short.moves[-1] == ("stumble", 1)
    assert len(short.world["configs"]) == 2


def test_a_tape_that_does_not_fail_is_not_shrunk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tape = draw(3, 20)
    with pytest.raises(TapeError, match="does not fail"):
        shrink(tape)
    tape.save(tmp_path / "tape")
    assert main(["shrink", str(tmp_path / "tape")]) == 2
    assert "does not fail" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "tape")]) == 0
    assert "nothing wrong in" in capsys.readouterr().out


@pytest.mark.parametrize("what", [KeyError("core"), AssertionError("core"), RecursionError("core")])
def test_whatever_is_raised_is_a_failure(what: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(game: Game) -> None:
        raise what

    monkeypatch.setitem(MOVES, "run", Move(fail, (1.0,)))
    tape = Tape(0, draw(0, 0).world, [("answer",), ("run",), ("answer",)])
    with pytest.raises(type(what)):
        play(tape)
    assert tape.moves == [("answer",), ("run",)]
    assert tape.failure == type(what).__name__


@pytest.mark.slow
def test_a_hang_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(game: Game) -> None:
        while True:
            pass

    monkeypatch.setattr("networkio_testing.swarm.PATIENCE", 1)
    monkeypatch.setitem(MOVES, "run", Move(hang, (1.0,)))
    with pytest.raises(Exception, match="not over after 1 s"):
        play(Tape(0, draw(0, 0).world, [("run",)]))


# -- the short tier ---------------------------------------------------------------------------------------------------

#: events of the short tier, which are more than five million calls of the core, and the parts in which they are played
EVENTS = int(os.environ.get("NETWORKIO_EVENTS", "2000000"))
PARTS = 10

#: what must happen in every part, or the swarm has become blind
EVENTFUL = (
    *("accepted", "handed over", "handed over again", "redelivered", "gap", "live"),
    *("READ", "REJECTED", "EXPIRED", "CANCELLED", "LOST", "ABANDONED"),
    *(f"verdict {verdict}" for verdict in "ABE"),
    *("journaled", "restored", "old copy", "closed: AUTH_FAILED"),
    *("closed: COLLISION", "closed: SUPERSEDED", "closed: DUPLICATE_IDENTITY", "closed: TIMEOUT"),
)

#: what is rarer, and must happen in all of them together, by part
RARE = ("verdict C", "verdict D", "verdict G")
SEEN: dict[int, Counter[str]] = {}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_two_million_events_break_no_promise(part: int, tmp_path: Path) -> None:
    summary = run(range(part * 1_000_000, (part + 1) * 1_000_000), events=EVENTS // PARTS)
    SEEN[part] = Counter(summary.seen)
    for failure in summary.failures:
        Tape(**failure).save(tmp_path / "failure.tape")
        pytest.fail(f"{failure['words']}\npython -m networkio_testing replay {tmp_path / 'failure.tape'} --trace")
    assert summary.events >= EVENTS // PARTS
    assert [event for event in EVENTFUL if not summary.seen[event]] == []
    assert [name for name in MOVES if not summary.moves[name]] == []
    rates = summary.report()["per_million_events"]
    assert rates["connections"] > 1000
    assert rates["messages"] > 20_000


@pytest.mark.slow
def test_two_million_events_have_met_what_is_rare_too() -> None:
    if len(SEEN) < PARTS:
        pytest.skip("they were not all played")
    together = sum(SEEN.values(), Counter[str]())
    assert [event for event in RARE if together[event] < 3] == []


def test_the_page_on_testing_tells_every_invariant_and_every_command() -> None:
    page = (ROOT / "docs" / "topics" / "tested.md").read_text(encoding="utf-8")
    for invariant, promise in INVARIANTS.items():
        assert f"| {invariant} | {promise} |" in page
    subparsers = argparse.ArgumentParser().add_subparsers()
    for command in COMMANDS:
        command.add(subparsers)
    for name in subparsers.choices:
        assert f"python -m networkio_testing {name} " in page


# -- past failures ----------------------------------------------------------------------------------------------------

TAPES = sorted((Path(__file__).parent / "tapes").glob("*.tape"))


@pytest.mark.parametrize("path", TAPES, ids=lambda path: path.stem)
def test_a_tape_that_once_failed_fails_no_more(path: Path) -> None:
    tape = Tape.load(path)
    assert tape.failure is not None
    play(tape)


# -- a bug of the core ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bug_of_the_core_is_found_and_shrunk_to_a_few_moves(tmp_path: Path) -> None:
    """The core is copied, and resumes one message too far."""
    core = tmp_path / "networkio_proto"
    shutil.copytree(ROOT / "networkio_proto", core, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "networkio_testing").symlink_to(ROOT / "networkio_testing")
    outbox = core / "outbox.py"
    source = outbox.read_text()
    assert source.count("cursor = position + 1") == 1
    outbox.write_text(source.replace("cursor = position + 1", "cursor = position + 2"))

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "networkio_testing", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    found = call("run", "--seeds", "0:400", "--tapes", str(tmp_path))
    assert found.returncode == 1, found.stderr
    (path,) = tmp_path.glob("*.tape")
    failure = str(Tape.load(path).failure)
    assert failure in INVARIANTS
    shrunk = call("shrink", str(path), "--tries", "2000")
    assert shrunk.returncode == 0, shrunk.stderr
    short = Tape.load(path.with_name(path.name + ".short"))
    assert short.failure == failure
    assert len(short.moves) <= 15, short.moves
    assert failure in call("replay", str(path) + ".short").stderr
