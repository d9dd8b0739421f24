"""A node as its application sees it: its peers, sending to many, notices, first answers, draining, its end."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from math import inf
from unittest.mock import Mock

import pytest

from networkio_proto import (
    AddressError,
    AuthenticationFailed,
    Close,
    Config,
    ConfigurationError,
    Dial,
    DialFailed,
    EncodeError,
    Limits,
    Log,
    MessagesReady,
    MessageTooLarge,
    MsgpackCodec,
    NodeClosed,
    OutboxFull,
    PeerConnected,
    PeerDisconnected,
    SelfConnection,
    SessionClosed,
    Target,
    TargetState,
    Transmit,
    Watch,
)
from networkio_proto.auth import Insecure
from networkio_proto.nodes import Address, NodeHandle, address_error, in_use
from networkio_proto.turns import Turns
from networkio_testing.node import SimulatedNode, SimulatedPeer, SimulatedReceipt
from networkio_testing.world import World
from tests.proto.helpers import Waiting, two
from tests.proto.helpers_auth import HmacAuth
from tests.proto.helpers_node import Driver, Net, Stream


def star(*names: str, config: Config | None = None, codec: MsgpackCodec | None = None) -> tuple[World, SimulatedNode]:
    """A node "hub" that is connected to nodes of these names, and has told of it."""
    world = World()
    hub = SimulatedNode(world.host("hub", config), codec=codec)
    for name in names:
        world.host(name)
        hub.connect(name, name)
    world.run(1.0)
    while hub.next_notice(0) is not None:
        pass
    return world, hub


class Counting(MsgpackCodec):
    """Counts how often it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded = 0

    def encode(self, obj: object) -> bytes:
        self.encoded += 1
        return super().encode(obj)


# -- facts ------------------------------------------------------------------------------------------------------------


def test_what_only_a_driver_has_the_core_has_not() -> None:
    node: NodeHandle[object] = NodeHandle("n", auth="insecure")
    session = node.endpoint.session("a")
    dial = Dial(Target(node.endpoint, "somewhere", None))
    missing: list[Callable[[], object]] = [
        node.enter, node.leave, node.token, node.nudge, lambda: node.make_peer(session), lambda: node.dial(dial),
        lambda: node.abandon(dial),
        lambda: node.make_link(node.endpoint.accept(0.0), object()), lambda: node.log(Log(20, "", ())),
    ]  # fmt: skip
    for part in missing:
        with pytest.raises(NotImplementedError):
            part()
    assert (node.id, node.closed) == ("n", False)
    assert isinstance(node.endpoint.auth, Insecure)


def test_a_nodes_ledger_is_that_of_all_its_peers() -> None:
    _, hub = star("a", "b")
    hub.broadcast(1)
    hub.peer("later").send_nowait(2)
    assert hub.ledger.accepted == 3


def test_payloads_are_encoded_or_bytes() -> None:
    hub = star()[1]
    data, changing = b"as it is", bytearray(b"changes")
    assert hub.payload(1, raw=False) == b"\x01"
    assert hub.payload(data, raw=True) is data
    copied = hub.payload(changing, raw=True)
    view = hub.payload(memoryview(changing), raw=True)
    changing[0] = 0
    assert type(copied) is type(view) is bytes
    assert copied == view == b"changes"
    with pytest.raises(EncodeError, match="a raw message is bytes, not str"):
        hub.payload("text", raw=True)


def test_addresses_are_looked_at_before_they_are_used() -> None:
    careful, careless = NodeHandle[object]("n"), NodeHandle[object]("n", auth="insecure")
    careful.check_address("127.0.0.1", 0, least=0)
    careless.check_address("192.0.2.1", 65535, least=1)
    with pytest.raises(ConfigurationError, match="not loopback"):
        careful.check_address("192.0.2.1", 80, least=1)
    for port in (0, -1, 65536, "80", None):
        with pytest.raises(ConfigurationError, match="is not a port: a number from 1 to 65535"):
            careful.check_address("127.0.0.1", port, least=1)  # type: ignore[arg-type]


