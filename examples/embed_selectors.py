"""A bare selector loop drives the core: one thread, non-blocking sockets, and an echo.

Every message is answered with itself, and acknowledged once the answer is accepted.  The enter key ends it.

    python examples/embed_selectors.py echo-001 listen 127.0.0.1 8080
    python examples/embed_selectors.py echo-001 dial 127.0.0.1 8080
"""

import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from errno import EINPROGRESS
from math import inf
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from time import monotonic
from typing import Any

import networkio_proto as core


@dataclass
class Link:
    """A socket that connects for a target, serves a connection, or lingers after its end."""

    sock: socket.socket
    deadline: float = inf  # of connecting, or of lingering
    unsent: bytes | memoryview = b""  # what the core has handed out and the socket has not taken


class Driver:
    """Carries bytes and time between an endpoint and the operating system."""

    def __init__(self, endpoint: core.Endpoint) -> None:
        self.endpoint = endpoint
        self.selector = DefaultSelector()
        self.listener: Any = None  # a socket, if it listens at all
        self.links: dict[core.Connection | core.Target, Link] = {}

    def step(self) -> None:
        """Wait until something happens, tell the core, and do what it wants done."""
        timer = self.endpoint.get_timer()
        due = min([inf if timer is None else timer, *(link.deadline for link in self.links.values())])
        for key, events in self.selector.select(None if due == inf else max(0.0, due - monotonic())):
            key.data() if callable(key.data) else self.ready(key.data, events)
        for overdue in [which for which, link in self.links.items() if link.deadline <= monotonic()]:
            self.drop(overdue, TimeoutError("no answer in time"))
        self.endpoint.handle_timer(monotonic())
        self.pump()

    def pump(self) -> None:
        """After every input and every command: do what the core wants done."""
        while (effect := self.endpoint.next_effect()) is not None:
            match effect:
                case core.Dial(target):
                    self.dial(target)
                case core.Transmit(connection) if connection in self.links:
                    self.ready(connection, EVENT_WRITE)
                case core.Close(connection, True) if connection in self.links:
                    self.links[connection].deadline = monotonic() + self.endpoint.config.linger
                    self.ready(connection, EVENT_WRITE)
                case core.Close(connection) if connection in self.links:
                    self.drop(connection)
                case core.Wake(session):
                    news(self.endpoint) if session is None else echo(session)

    def leave(self) -> None:
        """The endpoint is closed: wait until the goodbyes are out."""
        self.selector.unregister(sys.stdin)
        if self.listener is not None:
            self.selector.unregister(self.listener)
            self.listener.close()
        for target in [which for which in self.links if isinstance(which, core.Target)]:
            self.drop(target)
        self.pump()
        while self.links:
            self.step()

    def listen(self, address: tuple[str, int]) -> None:
        self.listener = socket.create_server(address)
        self.listener.setblocking(False)
        self.selector.register(self.listener, EVENT_READ, self.accept)

    def accept(self) -> None:
        with suppress(OSError):  # whoever it was may have gone again
            sock, address = self.listener.accept()
            sock.setblocking(False)
            connection = self.endpoint.accept(monotonic(), source=address[0])
            self.links[connection] = Link(sock)
            self.selector.register(sock, EVENT_READ, connection)

    def dial(self, target: core.Target) -> None:
        address: Any = target.key
        link = self.links[target] = Link(socket.socket(), monotonic() + self.endpoint.config.dial_timeout)
        link.sock.setblocking(False)
        self.selector.register(link.sock, EVENT_WRITE, target)
        error = link.sock.connect_ex(address)
        if error not in (0, EINPROGRESS):
            self.drop(target, OSError(error, os.strerror(error)))

    def ready(self, which: core.Connection | core.Target, events: int) -> None:
        """Its socket can be read or written, or the core has something for it."""
        link = self.links[which]
        try:
            if isinstance(which, core.Target):
                if error := link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, os.strerror(error))
                del self.links[which]
                which = self.endpoint.connect(which, monotonic())
                link = self.links[which] = Link(link.sock)
            if events & EVENT_WRITE:
                self.write(which, link)
            if events & EVENT_READ and (data := link.sock.recv(65536)):
                which.receive_data(data, monotonic())
            elif events & EVENT_READ:
                self.drop(which)  # the end of the stream
        except BlockingIOError:
            pass
        except OSError as error:
            self.drop(which, error)

    def write(self, connection: core.Connection, link: Link) -> None:
        try:
            while link.unsent or (buffers := connection.data_to_send(monotonic())):
                link.unsent = memoryview(link.unsent or b"".join(buffers))
                link.unsent = link.unsent[link.sock.send(link.unsent) :]
            if link.deadline < inf:
                link.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass  # no further Transmit comes before all is taken: the selector has to say when to go on
        events = EVENT_READ | (EVENT_WRITE if link.unsent else 0)
        self.selector.modify(link.sock, events, connection)

    def drop(self, which: core.Connection | core.Target, error: OSError | None = None) -> None:
        sock = self.links.pop(which).sock
        self.selector.unregister(sock)
        sock.close()
        if isinstance(which, core.Target):
            self.endpoint.dial_failed(which, monotonic(), error or ConnectionAbortedError("nobody needs it"))
        else:
            which.connection_lost(monotonic(), error)  # means nothing when the core has closed it


def news(endpoint: core.Endpoint) -> None:
    while (notice := endpoint.next_event()) is not None:
        print(notice, flush=True)
        if isinstance(notice, core.MessagesReady):
            echo(endpoint.sessions[notice.peer])


def echo(session: core.Session) -> None:
    """Answer while there is room for answers; the rest waits, at last with its sender."""
    while session.can_send and session.has_room and (messages := session.take(1)):
        _, _, payload, flags, _ = messages[0]
        session.send(payload, monotonic(), raw=bool(flags & core.DataFlag.RAW))
        session.settle(messages[0], monotonic())
    session.watch = core.Watch.ROOM


def main(name: str, how: str, host: str, port: str) -> None:
    endpoint = core.Endpoint(name)
    driver = Driver(endpoint)
    if how == "listen":
        driver.listen((host, int(port)))
    else:
        endpoint.add_target((host, int(port)), monotonic())
        driver.pump()
    driver.selector.register(sys.stdin, EVENT_READ, lambda: endpoint.close(monotonic()))
    while not endpoint.closed:
        driver.step()
    driver.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
