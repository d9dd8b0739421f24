"""pynng with blocking calls: Push0/Pull0 one way, Pair0 both ways, Req0/Rep0 for round trips."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks import ends

pynng: Any = import_module("pynng")

#: messages that nng buffers at most, at either side
_BUFFER = 8192


class End(ends.End):
    """A socket of each kind; more Push0 sockets where there are many clients."""

    def _socket(self, kind: Any, port: int = 0) -> Any:
        sock = kind(recv_max_size=0)
        for option in ("send_buffer_size", "recv_buffer_size"):
            try:
                setattr(sock, option, _BUFFER)
            except pynng.exceptions.NotSupported:  # not every kind has both
                pass
        if port:
            sock.dial(f"tcp://127.0.0.1:{port}", block=True)
        return sock

    def _listening(self, kind: Any) -> tuple[Any, int]:
        sock = self._socket(kind)
        listener = sock.listen("tcp://127.0.0.1:0")
        return sock, int(str(listener.local_address).rsplit(":", 1)[1])

    def listen(self, address: Any) -> list[int]:
        self.pull, one = self._listening(pynng.Pull0)
        self.pair, two = self._listening(pynng.Pair0)
        self.rep, three = self._listening(pynng.Rep0)
        return [one, two, three]

    def connect(self, address: Any) -> None:
        self.pushes = [self._socket(pynng.Push0, address[0]) for _ in range(self.plan.connections)]
        self.pair = self._socket(pynng.Pair0, address[1])
        self.req = self._socket(pynng.Req0, address[2])

    @property
    def both_ways(self) -> bool:
        return bool(self.plan.settings.get("both"))

    def send(self, count: int) -> None:
        payload = self.plan.payload
        if self.both_ways:
            self._pair_send(count)
        elif len(self.pushes) == 1:
            send = self.pushes[0].send
            for _ in range(count):
                send(payload)
        else:
            sends = [sock.send for sock in self.pushes]
            for number in range(count):
                sends[number % len(sends)](payload)

    def receive(self, count: int) -> None:
        recv = self.pair.recv if self.both_ways else self.pull.recv
        for _ in range(count):
            recv()

    def _pair_send(self, count: int) -> None:
        send, payload = self.pair.send, self.plan.payload
        for _ in range(count):
            send(payload)

    def ask(self, count: int, seconds: float) -> list[float]:
        return ends.round_trips(self.req.send, self.req.recv, self.plan.payload, count, seconds)

    def answer(self) -> None:
        send, recv = self.rep.send, self.rep.recv
        while True:
            send(recv())
