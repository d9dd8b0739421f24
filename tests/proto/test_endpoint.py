"""One node: targets and when they are dialled, connections and how many, effects, notices, and its end.

Which of several connections wins is in ``test_collision.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from math import inf

import pytest

from networkio_proto import (
    CloseCode,
    Config,
    ConfigurationError,
    ConnectionState,
    Dial,
    DialFailed,
    Endpoint,
    MessagesReady,
    NodeClosed,
    OutboxFull,
    PeerConnected,
    PeerDisconnected,
    Session,
    Target,
    TargetState,
    Wake,
    Watch,
)
from networkio_proto.journal import JournalRecord
from networkio_proto.reconnect import RetryClass, retry_class
from tests.proto.helpers_auth import HmacAuth
from tests.proto.helpers_wire import (
    ATTACH,
    CLOSE,
    HELLO,
    PREAMBLE,
    Line,
    Node,
    Peer,
    ack,
    close,
    data,
    fin,
    fingerprint,
)


class Draws(random.Random):
    """Every number that is drawn is the same; ids and nonces are not."""

    value = 0.999999

    def random(self) -> float:
        return self.value


def fixed(node: Node, value: float = 0.999999) -> Node:
    """Jitter has a known value on this node from now on."""
    draws = Draws(7)
    draws.value = value
    node.endpoint.random = draws
    return node


def doing(target: Target) -> TargetState:
    """What the target does now."""
    return target.state


def delay(node: Node, target: Target) -> float:
    """How long the target waits from now; it must wait."""
    assert target.state is TargetState.WAITING
    assert target.retry_at is not None
    return target.retry_at - node.now


def disconnections(node: Node) -> list[PeerDisconnected]:
    """The notices of that kind since the last look."""
    found = [event for event in node.events if isinstance(event, PeerDisconnected)]
    node.events.clear()
    return found


# -- targets ----------------------------------------------------------------------------------------------------------


def test_a_target_is_dialled_at_once_and_once() -> None:
    node = Node()
    target = node.add_target("a", key=("host", 80))
    assert node.dials == [target]
    assert (target.key, target.to, target.state) == (("host", 80), "a", TargetState.DIALLING)
    node.advance(9.9)
    assert node.dials == [target]
    assert node.endpoint.sessions["a"].targets == [target]


def test_a_target_walks_from_dialling_to_satisfied() -> None:
    node, peer = Node(), Peer()
    line = node.dial("a")
    target = line.connection.target
    assert target is not None
    assert doing(target) is TargetState.HANDSHAKING
    line.say(PREAMBLE, peer.hello_ack(), peer.attach())
    assert doing(target) is TargetState.SATISFIED
    assert target.retry_at is None


def test_a_target_of_a_connected_peer_is_not_dialled_until_the_connection_is_gone() -> None:
    node, peer = Node(), Peer()
    line = node.connect(peer)
    target = node.add_target("a")
    assert target.state is TargetState.SATISFIED
    assert node.dials == []
    line.lose()
    node.advance(5.0)
    assert node.dials == [target]


def test_every_waiting_target_is_satisfied_by_one_connection_over_any_of_them() -> None:
    node, peer = Node(), Peer()
    first, second, third = (node.add_target("a", key) for key in ("one", "two", "three"))
    node.fail(first)
    line = node.answer(second)
    line.say(PREAMBLE, peer.hello_ack(), peer.attach())
    assert [target.state for target in (first, second)] == [TargetState.SATISFIED] * 2
    assert doing(third) is TargetState.DIALLING
    late = node.answer(third)
    late.say(PREAMBLE, peer.hello_ack())
    assert late.farewell() is CloseCode.COLLISION
    assert doing(third) is TargetState.SATISFIED
    line.lose()
    node.advance(5.0)
    assert set(node.dials) == {first, second, third}


def test_a_dial_that_fails_while_the_peer_is_connected_needs_no_other() -> None:
    node = Node()
    target = node.add_target("a")
    node.connect(Peer())
    node.refuse()
    assert target.state is TargetState.SATISFIED
    node.advance(30.0)
    assert node.dials == []


@pytest.mark.parametrize("peer_id", ["", "no spaces", "x" * 65, "m"])
def test_an_impossible_peer_is_refused_and_leaves_nothing_behind(peer_id: str) -> None:
    node = Node("m")
    with pytest.raises(ConfigurationError):
        node.endpoint.add_target("there", node.now, to=peer_id)
    with pytest.raises(ConfigurationError):
        node.endpoint.session(peer_id)
    assert node.endpoint.sessions == {}
    assert not node.endpoint.targets
    assert node.endpoint.next_effect() is None
    if peer_id != "m":
        with pytest.raises(ConfigurationError):
            Endpoint(peer_id)


def test_a_target_that_names_nobody_belongs_to_whoever_answered_last() -> None:
    node = Node()
    line = node.dial(None)
    target = line.connection.target
    assert target is not None
    line.say(PREAMBLE, Peer("a").hello_ack(), Peer("a").attach())
    assert node.session("a").targets == [target]
    line.lose()
    node.advance(5.0)
    line = node.answer()
    line.say(PREAMBLE, Peer("b").hello_ack(), Peer("b").attach())
    assert node.session("b").targets == [target]
    assert node.session("a").targets == []
    assert node.session("a").retry_at is None


# -- when to dial -----------------------------------------------------------------------------------------------------


def test_the_delay_doubles_up_to_its_ceiling_while_nothing_works() -> None:
    """P-DIAL-2: dial n comes within min(30 s, 0.25 s * 2^n)."""
    node = fixed(Node())
    target = node.add_target("a")
    for number in range(1, 12):
        node.refuse()
        assert delay(node, target) == pytest.approx(min(30.0, 0.25 * 2**number), rel=1e-4)
        assert disconnections(node)[:1] == [] or number == 1
        node.until_dialled()
        assert node.dials == [target]


def test_the_delay_is_drawn_from_the_whole_interval() -> None:
    delays = []
    for seed in range(300):
        node = Node(seed=seed)
        target = node.add_target("a")
        node.refuse()
        delays.append(delay(node, target))
    assert 0.0 <= min(delays) < 0.02
    assert 0.48 < max(delays) <= 0.5


def test_a_connection_that_moved_something_is_dialled_again_at_once() -> None:
    """P-DIAL-3; and a connection that moved nothing keeps backing off."""
    node, peer = fixed(Node()), Peer()
    node.send(peer, b"unread")
    target = node.add_target("a")
    waits = []
    for moves in (False, False, True, True, False, False):
        line = node.answer()
        line.say(PREAMBLE, peer.hello_ack(), peer.attach(next=9, inbox=None))
        if moves:
            sequence = node.session(peer).inbox.received + 1  # type: ignore[union-attr]
            line.say(data(sequence))
        line.lose()
        waits.append(round(delay(node, target), 3))
        node.until_dialled()
    assert waits == [0.5, 1.0, 0.05, 0.05, 0.5, 1.0]


def test_where_both_dial_the_lesser_lets_the_other_go_first() -> None:
    """P-DIAL-1: 1 s and jitter; both dial, as far as the node knows, once it was dialled itself."""
    for peer_id, courtesy in (("a", 0.0), ("z", 1.0)):
        node, peer = fixed(Node(), 0.5), Peer(peer_id)
        node.connect(peer).lose()
        target = node.add_target(peer_id)
        node.refuse()
        plain = 0.25
        assert plain + courtesy <= delay(node, target) <= plain + 1.5 * courtesy
    node, peer = fixed(Node(), 0.5), Peer("z")
    target = node.add_target("z")
    node.refuse()
    assert delay(node, target) == 0.25


#: code: what a dialer does that hears it (specification, *Close codes*)
CLASSES = {
    CloseCode.RESTARTING: "back-off", CloseCode.OVERLOAD: "back-off", CloseCode.COLLISION: "back-off",
    CloseCode.SUPERSEDED: "back-off", CloseCode.DUPLICATE_IDENTITY: "slow", CloseCode.AUTH_FAILED: "slow",
    CloseCode.VERSION: "slow", CloseCode.PROTOCOL: "back-off", CloseCode.FLOW: "back-off",
    CloseCode.TOO_LARGE: "back-off", CloseCode.TIMEOUT: "back-off", CloseCode.ABORT: "stop",
    CloseCode.ABUSE: "back-off", CloseCode.SELF: "stop", CloseCode.RETRY: "at once", CloseCode.WRONG_PEER: "stop",
    CloseCode.CODEC: "stop", CloseCode.NORMAL: "later",
}  # fmt: skip


def _just(frame: bytes, peer: Peer) -> bytes:
    return frame


def greeted(node: Node, peer_id: str = "a") -> tuple[Line, Target]:
    """A dial that waits for HELLO_ACK."""
    line = node.dial(peer_id)
    assert line.connection.target is not None
    return line, line.connection.target


#: what somebody without the key can say that would stop a dialer, were it true
_UNPROVEN: dict[str, Callable[[Peer], bytes]] = {
    **{f"CLOSE {code.name}": partial(_just, close(code)) for code, what in CLASSES.items() if what == "stop"},
    "CLOSE NORMAL for good": partial(_just, close(CloseCode.NORMAL, flags=0)),
    "the dialer's own id": lambda peer: peer.hello_ack(id="m"),
    "another id": lambda peer: peer.hello_ack(id="b"),
    "another codec": lambda peer: peer.hello_ack(codec="json"),
}


@pytest.mark.parametrize("auth", [None, HmacAuth(b"k" * 32)], ids=["insecure", "psk"])
@pytest.mark.parametrize("said", _UNPROVEN.values(), ids=_UNPROVEN)
def test_nobody_stops_a_dialer_for_good_who_has_not_proved_to_be_the_peer(
    said: Callable[[Peer], bytes], auth: HmacAuth | None
) -> None:
    """P-CLOSE-10: where nobody proves anything, there is nothing to wait for; else the dials go on, slowly."""
    node, peer = Node(auth=auth), Peer(auth="psk" if auth else "insecure")
    line, target = greeted(node)
    line.say(PREAMBLE, said(peer))
    if auth is None:
        assert target.state is TargetState.STOPPED
    else:
        assert target.error is not None
        assert retry_class(target.error) is RetryClass.SLOW
        node.advance(300.0)
        assert target in node.dials


@pytest.mark.parametrize("leave", [CloseCode.NORMAL, CloseCode.ABORT])
def test_a_dialer_that_gives_up_by_itself_stops_whatever_was_proven(leave: CloseCode) -> None:
    node = Node(auth=HmacAuth(b"k" * 32))
    line, target = greeted(node)
    line.connection.close(leave, "", node.now)
    node.pump()
    assert target.state is TargetState.STOPPED


@pytest.mark.parametrize("remote", [True, False], ids=["heard", "said"])
@pytest.mark.parametrize(("code", "what"), CLASSES.items(), ids=[code.name for code in CLASSES])
def test_every_close_code_says_when_to_dial_again(code: CloseCode, what: str, remote: bool) -> None:
    """The class is the same whether a side sent the CLOSE or took it, but for NORMAL."""
    node = fixed(Node())
    line, target = greeted(node)
    for number in range(1, 13):
        if remote:
            line.say(PREAMBLE, close(code))
        else:
            line.connection.close(code, "", node.now)
            node.pump()
        if what == "stop" or (what == "later" and not remote):
            assert target.state is TargetState.STOPPED
            assert target.retry_at is None
            node.advance(1e6)
            assert node.dials == []
            return
        waits = delay(node, target)
        interval = 0.25 * 2**number
        if what == "later":
            assert 30.0 <= waits <= 40.0
        elif what == "slow":
            assert waits == pytest.approx(min(300.0, interval), rel=1e-4)
        elif what == "at once" and number <= 3:
            assert waits <= 0.05
        else:
            assert waits == pytest.approx(min(30.0, interval), rel=1e-4)
        node.advance(waits)
        line = node.answer(target)


def test_slow_is_never_less_than_half_of_the_interval() -> None:
    """P-DIAL-5."""
    node = fixed(Node(), 0.0)
    line, target = greeted(node)
    for number in range(1, 13):
        line.say(PREAMBLE, close(CloseCode.AUTH_FAILED))
        assert delay(node, target) == pytest.approx(min(300.0, 0.25 * 2**number) / 2)
        node.until_dialled()
        line = node.answer(target)


@pytest.mark.parametrize("code", [code for code, what in CLASSES.items() if what != "stop"])
def test_nobody_is_dialled_before_the_time_it_asked_for(code: CloseCode) -> None:
    """P-CLOSE-11 and P-CLOSE-12: 100 s are waited for, an hour is not believed."""
    for asked, believed in ((100_000, 100.0), (3_600_000, 300.0)):
        node = fixed(Node(), 0.0)
        line, target = greeted(node)
        line.say(PREAMBLE, close(code, retry_after=asked))
        assert delay(node, target) == believed


def test_a_peer_that_closed_for_good_is_not_dialled_again() -> None:
    """NORMAL without RESUMABLE on a live connection, and after it the application may change its mind."""
    node, peer = Node(), Peer()
    line = node.connect(peer, "dialer")
    line.say(close(CloseCode.NORMAL, flags=0))
    assert node.session(peer).targets == []
    node.advance(1e6)
    assert node.dials == []
    node.add_target("a")
    assert len(node.dials) == 1


def test_a_peer_that_closed_for_now_is_dialled_again_later() -> None:
    node, peer = Node(), Peer()
    line = node.connect(peer, "dialer")
    line.say(close(CloseCode.NORMAL, flags=1))
    node.advance(29.9)
    assert node.dials == []
    node.advance(10.0)
    assert len(node.dials) == 1


def test_who_disconnects_does_not_dial() -> None:
    node, peer = Node(), Peer()
    line = node.connect(peer, "dialer")
    node.add_target("a", "another address")
    node.session(peer).disconnect(node.now)
    node.pump()
    assert line.farewell() is CloseCode.NORMAL
    assert line.connection.error is not None
    assert line.connection.error.resumable
    node.advance(1e6)
    assert node.dials == []
    node.session("stranger").disconnect(node.now)


def test_one_notice_for_each_way_of_failing_not_one_for_each_try() -> None:
    node, peer = Node(), Peer()
    target = node.add_target("a")
    for _ in range(5):
        node.refuse(OSError("no route"))
        node.until_dialled()
    [failed] = disconnections(node)
    assert isinstance(failed.error, DialFailed)
    assert "there: no route" in str(failed.error)
    assert failed.retry_at is not None
    for _ in range(5):
        line = node.answer(target)
        line.say(PREAMBLE, close(CloseCode.AUTH_FAILED))
        node.until_dialled()
    [refused] = disconnections(node)
    assert refused.error.code is CloseCode.AUTH_FAILED
    for _ in range(2):
        line = node.answer(target)
        line.say(PREAMBLE, peer.hello_ack(), peer.attach())
        line.lose()
        node.until_dialled()
        disconnections(node)
        node.refuse(OSError("no route"))  # after a success it is news again
        assert len(disconnections(node)) == 1
        node.until_dialled()


def test_a_dial_that_fails_for_nobody_in_particular_is_no_notice() -> None:
    node = Node()
    target = node.add_target(None)
    node.refuse()
    assert node.events == []
    assert isinstance(target.error, DialFailed)
    assert target.state is TargetState.WAITING


def test_what_happens_to_a_dial_that_is_not_under_way_is_ignored() -> None:
    node = Node()
    line, target = greeted(node)
    node.endpoint.dial_failed(node.attempts[target], node.now, OSError())
    assert target.state is TargetState.HANDSHAKING
    assert line.closed is None


@pytest.mark.parametrize("last", [b"", PREAMBLE])
def test_a_dial_that_was_answered_in_time_is_not_given_up(last: bytes) -> None:
    node = Node(config=Config(dial_timeout=2.0, handshake_timeout=60.0))
    target = node.add_target("a")
    node.advance(1.9)
    line = node.answer()
    assert target.timer_at == inf
    line.say(last)
    node.advance(50.0)
    assert node.abandoned == []
    assert line.closed is None


@pytest.mark.parametrize("dialling", [False, True], ids=["waiting", "dialling"])
def test_what_is_heard_of_a_dial_that_was_given_up_changes_nothing(dialling: bool) -> None:
    """Neither what the target does meanwhile, nor what becomes of it."""
    node, peer = Node(), Peer()
    target = node.add_target("a")
    node.advance(10.0)
    [dial] = node.abandoned
    [notice] = disconnections(node)
    assert str(notice.error) == "dialling failed: there: no answer in time"
    if dialling:
        node.until_dialled()
    before = (target.state, target.dial, target.attempts, target.error, target.retry_at)
    node.endpoint.dial_failed(dial, node.now, OSError("too late"))
    late = node.answer_late()
    late.lose()
    node.endpoint.dial_failed(dial, node.now, OSError("again"))
    assert (target.state, target.dial, target.attempts, target.error, target.retry_at) == before
    assert late.kinds() == [CLOSE]
    node.until_dialled()
    line = node.answer(target)
    line.say(PREAMBLE, peer.hello_ack(), peer.attach())
    assert node.session("a").connected
    node.answer_late()
    node.advance(1.0)
    assert doing(target) is TargetState.SATISFIED
    line.lose()
    assert doing(target) is TargetState.WAITING


def test_a_stream_is_made_of_a_dial_once() -> None:
    node = Node()
    line, target = greeted(node)
    again = node._line(node.endpoint.connect(node.attempts[target], node.now))
    assert again.kinds() == [CLOSE]
    assert target.state is TargetState.HANDSHAKING
    line.lose()
    node.until_dialled()
    assert node.dials == [target]


# -- taking targets away ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(TargetState))
def test_a_target_that_was_removed_is_not_dialled_whatever_it_was_doing(state: TargetState) -> None:
    node, peer = Node(), Peer()
    target = node.add_target("a")
    line: Line | None = None
    if state is TargetState.WAITING:
        node.refuse()
    elif state is TargetState.STOPPED:
        node.refuse()
        node.endpoint.remove_target(target)
    elif state is not TargetState.DIALLING:
        line = node.answer()
        if state is TargetState.SATISFIED:
            line.say(PREAMBLE, peer.hello_ack(), peer.attach())
    assert target.state is state
    node.endpoint.remove_target(target)
    node.pump()
    assert target.state is TargetState.STOPPED
    assert node.session(peer).targets == []
    assert not node.endpoint.targets
    if state is TargetState.DIALLING:
        assert [dial.target for dial in node.abandoned] == [target]
        line = node.answer_late()
        assert line.closed is not None
    elif state is TargetState.HANDSHAKING:
        assert line is not None
        line.say(PREAMBLE, peer.hello_ack(), peer.attach())
    if state is TargetState.SATISFIED:
        assert line is not None
        assert line.state is ConnectionState.LIVE
    if line is not None:
        line.lose()
    node.advance(1e6)
    assert node.dials == []
    assert node.session(peer).targets == []
    assert target.state is TargetState.STOPPED


def test_a_target_that_is_abandoned_takes_its_handshake_with_it_and_leaves_a_live_connection() -> None:
    node, peer = Node(), Peer()
    line, target = greeted(node)
    other = node.dial("z")
    node.endpoint.abandon_target(target, node.now)
    node.pump()
    assert line.farewell() is CloseCode.NORMAL
    assert other.closed is None
    line = node.connect(peer, "dialer")
    assert line.connection.target is not None
    node.endpoint.abandon_target(line.connection.target, node.now)
    node.pump()
    assert line.live
    assert not [target for target in node.endpoint.targets if target.to == "a"]


@pytest.mark.parametrize("end", [Session.disconnect, Session.abort])
def test_a_peer_that_is_given_up_takes_its_handshakes_with_it_and_nobody_elses(
    end: Callable[[Session, float], None]
) -> None:
    node = Node()
    live, pending = node.connect(Peer("z"), "dialer"), node.claim(Peer("y"), "dialer")
    assert live.connection.target is not None
    node.endpoint.remove_target(live.connection.target)  # which leaves the connection
    dial, accepted = node.claim(Peer("a"), "dialer"), node.claim(Peer("a"))
    end(node.session("a"), node.now)
    node.pump()
    assert [line.farewell() for line in (dial, accepted)] == [CloseCode.NORMAL] * 2
    assert live.live
    assert pending.closed is None


def test_a_dial_that_failed_after_its_target_was_removed_means_nothing() -> None:
    node = Node()
    target = node.add_target("a")
    node.endpoint.remove_target(target)
    node.refuse()
    assert target.state is TargetState.STOPPED
    assert node.events == []
    node.endpoint.remove_target(target)
    loose = node.add_target(None)
    node.endpoint.remove_target(loose)
    assert not node.endpoint.targets


# -- sessions that nobody has proved ----------------------------------------------------------------------------------


def test_a_session_appears_when_its_peer_has_proved_itself_and_not_before() -> None:
    node = Node()
    for role in ("acceptor", "dialer"):
        line = node.accept() if role == "acceptor" else node.dial(None)
        line.say(PREAMBLE, Peer("a").hello() if role == "acceptor" else Peer("a").hello_ack())
        assert node.endpoint.sessions == {}
        line.lose()
        assert node.endpoint.sessions == {}
    assert node.events == []


@pytest.mark.parametrize("peer_id", ["a", "z"])
def test_a_session_that_the_application_makes_during_the_handshake_is_the_one_that_goes_live(peer_id: str) -> None:
    """Whichever way it is settled, a message that was accepted meanwhile arrives."""
    node, peer = Node(), Peer(peer_id)
    line = node.dial(None)
    line.say(PREAMBLE, peer.hello_ack())
    node.send(peer, b"meanwhile")
    line.say(peer.attach())
    for _ in range(3):
        if line.state is not ConnectionState.LIVE:
            node.advance(2.0)
            line = node.answer()
            line.say(PREAMBLE, peer.hello_ack(), peer.attach())
    assert line.state is ConnectionState.LIVE
    assert b"meanwhile" in line.raw()
    assert node.session(peer).connection is line.connection


@pytest.mark.parametrize("peer_id", ["a", "z"])
def test_facts_are_stated_on_one_dial_at_a_time(peer_id: str) -> None:
    """Stated twice, they would be old on the dial that the peer reads last: it would seem that this side forgot."""
    node, peer = Node(), Peer(peer_id)
    first, second = (node.answer(node.add_target(peer_id, key)) for key in ("one", "two"))
    first.say(PREAMBLE, peer.hello_ack())
    assert first.kinds() == [HELLO, ATTACH]
    second.say(PREAMBLE, peer.hello_ack())
    assert ATTACH not in [item.kind for item in second.heard()[:-1]]
    assert second.connection.error is not None
    assert second.connection.error.code is CloseCode.COLLISION
    first.lose()
    node.advance(3.0)
    third = node.answer(node.dials[0])
    third.say(PREAMBLE, peer.hello_ack(), peer.attach())
    assert third.state is ConnectionState.LIVE


def test_facts_are_not_stated_on_an_older_dial_than_before() -> None:
    """The newer dial is lost here, its ATTACH may still be read there: it would pass for news after the older one."""
    node, peer = Node(), Peer()
    older, newer = (node.answer(node.add_target("a", key)) for key in ("one", "two"))
    newer.say(PREAMBLE, peer.hello_ack())
    newer.lose()
    older.say(PREAMBLE, peer.hello_ack())
    assert older.farewell() is CloseCode.COLLISION


def test_two_dials_to_whoever_answers_that_reach_the_same_peer_make_one_session() -> None:
    node, peer = Node(), Peer()
    targets = [node.add_target(None, key) for key in ("one", "two")]
    lines = [node.answer(target) for target in targets]
    for line in lines:
        line.say(PREAMBLE, peer.hello_ack())
    for line in lines:
        line.say(peer.attach())
    assert len(node.endpoint.sessions) == 1
    assert sum(line.state is ConnectionState.LIVE for line in lines) == 1


def test_an_arbiter_counts_its_generations_on_though_no_handshake_succeeds() -> None:
    """P-ATT-9: the follower took generation 1, its answer was lost, and it would refuse another 1 for ever."""
    node, peer = Node(), Peer("a")
    stated = []
    for _ in range(4):
        line = node.answer() if node.dials else node.dial(None)
        line.say(PREAMBLE, peer.hello_ack())
        [_, attach] = line.heard()
        assert attach.kind == ATTACH
        stated.append(attach.body.split(b"\xaageneration")[1][0])
        line.lose()
        node.advance(5.0)
    assert stated == [1, 2, 3, 4]


def test_a_peer_that_answers_under_ever_new_names_is_forgotten() -> None:
    node = Node()
    line = node.dial(None)
    for number in range(500):
        line.say(PREAMBLE, Peer(f"a{number}").hello_ack())
        line.lose()
        node.until_dialled()
        line = node.answer()
    assert node.endpoint.sessions == {}
    assert len(node.endpoint._provisional) <= 64
    assert not node.endpoint._introduced


def test_a_session_that_was_made_after_its_handshake_was_forgotten_makes_it_anew() -> None:
    """The facts that were stated are not those of the session that the application has."""
    node, peer = Node(), Peer()
    line = node.dial(None)
    line.say(PREAMBLE, peer.hello_ack())
    for number in range(64):
        node.dial(None).say(PREAMBLE, Peer(f"b{number}").hello_ack())
    node.send(peer, b"meanwhile")
    line.say(peer.attach())
    assert line.farewell() is CloseCode.RETRY
    node.advance(0.05)
    [target] = node.dials
    assert target is line.connection.target
    again = node.answer()
    again.say(PREAMBLE, peer.hello_ack(), peer.attach())
    assert again.state is ConnectionState.LIVE
    assert b"meanwhile" in again.raw()


def test_a_connection_that_is_refused_after_it_took_anothers_place_leaves_no_target_satisfied() -> None:
    """The peer dropped the session between two connections: the second must be made anew, the first is gone."""
    node, peer = Node(), Peer("z")
    dial = node.claim(peer, "dialer")
    assert dial.connection.target is not None
    accepted = node.connect(peer)
    other = node.add_target("z", "another address")
    assert doing(other) is TargetState.SATISFIED
    outbox = node.session(peer).outbox
    final = {"outbox": outbox.outbox_id, "run": outbox.run, "received": 0, "read": 0, "first": 1, "why": 2}
    dial.say(peer.attach(ended=[final]))
    assert accepted.farewell() is CloseCode.SUPERSEDED
    assert dial.farewell() is CloseCode.RETRY
    assert not node.session(peer).connected
    assert doing(other) is TargetState.WAITING
    assert node.endpoint.inbox_reserved == 0


@pytest.mark.parametrize("to", [None, "a"])
def test_handshakes_that_fail_leave_no_window_reserved(to: str | None) -> None:
    node, peer = Node(), Peer()
    line = node.dial(to)
    for _ in range(5):
        line.say(PREAMBLE, peer.hello_ack())
        line.say(close(CloseCode.OVERLOAD))
        assert node.endpoint.inbox_reserved == 0
        node.until_dialled()
        line = node.answer()
    line.say(PREAMBLE, peer.hello_ack(), peer.attach())
    assert node.endpoint.inbox_reserved > 0
    line.lose()
    assert node.endpoint.inbox_reserved == 0


# -- sessions that are over -------------------------------------------------------------------------------------------


def finished(node: Node, peer: Peer) -> Line:
    """A dial on which both FINs are read; the acceptor's last word has not come."""
    line = node.connect(peer, "dialer")
    node.session(peer).end(node.now)
    node.pump()
    line.say(fin(1), ack(1, 1))
    assert line.closed is None
    line.raw()
    return line


