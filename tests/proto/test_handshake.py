"""The handshake's maps: what one side says is what the other reads, and anything that breaks a table is PROTOCOL."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto.errors import CloseCode
from networkio_proto.frames import ATTACH, HANDSHAKE_FRAME_LIMIT, HELLO, HELLO_ACK, PREAMBLE, PeerFault
from networkio_proto.handshake import (
    AGENT,
    MAX_ENDED,
    VERSION,
    Attach,
    Ended,
    Hello,
    HelloAck,
    InboxFacts,
    PeerLimits,
    Why,
    choose_version,
    encode_attach,
    encode_hello,
    encode_hello_ack,
    frame_body,
    parse_attach,
    parse_hello,
    parse_hello_ack,
    zero_mac,
)
from networkio_proto.maps import decode_map, encode_map

thorough = settings(derandomize=True, deadline=None, max_examples=60)

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"

U64 = 2**64 - 1
TOP = 2**63 - 1


# -- a table of every key ---------------------------------------------------------------------------------------------


class Values(NamedTuple):
    """What a key takes, at its bounds, and what it does not."""

    good: list[object]
    bad: list[object]


def uint(least: int = 0, most: int = U64) -> Values:
    outside = [number for number in (least - 1, most + 1) if 0 <= number <= U64]
    return Values([least, most], [*outside, True, False, None, "1", b"1", [1], {}])


def binary(size: int) -> Values:
    return Values([bytes(size), b"\xff" * size], [bytes(size - 1), bytes(size + 1), b"", "x" * size, None, 0, []])


def text() -> Values:
    return Values(["", "x" * 64, "\N{MONKEY}" * 64], ["x" * 65, b"x", 1, None, True, ["x"], {}])


def texts() -> Values:
    return Values([[], ["x" * 64, "é"], ["x"] * 64], [["x" * 65], ["x", 1], [None], [[]], "x", None, {}, 0])


def peer_id() -> Values:
    good: list[object] = ["a", "Z" * 64, "a.b_c:d@e-9"]
    return Values(good, ["", "x" * 65, "a b", "a\n", "a/b", "ä", "\u202ea", b"a", 1, None, []])


def nil_or(values: Values) -> Values:
    return Values([None, *values.good], [bad for bad in values.bad if bad is not None])


LIMITS: dict[str, Values] = {
    "frame": uint(8192, 2**32 - 1),
    "message": uint(1, 2**31),
    "idle": uint(100, 2**48),
}
POSITIONS: dict[str, Values] = {
    "outbox": binary(16),
    "run": binary(16),
    "received": uint(7, TOP),  # 7 is what the valid map says of read
    "read": uint(0, 9),  # 9 is what it says of received
    "first": uint(1, TOP),
}
MAPS = Values([], [None, [], "x", 0, True])
HELLO_KEYS: dict[str, Values] = {
    "v": Values(
        [[0, 1], [0, U64], [1, 1], [1, 3]],
        [[], [1], [1, 1, 1], [2, 1], [True, True], [False, 1], [1, True], ["1", "1"], [None, None], 1, None, {}],
    ),
    "id": peer_id(),
    "to": nil_or(peer_id()),
    "incarnation": binary(16),
    "dial": uint(),
    "nonce": binary(32),
    "features": texts(),
    "require": texts(),
    "auth": text(),
    "key_id": nil_or(text()),
    "limits": MAPS,
    **{f"limits.{key}": values for key, values in LIMITS.items()},
    "codec": text(),
    "agent": text(),
}
HELLO_ACK_KEYS: dict[str, Values] = {
    "v": uint(),
    "id": peer_id(),
    "incarnation": binary(16),
    "nonce": binary(32),
    "features": texts(),
    "auth": text(),
    "limits": MAPS,
    **{f"limits.{key}": values for key, values in LIMITS.items()},
    "codec": text(),
}
ATTACH_KEYS: dict[str, Values] = {
    "outbox": binary(16),
    "run": binary(16),
    "first": uint(1, 10),  # 10 is what the valid map says of next
    "next": uint(5, TOP),  # 5 is what it says of first
    "inbox": Values([None], [[], "x", 0, True, {}]),
    **{f"inbox.{key}": values for key, values in POSITIONS.items()},
    "ended": Values([[]], [None, {}, "x", 0, [None], [[]], [{}]]),
    **{f"ended.0.{key}": values for key, values in POSITIONS.items()},
    "ended.0.why": uint(0, 255),
    "durable": Values([True, False], [0, 1, None, "true", []]),
    "expiry": nil_or(uint()),
    "credit": uint(),
    "seen": uint(),
    "mac": nil_or(binary(32)),
}

ID, INCARNATION, NONCE, RUN = b"\x01" * 16, b"\x02" * 16, b"\x03" * 32, b"\x04" * 16
POSITIONS_MAP = {"outbox": ID, "run": RUN, "received": 9, "read": 7, "first": 3}
HELLO_MAP = {
    "v": [1, 1],
    "id": "client",
    "to": "server",
    "incarnation": INCARNATION,
    "dial": 1,
    "nonce": NONCE,
    "features": ["fast"],
    "require": [],
    "auth": "insecure",
    "key_id": None,
    "limits": {"frame": 65536, "message": 1 << 24, "idle": 45_000},
    "codec": "msgpack",
    "agent": "test/1",
}
HELLO_ACK_MAP = {key: HELLO_MAP[key] for key in HELLO_ACK_KEYS if key in HELLO_MAP} | {"v": 1}
ATTACH_MAP = {
    "outbox": ID,
    "run": RUN,
    "first": 5,
    "next": 10,
    "inbox": POSITIONS_MAP,
    "ended": [{**POSITIONS_MAP, "why": 1}],
    "durable": False,
    "expiry": 1000,
    "credit": 262144,
    "seen": 0,
    "mac": None,
}


class Kind(NamedTuple):
    """One of the three frames: how it is read, a valid map of it, and its table."""

    name: str
    parse: Callable[[bytes], object]
    valid: dict[str, Any]
    keys: dict[str, Values]


KINDS = [
    Kind("HELLO", parse_hello, HELLO_MAP, HELLO_KEYS),
    Kind("HELLO_ACK", parse_hello_ack, HELLO_ACK_MAP, HELLO_ACK_KEYS),
    Kind("ATTACH", parse_attach, ATTACH_MAP, ATTACH_KEYS),
]
EVERY_KEY = [pytest.param(kind, key, id=f"{kind.name}-{key}") for kind in KINDS for key in kind.keys]


def place(valid: dict[str, Any], key: str) -> tuple[Any, str]:
    """The map in which the key (such as ``ended.0.why``) stands, and its name there."""
    container: Any = valid
    *way, last = key.split(".")
    for step in way:
        container = container[int(step) if step.isdigit() else step]
    return container, last


def changed(kind: Kind, key: str, value: object) -> bytes:
    """The frame's body with another value for one key."""
    mapping = deepcopy(kind.valid)
    container, last = place(mapping, key)
    container[last] = value
    return encode_map(mapping)


