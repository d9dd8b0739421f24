"""A process killed at its every system call on disk or network.

Strace kills the sender, or the receiver, of :mod:`tests.chaos.crash` as it enters its Nth call of a kind, for each N in
turn (or every so many-th) until the short scenario ends before there is an Nth.  Strace counts for each thread on
its own; so the disk's calls are those of the journal's thread, the network's those of the thread of the sockets.  After
each kill the process is started once more, without strace, and everything must have been read once and in order.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.crash import Process, finish, free_port, judge, receive, send
from tests.chaos.tally import Tally, Unopened

ROOT = Path(__file__).parents[2]

#: by what they are about
CALLS = {
    "disk": "pwrite64,fsync,fdatasync,ftruncate,unlink,rename,renameat,renameat2,fcntl",
    "network": "sendto,sendmsg,recvfrom,recvmsg,connect,accept4,bind,listen",
}

#: messages of the scenario
_LAST = 4

#: how a role is run on its own
_RUN = "import sys; from tests.chaos.crash import *; {role}(sys.argv[1], int(sys.argv[2]), 1, {last})"


@cache
def why_not() -> str:
    """Why strace cannot be used here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed (Debian: strace)"
    try_out = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "inject=write:signal=KILL:when=1", "echo"]
    done = subprocess.run(try_out, capture_output=True, text=True, check=False)
    return "" if done.returncode in (-9, 137) else f"strace may not trace here: {done.stderr.strip()}"


def traced(role: str, journal: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    """One of both under strace, in a process group of its own."""
    code = _RUN.format(role=role, last=_LAST)
    return subprocess.Popen(
        ["strace", "-f", "-qq", *options, sys.executable, "-c", code, str(journal), str(port)],
        cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """It, and what it traces."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def kill_at(directory: Path, role: str, calls: str, number: int) -> Tally:
    """Kill it there; no kills if it never came there.  Raises AssertionError if a process fails or hangs."""
    port = free_port()
    sender, receiver = Process(directory, "sender", send, port), Process(directory, "receiver", receive, port)
    victim, other = (sender, receiver) if role == "send" else (receiver, sender)
    other.start(1, _LAST)
    inject = f"inject={calls}:signal=KILL:when={number}"
    process = traced(role, victim.journal, port, "-o", os.devnull, "-e", f"trace={calls}", "-e", inject)
    killed = False
    try:
        while process.poll() is None and not (other is sender and sender.ended()):
            time.sleep(0.005)
        killed = process.poll() not in (None, 0)
        if killed:
            victim.start(1, _LAST)
            finish(sender, receiver)
        end(process)
        other.kill()
        victim.kill()
        return judge(sender, receiver, _LAST, int(killed))
    except Unopened:
        return Tally(int(killed), unopened=1)
    finally:
        end(process)
        other.discard()
        victim.discard()


def play(role: str, kind: str, *, every: int = 1, most: int = 10_000) -> Tally:
    """Kill it at each of its calls of that kind (every so many, at most so many).  Raises AssertionError."""
    logging.getLogger("networkio").addHandler(logging.NullHandler())  # that dials fail is no news here
    total = Tally()
    for number in range(1, every * most + 1, every):
        with TemporaryDirectory() as directory:
            one = kill_at(Path(directory), role, CALLS[kind], number)
        total += one
        if not one.kills:
            break
    return total
