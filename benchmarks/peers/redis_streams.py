"""Redis streams, by redis-py: XADD in pipelines, a consumer group that reads and acknowledges in batches."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from benchmarks import ends

redis: Any = import_module("redis")

_BATCH = 100
_STREAM, _GROUP, _READER = "benchmark", "readers", "reader"


def broker(path: str, port: int, directory: str) -> Sequence[str]:
    """The command that starts the server."""
    options = {
        "--bind": "127.0.0.1", "--port": str(port), "--dir": directory, "--save": "", "--appendonly": "no",
        "--logfile": f"{directory}/log",
    }
    return [path, *(word for option in options.items() for word in option)]


class End(ends.End):
    """The reader at the server's end, as many writers as there are connections at the client's."""

    def listen(self, address: Any) -> Any:
        self.redis = redis.Redis(port=address)
        self.redis.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)
        return address

    def connect(self, address: Any) -> None:
        self.writers = [redis.Redis(port=address) for _ in range(self.plan.connections)]
        for writer in self.writers:
            writer.ping()

    def send(self, count: int) -> None:
        """Returns when the broker has answered all."""
        message = {b"m": self.plan.payload}
        if self.plan.size * _BATCH > 1 << 24:
            batch = max(1, (1 << 24) // self.plan.size)  # a pipeline is held in memory whole
        else:
            batch = _BATCH
        left = dict(zip(self.writers, ends.shares(count, len(self.writers)), strict=True))
        while left:
            for writer, more in list(left.items()):
                pipeline = writer.pipeline(transaction=False)
                for _ in range(min(batch, more)):
                    pipeline.xadd(_STREAM, message)
                pipeline.execute()
                if more <= batch:
                    del left[writer]
                else:
                    left[writer] = more - batch

    def receive(self, count: int) -> None:
        """Returns when the broker has answered the ack of the last."""
        xreadgroup, xack = self.redis.xreadgroup, self.redis.xack
        while count > 0:
            replies = xreadgroup(_GROUP, _READER, {_STREAM: ">"}, count=_BATCH, block=1000)
            for _, messages in replies.items() if isinstance(replies, dict) else replies or ():
                xack(_STREAM, _GROUP, *[number for number, _ in messages])
                count -= len(messages)

    def rest(self) -> None:
        if self.plan.role == "server":
            self.redis.xtrim(_STREAM, maxlen=0, approximate=False)

    def hoard(self, count: int) -> None:
        self.send(count)

    def back(self, count: int) -> None:
        if self.plan.role == "server":
            self.receive(count)
