"""What the tests of the command share: running commands as processes, and text to send."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = [
    "COMMAND",
    "PATIENCE",
    "ROOT",
    "Running",
    "listening",
    "port_of",
    "proxied",
    "readers_joined",
    "real_text",
    "run",
    "running",
]

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "networkio_command"]

#: nothing here takes longer, on a busy machine either (seconds)
PATIENCE = 40


def run(*arguments: object, data: bytes = b"", limit: float = PATIENCE) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end with ``data`` as its standard input."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], input=data, capture_output=True, timeout=limit, cwd=ROOT, check=False
    )


class Stream:
    """What a process writes, collected by a thread."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._seen: list[bytes] = []
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        for line in self._stream:
            self._lines.put(line)

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for a line with this in it; what comes before is kept for :meth:`rest`."""
        while True:
            line = self._lines.get(timeout=PATIENCE)
            self._seen.append(line)
            if found := re.search(pattern, line.decode()):
                return found

    def rest(self) -> bytes:
        """Everything, once the process has ended."""
        self._thread.join(PATIENCE)
        while not self._lines.empty():
            self._seen.append(self._lines.get())
        return b"".join(self._seen)


class Running:
    """A command that is under way."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.input = process.stdin
        self.output = Stream(process.stdout)
        self.errors = Stream(process.stderr)

    def type(self, text: str) -> None:
        """A line on its standard input."""
        self.input.write(text.encode() + b"\n")
        self.input.flush()

    def interrupt(self) -> str:
        """Ctrl-C; what it had said on standard error, all in all."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE) == 130
        return self.errors.rest().decode()

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE)


@contextmanager
def running(*arguments: object) -> Iterator[Running]:
    """A command for the length of a block, and not longer."""
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    ) as process:
        command = Running(process)
        try:
            yield command
        finally:
            process.kill()
            process.wait()
            command.output.rest()
            command.errors.rest()


@contextmanager
def listening(*arguments: object, port: int = 0, peer_id: str = "listener") -> Iterator[tuple[Running, int]]:
    """``networkio listen``, and its port."""
    with running("listen", port, "--id", peer_id, *arguments) as listener:
        yield listener, port_of(listener)


def port_of(listener: Running) -> int:
    """Where it says that it listens."""
    return int(listener.errors.expect(r"listens on 127\.0\.0\.1 port (\d+)")[1])


@contextmanager
def proxied(target: int, *arguments: object) -> Iterator[tuple[Running, int]]:
    """``networkio proxy`` in front of a port, and its own."""
    with running("proxy", 0, target, *arguments) as proxy:
        yield proxy, int(proxy.output.expect(r"^127\.0\.0\.1:(\d+)\n")[1])


def real_text(size: int) -> bytes:
    """So many bytes of real lines, and the rest of the last one: this project's own, each file as often as it takes."""
    files = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("networkio_*/*.py"), *ROOT.glob("tests/*/*.py")])
    text = b"".join(path.read_bytes() for path in files)
    text *= 1 + size // len(text)
    return text[: text.index(b"\n", size) + 1]


@contextmanager
def readers_joined() -> Iterator[None]:
    """At the end, wait for the threads that began in it: one that is late would read what next gets its descriptor."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive()
