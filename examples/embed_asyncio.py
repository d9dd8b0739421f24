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

    def __init__(self, driver: "Driver", dial: core.Dial | None = None) -> None:
        self.driver, self.dial = driver, dial

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        transport.set_write_buffer_limits(0)  # it says so as soon as the socket is full: resume_writing() follows
        endpoint, now = self.driver.endpoint, self.driver.now()
        if self.dial is None:
            self.connection = endpoint.accept(now, source=(transport.get_extra_info("peername") or [""])[0])
        else:
            self.connection = endpoint.connect(self.dial, now)
            self.driver.dials.pop(self.dial, None)
        self.driver.links[self.connection] = self
        self.driver.pump()

    def data_received(self, data: bytes) -> None:
        self.connection.receive_data(data, self.driver.now())
        self.driver.pump()

    def connection_lost(self, error: Exception | None) -> None:  # or its end, without one
        self.connection.connection_lost(self.driver.now(), error)
        del self.driver.links[self.connection]
        self.driver.pump()

    def resume_writing(self) -> None:
        self.transmit()
        self.driver.pump()

    def transmit(self) -> None:
        """Hand over what the core has to say, as long as the socket takes it."""
        blocked = self.transport.get_write_buffer_size
        while not blocked() and (buffers := self.connection.data_to_send(self.driver.now())):
            self.transport.write(b"".join(buffers))  # writelines() harms a closing transport on Python 3.12.1
        if self.connection.state is core.ConnectionState.CLOSING and not blocked():
            self.transport.write_eof()


class Driver:
    """Carries out what an endpoint wants done, and serves its timers; calls ``hear`` when there is news."""

    def __init__(self, endpoint: core.Endpoint, hear: Callable[[], None]) -> None:
        self.endpoint, self.hear = endpoint, hear
        self.changed = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.links: dict[core.Connection, Link] = {}
        self.dials: dict[core.Dial, asyncio.Task[None]] = {}
        self.alarm: asyncio.Handle = self.loop.call_soon(self.pump)

    def pump(self) -> None:
        """After every input and every command, and when a timer is due."""
        self.endpoint.handle_timer(self.now())
        while (effect := self.endpoint.next_effect()) is not None:
            match effect:
                case core.Dial():
                    self.dials[effect] = self.loop.create_task(self.dial(effect))
                case core.Abandon(dial) if dial in self.dials:
                    self.dials.pop(dial).cancel()
                case core.Transmit(connection) | core.Close(connection, True) if connection in self.links:
                    self.links[connection].transmit()
                case core.Close(connection) if connection in self.links:
                    self.links[connection].transport.abort()
                case core.Wake(None):
                    self.hear()
        self.changed.set()
        due = self.endpoint.get_timer()
        self.alarm.cancel()
        if due is not None:
            self.alarm = self.loop.call_at(due, self.pump)

    async def dial(self, dial: core.Dial) -> None:
        try:
            await self.loop.create_connection(lambda: Link(self, dial), *dial.target.key)
        except OSError as error:
            del self.dials[dial]
            self.endpoint.dial_failed(dial, self.now(), error)
            self.pump()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for that; look again whenever something has happened."""
        while not holds():
            self.changed.clear()
            await self.changed.wait()


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
            await driver.until(lambda: session.has_room)
            session.send(line.rstrip(b"\n"), driver.now(), raw=True)
            driver.pump()
        await driver.until(lambda: not session.unacknowledged)
    finally:
        pipe.close()
        if server is not None:
            server.close()
        endpoint.close(driver.now())
        driver.pump()
        await driver.until(lambda: not driver.links)  # the goodbyes are out


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
