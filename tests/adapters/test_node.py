"""Nodes: listening, dialling (the first dial included), several kinds of streams, leaving."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledByteStream

from networkio_asyncio import (
    AddressError,
    ConfigurationError,
    DuplicateIdentity,
    Listener,
    MessagesReady,
    MessageTooLarge,
    Node,
    NodeClosed,
    OutboxFull,
    PeerConnected,
    PeerDisconnected,
    Quota,
    SelfConnection,
)
from tests.adapters.helpers import HASTY, bounded, connected, node, notice_of, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that is bound and not listened on: dialling it is refused until somebody takes it over."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


async def talk(here: Node, there: Node) -> None:
    """Both can reach each other."""
    near, far = here.peer(there.id), there.peer(here.id)
    receipt = await near.send("there")
    assert await far.read() == "there"
    await receipt.read()
    receipt = await far.send("back")
    assert await near.read() == "back"
    await receipt.read()


# -- dialling ---------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_a_client_may_start_before_its_server() -> None:
    port = free_port()
    async with node("client", backoff_base=0.3, backoff_max=0.3, backoff_slow_max=0.3) as here:
        peer = await here.connect("127.0.0.1", port, "server")
        receipt = await peer.send("early")
        refused = await notice_of(here, PeerDisconnected)
        assert refused.retry_at is not None
        assert isinstance(refused.error.__cause__, ConnectionRefusedError)
        assert "next dial in" in peer.why() or "dialling now" in peer.why()
        async with node("server") as there:
            await there.listen("127.0.0.1", port)
            assert await there.peer("client").read() == "early"
            await receipt.read()
        assert here.ledger.read == here.ledger.accepted == 1


@bounded(10)
async def test_connect_without_an_id_waits_for_whoever_answers() -> None:
    port = free_port()
    found = []
    async with node("client") as here, anyio.create_task_group() as tasks:

        async def connect() -> None:
            found.append(await here.connect("127.0.0.1", port))

        tasks.start_soon(connect)
        await anyio.sleep(0.05)  # some dials are refused
        assert not found
        async with node("server") as there:
            await there.listen("127.0.0.1", port)
            await until(lambda: found)
            assert found[0].id == "server"
            assert found[0] is here.peer("server")
            await talk(here, there)


@bounded(10)
async def test_connect_without_an_id_finds_a_peer_that_is_connected_already() -> None:
    async with connected() as pair:
        connection = pair.near.session.connection
        assert await pair.client.connect("127.0.0.1", pair.listener.port) is pair.near
        at_client = await pair.client.listen("127.0.0.1", 0)
        assert await pair.server.connect("127.0.0.1", at_client.port) is pair.far
        assert pair.near.session.connection is connection
        await talk(pair.client, pair.server)


@bounded(10)
async def test_connect_with_an_id_returns_at_once(dead_port: int) -> None:
    async with node("client") as here:
        peer = await here.connect("127.0.0.1", dead_port, "server")
        assert not peer.connected
        assert here.peers == [peer]
        assert peer.unacknowledged == 0


@pytest.mark.parametrize("port", [0, -1, 65536])
@bounded(5)
async def test_connect_refuses_a_port_that_is_none(port: int) -> None:
    async with node("client") as here:
        with pytest.raises(ConfigurationError, match="port"):
            await here.connect("127.0.0.1", port, "server")
        assert here.peers == []


@bounded(10)
async def test_a_dial_that_gets_no_answer_is_given_up_and_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        place = silent.getsockname()
        with socket.create_connection(place):  # it fills the queue: the kernel drops whatever comes next
            async with node("client", dial_timeout=0.1) as here:
                await here.connect("127.0.0.1", place[1], "server")
                error = (await notice_of(here, PeerDisconnected)).error
                assert "no answer in time" in str(error)


@bounded(10)
async def test_a_dial_that_nobody_wants_any_more_is_given_up() -> None:
    begun, over = anyio.Event(), anyio.Event()

    async def hang() -> ByteStream:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            over.set()
        raise AssertionError("it slept for ever")

    async with node("client") as here:
        peer = await here.connect_stream(hang, "server")
        await begun.wait()
        peer.disconnect()
        await over.wait()


@bounded(10)
async def test_a_goodbye_that_nobody_answers_has_its_time_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with node("client") as here:
            peer = await here.connect("127.0.0.1", silent.getsockname()[1], "server")
            await until(lambda: here._links)
            peer.disconnect()
            assert here._links
            assert not here.endpoint.connections
            await until(lambda: not here._links)


@bounded(10)
async def test_two_nodes_may_dial_each_other() -> None:
    async with node("left") as left, node("right") as right:
        at_left, at_right = await left.listen("127.0.0.1", 0), await right.listen("127.0.0.1", 0)
        await left.connect("127.0.0.1", at_right.port, "right")
        await right.connect("127.0.0.1", at_left.port, "left")
        for _ in range(20):
            await talk(left, right)
        await until(lambda: len(left.endpoint.connections) == len(right.endpoint.connections) == 1)


# -- kinds of addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
@bounded(10)
async def test_addresses_of_tcp(host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    async with node("server") as there, node("client") as here:
        listener = await there.listen(host, 0)
        assert all(address[1] > 0 for address in listener.addresses)
        await here.connect(host, listener.port, "server")
        await talk(here, there)


@bounded(10)
async def test_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with node("server") as there, node("client") as here:
        peer = await here.connect_unix(path, "server")
        assert path in str((await notice_of(here, PeerDisconnected)).error)
        listener = await there.listen_unix(path)
        assert [os.fspath(address) for address in listener.addresses] == [path]
        await talk(here, there)
        assert peer.connected


@bounded(5)
async def test_a_unix_socket_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    async with node("server") as there:
        with pytest.raises(AddressError, match=re.escape(str(tmp_path / "no" / "where"))):
            await there.listen_unix(str(tmp_path / "no" / "where"))


@bounded(5)
async def test_a_path_that_the_system_would_cut_is_refused(tmp_path: Path) -> None:
    """Not so an address of Linux's abstract kind, which begins with a zero byte."""
    path = str(tmp_path / "a\0b")
    async with node("server") as there, node("client") as here:
        with pytest.raises(ConfigurationError, match="contains a zero byte"):
            await there.listen_unix(path)
        with pytest.raises(ConfigurationError, match="contains a zero byte"):
            await here.connect_unix(path, "server")
        assert (await here.connect_unix("\0networkio\0nobody", "server")).id == "server"
    assert not list(tmp_path.iterdir())


