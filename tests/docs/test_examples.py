"""The examples are complete programs: each runs, and prints what its docstring says that one will see."""

from __future__ import annotations

import ast
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}

TALKS = ("server", "client")
EMBEDDED = ("embed_asyncio", "embed_selectors", "embed_tk")  # run by tests/docs/test_embedding.py
SOLOS = {
    "metrics": r"""
networkio_messages_accepted_total{node="client",peer="server"} 3\.0
networkio_messages_read_total{node="client",peer="server"} 2\.0
networkio_messages_failed_total{node="client",outcome="rejected",peer="server"} 1\.0
""",
    "tracing": r"""
confirmed
1 trace
order
  send stock
    process shop
      send shop
        process stock
""",
    "testing_handlers": r"""
\.\.\. +\[100%\]
3 passed in .*
""",
    "money": r"""
1[01] kills, (\d+) transfers left a bank, \1 arrived
20,000\.00 before, 20,000\.00 after: it balances
""",
    "survive_a_cut": r"""
once and in order: True
1000 sent, 1000 read, 0 failed
the connection was cut (?:[5-9]|\d\d+) times
""",
    "custom_types": r"""
arrived: Order\(article='scarf', size=<Size.LARGE: 'l'>, price=Decimal\('19.90'\), due=.*, gift=False\)
equal: True - an Enum's member is itself: True
refused: .*Secret.*\$\['orders'\]\[1\].*
""",
    "embed_memory": r"""
alice reads 'Hello, Alice'
bob reads 'Hello, Bob'
alice knows that bob has read everything up to message 1
bob knows that alice has read everything up to message 1
0 connections are left
""",
    "handlers": r"""
attempt 1 at {'divide': \[1, 2\]} of boss
0.5
boss: {'divide': \[1, 2\]} was read
attempt 1 at {'divide': \[1, 0\]} of boss
boss: {'divide': \[1, 0\]} was rejected: division by zero is not offered here
attempt 1 at 'flaky' of boss
attempt 2 at 'flaky' of boss
done
boss: flaky was read
attempt 1 at {'divide': \[1, 'x'\]} of boss
attempt 2 at {'divide': \[1, 'x'\]} of boss
attempt 3 at {'divide': \[1, 'x'\]} of boss
boss: {'divide': \[1, 'x'\]} was rejected: the handler failed 3 times: TypeError
""",
}


def test_every_example_is_run_and_says_how_to_run_it() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*TALKS, *SOLOS, *EMBEDDED}
    for path in EXAMPLES.glob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert f"python examples/{path.name}" in docstring


@pytest.mark.parametrize("name", SOLOS)
def test_example_prints(name: str) -> None:
    result = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        capture_output=True, text=True, timeout=30, env=ENVIRONMENT, check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(SOLOS[name].strip(), result.stdout.strip()), result.stdout


# -- the two that talk to each other ----------------------------------------------------------------------------------


#: what may be printed at any time: a dial fails once more; a warning of the library, which shows where nobody has
#: set up logging; an ack died with a server, so its message comes again (G5)
HARMLESS = r"not connected: .*|node [a-z]+-\d+: dialling .* fails, .*|client-123 says {'you said': 'Hello'}"


class Program:
    """A running example, and the lines that it prints (and those that it complains in)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def expect(self, *patterns: str) -> None:
        """The next lines are these, with nothing but harmless ones in between."""
        for pattern in patterns:
            while not re.fullmatch(pattern, line := self._lines.get(timeout=20)):
                assert re.fullmatch(HARMLESS, line), line

    def interrupt(self) -> None:
        """Ctrl-C ends it without a complaint."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(20) == 0
        self._reader.join(20)
        while not self._lines.empty():
            assert re.fullmatch(HARMLESS, line := self._lines.get()), line


@contextmanager
def running(name: str, port: int) -> Iterator[Program]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "127.0.0.1", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    ) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_client_waits_for_its_server_greets_it_and_survives_its_restart(port: int) -> None:
    with running("client", port) as client:
        client.expect("not connected: dialling failed: .*")
        for _ in range(2):
            with running("server", port) as server:
                client.expect("connected to server-001", "server-001 says Hello")
                server.expect("client-123 has read the greeting", r"client-123 says {'you said': 'Hello'}")
                server.interrupt()
            client.expect("not connected: the peer closed the connection: .*")
        client.interrupt()


def test_server_s_greeting_waits_for_its_client_and_is_read_once(port: int) -> None:
    with running("server", port) as server:
        for life in range(2):
            with running("client", port) as client:
                client.expect("connected to server-001")
                if not life:
                    client.expect("server-001 says Hello")
                    server.expect("client-123 has read the greeting", r"client-123 says {'you said': 'Hello'}")
                client.interrupt()
        server.interrupt()
