"""TLS between nodes in memory: who gets in, who does not and is told why, and streams that are tampered with."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from dataclasses import replace
from typing import Any, cast

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from networkio_proto import MTLS, Config, ConnectionState
from networkio_proto.auth import Authenticator
from networkio_tls import TLS
from networkio_tls.channel import Channel
from tests.proto.helpers_auth import HmacAuth
from tests.proto.helpers_node import Driver, Link, Net, Stream
from tests.tls.authority import Authority

KEY = HmacAuth(b"k" * 32)


def pair(a: TLS | None, b: TLS | None, **auth: Any) -> tuple[Net, Driver, Driver]:
    """Two nodes, not connected."""
    net = Net()
    return net, net.node("a", tls=a, **auth), net.node("b", tls=b, **auth)


def dial(net: Net, dialer: Driver, acceptor: Driver) -> None:
    with dialer.inside as now:
        dialer.endpoint.add_target(acceptor.id, now, to=acceptor.id)
    net.run()


def channel(node: Driver) -> Channel:
    (link,) = node.links
    assert isinstance(link.connection, Channel)
    return link.connection


def silence() -> Stream:
    """A stream at whose other end somebody is, and says nothing."""
    stream = Stream()
    stream.other.link = cast(Link, object())
    return stream


def lines(node: Driver) -> str:
    """What it logged."""
    return "\n".join(line.text % line.arguments for line in node.lines)


# -- who gets in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_certificates_of_both_sides_prove_who_they_are(authority: Authority, version: ssl.TLSVersion) -> None:
    a, b = authority.tls("a"), authority.tls("b")
    a._dialer.maximum_version = version
    net, here, there = pair(a, b)
    to_b, to_a = net.connected(here, there)
    assert channel(here)._object.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    to_b.send_nowait("secret" * 50)
    to_a.send_nowait(bytes(300_000), raw=True)
    net.run()
    assert to_a.read_nowait() == "secret" * 50
    assert to_b.read_nowait() == bytes(300_000)
    for node, other in ((here, "b"), (there, "a")):
        facts = channel(node).connection.tls
        assert facts is not None
        assert facts.identity == other
        assert facts.binding == hashlib.sha256(b._certificate).digest()
    assert repr(channel(here)) == f"<Channel {channel(here)._object.version()} of <Connection to b live>>"


def test_messages_may_come_in_the_same_chunk_as_what_proves_their_sender(authority: Authority) -> None:
    net, here, there = pair(authority.tls("a"), authority.tls("b"))
    there.peer("a").send_nowait(bytes(200_000), raw=True)
    to_b, _ = net.connected(here, there)
    assert to_b.read_nowait() == bytes(200_000)


def test_nothing_but_tls_is_on_the_stream(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = bytearray()
    write = Link._write

    def watched(link: Link) -> None:
        write(link)
        seen.extend(link.stream.out)

    monkeypatch.setattr(Link, "_write", watched)
    net, here, there = pair(authority.tls("a"), authority.tls("b"))
    to_b, _ = net.connected(here, there)
    to_b.send_nowait("secret")
    net.run()
    assert b"secret" not in seen
    assert b"networkio" not in seen
    assert seen[:2] == b"\x16\x03"


def test_a_key_and_a_certificate_that_nobody_signed_prove_it_too() -> None:
    net, here, there = pair(TLS.self_signed(), TLS.self_signed(), auth=KEY)
    net.connected(here, there)
    facts = channel(here).connection.tls
    assert facts is not None
    assert facts.identity is None


def test_both_proofs_can_be_asked_for(authority: Authority) -> None:
    net, here, there = pair(authority.tls("a"), authority.tls("b"), auth=MTLS(KEY))
    net.connected(here, there)


# -- who does not -----------------------------------------------------------------------------------------------------


def refused(a: TLS | None, b: TLS | None, at_a: str, at_b: str, **auth: Any) -> None:
    """"a" dials "b" in vain: both say so in one clear line, and nothing is left behind."""
    net, here, there = pair(a, b, **auth)
    dial(net, here, there)
    assert not here.peer("b").connected
    assert "a" not in there.endpoint.sessions
    for node, words in ((here, at_a), (there, at_b)):
        assert words in lines(node), lines(node)
        assert len(node.lines) == 1
        assert not node.links or node.links[0].core.state is ConnectionState.CLOSING


def test_a_certificate_of_another_name_is_refused(authority: Authority) -> None:
    refused(
        authority.tls("c"), authority.tls("b"),
        "authentication failed", "the certificate names c, and its owner says it is a",
    )  # fmt: skip


def test_an_acceptor_of_another_name_is_refused(authority: Authority) -> None:
    net, here, there = pair(authority.tls("a"), authority.tls("c"))
    dial(net, here, there)
    assert "the certificate names c, and its owner says it is b" in lines(here)
    assert not here.peer("b").connected


@pytest.mark.parametrize("names", [(), ("networkio:a", "networkio:b"), ("https://a",)])
def test_a_certificate_that_names_no_peer_or_two_is_refused(authority: Authority, names: tuple[str, ...]) -> None:
    tls = TLS(*authority.sign("nameless", *names), authority=authority.path)
    refused(tls, authority.tls("b"), "authentication failed", "the certificate names no peer")


def test_a_certificate_of_a_strange_authority_is_refused(authority: Authority, stranger: Authority) -> None:
    refused(
        stranger.tls("a", authority=authority), authority.tls("b"),
        "the peer ended the TLS handshake: unknown ca", "the peer's certificate is refused: unable to get local issuer",
    )  # fmt: skip
    refused(
        authority.tls("a"), stranger.tls("b", authority=authority),
        "the peer's certificate is refused: unable to get local issuer",
        "the peer ended the TLS handshake: unknown ca",
    )  # fmt: skip


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    expired = TLS(*authority.sign("expired", "networkio:a", days=-1), authority=authority.path)
    refused(
        expired, authority.tls("b"),
        "the peer ended the TLS handshake: certificate expired",
        "the peer's certificate is refused: certificate has expired",
    )  # fmt: skip


def test_a_certificate_for_another_use_is_refused(authority: Authority) -> None:
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    tls = TLS(*authority.sign("server-only", "networkio:a", usage=usage), authority=authority.path)
    refused(
        tls, authority.tls("b"),
        "the peer ended the TLS handshake", "the peer's certificate is refused: unsuitable certificate purpose",
    )  # fmt: skip


def test_who_shows_no_certificate_is_refused(authority: Authority) -> None:
    b = authority.tls("b")
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(authority.path)
    bare.check_hostname = False
    refused(
        TLS.of(b._acceptor, bare), b,
        "the peer ended the TLS handshake: certificate required", "the peer has no certificate",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_below_1_2_is_refused(authority: Authority) -> None:
    a, b = authority.tls("a"), authority.tls("b")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.check_hostname = False
    old.load_verify_locations(authority.path)
    a._dialer = old
    refused(a, b, "the peer ended the TLS handshake: protocol version", "authentication failed")


def test_tls_and_no_tls_is_told_on_both_sides(authority: Authority) -> None:
    refused(None, authority.tls("b"), "the peer speaks TLS, this side does not", "the peer does not speak TLS")
    refused(authority.tls("a"), None, "does the peer speak TLS?", "the peer speaks TLS, this side does not")


def test_a_relay_with_a_certificate_of_its_own_does_not_get_a_key_through() -> None:
    """Attack 18: each side sees the relay's certificate, so the two do not prove the same."""
    relay = TLS.self_signed()
    a, b = TLS.self_signed(), TLS.self_signed()

    class Relayed(HmacAuth):
        """As if the TLS had ended at a relay: the other side's certificate is the relay's."""

        def verify(self, proof: Any, mac: bytes | None, tls: Any) -> bool:
            return super().verify(replace(proof, binding=hashlib.sha256(relay._certificate).digest()), mac, tls)

    net = Net()
    here, there = net.node("a", tls=a, auth=KEY), net.node("b", tls=b, auth=Relayed(b"k" * 32))
    dial(net, here, there)
    assert not here.peer("b").connected
    assert "whoever says it is a did not prove it" in lines(there)


