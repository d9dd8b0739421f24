"""The breakable networks: every word does what it says, on the core and under nodes of networkio_asyncio alike."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from networkio_asyncio import Config, Message, Node, NodeClosed, Peer
from networkio_testing import (
    SimulatedMessage,
    SimulatedNetwork,
    SimulatedNode,
    SimulatedPeer,
    Unfinished,
    Violation,
    VirtualNetwork,
)
from networkio_testing.loop import run_virtual
from networkio_testing.virtual import CAPACITY, VirtualStream, VirtualWire
from networkio_testing.world import CUTS, Cut

ROOT = Path(__file__).parents[2]


def simulated(seed: int = 0) -> tuple[SimulatedNetwork, SimulatedNode, SimulatedNode]:
    """A client and a server that answers requests with their own data; they are not connected yet."""
    network = SimulatedNetwork(seed)
    client, server = network.node("client"), network.node("server")
    server.serve(answer)
    return network, client, server


def answer(message: SimulatedMessage) -> None:
    if message.wants_reply:
        message.reply(message.data)


Story = Callable[[VirtualNetwork, Node, Node, Peer], Awaitable[None]]


def play(story: Story, network: VirtualNetwork | None = None) -> VirtualNetwork:
    """The same under networkio_asyncio: tell the story of the network, the client, the server and the client's peer."""
    network = VirtualNetwork() if network is None else network

    async def handle(message: Message) -> None:
        if message.wants_reply:
            await message.reply(message.data)

    async def main() -> None:
        assert network is not None
        nodes = network.node("server"), network.node("client")
        async with nodes[0] as server, nodes[1] as client, anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, handle)
            peer = await network.connect(client, "server")
            await peer.wait_connected()
            await story(network, client, server, peer)
            tasks.cancel_scope.cancel()

    network.run(main)
    return network


# -- cuts -------------------------------------------------------------------------------------------------------------


#: how long it takes at most until the conversation goes on, in each way of breaking a connection (seconds)
LONGEST: dict[Cut, float] = {"rst": 1.0, "fin": 1.0, "half": 1.0, "late": 4.0, "hole": Config().dead_after + 1.0}


@pytest.mark.parametrize("how", CUTS)
def test_a_conversation_survives_every_cut_and_a_dead_link_is_noticed_in_time(how: Cut) -> None:
    network, client, _ = simulated()
    peer = client.connect("server", "server")
    assert peer.request(1) == 1
    before = network.now
    assert network.cut(client, "server", how) == 1
    assert peer.request(2) == 2
    took = network.now - before
    assert took <= LONGEST[how]
    assert (took > 30.0) == (how == "hole")
    network.check()


@pytest.mark.parametrize("how", CUTS)
def test_a_conversation_of_asyncio_survives_every_cut_and_a_dead_link_is_noticed_in_time(how: Cut) -> None:
    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        before = anyio.current_time()
        assert network.cut(client, server, how) == 1
        assert await peer.request(2) == 2
        took = anyio.current_time() - before
        assert took <= LONGEST[how]
        assert (took > 30.0) == (how == "hole")

    play(story)


def test_only_those_that_are_named_are_cut() -> None:
    network, client, _server = simulated()
    other = network.node("other")
    for node in (client, other):
        node.connect("server", "server").wait_connected()
    assert network.cut("client", "other") == 0
    assert network.cut("client") == 1
    assert other.peer("server").connected
    assert not client.peer("server").connected
    network.run(5.0)
    assert network.cut() == 2
    with pytest.raises(ValueError, match=r"one of the ways rst, fin, half, late, hole, not 'knife'"):
        network.cut(how="knife")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no node 'nobody' here, only client, server, other"):
        network.cut("nobody")
    network.check()


