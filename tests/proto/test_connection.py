"""One byte stream from its first byte to its last: handshake, chunks and garbage, messages, liveness, ends.

What each state does with each frame is in ``test_table.py``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import combinations, cycle, repeat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import (
    AuthenticationFailed,
    CloseCode,
    Config,
    ConnectionState,
    Limits,
    Outcome,
    Proof,
    TLSFacts,
    Transmit,
    UsageError,
)
from tests.proto.helpers_auth import HmacAuth
from tests.proto.helpers_wire import (
    ACK,
    ATTACH,
    CLOSE,
    CONTINUED,
    DATA,
    HEADERS,
    HELLO,
    MISSING,
    MORE,
    PING,
    PONG,
    PREAMBLE,
    RAW,
    REDELIVERED,
    Line,
    Node,
    Peer,
    ack,
    close,
    data,
    exchange,
    fin,
    fingerprint,
    frame,
    mapping,
    ping,
    pong,
    reject,
    skip,
)

KEY, OTHER_KEY = b"0123456789abcdef", b"fedcba9876543210"


# -- handshake: what is refused, and in which order -------------------------------------------------------------------

#: defects of a HELLO in the order in which they are judged (P-HELLO-2), for a node "m" that requires "f"
HELLO_DEFECTS: list[tuple[dict[str, Any], CloseCode]] = [
    ({"codec": MISSING}, CloseCode.PROTOCOL),
    ({"v": [2, 3]}, CloseCode.VERSION),
    ({"id": "m"}, CloseCode.SELF),
    ({"to": "somebody"}, CloseCode.WRONG_PEER),
    ({"features": ["g"]}, CloseCode.VERSION),
    ({"auth": "psk"}, CloseCode.AUTH_FAILED),
    ({"codec": "json"}, CloseCode.CODEC),
]

#: the same for a HELLO_ACK (P-HACK-1), from "a" to a node "m" that offers and requires "f"
HELLO_ACK_DEFECTS: list[tuple[dict[str, Any], CloseCode]] = [
    ({"codec": MISSING}, CloseCode.PROTOCOL),
    ({"v": 2}, CloseCode.VERSION),
    ({"id": "m"}, CloseCode.SELF),
    ({"id": "somebody"}, CloseCode.WRONG_PEER),
    ({"features": ["f", "g"]}, CloseCode.PROTOCOL),
    ({"features": []}, CloseCode.VERSION),
    ({"auth": "psk"}, CloseCode.AUTH_FAILED),
    ({"codec": "json"}, CloseCode.CODEC),
]

Defects = list[tuple[dict[str, Any], CloseCode]]


def pairs(defects: Defects) -> list[tuple[dict[str, Any], CloseCode]]:
    """Each defect alone, and each before each later one; what comes first in the list has the say."""
    both = [
        ({**later, **first}, code)
        for (first, code), (later, _) in combinations(defects, 2)
        if not first.keys() & later.keys() and code is not CloseCode.PROTOCOL
    ]
    return defects + both


@pytest.mark.parametrize(("changes", "code"), pairs(HELLO_DEFECTS), ids=str)
def test_an_acceptor_names_the_first_thing_that_is_wrong_with_a_hello(changes: dict[str, Any], code: CloseCode) -> None:
    node, peer = Node(features=("f", "g"), require=("f",)), Peer()
    line = node.accept()
    line.say(PREAMBLE, peer.hello(**{"features": ["f"], "to": "m", **changes}))
    assert line.farewell() is code
    assert node.endpoint.sessions == {}


@pytest.mark.parametrize(("changes", "code"), pairs(HELLO_ACK_DEFECTS), ids=str)
def test_a_dialer_names_the_first_thing_that_is_wrong_with_a_hello_ack(
    changes: dict[str, Any], code: CloseCode
) -> None:
    node, peer = Node(features=("f",), require=("f",)), Peer()
    line = node.dial(peer.peer_id)
    before = fingerprint(node.endpoint)
    line.say(PREAMBLE, peer.hello_ack(**{"features": ["f"], **changes}))
    assert ATTACH not in [item.kind for item in line.heard()[:-1]]
    assert line.connection.error is not None
    assert line.connection.error.code is code
    assert fingerprint(node.endpoint) == before


def test_the_good_handshake_that_those_defects_are_defects_of() -> None:
    node, peer = Node(features=("f", "g"), require=("f",)), Peer()
    line = node.accept()
    line.say(PREAMBLE, peer.hello(features=["f", "h"], to="m"))
    [answer] = line.heard()
    assert b"\xa8features\x91\xa1f" in answer.body
    line.say(peer.attach())
    assert line.state is ConnectionState.LIVE
    dial = node.dial("z")
    dial.say(PREAMBLE, Peer("z").hello_ack(features=["f"]), Peer("z").attach())
    assert dial.state is ConnectionState.LIVE


def test_the_highest_version_that_both_speak_is_chosen() -> None:
    line = Node().accept()
    line.say(PREAMBLE, Peer().hello(v=[0, 7]))
    [answer] = line.heard()
    assert b"\xa1v\x01" in answer.body


def test_the_close_for_a_missing_feature_names_it() -> None:
    line = Node().accept()
    line.say(PREAMBLE, Peer().hello(require=["quantum"]))
    [farewell] = line.heard()
    assert b"quantum" in farewell.body


def test_a_dialer_that_names_nobody_takes_whoever_answers() -> None:
    node, peer = Node(), Peer("zorro")
    line = node.dial(None)
    line.say(PREAMBLE, peer.hello_ack(), peer.attach())
    assert line.state is ConnectionState.LIVE
    assert node.session("zorro").connected


def test_a_pre_shared_key_needs_a_name_to_be_meant() -> None:
    """P-HELLO-4; who announces no key at all has another fault."""
    for auth, code in (("psk", CloseCode.PROTOCOL), ("insecure", CloseCode.AUTH_FAILED)):
        line = Node(auth=HmacAuth(KEY)).accept()
        line.say(PREAMBLE, Peer(auth=auth).hello(to=None))
        assert line.farewell() is code


def test_a_mac_that_is_not_the_last_thing_in_its_frame_is_refused_even_if_it_is_believed() -> None:
    """P-ATT-10: what it covers is the frame with its last 32 bytes zeroed."""

    class Gullible(HmacAuth):
        def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
            return True

    for trailing in (False, True):
        node, peer = Node(auth=Gullible(KEY)), Peer(auth="psk")
        line = node.accept()
        line.say(PREAMBLE, peer.hello(to="m"))
        facts = {**peer.attach_map("m"), "mac": b"m" * 32}
        if trailing:
            facts["seen"] = facts.pop("seen")
        line.say(frame(ATTACH, mapping(facts)))
        if trailing:
            assert line.farewell() is CloseCode.PROTOCOL
        else:
            assert line.live


@pytest.mark.parametrize("peer_id", ["a", "z"])
@pytest.mark.parametrize("role", ["dialer", "acceptor"])
def test_the_arbiter_says_generation_and_the_follower_seen(role: str, peer_id: str) -> None:
    wrong: dict[str, Any] = {"seen": MISSING, "generation": 1}
    if peer_id == "z":
        wrong = {"seen": 0, "generation": MISSING}
    both = {"seen": 0, "generation": 1}
    neither = {"seen": MISSING, "generation": MISSING}
    for changes in (wrong, both, neither):
        node, peer = Node(), Peer(peer_id)
        line = node.claim(peer, role)
        before = fingerprint(node.endpoint)
        line.say(peer.attach(**changes))
        assert line.farewell() is CloseCode.PROTOCOL
        assert fingerprint(node.endpoint) == before


@pytest.mark.parametrize("role", ["dialer", "acceptor"])
@pytest.mark.parametrize(
    "changes",
    [
        {"first": 0},
        {"first": 3, "next": 2},
        {"next": 2**63},
        {"inbox": {"outbox": b"o" * 16, "run": b"r" * 16, "received": 1, "read": 2, "first": 1}},
        {"ended": [{}]},
        {"mac": b"short"},
        {"outbox": MISSING},
    ],
    ids=str,
)
def test_facts_that_are_nonsense_change_nothing(role: str, changes: dict[str, Any]) -> None:
    node, peer = Node(), Peer()
    node.send(peer, b"unsent")
    line = node.claim(peer, role)
    before = fingerprint(node.endpoint)
    line.say(peer.attach(**changes))
    assert line.farewell() is CloseCode.PROTOCOL
    assert fingerprint(node.endpoint) == before


def test_a_dialer_that_became_live_elsewhere_closes_and_does_not_attach() -> None:
    """P-HS-8, the first of the counterexamples that shaped these rules."""
    node, peer = Node(), Peer()
    dial = node.dial(peer.peer_id)
    assert dial.kinds() == [HELLO]
    node.connect(peer)
    dial.say(PREAMBLE, peer.hello_ack())
    assert dial.kinds() == [CLOSE]
    assert dial.connection.error is not None
    assert dial.connection.error.code is CloseCode.COLLISION


def test_a_dial_that_nobody_wants_any_more_says_goodbye_and_nothing_else() -> None:
    node = Node()
    target = node.add_target("a")
    node.endpoint.remove_target(target)
    line = node.answer(target)
    assert line.raw().startswith(PREAMBLE)
    assert node.endpoint.get_timer() is None


# -- handshake: whoever speaks something else -------------------------------------------------------------------------

STRANGERS = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
    (b"\x15\x03\x01\x00\x02\x02\x46\x00", "TLS"),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
    (b"POST /x HTTP/1.1\r\n\r\n", "HTTP"),
    (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
    (b"NIO\0\n\x01\x00\0\0\0\0", "first bytes are 4e 49 4f 00 0a 01 00 00"),
    (b"\x1b[31m red \r\n", "first bytes are 1b 5b 33 31"),
    (bytes(64), "first bytes are 00 00"),
]


@pytest.mark.parametrize(("stream", "named"), STRANGERS, ids=[str(stream[:8]) for stream, _ in STRANGERS])
@pytest.mark.parametrize("role", ["dialer", "acceptor"])
@pytest.mark.parametrize("chunk", [1, 1000])
def test_a_stranger_is_recognised_and_gets_no_answer(stream: bytes, named: str, role: str, chunk: int) -> None:
    node = Node()
    line = node.accept() if role == "acceptor" else node.dial("a")
    line.raw()
    line.say(stream, chunk=chunk)
    assert line.ended() is CloseCode.PROTOCOL
    assert line.raw() == b""
    assert named in str(line.connection.error)
    assert str(line.connection.error).isprintable()


@pytest.mark.parametrize("last", [b"\2\0", b"\1\1", b"\xff\xff"])
@pytest.mark.parametrize("role", ["dialer", "acceptor"])
def test_another_framing_version_is_a_version_mismatch(role: str, last: bytes) -> None:
    node = Node()
    line = node.accept() if role == "acceptor" else node.dial("a")
    line.raw()
    line.say(PREAMBLE[:6] + last)
    assert line.farewell() is CloseCode.VERSION


def test_an_acceptor_is_silent_until_it_has_the_preamble() -> None:
    for size in range(8):
        line = Node().accept()
        line.say(PREAMBLE[:size])
        line.node.advance(5.0)
        assert line.ended() is CloseCode.TIMEOUT
        assert line.written == 0
    line = Node().accept()
    line.connection.close(CloseCode.RESTARTING, "", line.node.now)
    line.node.pump()
    assert line.ended() is CloseCode.RESTARTING
    assert line.written == 0


def test_nobody_gets_more_than_three_times_what_it_sent_before_it_proved_itself() -> None:
    """The node's name is as long as can be and the stranger's HELLO as short; the :class:`Line` compares."""
    peer = Peer()
    hello = peer.hello(agent="", limits={"frame": 8192, "message": 1, "idle": 100}, require=["f"])
    good = peer.hello(agent="", limits={"frame": 8192, "message": 1, "idle": 100})
    attach = peer.attach("m" * 64)
    for stream in (PREAMBLE + hello, PREAMBLE + good + attach[:-1], PREAMBLE + good + frame(ATTACH, b"\x80")):
        for size in range(len(stream) + 1):
            line = Node("m" * 64).accept()
            line.say(stream[:size])
            line.node.advance(6.0)
            assert line.closed is not None


# -- handshake: time and crowds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["dialer", "acceptor"])
def test_the_handshake_deadline_is_absolute_however_the_bytes_drip(role: str) -> None:
    node, peer = Node(), Peer()
    if role == "acceptor":
        line, stream = node.accept(), PREAMBLE + peer.hello() + peer.attach()
    else:
        line, stream = node.dial(peer.peer_id), PREAMBLE + peer.hello_ack() + peer.attach()
    begun = node.now
    for byte in stream:
        node.advance(0.25)
        if line.closed is not None:
            break
        line.say(bytes([byte]))
    assert line.connection.error is not None
    assert line.connection.error.code is CloseCode.TIMEOUT
    assert node.now - begun == 5.0


def test_a_pause_of_the_node_itself_is_not_held_against_a_handshake() -> None:
    node, peer = Node(), Peer()
    line = node.claim(peer)
    node.jump(60.0)
    assert line.closed is None
    line.say(peer.attach())
    assert line.state is ConnectionState.LIVE
    late = node.claim(Peer("b"))
    node.jump(60.0)
    node.advance(2.0)
    assert late.farewell() is CloseCode.TIMEOUT


CROWD = Config(max_pending=8, max_pending_per_source=3)


def test_no_source_has_more_than_its_share_of_the_handshakes_under_way() -> None:
    node = Node(config=CROWD)
    lines = [node.accept("flood") for _ in range(10)]
    assert [line.closed is None for line in lines] == [True] * 3 + [False] * 7
    assert all(line.written == 0 for line in lines)
    assert {line.ended() for line in lines[3:]} == {CloseCode.OVERLOAD}
    other = node.accept("elsewhere")
    assert other.closed is None
    lines[0].lose()
    assert node.accept("flood").closed is None
    assert node.accept("flood").closed is not None


def test_no_more_handshakes_are_under_way_than_the_node_allows() -> None:
    node = Node(config=CROWD)
    lines = [node.accept(f"source {number}") for number in range(12)]
    assert [line.closed is None for line in lines] == [True] * 8 + [False] * 4
    node.advance(5.0)  # their time is over
    assert all(line.closed is not None for line in lines)
    assert node.accept("anybody").closed is None


def test_who_is_live_is_not_counted_among_the_handshakes() -> None:
    node = Node(config=CROWD)
    for number in range(20):
        node.connect(Peer(f"a{number}"))
    assert len(list(node.endpoint.live())) == 20


def test_newcomers_are_turned_away_at_random_and_ever_more_of_them_before_it_is_full() -> None:
    """From three quarters on, so that a flood does not lock out everybody who is not part of it."""
    config = Config(max_pending=100, max_pending_per_source=100)
    refused = [0] * 100
    for seed in range(15):
        node = Node(config=config, seed=seed)
        for number in range(100):
            line, peer = node.accept(), Peer(f"a{number}")
            line.say(PREAMBLE, peer.hello())
            if line.closed is not None:
                node.accept()  # somebody silent in its place
                refused[number] += 1
                [farewell] = line.heard()
                assert farewell.kind == CLOSE
                assert 1000 <= int.from_bytes(farewell.body[2:10], "big") <= 5000
                assert line.connection.error is not None
                assert line.connection.error.code is CloseCode.OVERLOAD
    assert refused[:75] == [0] * 75
    assert 0 < sum(refused[75:88]) < sum(refused[88:])


# -- handshake: proof -------------------------------------------------------------------------------------------------


def dialled(dialer: Node, acceptor: Node, tls: tuple[TLSFacts, TLSFacts] | None = None) -> tuple[Line, Line]:
    """A byte stream from one node to the other, on which nothing has arrived yet."""
    target = dialer.endpoint.add_target("there", dialer.now, to=acceptor.peer_id)
    dialer.pump()
    dialer.dials.remove(target)
    facts = (None, None) if tls is None else tls
    return (
        dialer._line(dialer.endpoint.connect(target, dialer.now, tls=facts[0])),
        acceptor.accept(tls=facts[1]),
    )


def keyed(key: bytes = KEY, other_key: bytes = KEY, ids: tuple[str, str] = ("a", "b")) -> tuple[Node, Node]:
    """Two nodes, and the key that each has for the other."""
    return Node(ids[0], auth=HmacAuth(key)), Node(ids[1], auth=HmacAuth(other_key))


@pytest.mark.parametrize("ids", [("a", "b"), ("b", "a")])
def test_two_nodes_with_one_key_become_live(ids: tuple[str, str]) -> None:
    dialer, acceptor = keyed(ids=ids)
    dialer.send(acceptor.peer_id, b"hello")
    lines = dialled(dialer, acceptor)
    exchange(*lines)
    assert [line.state for line in lines] == [ConnectionState.LIVE] * 2
    assert acceptor.read(dialer.peer_id) == [b"hello"]


def test_a_wrong_key_is_refused_without_a_reason() -> None:
    dialer, acceptor = keyed(KEY, OTHER_KEY)
    lines = dialled(dialer, acceptor)
    exchange(*lines)
    for line in lines:
        assert isinstance(line.connection.error, AuthenticationFailed)
        assert line.connection.error.detail == ""
    assert not lines[1].connection.error.remote  # type: ignore[union-attr]
    assert acceptor.endpoint.sessions == {}


def test_an_acceptor_that_does_not_have_the_key_is_refused() -> None:
    """It knows the dialer's mac, and sends it back as its own."""
    node, impostor = Node("a", auth=HmacAuth(KEY)), Peer("b", auth="psk")
    node.send("b", b"secret")
    before = fingerprint(node.endpoint)
    for mirrored in (False, True):
        line = node.dial("b")
        line.say(PREAMBLE, impostor.hello_ack())
        hello, attach = line.heard()
        assert (hello.kind, attach.kind) == (HELLO, ATTACH)
        if mirrored:
            line.say(frame(ATTACH, attach.body.replace(b"\xa4seen\x00", b"\xaageneration\x01")))
        else:
            line.say(impostor.attach("a", mac=attach.body[-32:]))
        assert line.farewell() is CloseCode.AUTH_FAILED
        assert fingerprint(node.endpoint) == before