# -- streams that are tampered with -----------------------------------------------------------------------------------


def live(authority: Authority) -> tuple[Net, Driver, Driver]:
    net, here, there = pair(authority.tls("a"), authority.tls("b"))
    net.connected(here, there)
    return net, here, there


def test_a_stream_that_ends_without_the_end_of_tls_is_a_loss(authority: Authority) -> None:
    net, here, _ = live(authority)
    with here.inside as now:
        channel(here).connection_lost(now)
    assert "it was cut off: the stream ended without the end of TLS" in lines(here)
    net.run()
    net.wait(2.0)
    assert here.peer("b").connected


def test_a_flipped_bit_breaks_the_connection_and_loses_nothing(authority: Authority) -> None:
    net, here, there = live(authority)
    here.peer("b").send_nowait("whole")
    stream = here.links[0].stream
    stream.out[len(stream.out) // 2] ^= 1
    net.run()
    assert "SSLError" in lines(there)
    net.wait(2.0)
    assert there.peer("a").read_nowait() == "whole"
    assert there.peer("a").unread == 0


def test_the_end_is_said_in_tls_too(authority: Authority) -> None:
    net, here, there = live(authority)
    here.close()
    net.run()
    assert "it was cut off" not in lines(there)
    assert not there.links


def test_what_comes_after_the_end_of_tls_is_not_heard(authority: Authority) -> None:
    _, here, there = live(authority)
    late = channel(there)
    with pytest.raises(ssl.SSLWantReadError):
        channel(here)._object.unwrap()
    with there.inside as now:
        late.receive_data(channel(here)._outgoing.read(), now)
        late.receive_data(b"no TLS at all", now)
    assert "no TLS" not in lines(there)
    assert len(there.lines) == 2


def test_the_end_of_tls_without_a_close_is_a_loss(authority: Authority) -> None:
    _, here, there = live(authority)
    with pytest.raises(ssl.SSLWantReadError):
        channel(here)._object.unwrap()
    with there.inside as now:
        channel(there).receive_data(channel(here)._outgoing.read(), now)
    assert "the connection was lost: the byte stream ended" in lines(there)


def test_a_stranger_that_is_silent_costs_no_tls_and_has_the_usual_time(authority: Authority) -> None:
    net, _, there = pair(authority.tls("a"), authority.tls("b"), config=Config(handshake_timeout=5.0))
    there.serve_stream(silence())
    assert channel(there)._made is None
    net.wait(4.9)
    assert there.links
    with there.inside as now:
        channel(there).receive_data(b"\x16\x03", now)  # two bytes of a ClientHello do not move the deadline
    net.wait(0.2)
    net.run()
    assert not there.links or there.links[0].closing


def test_anything_at_all_may_come(authority: Authority) -> None:
    """Neither raises nor is taken for TLS, and is not answered with much (attack 54)."""
    for data in (b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff" + bytes(70000), b"SSH-2.0-x\r\n"):
        _, _, there = pair(None, authority.tls("b"))
        there.serve_stream(silence())
        with there.inside as now:
            channel(there).receive_data(data, now)
        assert channel(there).connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED)
        answer = bytes(there.links[0].stream.out) if there.links else b""
        assert len(answer) <= 3 * len(data)


def test_authenticators_are_told_apart(authority: Authority) -> None:
    """P-AUTH-1: what the peer says does not change what is asked of it."""
    auth: Authenticator = MTLS()
    assert (auth.name, auth.key_id("b"), repr(auth)) == ("mtls", None, "MTLS()")
    net = Net()
    here, there = net.node("a", tls=authority.tls("a")), net.node("b", tls=authority.tls("b"), auth=MTLS(KEY))
    dial(net, here, there)
    assert "the peer authenticates by mtls, this side by mtls+psk" in lines(there)


# -- hostile TLS ------------------------------------------------------------------------------------------------------


def test_a_server_that_wants_to_renegotiate_ends_nobody(authority: Authority) -> None:
    """TLS 1.2: the request came in the flight of Finished, and HELLO was to be written in the middle of it."""
    for context in (authority.tls("a")._dialer, authority.tls("b")._acceptor):
        assert context.options & ssl.OP_NO_RENEGOTIATION


def test_what_openssl_says_of_a_write_breaks_the_connection_and_not_the_node(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, here, _ = live(authority)

    def wants_to_read(self: Channel, data: bytes) -> None:
        raise ssl.SSLWantReadError(2, "renegotiation")

    monkeypatch.setattr(Channel, "_write", wants_to_read)
    here.peer("b").send_nowait(1)
    assert "SSLWantReadError" in lines(here)


def test_a_certificate_whose_name_cannot_be_told_names_nobody(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    b = authority.tls("b")

    def fails(certificate: object) -> str:
        raise KeyError("subject")

    b._identity = fails
    refused(authority.tls("a"), b, "authentication failed", "the certificate names no peer")
    assert "whom a certificate names cannot be told: KeyError" in caplog.text


def stranger_in_tls() -> tuple[Driver, Channel, ssl.SSLObject, ssl.MemoryBIO]:
    """An acceptor, its channel, and a client that has shaken hands in TLS and says nothing of networkio."""
    b = TLS.self_signed()
    net = Net()
    there = net.node("b", tls=b, auth=KEY)
    there.serve_stream(silence())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = TLS.self_signed()._dialer.wrap_bio(incoming, outgoing, server_side=False)
    for _ in range(4):
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        with there.inside as now:
            channel(there).receive_data(outgoing.read(), now)
        (link,) = there.links
        incoming.write(bytes(link.stream.out))
        link.stream.out.clear()
    return there, channel(there), client, outgoing


def test_who_proves_nothing_gets_so_many_bytes_through_tls_and_no_more() -> None:
    there, wire, client, outgoing = stranger_in_tls()
    assert wire._open
    with there.inside as now:
        for _ in range(40):
            client.write(bytes(4096))
            wire.receive_data(outgoing.read(), now)
    assert wire.connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED)
