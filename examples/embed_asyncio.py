"""A bare asyncio.Protocol drives the core: a chat in the terminal.

What you type goes to the peer, what it says is printed and acknowledged, whoever of the two comes first or dials, and
however often the connection is lost.  After Ctrl-D it leaves as soon as the peer has read everything.

    python examples/embed_asyncio.py server-001 client-123 listen 127.0.0.1 8080
    python examples/embed_asyncio.py client-123 server-001 dial 127.0.0.1 8080
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import networkio_proto as core


class Link(asyncio.Protocol):
    """One byte stream and its connection."""

    def __init__(self, driver: "Driver", target: core.Target | None = None) -> None:
        self.driver, self.target = driver, target
        self.closing = self.blocked = False
        self.closed = driver.loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        endpoint, now = self.driver.endpoint, self.driver.now()
        if self.target is None:
            source = transport.get_extra_info("peername") or ("",)
            self.connection = endpoint.accept(now, source=source[0])
        else:
            self.connection = endpoint.connect(self.target, now)
        self.driver.links[self.connection] = self
        self.driver.pump()

    def data_received(self, data: bytes) -> None:
        self.connection.receive_data(data, self.driver.now())
        self.driver.pump()

    def eof_received(self) -> None:
        self.connection.receive_eof(self.driver.now())
        self.driver.pump()

    def connection_lost(self, error: Exception | None) -> None:
        self.connection.connection_lost(self.driver.now(), error)
        del self.driver.links[self.connection]
        self.closed.set_result(None)
        self.driver.pump()

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        self.transmit()
        self.driver.pump()

    def transmit(self) -> None:
        """Hand over what the core has to say, as long as the transport takes it."""
        while not self.blocked and (buffers := self.connection.data_to_send(self.driver.now())):
            self.transport.write(b"".join(buffers))  # writelines() harms a closing transport on Python 3.12.1
        if self.closing and not self.blocked:
            self.transport.write_eof()

    def close(self, flush: bool) -> None:
        if flush:
            self.closing = True
            self.driver.loop.call_later(self.driver.endpoint.config.linger, self.transport.abort)
            self.transmit()
        else:
            self.transport.abort()


class Driver:
    """Carries out what an endpoint wants done, and serves its timers; calls ``hear`` when there is news."""

    def __init__(self, endpoint: core.Endpoint, hear: Callable[[], None]) -> None:
        self.endpoint, self.hear = endpoint, hear
        self.changed = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.links: dict[core.Connection, Link] = {}
        self.dials: set[asyncio.Task[None]] = set()
        self.alarm: asyncio.Handle = self.loop.call_soon(self.tick)

    def pump(self) -> None:
        """After every input and every command."""
        while (effect := self.endpoint.next_effect()) is not None:
            match effect:
                case core.Dial(target):
                    task = self.loop.create_task(self.dial(target))
                    self.dials.add(task)
                    task.add_done_callback(self.dials.discard)
                case core.Transmit(connection) if connection in self.links:
                    self.links[connection].transmit()
                case core.Close(connection, flush) if connection in self.links:
                    self.links[connection].close(flush)
                case core.Wake(None):
                    self.hear()
                case core.Wake():
                    self.changed.set()
        due = self.endpoint.get_timer()
        self.alarm.cancel()
        if due is not None:
            self.alarm = self.loop.call_at(due, self.tick)

    def tick(self) -> None:
        self.endpoint.handle_timer(self.now())
        self.pump()

    async def dial(self, target: core.Target) -> None:
        address: Any = target.key  # what add_target was given
        try:
            async with asyncio.timeout(self.endpoint.config.dial_timeout):
                await self.loop.create_connection(lambda: Link(self, target), *address)
        except OSError as error:  # TimeoutError is one
            self.endpoint.dial_failed(target, self.now(), error)
            self.pump()

    async def wait(self, session: core.Session, what: int) -> None:
        """Until something of ``what`` may have happened to the session."""
        session.watch = what
        self.changed.clear()
        await self.changed.wait()

    async def leave(self) -> None:
        """Say goodbye on every connection, and wait until that is out."""
        self.endpoint.close(self.now())
        self.pump()
        for dial in self.dials:
            dial.cancel()
        await asyncio.gather(*self.dials, *(link.closed for link in self.links.values()), return_exceptions=True)


def hear(endpoint: core.Endpoint) -> None:
    """Print the news and the messages; acknowledge what is printed."""
    while (notice := endpoint.next_event()) is not None:
        match notice:
            case core.MessagesReady(peer):
                while messages := endpoint.sessions[peer].take(1):
                    print(f"{peer}: {messages[0][2].decode(errors='replace')}", flush=True)
                    endpoint.sessions[peer].settle(messages[0], asyncio.get_running_loop().time())
            case _:
                print("*", notice, flush=True)


async def main(name: str, peer: str, how: str, host: str, port: str) -> None:
    endpoint = core.Endpoint(name)
    driver = Driver(endpoint, lambda: hear(endpoint))
    session = endpoint.session(peer, driver.now())
    keyboard = asyncio.StreamReader()
    pipe, _ = await driver.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(keyboard), sys.stdin)
    server = None
    if how == "listen":
        server = await driver.loop.create_server(lambda: Link(driver), host, int(port))
    else:
        endpoint.add_target((host, int(port)), driver.now(), to=peer)
        driver.pump()
    try:
        while line := await keyboard.readline():
            while not session.has_room:
                await driver.wait(session, core.Watch.ROOM)
            session.send(line.rstrip(b"\n"), driver.now(), raw=True)
            driver.pump()
        while session.unacknowledged:
            await driver.wait(session, core.Watch.PROGRESS)
    finally:
        pipe.close()
        if server is not None:
            server.close()
        await driver.leave()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
