"""All inboxes that one peer ever needed here: the present one, old ones, and what is left of the others.

Theory of operation
-------------------
A peer has one outbox to us at a time, and the inbox of that is the *present* one.  When it comes with another outbox
(a new process, a session that was begun anew), the old inbox stays for the application until everything in it is taken
and settled, and for the peer a while longer, should it return to that outbox.  An inbox ends up in one of two smaller
shapes: *dormant*, its positions alone, because nothing happened for long; or *ended*, its last positions, told to the
peer in ATTACH for a week so that the peer can settle its messages by them.  Nothing of an ended outbox may come again.

Which inbox is the newest, and which is read first, are two things.  A peer that was put back to an old copy can state
an outbox that it had left before, while what we hold of that is also in the outbox that it took instead, as copies.  So
an inbox keeps its *turn* with the reader until nothing in it is left, and a message comes before its flagged copies.
"""

from __future__ import annotations

from collections.abc import Iterator

from .handshake import MAX_ENDED, Attach, Ended, InboxFacts, Why
from .inbox import Delivery, Inbox

__all__ = ["Inboxes"]

#: inboxes of outboxes that the peer left are kept, newest last, while they hold something unread, and so many beyond
_OLD_INBOXES = 8


class Inboxes:
    """The inboxes of one session."""

    __slots__ = ("_ended", "_turns", "boxes", "dormant", "durable", "present")

    def __init__(self, *, durable: bool = False) -> None:
        #: is what comes on disk before anybody is told of it?
        self.durable = durable
        #: the one that the peer's present outbox feeds; None until it attached, and when the session is over
        self.present: Inbox | None = None
        #: all that may hold a message, the present one last
        self.boxes: list[Inbox] = []
        #: those that shrank to their positions
        self.dormant: list[InboxFacts] = []
        self._ended: list[tuple[float, Ended]] = []
        #: the last turn that was given
        self._turns = 0

    def __iter__(self) -> Iterator[Inbox]:
        return iter(self.boxes)

    # -- messages -----------------------------------------------------------------------------------------------

    @property
    def unread(self) -> int:
        """Messages that wait to be taken."""
        unread = 0
        for inbox in self.boxes:
            unread += len(inbox.ready) + len(inbox.returned)
        return unread

    @property
    def unsettled(self) -> int:
        """Cost of what came and is not settled."""
        unsettled = 0
        for inbox in self.boxes:
            unsettled += inbox.unsettled + inbox.partial
        return unsettled

    @property
    def held(self) -> int:
        """Messages that were taken and are not settled."""
        return sum(len(inbox.held) for inbox in self.boxes)

    @property
    def in_doubt(self) -> bool:
        """Is it being decided what is received?  Until then nothing can be stated."""
        return any(inbox.in_doubt for inbox in self.boxes)

    def unstage(self) -> None:
        """No connection brings anything now: what is not on disk, or being written, has not come."""
        for inbox in self.boxes:
            if not inbox.forsaken:
                inbox.unstage()

    def in_turn(self) -> list[Inbox]:
        """Those that may hold a message, as they are read."""
        return self.boxes if len(self.boxes) < 2 else sorted(self.boxes, key=_turn)

    def take(self, limit: int) -> list[Delivery]:
        """Hand over up to ``limit`` messages, those of old outboxes first; they are held."""
        taken: list[Delivery] = []
        for inbox in self.in_turn():
            while len(taken) < limit and (delivery := inbox.take()) is not None:
                taken.append(delivery)
        return taken

    def take_settled(self, limit: int) -> list[Delivery]:
        """The same, and they are settled at once."""
        taken: list[Delivery] = []
        for inbox in self.in_turn():
            taken += inbox.take_settled(limit - len(taken))
        return taken

    # -- what the peer is told ----------------------------------------------------------------------------------

    def reported(self) -> InboxFacts | None:
        """The newest inbox that holds something."""
        for inbox in reversed(self.boxes):
            told = inbox.stated_received != inbox.base
            if told and (inbox is self.present or not self.is_ended(inbox.outbox_id)):
                return inbox.facts()
        return self.dormant[-1] if self.dormant else None

    def ended(self, since: float) -> tuple[Ended, ...]:
        """The final positions that were put on record after ``since``, newest first; the others are forgotten."""
        self._ended = [item for item in self._ended if item[0] > since]
        return tuple(ended for _, ended in self._ended)

    def restore_ended(self, ended: tuple[Ended, ...], now: float) -> None:
        """What an earlier process had put on record, which lives no more; its time begins anew.

        What is unread of it stays for its reader.
        """
        self._ended = [(now, item) for item in ended]
        if self.present is not None and self.is_ended(self.present.outbox_id):
            self.present.forsake()
            self.present = None
        self.boxes = [box for box in self.boxes if not self.is_ended(box.outbox_id) or box.holding]

    def restore(self, boxes: list[Inbox], present: Inbox | None) -> None:
        """The inboxes as an earlier process left them."""
        for box in boxes:
            self._turns = max(self._turns, box.turn)
            if box is not present:
                box.forsake()
        self.boxes, self.present = boxes, present

    def is_ended(self, outbox_id: bytes) -> bool:
        """Is it on record as ended?  Nothing of it may come again."""
        return any(ended.outbox_id == outbox_id for _, ended in self._ended)

    def _record(self, f: InboxFacts, why: int, now: float) -> None:
        """The final positions of an inbox that is dropped, to be told as ``ended``.

        What an earlier process settled ahead had come, and everything before it.
        """
        received = max(f.received, f.seen)
        self._ended.insert(0, (now, Ended(f.outbox_id, f.run, received, f.read, f.first, why)))
        del self._ended[MAX_ENDED:]

    # -- from outbox to outbox ----------------------------------------------------------------------------------

    def open(self, attach: Attach, *, durable: bool, since: float) -> tuple[Inbox, InboxFacts | None]:
        """Find or make the inbox of the outbox that the peer attaches with; and what would have been reported before.

        It is the present one from here on.  ``durable``: nothing may be acknowledged that is not on disk.  ``since``:
        as of when a dropped inbox is put on record.
        """
        self.boxes = [Inbox.restored(facts, durable=self.durable) for facts in self.dormant] + self.boxes
        self.dormant = []
        old = self.present
        barred = self.is_ended(attach.outbox_id)
        inbox = None if barred else next((box for box in self.boxes if box.outbox_id == attach.outbox_id), None)
        if inbox is not None:
            inbox.unstage()
        if inbox is None or inbox.empty:
            if inbox is None:
                inbox = Inbox(attach.outbox_id, attach.run, attach.first, durable=self.durable)
            inbox.rebase(attach.first, attach.run)
            inbox.barred = barred
        else:
            inbox.passed(attach.first)
        if durable and (inbox.empty or inbox.durable_read is None):  # or it shrank, which it does when all is on disk
            inbox.durable_read = inbox.read
        inbox.forsaken = False
        if not inbox.holding:
            self._turns += 1
            inbox.turn = self._turns
        if old is not None and old is not inbox:
            old.unstage()
            old.forsake()
        previous = self.reported()
        self.boxes = [box for box in self.boxes if box is not inbox and not (box.empty and box.idle)]
        self.boxes.append(inbox)
        self.present = inbox
        self.drop_old(since)
        return inbox, previous

    def drop_old(self, since: float) -> None:
        """Old inboxes without anything unread are only positions; a few of the newest are kept."""
        idle = [box for box in self.boxes if box is not self.present and not box.holding]
        idle = [box for box in idle if not (box.kept and box.outdated)]  # else what it has settled comes again
        for box in idle[: max(0, len(idle) - _OLD_INBOXES)]:
            self.boxes.remove(box)
            self._record(box.facts(), Why.EXPIRED, since)

    def close(self, why: int, now: float) -> None:
        """The session is over: final positions on record; what is unread stays for its reader."""
        for facts in self.dormant + [box.last_facts() for box in self.boxes if not box.empty]:
            if not self.is_ended(facts.outbox_id):
                self._record(facts, why, now)
        for box in self.boxes:
            if not box.forsaken:
                box.forsake()
        self.boxes = [box for box in self.boxes if box.holding]
        self.dormant = []
        self.present = None

    def shrink(self) -> None:
        """Idle for long: inboxes with nothing in them, and nothing to tell, become their positions."""
        boxes = self.boxes
        busy = any(box.holding or box.fin or not box.idle or box.telling for box in boxes)
        # what is not on disk cannot be told again
        unwritten = any(box.stated_read < box.read or box.stated_received < box.received for box in boxes)
        if busy or unwritten or not boxes:  # without any it has shrunk before
            return
        self.dormant = [box.facts() for box in boxes if not (box.empty or self.is_ended(box.outbox_id))]
        self.boxes = []
        self.present = None


def _turn(inbox: Inbox) -> int:
    return inbox.turn
