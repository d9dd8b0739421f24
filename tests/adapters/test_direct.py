"""The short way on asyncio: transports that call the core, without anyio and without a task for each connection."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from networkio_asyncio import Node, _direct
from networkio_asyncio._direct import Acceptor, DirectLink, connect_tcp
from networkio_asyncio._link import Link
from networkio_proto import Connection
from networkio_proto.frames import PREAMBLE
from networkio_sockets import backlog_of
from tests.adapters.conftest import descriptors
from tests.adapters.helpers import WIDE, Pair, bounded, connected, node, until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both kinds of event loop."""
    if request.param == "uvloop" and find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(autouse=True)
async def nothing_leaks(anyio_backend: object) -> AsyncIterator[None]:
    """As for all tests here, but uvloop has descriptors of its own that come and go: those of the test are counted."""

    def opened() -> int:
        return sum(what.startswith("socket:") for what in descriptors().values())

    tasks, before = len(anyio.get_running_tasks()), opened()
    yield
    gc.collect()
    await until(lambda: len(anyio.get_running_tasks()) <= tasks and opened() <= before, 1)


class Recording:
    """A transport that notes what is written to it."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self._transport.write(data)


def link_of(node: Node) -> Any:
    """The link of the only connection."""
    (link,) = node._links.values()
    return link


async def listen_by_anyio() -> Any:
    """A listener of one address."""
    return (await anyio.create_tcp_listener(local_host="127.0.0.1")).listeners[0]


async def clogged(pair: Pair) -> Any:
    """Send more than the system takes while the server reads nothing; the client's link."""
    link_of(pair.server)._transport.pause_reading()
    link = link_of(pair.client)
    while not link._blocked:
        pair.near.send_nowait(bytes(60_000), raw=True)
        await anyio.lowlevel.checkpoint()
    return link


# -- links ------------------------------------------------------------------------------------------------------------


@bounded(20)
async def test_a_connection_has_no_task() -> None:
    async with node("server") as there:
        port = (await there.listen("127.0.0.1", 0)).port
        async with node("client-0") as first:
            await (await first.connect("127.0.0.1", port, "server")).wait_connected()
            tasks = len(asyncio.all_tasks())
            async with node("client-1") as second:
                await (await second.connect("127.0.0.1", port, "server")).wait_connected()
                await until(lambda: len(there.peers) == 2 and len(asyncio.all_tasks()) <= tasks + 1)  # the node's own
                assert all(type(link) is DirectLink for link in [*there._links.values(), *first._links.values()])


@bounded(20)
async def test_what_is_sent_in_one_turn_of_the_loop_is_written_at_once() -> None:
    async with connected() as pair:
        link = link_of(pair.client)
        await until(lambda: not link._due and not link.connection.dirty)
        link._transport = recording = Recording(link._transport)
        for number in range(50):
            pair.near.send_nowait(number)
        assert recording.written == []
        await anyio.lowlevel.checkpoint()
        assert len(recording.written) == 1
        assert [await pair.far.read() for _ in range(50)] == list(range(50))


@bounded(20)
async def test_what_is_large_leaves_in_turns_and_others_have_theirs() -> None:
    async with connected(**WIDE) as pair:
        link = link_of(pair.client)
        link._transport = recording = Recording(link._transport)
        receipt = await pair.near.send(bytes(1 << 20), raw=True)
        await anyio.lowlevel.checkpoint()
        assert 0 < sum(map(len, recording.written)) < 1 << 19
        assert len(await pair.far.read()) == 1 << 20
        await receipt.read()


@bounded(20)
async def test_the_core_is_asked_for_more_only_when_the_transport_has_nothing_left() -> None:
    async with connected(**WIDE) as pair:
        link = await clogged(pair)
        held = link._transport.get_write_buffer_size()
        in_system = backlog_of(link._transport.get_extra_info("socket"))
        assert held > 0
        assert link.connection.backlog() == held + (0 if in_system is None else in_system())
        assert link._transport.get_write_buffer_limits() == (0, 0)
        assert link.connection.liveness.writing_since is not None
        for _ in range(10):
            pair.near.send_nowait(bytes(60_000), raw=True)
            await anyio.lowlevel.checkpoint()
        assert link._transport.get_write_buffer_size() <= held
        await pair.far.send("comes all the same")
        assert await pair.near.read() == "comes all the same"
        link_of(pair.server)._transport.resume_reading()
        while pair.near.unacknowledged:
            with anyio.move_on_after(0.02):
                await pair.far.read()
        await until(lambda: link.connection.liveness.writing_since is None)


