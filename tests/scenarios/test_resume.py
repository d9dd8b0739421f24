"""Connections that break and processes that die: what comes again, what does not, and what is flagged."""

from __future__ import annotations

import pytest

from networkio_proto import (
    Config,
    Delivery,
    Gap,
    Limits,
    MessagesRead,
    MessagesReceived,
    MessageTooLarge,
    Outcome,
    PeerConnected,
    PeerRestarted,
)
from networkio_proto.frames import SkipReason
from networkio_testing import Wire
from tests.proto.helpers import frames
from tests.proto.helpers_session import noticed, restart, until_live
from tests.proto.helpers_wire import DATA, FIN, SKIP, Node, Peer, data
from tests.scenarios.helpers import Scene, flags, outcomes, redelivered


def numbers(first: int, last: int) -> list[bytes]:
    """Payloads that tell their place."""
    return [b"%d" % number for number in range(first, last + 1)]


def next_message(wire: Wire, end: int) -> None:
    """Let frames arrive up to the next message, and it too."""
    kind = None
    while kind != DATA:
        said = wire.pipes[end].data
        kind = said[4]
        wire.deliver(end, 4 + int.from_bytes(said[:4], "big"))


# -- cuts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["a", "b"])
def test_a_cut_after_each_single_message_of_twenty_repeats_and_loses_none(sender: str) -> None:
    """At every place the next connection goes on with exactly the message after the last that arrived."""
    for arrived in range(21):
        scene = Scene()
        host, other = (scene.a, scene.b) if sender == "a" else (scene.b, scene.a)
        end = 0 if sender == "a" else 1
        host.send(other.name, *numbers(1, 20))
        for _ in range(arrived):
            next_message(scene.wire, end)
        assert other.session(sender).unread == arrived
        scene.wire.cut()
        noticed(host, PeerConnected)
        wire = until_live(scene.world)
        report = noticed(host, PeerConnected)[-1].resumed
        assert (report.verdict, report.retransmitted) == ("B" if arrived else "A", 20 - arrived)
        end = 0 if wire.hosts[0] is host else 1
        resumed = [item.u64() for item in frames(wire.pipes[end].data) if item.kind == DATA]
        assert resumed == list(range(arrived + 1, 21))
        scene.rest()
        assert scene.got(other.name) == numbers(1, 20)
        assert not any(map(redelivered, scene.heard[other.name]))


@pytest.mark.parametrize("between", [0, 1, 2])
def test_cuts_in_a_row_while_everything_is_sent_again_do_not_confuse_the_place(between: int) -> None:
    """Also before the first message of the repetition has arrived."""
    scene = Scene()
    scene.a.send("b", *numbers(1, 12))
    scene.wire.cut()
    arrived = 0
    for _ in range(5):
        wire = until_live(scene.world)
        for _ in range(between):
            next_message(wire, 0)
        arrived += between
        assert scene.b.session("a").unread == arrived
        wire.cut()
    scene.rest()
    assert scene.got() == numbers(1, 12)
    assert [delivery[1] for delivery in scene.heard["b"]] == list(range(1, 13))
    assert scene.judge.tally["redelivered"] == 0
    assert scene.a.session("b").connections == 7


def test_a_link_on_which_nothing_was_ever_said_resumes_at_zero() -> None:
    scene = Scene()
    for _ in range(3):
        scene.wire.cut()
        scene.world.run(60.0)
    for host, peer in ((scene.a, "b"), (scene.b, "a")):
        assert host.session(peer).connections == 4
        assert [report.resumed.verdict for report in noticed(host, PeerConnected)] == ["A"] * 4
        assert not noticed(host, PeerRestarted)
        outbox = host.session(peer).outbox
        assert (outbox.first, outbox.next, outbox.received, outbox.marked) == (1, 1, 0, 0)
    scene.a.send("b", b"first word")
    scene.rest()
    assert scene.got() == [b"first word"]


@pytest.mark.parametrize(("hours", "verdict"), [(1, "B"), (20, "B"), (25, "A")])
def test_a_link_that_was_idle_for_hours_and_down_for_hours_goes_on_with_the_next_number(
    hours: int, verdict: str
) -> None:
    """Everything was read long ago, and the session has shrunk to its positions; after a day it has expired."""
    scene = Scene(Config(backoff_max=3600.0))
    scene.a.send("b", *numbers(1, 5))
    scene.b.send("a", *numbers(1, 3))
    scene.rest()
    scene.world.run(2 * 3600.0)
    assert scene.world.connections_made == 1
    scene.wire.cut()
    scene.b.listening = False
    for _ in range(hours * 6):
        scene.world.run(600.0)
    assert scene.b.session("a").inbox is None
    scene.b.listening = True
    noticed(scene.a, PeerConnected)
    scene.world.run(3600.0)
    assert noticed(scene.a, PeerConnected)[-1].resumed.verdict == verdict
    assert scene.a.send("b", b"6") == [6]
    assert scene.b.send("a", b"4") == [4]
    scene.rest()
    assert (scene.got("b"), scene.got("a")) == (numbers(1, 6), numbers(1, 4))
    assert scene.judge.tally["redelivered"] == 0