def test_why_an_address_cannot_be_listened_on_is_said_in_words_that_help() -> None:
    assert isinstance(in_use("x"), AddressError)
    used = address_error("host port 1", OSError(errno.EADDRINUSE, "taken"))
    assert str(used) == str(in_use("host port 1")) == (
        "cannot listen on host port 1: the address is in use by another process; choose another one or stop it"
    )
    assert str(address_error("nowhere", socket.gaierror(8, "no"))).endswith("the host name does not resolve")
    assert str(address_error("here", OSError(errno.EACCES, "Permission\ndenied"))).endswith("here: Permission\\ndenied")
    assert str(address_error("here", OSError("odd"))) == "cannot listen on here: odd"


def test_a_driver_prepares_its_own_when_the_rest_is_there() -> None:
    prepared: list[str] = []

    class Prepared(NodeHandle[object]):
        def prepare(self) -> None:
            assert (self.closed, self._links, self.turns, self.endpoint.peer_id) == (False, {}, None, self.id)
            prepared.append(self.id)

    Prepared("n")
    assert prepared == ["n"]


def test_a_node_shows_how_many_connections_it_has() -> None:
    net = Net()
    a = net.node("a")
    assert repr(a) == "<Node a 0 connections>"
    net.connected(a, net.node("b"))
    net.connected(a, net.node("c"))
    assert repr(a) == "<Node a 2 connections>"
    a.close()
    assert repr(a) == "<Node a closed>"


# -- peers ------------------------------------------------------------------------------------------------------------


def test_a_peer_is_one_object_however_it_became_known() -> None:
    pair = two()
    assert pair.a.peer("b") is pair.to_b
    assert pair.a.connect("b", "b") is pair.to_b
    assert pair.a.peers == [pair.to_b]
    assert pair.to_b.session.handle is pair.to_b


def test_peers_are_met_when_they_come() -> None:
    world, hub = star()
    newcomer = SimulatedNode(world.host("newcomer"))
    newcomer.connect("hub", "hub").send_nowait(1)
    assert hub.peers == []
    world.run(1.0)
    (peer,) = hub.peers
    assert peer.id == "newcomer"
    assert peer.read() == 1


def test_a_session_of_which_only_the_core_knew_gets_its_peer_when_it_is_woken() -> None:
    world, hub = star("a")
    session = hub.endpoint.session("b", world.now)
    session.watch = Watch.ROOM
    session.wake_for_room()
    hub.host.pump()
    assert session.handle is hub.peer("b")
    assert session.watch == 0


def test_an_unusable_id_is_refused_and_nothing_is_made() -> None:
    hub = star()[1]
    for name in ("no spaces", "", "hub"):
        with pytest.raises(ConfigurationError):
            hub.peer(name)
        with pytest.raises(ConfigurationError):
            hub.broadcast(1, ["fine", name])
    assert [peer.unacknowledged for peer in hub.peers] == [0]


# -- sending to many --------------------------------------------------------------------------------------------------


def test_a_broadcast_is_encoded_once_and_reaches_every_peer() -> None:
    codec = Counting()
    world, hub = star("a", "b", "c", codec=codec)
    others = [SimulatedNode(world.hosts[name]) for name in "abc"]
    receipts = hub.broadcast({"all": True}, headers={"k": 1})
    assert codec.encoded == 1
    assert [peer.id for peer in receipts] == ["a", "b", "c"]
    for other in others:
        message = other.peer("hub").receive()
        assert (message.data, message.headers) == ({"all": True}, {"k": 1})
        message.ack()
    for receipt in receipts.values():
        receipt.read(1.0)


def test_a_broadcast_goes_to_those_who_were_chosen_once_each() -> None:
    _, hub = star("a", "b")
    a = hub.peer("a")
    receipts = hub.broadcast(b"x", [a, "new", "a"], raw=True, ttl=5.0)
    assert [peer.id for peer in receipts] == ["a", "new"]
    assert [peer.unacknowledged for peer in hub.peers] == [1, 0, 1]


def test_a_peer_that_takes_nothing_gets_its_error_and_holds_up_nobody() -> None:
    _, hub = star("full", "ended", "fine", config=Config(outbox_limit=1))
    hub.peer("full").send_nowait(1)
    hub.peer("ended").end()
    results = {peer.id: result for peer, result in hub.broadcast(2).items()}
    assert [type(results[name]) for name in ("full", "ended", "fine")] == [OutboxFull, SessionClosed, SimulatedReceipt]
    assert hub.peer("fine").unacknowledged == 1


