"""What the arguments of the commands mean: addresses, sizes, times, ids."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

from networkio_proto import ConfigurationError, check_peer_id

__all__ = ["Address", "address", "names_host", "number", "peer_id", "positive_seconds", "seconds", "size"]

Address = tuple[str, int]

_LOOPBACK = "127.0.0.1"

_ADDRESS = re.compile(r"(?:(?P<host>\[[^\]]+\]|[^:\[\]]+)?:)?(?P<port>\d{1,5})\Z")

_SIZE = re.compile(r"(?P<number>\d{1,15})(?P<unit>[KMG]?)\Z", re.IGNORECASE)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def address(text: str) -> Address:
    """``HOST:PORT``, ``[::1]:PORT`` or ``PORT``; the host is loopback unless it is named."""
    found = _ADDRESS.match(text)
    if found is None or int(found["port"]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, [IPv6 ADDRESS]:PORT, or PORT alone for loopback")
    return (found["host"] or _LOOPBACK).strip("[]"), int(found["port"])


def names_host(text: str) -> bool:
    """Is it more than a port?"""
    return ":" in text


def size(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument's type: bytes, also as 64K, 1M or 2G (powers of 1,024), within bounds."""

    def convert(text: str) -> int:
        found = _SIZE.match(text)
        number = int(found["number"]) * _UNITS[found["unit"].upper()] if found else least - 1
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64K or 1M {_bounds(least, most)}")
        return number

    return convert


def number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument's type: a whole number within bounds."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {_bounds(least, most)}")
        return value

    return convert


def _bounds(least: int, most: int | None) -> str:
    return f"of at least {least}" if most is None else f"from {least} to {most}"


def seconds(text: str) -> float:
    """A number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def positive_seconds(text: str) -> float:
    """A number greater than zero."""
    value = seconds(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not greater than 0")
    return value


def peer_id(text: str) -> str:
    """A name on the network."""
    try:
        return check_peer_id(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
