"""What single peers may have, where that differs from what everybody may.

Theory of operation
-------------------
A :class:`~networkio_proto.config.Config` bounds every peer alike.  A :class:`Quota` says for one peer what is
different; the two together are its :class:`Bounds`, which is what a session and a handshake go by.  A quota is found by
the peer's id, before it has proved anything: what the outbox to it holds counts before it ever came, and the largest
message is told in the handshake.  So a quota is a fact, and not a function that a stranger could have called.

There is no bound for the number of messages: each costs 64 bytes beside its own, so that a window of 64,000 bytes holds
at most a thousand, and one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from .config import Config, Limits, check_peer_id
from .errors import ConfigurationError

__all__ = ["Bounds", "Quota", "Quotas"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one peer may have: ``Node(..., quotas={"client-7": Quota(window=65_536)})``.

    None: the same as everybody.  Raises ConfigurationError for what is no number of bytes above zero.
    """

    #: cost that the outbox to it holds before ``send`` waits, instead of ``Config.outbox_limit``
    outbox_limit: int | None = None
    #: cost of its messages that may be here and not acknowledged, instead of ``Config.window_max``; what it may send at
    #: first, and what it gets even when the node's budget is exhausted, is not more than that
    window: int | None = None
    #: bound of headers + payload of one message to it and from it, instead of ``Limits.message``
    message: int | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 2**62):
                raise ConfigurationError(f"{item.name} of a quota is {value!r}; it must be bytes, at least 1, or None")
        if self.message is not None and self.message > 2**31:
            raise ConfigurationError(f"message of a quota is {self.message}; it must be at most 2**31")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for one peer.  The fields mean what they mean in Config."""

    limits: Limits
    outbox_limit: int
    window: int
    window_max: int
    window_guaranteed: int


class Quotas:
    """The bounds of everybody.  Raises ConfigurationError for what is no peer id, or no quota."""

    def __init__(self, config: Config, quotas: Mapping[str, Quota] | None = None) -> None:
        self._config = config
        self._everybody = Bounds(
            config.limits, config.outbox_limit, config.window, config.window_max, config.window_guaranteed
        )
        self._single: dict[str, Bounds] = {}
        for peer_id, quota in (quotas or {}).items():
            self.set(peer_id, quota)

    def of(self, peer_id: str | None) -> Bounds:
        """What holds for that peer; None: for whoever it may be."""
        return self._everybody if peer_id is None else self._single.get(peer_id, self._everybody)

    def advice(self, peer_id: str) -> str:
        """What to do about a message that is too large for that peer."""
        if self.of(peer_id).limits is self._everybody.limits:
            return "split it or raise limits.message on both sides"
        return f"split it or raise message in the quota of {peer_id} here, and limits.message there"

    def set(self, peer_id: str, quota: Quota | None) -> None:
        """From now on that holds; None: what holds for everybody."""
        check_peer_id(peer_id)
        if quota is None:
            self._single.pop(peer_id, None)
        elif isinstance(quota, Quota):
            self._single[peer_id] = self._bounds(quota)
        else:
            raise ConfigurationError(f"the quota of {peer_id} is {type(quota).__name__}, not Quota")

    def _bounds(self, quota: Quota) -> Bounds:
        config, limits = self._config, self._config.limits
        most = config.window_max if quota.window is None else quota.window
        return Bounds(
            limits if quota.message is None else replace(limits, message=quota.message),
            config.outbox_limit if quota.outbox_limit is None else quota.outbox_limit,
            min(config.window, most),
            most,
            min(config.window_guaranteed, most),
        )
