"""What single peers may have: more or less than everybody, from the first handshake on, until it changes."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from networkio_proto import (
    CloseCode,
    Config,
    ConfigurationError,
    Endpoint,
    Limits,
    MessageTooLarge,
    OutboxFull,
    Quota,
    Watch,
)
from networkio_proto.quotas import Bounds, Quotas
from networkio_testing.world import Host, World
from tests.proto import helpers_wire as wire
from tests.proto.helpers_auth import HmacAuth
from tests.proto.helpers_node import Net
from tests.proto.helpers_session import KIB, promised, rooms
from tests.proto.helpers_wire import PREAMBLE, SMALL, Node, Peer

CONFIG = Config(window=64 * KIB, window_max=256 * KIB, window_guaranteed=16 * KIB, outbox_limit=50_000)


def hub(quotas: dict[str, Quota], *names: str, config: Config = CONFIG) -> tuple[World, Host]:
    """A node to which those of these names are connected, and whose peers have quotas."""
    world = World()
    host = world.host("hub", config)
    for peer_id, quota in quotas.items():
        host.endpoint.set_quota(peer_id, quota)
    for name in names:
        world.host(name).dial("hub")
    world.run(1.0)
    return world, host


@pytest.mark.parametrize(
    "wrong",
    [{"window": 0}, {"window": -1}, {"window": True}, {"window": 1.5}, {"outbox_limit": "8 MiB"}, {"outbox_limit": 0},
     {"message": 0}, {"message": 2**31 + 1}, {"window": 2**62 + 1}],
)  # fmt: skip
def test_what_is_no_quota_is_refused_by_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} of a quota is"):
        Quota(**wrong)


def test_quotas_are_for_peers_and_of_their_kind() -> None:
    with pytest.raises(ConfigurationError, match="is not a peer id"):
        Endpoint("a", quotas={"not an id": Quota()})
    wrong: Any = {"window": 1}
    with pytest.raises(ConfigurationError, match="the quota of b is dict, not Quota"):
        Endpoint("a", quotas={"b": wrong})


def test_what_a_quota_does_not_say_is_as_for_everybody() -> None:
    quotas = Quotas(CONFIG, {"a": Quota(), "b": Quota(window=20 * KIB), "c": Quota(window=8 * KIB, message=5)})
    everybody = Bounds(CONFIG.limits, 50_000, 64 * KIB, 256 * KIB, 16 * KIB)
    assert quotas.of("a") == quotas.of("nobody") == quotas.of(None) == everybody
    assert quotas.of("b") == Bounds(CONFIG.limits, 50_000, 20 * KIB, 20 * KIB, 16 * KIB)
    assert quotas.of("c") == Bounds(Limits(message=5), 50_000, 8 * KIB, 8 * KIB, 8 * KIB)
    quotas.set("c", None)
    quotas.set("nobody", None)
    assert quotas.of("c") == everybody


def test_a_peer_sends_as_much_as_its_own_window_takes_and_others_as_ever() -> None:
    world, host = hub({"small": Quota(window=8 * KIB), "great": Quota(window=1024 * KIB)}, "small", "plain", "great")
    assert [promised(host, name) for name in ("small", "plain", "great")] == [8 * KIB, 64 * KIB, 64 * KIB]
    for name in ("small", "plain", "great"):
        world.hosts[name].send("hub", *3000 * [bytes(936)])
    world.run(10.0)
    assert {name: host.session(name).unread for name in ("small", "plain")} == {"small": 9, "plain": 66}
    for _ in range(40):
        for name in ("small", "plain", "great"):
            host.read(name)
        world.run(1.0)
    sizes = {name: host.session(name).window.size for name in ("small", "plain", "great")}
    assert sizes == {"small": 8 * KIB, "plain": 256 * KIB, "great": 1024 * KIB}
    assert host.endpoint.inbox_reserved == (256 - 16 + 1024 - 16) * KIB


def test_a_window_counts_messages_too_as_each_of_them_costs() -> None:
    world, host = hub({"small": Quota(window=64 * 100)}, "small")
    world.hosts["small"].send("hub", *500 * [b""])
    world.run(10.0)
    assert host.session("small").unread == 100


def test_the_outbox_to_a_peer_holds_what_its_quota_says_before_it_ever_came() -> None:
    _, host = hub({"small": Quota(outbox_limit=1000), "great": Quota(outbox_limit=100_000)})
    host.send("small", bytes(936))
    host.send("great", *80 * [bytes(936)])
    with pytest.raises(OutboxFull, match="outbox_limit 1000,"):
        host.send("small", b"")
    assert not host.session("small").has_room
    assert host.session("great").has_room


def test_the_short_way_of_sending_goes_by_the_quota_as_well() -> None:
    world, host = hub({"small": Quota(outbox_limit=1000, message=900)}, "small")
    session = host.session("small")
    session.send(bytes(800), world.now)
    assert session.streaming()
    assert session.stream(bytes(901), raw=True) == 0
    assert session.stream(bytes(200), raw=True) == 2
    assert session.stream(b"", raw=True) == 0


def test_a_peer_is_told_how_large_its_messages_may_be_and_is_held_to_it() -> None:
    node, peer = Node(config=SMALL), Peer()
    node.endpoint.set_quota("a", Quota(message=100))
    line = node.accept()
    line.say(PREAMBLE, peer.hello())
    [ack] = line.heard()
    assert msgpack.unpackb(ack.body)["limits"] == {"frame": 8192, "message": 100, "idle": 45_000}
    line.say(peer.attach("m"), wire.data(1, bytes(100)))
    assert node.read(peer) == [bytes(100)]
    line.say(wire.data(2, bytes(165)))  # beyond the room for an old name as well
    assert line.farewell() is CloseCode.TOO_LARGE


def test_a_greater_message_than_everybodys_comes_from_whoever_may_send_it() -> None:
    node, peer = Node(config=SMALL), Peer()
    node.endpoint.set_quota("a", Quota(message=30_000))
    line = node.claim(peer, "dialer")
    said = [wire.data(1, bytes(8000), total=24_000), wire.data(1, bytes(8000), wire.CONTINUED | wire.MORE),
            wire.data(1, bytes(8000), wire.CONTINUED)]  # fmt: skip
    line.say(peer.attach("m"), *said)
    assert node.read(peer) == [bytes(24_000)]
    other, plain = node.accept(), Peer("b")
    other.say(PREAMBLE, plain.hello(), plain.attach("m"), *said)
    assert other.farewell() is CloseCode.TOO_LARGE


def test_a_message_to_a_peer_is_no_larger_than_its_quota() -> None:
    world, host = hub({"small": Quota(message=100)}, "small", "plain")
    for name in ("small", "later"):
        host.endpoint.set_quota(name, Quota(message=100))
        with pytest.raises(MessageTooLarge) as raised:
            host.send(name, bytes(101))
        assert str(raised.value).startswith(f"a message of 101 bytes to {name} is over the limit: 100 here, ")
        assert str(raised.value).endswith(
            f"; split it or raise message in the quota of {name} here, and limits.message there"
        )
    with pytest.raises(MessageTooLarge) as raised:
        world.hosts["small"].send("hub", bytes(101))
    assert str(raised.value) == (
        "a message of 101 bytes to hub is over the limit: 16777216 here, 100 at the peer; "
        "split it or raise limits.message on both sides"
    )
    host.send("plain", bytes(101))
    host.endpoint.set_quota("small", Quota(window=1000))  # says nothing about messages
    with pytest.raises(MessageTooLarge, match=r"raise limits\.message on both sides"):
        host.send("small", bytes(16777217))


def test_a_quota_that_changes_holds_for_sending_at_once_and_for_receiving_with_the_next_connection() -> None:
    world, host = hub({}, "a")
    session = host.session("a")
    host.endpoint.set_quota("a", Quota(outbox_limit=1000, window=8 * KIB, message=900))
    with pytest.raises(MessageTooLarge):
        host.send("a", bytes(901))
    assert promised(host, "a") == 64 * KIB
    world.hosts["a"].send("hub", bytes(2000))  # as it was told it may
    world.run(1.0)
    assert host.read("a") == [bytes(2000)]
    for connection in world.open_wires():
        connection.cut()
    assert host.endpoint.inbox_reserved == 0
    world.run(60.0)
    assert promised(host, "a") == 8 * KIB
    with pytest.raises(MessageTooLarge):
        world.hosts["a"].send("hub", bytes(2000))
    host.endpoint.set_quota("a", None)
    assert session.bounds == host.endpoint.quotas.of("nobody")
    host.send("a", bytes(2000))


def test_who_waits_for_room_is_woken_by_a_greater_quota() -> None:
    _, host = hub({"a": Quota(outbox_limit=100)})
    host.send("a", bytes(100))
    session = host.session("a")
    session.watch = Watch.ROOM
    with pytest.raises(OutboxFull):
        session.send(b"", 0.0)
    assert rooms(host) == []
    host.endpoint.set_quota("a", Quota(outbox_limit=1000))
    assert rooms(host) == ["a"]
    assert session.send(b"", 0.0) == 2


def test_a_session_that_nobody_has_proved_has_the_quota_of_its_name_when_it_is_taken() -> None:
    node, peer = Node(config=SMALL, auth=HmacAuth(b"k" * 32)), Peer("z", auth="psk")
    line = node.dial("z")
    line.say(PREAMBLE, peer.hello_ack())
    stranger = node.endpoint.provisional("y", node.now)
    for name in ("y", "z"):
        node.endpoint.set_quota(name, Quota(window=2000))
    assert stranger.bounds.window == node.session("z").bounds.window == 2000


def test_a_node_has_quotas_and_changes_them() -> None:
    node = Net().node("m", quotas={"a": Quota(outbox_limit=100)})
    node.set_quota("b", Quota(outbox_limit=200))
    assert [node.endpoint.quotas.of(name).outbox_limit for name in "abc"] == [100, 200, Config().outbox_limit]
    assert node.peer("b").session.bounds.outbox_limit == 200
    with pytest.raises(ConfigurationError):
        node.set_quota("not an id", None)
