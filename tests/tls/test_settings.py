"""The certificates of a node: what is read, what is refused, and what is read again."""

from __future__ import annotations

import builtins
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from networkio_proto import MTLS, ConfigurationError, Insecure
from networkio_tls import TLS, identity_of
from tests.proto.helpers_auth import HmacAuth
from tests.proto.helpers_node import Driver, Net
from tests.tls.authority import Authority


def test_the_contexts_take_nothing_below_tls_1_2_and_verify_where_there_is_an_authority(authority: Authority) -> None:
    certificate, key = authority.sign("a", "networkio:a")
    verified, bare = TLS(certificate, key, authority=authority.path), TLS(certificate, key)
    assert (verified.verifies, bare.verifies) == (True, False)
    for tls, mode in ((verified, ssl.CERT_REQUIRED), (bare, ssl.CERT_NONE)):
        for context in (tls._acceptor, tls._dialer):
            assert context.minimum_version is ssl.TLSVersion.TLSv1_2
            assert context.verify_mode is mode
    assert verified._certificate == ssl.PEM_cert_to_DER_cert(certificate.read_text())
    assert repr(bare) == f"<TLS {certificate}, {key}, peers not verified>"


def test_certificate_and_key_may_share_a_file(authority: Authority) -> None:
    certificate, key = authority.sign("both", "networkio:both")
    both = authority.directory / "both-in-one.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    assert TLS(both)._certificate == ssl.PEM_cert_to_DER_cert(certificate.read_text())


def test_a_key_may_have_a_password(authority: Authority) -> None:
    certificate, key = authority.sign("hidden", "networkio:hidden", password="open sesame")
    TLS(certificate, key, password="open sesame")
    for password in (None, "wrong"):
        with pytest.raises(ConfigurationError, match=r"hidden\.key cannot be used") as caught:
            TLS(certificate, key, password=password)
        assert "sesame" not in str(caught.value)


def test_files_that_cannot_be_used_are_named_and_said_why(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.sign("a", "networkio:a")
    other = authority.sign("other")[1]
    with pytest.raises(ConfigurationError, match="No such file"):
        TLS(tmp_path / "missing.pem", key)
    with pytest.raises(ConfigurationError, match="key values mismatch"):
        TLS(certificate, other)
    with pytest.raises(ConfigurationError, match=r"no start line|no certificate"):
        TLS(certificate, key, authority=key)


def test_a_certificate_names_one_peer_by_its_uri() -> None:
    def names(*pairs: tuple[str, str]) -> dict[str, Any]:
        return {"subjectAltName": pairs}

    assert identity_of(names(("DNS", "a.example"), ("URI", "https://a"), ("URI", "networkio:a"))) == "a"
    for useless in (
        None, {}, names(), names(("DNS", "networkio:a")), names(("URI", "networkio:")), names(("URI", "networkio:a b")),
        names(("URI", "networkio:a"), ("URI", "networkio:b")), names(("URI", "a")),
        {"subject": ((("commonName", "networkio:a"),),)},
    ):  # fmt: skip
        assert identity_of(useless) is None


def test_changed_files_are_read_at_the_next_connection_and_half_written_ones_are_not(authority: Authority) -> None:
    certificate, key = authority.sign("changing", "networkio:changing")
    tls = TLS(certificate, key, authority=authority.path)
    before = tls._certificate
    tls._refresh()
    assert tls._certificate == before
    content = certificate.read_bytes()
    certificate.write_bytes(content[: len(content) // 2])
    tls._refresh()
    assert tls._certificate == before
    certificate.unlink()
    tls._refresh()
    assert tls._certificate == before
    authority.sign("changing", "networkio:changing")
    os.utime(certificate, ns=(1, 1))  # whatever the clock of the file system shows
    tls._refresh()
    assert tls._certificate == ssl.PEM_cert_to_DER_cert(certificate.read_text()) != before


def test_contexts_of_ones_own_are_taken_if_they_are_safe(authority: Authority) -> None:
    mine = authority.tls("a")
    assert TLS.of(mine._acceptor, mine._dialer, mine._certificate).verifies
    assert repr(TLS.of(mine._acceptor, mine._dialer)) == "<TLS contexts>"
    bare = TLS(*authority.sign("a", "networkio:a"))
    assert not TLS.of(bare._acceptor, bare._dialer).verifies
    with pytest.raises(ConfigurationError, match="one of the contexts verifies"):
        TLS.of(mine._acceptor, bare._dialer)
    old = authority.tls("old")._dialer
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.raises(ConfigurationError, match=r"below 1\.2"):
        TLS.of(mine._acceptor, old)
    old.minimum_version = ssl.TLSVersion.TLSv1_3
    TLS.of(mine._acceptor, old)
    old.check_hostname = True
    with pytest.raises(ConfigurationError, match="compares host names"):
        TLS.of(mine._acceptor, old)
    TLS.of(mine._acceptor, old, hostname="server.example")


def test_a_certificate_may_go_by_its_old_name_in_pem_and_a_file_without_one_is_refused(authority: Authority) -> None:
    certificate, key = authority.sign("aged", "networkio:aged")
    text = certificate.read_text()
    certificate.write_text(text.replace("CERTIFICATE-----", "X509 CERTIFICATE-----"))
    assert TLS(certificate, key)._certificate == ssl.PEM_cert_to_DER_cert(text)


def test_files_that_cannot_be_used_any_more_cost_no_node_its_life(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = authority.sign("spoilt", "networkio:spoilt")
    tls = TLS(certificate, key, authority=authority.path)
    text = certificate.read_text()
    for spoilt in ("", "no PEM", text.replace("CERTIFICATE-----", "TRUSTED CERTIFICATE-----"), text[:200]):
        certificate.write_text(spoilt)
        tls._refresh()
    assert "changed certificates are not used" in caplog.text
    assert tls._certificate == ssl.PEM_cert_to_DER_cert(text)


def test_a_certificate_of_its_own_is_made_for_the_process_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    one, other = TLS.self_signed(), TLS.self_signed()
    assert not list(tmp_path.iterdir())
    assert one._certificate != other._certificate
    assert not one.verifies


def test_without_cryptography_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"pip install networkio\[tls\]"):
        TLS.self_signed()


def test_what_would_prove_nothing_is_refused(authority: Authority) -> None:
    bare, verified = TLS(*authority.sign("a", "networkio:a")), authority.tls("a")
    with pytest.raises(ConfigurationError, match="proves no identity"):
        Driver(Net(), "a", tls=bare)
    for tls in (None, bare):
        with pytest.raises(ConfigurationError, match="auth is mtls, which rests on certificates"):
            Driver(Net(), "a", auth=MTLS(), tls=tls)
    assert isinstance(Driver(Net(), "a", tls=verified).endpoint.auth, MTLS)
    assert isinstance(Driver(Net(), "a", auth="insecure", tls=bare).endpoint.auth, Insecure)
    key = HmacAuth(b"k" * 32)
    assert Driver(Net(), "a", auth=key, tls=bare).endpoint.auth is key
    assert Driver(Net(), "a", auth=MTLS(key), tls=verified).endpoint.auth.name == "mtls+psk"
