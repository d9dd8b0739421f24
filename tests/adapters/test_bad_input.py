"""Bad input: each a typed exception of the one tree that says what happened and what to do; nothing else is disturbed.

`undisturbed` holds a conversation in which messages are under way while something goes wrong beside it, and judges
afterwards that every one of them is read once, in order, and on the same connection.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgpack
import pytest

from networkio_asyncio import (
    AddressError,
    CodecMismatch,
    Config,
    ConfigurationError,
    ConnectionFailure,
    DecodeError,
    DialFailed,
    DuplicateIdentity,
    EncodeError,
    Limits,
    MessageRejected,
    MessageTooLarge,
    MsgpackCodec,
    NetworkioError,
    Node,
    NodeClosed,
    OutboxFull,
    Peer,
    PeerDisconnected,
    SessionClosed,
    VersionMismatch,
    WrongPeer,
)
from networkio_proto.frames import HELLO, PREAMBLE
from tests.adapters.helpers import HASTY, Pair, bounded, connected, node, notice_of, read_all, until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def undisturbed(**changes: Any) -> AsyncIterator[Pair]:
    async with connected(**changes) as pair:
        before = pair.near.session.connection, pair.far.session.connection
        for number in range(10):
            await pair.near.send(number)
            await pair.far.send(number)
        held = await pair.far.receive()
        yield pair
        held.ack()
        for number in range(10, 20):
            await pair.near.send(number)
            await pair.far.send(number)
        assert await read_all(pair.far, 19) == list(range(1, 20))
        assert await read_all(pair.near, 20) == list(range(20))
        await until(lambda: not pair.near.unacknowledged and not pair.far.unacknowledged)
        assert pair.near.ledger.failed == pair.far.ledger.failed == 0
        assert (pair.near.session.connection, pair.far.session.connection) == before


async def answer(port: int, data: bytes) -> bytes:
    """What somebody hears who says this on the port, until the connection is closed."""
    heard = b""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        try:
            await stream.send(data)
            while True:
                heard += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return heard


@asynccontextmanager
async def server_that_says(data: bytes) -> AsyncIterator[int]:
    """A port where everybody who comes is told this."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def tell(stream: Any) -> None:
        async with stream:
            try:
                await stream.send(data)
                await stream.receive()
                await anyio.sleep(0.01)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, tell)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


def hello(peer_id: str = "stranger", **changes: Any) -> bytes:
    fields = {
        "versions": [1, 1],
        "peer_id": peer_id,
        "incarnation": bytes(16),
        "dial": 1,
        "nonce": bytes(32),
        "features": [],
        "require": [],
        "auth": "insecure",
        "limits": {"frame": 65536, "message": 1 << 20, "idle": 45000},
        "codec": "msgpack",
    }
    body = msgpack.packb({**fields, **changes})
    return PREAMBLE + struct.pack(">IBB", len(body) + 2, HELLO, 0) + body


FOREIGN = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("16030100c4010000c00303") + bytes(192),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "random": bytes((number * 89 + 7) % 256 for number in range(500)),
    "nothing": b"",
}


# -- wrong bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FOREIGN)
@bounded(10)
async def test_wrong_bytes_on_the_port_are_shown_out_in_silence(kind: str) -> None:
    async with undisturbed(handshake_timeout=0.2) as pair:
        heard = await answer(pair.listener.port, FOREIGN[kind])
        assert heard == b"" or kind == "nothing"
        await until(lambda: len(pair.server.endpoint.connections) == 1)
        assert [peer.id for peer in pair.server.peers] == ["client"]


@pytest.mark.parametrize(("kind", "named"), [("HTTP", "HTTP"), ("TLS", "TLS"), ("SSH", "SSH"), ("random", "")])
@bounded(10)
async def test_a_dialer_says_what_answered_instead_of_networkio(kind: str, named: str) -> None:
    data = b"HTTP/1.1 400 Bad Request\r\n\r\n" if kind == "HTTP" else FOREIGN[kind]
    async with server_that_says(data) as port, node("client") as here:
        peer = await here.connect("127.0.0.1", port, "server")
        error = (await notice_of(here, PeerDisconnected)).error
        assert isinstance(error, ConnectionFailure)
        assert named in str(error)
        assert peer.why()


