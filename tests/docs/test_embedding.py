"""The drivers that docs/howto/embed.md shows: each is run against the adapter and the others, and loses its connection.

Their programs are started as anybody would start them; the peer is a node of networkio_asyncio in this process, which
tells a driver that breaks the contract from one that keeps it, and the chaos proxy stands in between.
"""

from __future__ import annotations

import ast
import gc
import importlib
import os
import re
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from networkio_asyncio import Config, Endpoint, Node, Peer, PeerDisconnected, PeerRestarting
from networkio_proto import Connection
from networkio_proto.frames import PREAMBLE
from networkio_testing.proxy import CALM, Chaos, ChaosProxy
from tests.adapters.helpers import HASTY, bounded

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("embed_*.py"))
#: a node that lets its peer send more at once than sockets hold
WIDE = replace(HASTY, window=8 * 2**20, window_max=8 * 2**20)

#: almost a whole outbox, and a path that takes two seconds for it
MANY = [bytes([number]) * 64_000 for number in range(120)]
SLOW = Chaos(rate=4_000_000)

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}

#: what a driver is told to do
LISTEN, DIAL = "listen", "dial"

#: how the drivers print notices
NOTICE = r"(\* )?(Peer|Messages)\w+\(peer='[\w-]+'.*\)$"


@pytest.fixture
def anyio_backend() -> str:
    """The peer is the same on trio; tests/adapters sees to that."""
    return "asyncio"


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_driver_is_short_and_knows_the_core_alone(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 150
    assert not re.search("linger|dial_timeout", source)  # it does what it is told, when it is told
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or ".")
    foreign = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign == {"networkio_proto"}  # its public names: no module of it either


# -- programs ---------------------------------------------------------------------------------------------------------


class Program:
    """A running example: what it prints, line by line, errors too."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdout is not None
        self.process = process
        self._lines = BufferedByteReceiveStream(process.stdout)

    async def line(self) -> str:
        """The next line; an exception in it shows here."""
        line = (await self._lines.receive_until(b"\n", 1 << 20)).decode() + "\n"
        if line.startswith("Traceback"):
            with suppress(anyio.EndOfStream):
                while True:
                    line += (await self._lines.receive()).decode()
            pytest.fail(line)
        return line

    async def prints(self, lines: Sequence[bytes]) -> None:
        """The next lines are these, with nothing but notices in between."""
        for expected in lines:
            while re.match(NOTICE, line := await self.line()):
                pass
            assert line.encode() == expected

    async def type(self, text: bytes) -> None:
        """On its keyboard."""
        assert self.process.stdin is not None
        await self.process.stdin.send(text)

    async def leaves(self) -> None:
        """It was told to: it ends well, and complains of nothing."""
        rest = b""
        with suppress(anyio.EndOfStream):
            while True:
                rest += await self._lines.receive()
        assert [line for line in rest.decode().splitlines() if not re.match(NOTICE, line)] == []
        assert await self.process.wait() == 0

    async def end_of_input(self) -> None:
        """Ctrl-D: every one of them takes that as its end."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        await self.leaves()


@asynccontextmanager
async def running(name: str, *arguments: object, **environment: str) -> AsyncIterator[Program]:
    command = [sys.executable, str(ROOT / "examples" / f"embed_{name}.py"), *map(str, arguments)]
    process = await anyio.open_process(command, stderr=subprocess.STDOUT, env=ENVIRONMENT | environment)
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def met(
    how: str, chaos: Chaos = CALM, config: Config = HASTY
) -> AsyncIterator[tuple[Node, Peer, ChaosProxy, int]]:
    """A node, the proxy, and where a driver that is told to ``how`` finds or awaits the node."""
    async with Node("adapter", config=config) as node:
        if how == DIAL:
            listener = await node.listen("127.0.0.1", 0)
            async with ChaosProxy("127.0.0.1", listener.port, chaos=chaos) as proxy:
                yield node, node.peer("driver"), proxy, proxy.port
        else:
            port = free_port()
            async with ChaosProxy("127.0.0.1", port, chaos=chaos) as proxy:  # dialled before there is a listener
                yield node, await node.connect(proxy.host, proxy.port, "driver"), proxy, port


