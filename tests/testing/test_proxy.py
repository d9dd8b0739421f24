"""The chaos proxy, over real loopback sockets, on both event loops.

Both ends of every connection are plain non-blocking sockets, so that a test sees exactly what the kernel reports:
bytes, a FIN (an empty `recv`), a RST (ConnectionResetError).
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec

import anyio
import pytest

from networkio_testing import proxy as proxy_module
from networkio_testing.proxy import CALM, Chaos, ChaosProxy, Cut, Direction

pytestmark = pytest.mark.anyio

P = ParamSpec("P")


def bounded(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """A test that hangs is a test that failed."""

    @functools.wraps(test)
    async def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with anyio.fail_after(10):
            await test(*args, **kwargs)

    return run


class Lab:
    """A listening target, and every socket that a test opens, to be closed at its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sockets: list[socket.socket] = []
        self.server = self.keep(socket.create_server(("127.0.0.1", 0)))
        self.port: int = self.server.getsockname()[1]

    def keep(self, sock: socket.socket) -> socket.socket:
        sock.setblocking(False)
        self.sockets.append(sock)
        return sock

    def dial(self, proxy: ChaosProxy) -> socket.socket:
        """The kernel answers for the proxy, so this blocks nobody."""
        return self.keep(socket.create_connection((proxy.host, proxy.port), timeout=5))

    async def accept(self) -> socket.socket:
        await anyio.wait_readable(self.server)
        return self.keep(self.server.accept()[0])

    async def connect(self, proxy: ChaosProxy) -> tuple[socket.socket, socket.socket]:
        """The two ends of a new connection through the proxy: the client's and the target's."""
        client, target = self.dial(proxy), await self.accept()
        # The kernel made both connections; the proxy still has to notice that the second one is there.
        await until(lambda: all(len(connection._sockets) == 2 for connection in proxy._open))
        return client, target

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


async def send(sock: socket.socket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        await anyio.wait_writable(sock)
        rest = rest[sock.send(rest) :]


async def receive(sock: socket.socket, size: int = 1 << 20) -> bytes:
    """What comes next: some bytes, nothing after a FIN, ConnectionResetError after a RST."""
    await anyio.wait_readable(sock)
    return sock.recv(size)


async def receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = await receive(sock, size - len(data))
        assert part, f"the stream ended after {len(data)} bytes"
        data += part
    return bytes(data)


async def is_silent(sock: socket.socket, seconds: float = 0.05) -> bool:
    with anyio.move_on_after(seconds):
        await anyio.wait_readable(sock)
        return False
    return True


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.sleep(0.001)


# Forwarding


@pytest.mark.parametrize(
    "chaos", [CALM, Chaos(chunk=1000), Chaos(delay=0.001, rate=50e6)], ids=["calm", "small chunks", "delayed"]
)
@bounded
async def test_bytes_pass_both_ways_intact(lab: Lab, chaos: Chaos) -> None:
    up, down = os.urandom(300_000), os.urandom(400_000)
    async with ChaosProxy("127.0.0.1", lab.port, chaos=chaos) as proxy:
        client, target = await lab.connect(proxy)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, client, up)
            tasks.start_soon(send, target, down)
            assert await receive_exactly(target, len(up)) == up
            assert await receive_exactly(client, len(down)) == down
        assert (proxy.connections, proxy.open_connections, proxy.cuts) == (1, 1, 0)
        assert proxy.bytes_forwarded == len(up) + len(down)


