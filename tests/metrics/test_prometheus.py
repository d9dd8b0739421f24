"""The collector tells what the node's statistics tell, in as many series as were asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.from_thread import BlockingPortal
from prometheus_client import CollectorRegistry, generate_latest

import networkio_asyncio
from networkio_metrics import _figures
from networkio_metrics.prometheus import NodeCollector
from networkio_proto import Endpoint, NodeStatistics, Statistics, WrongThread
from tests.metrics.helpers import connected

ROOT = Path(__file__).parents[2]


class Fixed:
    """A node whose statistics are given."""

    id = "n"

    def __init__(self, **peers: Statistics) -> None:
        self.looks = 0
        self._peers = peers

    def statistics(self, peers: Collection[str] | None = None) -> NodeStatistics:
        self.looks += 1
        told = {peer: part for peer, part in self._peers.items() if peers is None or peer in peers}
        return NodeStatistics(
            peers=told, others=Statistics.total(part for peer, part in self._peers.items() if peer not in told),
            known=len(self._peers), dials_failed=1, handshakes_failed={"timeout": 2}, handshakes=3, inbox_reserved=4,
        )  # fmt: skip


def registry(collector: NodeCollector) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(collector)
    return made


def test_a_conversation_is_told_as_one_series_for_each_figure() -> None:
    with connected() as pair:
        receipts = pair.near.send_many(["one", "two"])
        pair.far.read(10)
        pair.far.receive(10).reject("no")
        pair.near.drain(10)
        assert receipts[0].outcome is not None
        found = registry(NodeCollector(pair.client))
        node = {"node": "client"}
        assert found.get_sample_value("networkio_messages_accepted_total", node) == 2
        assert found.get_sample_value("networkio_messages_read_total", node) == 1
        assert found.get_sample_value("networkio_messages_failed_total", {**node, "outcome": "rejected"}) == 1
        assert found.get_sample_value("networkio_connected", node) == 1
        assert found.get_sample_value("networkio_peers", node) == 1
        assert found.get_sample_value("networkio_round_trip_seconds", node) is None
        assert registry(NodeCollector(pair.server)).get_sample_value(
            "networkio_messages_taken_in_total", {"node": "server"}
        ) == 2


def test_peers_have_series_only_by_choice_and_the_others_are_one() -> None:
    peers = {f"p{number}": Statistics(accepted=number, disconnects={"lost": 1}) for number in range(1, 101)}
    node = Fixed(**peers)
    alone = generate_latest(registry(NodeCollector(node))).decode()
    assert alone.count("\nnetworkio_messages_accepted_total{") == 1
    assert 'networkio_messages_accepted_total{node="n"} 5050.0' in alone
    chosen = generate_latest(registry(NodeCollector(node, peers=["p7", "p7", "unheard of"]))).decode()
    assert [line for line in chosen.splitlines() if line.startswith("networkio_messages_accepted_total{")] == [
        'networkio_messages_accepted_total{node="n",peer="p7"} 7.0',
        'networkio_messages_accepted_total{node="n",peer="(others)"} 5043.0',
    ]
    assert 'networkio_disconnects_total{cause="lost",node="n",peer="(others)"} 99.0' in chosen
    assert 'networkio_handshakes_failed_total{cause="timeout",node="n"} 2.0' in chosen


def test_registering_does_not_ask_the_node_and_a_scrape_asks_once() -> None:
    node = Fixed()
    made = registry(NodeCollector(node, prefix="mine"))
    assert node.looks == 0
    text = generate_latest(made).decode()
    assert node.looks == 1
    assert 'mine_inbox_reserved_cost{node="n"} 4.0' in text
    assert "networkio_" not in text


def test_what_is_described_is_what_is_collected() -> None:
    collector = NodeCollector(Fixed(a=Statistics()), peers=["a"])
    described = [(family.name, family.type) for family in collector.describe()]
    assert described == [(family.name, family.type) for family in collector.collect()]
    assert len(set(described)) == len(described)


def test_every_figure_of_the_core_is_published() -> None:
    published = set()

    class Spy:
        def __getattr__(self, name: str) -> int:
            published.add(name)
            return 0

    for figure in (*_figures.COUNTERS, *_figures.GAUGES):
        figure.read(Spy())  # type: ignore[arg-type]
    positions = {"transmitted", "received"}  # no counters: they tell where one outbox stands
    outcomes = {"rejected", "expired", "cancelled", "lost", "abandoned"}  # together: ``failed``
    times = {"connected_since"}
    names = {field.name for field in fields(Statistics)} | {"failed"}
    assert published == names - positions - outcomes - times


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_node_of_an_event_loop_is_asked_in_its_own_thread(backend: str) -> None:
    async def main() -> None:
        async with networkio_asyncio.Node("loop") as node, BlockingPortal() as portal:
            node.peer("somebody")
            made = registry(NodeCollector(node, call=portal.call))
            text = await anyio.to_thread.run_sync(generate_latest, made)
            assert b'networkio_peers{node="loop"} 1.0' in text
            with pytest.raises(WrongThread):
                await anyio.to_thread.run_sync(generate_latest, registry(NodeCollector(node)))
            assert b'networkio_peers{node="loop"} 1.0' in generate_latest(registry(NodeCollector(node)))

    anyio.run(main, backend=backend)


def test_an_endpoint_of_a_driver_of_ones_own_will_do() -> None:
    class Own:
        id = "own"

        def __init__(self) -> None:
            self.endpoint = Endpoint("own")

        def statistics(self, peers: Collection[str] | None = None) -> NodeStatistics:
            return self.endpoint.statistics(0.0, peers)

    assert registry(NodeCollector(Own())).get_sample_value("networkio_peers", {"node": "own"}) == 0


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [("prometheus", "prometheus_client", "prometheus"), ("otel", "opentelemetry", "otel")],
)
def test_without_the_extra_the_import_says_what_to_install(module: str, missing: str, extra: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import networkio_metrics.{module}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert f"pip install networkio[{extra}]" in done.stderr.splitlines()[-1]