@pytest.mark.parametrize("role", ["dialer", "acceptor"])
@pytest.mark.parametrize("auth", ["insecure", "psk"])
def test_a_mac_is_there_exactly_where_the_method_has_one(role: str, auth: str) -> None:
    node = Node(auth=None if auth == "insecure" else HmacAuth(KEY))
    peer = Peer(auth=auth)
    if role == "acceptor":
        line = node.accept()
        line.say(PREAMBLE, peer.hello(to="m"))
    else:
        line = node.claim(peer, role)
    line.say(peer.attach(mac=None if auth == "psk" else bytes(32)))
    assert line.farewell() is CloseCode.AUTH_FAILED
    assert line.connection.error is not None
    assert line.connection.error.detail == ""


def test_a_handshake_with_any_byte_changed_on_the_way_makes_nobody_believe_it() -> None:
    """Every byte of every handshake frame, in both directions, one bit each."""
    template = keyed()
    lines = dialled(*template)
    stretches: list[tuple[int, bytes]] = []

    def record(end: int, stretch: bytes) -> bytes:
        stretches.append((end, stretch))
        return stretch

    exchange(*lines, record)
    assert [end for end, _ in stretches[:4]] == [0, 1, 0, 1]
    for step, (_, stretch) in enumerate(stretches[:4]):
        for position in range(len(stretch)):
            dialer, acceptor = keyed()
            dialer.send("b", b"not for everybody")
            step_now = -1

            def tamper(_: int, passing: bytes, step: int = step, position: int = position) -> bytes:
                nonlocal step_now
                step_now += 1
                if step_now != step:
                    return passing
                changed = bytearray(passing)
                changed[position] ^= 1 << position % 8
                return bytes(changed)

            lines = dialled(dialer, acceptor)
            before = fingerprint(dialer.endpoint)
            exchange(*lines, tamper)
            if step == 3 and position >= attach_size(stretch):  # what follows ATTACH is not protected
                continue
            assert lines[0].state is not ConnectionState.LIVE
            assert fingerprint(dialer.endpoint) == before
            assert (lines[1].state is ConnectionState.LIVE) <= (step == 3)
            assert (acceptor.endpoint.sessions == {}) >= (step < 3)