# -- the drivers against the adapter ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [LISTEN, DIAL])
@bounded(30)
async def test_selectors_echoes_everything_once_and_in_order_through_cuts(how: str) -> None:
    messages = [{"number": number, "text": "x" * (number % 500)} for number in range(400)]
    async with (
        met(how, Chaos(cut_every=20_000)) as (_, peer, proxy, port),
        running("selectors", "driver", how, "127.0.0.1", port) as program,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_all, peer, messages)
            assert [await peer.read() for _ in messages] == messages
        await everything_is_read(peer, proxy, len(messages))
        await program.end_of_input()


@pytest.mark.parametrize("how", [LISTEN, DIAL])
@bounded(30)
async def test_asyncio_chats_both_ways_once_and_in_order_through_cuts(how: str) -> None:
    lines = [f"{number} {'x' * (number % 500)}\n".encode() for number in range(400)]
    async with (
        met(how, Chaos(cut_every=20_000)) as (_, peer, proxy, port),
        running("asyncio", "driver", "adapter", how, "127.0.0.1", port) as program,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(program.type, b"".join(lines))
            tasks.start_soon(send_all, peer, [line.rstrip(b"\n") for line in lines])
            tasks.start_soon(program.prints, [b"adapter: " + line for line in lines])
            assert [await peer.read() + b"\n" for _ in lines] == lines
        await everything_is_read(peer, proxy, len(lines))
        await program.end_of_input()


async def send_all(peer: Peer, messages: Sequence[Any]) -> None:
    for message in messages:
        await peer.send(message, raw=isinstance(message, bytes))


async def everything_is_read(peer: Peer, proxy: ChaosProxy, count: int) -> None:
    """Through cuts; from now on there are none."""
    assert proxy.cuts > 5
    proxy.chaos = CALM
    ledger = await peer.drain()
    assert (ledger.accepted, ledger.read, peer.unread) == (count, count, 0)


def stuck(links: Iterable[Any]) -> bool:
    """Is a socket full, so that the driver could not write all that there is?"""
    return any(link.dirty for link in links if isinstance(link, Connection))


@pytest.mark.slow
@bounded(30)
async def test_selectors_goes_on_writing_where_a_full_socket_stopped_it() -> None:
    """The echo cannot be made to write so much at once: its driver is lent to something that talks more."""
    module = importlib.import_module("examples.embed_selectors")

    def drive(port: int) -> bool:
        driver = module.Driver(Endpoint("driver"))
        session = driver.endpoint.session("adapter", monotonic())
        driver.endpoint.add_target(("127.0.0.1", port), monotonic(), to="adapter")
        for message in MANY:
            session.send(message, monotonic(), raw=True)
        driver.pump()
        blocked = False
        while session.unacknowledged:
            driver.step()
            blocked = blocked or stuck(driver.links)
        driver.endpoint.close(monotonic())
        driver.pump()
        while driver.links:
            driver.step()
        driver.selector.close()
        return blocked

    async with met(DIAL, SLOW, config=WIDE) as (_, peer, _, port), anyio.create_task_group() as tasks:
        blocked: list[bool] = []

        async def drive_in_a_thread() -> None:
            blocked.append(await anyio.to_thread.run_sync(drive, port, abandon_on_cancel=True))

        tasks.start_soon(drive_in_a_thread)
        assert [await peer.read() for _ in MANY] == MANY
    assert blocked == [True]


@bounded(30)
async def test_asyncio_goes_on_writing_and_waits_for_room() -> None:
    lines = [b"%d " % number * 15_000 for number in range(1, 200)]
    typed = 0
    async with (
        met(DIAL, config=WIDE) as (_, peer, proxy, port),
        running("asyncio", "driver", "adapter", DIAL, "127.0.0.1", port) as program,
        anyio.create_task_group() as tasks,
    ):
        async def type_all() -> None:
            nonlocal typed
            for line in lines:
                await program.type(line + b"\n")
                typed += len(line)

        await peer.wait_connected()
        proxy.black_hole(True, "up")
        tasks.start_soon(type_all)
        while typed < Config().outbox_limit:  # it cannot get rid of them, and no longer reads what is typed
            await anyio.sleep(0.01)
        proxy.black_hole(False, "up")
        assert [await peer.read() for _ in lines] == lines
        await program.end_of_input()


@pytest.mark.parametrize("name", ["selectors", "asyncio"])
@bounded(30)
async def test_says_goodbye_before_it_leaves(name: str) -> None:
    async with met(DIAL) as (node, peer, _, port):
        async with running(name, *ids(name, "adapter"), DIAL, "127.0.0.1", port) as program:
            await peer.wait_connected()
            await program.end_of_input()
        await goodbye(node)


@pytest.mark.parametrize("name", ["selectors", "asyncio"])
@bounded(30)
async def test_half_closes_and_lingers_until_the_other_side_has_closed(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with running(name, *ids(name, "nobody"), DIAL, *listener.getsockname()) as program:
            await anyio.wait_readable(listener)
            with listener.accept()[0] as sock, anyio.fail_after(20):
                sock.settimeout(20)
                assert sock.recv(4096).startswith(PREAMBLE)
                assert program.process.stdin is not None
                await program.process.stdin.aclose()
                while sock.recv(4096):  # the goodbye, and the end of that half
                    pass
                sock.sendall(b"still on its way")
                with anyio.move_on_after(Config().linger / 4):
                    await program.process.wait()
                assert program.process.returncode is None
            started = anyio.current_time()
            await program.leaves()
            assert anyio.current_time() < started + Config().linger / 2  # the end of the stream was enough


def ids(name: str, peer: str) -> list[str]:
    """The arguments of a program that name it and its peer; the echo takes whoever is there."""
    return ["driver"] if name == "selectors" else ["driver", peer]


async def goodbye(node: Node) -> None:
    """The next disconnection is a CLOSE that arrived, and not the loss of a stream."""
    async for notice in node.notifications():
        if isinstance(notice, PeerDisconnected):
            assert isinstance(notice.error, PeerRestarting)
            return


# -- the drivers against each other -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["selectors", "asyncio"])
@pytest.mark.parametrize("listening", ["selectors", "asyncio"])
@bounded(30)
async def test_selectors_and_asyncio_talk_whoever_comes_first(first: str, listening: str) -> None:
    port = free_port()
    how = {name: LISTEN if name == listening else DIAL for name in ("selectors", "asyncio")}
    programs: dict[str, Program] = {}
    async with AsyncExitStack() as stack:
        for name in sorted(how, key=lambda name: name != first):
            names = ["echo"] if name == "selectors" else ["chat", "echo"]
            programs[name] = await stack.enter_async_context(running(name, *names, how[name], "127.0.0.1", port))
            if name == first == "asyncio" and how[name] == DIAL:  # nobody is there yet
                assert "DialFailed" in await programs[name].line()
        await programs["asyncio"].type(b"one\ntwo\nthree\n")
        await programs["asyncio"].prints([b"echo: one\n", b"echo: two\n", b"echo: three\n"])
        await programs["asyncio"].end_of_input()
        await programs["selectors"].end_of_input()


@bounded(30)
async def test_memory_needs_no_network() -> None:
    """tests/docs/test_examples.py runs it as a program; here it talks often enough to need its loop."""
    memory = importlib.import_module("examples.embed_memory")
    alice, bob = Endpoint("alice"), Endpoint("bob")
    alice.add_target(bob, 0.0, to="bob")
    for number in range(3_000):  # more than the window takes at once
        alice.session("bob").send(b"%d" % number * 100, 0.0, raw=True)
    got: list[bytes] = []
    while len(got) < 3_000:
        memory.carry(alice, bob)
        batch = bob.sessions["alice"].take_settled(1_000, 0.0)
        assert batch
        got += [delivery[2] for delivery in batch]
    memory.carry(alice, bob)
    assert got == [b"%d" % number * 100 for number in range(3_000)]
    assert alice.session("bob").unacknowledged == 0


# -- the window -------------------------------------------------------------------------------------------------------


@pytest.fixture
def display() -> Iterator[str]:
    """An X server of our own, on a display that it found to be free."""
    why = "this Python has no Tk: tkinter cannot be imported"
    tkinter = pytest.importorskip("tkinter", reason=why, exc_type=ImportError)
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no Xvfb, so there is no display to open a window on")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as server:
        try:
            os.close(writing)
            assert select.select([reading], [], [], 20)[0], "Xvfb does not start"
            yield f":{os.read(reading, 16).decode().strip()}"
        finally:
            os.close(reading)
            server.terminate()
    # What is left of its windows goes in this thread, for Tcl ends the process where another one's collector meets it.
    gc.collect()
    assert not [each for each in gc.get_objects() if issubclass(type(each), tkinter.Misc)]


@pytest.mark.slow
@bounded(30)
async def test_tk_window_chats_through_cuts_shows_what_is_read_and_says_goodbye(display: str) -> None:
    tkinter, embed_tk = importlib.import_module("tkinter"), importlib.import_module("examples.embed_tk")
    lines = [f"{number} {'x' * (2 * number)}" for number in range(200)]
    root = tkinter.Tk(screenName=display)
    try:
        async with met(DIAL, Chaos(cut_every=8_000), config=WIDE) as (node, peer, proxy, port):
            window = embed_tk.Window(root, "driver", "adapter", ("127.0.0.1", port))

            def serve() -> None:
                """What ``root.update`` does, but with an end even where timers are due again and again."""
                for _ in range(100):
                    if not root.dooneevent(tkinter._tkinter.DONT_WAIT):
                        break

            def say(line: str) -> None:
                window.entry.insert(0, line)
                window.entry.focus_force()
                serve()
                window.entry.event_generate("<Return>")

            async def until(holds: Callable[[], bool]) -> None:
                while not holds():
                    serve()
                    await anyio.sleep(0.001)

            def colours() -> set[str]:
                tags = [tag for tag in window.text.tag_names() if tag.startswith("sent")]
                return {str(window.text.tag_cget(tag, "foreground")) for tag in tags}

            for line in lines:
                say(line)
            assert colours() >= {"grey"}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_all, peer, [line.encode() for line in lines])
                tasks.start_soon(until, lambda: colours() == {"black"} and not node.ledger.unread)
                assert [(await peer.read()).decode() for _ in lines] == lines
            await everything_is_read(peer, proxy, len(lines))
            shown = window.text.get("1.0", "end").splitlines()
            assert [line for line in shown if not line.startswith("adapter: ")] == [*lines, ""]
            assert [line for line in shown if line.startswith("adapter: ")] == [f"adapter: {line}" for line in lines]

            await until(lambda: root.title() == "adapter is here")
            proxy.refuse()
            proxy.cut_all()
            await until(lambda: str(root.title()).startswith("adapter is away"))
            say("is anybody there?")
            assert colours() == {"grey", "black"}
            proxy.refuse(False)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(until, lambda: colours() == {"black"})
                assert await peer.read() == b"is anybody there?"

            proxy.chaos = SLOW
            for message in MANY:
                window.session.send(message, monotonic(), raw=True)
            window.driver.pump()
            assert stuck(window.driver.links)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(until, lambda: not window.session.unacknowledged)
                assert [await peer.read() for _ in MANY] == MANY

            root.after(0, window.driver.leave)
            root.after(10_000, root.quit)
            started = monotonic()
            root.mainloop()  # nobody answers meanwhile, this being one thread: it lingers, and ends by itself
            assert Config().linger * 0.9 < monotonic() - started
            assert window.driver.links == {}
            await goodbye(node)
    finally:
        root.destroy()


@bounded(30)
async def test_tk_program_reads_what_it_is_sent(display: str) -> None:
    async with (
        met(DIAL) as (_, peer, _, port),
        running("tk", "driver", "adapter", "127.0.0.1", port, DISPLAY=display) as program,
    ):
        await (await peer.send(b"hello", raw=True)).read()
        assert program.process.returncode is None