def refused(kind: Kind, body: bytes) -> str:
    """The complaint about a body, which must be a protocol fault that names the frame."""
    with pytest.raises(PeerFault) as caught:
        kind.parse(body)
    assert caught.value.code is CloseCode.PROTOCOL
    assert caught.value.detail.startswith(kind.name)
    assert caught.value.detail.isprintable()
    return caught.value.detail


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_valid_map_is_read(kind: Kind) -> None:
    kind.parse(encode_map(kind.valid))


@pytest.mark.parametrize(("kind", "key"), EVERY_KEY)
def test_a_key_takes_every_value_of_its_range(kind: Kind, key: str) -> None:
    for value in kind.keys[key].good:
        kind.parse(changed(kind, key, value))


@pytest.mark.parametrize(("kind", "key"), EVERY_KEY)
def test_a_value_outside_of_its_range_is_a_fault_that_names_a_key(kind: Kind, key: str) -> None:
    assert kind.keys[key].bad
    for value in kind.keys[key].bad:
        detail = refused(kind, changed(kind, key, value))
        assert set(re.findall(r"\w+", detail)) & {key.split(".")[0], key.rsplit(".", 1)[-1]}, f"{value!r}: {detail}"


@pytest.mark.parametrize(("kind", "key"), EVERY_KEY)
def test_a_missing_key_is_a_fault_that_names_it(kind: Kind, key: str) -> None:
    mapping = deepcopy(kind.valid)
    container, last = place(mapping, key)
    del container[last]
    assert last in refused(kind, encode_map(mapping))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_unknown_keys_are_ignored_wherever_they_stand(kind: Kind) -> None:
    mapping = {"later": [None, {"x": b""}], **deepcopy(kind.valid)}
    for key in {key.rpartition(".")[0] for key in kind.keys} - {""}:
        container, last = place(mapping, key + ".later")
        container[last] = "later"
    assert kind.parse(encode_map(mapping)) == kind.parse(encode_map(kind.valid))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "body",
    [b"", b"\x80\x80", b"\x90", b"\xc1", b"\x81\xa1a", b"\x82\xa1a\x01\xa1a\x01", b"\x81\xa1\xff\x01", b"\x80" * 5000],
)
def test_what_is_no_map_is_a_fault(kind: Kind, body: bytes) -> None:
    refused(kind, body)