def attach_size(stretch: bytes) -> int:
    """Bytes of the frame at the beginning of a stretch."""
    return 4 + int.from_bytes(stretch[:4], "big")


@pytest.mark.parametrize("end", [0, 1])
def test_a_recorded_handshake_is_worth_nothing(end: int) -> None:
    dialer, acceptor = keyed()
    lines = dialled(dialer, acceptor)
    recorded: list[bytes] = []

    def record(from_end: int, stretch: bytes) -> bytes:
        if from_end == end:
            recorded.append(stretch)
        return stretch

    exchange(*lines, record)
    lines[0].lose()
    lines[1].lose()
    victim = acceptor if end == 0 else dialer
    before = fingerprint(victim.endpoint)
    if end == 0:
        replay = victim.accept()
    else:
        victim.advance(60.0)
        replay = victim.answer(victim.dials[0])
        before = fingerprint(victim.endpoint)
    for stretch in recorded[:2]:
        replay.say(stretch)
    assert replay.farewell() is CloseCode.AUTH_FAILED
    assert fingerprint(victim.endpoint) == before


def test_a_channel_with_another_certificate_in_the_middle_is_refused() -> None:
    mine, theirs = TLSFacts(binding=b"1" * 32), TLSFacts(binding=b"2" * 32)
    for facts, state in (((mine, mine), ConnectionState.LIVE), ((mine, theirs), ConnectionState.CLOSED)):
        lines = dialled(*keyed(), tls=facts)
        exchange(*lines)
        assert lines[0].state is state


