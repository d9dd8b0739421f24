"""What is wrong is counted, and makes the exit status: here it is put there by hand."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from networkio_threads import Node
from tests.chaos import __main__ as chaos
from tests.chaos.crash import Process, free_port, judge, play, receive, send
from tests.chaos.kills import compare
from tests.chaos.tally import Tally, is_whole

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")


def broken_off() -> Tally:
    raise AssertionError("it hangs")


@pytest.mark.parametrize(("tally", "status"), [
    (partial(Tally, 3, 10), 0), (partial(Tally, 3, 10, lost=1), 1), (partial(Tally, 3, 10, doubled=1), 1),
    (partial(Tally, 3, 10, reordered=1), 1), (partial(Tally, 3, 10, unopened=1), 1), (broken_off, 1),
])  # fmt: skip
def test_the_status_tells_whether_all_is_well(tally: Callable[[], Tally], status: int) -> None:
    assert chaos.run([("good", partial(Tally, 1, 5)), ("other", tally)]) == status


def test_no_kill_at_all_is_a_failure() -> None:
    assert chaos.run([("none", Tally)]) == 1


def test_the_last_line_has_the_totals(capsys: pytest.CaptureFixture[str]) -> None:
    chaos.run([("one", partial(Tally, 1, 2, 3, 4, 5, 6)), ("off", broken_off), ("two", partial(Tally, 10, 20, 30))])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("total: 11 kills, 22 messages, 33 lost, 4 doubled, 5 reordered, 6 journals that do not open")
    assert last.endswith("what broke off, and is not counted: off")


@pytest.mark.parametrize(("got", "counted"), [
    ([1, 2, 3, 4], (0, 0, 0)), ([1, 2, 4], (1, 0, 0)), ([1, 2, 2, 3, 4], (0, 1, 0)), ([1, 3, 2, 4], (0, 0, 1)),
    ([1, 2, 3], (1, 0, 0)), ([1, 2, 3, 4, 1], (0, 1, 1)), ([], (4, 0, 0)),
])  # fmt: skip
def test_what_was_read_is_compared_with_what_was_sent(
    tmp_path: Path, got: list[int], counted: tuple[int, int, int]
) -> None:
    port = free_port()
    sender, receiver = Process(tmp_path, "sender", send, port), Process(tmp_path, "receiver", receive, port)
    for each in (sender, receiver):
        with Node(each.journal.stem, journal=str(each.journal)):
            pass
    db = sqlite3.connect(receiver.journal)
    db.execute("CREATE TABLE got (place INTEGER PRIMARY KEY, n INTEGER)")
    db.executemany("INSERT INTO got (n) VALUES (?)", [(number,) for number in got])
    db.commit()
    db.close()
    assert judge(sender, receiver, 4, 9) == Tally(9, 4, *counted)


@pytest.mark.slow  # not that it were: it forks, which newer Pythons warn of where other tests have left threads
def test_a_journal_that_does_not_open_is_counted(tmp_path: Path) -> None:
    (tmp_path / "receiver.db").write_bytes(b"no journal" * 1000)
    assert not is_whole(tmp_path / "receiver.db")
    assert play(tmp_path, "sender", 1000, 1).unopened == 1


def test_files_are_compared_line_by_line(tmp_path: Path) -> None:
    for name in ("in", "out"):
        with Node(name, journal=str(tmp_path / f"{name}.db")):
            pass
    (tmp_path / "in").write_text("0 a\n1 b\n2 c\n")
    (tmp_path / "out").write_text("0 a\n2 c\n2 c\n")
    assert compare(tmp_path, 7) == Tally(7, 3, lost=1, doubled=1)
    (tmp_path / "out").write_text("0 a\n1 b\n2 c")
    with pytest.raises(AssertionError, match="no line"):
        compare(tmp_path, 7)