allowed: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(0, U64) | st.text(max_size=70) | st.binary(max_size=33),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@thorough
@given(st.data())
def test_any_map_is_read_or_a_protocol_fault(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    mapping = deepcopy(kind.valid)
    for key in data.draw(st.lists(st.sampled_from(sorted(kind.keys)), max_size=2)):
        try:
            container, last = place(mapping, key)
            container[last] = data.draw(allowed)
        except (TypeError, KeyError, IndexError):
            pass  # the change before it took the place away
    try:
        body = encode_map(mapping)
    except ValueError:
        return
    try:
        kind.parse(body)
    except PeerFault as fault:
        foreign = CloseCode.VERSION if "v" in mapping else None
        assert fault.code in (CloseCode.PROTOCOL, foreign)  # noqa: PT017


@thorough
@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_any_bytes_are_a_protocol_fault(kind: Kind, body: bytes) -> None:
    refused(kind, body)


# -- values that must agree with each other ---------------------------------------------------------------------------


def attach_with(**changes: object) -> bytes:
    return encode_map({**ATTACH_MAP, **changes})


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (attach_with(first=11), "first 11 is greater than next 10"),
        (attach_with(next=2**63), "next"),
        (attach_with(inbox={**POSITIONS_MAP, "read": 10}), "inbox: read 10 is greater than received 9"),
        (attach_with(inbox={**POSITIONS_MAP, "seen": 9}), "inbox: seen 9 is not greater than received 9"),
        (attach_with(ended=[{**POSITIONS_MAP, "read": 10, "why": 1}]), "ended: read 10 is greater than received 9"),
        (attach_with(ended=[{**POSITIONS_MAP, "why": 1}] * 17), "ended has more than 16"),
        (attach_with(generation=1), "generation and seen: exactly one"),
        (encode_map({key: ATTACH_MAP[key] for key in ATTACH_MAP if key != "seen"}), "generation and seen: exactly one"),
    ],
)
def test_nonsense_between_the_values_of_attach_is_case_f(body: bytes, complaint: str) -> None:
    assert complaint in refused(KINDS[2], body)


@pytest.mark.parametrize("generation", [0, 1, U64])
def test_an_arbiter_says_generation_in_place_of_seen(generation: int) -> None:
    mapping = {key: ATTACH_MAP[key] for key in ATTACH_MAP if key != "seen"}
    attach = parse_attach(encode_map({**mapping, "generation": generation}))
    assert (attach.generation, attach.seen) == (generation, None)


@pytest.mark.parametrize("bad", uint().bad)
def test_a_generation_is_a_number(bad: object) -> None:
    mapping = {key: ATTACH_MAP[key] for key in ATTACH_MAP if key != "seen"}
    assert "generation" in refused(KINDS[2], encode_map({**mapping, "generation": bad}))


def test_an_unlisted_why_is_read_as_it_is() -> None:
    attach = parse_attach(attach_with(ended=[{**POSITIONS_MAP, "why": 77}]))
    assert [ended.why for ended in attach.ended] == [77]
    assert (Why.FINISHED, Why.EXPIRED, Why.ABORTED) == (1, 2, 3)


@pytest.mark.parametrize(("least", "most", "shared"), [(1, 1, True), (0, 9, True), (0, 0, False), (2, 5, False)])
def test_the_version_is_one_that_both_speak(least: int, most: int, shared: bool) -> None:
    if shared:
        assert choose_version((least, most)) == VERSION
        return
    with pytest.raises(PeerFault, match=f"versions {least} to {most}, this side only 1") as caught:
        choose_version((least, most))
    assert caught.value.code is CloseCode.VERSION


