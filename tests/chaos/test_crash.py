"""Killed at random, and at system calls, in short: ``make crash`` does it thousands of times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.order import MARKERS, synced_before_it_left, trace
from tests.chaos.syscalls import why_not

ROOT = Path(__file__).parents[2]

WHY_NOT = "there is no SIGKILL" if os.name != "posix" else why_not()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")]
stracing = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace is there")


def told(*arguments: str) -> list[str]:
    """The lines of a module that forks, and so wants a process without threads."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return done.stdout.splitlines()


def test_nothing_is_lost_doubled_or_reordered_whoever_is_killed() -> None:
    lines = told("tests.chaos.crash", "--kills", "5")
    assert [line.split(":")[0] for line in lines] == ["sender", "receiver", "both"]
    assert all(line.endswith("0 lost, 0 doubled, 0 reordered, 0 journals that did not open") for line in lines)


@stracing
def test_killed_at_a_system_call_of_the_journal_it_goes_on() -> None:
    lines = told("tests.chaos.syscalls", "--every", "23", "--most", "2", "--kinds", "disk")
    assert [line.split(" in ")[0] for line in lines] == [
        f"{role}: killed at 2 calls of the disk" for role in ("send", "receive")
    ]


@stracing
def test_the_journal_is_synced_before_a_message_or_its_acknowledgement_leaves(tmp_path: Path) -> None:
    lines = trace(tmp_path)
    assert all(synced_before_it_left(lines, marker, journal) for marker, journal in MARKERS.items())


@stracing
def test_with_durability_os_it_is_not_synced_and_this_trace_tells(tmp_path: Path) -> None:
    lines = trace(tmp_path, "os")
    assert not any(synced_before_it_left(lines, marker, journal) for marker, journal in MARKERS.items())
