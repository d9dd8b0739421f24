"""Nodes in the simulated world: waiting in virtual time, handlers, calls of a process, accidents; nothing hangs."""

from __future__ import annotations

import gc
from types import GeneratorType

import pytest

from networkio_proto import (
    Config,
    ConfigurationError,
    IteratorBusy,
    MessageRejected,
    MsgpackCodec,
    NodeClosed,
    NoMoreMessages,
    Outcome,
)
from networkio_testing import SimulatedMessage, SimulatedNode, SimulatedPeer, Stuck, World
from networkio_testing.node import Flag


def talking(config: Config | None = None) -> tuple[World, SimulatedNode, SimulatedNode, SimulatedPeer, SimulatedPeer]:
    """A world with a client and a server that are connected: the server as the client sees it, and the client."""
    world = World()
    client, server = SimulatedNode(world.host("client", config)), SimulatedNode(world.host("server"))
    to_server = client.connect("server", "server")
    to_server.wait_connected()
    return world, client, server, to_server, server.peer("client")


def test_the_example_of_the_module_works() -> None:
    world = World()
    client, server = SimulatedNode(world.host("client")), SimulatedNode(world.host("server"))
    server.serve(lambda message: message.reply(message.data + 1))
    assert client.connect("server", "server").request(41) == 42
    assert repr(client) == "<SimulatedNode client>"


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_what_is_under_way_arrives_while_somebody_waits() -> None:
    _, _, _, to_server, to_client = talking()
    receipt = to_server.send({"n": 1}, headers={"k": 1})
    message = to_client.receive()
    assert (message.data, message.headers) == ({"n": 1}, {"k": 1})
    receipt.received()
    message.ack()
    receipt.read()
    to_server.send_many([1, 2, 3])
    assert to_client.read() == 1
    assert to_client.read_many() == [2, 3]


def test_a_timeout_is_virtual_and_exact() -> None:
    world, client, _, to_server, _ = talking()
    before = world.now
    with pytest.raises(TimeoutError, match="not within 100 s: nothing came from server"):
        to_server.receive(100.0)
    assert world.now == before + 100.0
    while client.next_notice(5.0) is not None:
        pass
    assert world.now == before + 105.0


def test_without_time_nothing_moves() -> None:
    world, _, _, to_server, to_client = talking()
    to_server.send(1)
    before = world.now
    with pytest.raises(TimeoutError):
        to_client.receive(0)
    assert world.now == before
    assert to_client.unread == 0
    assert to_client.receive(0.001).data == 1


def test_what_would_wait_for_ever_is_said_to_be_stuck() -> None:
    world = World()
    alone = SimulatedNode(world.host("alone"), patience=50.0)
    with pytest.raises(Stuck, match=r"what alone waits for did not come in 50 virtual seconds \(it has no peers\)"):
        alone.next_notice()
    assert world.now == 1050.0
    assert alone._watchers == []
    peer = alone.connect("nowhere", "nobody")  # it is dialled again and again, and that is no progress
    with pytest.raises(Stuck, match=r"nobody: no connection to nobody for .* refused"):
        peer.send(1).read()
    with pytest.raises(Stuck):
        alone.connect("nowhere")


def test_what_comes_late_is_waited_for() -> None:
    world, _, server, to_server, to_client = talking()
    server.host.listening = False  # another connection would be faster
    to_server.send("late")
    wire = world.live("client", "server")
    assert wire is not None
    wire.cut_half(0, late=7.0)
    before = world.now
    assert to_client.read() == "late"
    assert world.now == pytest.approx(before + 7.0)


def test_sending_waits_for_room() -> None:
    _, _, server, to_server, _ = talking(Config(outbox_limit=1))
    to_server.send(0)
    with pytest.raises(TimeoutError, match="has not acknowledged message 1"):
        to_server.send(1, timeout=3.0)
    server.serve(lambda message: None)
    assert [to_server.send(number).sequence for number in range(1, 5)] == [2, 3, 4, 5]


def test_iterating_waits_and_ends_with_the_peer() -> None:
    world, client, _, to_server, to_client = talking()
    to_server.send_many([1, 2])
    client.host.call_at(world.now + 60.0, to_server.end)
    read = []
    for message in to_client:
        with pytest.raises(IteratorBusy):
            iter(to_client)
        read.append(message.data)
    assert read == [1, 2]
    assert to_server.ledger.read == 2


