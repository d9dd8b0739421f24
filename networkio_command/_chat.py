"""``networkio chat``: two people, a line at a time, with ticks for what arrived and what was read.

Theory of operation
-------------------
One loop looks at three things in turn: the node's notices, the lines that were typed, and how long there has been no
connection.  A line of the other side is acknowledged when it is on the screen, so its second tick over there is true.
Own lines stay in a list until they are read or have failed.

Whoever has no more to say *ends* (Ctrl-D on a terminal, the end of a pipe).  A terminal then leaves as soon as all it
said is read.  A pipe stays until the other side has ended too: it may be there only to take what is said.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Literal

from networkio_proto import (
    ConfigurationError,
    Event,
    Failure,
    Gap,
    MessagesFailed,
    MessagesRead,
    MessagesReady,
    MessagesReceived,
    PeerConnected,
    PeerDisconnected,
    PeerEnded,
    PeerRestarted,
    SessionEnded,
)
from networkio_proto.errors import printable
from networkio_proto.handles import MessageHandle

from ._bridge import Node, Peer, Receipt, open_node
from ._dial import hopeless
from ._input import Lines
from ._listen import as_text, is_ping
from ._terminal import BEAT, INTERRUPTED, Interrupted, Interrupts, StatusLine, harmless, plural, told
from ._trust import Trust

__all__ = ["run"]

#: without a connection for so long, it is told what is being waited for; then again after the other (seconds)
_WORRIED_AFTER = 1.0
_WORRIED_AGAIN = 15.0

#: so much of an own line is repeated beside its tick
_SHOWN = 60

#: typed lines are looked for so often (seconds)
_GLANCE = 0.05

#: messages taken at a time
_BATCH = 100
_BATCH_BYTES = 1 << 20

Mark = Literal["", "received"]


class Screen:
    """Standard output, line by line; whatever came from outside is harmless there."""

    def __init__(self) -> None:
        try:
            "✓✗".encode(sys.stdout.encoding)
            self.tick, self.cross = "✓", "✗"
        except UnicodeEncodeError:
            self.tick, self.cross = "+", "x"

    def line(self, text: str) -> None:
        """One line, at once; raises OSError."""
        encoding = sys.stdout.encoding
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)

    def event(self, text: str) -> None:
        """Something happened that nobody said."""
        self.line(f"-- {text}")


class Chat:
    """One conversation, as one side sees it."""

    def __init__(self, node: Node, interrupts: Interrupts, screen: Screen, *, journaled: bool) -> None:
        self._node = node
        self._journaled = journaled
        #: the lines that are being written to the journal
        self._sending: Future[tuple[int, Receipt]] | None = None
        self._interrupts = interrupts
        self._screen = screen
        self._input = Lines(0)
        self._at_terminal = sys.stdin.isatty()
        self._peer: Peer | None = None
        self._typed: deque[str] = deque()
        #: own lines under way: what they say, and whether they were received
        self._said: dict[int, tuple[str, Mark]] = {}
        self._failed = 0
        self._ended = False
        self._peer_ended = False
        self._connected = False
        self._met = False
        self._worry_at = time.monotonic() + _WORRIED_AFTER

    def begin(self, peer: Peer) -> None:
        """With this peer, and from then on with nobody else."""
        if self._peer is None:
            self._peer = peer

    def dial(self, dialled: Future[Peer]) -> None:
        """Wait until somebody has answered; raises Interrupted, or the ConnectionFailure that waiting does not mend."""
        while (peer := self._interrupts.join(dialled)) is None:
            self._worry(str(self._node.dial_error() or "no answer yet"))
        self.begin(peer)

    def talk(self) -> bool:
        """Until it is over: was everything that we said read?  Raises Interrupted, ConnectionFailure."""
        while not self._over():
            self._interrupts.check()
            self._hear(self._node.next_notice(_GLANCE))
            if not self._input.ended:
                self._typed += (_typed(line) for line in self._input.next(0))
            if self._peer is not None:
                self._speak(self._peer)
                if not self._connected:
                    self._worry(self._peer.why())
        return not (self._failed or self._said or self._typed)

    def _over(self) -> bool:
        if not self._input.ended or self._typed or self._said:
            return False
        return self._peer_ended or self._at_terminal

    # -- speaking -----------------------------------------------------------------------------------------------

    def _speak(self, peer: Peer) -> None:
        if self._sending is not None:
            if self._sending.done():
                sent, self._sending = self._sending.result(), None
                self._accepted(*sent)
        elif self._typed and self._journaled:  # the disk takes its time, and what waits for it is not to be given up
            self._sending = peer.send_all(list(self._typed), lambda db, count: None, raw=False)
        elif self._typed:
            self._accepted(*peer.send_some(list(self._typed), raw=False, timeout=_GLANCE))
        elif self._input.ended and not self._ended:
            self._ended = True
            peer.end()

    def _accepted(self, count: int, receipt: Receipt | None) -> None:
        """So many of the lines that were typed are accepted."""
        if receipt is not None:
            first = receipt.sequence - count + 1
            self._said |= {first + place: (self._typed.popleft(), "") for place in range(count)}

    def _tick(self, received: int, read: int) -> None:
        """Mark own lines up to these numbers."""
        assert self._peer is not None
        failures = {
            sequence: failure for failure in self._peer.failures() for sequence in _within(failure, self._said)
        }
        for sequence, (text, mark) in list(self._said.items()):
            if sequence in failures:
                del self._said[sequence]
                self._failed += 1
                self._screen.line(f"{self._screen.cross} {_short(text)} ({_end(failures[sequence])})")
            elif sequence <= read:
                del self._said[sequence]
                self._screen.line(f"{2 * self._screen.tick} {_short(text)}")
            elif sequence <= received and not mark:
                self._said[sequence] = (text, "received")
                self._screen.line(f"{self._screen.tick} {_short(text)}")

    # -- hearing ------------------------------------------------------------------------------------------------

    def _hear(self, notice: Event | None) -> None:
        """What happened, if it is about the one peer of this conversation."""
        if notice is None:
            return
        self.begin(notice.peer)
        match notice:
            case MessagesReady(peer=peer):
                (self._listen if peer is self._peer else self._turn_away)(peer)
            case _ if notice.peer is not self._peer:
                pass
            case MessagesReceived(through=through):
                self._tick(through, 0)
            case MessagesRead(through=through):
                self._tick(0, through)
            case MessagesFailed():
                self._tick(0, 0)
            case _:
                self._note(notice)

    def _turn_away(self, peer: Peer) -> None:
        """Somebody else speaks: they learn why nobody listens."""
        assert self._peer is not None
        reason = f"{self._node.id} is talking with {self._peer.id}"
        while messages := peer.receive_some(_BATCH, _BATCH_BYTES):
            peer.settle(messages, {place: reason for place, message in enumerate(messages) if not is_ping(message)})

    def _listen(self, peer: Peer) -> None:
        while messages := peer.receive_some(_BATCH, _BATCH_BYTES):
            rejected: dict[int, str] = {}
            for place, message in enumerate(messages):
                if not is_ping(message):
                    reason = self._show(peer, message)
                    if reason:
                        rejected[place] = reason
            peer.settle(messages, rejected)

    def _show(self, peer: Peer, message: MessageHandle) -> str:
        """Put it on the screen; why that cannot be, or nothing."""
        try:
            text = as_text(message.data).decode(errors="backslashreplace").removesuffix("\n")
        except (ValueError, RecursionError) as error:
            return printable(error, 200)
        again = " (perhaps again)" if message.redelivered else ""
        self._screen.line(f"{peer.id}: {harmless(text)}{again}")
        return ""

    def _note(self, notice: Event) -> None:
        """Tell what became of the connection, or of the peer."""
        match notice:
            case PeerConnected(peer=peer, resumed=resumed):
                again = f" again, after {resumed.downtime:.1f} s" if resumed.resumed else ""
                self._connected = self._met = True
                self._screen.event(f"connected to {peer.id}{again}")
            case PeerDisconnected(error=error):
                if self._connected:
                    self._worry_at = time.monotonic() + _WORRIED_AFTER
                    self._screen.event(f"not connected: {error}")
                elif not self._met and hopeless(error):
                    raise error
                self._connected = False
            case PeerRestarted(peer=peer, positions=before):
                self._peer_ended = False
                if before is not None:
                    self._screen.event(
                        f"{peer.id} was restarted; what it had said, kept no journal of, and did not arrive is gone"
                    )
            case Gap(peer=peer, ranges=ranges):
                missing = sum(gap.last - gap.first + 1 for gap in ranges)
                self._screen.event(f"{plural(missing, 'line')} of {peer.id} will not come")
            case PeerEnded(peer=peer):
                self._peer_ended = True
                self._screen.event(f"{peer.id} has nothing more to say")
            case SessionEnded():
                self._peer_ended = True

    def _worry(self, text: str) -> None:
        if time.monotonic() >= self._worry_at:
            self._worry_at = time.monotonic() + _WORRIED_AGAIN
            self._screen.event(f"waiting: {text}")


def _typed(line: str | bytes) -> str:
    text = line.decode(errors="replace") if isinstance(line, bytes) else line
    return text.removesuffix("\r")


def _short(text: str) -> str:
    return harmless(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def _within(failure: Failure, sequences: Mapping[int, object]) -> list[int]:
    return [sequence for sequence in sequences if failure.first <= sequence <= failure.last]


def _end(failure: Failure) -> str:
    return f"{failure.outcome.value}: {printable(failure.reason, 200)}" if failure.reason else failure.outcome.value


def run(
    adapter: str,
    address: tuple[str, int],
    peer_id: str,
    *,
    to: str | None,
    listens: bool,
    trust: Trust,
    journal: str | None = None,
) -> int:
    """The ``chat`` command; returns its exit code.  Raises NetworkioError, OSError."""
    host, port = address
    if to == peer_id:
        raise ConfigurationError(f"--to {to} is this side's own --id")
    with Interrupts() as interrupts, open_node(adapter, peer_id, trust=trust, journal=journal) as node:
        screen = Screen()
        chat = Chat(node, interrupts, screen, journaled=journal is not None)
        try:
            if listens:
                port = node.listen(host, port)
                screen.event(f"{peer_id} waits on {host} port {port} for {to or 'whoever dials'}")
                if to is not None:
                    chat.begin(node.peer(to))
            else:
                chat.dial(node.connect(host, port, to))
            everything_read = chat.talk()
        except Interrupted:
            StatusLine().say(f"interrupted: {told(node.close(0))}")
            return INTERRUPTED
        ledger = node.close(BEAT)
        if not everything_read:
            StatusLine().say(told(ledger))
        return int(not everything_read)
