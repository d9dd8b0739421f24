"""Requests and replies keep what the guarantees say of them (*Requests*), through cuts, refusals, and ends."""

from __future__ import annotations

import anyio
import pytest

from networkio_asyncio import Message, MessageRejected, NoMoreMessages, NotARequest
from networkio_testing.proxy import ChaosProxy
from tests.adapters.helpers import bounded, connected, node, read_all, until

pytestmark = pytest.mark.anyio


@bounded(20)
async def test_each_asker_gets_its_own_reply_and_replies_are_no_messages() -> None:
    async with connected() as pair, anyio.create_task_group() as tasks:
        answers: dict[int, int] = {}

        async def ask(number: int) -> None:
            answers[number] = await pair.near.request(number)

        for number in range(20):
            tasks.start_soon(ask, number)
        await pair.far.send("a message")
        for message in [await pair.far.receive() for _ in range(20)][::-1]:  # the last one first
            assert message.wants_reply
            await message.reply(message.data * 10)
            message.ack()
        await pair.far.send("another one")
        assert await read_all(pair.near, 2) == ["a message", "another one"]
        await until(lambda: len(answers) == 20)
        assert answers == {number: number * 10 for number in range(20)}


@bounded(20)
async def test_a_request_and_its_reply_survive_cuts() -> None:
    async with node("server") as server, node("client") as client:
        listener = await server.listen("127.0.0.1", 0)
        async with ChaosProxy("127.0.0.1", listener.port) as proxy, anyio.create_task_group() as tasks:
            async def answer(message: Message) -> None:
                proxy.cut_all()  # before the reply, whose connection is gone
                await message.reply(message.data + 1)

            tasks.start_soon(server.serve, answer)
            peer = await client.connect(proxy.host, proxy.port, "server")
            assert [await peer.request(number) for number in range(5)] == [1, 2, 3, 4, 5]
            assert proxy.cuts >= 5
            tasks.cancel_scope.cancel()


@bounded(20)
async def test_a_request_that_nobody_holds_is_cancelled_with_its_asker() -> None:
    async with node("client") as client, node("server") as server:
        peer = client.peer("server")
        with pytest.raises(TimeoutError, match="no connection to server"):
            await peer.request("never mind", timeout=0.02)
        assert peer.ledger.cancelled == 1
        listener = await server.listen("127.0.0.1", 0)
        await client.connect("127.0.0.1", listener.port, "server")
        await peer.send("but this")
        assert await server.peer("client").read() == "but this"


@bounded(20)
async def test_a_reply_that_comes_too_late_is_dropped() -> None:
    async with connected() as pair:
        with pytest.raises(TimeoutError, match="did not reply"):
            await pair.near.request("quick!", timeout=0.05)
        message = await pair.far.receive()
        await (await message.reply("at last")).read()  # taken, so that it fills nobody's window, and dropped
        message.ack()
        await pair.far.send("a message")
        assert await pair.near.read() == "a message"


@bounded(20)
async def test_a_rejected_request_tells_its_asker_why() -> None:
    async with connected() as pair, anyio.create_task_group() as tasks:
        async def refuse() -> None:
            (await pair.far.receive()).reject("no", code=7)

        tasks.start_soon(refuse)
        with pytest.raises(MessageRejected) as caught:
            await pair.near.request("please")
        assert (caught.value.reason, caught.value.code) == ("no", 7)


@bounded(20)
async def test_an_asker_is_told_that_the_peer_ended_without_a_reply() -> None:
    async with connected() as pair, anyio.create_task_group() as tasks:
        async def read_and_end() -> None:
            await pair.far.read()
            pair.far.end()

        tasks.start_soon(read_and_end)
        with pytest.raises(NoMoreMessages, match="did not reply"):
            await pair.near.request("are you there?")


@bounded(20)
async def test_a_message_that_is_no_request_takes_no_reply() -> None:
    async with connected() as pair:
        await pair.near.send("just so")
        message = await pair.far.receive()
        assert not message.wants_reply
        with pytest.raises(NotARequest):
            await message.reply("thanks")
        message.ack()
