"""Real processes killed with SIGKILL and started again (promises G5 and G6)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from networkio_asyncio import Node, PeerRestarted
from tests.adapters.helpers import HASTY, bounded, node, notice_of, read_all, until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]

#: a small window, so that a part of the messages is never transmitted
CONFIG = replace(HASTY, window=4000, window_guaranteed=4000, window_max=4000, probe_timeout=0.2)


async def receive(port: int, log: Path, acknowledged: int) -> None:
    """A receiver: writes down what comes, acknowledges the first of it and then holds the rest."""
    async with Node("receiver", config=CONFIG) as here:
        peer = await here.connect("127.0.0.1", port, "sender")
        with log.open("a", encoding="utf-8", buffering=1) as out:
            count = 0
            while True:
                message = await peer.receive()
                print(json.dumps([message.data, message.redelivered, message.attempt, len(message.gap)]), file=out)
                count += 1
                if count <= acknowledged:
                    message.ack()


async def send(port: int, life: str) -> None:
    """A sender: ten messages, and then it waits to be killed."""
    async with Node("sender", config=CONFIG) as here:
        peer = await here.connect("127.0.0.1", port, "receiver")
        for number in range(10):
            await peer.send([life, number])
        await anyio.sleep_forever()


class Processes:
    """Programs of this module, each in a process of its own."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, program: str, *arguments: object) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.adapters.test_restart", self._backend, program]
        self._running.append(subprocess.Popen([*command, *map(str, arguments)], cwd=ROOT))

    def kill(self) -> None:
        """SIGKILL the one that runs."""
        process = self._running.pop()
        assert process.poll() is None
        process.kill()
        process.wait()

    def close(self) -> None:
        while self._running:
            process = self._running.pop()
            process.kill()
            process.wait()


@pytest.fixture
def processes(anyio_backend: str) -> Iterator[Processes]:
    made = Processes(anyio_backend)
    yield made
    made.close()


def lines(log: Path) -> list[list[Any]]:
    """What a receiver wrote down; a line that was cut short by the kill does not count."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]


@bounded(60)
async def test_a_killed_receiver_gets_every_unread_message_again(processes: Processes, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    async with Node("sender", config=CONFIG) as here:
        listener = await here.listen("127.0.0.1", 0)
        peer = here.peer("receiver")
        for number in range(200):
            await peer.send(number)
        processes.start("receive", listener.port, first, 30)
        await until(lambda: len(lines(first)) >= 60 and peer.ledger.read == 30, 40)
        processes.kill()
        await until(lambda: not peer.connected)
        transmitted = peer.session.outbox.sent
        assert 60 <= transmitted < 200
        for number in range(200, 220):
            await peer.send(number)

        processes.start("receive", listener.port, second, 10_000)
        await until(lambda: not peer.unacknowledged, 40)
        assert [number for number, *_ in lines(first)] == list(range(len(lines(first))))
        again = lines(second)
        assert [number for number, *_ in again] == list(range(30, 220))  # nothing is missing, nothing is doubled
        assert [number for number, redelivered, *_ in again if redelivered] == list(range(30, transmitted))
        assert all((attempt, gaps) == (1, 0) for _, _, attempt, gaps in again)
        assert not any(redelivered for _, redelivered, *_ in lines(first))
        assert (await notice_of(here, PeerRestarted)).peer is peer
        assert peer.ledger.read == 220


@bounded(60)
async def test_a_receiver_killed_again_and_again_misses_nothing(processes: Processes, tmp_path: Path) -> None:
    logs = [tmp_path / str(life) for life in range(4)]
    async with Node("sender", config=CONFIG) as here:
        listener = await here.listen("127.0.0.1", 0)
        peer = here.peer("receiver")
        for life, log in enumerate(logs):
            last = log is logs[-1]
            for number in range(life * 100, life * 100 + 100):
                await peer.send(number)
            processes.start("receive", listener.port, log, 10_000 if last else 20 + life)
            if last:
                await until(lambda: not peer.unacknowledged, 40)
            else:
                await until(lambda log=log, life=life: len(lines(log)) > 20 + life, 40)  # type: ignore[misc]
                processes.kill()
        assert peer.ledger.read == peer.ledger.accepted == 400
    seen: set[int] = set()
    for log in logs:
        life_of = lines(log)
        numbers = [number for number, *_ in life_of]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        for number, redelivered, *_ in life_of:
            assert redelivered or number not in seen  # what was seen before is flagged
        seen.update(numbers)
    assert seen == set(range(400))


@bounded(60)
async def test_a_killed_sender_is_told_of_with_its_first_new_message(processes: Processes) -> None:
    async with node("receiver", probe_timeout=0.2) as here:
        listener = await here.listen("127.0.0.1", 0)
        peer = here.peer("sender")
        processes.start("send", listener.port, "old")
        assert await read_all(peer, 4) == [["old", number] for number in range(4)]
        await until(lambda: peer.unread == 6, 40)
        processes.kill()
        processes.start("send", listener.port, "new")
        assert await read_all(peer, 6) == [["old", number] for number in range(4, 10)]  # what came is kept
        message = await peer.receive()
        assert message.data == ["new", 0]
        assert message.peer_restarted is not None
        assert (message.peer_restarted.received, message.redelivered) == (10, False)
        message.ack()
        message = await peer.receive()
        assert (message.data, message.peer_restarted) == (["new", 1], None)
        message.ack()
        assert (await notice_of(here, PeerRestarted)).peer is peer
        assert await read_all(peer, 8) == [["new", number] for number in range(2, 10)]


def main(backend: str, program: str, *arguments: str) -> None:
    if program == "receive":
        anyio.run(receive, int(arguments[0]), Path(arguments[1]), int(arguments[2]), backend=backend)
    else:
        anyio.run(send, int(arguments[0]), arguments[1], backend=backend)


if __name__ == "__main__":
    main(*sys.argv[1:])
