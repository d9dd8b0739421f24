"""What the core says for the log: which lines, how many, safe to print, and nothing secret in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from networkio_proto import CloseCode, Config, Effect, Log, Proof, TLSFacts
from networkio_proto.events import ResumeReport
from networkio_proto.handshake import Why
from networkio_proto.logbook import ERROR, INFO, LINES, WARNING
from networkio_testing.world import Host, Watcher, World
from tests.proto.helpers import live, pair
from tests.proto.helpers_session import hosts, reconnect, restart
from tests.proto.helpers_wire import (
    HELLO,
    PREAMBLE,
    Line,
    Node,
    Peer,
    close,
    data,
    fin,
    frame,
    mapping,
    opened,
    ping,
    pings,
    pong,
)

NASTY = "\x1b[31mred\r\nnode m: all is well %s %d %(x)s \u202egnihton"


def rendered(log: Log) -> str:
    """As a logger would print it."""
    assert re.fullmatch(r"[ -~]*", log.text)
    return log.text % log.arguments


def lines(node: Node) -> list[tuple[int, str]]:
    """The lines since the last look."""
    told, node.logs = [(log.level, rendered(log)) for log in node.logs], []
    return told


class Reader(Watcher):
    """Reads the log of every host."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, str]] = []

    def effect(self, host: Host, effect: Effect) -> None:
        if isinstance(effect, Log):
            self.lines.append((host.name, effect.level, rendered(effect)))

    def of(self, name: str) -> list[str]:
        """What a host said since the last look."""
        told = [text for host, _, text in self.lines if host == name]
        self.lines = [line for line in self.lines if line[0] != name]
        return told


def read(world: World) -> Reader:
    reader = Reader()
    world.watchers.append(reader)
    return reader


# -- the lines --------------------------------------------------------------------------------------------------------


def test_connecting_losing_and_resuming_are_told_on_both_sides() -> None:
    world = pair(connected=False)
    reader = read(world)
    a, b = hosts(world)
    a.dial("b")
    world.run(1.0)
    assert reader.lines == [("b", INFO, "node b: connected to a"), ("a", INFO, "node a: connected to b")]
    reader.lines.clear()
    a.send("b", b"x")
    live(world).pipes[0].black_hole = True
    live(world).cut("rst")
    world.run(0.0)
    [lost] = reader.of("a")
    assert lost.startswith("node a: the connection to b ended: the connection was lost")
    reconnect(world)
    [resumed] = reader.of("a")
    assert re.fullmatch(r"node a: connected to b again after \d+\.\d s \(connection 2; .*go out again: 1\)", resumed)
    b.disconnect("a")
    world.run(0.1)
    assert reader.of("a") == ["node a: the connection to b ended: the peer closed the connection: closed normally"]


def test_a_restart_of_the_peer_is_told() -> None:
    world = pair()
    reader = read(world)
    _, b = hosts(world)
    restart(b)
    reconnect(world)
    assert "node a: b has restarted: its process is a new one" in reader.of("a")


def test_the_end_of_a_session_is_told_with_its_account() -> None:
    world = pair()
    reader = read(world)
    a, b = hosts(world)
    a.send("b", b"x")
    world.run(0.1)
    b.read("a")
    a.end("b")
    b.end("a")
    world.run(1.0)
    assert "node a: the session with b ended (messages read: 1, failed: 0)" in reader.of("a")
    assert "node b: the session with a ended (messages read: 0, failed: 0)" in reader.of("b")


def test_an_abort_is_told_on_both_sides() -> None:
    world = pair()
    reader = read(world)
    a, _ = hosts(world)
    a.send("b", b"x")
    a.abort("b")
    world.run(1.0)
    assert "node a: the session with b was aborted (messages read: 0, failed: 1)" in reader.of("a")
    assert "node b: the session with a was aborted (messages read: 0, failed: 0)" in reader.of("b")


def test_an_expiry_is_told() -> None:
    world = pair(Config(session_expiry=5.0))
    reader = read(world)
    a, _ = hosts(world)
    a.disconnect("b")
    a.send("b", b"x")
    world.run(10.0)
    assert "node a: the session with b expired without a connection (messages read: 0, failed: 1)" in reader.of("a")


