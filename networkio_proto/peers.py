"""Another node as the application sees it: send, read, wait, end.  The part that every driver shares.

Theory of operation
-------------------
A :class:`PeerHandle` is a session with the manners of an application's object.  Commands that never wait go
``inside`` (between the driver's ``enter`` and ``leave``); what may wait is an
:data:`~networkio_proto.operations.Operation`, whose steps the driver puts there.  An operation, and what it calls, runs
inside, and neither enters nor leaves.

Whoever waits registers a token with what it waits for.  The core's Wake sets the tokens of all who wait at this peer
(they are few, and look again), but those of receipts and requests only when it is their turn (they may be thousands).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from .errors import (
    DecodeError,
    IteratorBusy,
    MessageNotHeld,
    NodeClosed,
    NoMessage,
    NoMoreMessages,
    OutboxFull,
)
from .events import Log
from .frames import DataFlag
from .handles import Iteration, MessageHandle, ReceiptHandle
from .inbox import Delivery
from .ledger import Failure, Ledger
from .logbook import ERROR
from .notices import Watch
from .operations import Operation, Token
from .reading import Reading
from .requests import REQUEST
from .session import Session
from .statistics import Statistics

__all__ = ["NOTHING", "Handling", "PeerHandle"]

M = TypeVar("M", bound=MessageHandle)
R = TypeVar("R", bound=ReceiptHandle)

_MISSING: Any = object()

#: for drivers: what ``read_nowait(NOTHING)`` returns where there is no message; no payload is this
NOTHING: Any = object()

_RAW = int(DataFlag.RAW)

#: a handler that fails is called again after this, doubling up to the second (seconds)
_HANDLER_PAUSE = (0.05, 5.0)


class Handling:
    """One call of a handler with a message.

    ::

        with peer.handling(message, max_attempts) as handling:
            handler(message)
        <wait for handling.pause>
    """

    __slots__ = ("_failures", "_max_attempts", "_message", "pause")

    def __init__(self, message: MessageHandle, max_attempts: int | None, failures: type[BaseException]) -> None:
        self._message = message
        self._max_attempts = max_attempts
        self._failures = failures
        #: how long to wait before the next message of this peer (seconds)
        self.pause = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        message, peer = self._message, self._message.peer
        if error is not None:
            if not isinstance(error, self._failures):  # whoever called the handler is cancelled
                message.handled(failed=True)
                return False
            with peer.node.inside:
                peer.node.log(
                    Log(ERROR, "the handler failed on message %d of %s", (message.sequence, peer.id), error)
                )
        try:
            if not peer.node.closed:
                self.pause = peer.judged(message, error, self._max_attempts)
        except MessageNotHeld:  # the handler gave it to another thread, which was faster
            pass
        return True


class PeerHandle(Generic[M, R]):
    """Another node, and the conversation with it.  Made by ``connect``, by ``Node.peer``, or by its arrival."""

    def __init__(self, node: Any, session: Session, message: type[M], receipt: type[R]) -> None:
        self.node: Any = node
        #: the core's session
        self.session = session
        self._message = message
        self._receipt = receipt
        self._waiters: list[tuple[int, Token]] = []
        self._iteration: Iteration[M] | None = None
        #: the turns of the node in which messages may be sent, and read, the short way
        self._sent_in = self._read_in = -1
        self._short: Reading | None = None
        session.handle = self

    def __repr__(self) -> str:
        return f"<Peer {self.id} {'connected' if self.connected else 'not connected'}>"

    # -- facts --------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Its peer id."""
        return self.session.peer_id

    @property
    def connected(self) -> bool:
        """Is there a live connection now?  Sending does not need one."""
        return self.session.connected

    @property
    def unread(self) -> int:
        """Messages of the peer that wait to be taken."""
        return self.session.unread

    @property
    def unacknowledged(self) -> int:
        """Own messages that the peer's application has not read."""
        return self.session.unacknowledged

    @property
    def ledger(self) -> Ledger:
        """What became of the messages to this peer so far."""
        return self.session.ledger

    def failures(self) -> list[Failure]:
        """The messages that ended otherwise than READ, as ranges, oldest first; the oldest melt past 1,024."""
        with self.node.looking:
            return self.session.failures()

    def why(self) -> str:
        """One sentence that says what the messages to this peer are waiting for."""
        with self.node.inside as now:
            return self.session.why(now)

    def statistics(self) -> Statistics:
        """What has happened so far with this peer, and how it stands.  Raises WrongThread."""
        with self.node.inside as now:
            return self.session.statistics(now)

    def measure(self) -> None:
        """Ask the peer for the round trip, at most once a second; ``statistics()`` tells it when the answer is there.

        By itself it is measured only where nothing else is said for a while.  Raises WrongThread.
        """
        with self.node.inside as now:
            self.session.measure(now)

    # -- sending ------------------------------------------------------------------------------------------------

    def send_nowait(
        self, data: Any, *, headers: Mapping[str, object] | None = None, ttl: float | None = None, raw: bool = False
    ) -> R:
        """Accept a message for this peer, connected or not; its receipt.  Raises OutboxFull where ``send`` would wait.

        ``raw``: ``data`` is bytes and goes as it is.  ``ttl``: seconds after which it need not arrive any more.
        ``headers``: a small map that goes along.  Raises EncodeError, MessageTooLarge, SessionClosed, NodeClosed,
        WrongThread; nothing was sent then.
        """
        node = self.node
        payload = node.payload(data, raw)
        if headers is None and ttl is None and node.handy() and self._streaming():
            sequence = self.session.stream(payload, raw)
            if sequence:
                return self._receipt(self, sequence)
        return self._accept(payload, headers=headers, ttl=ttl, raw=raw)

    def _streaming(self) -> bool:
        """Where the node is handy: may ``session.stream`` be used in this turn of it?"""
        if self._sent_in != self.node.turn:
            if not self.session.streaming():
                return False
            self._sent_in = self.node.turn
        return True

    def _accept(
        self, payload: bytes, *, headers: Mapping[str, object] | None, ttl: float | None, raw: bool
    ) -> R:
        """The long way of :meth:`send_nowait`, with what the codec has made of the data."""
        node = self.node
        now = node.enter()
        try:
            return self.accept_within(payload, now, headers=headers, ttl=ttl, raw=raw)
        finally:
            node.leave()

    def accept_within(self, payload: bytes, now: float, **options: Any) -> R:
        """Between enter and leave: the message is accepted; with a journal, unless that will not take it."""
        keeper, session = self.node.keeper, self.session
        if keeper is not None:
            keeper.check(self.id)
        receipt = self._receipt(self, session.send(payload, now, **options))
        if keeper is not None and session.journal is not None:
            session.journal.follow(receipt)
        return receipt

    def accept_or_none(
        self, payload: bytes, *, headers: Mapping[str, object] | None, ttl: float | None, raw: bool
    ) -> R | None:
        """For the driver's ``send``: as :meth:`_accept`; None where it has to wait, for room or for the disk."""
        if self.node.keeper is not None:
            return None
        try:
            return self._accept(payload, headers=headers, ttl=ttl, raw=raw)
        except OutboxFull:
            return None

    def receipt(self, sequence: int) -> R:
        """The receipt of a message to this peer, by its number."""
        return self._receipt(self, sequence)

    def accepting(
        self,
        payload: bytes,
        *,
        headers: Mapping[str, object] | None = None,
        ttl: float | None = None,
        raw: bool = False,
        reserved: Mapping[str, object] | None = None,
    ) -> Operation[R]:
        """Accept a message, when there is room for it; with a journal, wait until it is on disk."""
        receipt = yield from self._entering(payload, headers=headers, ttl=ttl, raw=raw, reserved=reserved)
        if self.node.keeper is not None:
            yield from self._persisting([receipt])
        return receipt

    def _entering(self, payload: bytes, **options: Any) -> Operation[R]:
        """A message gets its place in the outbox, when there is room for it."""
        while True:
            try:
                return self.accept_within(payload, self.node.time, **options)
            except OutboxFull:
                yield from self._waiting(Watch.ROOM)

    def room(self) -> Operation[None]:
        """Until there may be room."""
        yield from self._waiting(Watch.ROOM)

    def _persisting(self, receipts: list[R]) -> Operation[None]:
        """Until these messages, which were accepted last, are on disk; raises the JournalError for which they are not.

        Given up, a single one is cancelled, and of many those that are not on disk; only what has been transmitted in
        that moment may be read all the same.
        """
        last, journal, token = receipts[-1], self.session.journal, self.node.token()
        assert journal is not None
        journal.follow(last, token)
        try:
            yield token
        except BaseException:
            for receipt in receipts:
                if not receipt.refused and (last is receipts[0] or not journal.has(receipt.sequence)):
                    self.session.cancel(receipt.sequence, self.node.time)
            raise
        refused = [receipt for receipt in receipts if receipt.refused]
        if refused:
            raise refused[0].refusal.anew(refused[0].sequence, self.id)
        if not journal.has(last.sequence):  # it never will be: the journal is closed
            self.node.check_open()

    def _accepting_many(
        self, many: Iterable[Any], headers: Mapping[str, object] | None, ttl: float | None, raw: bool
    ) -> Operation[list[R]]:
        """Accept messages in order as room comes; when time is up, the receipts of those that were accepted."""
        # Encoding is the caller's work, and not done inside: it may take long, or ask the node.
        return self._accepting_payloads([self.node.payload(data, raw) for data in many], headers, ttl, raw)

    def _accepting_payloads(
        self, payloads: list[bytes], headers: Mapping[str, object] | None, ttl: float | None, raw: bool
    ) -> Operation[list[R]]:
        for payload in payloads:
            self.session.check_size(payload, headers)
        receipts: list[R] = []
        try:
            for payload in payloads:
                receipt = yield from self._entering(payload, headers=headers, ttl=ttl, raw=raw)
                receipts.append(receipt)
        except TimeoutError:
            pass  # whoever asked sees by their number which are missing
        if receipts and self.node.keeper is not None:
            try:
                yield from self._persisting(receipts)
            except TimeoutError:
                return [receipt for receipt in receipts if self._kept(receipt)]
        return receipts

    def _kept(self, receipt: R) -> bool:
        """Is it on disk?"""
        journal = self.session.journal
        return journal is not None and not receipt.refused and journal.has(receipt.sequence)

    def _requesting(self, data: Any, headers: Mapping[str, object] | None, raw: bool) -> Operation[Any]:
        """Send a request and wait for its reply; its data."""
        return self._requesting_payload(self.node.payload(data, raw), headers, raw)

    def _requesting_payload(
        self, payload: bytes, headers: Mapping[str, object] | None, raw: bool
    ) -> Operation[Any]:
        session, node = self.session, self.node
        if session.nothing_follows and session.can_send:
            raise NoMoreMessages(f"{self.id} ended the conversation and replies to nothing any more")
        request = session.requests.open(node.request_number())
        receipt: R | None = None
        try:
            receipt = yield from self.accepting(payload, headers=headers, raw=raw, reserved={REQUEST: request.number})
            while request.delivery is None:
                read = receipt.done(read=True)
                if request.over:
                    raise NoMoreMessages(f"{self.id} ended the conversation and did not reply to {receipt.sequence}")
                yield from self._waiting_for_reply(request, None if read else receipt.sequence)
            receipt = None
            try:
                return self._decoded(request.delivery)
            except DecodeError as error:  # nobody else can make anything of it
                request.delivery = None
                error.message.finish("rejected", node.time, (0, "the reply cannot be decoded"))
                raise
        finally:
            session.requests.close(request)
            if request.delivery is not None:  # it came: its data is returned, or nobody takes it any more
                session.settle(request.delivery, node.time)
            if receipt is not None:  # what the peer does not hold need not be asked any more
                session.cancel(receipt.sequence, node.time)

    # -- receiving ----------------------------------------------------------------------------------------------

    def receive_nowait(self, default: Any = _MISSING) -> Any:
        """The next message, or ``default``; without one raises NoMessage.  Raises NoMoreMessages, NodeClosed too."""
        self.node.enter()
        try:
            message = self.take()
        finally:
            self.node.leave()
        if message is not None:
            return message
        if default is not _MISSING:
            return default
        raise NoMessage(f"nothing from {self.id} is waiting to be read")

    def read_nowait(self, default: Any = _MISSING) -> Any:
        """The next message's data, acknowledged at once; without a message ``default``, or NoMessage.

        Raises DecodeError with the message, still held, as its ``message``: reject or acknowledge it.
        """
        node = self.node
        if node.handy() and (data := self.read_plain()) is not NOTHING:
            return data
        node.enter()
        try:
            delivery = self.session.take_one()
            if delivery is not None:
                return self._finish(delivery)
            self._check_more()
        finally:
            node.leave()
        if default is not _MISSING:
            return default
        raise NoMessage(f"nothing from {self.id} is waiting to be read")

    def read_plain(self) -> Any:
        """The short way of :meth:`read_nowait`, where the node is handy; NOTHING: that has to see to it."""
        node = self.node
        reading = self._short if self._read_in == node.turn else self.reading()
        if reading is None or not reading.ready:
            return NOTHING
        delivery = reading.ready[0]
        try:
            data = delivery[2] if delivery[3] & _RAW else node.codec.decode(delivery[2])
        except Exception:  # it is decoded once more there, and what comes of it is told
            return NOTHING
        # a codec may have called the node
        return data if self._read_in == node.turn and reading.consume(delivery) else NOTHING

    def reading(self) -> Reading | None:
        """Where the node is handy: the session's short way of reading in this turn of it, if there is one."""
        turn = self.node.turn
        if self._read_in != turn:
            self._short, self._read_in = self.session.reading(), turn
        return self._short

    def receiving(self) -> Operation[M]:
        """The next message, when it is there; the caller holds it."""
        while (message := self.take()) is None:
            yield from self._waiting(Watch.READABLE)
        return message

    def _reading(self) -> Operation[Any]:
        """The next message's data, acknowledged at once."""
        while (delivery := self._take()) is None:
            yield from self._waiting(Watch.READABLE)
        return self._finish(delivery)

    def _reading_many(self, limit: int) -> Operation[list[Any]]:
        """The data of up to ``limit`` messages, acknowledged at once; waits for the first only."""
        while (delivery := self._take()) is None:
            yield from self._waiting(Watch.READABLE)
        session, now = self.session, self.node.time
        taken, many = [delivery], []
        try:
            many.append(self._decoded(delivery))
            while len(many) < limit and (delivery := session.take_one()) is not None:
                taken.append(delivery)
                many.append(self._decoded(delivery))
        except DecodeError:
            if not many:
                raise
            session.release(taken.pop(), now)  # it is the next one's trouble
        except BaseException:  # nobody is given the data of any of them
            for delivery in taken:
                session.release(delivery, now)
            raise
        session.settle_all(taken, now)
        return many

    def take_or_none(self) -> M | None:
        """The next message, None if there is none now, be it for ever."""
        delivery = self.session.take_one()
        return self._message(self, delivery) if delivery is not None else None

    def take(self) -> M | None:
        """The next message, None if there is none now.  Raises NoMoreMessages after the peer's end, NodeClosed."""
        delivery = self._take()
        return self._message(self, delivery) if delivery is not None else None

    def _take(self) -> Delivery | None:
        delivery = self.session.take_one()
        if delivery is None:
            self._check_more()
        return delivery

    def _check_more(self) -> None:
        """There is nothing to take: raise NoMoreMessages or NodeClosed if there will not be."""
        if self.session.peer_ended:
            raise NoMoreMessages(f"{self.id} ended the conversation and everything it sent was read")
        self.node.check_open()

    def _finish(self, delivery: Delivery) -> Any:
        """The data of what was taken, now acknowledged; what cannot be decoded stays held, by the error's message."""
        try:
            data = self._decoded(delivery)
        except DecodeError:
            raise
        except BaseException:  # a Ctrl-C in the middle of the codec says nothing about the message
            self.session.release(delivery, self.node.time)
            raise
        self.session.settle(delivery, self.node.time)
        return data

    def _decoded(self, delivery: Delivery) -> Any:
        """The data of what was taken and stays held.

        Whatever the codec says of it is a DecodeError, with the message; what is no Exception passes through.
        """
        if delivery[3] & _RAW:
            return delivery[2]
        try:
            return self.node.codec.decode(delivery[2])
        except Exception as error:
            message = self._message(self, delivery)
            undecodable = message.undecodable(error)
            undecodable.message = message
            raise undecodable from error

    # -- iterating and serving ----------------------------------------------------------------------------------

    def iterate(self) -> Iteration[M]:
        """For the driver's iterator: begin ``for message in peer``; raises IteratorBusy while another one is used."""
        if self._iteration is not None:
            raise IteratorBusy(f"the messages of {self.id} are iterated over already; use receive() in the others")
        iteration: Iteration[M] = Iteration(self)
        self._iteration = iteration
        return iteration

    def iteration_over(self, iteration: Iteration[M]) -> None:
        """An iteration is done."""
        if self._iteration is iteration:
            self._iteration = None

    def handling(
        self, message: M, max_attempts: int | None = None, failures: type[BaseException] = Exception
    ) -> Handling:
        """Around the call of a handler with a message: what becomes of the message, and when the next may come.

        ``failures``: what counts as a failure of the handler, and ends here; anything else passes through.
        """
        return Handling(message, max_attempts, failures)

    def judged(self, message: M, error: BaseException | None, max_attempts: int | None) -> float:
        """What becomes of a message that a handler was called with: how long to pause before the next (seconds).

        Without an error it is acknowledged.  With one it is released and comes again, at its ``max_attempts``-th it is
        rejected; what the handler settled by itself stays so.
        """
        if error is None or not message.held:
            message.handled(failed=error is not None)
            return 0.0
        if max_attempts is not None and message.attempt >= max_attempts:
            message.reject(f"the handler failed {message.attempt} times: {type(error).__name__}")
            return 0.0
        message.release()
        return float(min(_HANDLER_PAUSE[0] * 2.0 ** min(message.attempt - 1, 30), _HANDLER_PAUSE[1]))

    def serving(self) -> Operation[M | None]:
        """The next message for a handler; None when the node is closed.  An end of the peer is waited out."""
        while True:
            try:
                return (yield from self.receiving())
            except NoMoreMessages:
                if self.node.closed:
                    return None
                yield from self._waiting(Watch.READABLE)
            except NodeClosed:
                return None

    # -- waiting and ending -------------------------------------------------------------------------------------

    def _connecting(self) -> Operation[None]:
        """Wait until there is a live connection."""
        while not self.connected:
            yield from self._waiting(Watch.LINK)

    def draining(self) -> Operation[Ledger]:
        """Take no new messages until everything accepted is read, or time is up; the ledger."""
        self.session.drain(self.node.time)
        try:
            yield from self.read_out()
        except TimeoutError:
            pass  # the ledger says what is left
        finally:
            self.session.undrain()
        return self.session.ledger

    def read_out(self) -> Operation[None]:
        """Wait until everything accepted so far has its outcome, or the node is closed."""
        while self.session.unacknowledged and not self.node.closed:
            yield from self._waiting(Watch.PROGRESS)

    def disconnect(self) -> None:
        """Close the connection and stop dialling; the session stays and can be resumed."""
        with self.node.inside as now:
            self.session.disconnect(now)

    def end(self) -> None:
        """Nothing more follows from this side.  When the peer has ended too, the session is over."""
        with self.node.inside as now:
            self.session.end(now)

    def abort(self) -> None:
        """Give up everything that is unread; it ends as ABANDONED on both sides."""
        with self.node.inside as now:
            self.session.abort(now)

    def _waiting(self, what: int) -> Operation[None]:
        """Until something of ``what`` may have happened."""
        self.node.check_open()
        waiter = (what, self.node.token())
        self._waiters.append(waiter)
        self.session.watch |= what
        try:
            yield waiter[1]
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self._missing(what)}") from None
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _missing(self, what: int) -> str:
        return f"nothing came from {self.id}" if what == Watch.READABLE else self.session.why(self.node.time)

    def waiting_for(self, sequence: int, *, read: bool) -> Operation[None]:
        """Until the message may have been received or read, or failed."""
        self.node.check_open()
        token = self.node.token()
        waiter = self.session.receipts.add(sequence, token, read=read)
        self.session.watch |= Watch.PROGRESS
        try:
            yield token
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.session.why(self.node.time)}") from None
        finally:
            self.session.receipts.remove(waiter)

    def _waiting_for_reply(self, request: Any, sequence: int | None) -> Operation[None]:
        """Until there is a reply, or (``sequence``) the request itself may have ended."""
        self.node.check_open()
        session, token = self.session, self.node.token()
        request.token = token
        waiter = None if sequence is None else session.receipts.add(sequence, token, read=True)
        session.watch |= Watch.REPLY if waiter is None else Watch.REPLY | Watch.PROGRESS
        try:
            yield token
        except TimeoutError as error:
            why = session.why(self.node.time)
            if session.stalled:
                why = f"nothing more can come from {self.id} before its messages are settled, they fill the window"
            raise TimeoutError(f"{error}: {self.id} did not reply; {why}") from None
        finally:
            request.token = None
            if waiter is not None:
                session.receipts.remove(waiter)

    def wake(self) -> None:
        """The core says that something happened which somebody waits for."""
        session = self.session
        waiters, self._waiters = self._waiters, []
        session.watch = 0
        for _, token in waiters:
            token.set()
        if self.node.turns is not None:
            self.node.turns.may_have(self)
        for token in session.receipts.due(session.outbox):
            token.set()
        if len(session.receipts):
            session.watch = Watch.PROGRESS
        for token in session.requests.due():
            token.set()
        if len(session.requests):
            session.watch |= Watch.REPLY

    def wake_everybody(self) -> None:
        """The node is closed: let all who wait find out."""
        self.wake()
        for token in [*self.session.receipts.all(), *self.session.requests.all()]:
            token.set()

    def wake_unwritten(self) -> None:
        """The journal is closed: what is not on disk now never will be."""
        if self.session.journal is not None:
            for token in self.session.journal.waiters():
                token.set()
