"""The handshake of one connection: what is refused and in which order, who is no peer at all, crowds, and the proof.

What each state does with each frame is in ``test_table.py``.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from networkio_proto import AuthenticationFailed, CloseCode, Config, ConnectionState, Proof, TLSFacts
from tests.proto.helpers_auth import HmacAuth
from tests.proto.helpers_wire import (
    ACK,
    ATTACH,
    CLOSE,
    HELLO,
    MISSING,
    PREAMBLE,
    Node,
    Peer,
    data,
    dialled,
    exchange,
    fingerprint,
    frame,
    mapping,
)

KEY, OTHER_KEY = b"0123456789abcdef", b"fedcba9876543210"


# -- what is refused, and in which order ------------------------------------------------------------------------------

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
    node.pump()
    line = node.answer_late()
    assert line.kinds() == [CLOSE]
    node.advance(1.0)
    assert line.dropped
    assert node.endpoint.get_timer() is None


# -- whoever speaks something else ------------------------------------------------------------------------------------

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


# -- time and crowds --------------------------------------------------------------------------------------------------


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


def test_the_last_place_is_given_too() -> None:
    for most in (1, 2):
        for seed in range(20):
            node = Node(config=Config(max_pending=most), seed=seed)
            for number in range(10):
                assert node.connect(Peer(f"a{number}")).live


def test_a_handshake_that_has_taken_half_of_its_time_makes_room_for_a_newcomer() -> None:
    """Those who hold theirs open keep nobody else out for long, however many sources they have."""
    node = Node(config=Config(max_pending=8, handshake_timeout=5.0))
    said = [node.accept(f"source {number}") for number in range(4)]
    for number, line in enumerate(said):
        line.say(PREAMBLE, Peer(f"x{number}").hello())
        line.heard()
    silent = [node.accept(f"source {number}") for number in range(4, 8)]
    assert node.accept("too early").ended() is CloseCode.OVERLOAD
    node.advance(2.5)
    for number in range(8):
        assert node.connect(Peer(f"guest{number}")).live
    turned_away = [line for line in (*said, *silent) if line.closed is not None]
    assert said[0] in turned_away
    assert len(turned_away) < 8, "no more than there was need for"
    assert all(line.written == 0 for line in silent)
    close = said[0].heard()[-1]
    assert (close.kind, said[0].connection.error.code) == (CLOSE, CloseCode.OVERLOAD)  # type: ignore[union-attr]
    assert 1000 <= int.from_bytes(close.body[2:10], "big") <= 5000


# -- proof ------------------------------------------------------------------------------------------------------------


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
    for line, remote, detail in zip(lines, (True, False), ("", "whoever says it is a did not prove it"), strict=True):
        error = line.connection.error
        assert isinstance(error, AuthenticationFailed)
        assert (error.remote, error.detail) == (remote, detail)
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
    close = line.heard()[-1]
    assert (close.kind, close.body) == (CLOSE, CloseCode.AUTH_FAILED.to_bytes(2, "big") + bytes(8)), "a reason was told"
    assert line.connection.error is not None
    assert line.connection.error.detail == "whoever says it is a did not prove it"


@pytest.mark.slow
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
        victim.until_dialled()
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
