"""The steps of one connection's handshake: who is there, do both sides fit, is it proved, what does each side hold.

Theory of operation
-------------------
::

    dialer:   HELLO ------> acceptor            who I am, whom I mean, what I can
              <------ HELLO_ACK                 who I am, what of that we use
              ATTACH ----->                     where my outbox and my inbox stand, with the proof of who I am
              <------ ATTACH                    the same, once the connection is taken

Each side judges a frame in the order of the specification, so that the first thing that is wrong has one name.  Until
the peer's ATTACH is verified nothing of a session changes: the session is the endpoint's *provisional* one, and the
decision what becomes of a verified newcomer is the endpoint's as well.  The proof covers the transcript, that is every
byte of both sides before the ATTACHes.  The deadline is absolute: dripping bytes do not move it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING

from .auth import Identity, Insecure, Proof, Refusal
from .errors import CloseCode, printable
from .frames import HELLO, HELLO_ACK, PREAMBLE, PeerFault
from .handshake import (
    VERSION,
    Hello,
    HelloAck,
    PeerLimits,
    choose_version,
    encode_attach,
    encode_hello,
    encode_hello_ack,
    parse_attach,
    parse_hello,
    parse_hello_ack,
    zero_mac,
)

if TYPE_CHECKING:
    from .connection import Connection
    from .endpoint import Authorize, Endpoint

__all__ = ["Negotiation"]


class Negotiation:
    """One connection's handshake.  What it finds out about the peer stands on the connection."""

    __slots__ = ("_connection", "_deadline", "_endpoint", "_hello", "_mac", "_proved", "_transcript", "begun")

    def __init__(self, connection: Connection, endpoint: Endpoint, now: float) -> None:
        self._connection = connection
        self._endpoint = endpoint
        #: when the stream was there
        self.begun = now
        self._deadline = now + endpoint.config.handshake_timeout
        #: the dialer's HELLO
        self._hello: Hello | None = None
        self._transcript = b""
        #: of the dialer's ATTACH; the acceptor's proof covers it
        self._mac = b""
        #: the peer's proof and its mac, once they were found good: they can be judged anew when keys have changed
        self._proved: tuple[Proof, bytes | None] | None = None
        endpoint.timers.schedule(connection, self._deadline)

    def forget(self) -> None:
        """It is over, for better or worse."""
        self._hello = None
        self._transcript = b""

    def on_timer(self, now: float) -> float | None:
        """Give up a handshake that takes too long; or its deadline."""
        if self._endpoint.paused and now >= self._deadline:
            self._deadline = now + self._endpoint.config.probe_timeout
        if now >= self._deadline:
            state = self._connection.state.value
            self._connection.close(CloseCode.TIMEOUT, f"the handshake stopped in state {state}", now)
            return None
        return self._deadline

    # -- HELLO and HELLO_ACK ------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """The dialer speaks first."""
        endpoint, connection = self._endpoint, self._connection
        target = connection.target
        to = None if target is None else target.to
        hello = Hello(
            versions=(VERSION, VERSION),
            peer_id=endpoint.peer_id,
            to=to,
            incarnation=endpoint.incarnation,
            dial=connection.dial,
            nonce=endpoint.random_bytes(32),
            features=endpoint.features,
            require=endpoint.require,
            auth=endpoint.auth.name,
            key_id=endpoint.key_id(to),
            limits=self._own_limits(to),
            codec=endpoint.codec,
        )
        self._hello = hello
        frame = encode_hello(hello)
        self._transcript = PREAMBLE + frame
        connection.say(frame, now)

    def receive(self, kind: int, body: bytes, raw: bytes, now: float) -> None:
        """The frame that the connection's state waits for; ``raw`` is all of it.  Raises PeerFault."""
        if kind == HELLO:
            self._receive_hello(body, raw, now)
        elif kind == HELLO_ACK:
            self._receive_hello_ack(body, raw, now)
        else:
            self._receive_attach(body, raw, now)

    def _receive_hello(self, body: bytes, raw: bytes, now: float) -> None:
        endpoint, connection = self._endpoint, self._connection
        hello = parse_hello(body)
        version = choose_version(hello.versions)
        self._introduce(hello.peer_id, hello.incarnation, hello.limits)
        connection.dial = hello.dial
        if hello.to is not None and hello.to != endpoint.peer_id:
            raise PeerFault(CloseCode.WRONG_PEER, f"this is {endpoint.peer_id}, not {hello.to}")
        features = tuple(feature for feature in hello.features if feature in endpoint.features)
        _check_features(hello.require, features)
        _check_features(endpoint.require, features)
        self._check_same(hello.auth, hello.codec)
        if connection.overloaded:
            endpoint.put_off(connection, now)
            return
        ack = HelloAck(
            version=version,
            peer_id=endpoint.peer_id,
            incarnation=endpoint.incarnation,
            nonce=endpoint.random_bytes(32),
            features=features,
            auth=endpoint.auth.name,
            limits=self._own_limits(hello.peer_id),
            codec=endpoint.codec,
        )
        self._hello = hello
        frame = encode_hello_ack(ack)
        self._transcript = PREAMBLE + raw + PREAMBLE + frame
        connection.expect_attach()
        connection.say(frame, now)

    def _receive_hello_ack(self, body: bytes, raw: bytes, now: float) -> None:
        endpoint, connection = self._endpoint, self._connection
        ack = parse_hello_ack(body)
        choose_version((ack.version, ack.version))
        self._introduce(ack.peer_id, ack.incarnation, ack.limits)
        target = connection.target
        if target is not None and target.to is not None and target.to != ack.peer_id:
            raise PeerFault(CloseCode.WRONG_PEER, f"{ack.peer_id} answered, {target.to} was meant")
        if not set(ack.features) <= set(endpoint.features):
            raise PeerFault(CloseCode.PROTOCOL, "HELLO_ACK: features has one that was not offered")
        _check_features(endpoint.require, ack.features)
        self._check_same(ack.auth, ack.codec)
        session = endpoint.provisional(ack.peer_id, now)
        if session.connection is not None and not session.finished:  # a finished one only waits for a last word
            assert target is not None
            endpoint.bind(target, session)  # a target that names nobody has found whom it looked for
            connection.close(CloseCode.COLLISION, "", now)
            return
        # stated on two dials at once, our facts would be old on the one taken last; so also when the newer dial is lost
        # here and its ATTACH still on the way: it would pass for news (P-ARB-11)
        if endpoint.claims(session) or connection.dial < session.arbitration.stated:
            connection.close(CloseCode.COLLISION, "", now)
            return
        if session.inboxes.in_doubt:
            connection.close(CloseCode.RETRY, "", now)
            return
        connection.session = session
        self._transcript += PREAMBLE + raw
        connection.expect_attach()
        self.send_attach(now)

    def _own_limits(self, peer_id: str | None) -> PeerLimits:
        """What that peer is told, and is held to."""
        limits = self._endpoint.quotas.of(peer_id).limits
        self._connection.told(limits)
        return PeerLimits(limits.frame, limits.message, self._endpoint.config.dead_after)

    def _introduce(self, peer_id: str, incarnation: bytes, limits: PeerLimits) -> None:
        """From here on it is known who claims to be there."""
        connection = self._connection
        connection.peer_id = peer_id
        connection.peer_incarnation = incarnation
        connection.peer_limits = limits
        self._endpoint.introduced(connection)
        if peer_id == self._endpoint.peer_id:
            raise PeerFault(CloseCode.SELF, f"both ends are {peer_id}")

    def _check_same(self, auth: str, codec: str) -> None:
        endpoint = self._endpoint
        if auth != endpoint.auth.name:
            raise PeerFault(
                CloseCode.AUTH_FAILED, f"the peer authenticates by {printable(auth)}, this side by {endpoint.auth.name}"
            )
        if codec != endpoint.codec:
            raise PeerFault(
                CloseCode.CODEC, f"the peer's codec is {printable(codec)}, this side's is {endpoint.codec}"
            )

    # -- ATTACH -------------------------------------------------------------------------------------------------

    def send_attach(self, now: float) -> None:
        """State our facts: as dialer when HELLO_ACK came, as acceptor when this connection was taken."""
        connection = self._connection
        session = connection.session
        assert session is not None
        if connection.dialer:
            session.arbitration.stated = connection.dial
        if session.arbitration.arbiter:
            connection.generation = session.arbitration.next_generation()
        frame = encode_attach(session.attachment.facts(connection, now), self._sign)
        connection.say(frame, now)

    def _receive_attach(self, body: bytes, raw: bytes, now: float) -> None:
        connection, endpoint = self._connection, self._endpoint
        attach = parse_attach(body)
        covered = raw if attach.mac is None else zero_mac(raw)
        proof = self._proof(b"A" if connection.dialer else b"D", covered)
        if not self._verified(proof, attach.mac, now):
            raise PeerFault(CloseCode.AUTH_FAILED, "", private=self._doubt())
        if attach.mac is not None and not raw.endswith(attach.mac):
            raise PeerFault(CloseCode.PROTOCOL, "ATTACH: mac is not the last thing in it")
        connection.key_id = proof.key_id
        if not isinstance(endpoint.auth, Insecure):
            self._proved = proof, attach.mac
        if not self._wanted(now):
            return
        if not connection.dialer:
            self._mac = attach.mac or b""
        session = connection.session or endpoint.provisional(connection.peer_id, now)
        if (attach.generation is None) == (not session.arbitration.arbiter):
            raise PeerFault(CloseCode.PROTOCOL, "ATTACH: generation and seen are exchanged: the greater id arbitrates")
        connection.session = session
        connection.attached = attach
        endpoint.newcomer(connection, now)

    def recheck(self, now: float) -> bool:
        """The peer has proved who it is: would it get in by that now?  If not, the connection is closed."""
        connection = self._connection
        if self._proved is not None and not self._verified(*self._proved, now):
            private = f"what {connection.peer_id} proved itself by is no longer good"
            connection.close(CloseCode.AUTH_FAILED, "", now, private=private)
            return False
        return self._wanted(now)

    def _verified(self, proof: Proof, mac: bytes | None, now: float) -> bool:
        """Is it good?  What looks up keys may raise: that is told in the log, and good for nobody."""
        try:
            return self._endpoint.auth.verify(proof, mac, self._connection.tls)
        except Exception as error:
            self._endpoint.logbook.verifying_failed(error, now)
            return False

    def _wanted(self, now: float) -> bool:
        """Does the application want whoever has proved to be there?  If not, the connection is closed."""
        refusal = None if self._endpoint.authorize is None else self._asked(self._endpoint.authorize)
        if refusal is None:
            return True
        connection = self._connection
        reason = f"{connection.peer_id} is refused by authorize: {printable(refusal.reason) or 'no reason given'}"
        connection.close(refusal.code, "", now, retry_after=refusal.retry_after, private=reason)
        return False

    def _asked(self, authorize: Authorize) -> Refusal | None:
        """What it says; what it raises is a refusal."""
        connection, tls = self._connection, self._connection.tls
        source = str(connection.target.key) if connection.target is not None else connection.source
        named = None if tls is None else tls.identity
        identity = Identity(connection.peer_id, source, connection.dialer, connection.key_id, named)
        try:
            answer: object = authorize(identity)
        except Exception as error:  # the application may raise anything
            return Refusal(reason=f"it raised {type(error).__name__}: {error}")
        if answer is None or isinstance(answer, Refusal):
            return answer
        if isinstance(answer, Coroutine):
            answer.close()
        return Refusal(reason=f"it returned {type(answer).__name__}, neither None nor a Refusal")

    def _doubt(self) -> str:
        """What this side knows of a proof that is wrong; the peer is told the same whatever it is (P-AUTH-3)."""
        connection = self._connection
        named = None if connection.tls is None else connection.tls.identity
        if "mtls" in self._endpoint.auth.name and named != connection.peer_id:
            who = "no peer" if named is None else printable(named)
            return f"the certificate names {who}, and its owner says it is {connection.peer_id}"
        return f"whoever says it is {connection.peer_id} did not prove it"

    def _proof(self, role: bytes, attach: bytes) -> Proof:
        connection, hello = self._connection, self._hello
        mine, other = self._endpoint.peer_id, connection.peer_id
        return Proof(
            role=role,
            dialer_id=mine if connection.dialer else other,
            acceptor_id=other if connection.dialer else mine,
            key_id=None if hello is None else hello.key_id,
            transcript=self._transcript,
            binding=b"" if connection.tls is None else connection.tls.binding,
            dialer_mac=self._mac if role == b"A" else b"",
            attach=attach,
        )

    def _sign(self, attach: bytes) -> bytes | None:
        dialer = self._connection.dialer
        mac = self._endpoint.auth.sign(self._proof(b"D" if dialer else b"A", attach))
        if dialer:
            self._mac = mac or b""
        return mac


def _check_features(required: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    missing = [feature for feature in required if feature not in chosen]
    if missing:
        raise PeerFault(CloseCode.VERSION, f"the required feature {printable(missing[0])} is not shared")