def test_half_a_cut_is_learnt_by_the_one_that_is_named() -> None:
    for first, second in (("client", "server"), ("server", "client")):
        network, client, server = simulated()
        client.connect("server", "server").wait_connected()
        sides = {"client": client.peer("server"), "server": server.peer("client")}
        network.cut(first, second, "half")
        assert not sides[first].connected
        assert sides[second].connected


# -- refusing, partitions, distance -----------------------------------------------------------------------------------


def test_who_is_refused_comes_back_when_it_is_not() -> None:
    network, client, server = simulated()
    network.refuse(server)
    peer = client.connect("server", "server")
    network.run(60.0)
    assert not peer.connected
    assert "refused" in peer.why()
    network.refuse(server, on=False)
    peer.wait_connected(60.0)

    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        network.refuse("server")
        network.cut()
        await anyio.sleep(60.0)
        assert "refused" in peer.why()
        network.heal()
        with anyio.fail_after(60.0):
            await peer.wait_connected()

    play(story)


def test_what_a_partition_stops_arrives_when_it_is_healed() -> None:
    network, client, server = simulated()
    peer = client.connect("server", "server")
    peer.wait_connected()
    network.partition("client")
    receipt = peer.send("stopped")
    network.run(20.0)
    assert (receipt.outcome, peer.connected) == (None, True)
    connections = network.connections_made
    network.heal()
    receipt.read(1.0)
    assert network.connections_made == connections  # it was the same connection
    network.partition(["client"], server)
    network.run(Config().dead_after + 1.0)
    assert not peer.connected
    assert "the other side was silent for too long" in peer.why()
    network.heal()
    peer.wait_connected(60.0)
    network.check()


def test_a_partition_stops_nodes_of_asyncio_and_heals() -> None:
    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        network.partition([client, "server"])  # nobody else is there
        await peer.request(1, timeout=1.0)
        network.partition(client)
        receipt = await peer.send("stopped")
        await anyio.sleep(20.0)
        assert (receipt.outcome, peer.connected) == (None, True)
        network.heal()
        with anyio.fail_after(1.0):
            await receipt.read()
        network.partition(client)
        await anyio.sleep(Config().dead_after + 1.0)
        assert not peer.connected
        network.heal()
        with anyio.fail_after(60.0):
            await peer.wait_connected()

    play(story)


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_the_news_of_a_cut_passes_no_partition(how: Cut, first: str) -> None:
    """The one that is named learns it; the other one only when the partition is over."""
    second = {"client": "server", "server": "client"}[first]
    network, client, server = simulated()
    client.connect("server", "server").wait_connected()
    sides: dict[str, Any] = {"client": client.peer("server"), "server": server.peer("client")}
    network.partition("client")
    network.cut(first, second, how)
    network.run(20.0)
    assert (sides[first].connected, sides[second].connected) == (False, True)
    network.heal()
    network.refuse("server")
    network.run(0.1)
    assert not sides[second].connected

    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        sides = {"client": peer, "server": server.peer("client")}
        await sides["server"].wait_connected()
        network.partition("client")
        network.cut(first, second, how)
        await anyio.sleep(20.0)
        assert (sides[first].connected, sides[second].connected) == (False, True)
        network.heal()
        network.refuse("server")
        await anyio.sleep(0.1)
        assert not sides[second].connected

    play(story)


def test_a_wire_that_a_test_cuts_itself_tells_who_dialled_first() -> None:
    network, client, server = simulated()
    client.connect("server", "server").wait_connected()
    network.partition("client")
    (wire,) = network.breakable()
    wire.cut()
    network.run(20.0)
    assert (client.peer("server").connected, server.peer("client").connected) == (False, True)
    network.heal()
    network.refuse("server")
    network.run(0.1)
    assert not server.peer("client").connected


