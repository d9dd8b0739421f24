"""Judges that watch every host of a simulated world and object at the first broken promise.

    world = World(seed)
    judge = Judge(world)
    ...                      # whatever the world and its applications do
    judge.at_rest()          # once everything has had the time to go right

Theory of operation
-------------------
A :class:`Judge` is a :class:`~networkio_testing.world.Watcher`.  It keeps what no node can know, the *ghosts*: every
message that any process ever accepted (:class:`_Log`), what was handed to whom (:class:`_Reader`), and what was
acknowledged there.  After each step it compares them with what the nodes believe: with the session that the step was
about, with all of them when a timer was served.  What did not move since the last look (:class:`_Ghost`) costs one
comparison, what did costs a few numbers, and only from time to time a whole outbox or inbox is counted.  It also reads
every frame that is written (:class:`_Tap`): a receiver's defences would hide a sender's mistake, the wire does not.

Processes are told apart by their incarnation and outboxes by their id, so a crash, a restart or a second process with
the same peer id needs no special rule.  Applications must act through the methods of
:class:`~networkio_testing.world.Host`, or of a :class:`~networkio_testing.node.SimulatedNode`, or the judge does not
learn what they did.  The latter also has replies, which go to whoever waits for them, past the messages; and it takes
its notices itself, when it likes.

A broken promise is a :class:`Violation`, which names the invariant, the seed and the time.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Final, NoReturn

from networkio_proto import (
    COST_PER_MESSAGE,
    Close,
    CloseCode,
    Connection,
    ConnectionState,
    DataFlag,
    Delivery,
    Details,
    Effect,
    Event,
    Failure,
    MessagesRead,
    MessagesReady,
    Outcome,
    PeerConnected,
    RetryClass,
    Session,
    TargetState,
    Transmit,
)
from networkio_proto.frames import ACK, ATTACH, CLOSE, DATA, FIN, PING, PONG, PREAMBLE, SKIP
from networkio_proto.handshake import Attach, parse_attach
from networkio_proto.inbox import Inbox
from networkio_proto.outbox import Entry, Outbox, Spilled
from networkio_proto.reconnect import retry_class
from networkio_proto.requests import REPLY
from networkio_proto.timers import _AT_ONCE, Timers

from .world import Host, Watcher, Wire, World

__all__ = ["INVARIANTS", "Judge", "Violation"]

#: what each invariant says; the numbers are those of the project's list of invariants
INVARIANTS: Final[Mapping[str, str]] = {
    "I1": "read <= received < next, and positions only grow",
    "I2": "messages are handed over, and transmitted, in their order; what is missing is an explicit gap",
    "I3": "what is handed over was accepted, with the same bytes and headers and under its own name",
    "I4": "a process gets a message once, unless its application releases it",
    "I5": "acks are true: received means held by the peer's library, read means acknowledged by its application",
    "I6": "positions are announced in order, and received no later than read",
    "I7": "every accepted message is either retained or has exactly one outcome",
    "I8": "nothing leaves an outbox without an outcome",
    "I9": "a message is flagged as redelivered if, and only if, another process may have seen it",
    "I10": "nothing that rests on the disk leaves before it is there, and what is there outlives the process",
    "I11": "a connection that is not live changes no session, and an unproven peer makes none",
    "I13": "a session has at most one live connection on each side",
    "I14": "generations only grow, and one generation is one connection",
    "I15": "a process that answers is never replaced by another",
    "I18": "memory stays within its bounds",
    "I19": "notices, timers and answers to strangers stay within their bounds, and no timer fires in vain",
    "I20": "peers that keep to the protocol never accuse each other, and a connection ends once",
    "I21": "after CLOSE nothing is said",
    "I22": "what the peer's application acknowledges is read at its sender",
    "I23": "nobody waits for what has happened already",
    "I24": "connections come back as soon as they may, and then stay",
    "I25": "what has ended gives back everything",
    "I26": "a pause of one's own ends no connection: whoever wakes up asks first",
}

#: a stream of well-formed bytes can only earn these by a mistake of one of the two cores
_ACCUSATIONS = frozenset({CloseCode.PROTOCOL, CloseCode.FLOW, CloseCode.TOO_LARGE, CloseCode.ABUSE})

#: what a connection holds of a peer that has not proved itself
_STRANGER_BYTES = 8 * 1024

#: an answer to a stranger is at most so many times as long as what it said
_AMPLIFICATION = 3

#: every so many looks at a host, everything that it holds is counted
_AUDIT_EVERY = 61

#: nobody counts so few timers
_FEW_TIMERS = 64

#: a clock that went through many additions is not exact
_EPSILON = 1e-6

_HEADER = Struct(">IBB")
_SEQUENCE = Struct(">Q")
_RANGE = Struct(">QQ")
_POSITIONS = Struct(">QQQQ")
_MORE, _CONTINUED = int(DataFlag.FRAGMENT_MORE), int(DataFlag.FRAGMENT_CONTINUED)
_REDELIVERED = int(DataFlag.REDELIVERED)
_RAW = int(DataFlag.RAW)

#: attributes of an enum, and of its members, are looked up in a slow way
_LIVE: Final = ConnectionState.LIVE
_OUTCOMES: Final = tuple((outcome, outcome.value) for outcome in Outcome)

#: of a message that nobody has seen
_NOBODY: Final[frozenset[Any]] = frozenset()

#: of a message that came without details
_PLAIN = Details()


class Violation(AssertionError):
    """A promise was broken; ``invariant`` is its number in :data:`INVARIANTS`."""

    def __init__(self, invariant: str, text: str, world: World) -> None:
        super().__init__(
            f"{invariant} is broken ({INVARIANTS[invariant]}): {text} (seed {world.seed}, time {world.now:.3f})"
        )
        self.invariant = invariant


class _Message:
    """One accepted message, and everything that became of it anywhere."""

    def __init__(
        self,
        payload: bytes,
        headers: Mapping[str, object] | None,
        raw: bool,
        outbox_id: bytes,
        expires: float | None,
        turn: int,
    ) -> None:
        self.payload = payload
        self.headers = headers
        self.raw = raw
        #: the outbox that it was accepted into, which names it for ever
        self.outbox_id = outbox_id
        self.expires = expires
        #: its place among all that was ever accepted anywhere
        self.turn = turn
        self.cancelled = False
        self.outcome: Outcome | None = None
        #: its sender was told that nobody ever saw it
        self.unseen = False
        #: the processes whose application got it
        self.seen_by: frozenset[bytes] = _NOBODY
        #: those whose application settled it, and under which outbox they had it
        self.settled_by: frozenset[tuple[bytes, bytes]] = _NOBODY
        self.acknowledged = False
        self.rejections: frozenset[int] = _NOBODY
        #: an earlier process of the sender gave it up, and its journal has forgotten that
        self.given_up = False
        #: a SKIP with its number was said
        self.skipped = False
        #: processes that may have it, and an old copy of its sender's journal is from before it met them
        self.forgotten: frozenset[bytes] = _NOBODY

    def __repr__(self) -> str:
        return f"<{len(self.payload)} bytes, outcome {self.outcome}, seen by {len(self.seen_by)}>"


@dataclass(slots=True, eq=False)
class _Log:
    """Everything that one process ever accepted for one peer id."""

    sender: str
    receiver: str
    #: whose process it is: two hosts may have one peer id
    host: str
    messages: dict[int, _Message] = field(default_factory=dict)
    fins: set[int] = field(default_factory=set)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    #: what was last seen of the outbox
    outbox_id: bytes = b""
    incarnation: bytes | None = None
    connections: int = 0
    first: int = 1
    received: int = 0
    failed: int = 0
    #: the highest sequence ever transmitted, wholly or in part
    transmitted: int = 0
    #: up to here messages must be flagged (they went to another process than the peer's present one), or may be
    marked: int = 0
    markable: int = 0
    #: is the inbox of that process on disk?
    durable: bool = False
    #: the last announced ``read``
    announced: int = 0
    #: what it cost already when its process began
    burden: int = 0
    #: the highest sequence that an earlier process with the same journal ever transmitted
    reached: int = 0
    #: the log of the first process with the same journal, if it is another
    eldest: _Log | None = None

    def is_reply(self, sequence: int) -> bool:
        """Does that message go to whoever asked for it, past the others?"""
        message = self.messages.get(sequence)
        return message is not None and REPLY in (message.headers or ())


@dataclass(slots=True)
class _Reader:
    """What one process got out of one outbox."""

    #: the process, and with the outbox: sets of one, which most messages share
    process: frozenset[bytes]
    key: frozenset[tuple[bytes, bytes]]
    last: int = 0
    #: what an earlier process has settled out of turn
    known: frozenset[int] = frozenset()
    returned: list[int] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Tap:
    """What one end of a wire has said."""

    spoke: bool = False
    closed: bool = False
    size: int = 0
    attach: Attach | None = None
    #: the sequence that must come next; 0 before the first one
    expected: int = 0
    #: the message whose fragments are going out
    inside: int = 0
    positions: tuple[int, int, int, int] = (0, 0, 0, 0)
    #: when something last arrived at this end, and since when it has something to acknowledge
    heard: float = 0.0
    owing: float | None = None


@dataclass(slots=True)
class _Live:
    """A connection on which a session is live, and where the session stood when it became so."""

    connection: Connection
    tap: _Tap
    positions: tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Ghost:
    """What was last seen of one session."""

    log: _Log
    #: what its outbox looked like
    outbox: tuple[object, ...] = ()
    #: how many inboxes it had: when the last ones are gone, they have left their final positions
    boxes: int = 0
    #: its inbox, if it has exactly one, and the positions of that
    inbox: Inbox | None = None
    stood: tuple[int, int, int] = (-1, -1, -1)
    #: messages that waited to be taken
    unread: int = 0
    live: _Live | None = None
    #: what this end has said on its present connection
    tap: _Tap | None = None


class Judge(Watcher):
    """Watches all hosts of ``world`` from now on; raises :class:`Violation` in the step that breaks a promise.

    ``tally`` counts what was seen (verdicts, outcomes, close codes, ...), so that a test can tell whether a run was
    as eventful as it should have been.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.tally: Counter[str] = Counter()
        #: who was dead already when a process began
        self._dead: set[bytes] = set()
        self._ancestors: defaultdict[bytes, frozenset[bytes]] = defaultdict(frozenset)
        self._logs: dict[tuple[bytes, str], _Log] = {}
        self._outboxes: dict[bytes, _Log] = {}
        self._readers: dict[tuple[bytes, bytes], _Reader] = {}
        #: the last turn that a process got without a flag, by that and the eldest log of the sender
        self._furthest: defaultdict[tuple[bytes, _Log], int] = defaultdict(int)
        self._held: dict[tuple[bytes, bytes], tuple[int, int]] = {}
        self._ghosts: dict[Session, _Ghost] = {}
        self._announced: set[object] = set()
        self._taps: dict[int, tuple[_Tap, _Tap]] = {}
        self._generations: dict[tuple[bytes, bytes], int] = {}
        self._dials: defaultdict[tuple[bytes, bytes], int] = defaultdict(int)
        self._chosen: dict[tuple[bytes, str, int], int] = {}
        self._before: tuple[Connection, bool, tuple[object, ...]] | None = None
        #: when each host's timers were last served
        self._served: dict[str, float] = {}
        #: how many timers are about to be served, if they may be more than are in one go
        self._due = 0
        self._looks = 0
        self._turns = 0
        world.watchers.append(self)

    def _demand(self, holds: bool, invariant: str, text: str, *facts: object) -> None:
        if not holds:
            self._object(invariant, text, *facts)

    def _object(self, invariant: str, text: str, *facts: object) -> NoReturn:
        raise Violation(invariant, text.format(*facts), self.world)

    def _ghost(self, host: Host, session: Session) -> _Ghost:
        ghost = self._ghosts.get(session)
        if ghost is None:
            ghost = self._ghosts[session] = _Ghost(self._log(host, session.peer_id))
        return ghost

    def _log(self, host: Host, peer: str) -> _Log:
        key = (host.endpoint.incarnation, peer)
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = _Log(host.peer_id, peer, host.name)
        return log

    def booted(self, host: Host) -> None:
        self._ancestors[host.endpoint.incarnation] = frozenset(self._dead)

    def crashed(self, host: Host) -> None:
        """It may have died in the middle of a step, and what it wrote there counts."""
        self._dead.add(host.endpoint.incarnation)
        for session in host.endpoint.sessions.values():
            self._look_at_positions(host, session)

    # -- the sending application ----------------------------------------------------------------------------------

    def accepted(self, host: Host, peer: str, sequence: int, payload: bytes, options: Mapping[str, object]) -> None:
        log, ttl, headers = self._log(host, peer), options["ttl"], options["headers"]
        if sequence in log.messages:
            self._object("I3", "{} gave the number {} to two messages", host, sequence)
        self._turns += 1
        log.messages[sequence] = _Message(
            payload,
            dict(headers) if headers and isinstance(headers, Mapping) else None,
            bool(options["raw"]),
            host.session(peer).outbox.outbox_id,
            host.now + ttl if isinstance(ttl, (int, float)) else None,
            self._turns,
        )
        self.tally["accepted"] += 1

    def cancelled(self, host: Host, peer: str, sequence: int, certain: bool) -> None:
        message = self._log(host, peer).messages.get(sequence)
        if message is None:
            return
        message.cancelled = True
        if certain:
            self._unseen(self._log(host, peer), message, sequence)

    def _doubled(self, sender: str, receiver: str) -> bool:
        """Did a second process with the sender's id ever state an outbox to this receiver?"""
        known = {log.host for log in self._outboxes.values() if (log.sender, log.receiver) == (sender, receiver)}
        return len(known) > 1

    def _unseen(self, log: _Log, message: _Message, sequence: int) -> None:
        # guarantees, Words: a node is *one* process under its name.  Where two were met, the peer left this outbox for
        # the other process, and its ATTACH has room for one inbox: it cannot say what it has of this one (P-ATT-3).
        if self._doubled(log.sender, log.receiver):
            return
        self._demand(not message.seen_by, "I5", "the sender is told that nobody saw {}, but it was", sequence)
        message.unseen = True

    def ended(self, host: Host, peer: str) -> None:
        fin = host.session(peer).outbox.fin
        if fin:
            self._log(host, peer).fins.add(fin)

    # -- the receiving application --------------------------------------------------------------------------------

    def handed_over(self, host: Host, peer: str, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._hand_over(host, peer, delivery)
        self._ghost(host, host.session(peer)).unread -= sum(not _is_reply(delivery) for delivery in deliveries)

    def _hand_over(self, host: Host, peer: str, delivery: Delivery) -> None:
        inbox, sequence, payload, flags, details = delivery
        incarnation = host.endpoint.incarnation
        log, message = self._find(host, peer, delivery)
        details = details or _PLAIN
        headers, attempt, redelivered = details.headers or None, details.attempt, details.redelivered
        if payload != message.payload:
            self._object("I3", "the bytes of {} from {} changed under way", sequence, peer)
        if headers != message.headers:
            self._object("I3", "the headers of {} from {} changed under way", sequence, peer)
        if bool(flags & _RAW) != message.raw:
            self._object("I3", "{} from {} came with flags {}", sequence, peer, flags)
        mine, first_name = inbox.outbox_id, message.outbox_id
        if details.origin is None:
            right = mine == first_name
        else:
            right = details.origin == _name(first_name, sequence)
        if not right:
            self._object("I3", "{} from {} goes by the name of another message", sequence, peer)
        if message.unseen:
            self._object("I5", "{} from {} was reported as never seen", sequence, peer)

        reader = self._reader(incarnation, mine)
        before = reader.attempts.get(sequence, 0)
        again = before > 0
        if attempt != before + 1:
            self._object("I4", "{} from {} says attempt {} after {}", sequence, peer, attempt, before)
        if again:
            self._hand_over_again(host, peer, reader, sequence)
        elif not _is_reply(delivery):
            if reader.returned:
                self._object("I2", "{} from {} overtakes {}", sequence, peer, reader.returned)
            if sequence <= reader.last:
                self._object("I2", "{} from {} comes after {}", sequence, peer, reader.last)
            if details.gap or sequence != reader.last + 1:
                self._look_for_holes(host, log, reader, sequence, [(part.first, part.last) for part in details.gap])
            reader.last = sequence
            # An outbox that had to be renamed comes again to a process that holds the old one: flagged, if at all.
            line = (incarnation, log.eldest or log)
            if message.turn > self._furthest[line]:
                self._furthest[line] = message.turn
            elif not redelivered:
                self._object("I4", "{} from {} comes after what was accepted later", sequence, peer)
        reader.attempts[sequence] = attempt
        if not redelivered and message.seen_by & self._ancestors[incarnation]:
            self._object("I9", "{} from {} was seen before, and is not flagged", sequence, peer)
        message.seen_by = message.seen_by | {incarnation} if message.seen_by else reader.process
        self.tally["handed over again" if again else "redelivered" if redelivered else "handed over"] += 1

    def _reader(self, incarnation: bytes, outbox_id: bytes) -> _Reader:
        key = (incarnation, outbox_id)
        reader = self._readers.get(key)
        if reader is None:
            reader = self._readers[key] = _Reader(frozenset({incarnation}), frozenset({key}))
        return reader

    def _hand_over_again(self, host: Host, peer: str, reader: _Reader, sequence: int) -> None:
        """What is handed over once more was given back before, and comes in its turn."""
        returned = reader.returned
        self._demand(sequence in returned, "I4", "{} from {} was handed over twice to {}", sequence, peer, host)
        self._demand(sequence == returned[0], "I2", "{} from {} overtakes {}", sequence, peer, returned)
        returned.remove(sequence)

    def _look_for_holes(
        self, host: Host, log: _Log, reader: _Reader, sequence: int, gaps: list[tuple[int, int]]
    ) -> None:
        """Between two messages of one outbox everything is told as gap; before an inbox began, everything has ended."""
        told = {number for first, last in gaps for number in range(max(first, reader.last + 1), last + 1)}
        missing = {number for number in range(reader.last + 1, sequence) if not log.is_reply(number)} - told
        missing -= reader.known
        if reader.last:
            self._demand(not missing, "I2", "{} from {} comes without a word on {}", sequence, log.sender, missing)
        for number in missing | told:
            ghost = log.messages.get(number)
            over = number in log.fins if ghost is None else number < log.first or ghost.outcome is not None
            over = over or self._ended_before(host, log, number)
            self._demand(over, "I2", "{} of {} is passed over, and has not ended", number, log.sender)
        self.tally["gap"] += bool(told)

    def _ended_before(self, host: Host, log: _Log, sequence: int) -> bool:
        """Did it end in the time of an earlier process with the same journal?  ``host``: who passes it over."""
        return False

    def _passed_over(self, log: _Log, message: _Message, sequence: int) -> bool:
        """Was the peer told to pass it over by an earlier process, whose journal has forgotten why?"""
        return False

    def _find(self, host: Host, peer: str, delivery: Delivery) -> tuple[_Log, _Message]:
        log = self._outboxes.get(delivery[0].outbox_id)
        message = None if log is None else log.messages.get(delivery[1])
        if log is None or message is None or log.sender != peer or log.receiver != host.peer_id:
            raise Violation("I3", f"{peer} never accepted {delivery[1]} for {host.peer_id}", self.world)
        return log, message

    def settled(self, host: Host, peer: str, delivery: Delivery, reject: tuple[int, str] | None) -> None:
        _, message = self._find(host, peer, delivery)
        reader = self._reader(host.endpoint.incarnation, delivery[0].outbox_id)
        if message.settled_by:
            self._demand(not reader.key <= message.settled_by, "I4", "{} was settled twice by {}", delivery[1], host)
            message.settled_by |= reader.key
        else:
            message.settled_by = reader.key
        if reject is None:
            message.acknowledged = True
        else:
            message.rejections |= {reject[0]}

    def released(self, host: Host, peer: str, delivery: Delivery) -> None:
        self._find(host, peer, delivery)
        insort(self._reader(host.endpoint.incarnation, delivery[0].outbox_id).returned, delivery[1])

    # -- after every step -----------------------------------------------------------------------------------------

    def pumped(self, host: Host) -> None:
        session, endpoint = host.touched, host.endpoint
        connections = endpoint.connections
        if session is not None and endpoint.sessions.get(session.peer_id) is session:
            self._look(host, session, connections)
        else:
            for session in endpoint.sessions.values():
                self._look(host, session, connections)
        if self._announced:
            self._announced.clear()
        if endpoint._notices and host.on_wake is None:
            self._object("I23", "{} was not woken for its notices", host)
        for connection in connections:
            if connection.attached is None and connection._decoder.pending > _STRANGER_BYTES:
                self._object("I18", "{} holds {} bytes of a stranger", host, connection._decoder.pending)
        timers = endpoint.timers
        if len(timers._heap) + len(timers._acks) > _FEW_TIMERS:
            self._count_timers(host)
        self._looks += 1
        if not self._looks % _AUDIT_EVERY:
            self.audit(host)

    def _look(self, host: Host, session: Session, connections: Collection[Connection]) -> None:
        """Compare one session with its ghost; what did not move is not compared again."""
        ghost = self._ghosts.get(session) or self._ghost(host, session)
        self._look_at_outbox(host, session, ghost)
        boxes = session.inboxes.boxes
        if boxes or ghost.boxes:
            ghost.boxes = len(boxes)
            only = boxes[0] if len(boxes) == 1 else None
            stands = (-1, -1, -1) if only is None else (only.base, only.stated_received, only.read)
            if only is None or only is not ghost.inbox or stands != ghost.stood:
                self._look_at_positions(host, session)
                ghost.inbox, ghost.stood = only, stands
            unread = session.unread if only is None else len(only.ready) + len(only.returned)
            if unread > ghost.unread and session.handle not in self._announced and host.on_wake is None:
                self._object("I23", "{} got messages of {}, and there was no notice", host, session.peer_id)
            ghost.unread = unread
        if connections or ghost.live is not None:
            self._look_at_connection(host, session, ghost, connections)

    def _look_at_outbox(self, host: Host, session: Session, ghost: _Ghost) -> None:
        outbox = session.outbox
        first, received, cursor, following = outbox.first, outbox.received, outbox.cursor, outbox.next
        fragment, cost, outbox_id, receiver = outbox.fragment, outbox.cost, outbox.outbox_id, outbox.receiver
        ledger, connections = outbox.ledger, session.connections
        accepted = ledger.accepted
        # what the property Ledger.failed adds up: this is the line that runs most often of all
        failed = ledger.rejected + ledger.expired + ledger.cancelled + ledger.lost + ledger.abandoned
        seen = (
            first, received, cursor, following, fragment, cost, failed, accepted, connections, outbox_id, receiver,
        )  # fmt: skip
        if seen == ghost.outbox:
            return
        ghost.outbox = seen
        log = ghost.log
        if outbox_id != log.outbox_id or receiver != log.incarnation or connections != log.connections:
            self._look_at_resumption(host, session, log)
        if not first - 1 <= received < following:
            self._object("I1", "{}: {} {} {}", host, first - 1, received, following)
        if cursor > following or (cursor < first and not self._is_half_sent(session, ghost, cursor)):
            self._object("I1", "{}: {} {} {}", host, first, cursor, following)
        if first < log.first:
            self._object("I1", "the first of {} went from {} back to {}", host, log.first, first)
        if received < log.received:
            self._object("I1", "received of {} went from {} back to {}", host, log.received, received)
        if received > log.received and received >= first:
            held = self._held.get((receiver or b"", outbox_id), (0, 0))[0]
            if received > held:
                self._object("I5", "{} believes that {} are received, the peer has {}", host, received, held)
        log.received = received
        transmitted = cursor if fragment else cursor - 1
        if transmitted > log.transmitted:
            log.transmitted = transmitted
        if accepted != len(log.messages):
            self._object("I7", "{} counts {} accepted", host, accepted)
        if first != log.first or failed != log.failed:
            self._look_at_outcomes(host, log, outbox)
        config = host.config
        if cost > config.outbox_limit:  # one message may begin below the limit and pass it, and a FIN comes always
            most = max(log.burden, config.outbox_limit + config.limits.message + 2 * COST_PER_MESSAGE)
            if cost > most:
                self._object("I18", "the outbox of {} costs {} of {}", host, cost, most)

    def _is_half_sent(self, session: Session, ghost: _Ghost, sequence: int) -> bool:
        """Is this message on its way on the present connection, in fragments that have begun and have not ended?

        It is sent to its end (P-DATA-25), although the peer may have told meanwhile that it has read it: the outcomes
        do not wait for that (P-ACK-9).
        """
        connection, tap = session.connection, ghost.tap
        live = ghost.live is not None and ghost.live.connection is connection
        return live and session.outbox.fragment > 0 and tap is not None and tap.inside == sequence

    def _look_at_resumption(self, host: Host, session: Session, log: _Log) -> None:
        """The outbox has another name, another receiver, or another connection than before."""
        outbox = session.outbox
        if outbox.outbox_id != log.outbox_id:
            known = self._outboxes.setdefault(outbox.outbox_id, log)
            self._demand(known is log, "I3", "{} names an outbox like another", host)
            log.outbox_id = outbox.outbox_id
            log.received = 0
        connection = session.connection
        attach = None if connection is None else connection.attached
        if outbox.receiver != log.incarnation:
            log.incarnation = outbox.receiver
            echo = None if attach is None else attach.inbox
            if not log.durable or echo is None or echo.outbox_id != outbox.outbox_id:
                log.marked = log.markable = log.transmitted
            elif echo.received < log.received:  # else it has what it got
                log.marked, log.markable = max(log.marked, log.received), log.transmitted  # all may be (P-MARK-2)
            log.received = 0
        log.durable = log.durable if attach is None else attach.durable
        if session.connections != log.connections:
            log.connections = session.connections
            inbox = None if attach is None else attach.inbox
            if inbox is None or inbox.outbox_id != outbox.outbox_id:  # it has forgotten us, or has left us for another
                if log.received >= outbox.first:
                    log.marked, log.markable = max(log.marked, log.received), log.transmitted  # all may be (P-MARK-2)
                log.received = 0

    def _look_at_outcomes(self, host: Host, log: _Log, outbox: Outbox) -> None:
        for failure in reversed(outbox.failures.ranges()):
            if failure.last < log.first:
                break
            if failure.exact:
                outcome = failure.outcome
                for sequence in range(max(log.first, failure.first), failure.last + 1):
                    message = log.messages.get(sequence)
                    if message is None and sequence in log.fins:  # an earlier process gave it up and wrote that down
                        continue
                    if message is None or message.outcome is not outcome:  # else it was judged before
                        self._failed(host, log, message, sequence, failure)
        for sequence in range(log.first, outbox.first):
            message = log.messages.get(sequence)
            if message is None:
                self._demand(sequence in log.fins, "I8", "{} of {} was never accepted", sequence, host)
            elif message.outcome is None:
                read = message.acknowledged or self._passed_over(log, message, sequence)
                self._demand(read, "I5", "{} of {} is READ, and nobody read it", sequence, host)
                self._outcome(log, message, Outcome.READ)
        log.first, log.failed = outbox.first, outbox.ledger.failed
        for outcome, name in _OUTCOMES:
            counted = getattr(outbox.ledger, name)
            if counted != log.outcomes[outcome]:
                self._object("I7", "{} counts {} {}", host, counted, outcome)

    def _failed(self, host: Host, log: _Log, message: _Message | None, sequence: int, failure: Failure) -> None:
        demand, outcome = self._demand, failure.outcome
        if message is None:
            raise Violation("I7", f"{sequence} of {host} failed and was never accepted", self.world)
        if message.outcome is not None:
            self._object("I7", "{} is {} and then {}", sequence, message.outcome, outcome)
        self._outcome(log, message, outcome)
        if outcome is Outcome.REJECTED:
            demand(failure.code in message.rejections, "I5", "{} is REJECTED, and nobody rejected it", sequence)
        if outcome is Outcome.CANCELLED:
            demand(message.cancelled, "I5", "{} is CANCELLED, and nobody cancelled it", sequence)
        if failure.reason == "its ttl is over":
            over = message.expires is not None and message.expires <= host.now + _EPSILON
            demand(over, "I5", "{} is EXPIRED before its time", sequence)
        if failure.seen == "no":
            self._unseen(log, message, sequence)

    def _outcome(self, log: _Log, message: _Message, outcome: Outcome) -> None:
        message.outcome = outcome
        log.outcomes[outcome] += 1
        self.tally[outcome._name_] += 1  # the property ``name`` is a call

    def _look_at_positions(self, host: Host, session: Session) -> None:
        incarnation = host.endpoint.incarnation
        for inbox in session.inboxes.boxes:
            if inbox.barred:  # its positions are on record as ended, and nothing may come into it
                continue
            key = (incarnation, inbox.outbox_id)
            received = inbox.stated_received  # what a durable inbox has beyond that has not come yet
            known, positions = self._held.get(key), (received, min(inbox.read, received))
            if known != positions:
                self._look_at_inbox(host, session, inbox, known or (inbox.base, inbox.base), positions)
                self._held[key] = positions
        left = {inbox.outbox_id for inbox in session.inboxes.boxes}  # for whoever reads them, but told as ended
        for _, ended in session.inboxes._ended:  # the last of it came, and the session was over, in one step
            if ended.outbox_id in left:
                continue
            key = (incarnation, ended.outbox_id)
            self._held[key] = max(self._held.get(key, (0, 0)), (ended.received, ended.read))

    def _look_at_inbox(
        self, host: Host, session: Session, inbox: Inbox, known: tuple[int, int], positions: tuple[int, int]
    ) -> None:
        peer, (received, read) = session.peer_id, positions
        log = self._outboxes.get(inbox.outbox_id)
        if log is None or log.sender != peer or log.receiver != host.peer_id:
            raise Violation("I3", f"{host} has an inbox for an outbox that {peer} never had", self.world)
        if inbox.read > inbox.received:
            self._object("I1", "{} has read {} and received {}", host, inbox.read, inbox.received)
        if received < known[0] or read < known[1]:
            self._object("I1", "{}: {} was {}", host, (received, read), known)
        if received > max(log.transmitted, log.reached, log.first - 1):
            self._object("I3", "{} holds {}, not sent yet", host, received)
        if read > known[1]:
            held = (host.endpoint.incarnation, inbox.outbox_id)
            for sequence in range(known[1] + 1, read + 1):
                ghost = log.messages.get(sequence)
                over = sequence in log.fins if ghost is None else (
                    ghost.outcome is not None or held in ghost.settled_by
                )
                if not over and not self._ended_before(host, log, sequence):
                    text = "{} counts {} of {} as read, and its application holds it"
                    self._object("I5", text, host, sequence, peer)

    # -- connections ----------------------------------------------------------------------------------------------

    def _look_at_connection(
        self, host: Host, session: Session, ghost: _Ghost, connections: Collection[Connection]
    ) -> None:
        connection = session.connection
        if connection is None or len(connections) > 1:  # else it is the only one there is, or an objection below
            for other in connections:
                if other.state is _LIVE and other.session is session and other is not connection:
                    self._object("I13", "{} is live on {} with {}", host, [connection, other], session.peer_id)
        known = ghost.live
        if known is not None and known.connection is not connection:
            ghost.live = None
            self._lost(host, session, known)
        if connection is None:
            return
        if connection.state is not _LIVE or connection not in connections:
            self._object("I13", "{} has a session with {} on {}", host, session.peer_id, connection)
        if ghost.live is None:
            self._taken(host, session, connection, ghost)
        if connection.dirty:
            if ghost.tap is not None:
                ghost.tap.owing = None
            return
        outbox = session.outbox
        if outbox.cursor < outbox.next and (outbox.used < outbox.credit or outbox.fragment):
            waits = outbox.cursor > outbox.sendable or session.attachment.hole is not None  # for the disk
            waits = waits or _being_loaded(session)
            self._demand(waits, "I23", "{} has something to send to {}, and does not", host, session.peer_id)
        inbox, tap = session.inboxes.present, ghost.tap
        if inbox is None or tap is None:
            return
        if inbox.stated_received <= tap.positions[0] and inbox.stated_read <= tap.positions[1]:
            tap.owing = None
        else:
            self._look_at_acknowledgement(host, tap, inbox)

    def _look_at_acknowledgement(self, host: Host, tap: _Tap, inbox: Inbox) -> None:
        """What came and what was read is told within the time that is given for it."""
        now = host.now
        attach = tap.attach
        stated = None if attach is None else attach.inbox
        received, read = inbox.base, inbox.base
        if stated is not None and stated.outbox_id == inbox.outbox_id:
            received, read = stated.received, stated.read
        told = max(received, tap.positions[0]), max(read, tap.positions[1])
        if inbox.stated_received <= told[0] and inbox.stated_read <= told[1]:
            tap.owing = None
        elif tap.owing is None:
            tap.owing = now
        elif self._served.get(host.name) == now:
            in_time = now <= tap.owing + host.config.ack_delay + _EPSILON
            self._demand(in_time, "I23", "{} has not acknowledged since {}", host, tap.owing)

    def _taken(self, host: Host, session: Session, connection: Connection, ghost: _Ghost) -> None:
        demand, attach, endpoint = self._demand, connection.attached, host.endpoint
        wire, end = host.wires[connection]
        theirs = None if attach is None else attach.generation
        generation = connection.generation if theirs is None else theirs
        arbiter = endpoint.incarnation if theirs is None else connection.peer_incarnation
        before = self._generations.get((endpoint.incarnation, arbiter + session.peer_id.encode()), 0)
        demand(generation > before, "I14", "{} takes generation {} after {}", host, generation, before)
        self._generations[(endpoint.incarnation, arbiter + session.peer_id.encode())] = generation
        if theirs is None and not connection.dialer:
            processes = (endpoint.incarnation, connection.peer_incarnation)
            earlier, self._dials[processes] = self._dials[processes], connection.dial
            demand(earlier < connection.dial, "I14", "{} takes dial {} after {}", host, connection.dial, earlier)
        pair = (arbiter, host.peer_id if theirs is not None else session.peer_id, generation)
        other = self._chosen.setdefault(pair, wire.number)
        demand(other == wire.number, "I14", "generation {} is {} and wire {}", generation, wire, other)
        tap = self._tap(wire, end)
        stated = tap.attach is not None and tap.attach.outbox_id == session.outbox.outbox_id
        stated = stated or session.closed or not connection.dialer
        demand(stated, "I3", "{} is live with another outbox than it stated", host)
        ghost.live, ghost.tap = _Live(connection, tap, _positions(session)), tap
        self.tally["live"] += 1

    def _lost(self, host: Host, session: Session, known: _Live) -> None:
        """The end of a live connection: was it replaced by right, and does its dialer come back at once?"""
        connection, now = known.connection, host.now
        error = connection.error
        if error is None:
            raise Violation("I20", f"{connection} of {host} was left without a reason", self.world)
        self.tally[f"lost: {error.code.name}"] += 1
        successor = session.connection
        replaced = error.code is CloseCode.SUPERSEDED and not error.remote and successor is not None
        if replaced and successor is not None and successor.peer_incarnation != connection.peer_incarnation:
            silent = now - known.tap.heard
            allowed = silent >= host.config.probe_timeout - _EPSILON
            self._demand(allowed, "I15", "{} gave up {}, heard {} s ago", host, connection, silent)
        moved = _positions(session) != known.positions
        if moved and retry_class(error) is RetryClass.BACKOFF and not error.retry_after:
            soon = now + host.config.retry_quick + 1.5 * host.config.dial_courtesy
            waiting = [t for t in session.targets if t.state is TargetState.WAITING and t.error is error]
            in_time = all(t.retry_at is not None and t.retry_at <= soon for t in waiting)
            self._demand(in_time, "I24", "{} made progress and lets {} wait", host, [t.key for t in waiting])

    def effect(self, host: Host, effect: Effect) -> None:
        if isinstance(effect, Transmit):
            wire, end = host.wires.get(effect.connection, (None, 0))
            if wire is None or wire.closing[end]:
                self._object("I21", "{} wants a Transmit after Close", host)
        elif isinstance(effect, Close):
            self._closed(host, effect)

    def _closed(self, host: Host, effect: Close) -> None:
        connection = effect.connection
        if connection not in host.wires:
            self._object("I21", "{} wants a Close after Close", host)
        wire, end = host.wires[connection]
        if wire.closing[end]:
            if effect.flush:  # after the goodbye it is dropped, once
                self._object("I21", "{} wants a Close after Close", host)
            return
        error = connection.error
        code: CloseCode | None = None if error is None else error.code
        fine = code is not None and (code not in _ACCUSATIONS or wire.tampered)
        self._demand(fine, "I20", "{} of {} ended by {!r}", connection, host, error)
        self.tally[f"closed: {code.name if code is not None else code}"] += 1

    def noticed(self, host: Host, notice: Event) -> None:
        if isinstance(notice, MessagesReady):
            self._announced.add(notice.peer)
        elif isinstance(notice, PeerConnected):
            self.tally[f"verdict {notice.resumed.verdict}"] += 1
        elif isinstance(notice, MessagesRead) and isinstance(notice.peer, str):
            log, session = self._log(host, notice.peer), host.session(notice.peer)
            announced, received = log.announced, session.outbox.received
            in_order = announced <= notice.through <= received
            self._demand(in_order, "I6", "{}: read {} after {}, received {}", host, notice.through, announced, received)
            log.announced = notice.through

    # -- the wire -------------------------------------------------------------------------------------------------

    def _tap(self, wire: Wire, end: int) -> _Tap:
        taps = self._taps.get(wire.number)
        if taps is None:
            taps = self._taps[wire.number] = (_Tap(heard=wire.hosts[0].now), _Tap(heard=wire.hosts[1].now))
        return taps[end]

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        taps = self._taps.get(wire.number)
        host, connection, tap = wire.hosts[end], wire.ends[end], self._tap(wire, end) if taps is None else taps[end]
        session = None if connection is None else connection.session
        ghost = None
        if session is not None:
            ghost = self._ghosts.get(session) or self._ghost(host, session)
            if session.connection is connection:
                self._look_at_outbox(host, session, ghost)
        data = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        size = len(data)
        tap.size += size
        if end == 1 and connection is not None and connection.attached is None:
            heard = wire.pipes[0].delivered
            self._demand(tap.size <= _AMPLIFICATION * heard, "I19", "{} says {} to {}", host, tap.size, heard)
        position = 0 if tap.spoke else len(PREAMBLE)
        tap.spoke = True
        while position < size:
            length, kind, flags = _HEADER.unpack_from(data, position)
            if tap.closed:
                self._object("I21", "{} says frame {:02x} after CLOSE", host, kind)
            if kind == DATA and ghost is not None:
                self._tap_data(wire, end, tap, session, ghost.log, flags, _SEQUENCE.unpack_from(data, position + 6)[0])
            elif kind == ACK:
                positions = received, read, credit, first = _POSITIONS.unpack_from(data, position + 6)
                before = tap.positions
                if received < before[0] or read < before[1] or credit < before[2] or first < before[3]:
                    self._object("I1", "{} acknowledges {} after {}", host, positions, before)
                tap.positions = positions
            elif kind != PING and kind != PONG:
                self._tap_control(wire, end, tap, session, data, position, kind)
            position += 4 + length
        if position != size:
            self._object("I20", "{} wrote half a frame", host)

    def _tap_control(
        self, wire: Wire, end: int, tap: _Tap, session: Session | None, data: bytes | memoryview, at: int, kind: int
    ) -> None:
        """A frame that is neither DATA nor ACK, and more than a sign of life."""
        if kind == SKIP:
            self._tap_sequence(wire, end, tap, session, *_RANGE.unpack_from(data, at + 6))
        elif kind == FIN:
            self._tap_sequence(wire, end, tap, session, *2 * _SEQUENCE.unpack_from(data, at + 6))
        elif kind == ATTACH and session is not None:
            length = _HEADER.unpack_from(data, at)[0]
            tap.attach = attach = parse_attach(bytes(data[at + 6 : at + 4 + length]))
            self._outboxes.setdefault(attach.outbox_id, self._log(wire.hosts[end], session.peer_id))
        tap.closed = kind == CLOSE

    def _tap_data(
        self, wire: Wire, end: int, tap: _Tap, session: Session | None, log: _Log, flags: int, sequence: int
    ) -> None:
        if flags & _CONTINUED:
            if tap.inside != sequence:
                self._object("I2", "{} continues {} inside of {}", wire.hosts[end], sequence, tap.inside)
        else:
            if sequence == tap.expected and not tap.inside and tap.attach is not None and session is not None:
                if tap.attach.outbox_id != session.outbox.outbox_id:
                    self._object("I3", "{} sends {} under another outbox than it stated", wire.hosts[end], sequence)
                tap.expected = sequence + 1
            else:
                self._tap_sequence(wire, end, tap, session, sequence, sequence)
            if sequence > log.markable if flags & _REDELIVERED else sequence <= log.marked:
                facts = (wire.hosts[end], sequence, flags, log.marked)
                self._object("I9", "{} sends {}, flags {:02x}, marks {}", *facts)
        tap.inside = sequence if flags & _MORE else 0

    def _tap_sequence(self, wire: Wire, end: int, tap: _Tap, session: Session | None, first: int, last: int) -> None:
        """What goes out follows what went out, and the first is what the peer asked for."""
        host, other = wire.hosts[end], self._tap(wire, 1 - end)
        if session is None or tap.attach is None or other.attach is None:
            raise Violation("I2", f"{host} sends {first} before the handshake is over", self.world)
        mine, inbox = tap.attach, other.attach.inbox
        same = mine.outbox_id == session.outbox.outbox_id
        self._demand(same, "I3", "{} sends {} under another outbox than it stated", host, first)
        if not tap.expected:
            echoed = inbox is not None and inbox.outbox_id == mine.outbox_id
            tap.expected = inbox.received + 1 if inbox is not None and echoed else mine.first
        held = tap.expected < first <= other.positions[0] + 1  # it told since what it holds (P-ACK-9)
        right = (tap.expected == first or held) and not tap.inside
        self._demand(right, "I2", "{} sends {} in place of {} ({})", host, first, tap.expected, tap.inside)
        tap.expected = last + 1

    def arriving(self, wire: Wire, end: int) -> None:
        connection = wire.ends[end]
        self._before = None
        if connection is not None and connection.state is not _LIVE:
            self._before = (connection, connection.attached is not None, _state(wire.hosts[end]))

    def arrived(self, wire: Wire, end: int) -> None:
        taps = self._taps.get(wire.number)
        tap = self._tap(wire, end) if taps is None else taps[end]
        tap.heard = wire.hosts[end].now
        if self._before is None:
            return
        connection, proven, before = self._before
        judged = connection.attached is not None and not proven  # then the endpoint had a say
        if connection.state is not _LIVE and not judged:
            same = before == _state(wire.hosts[end])
            self._demand(same, "I11", "{} was changed by {}", wire.hosts[end], connection)

    # -- resources ------------------------------------------------------------------------------------------------

    def ticking(self, host: Host) -> None:
        timers = host.endpoint.timers
        self._due = _due(timers, host.now) if len(timers) > _AT_ONCE else 0

    def ticked(self, host: Host) -> None:
        now = self._served[host.name] = host.now
        timers, due = host.endpoint.timers, self._due
        timer = timers.next()
        if timer is not None and timer <= now:
            left = _due(timers, now)
            self._demand(left <= due - _AT_ONCE, "I19", "a timer of {} fires again at once", host)

    def _count_timers(self, host: Host) -> None:
        endpoint = host.endpoint
        owners = len(host.wires) + len(endpoint.sessions) + len(endpoint.targets)  # streams that linger have timers too
        timers = len(endpoint.timers)
        self._demand(timers <= _FEW_TIMERS + 3 * owners, "I19", "{} has {} timers", host, timers)

    def audit(self, host: Host) -> None:
        """Count everything that ``host`` holds; done from time to time anyway."""
        endpoint, config = host.endpoint, host.config
        for session in endpoint.sessions.values():
            self._audit_outbox(host, session)
            unsettled = 0
            for inbox in session.inboxes:
                unsettled += inbox.unsettled
                counted = sum([reject.cost for reject in inbox.rejects.values()]) if inbox.rejects else 0
                for holding in (inbox.staged, inbox.ready, inbox.returned, inbox.held.values()):
                    counted += sum(map(_cost, holding))
                self._demand(inbox.unsettled == counted, "I18", "{} counts {}, {}", host, inbox.unsettled, counted)
            most = config.window_max + config.limits.message + 2 * COST_PER_MESSAGE
            self._demand(unsettled <= most, "I18", "{} holds {} of {}", host, unsettled, session.peer_id)
        total = sum(session.outbox.cost for session in endpoint.sessions.values())
        self._demand(endpoint.outbox_cost == total, "I18", "{} counts {}, {}", host, endpoint.outbox_cost, total)

    def _audit_outbox(self, host: Host, session: Session) -> None:
        outbox, log = session.outbox, self._log(host, session.peer_id)
        first, messages, cost = outbox.first, log.messages, 0
        entries = outbox.entries[first - outbox.origin : outbox.next - outbox.origin]
        self._demand(len(entries) == outbox.next - first, "I7", "{} keeps {} from {} on", host, len(entries), first)
        for sequence, entry in enumerate(entries, first):
            message = messages.get(sequence)
            if isinstance(entry, Entry):
                retained = not (entry.skip or entry.fin)
                cost += entry.cost
            else:
                retained = True
                cost += len(entry) + COST_PER_MESSAGE - 14
            if retained != (message is not None and message.outcome is None):
                self._object("I7", "{} keeps {}: {}, {}", host, sequence, retained, message)
        self._demand(cost == outbox.cost, "I18", "the outbox of {} says {}, it is {}", host, outbox.cost, cost)

    # -- the end --------------------------------------------------------------------------------------------------

    def at_rest(self) -> None:
        """Everything had the time to go right, and every application has settled what it got: what is left?"""
        demand = self._demand
        for host in self.world.hosts.values():
            if not host.up:
                continue
            endpoint = host.endpoint
            for peer, session in endpoint.sessions.items():
                log, outbox = self._log(host, peer), session.outbox
                left = [sequence for sequence, m in log.messages.items() if m.outcome is None]
                demand(not left and outbox.all_read, "I22", "{}: {} {}", host, left[:9], session.why(host.now))
                holding = any(inbox.holding for inbox in session.inboxes)
                demand(not holding, "I22", "{} holds messages of {}", host, peer)
                kept = outbox.cost - (COST_PER_MESSAGE if outbox.fin_read else 0)  # FIN stays until the session is over
                demand(kept == 0 and not session.parked, "I25", "{} keeps something for {}", host, peer)
                for inbox in session.inboxes:
                    demand(inbox.unsettled == 0, "I25", "the credit of {} at {} does not come back", peer, host)
                    known = inbox.forsaken or not inbox.rejects or not session.connected
                    demand(known, "I25", "{} repeats its rejections to {} for ever", host, peer)
            demand(not endpoint.starved, "I25", "{} keeps {} waiting for room", host, list(endpoint.starved))
            strangers = [c for c in endpoint.connections if c.state is not ConnectionState.LIVE]
            pending = (endpoint._answering, endpoint._pending_by_source, endpoint._introduced)
            demand(not strangers and not any(pending), "I25", "{} still shakes hands: {}", host, strangers)
            self.pumped(host)
            self.audit(host)


def _name(outbox_id: bytes, sequence: int) -> bytes:
    """What a message is called for ever."""
    return outbox_id + sequence.to_bytes(8, "big")


def _is_reply(delivery: Delivery) -> bool:
    """Did it go to whoever waited for it, past the messages?"""
    return delivery[4] is not None and REPLY in (delivery[4].headers or ())


def _being_loaded(session: Session) -> bool:
    """Is the next message on disk only, and asked for?"""
    outbox, journal = session.outbox, session.journal
    spilled = isinstance(outbox.entries[outbox.cursor - outbox.origin], Spilled)
    return spilled and journal is not None and journal.spill.loading


def _cost(delivery: Delivery) -> int:
    details = delivery[4]
    return COST_PER_MESSAGE + len(delivery[2]) + (0 if details is None else details.headers_size)


def _positions(session: Session) -> tuple[int, ...]:
    outbox, inbox = session.outbox, session.inbox
    return (outbox.received, outbox.first) + ((0, 0) if inbox is None else (inbox.received, inbox.read))


def _due(timers: Timers, now: float) -> int:
    """How many are due."""
    return sum(place <= now and owner.timer_at == place for place, _, owner in timers._heap)


def _state(host: Host) -> tuple[object, ...]:
    """What only a live connection, or the application, may change."""
    state: list[object] = []
    for peer, session in host.endpoint.sessions.items():
        o = session.outbox
        state += [peer, session.connection, session.connections, session.peer_incarnation, session.ending]
        state += [o.outbox_id, o.next, o.first, o.received, o.cursor, o.fragment, o.used, o.credit, o.ledger.failed]
        for i in session.inboxes.boxes:
            state += [i.outbox_id, i.run, i.received, i.read, i.used, i.allowed, i.first, len(i.rejects), i.unread]
    return tuple(state)
