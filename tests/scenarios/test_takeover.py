"""Several connections of one session, several processes of one name: who stays, who goes, how soon and how often."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf

import pytest

from networkio_proto import (
    CloseCode,
    Config,
    DuplicateIdentity,
    Overloaded,
    PeerDisconnected,
    PeerRestarted,
    TargetState,
)
from networkio_testing import Host, Judge, Wire, World
from tests.proto.helpers import frames
from tests.proto.helpers_session import noticed, until_live
from tests.proto.helpers_wire import ATTACH, CLOSE, Node, Peer, data, pong
from tests.scenarios.helpers import Scene, flags

exhaustive = pytest.mark.skipif("NETWORKIO_EXHAUST" not in os.environ, reason="make exhaust does it")


def both_dial() -> tuple[Scene, Wire, Wire]:
    """The two have dialled each other; the wires of "a" and of "b", on which HELLO is under way."""
    scene = Scene(connected=False)
    for host, other in ((scene.a, "b"), (scene.b, "a")):
        host.send(other, b"1 of " + host.name.encode(), b"2 of " + host.name.encode())
        host.dial(other)
    [from_a], [from_b] = scene.a.answer_dials(), scene.b.answer_dials()
    return scene, from_a, from_b


def one_wire(scene: Scene) -> None:
    """In the end there is one connection, both mean it, and everything was said once."""
    scene.rest()
    [wire] = scene.world.open_wires()
    assert [end and end.live for end in wire.ends] == [True, True]
    assert scene.got("b") == [b"1 of a", b"2 of a"]
    assert scene.got("a") == [b"1 of b", b"2 of b"]
    made = scene.world.connections_made
    scene.world.run(120.0)
    assert scene.world.connections_made == made


# -- half-open connections --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["a", "b"])
def test_who_lost_a_connection_that_the_other_still_believes_in_is_taken_at_once(gone: str) -> None:
    """The same process: no probe, no delay but the network's."""
    scene = Scene()
    host, other = (scene.a, scene.b) if gone == "a" else (scene.b, scene.a)
    old, end = scene.wire, 0 if gone == "a" else 1
    if gone == "b":
        scene.b.dial("a")
    other.send(gone, b"on the old connection")
    old.cut_half(end)
    scene.world.run(2.0)
    wire = scene.wire
    assert wire is not old
    assert host.session(other.name).connected
    assert host.session(other.name).unread == 1
    assert other.session(gone).since < 1000.0 + 1.0 + 2.0
    assert not noticed(other, PeerRestarted)
    scene.rest()
    assert scene.got(gone) == [b"on the old connection"]
    assert not any(flags(scene.heard[gone]))


def test_a_new_process_on_a_machine_that_vanished_without_a_word_is_taken_within_two_seconds() -> None:
    scene = Scene()
    scene.b.send("a", b"unread when it vanished")
    scene.world.run(1.0)
    old = scene.b.session("a").connection
    scene.a.crash(reset=False)
    scene.a.restart()
    scene.a.dial("b")
    began = scene.world.now
    while scene.world.live("a", "b") is None:
        scene.world.step(began + 3.0)
    assert scene.world.now - began <= 2.0 + 1e-6
    assert scene.b.session("a").connection is not old
    assert len(noticed(scene.b, PeerRestarted)) == 1
    scene.rest()
    assert scene.got("a") == [b"unread when it vanished"]
    assert flags(scene.heard["a"]) == [True]
    assert scene.judge.tally["lost: SUPERSEDED"] == 1


def test_of_two_living_processes_with_one_name_the_first_stays_and_the_second_comes_ever_less_often() -> None:
    world = World()
    Judge(world)
    real, b, twin = world.host("a"), world.host("b"), world.host("twin", peer_id="a")
    real.dial("b")
    world.run(1.0)
    real.send("b", b"of the real one")
    target = twin.dial("b")
    twin.send("b", b"of the twin")
    for minute in range(60):
        made = world.connections_made
        world.run(60.0)
        assert world.connections_made - made <= (12 if minute == 0 else 3), minute
    wire = world.live("a", "b")
    assert wire is not None
    assert wire.number == 1
    assert b.read("a") == [b"of the real one"]
    assert isinstance(target.error, DuplicateIdentity)
    assert target.state is TargetState.WAITING
    assert [type(notice.error) for notice in noticed(twin, PeerDisconnected)] == [DuplicateIdentity]
    assert not noticed(real, PeerDisconnected)
    assert not noticed(b, PeerDisconnected)
    real.crash()
    world.run(600.0)
    assert b.read("a") == [b"of the twin"]
    assert len(noticed(b, PeerRestarted)) == 1