def test_draining_and_closing_return_the_ledger() -> None:
    world, client, server, to_server, to_client = talking()
    with client:
        to_server.send_many([1, 2])
        assert to_client.read() == 1
        assert to_server.drain(1.0).unread == client.drain(1.0).unread == 1
    assert client.closed
    assert client.close().unread == 1
    with pytest.raises(NodeClosed):
        to_server.send(3)
    world.run(1.0)
    assert not to_client.connected
    with pytest.raises(ZeroDivisionError), server:
        _ = 1 // 0
    assert server.closed


def test_another_codec_has_to_be_the_peers_too() -> None:
    class Other(MsgpackCodec):
        name = "other"

    world = World()
    one, two = SimulatedNode(world.host("one"), codec=Other()), SimulatedNode(world.host("two"), codec=Other())
    one.connect("two", "two").send(1)
    assert two.peer("one").read() == 1
    SimulatedNode(world.host("three"))
    with pytest.raises(TimeoutError):
        one.connect("three", "three").wait_connected(5.0)


# -- handlers ---------------------------------------------------------------------------------------------------------


def test_a_handler_gets_the_messages_of_all_peers_in_order() -> None:
    world, _, server, to_server, _ = talking()
    got: list[tuple[str, object]] = []
    to_server.send("before")
    server.serve(lambda message: got.append((message.peer.id, message.data)))
    other = SimulatedNode(world.host("other"))
    to_server.send_many([1, 2])
    other.connect("server", "server").send_many(["x", "y"])
    world.run(1.0)
    assert [thing for name, thing in got if name == "client"] == ["before", 1, 2]
    assert [thing for name, thing in got if name == "other"] == ["x", "y"]
    assert to_server.unacknowledged == 0
    with pytest.raises(ConfigurationError, match="served already"):
        server.serve(lambda message: None)


def test_a_handler_that_fails_is_called_again_after_a_pause_and_at_last_rejects() -> None:
    world, _, server, to_server, _ = talking()
    calls: list[tuple[float, int]] = []

    def handle(message: SimulatedMessage) -> None:
        calls.append((world.now, message.attempt))
        raise ValueError("no")

    server.serve(handle, max_attempts=3)
    started = world.now
    with pytest.raises(MessageRejected, match="the handler failed 3 times: ValueError"):
        to_server.send(1).read()
    assert [attempt for _, attempt in calls] == [1, 2, 3]
    assert [when - started for when, _ in calls] == pytest.approx([0.0, 0.05, 0.15])


def test_a_handlers_failed_assertion_is_the_tests() -> None:
    _, _, server, to_server, _ = talking()

    def handle(message: SimulatedMessage) -> None:
        assert message.data == 1, "not what was sent"

    server.serve(handle)
    to_server.send(2)
    with pytest.raises(AssertionError, match="not what was sent"):
        to_server.receive(1.0)


def test_handlers_may_wait_for_others() -> None:
    world, _, server, to_server, _ = talking()
    backend = SimulatedNode(world.host("backend"))
    backend.serve(lambda message: message.reply(message.data * 2))
    to_backend = server.connect("backend", "backend")
    server.serve(lambda message: message.reply(to_backend.request(message.data) + 1))
    assert [to_server.request(number) for number in (1, 2)] == [3, 5]


def test_a_served_node_that_is_closed_calls_nobody() -> None:
    world, _, server, to_server, _ = talking()
    got: list[object] = []
    server.serve(got.append)
    server.close()
    to_server.send(1)
    world.run(60.0)
    assert got == []


def test_notices_wake_a_loop_of_ones_own() -> None:
    world, _, server, to_server, to_client = talking()
    got: list[object] = []

    def look() -> None:
        while server.next_notice(0) is not None:
            got.extend(to_client.read_many(timeout=0) if to_client.unread else ())

    server.on_notice(lambda: server.host.call_at(world.now, look))
    to_server.send_many([1, 2])
    world.run(1.0)
    to_server.send(3)
    world.run(1.0)
    assert got == [1, 2, 3]


# -- accidents --------------------------------------------------------------------------------------------------------


