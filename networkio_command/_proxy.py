"""``networkio proxy``: the chaos proxy of ``networkio_testing`` between any client and any server.

It knows nothing of networkio and carries whatever passes; its event loop runs in a thread of its own.
"""

from __future__ import annotations

from contextlib import ExitStack

from anyio.from_thread import start_blocking_portal

from networkio_proto import AddressError, ConfigurationError
from networkio_proto.auth import is_loopback
from networkio_proto.errors import printable
from networkio_testing.proxy import Chaos, ChaosProxy

from ._terminal import BEAT, INTERRUPTED, Interrupted, Interrupts, StatusLine, one_line, plural

__all__ = ["run"]


def run(listen: tuple[str, int], target: tuple[str, int], chaos: Chaos, seed: int, *, insecure: bool) -> int:
    """The ``proxy`` command; returns its exit code.  Raises AddressError, ConfigurationError."""
    for host, _ in (listen, target):  # the program behind the proxy sees only loopback, and would not refuse
        if not insecure and not is_loopback(host):
            raise ConfigurationError(f"{printable(host)} is not loopback: others come through; --insecure lets them")
    status = StatusLine()
    proxy = ChaosProxy(*target, host=listen[0], port=listen[1], chaos=chaos, seed=seed)
    with Interrupts() as interrupts, ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("asyncio"))
        try:
            stack.enter_context(portal.wrap_async_context_manager(proxy))
        except OSError as error:
            places = f"{printable(listen[0])} port {listen[1]}, for {printable(target[0])} port {target[1]}"
            raise AddressError(f"there can be no proxy on {places}: {one_line(error)}") from error
        host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
        print(f"{host}:{proxy.port}", flush=True)
        try:
            while True:
                status.draw(account(proxy))
                interrupts.sleep(BEAT)
        except Interrupted:
            status.say(f"interrupted: {account(proxy)}")
            return INTERRUPTED


def account(proxy: ChaosProxy) -> str:
    """What it has done so far."""
    unreachable = f" ({proxy.unreachable:,} without an answer of the target)" if proxy.unreachable else ""
    return (
        f"{plural(proxy.connections, 'connection')}{unreachable}, {plural(proxy.cuts, 'cut')}, "
        f"{plural(proxy.bytes_forwarded, 'byte')} forwarded"
    )
