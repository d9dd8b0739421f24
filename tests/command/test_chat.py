"""``networkio chat``: two people, or two pipes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from networkio_command._bridge import open_node
from networkio_command._trust import Trust
from tests.command.helpers import COMMAND, ROOT, Running, proxied, run, running


@contextmanager
def alice_and_bob() -> Iterator[tuple[Running, Running]]:
    """Alice waits, bob dials."""
    with running("chat", 0, "--id", "alice") as alice:
        port = alice.output.expect(r"^-- alice waits on 127\.0\.0\.1 port (\d+) for whoever dials\n")[1]
        with running("chat", f"localhost:{port}", "--id", "bob") as bob:
            alice.output.expect("^-- connected to bob\n")
            bob.output.expect("^-- connected to alice\n")
            yield alice, bob


def test_lines_are_shown_and_ticked_on_both_sides_and_both_leave_when_both_have_ended() -> None:
    with alice_and_bob() as (alice, bob):
        alice.type("Gr\u00fc\u00df dich")
        bob.output.expect("^alice: Gr\u00fc\u00df dich\n")
        alice.output.expect("^\u2713\u2713 Gr\u00fc\u00df dich\n")
        bob.type("and you")
        alice.output.expect("^bob: and you\n")
        bob.output.expect("^\u2713\u2713 and you\n")
        alice.input.close()
        bob.output.expect("^-- alice has nothing more to say\n")
        bob.type("so be it")
        alice.output.expect("^bob: so be it\n")  # a pipe stays as long as there may be something to take
        bob.input.close()
        assert (alice.wait(), bob.wait()) == (0, 0)
        assert alice.errors.rest() + bob.errors.rest() == b""


def test_one_tick_is_received_and_two_are_read() -> None:
    with open_node("asyncio", "slow", trust=Trust()) as node:
        port = node.listen("127.0.0.1", 0)
        with running("chat", f"127.0.0.1:{port}", "--id", "bob") as bob:
            bob.type("are you there?")
            bob.output.expect("^\u2713 are you there")
            peer = node.peer("bob")
            peer.settle(peer.receive_some(9, 999), {})
            bob.output.expect("^\u2713\u2713 are you there")
            bob.type("nonsense")
            bob.output.expect("^\u2713 nonsense")
            peer.settle(peer.receive_some(9, 999), {0: "no\nsense"})
            bob.output.expect(r"^\u2717 nonsense \(rejected: no\\nsense\)")
            bob.input.close()
            peer.end()
            assert bob.wait() == 1  # not everything was read
            assert bob.errors.rest() == b"networkio: 2 accepted, 1 read, 1 rejected\n"


def test_what_the_other_side_says_can_do_nothing_to_the_screen() -> None:
    with alice_and_bob() as (alice, bob):
        alice.type("\x1b[2J\u202e")
        bob.output.expect(r"^alice: \\x1b\[2J\\u202e\n")


def test_pings_are_read_and_not_shown() -> None:
    with running("chat", 0, "--id", "alice") as alice:
        port = alice.output.expect(r" port (\d+) ")[1]
        assert run("ping", port, "--id", "bob", "--count", 2, "--interval", 0).returncode == 0
        alice.interrupt()
        assert b"bob:" not in alice.output.rest()


def test_somebody_else_is_told_that_nobody_listens() -> None:
    with running("chat", 0, "--id", "alice", "--to", "bob") as alice:
        port = alice.output.expect(r" port (\d+) for bob\n")[1]
        result = run("send", port, "--id", "carol", data=b"hello\n")
        assert result.returncode == 1
        assert b"message 1 was rejected: alice is talking with bob" in result.stderr


@pytest.mark.slow
def test_outage_and_restart_are_told_and_what_was_typed_meanwhile_arrives() -> None:
    with running("chat", 0, "--id", "alice") as alice:
        port = alice.output.expect(r" port (\d+) ")[1]
        with proxied(int(port)) as (_, door), running("chat", f"localhost:{door}", "--id", "bob") as bob:
            bob.output.expect("^-- connected to alice")
            alice.process.kill()
            bob.output.expect("^-- not connected: the connection was lost")
            bob.type("still there?")
            bob.output.expect("^-- waiting: no connection to alice for .*next dial in")
            with running("chat", port, "--id", "alice") as again:
                again.output.expect("^bob: still there?")
                bob.output.expect("^-- connected to alice again, after ")
                bob.output.expect("^\u2713\u2713 still there?")


@pytest.mark.slow
def test_restart_of_the_other_side_is_told() -> None:
    with running("chat", 0, "--id", "alice") as alice:
        port = alice.output.expect(r" port (\d+) ")[1]
        for words in ("one", "two"):
            with running("chat", f"localhost:{port}", "--id", "bob") as bob:
                bob.type(words)
                alice.output.expect(f"^bob: {words}")
                bob.output.expect(f"^\u2713\u2713 {words}")
                bob.process.kill()
            alice.output.expect("^-- not connected: ")
        alice.interrupt()
        told = b"-- bob was restarted; what it had said, kept no journal of, and did not arrive is gone\n"
        assert told in alice.output.rest()


def test_terminal_that_ends_leaves_as_soon_as_all_is_read() -> None:
    with running("chat", 0, "--id", "alice") as alice:
        port = alice.output.expect(r" port (\d+) ")[1]
        ours, theirs = os.openpty()
        with subprocess.Popen(
            [*COMMAND, "chat", f"localhost:{port}", "--id", "bob"], stdin=theirs, stdout=subprocess.PIPE, cwd=ROOT
        ) as bob:
            os.close(theirs)
            os.write(ours, b"bye\n\x04")
            alice.output.expect("^bob: bye\n")
            assert bob.wait(30) == 0
            assert bob.stdout is not None
            assert re.search("\u2713\u2713 bye\n$", bob.stdout.read().decode())
        os.close(ours)
        alice.output.expect("^-- bob has nothing more to say\n")


def test_ctrl_c_tells_what_was_not_read() -> None:
    with running("chat", 0, "--id", "alice", "--to", "bob") as alice:
        alice.output.expect(" for bob\n")
        alice.type("anybody?")
        alice.output.expect("^-- waiting: no connection to bob .* it waits to be dialled")
        assert alice.interrupt() == "networkio: interrupted: 1 accepted, 0 read, 1 not known to be read\n"
