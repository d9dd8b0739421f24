"""What the operating system says of a socket."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

import pytest

from networkio_sockets import backlog_of


@pytest.fixture
def nothing_leaks() -> None:
    """There is no event loop here."""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_backlog_is_what_was_taken_and_not_received() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            backlog, with_held = backlog_of(sender), backlog_of(sender, lambda: 7)
            assert backlog is not None
            assert with_held is not None
            sender.setblocking(False)
            sent = 0
            with suppress(BlockingIOError):
                while True:
                    sent += sender.send(bytes(65536))
            assert 0 < backlog() < sent
            assert with_held() == backlog() + 7
            receiver.settimeout(10)
            while sent:
                sent -= len(receiver.recv(1 << 20))
    assert backlog() == 0  # closed


def test_where_nobody_tells_there_is_what_the_driver_holds_or_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "other")
    with socket.socket() as sock:
        assert backlog_of(sock) is None
        held = backlog_of(sock, lambda: 7)
        assert held is not None
        assert held() == 7
