"""Clocks that leap, processes that stand still, deadlines that meet."""

from __future__ import annotations

import pytest

from networkio_proto import Config, Endpoint, Outcome, PeerDisconnected, SessionEnded
from networkio_testing import Host, Judge, World
from tests.proto.helpers import frames
from tests.proto.helpers_session import noticed, until_live
from tests.proto.helpers_wire import PING
from tests.scenarios.helpers import Scene, outcomes


def star(count: int, config: Config | None = None) -> tuple[World, Host, list[Host]]:
    """A judged server and its connected clients."""
    world = World(5)
    Judge(world)
    server = world.host("server", config)
    clients = [world.host(f"c{number}") for number in range(count)]
    for client in clients:
        client.dial("server")
    world.run(1.0)
    return world, server, clients


def asked(world: World, end: int) -> int:
    """How many connections carry a PING that was just said by that end."""
    return sum(PING in [item.kind for item in frames(wire.pipes[end].data)] for wire in world.open_wires())


@pytest.mark.parametrize("seconds", [600.0, 3600.0, 24 * 3600.0])
def test_a_machine_that_was_suspended_asks_everybody_at_once_and_gives_nobody_up(seconds: float) -> None:
    """Its clock went on meanwhile, as where a suspension is counted; all the others stood still too."""
    world, server, clients = star(20)
    server.send("c3", b"before it")
    world.jump(seconds)
    assert len(list(server.endpoint.live())) == 20
    assert asked(world, 1) == 20
    world.run(5.0)
    assert world.connections_made == 20
    assert not any(noticed(host, PeerDisconnected) for host in (server, *clients))
    assert clients[3].read("server") == [b"before it"]
    world.run(300.0)
    assert world.connections_made == 20


def test_who_does_not_answer_after_a_suspension_is_given_up_soon_and_the_others_stay() -> None:
    world, server, clients = star(10)
    gone = world.live("c0", "server")
    assert gone is not None
    gone.black_hole()
    world.jump(600.0)
    assert len(list(server.endpoint.live())) == 10
    world.run(10.0)
    assert noticed(server, PeerDisconnected)
    assert gone.ends == [None, None]
    assert world.connections_made == 11
    world.run(60.0)
    assert [client.session("server").connections for client in clients] == [2] + [1] * 9


def test_a_clock_that_stood_still_while_its_machine_did_finds_its_connections_ended_and_comes_back() -> None:
    """For this process no time has passed; its peers gave it up after their 45 s and it goes on where it stood."""
    world, server, clients = star(5)
    paused = clients[0]
    paused.send("server", b"1")
    world.run(0.1)
    server.send("c0", b"while it stands still")
    paused.pause()
    world.run(600.0)
    assert len(list(server.endpoint.live())) == 4
    assert [type(notice.peer) for notice in noticed(server, PeerDisconnected)] == [str]
    paused.resume()
    world.run(60.0)
    assert len(list(server.endpoint.live())) == 5
    assert server.read("c0") == [b"1"]
    assert paused.read("server") == [b"while it stands still"]
    assert world.connections_made == 6


def test_a_process_that_was_blocked_reads_what_waits_in_the_kernel_before_it_judges_its_peer() -> None:
    """A minute in a handler; the peer is more patient, and went on talking."""
    scene = Scene(Config(dead_after=45.0, ping_after=20.0), b=Config(dead_after=200.0))
    scene.a.pause()
    for second in range(60):
        scene.b.send("a", b"%d" % second)
        scene.world.run(1.0)
    assert scene.a.session("b").unread == 0
    scene.a.resume()
    assert scene.a.session("b").connected
    scene.world.run(1.0)
    assert scene.a.session("b").unread == 60
    scene.rest()
    assert scene.world.connections_made == 1
    assert scene.got("a") == [b"%d" % second for second in range(60)]


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_step_of_the_wall_clock_reaches_no_deadline(step: float) -> None:
    """The core is told one time only, and that of a driver is monotonic; a time that goes back fires nothing either."""
    scene = Scene()
    scene.a.send("b", b"x", ttl=50.0)
    scene.wire.cut()
    scene.b.listening = False
    due = scene.a.endpoint.get_timer()
    assert due is not None
    before = scene.a.session("b").statistics(scene.world.now).connections
    scene.a.endpoint.handle_timer(min(scene.world.now, scene.world.now + step))
    assert scene.a.endpoint.get_timer() == due
    assert scene.a.session("b").outcome(1) is None
    assert scene.a.session("b").statistics(scene.world.now).connections == before