def test_a_finished_dialer_whose_acceptors_last_word_was_lost_asks_once_more_and_says_it_itself() -> None:
    """P-END-6."""
    node, peer = Node(), Peer()
    finished(node, peer).lose()
    node.advance(5.0)
    line = node.answer()
    line.say(PREAMBLE, Peer().hello_ack(), Peer().attach(outbox=b"another outbox,,"))
    assert line.farewell() is CloseCode.NORMAL
    assert line.connection.error is not None
    assert not line.connection.error.resumable
    node.advance(1000.0)
    assert node.dials == []
    assert not node.endpoint.targets


def test_the_last_word_on_the_old_session_does_not_end_the_one_that_was_asked_for_meanwhile() -> None:
    node, peer = Node(), Peer()
    line = finished(node, peer)
    node.add_target("a")
    node.send(peer, b"more")
    line.say(close(CloseCode.NORMAL, flags=0))
    node.advance(1.0)
    assert node.dials
    again = node.answer(node.dials[0])
    again.say(PREAMBLE, peer.hello_ack(), peer.attach(outbox=b"another outbox,,"))
    assert b"more" in again.raw()


# -- effects and notices ----------------------------------------------------------------------------------------------


def test_nothing_to_do_and_nothing_to_tell_is_none() -> None:
    node = Node()
    assert node.endpoint.next_effect() is None
    assert node.endpoint.next_event() is None
    assert node.endpoint.notices_waiting == 0
    assert node.endpoint.get_timer() is None
    node.endpoint.handle_timer(node.now)