@bounded(20)
async def test_a_stream_that_takes_nothing_is_given_up_and_one_that_takes_little_is_not() -> None:
    patient = {"write_stall": 30.0, "ping_after": 10.0}
    async with connected(**WIDE, write_stall=0.4, ping_after=0.1, server=patient) as pair:
        link, there = await clogged(pair), link_of(pair.server)._transport
        here: Connection = link.connection
        for _ in range(5):  # more than twice the limit
            assert here.backlog is not None
            before = here.backlog()
            there.resume_reading()
            while here.backlog() == before:
                await anyio.lowlevel.checkpoint()
            there.pause_reading()
            await anyio.sleep(0.2)
        assert pair.near.session.connection is here
        await clogged(pair)
        await until(lambda: here.error is not None)
        assert "took no byte" in str(here.error)
        while pair.near.unacknowledged:
            with anyio.move_on_after(0.02):
                await pair.far.read()


@bounded(20)
async def test_a_dropped_connection_is_closed_at_once_whatever_it_holds() -> None:
    async with connected(**WIDE) as pair:
        link = await clogged(pair)
        with pair.client.inside as now:
            link.connection.connection_lost(now, ConnectionResetError("cut"))
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        assert link not in pair.client._links.values()
        assert link.connection.backlog is None
        while pair.near.unacknowledged:
            with anyio.move_on_after(0.02):
                await pair.far.read()


@bounded(20)
async def test_a_connection_that_is_shown_out_is_half_closed_and_read_until_the_other_side_ends_it() -> None:
    async with node("server", linger=10.0) as there:
        port = (await there.listen("127.0.0.1", 0)).port
        stranger = await connect_tcp("127.0.0.1", port)
        with stranger:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(stranger, PREAMBLE[:6] + b"\x09\x00")
            said = b""
            while data := await loop.sock_recv(stranger, 4096):
                said += data
            assert said.startswith(PREAMBLE)
            await loop.sock_sendall(stranger, b"goes on")
            await anyio.sleep(0.05)
            assert len(there._links) == 1
        await until(lambda: not there._links)


@bounded(20)
async def test_a_socket_that_can_have_no_transport_is_closed_and_its_connection_lost() -> None:
    class Broken(socket.socket):
        def setsockopt(self, *arguments: Any) -> None:
            raise OSError("out of something")

    async with node("server") as there:
        sock = Broken()
        there.serve_stream(sock)
        link = link_of(there)
        await until(lambda: not there._links)
        assert "out of something" in str(link.connection.error)
        assert sock.fileno() == -1


@bounded(20)
async def test_what_ends_before_it_has_a_transport_is_closed_when_it_gets_one() -> None:
    async with node("server") as there:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            there.serve_stream(ours)
            link_of(there).drop()
            assert await asyncio.get_running_loop().sock_recv(theirs, 1) == b""
            await until(lambda: not there._links)


@pytest.mark.parametrize("way", ["direct", "anyio"])
@bounded(20)
async def test_what_the_core_raises_ends_the_node_on_either_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop would only log it."""

    def fail(self: Connection, data: object, now: float) -> None:
        raise ZeroDivisionError("a bug")

    async def run() -> None:
        async with await listen_by_anyio() as listener, Node("server") as there:
            port = listener.extra(SocketAttribute.local_port)
            if way == "direct":
                port = (await there.listen("127.0.0.1", 0)).port
            monkeypatch.setattr(Connection, "receive_data", fail)
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(b"x")
                if way == "anyio":
                    there.serve_stream(await listener.accept())
                await anyio.sleep(10)

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.value.split(ZeroDivisionError)[1] is None  # that, and nothing else


@bounded(20)
async def test_streams_of_the_application_go_by_anyio_and_bring_the_same() -> None:
    async with await listen_by_anyio() as listener, node("server") as there, node("client") as here:
        port = listener.extra(SocketAttribute.local_port)
        peer = await here.connect_stream(lambda: anyio.connect_tcp("127.0.0.1", port), "server")
        there.serve_stream(await listener.accept())
        receipts = [await peer.send(number) for number in range(300)]
        assert [await there.peer("client").read() for _ in range(300)] == list(range(300))
        await receipts[-1].read()
        assert {type(link_of(here)), type(link_of(there))} == {Link}


# -- leaving ----------------------------------------------------------------------------------------------------------


class Deaf:
    """A listener that nobody accepts at: who dials it gets a connection and no answer."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.port = self.sock.getsockname()[1]

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()