def test_a_timer_of_the_past_is_served_once_the_present_one_too_and_a_far_one_not() -> None:
    endpoint = Endpoint("a")
    for peer, ttl in (("past", 1.0), ("present", 2.0), ("far", 1e9)):
        endpoint.session(peer, 0.0).send(b"x", 0.0, ttl=ttl)
    assert endpoint.get_timer() == 1.0
    endpoint.handle_timer(2.0)
    ended = {peer: session.outcome(1) for peer, session in endpoint.sessions.items()}
    assert ended == {"past": Outcome.EXPIRED, "present": Outcome.EXPIRED, "far": None}
    assert endpoint.get_timer() == 1e9
    endpoint.handle_timer(2.0)
    assert endpoint.get_timer() == 1e9


@pytest.mark.slow
def test_ten_thousand_timers_of_one_instant_are_each_served_once_and_a_few_in_each_call() -> None:
    """So whoever drives the endpoint can see to its streams in between."""
    endpoint = Endpoint("a")
    told: list[str] = []
    for number in range(10_000):
        session = endpoint.session(f"p{number}", 0.0)
        session.outbox.on_outcome = lambda sequence, outcome, peer=session.peer_id: told.append(peer)
        session.send(b"x", 0.0, ttl=7.0)
    assert len(endpoint.timers) == 10_000
    endpoint.handle_timer(6.999)
    assert not told
    calls, before = 0, 0
    while (due := endpoint.get_timer()) is not None:
        assert due == 7.0
        endpoint.handle_timer(7.0)
        assert 0 < len(told) - before <= 100
        calls, before = calls + 1, len(told)
    assert told == [f"p{number}" for number in range(10_000)]  # in the order in which they were asked for
    assert calls >= 100
    assert not any(session.unacknowledged for session in endpoint.sessions.values())


# -- the end of a session that nobody came back to --------------------------------------------------------------------

#: "b", which only accepts, gives a session up after ten minutes
EXPIRY = 600.0


def parted() -> Scene:
    """Messages of all kinds both ways, then the link is down."""
    scene = Scene(b=Config(session_expiry=EXPIRY))
    scene.a.send("b", b"a1", b"a2", b"a3")
    scene.b.send("a", b"b1", b"b2")
    scene.world.run(1.0)
    assert scene.b.read("a", 1) == [b"a1"]
    scene.world.run(1.0)
    scene.wire.cut()
    scene.b.listening = False
    return scene