def test_what_is_wrong_with_the_message_itself_is_raised_and_nothing_was_sent() -> None:
    _, hub = star("a", "b", config=Config(limits=Limits(message=100)))
    wrong: list[tuple[object, Mapping[str, object]]] = [
        (object(), {}),
        (1, {"headers": {".mine": 1}}),
        (1, {"headers": {"mine": object()}}),
        (1, {"ttl": -1.0}),
    ]
    for thing, options in wrong:
        with pytest.raises((EncodeError, ConfigurationError)):
            hub.broadcast(thing, **options)  # type: ignore[arg-type]
    assert {type(error) for error in hub.broadcast(bytes(101), raw=True).values()} == {MessageTooLarge}
    assert hub.ledger.accepted == 0
    hub.close(0)
    with pytest.raises(NodeClosed):
        hub.broadcast(1)


def test_request_numbers_are_never_the_same() -> None:
    hub, other = star()[1], SimulatedNode(World(1).host("hub"))
    numbers = [node.request_number() for node in (hub, other, hub, other)]
    assert {len(number) for number in numbers} == {16}
    assert len(set(numbers)) == 4


# -- notices ----------------------------------------------------------------------------------------------------------


def test_the_next_notice_is_there_or_comes_or_does_not() -> None:
    pair = two()
    while pair.b.next_notice(0) is not None:
        pass
    begun = Waiting(pair.b, pair.b._noticing())
    gone = Waiting(pair.b, pair.b._noticing())
    gone.cancel()
    pair.to_b.send_nowait(1)
    pair.world.run(1.0)
    assert begun.look().result == MessagesReady(pair.to_a)
    assert Waiting(pair.b, pair.b._noticing()).time_up().result is None
    assert pair.left() == []
    pair.b.close(0)
    assert isinstance(pair.b.next_notice(0), PeerDisconnected)  # what is there can still be taken
    with pytest.raises(NodeClosed):
        pair.b.next_notice(0)


def test_a_callback_is_called_when_notices_begin_to_wait_and_not_for_each() -> None:
    world, hub = star("a")
    calls: list[str] = []
    hub.on_notice(lambda: calls.append("hub"))
    assert calls == []
    a = SimulatedNode(world.hosts["a"]).peer("hub")
    for number in range(3):
        a.send_nowait(number)
        world.run(1.0)
        hub.peer("a").send_nowait(number)
        world.run(1.0)
    assert calls == ["hub"]
    assert hub.next_notice(0) is not None
    a.disconnect()
    world.run(1.0)
    assert calls == ["hub"]  # not all were taken
    while hub.next_notice(0) is not None:
        pass
    a.send_nowait("more")
    world.run(1.0)
    hub.connect("a", "a")
    world.run(1.0)
    assert calls == ["hub", "hub"]


def test_a_callback_that_comes_late_is_called_at_once() -> None:
    world, hub = star("a")
    SimulatedNode(world.hosts["a"]).peer("hub").send_nowait(1)
    world.run(1.0)
    calls: list[int] = []
    hub.on_notice(lambda: calls.append(1))
    assert calls == [1]


# -- the first answer -------------------------------------------------------------------------------------------------


def test_whoever_answers_is_the_peer() -> None:
    world, hub = star()
    world.host("somebody", peer_id="else")
    peer = hub.connect("somebody")
    assert isinstance(peer, SimulatedPeer)
    assert (peer.id, peer.connected) == ("else", True)
    assert hub._watchers == []


def test_an_answer_that_is_not_there_yet_is_waited_for() -> None:
    world, hub = star()
    host = world.host("late")
    host.listening = False
    host.call_at(world.now + 100.0, lambda: setattr(host, "listening", True))
    assert hub.connect("late").id == "late"
    assert world.now >= 1101.0


def test_what_only_a_human_can_mend_is_raised_and_the_dial_given_up() -> None:
    world, hub = star()
    world.host("mirror", peer_id="hub")
    with pytest.raises(SelfConnection):
        hub.connect("mirror")
    assert not hub.endpoint.targets
    world.host("locked", auth=HmacAuth(b"key"))
    with pytest.raises(AuthenticationFailed):
        hub.connect("locked")
    assert not hub.endpoint.targets
    assert hub._watchers == []


