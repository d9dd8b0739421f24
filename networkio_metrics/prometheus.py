"""A node's statistics for Prometheus: a collector that looks at the node when it is scraped, and at no other time.

::

    registry.register(NodeCollector(node))                               # networkio_threads

    async with BlockingPortal() as portal:                               # networkio_asyncio, on asyncio and on trio
        registry.register(NodeCollector(node, call=portal.call))

Every series carries ``node``.  Without ``peers`` a figure is one series: all peers together.  With ``peers`` it is one
for each of those, and one whose ``peer`` is ``(others)``; so its number is bounded by whoever chose them.

Needs the extra ``prometheus``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, TypeAlias

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "networkio_metrics.prometheus needs prometheus-client; install it with: pip install networkio[prometheus]"
    ) from error

from networkio_proto import NodeStatistics

from ._figures import COUNTERS, GAUGES, NODE_COUNTERS, NODE_GAUGES, Call, Figure, Node, NodeFigure, Source

__all__ = ["NodeCollector"]

Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily


class NodeCollector(Collector):
    """The statistics of one node; register it with a ``CollectorRegistry``.

    ``peers``: the ids that get series of their own.  ``call``: runs a function in the thread that owns the node, for a
    node of an event loop (``BlockingPortal.call``); not needed with ``networkio_threads``, nor where the registry is
    rendered in the loop's own thread.  ``prefix`` begins every name.
    """

    def __init__(
        self, node: Node, *, peers: Collection[str] = (), call: Call | None = None, prefix: str = "networkio"
    ) -> None:
        self._source = Source(node, peers, call)
        self._prefix = prefix

    def describe(self) -> Iterator[Family]:
        """The names, without asking the node: registering may happen anywhere."""
        for kind, figures in _PEERS:
            for figure in figures:
                yield self._family(kind, figure, peers=True)
        for kind, node_figures in _NODE:
            for node_figure in node_figures:
                yield self._family(kind, node_figure, peers=False)

    def collect(self) -> Iterator[Family]:
        """Look at the node now.  Raises what the node raises (WrongThread where ``call`` is missing)."""
        seen = self._source.look()
        rows = list(self._source.rows(seen))
        for kind, figures in _PEERS:
            for figure in figures:
                family = self._family(kind, figure, peers=True)
                for peer, statistics in rows:
                    own = [self._source.node_id, *([] if peer is None else [peer])]
                    for labels, value in figure.values(statistics):
                        family.add_metric([*own, *labels.values()], value)
                yield family
        yield from self._of_node(seen)

    def _of_node(self, seen: NodeStatistics) -> Iterator[Family]:
        for kind, figures in _NODE:
            for figure in figures:
                family = self._family(kind, figure, peers=False)
                for labels, value in figure.values(seen):
                    family.add_metric([self._source.node_id, *labels.values()], value)
                yield family

    def _family(self, kind: Any, figure: Figure | NodeFigure, *, peers: bool) -> Family:
        labels = ["node"]
        if peers and self._source.peers:
            labels.append("peer")
        if figure.by:
            labels.append(figure.by)
        family: Family = kind(f"{self._prefix}_{figure.name}", figure.meaning, labels=labels)
        return family


_PEERS = ((CounterMetricFamily, COUNTERS), (GaugeMetricFamily, GAUGES))
_NODE = ((CounterMetricFamily, NODE_COUNTERS), (GaugeMetricFamily, NODE_GAUGES))
