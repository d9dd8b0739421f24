"""One handler for all peers: what it returns from is acknowledged, what it fails on comes again.

You see a message that succeeds at its second attempt, one that the handler rejects with words of its own, and one that
fails once too often and is rejected for it.  The sender learns from each receipt how its message ended.

    python examples/handlers.py
"""

import logging

import anyio

from networkio_asyncio import Message, MessageRejected, Node


async def handle(message: Message) -> None:
    print(f"attempt {message.attempt} at {message.data!r} of {message.peer.id}")
    match message.data:
        case {"divide": [_, 0]}:
            message.reject("division by zero is not offered here")
        case {"divide": [dividend, divisor]}:
            print(dividend / divisor)
        case "flaky" if message.attempt == 1:
            raise ConnectionError("the database is restarting")  # the message is given back and comes again
        case "flaky":
            print("done")


async def main() -> None:
    logging.getLogger("networkio").setLevel(logging.CRITICAL)  # failing handlers are logged with their traceback
    async with Node("worker") as worker, Node("boss") as boss, anyio.create_task_group() as tasks:
        listener = await worker.listen("127.0.0.1", 0)
        tasks.start_soon(lambda: worker.serve(handle, max_attempts=3))
        peer = await boss.connect("127.0.0.1", listener.port, "worker")
        for data in ({"divide": [1, 2]}, {"divide": [1, 0]}, "flaky", {"divide": [1, "x"]}):
            receipt = await peer.send(data)
            try:
                await receipt.read()
            except MessageRejected as error:
                print(f"boss: {data} was rejected: {error.reason}")
            else:
                print(f"boss: {data} was read")
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
