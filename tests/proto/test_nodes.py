"""A node as its application sees it: its peers, sending to many, notices, first answers, draining, its end."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping

import pytest

from networkio_proto import (
    AddressError,
    AuthenticationFailed,
    Config,
    ConfigurationError,
    DialFailed,
    EncodeError,
    Limits,
    MessagesReady,
    MessageTooLarge,
    MsgpackCodec,
    NodeClosed,
    OutboxFull,
    PeerConnected,
    PeerDisconnected,
    SelfConnection,
    SessionClosed,
    TargetState,
    Watch,
)
from networkio_proto.auth import Insecure
from networkio_proto.nodes import NodeHandle, address_error, in_use
from networkio_testing.node import SimulatedNode, SimulatedPeer, SimulatedReceipt
from networkio_testing.world import World
from tests.proto.helpers import Waiting, two
from tests.proto.helpers_auth import HmacAuth


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
    missing: list[Callable[[], object]] = [
        node.enter, node.leave, node.token, node.nudge, lambda: node.make_peer(session),
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
    hub.endpoint.dial_failed(target, world.now, ConnectionRefusedError("refused"))
    hub.host.pump()
    assert waiting.woken
    assert not waiting.look().over
    hub.endpoint.dial(target)
    hub.endpoint.dial_failed(target, world.now, socket.gaierror(8, "not known"))
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