def test_notices_wait_until_they_are_taken_one_of_a_kind_for_each_peer() -> None:
    node = Node()
    endpoint = node.endpoint
    lines = [node.connect(Peer(f"a{number}")) for number in range(3)]
    node.events.clear()
    for _ in range(5):
        for line in lines:
            sequence = line.connection.session.inbox.received + 1  # type: ignore[union-attr]
            line.feed(data(sequence))
    wakes = []
    while (effect := endpoint.next_effect()) is not None:
        if isinstance(effect, Wake):
            wakes.append(effect)
    assert len(wakes) == 1
    assert endpoint.notices_waiting == 3
    assert [endpoint.next_event() for _ in range(4)] == [*(MessagesReady(f"a{number}") for number in range(3)), None]
    lines[0].feed(data(6))
    assert [type(endpoint.next_effect()) for _ in range(2)] == [Wake, type(None)]
    assert endpoint.next_event() == MessagesReady("a0")


def test_a_link_is_told_as_it_is_when_the_notice_is_taken() -> None:
    node, peer = Node(), Peer()
    line = node.accept()
    line.feed(PREAMBLE + peer.hello())
    line.feed(peer.attach())
    assert node.endpoint.notices_waiting == 1
    line.connection.connection_lost(node.now)
    node.pump()
    assert [type(event) for event in node.events] == [PeerDisconnected]
    node.connect(peer)
    assert [type(event) for event in node.events] == [PeerDisconnected, PeerConnected]


