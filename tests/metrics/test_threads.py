"""Statistics, instrumentation and log lines through the adapter for threads."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from networkio_threads import HandedOver, Instrumentation, Message, Node, Outcome
from tests.metrics.helpers import HASTY, connected, until


def lines(caplog: pytest.LogCaptureFixture, node_id: str) -> list[tuple[int, str]]:
    """What a node said on the adapter's logger."""
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == "networkio.threads" and record.getMessage().startswith(f"node {node_id}: ")
    ]


# -- statistics -------------------------------------------------------------------------------------------------------


def test_peers_and_nodes_tell_what_they_did_to_any_thread() -> None:
    with connected() as pair:
        pair.near.send_many(["one", "two"])
        pair.far.read(10)
        pair.far.receive(10).reject("no")
        pair.near.drain(10)
        near, node = pair.near.statistics(), pair.client.statistics()
        assert (near.accepted, near.read, near.rejected, near.connected, near.connections) == (2, 1, 1, 1, 1)
        assert node.peers == {"server": near}
        found: list[int] = []
        helper = threading.Thread(target=lambda: found.append(pair.server.statistics().total.taken_in))
        helper.start()
        helper.join()
        assert found == [2]


def test_a_round_trip_is_measured_when_it_is_asked_for() -> None:
    with connected() as pair:

        def measured() -> bool:
            pair.near.measure()
            return pair.near.statistics().round_trip is not None

        until(measured)
        told = pair.near.statistics()
        assert told.round_trip is not None
        assert 0 < told.round_trip < 5


# -- instrumentation --------------------------------------------------------------------------------------------------


