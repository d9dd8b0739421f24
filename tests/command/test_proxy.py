"""``networkio proxy``: it carries and breaks connections of any programs, and counts."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from tests.command.helpers import proxied


@contextmanager
def echo() -> Iterator[int]:
    """A server of another kind, which sends back what it gets: its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    try:
                        while data := client.recv(65536):
                            client.sendall(data)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    thread.join(20)


def talk(port: int, data: bytes) -> bytes:
    """What comes back until it ends, or until there is all of it."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        try:
            client.sendall(data)
            while len(answer) < len(data) and (more := client.recv(65536)):
                answer += more
        except OSError:
            pass
    return answer


def test_calm_proxy_carries_everything_and_says_how_much() -> None:
    with echo() as target, proxied(target) as (proxy, port):
        assert talk(port, b"abc") == b"abc"
        assert proxy.interrupt() == "networkio: interrupted: 1 connection, 0 cuts, 6 bytes forwarded\n"


def test_cuts_come_at_the_bytes_of_the_seed_and_are_counted() -> None:
    summaries = []
    for _ in range(2):
        with echo() as target, proxied(target, "--cut-every", "1K", "--seed", 3) as (proxy, port):
            for _ in range(3):
                assert len(talk(port, bytes(5000))) < 5000
            summaries.append(proxy.interrupt())
    assert summaries[0] == summaries[1]
    found = re.fullmatch(r"networkio: interrupted: 3 connections, 3 cuts, ([\d,]+) bytes forwarded\n", summaries[0])
    assert found is not None
    assert 1500 < int(found[1].replace(",", "")) < 4700


def test_delay_and_rate_take_their_time() -> None:
    with echo() as target, proxied(target, "--delay", 100, "--rate", "10K") as (_, port):
        began = monotonic()
        assert talk(port, bytes(2048)) == bytes(2048)
        assert monotonic() - began > 0.2 + 0.2


def test_black_hole_swallows_everything() -> None:
    with echo() as target, proxied(target, "--black-hole-after", 0) as (proxy, port):
        with socket.create_connection(("127.0.0.1", port), timeout=0.3) as client:
            client.sendall(b"abc")
            try:
                assert not client.recv(1), "something came out of it"
                raise AssertionError("the connection ended")
            except TimeoutError:
                pass
        assert "1 connection, 0 cuts, 0 bytes forwarded" in proxy.interrupt()


def test_target_that_does_not_answer_is_told_in_the_summary() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = server.getsockname()[1]
    with proxied(target) as (proxy, port):
        assert talk(port, b"abc") == b""
        assert "1 connection (1 without an answer of the target), 0 cuts" in proxy.interrupt()
