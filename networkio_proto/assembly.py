"""From DATA frames to messages in the inbox: runs of plain ones in one pass, fragments as they come.

Theory of operation
-------------------
Nearly all DATA is *plain*: a whole message without headers, the next in its order.  :meth:`Assembly.run` takes as many
of them as one chunk holds without looking at each twice.  It takes nothing that is not exactly that; whatever remains
goes frame by frame through :meth:`Assembly.receive`, with all due care.

A message in fragments does not wait for its frames to be whole: :meth:`Assembly.gather` takes it straight from where
the driver received it to where the message grows, so that each byte is copied once, but for the frame in whose head a
chunk ends.  A frame is judged when its head is there.  (Whole messages gain nothing by that, it was measured.)

There are connections and moments on which even a plain frame needs the second look: inside of a fragmented message,
before the first sequence under a new run of the sender, near the end of the sequences.  ``_special`` says so; it is
worked out when one of its reasons may have changed, not for every message.

A message in fragments is judged by its first one: its total is checked against the limit and taken from the credit
at once, and counts as unsettled while it is incomplete.  At most one is incomplete, and it is gone with its connection.
"""

from __future__ import annotations

from struct import Struct

from .config import COST_PER_MESSAGE, Limits
from .errors import CloseCode
from .frames import DATA, MAX_SEQUENCE, DataFlag, FrameDecoder, PeerFault
from .headers import decode_headers, take_origin
from .inbox import Details, Inbox
from .memory import Gathered
from .statistics import Counters

__all__ = ["Assembly"]

#: beyond ``limits.message``, for the reserved header ``id`` of a message that changed its outbox
_ID_ROOM = 64

#: from here on every sequence is compared with the greatest
_SEQUENCES_SCARCE = MAX_SEQUENCE - 2**32

#: length, type, flags, sequence; and a total
_HEAD = 14
_FIRST_HEAD = _HEAD + 4

_unpack_head = Struct(">IBBQ").unpack_from
_unpack_sequence = Struct(">Q").unpack_from
_unpack_total = Struct(">I").unpack_from
_unpack_header_length = Struct(">H").unpack_from

# as plain numbers: operators of a flag are functions of Python, and slow
_RAW = int(DataFlag.RAW)
_CONTINUED = int(DataFlag.FRAGMENT_CONTINUED)
_REDELIVERED = int(DataFlag.REDELIVERED)
_HEADERS = int(DataFlag.HEADERS)
_ACK_NOW = int(DataFlag.ACK_NOW)
_NOT_RAW = 0xFF & ~_RAW
_PLAIN_COST = COST_PER_MESSAGE - 10  # a plain message's cost = its frame's length + this
_FIRST_FLAGS = int(
    DataFlag.FRAGMENT_MORE | DataFlag.REDELIVERED | DataFlag.ACK_NOW | DataFlag.HEADERS | DataFlag.RAW
)
_NEXT_FLAGS = int(DataFlag.FRAGMENT_MORE | DataFlag.FRAGMENT_CONTINUED)
_MORE = int(DataFlag.FRAGMENT_MORE)


class _Partial:
    """A message of which something is missing."""

    __slots__ = ("details", "flags", "fresh", "gathered", "last", "missing", "rest", "sequence", "size")

    def __init__(self, sequence: int, flags: int, details: Details, size: int, fresh: bool) -> None:
        self.sequence = sequence
        self.flags = flags
        self.details = details
        #: of its payload
        self.size = size
        self.fresh = fresh
        #: what later fragments have to bring
        self.missing = size
        #: the present fragment: how much of it is still to come, and is it the last one?
        self.rest = 0
        self.last = False
        self.gathered: Gathered | None = None

    def fragment(self, size: int, flags: int) -> None:
        """A fragment begins, with so much of the payload; raises PeerFault if it does not fit the total."""
        self.missing -= size
        self.rest = size
        self.last = not flags & _MORE
        if self.missing < 0:
            raise PeerFault(CloseCode.PROTOCOL, f"the fragments of {self.sequence} exceed its total")
        if self.last and self.missing:
            raise PeerFault(CloseCode.PROTOCOL, f"the fragments of {self.sequence} do not add up to its total")
        if not self.last and not self.missing:
            raise PeerFault(
                CloseCode.PROTOCOL, f"more fragments of {self.sequence} are announced than its total holds"
            )

    def add(self, piece: bytes | memoryview) -> None:
        """More of the present fragment."""
        self.rest -= len(piece)
        if self.fresh and piece:
            if self.gathered is None:
                self.gathered = Gathered(self.size)
            self.gathered.add(piece)

    def payload(self) -> bytes:
        """What was added; of a duplicate nothing is kept."""
        return self.gathered.take() if self.gathered else b""


