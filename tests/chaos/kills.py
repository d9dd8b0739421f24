"""Kill the two ends of a file transfer again and again: ``python -m tests.chaos.kills``.

``networkio send --journal`` carries a file to ``networkio listen --journal --output``.  Each of the two is killed with
SIGKILL after a random while, over and over, and started again with the same arguments, until the sender says that all
of it was read.  The output must then be the input, byte for byte: nothing lost, doubled or out of order.  Any other end
of either process, such as a journal that does not open, is a failure.
"""

from __future__ import annotations

import argparse
import filecmp
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

ROOT = Path(__file__).parents[2]

#: in so long all must be over; with a thousand times the work it is rather a matter of the machine (seconds)
_LIMIT = 1800.0


class Victim:
    """One command, which is started anew as often as it is killed."""

    def __init__(self, arguments: list[str], errors: Path, chance: Random, longest: float) -> None:
        self._arguments = [sys.executable, "-W", "error", "-m", "networkio_command", *arguments]
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
        """As ``kill -9`` does.  Raises AssertionError if it had an end of its own."""
        self.process.kill()
        status = self.process.wait()
        assert status in (-signal.SIGKILL, 0), (status, self._errors.read_text())  # 0: it had just done all its work
        self.kills += 1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def carry(source: Path, place: Path, seed: int, adapter: str, longest: float, most: int) -> tuple[int, int]:
    """Carry ``source`` to ``place / "out"`` though at most ``most`` kills; how many of the sender and the listener."""
    chance = Random(seed)
    port = str(free_port())
    common = ["--adapter", adapter, "--journal"]
    listen = ["listen", port, "--id", "listener", *common, str(place / "in.db"), "--output", str(place / "out")]
    send = ["send", port, "--id", "sender", *common, str(place / "out.db"), str(source)]
    listener = Victim(listen, place / "listener.errors", chance, longest)
    sender = Victim(send, place / "sender.errors", chance, longest)
    until = time.monotonic() + _LIMIT
    try:
        while (status := sender.process.poll()) is None:
            now = time.monotonic()
            assert now < until, "this takes too long"
            for victim in (listener, sender):
                assert victim is sender or victim.process.poll() is None, (place / "listener.errors").read_text()
                if now >= victim.due and listener.kills + sender.kills < most and victim.process.poll() is None:
                    victim.kill()
                    victim.start()
            time.sleep(0.002)
        assert status == 0, (status, (place / "sender.errors").read_text())
    finally:
        sender.close()
        listener.close()
    return sender.kills, listener.kills


def write_lines(path: Path, lines: int, chance: Random) -> None:
    """A file of so many lines, no two of which are the same."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for number in range(lines):
            file.write(f"{number} {'x' * chance.randrange(60)}\n")


def main() -> int:
    """The exit code: 1 if the output is not the input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--adapter", default="asyncio", choices=("asyncio", "threads"))
    parser.add_argument("--longest", type=float, default=2.5, help="a process lives at most so long (seconds)")
    parser.add_argument("--kills", type=int, default=1_000_000, help="no more than so many")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="networkio-kills-") as name:
        place = Path(name)
        write_lines(place / "in", given.lines, Random(given.seed))
        began = time.monotonic()
        sender, listener = carry(place / "in", place, given.seed, given.adapter, given.longest, given.kills)
        same = filecmp.cmp(place / "in", place / "out", shallow=False)
    print(
        f"{given.lines:,} lines, {given.adapter}, seed {given.seed}: {sender} kills of the sender, {listener} of the "
        f"listener, {time.monotonic() - began:.0f} s; the output is {'' if same else 'NOT '}the input"
    )
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
