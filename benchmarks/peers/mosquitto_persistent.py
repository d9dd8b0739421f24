"""As :mod:`~benchmarks.peers.mosquitto`, with a broker that writes what it holds to a file."""

from __future__ import annotations

from functools import partial

from benchmarks.peers import mosquitto
from benchmarks.peers.mosquitto import End

__all__ = ["End", "broker"]

broker = partial(mosquitto.broker, persistent=True)
