"""Peers: what each way of sending, receiving and ending promises (guarantees, *Receiving* and *Each await*)."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from networkio_asyncio import (
    EncodeError,
    IteratorBusy,
    Message,
    MessageAbandoned,
    MessageCancelled,
    MessageExpired,
    MessageLost,
    MessageNotHeld,
    MessageRejected,
    MessagesFailed,
    NoMessage,
    NoMoreMessages,
    OutboxFull,
    Outcome,
    Peer,
    PeerEnded,
    Receipt,
    SessionClosed,
    SessionEnded,
    WrongThread,
)
from tests.adapters.helpers import bounded, connected, node, note_encoding, notice_of, read_all, until

pytestmark = pytest.mark.anyio


async def send_many(peer: Peer, count: int) -> list[Receipt]:
    return [await peer.send(number) for number in range(count)]


def fill(peer: Peer) -> int:
    """Send numbers from 0 until there is no room; how many."""
    count = 0
    while peer.session.has_room:
        peer.send_nowait(count)
        count += 1
    return count


# -- sending and reading ----------------------------------------------------------------------------------------------


@bounded(10)
async def test_what_is_sent_is_read_in_order_both_ways() -> None:
    async with connected() as pair:
        up, down = await send_many(pair.near, 300), await send_many(pair.far, 300)
        assert await read_all(pair.far, 300) == await read_all(pair.near, 300) == list(range(300))
        await up[-1].read()
        await down[-1].read()
        assert pair.near.ledger.read == pair.far.ledger.read == 300
        assert pair.near.unacknowledged == pair.near.unread == 0


@pytest.mark.parametrize("data", [None, True, 0, -1, 2**70, 1.5, "", "é", b"", b"x", [], {}, {"a": [1, {"b": None}]}])
@bounded(10)
async def test_objects_come_out_as_they_went_in(data: object) -> None:
    async with connected() as pair:
        await pair.near.send(data)
        got = await pair.far.read()
        assert got == data
        assert type(got) is type(data)


@pytest.mark.parametrize("size", [0, 1, 2048, 2049, 65536, 300_000])
@bounded(10)
async def test_raw_bytes_of_any_size_pass_as_they_are(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with connected() as pair:
        buffer = bytearray(payload)
        for data in (payload, buffer, memoryview(payload)):
            await pair.near.send(data, raw=True)
        buffer[:] = bytes(size)  # what was accepted is beyond reach
        for _ in range(3):
            message = await pair.far.receive()
            assert message.data == message.raw == payload
            assert type(message.data) is bytes
            message.ack()


@pytest.mark.parametrize("data", ["text", 5, None, [1]])
@bounded(5)
async def test_only_bytes_go_raw(data: object) -> None:
    async with connected() as pair:
        with pytest.raises(EncodeError, match=type(data).__name__):
            await pair.near.send(data, raw=True)
        assert pair.near.ledger.accepted == 0


@bounded(10)
async def test_headers_go_along() -> None:
    async with connected() as pair:
        await pair.near.send("x", headers={"kind": "test", "n": 1})
        await pair.near.send("y")
        first, second = await pair.far.receive(), await pair.far.receive()
        assert first.headers == {"kind": "test", "n": 1}
        assert second.headers == {}
        assert (first.sequence, first.attempt, first.redelivered, first.gap) == (1, 1, False, ())
        assert first.peer is pair.far
        assert first.id != second.id
        first.ack()
        second.ack()


@bounded(10)
async def test_send_takes_a_message_while_nobody_is_there() -> None:
    async with node("client") as here:
        receipt = await here.send("server", "x")
        assert receipt.outcome is None
        assert here.peer("server").unacknowledged == 1


@bounded(10)
async def test_send_waits_for_room_and_send_nowait_does_not() -> None:
    async with connected(outbox_limit=2000) as pair:
        accepted = fill(pair.near)
        with pytest.raises(OutboxFull, match="outbox_limit 2000"):
            pair.near.send_nowait("no room")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.near.send, "waited")
            await until(lambda: pair.near.session.watch)
            assert pair.near.ledger.accepted == accepted
            assert await read_all(pair.far, accepted + 1) == [*range(accepted), "waited"]


@bounded(10)
async def test_a_message_that_waits_for_room_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(outbox_limit=2000) as pair:
        accepted = fill(pair.near)
        encoded = note_encoding(monkeypatch, pair.client.codec)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.near.send, "waited")
            await until(lambda: pair.near.session.watch)
            assert await read_all(pair.far, accepted + 1) == [*range(accepted), "waited"]
        assert encoded == ["waited"]


@bounded(10)
async def test_send_waits_for_room_in_the_node_whoever_gives_it_back() -> None:
    async with connected(outbox_node_limit=2000) as pair:
        accepted = fill(pair.near)
        with pytest.raises(OutboxFull, match="of 2000"):
            pair.client.peer("another").send_nowait("no room")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.client.send, "another", "waited")
            await anyio.sleep(0.02)
            assert pair.client.peer("another").unacknowledged == 0
            await read_all(pair.far, accepted)
        assert pair.client.peer("another").unacknowledged == 1


@pytest.mark.parametrize("ending", ["end", "abort"])
@bounded(10)
async def test_a_send_that_waits_for_room_gives_up_when_the_session_is_ended(ending: str) -> None:
    async with connected(outbox_limit=1000) as pair:
        fill(pair.near)
        outcome: list[BaseException] = []

        async def send() -> None:
            try:
                await pair.near.send("too late")
            except SessionClosed as error:
                outcome.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await anyio.sleep(0.02)
            getattr(pair.near, ending)()
        assert "takes no new messages" in str(outcome[0])


@bounded(10)
async def test_drop_oldest_never_waits_and_says_what_it_dropped() -> None:
    async with node("client", overflow="drop_oldest", outbox_limit=10_000) as here:
        peer = here.peer("server")
        receipts = [await peer.send(bytes(1000), raw=True) for _ in range(50)]
        assert peer.ledger.lost > 0
        with pytest.raises(MessageLost, match="dropped for newer"):
            await receipts[0].read()
        assert receipts[-1].outcome is None
        assert isinstance(await notice_of(here, MessagesFailed), MessagesFailed)


@bounded(10)
async def test_drop_oldest_drops_nothing_that_the_peer_may_have_seen() -> None:
    async with connected(overflow="drop_oldest", outbox_limit=1000) as pair:
        await pair.near.send(0)
        await until(lambda: pair.far.unread)
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                for number in range(1, 50):
                    await pair.near.send(number)
                    await anyio.lowlevel.checkpoint()

            tasks.start_soon(send)
            got = []
            while pair.near.ledger.accepted < 50 or pair.near.unacknowledged:
                with anyio.move_on_after(0.02):
                    got.append(await pair.far.read())
        assert got == sorted(got)
        assert len(got) == 50 - pair.near.ledger.lost


@bounded(10)
async def test_a_message_whose_ttl_ran_out_on_the_way_expires() -> None:
    async with node("client") as here:
        peer = here.peer("server")
        receipt = await peer.send("x", ttl=0.02)
        with pytest.raises(MessageExpired, match="ttl"):
            await receipt.read()
        assert receipt.outcome is Outcome.EXPIRED


@bounded(10)
async def test_cancel_tells_whether_the_message_may_be_seen() -> None:
    async with connected() as pair:
        seen = await pair.near.send("seen")
        await seen.received()
        assert not await seen.cancel()
        assert await pair.far.read() == "seen"
        await seen.read()
        stranger = pair.client.peer("stranger")
        unseen = await stranger.send("unseen")
        assert await unseen.cancel()
        assert not await unseen.cancel()
        with pytest.raises(MessageCancelled):
            await unseen.read()


@bounded(10)
async def test_what_was_cancelled_leaves_an_explicit_gap() -> None:
    async with node("server") as there, node("client") as here:
        receipts = [await here.send("server", number) for number in range(3)]
        await receipts[1].cancel()
        listener = await there.listen("127.0.0.1", 0)
        await here.connect("127.0.0.1", listener.port, "server")
        far = there.peer("client")
        assert await far.read() == 0
        message = await far.receive()
        assert message.data == 2
        assert [(gap.first, gap.last) for gap in message.gap] == [(2, 2)]
        message.ack()


# -- receiving --------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_without_a_message_nothing_waits_where_nowait_is_said() -> None:
    async with connected() as pair:
        for call in (pair.far.read_nowait, pair.far.receive_nowait):
            with pytest.raises(NoMessage, match="nothing from client"):
                call()
            assert call(default=None) is None
            assert call("nothing") == "nothing"
        await pair.near.send("x")
        await pair.near.send("y")
        await until(lambda: pair.far.unread == 2)
        assert pair.far.read_nowait() == "x"
        message = pair.far.receive_nowait()
        assert isinstance(message, Message)
        message.ack()


@bounded(10)
async def test_read_many_waits_for_the_first_only() -> None:
    async with connected() as pair:
        await send_many(pair.near, 10)
        await until(lambda: pair.far.unread == 10)
        assert await pair.far.read_many(4) == [0, 1, 2, 3]
        assert await pair.far.read_many() == [4, 5, 6, 7, 8, 9]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.near.send, "late")
            assert await pair.far.read_many() == ["late"]


@bounded(10)
async def test_a_message_is_read_only_when_it_is_acknowledged() -> None:
    async with connected() as pair:
        receipt = await pair.near.send("x")
        message = await pair.far.receive()
        await receipt.received()
        assert receipt.outcome is None
        assert message.held
        message.ack()
        assert not message.held
        await receipt.read()
        assert receipt.outcome is Outcome.READ


@bounded(10)
async def test_settling_twice_the_same_way_is_harmless_and_otherwise_refused() -> None:
    async with connected() as pair:
        await send_many(pair.near, 3)
        acked, rejected, released = [await pair.far.receive() for _ in range(3)]
        acked.ack()
        acked.ack()
        rejected.reject("no")
        rejected.reject("no")
        released.release()
        released.release()
        for message, ways in ((acked, "reject release"), (rejected, "ack release"), (released, "ack reject")):
            for way in ways.split():
                with pytest.raises(MessageNotHeld, match=f"message {message.sequence} from client was"):
                    getattr(message, way)()
        assert await pair.far.read() == 2


@bounded(10)
async def test_a_released_message_is_the_next_one_again() -> None:
    async with connected() as pair:
        await send_many(pair.near, 3)
        first, second = await pair.far.receive(), await pair.far.receive()
        second.release()
        first.release()
        again = await pair.far.receive()
        assert (again.data, again.attempt, again.id) == (0, 2, first.id)
        again.ack()
        assert await read_all(pair.far, 2) == [1, 2]


@bounded(10)
async def test_messages_may_be_settled_in_any_order() -> None:
    async with connected() as pair:
        receipts = await send_many(pair.near, 3)
        messages = [await pair.far.receive() for _ in range(3)]
        messages[2].ack()
        messages[1].ack()
        await receipts[2].received()
        await anyio.sleep(0.05)
        assert receipts[2].outcome is None  # the prefix is not settled
        messages[0].ack()
        await receipts[2].read()


@bounded(10)
async def test_a_rejection_reaches_the_sender_with_its_words() -> None:
    async with connected() as pair:
        receipt = await pair.near.send("x")
        (await pair.far.receive()).reject("not today", 42)
        with pytest.raises(MessageRejected) as caught:
            await receipt.read()
        error = caught.value
        assert (error.sequence, error.reason, error.code, error.seen) == (1, "not today", 42, "yes")
        assert receipt.outcome is Outcome.REJECTED
        assert [(f.first, f.last, f.outcome) for f in pair.near.failures()] == [(1, 1, Outcome.REJECTED)]
        assert pair.near.ledger.rejected == 1


@bounded(10)
async def test_async_with_acknowledges_on_success_and_releases_on_failure() -> None:
    async with connected() as pair:
        receipt = await pair.near.send("x")

        async def fail() -> None:
            async with await pair.far.receive():
                raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await fail()
        async with await pair.far.receive() as message:
            assert message.attempt == 2
        await receipt.read()
        await pair.near.send("y")
        async with await pair.far.receive() as message:
            message.reject()  # what was settled inside stays so
        assert message.settled


# -- iterating --------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_iterating_acknowledges_each_message_when_the_next_is_asked_for() -> None:
    async with connected() as pair:
        receipts = await send_many(pair.near, 3)
        iterator = aiter(pair.far)
        first = await anext(iterator)
        assert first.held
        second = await anext(iterator)
        assert first.settled
        assert second.held
        await receipts[0].read()
        iterator.close()
        assert not second.held
        assert await read_all(pair.far, 2) == [1, 2]


@bounded(10)
async def test_a_break_gives_back_the_message_in_hand() -> None:
    async with connected() as pair:
        await send_many(pair.near, 3)
        async for message in pair.far:
            if message.data == 1:
                break
        assert pair.far.read_nowait() == 1
        async for message in pair.far:  # and the peer can be iterated over again
            assert message.data == 2
            message.ack()
            break
        assert pair.near.session.ledger.accepted == 3
        await until(lambda: pair.near.ledger.read == 3)


@bounded(10)
async def test_an_exception_gives_back_the_message_in_hand() -> None:
    async with connected() as pair:
        await send_many(pair.near, 2)

        async def fail() -> None:
            async for _ in pair.far:
                raise LookupError("mine")

        kept = []
        for _ in range(2):
            with pytest.raises(LookupError, match="mine") as caught:
                await fail()
            kept.append(caught)  # with its traceback, and the frames in there
        message = await pair.far.receive()
        assert (message.data, message.attempt) == (0, 3)
        message.ack()
        assert await pair.far.read() == 1


@bounded(10)
async def test_an_iteration_that_was_cancelled_can_begin_again() -> None:
    async with connected() as pair:
        kept: list[BaseException] = []

        async def iterate() -> None:
            try:
                async for _ in pair.far:
                    pass
            except BaseException as error:
                kept.append(error)
                raise

        for _ in range(2):
            with anyio.move_on_after(0.01):
                await iterate()
        await pair.near.send("x")
        async for message in pair.far:
            assert message.data == "x"
            break
        assert len(kept) == 2
        kept.clear()


@bounded(10)
async def test_an_iteration_that_is_cancelled_while_others_run_has_acknowledged_what_was_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connected() as pair:
        receipts = await send_many(pair.near, 2)
        await until(lambda: pair.far.unread == 2)
        monkeypatch.setattr("networkio_asyncio._node._BREATH", 1)
        pair.far.node.breath = 1
        kept: list[BaseException] = []
        with anyio.CancelScope() as scope:
            try:
                async for _ in pair.far:
                    scope.cancel()
            except BaseException as error:
                kept.append(error)  # with its traceback, and the iterator in there
                raise
        await receipts[0].read()
        async for message in pair.far:
            assert (message.data, message.attempt) == (1, 1)
            break
        assert kept


@bounded(10)
async def test_there_is_one_iterator_at_a_time() -> None:
    async with connected() as pair:
        await send_many(pair.near, 2)
        async for message in pair.far:
            with pytest.raises(IteratorBusy, match="use receive"):
                aiter(pair.far)
            assert message.data == 0
            break
        iterator = aiter(pair.far)
        iterator.close()
        aiter(pair.far)


@bounded(10)
async def test_an_iteration_ends_where_the_peer_ended() -> None:
    async with connected() as pair:
        await send_many(pair.near, 3)
        pair.near.end()
        assert [message.data async for message in pair.far] == [0, 1, 2]
        await until(lambda: pair.near.ledger.read == 3)
        for call in (pair.far.read_nowait, pair.far.receive_nowait):
            with pytest.raises(NoMoreMessages, match="client ended the conversation"):
                call(default=None)
        with pytest.raises(NoMoreMessages):
            await pair.far.read()


# -- receipts ---------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_thousands_of_receipts_wait_and_each_is_woken_once() -> None:
    done: list[int] = []
    async with connected() as pair, anyio.create_task_group() as tasks:

        async def wait(receipt: Receipt) -> None:
            await receipt.read()
            done.append(receipt.sequence)

        for receipt in await send_many(pair.near, 2000):
            tasks.start_soon(wait, receipt)
        await anyio.sleep(0)
        await read_all(pair.far, 1000)
        await until(lambda: len(done) == 1000)
        assert max(done) == 1000
        await read_all(pair.far, 1000)
    assert sorted(done) == list(range(1, 2001))


@bounded(10)
async def test_every_receipt_has_an_end_when_the_session_is_aborted() -> None:
    ends: list[str] = []
    async with connected() as pair, anyio.create_task_group() as tasks:

        async def wait(call: Callable[[], Awaitable[None]]) -> None:
            try:
                await call()
                ends.append("fine")
            except MessageAbandoned as error:
                ends.append(error.outcome.value)

        for receipt in await send_many(pair.near, 500):
            tasks.start_soon(wait, receipt.read)
        for receipt in [await pair.client.send("stranger", 0) for _ in range(100)]:
            tasks.start_soon(wait, receipt.received)
        await pair.far.read()
        await until(lambda: pair.near.ledger.read == 1)
        pair.near.abort()
        pair.client.peer("stranger").abort()
    assert (ends.count("fine"), ends.count("abandoned")) == (1, 599)


# -- ending -----------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_drain_returns_when_everything_is_read_and_takes_nothing_new_meanwhile() -> None:
    async with connected() as pair:
        await send_many(pair.near, 20)
        async with anyio.create_task_group() as tasks:

            async def drain() -> None:
                ledger = await pair.near.drain()
                assert (ledger.accepted, ledger.read) == (20, 20)

            tasks.start_soon(drain)
            await anyio.sleep(0.01)
            with pytest.raises(SessionClosed, match="draining"):
                await pair.near.send("too late")
            await read_all(pair.far, 20)
        await pair.near.send("after")
        assert await pair.far.read() == "after"


@bounded(10)
async def test_drain_ends_with_its_timeout_and_while_disconnected() -> None:
    async with connected() as pair:
        await pair.near.send("unread")
        ledger = await pair.near.drain(0.05)
        assert (ledger.accepted, ledger.unread) == (1, 1)
        stranger = pair.client.peer("stranger")
        await stranger.send("x")
        assert (await stranger.drain(0.05)).unread == 1
        assert (await pair.client.drain(0.05)).unread == 2


@bounded(10)
async def test_drain_ends_when_the_session_is_aborted() -> None:
    async with connected() as pair:
        await pair.near.send("unread")
        async with anyio.create_task_group() as tasks:

            async def drain() -> None:
                assert (await pair.near.drain()).abandoned == 1

            tasks.start_soon(drain)
            await anyio.sleep(0.01)
            pair.near.abort()


@bounded(10)
async def test_a_disconnected_session_can_be_resumed() -> None:
    async with connected() as pair:
        await send_many(pair.near, 3)
        assert await pair.far.read() == 0
        pair.near.disconnect()
        assert not pair.near.connected
        await until(lambda: not pair.far.connected)
        await pair.near.send(3)
        await pair.far.send("back")
        await anyio.sleep(0.1)
        assert not pair.near.connected  # nobody dials
        await pair.client.connect("127.0.0.1", pair.listener.port, "server")
        assert await read_all(pair.far, 3) == [1, 2, 3]
        assert await pair.near.read() == "back"
        await until(lambda: pair.near.ledger.read == 4)


@pytest.mark.parametrize("first", ["near", "far", "both"])
@bounded(10)
async def test_when_both_have_ended_the_session_is_over_on_both_sides(first: str) -> None:
    got: dict[str, list[Any]] = {"near": [], "far": []}
    async with connected() as pair:
        ends = {"near": pair.near, "far": pair.far}
        await send_many(pair.near, 3)
        await send_many(pair.far, 3)

        async def read(name: str) -> None:
            async for message in ends[name]:
                got[name].append(message.data)
            if not ends[name].session.ending:
                ends[name].end()

        async with anyio.create_task_group() as tasks:
            for name, peer in ends.items():
                tasks.start_soon(read, name)
                if first in (name, "both"):
                    peer.end()
                    with pytest.raises(SessionClosed):
                        peer.send_nowait("too late")
        assert got == {"near": [0, 1, 2], "far": [0, 1, 2]}
        for side, peer in ((pair.client, pair.near), (pair.server, pair.far)):
            ended = await notice_of(side, SessionEnded)
            assert (ended.peer, ended.ledger.read, ended.ledger.unread) == (peer, 3, 0)
            with pytest.raises(NoMoreMessages):
                await peer.read()
        await until(lambda: not pair.near.connected and not pair.far.connected)


@bounded(10)
async def test_one_side_may_go_on_after_the_other_has_ended() -> None:
    async with connected() as pair:
        pair.near.end()
        assert (await notice_of(pair.server, PeerEnded)).peer is pair.far
        receipt = await pair.far.send("still here")
        assert await pair.near.read() == "still here"
        await receipt.read()


@bounded(10)
async def test_an_abort_reaches_the_other_side() -> None:
    async with connected() as pair:
        mine, theirs = await pair.near.send("x"), await pair.far.send("y")
        await mine.received()
        await theirs.received()
        pair.near.abort()
        assert mine.outcome is Outcome.ABANDONED
        with pytest.raises(MessageAbandoned, match="aborted by this side"):
            await mine.read()
        with pytest.raises(SessionClosed):
            await pair.near.send("z")
        await until(lambda: not pair.far.connected)
        assert pair.far.read_nowait() == "x"  # what came can be read


@bounded(10)
async def test_a_session_that_was_aborted_can_begin_anew() -> None:
    async with connected() as pair:
        await pair.near.send("x")
        await until(lambda: pair.far.unread)
        pair.near.abort()
        await until(lambda: not pair.far.connected)
        assert await read_all(pair.far, 1) == ["x"]
        with pytest.raises(NoMoreMessages):
            await pair.far.receive()
        await pair.client.connect("127.0.0.1", pair.listener.port, "server")
        await pair.far.wait_connected()
        receipt = await pair.near.send("y")
        assert await read_all(pair.far, 1) == ["y"]
        await receipt.read()


# -- what is told -----------------------------------------------------------------------------------------------------


@bounded(10)
async def test_why_says_what_the_messages_wait_for() -> None:
    async with connected() as pair:
        assert "nothing is waiting" in pair.near.why()
        receipt = await pair.near.send("x")
        await receipt.received()
        assert "the application of server has not acknowledged message 1" in pair.near.why()
        pair.near.disconnect()
        assert "no connection to server for 0.0 s" in pair.near.why()
        assert "waits to be dialled" in pair.near.why()


@bounded(10)
async def test_failures_are_ranges() -> None:
    async with node("client") as here:
        peer = here.peer("server")
        receipts = await send_many(peer, 10)
        for receipt in receipts[2:5]:
            await receipt.cancel()
        await receipts[7].cancel()
        assert [(f.first, f.last, f.outcome, f.seen) for f in peer.failures()] == [
            (3, 5, Outcome.CANCELLED, "no"),
            (8, 8, Outcome.CANCELLED, "no"),
        ]


# -- threads ----------------------------------------------------------------------------------------------------------


@bounded(10)
async def test_another_thread_is_refused_and_changes_nothing() -> None:
    refused: dict[str, BaseException] = {}
    async with connected(outbox_limit=500) as pair:
        await pair.near.send("x")
        message = await pair.far.receive()
        near, far, client = pair.near, pair.far, pair.client
        receipt = await near.send("y")
        unread = near.unacknowledged
        full = client.peer("full")
        fill(full)
        calls: dict[str, Callable[[], Any]] = {
            "ack": message.ack,
            "reject": message.reject,
            "release": message.release,
            "send_nowait": lambda: near.send_nowait("z"),
            "receive_nowait": far.receive_nowait,
            "end": near.end,
            "abort": near.abort,
            "disconnect": near.disconnect,
            "peer": lambda: client.peer("new"),
        }
        awaits: dict[str, Callable[[], Awaitable[Any]]] = {
            "send": lambda: near.send("z"),
            "send that would wait": lambda: full.send("z"),
            "receive": far.receive,
            "read": far.read,
            "drain": near.drain,
            "cancel": receipt.cancel,
            "receipt": receipt.read,
            "wait_connected": full.wait_connected,
            "next_notice": client.next_notice,
            "connect": lambda: client.connect("127.0.0.1", 1, "server"),
            "listen": lambda: client.listen("127.0.0.1", 0),
        }

        def try_all() -> None:
            for name, call in calls.items():
                try:
                    call()
                except WrongThread as error:
                    refused[name] = error
            for name, wait in awaits.items():
                try:
                    with_limit(wait)
                except WrongThread as error:
                    refused[name] = error

        def with_limit(wait: Callable[[], Awaitable[Any]]) -> None:
            async def run() -> None:
                with anyio.move_on_after(0.2):
                    await wait()

            anyio.run(run)

        thread = threading.Thread(target=try_all)
        thread.start()
        await until(lambda: not thread.is_alive())
        assert set(refused) == {*calls, *awaits}
        assert all("another thread" in str(error) for error in refused.values())
        assert message.held
        assert near.unacknowledged == unread
        message.ack()
        assert await far.read() == "y"