@pytest.mark.parametrize("versions", [[0, 0], [2, 3], [2**64 - 1, 2**64 - 1]])
@pytest.mark.parametrize("others", [HELLO_MAP, {}, {"id": None}, {"id": "a b", "limits": [1]}])
def test_a_hello_of_foreign_versions_is_judged_by_them_alone(versions: list[int], others: dict[str, object]) -> None:
    with pytest.raises(PeerFault, match=f"versions {versions[0]} to {versions[1]}, this side only 1") as caught:
        parse_hello(encode_map({**others, "v": versions}))
    assert caught.value.code is CloseCode.VERSION


def test_a_malformed_hello_ack_is_malformed_whatever_its_version() -> None:
    assert "id" in refused(KINDS[1], encode_map({**HELLO_ACK_MAP, "v": 2, "id": "a b"}))


@pytest.mark.parametrize("auth", ["psk", "mtls+psk"])
def test_a_pre_shared_key_needs_to_name_the_peer_that_is_meant(auth: str) -> None:
    assert "to" in refused(KINDS[0], encode_map({**HELLO_MAP, "auth": auth, "to": None}))
    parse_hello(encode_map({**HELLO_MAP, "auth": auth}))
    parse_hello(encode_map({**HELLO_MAP, "auth": "mtls", "to": None}))


# -- both ways --------------------------------------------------------------------------------------------------------

ids = st.text("ABCXYZabcxyz0189._:@-", min_size=1, max_size=64)
short = st.text(max_size=12)
sixteen = st.binary(min_size=16, max_size=16)
nonces = st.binary(min_size=32, max_size=32)
milliseconds = st.integers(100, 2**48).map(lambda number: number / 1000)
limits = st.builds(PeerLimits, st.integers(8192, 2**32 - 1), st.integers(1, 2**31), milliseconds)
features = st.lists(short, max_size=3).map(tuple)
hellos = st.builds(
    Hello,
    versions=st.tuples(st.integers(0, 1), st.integers(1, U64)),
    peer_id=ids,
    to=st.none() | ids,
    incarnation=sixteen,
    dial=st.integers(0, U64),
    nonce=nonces,
    features=features,
    require=features,
    auth=short,
    key_id=st.none() | short,
    limits=limits,
    codec=short,
    agent=st.just(AGENT) | short,
)
hello_acks = st.builds(HelloAck, st.integers(0, U64), ids, sixteen, nonces, features, short, limits, short)


@st.composite
def positions(draw: st.DrawFn) -> tuple[bytes, bytes, int, int, int]:
    received = draw(st.integers(0, TOP))
    return draw(sixteen), draw(sixteen), received, draw(st.integers(0, received)), draw(st.integers(1, TOP))


def inbox_facts(facts: Any, seen: int) -> InboxFacts:
    return InboxFacts(facts[0], facts[1], facts[2], facts[3], facts[4], seen if seen > facts[2] else 0)


@st.composite
def attaches(draw: st.DrawFn) -> Attach:
    following = draw(st.integers(1, TOP))
    arbiter = draw(st.booleans())
    counter = draw(st.integers(0, U64))
    return Attach(
        outbox_id=draw(sixteen),
        run=draw(sixteen),
        first=draw(st.integers(1, following)),
        next=following,
        inbox=draw(st.none() | st.builds(inbox_facts, positions(), st.integers(0, 2**63 - 1))),
        ended=tuple(Ended(*facts, draw(st.integers(0, 255))) for facts in draw(st.lists(positions(), max_size=3))),
        durable=draw(st.booleans()),
        expiry=draw(st.none() | milliseconds),
        credit=draw(st.integers(0, U64)),
        generation=counter if arbiter else None,
        seen=None if arbiter else counter,
        mac=None,
    )


@thorough
@given(hellos)
def test_hello_comes_back_as_it_was_said(hello: Hello) -> None:
    frame = encode_hello(hello)
    assert frame[4] == HELLO
    assert parse_hello(frame_body(frame)) == hello


@thorough
@given(hello_acks)
def test_hello_ack_comes_back_as_it_was_said(ack: HelloAck) -> None:
    frame = encode_hello_ack(ack)
    assert frame[4] == HELLO_ACK
    assert parse_hello_ack(frame_body(frame)) == ack


