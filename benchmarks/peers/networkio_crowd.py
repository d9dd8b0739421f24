"""Many networkio clients that only have to be there: the core by the short driver of ``examples/embed_asyncio.py``.

Where the server alone is measured, full nodes at the other end would take most of the time, and tell nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks import ends
from examples.embed_asyncio import Driver
from networkio_proto import Endpoint


class End(ends.End):
    """The clients' end."""

    async def connect(self, address: Any) -> None:
        gate = asyncio.Semaphore(ends.DIALS)

        async def one(number: int) -> Driver:
            async with gate:
                driver = Driver(Endpoint(f"client-{number}"), lambda: None)
                session = driver.endpoint.session("server", driver.now())
                driver.endpoint.add_target(("127.0.0.1", address), driver.now(), to="server")
                driver.pump()
                await driver.until(lambda: session.connected)
                return driver

        numbers = range(self.plan.first, self.plan.first + self.plan.connections)
        self.drivers = await asyncio.gather(*map(one, numbers))
