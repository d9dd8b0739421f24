"""Keys and TLS on the command line, as typed between two processes: what works, and what is refused on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from networkio_command._trust import Trust
from networkio_keys import append_key, key_line
from networkio_proto import ConfigurationError
from tests.command.helpers import port_of, run, running
from tests.tls.authority import Authority


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A file with a key of server and client."""
    path = tmp_path / "keys"
    assert run("genkey", "server", "client", path).returncode == 0
    return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    for name in ("server", "client", "other"):
        made.sign(name, f"networkio:{name}")
    return made


def certified(authority: Authority, name: str) -> list[object]:
    files = authority.directory / f"{name}.pem", authority.directory / f"{name}.key"
    return ["--certificate", files[0], "--private-key", files[1], "--authority", authority.path]


def transfer(server: list[object], client: list[object], *, adapter: str = "asyncio") -> bytes:
    """One line from a sender to a listener; what the listener wrote."""
    with running("listen", "0", "--id", "server", "--adapter", adapter, *server) as listener:
        port = port_of(listener)
        done = run("send", port, "--id", "client", "--to", "server", "--adapter", adapter, *client, data=b"hello\n")
        assert done.returncode == 0, done.stderr
        listener.interrupt()
        return listener.output.rest()


def refused(server: list[object], client: list[object]) -> tuple[str, str]:
    """What both say of a sender that does not get in."""
    with running("listen", "0", "--id", "server", *server) as listener:
        port = port_of(listener)
        done = run("send", port, "--id", "client", "--to", "server", *client, data=b"secret\n")
        assert done.returncode == 1
        [here] = done.stderr.decode().splitlines()
        return here, listener.errors.expect("failed: (.*)")[1]


@pytest.mark.parametrize("adapter", ["asyncio", "threads"])
@pytest.mark.parametrize("tls", [[], ["--tls"]])
def test_two_with_the_same_key_file_talk(keys: Path, adapter: str, tls: list[object]) -> None:
    assert transfer(["--keys", keys, *tls], ["--keys", keys, *tls], adapter=adapter) == b"hello\n"


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["asyncio", "threads"])
def test_two_with_certificates_talk(authority: Authority, adapter: str) -> None:
    assert transfer(certified(authority, "server"), certified(authority, "client"), adapter=adapter) == b"hello\n"


@pytest.mark.slow
def test_an_address_of_all_machines_needs_no_insecure_with_keys(keys: Path) -> None:
    with running("listen", "0.0.0.0:0", "--id", "server", "--keys", keys) as listener:
        listener.errors.expect("0.0.0.0")


def test_genkey_prints_or_appends(tmp_path: Path) -> None:
    printed = run("genkey", "a", "b")
    assert printed.stdout.startswith(b"a b k1 ")
    path = tmp_path / "keys"
    for key_id in ("k1", "k2"):
        assert run("genkey", "a", "b", "--key-id", key_id, path).stdout == b""
    assert [line.split()[2] for line in path.read_text().splitlines()] == ["k1", "k2"]
    assert b"shared by two" in run("genkey", "a", "a").stderr


@pytest.mark.parametrize(
    ("trust", "words"),
    [
        (Trust(insecure=True, keys="k"), "--insecure proves nothing"),
        (Trust(tls=True), "nobody signed proves nothing: add --keys"),
        (Trust(certificate="c"), "nobody signed proves nothing: add --keys"),
        (Trust(private_key="k"), "go with --certificate"),
        (Trust(authority="a"), "go with --certificate"),
        (Trust(keys="k", tls=True, certificate="c"), "there is one already"),
    ],
)
def test_what_does_not_go_together_is_refused(trust: Trust, words: str, tmp_path: Path) -> None:
    if trust.keys:
        append_key(tmp_path / "k", key_line("a", "b"))
    with pytest.raises(ConfigurationError, match=words):
        trust.options("a")


def test_key_and_certificates_can_be_asked_for_together(authority: Authority, keys: Path) -> None:
    trust = Trust(keys=str(keys), certificate=str(authority.directory / "server.pem"),
                  private_key=str(authority.directory / "server.key"), authority=str(authority.path))  # fmt: skip
    assert trust.options("server")["auth"].name == "mtls+psk"


# -- refused, in one clear line on both sides --------------------------------------------------------------------


@pytest.mark.slow
def test_a_changed_key_is_refused(keys: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    append_key(other, key_line("server", "client"))
    for tls in ([], ["--tls"]):
        here, there = refused(["--keys", keys, *tls], ["--keys", other, *tls])
        assert "authentication failed; compare the keys" in here
        assert "whoever says it is client did not prove it" in there


@pytest.mark.slow
def test_a_wrong_name_is_refused(authority: Authority) -> None:
    here, there = refused(certified(authority, "server"), certified(authority, "other"))
    assert "authentication failed" in here
    assert "the certificate names other, and its owner says it is client" in there


@pytest.mark.slow
def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    authority.sign("expired", "networkio:client", days=-1)
    here, there = refused(certified(authority, "server"), certified(authority, "expired"))
    assert "certificate expired" in here
    assert "certificate has expired" in there


def test_a_key_file_that_others_can_read_is_refused(keys: Path) -> None:
    keys.chmod(0o644)
    done = run("listen", "0", "--id", "server", "--keys", keys)
    assert done.returncode == 2
    assert b"others may read the key file" in done.stderr