def test_what_was_said_before_an_orderly_end_arrives_when_the_partition_is_over() -> None:
    async def main() -> None:
        wire = VirtualWire(VirtualNetwork(), ("a", "b"))
        near, far = VirtualStream(wire, 0), VirtualStream(wire, 1)
        wire.hold(True)
        await near.send(b"last words")
        await far.send(b"unheard")
        wire.snap(0, "fin")
        for call in (near.receive(), near.send(b"more")):
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await call
        with anyio.move_on_after(60.0):
            await far.receive()
            raise AssertionError("it heard something")
        await far.send(b"unheard too")
        wire.hold(False)
        assert await far.receive() == b"last words"
        with pytest.raises(anyio.EndOfStream):
            await far.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await far.send(b"more")
        assert not wire.open

    run_virtual(main)

    network, client, server = simulated()
    peer = client.connect("server", "server")
    peer.wait_connected()
    network.partition("client")
    peer.send("last words")
    network.cut(client, server, "fin")
    network.run(20.0)
    assert received(server.peer("client")) == 0
    network.heal()
    network.refuse("server")
    network.run(0.1)
    assert (received(server.peer("client")), server.peer("client").connected) == (1, False)
    network.strict = False
    network.check()


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_hole_that_is_cut_is_learnt_and_gives_back_nothing(how: Cut) -> None:
    async def main() -> None:
        wire = VirtualWire(VirtualNetwork(), ("a", "b"))
        near, far = VirtualStream(wire, 0), VirtualStream(wire, 1)
        wire.snap(0, "hole")
        for stream in (near, far):
            await stream.send(b"into the hole")
        wire.snap(0, how)
        for stream in (near, far):
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()

    run_virtual(main)


def test_dials_into_a_partition_and_connections_that_are_over_leave_nothing_behind() -> None:
    def alive(kind: type[object]) -> int:
        gc.collect()
        return sum(type(thing) is kind for thing in gc.get_objects())

    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        async def come_and_go() -> None:
            peer.disconnect()
            await anyio.sleep(1.0)
            await (await network.connect(client, "server")).wait_connected()
            await anyio.sleep(1.0)

        event = type(anyio.Event())
        network.partition("client")
        await anyio.sleep(1000.0)  # and it has begun to dial in vain
        events = alive(event)
        await anyio.sleep(10_000.0)
        assert alive(event) <= events + 2
        network.heal()
        await peer.wait_connected()
        await come_and_go()
        wires = alive(VirtualWire)
        for _ in range(20):
            await come_and_go()
        assert alive(VirtualWire) <= wires + 1

    play(story)


def test_distance_is_exact_and_nothing_is_overtaken() -> None:
    network, client, server = simulated()
    other = network.node("other")
    near, far = other.connect("server", "server"), client.connect("server", "server")
    for peer in (near, far):
        peer.wait_connected()
    network.run(5.0)
    network.delay(0.5, client, server)
    before = network.now
    far.request(1)
    assert network.now - before == pytest.approx(1.0)
    before = network.now
    near.request(1)
    assert network.now - before < 0.1
    receipts = far.send_many(["a", "b"])
    network.run(0.2)
    receipts.append(far.send("c"))
    before = network.now
    receipts[1].received()
    first = network.now - before
    receipts[2].received()
    assert first < network.now - before
    network.delay(0.0, client, server)
    network.delay(0.25)
    before = network.now
    near.request(1)
    assert network.now - before == pytest.approx(0.5)
    with pytest.raises(ValueError, match="a delay is a number of seconds, not -1"):
        network.delay(-1.0)
    with pytest.raises(ValueError, match="a delay is between two nodes, or everywhere"):
        network.delay(1.0, "client")
    network.check()

    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        await anyio.sleep(5.0)
        network.delay(0.5, client, server)
        before = anyio.current_time()
        await peer.request(1)
        assert anyio.current_time() - before == pytest.approx(1.0)

    play(story)


def test_a_fast_writer_waits_for_the_wire_as_with_tcp() -> None:
    async def main() -> None:
        wire = VirtualWire(VirtualNetwork(), ("a", "b"))
        writer, reader = VirtualStream(wire, 0), VirtualStream(wire, 1)
        with anyio.move_on_after(1.0):
            while True:
                await writer.send(bytes(65536))
        assert wire.directions[0].size == CAPACITY
        await reader.receive()
        with anyio.fail_after(1.0):
            await writer.send(b"there is room again")

    run_virtual(main)


