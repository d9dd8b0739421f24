"""Who may come in: proofs, keys and certificates at the authenticator's seam, lost answers, crowds at the door.

The keys here are those of the tests' own authenticator; what is checked is what the core does with its verdict.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

import pytest

from networkio_proto import (
    AuthenticationFailed,
    CloseCode,
    Config,
    ConnectionState,
    Limits,
    MessageTooLarge,
    Outcome,
    PeerConnected,
    PeerDisconnected,
    Proof,
    SelfConnection,
    TargetState,
    TLSFacts,
    VersionMismatch,
    WrongPeer,
)
from networkio_proto.auth import Authenticator
from networkio_testing import Host, Judge, World
from tests.proto.helpers import frames
from tests.proto.helpers_auth import HmacAuth, mac_of
from tests.proto.helpers_wire import ATTACH, CLOSE, PREAMBLE, Node, Peer, dialled, exchange, fingerprint, frame
from tests.scenarios.helpers import Scene

KEY, OTHER = b"k" * 32, b"o" * 32


class KeyRing:
    """Pre-shared keys by their ids, and those that a peer may use: what a rotation goes through."""

    name = "psk"

    def __init__(self, keys: dict[str, bytes], announce: str) -> None:
        self.keys = dict(keys)
        self.announce = announce

    def key_id(self, peer_id: str | None) -> str | None:
        return self.announce

    def _key(self, proof: Proof) -> bytes:
        """Of a key that is not on the ring the mac is computed too, with one that nobody has."""
        return self.keys.get(proof.key_id or "", bytes(32))

    def sign(self, proof: Proof) -> bytes:
        return mac_of(self._key(proof), proof)

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        same = mac is not None and hmac.compare_digest(mac, mac_of(self._key(proof), proof))
        return same and proof.key_id in self.keys


class PeerKeys(HmacAuth):
    """A key for each peer that is known; for everybody else the same is done, with a key that nobody has."""

    def __init__(self, mine: str, keys: dict[str, bytes]) -> None:
        super().__init__(b"")
        self.mine, self.keys = mine, keys

    def _mac(self, proof: Proof) -> bytes:
        peer = proof.acceptor_id if proof.dialer_id == self.mine else proof.dialer_id
        return mac_of(self.keys.get(peer, b"nobody's" * 4), proof)

    def sign(self, proof: Proof) -> bytes:
        return self._mac(proof)

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        return mac is not None and hmac.compare_digest(mac, self._mac(proof))


class Certificates:
    """The peer is who its certificate names; the mac has no part in it."""

    name = "mtls"

    def key_id(self, peer_id: str | None) -> str | None:
        return None

    def sign(self, proof: Proof) -> bytes | None:
        return None

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        peer = proof.dialer_id if proof.role == b"D" else proof.acceptor_id
        return mac is None and tls is not None and tls.identity == peer


def met(one: Authenticator, other: Authenticator, seconds: float = 1.0) -> tuple[World, Host, Host]:
    """"a" dials "b", each with its way of proving itself."""
    world = World()
    Judge(world)
    a, b = world.host("a", auth=one), world.host("b", auth=other)
    a.dial("b")
    world.run(seconds)
    return world, a, b


def refusals(host: Host) -> list[object]:
    """Why it was not connected, as its application was told."""
    return [type(notice.error) for notice in host.notices if isinstance(notice, PeerDisconnected)]


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_peer_without_a_key_is_refused_at_the_same_point_and_with_the_same_words_as_one_with_a_wrong_key() -> None:
    seen = []
    for keys in ({"a": OTHER}, {}):
        world, a, b = met(PeerKeys("a", {"b": KEY}), PeerKeys("b", keys), 0.0)
        target = a.session("b").targets[0]
        seen.append((str(target.error), world.wires[0].pipes[1].delivered if world.wires else None))
        assert isinstance(target.error, AuthenticationFailed)
        assert not b.endpoint.sessions
    assert seen[0] == seen[1]


def change_hello_ack(**changes: object) -> Callable[[int, bytes], bytes]:
    """Somebody in the middle says another HELLO_ACK than the acceptor."""

    def tamper(end: int, stretch: bytes) -> bytes:
        if end == 1 and stretch.startswith(PREAMBLE):
            return PREAMBLE + Peer("b", auth="psk").hello_ack(id="b", **changes)
        return stretch

    return tamper


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"features": []}, id="a feature is left out"),
        pytest.param({"limits": {"frame": 8192, "message": 1, "idle": 45_000}}, id="the limits are lowered"),
        pytest.param({"v": 1, "agent": "me"}, id="only a comment is added"),
    ],
)
def test_an_answer_that_was_rewritten_on_the_way_is_noticed_by_the_acceptor(changes: dict[str, object]) -> None:
    one, other = (Node(name, auth=HmacAuth(KEY), features=("rare",)) for name in "ab")
    lines = dialled(one, other)
    exchange(*lines, change_hello_ack(**changes))
    assert isinstance(lines[1].connection.error, AuthenticationFailed)
    assert not lines[0].live
    assert not lines[1].live
    assert "a" not in other.endpoint.sessions


def test_a_position_that_was_changed_on_the_way_moves_nothing() -> None:
    """A forged ``received`` would make the sender throw away what nobody read."""
    world = World()
    a, b = world.host("a", auth=HmacAuth(KEY)), world.host("b", auth=HmacAuth(KEY))
    a.dial("b")
    world.run(1.0)
    b.send("a", b"one", b"two")
    world.run(1.0)
    [wire] = world.open_wires()
    wire.cut()
    world.advance(0.1)
    before = fingerprint(b.endpoint, connected=False)
    [wire] = a.answer_dials()
    wire.deliver(0)
    wire.deliver(1)
    said = wire.pipes[0].data
    assert said.count(b"\xa4read\x00") == 1
    said[:] = said.replace(b"\xa4read\x00", b"\xa4read\x02")
    wire.tampered = True
    wire.deliver(0)
    assert fingerprint(b.endpoint, connected=False) == before
    assert b.session("a").unacknowledged == 2
    assert [item.kind for item in frames(wire.pipes[1].data)] == [CLOSE]
    world.run(400.0)
    assert a.read("b") == [b"one", b"two"]


def test_two_keys_are_good_while_they_are_exchanged_and_then_only_the_new_one() -> None:
    old, new = {"2025": KEY}, {"2026": OTHER}
    server = KeyRing({**old, **new}, "2026")
    world = World()
    Judge(world)
    b = world.host("b", auth=server)
    hosts = [world.host("a1", auth=KeyRing(old, "2025")), world.host("a2", auth=KeyRing(new, "2026"))]
    for host in hosts:
        host.dial("b")
    world.run(1.0)
    assert [host.session("b").connected for host in hosts] == [True, True]
    del server.keys["2025"]
    hosts[0].send("b", b"on the connection that stands")
    world.run(1.0)
    assert b.read("a1") == [b"on the connection that stands"]  # a key proves who comes in, not who is in
    for wire in world.open_wires():
        wire.cut()
    world.run(5.0)
    assert [host.session("b").connected for host in hosts] == [False, True]
    assert refusals(hosts[0])[-1] is AuthenticationFailed
    hosts[0].auth.keys["2026"], hosts[0].auth.announce = OTHER, "2026"  # type: ignore[union-attr]
    world.run(600.0)
    assert [host.session("b").connected for host in hosts] == [True, True]


@pytest.mark.parametrize(("named", "live"), [("a", True), ("c", False), (None, False)])
def test_whoever_has_the_certificate_of_another_is_not_believed(named: str | None, live: bool) -> None:
    one, other = Node("a", auth=Certificates()), Node("b", auth=Certificates())
    lines = dialled(one, other, (TLSFacts(identity="b"), TLSFacts(identity=named)))
    exchange(*lines)
    assert [line.live for line in lines] == [live, live]
    assert ("a" in other.endpoint.sessions) is live
    if not live:
        assert isinstance(lines[1].connection.error, AuthenticationFailed)


def test_a_wrong_key_is_tried_ever_less_often_and_told_once() -> None:
    """Up to every five minutes, for a human has to mend it."""
    world, a, _ = met(HmacAuth(OTHER), HmacAuth(KEY), 0.0)
    made, last = [], 0
    for _ in range(8 * 3600 // 60):
        world.run(60.0)
        if world.connections_made > last:
            made.append(world.now)
            last = world.connections_made
    gaps = [later - earlier for earlier, later in zip(made[-20:-1], made[-19:], strict=True)]
    assert 8 * 3600 / 300 - 1 <= world.connections_made < 8 * 3600 / 150 + 15
    assert all(90 <= gap <= 360 for gap in gaps)  # looked at once a minute
    assert refusals(a) == [AuthenticationFailed]
    [target] = a.session("b").targets
    assert target.state is TargetState.WAITING


# -- whom one meant ---------------------------------------------------------------------------------------------------


def test_a_node_that_reaches_itself_stops() -> None:
    world = World()
    Judge(world)
    a = world.host("a")
    target = a.dial("a", to=None)
    world.run(600.0)
    assert isinstance(target.error, SelfConnection)
    assert target.state is TargetState.STOPPED
    assert world.connections_made == 1
    assert not a.endpoint.sessions


def test_another_peer_than_was_meant_gets_nothing_and_is_not_dialled_again() -> None:
    world = World()
    Judge(world)
    a, b = world.host("a"), world.host("b")
    a.send("c", b"for c alone")
    target = a.dial("b", to="c")
    world.run(600.0)
    assert isinstance(target.error, WrongPeer)
    assert target.state is TargetState.STOPPED
    assert world.connections_made == 1
    assert not b.endpoint.sessions
    assert a.session("c").unacknowledged == 1


@pytest.mark.parametrize(
    ("hello", "node", "missing"),
    [
        pytest.param({"v": [2, 9]}, {}, "version", id="no version in common"),
        pytest.param({"require": ["rare"]}, {}, "rare", id="a feature is lacking here"),
        pytest.param({}, {"features": ("rare",), "require": ("rare",)}, "rare", id="a feature is lacking there"),
    ],
)
def test_who_has_nothing_in_common_is_told_what_is_missing(
    hello: dict[str, object], node: dict[str, tuple[str, ...]], missing: str
) -> None:
    acceptor, peer = Node(**node), Peer()  # type: ignore[arg-type]
    line = acceptor.accept()
    line.say(PREAMBLE, peer.hello(**hello))
    assert line.heard()[-1].kind == CLOSE
    assert isinstance(line.connection.error, VersionMismatch)
    assert missing in str(line.connection.error)
    assert not acceptor.endpoint.sessions


def test_the_lesser_of_both_limits_holds_for_each_message() -> None:
    """The receiver takes less than the sender would send: what waits is skipped, what comes later refused at once."""
    small, large = Config(limits=Limits(message=1000)), Config(limits=Limits(message=100_000))
    scene = Scene(large, b=small, connected=False)
    scene.a.send("b", b"small", bytes(1001), b"behind it")
    scene.b.send("a", bytes(1000))
    scene.a.dial("b")
    scene.rest()
    assert scene.got() == [b"small", b"behind it"]
    assert scene.got("a") == [bytes(1000)]
    gap = scene.heard["b"][1][4]
    assert gap is not None
    assert [(part.first, part.last, part.reason) for part in gap.gap] == [(2, 2, 4)]
    session = scene.a.session("b")
    assert [session.outcome(number) for number in (1, 2, 3)] == [Outcome.READ, Outcome.LOST, Outcome.READ]
    with pytest.raises(MessageTooLarge, match="1000 at the peer"):
        scene.a.send("b", bytes(1001))
    assert scene.a.send("b", bytes(1000)) == [4]
    scene.rest()


# -- an answer that is lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 4])
def test_when_the_acceptors_answer_is_lost_nothing_has_moved_at_the_dialer_and_nothing_comes_twice(times: int) -> None:
    scene = Scene()
    world, a, b = scene.world, scene.a, scene.b
    a.send("b", b"a1", b"a2")
    b.send("a", b"b1", b"b2")
    scene.wire.deliver(0)  # b has a's, and a has not b's
    assert b.read("a", 1) == [b"a1"]
    scene.wire.cut()
    before = fingerprint(a.endpoint, connected=False)
    connections = b.session("a").connections
    for number in range(times):
        while not a.dials:
            world.advance(0.1)
        [wire] = a.answer_dials()
        for end in (0, 1, 0):
            wire.deliver(end)
        assert b.session("a").connections == connections + number + 1
        assert ATTACH in [item.kind for item in frames(wire.pipes[1].data)]
        wire.cut()
        assert fingerprint(a.endpoint, connected=False) == before
    scene.rest()
    assert [delivery[2] for delivery in scene.heard["b"]] == [b"a2"]
    assert [delivery[2] for delivery in scene.heard["a"]] == [b"b1", b"b2"]
    assert sum(isinstance(notice, PeerConnected) for notice in a.notices) == 2


# -- crowds -----------------------------------------------------------------------------------------------------------


def drip(node: Node, source: str) -> Callable[[], bool]:
    """Somebody who says a HELLO, one byte at a call; False when the node has shown him out."""
    line = node.accept(source)
    said = PREAMBLE + Peer("slow").hello()
    left = iter(said)

    def step() -> bool:
        if line.closed is None:
            line.say(bytes([next(left, 0)]))
        return line.closed is None

    return step


def test_who_says_one_byte_a_second_is_shown_out_after_five_of_them() -> None:
    node = Node()
    step = drip(node, "there")
    for second in range(5):
        assert step(), second
        node.advance(1.0)
    assert not step()
    node.advance(2.0)
    assert not node.endpoint.connections


def test_two_thousand_who_stop_in_their_handshake_from_one_address_keep_nobody_else_out() -> None:
    """And who is connected stays so; what they cost is bounded, and given back when their time is over."""
    node, friend = Node(config=Config(max_pending=1024, max_pending_per_source=256)), Peer("friend")
    before = node.connect(friend)
    crowd = []
    for number in range(2000):
        line = node.accept("crowd")
        line.say(PREAMBLE, Peer(f"x{number}").hello() if number % 2 else b"")
        crowd.append(line)
    turned_away = [line for line in crowd if line.closed is not None]
    assert len(turned_away) == 2000 - 256
    assert all(line.connection.error.code is CloseCode.OVERLOAD for line in turned_away)  # type: ignore[union-attr]
    assert node.endpoint.handshakes == 256
    for number in range(20):
        line = node.connect(Peer(f"guest{number}"))
        assert line.live
    assert before.live
    node.advance(5.1)
    assert node.endpoint.handshakes == 0
    node.advance(2.0)
    assert len(node.endpoint.connections) == 21
    assert set(node.endpoint.sessions) == {"friend", *(f"guest{number}" for number in range(20))}
    assert len(node.endpoint._provisional) <= 64


def test_a_stranger_under_the_name_of_a_live_peer_moves_nothing_whatever_he_says() -> None:
    world = World()
    a, b = world.host("a", auth=HmacAuth(KEY)), world.host("b", auth=HmacAuth(KEY))
    a.dial("b")
    a.send("b", b"one")
    world.run(1.0)
    [wire] = world.open_wires()
    before = fingerprint(b.endpoint)
    for said in (
        [],
        [Peer("a", auth="psk").hello()],
        [Peer("a", auth="psk").hello(to="b", key_id="k")],
        [Peer("a", auth="psk").hello(to="b"), Peer("a").attach("b", mac=bytes(32), next=1, first=1)],
        [Peer("a", auth="psk").hello(to="b"), frame(0x99)],
    ):
        stranger = b.endpoint.accept(world.now, source="elsewhere")
        stranger.receive_data(PREAMBLE + b"".join(said), world.now)
        while stranger.data_to_send(world.now):
            pass
        while b.endpoint.next_effect() is not None:
            pass
        assert stranger.state is not ConnectionState.LIVE
        assert fingerprint(b.endpoint) == before
    assert wire.ends[1] is b.session("a").connection
    a.send("b", b"two")
    world.run(1.0)
    assert b.read("a") == [b"one", b"two"]
