"""Nodes of networkio_threads: listening, dialling, user's sockets, notices, leaving."""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from networkio_proto import Log
from networkio_threads import (
    AddressError,
    ConfigurationError,
    DialFailed,
    DuplicateIdentity,
    MessagesReady,
    MessageTooLarge,
    Node,
    NodeClosed,
    OutboxFull,
    PeerConnected,
    PeerDisconnected,
    Quota,
    SelfConnection,
    WrongThread,
    _dial,
)
from networkio_threads._wait import INTERRUPTS
from tests.adapters.helpers import HASTY
from tests.adapters.threads.helpers import Crew, connected, node, notice_of, until


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that is bound and not listened on: dialling it is refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def talk(here: Node, there: Node) -> None:
    """Both can reach each other."""
    near, far = here.peer(there.id), there.peer(here.id)
    receipt = near.send("there")
    assert far.read(5) == "there"
    receipt.read(5)
    far.send("back")
    assert near.read(5) == "back"


# -- dialling ---------------------------------------------------------------------------------------------------------


def test_a_client_may_start_before_its_server() -> None:
    port = free_port()
    with node("client") as here:
        peer = here.connect("127.0.0.1", port, "server")
        receipt = peer.send("early")
        refused = notice_of(here, PeerDisconnected)
        assert isinstance(refused.error.__cause__, ConnectionRefusedError)
        with node("server") as there:
            there.listen("127.0.0.1", port)
            assert there.peer("client").read(5) == "early"
            receipt.read(5)


def test_connect_without_an_id_waits_for_whoever_answers() -> None:
    port = free_port()
    with node("client") as here, Crew() as crew:
        found: list[Any] = []
        crew.start(lambda: found.append(here.connect("127.0.0.1", port)))
        until(lambda: any(target.attempts for target in here.endpoint.targets))
        assert not found
        with node("server") as there:
            there.listen("127.0.0.1", port)
            until(lambda: found)
            assert found[0] is here.peer("server")
            talk(here, there)


def test_a_dial_that_gets_no_answer_is_given_up_and_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        place = silent.getsockname()
        with socket.create_connection(place), node("client", dial_timeout=0.1) as here:  # the queue is full
            here.connect("127.0.0.1", place[1], "server")
            assert "no answer in time" in str(notice_of(here, PeerDisconnected).error)


def test_a_dial_that_nobody_wants_any_more_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        place = silent.getsockname()
        with socket.create_connection(place), node("client") as here:  # the queue is full
            peer = here.connect("127.0.0.1", place[1], "server")
            (attempt,) = here._attempts.values()
            until(lambda: attempt._trying)
            (sock,) = attempt._trying
            peer.disconnect()
            until(lambda: sock.fileno() < 0)
            until(lambda: not here._attempts)


class Fleeting(dict[Any, Any]):
    """Its items may be taken out at any moment: one that is looked for and then fetched is gone in between."""

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        self.pop(key, None)
        return found


def test_a_dial_may_end_at_the_moment_in_which_it_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        place = silent.getsockname()
        with socket.create_connection(place), node("client") as here:  # the queue is full
            here._attempts = Fleeting()
            peer = here.connect("127.0.0.1", place[1], "server")
            peer.disconnect()
            until(lambda: not here._attempts)


def test_a_goodbye_that_nobody_answers_has_its_time_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, node("client") as here:
        peer = here.connect("127.0.0.1", silent.getsockname()[1], "server")
        until(lambda: here._links)
        peer.disconnect()
        assert here._links
        assert not here.endpoint.connections
        until(lambda: not here._links)


def test_two_nodes_may_dial_each_other() -> None:
    with node("left") as left, node("right") as right:
        at_left, at_right = left.listen("127.0.0.1", 0), right.listen("127.0.0.1", 0)
        left.connect("127.0.0.1", at_right.port, "right")
        right.connect("127.0.0.1", at_left.port, "left")
        for _ in range(20):
            talk(left, right)
        until(lambda: len(left.endpoint.connections) == len(right.endpoint.connections) == 1)