def test_a_name_that_does_not_resolve_is_hopeless_and_a_refusal_is_not() -> None:
    world, hub = star()
    hub.enter()
    target = hub.endpoint.add_target("nowhere", world.now)
    hub.leave()
    waiting = Waiting(hub, hub._answering(target))
    assert target.dial is not None
    hub.endpoint.dial_failed(target.dial, world.now, ConnectionRefusedError("refused"))
    hub.host.pump()
    assert waiting.woken
    assert not waiting.look().over
    hub.endpoint.dial(target, world.now)
    hub.endpoint.dial_failed(target.dial, world.now, socket.gaierror(8, "not known"))
    hub.host.pump()
    with pytest.raises(DialFailed, match="not known"):
        _ = waiting.look().result
    assert target.state is TargetState.STOPPED


def test_waiting_for_an_answer_that_is_cancelled_dials_no_more() -> None:
    world, hub = star()
    world.host("slow")
    hub.enter()
    target = hub.endpoint.add_target("slow", world.now)
    hub.leave()
    waiting = Waiting(hub, hub._answering(target))
    (wire,) = hub.host.answer_dials()
    waiting.cancel()
    assert target.state is TargetState.STOPPED
    world.run(100.0)
    assert not wire.open
    assert hub.peers == []
    with pytest.raises(TimeoutError):
        hub.connect("nobody there", timeout=3.0)
    assert not hub.endpoint.targets


def test_waiting_for_an_answer_ends_with_the_node() -> None:
    world, hub = star()
    hub.enter()
    target = hub.endpoint.add_target("nowhere", world.now)
    hub.leave()
    waiting = Waiting(hub, hub._answering(target))
    hub.close(0)
    with pytest.raises(NodeClosed):
        _ = waiting.look().result


# -- draining and the end ---------------------------------------------------------------------------------------------


def test_draining_refuses_new_messages_at_all_peers_and_takes_them_again_after() -> None:
    world, hub = star("a", "b")
    hub.broadcast(1)
    draining = Waiting(hub, hub._draining())
    for name in ("a", "b"):
        with pytest.raises(SessionClosed, match="draining"):
            hub.peer(name).send_nowait(2)
    hub.peer("later").send_nowait(2)
    for name in ("a", "b"):
        assert not draining.look().over
        assert SimulatedNode(world.hosts[name]).peer("hub").read() == 1
        world.run(1.0)
    assert draining.look().result.unread == 1  # of the peer that came later
    for name in ("a", "b"):
        hub.peer(name).send_nowait(2)


@pytest.mark.parametrize("how", ["time up", "cancelled"])
def test_draining_that_is_given_up_lets_sending_go_on(how: str) -> None:
    _, hub = star("a", "b")
    hub.broadcast(1)
    draining = Waiting(hub, hub._draining())
    if how == "cancelled":
        draining.cancel()
    else:
        assert draining.time_up().result.unread == 2
    assert len(hub.broadcast(2)) == 2
    assert hub.ledger.accepted == 4
    assert [peer._waiters for peer in hub.peers] == [[], []]


def test_the_end_of_the_node_is_told_to_those_who_watch_it() -> None:
    pair = two()
    while pair.a.next_notice(0) is not None:
        pass
    watching = Waiting(pair.a, pair.a.changing())
    pair.a.enter()
    pair.a.gone()
    pair.a.leave()
    assert watching.woken
    pair.world.run(10.0)
    told = [pair.b.next_notice(0) for _ in range(2)]
    assert [type(notice) for notice in told if notice is not None] == [PeerDisconnected]
    assert not isinstance(told[0], PeerConnected)


# -- streams ----------------------------------------------------------------------------------------------------------


def dialling(node: Driver, address: str) -> Dial:
    """Let it dial; the dial is not answered yet."""
    with node.inside as now:
        target = node.endpoint.add_target(address, now, to=address)
    (dial,) = node.dials
    assert dial.target is target
    node.dials.clear()
    return dial


def dialling_again(node: Driver, target: Target) -> Dial:
    """It is dialled once more, at once."""
    with node.inside as now:
        node.endpoint.dial(target, now)
    return node.dials.pop()