# -- processes --------------------------------------------------------------------------------------------------------


def test_a_new_process_gets_what_the_old_one_did_not_settle() -> None:
    network, client, server = simulated()
    server.close()
    shop = network.node("shop")
    receipt = client.connect("shop", "shop").send("pay")
    message = shop.peer("client").receive()
    network.crash(shop)
    with pytest.raises(NodeClosed):
        message.ack()
    network.run(10.0)
    shop = network.restart("shop")
    message = shop.peer("client").receive()
    assert (message.data, message.redelivered) == ("pay", True)
    message.ack()
    receipt.read()
    assert network.nodes["shop"] is shop
    with pytest.raises(ValueError, match=r"there is a node 'shop' already; restart\('shop'\)"):
        network.node("shop")
    network.check()


def test_a_process_that_stands_still_goes_on() -> None:
    network, client, server = simulated()
    peer = client.connect("server", "server")
    peer.wait_connected()
    network.pause(server)
    with pytest.raises(TimeoutError):
        peer.request(1, 5.0)
    network.pause(server, on=False)
    assert peer.request(1, 1.0) == 1
    network.pause(server)
    network.check()  # wakes it


def test_a_process_of_asyncio_that_crashes_dials_no_more() -> None:
    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        network.crash(client)
        await anyio.sleep(60.0)
        assert not server.peer("client").connected

    play(story)


@pytest.mark.parametrize("reset", [True, False])
def test_a_machine_that_loses_power_tells_nobody(reset: bool) -> None:
    """A process that dies alone leaves somebody there to tell."""
    silence = Config().dead_after + 1.0
    network, client, server = simulated()
    client.connect("server", "server").wait_connected()
    network.crash(client, reset=reset)
    network.run(1.0)
    assert server.peer("client").connected != reset
    network.run(silence)
    assert not server.peer("client").connected

    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        there = server.peer("client")
        await there.wait_connected()
        network.crash(client, reset=reset)
        await anyio.sleep(1.0)
        assert (peer.connected, there.connected) == (False, not reset)
        await anyio.sleep(silence)
        assert not there.connected

    play(story)


def test_the_news_of_a_crash_passes_no_partition() -> None:
    network, client, server = simulated()
    client.connect("server", "server").wait_connected()
    network.partition("client")
    network.crash(client)
    network.run(20.0)
    assert server.peer("client").connected
    network.heal()
    network.run(0.1)
    assert not server.peer("client").connected

    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        there = server.peer("client")
        await there.wait_connected()
        network.partition("client")
        network.crash(client)
        await anyio.sleep(20.0)
        assert there.connected
        network.heal()
        await anyio.sleep(0.1)
        assert not there.connected

    play(story)


def test_a_process_of_asyncio_that_crashes_is_heard_no_more() -> None:
    async def main() -> None:
        async with network.node("client") as client:
            peer = await network.connect(client, "server")
            receipt = await peer.send("pay")
            async with network.node("server") as server:
                message = await server.peer("client").receive()
                with pytest.raises(ValueError, match=r"there is a node 'server' already; close it first, or crash"):
                    network.node("server")
                network.crash(server)
                message.ack()
                await anyio.sleep(30.0)
            assert receipt.outcome is None
            async with network.node("server") as server:
                message = await server.peer("client").receive()
                assert (message.data, message.redelivered) == ("pay", True)
                message.ack()
                await receipt.read()

    network = VirtualNetwork()
    network.run(main)


# -- what the end of a test finds -------------------------------------------------------------------------------------


