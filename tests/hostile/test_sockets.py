"""Attacks on who is who over real sockets, against both adapters: strangers with wrong keys, peers with old ones."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

import networkio_asyncio
import networkio_threads
from networkio_proto import PSK, AuthenticationFailed, CloseCode, ConfigurationError, PeerDisconnected
from tests.adapters.helpers import HASTY
from tests.hostile.holder import Holder, key
from tests.proto.helpers import Frame, frames
from tests.proto.helpers_wire import CLOSE, HELLO_ACK, PREAMBLE

OF_A, NEW, WRONG = key("a"), key("new"), key("wrong")

#: seconds; nothing here takes longer
PATIENCE = 20.0


@dataclass
class Victim:
    """A node that listens on loopback, and the way to what is its thread's."""

    node: Any
    port: int
    call: Callable[..., Any]


@contextmanager
def listening(adapter: str, auth: PSK) -> Iterator[Victim]:
    """The node "m"."""
    if adapter == "threads":
        with networkio_threads.Node("m", config=HASTY, auth=auth) as node:
            yield Victim(node, node.listen("127.0.0.1", 0).port, lambda function, *args: function(*args))
        return
    made = networkio_asyncio.Node("m", config=HASTY, auth=auth)
    with start_blocking_portal(adapter) as portal, portal.wrap_async_context_manager(made) as there:
        yield Victim(there, portal.call(there.listen, "127.0.0.1", 0).port, portal.call)


@pytest.fixture(params=["asyncio", "trio", "threads"])
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Wire:
    """A stream of bytes to or from a node."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)
        self.heard = b""

    def until(self, kinds: list[int]) -> list[Frame]:
        """Read until just these frames have come; returns them."""
        while True:
            try:
                found = frames(self.heard)
            except AssertionError:  # in the middle of one
                found = []
            if [each.kind for each in found] == kinds:
                return found
            piece = self.sock.recv(65536)
            assert piece, f"the stream ended after {found}"
            self.heard += piece

    def rest(self) -> bytes:
        """Everything up to the end."""
        while piece := self.sock.recv(65536):
            self.heard += piece
        return self.heard


def intrude(port: int, stranger: Holder) -> bytes:
    """Say HELLO and a proof; the body of the CLOSE that comes of it."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        wire = Wire(sock)
        said = PREAMBLE + stranger.hello(to="m", key_id=stranger.key_id)
        sock.sendall(said)
        wire.until([HELLO_ACK])
        sock.sendall(stranger.proof("m", said + wire.heard))
        last = wire.until([HELLO_ACK, CLOSE])[-1]
        sock.shutdown(socket.SHUT_WR)
        wire.rest()
    return last.body


def disconnection(node: networkio_threads.Node) -> PeerDisconnected:
    """The next notice of one."""
    while not isinstance(notice := node.next_notice(PATIENCE), PeerDisconnected):
        assert notice is not None
    return notice