def test_who_has_not_proved_itself_changes_no_session() -> None:
    """It knows every name and number there is, and lacks only the key."""
    a, b = keyed()
    lines = dialled(a, b)
    exchange(*lines)
    for number in range(3):
        a.send("b", b"%d" % number)
        b.send("a", b"%d" % number)
    exchange(*lines)
    b.read("a", 2)
    b.advance(1.0)
    exchange(*lines)
    before, connected = fingerprint(b.endpoint), b.session("a").connection
    known = b.session("a")
    assert known.inbox is not None
    names: dict[str, Any] = {
        "outbox": known.inbox.outbox_id, "run": known.inbox.run, "first": 2, "next": 9, "seen": 99,
        "inbox": {"outbox": known.outbox.outbox_id, "run": known.outbox.run, "received": 3, "read": 3, "first": 1},
    }  # fmt: skip
    for life in (1, 2):
        for reach in ("hello", "attach", "attach and data", "attach without a mac", "silence"):
            thief = Peer("a", life=life, auth="psk")
            thief.dials = 100
            line = b.accept()
            line.say(PREAMBLE, thief.hello(to="b", incarnation=a.endpoint.incarnation if life == 1 else b"i" * 16))
            if reach == "attach":
                line.say(thief.attach("b", mac=bytes(32), **names))
            elif reach == "attach and data":
                line.say(thief.attach("b", mac=bytes(32), **names), data(4), frame(ACK, bytes(32)))
            elif reach == "attach without a mac":
                line.say(thief.attach("b", **names))
            elif reach == "silence":
                b.advance(6.0)
                continue
            assert fingerprint(b.endpoint) == before
    assert b.session("a").connection is connected
    assert lines[1].kinds() == []


# -- chunks and garbage -----------------------------------------------------------------------------------------------

#: small bounds, so that fragments, credit and windows come into play
SMALL = Config(limits=Limits(frame=8192, message=20_000), window=20_000, window_guaranteed=10_000, window_max=40_000)


@dataclass(frozen=True)
class Step:
    """One input of a node: bytes that arrive, a command, or time that passes."""

    what: str
    stretch: bytes = b""
    number: int = 0


@cache
def recorded(seed: int) -> tuple[Step, ...]:
    """What happens at node "b" in a conversation with "a", which dials it: everything that the protocol has."""
    draw = random.Random(seed)
    a, b = Node("a", SMALL), Node("b", SMALL)
    lines = dialled(a, b)
    steps: list[Step] = []
    often = ("arrive",) * 4 + ("back", "back", "talk", "talk", "send", "read", "reject", "time")
    for what in ["arrive", "back"] * 2 + draw.choices(often, k=60):
        if what == "arrive" and (stretch := lines[0].raw()):
            lines[1].say(stretch)
            steps.append(Step("bytes", stretch))
        elif what == "back":
            lines[0].say(lines[1].raw())
        elif what == "talk":
            talk(a, draw)
        elif what in COMMANDS:
            step = Step(what, number=draw.randrange(20_000))
            COMMANDS[what](b, step)
            steps.append(step)
            if what == "time":
                a.advance(step.number / 10_000)
    assert lines[1].state is ConnectionState.LIVE
    return tuple(steps)


def talk(node: Node, draw: random.Random) -> None:
    """Node "a" does something that can be seen on the wire."""
    session, connection = node.session("b"), node.session("b").connection
    for _ in range(draw.randrange(1, 5)):
        payload = draw.randbytes(draw.choice((0, 1, 5, 100, 3000, 9000, 19_000)))
        headers = {"kind": payload[:9]} if draw.random() < 0.3 else None
        session.send(payload, node.now, headers=headers, ttl=draw.choice((None, None, 0.1)), ack_now=len(payload) == 5)
    if draw.random() < 0.3:
        session.cancel(session.outbox.next - 1, node.now)
    if connection is not None and draw.random() < 0.3:
        connection.ping(node.now)
    node.read("b", draw.randrange(5))
    node.pump()


def command_send(node: Node, step: Step) -> None:
    node.send("a", bytes(step.number), b"small")


def command_read(node: Node, step: Step) -> None:
    node.read("a", step.number % 7)


def command_reject(node: Node, step: Step) -> None:
    session = node.session("a")
    for delivery in session.take(2):
        session.settle(delivery, node.now, reject=(step.number, "no"))
    node.pump()


def command_time(node: Node, step: Step) -> None:
    node.advance(step.number / 10_000)


COMMANDS = {"send": command_send, "read": command_read, "reject": command_reject, "time": command_time}


def replay(steps: Iterable[Step], cuts: Iterator[int]) -> tuple[Node, Line, list[object]]:
    """Node "b" lives through it again, its bytes cut into pieces; with everything that it says and tells."""
    node = Node("b", SMALL)
    line = node.accept()
    told: list[object] = []
    for step in steps:
        if step.what == "bytes":
            position = 0
            while position < len(step.stretch):
                size = next(cuts)
                line.feed(step.stretch[position : position + size])
                position += size
            holds_no_more_than_it_may(line)
            node.pump()
        else:
            try:
                COMMANDS[step.what](node, step)
            except UsageError as error:
                told.append(str(error))
        # notices are ready-sets: which there are is a fact, in which order two kinds of them came is none
        told.append((line.raw(), sorted(map(repr, node.events))))
        node.events.clear()
    return node, line, told