def test_what_a_lost_acknowledgement_had_to_say_is_learned_at_the_resume_and_told_once() -> None:
    scene = Scene()
    scene.a.send("b", *numbers(1, 4))
    scene.wire.deliver(0)
    assert scene.b.read("a", 3) == numbers(1, 3)
    scene.world.advance(0.03)
    assert scene.wire.pipes[1].data  # the ACK
    scene.wire.cut()
    assert outcomes(scene.a.session("b"), range(1, 5)) == [None] * 4
    scene.a.notices.clear()
    scene.world.run(60.0)
    assert outcomes(scene.a.session("b"), range(1, 5)) == [Outcome.READ] * 3 + [None]
    assert [notice.through for notice in noticed(scene.a, MessagesReceived)] == [4]
    assert [notice.through for notice in noticed(scene.a, MessagesRead)] == [3]
    scene.wire.cut()
    scene.world.run(60.0)
    assert not noticed(scene.a, MessagesReceived)
    assert not noticed(scene.a, MessagesRead)
    scene.rest()
    assert scene.got() == [b"4"]


@pytest.mark.parametrize("peer_id", ["a", "z"])
def test_late_bytes_of_the_old_connection_are_nothing_once_the_new_one_is_live(peer_id: str) -> None:
    node, peer = Node(), Peer(peer_id)
    old = node.connect(peer)
    old.say(data(1, b"one"))
    new = node.connect(peer, next=2)
    assert old.closed is not None
    old.say(data(2, b"two"), data(3, b"three"))
    assert node.session(peer).inbox.received == 1  # type: ignore[union-attr]
    new.say(data(2, b"TWO"))
    assert node.read(peer) == [b"one", b"TWO"]
    assert new.live


# -- processes that die -----------------------------------------------------------------------------------------------


def test_a_new_process_of_the_receiver_gets_everything_from_the_first_unread_on_and_what_was_sent_flagged() -> None:
    scene = Scene()
    scene.a.send("b", *numbers(1, 4))
    scene.world.run(1.0)
    assert scene.b.read("a", 2) == numbers(1, 2)
    assert len(scene.b.take("a")) == 1
    scene.world.run(1.0)
    session = scene.a.session("b")
    assert (session.outbox.read, session.outbox.received) == (2, 4)
    scene.wire.cut()
    scene.a.send("b", b"5")  # nobody was there
    scene.b.restart()
    scene.rest()
    assert scene.got() == numbers(3, 5)
    assert flags(scene.heard["b"]) == [True, True, False]
    assert outcomes(session, range(1, 6)) == [Outcome.READ] * 5


def test_what_was_acknowledged_and_not_told_before_the_process_died_comes_again_flagged() -> None:
    scene = Scene()
    scene.a.send("b", b"one", b"two")
    scene.wire.deliver(0)
    assert scene.b.read("a") == [b"one", b"two"]
    scene.wire.pipes[1].data.clear()  # the ACK never arrives
    scene.b.crash()
    assert outcomes(scene.a.session("b"), (1, 2)) == [None, None]
    scene.b.restart()
    scene.rest()
    assert scene.got() == [b"one", b"two"]
    assert flags(scene.heard["b"]) == [True, True]


