"""The virtual loop: time passes by waiting alone, what can never end is said to be stuck, real time is refused."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import pytest

import networkio_threads
from networkio_proto import NetworkioError
from networkio_testing import NotVirtual, Stuck, VirtualLoop, run_virtual


def test_hours_pass_at_once_and_to_the_point() -> None:
    async def main(seconds: float) -> tuple[float, float]:
        await asyncio.sleep(seconds)
        with anyio.move_on_after(60.0):
            await anyio.sleep_forever()
        return asyncio.get_running_loop().time(), anyio.current_time()

    started = time.monotonic()
    assert run_virtual(main, 3600.0 * 20, limit=86_400.0) == (73_060.0, 73_060.0)
    assert time.monotonic() - started < 5.0
    assert anyio.run(main, 1.0, backend_options={"loop_factory": VirtualLoop}) == (1061.0, 1061.0)


def test_timers_fire_in_their_order() -> None:
    async def main() -> list[float]:
        fired: list[float] = []
        async with anyio.create_task_group() as tasks:
            for seconds in (3.0, 0.1, 2.0, 1e-7, 86.4):
                tasks.start_soon(note_after, seconds, fired)
        return fired

    async def note_after(seconds: float, fired: list[float]) -> None:
        await anyio.sleep(seconds)
        fired.append(seconds)

    assert run_virtual(main) == [1e-7, 0.1, 2.0, 3.0, 86.4]


def test_what_can_never_end_is_stuck_and_says_where() -> None:
    async def wait_for_nothing() -> None:
        await anyio.Event().wait()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(25):
                tasks.start_soon(wait_for_nothing)

    with pytest.raises(Stuck) as caught:
        run_virtual(main)
    text = str(caught.value)
    assert text.startswith("nothing can happen any more: no timer runs, and nothing is under way.\n")
    assert ".wait_for_nothing, test_loop.py line " in text
    assert text.endswith("and 6 more")


def test_what_takes_too_long_is_stuck_and_may_clean_up() -> None:
    cleaned_up = []

    async def main() -> None:
        try:
            while True:
                await anyio.sleep(10.0)
        finally:
            await asyncio.sleep(100.0)
            cleaned_up.append(asyncio.get_running_loop().time())

    with pytest.raises(Stuck, match="it takes longer than 3600 virtual seconds"):
        run_virtual(main, limit=3600.0)
    assert cleaned_up == [4700.0]


def test_its_errors_are_the_programs() -> None:
    async def main() -> None:
        await anyio.sleep(1.0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_virtual(main)


async def in_a_thread() -> None:
    await asyncio.to_thread(time.sleep, 0)


async def in_a_thread_of_anyio() -> None:
    await anyio.to_thread.run_sync(time.sleep, 0.01)


async def in_a_thread_for_a_while() -> None:
    with anyio.move_on_after(3600.0):
        await anyio.to_thread.run_sync(time.sleep, 0.01)


async def in_a_thread_of_its_own() -> None:
    threading.Thread(target=time.sleep, args=(0,)).start()


async def on_a_timer() -> None:
    threading.Timer(0.0, print).start()


async def in_an_executor_of_its_own() -> None:
    with ThreadPoolExecutor() as executor:
        await asyncio.wrap_future(executor.submit(time.sleep, 0))


async def in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(threading.Thread(target=print).start)
    await asyncio.sleep(1.0)


async def in_an_executor() -> None:
    with ThreadPoolExecutor() as executor:
        await asyncio.get_running_loop().run_in_executor(executor, time.sleep, 0)


async def as_a_node_of_threads() -> None:
    with networkio_threads.Node("node"):
        pass


async def look_up() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def look_up_backwards() -> None:
    await asyncio.get_running_loop().getnameinfo(("127.0.0.1", 80))


async def listen() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        await listener.serve(lambda stream: stream.aclose())


async def run_program() -> None:
    await asyncio.create_subprocess_exec("true")


async def run_shell() -> None:
    await asyncio.create_subprocess_shell("true")


async def accept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        await asyncio.get_running_loop().sock_accept(listener)


REAL = [
    (in_a_thread, "helper threads"), (in_a_thread_of_anyio, "helper threads"), (look_up, "look-ups of host names"),
    (look_up_backwards, "look-ups of host names"), (in_a_thread_for_a_while, "helper threads"),
    (listen, "look-ups of host names"), (run_program, "processes"), (run_shell, "processes"),
    (accept, "sockets and pipes"), (in_a_thread_of_its_own, "helper threads"), (on_a_timer, "helper threads"),
    (in_an_executor_of_its_own, "helper threads"), (in_an_executor, "helper threads"),
    (in_a_callback, "helper threads"), (as_a_node_of_threads, "helper threads"),
]


@pytest.mark.parametrize(("act", "what"), REAL, ids=[act.__name__ for act, _ in REAL])
def test_what_takes_real_time_is_refused(act: Callable[[], Awaitable[None]], what: str) -> None:
    async def main() -> None:
        await act()

    threads = threading.active_count()
    with pytest.raises(NotVirtual, match=f"^{what} take real time, and here it is virtual") as caught:
        run_virtual(main)
    assert isinstance(caught.value, NetworkioError)
    assert threading.active_count() == threads


def test_threads_of_others_start_as_ever() -> None:
    start, go, done = threading.Thread.start, threading.Event(), threading.Event()

    def run() -> None:
        assert go.wait(10.0)
        inner = threading.Thread(target=done.set)
        inner.start()
        inner.join()

    async def main() -> None:
        assert threading.Thread.start is not start
        go.set()
        assert done.wait(10.0)  # it blocks in place, which nobody refuses

    outer = threading.Thread(target=run)
    outer.start()
    run_virtual(main)
    outer.join()
    assert threading.Thread.start is start


def test_what_replaced_the_start_of_threads_meanwhile_stays() -> None:
    def start(thread: threading.Thread) -> None:
        raise AssertionError

    async def main() -> None:
        threading.Thread.start = start  # type: ignore[method-assign,assignment]

    before = threading.Thread.start
    try:
        run_virtual(main)
        assert threading.Thread.start is start
    finally:
        threading.Thread.start = before  # type: ignore[method-assign]


def test_what_a_thread_does_that_ran_before_is_waited_for_in_vain() -> None:
    async def main() -> None:
        await asyncio.wrap_future(executor.submit(over.wait, 10.0))

    over = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(print).result()
        with pytest.raises(Stuck, match="nothing can happen any more"):
            run_virtual(main)
        over.set()


@pytest.mark.parametrize("afterwards", [0.0, 1.0])
def test_what_takes_real_time_is_told_even_if_somebody_swallows_it(afterwards: float) -> None:
    async def main() -> None:
        try:
            await look_up()
        except NotVirtual:
            pass
        await asyncio.sleep(afterwards)

    with pytest.raises(NotVirtual):
        run_virtual(main)


def test_the_error_is_told_by_other_runners_too() -> None:
    async def main() -> None:
        try:
            await look_up()
        except NotVirtual:
            pass
        await anyio.sleep(1.0)

    with asyncio.Runner(loop_factory=partial(VirtualLoop, limit=60.0)) as runner, pytest.raises(NotVirtual):
        runner.run(main())


def test_tasks_that_are_cancelled_at_once_learn_it_in_their_order() -> None:
    async def main() -> list[str]:
        ended: list[str] = []

        async def wait(name: str) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append(name)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(wait, str(number))
            await anyio.sleep(1.0)
            tasks.cancel_scope.cancel()
        return ended

    assert run_virtual(main) == list(map(str, range(50)))