def holds_no_more_than_it_may(line: Line) -> None:
    """The memory of one connection and of its session."""
    connection, config = line.connection, line.node.endpoint.config
    pending = connection._decoder.pending
    if connection.state is ConnectionState.LIVE:
        assert pending < config.limits.frame + 4
    elif connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
        assert pending == 0
    else:
        assert pending < 4096 + 4
    for session in line.node.endpoint.sessions.values():
        assert session.unsettled <= config.window_max + config.limits.message + 128


WHOLE = repeat(1 << 30)
SEEDS = st.integers(0, 7)


@cache
def whole(seed: int) -> tuple[Node, Line, list[object]]:
    return replay(recorded(seed), WHOLE)


@given(SEEDS)
@settings(derandomize=True, deadline=None, max_examples=8)
def test_the_same_inputs_give_the_same_outputs(seed: int) -> None:
    node, _, told = whole(seed)
    again, _, told_again = replay(recorded(seed), WHOLE)
    assert told == told_again
    assert fingerprint(node.endpoint) == fingerprint(again.endpoint)


@given(SEEDS, st.lists(st.one_of(st.integers(1, 40), st.integers(1, 9000)), min_size=1, max_size=20))
@settings(derandomize=True, deadline=None, max_examples=25)
def test_how_a_stream_is_cut_makes_no_difference(seed: int, sizes: list[int]) -> None:
    node, line, told = whole(seed)
    cut, cut_line, told_cut = replay(recorded(seed), cycle(sizes))
    assert told_cut == told
    assert fingerprint(cut.endpoint) == fingerprint(node.endpoint)
    assert cut_line.state is line.state


def test_a_stream_of_single_bytes_makes_no_difference() -> None:
    _, _, told = whole(1)
    _, _, dripped = replay(recorded(1), repeat(1))
    assert dripped == told


class Damage(Enum):
    FLIP = "flip"
    DELETE = "delete"
    INSERT = "insert"
    REPEAT = "repeat"
    END = "end"


def damaged(steps: Sequence[Step], damage: Damage, place: int, size: int, junk: bytes) -> list[Step]:
    """The conversation with one thing wrong in its bytes."""
    total = sum(len(step.stretch) for step in steps)
    place %= total
    result: list[Step] = []
    for step in steps:
        stretch, here = step.stretch, place
        place -= len(stretch)
        if 0 <= here < len(stretch):
            before, after = stretch[:here], stretch[here:]
            if damage is Damage.FLIP:
                stretch = before + bytes([after[0] ^ 1 << size % 8]) + after[1:]
            elif damage is Damage.DELETE:
                stretch = before + after[size:]
            elif damage is Damage.INSERT:
                stretch = before + junk + after
            elif damage is Damage.REPEAT:
                stretch = before + after[:size] + after
            else:
                return [*result, Step("bytes", before)]
        result.append(Step(step.what, stretch, step.number))
    return result


@given(SEEDS, st.sampled_from(Damage), st.integers(0, 1 << 20), st.integers(1, 300), st.binary(min_size=1, max_size=60))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_a_damaged_conversation_ends_in_one_clean_close(
    seed: int, damage: Damage, place: int, size: int, junk: bytes
) -> None:
    """The :class:`Node` watches that there is one Close and nothing after it; here is what remains."""
    node, line, _ = replay(damaged(recorded(seed), damage, place, size, junk), WHOLE)
    line.eof()
    line.lose()
    assert line.closed is not None
    assert line.connection.error is not None
    assert not node.endpoint.connections
    before = fingerprint(node.endpoint)
    line.say(PREAMBLE, junk)
    assert fingerprint(node.endpoint) == before
    assert line.connection.data_to_send(node.now) == []


PEER = Peer()

#: frames that are good in their place, and those that never are
FRAMES = st.sampled_from([
    PREAMBLE, PEER.hello(), PEER.hello_ack(), PEER.attach(), data(1), data(2), data(1, b"four", total=8),
    data(1, b"more", CONTINUED), data(1, headers={"a": 1}), ack(1, 1), ack(0, 0), skip(1, 1), skip(1, 3),
    reject(bytes(16), 1), fin(1), fin(4), ping(), pong(), close(0), close(3, b"x" * 99), frame(0x80), frame(0x7F),
])  # fmt: skip


@given(
    role=st.sampled_from(["dialer", "acceptor"]),
    peer_id=st.sampled_from(["a", "z"]),
    reach=st.sampled_from(["nothing", "preamble", "hello", "live"]),
    garbage=st.lists(FRAMES | st.binary(max_size=40) | st.builds(frame, st.integers(0, 255), st.binary(max_size=40))),
)
@settings(derandomize=True, deadline=None, max_examples=250)
def test_whatever_arrives_ends_in_one_clean_close(role: str, peer_id: str, reach: str, garbage: list[bytes]) -> None:
    node, peer = Node(config=SMALL), Peer(peer_id)
    node.send(peer, b"unsent", bytes(9000))
    if reach == "live":
        line = node.connect(peer, role)
    elif reach == "hello":
        line = node.claim(peer, role)
    else:
        line = node.accept() if role == "acceptor" else node.dial(peer_id)
        line.say(PREAMBLE if reach == "preamble" else b"")
    for piece in garbage:
        line.say(piece)
        holds_no_more_than_it_may(line)
    line.eof()
    assert line.closed is not None
    assert not node.endpoint.connections


def test_what_came_whole_before_a_fault_takes_effect_and_nothing_after_it() -> None:
    """P-FRAME-14, in one chunk and in many."""
    stream = data(1, b"one") + data(2, b"two") + data(9, b"nine") + data(3, b"three") + ack(0, 0)
    for chunk in (1, 7, 1000):
        node, peer = Node(), Peer()
        line = node.connect(peer)
        line.raw()
        line.say(stream, chunk=chunk)
        assert line.farewell() is CloseCode.PROTOCOL
        assert node.read(peer) == [b"one", b"two"]


def test_bytes_after_the_end_are_not_even_kept() -> None:
    for end in (Line.eof, Line.lose):
        line = Node().connect(Peer())
        line.connection.close(CloseCode.NORMAL, "", line.node.now)
        line.say(bytes(100_000))
        end(line)
        end(line)
        assert line.state is ConnectionState.CLOSED
        line.say(bytes(100_000))
        holds_no_more_than_it_may(line)


# -- messages ---------------------------------------------------------------------------------------------------------


def opened(config: Config = SMALL, **attach: Any) -> tuple[Node, Peer, Line]:
    """A live connection on which the node has said what it had to say."""
    node, peer = Node(config=config), Peer()
    line = node.connect(peer, **attach)
    line.raw()
    return node, peer, line


def fragments(payload: bytes, step: int, **first: Any) -> bytes:
    """Message 1 in fragments of ``step`` bytes."""
    pieces = [payload[start : start + step] for start in range(0, len(payload), step)]
    extra = len(mapping(first["headers"])) if "headers" in first else 0
    return b"".join(
        data(1, piece, total=len(payload) + extra, **first)
        if number == 0
        else data(1, piece, CONTINUED | (MORE if number < len(pieces) - 1 else 0))
        for number, piece in enumerate(pieces)
    )