def test_a_peer_that_misbehaves_is_a_warning_and_one_that_is_lost_is_none() -> None:
    node, _, line = opened()
    lines(node)
    line.say(data(7))
    assert lines(node) == [
        (WARNING, "node m: the connection to a ended because of a fault: protocol violation: "
                  "sequence 7 came where 1 was expected")
    ]  # fmt: skip
    node, _, line = opened()
    lines(node)
    line.lose()
    assert lines(node) == [
        (INFO, "node m: the connection to a ended: the connection was lost: ConnectionResetError: cut")
    ]


def test_a_newer_connection_is_told_as_the_end_of_the_older_one() -> None:
    node, peer, _ = opened()
    lines(node)
    node.connect(peer)
    [ended, again] = lines(node)
    assert ended == (INFO, "node m: the connection to a ended: a newer connection took over the session")
    assert again[1].startswith("node m: connected to a again after 0.0 s (connection 2")


# -- dialling ---------------------------------------------------------------------------------------------------------


def test_each_way_of_failing_is_told_once_until_a_connection_stands() -> None:
    node, peer = Node(), Peer("a")
    target = node.add_target("a", "host:1")
    for _ in range(3):
        node.refuse()
        node.until_dialled()
        node.refuse(TimeoutError("no answer in time"))
        node.until_dialled()
    assert lines(node) == [
        (WARNING, "node m: dialling host:1 fails, and is tried again: refused"),
        (WARNING, "node m: dialling host:1 fails, and is tried again: no answer in time"),
    ]
    line = node.answer(target)
    line.say(PREAMBLE, peer.hello_ack(), peer.attach())
    line.lose()
    node.until_dialled()
    assert [level for level, _ in lines(node)] == [INFO, INFO]
    node.refuse()
    assert [level for level, _ in lines(node)] == [WARNING]


def test_a_dial_that_failed_without_a_word_is_told_by_the_kind_of_its_error() -> None:
    node = Node()
    node.add_target("a", "host:1")
    node.refuse(ConnectionRefusedError())
    assert lines(node) == [(WARNING, "node m: dialling host:1 fails, and is tried again: ConnectionRefusedError")]


def test_a_dial_that_is_given_up_says_so() -> None:
    node = Node()
    node.add_target("a", "host:1")
    node.answer().say(PREAMBLE, Peer("b").hello_ack())
    [(level, text)] = lines(node)
    assert level == WARNING
    assert text.startswith("node m: dialling host:1 fails, and is given up: another peer answered")


@pytest.mark.parametrize("code", [CloseCode.COLLISION, CloseCode.RETRY, CloseCode.RESTARTING])
def test_what_belongs_to_choosing_a_connection_is_not_told(code: CloseCode) -> None:
    node = Node()
    node.add_target("a", "host:1")
    node.answer().say(PREAMBLE, close(code))
    assert lines(node) == []


# -- another process of one name --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "place"), [("1.2.3.4", "1.2.3.4"), ("", "an unknown address")])
def test_a_newcomer_of_a_name_in_use_is_an_error_once_it_is_turned_away(source: str, place: str) -> None:
    node, _, line = opened()
    line.raw()
    lines(node)
    twin = Peer("a", life=2)
    newcomer = node.accept(source)
    newcomer.say(PREAMBLE, twin.hello())
    newcomer.say(twin.attach())
    line.say(*map(pong, pings(line)))
    assert newcomer.farewell() is CloseCode.DUPLICATE_IDENTITY
    assert lines(node) == [
        (ERROR, f"node m: another process, at {place}, uses the id of the connected peer a, and was turned away")
    ]


def test_being_turned_away_for_ones_own_name_is_an_error() -> None:
    node = Node()
    node.add_target("a", "host:1")
    node.answer().say(PREAMBLE, close(CloseCode.DUPLICATE_IDENTITY))
    [(level, text)] = lines(node)
    assert level == ERROR
    assert text.startswith("node m: another process uses this node's id; host:1 turns this one away: the peer closed")


# -- strangers --------------------------------------------------------------------------------------------------------


def knock(node: Node, source: str, *pieces: bytes) -> Line:
    line = node.accept(source)
    line.say(*pieces or (b"GET / HTTP/1.1\r\n\r\n",))
    return line


