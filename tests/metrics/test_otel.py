"""Spans for messages sent and handled, of one trace across nodes; and the statistics as observable instruments."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from networkio_metrics import _figures, otel
from networkio_metrics.otel import Tracing, observe
from networkio_proto import HandedOver, Statistics
from tests.metrics.helpers import Pair, connected
from tests.metrics.test_prometheus import Fixed


class Spans:
    """What was exported, by name."""

    def __init__(self) -> None:
        self._exporter, self.provider = InMemorySpanExporter(), TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = trace.get_tracer("test", tracer_provider=self.provider)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def pair(spans: Spans) -> Iterator[Pair]:
    """Both sides trace."""
    with connected(
        client={"instrumentation": Tracing(spans.provider)}, server={"instrumentation": Tracing(spans.provider)}
    ) as made:
        yield made


def parent(span: ReadableSpan) -> Any:
    return span.parent.span_id if span.parent is not None else None


def identity(span: ReadableSpan) -> Any:
    assert span.context is not None
    return span.context.span_id


def test_a_message_has_a_span_where_it_is_sent_and_one_where_it_is_handled(spans: Spans, pair: Pair) -> None:
    with spans.tracer.start_as_current_span("work"):
        receipt = pair.near.send("x", headers={"k": 1})
    sent = spans.one("send server")
    assert (sent.kind, parent(sent)) == (SpanKind.PRODUCER, identity(spans.one("work")))
    assert sent.attributes is not None
    assert sent.attributes["networkio.sequence"] == receipt.sequence == 1
    message = pair.far.receive(10)
    assert set(message.headers) == {"k", "traceparent"}
    assert spans.named("process client") == []  # it goes on until the message is settled
    message.ack()
    handled = spans.one("process client")
    assert (handled.kind, parent(handled)) == (SpanKind.CONSUMER, identity(sent))
    assert handled.context is not None
    assert sent.context is not None
    assert handled.context.trace_id == sent.context.trace_id
    assert handled.attributes is not None
    assert handled.attributes["messaging.message.id"] == message.id
    assert handled.attributes["networkio.settled"] == "acknowledged"
    assert handled.status.status_code is StatusCode.UNSET


def test_a_rejected_message_is_an_error_and_a_released_one_is_handled_again(spans: Spans, pair: Pair) -> None:
    pair.near.send("x")
    pair.far.receive(10).release()
    pair.far.receive(10).reject("no")
    first, second = spans.named("process client")
    assert first.attributes is not None
    assert second.attributes is not None
    assert (first.attributes["networkio.settled"], first.attributes["networkio.attempt"]) == ("released", 1)
    assert (second.attributes["networkio.settled"], second.attributes["networkio.attempt"]) == ("rejected", 2)
    assert (first.status.status_code, second.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    assert parent(first) == parent(second) == identity(spans.one("send server"))


def test_what_is_sent_while_a_message_is_handled_is_of_its_trace(spans: Spans) -> None:
    tracing = Tracing(spans.provider)
    with connected(client={"instrumentation": Tracing(spans.provider)}, server={"instrumentation": tracing}) as pair:
        pair.near.send("question")
        message = pair.far.receive(10)
        with tracing.current(message) as span:
            assert trace.get_current_span() is span
            pair.far.send("answer")
        assert trace.get_current_span() is trace.INVALID_SPAN
        message.ack()
        with tracing.current(message) as none:
            assert none is trace.INVALID_SPAN
        assert parent(spans.one("send client")) == identity(spans.one("process client"))


def test_a_request_and_its_reply_are_traced_too(spans: Spans) -> None:
    tracing = Tracing(spans.provider)
    with connected(client={"instrumentation": Tracing(spans.provider)}, server={"instrumentation": tracing}) as pair:
        def answer() -> None:
            with pair.far.receive(10) as message, tracing.current(message):
                message.reply("here")

        helper = threading.Thread(target=answer)
        helper.start()
        assert pair.near.request("where?", 10) == "here"
        helper.join()
        assert parent(spans.one("send client")) == identity(spans.one("process client"))
        assert parent(spans.one("process server")) == identity(spans.one("send client"))


def test_a_message_without_a_context_begins_a_trace_of_its_own_even_inside_of_another(spans: Spans) -> None:
    with connected(server={"instrumentation": Tracing(spans.provider)}) as pair:
        pair.near.send("x", headers={"traceparent": b"no text", "tracestate": 7})
        pair.near.send("y", headers={"traceparent": "00-nonsense"})
        with spans.tracer.start_as_current_span("unrelated"):
            pair.far.receive(10).ack()
            pair.far.receive(10).ack()
        assert [parent(span) for span in spans.named("process client")] == [None, None]


def test_a_message_that_is_refused_leaves_no_span(spans: Spans, pair: Pair) -> None:
    pair.near.end()
    with pytest.raises(Exception, match="takes no new messages"):
        pair.near.send("x")
    assert spans.named("send server") == []


def test_spans_of_messages_that_nobody_settles_are_bounded(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "OPEN_SPANS", 3)
    tracing = Tracing(spans.provider)
    messages = [HandedOver("a", str(number), number, {}, 0, 1, False) for number in range(5)]
    for message in messages:
        tracing.receiving(message)
    assert [span.attributes and span.attributes["networkio.sequence"] for span in spans.named("process a")] == [0, 1]
    tracing.settled(messages[0], "acknowledged")  # its span has ended before
    tracing.settled(messages[4], "acknowledged")
    assert len(spans.named("process a")) == 3


def test_accepted_without_sending_is_nothing(spans: Spans) -> None:
    Tracing(spans.provider).accepted("a", 1, {})
    assert spans.named("send a") == []


def test_payloads_are_in_no_span(spans: Spans, pair: Pair) -> None:
    pair.near.send("CANARY", headers={"k": "canary"})
    with pair.far.receive(10):
        pass
    told = [span.to_json() for name in ("send server", "process client") for span in spans.named(name)]
    assert len(told) == 2
    assert "canary" not in "".join(told).lower()


# -- metrics ----------------------------------------------------------------------------------------------------------


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], float]]]:
    """Metric -> (attributes, value)."""
    found: dict[str, list[tuple[dict[str, Any], float]]] = {}
    read = reader.get_metrics_data()
    assert read is not None
    for resource in read.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    value = point.value  # type: ignore[union-attr]
                    found.setdefault(metric.name, []).append((dict(point.attributes or {}), value))
    return found


def test_statistics_are_published_together_and_for_the_peers_that_were_named() -> None:
    node = Fixed(a=Statistics(accepted=3, read=1, disconnects={"lost": 2}), b=Statistics(accepted=4))
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe(node, peers=["a"], meter_provider=provider)
    found = points(reader)
    own = {"networkio.node": "n"}
    assert found["networkio.messages_accepted"] == [
        ({**own, "networkio.peer": "a"}, 3), ({**own, "networkio.peer": "(others)"}, 4)
    ]  # fmt: skip
    assert found["networkio.disconnects"] == [({**own, "networkio.peer": "a", "cause": "lost"}, 2)]
    assert found["networkio.handshakes_failed"] == [({**own, "cause": "timeout"}, 2)]
    assert found["networkio.peers"] == [(own, 2)]
    assert "networkio.round_trip_seconds" not in found
    assert node.looks == 1  # one look serves all of one export
    provider.shutdown()


def test_a_later_export_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    time = [100.0]
    monkeypatch.setattr(_figures, "monotonic", lambda: time[0])
    node = Fixed(a=Statistics(accepted=3))
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe(node, meter_provider=provider)
    assert points(reader)["networkio.messages_accepted"] == [({"networkio.node": "n"}, 3)]
    points(reader)
    assert node.looks == 1
    time[0] += 1.0
    points(reader)
    assert node.looks == 2
    provider.shutdown()