@given(st.binary(min_size=2, max_size=200), st.integers(1, 99), st.booleans(), st.integers(1, 1000))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_fragments_add_up_to_the_message(payload: bytes, step: int, headers: bool, chunk: int) -> None:
    step = min(step, len(payload) - 1)
    node, peer, line = opened()
    first = {"headers": {"kind": "x"}} if headers else {}
    line.say(fragments(payload, step, **first), chunk=chunk)
    [delivery] = node.session(peer).take()
    assert delivery[2] == payload
    assert delivery[3] == RAW
    assert delivery[4] is not None
    assert delivery[4].headers == first.get("headers")
    line.say(data(2, b"next"))
    assert node.read(peer) == [b"next"]


def test_acknowledgements_pings_and_rejections_may_stand_between_fragments() -> None:
    node, peer, line = opened()
    node.send(peer, b"one", b"two")
    line.raw()
    line.say(data(1, b"a", total=3), ping(3), ack(1, 1), data(1, b"b", MORE | CONTINUED))
    assert pong(3) in line.raw()
    line.say(reject(node.session(peer).outbox.outbox_id, 2), pong(9), frame(0xA0), data(1, b"c", CONTINUED))
    assert node.read(peer) == [b"abc"]
    assert node.session(peer).outcome(1) is Outcome.READ
    assert node.session(peer).outcome(2) is Outcome.REJECTED


@pytest.mark.parametrize(
    "between",
    [data(2), data(1), data(1, total=9), data(2, b"x", CONTINUED), skip(1, 1), fin(1), data(1, b"x", CONTINUED | RAW)],
    ids=["next", "again", "begun again", "of another", "skip", "fin", "with a flag"],
)
def test_nothing_else_of_the_outbox_may_stand_between_fragments(between: bytes) -> None:
    node, peer, line = opened()
    line.say(data(1, b"a", total=3), between)
    assert line.farewell() is CloseCode.PROTOCOL
    assert node.session(peer).unread == 0


@pytest.mark.parametrize(
    "pieces",
    [
        [data(1, b"abcd", total=3)],
        [data(1, b"abc", total=3)],
        [data(1, b"", total=0)],
        [data(1, b"a", total=3), data(1, b"bc", MORE | CONTINUED)],
        [data(1, b"a", total=3), data(1, b"bcd", MORE | CONTINUED)],
        [data(1, b"a", total=3), data(1, b"b", CONTINUED)],
        [data(1, b"a", total=3), data(1, b"bcd", CONTINUED)],
        [data(1, b"a", total=3), data(1, b"", MORE | CONTINUED)],
        [data(1, b"a", total=3), data(1, b"", CONTINUED)],
        [data(1, b"a", total=3, headers={"longer": "than that"})],
    ],
    ids=lambda pieces: " ".join(piece[14:].hex() or "-" for piece in pieces),
)
def test_fragments_that_do_not_add_up_are_refused(pieces: list[bytes]) -> None:
    node, peer, line = opened()
    line.say(*pieces)
    assert line.farewell() is CloseCode.PROTOCOL
    assert node.session(peer).unread == 0


def test_a_message_that_was_cut_off_is_forgotten_and_starts_again() -> None:
    node, peer, line = opened()
    line.say(data(1, b"half", total=8))
    line.lose()
    assert node.session(peer).unread == 0
    again = node.connect(peer, next=2)
    again.say(data(1, b"full", total=8), data(1, b"mess", CONTINUED))
    assert node.read(peer) == [b"fullmess"]


def test_duplicates_are_dropped_whole_or_in_fragments_and_acknowledged_again() -> None:
    node, peer, line = opened()
    line.say(data(1, b"first"))
    node.advance(1.0)
    line.raw()
    for again in (data(1, b"again"), fragments(b"again", 2), data(1, b"again", headers={"a": 1})):
        line.say(again)
        node.advance(1.0)
        assert line.kinds()[-1] == ACK
    line.say(data(2, b"second"))
    assert node.read(peer) == [b"first", b"second"]


def test_limits_are_judged_at_the_first_fragment_with_room_for_the_id() -> None:
    most = SMALL.limits.message + 64
    size = SMALL.limits.frame - 14
    node, peer, line = opened()
    line.say(data(1, bytes(size), total=most + 1))
    assert line.farewell() is CloseCode.TOO_LARGE
    node, peer, line = opened()
    line.say(fragments(bytes(most), size))
    assert [len(payload) for payload in node.read(peer)] == [most]
    tight = Config(limits=Limits(frame=8192, message=10))
    node, peer, line = opened(tight)
    line.say(data(1, bytes(74)))
    assert [len(payload) for payload in node.read(peer)] == [74]
    line.say(data(2, bytes(75)))
    assert line.farewell() is CloseCode.TOO_LARGE


def test_headers_come_with_the_message_and_a_malformed_map_ends_the_connection() -> None:
    node, peer, line = opened()
    origin = b"o" * 16 + bytes(7) + b"\5"
    line.say(data(1, b"x", REDELIVERED | RAW, headers={"kind": "image", "id": origin, ".later": 1}))
    [(_, _, payload, flags, details)] = node.session(peer).take()
    assert (payload, flags) == (b"x", RAW)
    assert details is not None
    assert (details.redelivered, details.origin) == (True, origin)
    assert details.headers is not None
    assert details.headers["kind"] == "image"
    for headers in (b"\x81\xa1a", b"\x80\x80", b"\x81\x01\x02", b"\xc0"):
        node, peer, line = opened()
        line.say(data(1, len(headers).to_bytes(2, "big") + headers, HEADERS))
        assert line.farewell() is CloseCode.PROTOCOL
    for wrong in (7, b"short", "a text of twenty-four bytes"[:24], None):
        node, peer, line = opened()
        line.say(data(1, headers={"id": wrong}))
        assert line.farewell() is CloseCode.PROTOCOL, wrong


def test_one_message_may_pass_the_credit_and_the_next_one_may_not() -> None:
    node, peer, line = opened()
    line.say(data(1, bytes(8000)), data(2, bytes(8000)), data(3, bytes(8000)))
    assert line.closed is None
    line.say(data(4, b""))
    assert line.farewell() is CloseCode.FLOW
    assert len(node.read(peer)) == 3


@pytest.mark.parametrize("beyond", [skip(4, 4), fin(4), data(4, b"a", total=2)], ids=["skip", "fin", "fragment"])
def test_everything_that_has_a_sequence_needs_credit(beyond: bytes) -> None:
    _, _, line = opened()
    line.say(data(1, bytes(8000)), data(2, bytes(8000)), data(3, bytes(8000)), ack(0, 0), ping(), beyond)
    assert line.farewell() is CloseCode.FLOW


