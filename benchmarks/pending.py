"""What do messages take that wait in a journal for a peer that is away: memory, disk, and time?

    python benchmarks/pending.py [--count N --size BYTES] [--resident BYTES]

Each step runs in a process of its own, with ``networkio_threads``: one accepts the messages, 1,000 at a time; one opens
the journal that is there then; one opens it again and delivers to a process that reads.  Prints for each step its
seconds, those of the processor, and by how much the process has grown, at the end and at its peak (Linux only).

Without ``--count``: a million of 64 bytes, and 100,000 of 1 KiB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from networkio_journal import SQLiteJournal
from networkio_threads import Config, Node

_CHUNK = 1000
_ROOM = 1 << 40

_Figures: TypeAlias = tuple[float, float, int, int]


def _memory() -> tuple[int, int]:
    """Resident bytes of this process: now, and at most."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024


class _Step:
    """Measures from its making on."""

    def __init__(self) -> None:
        self._memory = _memory()
        self._begin = time.perf_counter(), time.process_time()

    def done(self) -> _Figures:
        """Seconds, seconds of the processor, bytes grown, bytes grown at the peak."""
        seconds, busy = time.perf_counter() - self._begin[0], time.process_time() - self._begin[1]
        now, most = _memory()
        return seconds, busy, now - self._memory[0], most - self._memory[0]


def _node(path: str, resident: int) -> Node:
    config = Config(outbox_limit=_ROOM, outbox_node_limit=_ROOM, outbox_resident=resident, drain_timeout=0.1)
    return Node("sender", journal=SQLiteJournal(path), config=config)


def _accept(pipe: Connection, path: str, resident: int, count: int, size: int) -> None:
    with _node(path, resident) as node:
        peer = node.peer("reader")
        peer.send_many([bytes(size)] * _CHUNK)
        step = _Step()
        for done in range(_CHUNK, count, _CHUNK):
            peer.send_many([bytes(size)] * min(_CHUNK, count - done))
        pipe.send(step.done())


def _open(pipe: Connection, path: str, resident: int, count: int) -> None:
    node = _node(path, resident)
    import networkio_journal.store  # noqa: F401 - is loaded when a journal is opened, and no part of what is measured

    step = _Step()
    with node:
        assert node.peer("reader").unacknowledged == count
        pipe.send(step.done())


def _deliver(pipe: Connection, path: str, resident: int, port: int) -> None:
    with _node(path, resident) as node:
        step = _Step()
        peer = node.connect("127.0.0.1", port, "reader")
        peer.drain()
        pipe.send(step.done())


def _read(pipe: Connection, count: int) -> None:
    with Node("reader") as node:
        pipe.send(node.listen("127.0.0.1", 0).port)
        peer = node.peer("sender")
        for _ in range(count):
            peer.read()
        pipe.recv()


def _in_process(target: Callable[..., None], *arguments: object) -> tuple[Connection, multiprocessing.Process]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, *arguments))
    process.start()
    there.close()
    return here, process  # type: ignore[return-value]


def _measured(target: Callable[..., None], *arguments: object) -> _Figures:
    pipe, process = _in_process(target, *arguments)
    figures: _Figures = pipe.recv()
    process.join()
    return figures


def run(count: int, size: int, resident: int) -> None:
    """Measure and print."""
    print(f"{count:,} messages of {size:,} bytes, outbox_resident={resident:,}")
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "pending.db")
        _print("accept", _measured(_accept, path, resident, count, size), count)
        print(f"  the file has {os.path.getsize(path) / 1e6:,.1f} MB")
        _print("open", _measured(_open, path, resident, count), count)
        pipe, reader = _in_process(_read, count)
        _print("deliver", _measured(_deliver, path, resident, pipe.recv()), count)
        pipe.send(None)
        reader.join()


def _print(step: str, figures: _Figures, count: int) -> None:
    seconds, busy, grown, most = figures
    print(
        f"  {step:8} {seconds:8.2f} s, {busy:8.2f} s of the processor, {busy / count * 1e6:6.2f} us a message; "
        f"grown by {grown / 1e6:6.1f} MB, at most {most / 1e6:6.1f} MB",
        flush=True,
    )


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, help="how many messages")
    parser.add_argument("--size", type=int, default=64, help="bytes of a message (default: %(default)s)")
    parser.add_argument("--resident", type=int, default=Config().outbox_resident, help="Config.outbox_resident")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.error("the memory of a process is asked of Linux")
    for count, size in [(1_000_000, 64), (100_000, 1024)] if options.count is None else [(options.count, options.size)]:
        run(count, size, options.resident)


if __name__ == "__main__":
    main()