@pytest.mark.parametrize(
    "data",
    [
        PREAMBLE + struct.pack(">IBB", 0xFFFFFFFF, HELLO, 0),
        PREAMBLE + struct.pack(">IBB", 3, HELLO, 0) + b"\xc1",
        hello(peer_id="no such name"),
        hello(incarnation=b"short"),
        hello() + b"\x00" * 100,
    ],
    ids=["endless", "no map", "bad id", "bad incarnation", "garbage after"],
)
@bounded(10)
async def test_a_broken_handshake_ends_with_one_close(data: bytes) -> None:
    async with undisturbed() as pair:
        await answer(pair.listener.port, data)
        assert [peer.id for peer in pair.server.peers] == ["client"]


@bounded(20)
async def test_random_handshakes_disturb_nobody() -> None:
    good = hello()
    async with undisturbed(handshake_timeout=0.1) as pair, anyio.create_task_group() as tasks:
        for place in range(0, len(good), 9):
            broken = bytearray(good)
            broken[place] ^= 0xFF
            tasks.start_soon(answer, pair.listener.port, bytes(broken))


# -- wrong peers ------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_another_version_is_named() -> None:
    async with undisturbed() as pair:
        heard = await answer(pair.listener.port, hello(versions=[7, 9]))
        assert heard.startswith(PREAMBLE)
        assert [peer.id for peer in pair.server.peers] == ["client"]
    async with server_that_says(PREAMBLE[:-1] + bytes([PREAMBLE[-1] ^ 0xFF])) as port, node("client") as here:
        with pytest.raises(ConnectionFailure) as caught:
            with anyio.fail_after(3):
                await here.connect("127.0.0.1", port)
        assert isinstance(caught.value, VersionMismatch)
        assert "version" in str(caught.value)


@bounded(10)
async def test_another_peer_than_the_one_that_was_meant_is_named() -> None:
    async with undisturbed() as pair, node("newcomer") as newcomer:
        peer = await newcomer.connect("127.0.0.1", pair.listener.port, "someone-else")
        await peer.send("for someone else")
        error = (await notice_of(newcomer, PeerDisconnected)).error
        assert isinstance(error, WrongPeer)
        assert "check the address and the peer id" in str(error)
        assert "server" in str(error)
        assert "dialling has stopped" in peer.why()
        assert peer.unacknowledged == 1  # it waits for the right one


@bounded(10)
async def test_an_id_in_use_is_named_and_its_owner_stays() -> None:
    async with undisturbed() as pair, node("client") as twin:
        await twin.connect("127.0.0.1", pair.listener.port, "server")
        error = (await notice_of(twin, PeerDisconnected)).error
        assert isinstance(error, DuplicateIdentity)
        assert "give each process an id of its own" in str(error)
        with pytest.raises(DuplicateIdentity):
            await twin.connect("127.0.0.1", pair.listener.port)


@bounded(10)
async def test_another_codec_is_named() -> None:
    class Other(MsgpackCodec):
        name = "other"

    async with undisturbed() as pair, Node("newcomer", config=HASTY, codec=Other()) as newcomer:
        with pytest.raises(CodecMismatch, match="other"):
            await newcomer.connect("127.0.0.1", pair.listener.port)


# -- addresses --------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_a_port_in_use_is_named() -> None:
    async with undisturbed() as pair, node("another") as another:
        port = pair.listener.port
        with pytest.raises(AddressError, match=f"127.0.0.1 port {port}: .*in use.*choose another") as caught:
            await another.listen("127.0.0.1", port)
        assert isinstance(caught.value, OSError)
        assert (await another.listen("127.0.0.1", 0)).port != port


@bounded(10)
async def test_a_unix_socket_in_use_is_named_and_its_owner_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with node("first") as first, node("second") as second, node("client") as here:
        await first.listen_unix(path)
        with pytest.raises(AddressError, match="in use"):
            await second.listen_unix(path)
        assert (await here.connect_unix(path)).id == "first"


