"""The receiver's half of one direction: the mirror of one outbox of the peer.

Theory of operation
-------------------
Messages come in order and wait in ``ready``; the application takes them (they are then *held*) and settles them in any
order.  ``received`` is the last sequence that came; ``read`` is the end of the settled prefix.  What is settled ahead
of it, by the application or by itself (SKIP, FIN), waits in ``ahead``.

With a journal, ``ahead`` outlives the process: then some of it comes again, up to ``known``, is taken in and not handed
over.  There are never more ranges in it than messages that wait or are held, and one: the window bounds both.

In a *durable* inbox what comes is ``staged`` first.  It is ``ready`` when the journal has it, and until then it is as
if it were still under way: nobody is told of it, and it is gone with its connection, for on the next one its sender is
told otherwise (:meth:`Inbox.unstage`).  While some of it is being written, a connection has to wait (``in_doubt``).

Credit is one formula: the peer may have sent ``used + window - unsettled`` since the connection began, where ``used``
counts everything that came on it, duplicates too, so that a duplicate's cost is back at once.

A rejected message stays in ``rejects``, and its cost with it, until the peer's ``first`` has passed it: only then is it
certain that the peer knows.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NoReturn, TypeAlias

from .config import COST_PER_MESSAGE
from .errors import CloseCode, MessageNotHeld
from .events import GapRange, Positions
from .frames import MAX_SEQUENCE, PeerFault
from .handshake import InboxFacts
from .ranges import Ranges
from .requests import reply_to

__all__ = ["Delivery", "Details", "Inbox", "Reject", "cost_of", "message_id", "name", "named"]

#: stands for what is staged where nothing ever is: even an empty deque takes 600 bytes
_NEVER: deque[Delivery] = deque(maxlen=0)

#: so many separate gaps are told one by one with the next message
GAP_RANGES = 64


@dataclass(frozen=True, slots=True)
class Details:
    """What is out of the ordinary about a message; most have none."""

    #: None, or a map of the closed set (specification, *Frames*)
    headers: dict[str, object] | None = None
    headers_size: int = 0
    #: the sender flagged it: a dead process of this peer id may have seen it
    redelivered: bool = False
    #: how often it was handed over, this time included
    attempt: int = 1
    #: sequences before it that will not come
    gap: tuple[GapRange, ...] = ()
    #: the peer's process is a new one; where its old outbox stood
    peer_restarted: Positions | None = None
    #: its first name, where that was another
    origin: bytes | None = None

    @property
    def users_headers(self) -> dict[str, object]:
        """What the sender's application sent along: a copy, without the library's own."""
        return {key: value for key, value in (self.headers or {}).items() if not key.startswith(".")}


#: (inbox, sequence, payload, DATA flags, details): one light tuple a message
Delivery: TypeAlias = "tuple[Inbox, int, bytes, int, Details | None]"


@dataclass(frozen=True, slots=True)
class Reject:
    """A rejection that the peer may not know of yet."""

    sequence: int
    code: int
    text: str
    cost: int


def message_id(delivery: Delivery) -> str:
    """The same for every transmission of this message, and for no other message."""
    details = delivery[4]
    origin = None if details is None else details.origin
    if origin is None:
        return name(delivery[0].outbox_id, delivery[1])
    return name(origin[:16], int.from_bytes(origin[16:], "big"))


def name(outbox_id: bytes, sequence: int) -> str:
    """The id of a message: where it was first accepted."""
    return f"{outbox_id.hex()}-{sequence}"


def named(message_id: str) -> tuple[bytes, int]:
    """The outbox id and sequence in the id of a message; raises ValueError for what is none."""
    outbox_id, _, sequence = message_id.partition("-")
    found = bytes.fromhex(outbox_id), int(sequence)
    if name(*found) != message_id or len(found[0]) != 16:
        raise ValueError(message_id)
    return found


def cost_of(delivery: Delivery) -> int:
    """What it counts for in every bound."""
    details = delivery[4]
    return COST_PER_MESSAGE + len(delivery[2]) + (details.headers_size if details is not None else 0)


class Inbox:
    """One inbox.  The session drives it."""

    __slots__ = (
        "ahead",
        "allowed",
        "arriving",
        "base",
        "committing",
        "durable",
        "durable_read",
        "durable_rejects",
        "fin",
        "first",
        "foreseen",
        "forsaken",
        "gap",
        "held",
        "barred",
        "known",
        "outbox_id",
        "partial",
        "read",
        "ready",
        "received",
        "rejects",
        "replies",
        "restarted",
        "returned",
        "run",
        "staged",
        "stored",
        "stored_run",
        "turn",
        "unsettled",
        "unwritten",
        "used",
        "writing",
    )

    def __init__(self, outbox_id: bytes, run: bytes, first: int, *, durable: bool = False) -> None:
        self.outbox_id = outbox_id
        self.run = run
        #: the highest ``first`` that the sender told
        self.first = first
        #: where this inbox began; while ``received`` is here it holds nothing
        self.base = first - 1
        self.received = first - 1
        self.read = first - 1
        self.ready: deque[Delivery] = deque()
        #: is what comes on disk before anybody is told of it?
        self.durable = durable
        #: what came and is not on disk yet
        self.staged: deque[Delivery] = deque() if durable else _NEVER
        #: where that goes which comes
        self.arriving = self.staged if durable else self.ready
        #: what is being written: so many of ``staged``, and received and run with them; None: nothing is
        self.writing: tuple[int, int, bytes] | None = None
        #: what is not settled up to here is on disk, and the run that this was told under
        self.stored = first - 1 if durable else 0
        self.stored_run = run
        #: released messages, in order, before everything in ``ready``
        self.returned: list[Delivery] = []
        self.held: dict[int, Delivery] = {}
        #: replies that just came; they are held, and wait for the session to pass them on
        self.replies: list[Delivery] = []
        #: settled beyond ``read``
        self.ahead = Ranges()
        #: what of that an earlier process settled
        self.foreseen: tuple[tuple[int, int], ...] = ()
        #: the last of what an earlier process settled ahead; 0: nothing
        self.known = 0
        #: held, and in the records settled already: a transaction that is under way settles it
        self.committing: set[int] = set()
        #: was something settled ahead, and no record made of it yet?
        self.unwritten = False
        self.rejects: dict[int, Reject] = {}
        #: cost of what is neither settled nor (if rejected) known to be so
        self.unsettled = 0
        #: with a journal: ``read`` as it is on disk; nothing beyond may be acknowledged
        self.durable_read: int | None = None
        #: and the rejections that are on disk
        self.durable_rejects: frozenset[int] = frozenset()
        #: cost of the message whose fragments are coming in
        self.partial = 0
        self.fin = 0
        #: its sender went on to another outbox: acknowledging tells nobody
        self.forsaken = False
        #: it was told as ended: nothing of its outbox may come any more
        self.barred = False
        #: its place among the inboxes that are read, lowest first
        self.turn = 0
        #: what the next message will say beside itself
        self.gap: list[GapRange] = []
        self.restarted: Positions | None = None
        #: on the present connection: cost that came, and the credit that the peer was told
        self.used = 0
        self.allowed = 0

    # -- facts ------------------------------------------------------------------------------------------------------

    @property
    def unread(self) -> int:
        """Messages that wait to be taken."""
        return len(self.ready) + len(self.returned)

    @property
    def empty(self) -> bool:
        """Holds nothing of its outbox yet (it is reported as nil)."""
        return self.received == self.base

    @property
    def holding(self) -> bool:
        """Is there anything for its reader: waiting, taken, or on its way to the disk?"""
        return bool(self.ready or self.held or self.returned or self.staged)

    @property
    def kept(self) -> bool:
        """Are its messages on disk, or to be?  Else it comes to the journal only while it is the present one."""
        return self.durable or self.stored > 0

    @property
    def outdated(self) -> bool:
        """With a journal: is there anything of it that the disk has not?"""
        return (
            self.read != self.durable_read
            or self.unwritten
            or self.stated_received < self.received
            or bool(self.rejects.keys() - self.durable_rejects)
        )

    @property
    def in_doubt(self) -> bool:
        """Is it being decided what is received?"""
        return self.writing is not None and self.stored < self.writing[1]

    @property
    def telling(self) -> bool:
        """Will the next message say something beside itself?"""
        return bool(self.gap) or self.restarted is not None

    @property
    def idle(self) -> bool:
        """Is everything that came settled, and known to be?"""
        return self.read == self.received >= self.known and not self.rejects

    @property
    def ended(self) -> bool:
        """Did the peer's FIN come, for good?"""
        return 0 < self.fin <= self.stated_received

    @property
    def finished(self) -> bool:
        """Was the peer's FIN read, and everything before it?"""
        return self.fin > 0 and self.stated_read >= self.fin and not self.rejects

    @property
    def told_read(self) -> int:
        """``read`` as ATTACH tells it: below a rejection that the peer may not know."""
        return min(self.stated_read, min(self.rejects) - 1) if self.rejects else self.stated_read

    @property
    def stated_read(self) -> int:
        """``read`` as ACK tells it: what a crash cannot take back."""
        return self.read if self.durable_read is None else min(self.read, self.durable_read)

    @property
    def stated_received(self) -> int:
        """``received`` as the peer is told: in a durable inbox, what a crash cannot take back."""
        return self.stored if self.durable else self.received

    def facts(self) -> InboxFacts:
        """What ATTACH says of this inbox."""
        received, run = self.stated_received, self.stored_run if self.durable else self.run
        seen = self.known if self.known > received else 0
        return InboxFacts(self.outbox_id, run, received, self.told_read, self.first, seen)

    def last_facts(self) -> InboxFacts:
        """The same of one that is dropped: what is still to be handed over of it counts as received."""
        return replace(self.facts(), run=self.run, received=self.received)

    @classmethod
    def restored(cls, facts: InboxFacts, *, durable: bool = False) -> Inbox:
        """The inbox that shrank to ``facts`` because it was idle; it holds something."""
        inbox = cls(facts.outbox_id, facts.run, facts.first, durable=durable)
        inbox.base = -1
        inbox.received, inbox.read = facts.received, facts.read
        if durable:
            inbox.stored, inbox.durable_read = facts.received, facts.read
        return inbox

    # -- arriving ---------------------------------------------------------------------------------------------------

    def attach(self, credit: int) -> None:
        """A connection went live on which the peer may send ``credit``."""
        self.used = 0
        self.allowed = credit
        self.partial = 0

    def rebase(self, first: int, run: bytes) -> None:
        """Take the base anew, for an inbox that holds nothing."""
        self.first = first
        self.base = self.received = self.read = first - 1
        self.run = self.stored_run = run
        self.stored, self.writing = self.base if self.durable else 0, None

    def admit(self, cost: int) -> None:
        """Count what the peer starts to send: it may start while anything is left; raises PeerFault beyond."""
        if self.used >= self.allowed:
            raise PeerFault(CloseCode.FLOW, f"a cost of {self.used + cost} was sent, the credit is {self.allowed}")
        self.used += cost

    def expect(self, sequence: int) -> bool:
        """Is it the next one?  False: a duplicate; raises PeerFault for a hole, or where nothing may come."""
        self._check_open(sequence)
        if sequence != self.received + 1:
            if sequence > self.received:
                raise PeerFault(
                    CloseCode.PROTOCOL, f"sequence {sequence} came where {self.received + 1} was expected"
                )
            if not sequence:
                raise PeerFault(CloseCode.PROTOCOL, "there is no sequence 0")
            return False
        if self.fin:
            raise PeerFault(CloseCode.PROTOCOL, f"sequence {sequence} came after FIN {self.fin}")
        return True

    def _check_open(self, sequence: int) -> None:
        """May anything come at all?  Not even what would be a duplicate, where not; raises PeerFault."""
        if self.barred:
            raise PeerFault(CloseCode.PROTOCOL, f"sequence {sequence} of an outbox that has ended")
        if self.received == MAX_SEQUENCE and not self.fin:  # P-SKIP-13
            raise PeerFault(CloseCode.PROTOCOL, f"sequence {sequence} came after the last one that there is")

    def accept(self, sequence: int, payload: bytes, flags: int) -> bool:
        """Take in a message that has nothing special; the hot path.  False: it was a duplicate."""
        cost = len(payload) + COST_PER_MESSAGE
        if self.used < self.allowed:
            self.used += cost
        else:
            self.admit(cost)
        if (sequence != self.received + 1 or self.fin) and not self.expect(sequence):
            return False
        self.received = sequence
        if sequence <= self.known and self._settled_before(sequence):
            return False
        self.unsettled += cost
        details = self._details(None) if self.telling else None
        self.arriving.append((self, sequence, payload, flags, details))
        return True

    def accept_special(self, sequence: int, payload: bytes, flags: int, details: Details) -> bool:
        """Take in any message; its cost was admitted and its sequence is the expected one.

        False: it is a reply, and no part of the stream that is read; what there is to tell of those before it is left
        to the next message of the stream.  Or an earlier process has settled it.
        """
        self.received = sequence
        self.partial = 0
        if sequence <= self.known and self._settled_before(sequence):
            return False
        self.unsettled += COST_PER_MESSAGE + details.headers_size + len(payload)
        if reply_to(details.headers) is not None:
            reply = (self, sequence, payload, flags, details)
            if self.durable:
                self.staged.append(reply)
            else:
                self._divert(reply)
            return False
        self.arriving.append((self, sequence, payload, flags, self._details(details) if self.telling else details))
        return True

    def _divert(self, reply: Delivery) -> None:
        """It goes to whoever waits for it, past the stream."""
        self.held[reply[1]] = reply
        self.replies.append(reply)

    def _settled_before(self, sequence: int) -> bool:
        """Has an earlier process settled what came just now?  Then it is not handed over again."""
        if sequence not in self.ahead:
            return False
        self._advance()
        return True

    def _details(self, details: Details | None) -> Details:
        """Hang on the message what it has to tell of those before it."""
        details = replace(details or Details(), gap=tuple(self.gap), peer_restarted=self.restarted)
        self.gap, self.restarted = [], None
        return details

    def skip(self, first: int, last: int, reason: int) -> GapRange | None:
        """The peer's SKIP; returns what of it is new."""
        expected = self.received + 1
        self._check_open(first)
        if last < first or (self.fin and last > self.fin):
            raise PeerFault(CloseCode.PROTOCOL, f"SKIP {first} to {last} is impossible")
        if first > expected:
            raise PeerFault(CloseCode.PROTOCOL, f"SKIP {first} came where {expected} was expected")
        if last < expected:
            return None
        self.received = last
        self._settle_range(expected, last)
        gap = GapRange(expected, last, reason)
        if self.gap and self.gap[-1].reason == reason and self.gap[-1].last + 1 == expected:
            self.gap[-1] = GapRange(self.gap[-1].first, last, reason)
        elif len(self.gap) < GAP_RANGES:
            self.gap.append(gap)
        else:
            self.gap[-1] = GapRange(self.gap[-1].first, last, reason)
        return gap

    def finish(self, sequence: int) -> None:
        """The peer's FIN, at the expected sequence."""
        self.received = self.fin = sequence
        self._settle_range(sequence, sequence)

    def _settle_range(self, first: int, last: int) -> None:
        self.ahead.add(first, last)
        self._advance()

    def passed(self, first: int) -> bool:
        """The peer's ``first``: rejections below it are known to it.  True if there was one."""
        if first <= self.first:
            return False
        self.first = first
        known = [sequence for sequence in self.rejects if sequence < first]
        for sequence in known:
            self.unsettled -= self.rejects.pop(sequence).cost
        return bool(known)

    # -- the disk -----------------------------------------------------------------------------------------------------

    def landed(self, facts: InboxFacts) -> int:
        """What was being written is on disk, up to where ``facts`` say; returns how many may be taken now."""
        count, self.writing = 0 if self.writing is None else self.writing[0], None
        self.stored, self.stored_run = facts.received, facts.run
        popleft, before = self.staged.popleft, len(self.ready)
        self.admit_stored([popleft() for _ in range(count)])
        return len(self.ready) - before

    def admit_stored(self, deliveries: Iterable[Delivery]) -> None:
        """These are on disk: they may be taken, and replies be passed on."""
        append = self.ready.append
        for delivery in deliveries:
            if _is_reply(delivery):
                self._divert(delivery)
            else:
                append(delivery)

    def emptied(self) -> None:
        """An earlier process had settled all that came."""
        self.ready.clear()
        self.unsettled = self.turn = 0
        self.gap, self.restarted = [], None
        self.read = self.durable_read = self.received
        self.stored = self.received if self.durable else 0
        self.ahead = Ranges((max(first, self.read + 1), last) for first, last in self.ahead if last > self.read)
        self.foreseen = tuple(self.ahead)
        self.known = self.foreseen[-1][1] if self.foreseen else 0

    def unstage(self) -> None:
        """What is neither on disk nor being written has not come: its sender will be told so, and sends it again.

        A sender whose journal went back in time is found out by what it is told; it may have given the numbers of what
        it lost to other messages, which must not be taken for those that are here.
        """
        count, stored, run = self.writing or (0, self.stored, self.stored_run)
        if not self.durable or stored == self.received:
            return
        dropped = [self.staged.pop() for _ in range(len(self.staged) - count)]
        told = next((delivery[4] or Details() for delivery in reversed(dropped) if not _is_reply(delivery)), None)
        if told is not None:
            self.gap, self.restarted = list(told.gap), told.peer_restarted or self.restarted
        self.gap = [replace(part, last=min(part.last, stored)) for part in self.gap if part.first <= stored]
        self.unsettled -= sum(map(cost_of, dropped))
        self.received, self.run = stored, run
        self.read = min(self.read, stored)
        self.fin = self.fin if self.fin <= stored else 0
        self.ahead = Ranges(self._settled_through(stored, self.ahead))

    # -- the application --------------------------------------------------------------------------------------------

    def take(self) -> Delivery | None:
        """Hand over the next message; it is held until it is settled or released."""
        if self.returned:
            delivery = self.returned.pop(0)
        elif self.ready:
            delivery = self.ready.popleft()
        else:
            return None
        self.held[delivery[1]] = delivery
        return delivery

    def take_settled(self, limit: int) -> list[Delivery]:
        """Hand over up to ``limit`` messages and settle them at once."""
        taken: list[Delivery] = []
        while self.returned and len(taken) < limit:
            taken.append(self.returned.pop(0))
        popleft = self.ready.popleft
        taken += [popleft() for _ in range(min(limit - len(taken), len(self.ready)))]
        if not taken:
            return taken
        self.unsettled -= sum(map(cost_of, taken))
        if taken[0][1] == self.read + 1 and taken[-1][1] == self.read + len(taken):
            self.read = taken[-1][1] - 1  # one unbroken run: only its end can join what was settled ahead
            self._settled(taken[-1][1])
        else:
            for delivery in taken:
                self._settled(delivery[1])
        return taken

    def settle(self, sequence: int) -> None:
        """The application is done with a held message; raises MessageNotHeld."""
        delivery = self.held.pop(sequence, None)
        if delivery is None:
            self._not_held(sequence)
        elif delivery[4] is None:
            self.unsettled -= COST_PER_MESSAGE + len(delivery[2])
        else:
            self.unsettled -= cost_of(delivery)
        if sequence == self.read + 1 and not self.ahead.firsts:
            self.read = sequence
        else:
            self._settled(sequence)

    def reject(self, sequence: int, code: int, text: str) -> Reject | None:
        """The application refuses a held message; returns what the peer must be told, None if it need not be."""
        cost = cost_of(self._held(sequence))
        self._settled(sequence)
        if sequence < self.first:
            self.unsettled -= cost
            return None
        if self.forsaken:
            self.unsettled -= cost
            cost = 0
        reject = self.rejects[sequence] = Reject(sequence, code, text, cost)
        return reject

    def release(self, sequence: int) -> None:
        """Give a held message back to its old place in the order; raises MessageNotHeld."""
        inbox, _, payload, flags, details = self._held(sequence)
        details = details or Details()
        again = (inbox, sequence, payload, flags, replace(details, attempt=details.attempt + 1))
        insort(self.returned, again, key=_sequence)

    def forsake(self) -> None:
        """The sender went on to another outbox.  Rejections are kept, should it return, but hold no credit."""
        self.forsaken = True
        self.partial = 0
        for sequence, reject in self.rejects.items():
            self.unsettled -= reject.cost
            self.rejects[sequence] = replace(reject, cost=0)

    def _held(self, sequence: int) -> Delivery:
        delivery = self.held.pop(sequence, None)
        if delivery is None:
            self._not_held(sequence)
        return delivery

    def _not_held(self, sequence: int) -> NoReturn:
        raise MessageNotHeld(f"message {sequence} is not held: it was acknowledged, rejected or released before")

    def _settled(self, sequence: int) -> None:
        if sequence == self.read + 1:
            self.read = sequence
            self._advance()
        else:
            self.ahead.add(sequence, sequence)
            if sequence not in self.committing:
                self.unwritten = True

    def outlook(self, through: int) -> tuple[int, Ranges]:
        """``read`` and what is settled beyond, with what is being committed, as if only ``through`` had come."""
        ahead, read = self.ahead, self.read
        if self.committing:
            ahead = Ranges(ahead)
            for sequence in self.committing:
                ahead.add(sequence, sequence)
            read = ahead.pass_over(read, self.received)
        if through < self.received:
            read, ahead = min(read, through), Ranges(self._settled_through(through, ahead))
        return read, ahead

    def _settled_through(self, through: int, ahead: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Of what is settled: what came up to there, and what an earlier process had settled beyond."""
        still = [(first, min(last, through)) for first, last in ahead if first <= through]
        return still + [(max(first, through + 1), last) for first, last in self.foreseen if last > through]

    def part(self, room: float) -> tuple[int, int, bytes]:
        """What is written next, where there is room for so much: messages, received and run with them.

        However little it is, if it is any one message goes with it.
        """
        count, size = 0, 0
        for delivery in self.staged:
            size += cost_of(delivery)
            if size > room and (count or not room):
                received = delivery[1] - 1
                return count, received, self.stored_run if received == self.stored else self.run
            count += 1
        return count, self.received, self.run

    def _advance(self) -> None:
        """What is settled may have joined; what has not come again yet has to do that first."""
        self.read = self.ahead.pass_over(self.read, self.received)


def _is_reply(delivery: Delivery) -> bool:
    details = delivery[4]
    return details is not None and reply_to(details.headers) is not None


def _sequence(delivery: Delivery) -> int:
    return delivery[1]
