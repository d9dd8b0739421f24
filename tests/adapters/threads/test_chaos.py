"""networkio_threads on bad links, and with many peers."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

import networkio_asyncio
from networkio_testing.proxy import CALM, Chaos, ChaosProxy
from networkio_threads import MessagesReady, Peer, PeerDisconnected
from tests.adapters.helpers import HASTY, WIDE
from tests.adapters.threads.helpers import Crew, Pair, node, notice_of, until

QUICK: dict[str, Any] = {"ping_after": 0.1, "dead_after": 0.3, "write_stall": 0.3, "probe_timeout": 0.1}


@contextmanager
def through_proxy(chaos: Chaos = CALM, **changes: Any) -> Iterator[tuple[Pair, ChaosProxy, BlockingPortal]]:
    """A client and a server with the proxy between them, connected; the proxy is another thread's."""
    with start_blocking_portal() as portal, node("server", **changes) as there, node("client", **changes) as here:
        listener = there.listen("127.0.0.1", 0)
        proxy = portal.call(lambda: ChaosProxy("127.0.0.1", listener.port, chaos=chaos, seed=1))
        with portal.wrap_async_context_manager(proxy):
            near = here.connect(proxy.host, proxy.port, "server")
            far = there.peer("client")
            near.wait_connected(5)
            far.wait_connected(5)
            yield Pair(here, there, listener, near, far), proxy, portal


def clog(peer: Peer) -> None:
    """Send more than the network between the two takes."""
    deadline = time.monotonic() + 5
    try:
        while time.monotonic() < deadline:
            peer.send(bytes(60_000), 0.2, raw=True)
    except TimeoutError:
        pass


def heal(pair: Pair, proxy: ChaosProxy, portal: BlockingPortal) -> None:
    """Let everything pass again, and read what was sent."""
    portal.call(proxy.cut_all)
    portal.call(proxy.black_hole, False)
    while pair.near.unacknowledged:
        try:
            pair.far.read(0.02)
        except TimeoutError:
            pass


def test_a_way_that_is_clogged_does_not_block_receiving() -> None:
    with through_proxy(**WIDE, write_stall=10.0) as (pair, proxy, portal):
        portal.call(proxy.black_hole, True, "up")
        clog(pair.near)
        link = next(iter(pair.client._links.values()))
        assert link._blocked  # it is stuck indeed
        if sys.platform == "linux":
            assert link.connection.backlog is not None
            assert link.connection.backlog() > 60_000
        for number in range(20):
            pair.far.send(number)
            assert pair.near.read(1) == number
        assert pair.near.connected
        heal(pair, proxy, portal)


@pytest.mark.parametrize("direction", ["up", "both"])
def test_a_writer_that_is_stuck_does_not_hide_that_the_link_is_dead(direction: Literal["up", "both"]) -> None:
    changes = QUICK if direction == "both" else {**QUICK, "dead_after": 30.0}
    with through_proxy(**WIDE, **changes) as (pair, proxy, portal):
        portal.call(proxy.black_hole, True, direction)
        began = time.monotonic()
        clog(pair.near)
        error = notice_of(pair.client, PeerDisconnected).error
        assert "took no byte" in str(error) or ("silent" in str(error) and direction == "both")
        assert time.monotonic() - began < 4
        heal(pair, proxy, portal)


def test_a_black_hole_is_noticed_and_left() -> None:
    with through_proxy(**QUICK) as (pair, proxy, portal):
        portal.call(proxy.black_hole)
        pair.near.send("x")
        until(lambda: not pair.near.connected and not pair.far.connected, 5)
        heal(pair, proxy, portal)


def test_a_dead_link_is_left_when_the_node_closes() -> None:
    with through_proxy(**WIDE, linger=0.3) as (pair, proxy, portal):
        portal.call(proxy.black_hole)
        clog(pair.near)
        began = time.monotonic()
        pair.client.close(0.1)
        assert time.monotonic() - began < 2


def test_strangers_that_stop_in_their_handshake_are_shown_out_and_wrong_bytes_too() -> None:
    with node("server", handshake_timeout=0.2) as there:
        port = there.listen("127.0.0.1", 0).port
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for number, sock in enumerate(sockets):
            sock.sendall((b"", b"GET / HTTP/1.1\r\n\r\n", bytes(500), b"\x16\x03\x01")[number % 4])
        for sock in sockets:
            sock.settimeout(5)
            try:
                assert sock.recv(100) == b""
            except ConnectionResetError:
                pass
            sock.close()
        until(lambda: not there.endpoint.connections and not there._links)
        assert there.peers == []


@pytest.mark.slow
def test_500_peers_of_one_node_and_a_listener_that_goes_away_and_comes_back() -> None:
    peers, before = 500, threading.active_count()
    again = threading.Event()
    done: list[int] = []

    async def client(number: int, port: int) -> None:
        async with networkio_asyncio.Node(f"client-{number}", config=HASTY) as here:
            peer = await here.connect("127.0.0.1", port, "server")
            for turn in range(2):
                for count in range(5):
                    await peer.send([turn, count])
                assert [await peer.read() for _ in range(5)] == [[turn, count] for count in range(5)]
                done.append(number)
                while not again.is_set():
                    await anyio.sleep(0.05)
            await peer.drain(10)
            done.append(number)

    async def clients(port: int) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(peers):
                tasks.start_soon(client, number, port)

    with node("server", max_pending_per_source=1000, handshake_timeout=20.0) as there, Crew() as crew:
        listener = there.listen("127.0.0.1", 0)

        def serve() -> None:
            for notice in there.notifications():
                if isinstance(notice, MessagesReady):
                    while (data := notice.peer.read_nowait(None)) is not None:
                        notice.peer.send(data)

        crew.start(serve)
        crew.start(anyio.run, clients, listener.port)
        until(lambda: len(done) == peers, 40)
        assert threading.active_count() <= before + 4
        listener.close()
        for link in list(there._links.values()):
            link._socket.shutdown(socket.SHUT_RDWR)
        until(lambda: not any(peer.connected for peer in there.peers), 10)
        there.listen("127.0.0.1", listener.port)
        again.set()
        until(lambda: len(done) == 3 * peers, 40)
        assert threading.active_count() <= before + 4
        assert all(peer.session.connections >= 2 for peer in there.peers)
        there.close(5)