def pipe() -> tuple[ByteStream, ByteStream]:
    """The two ends of a byte stream that is only memory."""
    to_right, from_left = anyio.create_memory_object_stream[bytes](8)
    to_left, from_right = anyio.create_memory_object_stream[bytes](8)
    left = StapledByteStream(to_right, BufferedByteReceiveStream(from_right))  # type: ignore[arg-type]
    right = StapledByteStream(to_left, BufferedByteReceiveStream(from_left))  # type: ignore[arg-type]
    return left, right


@bounded(10)
async def test_any_byte_stream_will_do() -> None:
    async with node("server") as there, node("client") as here:
        opened: list[ByteStream] = []

        async def open_stream() -> ByteStream:
            left, right = pipe()
            there.serve_stream(right, source="memory")
            opened.append(left)
            return left

        peer = await here.connect_stream(open_stream, name="a pipe")
        assert peer.id == "server"
        await talk(here, there)
        await opened[0].aclose()
        await until(lambda: len(opened) == 2)
        await talk(here, there)


class Bare:
    """A byte stream that knows nothing of attributes."""

    def __init__(self, stream: ByteStream) -> None:
        self.receive, self.send = stream.receive, stream.send
        self.send_eof, self.aclose = stream.send_eof, stream.aclose


@bounded(10)
async def test_a_stream_without_attributes_will_do() -> None:
    async with node("server") as there, node("client") as here:

        async def open_stream() -> Any:
            left, right = pipe()
            there.serve_stream(right, source="memory")
            return Bare(left)

        await here.connect_stream(open_stream, "server")
        await talk(here, there)


