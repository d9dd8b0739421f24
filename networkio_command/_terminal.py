"""What people see and press: lines and a bar on standard error, text made safe, Ctrl-C.

Theory of operation
-------------------
Ctrl-C only sets a flag, which the loop of a command looks at several times a second: the main thread is never
interrupted inside the library, and what was promised to the peer is kept.  The second Ctrl-C ends the process where
it stands.

The bar is one line that is drawn over and over, on terminals only.  Whatever else is said takes it away first.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import FrameType
from typing import Any, Self, TypeVar

from networkio_proto.errors import printable
from networkio_proto.ledger import Ledger

__all__ = [
    "BEAT",
    "INTERRUPTED",
    "Refused",
    "CommandError",
    "Interrupted",
    "Interrupts",
    "StatusLine",
    "bar",
    "harmless",
    "one_line",
    "plural",
    "told",
]

T = TypeVar("T")

#: a command looks at its flag, its status line and its input at least so often (seconds)
BEAT = 0.1

#: within so long it is one Ctrl-C: programs that start others pass on what the terminal sends to all (seconds)
_ONE_PRESS = 0.3

#: the exit code after Ctrl-C, as shells have it
INTERRUPTED = 130


class CommandError(Exception):
    """The command cannot go on; what it says is for whoever called it."""


class Interrupted(Exception):
    """Ctrl-C was pressed; raised where the command looks, and nowhere else."""


class Interrupts:
    """Ctrl-C, for the length of a block.  A process that was started to ignore it goes on doing so."""

    def __init__(self) -> None:
        self._pressed = False
        self._pressed_at = 0.0
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._pressed:
            self._pressed, self._pressed_at = True, now
        elif now > self._pressed_at + _ONE_PRESS:
            os._exit(INTERRUPTED)

    def check(self) -> None:
        """Raises Interrupted if Ctrl-C was pressed."""
        if self._pressed:
            raise Interrupted

    def sleep(self, seconds: float) -> None:
        """Do nothing for so long; raises Interrupted."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, BEAT))
        self.check()

    def join(self, future: Future[T]) -> T | None:
        """What the Future brings or raises, or None if that takes longer than a beat; raises Interrupted."""
        if self._pressed:
            future.cancel()
            raise Interrupted
        return future.result() if wait([future], BEAT).done else None

    def wait(self, future: Future[T], look: Callable[[], None]) -> T:
        """What the Future brings or raises; ``look`` is called each beat.  Raises Interrupted, and what ``look`` does.

        Then the Future is cancelled: nobody waits for it.
        """
        try:
            self.check()
            while not wait([future], BEAT).done:
                self.check()
                look()
        except BaseException:
            future.cancel()
            raise
        return future.result()


class StatusLine:
    """The last line of a terminal's standard error; elsewhere nothing is drawn."""

    def __init__(self, *, hidden: bool = False) -> None:
        self.is_terminal = sys.stderr.isatty() and not hidden
        self._width = 0
        self._shown_at = 0.0

    def show(self, text: str) -> None:
        """As :meth:`draw`, but not more often than people can see."""
        if self.is_terminal and (now := time.monotonic()) >= self._shown_at + BEAT:
            self._shown_at = now
            self._draw(text)

    def draw(self, text: str) -> None:
        """Show this in place of what it shows."""
        if self.is_terminal:
            self._draw(text)

    def clear(self) -> None:
        """Take it away."""
        if self._width:
            self._draw("")
            print(end="\r", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line of its own, that stays."""
        self.clear()
        print(f"networkio: {text}", file=sys.stderr, flush=True)

    def _draw(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]
        print(f"\r{text:{self._width}}", end="", file=sys.stderr, flush=True)
        self._width = len(text)


class Refused(logging.Handler):
    """Whoever dialled and did not get in, as the library logs it; kept for whoever looks at it, inside of ``with``."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: deque[str] = deque(maxlen=100)
        self._logger = logging.getLogger("networkio")

    def emit(self, record: logging.LogRecord) -> None:
        """From any thread."""
        text = record.getMessage()
        if record.levelno == logging.WARNING and "handshake" in text:
            self._lines.append(text)

    def tell(self, status: StatusLine) -> None:
        """A line for each that is new."""
        while self._lines:
            status.say(self._lines.popleft())

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)


def bar(part: float) -> str:
    """A share, drawn."""
    done = "#" * int(20 * part)
    return f"[{done:.<20}] {part:4.0%}"


def harmless(text: str) -> str:
    """Text of somebody else, fit for a terminal: what is no letter, digit, sign or blank is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else printable(c) for c in text)


#: how this command says what the library's errors say in Python
_HINTS = {
    'auth="insecure"': "--keys FILE; --certificate FILE --authority FILE; --insecure",
    "has to know whom it dials": "--to PEER",
}


def one_line(error: BaseException) -> str:
    """What an exception says, or the operating system: for whoever typed the command."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{printable(error.filename)}: " if error.filename is not None else ""
        return name + error.strerror
    text = str(error)
    for words, options in _HINTS.items():
        if words in text:
            text += f" (for this command: {options})"
    return text


def plural(number: int, noun: str) -> str:
    """So many of them."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def told(ledger: Ledger) -> str:
    """The account of what was sent: how many messages ended how."""
    ends = [(ledger.accepted, "accepted"), (ledger.read, "read"), (ledger.unread, "not known to be read")]
    ends += [(getattr(ledger, name), name) for name in ("rejected", "expired", "cancelled", "lost", "abandoned")]
    return ", ".join(f"{count:,} {end}" for count, end in ends if count or end in ("accepted", "read"))
