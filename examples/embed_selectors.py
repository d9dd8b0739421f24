"""A bare selector loop drives the core: one thread, non-blocking sockets, and an echo.

Every message is answered with itself, and acknowledged once the answer is accepted.  The enter key ends it.

    python examples/embed_selectors.py echo-001 listen 127.0.0.1 8080
    python examples/embed_selectors.py echo-001 dial 127.0.0.1 8080
"""

import os
import socket
import sys
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from time import monotonic
from typing import Any

import networkio_proto as core


class Driver:
    """Carries bytes and time between an endpoint and the operating system."""

    def __init__(self, endpoint: core.Endpoint) -> None:
        self.endpoint = endpoint
        self.selector = DefaultSelector()
        self.listener: Any = None  # a socket, if it listens at all
        self.links: dict[core.Dial | core.Connection, socket.socket] = {}  # those that connect, and those that have

    def step(self) -> None:
        """Wait until something happens, tell the core, and do what it wants done."""
        due = self.endpoint.get_timer()
        for key, events in self.selector.select(None if due is None else max(0.0, due - monotonic())):
            key.data() if callable(key.data) else self.ready(key.data, events)
        self.endpoint.handle_timer(monotonic())
        self.pump()

    def pump(self) -> None:
        """After every input and every command: do what the core wants done."""
        while (effect := self.endpoint.next_effect()) is not None:
            match effect:
                case core.Dial():
                    self.dial(effect)
                case core.Transmit(link) | core.Close(link, True) if link in self.links:
                    self.ready(link, EVENT_WRITE)
                case core.Abandon(link) | core.Close(link, False) if link in self.links:
                    self.drop(link)
                case core.Wake(session):
                    news(self.endpoint) if session is None else echo(session)

    def leave(self) -> None:
        """Say goodbye; the last link is gone when that is out."""
        self.selector.unregister(sys.stdin)
        if self.listener is not None:
            self.selector.unregister(self.listener)
            self.listener.close()
        self.endpoint.close(monotonic())

    def listen(self, address: tuple[str, int]) -> None:
        self.listener = socket.create_server(address)
        self.listener.setblocking(False)
        self.selector.register(self.listener, EVENT_READ, self.accept)

    def accept(self) -> None:
        with suppress(OSError):  # whoever it was may have gone again
            sock, address = self.listener.accept()
            self.add(self.endpoint.accept(monotonic(), source=address[0]), sock)

    def dial(self, dial: core.Dial) -> None:
        try:
            sock = socket.socket()
            self.add(dial, sock)
            sock.connect(dial.target.key)
        except BlockingIOError:
            pass  # it can be written when it is connected, or has failed
        except OSError as error:
            self.endpoint.dial_failed(dial, monotonic(), error)

    def add(self, link: core.Dial | core.Connection, sock: socket.socket) -> None:
        self.links[link] = sock
        sock.setblocking(False)
        self.selector.register(sock, EVENT_WRITE, link)

    def ready(self, link: core.Dial | core.Connection, events: int) -> None:
        """Its socket can be read or written, or the core has something for it."""
        sock = self.links[link]
        try:
            if isinstance(link, core.Dial):
                if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, os.strerror(error))
                del self.links[link]
                link = self.endpoint.connect(link, monotonic())
                self.links[link] = sock
            if events & EVENT_READ:
                data = sock.recv(65536)
                link.receive_data(data, monotonic()) if data else link.receive_eof(monotonic())
            if events & EVENT_WRITE:
                while unsent := link.unsent(monotonic()):
                    link.sent(sock.send(unsent), monotonic())
                if link.state is core.ConnectionState.CLOSING:
                    sock.shutdown(socket.SHUT_WR)
                self.selector.modify(sock, EVENT_READ, link)
        except BlockingIOError:  # no further Transmit comes before all is taken: the selector says when to go on
            self.selector.modify(sock, EVENT_READ | EVENT_WRITE, link)
        except OSError as error:  # which leads to Abandon or Close
            if isinstance(link, core.Dial):
                self.endpoint.dial_failed(link, monotonic(), error)
            else:
                link.connection_lost(monotonic(), error)

    def drop(self, link: core.Dial | core.Connection) -> None:
        sock = self.links.pop(link)
        self.selector.unregister(sock)
        sock.close()


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
    driver.selector.register(sys.stdin, EVENT_READ, driver.leave)
    while driver.links or not endpoint.closed:
        driver.step()


if __name__ == "__main__":
    main(*sys.argv[1:])