def test_the_greatest_sequence_is_taken_and_nothing_beyond_it() -> None:
    last = 2**63 - 1
    for beyond in (data(last + 1), skip(last + 1, last + 1), fin(last + 1), skip(last, last + 1)):
        node, peer, line = opened(first=last - 1, next=last - 1)
        line.say(data(last - 1, b"last but one"))
        line.say(beyond)
        assert line.farewell() is CloseCode.PROTOCOL
        assert node.read(peer) == [b"last but one"]
    node, peer, line = opened(first=last - 1, next=last - 1)
    line.say(data(last - 1), fin(last))
    node.read(peer)
    assert node.session(peer).peer_ended


def test_nothing_comes_after_fin() -> None:
    for after in (data(3), skip(3, 3), fin(3), skip(1, 3)):
        _, _, line = opened()
        line.say(data(1), fin(2), after)
        assert line.farewell() is CloseCode.PROTOCOL
    _, _, line = opened()
    line.say(data(1), fin(2), data(1), fin(2), skip(1, 2))
    assert line.closed is None


@pytest.mark.parametrize(
    ("taken", "adopted"),
    [
        (data(2, b"plain"), True),
        (data(2, b"with a flag", REDELIVERED | RAW), True),
        (data(2, b"be", total=5) + data(2, b"gun", CONTINUED), True),
        (data(2, b"be", total=5), False),
        (skip(2, 3), True),
        (fin(2), True),
        (data(1, b"again"), False),
        (skip(1, 1), False),
        (ack(0, 0) + ping(), False),
        (b"", False),
    ],
    ids=["data", "flagged", "fragments", "a fragment", "skip", "fin", "duplicate", "old skip", "control", "nothing"],
)
def test_a_new_run_of_an_outbox_is_adopted_with_the_first_sequence_that_is_taken_under_it(
    taken: bytes, adopted: bool
) -> None:
    """P-RUN-3 and P-RUN-4: a journal's sender states a new run at every start, under the same outbox."""
    node, peer, line = opened()
    line.say(data(1))
    line.lose()
    old, new = peer.run, b"a run that is new"[:16]
    line = node.connect(peer, next=3, run=new)
    line.say(taken)
    line.lose()
    again = node.dial(peer.peer_id)
    again.say(PREAMBLE, peer.hello_ack())
    attach = again.heard()[-1]
    assert attach.kind == ATTACH
    assert (new if adopted else old) in attach.body
    assert (old if adopted else new) not in attach.body


def test_a_session_that_is_over_on_this_side_listens_only_for_ping_and_close() -> None:
    """P-END-5: a finished dialer waits for the acceptor's last word."""
    node, peer = Node(), Peer()
    line = node.connect(peer, "dialer")
    node.session(peer).end(node.now)
    node.pump()
    line.say(fin(1), ack(1, 1))
    line.raw()
    before = fingerprint(node.endpoint)
    line.say(data(9), ack(9, 9), skip(7, 8), fin(5), reject(bytes(16), 1), ping(4), frame(0x80, b"x"))
    assert line.raw() == pong(4)
    assert fingerprint(node.endpoint) == before
    line.say(close(CloseCode.NORMAL, flags=0))
    assert line.ended() is CloseCode.NORMAL
    assert node.dials == []
    node.advance(1000.0)
    assert node.dials == []


# -- liveness ---------------------------------------------------------------------------------------------------------


def pings(line: Line) -> list[int]:
    """The opaque values of the PINGs that were heard."""
    return [item.u64() for item in line.heard() if item.kind == PING]


def test_a_silent_peer_is_asked_after_20_s_and_given_up_after_45() -> None:
    """P-TIME-3, P-TIME-4; the question comes up to 25 % early (P-TIME-5)."""
    node, _, line = opened(Config())
    node.advance(14.9)
    assert pings(line) == []
    node.advance(5.1)
    assert len(pings(line)) == 1
    node.advance(24.9)
    assert line.closed is None
    assert line.connection.error is None
    node.advance(0.1)
    assert line.farewell() is CloseCode.TIMEOUT
    assert "silent for 45" in str(line.connection.error)


@pytest.mark.parametrize("sign", [pong(99), data(1), ack(0, 0), frame(0xFF)], ids=["pong", "data", "ack", "FF"])
def test_every_byte_is_a_sign_of_life(sign: bytes) -> None:
    node, _, line = opened(Config())
    for size in (1, 2, 100):
        node.advance(44.0)
        line.say(sign[:size])
        sign = sign[size:]
    assert line.closed is None
    node.advance(45.0)
    assert line.closed is not None


def test_a_node_that_has_nothing_to_say_speaks_before_its_peer_gives_it_up() -> None:
    """P-TIME-2: by 4/9 of the ``idle`` that the peer announced, however busy the peer is."""
    node, peer = Node(), Peer()
    peer.limits = {**peer.limits, "idle": 900}
    line = node.connect(peer)
    said = node.now
    while node.now < 1010.0:
        node.advance(0.01)
        line.say(frame(0x80, b"busy"))
        if line.heard():
            said = node.now
        assert node.now - said <= 0.4 + 1e-6


def test_what_was_said_anyway_takes_the_place_of_a_ping() -> None:
    node, peer, line = opened(Config())
    for _ in range(30):
        node.advance(10.0)
        node.send(peer, b"chat")
        line.say(frame(0x80, b"chat"))
    assert PING not in line.kinds()


def test_connections_made_at_the_same_moment_do_not_ask_at_the_same_moment() -> None:
    node = Node()
    times: list[float] = []
    lines = [node.connect(Peer(f"a{number}")) for number in range(200)]
    for line in lines:
        line.raw()
    while len(times) < len(lines):
        node.advance(0.02 if node.now > 1014.0 else 1.0)
        times += [node.now - 1000.0 for line in lines if pings(line)]
    assert 15.0 <= min(times) < 15.2
    assert 19.8 < max(times) <= 20.02
    assert len(set(times)) > 100


def test_a_stream_that_takes_nothing_for_30_s_is_given_up_though_the_peer_talks() -> None:
    """P-TIME-7. What is written moves the deadline, and a stream with nothing to write has none."""
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, b"waits")
    for _ in range(29):
        node.advance(1.0)
        line.say(frame(0x80, b"talk"))
    line.stuck = False
    line.writable()
    for _ in range(60):
        node.advance(1.0)
        line.say(frame(0x80, b"talk"))
    assert line.closed is None
    line.stuck = True
    node.send(peer, b"waits too")
    for _ in range(30):
        assert line.closed is None
        node.advance(1.0)
        line.say(frame(0x80, b"talk"))
    assert line.ended() is CloseCode.TIMEOUT
    assert "took no byte for 30" in str(line.connection.error)


def test_a_pause_of_the_node_itself_kills_nobody_and_asks_everybody() -> None:
    """P-TIME-6; whoever does not answer then is given up."""
    node = Node()
    lines = [node.connect(Peer(f"a{number}")) for number in range(50)]
    for line in lines:
        line.raw()
    node.jump(60.0)
    asked = [pings(line) for line in lines]
    assert all(len(question) == 1 for question in asked)
    assert all(line.closed is None for line in lines)
    for line, [question] in zip(lines[:25], asked[:25], strict=True):
        line.say(pong(question))
    node.advance(2.0)
    assert [line.closed is None for line in lines] == [True] * 25 + [False] * 25
    assert all(line.farewell() is CloseCode.TIMEOUT for line in lines[25:])


