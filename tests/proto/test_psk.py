"""Pre-shared keys: the construction of the specification, which keys are none, and who gets in with which."""

from __future__ import annotations

import base64
import hmac
import logging
import pickle
import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import (
    MTLS,
    PSK,
    CloseCode,
    ConfigurationError,
    Identity,
    Proof,
    Refusal,
    TLSFacts,
    stretched,
)
from networkio_proto.frames import CLOSE, PREAMBLE
from networkio_proto.psk import Keys
from tests.proto.helpers_auth import mac_of
from tests.proto.helpers_node import Driver, Far, Net
from tests.proto.helpers_wire import Line, Node, Peer
from tests.proto.test_auth import proofs, vector

thorough = settings(derandomize=True, deadline=None, max_examples=100)

KEY, OTHER = (random.Random(seed).randbytes(32) for seed in (1, 2))


# -- the construction -------------------------------------------------------------------------------------------------


def test_it_computes_the_example_of_the_specification() -> None:
    value = vector()
    transcript = PREAMBLE + value["HELLO"] + PREAMBLE + value["HELLO_ACK"]
    dialer = Proof(b"D", "client-123", "server-001", "k1", transcript, b"", b"", value["ATTACH_D"])
    acceptor = replace(dialer, role=b"A", dialer_mac=value["mac_D"], attach=value["ATTACH_A"])
    client, server = PSK({"server-001": {"k1": value["psk"]}}), PSK({"client-123": {"k1": value["psk"]}})
    assert client.sign(dialer) == value["mac_D"]
    assert server.sign(acceptor) == value["mac_A"]
    assert server.verify(dialer, value["mac_D"], None)
    assert client.verify(acceptor, value["mac_A"], None)


@thorough
@given(proofs)
def test_it_computes_what_the_tests_own_authenticator_does(proof: Proof) -> None:
    proof = replace(proof, key_id=None)
    everybody = PSK(lambda peer_id: KEY)
    assert everybody.sign(proof) == mac_of(KEY, proof)
    assert everybody.verify(proof, mac_of(KEY, proof), TLSFacts(b"", None))
    for bad in (None, b"", bytes(32), mac_of(OTHER, proof)):
        assert not everybody.verify(proof, bad, None)


@thorough
@given(proofs, st.sampled_from([None, "k1", "k2"]))
def test_a_key_is_that_of_the_other_side_and_of_the_announced_id(proof: Proof, key_id: str | None) -> None:
    """P-AUTH-10."""
    proof = replace(proof, key_id=key_id)
    dialers, acceptors = {proof.dialer_id: {"k1": KEY}}, {proof.acceptor_id: {"k1": KEY}}
    mine, theirs = (acceptors, dialers) if proof.role == b"D" else (dialers, acceptors)
    mac = PSK(mine).sign(proof)
    good = key_id == "k1"
    assert (mac == mac_of(KEY, proof)) is good
    assert PSK(theirs).verify(proof, mac, None) is good
    if proof.dialer_id != proof.acceptor_id:
        assert not PSK(mine).verify(proof, mac, None)