def several(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, int]) -> None:
    """From now on a name leads to these."""
    found = [(int(socket.AF_INET), int(socket.SOCK_STREAM), 6, place) for place in places]
    monkeypatch.setattr("networkio_threads._node.resolver_for", lambda host, port: lambda: list(found))


def test_of_several_addresses_a_refused_one_is_passed_by_at_once(
    monkeypatch: pytest.MonkeyPatch, dead_port: int
) -> None:
    monkeypatch.setattr(_dial, "_STAGGER", 60.0)
    with node("server") as there, node("client") as here:
        port = there.listen("127.0.0.1", 0).port
        several(monkeypatch, ("127.0.0.1", dead_port), ("127.0.0.1", port))
        here.connect("localhost", port, "server")
        talk(here, there)


def test_of_several_addresses_a_silent_one_is_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as silent,
        socket.create_connection(silent.getsockname()),
        node("server") as there,
        node("client", dial_timeout=30.0) as here,
    ):
        port = there.listen("127.0.0.1", 0).port
        several(monkeypatch, silent.getsockname(), silent.getsockname(), ("127.0.0.1", port))
        here.connect("localhost", port, "server")
        talk(here, there)


# -- kinds of addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_addresses_of_tcp(host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    with node("server") as there, node("client") as here:
        listener = there.listen(host, 0)
        assert {address[1] for address in listener.addresses} == {listener.port}
        here.connect(host, listener.port, "server")
        talk(here, there)


def test_a_name_with_one_address_twice_can_be_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [place, place])
    with node("server") as there:
        assert len(there.listen("localhost", 0).addresses) == 1


def test_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with node("server") as there, node("client") as here:
        here.connect_unix(path, "server")
        assert path in str(notice_of(here, PeerDisconnected).error)
        assert there.listen_unix(path).addresses == [path]
        talk(here, there)
        with node("other") as other, pytest.raises(AddressError, match="in use"):
            other.listen_unix(path)


def test_the_socket_of_a_dead_process_is_taken_over_and_a_file_is_not(tmp_path: Path) -> None:
    path, precious = str(tmp_path / "socket"), tmp_path / "precious.txt"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    precious.write_text("years of work")
    with node("server") as there, node("client") as here:
        with pytest.raises(AddressError, match=re.escape(str(precious))):
            there.listen_unix(str(precious))
        assert precious.read_text() == "years of work"
        there.listen_unix(path)
        assert here.connect_unix(path, timeout=5).id == "server"


@pytest.mark.parametrize("path", ["/no/such/directory/socket", "/" + "x" * 200])
def test_a_unix_socket_that_cannot_be_is_a_typed_error_and_is_tried_again(path: str) -> None:
    with node("server") as there, node("client") as here:
        with pytest.raises(AddressError):
            there.listen_unix(path)
        here.connect_unix(path, "server")
        assert isinstance(notice_of(here, PeerDisconnected).error, DialFailed)
        until(lambda: next(iter(here.endpoint.targets)).attempts > 2)


def test_a_path_that_the_system_would_cut_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a\0b")
    with node("server") as there, node("client") as here:
        with pytest.raises(ConfigurationError, match="contains a zero byte"):
            there.listen_unix(path)
        with pytest.raises(ConfigurationError, match="contains a zero byte"):
            here.connect_unix(path, "server")
    assert not list(tmp_path.iterdir())


