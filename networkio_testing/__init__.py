"""Break things on purpose: a simulated network for the core, its judges, and a chaos proxy for real sockets.

``world`` runs any number of real cores on a virtual clock, ``node`` gives them an application's interface, ``judges``
watch them, and ``proxy`` stands between two real programs.  ``disk``, ``clocks`` and ``adversary`` are what machines
and strangers do to them, ``durable`` and ``stalls`` the judges for that.  ``game`` is everything that may go wrong,
``swarm`` draws games at random onto a ``tape``; ``run``, ``replay`` and ``shrink`` are the commands of
``python -m networkio_testing``.
Everything is repeatable from a seed.
"""

from .judges import Judge, Violation
from .node import SimulatedMessage, SimulatedNode, SimulatedPeer, SimulatedReceipt, Stuck
from .proxy import Chaos, ChaosProxy
from .world import Host, Pipe, Wire, World

__all__ = [
    "Chaos",
    "ChaosProxy",
    "Host",
    "Judge",
    "Pipe",
    "SimulatedMessage",
    "SimulatedNode",
    "SimulatedPeer",
    "SimulatedReceipt",
    "Stuck",
    "Violation",
    "Wire",
    "World",
]
