"""``networkio listen``: every message that comes, written down and then acknowledged.

Theory of operation
-------------------
Messages are taken in batches, one peer after the other.  A batch is formed, written with one call, and acknowledged
with another one: what a peer learns to be read is with the operating system.  A message that has no place in the chosen
form is rejected with the reason, and those after it are not held up.

With a journal and a file to write to, the acknowledgements and the mark behind the batch are one transaction (see
``_marks``).  If that finds no room on the disk, the batch stands in the file and is marked as soon as there is some.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from networkio_proto import Gap, JournalFull, MessagesReady, PeerConnected, PeerRestarted
from networkio_proto.errors import printable
from networkio_proto.handles import MessageHandle

from ._bridge import Node, Peer, open_node
from ._marks import Mark, Place
from ._output import Output
from ._terminal import (
    BEAT,
    INTERRUPTED,
    CommandError,
    Interrupted,
    Interrupts,
    Refused,
    StatusLine,
    harmless,
    one_line,
    plural,
)
from ._trust import Trust

__all__ = ["FORMS", "as_text", "is_ping", "run"]

#: so much is written and acknowledged at a time
_BATCH_MESSAGES = 2000
_BATCH_BYTES = 1 << 20

#: the next try to acknowledge, after the disk was full (seconds)
_RETRY = 0.5

#: so many rejections are told one by one; what comes after is counted
_REJECTIONS_TOLD = 10

#: the most characters of a reason
_REASON = 200


class Unwritable(ValueError):
    """A message has no place in the chosen form; what this says is what its sender will be told."""


# -- forms ------------------------------------------------------------------------------------------------------------


def as_text(data: Any) -> bytes:
    """One line: text and bytes as they are, anything else as JSON, or as Python shows it where JSON cannot."""
    if type(data) is str:
        line = data.encode()
    elif type(data) is bytes:
        line = data
    else:
        try:
            line = json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError):
            line = repr(data).encode(errors="backslashreplace")
    if b"\n" in line:
        raise Unwritable("it holds a line break, and this listener writes one line for a message")
    return line + b"\n"


def as_json(data: Any) -> bytes:
    """One JSON document on a line."""
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise Unwritable(f"JSON cannot carry it: {error}") from error


def as_bytes(data: Any) -> bytes:
    """Bytes, and nothing else."""
    if type(data) is not bytes:
        raise Unwritable(f"this listener writes bytes only, and it is of type {type(data).__name__}")
    return data


FORMS: dict[str, Callable[[Any], bytes]] = {"text": as_text, "json": as_json, "raw": as_bytes}


def is_ping(message: MessageHandle) -> bool:
    """Is it one of ``networkio ping``, which is acknowledged and not shown?"""
    return message.headers.get("networkio") == "ping"


# -- the command ------------------------------------------------------------------------------------------------------


class Listening:
    """What has been written so far, and how to go on."""

    def __init__(
        self, form: str, output: Output, place: Place | None, interrupts: Interrupts, status: StatusLine
    ) -> None:
        self._form = FORMS[form]
        self._output = output
        self._place = place
        self._interrupts = interrupts
        self._status = status
        self._screen = output.is_terminal
        self._known: set[str] = set()
        self.written = 0
        self.rejected = 0

    def __str__(self) -> str:
        rejected = f", {self.rejected:,} rejected" if self.rejected else ""
        return f"{plural(self.written, 'message')} written and acknowledged{rejected}"

    def take(self, peer: Peer) -> bool:
        """Write down and acknowledge what is there from this peer; False if there was nothing.

        Raises OSError, JournalError, Interrupted.
        """
        messages = peer.receive_some(_BATCH_MESSAGES, _BATCH_BYTES)
        if not messages:
            return False
        lines: list[bytes] = []
        rejected: dict[int, str] = {}
        for place, message in enumerate(messages):
            try:
                if not is_ping(message):
                    lines.append(self._form(message.data))
            except (ValueError, RecursionError) as error:  # also of what cannot be decoded, or shown: 10,000 digits
                rejected[place] = printable(error, _REASON)
        self._output.write(self._shown(b"".join(lines)))
        if self._place is None or self._output.mark is None:
            peer.settle(messages, rejected)
        else:
            self._commit(peer, messages, rejected, self._place, self._output.mark)
        self.written += len(lines)
        for place, reason in rejected.items():
            self._tell_rejection(peer, messages[place].sequence, reason)
        return True

    def _commit(
        self, peer: Peer, messages: list[MessageHandle], rejected: dict[int, str], place: Place, mark: Mark
    ) -> None:
        full = False
        while True:
            try:
                committed = peer.commit(messages, rejected, lambda db: place.save(db, mark))
                return self._interrupts.wait(committed, self.draw)
            except JournalFull as error:
                if not full:
                    self._status.say(f"nothing is acknowledged until there is room: {one_line(error)}")
                full = True
            self._interrupts.sleep(_RETRY)

    def _shown(self, data: bytes) -> bytes:
        if not self._screen:
            return data
        lines = data.decode(errors="backslashreplace").split("\n")
        return "\n".join(map(harmless, lines)).encode()

    def _tell_rejection(self, peer: Peer, sequence: int, reason: str) -> None:
        self.rejected += 1
        if self.rejected <= _REJECTIONS_TOLD:
            self._status.say(f"message {sequence} of {peer.id} was rejected: {reason}")
        if self.rejected == _REJECTIONS_TOLD:
            self._status.say("further rejections are only counted")

    def tell(self, notice: object) -> None:
        """What somebody who reads the log of a listener wants to know."""
        match notice:
            case PeerConnected(peer=peer) if peer.id not in self._known:
                self._known.add(peer.id)
                self._status.say(f"{peer.id} is connected")
            case PeerRestarted(peer=peer, positions=before) if before is not None:
                self._status.say(
                    f"a new process of {peer.id} is there; what the old one had not delivered and kept no journal of "
                    "is gone"
                )
            case Gap(peer=peer, ranges=ranges):
                missing = sum(gap.last - gap.first + 1 for gap in ranges)
                self._status.say(f"{plural(missing, 'message')} of {peer.id} will not come")

    def draw(self) -> None:
        """The status line."""
        self._status.show(str(self))


def run(
    adapter: str,
    address: tuple[str, int],
    peer_id: str,
    *,
    form: str,
    path: str | None,
    trust: Trust,
    journal: str | None = None,
) -> int:
    """The ``listen`` command; returns its exit code.  Raises CommandError, NetworkioError, OSError."""
    with Interrupts() as interrupts, open_node(adapter, peer_id, trust=trust, journal=journal) as node:
        host, port = address
        port = node.listen(host, port)  # before the file is touched: somebody else may be writing to it
        place = None if path is None or journal is None else Place("output", path)
        output = Output(path, lines=form != "raw")
        try:
            if place is not None:
                _resume(node, output, place, interrupts)
            if form == "raw" and output.is_terminal:
                raise CommandError("--raw writes whatever comes, which is nothing for a terminal; name a file")
            status = StatusLine(hidden=output.is_terminal)
            if output.cut:
                size = plural(output.cut, "byte")
                what = f"an unfinished line of {size}" if place is None else f"{size} that were not acknowledged"
                status.say(f"cut {what} off the end of {printable(path)}")
            status.say(f"{peer_id} listens on {host} port {port}")
            listening = Listening(form, output, place, interrupts, status)
            try:
                with Refused() as refused:
                    _listen(node, listening, interrupts, partial(refused.tell, status))
            except Interrupted:
                status.say(f"interrupted: {listening}")
                return INTERRUPTED
        finally:
            output.close()


def _resume(node: Node, output: Output, place: Place, interrupts: Interrupts) -> None:
    """Bring the file to its mark, and see to it that there is one before anything is written."""
    kept = interrupts.wait(node.record(place.load), lambda: None)
    output.resume(place, kept)
    mark = output.mark
    if kept is None and mark is not None:
        interrupts.wait(node.record(lambda db: place.save(db, mark)), lambda: None)


def _listen(node: Node, listening: Listening, interrupts: Interrupts, look: Callable[[], None]) -> NoReturn:
    """Until Interrupted."""
    ready: deque[Peer] = deque()
    while True:
        interrupts.check()
        look()
        notice = node.next_notice(0 if ready else BEAT)
        if isinstance(notice, MessagesReady) and notice.peer not in ready:
            ready.append(notice.peer)
        listening.tell(notice)
        if ready:
            peer = ready.popleft()
            if listening.take(peer):
                ready.append(peer)  # whoever has more waits for its turn
        listening.draw()
