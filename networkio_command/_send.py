"""``networkio send``: a file or standard input, as messages that are followed until they are read.

Theory of operation
-------------------
The outbox takes messages as long as it has room, so this process holds a bounded part of the input, whatever its size
and whether or not there is a connection.  Messages are acknowledged in order, so the receipt of the last one stands for
all; how each of them ended is in the ledger.

With a journal a batch is accepted in one transaction with the mark of the input behind it.  A process that is killed is
followed by one that goes on there, and that waits for what its forerunners left in the outbox, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice
from typing import Any, Literal

from networkio_proto import ConnectionFailure, DeliveryFailure, EncodeError, Failure, MessageTooLarge
from networkio_proto.errors import printable

from ._bridge import Node, Peer, Receipt, open_node
from ._dial import Link, meet
from ._input import Chunks, Documents, Lines, Source, open_input
from ._marks import Mark, Place
from ._terminal import (
    BEAT,
    INTERRUPTED,
    CommandError,
    Interrupted,
    Interrupts,
    StatusLine,
    bar,
    one_line,
    plural,
    told,
)
from ._trust import Trust

__all__ = ["Stage", "run"]

Stage = Literal["accepted", "received", "read"]

#: messages that are handed to the outbox at a time
_BATCH = 1000

#: so many failures are told one by one
_FAILURES_TOLD = 10

#: with ``--wait accepted``, what is under way still gets so long to be read (seconds)
_GOODBYE = 5.0


class Sending:
    """One input on its way to one peer; ``keep(db, mark)`` writes down in its journal, if it has one, how far."""

    def __init__(
        self,
        source: Source,
        size: int | None,
        keep: Callable[[Any, Mark], None] | None,
        peer: Peer,
        link: Link,
        interrupts: Interrupts,
        status: StatusLine,
    ) -> None:
        self._source = source
        self._size = size
        self._keep = keep
        self._peer = peer
        self._link = link
        self._interrupts = interrupts
        self._status = status
        self._looked_at = self._began = time.monotonic()
        self._last: Receipt | None = None
        self._accepted = 0

    def all(self) -> str:
        """Hand everything to the outbox; why it was not everything, or nothing.  Raises Interrupted."""
        raw = isinstance(self._source, Chunks)
        while not self._source.ended:
            self._look()
            try:
                messages = self._source.next(BEAT)
                self._accept(messages, raw)
            except CommandError as error:
                return str(error)
            except (EncodeError, MessageTooLarge) as error:
                return f"{'chunk' if raw else 'line'} {self._accepted + 1} cannot be sent: {error}"
        return ""

    def _accept(self, messages: list[Any], raw: bool) -> None:
        done = 0
        while done < len(messages):
            self._look()
            receipt: Receipt | None
            if self._keep is None:
                count, receipt = self._peer.send_some(messages[done : done + _BATCH], raw=raw, timeout=BEAT)
            else:
                sent = self._send_all(messages, done, raw, self._keep)
                count, receipt = self._interrupts.wait(sent, self._look)
            self._last = receipt or self._last
            self._accepted += count
            done += count

    def _send_all(
        self, messages: list[Any], done: int, raw: bool, keep: Callable[[Any, Mark], None]
    ) -> Future[tuple[int, Receipt]]:
        def note(db: Any, count: int) -> None:
            keep(db, self._source.mark(done + count))

        return self._peer.send_all(messages[done:], note, raw=raw)

    def wait(self, stage: Stage) -> None:
        """Until every message is there; raises Interrupted."""
        while self._last is not None and stage != "accepted":
            self._look()
            try:
                if stage == "received":
                    self._last.received(BEAT)
                else:
                    self._last.read(BEAT)
                break
            except TimeoutError:
                continue
            except DeliveryFailure:  # it is in the ledger, with any others
                break
        while self._last is None and stage != "accepted" and self._left(stage):  # by an earlier process
            self._look()
            self._interrupts.sleep(BEAT)
        self._draw()

    def _left(self, stage: Stage) -> int:
        return self._peer.unreceived if stage == "received" else self._peer.unread

    def _look(self) -> None:
        self._interrupts.check()
        now = time.monotonic()
        if now >= self._looked_at + BEAT:
            self._looked_at = now
            self._link.look()
            self._draw()

    def _draw(self) -> None:
        if not self._status.is_terminal:
            return
        ledger = self._peer.ledger
        seconds = time.monotonic() - self._began
        text = (
            f"{ledger.read:,} of {ledger.accepted:,} read  {plural(self._peer.reconnects, 'reconnect')}  "
            f"{seconds:.1f} s"
        )
        if self._size is not None:
            share = ledger.read / ledger.accepted if ledger.accepted else 0.0
            text = f"{bar(min(1.0, share * self._source.position / self._size))}  {text}"
        self._status.draw(text)


def run(
    adapter: str,
    address: tuple[str, int],
    peer_id: str,
    *,
    to: str | None,
    path: str | None,
    form: Literal["text", "json", "raw"],
    chunk: int,
    stage: Stage,
    trust: Trust,
    journal: str | None = None,
) -> int:
    """The ``send`` command; returns its exit code.  Raises CommandError, NetworkioError, OSError."""
    descriptor, size = open_input(path)
    status = StatusLine()
    try:
        with Interrupts() as interrupts, open_node(adapter, peer_id, trust=trust, journal=journal) as node:
            try:
                peer = meet(node, address, to, interrupts, status)
                place = None if size is None or path is None else Place("input", path, peer.id)
                mark = Mark() if journal is None or place is None else _resume(node, place, descriptor, interrupts)
                if form != "raw" and size is not None and 0 < mark.length < size and not mark.tail.endswith(b"\n"):
                    raise CommandError(
                        f"the last line of {printable(path)} was sent before it was finished, and has grown since: its "
                        f"rest would be a line of its own; begin a new journal, or send the rest from a file of its own"
                    )
                if mark.length:
                    status.say(f"{printable(path)} goes on behind its first {plural(mark.length, 'byte')}")
                keep = None if journal is None else place.save if place is not None else _keep_nothing
                source = _source(descriptor, form, chunk, mark)
                sending = Sending(source, size, keep, peer, Link(node, peer, status), interrupts, status)
                try:
                    complaint = sending.all()
                    sending.wait(stage)
                except ConnectionFailure as error:  # nobody dials any more
                    complaint, stage = str(error), "read"
            except Interrupted:
                status.say(f"interrupted: {told(node.close(0))}")
                return INTERRUPTED
            ledger = node.close(_GOODBYE if stage == "accepted" else 0)
            for failure in islice(peer.failures(), _FAILURES_TOLD):
                status.say(_account(failure))
            if complaint:
                status.say(complaint)
            missing = {"accepted": 0, "received": 0, "read": ledger.unread}[stage]
            failed = bool(complaint or ledger.failed or missing)
            if failed or ledger.unread or status.is_terminal:
                status.say(told(ledger))
            return int(failed)
    finally:
        status.clear()
        if path is not None and descriptor:
            os.close(descriptor)


def _resume(node: Node, place: Place, descriptor: int, interrupts: Interrupts) -> Mark:
    """Go to where the journal says that the input was accepted to."""
    kept = interrupts.wait(node.record(place.load), lambda: None)
    return Mark() if kept is None else place.find(descriptor, kept)


def _keep_nothing(_db: Any, _mark: Mark) -> None:
    """A pipe cannot be gone back to."""


def _source(descriptor: int, form: Literal["text", "json", "raw"], chunk: int, mark: Mark) -> Source:
    if form == "raw":
        return Chunks(descriptor, chunk, mark)
    return Documents(descriptor, mark) if form == "json" else Lines(descriptor, mark)


def _account(failure: Failure) -> str:
    error = one_line(failure.error(failure.first))
    more = failure.last - failure.first
    return f"{error}; and so {plural(more, 'message')} after it" if more else error
