"""networkio in other people's monitoring: Prometheus and OpenTelemetry.

The base needs neither.  Each module here needs an extra of the distribution, and says so when it is not there:

* :mod:`networkio_metrics.prometheus`, with ``pip install networkio[prometheus]``: a node's statistics, read at scrape.
* :mod:`networkio_metrics.otel`, with ``pip install networkio[otel]``: spans for messages, and the same statistics.

Both work with ``networkio_asyncio`` and ``networkio_threads``, and import neither.
"""
