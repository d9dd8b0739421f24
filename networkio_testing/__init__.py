"""Break things on purpose: a simulated network for the core, its judges, and a chaos proxy for real sockets.

``world`` runs any number of real cores on a virtual clock, ``node`` gives them an application's interface, ``judges``
watch them, and ``proxy`` stands between two real programs.  ``network`` has the words in which a test breaks a network:
``simulated`` is one of those nodes, ``virtual`` one of nodes of networkio_asyncio, on a ``loop`` with a virtual clock.
``disk``, ``clocks`` and ``adversary`` are what machines and strangers do; ``durable`` and ``stalls`` judge that.
``game`` is everything that may go wrong, ``swarm`` draws games at random onto a ``tape``; ``run``, ``replay`` and
``shrink`` are the commands of ``python -m networkio_testing``.  Everything is repeatable from a seed.
"""

from .judges import Judge, Violation
from .loop import NotVirtual, VirtualLoop, run_virtual
from .network import Network, Unfinished
from .node import SimulatedMessage, SimulatedNode, SimulatedPeer, SimulatedReceipt, Stuck
from .proxy import Chaos, ChaosProxy
from .simulated import SimulatedNetwork
from .virtual import VirtualNetwork
from .world import Host, Pipe, Wire, World

__all__ = [
    "Chaos",
    "ChaosProxy",
    "Host",
    "Judge",
    "Network",
    "NotVirtual",
    "Pipe",
    "SimulatedMessage",
    "SimulatedNetwork",
    "SimulatedNode",
    "SimulatedPeer",
    "SimulatedReceipt",
    "Stuck",
    "Unfinished",
    "Violation",
    "VirtualLoop",
    "VirtualNetwork",
    "Wire",
    "World",
    "run_virtual",
]
