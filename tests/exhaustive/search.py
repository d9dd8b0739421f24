"""Visit every state that any order of what may happen leads to.

Theory of operation
-------------------
A world that can be pickled is a node of a graph; what can happen next are its edges.  :func:`explore` walks the graph
depth first, forking the world for each edge, and stops where it has been: two worlds of one *name* have one future.
The name says everything that the future depends on, and leaves out what it does not (what a judge remembers, the hour).
Where nothing can happen any more, ``finish`` looks whether it came out right.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Generic, TypeVar

__all__ = ["Graph", "explore"]

World = TypeVar("World")
Move = TypeVar("Move", bound=Hashable)


@dataclass(slots=True)
class Graph(Generic[Move]):
    """What was found."""

    #: each state's followers
    after: dict[bytes, list[bytes]] = field(default_factory=dict)
    steps: int = 0
    ends: int = 0
    #: it was too big; what is here is a part
    cut_short: bool = False

    @property
    def states(self) -> int:
        return len(self.after)

    def orders(self) -> int:
        """How many ways lead from the first state to an end (there are no circles)."""
        ways: dict[bytes, int] = {}
        todo = [next(iter(self.after))]
        while todo:
            key = todo[-1]
            missing = [follower for follower in self.after[key] if follower not in ways]
            if missing:
                todo += missing
            else:
                ways[key] = sum(ways[follower] for follower in self.after[key]) if self.after[key] else 1
                todo.pop()
        return ways[next(iter(self.after))]


def explore(
    start: World,
    moves: Callable[[World], Iterable[Move]],
    make: Callable[[World, Move], object],
    name: Callable[[World], str],
    finish: Callable[[World], object],
    *,
    most: int = 1 << 60,
) -> Graph[Move]:
    """The whole graph, or about ``most`` states of it.  A failure tells the way that led to it."""
    graph: Graph[Move] = Graph()
    key = _digest(name(start))
    graph.after[key] = []
    todo: list[tuple[bytes, bytes, tuple[Move, ...]]] = [(key, pickle.dumps(start, -1), ())]
    while todo:
        key, dumped, path = todo.pop()
        world: World = pickle.loads(dumped)
        following = list(moves(world))
        if graph.states >= most:
            graph.cut_short = bool(todo or following)
            break
        if not following:
            graph.ends += 1
            _named(path, finish, world)
        for move in following:
            world = pickle.loads(dumped)
            _named((*path, move), make, world, move)
            graph.steps += 1
            follower = _digest(name(world))
            graph.after[key].append(follower)
            if follower not in graph.after:
                graph.after[follower] = []
                todo.append((follower, pickle.dumps(world, -1), (*path, move)))
    return graph


def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=12).digest()


def _named(path: tuple[Move, ...], function: Callable[..., object], *arguments: object) -> None:
    try:
        function(*arguments)
    except Exception as error:
        error.add_note(f"the way there: {path}")
        raise