@bounded(10)
async def test_an_open_stream_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "networkio.asyncio")
    async with node("server") as there, node("client") as here:
        failures: list[BaseException] = [
            LookupError("no stream today"),
            OSError(errno.EIO, "broken"),
            anyio.BrokenResourceError(),
        ]
        if anyio.get_cancelled_exc_class() is asyncio.CancelledError:  # it waited for a task of its own, cancelled
            failures.append(asyncio.CancelledError())

        async def open_stream() -> ByteStream:
            if failures:
                raise failures.pop()
            left, right = pipe()
            there.serve_stream(right)
            return left

        await here.connect_stream(open_stream, "server", name="a pipe")
        await talk(here, there)


class _Odd(StapledByteStream):
    """A user's stream that raises what no stream should."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        raise LookupError("an odd stream")


@bounded(10)
async def test_an_odd_stream_ends_its_connection_and_nothing_else() -> None:
    async with connected() as pair:
        left, right = pipe()
        odd = _Odd(left.send_stream, left.receive_stream)  # type: ignore[attr-defined]
        pair.server.serve_stream(odd)
        await right.aclose()
        await until(lambda: len(pair.server.endpoint.connections) == 1)
        await talk(pair.client, pair.server)


@bounded(10)
async def test_several_listeners(tmp_path: Path) -> None:
    async with node("server") as there:
        first, second = await there.listen("127.0.0.1", 0), await there.listen("127.0.0.1", 0)
        await there.listen_unix(str(tmp_path / "socket"))
        async with node("one") as one, node("two") as two, node("three") as three:
            await one.connect("127.0.0.1", first.port, "server")
            await two.connect("127.0.0.1", second.port, "server")
            await three.connect_unix(str(tmp_path / "socket"), "server")
            for here in (one, two, three):
                await talk(here, there)
            assert sorted(peer.id for peer in there.peers) == ["one", "three", "two"]


@bounded(10)
async def test_a_closed_listener_takes_nobody_and_keeps_who_is_there() -> None:
    async with connected() as pair:
        port = pair.listener.port
        await pair.listener.aclose()
        await talk(pair.client, pair.server)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
        again = await pair.server.listen("127.0.0.1", port)
        assert again.port == port


# -- accepting under pressure -----------------------------------------------------------------------------------------


def let_accept_fail(
    listener: Listener, patch: pytest.MonkeyPatch, fail: Callable[[], OSError | None], *, having_taken: bool
) -> None:
    """Let accepting raise what ``fail()`` returns: that of anyio's listener, or on asyncio that of the socket."""
    taker: Any = type(listener._acceptors[0]._socket if listener._acceptors else listener._sockets[0])
    real = taker.accept

    async def accept_later(self: Any) -> Any:
        stream = await real(self) if having_taken else None
        if (error := fail()) is not None:
            if stream is not None:
                await stream.aclose()
            raise error
        return stream or await real(self)

    def accept_now(self: Any) -> Any:
        taken = real(self) if having_taken else None
        if (error := fail()) is not None:
            if taken is not None:
                taken[0].close()
            raise error
        return taken or real(self)

    patch.setattr(taker, "accept", accept_now if listener._acceptors else accept_later)


@bounded(10)
async def test_without_descriptors_accepting_backs_off_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with node("server") as there, node("client") as here:
        listener = await there.listen("127.0.0.1", 0)
        tries: list[float] = []
        failures = [errno.EMFILE, errno.ECONNABORTED, errno.EMFILE]

        def fail() -> OSError | None:
            if not failures:
                return None
            tries.append(anyio.current_time())
            return OSError(failures.pop(), "out of something")

        let_accept_fail(listener, monkeypatch, fail, having_taken=True)
        await here.connect("127.0.0.1", listener.port, "server")
        await talk(here, there)
        assert not failures
        assert tries[1] - tries[0] > 0.09  # EMFILE: a pause; a connection that was aborted in the queue needs none


