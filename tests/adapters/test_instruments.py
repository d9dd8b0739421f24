"""Statistics, instrumentation and log lines through the adapter, on asyncio and on trio."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread
import pytest

from networkio_asyncio import HandedOver, Instrumentation, Listener, Message, Node, Outcome, WrongThread
from tests.adapters.helpers import HASTY, Pair, bounded, connected, until

pytestmark = pytest.mark.anyio


def lines(caplog: pytest.LogCaptureFixture, node_id: str) -> list[tuple[int, str]]:
    """What a node said on the adapter's logger."""
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == "networkio.asyncio" and record.getMessage().startswith(f"node {node_id}: ")
    ]


# -- statistics -------------------------------------------------------------------------------------------------------


@bounded(20)
async def test_peers_and_nodes_tell_what_they_did() -> None:
    async with connected() as pair:
        await pair.near.send_many(["one", "two"])
        await pair.far.read()
        assert pair.far.statistics().unread == 1
        (await pair.far.receive()).reject("no")
        await pair.near.drain(10)
        near, node = pair.near.statistics(), pair.client.statistics()
        assert (near.accepted, near.read, near.rejected, near.connected, near.connections) == (2, 1, 1, 1, 1)
        assert node.peers == {"server": near}
        assert node.total.failed["rejected"] == 1
        assert pair.far.statistics().taken_in == 2
        assert near.connected_since is not None
        assert near.connected_since <= pair.client.now()


@bounded(20)
async def test_a_round_trip_is_measured_when_it_is_asked_for() -> None:
    async with connected() as pair:
        assert pair.near.statistics().round_trip is None
        def measured() -> bool:
            pair.near.measure()
            return pair.near.statistics().round_trip is not None

        await until(measured)
        told = pair.near.statistics()
        assert told.round_trip is not None
        assert 0 < told.round_trip < 5
        assert told.smoothed_round_trip == told.round_trip


@bounded(20)
async def test_statistics_belong_to_the_loop_s_thread() -> None:
    async with Node("a") as node:
        peer = node.peer("b")
        for look in (node.statistics, peer.statistics, peer.measure):
            with pytest.raises(WrongThread):
                await anyio.to_thread.run_sync(look)


# -- instrumentation --------------------------------------------------------------------------------------------------