@bounded(10)
async def test_the_socket_of_a_dead_process_is_in_nobodys_way(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    assert os.path.exists(path)
    async with node("server") as there, node("client") as here:
        await there.listen_unix(path)
        assert (await here.connect_unix(path)).id == "server"


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
@bounded(5)
async def test_a_port_that_is_none_cannot_be_listened_on(port: int) -> None:
    async with node("server") as there:
        with pytest.raises(NetworkioError, match=str(port)):
            await there.listen("127.0.0.1", port)


UNRESOLVABLE = ["no-such-host.localhost", f"{'a' * 64}.localhost"]


@pytest.mark.parametrize("host", UNRESOLVABLE)
@bounded(10)
async def test_a_host_that_does_not_resolve_is_named(host: str) -> None:
    try:
        socket.getaddrinfo(host, 1)
        pytest.skip("this machine resolves every name under localhost")
    except (OSError, UnicodeError):
        pass
    async with undisturbed() as pair:
        with pytest.raises(AddressError, match="does not resolve"):
            await pair.server.listen(host, 0)
        with pytest.raises(DialFailed, match=re.escape(host[:20])):
            await pair.client.connect(host, 1)
        peer = await pair.client.connect(host, 1, "elsewhere")
        error = (await notice_of(pair.client, PeerDisconnected)).error
        assert isinstance(error, DialFailed)
        assert host[:20] in str(error)
        assert host[:20] in peer.why()
        pair.client.peer("elsewhere").disconnect()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.invalid", "::", "", "127.0.0.1.example.invalid"])
@bounded(5)
async def test_an_unprotected_address_off_loopback_is_refused(host: str) -> None:
    async with undisturbed() as pair:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: pair.server.listen(host, 0),
            lambda: pair.client.connect(host, 1, "x"),
            lambda: pair.client.connect(host, 1),
        ]
        for call in calls:
            with pytest.raises(ConfigurationError, match='auth="insecure"'):
                await call()
        assert [peer.id for peer in pair.client.peers] == ["server"]


@bounded(5)
async def test_insecure_spelled_out_may_leave_loopback() -> None:
    async with Node("server", config=HASTY, auth="insecure") as there:
        assert (await there.listen("0.0.0.0", 0)).port


# -- payloads ---------------------------------------------------------------------------------------------------------


class Stranger:
    pass


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (Stranger(), "$"),
        ({"users": [1, 2, {"created": Stranger()}]}, "$['users'][2]['created']"),
        ([0, {1: [Stranger()]}], "$[1][1][0]"),
    ],
)
@bounded(5)
async def test_what_cannot_be_encoded_is_named_with_its_path(data: object, path: str) -> None:
    async with undisturbed() as pair:
        for call in (pair.near.send, pair.client.peer("stranger").send):
            with pytest.raises(EncodeError, match="Stranger") as caught:
                await call(data)
            assert caught.value.path == path
            assert path in str(caught.value)
        with pytest.raises(EncodeError, match="Stranger"):
            pair.near.send_nowait(data)


@pytest.mark.parametrize(
    "headers",
    [{"id": b"x"}, {".x": 1}, {"x": Stranger()}, {"x": "y" * 5000}, {str(number): 0 for number in range(70)}],
    ids=["reserved", "reserved dot", "not encodable", "too big", "too many"],
)
@bounded(5)
async def test_headers_that_cannot_go_are_refused(headers: dict[str, object]) -> None:
    async with undisturbed() as pair:
        with pytest.raises(NetworkioError, match="header"):
            await pair.near.send("x", headers=headers)


async def reject(peer: Peer) -> None:
    with pytest.raises(DecodeError, match="read raw, rejected or acknowledged") as caught:
        await peer.read()
    message = caught.value.message
    assert message.held
    assert message.raw == b"\xc1"
    message.reject("garbage")


async def acknowledge(peer: Peer) -> None:
    with pytest.raises(DecodeError) as caught:
        peer.read_nowait()
    caught.value.message.ack()


async def take_raw(peer: Peer) -> None:
    async with await peer.receive() as message:
        assert message.raw == b"\xc1"


async def iterate(peer: Peer) -> None:
    async for message in peer:
        with pytest.raises(DecodeError):
            _ = message.data
        message.ack()
        break


