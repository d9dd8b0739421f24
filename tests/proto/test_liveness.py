"""Who is silent is asked, who does not answer is given up, and who was asked speaks."""

from __future__ import annotations

from typing import Any

import pytest

from networkio_proto import CloseCode, Config
from tests.proto.helpers_wire import PING, PONG, Node, Peer, ack, data, frame, opened, ping, pings, pong


def test_a_silent_peer_is_asked_after_20_s_and_given_up_after_45() -> None:
    """P-TIME-3, P-TIME-4; the question comes up to 25 % early (P-TIME-5)."""
    node, _, line = opened(Config())
    node.advance(14.9)
    assert pings(line) == []
    node.advance(5.1)
    assert len(pings(line)) == 1
    node.advance(24.9)
    assert line.closed is None
    assert line.connection.error is None
    node.advance(0.1)
    assert line.farewell() is CloseCode.TIMEOUT
    assert "silent for 45" in str(line.connection.error)


@pytest.mark.parametrize("sign", [pong(99), data(1), ack(0, 0), frame(0xFF)], ids=["pong", "data", "ack", "FF"])
def test_every_byte_is_a_sign_of_life(sign: bytes) -> None:
    node, _, line = opened(Config())
    for size in (1, 2, 100):
        node.advance(44.0)
        line.say(sign[:size])
        sign = sign[size:]
    assert line.closed is None
    node.advance(45.0)
    assert line.closed is not None


def test_a_node_that_has_nothing_to_say_speaks_before_its_peer_gives_it_up() -> None:
    """P-TIME-2: by 4/9 of the ``idle`` that the peer announced, however busy the peer is."""
    node, peer = Node(), Peer()
    peer.limits = {**peer.limits, "idle": 900}
    line = node.connect(peer)
    said = node.now
    while node.now < 1010.0:
        node.advance(0.01)
        line.say(frame(0x80, b"busy"))
        if line.heard():
            said = node.now
        assert node.now - said <= 0.4 + 1e-6


def test_what_was_said_anyway_takes_the_place_of_a_ping() -> None:
    node, peer, line = opened(Config())
    for _ in range(30):
        node.advance(10.0)
        node.send(peer, b"chat")
        line.say(frame(0x80, b"chat"))
    assert PING not in line.kinds()


def test_connections_made_at_the_same_moment_do_not_ask_at_the_same_moment() -> None:
    node = Node()
    times: list[float] = []
    lines = [node.connect(Peer(f"a{number}")) for number in range(200)]
    for line in lines:
        line.raw()
    while len(times) < len(lines):
        node.advance(0.02 if node.now > 1014.0 else 1.0)
        times += [node.now - 1000.0 for line in lines if pings(line)]
    assert 15.0 <= min(times) < 15.2
    assert 19.8 < max(times) <= 20.02
    assert len(set(times)) > 100


def test_a_stream_that_takes_nothing_for_30_s_is_given_up_though_the_peer_talks() -> None:
    """P-TIME-7. What is written moves the deadline, and a stream with nothing to write has none."""
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, b"waits")
    for _ in range(29):
        node.advance(1.0)
        line.say(frame(0x80, b"talk"))
    line.stuck = False
    line.writable()
    for _ in range(60):
        node.advance(1.0)
        line.say(frame(0x80, b"talk"))
    assert line.closed is None
    line.stuck = True
    node.send(peer, b"waits too")
    for _ in range(30):
        assert line.closed is None
        node.advance(1.0)
        line.say(frame(0x80, b"talk"))
    assert line.ended() is CloseCode.TIMEOUT
    assert "took no byte for 30" in str(line.connection.error)