@bounded
async def test_a_half_close_leaves_the_other_direction_open(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client, target = await lab.connect(proxy)
        await send(client, b"request")
        client.shutdown(socket.SHUT_WR)
        assert await receive(target) == b"request"
        assert await receive(target) == b""
        await send(target, b"reply")
        assert await receive(client) == b"reply"
        target.close()
        assert await receive(client) == b""
        await until(lambda: proxy.open_connections == 0)


@pytest.mark.parametrize("direction", ["up", "down"])
@bounded
async def test_a_reset_is_passed_on_as_a_reset(lab: Lab, direction: Direction) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client, target = await lab.connect(proxy)
        near, far = (client, target) if direction == "up" else (target, client)
        reset(near)
        with pytest.raises(ConnectionResetError):
            await receive(far)
        assert proxy.cuts == 0


@bounded
async def test_many_connections_at_once(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        clients = [lab.dial(proxy) for _ in range(200)]
        for number, client in enumerate(clients):
            client.send(b"%3d" % number)
        numbers = {await receive(await lab.accept()) for _ in clients}
        assert len(numbers) == proxy.open_connections == proxy.connections == len(clients)


#: more than the buffers of the proxy's two sockets and of the client's can hold: Linux lets one grow to 32 MiB
KERNEL = 1 << 26


async def fill(sock: socket.socket) -> int:
    """Send until nothing more is taken for a while; how much that was."""
    sent = 0
    while True:
        with anyio.move_on_after(0.1):
            await anyio.wait_writable(sock)
            sent += sock.send(bytes(65536))
            continue
        return sent


@bounded
async def test_a_reader_who_stops_stops_the_writer(lab: Lab) -> None:
    lab.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # what it accepts has no more
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client, target = await lab.connect(proxy)
        sent = await fill(client)
        assert proxy.bytes_forwarded < sent < KERNEL
        await receive_exactly(target, sent)
        assert proxy.bytes_forwarded == sent


@bounded
async def test_a_delay_does_not_hold_more_than_its_line(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port, chaos=Chaos(delay=60)) as proxy:
        client, _ = await lab.connect(proxy)
        assert 1 << 20 < await fill(client) < KERNEL
        assert proxy.bytes_forwarded == 0


@bounded
async def test_unix_sockets_on_both_sides(lab: Lab) -> None:
    listening, served = str(lab.path / "listen"), str(lab.path / "target")
    lab.server = lab.keep(socket.socket(socket.AF_UNIX))
    lab.server.bind(served)
    lab.server.listen()
    client = lab.keep(socket.socket(socket.AF_UNIX))
    async with ChaosProxy(served, host=listening) as proxy:
        assert proxy.port == 0
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            client.connect(listening)
        proxy.refuse(False)
        client.connect(listening)
        target = await lab.accept()
        await send(client, b"hello")
        assert await receive(target) == b"hello"
        assert proxy.cut_all() == 1
        assert await receive(client) == b""
    assert not Path(listening).exists()


# Cuts


async def cut_points(lab: Lab, seed: int) -> list[int]:
    """How many bytes arrive on each of twelve connections in a row, all of them cut."""
    points = []
    async with ChaosProxy("127.0.0.1", lab.port, chaos=Chaos(cut_every=50_000, cut_how="fin"), seed=seed) as proxy:
        for _ in range(12):
            client, target = await lab.connect(proxy)
            await send(target, bytes(75_001))
            arrived = 0
            while data := await receive(client):
                arrived += len(data)
            points.append(arrived)
        assert proxy.cuts == len(points)
        assert proxy.bytes_forwarded == sum(points)
    return points


@bounded
async def test_cuts_are_exact_within_half_and_repeat_with_the_seed(lab: Lab) -> None:
    points = await cut_points(lab, seed=1)
    assert all(25_000 <= point <= 75_000 for point in points)
    assert len(set(points)) > 6
    assert points == await cut_points(lab, seed=1)
    assert points != await cut_points(lab, seed=2)


@bounded
async def test_the_count_to_a_cut_covers_both_directions_and_all_connections(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port, chaos=Chaos(cut_every=100, cut_how="fin")) as proxy:
        first = await lab.connect(proxy)
        second = await lab.connect(proxy)
        ends = [*first, *reversed(second)]
        for turn in range(150):
            await send(ends[turn % 4], b"x")
            if not await receive(ends[turn % 4 ^ 1]) or not await is_silent(ends[turn % 4], 0.001):
                break
        assert 50 <= turn + 1 <= 150
        assert (proxy.cuts, proxy.bytes_forwarded) == (1, turn + 1)
        await until(lambda: proxy.open_connections == 1)


@bounded
async def test_mixed_cuts_are_of_both_kinds(lab: Lab) -> None:
    seen = set()
    async with ChaosProxy("127.0.0.1", lab.port, chaos=Chaos(cut_every=10), seed=3) as proxy:
        for _ in range(12):
            client, target = await lab.connect(proxy)
            await send(target, bytes(100))
            try:
                while await receive(client):
                    pass
                seen.add("fin")
            except ConnectionResetError:
                seen.add("rst")
    assert seen == {"fin", "rst"}


@pytest.mark.parametrize("how", ["fin", "rst"])
@bounded
async def test_cut_all(lab: Lab, how: Cut) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        pairs = [await lab.connect(proxy) for _ in range(3)]
        await until(lambda: proxy.open_connections == 3)
        assert proxy.cut_all(how) == 3
        assert proxy.cut_all(how) == 0
        for sock in (sock for pair in pairs for sock in pair):
            if how == "fin":
                assert await receive(sock) == b""
            else:
                with pytest.raises(ConnectionResetError):
                    await receive(sock)
        assert (proxy.cuts, proxy.open_connections) == (3, 0)


@bounded
async def test_after_a_cut_nothing_more_gets_through(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client, target = await lab.connect(proxy)
        proxy.black_hole()
        await send(client, b"held")
        client.shutdown(socket.SHUT_WR)
        await send(target, b"held")
        await anyio.sleep(0.02)
        proxy.black_hole(False)
        proxy.cut_all()
        for sock in (client, target):
            with pytest.raises(ConnectionResetError):
                await receive(sock)
        assert proxy.bytes_forwarded == 0


@bounded
async def test_refuse_for_some_time_after_a_cut(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port, chaos=Chaos(cut_every=1, cut_how="rst", refuse_for=0.1)) as proxy:
        client, _ = await lab.connect(proxy)
        began = anyio.current_time()
        await send(client, b"x")
        with pytest.raises(ConnectionResetError):
            await receive(client)
        with pytest.raises(ConnectionRefusedError):
            lab.dial(proxy)
        while True:
            try:
                await lab.connect(proxy)
                break
            except ConnectionRefusedError:
                await anyio.sleep(0.01)
        assert anyio.current_time() - began > 0.09


@bounded
async def test_a_proxy_can_be_healed(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port, chaos=Chaos(cut_every=10, delay=60)) as proxy:
        proxy.chaos = CALM
        client, target = await lab.connect(proxy)
        await send(client, bytes(1000))
        await receive_exactly(target, 1000)
        assert proxy.chaos == CALM


# Time


@bounded
async def test_delay_is_latency_and_not_a_pause_after_each_chunk(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port, chaos=Chaos(delay=0.05, chunk=100)) as proxy:
        client, target = await lab.connect(proxy)
        began = anyio.current_time()
        await send(client, bytes(10_000))
        client.shutdown(socket.SHUT_WR)
        await receive_exactly(target, 10_000)
        assert await receive(target) == b""
        await send(target, b"x")
        assert await receive(client) == b"x"
        assert 0.1 <= anyio.current_time() - began < 3  # a hundred chunks, one after the other, would take 5


@pytest.mark.parametrize("delay", [0.0, 0.1])
@bounded
async def test_rate(lab: Lab, delay: float) -> None:
    async with ChaosProxy("127.0.0.1", lab.port, chaos=Chaos(rate=200_000, delay=delay)) as proxy:
        client, target = await lab.connect(proxy)
        began = anyio.current_time()
        await send(client, bytes(40_000))
        await receive_exactly(target, 40_000)
        assert 0.19 + delay <= anyio.current_time() - began < 3


# Black holes


@bounded
async def test_a_black_hole_holds_everything_and_releases_it(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client, target = await lab.connect(proxy)
        proxy.black_hole()
        proxy.black_hole()
        await send(client, b"late")
        client.shutdown(socket.SHUT_WR)
        await send(target, b"later")
        assert await is_silent(target)
        proxy.black_hole(False)  # too short for anything to slip through
        proxy.black_hole()
        assert await is_silent(client)
        newcomer, its_target = await lab.connect(proxy)
        await send(newcomer, b"new")
        assert await is_silent(its_target)
        proxy.black_hole(False)
        proxy.black_hole(False)
        assert await receive_exactly(target, 4) == b"late"
        assert await receive(target) == b""
        assert await receive_exactly(client, 5) == b"later"
        assert await receive(its_target) == b"new"


@pytest.mark.parametrize("direction", ["up", "down"])
@bounded
async def test_a_black_hole_in_one_direction(lab: Lab, direction: Direction) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client, target = await lab.connect(proxy)
        near, far = (client, target) if direction == "up" else (target, client)
        proxy.black_hole(direction=direction)
        await send(near, b"held")
        await send(far, b"passed")
        assert await receive(near) == b"passed"
        assert await is_silent(far)
        proxy.black_hole(False, direction)
        assert await receive(far) == b"held"


@bounded
async def test_a_connection_that_falls_silent_tells_nobody_and_leaves_with_both_sides(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port, chaos=Chaos(black_hole_after=0.1)) as proxy:
        client, target = await lab.connect(proxy)
        await send(client, b"heard")
        assert await receive(target) == b"heard"
        await anyio.sleep(0.12)
        await send(client, b"lost")
        await send(target, b"lost")
        assert await is_silent(target)
        reset(client)
        assert await is_silent(target)
        assert proxy.open_connections == 1
        target.close()
        await until(lambda: proxy.open_connections == 0)
        assert proxy.bytes_forwarded == 5


# A side that is gone, and listening


@bounded
async def test_a_target_that_is_down(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        lab.server.close()
        assert await receive(lab.dial(proxy)) == b""
        assert (proxy.connections, proxy.unreachable, proxy.open_connections) == (1, 1, 0)
        lab.server = lab.keep(socket.create_server(("127.0.0.1", lab.port)))
        client, target = await lab.connect(proxy)
        await send(client, b"back")
        assert await receive(target) == b"back"


@bounded
async def test_a_target_that_does_not_answer(lab: Lab) -> None:
    lab.server.listen(0)
    lab.keep(socket.create_connection(("127.0.0.1", lab.port)))  # fills the queue: the kernel drops what comes next
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client = lab.dial(proxy)
        assert await is_silent(client)
        proxy.cut_all()
        with pytest.raises(ConnectionResetError):
            await receive(client)
        assert proxy.unreachable == 0


@bounded
async def test_the_next_address_of_a_target_is_tried(lab: Lab) -> None:
    dead = socket.create_server(("127.0.0.1", 0))
    place = dead.getsockname()
    dead.close()
    sock = await proxy_module._connect([(socket.AF_INET, place), (socket.AF_INET, ("127.0.0.1", lab.port))])
    assert lab.keep(sock).getpeername()[1] == lab.port


@bounded
async def test_a_send_to_a_side_that_is_gone_resets_the_other(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client, target = await lab.connect(proxy)
        proxy.black_hole(direction="down")  # so that only the send can notice
        reset(target)
        await send(client, b"x")
        with pytest.raises(ConnectionResetError):
            await receive(client)


@bounded
async def test_the_end_of_one_side_after_the_other_is_gone(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client, target = await lab.connect(proxy)
        proxy.black_hole(direction="down")
        client.shutdown(socket.SHUT_WR)
        reset(target)
        assert await is_silent(client)
        proxy.black_hole(False)
        with pytest.raises(ConnectionResetError):
            await receive(client)


@bounded
async def test_refuse_and_accept_again_at_the_same_port(lab: Lab) -> None:
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client, target = await lab.connect(proxy)
        for _ in range(3):
            proxy.refuse()
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                lab.dial(proxy)
            await send(client, b"still here")
            assert await receive(target) == b"still here"
            proxy.refuse(False)
            proxy.refuse(False)
            await lab.connect(proxy)


@bounded
async def test_an_address_in_use_is_an_error_at_once(lab: Lab) -> None:
    with pytest.raises(OSError, match="in use"):
        async with ChaosProxy("127.0.0.1", lab.port, port=lab.port):
            pytest.fail("two listeners at one address")


@bounded
async def test_failures_of_the_kernel_are_survived(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "_BREATHER", 0.01)
    accept, recv = socket.socket.accept, socket.socket.recv
    refusals = [BlockingIOError(), OSError(errno.EMFILE, "no descriptors left"), ConnectionAbortedError()]
    spurious = [BlockingIOError()]

    def is_proxys(sock: socket.socket) -> bool:
        return sock.family == socket.AF_INET and sock.getsockname()[1] == proxy.port

    def failing_accept(sock: socket.socket) -> tuple[socket.socket, Any]:
        if is_proxys(sock) and refusals:
            raise refusals.pop()
        return accept(sock)

    def failing_recv(sock: socket.socket, size: int) -> bytes:
        if is_proxys(sock) and spurious:
            raise spurious.pop()
        return recv(sock, size)

    monkeypatch.setattr(socket.socket, "accept", failing_accept)
    monkeypatch.setattr(socket.socket, "recv", failing_recv)
    async with ChaosProxy("127.0.0.1", lab.port) as proxy:
        client, target = await lab.connect(proxy)
        await send(client, b"hello")
        assert await receive(target) == b"hello"
    assert not refusals
    assert not spurious


# Leaving


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@bounded
async def test_leaving_closes_everything(lab: Lab) -> None:
    tasks_before = len(anyio.get_running_tasks())
    before = descriptors()
    chaos = Chaos(delay=0.01, cut_every=500, refuse_for=0.01)
    async with ChaosProxy("127.0.0.1", lab.port, chaos=chaos) as proxy:
        pairs = [await lab.connect(proxy) for _ in range(20)]
        for client, target in pairs[:10]:
            client.send(bytes(200))
            target.send(bytes(200))
        await until(lambda: proxy.cuts > 3)
        proxy.refuse()
        proxy.black_hole()
        for client, _ in pairs[10:]:
            client.send(b"held")
        await anyio.sleep(0.02)
    for sock in lab.sockets[1:]:
        sock.close()
    assert descriptors() == before
    assert len(anyio.get_running_tasks()) == tasks_before
    assert proxy.open_connections == 0


@bounded
async def test_an_error_in_the_block_comes_out_as_it_is(lab: Lab) -> None:
    proxy = ChaosProxy("127.0.0.1", lab.port)
    with pytest.raises(LookupError, match="mine"):
        async with proxy:
            raise LookupError("mine")


@bounded
async def test_an_error_of_the_proxy_ends_the_block(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(pump: object) -> None:
        raise LookupError("the proxy's")

    async def sleep_in_the_block() -> None:
        async with ChaosProxy("127.0.0.1", lab.port) as proxy:
            lab.dial(proxy)
            await anyio.sleep_forever()

    monkeypatch.setattr(proxy_module._Pump, "run", run)
    with pytest.raises(ExceptionGroup) as caught:
        await sleep_in_the_block()
    assert caught.value.subgroup(LookupError) is not None


@bounded
async def test_the_block_can_be_cancelled(lab: Lab) -> None:
    with anyio.move_on_after(0.02) as scope:
        async with ChaosProxy("127.0.0.1", lab.port) as proxy:
            await lab.connect(proxy)
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert proxy.open_connections == 0


@pytest.mark.parametrize(
    "wrong",
    [{"cut_every": 0}, {"rate": 0}, {"chunk": 0}, {"delay": -1}, {"black_hole_after": -1}, {"cut_how": "politely"}],
    ids=str,
)
def test_chaos_refuses_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Chaos(**wrong)
