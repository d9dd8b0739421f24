"""Which of several connections of one session lives: every order of two simultaneous dials, and every take-over.

What takes two real nodes runs in the simulated world, one frame at a time; where a peer has to be late, dead, or two
processes at once, it is made of bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

import pytest

from networkio_proto import (
    CloseCode,
    Delivery,
    Endpoint,
    PeerConnected,
    PeerDisconnected,
    PeerRestarted,
)
from networkio_proto.arbiter import Arbitration
from networkio_testing.world import Host, Wire, World
from tests.proto.helpers import frames
from tests.proto.helpers_wire import (
    ACK,
    ATTACH,
    CLOSE,
    DATA,
    HELLO,
    HELLO_ACK,
    PING,
    PREAMBLE,
    REDELIVERED,
    WINDOW,
    Line,
    Node,
    Peer,
    data,
    fingerprint,
    frame,
    plain,
    pong,
)

# -- every order of delivery ------------------------------------------------------------------------------------------

#: what can happen next: a host's dial is answered, or what the host at an end of a wire said arrives at the other
Happening: TypeAlias = "tuple[str, str, int]"

A, B = "a", "b"  # "b" is the arbiter


class Constant(random.Random):
    """No draw tells how many came before it, so that two orders which come to the same can be seen to do so."""

    def random(self) -> float:
        return 0.5

    def randbytes(self, n: int) -> bytes:
        return bytes(n)


class Scene(World):
    """Two nodes that dial each other, each with messages for the other and an application that reads at once."""

    def __init__(self, *dials: str, met: bool = False) -> None:
        super().__init__(5)
        self.heard: dict[str, list[Delivery]] = {A: [], B: []}
        a, b = self.host(A), self.host(B)
        self.before = [b"before"] * met
        if met:
            self.acquaint(a, b)
        for host, other in ((a, B), (b, A)):
            host.send(other, *(f"{number} from {host.name}".encode() for number in range(3)))
        for name in dials:
            self.hosts[name].dial(B if name == A else A)
        for host in (a, b):
            host.endpoint.random = Constant()

    def acquaint(self, a: Host, b: Host) -> None:
        """They had a connection before, on which all but the last message of each was read."""
        target = a.dial(B)
        self.run(1.0)
        for host, other in ((a, B), (b, A)):
            host.send(other, b"read before", b"before")
        self.run(1.0)
        for host, other in ((a, B), (b, A)):
            assert host.read(other, 1) == [b"read before"]
        self.run(1.0)
        a.endpoint.remove_target(target)
        [wire] = self.open_wires()
        wire.cut()

    def read(self) -> None:
        """Both applications take what is there and acknowledge it."""
        for name, other in ((A, B), (B, A)):
            host = self.hosts[name]
            for delivery in host.take(other, 10):
                self.heard[name].append(delivery)
                host.settle(other, delivery)

    def swap_messages(self) -> None:
        """What was sent before the dials is there, once and in order, and so is what is sent now.

        Nobody seemed to forget anything, and nobody takes the other for a new process.
        """
        a, b = self.hosts[A], self.hosts[B]
        self.read()
        self.run(40.0)
        for host, other in ((a, B), (b, A)):
            session = host.session(other)
            assert session.unacknowledged == 0
            assert session.outbox.marked == 0
            host.send(other, b"after")
        self.run(1.0)
        self.read()
        for name, other in ((A, B), (B, A)):
            earlier = [f"{number} from {other}".encode() for number in range(3)]
            assert [delivery[2] for delivery in self.heard[name]] == [*self.before, *earlier, b"after"]
            assert not any(delivery[4] and delivery[4].redelivered for delivery in self.heard[name])


def name_of(world: World, wire: Wire) -> str:
    """A name that does not depend on the order in which wires came about: who dialled, and the how manieth time."""
    dialer = wire.hosts[0]
    earlier = [other for other in world.wires if other.hosts[0] is dialer and other.number < wire.number]
    return f"{dialer.name}{len(earlier) + 1}"


def possible(world: World) -> list[Happening]:
    """Everything that can happen next."""
    happenings: list[Happening] = [("dial", host.name, 0) for host in world.hosts.values() if host.dials]
    for wire in world.wires:
        ends = (end for end in (0, 1) if wire.waiting(end) and wire.ends[1 - end] is not None)
        happenings += [("arrive", name_of(world, wire), end) for end in ends]
    return happenings


def breakable(world: World) -> list[Happening]:
    """Every way in which a wire can be lost: both ends learn of it at once, or one of them does."""
    whole = [wire for wire in world.wires if None not in wire.ends and not any(wire.closing)]
    return [(how, name_of(world, wire), end) for wire in whole for how, end in (("cut", 0), ("lose", 0), ("lose", 1))]


def happen(world: Scene, happening: Happening) -> None:
    """Let it happen.  A frame of the handshake arrives alone, anything else together with what stands behind it."""
    what, name, end = happening
    if what == "dial":
        host = world.hosts[name]
        others, host.dials = host.dials[1:], host.dials[:1]
        host.answer_dials()
        host.dials += others
    else:
        happen_on_a_wire(world, happening)
    for wire in world.wires:  # who has said CLOSE is deaf: when something arrives there makes no difference
        for end in (0, 1):
            if wire.closing[1 - end] and wire.waiting(end):
                wire.deliver(end)


def happen_on_a_wire(world: Scene, happening: Happening) -> None:
    what, name, end = happening
    [wire] = [wire for wire in world.wires if name_of(world, wire) == name]
    if what == "cut":
        wire.cut()
    elif what == "lose":
        wire.cut_half(end)
    else:
        waiting = wire.pipes[end].data
        start = len(PREAMBLE) if waiting.startswith(PREAMBLE) else 0
        header = waiting[start : start + 6]
        alone = len(header) == 6 and header[4] in (HELLO, HELLO_ACK, ATTACH)
        wire.deliver(end, start + 4 + int.from_bytes(header[:4], "big") if alone else None)
        world.read()


def state(world: Scene) -> str:
    """Everything that the future of the world depends on."""
    hosts = [
        (
            fingerprint(host.endpoint),
            [(target.state, target.attempts) for target in host.endpoint.targets],
            len(host.dials),
        )
        for host in world.hosts.values()
    ]
    wires = sorted(
        (
            name_of(world, wire),
            [
                None
                if end is None
                else (end.state.value, end.dial, end.generation, end.credit_told, plain(end.attached))
                for end in wire.ends
            ],
            [(bytes(pipe.data), pipe.fin, pipe.black_hole) for pipe in wire.pipes],
        )
        for wire in world.wires
    )
    return repr((hosts, wires, [len(heard) for heard in world.heard.values()]))


def explore(build: Callable[[], Scene], judge: Callable[[Scene], None], losses: int = 0) -> tuple[int, int]:
    """Visit every state that any order leads to, and judge those in which nothing is under way.

    Up to ``losses`` wires break on the way, whenever.  Returns the number of states and the number of orders.
    """
    after: dict[str, list[str]] = {}
    first = ""
    todo: list[tuple[str, tuple[Happening, ...]]] = [("", ())]
    while todo:
        before, path = todo.pop()
        world = build()
        for happening in path:
            happen(world, happening)
        left = losses - sum(what in ("cut", "lose") for what, _, _ in path)
        now = f"{left} {state(world)}"
        first = first or now
        if before:
            after[before].append(now)
        if now in after:
            continue
        after[now] = []
        following = possible(world)
        breaking = breakable(world) if left else []
        todo += [(now, (*path, happening)) for happening in following + breaking]
        if not following:
            judge(world)
    orders: dict[str, int] = {}

    def count(key: str) -> int:
        if key not in orders:
            orders[key] = sum(map(count, after[key])) if after[key] else 1
        return orders[key]

    return len(after), count(first)


def only_wire(world: World) -> Wire:
    """There is one connection, it is live on both sides, and both sides mean it."""
    [wire] = world.open_wires()
    for end, host in zip(wire.ends, wire.hosts, strict=True):
        assert list(host.endpoint.connections) == [end]
        assert list(host.endpoint.live()) == [end]
        [session] = host.endpoint.sessions.values()
        assert session.connection is end
    return wire


def survives(world: Scene) -> None:
    """One connection, now and for good, and with it everything that was to be said."""
    wire, made = only_wire(world), world.connections_made
    world.swap_messages()
    assert only_wire(world) is wire
    assert world.connections_made == made


@pytest.mark.slow
@pytest.mark.parametrize("met", [False, True], ids=["strangers", "after a cut"])
def test_in_every_order_of_two_simultaneous_dials_one_connection_survives(met: bool) -> None:
    """The same on both sides, for good, and no message is lost or doubled."""
    states, orders = explore(lambda: Scene(A, B, met=met), survives)
    assert states > 100
    assert orders > 2000


@pytest.mark.parametrize("dialer", [A, B])
def test_in_every_order_of_two_dials_of_one_node_one_connection_survives(dialer: str) -> None:
    _, orders = explore(lambda: Scene(dialer, dialer, met=True), survives)
    assert orders > 500


@pytest.mark.slow
def test_whenever_a_connection_is_lost_in_such_a_collision_another_survives() -> None:
    def judge(world: Scene) -> None:
        for host in world.hosts.values():
            host.endpoint.random = random.Random(host.name)
        world.run(120.0)
        survives(world)

    _, orders = explore(lambda: Scene(A, B), judge, losses=1)
    assert orders > 10_000


@pytest.mark.parametrize("dials", [(A, A, B), (A, B, B), (A, A, B, B)], ids="".join)
def test_of_more_dials_one_connection_survives(dials: tuple[str, ...]) -> None:
    """Sampled: there are millions of orders."""
    for seed in range(40):
        draw = random.Random(seed)
        world = Scene(*dials, met=seed % 2 == 1)
        while happenings := possible(world):
            happen(world, draw.choice(happenings))
        survives(world)


#: the rule itself, for those that leave out a half of it
stale = Arbitration.stale


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name", "without", "dials"),
    [
        pytest.param(Arbitration, "stale", lambda side, it: not side.arbiter and stale(side, it), A + B, id="P-ARB-11"),
        pytest.param(Arbitration, "stale", lambda side, it: side.arbiter and stale(side, it), A + B, id="P-ARB-16"),
        pytest.param(Endpoint, "_close_rivals", lambda *_: None, A + B, id="P-ARB-13"),
        pytest.param(Endpoint, "claims", lambda *_: False, A + A, id="one claim at a time"),
    ],
)
def test_the_exploration_finds_what_goes_wrong_without_a_rule(
    place: type, name: str, without: Callable[..., object], dials: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, without)
    with pytest.raises((AssertionError, ValueError)):
        explore(lambda: Scene(*dials, met=True), survives)


# -- take-over --------------------------------------------------------------------------------------------------------


def pings(line: Line) -> list[int]:
    """The opaque values of the PINGs that were heard."""
    return [item.u64() for item in line.heard() if item.kind == PING]


def taken_over(line: Line) -> bool:
    """Was this line closed because another took its place?"""
    return line.closed is not None and line.farewell() is CloseCode.SUPERSEDED


@pytest.mark.parametrize("peer_id", ["a", "z"])
def test_the_same_process_on_a_new_connection_is_taken_at_once(peer_id: str) -> None:
    """Its old connection is half-open: it knows that, and this side does not."""
    node, peer = Node(), Peer(peer_id)
    node.send(peer, b"unread")
    old = node.connect(peer)
    old.say(data(1, b"half of it", total=100))
    old.raw()
    new = node.connect(peer)
    assert taken_over(old)
    assert node.session(peer).connection is new.connection
    assert new.kinds()[1:] == [ATTACH, ACK, DATA]
    old.say(data(1, b"the rest"), pong())
    new.say(data(1, b"whole"))
    assert node.read(peer) == [b"whole"]


@pytest.mark.parametrize("peer_id", ["a", "z"])
def test_another_process_is_turned_away_while_the_incumbent_answers(peer_id: str) -> None:
    node, real, twin = Node(), Peer(peer_id, life=1), Peer(peer_id, life=2)
    incumbent = node.connect(real)
    incumbent.raw()
    newcomer = node.claim(twin)
    newcomer.raw()
    newcomer.say(twin.attach(), data(1, b"of the twin"))
    [question] = pings(incumbent)
    node.advance(1.9)
    assert newcomer.parked
    assert newcomer.raw() == b""
    before = fingerprint(node.endpoint, connected=False)
    incumbent.say(pong(question))
    assert newcomer.farewell() is CloseCode.DUPLICATE_IDENTITY
    assert incumbent.live
    incumbent.say(data(1, b"of the real one"))
    assert node.read(real) == [b"of the real one"]
    assert before != fingerprint(node.endpoint, connected=False)
    node.advance(10.0)
    assert incumbent.live


@pytest.mark.parametrize("peer_id", ["a", "z"])
def test_another_process_is_taken_when_the_incumbent_was_silent_for_2_s(peer_id: str) -> None:
    node, old, new = Node(), Peer(peer_id, life=1), Peer(peer_id, life=2)
    incumbent = node.connect(old)
    newcomer = node.claim(new)
    newcomer.raw()
    newcomer.say(new.attach(), data(1, b"waited"))
    assert (newcomer.raw(), node.session(old).unread) == (b"", 0)
    node.advance(1.99)
    assert newcomer.parked
    node.advance(0.01)
    assert newcomer.live
    assert taken_over(incumbent)
    assert newcomer.kinds()[0] == ATTACH
    assert node.read(new) == [b"waited"]
    assert sum(isinstance(event, PeerRestarted) for event in node.events) == 1
    assert sum(isinstance(event, PeerConnected) for event in node.events) == 2


def test_an_incumbent_that_is_busy_gets_five_times_2_s_more_and_then_counts_as_alive() -> None:
    """P-ARB-5: bytes without the PONG, as of a big message on a slow line."""
    node, peer, twin = Node(), Peer("a", life=1), Peer("a", life=2)
    incumbent, newcomer = node.connect(peer), node.claim(twin)
    newcomer.say(twin.attach())
    for _ in range(11):
        node.advance(1.0)
        assert newcomer.parked
        incumbent.say(frame(0x80, b"busy"))
    node.advance(1.0)
    assert newcomer.farewell() is CloseCode.DUPLICATE_IDENTITY
    assert incumbent.live


def test_an_incumbent_that_falls_silent_during_the_probe_is_dead_2_s_later() -> None:
    node, peer, twin = Node(), Peer("a", life=1), Peer("a", life=2)
    incumbent, newcomer = node.connect(peer), node.claim(twin)
    newcomer.say(twin.attach())
    node.advance(1.0)
    incumbent.say(frame(0x80, b"last words"))
    node.advance(2.9)
    assert newcomer.parked
    node.advance(0.1)
    assert newcomer.live


def test_a_pong_to_an_earlier_ping_does_not_end_the_probe_and_one_to_a_later_does() -> None:
    node, peer, twin = Node(), Peer("a", life=1), Peer("a", life=2)
    incumbent, newcomer = node.connect(peer), node.claim(twin)
    incumbent.connection.ping(node.now)
    node.pump()
    [earlier] = pings(incumbent)
    newcomer.say(twin.attach())
    [question] = pings(incumbent)
    node.advance(1.0)
    incumbent.say(pong(earlier), pong(0), pong(question + 1))
    assert newcomer.parked
    incumbent.connection.ping(node.now)
    node.pump()
    [later] = pings(incumbent)
    incumbent.say(pong(later))
    assert newcomer.farewell() is CloseCode.DUPLICATE_IDENTITY


@pytest.mark.parametrize("end", [Line.eof, Line.lose], ids=["eof", "lost"])
def test_the_end_of_the_incumbent_ends_the_probe(end: Callable[[Line], None]) -> None:
    node, peer, twin = Node(), Peer("a", life=1), Peer("a", life=2)
    incumbent, newcomer = node.connect(peer), node.claim(twin)
    newcomer.say(twin.attach())
    end(incumbent)
    assert newcomer.live


def test_of_several_parked_newcomers_the_last_is_taken_and_the_others_closed() -> None:
    """P-ARB-7 and P-ARB-13; they do not begin probes of their own (P-ARB-8)."""
    node, peer = Node(), Peer("a", life=1)
    incumbent = node.connect(peer)
    incumbent.raw()
    twins = [Peer("a", life=life) for life in (2, 3, 4)]
    lines = [node.claim(twin) for twin in twins]
    for line, twin in zip((lines[1], lines[2], lines[0]), (twins[1], twins[2], twins[0]), strict=True):
        line.say(twin.attach())
        node.advance(0.5)
    assert len(pings(incumbent)) == 1
    node.advance(0.5)
    assert lines[0].live
    assert [line.farewell() for line in lines[1:]] == [CloseCode.COLLISION] * 2


def test_all_parked_newcomers_are_turned_away_by_one_answer() -> None:
    node, peer = Node(), Peer("a", life=1)
    incumbent = node.connect(peer)
    incumbent.raw()
    lines = []
    for life in range(2, 8):
        twin = Peer("a", life=life)
        lines.append(node.claim(twin))
        lines[-1].say(twin.attach())
    # few wait, the newest of them
    assert [line.farewell() for line in lines[:2]] == [CloseCode.COLLISION] * 2
    [question] = pings(incumbent)
    incumbent.say(pong(question))
    assert [line.farewell() for line in lines[2:]] == [CloseCode.DUPLICATE_IDENTITY] * 4


def test_strangers_in_a_row_do_not_make_the_incumbent_answer_more_than_once_a_second() -> None:
    """P-ARB-9; who comes in between waits until the next probe may begin."""
    node, peer = Node(), Peer("a", life=1)
    incumbent = node.connect(peer)
    incumbent.raw()
    begun, asked = node.now, 0
    lines = []
    for number in range(40):
        twin = Peer("a", life=2 + number)
        lines.append(node.claim(twin))
        lines[-1].say(twin.attach())
        for question in pings(incumbent):
            asked += 1
            incumbent.say(pong(question))
        node.advance(0.1)
    assert asked <= node.now - begun + 1
    node.advance(0.6)
    for question in pings(incumbent):
        incumbent.say(pong(question))
    assert all(line.closed is not None for line in lines)
    assert incumbent.live


def test_a_newcomer_that_has_to_wait_for_its_probe_is_taken_2_s_after_it_began() -> None:
    node, peer, first, second = Node(), *(Peer("a", life=life) for life in (1, 2, 3))
    incumbent = node.connect(peer)
    incumbent.raw()
    one = node.claim(first)
    one.say(first.attach())
    incumbent.say(*map(pong, pings(incumbent)))
    node.advance(0.4)
    two = node.claim(second)
    two.say(second.attach())
    assert pings(incumbent) == []
    node.advance(0.6)
    assert len(pings(incumbent)) == 1
    node.advance(1.9)
    assert two.parked
    node.advance(0.1)
    assert two.live


def test_a_parked_newcomer_that_goes_away_leaves_nothing_behind() -> None:
    node, peer, twin = Node(), Peer("a", life=1), Peer("a", life=2)
    incumbent, newcomer = node.connect(peer), node.claim(twin)
    newcomer.say(twin.attach())
    newcomer.eof()
    node.advance(3.0)
    assert incumbent.live
    assert node.session(peer).parked == []
    assert node.session(peer).inbox is not None
    assert node.session(peer).inbox.outbox_id == peer.outbox  # type: ignore[union-attr]


def test_a_parked_newcomer_may_not_send_without_end() -> None:
    node, peer, twin = Node(), Peer("a", life=1), Peer("a", life=2)
    node.connect(peer)
    newcomer = node.claim(twin)
    newcomer.say(twin.attach())
    sent = 0
    while newcomer.closed is None:
        newcomer.say(frame(DATA, bytes(60_000)))
        sent += 60_000
        assert sent < 1_000_000
    assert newcomer.farewell() is CloseCode.FLOW


def test_a_parked_newcomer_with_an_old_generation_is_passed_over() -> None:
    """P-ARB-7 with P-ARB-16: the follower knows that process of the arbiter already."""
    node, one, two, three = Node(), *(Peer("z", life=life) for life in (1, 2, 3))
    two.generation = 6
    node.connect(two).lose()
    incumbent = node.connect(one)
    two.generation = 2
    good, stale = node.claim(three), node.claim(two)
    good.say(three.attach())
    stale.say(two.attach())
    incumbent.lose()
    assert stale.farewell() is CloseCode.COLLISION
    assert good.live


def test_a_newcomer_that_is_refused_after_the_probe_does_not_leave_the_others_waiting() -> None:
    """This side had sent FIN; the newest newcomer says that the session is over, the one before it knows nothing."""
    node, one, two, three = Node(), *(Peer("a", life=life) for life in (1, 2, 3))
    incumbent = node.connect(one)
    outbox = node.session(one).outbox
    node.session(one).end(node.now)
    final = {"outbox": outbox.outbox_id, "run": outbox.run, "received": 1, "read": 0, "first": 1, "why": 2}
    older, newer = node.claim(two), node.claim(three)
    older.say(two.attach())
    newer.say(three.attach(ended=[final]))
    incumbent.lose()
    assert newer.closed is not None
    assert older.live


def test_probing_is_not_confused_by_a_pause_of_the_node_itself() -> None:
    node, peer, twin = Node(), Peer("a", life=1), Peer("a", life=2)
    incumbent, newcomer = node.connect(peer), node.claim(twin)
    newcomer.say(twin.attach())
    incumbent.raw()
    node.jump(60.0)
    assert newcomer.parked
    incumbent.say(*map(pong, pings(incumbent)))
    assert newcomer.farewell() is CloseCode.DUPLICATE_IDENTITY
    assert incumbent.live


def test_two_processes_of_one_name_in_the_world_do_not_throw_each_other_out() -> None:
    world = World(3)
    server, real = world.host("b"), world.host("a")
    twin = world.host("a'", peer_id="a")
    real.dial("b")
    world.run(5.0)
    wire = world.live("a", "b")
    twin.dial("b")
    made = world.connections_made
    world.run(600.0)
    assert world.live("a", "b") is wire
    assert world.connections_made - made < 20
    assert server.session("a").connections == 1
    told = [notice for notice in twin.notices if isinstance(notice, PeerDisconnected)]
    assert [notice.error.code for notice in told] == [CloseCode.DUPLICATE_IDENTITY]
    real.crash(reset=False)
    world.run(400.0)
    assert world.live("a'", "b") is not None


# -- the counterexamples ----------------------------------------------------------------------------------------------
#
# Histories that a model checker found in earlier sets of rules; in brackets the rule that each is there for.


def wires_of_both(world: World) -> tuple[Wire, Wire]:
    """Both hosts dialled: the wire of the follower "a", and that of the arbiter "b"; HELLO is under way on both."""
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    b.dial("a")
    [own], [arbiters] = a.answer_dials(), b.answer_dials()
    return own, arbiters


def finish(wire: Wire) -> None:
    """Everything on this wire arrives, to and fro."""
    while any(wire.waiting(end) for end in (0, 1)):
        for end in (0, 1):
            wire.deliver(end)


def test_counterexample_01_facts_from_before_a_connection_are_not_stated_after_it() -> None:
    """Both dial. B, live on M, states facts from before M on its own dial N: A would believe that B forgot
    [P-HS-8: a live dialer does not send ATTACH]."""
    world = World()
    n, m = wires_of_both(world)
    n.deliver(0)
    a, b = world.hosts["a"], world.hosts["b"]
    finish(m)
    b.send("a", b"one")
    finish(m)
    assert a.read("b") == [b"one"]
    finish(m)
    n.deliver(1)
    assert n.closing[0]
    assert ATTACH not in [item.kind for item in frames(n.pipes[0].data)]
    world.run(5.0)
    assert world.live("a", "b") is m
    assert b.session("a").connections == 1


def test_counterexample_02_stale_facts_change_neither_credit_nor_verdict() -> None:
    """The same start, but N's ATTACH was under way before M was live, and is read after data moved on M
    [P-ARB-11: its ``seen`` is less than M's generation]."""
    world = World()
    n, m = wires_of_both(world)
    a, b = world.hosts["a"], world.hosts["b"]
    n.deliver(0)
    n.deliver(1)
    assert frames(n.pipes[0].data)[0].kind == ATTACH
    finish(m)
    a.send("b", b"one", b"two")
    b.send("a", b"one", b"two")
    finish(m)
    assert a.read("b") == b.read("a") == [b"one", b"two"]
    finish(m)
    before = fingerprint(b.endpoint)
    n.deliver(0)
    assert fingerprint(b.endpoint) == before
    assert frames(n.pipes[1].data)[-1].kind == CLOSE
    world.run(5.0)
    assert world.live("a", "b") is m
    assert a.session("b").connections == b.session("a").connections == 1


def test_counterexample_02_a_dialer_judges_by_what_it_knows_when_the_answer_comes() -> None:
    """What its application settled since its own ATTACH is part of the credit at once [P-HS-9]."""
    node, peer = Node(), Peer("a")
    node.connect(peer).say(*[data(number) for number in range(1, 6)])
    node.session(peer).connection.connection_lost(node.now)  # type: ignore[union-attr]
    line = node.dial("a")
    line.say(PREAMBLE, peer.hello_ack())
    stated = line.heard()[-1]
    assert stated.kind == ATTACH
    assert len(node.read(peer)) == 5
    line.say(peer.attach(next=6))
    [told] = [item for item in line.heard() if item.kind == ACK]
    assert (told.u64(0), told.u64(1)) == (5, 5)
    assert told.u64(2) == WINDOW


@pytest.mark.parametrize("late", ["ATTACH", "HELLO and ATTACH"])
def test_counterexample_03_an_attach_that_is_read_late_is_stale_even_if_nothing_is_live(late: str) -> None:
    """Only B dials: N is given up unread, M lives and is cut, and then idle A reads N
    [P-ARB-10: the last connection taken is remembered, also when it is dead]."""
    node, peer = Node(), Peer("a")
    n, hello = node.accept(), peer.hello()
    if late == "ATTACH":
        n.say(PREAMBLE, hello)
    m = node.connect(peer)
    m.say(data(1, b"moved on"))
    assert node.read(peer) == [b"moved on"]
    m.lose()
    if late != "ATTACH":
        n.say(PREAMBLE, hello)
    before = fingerprint(node.endpoint)
    n.say(peer.attach(), data(1, b"again"))
    assert n.farewell() is CloseCode.COLLISION
    assert fingerprint(node.endpoint) == before
    again = node.connect(peer, next=2)
    assert again.live


@pytest.mark.parametrize("peer_id", ["a", "z"])
def test_counterexample_04_a_dead_process_is_not_taken_after_its_successor(peer_id: str) -> None:
    """Its unread ATTACH would turn the inbox back to its outbox, and the successor's message would come twice
    [P-ARB-13: taking closes what another incarnation has pending]."""
    node, dead, successor = Node(), Peer(peer_id, life=1), Peer(peer_id, life=2)
    n = node.claim(dead)
    m = node.connect(successor)
    assert n.farewell() is CloseCode.COLLISION
    m.say(data(1, b"once"))
    assert node.read(successor) == [b"once"]
    m.lose()
    n.say(dead.attach(), data(1, b"of the dead"))
    assert not node.session(peer_id).connected
    m = node.connect(successor, next=2)
    m.say(data(1, b"once"), data(2, b"and on"))
    assert node.read(successor) == [b"and on"]


def test_counterexample_05_the_answer_of_a_dead_arbiter_is_not_taken_later() -> None:
    """It would be parked, and be taken when its successor dies: its message 2 meets an expected 1 [P-ARB-13]."""
    node, dead, successor = Node(), Peer("z", life=1), Peer("z", life=2)
    dial = node.claim(dead, "dialer")
    m = node.connect(successor)
    assert dial.farewell() is CloseCode.COLLISION
    dial.say(dead.attach(next=3), data(2))
    m.lose()
    assert not node.session("z").connected
    assert node.session("z").unread == 0


@pytest.mark.parametrize("sender", ["a", "b"])
def test_counterexample_06_a_receiver_that_restarted_says_so_though_its_answer_is_lost(sender: str) -> None:
    """R restarts and takes S's dial, and its reply is lost. With "received 0" in the next one, S would never learn that
    R forgot, and send again without the flag [P-ATT-2: who holds nothing says nil]."""
    world = World()
    world.host("a")
    world.host("b")
    s, r = world.hosts[sender], world.hosts["b" if sender == "a" else "a"]
    s.dial(r.name)
    world.run(1.0)
    s.send(r.name, b"one", b"two")
    world.run(1.0)
    assert len(r.take(sender, 2)) == 2
    [wire] = world.open_wires()
    r.restart()
    wire.deliver(1)  # its end
    for _ in range(3):
        world.advance(5.0)
        [wire] = s.answer_dials()
        for end in (0, 1, 0):
            wire.deliver(end)
        assert r.session(sender).connected
        [answer] = [item for item in frames(wire.pipes[1].data) if item.kind == ATTACH]
        assert b"\xa5inbox\xc0" in answer.body
        wire.cut()
    world.run(60.0)
    deliveries = r.take(sender, 5)
    assert [delivery[2] for delivery in deliveries] == [b"one", b"two"]
    assert all(delivery[4] is not None and delivery[4].redelivered for delivery in deliveries)


def test_counterexample_07_a_mark_lasts_over_a_cut_and_a_normal_resume() -> None:
    """[P-MARK-3: a mark goes with the message to every later connection]"""
    node, old, new = Node(), Peer("a", life=1), Peer("a", life=2)
    node.send("a", b"one", b"two", b"three")
    line = node.connect(old)
    line.lose()
    line = node.connect(new)
    assert [item.flags & REDELIVERED for item in line.heard() if item.kind == DATA] == [REDELIVERED] * 3
    line.lose()
    outbox = node.session("a").outbox
    holds = {"outbox": outbox.outbox_id, "run": outbox.run, "received": 1, "read": 1, "first": 1}
    line = node.connect(new, inbox=holds)
    assert [(item.u64(), item.flags & REDELIVERED) for item in line.heard() if item.kind == DATA] == [
        (2, REDELIVERED),
        (3, REDELIVERED),
    ]
    node.send("a", b"four")
    assert [item.flags & REDELIVERED for item in line.heard() if item.kind == DATA] == [0]


def test_counterexample_08_a_parked_connection_is_not_taken_after_another_of_its_process() -> None:
    """[P-ARB-13: taking closes every parked one]"""
    node, old, new = Node(), Peer("a", life=1), Peer("a", life=2)
    node.connect(old)
    first, second = node.claim(new), node.claim(new)
    first.say(new.attach())
    second.say(new.attach())
    node.advance(2.0)
    assert second.live
    assert first.farewell() is CloseCode.COLLISION
    second.say(data(1, b"once"))
    second.lose()
    first.say(data(1, b"once"))
    assert not node.session("a").connected
    assert node.read("a") == [b"once"]


def test_counterexample_09_seen_speaks_of_the_process_that_it_is_told_to() -> None:
    """The ``seen`` of an arbiter's dead process would pass for a new generation [P-ATT-9, P-ARB-14]."""
    node, old, new = Node(), Peer("z", life=1), Peer("z", life=2)
    old.generation = 6
    node.connect(old).lose()

    def seen(peer: Peer) -> int:
        line = node.claim(peer, "dialer")
        attach = line.heard()[-1]
        line.lose()
        return attach.body.split(b"\xa4seen")[1][0]

    assert (seen(old), seen(new)) == (7, 0)
    line = node.connect(new)
    [attach] = [item for item in line.heard() if item.kind == ATTACH]
    assert attach.body.split(b"\xa4seen")[1][0] == 0
    line.lose()
    assert (seen(old), seen(new)) == (7, 1)


def test_counterexample_10_duplicates_do_not_eat_credit() -> None:
    """[P-CRED-5: what a dropped duplicate cost comes back at once]"""
    node, peer = Node(), Peer("a")
    line = node.connect(peer)
    line.say(data(1, bytes(60_000)))
    node.read(peer)
    credit, used = WINDOW, 60_064
    for _ in range(50):
        told = [item.u64(2) for item in line.heard() if item.kind == ACK]
        credit = max([credit, *told])
        assert used < credit
        line.say(data(1, bytes(60_000)))
        used += 60_064
        node.advance(0.03)
    assert line.live


def test_counterexample_11_a_follower_does_not_close_its_claimed_dial_for_another_connection() -> None:
    """An arbiter and a follower that each kill what the other chose would do so for ever [P-ARB-17]."""
    node, peer = Node(), Peer("z")
    dial = node.claim(peer, "dialer")
    accepted = node.connect(peer)
    assert dial.closed is None
    dial.say(peer.attach())
    assert dial.live
    assert taken_over(accepted)


def test_counterexample_11_the_arbiter_closes_its_own_dials_when_it_takes_one() -> None:
    """[P-ARB-13]"""
    node, peer = Node(), Peer("a")
    dial = node.claim(peer, "dialer")
    accepted = node.connect(peer)
    assert dial.farewell() is CloseCode.COLLISION
    assert accepted.live
    node.advance(30.0)
    assert node.dials == []


def test_counterexample_12_who_returns_after_a_twin_is_not_heard_twice() -> None:
    """Two processes of one name: the twin is taken while the real one is cut [P-RES-6: left inboxes are kept]."""
    node, real, twin = Node(), Peer("a", life=1), Peer("a", life=2)
    line = node.connect(real)
    line.say(data(1, b"one"), data(2, b"two"))
    assert node.read("a") == [b"one", b"two"]
    line.lose()
    line = node.connect(twin)
    line.say(data(1, b"of the twin"))
    line.lose()
    line = node.connect(real, next=4)
    line.say(data(1, b"one"), data(2, b"two"), data(3, b"three"))
    assert node.read("a") == [b"of the twin", b"three"]


def test_counterexample_13_unread_bytes_of_the_old_connection_are_not_delivered_twice() -> None:
    """A client reconnects while the last bytes of its old connection lie unread at the server [there is no session id:
    each resume exchanges what both hold, and a connection that is not live changes nothing]."""
    world = World()
    client, server = world.host("a"), world.host("b")
    client.dial("b")
    world.run(1.0)
    [old] = world.open_wires()
    client.send("b", b"one", b"two", b"three")
    while not server.session("a").unread:
        old.deliver(0, 1)
    old.deliver(0, 3)  # all of one, a piece of two
    unread, lost = bytes(old.pipes[0].data), old.ends[1]
    assert lost is not None
    old.ends[0].connection_lost(world.now, ConnectionResetError("cut"))  # type: ignore[union-attr]
    client.pump()
    while not client.dials:
        world.advance(0.1)
    [new] = client.answer_dials()
    finish(new)
    assert server.session("a").connections == 2
    lost.receive_data(unread, world.now)
    server.pump()
    world.run(1.0)
    assert server.read("a") == [b"one", b"two", b"three"]
    assert server.session("a").connections == 2