def test_a_stream_that_still_passes_on_what_it_took_is_slow_and_not_stuck() -> None:
    """P-TIME-7: a system that holds megabytes takes no more for minutes, where the line has become slow."""
    node, peer, line = opened(Config())
    left = 4_000_000
    line.connection.backlog = lambda: left
    line.stuck = True
    node.send(peer, b"waits")

    def talk(seconds: int) -> None:
        for _ in range(seconds):
            node.advance(1.0)
            line.say(frame(0x80, b"talk"))

    for _ in range(60):
        talk(10)
        left -= 8_000
    assert line.closed is None
    talk(29)
    assert line.closed is None
    talk(16)  # it is looked at now and then only
    assert line.ended() is CloseCode.TIMEOUT
    assert "took no byte for 30" in str(line.connection.error)


def test_what_was_passed_on_before_does_not_help_a_stream_that_takes_nothing_now() -> None:
    node, peer, line = opened(Config(write_stall=4.0))
    line.connection.backlog = lambda: 1000
    for _ in range(5):  # whenever it takes everything the time begins anew
        line.stuck = True
        node.send(peer, b"waits")
        node.advance(3.0)
        line.stuck = False
        line.writable()
    line.stuck = True
    node.send(peer, b"waits")
    node.advance(6.0)
    assert line.ended() is CloseCode.TIMEOUT


def test_a_pause_of_the_node_itself_kills_nobody_and_asks_everybody() -> None:
    """P-TIME-6; whoever does not answer then is given up."""
    node = Node()
    lines = [node.connect(Peer(f"a{number}")) for number in range(50)]
    for line in lines:
        line.raw()
    node.jump(60.0)
    asked = [pings(line) for line in lines]
    assert all(len(question) == 1 for question in asked)
    assert all(line.closed is None for line in lines)
    for line, [question] in zip(lines[:25], asked[:25], strict=True):
        line.say(pong(question))
    node.advance(2.0)
    assert [line.closed is None for line in lines] == [True] * 25 + [False] * 25
    assert all(line.farewell() is CloseCode.TIMEOUT for line in lines[25:])


def test_a_pause_is_not_held_against_a_stream_that_waits_to_be_written() -> None:
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, b"waits")
    node.jump(60.0)
    assert line.closed is None
    line.stuck = False
    line.writable()
    line.say(frame(0x80, b"x"))
    node.advance(10.0)
    assert line.closed is None


def test_timers_are_served_when_they_are_due_or_late_and_never_twice() -> None:
    node, _, line = opened(Config())
    due = node.endpoint.get_timer()
    assert due is not None
    node.endpoint.handle_timer(due - 0.001)  # too early: nothing
    node.pump()
    assert line.raw() == b""
    assert node.endpoint.get_timer() == due
    node.now = due
    node.endpoint.handle_timer(due)  # exactly
    node.pump()
    later = node.endpoint.get_timer()
    assert later is not None
    assert later > due
    node.endpoint.handle_timer(due)
    assert node.endpoint.get_timer() == later
    node.now = later + 3.0  # in the past
    node.endpoint.handle_timer(node.now)
    node.pump()
    following = node.endpoint.get_timer()
    assert following is not None
    assert following > node.now


def test_asking_for_the_next_timer_costs_the_same_for_any_number_of_connections() -> None:
    looks: dict[int, int] = {}
    for count in (10, 500):
        node = Node()
        for number in range(count):
            node.connect(Peer(f"a{number}"))

        class Counting(list[Any]):
            def __getitem__(self, place: Any, count: int = count) -> Any:
                looks[count] = looks.get(count, 0) + 1
                return super().__getitem__(place)

        node.endpoint.get_timer()  # stale entries at the top are thrown away once
        node.endpoint.timers._heap = Counting(node.endpoint.timers._heap)
        for _ in range(100):
            node.endpoint.get_timer()
    assert looks[10] == looks[500]


def test_a_ping_is_answered_at_once_and_the_latest_one_answers_for_all() -> None:
    node, peer, line = opened(Config())
    line.say(ping(1))
    assert line.raw() == pong(1)
    line.stuck = True
    line.say(ping(2), ping(3), ping(4))
    line.stuck = False
    line.writable()
    assert line.raw() == pong(4)
    line.stuck = True
    node.send(peer, b"in the way")
    line.say(ping(5))
    line.stuck = False
    line.writable()
    assert line.kinds()[0] == PONG
