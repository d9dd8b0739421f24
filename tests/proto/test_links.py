"""A link: what the core wants done with a stream, and what becomes of a stream that breaks or ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from networkio_proto import MTLS, Close, ConfigurationError, Connection, Insecure, NodeClosed, PeerDisconnected
from networkio_proto.links import LinkHandle, ListenerHandle
from tests.proto.helpers import Waiting
from tests.proto.helpers_node import Driver, Net, Stream


def linked() -> tuple[Net, Driver, Driver]:
    """Two nodes with one connection."""
    net = Net()
    a, b = net.node("a"), net.node("b")
    net.connected(a, b)
    return net, a, b


def test_what_is_done_with_a_stream_is_the_drivers() -> None:
    _, a, _ = linked()
    connection = a.links[0].connection
    link = LinkHandle(a, connection)
    assert (link.node, link.connection, link.closing) == (a, connection, False)
    with pytest.raises(NotImplementedError):
        link.transmit()
    with pytest.raises(NotImplementedError):
        link.drop()


class Noting(LinkHandle):
    """Notes what is to be done."""

    def __init__(self, node: Driver) -> None:
        super().__init__(node, node.links[0].connection)
        self.told: list[str] = []

    def transmit(self) -> None:
        self.told.append("transmit")

    def drop(self) -> None:
        self.told.append("drop")


@pytest.mark.parametrize(("flush", "told"), [(True, "transmit"), (False, "drop")])
def test_what_the_core_is_done_with_is_flushed_or_dropped(flush: bool, told: str) -> None:
    link = Noting(linked()[1])
    link.close(Close(link.core, flush))
    assert (link.told, link.closing) == ([told], True)


def test_a_stream_that_is_closed_is_forgotten_and_nothing_more_is_wanted_of_it() -> None:
    _, a, _ = linked()
    (link,) = a.links
    link.told.clear()
    link.over(ConnectionResetError("reset"))
    assert (a.links, link.told) == ([], [])
    assert "reset" in str(link.core.error)
    assert not a.peer("b").connected


def test_messages_and_their_acknowledgements_go_over_it() -> None:
    net, a, b = linked()
    receipt = a.peer("b").send_nowait("over there")
    assert a.links[0].told[-1] == "transmit"
    net.run()
    assert b.peer("a").read_nowait() == "over there"
    net.wait(1.0)
    assert receipt.done(read=True)


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")])
def test_a_stream_that_is_over_is_told_to_the_core_and_what_that_causes_is_carried_out(
    error: BaseException | None,
) -> None:
    net, a, b = linked()
    (link,) = a.links
    while a.endpoint.next_event() is not None:
        pass
    watching = Waiting(a, a._noticing())
    link.lost(error)
    assert not a.peer("b").connected
    notice = watching.look().result
    assert isinstance(notice, PeerDisconnected)
    assert ("reset" in str(notice.error)) == (error is not None)
    link.lost(error)  # both ways of learning of it may come
    link.drop()
    net.run()
    assert not b.peer("a").connected
    assert (a.links, b.links) == ([], [])
    net.wait(60.0)  # it is dialled anew
    assert a.peer("b").connected


def test_the_core_closes_it_with_its_last_words() -> None:
    net, a, b = linked()
    near, far = a.links[0], b.links[0]
    a.close()
    assert (near.closing, near.told[-1], far.closing) == (True, "flush", False)
    net.run()
    assert not b.peer("a").connected
    assert far.closing
    assert (a.links, b.links) == ([], [])
    with pytest.raises(NodeClosed):
        a.peer("b").send_nowait(1)


def said(node: Driver) -> list[tuple[int, str]]:
    """The lines that a node wrote."""
    return [(line.level, line.text % line.arguments) for line in node.lines]


def test_an_accept_that_fails_pauses_and_is_told_once_until_it_works_again() -> None:
    a = Net().node("a")
    listener, error = ListenerHandle(a, ["one", "two"]), OSError(24, "Too many open files")
    assert [listener.failed(error), listener.failed(error)] == [0.1, 0.1]
    told = [(30, "accepting a connection failed: [Errno 24] Too many open files")]
    assert said(a) == told
    stream = Stream()
    listener.accepted(stream, "somewhere")
    assert a.endpoint.handshakes == 1
    assert stream.link in a.links
    assert said(a) == told
    listener.failed(error)
    assert said(a) == told * 2


def test_a_stream_that_comes_too_late_is_refused() -> None:
    a = Net().node("a")
    listener = ListenerHandle(a, ["one"])
    a.close()
    with pytest.raises(NodeClosed):
        listener.accepted(Stream(), "somewhere")


class Around:
    """A channel that does nothing but stand between; notes who calls."""

    link: LinkHandle

    def __init__(self, connection: Connection, calls: list[str]) -> None:
        self.core = connection
        self.calls = calls
        self.backlog: Callable[[], int] | None = None

    @property
    def prompt(self) -> bool:
        return self.core.prompt

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        self.calls.append("receive")
        self.core.receive_data(data, now)

    def data_to_send(self, now: float, max_bytes: int = 65536) -> list[bytes | memoryview]:
        self.calls.append("send")
        return self.core.data_to_send(now, max_bytes)

    def connection_lost(self, now: float, exc: BaseException | None = None) -> None:
        self.calls.append("lost")
        self.core.connection_lost(now, exc)


class Guard:
    """Protects the streams of a node, after a fashion."""

    def __init__(self) -> None:
        self.verifies = True
        self.made: list[Around] = []
        self.calls: list[str] = []

    def channel(self, connection: Connection) -> Around:
        self.made.append(Around(connection, self.calls))
        return self.made[-1]


def test_with_tls_all_bytes_go_through_the_channel_that_it_makes() -> None:
    guard, net = Guard(), Net()
    a, b = net.node("a", tls=guard, auth="insecure"), net.node("b", auth="insecure")
    to_b, to_a = net.connected(a, b)
    (link,) = a.links
    assert guard.made[0].link is link
    assert link.connection is guard.made[0]
    assert link.core is guard.made[0].core
    guard.calls.clear()
    to_a.send_nowait(1)
    to_b.send_nowait(2)
    net.run()
    assert (to_b.read_nowait(), to_a.read_nowait()) == (1, 2)
    assert {"receive", "send"} <= set(guard.calls)
    link.over(ConnectionResetError("reset"))
    assert guard.calls[-1] == "lost"
    assert a.links == []


@pytest.mark.parametrize(
    ("auth", "tls", "words"),
    [
        (None, False, "proves no identity"),
        (MTLS(), None, "rests on certificates"),
        (MTLS(), False, "rests on certificates"),
    ],
)
def test_what_would_prove_nobodys_identity_is_refused(auth: Any, tls: bool | None, words: str) -> None:
    guard = None if tls is None else Guard()
    if guard is not None:
        guard.verifies = False
    with pytest.raises(ConfigurationError, match=words):
        Net().node("a", auth=auth, tls=guard)


def test_certificates_that_are_verified_prove_identities_by_themselves() -> None:
    assert isinstance(Net().node("a", tls=Guard()).endpoint.auth, MTLS)
    assert isinstance(Net().node("a", tls=Guard(), auth="insecure").endpoint.auth, Insecure)
    assert Net().node("a", tls=Guard(), auth=MTLS()).endpoint.auth.name == "mtls"
