"""The main loop of Tk drives the core: a window to chat in, without a thread.

What you say is grey until the peer has read it, and waits while there is no connection.  (Not on Windows.)

    python examples/embed_tk.py client-123 server-001 127.0.0.1 8080
"""

import os
import socket
import sys
import tkinter
from collections.abc import Callable
from errno import EINPROGRESS
from math import ceil, inf
from time import monotonic
from tkinter import READABLE, WRITABLE
from typing import Any

import networkio_proto as core


class Link:
    """A socket that connects for a target, serves a connection, or lingers after its end."""

    def __init__(self, sock: socket.socket, deadline: float = inf) -> None:
        self.sock = sock
        self.deadline = deadline  # of connecting, or of lingering
        self.unsent: bytes | memoryview = b""  # what the core has handed out and the socket has not taken


class Driver:
    """Carries bytes and time between an endpoint and Tk's main loop; calls ``hear`` when there is news."""

    def __init__(self, endpoint: core.Endpoint, root: tkinter.Tk, hear: Callable[[], None]) -> None:
        self.endpoint, self.root, self.hear = endpoint, root, hear
        self.links: dict[core.Connection | core.Target, Link] = {}
        self.alarm = root.after(0, self.tick)

    def pump(self) -> None:
        """Do what the core wants done: after every input and every command."""
        while (effect := self.endpoint.next_effect()) is not None:
            match effect:
                case core.Dial(target):
                    self.dial(target)
                case core.Transmit(connection) if connection in self.links:
                    self.ready(connection, WRITABLE)
                case core.Close(connection, True) if connection in self.links:
                    self.links[connection].deadline = monotonic() + self.endpoint.config.linger
                    self.ready(connection, WRITABLE)
                case core.Close(connection) if connection in self.links:
                    self.drop(connection)
                case core.Wake():
                    self.hear()
        timer = self.endpoint.get_timer()
        due = min([monotonic() + 3600 if timer is None else timer, *(link.deadline for link in self.links.values())])
        self.root.after_cancel(self.alarm)
        self.alarm = self.root.after(ceil(max(0.0, due - monotonic()) * 1000), self.tick)
        if self.endpoint.closed and not self.links:
            self.root.quit()

    def tick(self) -> None:
        for overdue in [which for which, link in self.links.items() if link.deadline <= monotonic()]:
            self.drop(overdue, TimeoutError("no answer in time"))
        self.endpoint.handle_timer(monotonic())
        self.pump()

    def leave(self) -> None:
        """Say goodbye; the main loop ends when that is out."""
        self.endpoint.close(monotonic())
        for target in [which for which in self.links if isinstance(which, core.Target)]:
            self.drop(target)
        self.pump()

    def dial(self, target: core.Target) -> None:
        address: Any = target.key
        link = self.links[target] = Link(socket.socket(), monotonic() + self.endpoint.config.dial_timeout)
        link.sock.setblocking(False)
        self.watch(target, WRITABLE)
        error = link.sock.connect_ex(address)
        if error not in (0, EINPROGRESS):
            self.drop(target, OSError(error, os.strerror(error)))

    def watch(self, which: core.Connection | core.Target, events: int) -> None:
        def handle(sock: Any, events: int) -> None:
            self.ready(which, events)
            self.pump()

        self.root.createfilehandler(self.links[which].sock, events, handle)

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
            if events & WRITABLE:
                self.write(which, link)
            if events & READABLE and (data := link.sock.recv(65536)):
                which.receive_data(data, monotonic())
            elif events & READABLE:
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
            pass  # no further Transmit comes before all is taken: Tk has to say when to go on
        self.watch(connection, READABLE | (WRITABLE if link.unsent else 0))

    def drop(self, which: core.Connection | core.Target, error: OSError | None = None) -> None:
        sock = self.links.pop(which).sock
        self.root.deletefilehandler(sock)
        sock.close()
        if isinstance(which, core.Target):
            self.endpoint.dial_failed(which, monotonic(), error or ConnectionAbortedError("nobody needs it"))
        else:
            which.connection_lost(monotonic(), error)  # means nothing when the core has closed it


class Window:
    """What was said above, what is being typed below."""

    def __init__(self, root: tkinter.Tk, name: str, peer: str, address: tuple[str, int]) -> None:
        self.root, self.endpoint, self.read = root, core.Endpoint(name), 0
        self.driver = Driver(self.endpoint, root, self.hear)
        self.session = self.endpoint.session(peer, monotonic())
        self.endpoint.add_target(address, monotonic(), to=peer)
        self.text, self.entry = tkinter.Text(root), tkinter.Entry(root)
        self.text.pack(fill="both", expand=True)
        self.entry.pack(fill="x")
        self.entry.bind("<Return>", self.say)
        root.protocol("WM_DELETE_WINDOW", self.driver.leave)

    def say(self, event: object = None) -> None:
        if not (self.session.can_send and self.session.has_room):
            return  # what was typed stays there
        sequence = self.session.send(self.entry.get().encode(), monotonic(), raw=True)
        self.text.insert("end", f"{self.entry.get()}\n", f"sent{sequence}")
        self.text.tag_config(f"sent{sequence}", foreground="grey")
        self.entry.delete(0, "end")
        self.driver.pump()

    def hear(self) -> None:
        while (notice := self.endpoint.next_event()) is not None:
            match notice:
                case core.MessagesReady(peer):
                    while messages := self.endpoint.sessions[peer].take(1):
                        self.text.insert("end", f"{peer}: {messages[0][2].decode(errors='replace')}\n")
                        self.endpoint.sessions[peer].settle(messages[0], monotonic())
                case core.MessagesRead(_, through):
                    for sequence in range(self.read + 1, through + 1):
                        self.text.tag_config(f"sent{sequence}", foreground="black")
                    self.read = through
                case core.PeerConnected(peer):
                    self.root.title(f"{peer} is here")
                case core.PeerDisconnected(peer, error):
                    self.root.title(f"{peer} is away: {error}")


if __name__ == "__main__":
    root = tkinter.Tk()
    Window(root, sys.argv[1], sys.argv[2], (sys.argv[3], int(sys.argv[4])))
    root.mainloop()
