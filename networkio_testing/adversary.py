"""A third party in a simulated world: it knows what others said, and has no key.

Theory of operation
-------------------
An :class:`Adversary` hears every byte on every wire and keeps the beginning of what each end said.  It dials hosts, and
answers their dials, on wires of its own.  On such a wire it has a *script*: bytes that it says as many at a time as the
game lets it, so that it may drip them, fall silent, or leave at any point.  Scripts are replays of what it heard (as it
was, with one bit flipped, or its first frame alone), handshakes with stolen ids, foreign protocols, frames before any
handshake, and noise.  :meth:`Adversary.impersonate` sends a real core with a stolen id and a wrong key.

It judges itself (I11): no byte that arrives on a wire of its own may change a session, a live connection or a target of
its victim, no such connection ever gets as far as being believed, and handshakes stay within their bounds (I18).

Where hosts have a key (:class:`SharedKey`) it says everything.  In an *open* world, where nobody proves anything,
whoever speaks the whole handshake under a stolen id *is* that peer; there it says nothing of it beyond HELLO.
"""

from __future__ import annotations

import hmac
from random import Random
from typing import Final

from networkio_proto import Config, ConnectionState, Proof, TLSFacts
from networkio_proto.auth import Authenticator
from networkio_proto.frames import MAX_SEQUENCE, PREAMBLE, encode_ack, encode_fin, encode_frame
from networkio_proto.handshake import Attach, Hello, PeerLimits, encode_attach, encode_hello

from .judges import Violation, _state
from .world import Host, Watcher, Wire, World

__all__ = ["SCRIPTS", "STRANGER", "Adversary", "SharedKey"]

#: the name of its machine
STRANGER: Final = "stranger"

#: what it may say on a wire
SCRIPTS: Final = (
    *("silence", "noise", "replay", "flipped", "first frame", "stolen", "foreign", "frames", "endless"),
    *("http", "tls", "ssh"),
)

#: it remembers so much of what an end said, of so many ends
_CAPTURED = 4096
_ENDS = 40

#: wires of its own that it keeps in mind
_WIRES = 200

_FIXED: Final = {
    "silence": b"",
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(50),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "endless": PREAMBLE + bytes.fromhex("ffffffff0100"),
    "frames": PREAMBLE
    + encode_frame(0x10, (1).to_bytes(8, "big") + b"mine")
    + encode_ack(MAX_SEQUENCE, MAX_SEQUENCE, MAX_SEQUENCE, 1)
    + encode_fin(1),
}


class SharedKey:
    """An authenticator for simulated worlds: one key, and a mac over everything that a proof must cover."""

    name = "psk"

    def __init__(self, key: bytes) -> None:
        self._key = key

    def key_id(self, peer_id: str | None) -> str | None:
        return None

    def sign(self, proof: Proof) -> bytes:
        return self._mac(proof)

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        return mac is not None and hmac.compare_digest(mac, self._mac(proof))

    def _mac(self, proof: Proof) -> bytes:
        ids = proof.dialer_id.encode(), proof.acceptor_id.encode()
        parts = (proof.role, *ids, proof.transcript, proof.binding, proof.dialer_mac, proof.attach)
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")


