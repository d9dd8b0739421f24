"""The protocol core of networkio: a pure state machine without sockets, clocks, threads or I/O.

Start with :class:`Endpoint`; its module tells how to drive it.  ``docs/protocol.md`` is the specification.
"""

from . import errors, events
from .auth import MTLS, Authenticator, Identity, Insecure, Proof, Refusal, TLSFacts
from .config import COST_PER_MESSAGE, Config, Limits, check_peer_id
from .connection import Connection, ConnectionState
from .endpoint import Endpoint
from .errors import *  # noqa: F403  (errors.__all__ is the tree)
from .events import *  # noqa: F403
from .frames import DataFlag, SkipReason
from .inbox import Delivery, Details
from .instrumentation import HandedOver, Instrumentation
from .ledger import Failure, Ledger
from .notices import Notice, Watch
from .payload import Codec, MsgpackCodec
from .psk import MIN_KEY, PSK, stretched
from .quotas import Quota
from .randomness import RandomSource, SystemRandomSource
from .reconnect import RetryClass, Target, TargetState
from .session import Session
from .statistics import NodeStatistics, Statistics

__version__ = "0.1.0"

__all__ = [
    "COST_PER_MESSAGE",
    "MIN_KEY",
    "MTLS",
    "PSK",
    "Authenticator",
    "Codec",
    "Config",
    "Connection",
    "ConnectionState",
    "DataFlag",
    "Delivery",
    "Details",
    "Endpoint",
    "Failure",
    "HandedOver",
    "Identity",
    "Insecure",
    "Instrumentation",
    "Ledger",
    "Limits",
    "MsgpackCodec",
    "NodeStatistics",
    "Notice",
    "Proof",
    "Quota",
    "RandomSource",
    "Refusal",
    "RetryClass",
    "Session",
    "SkipReason",
    "Statistics",
    "SystemRandomSource",
    "TLSFacts",
    "Target",
    "TargetState",
    "Watch",
    "check_peer_id",
    "stretched",
]
__all__ += errors.__all__
__all__ += events.__all__
