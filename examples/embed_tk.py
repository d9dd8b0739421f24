"""The main loop of Tk drives the core: a window to chat in, without a thread.

What you say is grey until the peer has read it, and waits while there is no connection.  (Not on Windows.)

    python examples/embed_tk.py client-123 server-001 127.0.0.1 8080
"""

import os
import socket
import sys
import tkinter
from collections.abc import Callable
from math import ceil
from time import monotonic
from typing import Any

import networkio_proto as core


class Driver:
    """Carries bytes and time between an endpoint and Tk's main loop; calls ``hear`` when there is news."""

    def __init__(self, endpoint: core.Endpoint, root: tkinter.Tk, hear: Callable[[], None]) -> None:
        self.endpoint, self.root, self.hear = endpoint, root, hear
        self.links: dict[core.Dial | core.Connection, socket.socket] = {}  # those that connect, and those that have
        self.alarm = root.after(0, self.pump)

    def pump(self) -> None:
        """After every input and every command, and when a timer is due: do what the core wants done."""
        self.endpoint.handle_timer(monotonic())
        while (effect := self.endpoint.next_effect()) is not None:
            match effect:
                case core.Dial():
                    self.dial(effect)
                case core.Transmit(link) | core.Close(link, True) if link in self.links:
                    self.ready(link, tkinter.WRITABLE)
                case core.Abandon(link) | core.Close(link, False) if link in self.links:
                    self.drop(link)
                case core.Wake():
                    self.hear()
        due = self.endpoint.get_timer()
        self.root.after_cancel(self.alarm)
        if due is not None:
            self.alarm = self.root.after(ceil(max(0.0, due - monotonic()) * 1000), self.pump)
        if self.endpoint.closed and not self.links:
            self.root.quit()

    def leave(self) -> None:
        """Say goodbye; the main loop ends when that is out."""
        self.endpoint.close(monotonic())
        self.pump()

    def dial(self, dial: core.Dial) -> None:
        try:
            sock = self.links[dial] = socket.socket()
            sock.setblocking(False)
            self.watch(dial, tkinter.WRITABLE)
            sock.connect(dial.target.key)
        except BlockingIOError:
            pass  # it can be written when it is connected, or has failed
        except OSError as error:
            self.endpoint.dial_failed(dial, monotonic(), error)

    def watch(self, link: core.Dial | core.Connection, events: int) -> None:
        def handle(sock: Any, events: int) -> None:
            self.ready(link, events)
            self.pump()

        self.root.createfilehandler(self.links[link], events, handle)

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
            if events & tkinter.READABLE:
                data = sock.recv(65536)
                link.receive_data(data, monotonic()) if data else link.receive_eof(monotonic())
            if events & tkinter.WRITABLE:
                while unsent := link.unsent(monotonic()):
                    link.sent(sock.send(unsent), monotonic())
                if link.state is core.ConnectionState.CLOSING:
                    sock.shutdown(socket.SHUT_WR)
                self.watch(link, tkinter.READABLE)
        except BlockingIOError:  # no further Transmit comes before all is taken: Tk says when to go on
            self.watch(link, tkinter.READABLE | tkinter.WRITABLE)
        except OSError as error:  # which leads to Abandon or Close
            if isinstance(link, core.Dial):
                self.endpoint.dial_failed(link, monotonic(), error)
            else:
                link.connection_lost(monotonic(), error)

    def drop(self, link: core.Dial | core.Connection) -> None:
        sock = self.links.pop(link)
        self.root.deletefilehandler(sock)
        sock.close()


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
        if self.session.can_send and self.session.has_room:  # else what was typed stays there
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
