"""What was reported is there, however the process ends; and a fork is no second owner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")

#: NETWORKIO_KILLS=1000 for a thorough run
KILLS = int(os.environ.get("NETWORKIO_KILLS", "20"))


def run(*arguments: str) -> str:
    child = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60 + KILLS
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


@pytest.mark.slow
def test_a_process_that_is_killed_keeps_what_was_reported_and_its_journal_opens(tmp_path: Path) -> None:
    said = run("-m", "tests.journal.killed", str(tmp_path / "journal.db"), str(KILLS), "1")
    print(said)
    assert said.startswith(f"{KILLS} kills, ")
    assert int(said.split()[2]) > KILLS


FORKED = """
import os, signal, sys
from tests.journal import test_journal as t
from networkio_journal import SQLiteJournal
from networkio_proto.errors import JournalLocked
path = sys.argv[1]
journal = SQLiteJournal(path)
journal.open("node")
t.write(journal, t.OPENED, t.message(1))
says, said = os.pipe()
child = os.fork()
if not child:
    try:
        SQLiteJournal(path).open("node")
    except JournalLocked:
        os.write(said, b"locked")
    del journal
    sys.exit(0)  # with everything that Python does at its end
os.waitpid(child, 0)
print(os.read(says, 9))
print(t.write(journal, t.message(2)))
waiting = os.fork()
if not waiting:
    signal.pause()
journal.close()
print(len(t.contents(path)))
os.kill(waiting, signal.SIGKILL)
os.waitpid(waiting, 0)
"""


def test_a_forked_child_neither_gets_the_journal_nor_holds_it(tmp_path: Path) -> None:
    said = run("-W", "ignore", "-c", FORKED, str(tmp_path / "journal.db"))
    assert said.split() == ["b'locked'", "None", "3"]
