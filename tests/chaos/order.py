"""What was synced before what left: two nodes under strace, and their system calls in order.

``python -m tests.chaos.order DIRECTORY DURABILITY`` is the scenario: a sender whose messages hold a marker each, and a
receiver that rejects them with a marker as the reason, which so stands in the acknowledgement.  A marker is seen three
times: when it is written to the log of the journal, and when it leaves on the socket; in between the log must have been
synced, and the sync have returned.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from networkio_journal import SQLiteJournal
from networkio_proto import MessageRejected
from networkio_threads import Node

__all__ = ["MARKERS", "events", "synced_before_it_left", "trace"]

ROOT = Path(__file__).parents[2]

#: each, and the journal that it is written to
MARKERS = {f"{what}-{number}.": journal for number in (1, 2, 3) for what, journal in
           (("message", "sender"), ("reason", "receiver"))}  # fmt: skip

_CALLS = "pwrite64,fsync,fdatasync,sendto,sendmsg,write,writev"


def scenario(directory: Path, durability: str) -> None:
    """Runs under strace."""
    journals = [
        SQLiteJournal(directory / f"{name}.db", durability="full" if durability == "full" else "os")
        for name in ("receiver", "sender")
    ]
    with Node("receiver", journal=journals[0]) as receiver, Node("sender", journal=journals[1]) as sender:
        there = sender.connect("127.0.0.1", receiver.listen("127.0.0.1", 0).port, "receiver", 10)
        for number in (1, 2, 3):
            receipt = there.send(f"message-{number}.")
            receiver.peer("sender").receive(10).reject(f"reason-{number}.")
            try:
                receipt.read(10)
            except MessageRejected:
                pass


def trace(directory: Path, durability: str = "full") -> list[str]:
    """The lines of strace, each with the thread's id in front."""
    file = directory / "trace"
    subprocess.run(
        ["strace", "-f", "-y", "-qq", "-s", "70000", "-o", str(file), "-e", f"trace={_CALLS}",
         sys.executable, "-m", "tests.chaos.order", str(directory), durability],
        cwd=ROOT, check=True, timeout=60,
    )  # fmt: skip
    return file.read_text(errors="replace").splitlines()


def events(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """What happened: ("written" or "synced" or "left", file, the call's text); a sync when it returned."""
    syncing: dict[str, str] = {}
    for line in lines:
        thread, _, call = line.partition(" ")
        call = call.strip()
        name = re.match(r"(?:<\.\.\. )?(\w+)", call)
        kind = name[1] if name else ""
        file = found[1] if (found := re.match(r"\w+\(\d+<([^>]*)>", call)) else ""
        if kind in ("fsync", "fdatasync"):
            if "<unfinished" in call:
                syncing[thread] = file
            elif call.endswith("= 0"):
                yield "synced", syncing.pop(thread) if "resumed>" in call else file, call
        elif kind in ("pwrite64", "write", "writev") and file.endswith("-wal"):
            yield "written", file, call
        elif file.startswith(("TCP:", "socket:")):
            yield "left", file, call


def synced_before_it_left(lines: list[str], marker: str, journal: str) -> bool:
    """Was the journal with this marker synced, before the marker left?  Raises AssertionError if it was not seen."""
    happened = list(events(lines))
    left = next(at for at, (what, _, call) in enumerate(happened) if what == "left" and marker in call)
    log = f"/{journal}.db-wal"
    written = [
        at for at, (what, file, call) in enumerate(happened[:left])
        if what == "written" and file.endswith(log) and marker in call
    ]  # fmt: skip
    assert written, f"{marker} left before it was written"
    return any(what == "synced" and file.endswith(log) for what, file, _ in happened[written[0] : left])


if __name__ == "__main__":
    scenario(Path(sys.argv[1]), sys.argv[2])