def test_a_new_process_of_the_sender_is_told_before_its_first_message_and_old_acknowledgements_go_nowhere() -> None:
    scene = Scene()
    scene.a.send("b", b"old 1", b"old 2")
    scene.world.run(1.0)
    held = scene.b.take("a")
    old = scene.b.session("a").inbox
    assert old is not None
    restart(scene.a)
    scene.a.send("b", b"new 1")
    scene.world.run(60.0)
    assert len(noticed(scene.b, PeerRestarted)) == 1
    scene.b.settle("a", held[0])
    scene.world.run(1.0)
    session = scene.a.session("b")
    assert (session.outbox.received, session.outbox.read) == (1, 0)  # no acknowledgement of the old outbox
    scene.rest()
    assert scene.got() == [b"old 2", b"new 1"]
    first_new = scene.heard["b"][1][4]
    assert first_new is not None
    assert first_new.peer_restarted is not None
    left = first_new.peer_restarted
    assert (left.outbox_id, left.received, left.read) == (old.outbox_id, 2, 0)
    assert outcomes(session, [1]) == [Outcome.READ]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_both_processes_die_at_the_same_time_and_begin_anew(order: str) -> None:
    scene = Scene()
    scene.a.send("b", b"lost with a")
    scene.b.send("a", b"lost with b")
    scene.world.run(1.0)
    for name in order:
        scene.world.hosts[name].crash()
    for name in order:
        restart(scene.world.hosts[name])
    scene.a.send("b", b"a anew")
    scene.b.send("a", b"b anew")
    scene.rest()
    assert (scene.got("b"), scene.got("a")) == ([b"a anew"], [b"b anew"])
    assert not any(map(redelivered, scene.heard["a"] + scene.heard["b"]))
    for host in (scene.a, scene.b):  # neither has met the other before
        assert not noticed(host, PeerRestarted)
        assert [report.resumed.peer_restarted for report in noticed(host, PeerConnected)] == [False]


def test_a_sender_that_dies_twice_before_anybody_sees_it_again_is_one_restart() -> None:
    scene = Scene()
    scene.a.send("b", b"of the first")
    scene.world.run(1.0)
    scene.b.notices.clear()
    scene.b.listening = False
    restart(scene.a)
    scene.a.send("b", b"of the second")
    scene.world.run(10.0)
    restart(scene.a)
    scene.a.send("b", b"of the third")
    scene.b.listening = True
    scene.rest(120.0)
    assert scene.got() == [b"of the first", b"of the third"]
    assert len(noticed(scene.b, PeerRestarted)) == 1
    assert scene.judge.tally["redelivered"] == 0