# -- simultaneous dials -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loser_first", [False, True])
def test_the_loser_of_a_collision_may_carry_a_whole_attach_when_it_is_closed(loser_first: bool) -> None:
    scene, from_a, from_b = both_dial()
    for wire in (from_a, from_b):
        wire.deliver(0)
        wire.deliver(1)
    # both ATTACHes are under way; whichever the arbiter has first decides
    assert [frames(wire.pipes[0].data)[-1].kind for wire in (from_a, from_b)] == [ATTACH, ATTACH]
    for wire in (from_b, from_a) if loser_first else (from_a, from_b):
        wire.deliver(0)
        wire.deliver(1)
    one_wire(scene)
    assert scene.judge.tally["live"] >= 2


@pytest.mark.parametrize("moment", ["before its answer", "when its answer is out", "when its answer has arrived"])
def test_an_arbiter_that_dies_around_its_choice_leaves_nothing_behind_that_its_successor_stumbles_over(
    moment: str,
) -> None:
    scene, from_a, from_b = both_dial()
    for wire in (from_a, from_b):
        wire.deliver(0)
        wire.deliver(1)
    if moment == "before its answer":
        scene.b.crash_after(1)
    from_a.deliver(0)
    if moment == "when its answer has arrived":
        from_a.deliver(1)
    scene.b.crash()
    scene.world.run(1.0)
    assert not scene.a.session("b").connected
    scene.b.restart()
    scene.b.dial("a")
    scene.b.send("a", b"1 of b", b"2 of b")
    scene.read()
    scene.heard["a"].clear()
    scene.rest(120.0)
    [wire] = scene.world.open_wires()
    assert [end and end.live for end in wire.ends] == [True, True]
    assert scene.got("b") == [b"1 of a", b"2 of a"]
    assert scene.got("a") == [b"1 of b", b"2 of b"]


@pytest.mark.parametrize("deaf", ["a", "b"])
def test_where_only_one_side_can_be_reached_one_direction_of_dialling_is_enough(deaf: str) -> None:
    """The other's dials fail for ever, which disturbs nothing."""
    scene = Scene(connected=False)
    scene.world.hosts[deaf].listening = False
    for host, other in ((scene.a, "b"), (scene.b, "a")):
        host.dial(other)
        host.send(other, b"of " + host.name.encode())
    scene.rest()
    assert (scene.got("b"), scene.got("a")) == ([b"of a"], [b"of b"])
    assert scene.wire.hosts[0].name == deaf
    made = scene.world.connections_made
    scene.world.run(600.0)
    assert scene.world.connections_made == made
    scene.wire.cut()
    scene.world.run(60.0)
    assert scene.wire.hosts[0].name == deaf


@pytest.mark.parametrize("peer_id", ["a", "z"])
def test_a_loser_whose_bytes_come_late_is_deaf(peer_id: str) -> None:
    node, old, new = Node(), Peer(peer_id, life=1), Peer(peer_id, life=2)
    incumbent, newcomer = node.connect(old), node.claim(new)
    newcomer.say(new.attach(), data(1, b"of another"))
    [question] = [item.u64() for item in incumbent.heard() if item.kind == 0x20]
    incumbent.say(pong(question))
    assert newcomer.farewell() is CloseCode.DUPLICATE_IDENTITY
    newcomer.say(data(1, b"of another"), data(2, b"more"))
    assert node.session(peer_id).unread == 0
    assert incumbent.live
    assert CLOSE not in incumbent.kinds()


# -- storms -----------------------------------------------------------------------------------------------------------


def test_a_connection_that_lives_a_second_and_moves_nothing_is_dialled_less_and_less() -> None:
    scene = Scene()
    gaps = []
    for _ in range(60):
        scene.world.run(1.0)
        wire = scene.world.live("a", "b")
        assert wire is not None
        wire.cut()
        cut = scene.world.now
        until_live(scene.world)
        gaps.append(scene.world.now - cut)
    assert max(gaps[:3]) < 1.0
    assert max(gaps) <= 30.0 + 0.1
    assert 5.0 < sum(gaps[-30:]) / 30 < 25.0  # uniform up to 30 s
    scene.a.send("b", b"moved")
    scene.rest()
    scene.wire.cut()
    cut = scene.world.now
    until_live(scene.world)
    assert scene.world.now - cut <= 0.05 + 1e-3