def test_a_handshake_that_is_refused_or_takes_too_long_is_a_warning_with_its_source() -> None:
    node = Node()
    knock(node, "1.2.3.4")
    [(level, text)] = lines(node)
    assert level == WARNING
    assert text.startswith("node m: a handshake from 1.2.3.4 failed: ")
    node.accept("")
    node.advance(60.0)
    [(level, text)] = lines(node)
    assert level == WARNING
    assert text.startswith("node m: a handshake from an unknown address failed: the other side was silent")


def test_who_merely_hangs_up_or_is_refused_as_a_matter_of_routine_is_not_told() -> None:
    node = Node()
    node.accept("1.2.3.4").lose()
    node.accept("1.2.3.4").eof()
    knock(node, "1.2.3.4", PREAMBLE, Peer().hello(), close(CloseCode.NORMAL))
    assert lines(node) == []


def test_many_failed_handshakes_are_few_lines_that_tell_how_many_they_were() -> None:
    node = Node()
    for number in range(1000):
        knock(node, f"10.0.{number // 100}.1")
    assert len(lines(node)) == 4
    node.advance(10.0)
    knock(node, "1.2.3.4")
    [(level, text)] = lines(node)
    assert level == WARNING
    assert text.startswith("node m: 997 handshakes from 11 sources failed, the last from 1.2.3.4: ")
    for number in range(5000):
        knock(node, str(number))
    node.advance(10.0)
    knock(node, "last")
    [(_, text)] = lines(node)
    assert text.startswith("node m: 5001 handshakes from 1024 sources failed")


# -- the limits -------------------------------------------------------------------------------------------------------


def test_a_flood_of_one_kind_is_cut_and_counted_and_does_not_hide_another() -> None:
    node, peer, line = opened()
    lines(node)
    for _ in range(40):
        line.lose()
        line = node.connect(peer)
    told = lines(node)
    assert len([text for _, text in told if "connected to a again" in text]) == 16
    assert len([text for _, text in told if " ended" in text]) == 16
    line.say(data(9))
    assert [level for level, _ in lines(node)] == [WARNING]
    node.advance(1.0)
    line = node.connect(peer)
    assert lines(node)[0][1].endswith(" (and 24 more lines like this were left out)")
    line.lose()
    assert lines(node)[0][1].endswith(" (and 24 more lines like this were left out)")
    node.advance(100.0)
    for _ in range(40):
        line = node.connect(peer)
        line.lose()
    assert len(lines(node)) == 32


def test_a_clock_that_is_behind_fills_no_bucket() -> None:
    book = Node().endpoint.logbook
    report = ResumeReport(False, 1, False, "A", 0, 0.0)
    for _ in range(16):
        book.connected("a", report, 100.0)
    effects = len(book._endpoint.effects)
    book.connected("a", report, 50.0)
    assert len(book._endpoint.effects) == effects


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.text.replace(" ", "_")[:40])
def test_every_line_stands_in_the_documentation_with_its_level(line: Any, request: pytest.FixtureRequest) -> None:
    page = (request.config.rootpath / "docs" / "topics" / "logging.md").read_text(encoding="utf-8")
    level = {INFO: "INFO", WARNING: "WARNING", ERROR: "ERROR"}[line.level]
    words = re.sub(r"%(\.1f|[sd])", "…", line.text)
    rows = [row for row in page.splitlines() if f"`{words}`" in row]
    assert len(rows) == 1, words
    assert rows[0].startswith(f"| {level} |")
    assert line.burst == (4 if "handshake" in line.text else 1 if "raised" in line.text else 16)


# -- what must not happen ---------------------------------------------------------------------------------------------


