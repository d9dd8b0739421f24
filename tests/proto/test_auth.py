"""The seam of authentication: what a proof covers, that both sides see the same, and that a forger gets nowhere."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import (
    MTLS,
    AuthenticationFailed,
    Authenticator,
    CloseCode,
    Config,
    ConfigurationError,
    Connection,
    ConnectionState,
    Endpoint,
    Insecure,
    Proof,
    TLSFacts,
)
from networkio_proto.auth import MAC_SIZE, check_exposure, is_loopback
from networkio_proto.frames import ATTACH, PREAMBLE
from networkio_testing.world import Host, Wire, World
from tests.proto.helpers import frames
from tests.proto.helpers_auth import HmacAuth, hkdf, mac_of, transcript_hash

thorough = settings(derandomize=True, deadline=None, max_examples=100)

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"

KEY, OTHER_KEY = b"k" * 32, b"K" * 32

proofs = st.builds(
    Proof,
    role=st.sampled_from([b"D", b"A"]),
    dialer_id=st.sampled_from(["a", "b", "ab"]),
    acceptor_id=st.sampled_from(["a", "b", "ba"]),
    key_id=st.none() | st.just("k1"),
    transcript=st.binary(max_size=4),
    binding=st.binary(max_size=2),
    dialer_mac=st.just(b"") | st.binary(min_size=32, max_size=32),
    attach=st.binary(max_size=4),
)


# -- no proof at all --------------------------------------------------------------------------------------------------


@thorough
@given(proofs, st.binary(max_size=40))
def test_insecure_signs_nothing_and_takes_nothing_but_the_absence_of_a_mac(proof: Proof, mac: bytes) -> None:
    auth: Authenticator = Insecure()
    assert auth.name == "insecure"
    assert auth.key_id("b") is None
    assert auth.sign(proof) is None
    assert auth.verify(proof, None, None)
    assert auth.verify(proof, None, TLSFacts(b"x" * 32, "b"))
    assert not auth.verify(proof, mac, None)


@pytest.mark.parametrize("host", ["localhost", "db.localhost", "127.0.0.1", "127.9.8.7", "::1", "::1%lo"])
def test_a_loopback_address_needs_no_authentication(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, None)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "fe80::1%eth0", "example.com", "localhost.example.com", "notlocalhost"]
)
def test_an_address_that_others_can_reach_is_refused_unless_somebody_chose_how_to_authenticate(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match="is not loopback"):
        check_exposure(host, None)
    check_exposure(host, Insecure())
    check_exposure(host, HmacAuth(KEY))


def test_a_refused_address_is_shown_without_its_tricks() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_exposure("a\x1b[2J\n", None)
    assert str(caught.value).isprintable()


# -- the proof --------------------------------------------------------------------------------------------------------


def vector() -> dict[str, bytes]:
    """The named values of the complete example in the specification."""
    block = PAGE.read_text(encoding="utf-8").split("# example psk\n", 1)[1].split("```", 1)[0]
    found = re.findall(r"^(\S.*?) \((\d+) bytes\)\n((?:  [0-9a-f ]+\n)+)", block, re.MULTILINE)
    values = {name.split(",")[0]: bytes.fromhex(lines.replace("\n", " ")) for name, _, lines in found}
    assert all(len(values[name.split(",")[0]]) == int(size) for name, size, _ in found)
    return values


def test_the_authenticator_of_the_tests_computes_the_example_of_the_specification() -> None:
    value = vector()
    transcript = PREAMBLE + value["HELLO"] + PREAMBLE + value["HELLO_ACK"]
    assert transcript_hash(transcript) == value["th"]
    assert hkdf(value["psk"], value["th"], b"auth") == value["K"]
    dialer = Proof(b"D", "client-123", "server-001", "k1", transcript, b"", b"", value["ATTACH_D"])
    assert mac_of(value["psk"], dialer) == value["mac_D"]
    acceptor = replace(dialer, role=b"A", dialer_mac=value["mac_D"], attach=value["ATTACH_A"])
    assert mac_of(value["psk"], acceptor) == value["mac_A"]


@thorough
@given(proofs, proofs)
def test_a_mac_proves_one_role_one_pair_of_ids_one_transcript_one_channel_and_one_attach(
    one: Proof, other: Proof
) -> None:
    uncovered = {"key_id"} | ({"dialer_mac"} if one.role == b"D" else set())
    covered = [item.name for item in fields(Proof) if item.name not in uncovered]
    same = all(getattr(one, name) == getattr(other, name) for name in covered)
    assert (mac_of(KEY, one) == mac_of(KEY, other)) is same
    assert mac_of(KEY, one) != mac_of(OTHER_KEY, one)
    assert len(mac_of(KEY, one)) == MAC_SIZE


# -- in the handshake -------------------------------------------------------------------------------------------------


def two(one: Authenticator | None = None, other: Authenticator | None = None) -> tuple[World, Host, Host]:
    """Hosts "a" and "b" (the arbiter) with one key, unless told otherwise."""
    world = World()
    return world, world.host("a", auth=one or HmacAuth(KEY)), world.host("b", auth=other or HmacAuth(KEY))


def joined(dialer: Host, acceptor: Host) -> Wire:
    """A byte stream between them; HELLO is under way."""
    dialer.dial(acceptor.name)
    (wire,) = dialer.answer_dials()
    return wire


def shake(wire: Wire, tampered: int | None = None, place: int = 0) -> list[bytes]:
    """Deliver the four frames of the handshake one by one; returns them as they were sent.

    One bit of one of them is changed on the way if ``tampered`` says which; ``place`` counts from its end.
    """
    said = []
    for step in range(4):
        pipe = wire.pipes[step % 2]
        if not pipe.data:
            break
        if step == 3:  # more may follow at once
            del pipe.data[4 + int.from_bytes(pipe.data[:4], "big") :]
        said.append(bytes(pipe.data))
        if step == tampered:
            pipe.data[-1 - place] ^= 1 << place % 8
        wire.deliver(step % 2)
    return said


def ends(wire: Wire) -> tuple[Connection, Connection]:
    """Both connections, also when their streams are closed."""
    made = {place: connection for host in wire.hosts for connection, place in host.wires.items()}
    return made[wire, 0], made[wire, 1]


def test_two_who_share_a_key_are_live() -> None:
    _, a, b = two()
    wire = joined(a, b)
    shake(wire)
    assert [connection.state for connection in ends(wire)] == [ConnectionState.LIVE] * 2


@pytest.mark.parametrize("dialer", ["a", "b"])
def test_both_sides_prove_the_same_and_it_is_what_was_said(dialer: str) -> None:
    one, other = HmacAuth(KEY, "k1"), HmacAuth(KEY)
    _, a, b = two(one, other)
    if dialer == "b":
        a, b, one, other = b, a, other, one
    hello, hello_ack, attach_d, attach_a = shake(joined(a, b))
    assert one.signed == other.verified
    assert other.signed == one.verified
    first, second = one.signed[0], other.signed[0]
    assert hello.startswith(PREAMBLE)
    assert hello_ack.startswith(PREAMBLE)
    assert first == Proof(
        role=b"D",
        dialer_id=a.name,
        acceptor_id=b.name,
        key_id="k1" if dialer == "a" else None,
        transcript=hello + hello_ack,
        binding=b"",
        dialer_mac=b"",
        attach=attach_d[:-MAC_SIZE] + bytes(MAC_SIZE),
    )
    mac = attach_d[-MAC_SIZE:]
    assert second == replace(first, role=b"A", dialer_mac=mac, attach=attach_a[:-MAC_SIZE] + bytes(MAC_SIZE))
    assert [frame.kind for frame in frames(attach_d + attach_a)] == [ATTACH, ATTACH]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(HmacAuth(OTHER_KEY), HmacAuth(KEY), id="another key"),
        pytest.param(Insecure(), HmacAuth(KEY), id="no key"),
        pytest.param(HmacAuth(KEY), Insecure(), id="a key that nobody asked for"),
    ],
)
def test_whoever_cannot_prove_itself_is_turned_away_and_changes_no_session(
    one: Authenticator, other: Authenticator
) -> None:
    world, a, b = two(one, other)
    wire = joined(a, b)
    dialled, accepted = ends(wire)
    shake(wire)
    world.deliver_all()
    for connection in (dialled, accepted):
        assert connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED)
        assert isinstance(connection.error, AuthenticationFailed)
    assert "a" not in b.endpoint.sessions


def test_the_refusal_says_nothing_about_its_cause() -> None:
    texts = set()
    for key in (OTHER_KEY, b"x"):
        world, a, b = two(HmacAuth(key))
        wire = joined(a, b)
        dialled, _ = ends(wire)
        shake(wire)
        world.deliver_all()
        texts.add(str(dialled.error))
    assert texts == {f"the peer closed the connection: {AuthenticationFailed.explanation}"}


@pytest.mark.parametrize("frame", range(4), ids=["HELLO", "HELLO_ACK", "ATTACH", "ATTACH in reply"])
def test_whatever_bit_is_changed_on_the_way_nobody_goes_live_on_it(frame: int) -> None:
    _, a, b = two()
    size = len(shake(joined(a, b))[frame])
    for place in range(size):
        _, a, b = two()
        wire = joined(a, b)
        dialled, accepted = ends(wire)
        shake(wire, frame, place)
        assert dialled.state is not ConnectionState.LIVE, f"byte {size - place - 1}"
        assert (accepted.state is ConnectionState.LIVE) is (frame == 3), f"byte {size - place - 1}"


def test_a_recorded_handshake_proves_nothing_later() -> None:
    world, a, b = two()
    said = shake(joined(a, b))
    stranger = b.endpoint.accept(world.now, source="elsewhere")
    before = b.session("a").connection
    stranger.receive_data(said[0] + said[2], world.now)
    assert isinstance(stranger.error, AuthenticationFailed)
    assert b.session("a").connection is before


def test_a_dialer_does_not_take_its_own_proof_for_the_other_sides() -> None:
    _, a, b = two()
    wire = joined(a, b)
    for end in (0, 1):
        wire.deliver(end)
    attach = bytes(wire.pipes[0].data)
    dialled, _ = ends(wire)
    dialled.receive_data(attach, wire.world.now)
    assert isinstance(dialled.error, AuthenticationFailed)


@pytest.mark.parametrize(("seen_by_dialer", "live"), [(b"c" * 32, True), (b"d" * 32, False), (b"", False)])
def test_the_proof_binds_the_channel(seen_by_dialer: bytes, live: bool) -> None:
    a, b = (Endpoint(name, Config(), auth=HmacAuth(KEY)) for name in "ab")
    dial = a.add_target("address", 0.0, to="b").dial
    assert dial is not None
    dialled = a.connect(dial, 0.0, tls=TLSFacts(seen_by_dialer))
    accepted = b.accept(0.0, tls=TLSFacts(b"c" * 32))
    for _ in range(3):
        for source, sink in ((dialled, accepted), (accepted, dialled)):
            sink.receive_data(b"".join(source.data_to_send(0.0)), 0.0)
    assert (dialled.state is accepted.state is ConnectionState.LIVE) is live
    assert isinstance(accepted.error, AuthenticationFailed) is not live


# -- certificates -----------------------------------------------------------------------------------------------------


@thorough
@given(proofs, st.none() | st.just(bytes(32)), st.none() | st.sampled_from(["a", "b", "ab", None]))
def test_certificates_prove_the_id_that_the_peer_states_and_nothing_else(
    proof: Proof, mac: bytes | None, named: str | None
) -> None:
    claimed = proof.dialer_id if proof.role == b"D" else proof.acceptor_id
    auth = MTLS()
    assert auth.verify(proof, mac, TLSFacts(b"", named)) is (named == claimed and mac is None)
    assert not auth.verify(proof, None, None)
    assert auth.sign(proof) is None


def test_a_key_beside_the_certificate_is_asked_for_as_well() -> None:
    psk = HmacAuth(KEY, "k1")
    auth = MTLS(psk)
    proof = Proof(b"D", "a", "b", "k1", b"", b"", b"", b"")
    mac = auth.sign(proof)
    assert (auth.name, auth.key_id("b"), mac) == ("mtls+psk", "k1", mac_of(KEY, proof))
    assert auth.verify(proof, mac, TLSFacts(b"", "a"))
    for bad, facts in ((mac, TLSFacts(b"", "b")), (None, TLSFacts(b"", "a")), (bytes(32), TLSFacts(b"", "a"))):
        assert not auth.verify(proof, bad, facts)
    assert repr(auth) == f"MTLS({psk!r})"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (TLSFacts(b"", "c"), "the certificate names c, and its owner says it is a"),
        (TLSFacts(b"", None), "the certificate names no peer, and its owner says it is a"),
        (None, "the certificate names no peer, and its owner says it is a"),
    ],
)
def test_what_a_certificate_says_instead_is_told_to_this_side_only(facts: TLSFacts | None, words: str) -> None:
    _, a, b = two(Named("b"), MTLS())
    wire = joined(a, b)
    here, there = ends(wire)
    there.tls = facts
    shake(wire)
    assert words in str(there.error)
    assert isinstance(here.error, AuthenticationFailed)
    assert "certificate" not in str(here.error)


class Named(MTLS):
    """Whoever is there is believed."""

    def __init__(self, peer_id: str) -> None:
        super().__init__()
        self._facts = TLSFacts(b"", peer_id)

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        return super().verify(proof, mac, self._facts)


def test_a_channel_that_cannot_be_trusted_ends_its_connection_and_the_stream_lingers_for_its_last_words() -> None:
    world, a, b = two()
    wire = joined(a, b)
    here, there = ends(wire)
    there.distrust(CloseCode.AUTH_FAILED, "expired", world.now)
    there.distrust(CloseCode.AUTH_FAILED, "once more", world.now)
    b.pump()
    assert there.state is ConnectionState.CLOSING
    assert str(there.error).endswith("expired")
    assert not wire.pipes[1].data, "the core itself says nothing"
    world.run(Config().linger + 0.1)
    assert (there.state, here.state) == (ConnectionState.CLOSED, ConnectionState.CLOSED)
