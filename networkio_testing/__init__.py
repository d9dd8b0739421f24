"""Break things on purpose: a simulated network for the core, its judges, and a chaos proxy for real sockets.

``world`` runs any number of real cores on a virtual clock, ``judges`` watch it, and ``proxy`` stands between two real
programs.  Everything is repeatable from a seed.
"""

from .judges import Judge, Violation
from .proxy import Chaos, ChaosProxy
from .world import Host, Pipe, Wire, World

__all__ = ["Chaos", "ChaosProxy", "Host", "Judge", "Pipe", "Violation", "Wire", "World"]
