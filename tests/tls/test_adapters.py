"""TLS over real sockets: every adapter, and OpenSSL's own programs at the other end."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import networkio_asyncio
import networkio_threads
from networkio_testing.proxy import CALM, Chaos, ChaosProxy
from networkio_tls import TLS
from tests.adapters.helpers import HASTY, bounded, until
from tests.proto.helpers_auth import HmacAuth
from tests.tls.authority import Authority

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the program openssl is not installed")


@bounded(20)
async def test_messages_go_both_ways_and_survive_cuts(authority: Authority, anyio_backend: str) -> None:
    """Attack 21 on the way there: the proxy cuts in the middle of records."""
    config = replace(HASTY, drain_timeout=5.0)
    async with (
        networkio_asyncio.Node("server", config=config, tls=authority.tls("server")) as there,
        networkio_asyncio.Node("client", config=config, tls=authority.tls("client")) as here,
    ):
        listener = await there.listen("127.0.0.1", 0)
        async with ChaosProxy("127.0.0.1", listener.port, chaos=Chaos(cut_every=60_000), seed=1) as proxy:
            near = await here.connect(proxy.host, proxy.port, "server")
            far = there.peer("client")
            for number in range(600):
                await near.send(bytes([number % 256]) * 700)
                await far.send(number)
            assert [await far.read() for _ in range(600)] == [bytes([number % 256]) * 700 for number in range(600)]
            assert [await near.read() for _ in range(600)] == list(range(600))
            assert proxy.cuts > 3
            proxy.chaos = CALM
            await here.aclose(5)


def test_threads_talk_through_tls(authority: Authority) -> None:
    with (
        networkio_threads.Node("server", config=HASTY, tls=authority.tls("server")) as there,
        networkio_threads.Node("client", config=HASTY, tls=authority.tls("client")) as here,
    ):
        listener = there.listen("127.0.0.1", 0)
        near, far = here.connect("127.0.0.1", listener.port, "server"), there.peer("client")
        for number in range(200):
            near.send(bytes([number]) * 7000)
            far.send(number)
        assert [far.read(10) for _ in range(200)] == [bytes([number]) * 7000 for number in range(200)]
        assert [near.read(10) for _ in range(200)] == list(range(200))


@bounded(20)
async def test_a_key_inside_of_tls_needs_no_authority(anyio_backend: str) -> None:
    key = HmacAuth(b"k" * 32)
    async with (
        networkio_asyncio.Node("server", config=HASTY, tls=TLS.self_signed(), auth=key) as there,
        networkio_asyncio.Node("client", config=HASTY, tls=TLS.self_signed(), auth=key) as here,
    ):
        listener = await there.listen("127.0.0.1", 0)
        near = await here.connect("127.0.0.1", listener.port, "server")
        await near.send("x")
        assert await there.peer("client").read() == "x"


@bounded(20)
async def test_a_renewed_certificate_is_used_without_a_restart(authority: Authority, anyio_backend: str) -> None:
    paths = authority.sign("renewed", "networkio:server", days=-1)
    expired = TLS(*paths, authority=authority.path)
    async with (
        networkio_asyncio.Node("server", config=HASTY, tls=expired) as there,
        networkio_asyncio.Node("client", config=HASTY, tls=authority.tls("client")) as here,
    ):
        listener = await there.listen("127.0.0.1", 0)
        near = await here.connect("127.0.0.1", listener.port, "server")
        await until(lambda: "certificate has expired" in near.why())
        authority.sign("renewed", "networkio:server")
        await near.wait_connected()


@bounded(20)
async def test_who_begins_tls_and_stops_has_the_handshakes_time_and_no_more(
    authority: Authority, anyio_backend: str
) -> None:
    """Attacks 3 and 1: a ClientHello, then silence; and silence alone."""
    config = replace(HASTY, handshake_timeout=0.3)
    async with networkio_asyncio.Node("server", config=config, tls=authority.tls("server")) as there:
        listener = await there.listen("127.0.0.1", 0)
        start = anyio.current_time()
        begun = await anyio.connect_tcp("127.0.0.1", listener.port)
        silent = await anyio.connect_tcp("127.0.0.1", listener.port)
        outgoing = ssl.MemoryBIO()
        context = ssl.create_default_context()
        hello = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="server")
        with pytest.raises(ssl.SSLWantReadError):
            hello.do_handshake()
        await begun.send(outgoing.read()[:-1])
        for stream in (begun, silent):
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            await stream.aclose()
        assert 0.2 < anyio.current_time() - start < 3


# -- OpenSSL's programs -----------------------------------------------------------------------------------------------


@pytest.fixture
def listening(authority: Authority) -> Iterator[int]:
    """The port of a node of threads."""
    with networkio_threads.Node("server", config=HASTY, tls=authority.tls("server")) as there:
        yield there.listen("127.0.0.1", 0).port


def s_client(port: int, *options: str | Path) -> str:
    """What OpenSSL's client says of the server there."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *map(str, options)]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


@openssl
@pytest.mark.parametrize("version", ["1_2", "1_3"])
def test_openssl_verifies_the_server_and_is_verified(authority: Authority, listening: int, version: str) -> None:
    certificate, key = authority.sign("tool", "networkio:tool")
    told = s_client(listening, f"-tls{version}", "-CAfile", authority.path, "-cert", certificate, "-key", key)
    assert "Verify return code: 0 (ok)" in told
    assert f"TLSv{version.replace('_', '.')}" in told
    assert "Acceptable client certificate CA names" in told or "Client Certificate Types" in told or version == "1_3"


@openssl
def test_openssl_gets_nowhere_with_old_tls(authority: Authority, listening: int) -> None:
    told = s_client(listening, "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0", "-CAfile", authority.path)
    assert "Cipher is (NONE)" in told
    assert "alert protocol version" in told


@openssl
def test_openssl_without_a_certificate_is_refused(authority: Authority, listening: int) -> None:
    told = s_client(listening, "-tls1_2", "-CAfile", authority.path)
    assert "alert handshake failure" in told


@openssl
def test_a_node_verifies_openssls_server_and_says_what_is_missing(authority: Authority) -> None:
    """TLS stands; then whoever is there has to speak networkio."""
    certificate, key = authority.sign("tool", "networkio:tool")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-CAfile", authority.path,
               "-Verify", "1", "-verify_return_error", "-www"]  # fmt: skip
    command = ["openssl", "s_server", *map(str, options)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL) as server,
        networkio_threads.Node("client", config=HASTY, tls=authority.tls("client")) as node,
    ):
        try:
            assert server.stdout is not None
            assert b"verify depth" in server.stdout.readline()
            peer = node.connect("127.0.0.1", port, "tool")
            said = [server.stdout.readline() for _ in range(6)]
            assert any(b"CN = client" in line for line in said), said
            assert not peer.connected
        finally:
            server.kill()