def test_strangers_are_all_refused_alike_and_the_honest_notice_nothing(
    adapter: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Attacks 12, 13, 42 and 51."""
    keys, own = PSK({"a": {"k1": OF_A}}), PSK({"m": {"k1": OF_A}})
    with listening(adapter, keys) as victim, networkio_threads.Node("a", config=HASTY, auth=own) as honest:
        peer = honest.connect("127.0.0.1", victim.port, "m")
        peer.send(1, PATIENCE).received(PATIENCE)
        answers = {intrude(victim.port, Holder("a", WRONG, life=life)) for life in range(1, 9)}
        answers |= {intrude(victim.port, Holder("a", OF_A, key_id="k2")), intrude(victim.port, Holder("q", OF_A))}
        [answer] = answers
        assert int.from_bytes(answer[:2], "big") == CloseCode.AUTH_FAILED
        assert answer[10:] == b""
        peer.send(2, PATIENCE).received(PATIENCE)
        assert peer.connected
        notices = list(iter(lambda: honest.next_notice(0), None))
        assert not any(isinstance(notice, PeerDisconnected) for notice in notices)
        far = victim.call(victim.node.peer, "a")
        assert [victim.call(lambda: far.read_nowait()) for _ in range(2)] == [1, 2]
        assert [each.id for each in victim.call(lambda: victim.node.peers)] == ["a"]
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "authentication failed" in text
    assert OF_A.hex() not in text


def test_a_wrong_key_is_told_in_one_line_on_both_sides(adapter: str, caplog: pytest.LogCaptureFixture) -> None:
    keys, wrong = PSK({"a": {"k1": OF_A}}), PSK({"m": {"k1": WRONG}})
    with listening(adapter, keys) as victim, networkio_threads.Node("a", config=HASTY, auth=wrong) as other:
        other.connect("127.0.0.1", victim.port, "m")
        error = disconnection(other).error
    assert isinstance(error, AuthenticationFailed)
    assert str(error).startswith("the peer closed the connection: authentication failed; compare the keys")
    lines = [record.getMessage() for record in caplog.records]
    for start in ("node m: a handshake from 127.0.0.1", "node a: dialling 127.0.0.1"):
        told = [line for line in lines if line.startswith(start)]
        assert told
        assert all("authentication failed; compare the keys" in line and "\n" not in line for line in told)


def test_whoever_answers_without_the_key_gets_no_message(adapter: str) -> None:
    """Attack 12 in the other role: somebody sits at the address that a node dials."""
    with listening(adapter, PSK({"a": {"k1": OF_A}})) as victim, socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        far = victim.call(victim.node.peer, "a")
        victim.call(lambda: far.send_nowait("for a alone"))
        victim.call(victim.node.connect, "127.0.0.1", server.getsockname()[1], "a")
        sock, _ = server.accept()
        with sock:
            wire, stranger = Wire(sock), Holder("a", WRONG)
            [hello] = wire.until([0x01])
            said, mine = wire.heard, PREAMBLE + stranger.hello_ack()
            sock.sendall(mine)
            wire.until([hello.kind, 0x03])
            sock.sendall(stranger.proof("m", said + mine, dialer_mac=wire.heard[-32:]))
            last = wire.until([hello.kind, 0x03, CLOSE])[-1]
            sock.shutdown(socket.SHUT_WR)
            assert b"for a alone" not in wire.rest()
        assert int.from_bytes(last.body[:2], "big") == CloseCode.AUTH_FAILED
        assert last.body[10:] == b""
        assert not victim.call(lambda: far.connected)


def test_a_peer_without_a_key_is_not_even_dialled(adapter: str) -> None:
    with listening(adapter, PSK({"a": {"k1": OF_A}})) as victim:
        for peer_id, words in (("q", "there is no key for q"), (None, "peer")):
            with pytest.raises(ConfigurationError, match=words):
                victim.call(victim.node.connect, "127.0.0.1", victim.port, peer_id)


def test_a_withdrawn_key_cuts_and_a_new_one_brings_back_what_waited(adapter: str) -> None:
    """Attack 44: also where the new key has the id of the old one."""
    there, here = PSK({"a": {"k1": OF_A}}), PSK({"m": {"k1": OF_A}})
    with listening(adapter, there) as victim, networkio_threads.Node("a", config=HASTY, auth=here) as node:
        peer = node.connect("127.0.0.1", victim.port, "m")
        peer.wait_connected(PATIENCE)
        there.replace({"a": {"k1": NEW}})
        victim.call(victim.node.recheck)
        error = disconnection(node).error
        assert isinstance(error, AuthenticationFailed)
        assert error.remote
        receipt = peer.send("waits", PATIENCE)
        here.replace({"m": {"k1": NEW}})
        receipt.received(PATIENCE)
        far = victim.call(victim.node.peer, "a")
        assert victim.call(lambda: far.read_nowait()) == "waits"