@bounded(20)
async def test_a_node_that_is_cancelled_leaves_nothing_behind_and_waits_for_nobody() -> None:
    with Deaf() as deaf, anyio.CancelScope() as scope:
        async with node("client", linger=10.0) as here:
            await here.connect("127.0.0.1", deaf.port, "server")
            await until(lambda: here._links and link_of(here)._transport)
            transport, began = link_of(here)._transport, anyio.current_time()
            scope.cancel()
            await anyio.sleep(1)
    assert anyio.current_time() - began < 0.9
    assert transport.is_closing()
    assert not here._links


@bounded(20)
async def test_what_fails_when_the_last_stream_is_closed_is_raised_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: DirectLink, error: object) -> None:
        raise ZeroDivisionError("a bug")

    async def run() -> None:
        with anyio.CancelScope() as scope:
            async with node("client", linger=10.0) as here:
                await here.connect("127.0.0.1", deaf.port, "server")
                await until(lambda: here._links and link_of(here)._transport)
                monkeypatch.setattr(DirectLink, "lost", fail)
                scope.cancel()
                await anyio.sleep(1)

    with Deaf() as deaf, pytest.raises(ZeroDivisionError, match="a bug"):
        await run()


@bounded(20)
async def test_a_dial_that_is_given_up_before_it_began_does_not_begin() -> None:
    with Deaf() as deaf:
        async with node("client") as here:
            peer = await here.connect("127.0.0.1", deaf.port, "server")
            assert here._wanted
            peer.disconnect()
            await anyio.sleep(0.05)
            assert not here._links
        with pytest.raises(BlockingIOError):
            deaf.sock.accept()


# -- accepting --------------------------------------------------------------------------------------------------------


@bounded(20)
async def test_a_stream_that_comes_too_late_is_closed() -> None:
    async with node("server") as there:
        listener = await there.listen("127.0.0.1", 0)
        (acceptor,) = listener._acceptors
        acceptor.end()
        late = await connect_tcp("127.0.0.1", listener.port)
        with late:
            there.closed = True
            acceptor._ready()
            there.closed = False
            assert await asyncio.get_running_loop().sock_recv(late, 1) == b""
            assert not there._links