def test_every_effect_goes_where_it_belongs() -> None:
    net = Net()
    a = net.node("a")
    net.connected(a, net.node("b"))
    net.connected(a, net.node("c"))
    to_b, to_c = a.links
    to_b.told.clear()
    to_c.told.clear()
    a.lines.clear()
    line, target = Log(30, "%s happened", ("this",)), Target(a.endpoint, "somewhere", None)
    with a.inside as now:
        a.endpoint.effects.extend([Transmit(to_b.core), line])
        a.endpoint.dial(target, now)
        a.endpoint.effects.append(Close(to_c.core, False))
    assert (to_b.told, to_c.told) == (["transmit"], ["drop"])
    assert (a.lines, a.dials) == ([line], [target.dial])
    with a.inside:
        a.endpoint.remove_target(target)
    assert a.dials == []
    assert a.endpoint.next_effect() is None


def test_effects_for_links_that_are_gone_are_passed_over() -> None:
    net = Net()
    a = net.node("a")
    net.connected(a, net.node("b"))
    net.connected(a, net.node("c"))
    gone, other = a.links
    gone.drop()
    gone.told.clear()
    other.told.clear()
    with a.inside:
        a.endpoint.effects.extend([Transmit(gone.core), Close(gone.core, True), Transmit(other.core)])
    assert (gone.told, other.told) == ([], ["transmit"])
    a.unlink(gone)  # once more is harmless
    assert a.links == [other]


def test_a_stream_that_somebody_else_accepted_is_served_and_its_source_counts() -> None:
    net = Net()
    b = net.node("b", Config(max_pending_per_source=1))
    streams = [Stream() for _ in range(3)]
    b.serve_stream(streams[0], source="192.0.2.1")
    b.serve_stream(streams[1], source="192.0.2.1")
    b.serve_stream(streams[2], source="192.0.2.2")
    assert [link.stream for link in b.links] == streams
    assert [link.closing for link in b.links] == [False, True, False]


def test_a_closed_node_serves_no_stream() -> None:
    a = Net().node("a")
    a.close()
    stream = Stream()
    with pytest.raises(NodeClosed, match="node a is closed"):
        a.serve_stream(stream)
    assert (a.links, stream.link, list(a.endpoint.connections)) == ([], None, [])


def test_connecting_to_a_peer_does_not_wait_and_connecting_to_an_address_does() -> None:
    net = Net()
    a = net.node("a")
    named = Waiting(a, a.connecting("b", "b"))
    assert named.result is a.peer("b")
    anybody = Waiting(a, a.connecting("c", None))
    assert [dial.target.key for dial in a.dials] == ["b", "c"]
    net.node("b")
    net.node("c")
    net.run()
    assert a.peer("b").connected
    assert anybody.look().result is a.peer("c")
    assert a.peer("c").connected


def test_connecting_that_is_cancelled_dials_no_more_and_closed_nodes_do_not_begin() -> None:
    a = Net().node("a")
    waiting = Waiting(a, a.connecting("nobody", None))
    (dial,) = a.dials
    waiting.cancel()
    assert (a.dials, dial.target.state, list(a.endpoint.targets), a._watchers) == ([], TargetState.STOPPED, [], [])
    a.close()
    for peer_id in ("b", None):
        with pytest.raises(NodeClosed, match="node a is closed"):
            _ = Waiting(a, a.connecting("b", peer_id)).result
    assert (a.dials, a.peers) == ([], [])


def test_a_driver_may_have_its_own_reason_to_refuse_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_yet() -> None:
        raise NodeClosed("not open yet")

    a = Net().node("a")
    monkeypatch.setattr(a, "check_open", not_yet)
    with pytest.raises(NodeClosed, match="not open yet"):
        _ = Waiting(a, a.connecting("b", "b")).result
    assert (a.dials, list(a.endpoint.targets)) == ([], [])


def test_a_dial_ends_in_a_stream_or_in_an_error() -> None:
    net = Net()
    a = net.node("a")
    dial = dialling(a, "b")
    target = dial.target
    refused = ConnectionRefusedError("refused")
    a.dialled(dial, None, refused)
    assert isinstance(target.error, DialFailed)
    assert target.error.__cause__ is refused
    assert (target.state, a.links) == (TargetState.WAITING, [])
    net.wait(60.0)  # its timer is served; nobody is there yet
    assert target.attempts == 2
    a.dialled(dialling_again(a, target), None, None)
    assert str(target.error) == "dialling failed: b: there is no stream"
    stream = Stream()
    a.dialled(dialling_again(a, target), stream, None)
    assert (target.state, [link.stream for link in a.links]) == (TargetState.HANDSHAKING, [stream])
    assert a.links[0].told == ["transmit"]
    assert stream.out