def test_a_pause_is_not_held_against_a_stream_that_waits_to_be_written() -> None:
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, b"waits")
    node.jump(60.0)
    assert line.closed is None
    line.stuck = False
    line.writable()
    line.say(frame(0x80, b"x"))
    node.advance(10.0)
    assert line.closed is None


def test_timers_are_served_when_they_are_due_or_late_and_never_twice() -> None:
    node, _, line = opened(Config())
    due = node.endpoint.get_timer()
    assert due is not None
    node.endpoint.handle_timer(due - 0.001)  # too early: nothing
    node.pump()
    assert line.raw() == b""
    assert node.endpoint.get_timer() == due
    node.now = due
    node.endpoint.handle_timer(due)  # exactly
    node.pump()
    later = node.endpoint.get_timer()
    assert later is not None
    assert later > due
    node.endpoint.handle_timer(due)
    assert node.endpoint.get_timer() == later
    node.now = later + 3.0  # in the past
    node.endpoint.handle_timer(node.now)
    node.pump()
    following = node.endpoint.get_timer()
    assert following is not None
    assert following > node.now


def test_asking_for_the_next_timer_costs_the_same_for_any_number_of_connections() -> None:
    looks: dict[int, int] = {}
    for count in (10, 500):
        node = Node()
        for number in range(count):
            node.connect(Peer(f"a{number}"))

        class Counting(list[Any]):
            def __getitem__(self, place: Any, count: int = count) -> Any:
                looks[count] = looks.get(count, 0) + 1
                return super().__getitem__(place)

        node.endpoint.get_timer()  # stale entries at the top are thrown away once
        node.endpoint.timers._heap = Counting(node.endpoint.timers._heap)
        for _ in range(100):
            node.endpoint.get_timer()
    assert looks[10] == looks[500]


def test_a_ping_is_answered_at_once_and_the_latest_one_answers_for_all() -> None:
    node, peer, line = opened(Config())
    line.say(ping(1))
    assert line.raw() == pong(1)
    line.stuck = True
    line.say(ping(2), ping(3), ping(4))
    line.stuck = False
    line.writable()
    assert line.raw() == pong(4)
    line.stuck = True
    node.send(peer, b"in the way")
    line.say(ping(5))
    line.stuck = False
    line.writable()
    assert line.kinds()[0] == PONG


# -- floods -----------------------------------------------------------------------------------------------------------

#: frames that change nothing (P-ABUSE-1), on a connection whose peer holds message 1 and rejected message 2
IDLE_FRAMES = {
    "PING": ping(),
    "PONG that answers nothing": pong(1 << 40),
    "ACK without news": ack(1, 0, credit=0),
    "SKIP that is ignored": skip(1, 1),
    "empty frame of an unknown type": frame(0x80),
    "REJECT of another outbox": reject(b"another outbox, ", 1),
    "REJECT below first": b"below",
    "REJECT once more": b"again",
}


@pytest.mark.parametrize("name", IDLE_FRAMES)
def test_frames_that_change_nothing_are_limited(name: str) -> None:
    """A burst of 256, and 64 a second."""
    node, peer, line = opened(Config())
    node.send(peer, b"one", b"two", b"three")
    outbox = node.session(peer).outbox.outbox_id
    line.say(data(1), ack(2, 1), reject(outbox, 2))
    idle = {b"below": reject(outbox, 1), b"again": reject(outbox, 2)}.get(IDLE_FRAMES[name], IDLE_FRAMES[name])
    for _ in range(3):
        line.say(idle * 200)
        node.advance(3.125)
        line.say(frame(0xFF, b"not counted") * 1000)
    assert line.closed is None
    node.advance(4.0)
    line.say(idle * 256)
    node.advance(1.0)
    line.say(idle * 64)
    assert line.closed is None
    line.say(idle)
    assert line.farewell() is CloseCode.ABUSE


def test_frames_that_have_a_meaning_are_not_limited() -> None:
    """Answers to our questions, rejections that come again after a resume, acknowledgements that tell something."""
    node, peer, line = opened(Config())
    node.send(peer, *[b"x"] * 600)
    outbox = node.session(peer).outbox.outbox_id
    line.say(*[ack(sequence, 0) for sequence in range(1, 601)])
    line.say(*[reject(outbox, sequence) for sequence in range(2, 600)])
    for _ in range(300):
        node.session(peer).connection.ping(node.now)  # type: ignore[union-attr]
        node.pump()
        line.say(*[pong(value) for value in pings(line)])
    assert line.closed is None
    line.lose()
    holds = {"outbox": outbox, "run": node.endpoint.run, "received": 600, "read": 0, "first": 1}
    again = node.connect(peer, inbox=holds)
    again.say(*[reject(outbox, sequence) for sequence in range(2, 600)])
    assert again.closed is None


# -- what goes out ----------------------------------------------------------------------------------------------------


def test_output_comes_in_pieces_of_about_the_size_that_was_asked_for() -> None:
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, *[bytes(1000)] * 100, bytes(200_000))
    total = 0
    while buffers := line.connection.data_to_send(node.now, 10_000):
        size = sum(len(buffer) for buffer in buffers)
        assert size <= 10_000 + 65536 + 4
        total += size
    assert total > 300_000


def test_control_frames_go_before_messages() -> None:
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, bytes(100_000))
    line.say(ping(8), data(1))
    line.connection.ping(node.now)
    node.read(peer)
    line.stuck = False
    line.writable()
    kinds = line.kinds()
    assert set(kinds[: kinds.index(DATA)]) == {PONG, PING, ACK}


def test_a_closed_connection_has_nothing_to_say() -> None:
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, b"too late")
    line.connection.close(CloseCode.NORMAL, "", node.now)
    line.lose()
    line.stuck = False
    assert line.connection.data_to_send(node.now) == []
    line.connection.want_write(node.now)
    assert node.endpoint.next_effect() is None


def test_the_driver_is_told_once_that_there_is_something_to_write() -> None:
    node, peer, line = opened(Config())
    session = node.session(peer)
    for _ in range(5):
        session.send(b"x", node.now)
        line.connection.ping(node.now)
    effects = []
    while (effect := node.endpoint.next_effect()) is not None:
        effects.append(effect)
    [transmit] = [effect for effect in effects if isinstance(effect, Transmit)]
    assert transmit.connection is line.connection
    line.writable()
    session.send(b"x", node.now)
    assert isinstance(node.endpoint.next_effect(), Transmit)


def test_a_connection_says_what_it_is() -> None:
    node = Node()
    assert repr(node.accept().connection) == "<Connection from ? preamble>"
    assert repr(node.connect(Peer("z"), "dialer").connection) == "<Connection to z live>"