def test_a_handler_that_loses_a_message_on_a_cut_is_caught() -> None:
    """It gives up in the middle when its own backend is away, and neither settles the message nor gives it back."""

    def careless(shop: SimulatedNode, bank: Any) -> None:
        message = shop.peer("client").receive()
        try:
            bank.request(message.data, timeout=5.0)
        except TimeoutError:
            return
        message.ack()

    def run(*, cut: bool) -> SimulatedNetwork:
        network, client, _ = simulated()
        shop = network.node("shop")
        bank = shop.connect("server", "server")
        bank.wait_connected()
        client.connect("shop", "shop").send("pay")
        if cut:
            network.cut(shop, "server", "hole")
        careless(shop, bank)
        return network

    run(cut=False).check()
    with pytest.raises(Unfinished) as caught:
        run(cut=True).check()
    assert "shop took 1 message of client and did not settle: ack, reject or release" in str(caught.value)
    assert "client does not know what became of 1 message to shop" in str(caught.value)
    network = run(cut=True)
    network.strict = False
    network.check()


def test_a_handler_of_asyncio_that_loses_a_message_on_a_cut_is_caught() -> None:
    def run(*, cut: bool) -> None:
        async def story(network: VirtualNetwork, client: Node, server: Node, bank: Peer) -> None:
            async with network.node("customer") as customer:
                await (await network.connect(customer, "client")).send_many(["pay", "more"])
                message = await client.peer("customer").receive()
                if cut:
                    network.cut(client, "server", "hole")
                try:
                    await bank.request(message.data, timeout=5.0)
                except TimeoutError:
                    return
                message.ack()
                await client.peer("customer").read()

        play(story)

    run(cut=False)
    with pytest.raises(Unfinished) as caught:
        run(cut=True)
    assert "client took 1 message of customer and did not settle" in str(caught.value)
    assert "client did not take 1 message of customer" in str(caught.value)
    assert "customer does not know what became of 2 messages to client: it was closed before" in str(caught.value)


def received(peer: Peer | SimulatedPeer) -> int:
    """How far the library has got what the peer sent."""
    inbox = peer.session.inbox
    return 0 if inbox is None else inbox.received


@pytest.mark.parametrize(("how", "far", "arrives"), [
    ("fin", True, True), ("fin", False, False), ("late", True, True), ("late", False, False),
])  # fmt: skip
def test_what_is_under_way_when_a_far_or_separated_node_is_cut_off(how: Cut, far: bool, arrives: bool) -> None:
    def part(network: SimulatedNetwork | VirtualNetwork) -> None:
        network.strict = False
        if far:
            network.delay(1.0)
        else:
            network.partition("client")

    network, client, server = simulated()
    peer = client.connect("server", "server")
    peer.wait_connected()
    server.peer("client").wait_connected()
    part(network)
    peer.send(1)
    network.refuse(server)
    network.cut(client, server, how=how)
    network.run(10.0)
    assert received(server.peer("client")) == arrives

    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        await server.peer("client").wait_connected()
        part(network)
        await peer.send(1)
        await anyio.sleep(0.001)  # it is written by another task
        network.refuse(server)
        network.cut(client, server, how=how)
        await anyio.sleep(10.0)
        assert received(server.peer("client")) == arrives

    play(story)


def test_what_is_left_at_a_node_that_was_closed_is_noticed() -> None:
    network = SimulatedNetwork()
    with network.node("client") as client, network.node("server") as server:
        client.connect("server", "server").send(1)
        server.peer("client").receive()
    with pytest.raises(Unfinished, match="server took 1 message of client and did not settle"):
        network.check()


def test_a_dead_connection_is_waited_for_however_long_that_takes() -> None:
    network = SimulatedNetwork()
    config = Config(dead_after=600.0)
    client, server = network.node("client", config=config), network.node("server", config=config)
    server.serve(answer)
    peer = client.connect("server", "server")
    peer.wait_connected()
    network.cut(how="hole")
    peer.send(1)
    network.check()


