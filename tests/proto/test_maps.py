"""The maps of the handshake and of headers: what goes in comes out, and nothing else goes in or comes out."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from networkio_proto.maps import MAX_MAP_BYTES, MAX_MAP_DEPTH, MAX_MAP_ITEMS, decode_map, encode_map

thorough = settings(derandomize=True, deadline=None, max_examples=100)

leaves = (
    st.none()
    | st.booleans()
    | st.integers(min_value=0, max_value=2**64 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)


def containers(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=8), values, max_size=4)


values = leaves | containers(leaves | containers(leaves | containers(leaves)))
maps: st.SearchStrategy[dict[str, object]] = st.dictionaries(st.text(max_size=8), values, max_size=4)


def nest(depth: int) -> dict[str, object]:
    """A map in a map and so on, ``depth`` in all."""
    value: dict[str, object] = {}
    for _ in range(depth - 1):
        value = {"in": value}
    return value


def typed(value: object) -> object:
    """A form in which 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return [dict, [(typed(key), typed(item)) for key, item in value.items()]]
    if isinstance(value, list):
        return [list, [typed(item) for item in value]]
    return type(value), value


@thorough
@given(maps)
def test_a_map_comes_back_as_it_was(value: dict[str, object]) -> None:
    assert typed(decode_map(encode_map(value))) == typed(value)


@thorough
@given(maps)
def test_a_memoryview_is_read_like_bytes(value: dict[str, object]) -> None:
    assert decode_map(memoryview(encode_map(value))) == value


anything = st.recursive(
    leaves
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.binary(max_size=4), inner),
)


@thorough
@given(st.binary(max_size=64) | anything.map(msgpack.packb))
@example(b"")
@example(msgpack.packb(msgpack.Timestamp(0)))
@example(b"\x81\xa1a" + msgpack.packb(msgpack.Timestamp(0)))
@example(b"\x81\xa1a\xd6\xff")
@example(b"\x81\x90\x01")
def test_bytes_are_a_map_that_can_be_written_or_a_value_error(data: bytes) -> None:
    try:
        value = decode_map(data)
    except ValueError:
        return
    assert decode_map(encode_map(value)) == value


def test_a_tuple_comes_back_as_a_list() -> None:
    assert decode_map(encode_map({"v": (1, 2)})) == {"v": [1, 2]}


@pytest.mark.parametrize(
    "value",
    [
        {"long": bytes(MAX_MAP_BYTES - 9)},
        nest(MAX_MAP_DEPTH),
        {"a": list(range(MAX_MAP_ITEMS))},
        {str(i): i for i in range(MAX_MAP_ITEMS)},
        {"n": 2**64 - 1},
        {},
    ],
)
def test_at_the_bound(value: dict[str, object]) -> None:
    assert decode_map(encode_map(value)) == value


# What is refused on both sides: decoding has to refuse what some other implementation may write.
REFUSED: list[tuple[Any, str]] = [
    ({"long": bytes(MAX_MAP_BYTES - 8)}, "4097 bytes"),
    (nest(MAX_MAP_DEPTH + 1), "nested deeper than 4"),
    ({"a": [[[[]]]]}, "nested deeper than 4"),
    ({"a": list(range(MAX_MAP_ITEMS + 1))}, "65"),
    ({str(i): i for i in range(MAX_MAP_ITEMS + 1)}, "65"),
    ({"n": -1}, "an int that is not 0 to"),
    ({"x": 1.5}, "float is not allowed"),
    ({"x": [msgpack.ExtType(5, b"")]}, "not allowed|extension 5"),
    ({"x": msgpack.Timestamp(1)}, "Timestamp is not allowed"),
    ({b"k": 1}, "a key that is bytes, not str"),
    ({1: 1}, "a key that is int, not str|not allowed for map key"),
    ([], "list instead of a map"),
    (None, "NoneType instead of a map"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED)
def test_refused_on_both_sides(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_map(value)
    with pytest.raises(ValueError, match=reason):
        decode_map(msgpack.packb(value))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"n": 2**64}, "an int that is not 0 to"),
        ({"s": "\ud800"}, "text that UTF-8 cannot carry"),
        ({"s": {1, 2}}, "set is not allowed"),
        ({"b": bytearray(b"x")}, "bytearray is not allowed"),
        (OrderedDict(a=1), "OrderedDict instead of a map"),
    ],
)
def test_not_encoded(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_map(value)


def test_a_map_that_holds_itself_is_not_encoded() -> None:
    value: dict[str, object] = {}
    value["self"] = value
    with pytest.raises(ValueError, match="nested deeper"):
        encode_map(value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x82\xa1a\x01\xa1a\x01", "the same key twice"),
        (b"\x81\xa1a\x82\xa1b\x01\xa1b\x02", "the same key twice"),
        (b"\x80\xc0", "extra data"),
        (b"\x81\xa1a", "incomplete"),
        (b"\x81\xa1\xff\x01", "utf-8"),
        (b"\xc1", "(FormatError|header)"),
        (b"\x81\xa1a\xd4\x05\x00", "extension 5"),
        (b"\x81\xa1a" + b"\x91" * 2000, "StackError"),
        (b"\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
    ],
)
def test_not_decoded(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^map: .*{reason}"):
        decode_map(data)
