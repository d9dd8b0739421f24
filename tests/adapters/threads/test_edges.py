"""Edge cases of the threads adapter: names that lead elsewhere, programs that end in a handler."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.adapters.test_edges import Names
from tests.adapters.threads.helpers import node, until

ROOT = Path(__file__).parents[3]


def test_a_name_is_looked_up_for_each_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not be there yet, lead to a machine where nobody listens, and later to the right one."""
    names = Names(monkeypatch)
    with node("server") as server, node("client") as client:
        port = server.listen("127.0.0.1", 0).port
        peer = client.connect("service.localhost", port, "server")
        peer.send("waits for it")
        for leads_to in ([], ["127.0.0.2"]):
            asked, names.leads_to = names.asked, leads_to
            until(partial(names.asked_since, asked + 2))
            assert not peer.connected
        names.leads_to = ["127.0.0.2", "127.0.0.1"]
        assert server.peer("client").read(10) == "waits for it"


#: what a program does that ends in its handler, without a goodbye
PROGRAM = """
import os, sys, threading
from networkio_threads import Config, Node

handled = threading.Event()

def handle(message):
    print(message.data, message.redelivered, flush=True)
    if message.data == 3 and sys.argv[2] == "exit":
        os._exit(7)
    if message.data == 5:
        handled.set()

with Node("client", config=Config(linger=0.2, drain_timeout=0.2)) as here:
    here.connect("127.0.0.1", int(sys.argv[1]), "server")
    threading.Thread(target=here.serve, args=[handle], daemon=True).start()
    assert handled.wait(20)
"""


@pytest.mark.slow
def test_a_program_that_exits_inside_of_a_handler_has_not_acknowledged_what_it_was_at() -> None:
    with node("server", drain_timeout=5) as server:
        port = server.listen("127.0.0.1", 0).port
        peer = server.peer("client")
        for number in range(1, 6):
            peer.send(number)
        printed = []
        for what, code in (("exit", 7), ("finish", 0)):
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, str(port), what], capture_output=True, text=True, timeout=20, cwd=ROOT,
                check=False,
            )  # fmt: skip
            printed.append(done.stdout.split("\n")[:-1])
            assert done.returncode == code, done.stderr
        assert printed[0] == ["1 False", "2 False", "3 False"]
        assert printed[1][-3:] == ["3 True", "4 True", "5 True"]
        assert printed[1][:-3] in ([], ["2 True"], ["1 True", "2 True"])  # acknowledged, perhaps not yet told
        until(lambda: peer.session.ledger.read >= 4)  # the last one's handler may have been overtaken by the end