@bounded(10)
async def test_real_exhaustion_of_descriptors_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def fail() -> OSError:
        nonlocal calls
        calls += 1
        return OSError(errno.EMFILE, "Too many open files")

    async with node("server") as there:
        listener = await there.listen("127.0.0.1", 0)
        await anyio.sleep(0.01)
        let_accept_fail(listener, monkeypatch, fail, having_taken=False)
        with socket.create_connection(("127.0.0.1", listener.port)):
            await anyio.sleep(0.25)
        monkeypatch.undo()
    assert calls <= 4


# -- identity ---------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_the_second_of_two_nodes_with_one_id_is_told_and_the_first_undisturbed() -> None:
    async with connected() as pair:
        connection = pair.far.session.connection
        async with node("client") as twin:
            peer = await twin.connect("127.0.0.1", pair.listener.port, "server")
            await peer.send("from the twin")
            error = (await notice_of(twin, PeerDisconnected)).error
            assert isinstance(error, DuplicateIdentity)
            assert "give each process an id of its own" in str(error)
            assert "same peer id" in peer.why()
            assert pair.far.session.connection is connection
            await talk(pair.client, pair.server)
            assert pair.far.unread == 0


@bounded(10)
async def test_a_node_that_dials_itself_is_told() -> None:
    async with node("me") as me:
        listener = await me.listen("127.0.0.1", 0)
        with pytest.raises(SelfConnection, match="check the address"):
            await me.connect("127.0.0.1", listener.port)
        with pytest.raises(ConfigurationError, match="own id"):
            await me.connect("127.0.0.1", listener.port, "me")


# -- notices ----------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_notices_tell_of_peers_nobody_asked_for() -> None:
    async with node("server") as there, node("client") as here:
        listener = await there.listen("127.0.0.1", 0)
        await here.connect("127.0.0.1", listener.port, "server")
        arrived = await notice_of(there, PeerConnected)
        assert arrived.peer is there.peer("client")
        assert not arrived.resumed.resumed
        await here.send("server", "x")
        ready = await notice_of(there, MessagesReady)
        assert ready.peer.read_nowait() == "x"


@bounded(10)
async def test_next_notice_gives_up_after_its_timeout() -> None:
    async with node("alone") as alone:
        assert await alone.next_notice(0) is None
        began = anyio.current_time()
        assert await alone.next_notice(0.05) is None
        assert anyio.current_time() - began >= 0.05


@bounded(10)
async def test_each_notice_goes_to_one_taker() -> None:
    taken: list[Any] = []
    async with connected() as pair, anyio.create_task_group() as tasks:
        await until(lambda: pair.server.endpoint.notices_waiting)
        while await pair.server.next_notice(0):
            pass

        async def take() -> None:
            while (notice := await pair.server.next_notice(0.3)) is not None:
                taken.append(notice)

        for _ in range(5):
            tasks.start_soon(take)
        await anyio.sleep(0.01)
        await pair.near.send("x")
        await until(lambda: pair.far.unread)
    assert [type(notice) for notice in taken] == [MessagesReady]


@bounded(10)
async def test_notifications_end_with_the_node() -> None:
    kinds = []
    async with connected() as pair, anyio.create_task_group() as tasks:

        async def watch() -> None:
            kinds.extend([type(notice) async for notice in pair.server.notifications()])

        tasks.start_soon(watch)
        await anyio.sleep(0.02)
        await pair.server.aclose(0)
    assert kinds[0] is PeerConnected