def test_a_stream_that_nobody_wants_any_more_is_closed() -> None:
    a = Net().node("a")
    dial = dialling(a, "b")
    a.peer("b").disconnect()
    a.dialled(dial, Stream(), None)
    assert [link.closing for link in a.links] == [True]


def test_timers_are_served_when_they_are_due() -> None:
    net = Net()
    a = net.node("a")
    dial = dialling(a, "b")
    target = dial.target
    a.dialled(dial, None, OSError("no"))
    assert target.retry_at is not None
    net.now = target.retry_at - 0.001
    a.tick()
    assert a.dials == []
    net.now = target.retry_at
    a.tick()
    assert a.dials == [target.dial] != [dial]


# -- opening, and waiting for the end ---------------------------------------------------------------------------------


def test_a_node_is_opened_once_and_not_after_its_end() -> None:
    a, b = Net().node("a"), Net().node("b")
    a.begin()
    with pytest.raises(NodeClosed, match="node a was used before; make a new one"):
        a.begin()
    b.close()
    with pytest.raises(NodeClosed, match="node b was used before"):
        b.begin()


def test_it_is_empty_when_the_last_stream_is_gone() -> None:
    net = Net()
    a = net.node("a")
    assert Waiting(a, a.emptying()).over
    net.connected(a, net.node("b"))
    net.connected(a, net.node("c"))
    first, second = a.links
    waiting, impatient = Waiting(a, a.emptying()), Waiting(a, a.emptying())
    first.drop()
    assert waiting.woken
    assert not waiting.look().over
    assert impatient.time_up().over
    assert impatient.result is None
    second.drop()
    assert waiting.look().over
    assert a._watchers == []


def test_the_end_is_waited_for_until_it_comes() -> None:
    a = Net().node("a")
    waiting = Waiting(a, a.ending())
    with a.inside:
        a.wake_watchers()
    assert waiting.woken
    assert not waiting.look().over
    a.close()
    assert waiting.look().over
    assert Waiting(a, a.ending()).over


def test_how_long_to_drain_is_as_given_or_configured_and_nothing_after_the_end() -> None:
    a = Net().node("a", Config(drain_timeout=7.0))
    assert [a.drain_time(timeout) for timeout in (None, 0.0, 2.0)] == [7.0, 0.0, 2.0]
    a.close()
    assert [a.drain_time(timeout) for timeout in (None, 2.0)] == [0.0, 0.0]


def test_notices_are_followed_to_the_end_of_the_node() -> None:
    net = Net()
    a, b = net.node("a"), net.node("b")
    waiting = Waiting(a, a._noticing_to_the_end())
    net.connected(a, b)
    notice = waiting.look().result
    assert isinstance(notice, PeerConnected)
    assert notice.peer is a.peer("b")
    last = Waiting(a, a._noticing_to_the_end())
    a.close()
    assert isinstance(last.look().result, PeerDisconnected)  # what is there can still be taken
    assert Waiting(a, a._noticing_to_the_end()).result is None


def test_peers_that_come_are_told_to_those_who_serve() -> None:
    net = Net()
    a = net.node("a")
    net.connected(a, net.node("before"))
    turns = Turns(a)
    with a.serving(turns.may_have, turns):
        assert list(turns._queue) == [a.peer("before")]
        later = a.peer("later")
        assert list(turns._queue) == [a.peer("before"), later]
        assert not turns.over
    assert turns.over
    a.peer("late")
    assert len(turns._queue) == 2


def test_a_node_is_served_once_at_a_time() -> None:
    a, told = Net().node("a"), list[str]()
    with a.serving(lambda peer: told.append(peer.id)):
        with pytest.raises(ConfigurationError, match="node a is served already; one handler serves all peers"):
            a.check_unserved()
        with pytest.raises(ConfigurationError), a.serving(lambda peer: told.append("never")):
            raise AssertionError("it was not refused")
        a.peer("b")
    with pytest.raises(ZeroDivisionError), a.serving(lambda peer: told.append(peer.id)):
        _ = 1 // 0
    assert told == ["b", "b"]
    a.close()
    with pytest.raises(NodeClosed):
        a.begin_serving(lambda peer: told.append("never"))
    assert told == ["b", "b"]