@bounded(20)
async def test_an_accept_that_keeps_failing_is_told_once_and_pauses(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        """Fails as often as it is said, then works."""

        def __init__(self, sock: Any) -> None:
            self.sock, self.failures, self.calls = sock, 2, 0

        def fileno(self) -> int:
            return int(self.sock.fileno())

        def accept(self) -> Any:
            self.calls += 1
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.sock.accept()

    caplog.set_level(logging.WARNING, "networkio.asyncio")
    async with node("server") as there:
        listener = await there.listen("127.0.0.1", 0)
        listener._acceptors[0].end()
        failing = Failing(listener._acceptors[0]._socket)
        began = anyio.current_time()
        listener._acceptors = [Acceptor(listener, there, failing)]
        with await connect_tcp("127.0.0.1", listener.port):
            await until(lambda: there._links)
        assert anyio.current_time() - began > 0.19
        assert failing.calls <= 4
    assert [record.getMessage() for record in caplog.records if "accepting" in record.getMessage()] == [
        "accepting a connection failed: [Errno 24] Too many open files"
    ]


@bounded(20)
async def test_the_source_is_known_and_small_writes_are_not_held_back(tmp_path: Path) -> None:
    async with connected() as pair:
        for side in (pair.client, pair.server):
            sock = link_of(side)._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert link_of(pair.server).connection.source == "127.0.0.1"
    async with node("server") as there, node("client") as here:
        await there.listen_unix(str(tmp_path / "socket"))
        await (await here.connect_unix(str(tmp_path / "socket"), "server")).wait_connected()
        assert link_of(there).connection.source == ""


# -- dialling ---------------------------------------------------------------------------------------------------------


class Addresses:
    """A host with several addresses, and what dialling each of them leads to."""

    def __init__(self, patch: pytest.MonkeyPatch, **outcomes: Any) -> None:
        self._outcomes = outcomes
        self.sockets: list[socket.socket] = []
        self.cancelled: list[str] = []
        patch.setattr(anyio, "getaddrinfo", self._resolve)
        patch.setattr(_direct, "_connect", self._connect)
        patch.setattr(_direct, "_STAGGER", 0.02)

    async def _resolve(self, host: str, port: int, **options: Any) -> list[Any]:
        families = {"v4": socket.AF_INET, "v6": socket.AF_INET6}
        return [(families[name[:2]], 1, 6, "", name) for name in self._outcomes]

    async def _connect(self, family: int, address: str) -> socket.socket:
        outcome = self._outcomes[address]
        try:
            if isinstance(outcome, OSError):
                raise outcome
            await anyio.sleep(outcome)
        except asyncio.CancelledError:
            self.cancelled.append(address)
            raise
        self.sockets.append(socket.socket())
        return self.sockets[-1]


@bounded(20)
async def test_of_several_addresses_the_first_that_answers_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Addresses(monkeypatch, v6_1=60, v6_2=60, v4_1=OSError("refused"), v4_2=0.001)
    with await connect_tcp("host", 1) as sock:
        assert host.sockets == [sock]
    assert sorted(host.cancelled) == ["v6_1", "v6_2"]


@bounded(20)
async def test_of_several_addresses_the_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    Addresses(monkeypatch, v6_1=0, v6_2=0, v6_3=0, v4_1=0)
    assert [address for _, address in await _direct._addresses("host", 1)] == ["v6_1", "v4_1", "v6_2", "v6_3"]


@bounded(20)
async def test_two_that_answer_at_once_leave_one_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    host, both = Addresses(monkeypatch, v6=0, v4=0), anyio.Event()

    async def connect(family: int, address: str) -> socket.socket:
        with anyio.CancelScope(shield=True):
            if address == "v4":
                both.set()
            await both.wait()
        host.sockets.append(socket.socket())
        return host.sockets[-1]

    monkeypatch.setattr(_direct, "_connect", connect)
    with await connect_tcp("host", 1) as sock:
        assert len(host.sockets) == 2
        assert [each for each in host.sockets if each.fileno() >= 0] == [sock]


@bounded(20)
async def test_when_none_answers_the_first_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    Addresses(monkeypatch, v6=OSError("first"), v4=OSError("second"))
    with pytest.raises(OSError, match="first"):
        await connect_tcp("host", 1)


@bounded(20)
async def test_a_dial_that_is_cancelled_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    dialling: list[socket.socket] = []

    async def hang(sock: socket.socket, address: object) -> None:
        dialling.append(sock)
        await asyncio.sleep(0)

    loop = Loop(asyncio.get_running_loop(), sock_connect=hang)
    dial = connect_tcp("127.0.0.1", 9)
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", lambda: loop)
        dial.send(None)  # as far as it goes
    with pytest.raises(asyncio.CancelledError):
        dial.throw(asyncio.CancelledError())
    assert [sock.fileno() for sock in dialling] == [-1]


class Loop:
    """An event loop that does some things in other ways."""

    def __init__(self, loop: Any, **ways: Any) -> None:
        self._loop = loop
        self._ways = ways

    def __getattr__(self, name: str) -> Any:
        return self._ways.get(name) or getattr(self._loop, name)


# -- waiting ----------------------------------------------------------------------------------------------------------


@bounded(20)
async def test_a_wait_ends_with_its_time_and_leaves_no_timer() -> None:
    async with connected() as pair:
        with pytest.raises(TimeoutError, match=r"not within 0\.02 s"):
            await pair.near.request("nobody answers", 0.02)
        assert await pair.far.read() == "nobody answers"
        while await pair.client.next_notice(0) is not None:
            pass
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.far.send, "comes later")
            assert await pair.client.next_notice(float("inf")) is not None
        assert await pair.near.read() == "comes later"
        with anyio.move_on_after(0.02) as scope:
            await pair.near.receive()
        assert scope.cancelled_caught
        receipt = await pair.near.send("the next wait ends in time")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.far.read)
            await pair.client.run(receipt._until(read=True), 60)
    timers = getattr(asyncio.get_running_loop(), "_scheduled", ())  # uvloop does not tell
    assert not [timer for timer in timers if not timer.cancelled() and "expire" in repr(timer)]