# -- leaving ----------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_leaving_waits_until_everything_is_read() -> None:
    async with node("server") as there, anyio.create_task_group() as tasks:
        listener = await there.listen("127.0.0.1", 0)
        got: list[Any] = []

        async def serve() -> None:
            while len(got) < 50:
                got.append(await there.peer("client").read())
                await anyio.sleep(0.001)

        tasks.start_soon(serve)
        async with node("client", drain_timeout=5) as here:
            peer = await here.connect("127.0.0.1", listener.port, "server")
            for number in range(50):
                await peer.send(number)
        assert got == list(range(50))
        assert here.ledger.accepted == here.ledger.read == 50


@bounded(10)
async def test_the_ledger_of_leaving_tells_what_was_read_and_what_not() -> None:
    async with connected() as pair:
        receipts = [await pair.near.send(number) for number in range(3)]
        assert await pair.far.read() == 0
        await receipts[0].read()
        ledger = await pair.client.aclose(0.05)
        assert (ledger.accepted, ledger.read, ledger.unread) == (3, 1, 2)
        assert await pair.client.aclose() == ledger  # idempotent


@bounded(10)
async def test_leaving_does_not_wait_for_the_dead() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel shakes hands, and that is all
        client = node("client", drain_timeout=0.2, linger=0.2)
        async with client as here:
            peer = await here.connect("127.0.0.1", silent.getsockname()[1], "server")
            await peer.send("into the void")
            await until(lambda: here.endpoint.connections)
            began = anyio.current_time()
        assert 0.2 <= anyio.current_time() - began < 1.5
        assert here.ledger.unread == 1


@bounded(10)
async def test_leaving_does_not_wait_for_a_peer_that_took_the_messages_and_reads_none() -> None:
    async with connected(drain_timeout=0.2) as pair:
        receipt = await pair.near.send("never read")
        await receipt.received()
        began = anyio.current_time()
        await pair.client.aclose()
        assert 0.2 <= anyio.current_time() - began < 1.5


@bounded(10)
async def test_an_error_in_the_block_comes_out_as_it_is_and_does_not_wait() -> None:
    async def fail() -> None:
        async with connected(drain_timeout=60) as pair:
            await pair.near.send("never read")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fail()


@bounded(10)
async def test_the_block_can_be_cancelled() -> None:
    with anyio.CancelScope() as scope:
        async with connected(drain_timeout=60, linger=60) as pair:
            await pair.near.send("never read")
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert pair.client.closed
    assert pair.server.closed


@bounded(10)
async def test_leaving_wakes_everybody_who_waits() -> None:
    woken: dict[str, object] = {}
    async with connected(outbox_limit=1000) as pair, anyio.create_task_group() as tasks:
        peer, stranger = pair.near, pair.client.peer("stranger")
        receipt = await peer.send("unread")
        while peer.session.has_room:
            await peer.send(bytes(100))
        await receipt.received()
        waits: dict[str, Callable[[], Awaitable[Any]]] = {
            "receive": peer.receive,
            "read": stranger.read,
            "send": lambda: peer.send("no room"),
            "receipt": receipt.read,
            "connected": stranger.wait_connected,
            "iteration": peer.__aiter__().__anext__,
            "connect": lambda: pair.client.connect("127.0.0.1", 1),
        }

        async def wait(name: str) -> None:
            try:
                woken[name] = await waits[name]()
            except NodeClosed as error:
                woken[name] = str(error)

        for name in waits:
            tasks.start_soon(wait, name)
        await anyio.sleep(0.05)
        assert woken == {}
        await pair.client.aclose(0)
        await until(lambda: len(woken) == len(waits))
        assert woken == dict.fromkeys(waits, "node client is closed")


@bounded(5)
async def test_a_closed_node_is_used_no_more() -> None:
    closed = node("client")
    async with closed:
        peer = closed.peer("server")
        await closed.aclose()
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: closed.listen("127.0.0.1", 0),
            lambda: closed.connect("127.0.0.1", 1, "server"),
            lambda: closed.connect("127.0.0.1", 1),
            lambda: closed.next_notice(0.01),
            lambda: peer.send("x"),
            lambda: closed.send("server", "x"),
            lambda: closed.send("another", "x"),
            peer.receive,
            peer.read,
            peer.wait_connected,
        ]
        for call in calls:
            with pytest.raises(NodeClosed, match="client is closed"):
                await call()
        with pytest.raises(NodeClosed):
            peer.send_nowait("x")
    with pytest.raises(NodeClosed, match="make a new one"):
        async with closed:
            pytest.fail("it was used before")


