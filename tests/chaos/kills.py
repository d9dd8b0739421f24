"""Kill the two ends of a file transfer again and again.

``networkio send --journal`` carries a file to ``networkio listen --journal --output``.  Each of the two is killed with
SIGKILL after a random while, over and over, and started again with the same arguments, until the sender says that all
of it was read.  The output must then be the input, byte for byte: nothing lost, doubled or out of order.  Any other end
of either process is a failure.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import NoReturn

from tests.chaos.crash import free_port
from tests.chaos.tally import Tally, Unopened, is_whole

ROOT = Path(__file__).parents[2]

ADAPTERS = ("asyncio", "threads")

#: in so long all must be over; with a thousand times the work it is rather a matter of the machine (seconds)
_LIMIT = 1800.0


class Victim:
    """One command, which is started anew as often as it is killed."""

    def __init__(self, arguments: list[str], journal: Path, errors: Path, chance: Random, longest: float) -> None:
        self._arguments = [sys.executable, "-W", "error", "-m", "networkio_command", *arguments]
        self._journal = journal
        self._errors = errors
        self._chance = chance
        self._longest = longest
        self.kills = 0
        self.start()

    def start(self) -> None:
        with open(self._errors, "ab") as errors:
            self.process = subprocess.Popen(self._arguments, stdin=subprocess.DEVNULL, stderr=errors, cwd=ROOT)
        self.due = time.monotonic() + self._chance.uniform(0, self._longest)

    def kill(self) -> None:
        """As ``kill -9`` does.  Raises as :meth:`fail` does."""
        self.process.kill()
        status = self.process.wait()
        if status == -signal.SIGKILL:
            self.kills += 1
        elif status:  # 0: it had just done all its work
            self.fail()

    def fail(self) -> NoReturn:
        """It had an end of its own.  Raises AssertionError, Unopened if that was its journal's fault."""
        if self._journal.exists() and not is_whole(self._journal):
            raise Unopened(f"{self._journal} does not open")
        raise AssertionError(self._errors.read_text())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def carry(source: Path, place: Path, seed: int, adapter: str, longest: float, most: int) -> tuple[int, int]:
    """Carry ``source`` to ``place / "out"`` though at most ``most`` kills; how many of the sender and the listener."""
    chance = Random(seed)
    port = str(free_port())
    common = ["--adapter", adapter, "--journal"]
    listen = ["listen", port, "--id", "listener", *common, str(place / "in.db"), "--output", str(place / "out")]
    send = ["send", port, "--id", "sender", *common, str(place / "out.db"), str(source)]
    listener = Victim(listen, place / "in.db", place / "listener.errors", chance, longest)
    sender = Victim(send, place / "out.db", place / "sender.errors", chance, longest)
    until = time.monotonic() + _LIMIT
    try:
        while (status := sender.process.poll()) is None:
            now = time.monotonic()
            assert now < until, "this takes too long"
            for victim in (listener, sender):
                if victim is listener and victim.process.poll() is not None:
                    victim.fail()
                if now >= victim.due and listener.kills + sender.kills < most and victim.process.poll() is None:
                    victim.kill()
                    victim.start()
            time.sleep(0.002)
        if status:
            sender.fail()
    finally:
        sender.close()
        listener.close()
    return sender.kills, listener.kills


def write_lines(path: Path, lines: int, chance: Random) -> None:
    """A file of so many lines, no two of which are the same."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for number in range(lines):
            file.write(f"{number} {'x' * chance.randrange(60)}\n")


def play(kills: int, seed: int, *, lines: int = 200_000, longest: float = 2.5) -> Tally:
    """Carry a file again and again, with either adapter in turn, until there were so many kills.

    ``longest``: a process lives at most so long (seconds).  Raises AssertionError if a process fails, or takes too
    long, or what it wrote is no line of the file.
    """
    total = Tally()
    while total.kills < kills and total.good:
        adapter = ADAPTERS[seed % 2]
        with tempfile.TemporaryDirectory(prefix="networkio-kills-") as name:
            place = Path(name)
            write_lines(place / "in", lines, Random(seed))
            try:
                killed = sum(carry(place / "in", place, seed, adapter, longest, kills - total.kills))
            except Unopened:
                return total + Tally(unopened=1)
            total += compare(place, killed)
        seed += 1
    return total


def compare(place: Path, kills: int) -> Tally:
    """What was to be carried with what came.  Raises AssertionError for a line that nobody sent."""
    numbers = {line: number for number, line in enumerate((place / "in").read_bytes().splitlines(True), 1)}
    came = (place / "out").read_bytes().splitlines(True)
    strange = [line for line in came if line not in numbers]
    assert not strange, f"{strange[0]!r} is no line of the input"
    return Tally.of([numbers[line] for line in came], len(numbers), [place / "in.db", place / "out.db"], kills)
