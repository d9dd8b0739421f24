"""``networkio send``: a file or standard input, as messages that are followed until they are read.

Theory of operation
-------------------
The outbox takes messages as long as it has room, so this process holds a bounded part of the input, whatever its size
and whether or not there is a connection.  Messages are acknowledged in order, so the receipt of the last one stands for
all; how each of them ended is in the ledger.
"""

from __future__ import annotations

import os
import time
from itertools import islice
from typing import Any, Literal

from networkio_proto import ConnectionFailure, DeliveryFailure, EncodeError, Failure, MessageTooLarge

from ._bridge import Peer, Receipt, open_node
from ._dial import Link, meet
from ._input import Chunks, Documents, Lines, Source, open_input
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
    """One input on its way to one peer."""

    def __init__(
        self, source: Source, size: int | None, peer: Peer, link: Link, interrupts: Interrupts, status: StatusLine
    ) -> None:
        self._source = source
        self._size = size
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
            count, receipt = self._peer.send_some(messages[done : done + _BATCH], raw=raw, timeout=BEAT)
            self._last = receipt or self._last
            self._accepted += count
            done += count

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
        self._draw()

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
) -> int:
    """The ``send`` command; returns its exit code.  Raises NetworkioError, OSError."""
    descriptor, size = open_input(path)
    status = StatusLine()
    try:
        with Interrupts() as interrupts, open_node(adapter, peer_id, trust=trust) as node:
            try:
                peer = meet(node, address, to, interrupts, status)
                source = _source(descriptor, form, chunk)
                sending = Sending(source, size, peer, Link(node, peer, status), interrupts, status)
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


def _source(descriptor: int, form: Literal["text", "json", "raw"], chunk: int) -> Source:
    if form == "raw":
        return Chunks(descriptor, chunk)
    return Documents(descriptor) if form == "json" else Lines(descriptor)


def _account(failure: Failure) -> str:
    error = one_line(failure.error(failure.first))
    more = failure.last - failure.first
    return f"{error}; and so {plural(more, 'message')} after it" if more else error