@pytest.mark.parametrize("ticks", range(4))
@bounded(10)
async def test_who_comes_while_the_node_closes_is_turned_away_and_disturbs_nobody(ticks: int) -> None:
    for _ in range(8):
        async with node("server") as there:
            listener = await there.listen("127.0.0.1", 0)
            with socket.create_connection(("127.0.0.1", listener.port)):
                for _ in range(ticks):  # the loop sees it come: now, or in this or that moment of the closing
                    await anyio.lowlevel.checkpoint()
                await there.aclose(0)


@bounded(5)
async def test_a_listener_that_is_made_while_the_node_closes_is_closed_too() -> None:
    async with node("server") as there, anyio.create_task_group() as tasks:

        async def listen() -> None:
            with pytest.raises(NodeClosed):
                await there.listen("127.0.0.1", 0)

        tasks.start_soon(listen)
        await anyio.lowlevel.checkpoint()
        await there.aclose(0)


@bounded(5)
async def test_a_node_is_used_only_inside_its_block() -> None:
    outside = node("client")
    for call in (lambda: outside.listen("127.0.0.1", 0), lambda: outside.connect("127.0.0.1", 1, "server")):
        with pytest.raises(NodeClosed, match="async with"):
            await call()
    with pytest.raises(NodeClosed, match="async with"):
        outside.peer("server")


@bounded(5)
async def test_reprs_say_who_and_how() -> None:
    async with connected() as pair:
        assert repr(pair.client) == "<Node client 1 connections>"
        assert repr(pair.near) == "<Peer server connected>"
        receipt = await pair.near.send("x")
        assert repr(receipt) == "<Receipt 1 to server: under way>"
        message = await pair.far.receive()
        assert repr(message).startswith("<Message 1 from client:")
        message.ack()
        await receipt.read()
        assert repr(receipt) == "<Receipt 1 to server: read>"
    assert repr(pair.client) == "<Node client closed>"
    assert repr(pair.near) == "<Peer server not connected>"


@bounded(5)
async def test_a_node_knows_its_peers() -> None:
    async with connected() as pair:
        assert pair.server.peers == [pair.far]
        stranger = pair.server.peer("stranger")
        assert pair.server.peers == [pair.far, stranger]
        assert pair.server.peer("stranger") is stranger
        with pytest.raises(ConfigurationError, match="not a peer id"):
            pair.server.peer("no such name")


def test_a_bad_id_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ConfigurationError, match="not a peer id"):
        Node("a b", config=HASTY)


@bounded(10)
async def test_a_peer_has_what_its_quota_says_and_others_have_more() -> None:
    quotas = {"small": Quota(outbox_limit=1000, window=2000, message=900)}
    async with Node("server", config=HASTY, quotas=quotas) as server, node("small") as small, node("plain") as plain:
        listener = await server.listen("127.0.0.1", 0)
        for client in (small, plain):
            to_server = await client.connect("127.0.0.1", listener.port, "server")
            await to_server.wait_connected()
            for _ in range(50):
                to_server.send_nowait(bytes(100))
        with pytest.raises(MessageTooLarge):
            small.peer("server").send_nowait(bytes(901))
        await until(lambda: server.peer("small").unread == 13)  # of cost 164: the last one begins below 2,000
        await until(lambda: server.peer("plain").unread == 50)
        assert server.peer("small").unread == 13
        server.peer("away").send_nowait(bytes(1000))
        server.set_quota("away", Quota(outbox_limit=1000))
        with pytest.raises(OutboxFull):
            server.peer("away").send_nowait(b"")