def nasty_events() -> dict[str, Callable[[Node], None]]:
    """Ways in which somebody else's words could get into a line."""
    words = NASTY.encode()

    def live_close(node: Node) -> None:
        node.connect(Peer()).say(close(CloseCode.PROTOCOL, words))

    def dial_close(node: Node) -> None:
        node.dial("a").say(PREAMBLE, close(CloseCode.AUTH_FAILED, words))

    def unknown_code(node: Node) -> None:
        node.connect(Peer()).say(close(4711, words))

    def stranger_close(node: Node) -> None:
        knock(node, NASTY, PREAMBLE, Peer().hello(), close(CloseCode.CODEC, words))

    def peer_id(node: Node) -> None:
        knock(node, NASTY, PREAMBLE, Peer().hello(id=NASTY))

    def codec(node: Node) -> None:
        knock(node, NASTY, PREAMBLE, Peer().hello(codec=NASTY))

    def auth(node: Node) -> None:
        knock(node, NASTY, PREAMBLE, Peer().hello(auth=NASTY))

    def feature(node: Node) -> None:
        knock(node, NASTY, PREAMBLE, Peer().hello(require=[NASTY]))

    def addressee(node: Node) -> None:
        knock(node, NASTY, PREAMBLE, Peer().hello(to=NASTY))

    def dial_error(node: Node) -> None:
        node.add_target("a", NASTY)
        node.refuse(OSError(NASTY))

    def lost(node: Node) -> None:
        line = node.connect(Peer())
        line.connection.connection_lost(node.now, OSError(NASTY))
        node.pump()

    return {name: thing for name, thing in locals().items() if callable(thing)}


@pytest.mark.parametrize("name", nasty_events())
def test_nobody_writes_lines_of_its_own_into_the_log(name: str) -> None:
    node = Node()
    nasty_events()[name](node)
    assert node.logs
    for level, text in lines(node):
        assert level in (INFO, WARNING, ERROR)
        assert re.fullmatch(r"node m: [ -~]*", text), text
        assert len(text) < 900


def test_a_megabyte_of_words_becomes_a_line() -> None:
    node = Node()
    node.add_target("a", "x" * 1_000_000)
    node.refuse(OSError("y" * 1_000_000))
    knock(node, "z" * 1_000_000)
    assert max(len(text) for _, text in lines(node)) < 900


class Keyed:
    """An authenticator whose key, and all that it sees, must never be told."""

    name = "keyed"
    required = True

    def __init__(self, key: bytes) -> None:
        self.key = key

    def key_id(self, peer_id: str | None) -> str | None:
        return None

    def sign(self, proof: Proof) -> bytes | None:
        return self.key

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        return mac == self.key


CANARY = b"CANARYcanaryCANARYcanaryCANARY32"


def test_neither_payloads_nor_headers_nor_keys_nor_nonces_are_in_any_line() -> None:
    node = Node(auth=Keyed(CANARY))
    peer = Peer(auth="keyed")

    def claimed() -> Line:
        line = node.accept("1.2.3.4")
        line.say(PREAMBLE, peer.hello(nonce=CANARY))
        return line

    claimed().say(peer.attach(mac=b"W" * 32))
    line = claimed()
    line.say(peer.attach(mac=CANARY))
    assert line.live
    session = node.session(peer)
    session.send(CANARY, node.now, headers={CANARY.decode(): CANARY})
    node.pump()
    line.say(data(1, CANARY, headers={CANARY.decode(): CANARY}), data(2, CANARY, flags=0x7F))
    line = claimed()
    line.say(peer.attach(mac=CANARY))
    line.say(data(2, headers={CANARY.decode(): -1}))
    line = claimed()
    line.say(peer.attach(mac=CANARY))
    line.say(frame(0x10, CANARY * 3, flags=0x10))
    knock(node, "1.2.3.4", PREAMBLE, frame(HELLO, mapping({CANARY.decode(): CANARY, "v": CANARY})))
    knock(node, "1.2.3.4", PREAMBLE, frame(HELLO, CANARY))
    session.abort(node.now)
    node.pump()
    told = lines(node)
    assert len(told) >= 8
    for _, text in told:
        for secret in (CANARY.decode(), CANARY.hex(), repr(CANARY)[2:-1], "canary"):
            assert secret not in text


def test_each_reason_of_an_end_has_its_line() -> None:
    node = Node()
    for why in (Why.FINISHED, Why.EXPIRED, Why.ABORTED):
        node.endpoint.logbook.over("a", why, 1, 2, node.now)
    node.pump()
    assert len({text for _, text in lines(node)}) == 3


def test_liveness_says_nothing() -> None:
    node, _, line = opened()
    lines(node)
    line.say(ping())
    node.advance(30.0)
    line.say(fin(1))
    assert lines(node) == []