def test_a_session_that_waits_for_something_is_woken_once() -> None:
    node, peer = Node(), Peer()
    session = node.session(peer)
    session.watch = Watch.READABLE | Watch.LINK
    line = node.connect(peer)
    assert node.wakes == [session]
    line.feed(data(1) + data(2))
    line.feed(data(3))
    node.pump()
    assert node.wakes == [session] * 2
    session.watch = 0
    line.say(data(4))
    assert node.wakes == [session] * 2


def test_who_was_refused_for_want_of_room_in_the_node_is_woken_when_there_is_some() -> None:
    node = Node(config=Config(outbox_node_limit=1000))
    peers = Peer("a"), Peer("b")
    lines = [node.connect(peer) for peer in peers]
    node.send("a", bytes(1000))
    session = node.session("b")
    session.watch = Watch.ROOM
    with pytest.raises(OutboxFull):
        session.send(b"x", node.now)
    assert node.endpoint.outbox_cost == 1064
    lines[0].say(ack(1, 0))
    assert node.wakes == []
    lines[0].say(ack(1, 1))
    assert node.endpoint.outbox_cost == 0
    assert node.wakes == [session]
    node.send("b", b"x")


def test_the_room_of_the_node_is_not_given_out_before_it_is_there() -> None:
    node = Node(config=Config(outbox_node_limit=1000))
    lines = [node.connect(Peer(peer_id)) for peer_id in ("a", "b")]
    node.send("a", bytes(10), bytes(2000))
    session = node.session("b")
    session.watch = Watch.ROOM
    with pytest.raises(OutboxFull):
        session.send(b"x", node.now)
    lines[0].say(ack(1, 1))
    assert node.wakes == []
    assert session.watch == Watch.ROOM
    lines[0].say(ack(2, 2))
    assert node.wakes == [session]


