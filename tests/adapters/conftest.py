"""Every test runs on asyncio and on trio, and leaves nothing behind: no task, no descriptor, no unclosed resource."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session", autouse=True)
def quick_collecting() -> Iterator[None]:
    """Collecting after each test looks only at what the tests made."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def descriptors() -> dict[str, str]:
    """Every open descriptor and what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one of the listing itself
            pass
    return found


@pytest.fixture(autouse=True)
async def nothing_leaks(anyio_backend: str) -> AsyncIterator[None]:
    """Tasks and descriptors are those of before; an unclosed resource warns when it is collected, which is an error."""
    tasks, before = len(anyio.get_running_tasks()), descriptors()
    yield
    gc.collect()
    for _ in range(100):  # a closed transport needs another turn of the loop
        running = anyio.get_running_tasks()
        opened = {name: what for name, what in descriptors().items() if before.get(name) != what}
        if len(running) == tasks and not opened:
            return
        await anyio.sleep(0.01)
    pytest.fail(f"of {tasks} tasks before there are now {running}; open descriptors: {opened}")
