"""networkio for OpenTelemetry: a span for every message sent and for every message handled, and the statistics.

Theory of operation
-------------------
:class:`Tracing` is an :class:`~networkio_proto.Instrumentation`.  A message that is sent gets a span of kind PRODUCER,
a child of whatever span is current where ``send`` was called.  It ends when the message is **accepted**, not when the
message has its outcome: a message may wait for days for a peer that is away, and a span that is not ended is not seen.
How messages ended is in the metrics.  The span's context travels in the headers ``traceparent`` and ``tracestate``, in
the form of the W3C Trace Context, whatever propagator the process has set.

A message that is handed over begins a span of kind CONSUMER, a child of the sender's.  It ends when the application has
settled the message: acknowledged (status unset), rejected (ERROR), or released, in which case the next handing-over has
a span of its own.  To have it current while the message is handled, ``with tracing.current(message):``.  Messages that
are never settled would keep their spans for ever, so only the newest :data:`OPEN_SPANS` stay open.

The methods run inside of the node, with ``networkio_threads`` under its lock: use a span processor that exports in the
background (``BatchSpanProcessor``), not one that talks to a collector when a span ends.

Needs the extra ``otel``, which is the API alone; the SDK is the application's choice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ImportError(
        "networkio_metrics.otel needs opentelemetry-api; install it with: pip install networkio[otel]"
    ) from error

from networkio_proto import HandedOver, Instrumentation

from ._figures import COUNTERS, GAUGES, NODE_COUNTERS, NODE_GAUGES, Call, Figure, Node, NodeFigure, Source

__all__ = ["OPEN_SPANS", "Tracing", "observe"]

#: spans of messages that were handed over and not settled; the oldest is ended where there would be more
OPEN_SPANS = 10_000

_W3C = TraceContextTextMapPropagator()
_SCOPE = "networkio"


class _Message(Protocol):
    """A message of either driver."""

    @property
    def id(self) -> str: ...

    @property
    def peer(self) -> Any: ...


class Tracing(Instrumentation):
    """Give it to one node: ``Node(..., instrumentation=Tracing())``.

    ``tracer_provider``: where spans go; default the process's.  Every method may be called from any thread.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        # sending and accepted are one call of the core, in one thread; threads do not mix theirs up
        self._sending = threading.local()
        self._handled: dict[tuple[str, str], Span] = {}

    # -- sending ------------------------------------------------------------------------------------------------

    def sending(self, peer_id: str, headers: Mapping[str, object]) -> Mapping[str, object]:
        """Begin a span, and send its context along."""
        span = self._tracer.start_span(
            f"send {peer_id}", kind=SpanKind.PRODUCER, attributes=_attributes(peer_id, "send")
        )
        self._sending.span = span
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span))
        return {**headers, **carrier}

    def accepted(self, peer_id: str, sequence: int, headers: Mapping[str, object]) -> None:
        """End it."""
        span = self._sending.__dict__.pop("span", None)
        if span is not None:
            span.set_attribute("networkio.sequence", sequence)
            span.end()

    # -- handling -----------------------------------------------------------------------------------------------

    def receiving(self, message: HandedOver) -> None:
        """Begin a span as the child of the sender's."""
        carrier = {key: value for key, value in message.headers.items() if isinstance(value, str)}
        span = self._tracer.start_span(
            f"process {message.peer_id}",
            context=_W3C.extract(carrier, context.Context()),
            kind=SpanKind.CONSUMER,
            attributes={
                **_attributes(message.peer_id, "process"),
                "messaging.message.id": message.id,
                "messaging.message.body.size": message.size,
                "networkio.sequence": message.sequence,
                "networkio.attempt": message.attempt,
                "networkio.redelivered": message.redelivered,
            },
        )
        self._handled[message.peer_id, message.id] = span
        if len(self._handled) > OPEN_SPANS:
            oldest = self._handled.pop(next(iter(self._handled)))
            oldest.set_attribute("networkio.settled", "unknown")
            oldest.end()

    def settled(self, message: HandedOver, how: str) -> None:
        """End it."""
        span = self._handled.pop((message.peer_id, message.id), None)
        if span is not None:
            span.set_attribute("networkio.settled", how)
            if how == "rejected":
                span.set_status(Status(StatusCode.ERROR, "rejected"))
            span.end()

    @contextmanager
    def current(self, message: _Message) -> Iterator[Span]:
        """Make the span of a message in hand the current one, for what is called, and sent, on behalf of it.

        It goes on when the block is left, until the message is settled.  An exception is recorded in it.
        """
        span = self._handled.get((message.peer.id, message.id), trace.INVALID_SPAN)
        with trace.use_span(span, end_on_exit=False):
            yield span


def _attributes(peer_id: str, operation: str) -> dict[str, str]:
    return {
        "messaging.system": "networkio",
        "messaging.destination.name": peer_id,
        "messaging.operation.type": operation,
    }


# -- metrics ----------------------------------------------------------------------------------------------------------

Observe: TypeAlias = Callable[[CallbackOptions], Iterable[Observation]]


def observe(
    node: Node, *, peers: Collection[str] = (), call: Call | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:  # fmt: skip
    """Publish a node's statistics as observable counters and gauges, read when metrics are exported.

    ``peers``: the ids that are published one by one, all others being one together; without, all are one.  ``call``:
    runs a function in the thread that owns the node, for a node of an event loop (``BlockingPortal.call``), because
    exporters read in threads of their own.  Names begin with ``networkio.``; each has the attribute ``networkio.node``.
    """
    source, meter = Source(node, peers, call), metrics.get_meter(_SCOPE, meter_provider=meter_provider)
    for figure in COUNTERS:
        meter.create_observable_counter(_name(figure), [_of_peers(source, figure)], description=figure.meaning)
    for figure in GAUGES:
        meter.create_observable_gauge(_name(figure), [_of_peers(source, figure)], description=figure.meaning)
    for node_figure in NODE_COUNTERS:
        meter.create_observable_counter(
            _name(node_figure), [_of_node(source, node_figure)], description=node_figure.meaning
        )
    for node_figure in NODE_GAUGES:
        meter.create_observable_gauge(
            _name(node_figure), [_of_node(source, node_figure)], description=node_figure.meaning
        )


def _name(figure: Figure | NodeFigure) -> str:
    return f"networkio.{figure.name}"


def _of_peers(source: Source, figure: Figure) -> Observe:
    def look(options: CallbackOptions) -> Iterator[Observation]:
        for peer, statistics in source.rows(source.recent()):
            own = {"networkio.node": source.node_id} | ({} if peer is None else {"networkio.peer": peer})
            for labels, value in figure.values(statistics):
                yield Observation(value, {**own, **labels})

    return look


def _of_node(source: Source, figure: NodeFigure) -> Observe:
    def look(options: CallbackOptions) -> Iterator[Observation]:
        for labels, value in figure.values(source.recent()):
            yield Observation(value, {"networkio.node": source.node_id, **labels})

    return look