class Crowd(World):
    """Many clients of one server over a network with latency: what is due next happens, and nobody else is looked at.

    What a wire carries is under way for 20 to 70 ms; the server has as many handshakes before it as come in that time.
    """

    def __init__(self, clients: int, config: Config) -> None:
        super().__init__(11)
        self.server = self.host("server", config)
        self.clients = [self.host(f"c{number}") for number in range(clients)]
        #: the most handshakes that were under way at a time
        self.most_pending = 0
        #: how often each client was told to come back later
        self.told: Counter[str] = Counter()
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._asked = 0
        #: when each host is looked at next
        self._due: dict[int, float] = {}

    def at(self, when: float, action: Callable[[], object]) -> None:
        """It happens then."""
        self._asked += 1
        heapq.heappush(self._queue, (when, self._asked, action))

    def look(self, host: Host) -> None:
        """Serve a host: its timers, its dials."""
        due = host.timer
        if due <= self.now:
            host.tick()
        for wire in host.answer_dials():
            self.most_pending = max(self.most_pending, self.server.endpoint.handshakes)
            self.carry(wire)
        due = host.timer
        if due < self._due.get(host.number, inf):
            self._due[host.number] = due
            self.at(due, partial(self._wake, host))

    def _wake(self, host: Host) -> None:
        """Something of it may be due."""
        del self._due[host.number]
        self.look(host)

    def carry(self, wire: Wire) -> None:
        """What is on the wire will arrive."""
        for end in (0, 1):
            if wire.waiting(end):
                self.at(self.now + 0.02 + wire.hosts[0].number % 50 / 1000, partial(self.arrive, wire, end))

    def arrive(self, wire: Wire, end: int) -> None:
        """It has."""
        client, connection = wire.hosts[0], wire.ends[0]
        wire.deliver(end)
        if end == 1 and connection is not None and isinstance(connection.error, Overloaded):
            self.told[client.name] += wire.ends[0] is None
        self.carry(wire)
        self.look(client)
        self.look(self.server)

    def play(self, until: float) -> None:
        """Everything that is due by then."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = until

    def connected(self) -> int:
        """How many clients are."""
        return sum(client.session("server").connected for client in self.clients)


#: 5,000 clients take half a minute; a tenth of everything comes to the same in a few seconds
CROWDS = [pytest.param(500, 102, id="500"), pytest.param(5000, 1024, id="5000", marks=exhaustive)]


@pytest.mark.slow
@pytest.mark.parametrize(("clients", "most"), CROWDS)
def test_all_clients_of_a_restarted_server_are_back_soon_though_few_may_shake_hands_at_a_time(
    clients: int, most: int
) -> None:
    """They all come within 50 ms.  Some are told OVERLOAD, wait longer and longer, and nobody is told so for ever."""
    crowd = Crowd(clients, Config(max_pending=most))
    for number, client in enumerate(crowd.clients):
        crowd.at(crowd.now + number / clients, partial(client.dial, "server"))
        crowd.at(crowd.now + number / clients, partial(crowd.look, client))
    crowd.play(crowd.now + 10.0)
    assert crowd.connected() == clients
    crowd.told.clear()
    crowd.most_pending = 0
    made = crowd.connections_made
    crowd.server.crash()
    crowd.server.restart()
    died = crowd.now
    for wire in crowd.open_wires():
        wire.deliver(1)
        crowd.look(wire.hosts[0])
    assert crowd.connected() == 0
    crowd.play(died + 30.0)
    sessions = [client.session("server") for client in crowd.clients]
    assert crowd.connected() == len(list(crowd.server.endpoint.live())) == clients
    assert {session.connections for session in sessions} == {2}
    assert crowd.server.endpoint.handshakes == 0
    assert most // 2 < crowd.most_pending <= most + 1  # the one too many is turned away at once
    back = sorted(session.since - died for session in sessions)
    assert crowd.told
    assert max(crowd.told.values()) <= 10
    assert back[clients // 2] < 2.0
    assert back[-1] < 15.0
    assert crowd.connections_made - made < 5 * clients
