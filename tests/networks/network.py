"""A network of two hosts that a test makes for itself, and breaks: network namespaces and a pair of virtual cables.

Theory of operation
-------------------
A :class:`Network` is two namespaces, *near* and *far*, and a veth pair between them.  All its traffic stays inside.
Neighbours are entered by hand, so nothing on the link waits for ARP; and a direction is cut by entering a hardware
address that nobody has: each frame is sent, arrives, and is nobody's.  Whoever sends is told nothing, which is what
a pulled cable somewhere in between looks like, and it needs no packet filter.  Loss and resets do: ``nft``, or
``iptables`` where there is none.

The names carry the number of the process that made them.  :func:`sweep` deletes what processes left behind that were
killed before they could clean up.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
from types import TracebackType
from typing import Literal, Self, TypeAlias

__all__ = ["ADDRESS", "ENDS", "Direction", "End", "Missing", "Network", "namespaces", "sweep", "why_not"]

End: TypeAlias = Literal["near", "far"]
#: what a cut stops: frames from near to far, those from far to near, or all
Direction: TypeAlias = Literal["there", "back", "both"]

ENDS: tuple[End, End] = ("near", "far")
#: of the documentation (RFC 5737); nobody else is in these namespaces
ADDRESS: dict[End, str] = {"near": "192.0.2.1", "far": "192.0.2.2"}
_HARDWARE: dict[End, str] = {"near": "02:00:00:00:00:01", "far": "02:00:00:00:00:02"}
_NOBODY = "02:00:00:00:00:99"

_NAME = re.compile(r"networkio-(\d+)-\d+-(?:near|far)\b")

#: one command takes no longer (seconds)
_LIMIT = 20

_numbers = itertools.count()


class Missing(Exception):
    """This machine cannot do it; the words say what it lacks."""


def _run(*command: str, data: str = "") -> str:
    """What a command printed; raises CalledProcessError with what it complained of."""
    done = subprocess.run(command, input=data, capture_output=True, text=True, timeout=_LIMIT, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def namespaces() -> dict[str, int]:
    """The namespaces that some run of these tests made: name, and the process that it was."""
    return {found[0]: int(found[1]) for found in _NAME.finditer(_run("ip", "netns", "list"))}


def sweep() -> None:
    """Delete the namespaces of processes that are no more."""
    for name, pid in namespaces().items():
        if not os.path.exists(f"/proc/{pid}"):
            _delete(name)


def _delete(name: str) -> None:
    try:
        _run("ip", "netns", "delete", name)
    except OSError:
        if name in namespaces():  # else somebody swept at the same time
            raise


@functools.cache
def why_not() -> str:
    """Why this machine permits no network of one's own; empty if it does."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if shutil.which("ip") is None:
        return "there is no `ip` here (Debian: iproute2)"
    if os.geteuid():
        return "making network namespaces takes root"
    try:
        sweep()
        with Network():
            pass
    except OSError as error:
        return f"network namespaces are not permitted here: {error}"
    return ""


