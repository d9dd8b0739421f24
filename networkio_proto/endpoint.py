"""One identity on the network: every session, every connection, every target, and what to do next.

Theory of operation
-------------------
An :class:`Endpoint` is the whole core of one node.  A *driver* (an adapter, a simulator, your own event loop) owns the
sockets and the clock and does only this:

* it hands bytes to connections and asks them for bytes (:class:`~networkio_proto.connection.Connection`);
* after **any** input or command it empties :meth:`Endpoint.next_effect` and carries out what it finds, and it never
  waits for anything while an effect is left;
* it calls :meth:`Endpoint.handle_timer` when :meth:`Endpoint.get_timer` is due, and asks for that time anew after every
  input or command: it may have come nearer without an effect.

What ``data_to_send`` gave out counts as sent: a driver that is interrupted in the middle of writing it must report the
connection as lost.

``now`` is a float on the caller's monotonic clock and never goes back.  One lock, or one event loop, around an endpoint
and everything it made is the whole thread-safety rule.  Nothing in here blocks, sleeps, or looks at a clock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .arbiter import Decision
from .auth import Authenticator, Identity, Insecure, Refusal, TLSFacts
from .config import Config, check_peer_id
from .connection import Connection, ConnectionState
from .errors import (
    AbortedByPeer,
    CloseCode,
    CollisionClosed,
    ConfigurationError,
    ConnectionFailure,
    DialFailed,
    NodeClosed,
    NormalClose,
    RetryRequested,
    Superseded,
    printable,
)
from .events import Abandon, Close, Dial, Effect, Event, Wake
from .instrumentation import Instrumentation, Observer
from .journal import JournalBatch, JournalQueue, MessageAccepted, RestoredRecord, restore, restored
from .logbook import Logbook
from .notices import Notice
from .quotas import Quota, Quotas
from .randomness import RandomSource, SystemRandomSource
from .reconnect import RetryClass, Target, TargetState, retry_class, retry_delay
from .session import Session
from .spill import JournalLoad
from .statistics import Counters, NodeStatistics, node_statistics
from .timers import Timers

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Authorize", "Endpoint"]

#: what an application says of somebody who has proved to be there; None: welcome
Authorize: TypeAlias = Callable[[Identity], Refusal | None]

#: newcomers of other incarnations that wait for one probe; the newest are kept
_MAX_PARKED = 4

#: sessions of peers that answered and have not proved themselves; the newest are kept
_MAX_PROVISIONAL = 64

#: from this share of ``max_pending`` on, newcomers are turned away at random, more of them the fuller it is
_EARLY_DROP = 0.75

#: a handshake that has taken this share of its time makes room for a newcomer then
_SLOW = 0.5


class Endpoint:
    """The core of one node.  See the module's docstring for how to drive it.

    ``peer_id`` names this node.  ``auth`` proves identities; ``codec`` is the name of the payload codec that both sides
    must use; ``features`` and ``require`` are optional protocol features offered and demanded (version 1 has none).
    ``journal``: the driver keeps a durable store behind :mod:`~networkio_proto.journal`'s seam.
    ``durable_inbox``: what comes is there, too, before it is acknowledged as received or handed over.
    ``authorize`` is asked about everybody who has proved to be there, and may refuse them.
    ``quotas`` says, by peer id, what single peers may have.
    ``instrumentation`` is told of every message (:mod:`~networkio_proto.instrumentation`).

    Raises ConfigurationError for an unusable peer id, for what is no quota, and for a durable inbox without a journal.
    """

    def __init__(
        self,
        peer_id: str,
        config: Config | None = None,
        *,
        auth: Authenticator | None = None,
        codec: str = "msgpack",
        features: tuple[str, ...] = (),
        require: tuple[str, ...] = (),
        random: RandomSource | None = None,
        journal: bool = False,
        durable_inbox: bool = False,
        instrumentation: Instrumentation | None = None,
        authorize: Authorize | None = None,
        quotas: Mapping[str, Quota] | None = None,
    ) -> None:
        self.peer_id = check_peer_id(peer_id)
        self.config = Config() if config is None else config
        #: what each peer may have
        self.quotas = Quotas(self.config, quotas)
        self.auth: Authenticator = Insecure() if auth is None else auth
        self.authorize = authorize
        self.codec = codec
        self.features = features
        self.require = require
        self.random: RandomSource = SystemRandomSource() if random is None else random
        #: this run of the process, and of its (absent) journal
        self.incarnation = self.random_bytes(16)
        self.run = self.random_bytes(16)
        #: who is told of every message; None: nobody
        self.observer = None if instrumentation is None else Observer(instrumentation, self)
        #: the lines for the log
        self.logbook = Logbook(self)
        #: for :meth:`statistics`: what belongs to no session
        self.counters = Counters()
        self.timers = Timers()
        #: what waits to be written; None in memory mode
        self.journal = JournalQueue(self.timers, self.config.outbox_resident) if journal else None
        if durable_inbox and not journal:
            raise ConfigurationError("a durable inbox is kept in a journal: give the node one, journal='FILE'")
        self.durable_inbox = durable_inbox
        #: is there anybody beside the outbox who must learn of an accepted message?
        self.followed = journal or instrumentation is not None
        self.sessions: dict[str, Session] = {}
        #: everything that is not closed yet, in the order of arrival
        self.connections: dict[Connection, None] = {}
        self.targets: dict[Target, None] = {}
        self.effects: deque[Effect] = deque()
        self.closed = False
        #: the last timer came so late that this process itself must have been paused
        self.paused = False
        #: cost of everything in all outboxes
        self.outbox_cost = 0
        #: what all windows together take of ``Config.inbox_budget``
        self.inbox_reserved = 0
        #: sessions that were refused for want of room
        self.starved: dict[str, Session] = {}
        self._notices: deque[tuple[Session, int]] = deque()
        self._wake = Wake(None)
        self._waking = False
        self._dials = 0
        #: the handshakes that this node answers, the oldest first
        self._answering: OrderedDict[Connection, None] = OrderedDict()
        self._pending_by_source: dict[str, int] = {}
        self._introduced: dict[str, dict[Connection, None]] = {}
        self._provisional: dict[str, Session] = {}

    def random_bytes(self, size: int) -> bytes:
        """From the injected source."""
        return self.random.randbytes(size)

    # -- sessions -----------------------------------------------------------------------------------------------

    def session(self, peer_id: str, now: float = 0.0) -> Session:
        """The session with a peer; made when it is asked for the first time.

        Raises ConfigurationError for an unusable peer id, or this node's own.
        """
        session = self.sessions.get(peer_id)
        if session is None:
            if check_peer_id(peer_id) == self.peer_id:
                raise ConfigurationError(f"{peer_id} is this node's own id; a node has no session with itself")
            session = self._provisional.pop(peer_id, None) or Session(self, peer_id, now)
            self.sessions[peer_id] = session
        return session

    def provisional(self, peer_id: str, now: float) -> Session:
        """The session with a peer that has not proved itself: an existing one, or one that nobody else sees yet.

        The newest of the latter are kept: an arbiter's generations go on from one handshake to the next (P-ATT-9).
        """
        session = self.sessions.get(peer_id)
        if session is None:
            session = self._provisional.pop(peer_id, None) or Session(self, peer_id, now)
            self._provisional[peer_id] = session
            if len(self._provisional) > _MAX_PROVISIONAL:
                del self._provisional[next(iter(self._provisional))]
        return session

    def set_quota(self, peer_id: str, quota: Quota | None) -> None:
        """From now on that peer may have so much; None: what everybody may.

        What the outbox to it holds, and the largest message to it, at once; what it may send, with its next connection.
        Raises ConfigurationError for what is no peer id, or no quota.
        """
        self.quotas.set(peer_id, quota)
        session = self.sessions.get(peer_id) or self._provisional.get(peer_id)
        if session is not None:
            session.set_bounds(self.quotas.of(peer_id))

    def statistics(self, now: float, peers: Collection[str] | None = None) -> NodeStatistics:
        """What has happened so far, and how it stands.  It looks at every session.

        ``peers`` are told one by one (None: all of them), the others together, which costs less.
        """
        return node_statistics(self, now, peers)

    @property
    def handshakes(self) -> int:
        """Connections that others dialled and that are shaking hands."""
        return len(self._answering)

    # -- targets ------------------------------------------------------------------------------------------------

    def add_target(self, key: Any, now: float, *, to: str | None = None) -> Target:
        """Keep a connection to an address.  ``key`` is the driver's name for it; ``to`` the peer that must answer.

        Raises NodeClosed, ConfigurationError.
        """
        if self.closed:
            raise NodeClosed(f"node {self.peer_id} is closed")
        self.auth.key_id(to)  # raises where there is no way to prove anything to that peer
        session = None if to is None else self.session(to, now)
        target = Target(self, key, to)
        self.targets[target] = None
        if session is not None:
            self.bind(target, session)
            session.farewell.reopen(now)
        if session is not None and session.connection is not None:
            target.state = TargetState.SATISFIED
        else:
            self.dial(target, now)
        return target

    def remove_target(self, target: Target) -> None:
        """Dial it no more, and give up the dial that is under way.  A live connection stays."""
        self.targets.pop(target, None)
        self._abandon(target)
        self.timers.cancel(target)
        target.state = TargetState.STOPPED
        target.retry_at = None
        if target.session is not None and target in target.session.targets:
            target.session.targets.remove(target)

    def abandon_target(self, target: Target, now: float) -> None:
        """Dial it no more, and close what it has begun."""
        self.remove_target(target)
        for connection in list(self.connections):
            if connection.target is target and connection.state is not ConnectionState.LIVE:
                connection.close(CloseCode.NORMAL, "", now)

    def close_pending(self, session: Session, now: float) -> None:
        """Nobody wants this peer any more: close the handshakes with it that are under way."""
        for connection in list(self.connections):
            dropped = connection.target is not None and connection.target not in self.targets
            under_way = connection.state is not ConnectionState.LIVE
            if under_way and (dropped or connection.peer_id == session.peer_id):
                connection.close(CloseCode.NORMAL, "", now)

    def dial(self, target: Target, now: float) -> None:
        """It is time: ask the driver for a byte stream."""
        target.state = TargetState.DIALLING
        target.retry_at = None
        target.dial = Dial(target)
        self.effects.append(target.dial)
        target.dial_until = now + self.config.dial_timeout
        self.timers.schedule(target, target.dial_until)

    def connect(self, dial: Dial, now: float, *, tls: TLSFacts | None = None) -> Connection:
        """The dial succeeded: here is the byte stream.  HELLO is queued.

        If the dial was abandoned meanwhile, the connection is closing already, and an effect says so.
        """
        self._dials += 1
        target = dial.target
        connection = Connection(self, now, target=target, tls=tls)
        connection.dial = self._dials
        self.connections[connection] = None
        if target.dial is not dial:
            connection.target = None  # what became of the target meanwhile is not this connection's business
            connection.close(CloseCode.NORMAL, "", now)
            return connection
        target.dial = None
        self.timers.cancel(target)
        target.state = TargetState.HANDSHAKING
        connection.negotiation.start(now)
        return connection

    def dial_failed(self, dial: Dial, now: float, error: BaseException) -> None:
        """The dial failed; the core decides when to try again.  Of a dial that was abandoned, this means nothing."""
        target = dial.target
        if target.dial is dial:
            self._abandon(target)
            failure = DialFailed(f"{printable(target.key)}: {printable(error)}")
            failure.__cause__ = error
            self._attempt_failed(target, failure, now)

    def _abandon(self, target: Target) -> None:
        """The dial that is under way, if there is one, comes to nothing."""
        if target.dial is not None:
            self.effects.append(Abandon(target.dial))
            target.dial = None

    def _attempt_failed(self, target: Target, error: ConnectionFailure, now: float) -> None:
        session = target.session
        target.error = error
        target.attempts += 1
        target.retries = target.retries + 1 if retry_class(error) is RetryClass.AGAIN else 0
        if session is None:  # somebody may wait for whoever answers there
            self._wake_driver()
        if session is not None and session.connection is None:
            session.error = error
        self._schedule(target, error, now)
        if not isinstance(error, (CollisionClosed, RetryRequested)):
            (self.counters if session is None else session.counters).dials_failed += 1
        self.logbook.dial_failed(target, error, now)
        # one notice for each way of failing, not one for each try
        if target.reported is not type(error) and session is not None and session.connection is None:
            target.reported = type(error)
            session.notices.add(Notice.LINK)

    def _schedule(self, target: Target, error: ConnectionFailure, now: float) -> None:
        """When does this target dial next?"""
        session = target.session
        if session is not None and session.connection is not None:
            target.state = TargetState.SATISFIED
            target.retry_at = None
            return
        delay = retry_delay(error, target.retries or target.attempts, self.random.random(), self.config)
        if delay is None:
            self.timers.cancel(target)
            target.state = TargetState.STOPPED
            target.retry_at = None
            self._wake_driver()
            return
        lesser = session is not None and session.peer_dials and self.peer_id < session.peer_id
        if lesser and retry_class(error) is RetryClass.BACKOFF:
            delay += self.config.dial_courtesy * (1 + self.random.random() / 2)
        target.state = TargetState.WAITING
        target.retry_at = now + delay
        self.timers.schedule(target, target.retry_at)

    def bind(self, target: Target, session: Session) -> None:
        """The target leads to this session's peer."""
        if target.session is not None and target.session is not session:  # another peer answers there now
            target.session.targets.remove(target)
        target.session = session
        if target not in session.targets:
            session.targets.append(target)

    def key_id(self, to: str | None) -> str | None:
        """The key to announce to whoever is dialled; one that has gone meanwhile is as good as a wrong one."""
        try:
            return self.auth.key_id(to)
        except ConfigurationError:
            return None

    # -- connections --------------------------------------------------------------------------------------------

    def recheck(self, now: float) -> list[str]:
        """Credentials or wishes have changed: close whoever would not get in any more; returns their peer ids.

        What each has proved is judged anew, and ``authorize`` is asked again.  Those who wait for a place come first,
        lest one of them takes that of a live connection.
        """
        proved = [connection for connection in self.connections if connection.attached is not None]
        proved.sort(key=lambda connection: connection.live)
        return [connection.peer_id for connection in proved if not connection.negotiation.recheck(now)]

    def accept(self, now: float, *, source: str = "", tls: TLSFacts | None = None) -> Connection:
        """Somebody dialled us.  ``source`` groups strangers for the cap per source (an address without its port).

        The connection may be closed already (an effect says so) when too many handshakes are under way.
        """
        connection = Connection(self, now, source=source, tls=tls)
        self.connections[connection] = None
        self._answering[connection] = None
        self._pending_by_source[source] = self._pending_by_source.get(source, 0) + 1
        most, fill = self.config.max_pending, (len(self._answering) - 1) / self.config.max_pending
        if self.closed or self._pending_by_source[source] > self.config.max_pending_per_source:
            connection.close(CloseCode.OVERLOAD, "", now)
        elif fill > _EARLY_DROP and not self._make_room(now):
            if len(self._answering) > most:
                connection.close(CloseCode.OVERLOAD, "", now)
            else:
                connection.overloaded = self.random.random() < (fill - _EARLY_DROP) / (1 - _EARLY_DROP)
        return connection

    def _make_room(self, now: float) -> bool:
        """Close the oldest handshake under way if it is slow: whoever holds one open keeps nobody else out for long."""
        oldest = next(iter(self._answering))
        if now < oldest.negotiation.begun + self.config.handshake_timeout * _SLOW:
            return False
        self.put_off(oldest, now)
        return True

    def put_off(self, connection: Connection, now: float) -> None:
        """There is no place for it now; those who are told so come back one after the other."""
        connection.close(CloseCode.OVERLOAD, "", now, retry_after=1.0 + 4.0 * self.random.random())

    def introduced(self, connection: Connection) -> None:
        """It claims to be ``connection.peer_id``; kept so that a take-over can find it."""
        self._introduced.setdefault(connection.peer_id, {})[connection] = None

    def newcomer(self, connection: Connection, now: float) -> None:
        """Its ATTACH is verified: take it, park it, or close it (specification, *Which connection*)."""
        session = connection.session
        assert session is not None
        known = self.sessions.get(connection.peer_id)
        if known is not session:
            if known is not None:  # made while we shook hands; the facts that were sent are not its
                connection.close(CloseCode.RETRY, "", now)
                return
            self._provisional.pop(connection.peer_id, None)
            self.sessions[connection.peer_id] = session
        incumbent = session.connection
        decision = session.arbitration.decide(
            connection.newcomer(), None if incumbent is None else incumbent.peer_incarnation
        )
        if decision is Decision.STALE:
            connection.close(CloseCode.COLLISION, "", now)
        elif decision is Decision.PARK and incumbent is not None:
            connection.park()
            session.parked.append(connection)
            if len(session.parked) > _MAX_PARKED:
                session.parked[0].close(CloseCode.COLLISION, "", now)
            incumbent.liveness.probe(now)
        elif incumbent is not None and session.inboxes.in_doubt:
            # it would be refused (P-RES-25), and the incumbent gone for nothing
            connection.close(CloseCode.RETRY, "", now)
        else:
            self._take(session, connection, now)

    def _take(self, session: Session, connection: Connection, now: float) -> None:
        """The one step in which a connection becomes live and the session goes on with it."""
        attach = connection.attached
        assert attach is not None
        incumbent, session.connection = session.connection, None
        if incumbent is not None:
            incumbent.close(CloseCode.SUPERSEDED, "", now)
            assert incumbent.error is not None
            session.link_down(incumbent.error, now)
        if connection.target is not None and connection.target.session is not session:
            session.farewell.reopen(now)  # a target that named nobody: somebody asks anew
        refused = session.attach(connection, attach, now)
        if refused is not None:
            connection.close(refused, "", now, resumable=refused is not CloseCode.NORMAL)
            if incumbent is not None:
                self._detached(session, incumbent, now)
            return
        if not connection.dialer:
            connection.negotiation.send_attach(now)
            session.credit_granted(connection)
        session.arbitration.took(connection.newcomer())
        self._settled(connection)
        if connection.target is not None and connection.target in self.targets:
            self.bind(connection.target, session)
        for target in session.targets:
            target.reported = None
            target.told.clear()
            target.retries = 0
            if target.state is TargetState.WAITING or target is connection.target:
                self.timers.cancel(target)
                target.state = TargetState.SATISFIED
                target.retry_at = None
        connection.go_live(now)
        self._close_rivals(session, connection, now)
        self._wake_driver()
        session.farewell.taken(connection, attach, now)

    def _close_rivals(self, session: Session, taken: Connection, now: float) -> None:
        """Taking closes what is parked, what another incarnation has pending, and the arbiter's own other dials."""
        parked, session.parked = session.parked, []
        for rival in parked:
            rival.close(CloseCode.COLLISION, "", now)
        for rival in list(self._introduced.get(session.peer_id, ())):
            other = rival.peer_incarnation != taken.peer_incarnation
            if other or (session.arbitration.arbiter and rival.dialer):
                rival.close(CloseCode.COLLISION, "", now)

    def incumbent_alive(self, session: Session, now: float) -> None:
        """It answered the probe: whoever else uses its id is turned away."""
        for newcomer in list(session.parked):
            self.logbook.impostor(newcomer, now)
            newcomer.close(CloseCode.DUPLICATE_IDENTITY, "", now)

    def incumbent_silent(self, session: Session, now: float) -> None:
        """It did not: the newest newcomer takes over."""
        while session.parked:
            newcomer = session.parked.pop()
            if session.arbitration.stale(newcomer.newcomer()):
                newcomer.close(CloseCode.COLLISION, "", now)
                continue
            self._take(session, newcomer, now)
            newcomer.resume_reading(now)

    def connection_ended(self, connection: Connection, now: float, *, flush: bool) -> None:
        """It closed or was lost, for the reason in ``connection.error``."""
        error = connection.error
        assert error is not None
        own = not error.remote and error.code in (CloseCode.NORMAL, CloseCode.ABORT)
        error.unproven = connection.attached is None and not own and not isinstance(self.auth, Insecure)
        self.connections.pop(connection, None)
        if not connection.dialer and not connection.counted_out:
            self.counters.ended(error)
            self.logbook.handshake_failed(connection.source, error, now)
        self._settled(connection)
        self.effects.append(Close(connection, flush))
        session = connection.session
        over = isinstance(error, NormalClose) and error.remote and not error.resumable
        if session is not None and connection in session.parked:
            session.parked.remove(connection)
        was_live = session is not None and session.connection is connection
        if session is not None and was_live:
            self._detached(session, connection, now)
        elif session is not None and session.connection is None and not self.claims(session):
            session.window.release(session.unsettled)  # nothing came of the credit that it stated
        if connection.target is not None:
            # superseded, it was live until just now: no dial has failed
            replaced = connection.attached is not None and isinstance(error, Superseded) and not error.remote
            self._target_lost(connection.target, error, now, was_live=was_live or replaced)
        if session is not None and was_live:
            if over:
                session.farewell.peer_is_done()
            elif isinstance(error, AbortedByPeer) and error.remote:
                session.farewell.aborted_by_peer(now)
            self.incumbent_silent(session, now)  # parked newcomers need wait no longer

    def drop(self, connection: Connection) -> None:
        """Its last words are heard, or had their time: the driver need not keep the stream any longer."""
        self.effects.append(Close(connection, flush=False))

    def claims(self, session: Session) -> bool:
        """Is there a dial on which the session's facts were stated, and not answered yet?"""
        return any(rival.claimed for rival in self._introduced.get(session.peer_id, ()))

    def _detached(self, session: Session, connection: Connection, now: float) -> None:
        """The session's connection is gone, and no other took its place."""
        error = connection.error
        assert error is not None
        moved = session.attachment.moved()
        session.detach(error, now)
        for target in session.targets:
            if moved:
                target.attempts = 0
            if target.state is TargetState.SATISFIED and target is not connection.target:
                target.error = error
                self._schedule(target, error, now)

    def _target_lost(self, target: Target, error: ConnectionFailure, now: float, *, was_live: bool) -> None:
        if target.state is TargetState.STOPPED:
            return
        if target.session is None or not was_live:
            self._attempt_failed(target, error, now)
            return
        target.error = error
        target.attempts += 1 if target.attempts or not target.session.attachment.moved() else 0
        self._schedule(target, error, now)

    def _settled(self, connection: Connection) -> None:
        """No longer a pending handshake."""
        rivals = self._introduced.get(connection.peer_id)
        if rivals is not None:
            rivals.pop(connection, None)
            if not rivals:
                del self._introduced[connection.peer_id]
        if not connection.dialer and not connection.counted_out:
            connection.counted_out = True
            del self._answering[connection]
            left = self._pending_by_source[connection.source] - 1
            if left:
                self._pending_by_source[connection.source] = left
            else:
                del self._pending_by_source[connection.source]

    # -- outputs ------------------------------------------------------------------------------------------------

    def next_effect(self) -> Effect | None:
        """The next thing for the driver to do; None when there is nothing."""
        if not self.effects:
            return None
        effect = self.effects.popleft()
        if type(effect) is Wake:
            if effect.session is None:
                self._waking = False
            else:
                effect.session.woken()
        return effect

    def next_event(self) -> Event | None:
        """The next notice for the application; None when there is none."""
        if not self._notices:
            return None
        session, kind = self._notices.popleft()
        return session.notices.take(kind)

    def queue_notice(self, session: Session, kind: int) -> None:
        """A session has a notice of a kind that was not waiting."""
        self._notices.append((session, kind))
        self._wake_driver()

    def _wake_driver(self) -> None:
        if not self._waking:
            self._waking = True
            self.effects.append(self._wake)

    @property
    def notices_waiting(self) -> int:
        """How many notices :meth:`next_event` would return."""
        return len(self._notices)

    def feed_starved(self) -> None:
        """The node's outboxes have room again: wake those who were refused."""
        if self.outbox_cost >= self.config.outbox_node_limit:
            return
        starved, self.starved = self.starved, {}
        for session in starved.values():
            session.wake_for_room()

    # -- the journal's seam ---------------------------------------------------------------------------------------

    def journal_request(self, *, empty: bool = False) -> JournalBatch | None:
        """What is to be made durable next: one batch at a time, one token, however many messages it holds.

        ``empty``: a batch is made even if there is nothing to write.
        """
        return None if self.journal is None else self.journal.request(empty=empty)

    def journal_done(self, token: int, now: float, error: BaseException | None = None) -> None:
        """The batch with this token is durable, or (``error``) failed whole.  Raises ValueError for another token."""
        if self.journal is None:
            raise ValueError("this endpoint has no journal")
        self.journal.done(token, now, error)

    def journal_load(self) -> JournalLoad | None:
        """Which messages are to be read back next; one load at a time, whatever becomes of batches meanwhile."""
        return None if self.journal is None else self.journal.loads.request()

    def journal_loaded(
        self, token: int, records: Iterable[MessageAccepted], now: float, error: BaseException | None = None
    ) -> None:
        """What the journal has of the load with this token: everything that was not trimmed meanwhile.

        With an ``error`` the same is asked for again; a driver that cannot get it asks for nothing any more.  Raises
        ValueError for another token.
        """
        if self.journal is None:
            raise ValueError("this endpoint has no journal")
        self.journal.loads.done(token, records, now, error)

    def restore(self, records: Iterable[RestoredRecord], now: float) -> None:
        """What the journal held at opening, oldest first; before anything else is done with this endpoint."""
        for record in records:
            restore(self.session(record.peer_id, now), record)
        for session in self.sessions.values():
            restored(session, self.run, now)

    # -- time ---------------------------------------------------------------------------------------------------

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` wants to be called next; None if never.  O(1)."""
        return self.timers.next()

    def handle_timer(self, now: float) -> None:
        """Do what is due.  Coming late by more than ``Config.pause_threshold`` means that this process was paused."""
        due = self.timers.next()
        if due is None or due > now:
            return
        self.paused = now - due > self.config.pause_threshold
        self.timers.run(now)
        self.paused = False

    # -- ending -------------------------------------------------------------------------------------------------

    def close(self, now: float, code: CloseCode = CloseCode.RESTARTING) -> None:
        """The node leaves: no more dials, no more sends, every connection says CLOSE.  Sessions can be resumed."""
        self.closed = True
        for target in list(self.targets):
            self.remove_target(target)
        # live ones last: a newcomer that waits for the end of one must not be taken now
        for connection in sorted(self.connections, key=lambda connection: connection.live):
            connection.close(code, "", now)
        for session in self.sessions.values():
            session.wake_all()
        self._wake_driver()

    def live(self) -> Iterable[Connection]:
        """The live connections."""
        return [connection for connection in self.connections if connection.state is ConnectionState.LIVE]
