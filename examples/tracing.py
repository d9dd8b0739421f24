"""One trace from the sender's span to the work that its message caused in another process.

An order is sent inside of a span; its handler, on another node, sends a confirmation.  The context travels with the
messages, so all spans are of one trace.  Here they are kept in memory and printed as a tree; a program of yours would
give its tracer provider an exporter.  Needs: pip install networkio[otel] opentelemetry-sdk

    python examples/tracing.py
"""

import anyio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from networkio_asyncio import Message, Node
from networkio_metrics.otel import Tracing


def show(spans: tuple[ReadableSpan, ...], parent: int | None = None, depth: int = 0) -> None:
    for span in spans:
        if (span.parent.span_id if span.parent else None) == parent and span.context is not None:
            print("  " * depth + span.name)
            show(spans, span.context.span_id, depth + 1)


async def main() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing, tracer = Tracing(provider), trace.get_tracer("shop", tracer_provider=provider)

    async def handle(message: Message) -> None:
        with tracing.current(message):  # what is sent in here belongs to the same trace
            await message.peer.send("confirmed")

    async with (
        Node("stock", instrumentation=tracing) as stock,
        Node("shop", instrumentation=Tracing(provider)) as shop,
        anyio.create_task_group() as tasks,
    ):
        listener = await stock.listen("127.0.0.1", 0)
        tasks.start_soon(stock.serve, handle)
        peer = await shop.connect("127.0.0.1", listener.port, "stock")
        with tracer.start_as_current_span("order"):
            receipt = await peer.send({"article": "scarf"})
        print(await peer.read())
        await receipt.read()
        tasks.cancel_scope.cancel()
    spans = exporter.get_finished_spans()
    print(len({span.context.trace_id for span in spans if span.context}), "trace")
    show(spans)


if __name__ == "__main__":
    anyio.run(main)