def test_a_process_that_died_needs_a_new_node_and_calls_nobody() -> None:
    world, _, server, to_server, to_client = talking()
    got: list[object] = []
    server.serve(got.append)
    receipt = to_server.send("hello")
    server.host.crash()
    assert not server.alive
    with pytest.raises(NodeClosed, match="the process of node server is gone"):
        to_client.send(1)
    with pytest.raises(NodeClosed):
        server.check_open()
    with pytest.raises(NodeClosed), server:
        server.next_notice(1.0)
    world.run(10.0)
    server.host.restart()
    again = SimulatedNode(server.host)
    assert again.peer("client").read() == "hello"
    receipt.read()
    assert receipt.outcome is Outcome.READ
    assert got == []


def test_a_process_that_dies_while_it_waits_is_told_so() -> None:
    world, client, server, _, to_client = talking()
    client.host.call_at(world.now + 5.0, server.host.crash)
    with pytest.raises(NodeClosed, match="the process of node server is gone"):
        to_client.receive()


def test_a_handler_may_crash_its_own_machine() -> None:
    world, _, server, to_server, _ = talking()
    server.serve(lambda message: server.host.crash())
    receipt = to_server.send(1)
    world.run(1.0)
    server.host.restart()
    message = SimulatedNode(server.host).peer("client").receive()
    assert (message.data, message.redelivered) == (1, True)
    message.ack()
    receipt.read()


def test_what_a_loop_held_when_its_process_died_is_nobodys() -> None:
    world, _, server, to_server, to_client = talking()
    to_server.send(1)
    messages = iter(to_client)
    next(messages)
    server.host.crash()
    messages.close()
    with pytest.raises(NodeClosed):
        next(messages)
    world.run(1.0)


def test_a_process_that_stands_still_calls_nobody_until_it_goes_on() -> None:
    world, _, server, to_server, _ = talking()
    got: list[object] = []
    server.serve(lambda message: got.append(message.data))
    calls: list[float] = []
    server.host.call_at(world.now + 1.0, lambda: calls.append(world.now))
    server.host.pause()
    to_server.send(1)
    world.run(3.0)
    assert (got, calls) == ([], [])
    server.host.resume()
    world.run(1.0)
    assert got == [1]
    assert len(calls) == 1


def test_the_end_is_waited_for_too() -> None:
    _, _, _, to_server, to_client = talking()
    to_server.end()
    with pytest.raises(NoMoreMessages):
        to_client.receive()
    to_client.end()
    to_server.disconnect()
    to_client.abort()


# -- the world's part -------------------------------------------------------------------------------------------------


def test_calls_are_made_in_the_order_of_their_times_then_of_asking() -> None:
    world = World()
    host = world.host("a")
    made: list[str] = []
    host.call_at(world.now + 2.0, lambda: made.append("later"))
    host.call_at(world.now + 1.0, lambda: made.append("one"))
    host.call_at(world.now + 1.0, lambda: made.append("two"))
    host.call_at(world.now, lambda: host.call_at(world.now, lambda: made.append("now")))
    assert world.next_timer() == world.now
    world.advance(0.0)
    assert made == ["now"]
    world.run(1.5)
    assert made == ["now", "one", "two"]
    host.crash()
    world.run(5.0)
    assert made == ["now", "one", "two"]


def test_a_call_may_let_time_pass() -> None:
    world = World()
    host = world.host("a")
    host.call_at(world.now + 1.0, lambda: world.run(10.0))
    world.run(2.0)
    assert world.now == 1011.0


def test_a_flag_tells_once_whoever_asked() -> None:
    flag, told = Flag(), list[int]()
    flag.then(lambda: told.append(1))
    flag.set()
    flag.set()
    flag.then(lambda: told.append(2))
    assert told == [1, 2]


def test_a_node_that_is_collected_while_it_serves_says_nothing() -> None:
    """The collector may close an inner generator before the one that waits for it, which is an unraisable error."""
    world, _, server, _, peer = talking()
    server.serve(lambda message: None)
    world.run(1.0)
    inner = [
        thing for thing in gc.get_objects()
        if isinstance(thing, GeneratorType) and thing.__qualname__ == "PeerHandle.receiving"
        and thing.gi_frame is not None and thing.gi_frame.f_locals["self"] is peer
    ]
    assert len(inner) == 1
    inner[0].close()
