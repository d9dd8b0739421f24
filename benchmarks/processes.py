"""The processes of a benchmark: workers and brokers, started on loopback, and always ended, by their own ids.

A :class:`Worker` is spoken to in lines of JSON.  Whatever goes wrong with a process, be it that it dies, complains or
takes too long, is a :class:`Failed` that says so.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from benchmarks.ends import Plan

__all__ = ["Broker", "Failed", "OutOfTime", "Worker", "end_with_parent", "free_port"]

ROOT = Path(__file__).parents[1]

#: how long a process that is told to end may take before it is killed (seconds)
_PATIENCE = 2.0

_PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """A process could not do what it was told."""


class OutOfTime(Failed):
    """It was not done in time."""


class Process:
    """A child process whose complaints are kept in a file of its own."""

    def __init__(self, name: str, command: Sequence[str], directory: str, **options: Any) -> None:
        self.name = name
        self._complaints = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 (open as long as the process)
        # A session of its own: Ctrl-C is for the runner, which ends its children itself.
        self.popen = subprocess.Popen(
            command, stderr=self._complaints, cwd=options.pop("cwd", directory), start_new_session=True, **options
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def complaint(self) -> str:
        """The last line that it wrote to its standard error, if any."""
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End it.  Idempotent."""
        if self.popen.stdin is not None:
            try:
                self.popen.stdin.close()
            except OSError:  # it has gone already
                pass
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        self._complaints.close()


class Worker(Process):
    """A process that plays one end (:mod:`benchmarks.worker`)."""

    def __init__(self, plan: Plan) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(plan.to_json())]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        super().__init__(
            f"{plan.contender} ({plan.role})", command, plan.directory,
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        self._heard = b""

    def begin(self, address: Any) -> None:
        """Listen, or connect to there; answered when that is done.  It has loaded what it needs meanwhile."""
        self.tell("begin", address=address)

    def tell(self, do: str, **arguments: Any) -> None:
        """Do this; the answer is waited for by :meth:`hear`."""
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self.popen.stdin.flush()
        except OSError as error:
            raise Failed(f"{self.name} has died: {self.complaint() or error}") from error

    def hear(self, deadline: float) -> dict[str, Any]:
        """The next answer, until ``deadline`` (monotonic clock).  Raises Failed."""
        assert self.popen.stdout is not None
        while b"\n" not in self._heard:
            if not select.select([self.popen.stdout], [], [], max(0.0, deadline - monotonic()))[0]:
                raise OutOfTime(f"{self.name} was not done in time")
            data = os.read(self.popen.stdout.fileno(), 1 << 20)
            if not data:
                raise Failed(f"{self.name} has died: {self.complaint() or 'without a word'}")
            self._heard += data
        line, self._heard = self._heard.split(b"\n", 1)
        words: dict[str, Any] = json.loads(line)
        if "error" in words:
            raise Failed(f"{self.name}: {words['error']}")
        return words

    def ask(self, deadline: float, do: str, **arguments: Any) -> dict[str, Any]:
        """Do this, and wait for the answer."""
        self.tell(do, **arguments)
        return self.hear(deadline)


class Broker(Process):
    """A server of somebody else's, ready when its port answers."""

    def __init__(
        self, name: str, command: Callable[[int], Sequence[str]], directory: str, limit: float = 10.0
    ) -> None:
        self.port = free_port()
        words = [sys.executable, "-m", "benchmarks.processes", *command(self.port)]
        super().__init__(name, words, directory, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = monotonic() + limit
        while not self._answers():
            if self.popen.poll() is not None or monotonic() > deadline:
                complaint = self.complaint()
                self.close()
                raise Failed(f"{name} did not start: {complaint or 'without a word'}")
            sleep(0.02)  # there is nothing else to wait for: the server tells nobody that it listens

    def _answers(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0


def free_port() -> int:
    """A TCP port on loopback that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def end_with_parent() -> None:
    """In a child: die when the parent does, even by SIGKILL (Linux; elsewhere, a worker ends when its input does)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":  # in front of a broker's command, which it becomes; what is set above stays
    end_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])