def test_every_dial_of_a_node_has_a_greater_number_than_all_before() -> None:
    """P-HELLO-1, to whomever it is sent."""
    node = Node()
    numbers = []
    for peer_id in ("a", "z", "a", "b"):
        line = node.dial(peer_id)
        [hello] = line.heard()
        assert hello.kind == HELLO
        numbers.append(hello.body.split(b"\xa4dial")[1][0])
        line.lose()
    assert numbers == [1, 2, 3, 4]


def test_a_driver_is_asked_for_one_byte_stream_at_a_time() -> None:
    endpoint = Node().endpoint
    target = endpoint.add_target("there", 0.0, to="a")
    effect = endpoint.next_effect()
    assert isinstance(effect, Dial)
    assert effect.target is target
    assert endpoint.next_effect() is None


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_node_that_leaves_says_so_on_every_connection_and_dials_no_more() -> None:
    node = Node()
    live = [node.connect(Peer("a"), "dialer"), node.connect(Peer("b"))]
    early = [node.claim(Peer("c")), node.dial("d")]
    silent = node.accept()
    waiting = node.add_target("e")
    node.fail(waiting)
    under_way = node.add_target("f")
    session = node.session("a")
    session.watch = Watch.READABLE
    for line in (*live, *early, silent):
        line.raw()
    node.endpoint.close(node.now)
    node.pump()
    assert [line.farewell() for line in (*live, *early)] == [CloseCode.RESTARTING] * 4
    assert silent.ended() is CloseCode.RESTARTING
    assert session in node.wakes
    assert not node.endpoint.connections
    assert not node.endpoint.targets
    with pytest.raises(NodeClosed):
        session.send(b"x", node.now)
    with pytest.raises(NodeClosed):
        node.add_target("a")
    assert [dial.target for dial in node.abandoned] == [waiting, under_way]
    assert node.answer_late().closed is not None
    assert node.accept().closed is not None
    node.endpoint.close(node.now)
    node.advance(1e4)
    assert node.dials == []