class Notebook(Instrumentation):
    """Writes down what it is told, and in which thread."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.threads: dict[str, int] = {}

    def note(self, kind: str, *what: Any) -> None:
        self.told.append((kind, *what))
        self.threads[kind] = threading.get_ident()

    def sending(self, peer_id: str, headers: Mapping[str, object]) -> Mapping[str, object]:
        self.note("sending", peer_id)
        return {**headers, "trace": "1"}

    def accepted(self, peer_id: str, sequence: int, headers: Mapping[str, object]) -> None:
        self.note("accepted", sequence, headers)

    def outcome(self, peer_id: str, sequence: int, outcome: Outcome) -> None:
        self.note("outcome", sequence, outcome)

    def receiving(self, message: HandedOver) -> None:
        self.note("receiving", message.headers, message.id)

    def settled(self, message: HandedOver, how: str) -> None:
        self.note("settled", message.id, how)

    def connected(self, peer_id: str, report: object) -> None:
        self.note("connected", peer_id)

    def disconnected(self, peer_id: str, error: object) -> None:
        self.note("disconnected", peer_id)

    def of(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [told for told in self.told if told[0] in kinds]


def instrumented(near: Instrumentation, far: Instrumentation) -> list[Message]:
    """Two instrumented nodes; each message is sent, and settled, in a different manner."""
    with connected(client={"instrumentation": near}, server={"instrumentation": far}) as pair:
        pair.near.send("send", headers={"k": 1})
        pair.near.send_nowait("nowait")
        pair.near.send_many(["many"])
        messages = [pair.far.receive(10) for _ in range(3)]
        messages[0].ack()
        messages[1].reject("no")
        messages[2].release()
        messages.append(pair.far.receive(10))
        with messages[3]:
            pass
        pair.near.drain(10)
    return messages


def test_every_manner_of_sending_and_settling_is_told_in_the_thread_that_does_it() -> None:
    near, far = Notebook(), Notebook()
    messages = instrumented(near, far)
    assert near.of("accepted") == [
        ("accepted", 1, {"k": 1, "trace": "1"}), ("accepted", 2, {"trace": "1"}), ("accepted", 3, {"trace": "1"})
    ]  # fmt: skip
    assert sorted(near.of("outcome")) == [
        ("outcome", 1, Outcome.READ), ("outcome", 2, Outcome.REJECTED), ("outcome", 3, Outcome.READ)
    ]  # fmt: skip
    assert far.of("receiving")[0] == ("receiving", {"k": 1, "trace": "1"}, messages[0].id)
    assert [told[1:] for told in far.of("settled")] == [
        (messages[0].id, "acknowledged"), (messages[1].id, "rejected"), (messages[2].id, "released"),
        (messages[3].id, "acknowledged"),
    ]  # fmt: skip
    here = threading.get_ident()
    assert near.threads["sending"] == near.threads["accepted"] == far.threads["settled"] == here
    assert near.of("connected") == [("connected", "server")]


class Broken(Notebook):
    """Raises wherever it can."""

    def note(self, kind: str, *what: Any) -> None:
        raise RuntimeError("CANARY")


def test_one_that_raises_is_logged_once_for_each_method_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    messages = instrumented(Broken(), Broken())
    assert [message.data for message in messages] == ["send", "nowait", "many", "many"]
    for node_id, methods in (
        ("client", {"accepted", "connected", "outcome", "sending"}),
        ("server", {"connected", "receiving", "settled"}),
    ):
        errors = [text for level, text in lines(caplog, node_id) if level == logging.ERROR]
        told = re.findall(r"failed in (\w+) with RuntimeError", "\n".join(errors))
        assert set(told) - {"disconnected"} == methods
        assert len(told) == len(set(told))
    assert "CANARY" not in caplog.text


# -- log lines --------------------------------------------------------------------------------------------------------


def test_connections_are_told_on_the_adapter_s_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with connected() as pair:
        until(lambda: lines(caplog, "client") == [(logging.INFO, "node client: connected to server")])
        pair.far.disconnect()
        until(lambda: len(lines(caplog, "client")) == 2)
    assert lines(caplog, "client")[1] == (
        logging.INFO,
        "node client: the connection to server ended: the peer closed the connection: closed normally",
    )


def test_a_dial_that_fails_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with Node("client", config=HASTY) as node:
            peer = node.connect("127.0.0.1", port, "server")
            until(lambda: peer.statistics().dials_failed >= 3)
    [(level, text)] = lines(caplog, "client")
    assert level == logging.WARNING
    assert text.startswith(f"node client: dialling 127.0.0.1:{port} fails, and is tried again: ")


def test_strangers_cannot_write_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Node("server", config=HASTY) as node:
        port = node.listen("127.0.0.1", 0).port
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sock.sendall(b"\x1b[31m%s%d\r\nnode server: all is well\r\n")
                assert sock.recv(100) == b""
        until(lambda: lines(caplog, "server"))
    told = lines(caplog, "server")
    assert 1 <= len(told) <= 4
    assert all(text.startswith("node server: a handshake from 127.0.0.1 failed: ") for _, text in told)
    assert all(re.fullmatch(r"[ -~]+", text) for _, text in told)
    assert "all is well" not in caplog.text


def test_payloads_and_headers_are_in_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with connected() as pair:
        pair.near.send("CANARY", headers={"canary": "canary"})
        pair.far.receive(10).reject("canary")
        pair.near.send(b"canary", raw=True)
        pair.near.abort()
        until(lambda: not pair.far.connected)
    assert lines(caplog, "client")
    assert "canary" not in caplog.text.lower()


def test_a_log_handler_may_look_at_the_node_because_the_lock_is_free() -> None:
    found: list[int] = []

    class Looking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(len(node.statistics().peers))

    handler, logger = Looking(), logging.getLogger("networkio.threads")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with Node("server", config=HASTY) as node, Node("client", config=HASTY) as client:
            client.connect("127.0.0.1", node.listen("127.0.0.1", 0).port, "server").wait_connected(10)
            until(lambda: found)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert found[-1] == 1


class Exhausted(socket.socket):
    """Accepts only every fourth time."""

    tries = 0

    def accept(self) -> Any:
        self.tries += 1
        if self.tries % 4:
            raise OSError(24, "Too many open files")
        return super().accept()


def test_an_accept_that_keeps_failing_is_told_once_until_it_works_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("networkio_proto.links._ACCEPT_PAUSE", 0.005)
    with Node("server", config=HASTY) as node, Exhausted() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        node._accept_on([sock])
        for number in (1, 2):
            with socket.create_connection(sock.getsockname(), 10):
                until(lambda number=number: node.endpoint.handshakes == 1 and sock.tries >= 4 * number)
            until(lambda: node.endpoint.handshakes == 0)
        tries = sock.tries
    assert tries >= 8
    told = [record.getMessage() for record in caplog.records]
    assert 2 <= len(told) <= 3
    assert set(told) == {"accepting a connection failed: [Errno 24] Too many open files"}