class Assembly:
    """The messages of one connection.  Every method raises PeerFault for what the peer must not do."""

    __slots__ = ("_counters", "_decoder", "_new_run", "_partial", "_special", "limits", "urgent")

    def __init__(self, decoder: FrameDecoder, limits: Limits) -> None:
        self._decoder = decoder
        #: as they were told to the peer
        self.limits = limits
        self._counters = Counters()  # the session's, once there is one
        self._partial: _Partial | None = None
        #: the sender's run, until the first sequence under it has come; None where the inbox is of that run
        self._new_run: bytes | None = None
        self._special = False
        #: a message is complete whose sender asked for an ACK; for whoever sends it, to reset
        self.urgent = False

    @property
    def unfinished(self) -> bool:
        """Is a message incomplete?"""
        return self._partial is not None

    def begin(self, inbox: Inbox | None, run: bytes, counters: Counters) -> None:
        """The connection is live; ``run`` is the sender's present one; ``counters`` the session's."""
        self._counters = counters
        self._new_run = run if inbox is not None and inbox.run != run else None
        self._reconsider(inbox)

    def clear(self) -> None:
        """The connection is over."""
        self._partial = None

    def moved(self, inbox: Inbox | None, *, onward: bool) -> None:
        """A SKIP or a FIN came; ``onward``: it took the inbox to a new position."""
        if onward and inbox is not None:
            self._adopt_run(inbox)
        self._reconsider(inbox)

    def _reconsider(self, inbox: Inbox | None) -> None:
        """Does DATA need a second look on this connection now?"""
        self._special = (
            self._partial is not None
            or self._new_run is not None
            or self.limits.message < self.limits.frame
            or (inbox is not None and (inbox.barred or inbox.received > _SEQUENCES_SCARCE))
        )

    def _adopt_run(self, inbox: Inbox) -> None:
        """The first sequence of this connection: from here the inbox's position is under the sender's present run."""
        if self._new_run is not None:
            inbox.run, self._new_run = self._new_run, None
            self._reconsider(inbox)

    # -- plain messages -----------------------------------------------------------------------------------------

    def run(self, inbox: Inbox) -> int:
        """The hot path: take whole, plain messages as long as one follows another; how many they were.

        Whatever is not exactly that is left in the decoder.
        """
        decoder = self._decoder
        buffer, position = decoder.buffer, decoder.position
        size = len(buffer)
        if position + 14 > size or self._special or inbox.telling or inbox.fin or inbox.known > inbox.received:
            return 0
        limit, append = self.limits.frame, inbox.arriving.append
        before = received = inbox.received
        used, allowed = inbox.used, inbox.allowed
        while position + 14 <= size:
            length, kind, flags, sequence = _unpack_head(buffer, position)
            end = position + 4 + length
            if (
                kind != DATA
                or flags & _NOT_RAW
                or sequence != received + 1
                or end > size
                or used >= allowed
                or not 10 <= length <= limit
            ):
                break
            received = sequence
            used += length + _PLAIN_COST
            append((inbox, sequence, buffer[position + 14 : end], flags, None))
            position = end
        decoder.position = position
        inbox.received = received
        inbox.unsettled += used - inbox.used
        inbox.used = used
        return received - before

    # -- fragments ----------------------------------------------------------------------------------------------

    def gather(self, inbox: Inbox | None) -> int | None:
        """Take what there is of a message in fragments, up to its end.

        None: the next bytes are no part of one.  1 if it completed a message to be taken, else 0.  Without an inbox
        (the session is over) only the fragment that has begun is taken, and leads nowhere.
        """
        decoder = self._decoder
        size = len(decoder.buffer)
        while decoder.position < size:
            partial = self._partial
            if partial is None or not partial.rest:
                if inbox is None:  # what follows of it is passed over, as all DATA is
                    self._partial = None
                    return None
                partial = self._begun(inbox, size)
                if partial is None:
                    return None
            end = min(decoder.position + partial.rest, size)
            partial.add(memoryview(decoder.buffer)[decoder.position : end])
            decoder.position = end
            if not partial.rest and partial.last:
                return self._complete(inbox, partial, partial.payload())
        return None

    def _begun(self, inbox: Inbox, size: int) -> _Partial | None:
        """The message to which the frame that begins here belongs, if it is worth gathering; its head is taken then."""
        decoder = self._decoder
        buffer, position = decoder.buffer, decoder.position
        if size - position < _FIRST_HEAD:
            return None
        length, kind, flags, sequence = _unpack_head(buffer, position)
        if kind != DATA or length > self.limits.frame:  # the decoder has a word for that
            return None
        end = position + 4 + length
        if flags & _CONTINUED:
            decoder.position = position + _HEAD
            return self._continue(sequence, flags, end - decoder.position)
        if not flags & _MORE or flags & _HEADERS:
            return None
        partial, decoder.position = self._first(inbox, sequence, flags, position + _HEAD, end)
        self._partial = partial
        self._reconsider(inbox)
        return partial

    # -- any message --------------------------------------------------------------------------------------------

    def receive(self, inbox: Inbox, flags: int, start: int, end: int) -> int:
        """One DATA frame, whose body is in the decoder's buffer; 1 if it completes a message to be taken, else 0."""
        buffer = self._decoder.buffer
        sequence: int = _unpack_sequence(buffer, start)[0]
        if (flags == 0 or flags == _RAW) and not self._special:
            fresh = inbox.accept(sequence, buffer[start + 8 : end], flags)
            if not fresh:
                self._counters.duplicates += 1
            return fresh
        if flags & _CONTINUED:
            partial, position = self._continue(sequence, flags, end - start - 8), start + 8
        else:
            partial, position = self._first(inbox, sequence, flags, start + 8, end)
        if partial.last and partial.gathered is None:  # it is in this frame altogether
            return self._complete(inbox, partial, buffer[position:end])
        partial.add(buffer[position:end])
        if partial.last:
            return self._complete(inbox, partial, partial.payload())
        self._partial = partial
        self._reconsider(inbox)
        return 0

    def _first(self, inbox: Inbox, sequence: int, flags: int, position: int, end: int) -> tuple[_Partial, int]:
        """The first fragment, or the whole: its prefix, its cost, its place; and where its payload begins."""
        if sequence > MAX_SEQUENCE:
            raise PeerFault(CloseCode.PROTOCOL, f"sequence {sequence} is over the greatest, {MAX_SEQUENCE}")
        if flags & ~_FIRST_FLAGS:
            raise PeerFault(CloseCode.PROTOCOL, f"DATA with flags 0x{flags:02x}")
        if self._partial is not None:
            inside = self._partial.sequence
            raise PeerFault(CloseCode.PROTOCOL, f"DATA {sequence} inside of fragmented message {inside}")
        total: int | None = None
        if flags & _MORE:
            _need(position, 4, end)
            total = _unpack_total(self._decoder.buffer, position)[0]
            position += 4
        headers, headers_size, position = self._headers(flags, position, end)
        size = headers_size + end - position if total is None else total
        limit = self.limits.message
        if size > limit + _ID_ROOM:
            raise PeerFault(CloseCode.TOO_LARGE, f"message {sequence} of {size} bytes is over the limit of {limit}")
        inbox.admit(COST_PER_MESSAGE + size)
        origin = take_origin(headers)
        details = Details(
            headers=headers,
            headers_size=headers_size,
            redelivered=flags & _REDELIVERED > 0,
            origin=origin,
        )
        fresh = inbox.expect(sequence)
        if fresh:
            inbox.partial = COST_PER_MESSAGE + size
        partial = _Partial(sequence, flags, details, size - headers_size, fresh)
        partial.fragment(end - position, flags)
        return partial, position

    def _continue(self, sequence: int, flags: int, size: int) -> _Partial:
        """A later fragment."""
        partial = self._partial
        if partial is None or partial.sequence != sequence:
            raise PeerFault(CloseCode.PROTOCOL, f"a continued fragment of {sequence} without its beginning")
        if flags & ~_NEXT_FLAGS or size < 1:
            raise PeerFault(CloseCode.PROTOCOL, f"a continued fragment of {max(size, 0)} bytes, flags 0x{flags:02x}")
        partial.fragment(size, flags)
        return partial

    def _complete(self, inbox: Inbox | None, partial: _Partial, payload: bytes) -> int:
        """All of a message is there."""
        if self._partial is not None:
            self._partial = None
            self._reconsider(inbox)
        if partial.flags & _ACK_NOW:
            self.urgent = True
        if inbox is None or not partial.fresh:
            self._counters.duplicates += 1
            return 0
        if partial.details.redelivered:
            self._counters.redelivered += 1
        self._adopt_run(inbox)
        return int(inbox.accept_special(partial.sequence, payload, partial.flags & _RAW, partial.details))

    def _headers(self, flags: int, position: int, end: int) -> tuple[dict[str, object] | None, int, int]:
        """The header map: (map, its size, where the payload begins)."""
        if not flags & _HEADERS:
            return None, 0, position
        _need(position, 2, end)
        size = _unpack_header_length(self._decoder.buffer, position)[0]
        begin = position + 2
        _need(begin, size, end)
        return decode_headers(self._decoder.buffer[begin : begin + size]), size, begin + size


def _need(position: int, size: int, end: int) -> None:
    if position + size > end:
        raise PeerFault(CloseCode.PROTOCOL, "a DATA frame is shorter than its flags say")