class Adversary(Watcher):
    """One in a world; ``secret``: the hosts there have a key, and it says everything."""

    def __init__(self, world: World, *, secret: bool) -> None:
        self.world = world
        self.secret = secret
        self.host = Host(world, STRANGER, Config(), None)
        #: what the two ends of other wires said first, oldest first
        self.heard: dict[tuple[int, int], bytearray] = {}
        #: wires of its own: its end, and what it has still to say there
        self.wires: dict[int, tuple[Wire, int, bytes]] = {}
        self._numbers: set[int] = set()
        self._chance = Random(f"{world.seed}/{STRANGER}")
        self._before: tuple[object, ...] = ()
        self._impostors = 0
        world.watchers.append(self)

    # -- what it does ---------------------------------------------------------------------------------------------

    def dial(self, victim: Host, what: str, count: int) -> None:
        """Dial a host, and say so much of a script."""
        if victim.up and victim.listening and not victim.paused:
            self._begin(self.world.knock(self.host, victim), 0, what, victim, count)

    def answer(self, victim: Host, what: str, count: int) -> None:
        """Be the one who answers where the victim dials somebody."""
        if victim.up and victim.dials and not victim.paused:
            wire = self.world.connect(victim, self.host, victim.dials.pop(0), nobody=True)
            self._begin(wire, 1, what, victim, count)

    def impersonate(self, victim: Host, peer_id: str) -> None:
        """Dial a host with a core that has a stolen id and a wrong key."""
        if self.secret and victim.up and victim.listening and not victim.paused:
            auth: Authenticator = SharedKey(b"a key that somebody else has")
            self._impostors += 1
            impostor = Host(self.world, f"{STRANGER} {self._impostors}", Config(), auth, peer_id)
            impostor.dial(victim.peer_id)
            wire = self.world.connect(impostor, victim, impostor.dials.pop(0))
            self._keep(wire, 0, b"")

    def say(self, index: int, count: int) -> None:
        """Go on with one of the scripts."""
        if self.wires:
            wire, end, script = self.wires[list(self.wires)[index % len(self.wires)]]
            wire.pipes[end].data += script[:count]
            self.wires[wire.number] = (wire, end, script[count:])

    def leave(self, index: int, how: str) -> None:
        """Break off one of its wires."""
        if self.wires:
            wire, end, _ = self.wires.pop(list(self.wires)[index % len(self.wires)])
            victim = wire.hosts[1 - end]
            process, before = victim.endpoint, _everything(victim)
            wire.cut(how)
            if victim.up and victim.endpoint is process and how == "rst":  # else bytes arrived before
                self._same(victim, wire, before)

    def _begin(self, wire: Wire, end: int, what: str, victim: Host, count: int) -> None:
        self._keep(wire, end, self._script(what, end, victim))
        self.say(-1, count)

    def _keep(self, wire: Wire, end: int, script: bytes) -> None:
        wire.tampered = True
        self._numbers.add(wire.number)
        self.wires[wire.number] = (wire, end, script)
        while len(self.wires) > _WIRES:
            del self.wires[next(iter(self.wires))]
        shaking = wire.hosts[1 - end].endpoint.handshakes
        most = wire.hosts[1 - end].config.max_pending
        if shaking > most:
            raise Violation("I18", f"{wire.hosts[1 - end]} shakes {shaking} hands, and may {most}", self.world)

    # -- what it says ---------------------------------------------------------------------------------------------

    def _script(self, what: str, end: int, victim: Host) -> bytes:
        if what in _FIXED:
            return _FIXED[what]
        if what == "noise":
            return self._chance.randbytes(300)
        if what in ("stolen", "foreign"):
            return self._handshake(victim, what == "foreign")
        said = [bytes(data) for (_, speaker), data in self.heard.items() if speaker == end]
        script = self._chance.choice(said) if said else PREAMBLE
        if what == "flipped":
            place = self._chance.randrange(8 * len(script))
            flipped = bytearray(script)
            flipped[place // 8] ^= 1 << place % 8
            script = bytes(flipped)
        if what == "first frame" or not self.secret:
            length = int.from_bytes(script[len(PREAMBLE) : len(PREAMBLE) + 4], "big")
            script = script[: len(PREAMBLE) + 4 + length]
        return script

    def _handshake(self, victim: Host, foreign: bool) -> bytes:
        """HELLO, and where that proves nothing, ATTACH and what would follow."""
        others = [host for host in self.world.hosts.values() if host.peer_id != victim.peer_id]
        stolen = self._chance.choice(others)
        draw = self._chance.randbytes
        hello = Hello(
            versions=(1, 1),
            peer_id=STRANGER if foreign else stolen.peer_id,
            to=victim.peer_id,
            incarnation=draw(16) if self._chance.random() < 0.5 else stolen.endpoint.incarnation,
            dial=self._chance.choice((1, 1000, MAX_SEQUENCE)),
            nonce=draw(32),
            features=(),
            require=(),
            auth="psk" if self.secret else "insecure",
            key_id=None,
            limits=PeerLimits(65536, 1 << 20, 45.0),
            codec="msgpack",
        )
        said = PREAMBLE + encode_hello(hello)
        if not self.secret:
            return said
        session = stolen.endpoint.sessions.get(victim.peer_id)
        known = (draw(16), draw(16)) if session is None else (session.outbox.outbox_id, session.outbox.run)
        arbiter = hello.peer_id > victim.peer_id
        attach = Attach(
            outbox_id=self._chance.choice((known[0], draw(16))),
            run=known[1],
            first=1,
            next=MAX_SEQUENCE,
            inbox=None,
            ended=(),
            durable=True,
            expiry=None,
            credit=MAX_SEQUENCE,
            generation=1000 if arbiter else None,
            seen=None if arbiter else 1000,
            mac=None,
        )
        mac = self._chance.choice((draw(32), bytes(32)))
        return said + encode_attach(attach, lambda frame: mac) + _FIXED["frames"][len(PREAMBLE) :]

    # -- what it hears, and what comes of what it says ------------------------------------------------------------

    def _mine(self, wire: Wire) -> bool:
        return wire.number in self._numbers

    def wrote(self, wire: Wire, end: int, buffers: object) -> None:
        if self._mine(wire):
            return
        data = self.heard.get((wire.number, end))
        if data is None:
            data = self.heard[(wire.number, end)] = bytearray()
            if len(self.heard) > _ENDS:
                del self.heard[next(iter(self.heard))]
        if len(data) < _CAPTURED and isinstance(buffers, (list, tuple)):
            data += b"".join(buffers)[: _CAPTURED - len(data)]

    def arriving(self, wire: Wire, end: int) -> None:
        if self._mine(wire) and wire.hosts[end].name in self.world.hosts:
            self._before = _everything(wire.hosts[end])

    def arrived(self, wire: Wire, end: int) -> None:
        victim = wire.hosts[end]
        if not self._mine(wire) or victim.name not in self.world.hosts:
            return
        connection = wire.ends[end]
        if connection is not None and (connection.attached is not None or connection.state is ConnectionState.LIVE):
            raise Violation("I11", f"{victim} believes a stranger on {connection}", self.world)
        self._same(victim, wire, self._before)

    def _same(self, victim: Host, wire: Wire, before: tuple[object, ...]) -> None:
        if _everything(victim) != before:
            raise Violation("I11", f"{victim} was changed by a stranger on {wire}", self.world)


def _everything(host: Host) -> tuple[object, ...]:
    """What nobody changes who has not proved that it may."""
    targets = [target.key for target in host.endpoint.targets]
    live = [connection for connection in host.endpoint.connections if connection.live]
    return (*_state(host), *targets, *live, len(host.endpoint.sessions))