@pytest.mark.parametrize("size", [40, 200_000], ids=["small", "fragments"])
def test_a_message_of_which_a_part_had_come_when_a_newer_connection_was_taken_starts_again(size: int) -> None:
    scene = Scene()
    payload = bytes(size)
    scene.a.send("b", payload, b"behind it")
    old = scene.wire
    old.deliver(0, size // 2)
    old.cut_half(0)  # a knows, b does not
    while not scene.a.dials:
        scene.world.advance(0.01)
    scene.a.answer_dials()
    for _ in range(6):
        for wire in scene.world.open_wires():
            if wire is not old:
                wire.deliver(0)
                wire.deliver(1)
    assert scene.b.session("a").connections == 2
    assert scene.wire is not old
    scene.rest()
    assert scene.got() == [payload, b"behind it"]
    assert scene.judge.tally["lost: SUPERSEDED"] == 1


# -- what does not come -----------------------------------------------------------------------------------------------


def gaps(deliveries: list[Delivery]) -> list[list[tuple[int, int, int]]]:
    """What each message tells of those before it."""
    return [[(gap.first, gap.last, gap.reason) for gap in delivery[4].gap] if delivery[4] else []
            for delivery in deliveries]  # fmt: skip


@pytest.mark.parametrize("cancelled", [(1,), (3,), (1, 2), (2, 4), (5,)], ids=str)
def test_what_was_taken_back_is_passed_over_at_the_head_in_the_middle_and_at_the_end(
    cancelled: tuple[int, ...],
) -> None:
    scene = Scene(connected=False)
    scene.a.send("b", *numbers(1, 5))
    for number in cancelled:
        assert scene.a.cancel("b", number)
    scene.a.dial("b")
    scene.world.run(1.0)
    assert {(g.first, g.last, g.reason) for notice in noticed(scene.b, Gap) for g in notice.ranges} or cancelled == (5,)
    scene.a.send("b", b"6")
    scene.rest()
    left = [number for number in range(1, 7) if number not in cancelled]
    assert scene.got() == [b"%d" % number for number in left]
    told = [gap for gaps_before in gaps(scene.heard["b"]) for gap in gaps_before]
    assert {number for first, last, _ in told for number in range(first, last + 1)} == set(cancelled)
    assert {reason for _, _, reason in told} == {SkipReason.CANCELLED}
    expected = [Outcome.CANCELLED if number in cancelled else Outcome.READ for number in range(1, 7)]
    assert outcomes(scene.a.session("b"), range(1, 7)) == expected


def test_a_skip_that_is_lost_with_its_connection_is_said_again() -> None:
    scene = Scene()
    scene.a.send("b", b"1")
    scene.world.run(1.0)
    scene.wire.cut()
    scene.a.send("b", b"2", b"3")
    assert scene.a.cancel("b", 2)
    for _ in range(3):
        wire = until_live(scene.world)
        said = frames(wire.pipes[0].data)
        assert [(item.kind, item.u64()) for item in said if item.kind in (DATA, SKIP)] == [(SKIP, 2), (DATA, 3)]
        wire.cut()
    scene.rest()
    assert scene.got() == [b"1", b"3"]
    assert gaps(scene.heard["b"]) == [[], [(2, 2, SkipReason.CANCELLED)]]


def test_a_cancelled_message_right_before_the_end_does_not_swallow_the_end() -> None:
    scene = Scene(connected=False)
    scene.a.send("b", b"1", b"2")
    assert scene.a.cancel("b", 2)
    scene.a.end("b")
    scene.a.dial("b")
    wire = until_live(scene.world)
    kinds = [item.kind for item in frames(wire.pipes[0].data) if item.kind in (DATA, SKIP, FIN)]
    assert kinds == [DATA, SKIP, FIN]
    scene.world.run(1.0)
    assert scene.b.session("a").nothing_follows
    scene.b.end("a")
    scene.rest()
    assert scene.got() == [b"1"]
    assert scene.a.session("b").closed
    assert scene.b.session("a").closed


@pytest.mark.parametrize("state", ["queued", "transmitted", "received"])
def test_a_time_to_live_acts_while_it_is_certain_that_the_peer_has_nothing(state: str) -> None:
    """Queued: at once.  On its way when the connection broke: when the resume says so.  Received: not any more."""
    scene = Scene()
    if state == "queued":
        scene.wire.cut()
        scene.b.listening = False
    scene.a.send("b", b"short-lived", ttl=3.0)
    scene.a.send("b", b"behind it")
    session = scene.a.session("b")
    if state == "transmitted":
        scene.wire.black_hole()
        scene.wire.pipes[0].data.clear()
    elif state == "received":
        scene.world.run(0.1)
    scene.world.advance(2.999)
    assert session.outcome(1) is None
    scene.world.advance(0.01)
    assert session.outcome(1) is (Outcome.EXPIRED if state == "queued" else None)
    scene.b.listening = True
    scene.rest(120.0)
    expected = [Outcome.READ] * 2 if state == "received" else [Outcome.EXPIRED, Outcome.READ]
    assert outcomes(session, (1, 2)) == expected
    assert scene.got() == ([b"short-lived"] if state == "received" else []) + [b"behind it"]
    failure = session.failure(1)
    assert (failure is None) is (state == "received")
    assert failure is None or failure.seen == "no"


def test_a_receiver_that_comes_back_with_a_smaller_limit_does_not_wedge_the_queue() -> None:
    scene = Scene()
    scene.a.send("b", b"1")
    scene.rest(1.0)
    scene.wire.cut()
    scene.a.send("b", b"2", bytes(5000), b"4")
    scene.b.config = Config(limits=Limits(message=4999))
    scene.b.restart()
    scene.rest()
    assert scene.got() == [b"1", b"2", b"4"]
    assert outcomes(scene.a.session("b"), range(1, 5)) == [Outcome.READ, Outcome.READ, Outcome.LOST, Outcome.READ]
    failure = scene.a.session("b").failure(3)
    assert failure is not None
    assert "limit" in failure.reason
    assert gaps(scene.heard["b"])[-1] == [(3, 3, SkipReason.TOO_LARGE)]


def test_sizes_around_the_window_and_around_the_limit_arrive_and_one_byte_more_is_refused() -> None:
    window, limit = 64 * 1024, 200_000
    config = Config(window=window, window_guaranteed=window, window_max=window, limits=Limits(message=limit))
    scene = Scene(config)
    sizes = [window - 64, window - 63, window, window + 1, 0, limit - 1, limit, 1]
    accepted = [bytes([number]) * size for number, size in enumerate(sizes)]
    scene.a.send("b", *accepted)
    with pytest.raises(MessageTooLarge):
        scene.a.send("b", bytes(limit + 1))
    for _ in range(len(sizes)):
        scene.world.run(1.0)
        scene.read()
    assert scene.got() == accepted
    scene.rest()


def test_a_flood_of_empty_messages_is_bounded_by_the_window_and_all_arrive() -> None:
    scene = Scene(Config(window=64 * 1024, window_max=64 * 1024))
    scene.a.send("b", *[b""] * 6_000)
    scene.world.run(1.0)
    assert scene.b.session("a").unread == 1024  # 64 each
    read_all(scene, 6_000)
    assert scene.got() == [b""] * 6_000
    scene.rest()


def read_all(scene: Scene, count: int) -> None:
    """Until so many have been read."""
    while len(scene.heard["b"]) < count:
        before = len(scene.heard["b"])
        scene.read()
        scene.world.run(0.1)
        assert len(scene.heard["b"]) > before
        assert scene.b.session("a").unsettled <= 64 * 1024