def test_a_unix_socket_with_a_full_queue_is_tried_again(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first, node("client") as here:
        busy.bind(path)
        busy.listen(0)
        first.connect(path)
        here.connect_unix(path, "server")
        cause = notice_of(here, PeerDisconnected).error.__cause__
        assert isinstance(cause, BlockingIOError)
        with node("server") as there, pytest.raises(AddressError, match="in use"):
            there.listen_unix(path)


@pytest.mark.parametrize("kind", [socket.AF_UNIX, socket.AF_INET])
def test_any_connected_socket_will_do(kind: int) -> None:
    def pair() -> tuple[socket.socket, socket.socket]:
        if kind == socket.AF_UNIX:
            return socket.socketpair()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            left = socket.create_connection(listening.getsockname())
            return left, listening.accept()[0]

    with node("server") as there, node("client") as here:
        opened: list[socket.socket] = []

        def open_stream() -> socket.socket:
            left, right = pair()
            there.serve_stream(right, source="a pair")
            opened.append(left)
            return left

        assert here.connect_stream(open_stream, name="a pair", timeout=5).id == "server"
        talk(here, there)
        opened[0].shutdown(socket.SHUT_RDWR)
        until(lambda: len(opened) == 2)
        talk(here, there)


def test_an_open_stream_that_blocks_takes_one_thread_and_holds_up_nobody_else() -> None:
    with node("server") as there, node("client", dial_timeout=0.05) as here:
        go_on, calls = threading.Event(), 0

        def open_stream() -> socket.socket:
            nonlocal calls
            calls += 1
            assert go_on.wait(20)
            left, right = socket.socketpair()
            there.serve_stream(right)
            return left

        blocked = here.connect_stream(open_stream, "server")
        until(lambda: next(iter(here.endpoint.targets)).attempts > 6)
        assert calls == 1
        with node("other") as other:
            here.connect("localhost", other.listen("127.0.0.1", 0).port, "other").wait_connected(5)
        go_on.set()
        blocked.wait_connected(5)
        talk(here, there)


def test_an_address_is_asked_again_when_there_was_no_thread_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    refused: list[threading.Thread] = []

    def refuse_some(thread: threading.Thread) -> None:
        if thread.name == "networkio resolver" and len(refused) < 5:  # more than there may be
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    with node("server") as there, node("client") as here:
        monkeypatch.setattr(threading.Thread, "start", refuse_some)
        here.connect("localhost", there.listen("127.0.0.1", 0).port, "server").wait_connected(20)
        assert len(refused) == 5
        talk(here, there)


def test_an_open_stream_that_fails_or_gives_no_socket_is_tried_again() -> None:
    with node("server") as there, node("client") as here:
        closed = socket.socket()
        closed.close()
        answers: list[Any] = [LookupError("none today"), OSError(errno.EIO, "broken"), SystemExit(1), None, "x", closed]

        def open_stream() -> Any:
            if not answers:
                left, right = socket.socketpair()
                there.serve_stream(right)
                return left
            answer = answers.pop()
            if isinstance(answer, BaseException):
                raise answer
            return answer

        here.connect_stream(open_stream, "server", name="a pair")
        talk(here, there)
        with pytest.raises(OSError, match="Bad file descriptor"):
            there.serve_stream(closed)
        talk(here, there)


def test_open_streams_that_hang_time_out_and_do_not_hold_up_dials_to_numbers() -> None:
    release = threading.Event()
    late: list[socket.socket] = []

    def hang() -> socket.socket:
        release.wait(10)
        late.append(socket.socket())
        return late[-1]

    with node("server") as there, node("client", dial_timeout=0.1) as here:
        for number in range(6):
            here.connect_stream(hang, f"hung-{number}")
        errors = [notice_of(here, PeerDisconnected) for _ in range(6)]
        assert {notice.peer.id for notice in errors} == {f"hung-{number}" for number in range(6)}
        assert all("no answer in time" in str(notice.error) for notice in errors)
        here.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "server")
        talk(here, there)
    release.set()
    until(lambda: late and all(sock.fileno() < 0 for sock in late))  # what comes too late is closed


def test_several_listeners(tmp_path: Path) -> None:
    with node("server") as there, node("one") as one, node("two") as two, node("three") as three:
        one.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "server")
        two.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "server")
        there.listen_unix(str(tmp_path / "socket"))
        three.connect_unix(str(tmp_path / "socket"), "server")
        for here in (one, two, three):
            talk(here, there)
        assert sorted(peer.id for peer in there.peers) == ["one", "three", "two"]


def test_a_closed_listener_takes_nobody_and_its_port_is_free_at_once() -> None:
    with connected() as pair:
        port, listener = pair.listener.port, pair.listener
        for _ in range(100):
            listener.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
            listener = pair.server.listen("127.0.0.1", port)
        listener.close()
        listener.close()
        talk(pair.client, pair.server)