@thorough
@given(attaches(), st.none() | nonces)
def test_attach_comes_back_as_it_was_said_with_its_mac(attach: Attach, mac: bytes | None) -> None:
    frame = encode_attach(attach, lambda covered: mac)
    assert frame[4] == ATTACH
    assert parse_attach(frame_body(frame)) == replace(attach, mac=mac)


@thorough
@given(attaches(), nonces)
def test_a_mac_covers_the_frame_with_its_own_place_zeroed(attach: Attach, mac: bytes) -> None:
    covered: list[bytes] = []

    def sign(zeroed: bytes) -> bytes:
        covered.append(zeroed)
        return mac

    frame = encode_attach(attach, sign)
    assert frame.endswith(b"\xa3mac\xc4\x20" + mac)
    assert covered == [zero_mac(frame)]
    assert covered[0][:-32] + mac == frame
    assert covered[0].endswith(bytes(32))


def test_without_a_mac_it_is_nil_and_still_the_last_key() -> None:
    frame = encode_attach(parse_attach(attach_with()), lambda covered: None)
    assert frame.endswith(b"\xa3mac\xc0")


@pytest.mark.parametrize(("seconds", "told"), [(45.0, 45_000), (0.1, 100), (0.1004, 100), (0.0001, 1), (1.9999, 2000)])
def test_durations_are_told_in_milliseconds_and_never_as_none_at_all(seconds: float, told: int) -> None:
    hello = replace(parse_hello(encode_map(HELLO_MAP)), limits=PeerLimits(8192, 1, seconds))
    assert decode_map(frame_body(encode_hello(hello)))["limits"] == {"frame": 8192, "message": 1, "idle": told}
    attach = replace(parse_attach(attach_with()), expiry=seconds)
    assert decode_map(frame_body(encode_attach(attach, lambda covered: None)))["expiry"] == told


def test_the_greatest_facts_fit_a_frame_of_the_handshake() -> None:
    widest = Ended(b"\xff" * 16, b"\xff" * 16, TOP, TOP, TOP, 255)
    attach = Attach(
        outbox_id=b"\xff" * 16,
        run=b"\xff" * 16,
        first=TOP,
        next=TOP,
        inbox=InboxFacts(b"\xff" * 16, b"\xff" * 16, TOP - 1, TOP - 1, TOP, TOP),
        ended=(widest,) * MAX_ENDED,
        durable=True,
        expiry=2**48 / 1000,
        credit=U64,
        generation=U64,
        seen=None,
        mac=None,
    )
    frame = encode_attach(attach, lambda covered: bytes(32))
    assert len(frame) - 4 <= HANDSHAKE_FRAME_LIMIT
    assert parse_attach(frame_body(frame)).ended == attach.ended


def test_only_the_newest_ended_outboxes_are_told() -> None:
    ended = tuple(Ended(bytes([number]) * 16, RUN, 0, 0, 1, Why.EXPIRED) for number in range(20))
    attach = replace(parse_attach(attach_with()), ended=ended)
    told = parse_attach(frame_body(encode_attach(attach, lambda covered: None))).ended
    assert told == ended[:MAX_ENDED]


# -- the page ---------------------------------------------------------------------------------------------------------


def shown(name: str) -> bytes:
    """The bytes of an example of the specification, without the preamble."""
    block = PAGE.read_text(encoding="utf-8").split(f"# example {name}\n", 1)[1].split("```", 1)[0]
    raw = bytes.fromhex("".join(re.findall(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)(?:  |$)", block, re.MULTILINE)))
    return raw.removeprefix(PREAMBLE)


def again(parsed: object) -> bytes:
    """The frame that says the same."""
    if isinstance(parsed, Hello):
        return encode_hello(parsed)
    if isinstance(parsed, HelloAck):
        return encode_hello_ack(parsed)
    assert isinstance(parsed, Attach)
    return encode_attach(parsed, lambda covered: parsed.mac)


@pytest.mark.parametrize("story", ["handshake", "resume"])
@pytest.mark.parametrize(
    ("frame", "parse"),
    [
        ("hello", parse_hello),
        ("hello-ack", parse_hello_ack),
        ("attach-dialer", parse_attach),
        ("attach-acceptor", parse_attach),
    ],
)
def test_the_examples_of_the_specification_are_read_and_written(
    story: str, frame: str, parse: Callable[[bytes], object]
) -> None:
    raw = shown(f"{story}-{frame}")
    assert again(parse(frame_body(raw))) == raw