def test_the_end_of_a_node_is_the_end_of_serving_and_comes_once() -> None:
    a = Net().node("a")
    turns = Turns(a)
    with a.serving(turns.may_have, turns):
        with a.inside:
            assert a.gone()
        assert turns.over
        with a.inside:
            assert not a.gone()


# -- what the listeners and callbacks of a driver have in common ------------------------------------------------------


def test_what_a_listener_cannot_do_is_told_in_words_that_help() -> None:
    a = Net().node("a")
    taken = OSError(errno.EADDRINUSE, "taken")
    with pytest.raises(AddressError) as caught, a.listening("localhost", 0):
        raise taken
    assert str(caught.value) == str(in_use("localhost port 0"))
    assert caught.value.__cause__ is taken
    with pytest.raises(AddressError, match="cannot listen on /tmp/x: Permission denied"), a.listening("/tmp/x"):
        raise OSError(errno.EACCES, "Permission denied")
    with pytest.raises(AddressError) as caught, a.listening("/tmp/x"):
        raise in_use("/tmp/y")
    assert str(caught.value) == str(in_use("/tmp/y"))
    with pytest.raises(ZeroDivisionError), a.listening("localhost", 1):
        _ = 1 // 0
    with pytest.raises(ConfigurationError, match="not loopback"), a.listening("192.0.2.1", 80):
        raise AssertionError("it was not refused")
    with pytest.raises(ConfigurationError, match=r"'/tmp/x\\x00y' contains a zero byte"), a.listening("/tmp/x\0y"):
        pass
    with a.listening("\0abstract\0"):
        pass
    with pytest.raises(ConfigurationError, match="from 0 to 65535"), a.listening("localhost", -1):
        raise AssertionError("it was not refused")
    a.close()
    with pytest.raises(NodeClosed), a.listening("localhost", 0):
        raise AssertionError("it was not refused")


def test_an_address_to_dial_has_a_name() -> None:
    node, opened = NodeHandle[object]("n"), list[int]()
    assert node.dialling("127.0.0.1", 80) == "127.0.0.1:80"
    with pytest.raises(ConfigurationError, match="not loopback"):
        node.dialling("192.0.2.1", 80)
    with pytest.raises(ConfigurationError, match="from 1 to 65535"):
        node.dialling("127.0.0.1", 0)
    assert node.dialling("/tmp/x") == "/tmp/x"
    with pytest.raises(ConfigurationError, match="contains a zero byte"):
        node.dialling("/tmp/x\0y")
    address = Address("over there", lambda: opened.append(1))
    assert str(address) == "over there"
    assert address not in {Address("over there", address.open)}
    address.open()
    assert opened == [1]


def test_a_node_that_has_to_be_opened_says_how() -> None:
    class Opened(NodeHandle[object]):
        opened_by = "async with"

    node = Opened("n")
    with pytest.raises(NodeClosed, match=r"node n is not open: use it inside of `async with Node\(...\) as node:`"):
        node.check_open()
    node.begin()
    node.check_open()


def test_a_callback_that_fails_is_told_with_its_error_and_ends_nothing() -> None:
    net = Net()
    a, error = net.node("a"), ZeroDivisionError("mine")

    def callback() -> None:
        raise error

    a.on_notice(callback)
    a.lines.clear()
    net.connected(a, net.node("b"))
    (line,) = [line for line in a.lines if line.error]
    assert (line.level, line.text, line.arguments, line.error) == (40, "what on_notice was given failed", (), error)
    with pytest.raises(KeyboardInterrupt):
        a.call(Mock(side_effect=KeyboardInterrupt))


def test_a_driver_asks_when_something_is_due_and_may_look_in() -> None:
    net = Net()
    a = net.node("a")
    assert a.due() == inf
    net.connected(a, net.node("b"))
    assert a.due() == a.endpoint.get_timer() != inf
    net.now += 1.0
    a.visit()
    assert (a.time, a.entered) == (net.now, False)