class Notebook(Instrumentation):
    """Writes down what it is told and where, and sends a header along."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()

    def note(self, *what: Any) -> None:
        self.told.append(what)
        self.threads.add(threading.get_ident())

    def sending(self, peer_id: str, headers: Mapping[str, object]) -> Mapping[str, object]:
        self.note("sending", peer_id)
        return {**headers, "trace": "1"}

    def accepted(self, peer_id: str, sequence: int, headers: Mapping[str, object]) -> None:
        self.note("accepted", sequence, headers)

    def outcome(self, peer_id: str, sequence: int, outcome: Outcome) -> None:
        self.note("outcome", sequence, outcome)

    def receiving(self, message: HandedOver) -> None:
        self.note("receiving", message.peer_id, message.headers, message.id)

    def settled(self, message: HandedOver, how: str) -> None:
        self.note("settled", message.id, how)

    def connected(self, peer_id: str, report: object) -> None:
        self.note("connected", peer_id)

    def disconnected(self, peer_id: str, error: object) -> None:
        self.note("disconnected", peer_id)

    def of(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [told for told in self.told if told[0] in kinds]


async def instrumented(near: Instrumentation, far: Instrumentation, *payloads: Any) -> list[Message]:
    """Two instrumented nodes; sends each payload in a different manner, and reads all."""
    async with (
        Node("server", config=HASTY, instrumentation=far) as server,
        Node("client", config=HASTY, instrumentation=near) as client,
    ):
        peer = await client.connect("127.0.0.1", (await server.listen("127.0.0.1", 0)).port, "server")
        other = server.peer("client")
        await peer.send("send", headers={"k": 1})
        peer.send_nowait("nowait")
        await peer.send_many(["many"])
        client.broadcast("broadcast")
        messages = [await other.receive() for _ in range(4)]
        messages[0].ack()
        messages[1].reject("no")
        messages[2].release()
        messages.append(await other.receive())
        messages[3].ack()
        async with messages[4]:
            pass
        await peer.drain(10)
    return messages


@bounded(20)
async def test_every_manner_of_sending_and_settling_is_told() -> None:
    near, far = Notebook(), Notebook()
    messages = await instrumented(near, far)
    assert near.of("accepted") == [
        ("accepted", 1, {"k": 1, "trace": "1"}), *(("accepted", number, {"trace": "1"}) for number in (2, 3, 4))
    ]  # fmt: skip
    assert len(near.of("sending")) == 4
    assert sorted(near.of("outcome")) == [
        ("outcome", 1, Outcome.READ), ("outcome", 2, Outcome.REJECTED), ("outcome", 3, Outcome.READ),
        ("outcome", 4, Outcome.READ),
    ]  # fmt: skip
    assert far.of("receiving")[0] == ("receiving", "client", {"k": 1, "trace": "1"}, messages[0].id)
    assert [told[1:] for told in far.of("settled")] == [
        (messages[0].id, "acknowledged"), (messages[1].id, "rejected"), (messages[2].id, "released"),
        (messages[3].id, "acknowledged"), (messages[4].id, "acknowledged"),
    ]  # fmt: skip
    assert messages[2].id == messages[4].id
    assert [told[0] for told in near.of("connected", "disconnected")] == ["connected", "disconnected"]
    assert near.threads == {threading.get_ident()}


class Broken(Notebook):
    """Raises wherever it can."""

    def note(self, *what: Any) -> None:
        raise RuntimeError("CANARY")


@bounded(20)
async def test_one_that_raises_is_logged_once_for_each_method_and_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    messages = await instrumented(Broken(), Broken())
    assert [message.data for message in messages] == ["send", "nowait", "many", "broadcast", "many"]
    assert messages[0].headers == {"k": 1}
    for node_id, methods in (
        ("client", ["accepted", "connected", "disconnected", "outcome", "sending"]),
        ("server", ["connected", "disconnected", "receiving", "settled"]),
    ):
        errors = [text for level, text in lines(caplog, node_id) if level == logging.ERROR]
        assert sorted(re.findall(r"failed in (\w+) with RuntimeError", "\n".join(errors))) == methods
    assert "CANARY" not in caplog.text


# -- log lines --------------------------------------------------------------------------------------------------------


@bounded(20)
async def test_connections_are_told_on_the_adapter_s_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with connected() as pair:
        assert lines(caplog, "client") == [(logging.INFO, "node client: connected to server")]
        pair.far.disconnect()
        await until(lambda: not pair.near.connected)
    assert lines(caplog, "client")[1] == (
        logging.INFO,
        "node client: the connection to server ended: the peer closed the connection: closed normally",
    )


@bounded(20)
async def test_a_dial_that_fails_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        async with Node("client", config=HASTY) as node:
            peer = await node.connect("127.0.0.1", port, "server")
            await until(lambda: peer.statistics().dials_failed >= 3)
    [(level, text)] = lines(caplog, "client")
    assert level == logging.WARNING
    assert text.startswith(f"node client: dialling 127.0.0.1:{port} fails, and is tried again: ")


@bounded(20)
async def test_strangers_cannot_write_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Node("server", config=HASTY) as node:
        port = (await node.listen("127.0.0.1", 0)).port
        for _ in range(20):
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"\x1b[31m%s%d\r\nnode server: all is well\r\n")
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
        told = lines(caplog, "server")
    assert 1 <= len(told) <= 4
    assert all(text.startswith("node server: a handshake from 127.0.0.1 failed: ") for _, text in told)
    assert all(re.fullmatch(r"[ -~]+", text) for _, text in told)
    assert "all is well" not in caplog.text


@bounded(20)
async def test_payloads_and_headers_are_in_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with connected() as pair:
        await talk(pair)
    assert lines(caplog, "client")
    assert "canary" not in caplog.text.lower()


async def talk(pair: Pair) -> None:
    await pair.near.send("CANARY", headers={"canary": "canary"})
    (await pair.far.receive()).reject("canary")
    await pair.near.send(b"canary", raw=True)
    pair.near.abort()
    await until(lambda: not pair.far.connected)


@bounded(20)
async def test_a_log_handler_may_look_at_the_node(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found: list[int] = []

    class Looking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if node.closed:
                return
            found.append(len(node.statistics().peers))

    handler = Looking()
    logging.getLogger("networkio.asyncio").addHandler(handler)
    try:
        async with Node("server", config=HASTY) as node, Node("client", config=HASTY) as client:
            peer = await client.connect("127.0.0.1", (await node.listen("127.0.0.1", 0)).port, "server")
            await peer.wait_connected()
            await until(lambda: found)
    finally:
        logging.getLogger("networkio.asyncio").removeHandler(handler)
    assert found[-1] == 1


@bounded(20)
async def test_an_accept_that_keeps_failing_is_told_once_until_it_works_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("networkio_proto.links._ACCEPT_PAUSE", 0.0)
    broken = OSError(24, "Too many open files")

    class Failing:
        """Fails thrice, works once, fails twice, and is closed."""

        def __init__(self) -> None:
            self.script = [broken, broken, broken, None, broken, broken]

        async def accept(self) -> Any:
            await anyio.lowlevel.checkpoint()
            if not self.script:
                raise anyio.ClosedResourceError
            if (error := self.script.pop(0)) is not None:
                raise error
            return await real.accept()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as both, Node("server", config=HASTY) as node:
        listener: Any = Failing()
        real: Any = both.listeners[0]
        port = real.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.connect_tcp("127.0.0.1", port):
            await Listener(node, [listener]).accept_on(listener)
            assert node.endpoint.handshakes == 1
    assert [record.getMessage() for record in caplog.records] == [
        "accepting a connection failed: [Errno 24] Too many open files"
    ] * 2
