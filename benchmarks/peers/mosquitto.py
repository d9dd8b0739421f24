"""MQTT at QoS 1: paho-mqtt, each client with the thread of its own that ``loop_start`` makes, and mosquitto."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import ends

mqtt: Any = import_module("paho.mqtt.client")

_INFLIGHT = 1000
_TOPIC = "benchmark"


def broker(path: str, port: int, directory: str, *, persistent: bool = False) -> Sequence[str]:
    """The command that starts the server; ``persistent``: it writes what it holds to a file, now and then."""
    persistence = f"true\npersistence_location {directory}/" if persistent else "false"
    settings = (
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\npersistence {persistence}\n"
        "max_inflight_messages 0\nmax_queued_messages 0\nmax_inflight_bytes 0\nmax_queued_bytes 0\nlog_type error\n"
    )
    if os.geteuid() == 0:
        settings += "user root\n"  # else it drops its privileges, and cannot read a directory that is ours
    file = Path(directory, "mosquitto.conf")
    file.write_text(settings, encoding="ascii")
    return [path, "-c", str(file)]


class Tally:
    """Counts in one thread, waits in another."""

    def __init__(self) -> None:
        self.count = 0
        self.target = 0
        self._lock = threading.Lock()
        self._reached = threading.Event()

    def one(self, *_: Any) -> None:
        """One more."""
        with self._lock:
            self.count += 1
            if self.count == self.target:
                self._reached.set()

    def aim(self, more: int) -> None:
        """So many more are expected."""
        with self._lock:
            self.target += more
            self._reached.clear()
            if self.count >= self.target:
                self._reached.set()

    def wait(self) -> None:
        """Until they are there."""
        self._reached.wait()


class End(ends.End):
    """The subscriber at the server's end, as many publishers as there are connections at the client's."""

    def __init__(self, plan: ends.Plan) -> None:
        super().__init__(plan)
        self.tally = Tally()

    def _client(self, name: str, address: int, *, clean: bool, on_message: Any = None) -> Any:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean)
        client.max_inflight_messages_set(_INFLIGHT)
        client.max_queued_messages_set(0)
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.on_message = on_message  # before it connects: what was kept for it comes at once
        client.connect("127.0.0.1", address)
        client.loop_start()
        connected.wait()
        return client

    def listen(self, address: Any) -> Any:
        self.address = address
        self._subscribe()
        return address

    def _subscribe(self) -> None:
        subscribed = threading.Event()
        self.client = self._client("subscriber", self.address, clean=False, on_message=self.tally.one)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.subscribe(_TOPIC, qos=1)
        subscribed.wait()

    def connect(self, address: Any) -> None:
        self.clients = [
            self._client(f"publisher-{number}", address, clean=True) for number in range(self.plan.connections)
        ]
        for client in self.clients:
            client.on_publish = self.tally.one

    def send(self, count: int) -> None:
        """Returns when the broker has acknowledged all."""
        self.tally.aim(count)
        payload = self.plan.payload
        for client, share in zip(self.clients, ends.shares(count, len(self.clients)), strict=True):
            publish = client.publish
            for _ in range(share):
                publish(_TOPIC, payload, qos=1)
        self.tally.wait()

    def receive(self, count: int) -> None:
        self.tally.aim(count)
        self.tally.wait()

    def away(self) -> None:
        if self.plan.role == "server":
            self.client.disconnect()
            self.client.loop_stop()

    def hoard(self, count: int) -> None:
        self.send(count)

    def back(self, count: int) -> None:
        if self.plan.role == "server":
            self.tally.target = self.tally.count  # a PUBACK that was not out yet when it left: a message came twice
            self.tally.aim(count)
            self._subscribe()
            self.tally.wait()
