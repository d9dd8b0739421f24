"""Money goes to and fro between two banks, which are killed at random; no cent is lost, and none comes from nowhere.

Each bank is a process with a journal, and keeps its accounts in the same file.  A transfer takes money from an account
and sends it, in one transaction; its arrival adds the money and acknowledges the message, in one transaction.  A third
process kills them with SIGKILL wherever they are, starts them again, and counts the money at the end.

    python examples/money.py [--kills 10] [--seed 1] [DIRECTORY]
"""

import argparse
import logging
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from networkio_threads import Message, Node

Send = Callable[..., Any]

BANKS = ("north", "south")
ACCOUNTS = 10
CENTS = 1_000_00  # in each account, when the bank is founded


# -- a bank ---------------------------------------------------------------------------------------------------------


def found(db: sqlite3.Connection, send: Send) -> None:
    """Make the accounts, unless an earlier process has."""
    db.execute("CREATE TABLE IF NOT EXISTS account (number INTEGER PRIMARY KEY, cents INTEGER)")
    db.execute("CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER)")
    db.executemany("INSERT OR IGNORE INTO account VALUES (?, ?)", [(number, CENTS) for number in range(ACCOUNTS)])
    db.executemany("INSERT OR IGNORE INTO counter VALUES (?, 0)", [("sent",), ("came",), ("closed",), ("told",)])


def count(db: sqlite3.Connection, name: str) -> int:
    """One more of these; how many there were before."""
    [(value,)] = db.execute("SELECT value FROM counter WHERE name = ?", (name,))
    db.execute("UPDATE counter SET value = value + 1 WHERE name = ?", (name,))
    return int(value)


def transfer(db: sqlite3.Connection, send: Send, other: str) -> None:
    """Some money leaves: out of an account here, and into a message."""
    cents = random.randint(1, 100_00)
    db.execute("UPDATE account SET cents = cents - ? WHERE number = ?", (cents, random.randrange(ACCOUNTS)))
    count(db, "sent")
    send(other, {"account": random.randrange(ACCOUNTS), "cents": cents})


def close(db: sqlite3.Connection, send: Send, other: str) -> None:
    """No more transfers follow; said once, however often the process is killed here."""
    if not count(db, "closed"):
        send(other, "closed")


def arrive(message: Message) -> None:
    """Some money comes: out of a message, and into an account here."""

    def take(db: sqlite3.Connection) -> None:
        if message.data == "closed":
            count(db, "told")
            return
        moved = (message.data["cents"], message.data["account"])
        db.execute("UPDATE account SET cents = cents + ? WHERE number = ?", moved)
        count(db, "came")

    message.commit(take)


def bank(name: str, directory: Path, port: int) -> None:
    """Send until the file ``closing`` is there; say so when everything has come and everything was read."""
    other = BANKS[name == BANKS[0]]
    logging.getLogger("networkio").setLevel(logging.ERROR)  # that the other one cannot be reached is no news here
    with Node(name, journal=directory / f"{name}.db") as node:
        node.transaction(found)
        if name == BANKS[0]:
            node.listen("127.0.0.1", port)
        else:
            node.connect("127.0.0.1", port, other)
        threading.Thread(target=node.serve, args=(arrive,), daemon=True).start()
        while not (directory / "closing").exists():
            node.transaction(lambda db, send: transfer(db, send, other))
        node.transaction(lambda db, send: close(db, send, other))
        while node.peer(other).unacknowledged or not node.commit([], told):
            time.sleep(0.05)
        print("closed", flush=True)
        sys.stdin.read()  # the other one may want to hear what was read here


def told(db: sqlite3.Connection) -> bool:
    """Has the other bank closed, and did all of its money come before that?"""
    [(value,)] = db.execute("SELECT value FROM counter WHERE name = 'told'")
    return bool(value > 0)


# -- the one who kills ------------------------------------------------------------------------------------------------


def start(name: str, directory: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--bank", name, "--port", str(port), str(directory)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def books(directory: Path) -> tuple[int, dict[str, int]]:
    """The money in all accounts of both banks, and their counters."""
    total, counters = 0, dict.fromkeys(("sent", "came", "closed", "told"), 0)
    for name in BANKS:
        with closing(sqlite3.connect(directory / f"{name}.db")) as db:
            [(cents,)] = db.execute("SELECT sum(cents) FROM account")
            total += cents
            for counter, value in db.execute("SELECT name, value FROM counter"):
                counters[counter] += value
    return total, counters


def main(directory: Path, kills: int, chance: random.Random) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = {name: start(name, directory, port) for name in BANKS}
    try:
        killed = 0
        while killed < kills:
            time.sleep(chance.uniform(0.0, 0.7))
            for name in chance.choice([BANKS[:1], BANKS[1:], BANKS]):
                kill(running[name])
                killed += 1
                running[name] = start(name, directory, port)
        (directory / "closing").touch()
        for process in running.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "closed\n"
    finally:
        for process in running.values():
            kill(process)
    before, (after, counters) = len(BANKS) * ACCOUNTS * CENTS, books(directory)
    print(f"{killed} kills, {counters['sent']} transfers left a bank, {counters['came']} arrived")
    print(f"{before / 100:,.2f} before, {after / 100:,.2f} after: {'it balances' if before == after else 'WRONG'}")
    return before == after and counters["sent"] == counters["came"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", nargs="?", type=Path, metavar="DIRECTORY")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bank", choices=BANKS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bank:
        bank(arguments.bank, arguments.directory, arguments.port)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            place = arguments.directory or Path(scratch)
            sys.exit(0 if main(place, arguments.kills, random.Random(arguments.seed)) else 1)