def test_macs_are_compared_in_constant_time_and_those_of_nobody_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """P-AUTH-11 and P-AUTH-12: one comparison of 32 bytes each, whatever is wrong."""
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def note(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", note)
    proof = Proof(b"D", "a", "b", "k1", b"t", b"", b"", b"x")
    for psk in (PSK({"a": {"k1": KEY}}), PSK({"a": {"k1": OTHER}}), PSK({"a": {"k2": KEY}}), PSK({"c": KEY})):
        psk.verify(proof, mac_of(KEY, proof), None)
    assert compared == [(32, 32)] * 4


def test_the_key_of_nobody_opens_nothing() -> None:
    """What stands for a missing key is no secret: whoever computes with it is refused all the same."""
    proof = Proof(b"D", "a", "b", None, b"t", b"", b"", b"x")
    assert not PSK({}).verify(proof, mac_of(bytes(32), proof), None)


# -- what is a key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"a": "0123456789abcdef"}, "the key for a is str, not bytes; of a passphrase stretched"),
        ({"a": bytearray(KEY)}, "the key for a is bytearray, not bytes$"),
        ({"a": KEY[:15]}, "the key for a has 15 bytes; it must have at least 16"),
        ({"a": bytes(32)}, "the key for a is not random"),
        ({"a": b"abcabcabcabcabcabc"}, "the key for a is not random"),
        ({"a": {"k1": KEY, "k2": b"short"}}, "the key k2 for a has 5 bytes"),
        ({"a": {}}, "there is no key for a"),
        ({"a": {"": KEY}}, "a key id for a is no text"),
        ({"a": {1: KEY}}, "a key id for a is no text"),
        ({"a": {"k" * 65: KEY}}, "a key id for a is no text"),
        ({"not an id": KEY}, "peer id"),
        (KEY, "keys are a mapping from peer ids, or a callable, not bytes"),
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(keys: Any, words: str) -> None:
    """P-AUTH-9."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        PSK(keys)
    assert KEY.hex() not in str(caught.value)
    assert repr(KEY) not in str(caught.value)
    with pytest.raises(ConfigurationError, match=words):
        PSK({}).replace(keys)


def test_a_passphrase_is_stretched_for_the_two_who_share_it() -> None:
    words = "correct horse battery staple"
    key = stretched(words, "a", "b")
    assert len(key) == 32
    assert key == stretched(words, "b", "a")
    assert len({key, stretched(words + "r", "a", "b"), stretched(words, "a", "c")}) == 3
    assert PSK({"b": key}).key_id("b") is None
    for wrong in (("", "a", "b"), ("7 bytes", "a", "b"), (words, "a", "no id")):
        with pytest.raises(ConfigurationError, match=r"passphrase has|peer id") as caught:
            stretched(*wrong)
        assert not wrong[0] or wrong[0] not in str(caught.value)


def by_hand(node: Node, peer: Peer, key: bytes | None, tls: TLSFacts | None = None) -> Line:
    """A peer that dials the node, and proves what it says by the key."""
    line, said = node.accept(tls=tls), PREAMBLE + peer.hello(to=node.peer_id)
    line.say(said)
    transcript, attach = said + line.raw(), peer.attach(node.peer_id, mac=None if key is None else bytes(32))
    if key is not None:
        attach = attach[:-32] + mac_of(key, Proof(b"D", peer.peer_id, node.peer_id, None, transcript, b"", b"", attach))
    line.say(attach)
    return line


def test_a_lookup_that_fails_or_returns_no_key_knows_nobody_and_is_told_once_without_its_words() -> None:
    def fails(peer_id: str) -> Keys:
        raise RuntimeError(f"no {KEY.hex()}")

    answers: list[Callable[[str], Any]] = [fails, lambda _: b"short", lambda _: "text", lambda _: {}]
    for lookup in answers:
        node = Node("m", auth=PSK(lookup))
        for _ in range(3):
            assert by_hand(node, Peer("a", auth="psk"), KEY).farewell() is CloseCode.AUTH_FAILED
        told = [line.text % line.arguments for line in node.logs if "raised" in line.text]
        assert len(told) == 1
        place = r"\w+Error at \S+\.py:\d+"
        assert re.fullmatch(rf"node m: verifying a peer raised {place}, and the peer is refused", told[0])
        with pytest.raises(ConfigurationError, match=r"the key for a cannot be looked up: \w+Error$"):
            PSK(lookup).key_id("a")


def test_a_lookup_that_knows_nobody_is_nothing_to_tell() -> None:
    node = Node("m", auth=PSK(lambda _: None))
    assert by_hand(node, Peer("a", auth="psk"), KEY).farewell() is CloseCode.AUTH_FAILED
    assert not any("raised" in line.text for line in node.logs)
    with pytest.raises(ConfigurationError, match="there is no key for a"):
        PSK(lambda _: None).key_id("a")


# -- between nodes ----------------------------------------------------------------------------------------------------


def nodes(a: PSK, b: PSK, **options: Any) -> tuple[Net, Driver, Driver]:
    net = Net()
    return net, net.node("a", auth=a, **options), net.node("b", auth=b)


def dial(net: Net, dialer: Driver, acceptor: Driver) -> Far:
    with dialer.inside as now:
        dialer.endpoint.add_target(acceptor.id, now, to=acceptor.id)
    net.run()
    return dialer.peer(acceptor.id)


def lines(node: Driver) -> list[str]:
    return [line.text % line.arguments for line in node.lines]


def test_two_with_one_key_talk() -> None:
    net, a, b = nodes(PSK({"b": KEY}), PSK({"a": KEY}))
    to_b, to_a = net.connected(a, b)
    to_b.send_nowait(1)
    net.run()
    assert to_a.read_nowait() == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (PSK({"b": KEY}), PSK({"a": OTHER})),
        (PSK({"b": KEY}), PSK({"c": KEY})),
        (PSK({"b": {"k1": KEY}}), PSK({"a": {"k2": KEY}})),
        (PSK({"b": {"k1": KEY}}), PSK({"a": KEY})),
    ],
    ids=["another key", "another peer", "another key id", "no key id"],
)
def test_who_has_no_such_key_is_refused_in_one_line_on_both_sides(a: PSK, b: PSK) -> None:
    net, here, there = nodes(a, b)
    peer = dial(net, here, there)
    assert not peer.connected
    assert "a" not in there.endpoint.sessions
    assert lines(there) == [
        "node b: a handshake from a failed: authentication failed; compare the keys and the auth setting of both "
        "sides: whoever says it is a did not prove it"
    ]
    [told] = lines(here)
    assert "the peer closed the connection: authentication failed; compare the keys" in told


def test_unknown_peer_and_wrong_key_are_answered_with_the_same_bytes() -> None:
    """P-AUTH-11: there is nothing to be learnt about who exists."""
    said = []
    for keys in ({"a": KEY}, {"c": KEY}, {"a": {"k9": KEY}}):
        node, stranger = Node("m", auth=PSK(keys), seed=7), Peer("a", auth="psk")
        line = node.accept()
        line.say(PREAMBLE, stranger.hello(to="m"))
        line.say(stranger.attach("m", mac=b"\x01" * 32))
        heard = line.heard()
        assert heard[-1].kind == CLOSE
        said.append([(each.kind, each.body) for each in heard])
    assert said[0] == said[1] == said[2]


def test_whom_one_cannot_prove_anything_to_is_not_dialled() -> None:
    net, a, _ = nodes(PSK({"b": KEY}), PSK({"a": KEY}))
    for to, words in ((None, "has to know whom it dials"), ("c", "there is no key for c")):
        with pytest.raises(ConfigurationError, match=words), a.inside as now:
            a.endpoint.add_target("c", now, to=to)
    assert a.dials == []
    assert net.nodes["b"].lines == []


def test_a_key_that_is_gone_when_its_peer_is_dialled_again_is_a_wrong_one() -> None:
    keys = PSK({"b": KEY})
    net, a, b = nodes(keys, PSK({"a": KEY}))
    net.connected(a, b)
    keys.replace({})
    with b.inside as now:
        b.peer("a").session.connection.close(CloseCode.RETRY, "", now)  # type: ignore[union-attr]
    net.run()
    net.wait(1.0)
    assert not a.peer("b").connected
    assert any("did not prove it" in line for line in lines(b))


def test_keys_are_changed_one_side_after_the_other_and_nothing_is_lost() -> None:
    """Attack 44, the good half of it: old and new overlap."""
    at_a, at_b = PSK({"b": {"old": KEY}}), PSK({"a": {"old": KEY}})
    net, a, b = nodes(at_a, at_b)
    to_b, to_a = net.connected(a, b)

    def talk(number: int) -> None:
        to_b.send_nowait(number)
        with a.inside as now:
            to_b.session.connection.close(CloseCode.RETRY, "", now)  # type: ignore[union-attr]
        net.run()
        net.wait(1.0)
        assert to_b.connected
        assert to_a.read_nowait() == number
        assert to_b.session.connection.key_id == to_a.session.connection.key_id  # type: ignore[union-attr]

    talk(1)
    at_b.replace({"a": {"old": KEY, "new": OTHER}})
    talk(2)
    at_a.replace({"b": {"new": OTHER, "old": KEY}})
    talk(3)
    assert a.recheck() == b.recheck() == []
    at_b.replace({"a": {"new": OTHER}})
    at_a.replace({"b": {"new": OTHER}})
    assert a.recheck() == b.recheck() == []
    talk(4)


def test_taking_a_key_away_cuts_who_came_by_it_and_nobody_else() -> None:
    """Attack 44."""
    keys = PSK({"a": KEY, "c": OTHER})
    net = Net()
    b = net.node("b", auth=keys)
    a, c = net.node("a", auth=PSK({"b": KEY})), net.node("c", auth=PSK({"b": OTHER}))
    net.connected(a, b)
    net.connected(c, b)
    a.peer("b").send_nowait("kept")
    keys.replace({"c": OTHER})
    b.lines.clear()
    assert b.recheck() == ["a"]
    net.run()
    net.wait(60.0)
    assert (b.peer("a").connected, b.peer("c").connected) == (False, True)
    assert "what a proved itself by is no longer good" in lines(b)[0]
    assert any("the peer closed the connection: authentication failed" in line for line in lines(a))
    keys.replace({"a": KEY, "c": OTHER})
    net.wait(300.0)
    assert b.peer("a").read_nowait() == "kept"


def test_where_nothing_is_proved_nothing_is_rechecked_but_the_wish() -> None:
    wanted = True

    def authorize(identity: Identity) -> Refusal | None:
        return None if wanted else Refusal(reason="no more")

    net = Net()
    a, b = net.node("a"), net.node("b", authorize=authorize)
    net.connected(a, b)
    assert b.recheck() == []
    wanted = False
    assert b.recheck() == ["a"]
    net.run()
    assert not a.peer("b").connected
    assert "a is refused by authorize: no more" in lines(b)[-1]


def test_certificates_stay_good_and_keys_inside_of_them_do_not() -> None:
    keys = PSK({})
    for auth, key, cut in ((MTLS(), None, []), (MTLS(keys), KEY, ["a"])):
        keys.replace({"a": KEY})
        node = Node("m", auth=auth)
        line = by_hand(node, Peer("a", auth=auth.name), key, TLSFacts(identity="a"))
        assert line.live
        assert node.endpoint.recheck(node.now) == []
        keys.replace({"a": OTHER})  # without a key id, as before
        assert node.endpoint.recheck(node.now) == cut
        node.pump()


def test_a_key_is_in_nothing_that_anybody_sees(caplog: pytest.LogCaptureFixture) -> None:
    """Attack 51: names of keys are told, keys are not; nor in a pickle."""
    caplog.set_level(logging.DEBUG)
    keys = PSK({"b": {"k1": KEY}})
    with pytest.raises(ConfigurationError, match="not pickled"):
        pickle.dumps(keys)
    net, a, b = nodes(keys, PSK({"a": {"k1": OTHER}}))
    dial(net, a, b)
    with a.inside as now:
        a.endpoint.remove_target(next(iter(a.endpoint.targets)))
        why = a.peer("b").session.why(now)
    shown = [*lines(a), *lines(b), repr(keys), str(keys), repr(a), repr(a.peer("b")), why, repr(vars(keys))]
    shown += [repr(value) for node in (a, b) for value in (node.endpoint, node.statistics(), node.links)]
    text = "\n".join(shown)
    for key in (KEY, OTHER):
        for secret in (key.hex(), base64.b64encode(key).decode(), repr(key), repr(key)[2:-1]):
            assert secret not in text


# -- who is wanted ----------------------------------------------------------------------------------------------------


def test_the_application_is_asked_about_whoever_has_proved_who_it_is() -> None:
    asked: list[Identity] = []

    def authorize(identity: Identity) -> Refusal | None:
        asked.append(identity)
        return None

    net, a, b = nodes(PSK({"b": {"k1": KEY}}), PSK({"a": {"k1": KEY}}), authorize=authorize)
    net.connected(a, b)
    assert asked == [Identity("b", "b", True, "k1", None)]
    asked.clear()
    with a.inside as now:
        a.peer("b").session.disconnect(now)
    net.run()
    dial(net, b, a)
    assert asked == [Identity("b", "b", False, "k1", None)]


def test_who_proves_nothing_is_not_asked_about() -> None:
    asked: list[Identity] = []
    net, a, b = nodes(PSK({"b": OTHER}), PSK({"a": KEY}), authorize=asked.append)
    dial(net, b, a)
    assert asked == []


@pytest.mark.parametrize(
    ("refusal", "code", "words"),
    [
        (Refusal(reason="not\nhere"), CloseCode.AUTH_FAILED, r"not\nhere"),
        (Refusal(CloseCode.OVERLOAD, retry_after=7.0), CloseCode.OVERLOAD, "no reason given"),
        (ZeroDivisionError("oops"), CloseCode.AUTH_FAILED, "it raised ZeroDivisionError: oops"),
    ],
)
def test_who_is_not_wanted_is_refused_with_a_code_and_without_a_reason(
    refusal: Refusal | Exception, code: CloseCode, words: str
) -> None:
    def authorize(identity: Identity) -> Refusal | None:
        if isinstance(refusal, Exception):
            raise refusal
        return refusal

    net = Net()
    a, b = net.node("a", auth=PSK({"b": KEY})), net.node("b", auth=PSK({"a": KEY}), authorize=authorize)
    peer = dial(net, a, b)
    assert not peer.connected
    assert "a" not in b.endpoint.sessions
    assert any(f"a is refused by authorize: {words}" in line for line in lines(b)), lines(b)
    assert not any("authorize" in line for line in lines(a))
    [target] = a.endpoint.targets
    told = "the node is overloaded" if code is CloseCode.OVERLOAD else "authentication failed"
    assert told in lines(a)[0]
    assert target.retry_at is not None
    assert (target.retry_at >= net.now + 7.0) or code is CloseCode.AUTH_FAILED


async def later(identity: Identity) -> None:
    """Nobody awaits it."""


@pytest.mark.parametrize("answer", [True, False, "no", later], ids=["True", "False", "text", "a coroutine"])
def test_an_answer_that_is_none_is_a_refusal_and_ends_nothing(answer: Any) -> None:
    net = Net()
    a, b = net.node("a"), net.node("b", authorize=answer if callable(answer) else lambda _: answer)
    dial(net, a, b)
    assert not a.peer("b").connected
    assert any("neither None nor a Refusal" in line for line in lines(b)), lines(b)


@pytest.mark.parametrize(
    "wrong", [{"retry_after": float("inf")}, {"retry_after": -1}, {"retry_after": 1e30}, {"code": 70000}, {"code": 3}]
)
def test_a_refusal_that_cannot_be_told_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"refusal|retry_after"):
        Refusal(**wrong)
    net = Net()
    a, b = net.node("a"), net.node("b", authorize=lambda _: Refusal(**wrong))
    dial(net, a, b)
    assert not a.peer("b").connected
    assert any("it raised ConfigurationError" in line for line in lines(b))
