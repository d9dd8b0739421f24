"""Killed at random, and at system calls, in short: ``make crash`` does it thousands of times."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.inboxes import ADAPTERS
from tests.chaos.order import MARKERS, synced_before_it_left, trace
from tests.chaos.syscalls import why_not

ROOT = Path(__file__).parents[2]

WHY_NOT = "there is no SIGKILL" if os.name != "posix" else why_not()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")]
stracing = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "strace is there")


def test_nothing_is_lost_doubled_or_reordered_wherever_a_process_is_killed() -> None:
    """In a process of its own, since it forks, and so wants to be without threads."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.chaos",
         "--kills", "5", "--lines", "60000", "--every", "23", "--most", "2"],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("no kills")]
    inboxes = [f"durable inbox on {adapter}{what}" for adapter in ADAPTERS for what in ("", ", alone")]
    names = ["sender", "receiver", "both", *inboxes, "file transfers"]
    if not WHY_NOT:
        names += [f"{role}, at calls of the {kind}" for role in ("send", "receive") for kind in ("disk", "network")]
    assert [line.split(":")[0] for line in lines] == [*names, "total"]
    *kills, total = (int(re.findall(r": (\d+) kills", line)[0]) for line in lines)
    assert kills[:8] == [5, 5, 10, 5, 1, 5, 1, 5]
    assert all(1 <= number <= 2 for number in kills[8:])
    assert total == sum(kills)
    assert "0 lost, 0 doubled, 0 reordered, 0 journals that do not open" in lines[-1]


@stracing
def test_the_journal_is_synced_before_a_message_or_its_acknowledgement_leaves(tmp_path: Path) -> None:
    lines = trace(tmp_path)
    assert all(synced_before_it_left(lines, marker, journal) for marker, journal in MARKERS.items())


@stracing
def test_with_durability_os_it_is_not_synced_and_this_trace_tells(tmp_path: Path) -> None:
    lines = trace(tmp_path, "os")
    assert not any(synced_before_it_left(lines, marker, journal) for marker, journal in MARKERS.items())
