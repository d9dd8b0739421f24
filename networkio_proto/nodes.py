"""One identity as the application sees it: its peers, its notices, its end.  The part that every driver shares.

Theory of operation
-------------------
A driver's ``Node`` is a :class:`NodeHandle` that supplies what only a driver has: the way in and out of the core
(``enter`` looks at its clock and takes its lock, or checks that this is the loop's thread; ``leave`` carries out the
core's effects), tokens to wait for, and a peer of its own kind.  Everything else that an application asks of a node,
and that is not I/O, is here, once.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from math import inf
from typing import Any, Generic, Literal, Protocol, TypeVar, cast, runtime_checkable

from .auth import MTLS, Authenticator, Insecure, check_exposure
from .config import Config
from .connection import Connection
from .endpoint import Authorize, Endpoint
from .errors import (
    AddressError,
    ConfigurationError,
    DialFailed,
    EncodeError,
    JournalError,
    NodeClosed,
    UsageError,
    printable,
)
from .events import Abandon, Close, Dial, Event, Log, Transmit, Wake
from .handles import MessageHandle, ReceiptHandle
from .inbox import named
from .instrumentation import Instrumentation
from .journal import RestoredRecord, Store
from .keeper import Keeper
from .ledger import Ledger
from .links import Carried, LinkHandle, Security
from .logbook import ERROR
from .operations import Operation, T, Token
from .payload import Codec, MsgpackCodec
from .quotas import Quota
from .randomness import RandomSource
from .reconnect import RetryClass, Target, TargetState, retry_class
from .session import Session
from .statistics import NodeStatistics
from .transactions import transacting
from .turns import Turns

__all__ = ["Address", "NodeHandle", "address_error", "in_use"]

P = TypeVar("P")

_IN_USE = "the address is in use by another process; choose another one or stop it"


@runtime_checkable
class PathLike(Protocol):
    """The name of a file, as ``pathlib`` has it."""

    def __fspath__(self) -> str:
        """As text."""


class Address:
    """Where a target is, for a driver that opens streams by calling something; printable for messages.

    Hashable by identity: each ``connect`` makes a target of its own.
    """

    __slots__ = ("_name", "open")

    def __init__(self, name: str, open_stream: Callable[[], Any]) -> None:
        self._name = name
        #: makes a stream to there; the driver knows how to call it
        self.open = open_stream

    def __str__(self) -> str:
        return self._name


def check_name(name: str) -> None:
    """What the system is to find by its name, it must read to the end."""
    if "\0" in str(name) and not str(name).startswith("\0"):  # as Linux's abstract addresses do, where it means nothing
        raise ConfigurationError(f"{name!r} contains a zero byte, where the system takes a name to end; leave it out")


class Inside:
    """``with node.inside as now:`` is ``enter``, and ``leave`` whatever happens.

    Not for what returns something that its caller must not lose: the interpreter calls ``__exit__`` as it calls C, and
    looks for a pending Ctrl-C when that is back.  There ``leave`` is called in a ``finally``, after which nothing is.
    """

    __slots__ = ("_node",)

    def __init__(self, node: NodeHandle[Any]) -> None:
        self._node = node

    def __enter__(self) -> float:
        return self._node.enter()

    def __exit__(self, *exc: object) -> None:
        self._node.leave()


def _chosen(auth: Authenticator | Literal["insecure"] | None, tls: Security | None) -> Authenticator | None:
    """How identities are proved; raises ConfigurationError for what would prove none, and look as if it did."""
    verified = tls is not None and tls.verifies
    if auth is None and verified:
        return MTLS()
    if auth is None and tls is not None:
        raise ConfigurationError(
            "this TLS encrypts, but nobody's certificate is verified, so it proves no identity: give TLS an authority, "
            'or the node a pre-shared key (auth=PSK(...)), or say auth="insecure"'
        )
    if not isinstance(auth, str) and auth is not None and "mtls" in auth.name and not verified:
        raise ConfigurationError(f"auth is {auth.name}, which rests on certificates: give TLS an authority as well")
    return Insecure() if isinstance(auth, str) else auth


class NodeHandle(Generic[P]):
    """One identity on the network.

    ``peer_id``: this node's name, unique among those it talks to.  ``config``: every limit and time.
    ``auth``: how identities are proved; ``"insecure"`` spells out that nobody does, which only loopback gets unsaid.
    ``codec``: objects to bytes.  ``instrumentation`` is told of every message; it must not call the node.
    ``journal``: the file, or the store, in which everything is kept that must outlive this process.
    ``durable_inbox``: what comes is kept there too, before it is acknowledged as received (guarantees, G5).
    ``tls``: encrypts all its streams (``networkio_tls.TLS``); with certificates of both sides these prove identities.
    ``authorize(identity)`` is asked about every peer that has proved who it is; it may return a Refusal, must not call
    the node, and refuses if it raises.
    ``quotas``: for single peers, by their ids, what they may have instead of what everybody may.
    """

    #: how a node of this driver is opened ("with" or "async with"); empty if it needs no opening
    opened_by = ""
    #: makes the store that is kept in a file
    store_in: Callable[[Any], Store]
    #: the driver's own kind of receipt
    receipts: type[ReceiptHandle] = ReceiptHandle
    #: what guards a mere look at the core, where several threads may be in it
    looking: AbstractContextManager[Any] = nullcontext()

    def __init__(
        self,
        peer_id: str,
        *,
        config: Config | None = None,
        auth: Authenticator | Literal["insecure"] | None = None,
        codec: Codec | None = None,
        random: RandomSource | None = None,
        instrumentation: Instrumentation | None = None,
        journal: Store | str | PathLike | None = None,
        durable_inbox: bool = False,
        tls: Security | None = None,
        authorize: Authorize | None = None,
        quotas: Mapping[str, Quota] | None = None,
    ) -> None:
        self._auth: Authenticator | None = _chosen(auth, tls)
        self._tls = tls
        self.codec: Codec = MsgpackCodec() if codec is None else codec
        #: the core
        self.endpoint = Endpoint(
            peer_id, config, auth=self._auth, journal=journal is not None, durable_inbox=durable_inbox,
            codec=self.codec.name, random=random, instrumentation=instrumentation, authorize=authorize,
            quotas=quotas,
        )  # fmt: skip
        #: from any thread that is not inside: have this called soon, where the node may be entered
        self.post: Callable[[Callable[[], object]], object] = _at_once
        #: what writes its journal; None without one
        self.keeper: Keeper | None = None
        if journal is not None:
            if self.endpoint.config.overflow == "drop_oldest":
                raise ConfigurationError(
                    'a journal keeps what was accepted until it is read, overflow="drop_oldest" does not: use one'
                )
            named = isinstance(journal, (str, PathLike))
            self.keeper = Keeper(self, self.store_in(journal) if named else cast(Store, journal))
        self.config = self.endpoint.config
        self.closed = False
        #: ``with node.inside as now``: around every touch of the core
        self.inside = Inside(self)
        #: when the driver entered the core the last time (its monotonic clock, seconds); operations go by it
        self.time = 0.0
        #: changes with every touch of the core but the short ways: what these found out in this turn holds so long
        self.turn = 0
        self._peers: dict[str, Any] = {}
        self._watchers: list[Token] = []
        self._callbacks: list[Callable[[], object]] = []
        self._announced = False  # the callbacks know that notices wait
        self._given_back: deque[MessageHandle] = deque()
        self._requests = 0
        #: serving: what is called with every peer
        self._served_by: Callable[[P], object] | None = None
        #: for drivers that serve many peers with a few workers
        self.turns: Turns | None = None
        self._links: dict[Connection, Any] = {}
        self._listeners: list[Any] = []
        self._opened = False
        self.prepare()

    def __repr__(self) -> str:
        return f"<Node {self.id} {'closed' if self.closed else f'{len(self._links)} connections'}>"

    # -- the driver's part ----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Set up what is the driver's own; nothing is open yet."""

    def enter(self) -> float:
        """Before every touch of the core: its lock, or its thread, then :meth:`arrive`."""
        raise NotImplementedError

    def leave(self) -> None:
        """After it: carry out the core's effects."""
        raise NotImplementedError

    def token(self) -> Token:
        """Something to wait for."""
        raise NotImplementedError

    def make_peer(self, session: Session) -> P:
        """The driver's own kind of peer."""
        raise NotImplementedError

    def make_link(self, connection: Carried, stream: Any) -> LinkHandle:
        """Inside: begin to carry bytes between the two."""
        raise NotImplementedError

    def dial(self, dial: Dial) -> None:
        """Inside: begin to make a stream to ``dial.target.key``; it ends in :meth:`dialled`."""
        raise NotImplementedError

    def abandon(self, dial: Dial) -> None:
        """Inside: give that up, if it has not ended yet; :meth:`dialled` may come all the same."""
        raise NotImplementedError

    def log(self, line: Log) -> None:
        """Inside: write a line."""
        raise NotImplementedError

    # -- the way in -----------------------------------------------------------------------------------------------

    def arrive(self, now: float) -> float:
        """For ``enter``, at its end: this is the time, which it returns; what was given back is taken back."""
        self.time = now
        self.turn += 1
        if self._given_back:
            self.take_back()
        return now

    def handy(self) -> bool:
        """May what causes no effect be done to the core right here, without ``enter`` and ``leave``?"""
        return False

    # -- facts ----------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """This node's peer id."""
        return self.endpoint.peer_id

    @property
    def ledger(self) -> Ledger:
        """What became of all messages that this node accepted."""
        return sum((session.ledger for session in list(self.endpoint.sessions.values())), Ledger())

    def statistics(self, peers: Collection[str] | None = None) -> NodeStatistics:
        """What has happened so far, and how it stands.  Raises WrongThread.

        ``peers`` (their ids) are told one by one, the others together; None: all one by one.
        """
        with self.inside as now:
            return self.endpoint.statistics(now, peers)

    def recheck(self) -> list[str]:
        """Close the connections of those who would not get in any more; returns their peer ids.

        For when keys were taken away (``PSK.replace``), or ``authorize`` would say something else now.
        Both sides are told so.  What was sent waits in its outbox.  Raises WrongThread.
        """
        with self.inside as now:
            return self.endpoint.recheck(now)

    def set_quota(self, peer_id: str, quota: Quota | None) -> None:
        """From now on that peer may have so much; None: what ``config`` grants to everybody.

        What the outbox to it holds, and the largest message to it, change at once; what it may send, with its next
        connection.  Raises ConfigurationError for what is no peer id, or no quota, and WrongThread.
        """
        with self.inside:
            self.endpoint.set_quota(peer_id, quota)

    def check_open(self) -> None:
        """Raise NodeClosed before the beginning and after the end."""
        if self.closed:
            raise NodeClosed(f"node {self.id} is closed")
        if self.opened_by and not self._opened:
            raise NodeClosed(f"node {self.id} is not open: use it inside of `{self.opened_by} Node(...) as node:`")

    def payload(self, data: Any, raw: bool) -> bytes:
        """The payload of a message; raises EncodeError."""
        if not raw:
            return self.codec.encode(data)
        if type(data) is bytes:
            return data
        if isinstance(data, (bytes, bytearray, memoryview)):
            return bytes(data)  # what is retained must not change under us
        raise EncodeError(f"a raw message is bytes, not {type(data).__name__}")

    def check_address(self, host: str, port: int, *, least: int) -> None:
        """Raise ConfigurationError for an unprotected address off loopback, and for what is no port."""
        check_exposure(host, self._auth)
        if not isinstance(port, int) or not least <= port < 65536:
            raise ConfigurationError(f"{printable(repr(port))} is not a port: a number from {least} to 65535")

    def dialling(self, place: str, port: int | None = None) -> str:
        """What to call a host's port, or (without one) a path, that is to be dialled; raises ConfigurationError."""
        if port is None:
            check_name(place)
            return place
        self.check_address(place, port, least=1)
        return f"{place}:{port}"

    # -- peers ----------------------------------------------------------------------------------------------------

    def peer(self, peer_id: str) -> P:
        """The peer of that id, known already or not; raises ConfigurationError for an unusable id."""
        peer: P | None = self._peers.get(peer_id)
        if peer is None:
            with self.inside as now:
                peer = self.peer_within(peer_id, now)
        return peer

    def peer_within(self, peer_id: str, now: float) -> P:
        """As :meth:`peer`, between enter and leave."""
        self.endpoint.session(peer_id, now)
        self.meet()
        peer: P = self._peers[peer_id]
        return peer

    def peer_if_known(self, peer_id: str) -> P | None:
        """From any thread: the peer of that id, if there is one."""
        return self._peers.get(peer_id)

    @property
    def peers(self) -> list[P]:
        """Every peer this node knows."""
        with self.inside:
            self.meet()
            return list(self._peers.values())

    def meet(self) -> None:
        """Give every session of the core its peer."""
        if len(self._peers) < len(self.endpoint.sessions):  # both are in the order of arrival
            for session in list(islice(self.endpoint.sessions.values(), len(self._peers), None)):
                peer = self._peers[session.peer_id] = self.make_peer(session)
                self.met(peer)

    def met(self, peer: P) -> None:
        """A peer is new: it is served too."""
        if self._served_by is not None:
            self._served_by(peer)

    def broadcast(
        self,
        data: Any,
        peers: Iterable[P | str] | None = None,
        *,
        headers: Mapping[str, object] | None = None,
        ttl: float | None = None,
        raw: bool = False,
    ) -> dict[P, Any]:
        """Send one message to many peers (default: all), encoded once; never waits.

        Each peer gets its Receipt, or the UsageError that ``send_nowait`` would have raised for it (OutboxFull,
        SessionClosed, MessageTooLarge), which holds up nobody else.  Raises EncodeError, ConfigurationError (``ttl``,
        an unusable id), NodeClosed, WrongThread; nothing was sent then.
        """
        payload = self.payload(data, raw)
        named = None if peers is None else list(peers)  # not inside: it may be a generator that asks the node
        now = self.enter()
        try:
            self.check_open()
            self.meet()
            chosen = list(self._peers.values()) if named is None else [
                self.peer_within(peer, now) if isinstance(peer, str) else peer for peer in named
            ]
            return {peer: self._send(peer, payload, now, headers, ttl, raw) for peer in dict.fromkeys(chosen)}
        finally:
            self.leave()

    def _send(
        self, peer: Any, payload: bytes, now: float, headers: Mapping[str, object] | None, ttl: float | None, raw: bool
    ) -> Any:
        try:
            return peer.accept_within(payload, now, headers=headers, ttl=ttl, raw=raw)
        except (EncodeError, ConfigurationError):
            raise  # of the message, and so the same for every peer: the first has said so
        except (UsageError, JournalError) as error:
            return error

    def request_number(self) -> bytes:
        """16 bytes that no other request has, in this process or another."""
        self._requests += 1
        return self.endpoint.incarnation[:8] + self._requests.to_bytes(8, "big")

    def receipt(self, message_id: str) -> Any:
        """The receipt of a message that this node accepted, by its ``id``; with a journal in an earlier process too.

        Raises UsageError for what is no id of a message, and for one that this node never accepted, or no longer knows.
        """
        with self.inside:
            self.meet()
            try:
                outbox_id, sequence = named(message_id)
            except ValueError:
                raise UsageError(f"{printable(repr(message_id))} is no id of a message") from None
            for peer in self._peers.values():
                outbox = peer.session.outbox
                if 0 < sequence < outbox.next and outbox.name_of(sequence) == outbox_id:
                    return peer.receipt(sequence)
        raise UsageError(f"node {self.id} has accepted no message {message_id}, or has forgotten it")

    # -- notices --------------------------------------------------------------------------------------------------

    def on_notice(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` when notices begin to wait: a wake-up for a loop of your own, and nothing more.

        It may come from another thread, must return at once and must not call the node; take the notices with
        ``next_notice(0)`` until there are none.
        """
        self._callbacks.append(callback)
        if self.endpoint.notices_waiting:
            self.call(callback)

    def call(self, callback: Callable[[], object]) -> None:
        """Run what ``on_notice`` was given; its errors are its own."""
        try:
            callback()
        except Exception as error:
            self.log(Log(ERROR, "what on_notice was given failed", (), error))

    def _noticing(self) -> Operation[Event | None]:
        """The next notice; None when time is up."""
        while True:
            self.meet()
            notice = self.endpoint.next_event()
            if not self.endpoint.notices_waiting:
                self._announced = False
            if notice is not None:
                return notice
            self.check_open()
            try:
                yield from self.changing()
            except TimeoutError:
                return None

    def _noticing_to_the_end(self) -> Operation[Event | None]:
        """The next notice; None when the node is closed."""
        try:
            return (yield from self._noticing())
        except NodeClosed:
            return None

    # -- serving --------------------------------------------------------------------------------------------------

    def check_unserved(self) -> None:
        """Raise ConfigurationError while the node is served, NodeClosed."""
        self.check_open()
        if self._served_by is not None:
            raise ConfigurationError(f"node {self.id} is served already; one handler serves all peers")

    def begin_serving(self, serve: Callable[[P], object], turns: Turns | None = None) -> None:
        """Between enter and leave: ``serve(peer)`` is called for every peer, known already or to come.

        ``turns``: those by which they are served, if it is a few workers that serve them.  Until :meth:`end_serving`.
        Raises ConfigurationError while the node is served already, NodeClosed.
        """
        self.check_unserved()
        self.meet()
        self._served_by, self.turns = serve, turns
        for peer in self._peers.values():
            serve(peer)

    def end_serving(self) -> None:
        """Between enter and leave: nobody serves the peers any more."""
        self._served_by = None
        if self.turns is not None:
            self.turns.end()

    @contextmanager
    def serving(self, serve: Callable[[P], object], turns: Turns | None = None) -> Iterator[None]:
        """The time between :meth:`begin_serving` and :meth:`end_serving`."""
        with self.inside:
            self.begin_serving(serve, turns)
        try:
            yield
        finally:
            with self.inside:
                self.end_serving()

    # -- streams --------------------------------------------------------------------------------------------------

    def carry_out(self) -> None:
        """For ``leave``: whatever the core wants done."""
        next_effect, links = self.endpoint.next_effect, self._links
        while (effect := next_effect()) is not None:
            if type(effect) is Transmit:
                link = links.get(effect.connection)
                if link is not None:  # else it has gone already
                    link.transmit()
            elif type(effect) is Wake:
                self.wake(effect.session)
            elif type(effect) is Close:
                link = links.get(effect.connection)
                if link is not None:
                    link.close(effect)
            elif type(effect) is Dial:
                self.dial(effect)
            elif type(effect) is Abandon:
                self.abandon(effect.dial)
            else:
                self.log(effect)
            self.turn += 1  # a driver may have asked for what is to be sent

    @contextmanager
    def listening(self, place: str, port: int | None = None) -> Iterator[None]:
        """Around the making of listeners on a host's port, or (without one) on a path.

        An OSError in it comes out as the AddressError that says what to do.  Raises NodeClosed, and ConfigurationError
        for what is no port or not protected.
        """
        with self.inside:
            self.check_open()
        if port is None:
            check_name(place)
        else:
            self.check_address(place, port, least=0)
            place = f"{place} port {port}"
        try:
            yield
        except AddressError:
            raise
        except OSError as error:
            raise address_error(place, error) from error

    def serve_stream(self, stream: Any, *, source: str = "") -> None:
        """Take a stream that somebody else accepted.  ``source`` groups strangers (an address without its port)."""
        with self.inside as now:
            self.check_open()
            self._link(self.endpoint.accept(now, source=source), stream)

    def connecting(self, address: Any, peer_id: str | None) -> Operation[P]:
        """Keep a connection to an address; without ``peer_id``, wait until somebody has answered there."""
        self.check_open()
        target = self.endpoint.add_target(address, self.time, to=peer_id)
        if peer_id is not None:
            return self.peer_within(peer_id, self.time)
        return (yield from self._answering(target))

    def dialled(self, dial: Dial, stream: Any, error: BaseException | None) -> None:
        """A dial ended: in a stream, or (None) in an error."""
        with self.inside as now:
            if stream is not None:
                self._link(self.endpoint.connect(dial, now), stream)
            else:
                self.endpoint.dial_failed(dial, now, error or OSError("there is no stream"))

    def _link(self, connection: Connection, stream: Any) -> None:
        if self._tls is None:
            self._links[connection] = self.make_link(connection, stream)
            return
        channel = self._tls.channel(connection)
        self._links[connection] = channel.link = self.make_link(channel, stream)
        channel.link.core = connection

    def unlink(self, link: LinkHandle) -> None:
        """Its stream is over."""
        with self.inside:
            self._links.pop(link.core, None)
            self.wake_watchers()

    def visit(self) -> None:
        """Enter and leave: whatever waits for that is done then."""
        with self.inside:
            pass

    def due(self) -> float:
        """Between enter and leave: when :meth:`tick` must be called next (the driver's clock; infinity: not yet known).
        """
        due = self.endpoint.get_timer()
        return inf if due is None else due

    def tick(self) -> None:
        """Serve the core's timers."""
        with self.inside as now:
            self.endpoint.handle_timer(now)

    # -- waiting and ending ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The node opens; raises NodeClosed if it did before."""
        if self._opened or self.closed:
            raise NodeClosed(f"node {self.id} was used before; make a new one")
        self._opened = True

    def restore(self, records: Iterable[RestoredRecord]) -> None:
        """The node opens: what its journal holds is there again, and its peers with it."""
        with self.inside as now:
            self.endpoint.restore(records, now)
            self.meet()

    def emptying(self) -> Operation[None]:
        """Until no stream is left, and everything is in the journal, or time is up."""
        try:
            while self._links or (self.keeper is not None and self.keeper.busy):
                yield from self.changing()
        except TimeoutError:
            pass

    def ending(self) -> Operation[None]:
        """Until the node is closed."""
        while not self.closed:
            yield from self.changing()

    def changing(self) -> Operation[None]:
        """Until something about the node as a whole may have changed."""
        token = self.token()
        self._watchers.append(token)
        try:
            yield token
        finally:
            if token in self._watchers:
                self._watchers.remove(token)

    def wake(self, session: Session | None) -> None:
        """Carry out the core's Wake."""
        if session is not None:
            if session.handle.__class__ is str:
                self.meet()
            session.handle.wake()
            return
        self.meet()
        self.wake_watchers()
        if self.endpoint.notices_waiting and not self._announced:
            self._announced = True
            for callback in self._callbacks:
                self.call(callback)

    def wake_unwritten(self) -> None:
        """Inside: the journal is closed, and whoever waits for it looks again."""
        for peer in self._peers.values():
            peer.wake_unwritten()

    def wake_watchers(self) -> None:
        """Let those look again who wait for the node as a whole."""
        watchers, self._watchers = self._watchers, []
        for token in watchers:
            token.set()

    def _answering(self, target: Target) -> Operation[P]:
        """Wait until somebody has answered at a new target; raises what only a human can mend.  Gives it up else."""
        try:
            while target.session is None:
                self.check_open()
                _raise_if_hopeless(target)
                yield from self.changing()
        except BaseException:
            self.endpoint.abandon_target(target, self.time)
            raise
        return self.peer_within(target.session.peer_id, self.time)

    def drain_time(self, timeout: float | None) -> float:
        """How long to wait for what is unread before the node is closed (seconds); not at all if it is closed."""
        if self.closed:
            return 0.0
        return self.config.drain_timeout if timeout is None else timeout

    # -- transactions ---------------------------------------------------------------------------------------------

    def _committing(self, messages: Iterable[Any], function: Callable[[Any], T]) -> Operation[T]:
        """Call ``function(db)`` in one transaction with the acknowledgement of held messages; its value."""
        return transacting(self, function, messages, sends=False)

    def _transacting(self, function: Callable[[Any, Any], T], messages: Iterable[Any]) -> Operation[T]:
        """The same with ``function(db, send)``."""
        return transacting(self, function, messages, sends=True)

    def finding_room(self, session: Session) -> Operation[None]:
        """Until the outbox of a session has room."""
        while not session.has_room:
            self.endpoint.starved[session.peer_id] = session
            yield from session.handle.room()

    def _draining(self) -> Operation[Ledger]:
        """Wait until every peer has read everything accepted so far, or time is up; the ledger."""
        self.meet()
        peers = list(self._peers.values())
        for peer in peers:
            peer.session.drain(self.time)
        try:
            for peer in peers:
                yield from peer.read_out()
            if self.keeper is not None:
                yield from self.keeper.catching_up()
        except TimeoutError:
            pass  # the ledger says what is left
        finally:
            for peer in peers:
                peer.session.undrain()
        return self.ledger

    def gone(self) -> bool:
        """Between enter and leave: the node ends; connections say CLOSE, whoever waits looks again.

        False if it had ended before.
        """
        if self.closed:
            return False
        self.closed = True
        self.endpoint.close(self.time)
        for peer in self._peers.values():
            peer.wake_everybody()
        self.wake_watchers()
        self.end_serving()
        return True

    def give_back(self, message: MessageHandle) -> None:
        """A message in hand was dropped, perhaps by a garbage collector in the middle of anything: note it.

        It is released at the next ``enter``; :meth:`nudge` sees to it that there is one.
        """
        self._given_back.append(message)
        self.nudge()

    def nudge(self) -> None:
        """The driver: enter and leave, now if that is possible from here, else soon."""
        raise NotImplementedError

    def take_back(self) -> None:
        """For ``enter``: release what was given back."""
        while self._given_back:
            message = self._given_back.popleft()
            if message.held and not self.closed:
                message.finish("released", self.time)


def _at_once(call: Callable[[], object]) -> None:
    call()


def address_error(place: str, error: OSError) -> AddressError:
    """Why a place cannot be listened on, in words that help."""
    if error.errno == errno.EADDRINUSE:
        return AddressError(f"cannot listen on {printable(place)}: {_IN_USE}")
    if _unresolved(error):
        return AddressError(f"cannot listen on {printable(place)}: the host name does not resolve")
    return AddressError(f"cannot listen on {printable(place)}: {printable(error.strerror or error)}")


def in_use(place: str) -> AddressError:
    """Another process listens there."""
    return AddressError(f"cannot listen on {printable(place)}: {_IN_USE}")


def _unresolved(error: BaseException | None) -> bool:
    return type(error).__name__ == "gaierror"  # socket's, which the core does not import


def _raise_if_hopeless(target: Target) -> None:
    """For whoever waits for a first handshake: is there anything left to wait for?"""
    error = target.error
    if error is None:
        return
    unresolved = isinstance(error, DialFailed) and _unresolved(error.__cause__)
    if target.state is TargetState.STOPPED or unresolved or retry_class(error) is RetryClass.SLOW:
        raise error