@pytest.mark.parametrize("way", [reject, acknowledge, take_raw, iterate])
@bounded(10)
async def test_what_cannot_be_decoded_can_be_settled_and_the_stream_goes_on(
    way: Callable[[Peer], Awaitable[None]],
) -> None:
    async with connected() as pair:
        before = await pair.near.send("before")
        pair.near.session.send(b"\xc1", pair.client.now())  # what another implementation might have made
        after = await pair.near.send("after")
        assert await pair.far.read() == "before"
        await until(lambda: pair.far.unread == 2)
        await way(pair.far)
        assert await pair.far.read() == "after"
        await before.read()
        await after.read()
        ledger = pair.near.ledger
        assert (ledger.read, ledger.rejected) == ((2, 1) if way is reject else (3, 0))


@bounded(10)
async def test_read_many_stops_before_what_cannot_be_decoded() -> None:
    async with connected() as pair:
        await pair.near.send(0)
        await pair.near.send(1)
        pair.near.session.send(b"\xc1", pair.client.now())
        await pair.near.send(2)
        await until(lambda: pair.far.unread == 4)
        assert await pair.far.read_many() == [0, 1]
        with pytest.raises(DecodeError) as caught:
            await pair.far.read_many()
        caught.value.message.reject()
        assert await pair.far.read_many() == [2]


@bounded(10)
async def test_a_message_over_the_limit_is_refused_here_or_lost_by_name() -> None:
    small = Limits(message=10_000)
    async with undisturbed(server={"limits": small}) as pair:
        for call in (pair.near.send, pair.far.send):
            with pytest.raises(MessageTooLarge, match=r"10000.*split it or raise limits\.message"):
                await call(bytes(10_001), raw=True)
        with pytest.raises(MessageTooLarge, match="over the limit"):
            pair.near.send_nowait(bytes(20_000_000), raw=True)
        queued = pair.client.peer("later")
        receipt = await queued.send(bytes(10_001), raw=True)  # nobody knows that peer's limit yet
        following = await queued.send("small")
        async with node("later", limits=small) as later:
            listener = await later.listen("127.0.0.1", 0)
            await pair.client.connect("127.0.0.1", listener.port, "later")
            message = await later.peer("client").receive()
            assert message.data == "small"
            assert [(gap.first, gap.last) for gap in message.gap] == [(1, 1)]
            message.ack()
            await following.read()
            with pytest.raises(NetworkioError, match="over the limit"):
                await receipt.read()


# -- states -----------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_a_full_outbox_says_what_it_waits_for() -> None:
    async with undisturbed() as pair, Node("full", config=Config(outbox_limit=1000, drain_timeout=0.01)) as full:
        peer = full.peer("server")
        while peer.session.has_room:
            peer.send_nowait("x")
        unread = peer.unacknowledged
        with pytest.raises(OutboxFull, match=r"outbox_limit 1000.*no connection to server"):
            peer.send_nowait("y")
        assert peer.unacknowledged == unread
        assert [known.id for known in pair.server.peers] == ["client"]


@bounded(10)
async def test_use_after_the_end_is_refused() -> None:
    async with undisturbed() as pair, node("leaver") as leaver:
        peer = await leaver.connect("127.0.0.1", pair.listener.port, "server")
        peer.end()
        with pytest.raises(SessionClosed, match="server takes no new messages from this side"):
            await peer.send("x")
        await leaver.aclose(0)
        with pytest.raises(NodeClosed, match="leaver is closed"):
            await peer.send("x")


@bounded(10)
async def test_a_rejected_message_says_who_and_why_in_printable_words() -> None:
    async with connected() as pair:
        receipt = await pair.near.send("x")
        (await pair.far.receive()).reject("\x1b[31mred\r\nlines\u202e")
        with pytest.raises(MessageRejected) as caught:
            await receipt.read()
        assert str(caught.value).isprintable()
        assert "red" in str(caught.value)


def test_everything_hangs_under_one_tree() -> None:
    import networkio_asyncio

    errors = [
        value
        for value in vars(networkio_asyncio).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    ]
    assert len(errors) > 30
    assert all(issubclass(error, NetworkioError) for error in errors)
