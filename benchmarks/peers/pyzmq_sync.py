"""pyzmq with blocking calls: PUSH/PULL one way and REQ/REP for round trips.  A socket belongs to one thread."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks import ends

zmq: Any = import_module("zmq")

#: pyzmq sends without a copy from here on; below, a copy is cheaper
_COPY_BELOW = 64 * 1024


class End(ends.End):
    """A pair of sockets for each direction, and one for round trips; more PUSH sockets where there are many clients."""

    def __init__(self, plan: ends.Plan) -> None:
        super().__init__(plan)
        self.context = self.make_context()
        self.context.set(zmq.MAX_SOCKETS, 16_384)
        self.copy = plan.size < _COPY_BELOW

    def make_context(self) -> Any:
        return zmq.Context()

    def _socket(self, kind: int) -> Any:
        sock = self.context.socket(kind)
        sock.set_hwm(0)
        sock.linger = 0
        return sock

    def listen(self, address: Any) -> Any:
        self.pull, self.push, self.rep = self._socket(zmq.PULL), self._socket(zmq.PUSH), self._socket(zmq.REP)
        self.pull.backlog = 4096
        self.port = self.pull.bind_to_random_port("tcp://127.0.0.1")
        return [self.port] + [sock.bind_to_random_port("tcp://127.0.0.1") for sock in (self.push, self.rep)]

    def connect(self, address: Any) -> Any:
        self.pushes = [self._socket(zmq.PUSH) for _ in range(self.plan.connections)]
        self.pull, self.req = self._socket(zmq.PULL), self._socket(zmq.REQ)
        self.address = f"tcp://127.0.0.1:{address[0]}"
        for sock in self.pushes:
            sock.connect(self.address)
        self.pull.connect(f"tcp://127.0.0.1:{address[1]}")
        self.req.connect(f"tcp://127.0.0.1:{address[2]}")

    def send(self, count: int) -> Any:
        payload, copy = self.plan.payload, self.copy
        if len(self.pushes) == 1:
            send = self.pushes[0].send
            for _ in range(count):
                send(payload, copy=copy)
            return
        sends = [sock.send for sock in self.pushes]
        for _ in range(count // len(sends)):
            for send in sends:
                send(payload, copy=copy)
        for send in sends[: count % len(sends)]:
            send(payload, copy=copy)

    def receive(self, count: int) -> Any:
        recv, copy = self.pull.recv, self.copy
        for _ in range(count):
            recv(copy=copy)

    def send_back(self, count: int) -> Any:
        send, payload, copy = self.push.send, self.plan.payload, self.copy
        for _ in range(count):
            send(payload, copy=copy)

    def ask(self, count: int, seconds: float) -> Any:
        return ends.round_trips(self.req.send, self.req.recv, self.plan.payload, count, seconds)

    def answer(self) -> Any:
        send, recv = self.rep.send, self.rep.recv
        while True:
            send(recv())

    def away(self) -> None:
        """The receiver's socket closes; the sender makes a new one, whose queue fills until somebody is there."""
        if self.plan.role == "server":
            self.pull.close()
            return
        self.pushes[0].close()
        self.pushes = [self._socket(zmq.PUSH)]
        self.pushes[0].reconnect_ivl = 1
        self.pushes[0].connect(self.address)

    def hoard(self, count: int) -> None:
        self.send(count)

    def back(self, count: int) -> None:
        if self.plan.role == "server":
            self.pull = self._socket(zmq.PULL)
            self.pull.bind(f"tcp://127.0.0.1:{self.port}")
            self.receive(count)