def test_a_node_that_leaves_does_not_take_a_newcomer_in_the_incumbents_place() -> None:
    """The incumbent answers, so its session is not another process's because this node goes (P-ARB-3)."""
    node, peer, twin = Node(), Peer("a", life=1), Peer("a", life=2)
    node.send(peer, b"unread")
    incumbent, newcomer = node.connect(peer), node.claim(twin)
    newcomer.say(twin.attach())
    assert newcomer.parked
    before = fingerprint(node.endpoint, connected=False)
    node.endpoint.close(node.now)
    node.pump()
    assert incumbent.farewell() is newcomer.farewell() is CloseCode.RESTARTING
    assert fingerprint(node.endpoint, connected=False) == before
    assert node.session(peer).connections == 1


def test_a_node_can_leave_with_another_word() -> None:
    node = Node()
    line = node.connect(Peer())
    node.endpoint.close(node.now, CloseCode.NORMAL)
    node.pump()
    assert line.farewell() is CloseCode.NORMAL


def test_a_session_survives_its_connections() -> None:
    node, peer = Node(), Peer()
    line = node.connect(peer)
    node.send(peer, b"one", b"two")
    line.say(data(1), ack(1, 0))
    node.advance(1.0)
    facts = fingerprint(node.endpoint, connected=False)
    line.lose()
    assert fingerprint(node.endpoint, connected=False) == facts
    assert node.session(peer).unacknowledged == 2
    assert node.read(peer) == [b"payload"]


def test_a_node_with_a_journal_hands_out_what_is_to_be_written_and_takes_it_back() -> None:
    """What it means for messages and positions is in ``test_journal.py``."""
    node, again = Node(journal=True), Node(journal=True, seed=2)
    node.connect(Peer())
    node.send("a", b"durable")
    records: list[JournalRecord] = []
    while (batch := node.endpoint.journal_request()) is not None:
        assert node.endpoint.journal_request() is None
        records += batch.records
        node.endpoint.journal_done(batch.token, node.now)
        node.pump()
    again.endpoint.restore(records, again.now)
    assert again.session("a").unacknowledged == 1
    assert b"durable" in again.connect(Peer()).raw()


def test_a_node_without_a_journal_asks_for_nothing_to_be_written() -> None:
    node, peer = Node(), Peer()
    node.connect(peer).say(data(1))
    node.send(peer, b"x")
    node.read(peer)
    assert node.endpoint.journal_request() is None
    with pytest.raises(ValueError, match="no journal"):
        node.endpoint.journal_done(1, node.now)
    before = fingerprint(node.endpoint)
    node.endpoint.restore([], node.now)
    assert fingerprint(node.endpoint) == before