def test_the_judge_sees_what_simulated_nodes_do() -> None:
    network, client, server = simulated()
    peer = client.connect("server", "server")
    peer.wait_connected()
    server.peer("client").send("first")  # a reply passes it
    assert peer.request(1) == 1
    network.delay(5.0)
    with pytest.raises(TimeoutError):
        peer.request(2, timeout=1.0)
    network.run(30.0)  # its reply was dropped
    network.heal()
    assert not server.peer("client").send("second").cancel()  # it is under way
    server.peer("client").send("third")
    message = peer.receive()
    message.release()
    assert [peer.receive().attempt, message.sequence] == [2, 1]
    assert [peer.receive().data for _ in range(2)] == ["second", "third"]  # two replies stood before these
    network.strict = False
    network.check()
    tally = network.judge.tally
    assert (tally["accepted"], tally["handed over"], tally["handed over again"]) == (7, 7, 1)


def test_the_judge_objects_to_a_lie_of_a_simulated_node() -> None:
    network, client, _server = simulated()
    peer = client.connect("server", "server")
    peer.wait_connected()
    network.cut(how="hole")
    peer.send("x")
    peer.session.outbox.received = 1  # the peer has said no such thing
    with pytest.raises(Violation, match="I5 is broken"):
        peer.send("y")


def test_replies_to_a_process_that_has_forgotten_its_request_disturb_nobody() -> None:
    network, client, server = simulated()
    peer = client.connect("server", "server")
    assert peer.request(1) == 1
    network.delay(1.0)
    with pytest.raises(TimeoutError):
        peer.request(2, timeout=1.5)
    network.crash(client)
    client = network.restart(client)
    network.heal()
    peer = client.connect("server", "server")
    server.peer("client").send("after")
    assert peer.read() == "after"
    peer.end()
    server.peer("client").end()
    network.check()


# -- every run is the same --------------------------------------------------------------------------------------------


def an_eventful_run(seed: int) -> str:
    """Of nodes of asyncio; all that was written, and when, as a hash."""

    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        async with anyio.create_task_group() as tasks, network.node("one") as one, network.node("two") as two:
            for node in (one, two):
                tasks.start_soon((await network.connect(node, "server")).request, 1)
            for how in CUTS:
                network.cut(how=how)
                await peer.request({"how": how})
            network.partition("client", ["one", "two"])
            await anyio.sleep(100.0)
            network.heal()
            await peer.request(2)
            network.crash("one")

    return play(story, VirtualNetwork(seed)).fingerprint


def test_the_same_program_makes_the_same_run_in_every_process() -> None:
    here = an_eventful_run(3)
    assert here == an_eventful_run(3)
    assert here != an_eventful_run(4)
    code = "from tests.testing.test_network import an_eventful_run as run; print(run(3))"
    there = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
        timeout=60,
    )
    assert there.stdout.strip() == here


def test_the_same_program_makes_the_same_run_on_the_core() -> None:
    def run(seed: int) -> str:
        network, client, _ = simulated(seed)
        peer = client.connect("server", "server")
        for how in CUTS:
            network.cut(how=how)
            peer.request({"how": how})
        network.check()
        return network.fingerprint

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_time_passes_without_waiting() -> None:
    network, client, _ = simulated()
    peer = client.connect("server", "server")
    before = network.now
    network.run(3600.0)
    assert network.now == before + 3600.0
    assert (peer.connected, network.connections_made) == (True, 1)

    async def story(network: VirtualNetwork, client: Node, server: Node, peer: Peer) -> None:
        before = anyio.current_time()
        await anyio.sleep(3600.0)
        assert anyio.current_time() == before + 3600.0
        assert peer.statistics().connections == 1

    play(story)


def test_they_say_who_is_there() -> None:
    network, _, _ = simulated()
    assert repr(network) == "<SimulatedNetwork of client, server, time 1000>"
    assert repr(VirtualNetwork()) == "<VirtualNetwork of nobody>"
