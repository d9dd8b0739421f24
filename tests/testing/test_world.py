"""The simulated world: what its wires carry, how they break, what a crash and a pause mean, and how time passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf

import pytest

from networkio_proto import (
    Close,
    Config,
    ConnectionLost,
    ConnectionState,
    Delivery,
    DialFailed,
    Effect,
    Event,
    Outcome,
    PeerConnected,
    TargetState,
    Transmit,
    Watch,
)
from networkio_proto.journal import JournalBatch
from networkio_testing.disk import Disk
from networkio_testing.world import Host, Watcher, Wire, World


def connected(seed: int = 0) -> tuple[World, Host, Host, Wire]:
    """Two hosts with a live wire between them, nothing under way, and nothing to say but what is sent."""
    world = World(seed)
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    a.send("b", b"first")
    b.send("a", b"first")
    world.run(1.0)
    assert (a.read("b"), b.read("a")) == ([b"first"], [b"first"])
    world.run(1.0)
    wire = world.live("a", "b")
    assert wire is not None
    return world, a, b, wire


class Log(Watcher):
    """Writes everything down."""

    def __init__(self, world: World) -> None:
        self.lines: list[tuple[object, ...]] = []
        world.watchers.append(self)

    @property
    def kinds(self) -> Counter[object]:
        return Counter(line[0] for line in self.lines)

    def booted(self, host: Host) -> None:
        self.lines.append(("booted", host.name))

    def crashed(self, host: Host) -> None:
        self.lines.append(("crashed", host.name))

    def accepted(self, host: Host, peer: str, sequence: int, payload: bytes, options: Mapping[str, object]) -> None:
        self.lines.append(("accepted", host.name, peer, sequence, payload, *options.values()))

    def cancelled(self, host: Host, peer: str, sequence: int, certain: bool) -> None:
        self.lines.append(("cancelled", host.name, peer, sequence, certain))

    def ended(self, host: Host, peer: str) -> None:
        self.lines.append(("ended", host.name, peer))

    def handed_over(self, host: Host, peer: str, deliveries: Sequence[Delivery]) -> None:
        self.lines.append(("handed over", host.name, peer, *(delivery[2] for delivery in deliveries)))

    def settled(self, host: Host, peer: str, delivery: Delivery, reject: tuple[int, str] | None) -> None:
        self.lines.append(("settled", host.name, peer, delivery[1], reject))

    def released(self, host: Host, peer: str, delivery: Delivery) -> None:
        self.lines.append(("released", host.name, peer, delivery[1]))

    def effect(self, host: Host, effect: Effect) -> None:
        self.lines.append(("effect", host.name, type(effect).__name__))

    def noticed(self, host: Host, notice: Event) -> None:
        self.lines.append(("noticed", host.name, repr(notice)))

    def pumped(self, host: Host) -> None:
        self.lines.append(("pumped", host.name))

    def ticking(self, host: Host) -> None:
        self.lines.append(("ticking", host.name))

    def ticked(self, host: Host) -> None:
        self.lines.append(("ticked", host.name))

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        self.lines.append(("wrote", wire.number, end, b"".join(buffers)))

    def journaling(self, host: Host, batch: JournalBatch) -> None:
        self.lines.append(("journaling", host.name, batch.token))

    def journaled(self, host: Host, batch: JournalBatch, error: OSError | None) -> None:
        self.lines.append(("journaled", host.name, batch.token, error))

    def arriving(self, wire: Wire, end: int) -> None:
        self.lines.append(("arriving", wire.number, end))

    def arrived(self, wire: Wire, end: int) -> None:
        self.lines.append(("arrived", wire.number, end))


def eventful(seed: int, *watchers: Watcher) -> tuple[World, list[tuple[object, ...]]]:
    """A short life with everything in it."""
    world = World(seed)
    world.watchers += watchers
    log = Log(world)
    a, b = world.host("a", disk=Disk()), world.host("b")
    a.dial("b")
    a.send("b", b"1", b"2", b"3", b"4", headers={"key": 1}, ack_now=True, ttl=60.0)
    a.cancel("b", 4)
    world.run(1.0)
    b.read("a", 1)
    second, third = b.take("a", 2)
    b.release("a", second)
    b.settle("a", third, reject=(7, "no"))
    b.crash()
    b.restart()
    world.run(30.0)
    b.read("a")
    a.end("b")
    b.end("a")
    world.run(30.0)
    return world, log.lines


# -- the whole --------------------------------------------------------------------------------------------------------


def test_a_message_arrives_when_everything_goes_right() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    a.send("b", b"hello")
    world.run()
    assert b.read("a") == [b"hello"]
    world.run()
    assert a.session("b").outcome(1) is Outcome.READ


def test_the_same_seed_repeats_bit_for_bit_and_another_does_not() -> None:
    assert eventful(1)[1] == eventful(1)[1]
    assert eventful(1)[1] != eventful(2)[1]


def test_a_watcher_is_told_everything_that_happens() -> None:
    world, lines = eventful(0)
    kinds = Counter(line[0] for line in lines)
    told = {name for name in vars(Watcher) if not name.startswith("_")}
    assert {str(kind).replace(" ", "_") for kind in kinds} == told
    assert ("accepted", "a", "b", 2, b"2", True, 60.0, {"key": 1}, True) in lines
    assert ("cancelled", "a", "b", 4, True) in lines
    assert ("released", "b", "a", 2) in lines
    assert ("settled", "b", "a", 1, None) in lines
    assert ("settled", "b", "a", 3, (7, "no")) in lines
    assert kinds["booted"] == 3
    assert kinds["arriving"] == kinds["arrived"]
    assert all(host.endpoint.notices_waiting == 0 for host in world.hosts.values())


def test_a_watcher_that_does_nothing_changes_nothing() -> None:
    assert eventful(0, Watcher())[1] == eventful(0)[1]


# -- wires ------------------------------------------------------------------------------------------------------------


def test_bytes_wait_until_they_are_delivered_and_arrive_in_any_portions() -> None:
    _world, a, b, wire = connected()
    a.send("b", b"x" * 100)
    assert wire.waiting(0) == 114
    assert wire.deliver(0, 50) == 50
    assert b.session("a").unread == 0
    assert wire.deliver(0, chunk=1) == 64
    assert b.session("a").unread == 1
    assert wire.deliver(0) == 0
    assert wire.pipes[0].delivered > 114


def test_a_throttled_pipe_blocks_its_writer_until_it_is_open_again() -> None:
    world, a, b, wire = connected()
    wire.throttle(0, 0)
    a.send("b", b"1")
    world.run(5.0)
    assert (wire.waiting(0), b.session("a").unread) == (0, 0)
    wire.throttle(0)
    world.run(1.0)
    assert b.read("a") == [b"1"]
    wire.throttle(0, 100)
    a.send("b", b"x" * 1000, b"y" * 1000)
    assert wire.waiting(0) >= 100
    world.run(1.0)
    assert b.session("a").unread == 2


def test_a_narrow_world_makes_narrow_wires_and_small_writes() -> None:
    world = World()
    world.capacity, world.write_size = 1000, 500
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    world.run(1.0)
    a.send("b", *[b"x" * 400] * 20)
    wire = world.live("a", "b")
    assert wire is not None
    assert 1000 <= wire.waiting(0) < 2000
    world.run(1.0)
    assert len(b.read("a")) == 20
    wire.cut()
    wire.throttle(0)  # there is nobody to write any more
    assert wire.waiting(0) == 1


def test_what_is_replayed_arrives_twice_and_the_wire_says_so() -> None:
    world, a, b, wire = connected()
    log = Log(world)
    a.send("b", b"1")
    frame = next(line[3] for line in log.lines if line[0] == "wrote")
    assert isinstance(frame, bytes)
    wire.replay(0, frame)
    assert wire.waiting(0) == 2 * len(frame)
    assert wire.tampered
    world.run(1.0)
    assert b.read("a") == [b"1"]


@pytest.mark.parametrize(("how", "arrives"), [("rst", False), ("fin", True)])
def test_a_cut_is_learned_by_both_sides_and_only_a_fin_lets_bytes_arrive_first(how: str, arrives: bool) -> None:
    world, a, b, wire = connected()
    a.send("b", b"1")
    wire.cut(how)
    assert b.session("a").unread == arrives
    assert not a.session("b").connected
    assert not b.session("a").connected
    assert isinstance(a.session("b").error, ConnectionLost)
    assert not wire.open
    world.run(1.0)
    assert b.read("a") == [b"1"]


def test_half_a_cut_is_learned_by_one_side_and_the_other_hears_nothing_more() -> None:
    world, a, b, wire = connected()
    a.send("b", b"1")
    wire.cut_half(0)
    world.advance(1.0)
    assert not a.session("b").connected
    assert b.session("a").connected
    assert wire.deliver(0) == 0
    world.run(60.0)
    assert b.read("a") == [b"1"]  # on another wire
    assert not wire.open


def test_bytes_of_half_a_cut_may_come_late() -> None:
    world, a, b, wire = connected()
    a.send("b", b"1")
    a.session("b").targets[0].key = "nobody"  # so that there is no other wire
    wire.cut_half(0, late=3.0)
    world.run(2.0)
    assert b.session("a").unread == 0
    world.run(2.0)
    wire.deliver(0)
    assert b.read("a") == [b"1"]
    assert wire.pipes[1].black_hole


def test_a_black_hole_swallows_bytes_until_it_is_gone_and_nobody_is_told() -> None:
    world, a, b, wire = connected()
    wire.black_hole()
    a.send("b", b"1")
    world.run(1.0)
    assert b.session("a").unread == 0
    assert a.session("b").connected
    a.send("b", b"2")
    wire.pipes[0].data += b"left"
    assert wire.deliver(0) == 0
    assert not wire.pipes[0].data
    wire.black_hole(on=False)
    wire.cut()
    world.run(1.0)
    assert b.read("a") == [b"1", b"2"]


def test_wires_that_nobody_uses_are_forgotten() -> None:
    world, a, _b, wire = connected()
    assert world.open_wires() == [wire]
    assert repr(wire) == "<Wire 1 a->b>"
    a.disconnect("b")
    world.run(1.0)
    assert world.open_wires() == []
    assert world.connections_made == 1
    assert world.live("a", "b") is None


def test_bytes_for_an_end_that_is_gone_arrive_nowhere() -> None:
    world, a, b, wire = connected()
    a.send("b", b"1")
    b.disconnect("a")
    world.advance(1.0)
    assert wire.ends[1] is None
    assert wire.deliver(0) == 15
    world.run(1.0)
    assert b.session("a").unread == 0


def test_a_flushed_close_is_written_as_far_as_the_pipe_takes_it() -> None:
    world, a, _b, wire = connected()
    wire.throttle(0, 0)
    a.disconnect("b")
    assert not wire.pipes[0].fin
    wire.throttle(0)
    assert wire.pipes[0].fin
    world.run(0.5)
    assert not wire.open


@pytest.mark.parametrize("what", ["writes", "hears"])
def test_who_says_goodbye_and_is_not_heard_drops_the_wire_after_a_while(what: str) -> None:
    world, a, _b, wire = connected()
    if what == "writes":
        wire.throttle(0, 0)
    else:
        wire.black_hole()
    a.disconnect("b")
    world.run(0.9)
    assert wire.ends[0] is not None
    world.run(0.2)
    assert wire.ends[0] is None
    assert a.wires == {}


def test_a_dial_that_is_not_answered_is_given_up_and_tried_again() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    b.pause()
    target = a.dial("b")
    world.run(9.9)
    assert [dial.target for dial in a.dials] == [target]
    world.run(0.2)
    assert str(target.error) == "dialling failed: b: no answer in time"
    b.resume()
    world.run(1.0)
    assert a.session("b").connected


# -- hosts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", ["refused", "not listening", "down", "unknown"])
def test_a_dial_fails_where_nobody_listens(absent: str) -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    target = a.dial("nowhere" if absent == "unknown" else "b")
    b.listening = absent != "not listening"
    if absent == "down":
        b.crash()
    assert a.answer_dials(refuse=absent == "refused") == []
    assert isinstance(target.error, DialFailed)
    assert target.state is TargetState.WAITING


def test_a_host_may_dial_whoever_answers_and_claim_another_peer_id() -> None:
    world = World()
    twin, b = world.host("twin", peer_id="a"), world.host("b", Config(window=100_000))
    twin.dial("b", to=None)
    world.run(1.0)
    assert twin.session("b").connected
    assert b.session("a").connected
    assert b.config.window == 100_000
    assert repr(twin) == "<Host twin, life 1>"


def test_a_process_that_dies_of_one_answer_gets_no_other() -> None:
    world = World()
    host = world.host("a")
    for name in "bc":
        world.host(name)
        host.dial(name)
    host.crash_after(1)
    assert len(host.answer_dials()) == 1
    assert not host.up
    assert world.connections_made == 1


def test_after_a_crash_with_reset_the_peer_reads_what_was_written_and_then_the_end() -> None:
    world, a, b, _wire = connected()
    a.send("b", b"1")
    b.send("a", b"lost")
    a.crash()
    assert not a.up
    b.send("a", b"into the void")
    world.run(1.0)
    assert b.read("a") == [b"1"]
    assert not b.session("a").connected
    assert world.next_timer() < inf


def test_after_a_crash_without_reset_the_peer_hears_nothing_more() -> None:
    world, a, b, _wire = connected()
    a.send("b", b"1")
    a.crash(reset=False)
    a.crash()  # it is dead already
    world.run(1.0)
    assert b.read("a") == [b"1"]
    assert b.session("a").connected
    world.run(60.0)
    assert not b.session("a").connected


def test_a_restarted_host_is_another_process_that_has_forgotten_everything() -> None:
    world, a, b, _wire = connected()
    incarnation = a.endpoint.incarnation
    a.restart()
    assert a.lives == 2
    assert a.endpoint.incarnation != incarnation
    assert a.endpoint.sessions == {}
    assert a.notices == []
    a.dial("b")
    world.run(5.0)
    assert b.session("a").peer_incarnation == a.endpoint.incarnation


def test_a_closing_end_of_a_crashed_process_writes_nothing_more() -> None:
    world, a, b, wire = connected()
    wire.throttle(0, 0)
    a.disconnect("b")
    a.restart()
    wire.throttle(0)
    assert wire.ends[0] is None
    assert wire.waiting(0) == 1  # the FIN that the kernel sent
    world.run(1.0)
    assert isinstance(b.session("a").error, ConnectionLost)


def test_a_paused_host_does_nothing_and_catches_up_when_it_goes_on() -> None:
    world, a, b, wire = connected()
    b.pause()
    a.send("b", b"1")
    world.run(3.0)
    assert wire.deliver(0) == 0
    assert (wire.waiting(0), b.session("a").unread) == (15, 0)
    b.tick()
    wire.deliver(1)
    b.resume()
    world.run(1.0)
    assert b.read("a") == [b"1"]
    assert a.session("b").connected


def test_a_paused_host_learns_of_a_cut_and_writes_what_it_has_when_it_goes_on() -> None:
    world, a, b, wire = connected()
    b.pause()
    wire.cut()
    assert b.session("a").connected
    assert a.dials == []
    world.run(1.0)
    assert [target.state for target in a.endpoint.targets] == [TargetState.DIALLING]
    assert b.answer_dials() == []
    b.resume()
    assert not b.session("a").connected
    world.run(1.0)
    assert b.session("a").connected
    live = world.live("a", "b")
    assert live is not None
    live.throttle(0, 0)
    a.send("b", b"2")
    a.pause()
    live.throttle(0)
    assert live.waiting(0) == 0
    a.resume()
    assert live.waiting(0) >= 15


def test_a_crashed_host_neither_pauses_nor_goes_on() -> None:
    world, _a, b, _wire = connected()
    b.crash()
    b.pause()
    assert not b.paused
    b.resume()
    assert b.endpoint.get_timer() is not None
    world.jump(100.0)
    assert not b.up


def test_effects_for_a_closed_connection_and_wakes_for_somebody_are_nothing_to_the_driver() -> None:
    world, a, _b, wire = connected()
    connection = wire.ends[0]
    assert connection is not None
    a.disconnect("b")
    a.endpoint.effects += [Transmit(connection), Close(connection, flush=False)]
    a.session("b").watch = Watch.LINK
    a.dial("b")
    world.run(1.0)
    assert a.session("b").connected
    assert world.live("b", "nobody") is None


def test_notices_are_collected_and_pumps_can_be_watched() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    pumped: list[Host] = []
    a.on_pump = pumped.append
    a.dial("b")
    world.run(1.0)
    assert set(pumped) == {a}
    assert [type(notice) for notice in a.notices] == [PeerConnected]
    a.send("b", b"1")
    assert [delivery[2] for delivery in b.take("a")] == []
    a.abort("b")
    assert a.session("b").outcome(1) is Outcome.ABANDONED


# -- time -------------------------------------------------------------------------------------------------------------


def test_time_that_is_advanced_serves_timers_and_moves_no_bytes() -> None:
    world, a, b, _wire = connected()
    began = world.now
    world.advance(50.0)
    assert world.now == began + 50.0
    assert not a.session("b").connected
    assert b.session("a").unread == 0


def test_a_jump_is_one_leap_for_all() -> None:
    world, a, _b, wire = connected()
    log = Log(world)
    world.jump(40.0)
    assert log.kinds["ticked"] == 2
    assert a.session("b").connected
    world.run(1.0)
    assert [end and end.state for end in wire.ends] == [ConnectionState.LIVE] * 2


def test_a_world_without_rest_is_noticed() -> None:
    world, a, _b, _wire = connected()
    a.send("b", b"1")
    with pytest.raises(AssertionError, match="does not come to rest"):
        world.deliver_all(limit=1)
    assert world.deliver_all() >= 0
    assert World().next_timer() == inf