class Network:
    """Two hosts and the link between them, for the length of a ``with`` block."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.names: dict[End, str] = {end: f"networkio-{os.getpid()}-{number}-{end}" for end in ENDS}

    def __enter__(self) -> Self:
        try:
            for name in self.names.values():
                _run("ip", "netns", "add", name)
            near, far = self.names.values()
            _run("ip", "link", "add", "near", "netns", near, "address", _HARDWARE["near"],
                 "type", "veth", "peer", "name", "far", "netns", far, "address", _HARDWARE["far"])
            for end in ENDS:
                # the one that every kernel has; some others take minutes to get over a line that has become slow
                self._set(end, "tcp_congestion_control", "reno")
                self._ip(end, "link", "set", "lo", "up")
                self._ip(end, "address", "add", f"{ADDRESS[end]}/30", "dev", end)
                self.link(end, up=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete what was made; the link goes with its namespaces."""
        there = namespaces()
        for name in self.names.values():
            if name in there:
                _delete(name)

    # -- commands in a namespace ----------------------------------------------------------------------------------

    def inside(self, end: End, *command: str) -> list[str]:
        """The command that runs a command at this end; it becomes that command, and keeps its number."""
        return ["ip", "netns", "exec", self.names[end], *command]

    def run(self, end: End, *command: str, data: str = "") -> str:
        """What a command printed that ran at this end."""
        return _run(*self.inside(end, *command), data=data)

    def _ip(self, end: End, *arguments: str) -> None:
        _run("ip", "-n", self.names[end], *arguments)

    # -- faults ---------------------------------------------------------------------------------------------------

    def cut(self, direction: Direction = "both") -> None:
        """From now on nothing arrives in this direction, and nobody is told."""
        for end, way in (("near", "there"), ("far", "back")):
            self._neighbour(end, reachable=direction not in (way, "both"))  # type: ignore[arg-type]

    def mend(self) -> None:
        """Everything arrives again."""
        for end in ENDS:
            self._neighbour(end, reachable=True)

    def _neighbour(self, end: End, *, reachable: bool) -> None:
        other: End = "far" if end == "near" else "near"
        self._ip(end, "neighbour", "replace", ADDRESS[other], "dev", end, "nud", "permanent",
                 "lladdr", _HARDWARE[other] if reachable else _NOBODY)

    def link(self, end: End, *, up: bool) -> None:
        """Switch the network card of this end off or on; its neighbours are forgotten with it."""
        self._ip(end, "link", "set", end, "up" if up else "down")
        if up:
            self._neighbour(end, reachable=True)

    def lose(self, percent: float) -> None:
        """Drop so many of a hundred packets that arrive, at both ends, at random."""
        for end in ENDS:
            self._filter(end, f"numgen random mod 1000 < {round(percent * 10)} drop",
                         f"-m statistic --mode random --probability {percent / 100} -j DROP")

    def reset(self, end: End) -> None:
        """Answer every segment that arrives at this end with a reset, which its own socket does not see."""
        self._filter(end, "meta l4proto tcp reject with tcp reset", "-p tcp -j REJECT --reject-with tcp-reset")

    def _filter(self, end: End, nft: str, iptables: str) -> None:
        source = ADDRESS["far" if end == "near" else "near"]
        try:
            if shutil.which("nft"):
                chain = f"chain in {{\ntype filter hook input priority 0;\nip saddr {source} {nft}\n}}"
                self.run(end, "nft", "-f", "-", data=f"table ip test {{\n{chain}\n}}\n")
            elif shutil.which("iptables"):
                self.run(end, "iptables", "-A", "INPUT", "-s", source, *iptables.split())
            else:
                raise Missing("there is neither `nft` nor `iptables` here (Debian: nftables)")
        except OSError as error:
            raise Missing(f"packets cannot be filtered here: {error}") from error

    def unfilter(self, end: End) -> None:
        """No more loss, no more resets at this end."""
        if shutil.which("nft"):
            self.run(end, "nft", "delete", "table", "ip", "test")
        else:
            self.run(end, "iptables", "-F", "INPUT")

    def shape(self, *discipline: str) -> None:
        """Send through a queueing discipline of ``tc`` at both ends: ``"tbf", "rate", "64kbit", ...``."""
        if shutil.which("tc") is None:
            raise Missing("there is no `tc` here (Debian: iproute2)")
        for end in ENDS:
            try:
                self.run(end, "tc", "qdisc", "replace", "dev", end, "root", *discipline)
            except OSError as error:
                raise Missing(f"this kernel lacks {discipline[0]}: {error}") from error

    def unshape(self) -> None:
        """As quick as the machine is."""
        for end in ENDS:
            self.run(end, "tc", "qdisc", "delete", "dev", end, "root")

    def kill_sockets(self, end: End) -> int:
        """End every TCP connection of this end, as an administrator may (``ss -K``); how many."""
        if shutil.which("ss") is None:
            raise Missing("there is no `ss` here (Debian: iproute2)")
        other = ADDRESS["far" if end == "near" else "near"]
        return len(self.run(end, "ss", "-K", "-H", "-t", "dst", other).splitlines())

    def unsent(self, end: End) -> int:
        """How many bytes the kernel of this end holds for the other one."""
        other = ADDRESS["far" if end == "near" else "near"]
        return sum(int(line.split()[1]) for line in
                   self.run(end, "ss", "-H", "-t", "state", "established", "dst", other).splitlines())

    def buffers(self, receive: int, send: int) -> None:
        """Give the sockets that are made from now on at most so many bytes of room in the kernel."""
        for end in ENDS:
            self._set(end, "tcp_rmem", f"{receive} {receive} {receive}")
            self._set(end, "tcp_wmem", f"{send} {send} {send}")

    def _set(self, end: End, name: str, value: str) -> None:
        self.run(end, "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}")