@pytest.mark.parametrize("late", [-0.001, 0.0, 0.001])
def test_a_session_that_is_taken_up_at_the_very_moment_of_its_expiry_is_either_resumed_or_begun_anew(
    late: float,
) -> None:
    """Never half of each: both sides have the same story of it."""
    scene = parted()
    down = scene.b.session("a").since
    scene.world.advance(down + EXPIRY - scene.world.now - 1.0)
    scene.a.dials.clear()
    for target in list(scene.a.session("b").targets):
        scene.a.endpoint.remove_target(target)
    scene.a.dial("b")
    scene.b.listening = True
    [wire] = scene.a.answer_dials()
    for end in (0, 1):
        wire.deliver(end)
    assert wire.pipes[0].data  # ATTACH
    scene.world.now = down + EXPIRY + late
    if late >= 0:
        scene.b.tick()
        scene.a.tick()
    wire.deliver(0)
    wire.deliver(1)
    resumed = late < 0
    assert bool(noticed(scene.b, SessionEnded)) is not resumed
    scene.rest(120.0)
    a, b = scene.a.session("b"), scene.b.session("a")
    if resumed:
        assert scene.got("b") == [b"a2", b"a3"]
        assert outcomes(a, (1, 2, 3)) == [Outcome.READ] * 3
        assert outcomes(b, (1, 2)) == [Outcome.READ] * 2
    else:
        assert scene.got("b") == [b"a2", b"a3"]  # what had arrived stays for its reader
        assert outcomes(a, (1, 2, 3)) == [Outcome.READ, Outcome.EXPIRED, Outcome.EXPIRED]
        assert outcomes(b, (1, 2)) == [Outcome.EXPIRED] * 2
    scene.a.send("b", b"a4")
    scene.b.send("a", b"b3")
    scene.rest()
    assert scene.got("b")[-1] == b"a4"
    assert scene.got("a")[-1] == b"b3"
    assert scene.judge.tally["redelivered"] == 0


def test_who_comes_back_after_an_expiry_has_its_messages_settled_by_the_positions_that_were_kept() -> None:
    scene = parted()
    scene.a.send("b", b"a4")  # the peer never saw it
    outbox_id = scene.a.session("b").outbox.outbox_id
    scene.world.run(EXPIRY + 3600.0)
    assert len(noticed(scene.b, SessionEnded)) == 1
    assert len(noticed(scene.a, SessionEnded)) == 1  # the lesser of both times counts here too
    a, b = scene.a.session("b"), scene.b.session("a")
    assert a.outcome(1) is Outcome.READ
    assert outcomes(a, (2, 3, 4)) == [Outcome.EXPIRED] * 3
    failures = [(failure.first, failure.last, failure.seen) for failure in a.failures()]
    assert failures == [(2, 3, "unknown"), (4, 4, "no")]
    assert a.outbox.outbox_id != outbox_id
    scene.b.listening = True
    scene.rest(120.0)
    assert scene.got("b") == [b"a2", b"a3"]
    scene.a.send("b", b"anew")
    scene.b.send("a", b"anew")
    scene.rest()
    assert scene.got("b") == [b"a2", b"a3", b"anew"]
    assert scene.got("a") == [b"b1", b"b2", b"anew"]
    assert outcomes(b, (1, 2, 3)) == [Outcome.EXPIRED] * 2 + [Outcome.READ]


def test_an_expiry_on_one_side_only_tells_the_other_how_each_of_its_messages_ended() -> None:
    """"a" does not know that "b" gives sessions up so soon: it was a process that "a" never heard that of."""
    scene = Scene(b=Config(session_expiry=EXPIRY))
    scene.a.send("b", b"a1", b"a2", b"a3")
    scene.world.run(1.0)
    assert scene.b.read("a", 1) == [b"a1"]
    scene.world.run(1.0)
    scene.a.session("b").peer_expiry = None
    scene.wire.cut()
    scene.b.listening = False
    scene.a.send("b", b"a4")
    scene.world.run(EXPIRY + 60.0)
    assert len(noticed(scene.b, SessionEnded)) == 1
    assert outcomes(scene.a.session("b"), (1, 2, 3, 4)) == [Outcome.READ, None, None, None]
    scene.b.listening = True
    until_live(scene.world)
    scene.world.run(1.0)
    assert outcomes(scene.a.session("b"), (1, 2, 3, 4)) == [Outcome.READ, Outcome.EXPIRED, Outcome.EXPIRED, None]
    scene.rest()
    assert scene.got() == [b"a2", b"a3", b"a4"]
    assert outcomes(scene.a.session("b"), [4]) == [Outcome.READ]
    assert scene.judge.tally["redelivered"] == 0
