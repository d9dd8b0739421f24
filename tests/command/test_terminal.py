"""What is different when a person looks on: a bar, and nothing that a peer could do to the screen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select

import pytest

from networkio_command._terminal import bar, harmless, one_line, plural, told
from networkio_proto import Ledger
from tests.command.helpers import COMMAND, PATIENCE, ROOT, listening, run, running


class Screen:
    """The other side of a terminal."""

    def __init__(self, ours: int, process: subprocess.Popen[bytes]) -> None:
        self._ours = ours
        self.process = process
        self.shown = b""

    def read_until(self, text: bytes) -> None:
        """Wait until it has been shown."""
        while text not in self.shown:
            assert select([self._ours], [], [], PATIENCE)[0], self.shown
            self.shown += os.read(self._ours, 65536)

    def read_all(self) -> bytes:
        """Everything, once the process has ended."""
        self.process.wait(60)
        try:
            while data := os.read(self._ours, 65536):
                self.shown += data
        except OSError:  # how Linux tells that the other side of a terminal is closed
            pass
        return self.shown


@contextmanager
def on_terminal(*arguments: object) -> Iterator[Screen]:
    """A command whose outputs are a terminal."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=ROOT
    ) as process:
        os.close(theirs)
        try:
            yield Screen(ours, process)
        finally:
            process.kill()
            os.close(ours)


def test_sender_draws_a_bar_and_ends_with_the_ledger(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"line\n" * 1000)
    with (
        listening("--output", tmp_path / "out") as (_, port),
        on_terminal("send", port, "--id", "x", tmp_path / "in") as screen,
    ):
        shown = screen.read_all().decode()
    assert "[####################] 100%  1,000 of 1,000 read  0 reconnects  " in shown
    assert shown.rstrip().endswith("networkio: 1,000 accepted, 1,000 read")
    assert max(map(len, shown.replace("\n", "\r").split("\r"))) < 100


def test_sender_of_a_pipe_draws_the_counts() -> None:
    with listening() as (_, port), on_terminal("send", port, "--id", "x") as screen:
        shown = screen.read_all().decode()
    assert "0 of 0 read  0 reconnects" in shown
    assert "[" not in shown


def test_listener_escapes_what_would_move_the_cursor() -> None:
    with on_terminal("listen", 0, "--id", "listener") as screen:
        screen.read_until(b" port ")
        screen.read_until(b"\n")
        port = int(screen.shown.split()[-1])
        evil = b"a\tb\x1b[2J Gr\xc3\xbc\xc3\x9fe\xff\n\xe2\x80\xae\n"
        assert run("send", port, "--id", "x", data=evil).returncode == 0
        screen.read_until(b"u202e\r\n")
    assert "\r\na\tb\\x1b[2J".expandtabs() in screen.shown.decode().expandtabs()
    assert b"\x1b" not in screen.shown
    assert "written and acknowledged" not in screen.shown.decode()  # no status line among the messages


def test_listener_refuses_to_pour_raw_bytes_on_it() -> None:
    with on_terminal("listen", 0, "--id", "listener", "--raw") as screen:
        assert b"networkio: --raw writes whatever comes, which is nothing for a terminal" in screen.read_all()
        assert screen.process.returncode == 1


def test_proxy_counts_on_it() -> None:
    with running("proxy", 0, 1) as target:
        port = target.output.expect(r":(\d+)")[1]
        with on_terminal("proxy", 0, port) as screen:
            screen.read_until(b"0 connections, 0 cuts, 0 bytes forwarded")


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Gr\u00fc\u00dfe \u2713", "Gr\u00fc\u00dfe \u2713"), ("\x00\x1b[0m", "\\x00\\x1b[0m"), ("a\tb", "a\tb"),
        ("\r\n", "\\r\\n"), ("\x9b", "\\x9b"), ("\u202e\u2066", "\\u202e\\u2066"), ("", ""),
    ],
)
def test_text_of_others_is_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_bar_fills() -> None:
    assert bar(0.0) == "[....................]   0%"
    assert bar(0.5) == "[##########..........]  50%"
    assert bar(1.0) == "[####################] 100%"


def test_words_for_numbers() -> None:
    assert (plural(1, "cut"), plural(0, "cut"), plural(1234, "cut")) == ("1 cut", "0 cuts", "1,234 cuts")
    assert told(Ledger(accepted=1200, read=7, rejected=3, lost=1)) == (
        "1,200 accepted, 7 read, 1,189 not known to be read, 3 rejected, 1 lost"
    )
    assert told(Ledger(accepted=2, read=2)) == "2 accepted, 2 read"


def test_words_for_errors() -> None:
    assert one_line(FileNotFoundError(2, "No such file or directory", "a\nb")) == "a\\nb: No such file or directory"
    assert one_line(BrokenPipeError(32, "Broken pipe")) == "Broken pipe"
    hint = "--keys FILE; --certificate FILE --authority FILE; --insecure"
    assert one_line(ValueError('say auth="insecure"')) == f'say auth="insecure" (for this command: {hint})'
    assert one_line(ValueError("it has to know whom it dials")).endswith("(for this command: --to PEER)")