# -- accepting under pressure -----------------------------------------------------------------------------------------


def test_without_descriptors_accepting_pauses_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a selector does not know what to be interested in nothing means."""
    tries: list[float] = []
    real = socket.socket.accept

    def accept(self: socket.socket) -> Any:
        if len(tries) < 3:
            tries.append(time.monotonic())
            raise OSError(errno.EMFILE, "Too many open files")
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    with node("server") as there, node("client") as here:
        here.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "server")
        talk(here, there)
    assert all(later - earlier > 0.09 for earlier, later in pairwise(tries))


def test_whoever_comes_while_the_node_closes_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        with node("server", linger=0.01) as there, Crew() as crew:
            listener = there.listen("127.0.0.1", 0)

            def knock(port: int = listener.port) -> None:
                try:
                    while True:
                        socket.create_connection(("127.0.0.1", port)).close()
                except OSError:
                    pass

            crew.start(knock)
            until(lambda: there.endpoint.connections)
            there.close(0)


# -- identity ---------------------------------------------------------------------------------------------------------


def test_the_second_of_two_nodes_with_one_id_is_told_and_the_first_undisturbed(logged: list[str]) -> None:
    with connected() as pair:
        connection = pair.far.session.connection
        with node("client") as twin:
            peer = twin.connect("127.0.0.1", pair.listener.port, "server")
            error = notice_of(twin, PeerDisconnected).error
            assert isinstance(error, DuplicateIdentity)
            assert "same peer id" in peer.why()
            with pytest.raises(DuplicateIdentity, match="an id of its own"):
                twin.connect("127.0.0.1", pair.listener.port, timeout=5)
        assert pair.far.session.connection is connection
        talk(pair.client, pair.server)
    assert all("uses" in line and "id" in line for line in logged)
    assert len(logged) >= 2  # both sides say so
    logged.clear()


def test_a_node_that_dials_itself_is_told() -> None:
    with node("me") as me:
        listener = me.listen("127.0.0.1", 0)
        with pytest.raises(SelfConnection, match="check the address"):
            me.connect("127.0.0.1", listener.port, timeout=5)


# -- notices ----------------------------------------------------------------------------------------------------------


def test_notices_tell_of_peers_nobody_asked_for_and_each_goes_to_one_taker() -> None:
    with connected() as pair:
        assert notice_of(pair.server, PeerConnected).peer is pair.far
        taken: list[Any] = []
        with Crew() as crew:
            for _ in range(5):
                crew.start(lambda: taken.append(pair.server.next_notice(0.3)))
            until(lambda: len(pair.server._watchers) == 5)
            pair.near.send("x")
        assert [type(notice) for notice in taken if notice is not None] == [MessagesReady]


def test_notifications_end_with_the_node() -> None:
    kinds: list[type] = []
    with connected() as pair, Crew() as crew:
        crew.start(lambda: kinds.extend(type(notice) for notice in pair.server.notifications()))
        until(lambda: kinds)
        pair.server.close(0)
    assert kinds[0] is PeerConnected


def test_on_notice_is_called_also_where_notices_wait_already() -> None:
    with connected() as pair:
        until(lambda: pair.server.endpoint.notices_waiting)
        called = threading.Event()
        pair.server.on_notice(called.set)
        assert called.is_set()
        while pair.server.next_notice(0):
            pass
        called.clear()
        pair.near.send("x")
        assert called.wait(5)


def test_the_nodes_own_thread_must_not_wait_and_is_told(logged: list[str]) -> None:
    told: dict[str, BaseException] = {}
    with connected() as pair:
        receipt = pair.far.send("unread")
        while pair.server.next_notice(0):
            pass
        calls: dict[str, Callable[[], object]] = {
            "receive": pair.server.peer("stranger").receive,
            "read": receipt.read,
            "drain": pair.server.drain,
            "connected": pair.server.peer("stranger").wait_connected,
            "connect": lambda: pair.server.connect("127.0.0.1", 1),
            "close": pair.server.close,
        }
        done = threading.Event()

        def callback() -> None:
            if told:
                return
            assert pair.server.loop.here
            for name, call in calls.items():
                try:
                    call()
                except WrongThread as error:
                    told[name] = error
            done.set()

        pair.server.on_notice(callback)
        pair.near.send("x")
        assert done.wait(5)
        assert set(told) == set(calls)
        assert all("must not wait" in str(error) for error in told.values())
        assert not pair.server.closed
        assert (pair.far.read(5), pair.near.read(5)) == ("x", "unread")
        talk(pair.client, pair.server)


@pytest.mark.parametrize("error", [LookupError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_what_on_notice_raises_ends_no_thread(error: BaseException, logged: list[str]) -> None:
    with connected() as pair:

        def callback() -> None:
            raise error

        pair.server.on_notice(callback)
        for number in range(3):
            pair.near.send(number)
            assert pair.far.read(5) == number
            while pair.server.next_notice(0):
                pass
        assert pair.server.loop.thread.is_alive()
    assert set(logged) == {"what on_notice was given failed"}
    logged.clear()


def test_an_on_notice_that_never_returns_does_not_hold_up_closing_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("networkio_threads._loop._PATIENCE", 0.2)
    release = threading.Event()
    with connected() as pair:
        called = threading.Event()

        def callback() -> None:
            if pair.server.loop.here:
                called.set()
                release.wait(10)

        pair.server.on_notice(callback)
        while pair.server.next_notice(0):
            pass
        pair.near.send("x")
        assert called.wait(5)
        began = time.monotonic()
        pair.server.close(0)
        assert time.monotonic() - began < 3
        release.set()


# -- leaving ----------------------------------------------------------------------------------------------------------


def test_leaving_waits_until_everything_is_read() -> None:
    got: list[Any] = []
    with node("server") as there, Crew() as crew:
        listener = there.listen("127.0.0.1", 0)

        def serve() -> None:
            while len(got) < 50:
                got.append(there.peer("client").read(5))
                time.sleep(0.001)

        crew.start(serve)
        with node("client", drain_timeout=5) as here:
            peer = here.connect("127.0.0.1", listener.port, "server")
            for number in range(50):
                peer.send(number)
        assert here.ledger.read == 50
    assert got == list(range(50))


def test_the_ledger_of_leaving_tells_what_was_read_and_what_not() -> None:
    with connected() as pair:
        receipts = [pair.near.send(number) for number in range(3)]
        assert pair.far.read(5) == 0
        receipts[0].read(5)
        ledger = pair.client.close(0.05)
        assert (ledger.accepted, ledger.read, ledger.unread) == (3, 1, 2)
        assert pair.client.close() == ledger
        assert receipts[0].outcome is not None
        assert pair.near.failures() == []


def test_leaving_does_not_wait_for_the_dead() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel shakes hands, and that is all
        with node("client") as here:
            here.connect("127.0.0.1", silent.getsockname()[1], "server").send("into the void")
            until(lambda: here.endpoint.connections)
            began = time.monotonic()
        assert 0.2 <= time.monotonic() - began < 1.5


def test_leaving_is_quick_when_nothing_is_left_to_wait_for() -> None:
    """Every wake-up that is lost would cost the time of lingering."""
    with node("server", linger=5.0) as there:
        port = there.listen("127.0.0.1", 0).port
        began = time.monotonic()
        for number in range(50):
            with node("client", linger=5.0) as here:
                peer = here.connect("127.0.0.1", port, "server")
                peer.send(number)
                assert there.peer("client").read(5) == number
        assert time.monotonic() - began < 4
        there.close(0)
        assert time.monotonic() - began < 5


def test_close_arrives_although_unread_input_is_pending() -> None:
    with connected(linger=1.0, retry_quick=60.0, backoff_base=60.0, backoff_max=60.0) as pair:  # no notice but this one
        for _ in range(100):
            pair.near.send_nowait(bytes(10_000), raw=True)
        pair.server.close(0)
        error = notice_of(pair.client, PeerDisconnected).error
        assert error.remote
        assert "restarting" in str(error)


def test_an_error_in_the_block_comes_out_as_it_is_and_does_not_wait() -> None:
    def fail() -> None:
        with connected(drain_timeout=60) as pair:
            pair.near.send("never read")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fail()


def test_leaving_wakes_everybody_who_waits() -> None:
    woken: dict[str, object] = {}
    with connected(outbox_limit=1000) as pair, Crew() as crew:
        peer, stranger = pair.near, pair.client.peer("stranger")
        receipt = peer.send("unread")
        fill(peer)
        receipt.received(5)
        waits: dict[str, Callable[[], Any]] = {
            "receive": peer.receive,
            "read": stranger.read,
            "send": lambda: peer.send("no room"),
            "receipt": receipt.read,
            "connected": stranger.wait_connected,
            "iteration": iter(peer).__next__,
            "request": lambda: stranger.request("x"),
            "connect": lambda: pair.client.connect("127.0.0.1", 1),
        }

        def wait(name: str) -> None:
            try:
                woken[name] = waits[name]()
            except NodeClosed as error:
                woken[name] = str(error)

        for name in waits:
            crew.start(wait, name)
        crew.start(pair.client.serve, print)
        until(lambda: len(pair.client._watchers) >= 2)
        assert woken == {}
        pair.client.close(0)
        until(lambda: len(woken) == len(waits))
        assert woken == dict.fromkeys(waits, "node client is closed")


def fill(peer: Any) -> None:
    while peer.session.has_room:
        peer.send_nowait(bytes(100))


def test_many_may_close_a_node_at_once_and_all_return_when_it_is_closed() -> None:
    for _ in range(10):
        with connected() as pair, Crew() as crew:

            def close(node: Node = pair.client) -> None:
                node.close(0)
                assert not node.loop.thread.is_alive()

            for _ in range(8):
                crew.start(close)


def test_a_closed_node_is_used_no_more() -> None:
    closed = node("client")
    with closed:
        peer = closed.peer("server")
        closed.close()
        calls: list[Callable[[], Any]] = [
            lambda: closed.listen("127.0.0.1", 0),
            lambda: closed.connect("127.0.0.1", 1, "server"),
            lambda: closed.connect("127.0.0.1", 1),
            lambda: closed.next_notice(0.01),
            lambda: closed.serve(print),
            lambda: closed.broadcast("x"),
            lambda: closed.send("another", "x"),
            partial(peer.send, "x"),
            partial(peer.send_nowait, "x"),
            peer.receive,
            peer.read,
            peer.wait_connected,
        ]
        for call in calls:
            with pytest.raises(NodeClosed, match="client is closed"):
                call()
        with socket.socket() as sock, pytest.raises(NodeClosed):
            closed.serve_stream(sock)
    with pytest.raises(NodeClosed, match="make a new one"), closed:
        pytest.fail("it was used before")


def test_a_node_is_used_only_inside_its_block() -> None:
    outside = node("client")
    for call in (
        lambda: outside.listen("127.0.0.1", 0),
        lambda: outside.connect("127.0.0.1", 1, "server"),
        lambda: outside.peer("server"),
        lambda: outside.send("server", "x"),
        lambda: outside.next_notice(0),
        lambda: outside.serve(print),
    ):
        with pytest.raises(NodeClosed, match="with Node"):
            call()
    assert outside.ledger.accepted == 0


def test_reprs_say_who_and_how() -> None:
    with connected() as pair:
        assert repr(pair.client) == "<Node client 1 connections>"
        assert repr(pair.near) == "<Peer server connected>"
        assert repr(pair.near.send("x")) == "<Receipt 1 to server: under way>"
        pair.far.read(5)
    assert repr(pair.client) == "<Node client closed>"
    with pytest.raises(ConfigurationError, match="not a peer id"):
        Node("a b", config=HASTY)


def test_descriptors_are_back_after_every_kind_of_failed_dial(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with node("client", dial_timeout=0.1) as here:
        before = len(os.listdir("/proc/self/fd"))
        here.connect("127.0.0.1", free_port(), "refused")
        here.connect_unix("/no/where", "missing")
        here.connect("localhost", free_port(), "named")
        until(lambda: all(target.attempts > 5 for target in here.endpoint.targets))
        for peer in here.peers:
            peer.disconnect()
        until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_node_whose_thread_cannot_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    here = node("client")
    with pytest.raises(RuntimeError, match="new thread"), here:
        pass
    assert not INTERRUPTS._loops
    assert here.closed


def test_a_node_that_is_interrupted_while_its_thread_starts_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def interrupt(thread: threading.Thread) -> None:
        start(thread)
        started.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    here = node("client")
    with pytest.raises(KeyboardInterrupt), here:
        pass
    started[0].join(5)  # without a word: warnings are errors here
    assert not started[0].is_alive()
    assert not INTERRUPTS._loops
    assert here.closed


def test_a_node_ends_even_if_its_goodbye_is_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    def disturb() -> None:
        monkeypatch.undo()
        raise LookupError("out of a signal handler")

    with node("client") as here:
        thread = here.loop.thread
        monkeypatch.setattr(here, "carry_out", disturb)
        here.endpoint.effects.append(Log(logging.DEBUG, "something to carry out", ()))
        with pytest.raises(LookupError):
            here.stop()
        assert not thread.is_alive()


def test_a_peer_has_what_its_quota_says_and_others_have_more() -> None:
    quotas = {"small": Quota(outbox_limit=1000, window=2000, message=900)}
    with Node("server", config=HASTY, quotas=quotas) as server, node("small") as small, node("plain") as plain:
        listener = server.listen("127.0.0.1", 0)
        for client in (small, plain):
            to_server = client.connect("127.0.0.1", listener.port, "server")
            to_server.wait_connected(5)
            for _ in range(50):
                to_server.send(bytes(100))
        with pytest.raises(MessageTooLarge):
            small.peer("server").send(bytes(901))
        until(lambda: server.peer("small").unread == 13)  # of cost 164: the last one begins below 2,000
        until(lambda: server.peer("plain").unread == 50)
        assert server.peer("small").unread == 13
        server.peer("away").send(bytes(1000))
        server.set_quota("away", Quota(outbox_limit=1000))
        with pytest.raises(OutboxFull):
            server.peer("away").send_nowait(b"")


@pytest.mark.parametrize("told", [True, False], ids=["the system tells", "nobody tells"])
def test_a_slow_line_is_not_taken_for_a_stalled_one(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at the backlog less than a batch leaves; what the system holds looks the same each time."""
    if not told:
        monkeypatch.setattr("networkio_threads._link.backlog_of", lambda sock, held: held)
    config = {"write_stall": 1.0, "ping_after": 0.4, "backoff_base": 0.05, "backoff_max": 0.1}
    with node("server", **config) as there, node("client", **config) as here, ExitStack() as after:
        port = there.listen("127.0.0.1", 0).port
        line = after.enter_context(socket.socket())
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.bind(("127.0.0.1", 0))
        line.listen()

        def carry(source: socket.socket, to: socket.socket, rate: float) -> None:
            with suppress(OSError):
                while data := source.recv(2000):
                    to.sendall(data)
                    time.sleep(len(data) / rate)

        def accept() -> None:
            """Once: a second connection gets no answer."""
            near, far = line.accept()[0], socket.create_connection(("127.0.0.1", port))
            after.callback(near.close)
            after.callback(far.close)
            for way in ((near, far, 200_000.0), (far, near, 1e9)):
                threading.Thread(target=carry, args=way, daemon=True).start()

        def dial() -> socket.socket:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            sock.connect(line.getsockname())
            return sock

        threading.Thread(target=accept, daemon=True).start()
        receipt = here.connect_stream(dial, "server").send(bytes(700_000), raw=True)
        assert len(there.peer("client").read(timeout=15)) == 700_000
        receipt.read(timeout=5)
        here.close()
        there.close()
