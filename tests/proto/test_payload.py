"""The msgpack codec: what goes in comes out with its types, the rest is refused, and no bytes do any harm."""

from __future__ import annotations

import math
import pickle
import threading
import tracemalloc
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Hashable
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from enum import Enum, Flag, IntEnum, IntFlag
from struct import pack
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import payload
from networkio_proto.errors import ConfigurationError, DecodeError, EncodeError
from networkio_proto.payload import Codec, MsgpackCodec

thorough = settings(derandomize=True, deadline=None, max_examples=100)


class Colour(Enum):
    RED = [1]  # noqa: RUF012 - a value that is not hashable
    GRÜN = "green"
    ROT = RED


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Access(Flag):
    READ = 1
    WRITE = 2
    ALL = 3
    EXECUTE = 1 << 40


class Loose(IntFlag):
    A = 1
    B = 6


@dataclass(frozen=True, slots=True)
class Point:
    x: object
    y: object


@dataclass(kw_only=True)
class Order:
    id: int
    lines: list[object] = field(default_factory=list)


@dataclass
class Empty:
    pass


@dataclass
class Positive:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ArithmeticError("n is negative\n")


@dataclass
class Unregistered:
    n: int


Pair = namedtuple("Pair", "a b")
REGISTERED: dict[int, type] = {
    0: Colour,
    1: Level,
    2: Access,
    3: Point,
    127: Order,
    65_535: Empty,
    7: Positive,
    8: Loose,
}


def new_codec(**limits: int) -> MsgpackCodec:
    made = MsgpackCodec(**limits)
    for number, cls in REGISTERED.items():
        made.register(number, cls)
    return made


codec = new_codec()
UTC = timezone.utc  # noqa: UP017


def exact(value: Any) -> Hashable:
    """A form that is equal for two objects only if they have the same types and details throughout."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, tuple(exact(element) for element in value)
    if kind in (set, frozenset):
        return kind, frozenset(exact(element) for element in value)
    if kind is dict:
        return kind, tuple((exact(key), exact(element)) for key, element in value.items())
    if kind in (Point, Order):
        return kind, tuple(exact(getattr(value, name)) for name in kind.__dataclass_fields__)
    if kind is float:
        return kind, pack(">d", value)
    if kind is complex:
        return kind, pack(">dd", value.real, value.imag)
    if kind is Decimal:
        return kind, value.as_tuple()
    if kind in (datetime, time):
        return kind, value.isoformat(), value.fold, value.utcoffset(), value.tzinfo
    return kind, value


def round_trip(value: object) -> object:
    return codec.decode(codec.encode(value))


# -- round trips -----------------------------------------------------------------------------------------------------

offsets = st.timedeltas(timedelta(microseconds=1 - 86_400_000_000), timedelta(microseconds=86_400_000_000 - 1))
zones = st.none() | st.just(UTC) | offsets.map(timezone)
decimals = st.decimals() | st.builds(
    lambda sign, digits, exponent: Decimal((sign, digits, exponent)),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), min_size=1, max_size=30).map(tuple),
    st.integers(-(10**9), 10**9) | st.sampled_from(["n", "N", "F"]),
)
hashable_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=300)
    | st.complex_numbers()
    | decimals.filter(lambda value: not value.is_snan())
    | st.uuids()
    | st.dates()
    | st.builds(lambda at, fold: at.replace(fold=fold), st.times(timezones=zones), st.integers(0, 1))
    | st.builds(lambda at, fold: at.replace(fold=fold), st.datetimes(timezones=zones), st.integers(0, 1))
    | st.timedeltas()
    | st.sampled_from([*Colour, *Level, *Access, Access(0), Access.WRITE | Access.EXECUTE, Loose(4), Loose(0)])
)
hashables = st.recursive(
    hashable_leaves,
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4) | st.builds(Point, inner, inner)
    ),
    max_leaves=6,
)
objects = st.recursive(
    hashables | decimals,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=20)
        | st.sets(hashables, max_size=12)
        | st.builds(Order, id=st.integers(), lines=st.lists(inner, max_size=4))
    ),
    max_leaves=40,
)


@pytest.mark.slow
@thorough
@given(objects)
def test_an_object_comes_back_as_it_was(value: object) -> None:
    data = codec.encode(value)
    assert exact(codec.decode(data)) == exact(value)
    assert exact(codec.decode(memoryview(data))) == exact(value)


BIG = 2**64
GOLDEN: list[tuple[object, str]] = [
    (None, "c0"),
    ([1, -1, "a", b"b", {"k": 1.5}], "95 01 ff a161 c40162 81 a16b cb3ff8000000000000"),
    (2**64 - 1, "cf ffffffffffffffff"),
    (-(2**63), "d3 8000000000000000"),
    ((), "91 c70001"),
    ((1, (2,)), "93 c70001 01 92 c70001 02"),
    ({5}, "92 c70002 05"),
    (frozenset({5}), "92 c70003 05"),
    ({(1,): [2]}, "81 92 c70001 01 91 02"),
    (Point(1, "a"), "94 c70004 03 01 a161"),
    (Order(id=1), "94 c70004 7f 01 90"),
    (Empty(), "92 c70004 cdffff"),
    (BIG, "c709 08 010000000000000000"),
    (-(2**63) - 1, "c709 08 ff7fffffffffffffff"),
    (2 ** (2048 * 8 - 1) - 1, "c80800 08 7f" + "ff" * 2047),
    (-(2 ** (2048 * 8 - 1)) + 1, "c80800 08 80" + "00" * 2046 + "01"),
    (Decimal("-1.50"), "c705 09 2d312e3530"),
    (Decimal("1E+3"), "d6 09 31652b33"),
    (Decimal("sNaN"), "d6 09 736e616e"),
    (Decimal("-Infinity"), "c709 09 2d696e66696e697479"),
    (complex(1.5, -0.0), "d8 0a 3ff8000000000000 8000000000000000"),
    (UUID(int=1), "d8 0b 00000000000000000000000000000001"),
    (date(2024, 2, 29), "d6 0c 07e8 02 1d"),
    (time(1, 2, 3, 4, fold=1), "d7 0d 01 02 03 01 00000004"),
    (time(1, 2, 3, 4, UTC), "d8 0d 01 02 03 00 00000004 0000000000000000"),
    (datetime(2024, 2, 29, 1, 2, 3, 4), "c70c 0e 07e8 02 1d 01 02 03 00 00000004"),
    (
        datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=-1))),
        "c714 0e 07e8 02 1d 00 00 00 00 00000000 ffffffff296c5c00",
    ),
    (timedelta(-1, 2, 3), "c70c 0f ffffffff 00000002 00000003"),
    (Colour.RED, "c705 10 0000 524544"),
    (Level.HIGH, "c706 10 0001 48494748"),
    (Access.ALL, "c703 10 0002 03"),
    (Access(0), "d5 10 0002"),
]


@pytest.mark.parametrize(("value", "wire"), GOLDEN, ids=[wire[:20] for _, wire in GOLDEN])
def test_the_wire_format(value: object, wire: str) -> None:
    assert codec.encode(value).hex() == wire.replace(" ", "")
    for form in (bytes, bytearray, memoryview):
        assert exact(codec.decode(form(bytes.fromhex(wire)))) == exact(value)  # type: ignore[arg-type]


def test_keys_that_are_equal_keep_their_types() -> None:
    for key in (1, 1.0, True):
        assert exact(round_trip({key: key})) == exact({key: key})


def test_the_decimal_context_does_not_matter() -> None:
    with localcontext(prec=2, capitals=0, Emax=3, Emin=-3):
        data = codec.encode(Decimal("123.456E-99"))
        assert data == codec.encode(Decimal("123.456e-99"))
        assert exact(codec.decode(data)) == exact(Decimal("123.456E-99"))


def test_a_zone_comes_back_as_its_offset() -> None:
    berlin = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert round_trip(berlin) == berlin
    assert exact(round_trip(berlin)) == exact(berlin.replace(tzinfo=timezone(timedelta(hours=2))))
    assert round_trip(datetime(2024, 7, 1, tzinfo=timezone(timedelta(hours=1), "name"))) == datetime(
        2024, 7, 1, tzinfo=timezone(timedelta(hours=1))
    )


@pytest.mark.parametrize("fold", [0, 1])
def test_the_hour_that_comes_twice_keeps_its_instant(fold: int) -> None:
    twice = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    came = round_trip(twice)
    assert isinstance(came, datetime)
    assert came.timestamp() == twice.timestamp()
    assert (came.replace(tzinfo=None), came.fold) == (twice.replace(tzinfo=None), fold)


@pytest.mark.parametrize(
    ("data", "moment"),
    [
        ("d6 ff 00000001", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        ("d7 ff 00001f4000000001", datetime(1970, 1, 1, 0, 0, 1, 2, tzinfo=UTC)),
        ("c70c ff 000003e8 ffffffffffffffff", datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)),
    ],
)
def test_a_timestamp_is_a_datetime_in_utc(data: str, moment: datetime) -> None:
    assert exact(codec.decode(bytes.fromhex(data))) == exact(moment)
    assert exact(codec.decode(bytes.fromhex("92 c70001" + data))) == exact((moment,))


def test_an_alias_is_its_member() -> None:
    assert round_trip(Colour.ROT) is Colour.RED


def test_fields_added_later_get_their_defaults() -> None:
    old, new = MsgpackCodec(), MsgpackCodec()
    old.register(1, make_dataclass("Item", ["name"]))
    new_class = make_dataclass("Item", ["name", ("price", int, field(default=5))])
    new.register(1, new_class)
    data = old.encode(make := old.decode(b"\x93\xc7\x00\x04\x01\xa1a"))
    assert type(make).__name__ == "Item"
    assert new.decode(data) == new_class("a", 5)
    with pytest.raises(DecodeError, match="a Item with 2 fields, not 1"):
        old.decode(new.encode(new_class("a", 6)))


def test_the_codec_is_a_codec() -> None:
    one: Codec = MsgpackCodec()
    assert one.name == "msgpack"


# -- what is not encoded ---------------------------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Moment(datetime):
    pass


class Zone(tzinfo):
    """A zone whose offset is what a function says."""

    def __init__(self, offset: Callable[[], timedelta | None]) -> None:
        self.offset = offset

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return self.offset()

    def dst(self, when: datetime | None) -> None:
        raise AssertionError("nobody asks for this")

    def tzname(self, when: datetime | None) -> str:
        raise AssertionError("nobody asks for this")


def no_such_zone() -> timedelta:
    raise LookupError("no such zone\x1b[0m")


class Hidden:
    def __repr__(self) -> str:
        raise AssertionError("nobody asked for this")


PLAIN = "convert it to a plain"
REFUSED: list[tuple[object, str, str]] = [
    ({"users": [0, 1, 2, {"created": Hidden()}]}, "$['users'][3]['created']", "an object of type Hidden cannot be"),
    ({"users": [Point(1, {"at": Hidden})]}, "$['users'][0].y['at']", "an object of type type cannot be"),
    (Hidden(), "$", "an object of type Hidden cannot be"),
    ([OrderedDict(a=1)], "$[0]", f"a OrderedDict would come back as dict: {PLAIN} dict"),
    ([defaultdict(int)], "$[0]", f"a defaultdict would come back as dict: {PLAIN} dict"),
    ((1, Pair(1, 2)), "$[1]", f"a Pair would come back as tuple: {PLAIN} tuple"),
    ({Text("k"): 1}, "${<Text>}", f"a Text would come back as str: {PLAIN} str"),
    ({"k": Moment(2024, 1, 1)}, "$['k']", f"a Moment would come back as datetime: {PLAIN} datetime"),
    ([[bytearray(b"x")]], "$[0][0]", "a bytearray would come back as bytes: convert it to bytes"),
    ({"k": memoryview(b"x")}, "$['k']", "a memoryview would come back as bytes: convert it to bytes"),
    (bytearray(), "$", "a bytearray would come back as bytes"),
    ({"k": bytearray(5000)}, "$['k']", "a bytearray would come back as bytes"),
    ([Point(1, [bytearray()])], "$[0].y[0]", "a bytearray would come back as bytes"),
    (memoryview(b""), "$", "a memoryview would come back as bytes"),
    ({memoryview(b"x"): 1}, "${<memoryview>}", "a memoryview would come back as bytes"),
    ([msgpack.ExtType(1, b"")], "$[0]", "a ExtType would come back as tuple"),
    ([msgpack.ExtType(11, bytes(16)), 1], "$[0]", "a ExtType would come back as tuple"),
    ({1: msgpack.Timestamp(1)}, "$[1]", "an object of type Timestamp cannot be carried"),
    ({"d": [Unregistered(1)]}, "$['d'][0]", "Unregistered is not registered: codec.register(number, Unregistered)"),
    ({Level.LOW: "\ud800"}, "$[Level.LOW]", "surrogates not allowed"),
    ({"\ud800": 1}, "${'\\ud800'}", "surrogates not allowed"),
    (["a", {frozenset({"\udfff"})}], "$[1]{<frozenset>}{'\\udfff'}", "surrogates not allowed"),
    ({(1, "\udfff"): 1}, "${<tuple>}[1]", "surrogates not allowed"),
    ([2 ** (2048 * 8 - 1)], "$[0]", "an int of more than 2048 bytes"),
    ({2**20000: Hidden()}, "${<int>}", "an int of more than 2048 bytes"),
    ({2**15000: Hidden()}, "$[<int>]", "an object of type Hidden cannot be carried"),
    ({"k" * 90: Hidden()}, f"$['{'k' * 39}...]", "an object of type Hidden cannot be carried"),
    ([time(1, tzinfo=ZoneInfo("Europe/Berlin"))], "$[0]", "its zone has no fixed UTC offset"),
    ([datetime(2024, 1, 1, tzinfo=Zone(lambda: None))], "$[0]", "its zone has no fixed UTC offset"),
    ([datetime(2024, 1, 1, tzinfo=Zone(no_such_zone))], "$[0]", "no such zone\\x1b[0m"),
    ([Loose(9)], "$[0]", "a Loose with bits that no member has"),
    (Order(id=1, lines=[Hidden()]), "$.lines[0]", "an object of type Hidden cannot be carried"),
]


@pytest.mark.parametrize(("value", "path", "reason"), REFUSED, ids=[path for _, path, _ in REFUSED])
def test_what_would_not_come_back_is_refused_with_its_path(value: object, path: str, reason: str) -> None:
    with pytest.raises(EncodeError) as caught:
        codec.encode(value)
    assert caught.value.path == path
    assert reason in str(caught.value)
    assert codec.encode([1]) == b"\x91\x01"


@thorough
@given(st.lists(st.none() | st.integers() | st.text(max_size=5), max_size=3), st.data())
def test_the_path_leads_to_the_element(value: object, data: st.DataObject) -> None:
    """Hide a bytearray in an object: the path, read as an expression, finds it."""
    hidden = bytearray(b"hidden")
    whole, path = [value, {"in": (value, hidden)}], "[1]['in'][1]"
    for _ in range(data.draw(st.integers(0, 5))):
        if data.draw(st.booleans()):
            whole, path = [value, whole], f"[1]{path}"
        else:
            whole, path = [{"key": whole, "a": value}], f"[0]['key']{path}"
    with pytest.raises(EncodeError) as caught:
        codec.encode(whole)
    assert caught.value.path == f"${path}"
    assert eval(f"whole{path}") is hidden


def test_an_unregistered_enum_is_refused() -> None:
    with pytest.raises(EncodeError, match=r"Level is not registered: .* \(at \$\[0\]\)"):
        MsgpackCodec().encode([Level.LOW])


def test_a_structure_that_holds_itself_is_refused() -> None:
    ring: list[object] = [1]
    ring.append((ring,))
    with pytest.raises(EncodeError, match=r"a container that holds itself \(at \$\[1\]\[0\]\)"):
        codec.encode(ring)


def test_a_field_that_is_missing_is_refused() -> None:
    order = Order(id=1)
    del order.id
    with pytest.raises(EncodeError, match=r"AttributeError: .*'id'"):
        codec.encode([order])


# -- limits ----------------------------------------------------------------------------------------------------------


def nest(depth: int, wrap: Callable[[object], object], inner: object) -> object:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


WRAPS: list[Callable[[object], object]] = [
    lambda inner: [inner],
    lambda inner: (inner,),
    lambda inner: {"k": inner},
    lambda inner: frozenset({inner}),
    lambda inner: Point(inner, None),
    lambda inner: [inner, *range(200)],
]


@pytest.fixture(params=["stack of the unpacker", "walk"])
def measure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to measure depth: the second one is for msgpack without its extension module."""
    if request.param == "walk":
        monkeypatch.setattr(payload, "_STACK", 0)


@pytest.mark.usefixtures("measure")
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("max_depth", [4, 32, 256])
def test_depth_is_bounded_on_both_sides(max_depth: int, wrap: Callable[[object], object]) -> None:
    limited, generous = new_codec(max_depth=max_depth, max_elements=10**6), new_codec(max_depth=256)
    leaf = "é" * 40  # its bytes look like containers
    fitting = nest(max_depth, wrap, leaf)
    assert exact(limited.decode(limited.encode(fitting))) == exact(fitting)
    too_deep = wrap(fitting)
    with pytest.raises(EncodeError, match=f"nested deeper than {max_depth}") as caught:
        limited.encode(too_deep)
    assert caught.value.path != "$"
    if max_depth < 256:
        with pytest.raises(DecodeError, match=f"nested deeper than {max_depth}"):
            limited.decode(generous.encode(too_deep))


@pytest.mark.usefixtures("measure")
def test_depth_within_keys_counts() -> None:
    fitting = {nest(31, lambda inner: (inner, *range(40)), 0): 0}
    assert round_trip(fitting) == fitting
    with pytest.raises(EncodeError, match="nested deeper than 32"):
        codec.encode([fitting])


@pytest.mark.skipif(msgpack.Packer.__module__ == "msgpack.fallback", reason="msgpack without its extension module")
def test_the_stack_of_the_unpacker_measures_depth() -> None:
    """If this fails, msgpack has changed: nothing is wrong but the speed."""
    assert payload._STACK == 1024


@thorough
@given(
    st.recursive(
        st.integers(0, 300) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_both_measures_agree(value: object) -> None:
    data = msgpack.packb(value)
    for max_depth in (1, 2, 3, 5):
        quick = MsgpackCodec(max_depth=max_depth)._excess(data)
        assert quick == payload._walk(data, max_depth, 10**6)


@pytest.mark.parametrize(
    "fill",
    [
        lambda count: list(range(count)),
        lambda count: tuple(range(count - 1)),
        lambda count: set(range(count - 1)),
        lambda count: [*range(count - 3), {"k": None}],
        lambda count: [*range(count - 3), Empty()],
    ],
)
def test_elements_are_bounded_on_both_sides(fill: Callable[[int], object]) -> None:
    fitting = fill(65_535)
    assert round_trip(fitting) == fitting
    too_many = fill(65_536)
    with pytest.raises(EncodeError, match=r"more than 65536 elements \(at \$\)"):
        codec.encode(too_many)
    generous = new_codec(max_elements=65_537)
    data = generous.encode(too_many)
    assert generous.decode(data) == too_many
    with pytest.raises(DecodeError, match="more than 65536 elements"):
        codec.decode(data)


def test_large_things_of_few_elements_pass() -> None:
    value: dict[str, object] = {"b": bytes(2**20), "s": "x" * 2**20}
    value["é"] = ["é" * 70_000, 2**4000, Decimal("1" * 70_000)]
    assert round_trip(value) == value


def array(count: int) -> bytes:
    return b"\xdd" + pack(">I", count)


BOMBS = {
    "empty arrays": array(2**20) + b"\x90" * 2**20,
    "empty maps": array(2**20) + b"\x80" * 2**20,
    "short texts": array(2**18) + b"\xa2ab" * 2**18,
    "nested": b"\x91" * 100_000,
    "nested in few bytes": b"\x91" * 60_000,
    "declared": array(2**32 - 1) * 3,
    "declared in many levels": array(60_000) * 12_000,
    "declared in few bytes": (b"\xdc" + pack(">H", 1000)) * 330,
    "declared and missing": array(60_000) * 31 + bytes(60_000),
    "maps": (b"\xdf" + pack(">I", 30_000)) * 12_000,
}


@pytest.mark.usefixtures("measure")
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_a_bomb_is_refused_before_it_takes_memory(bomb: bytes) -> None:
    target = new_codec()
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            target.decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(bomb) + 50_000
    finally:
        tracemalloc.stop()


PRIME = 2**61 - 1  # ints that differ by it have the same hash


def colliding(count: int, write: Callable[[int], bytes]) -> list[bytes]:
    return [write(2**64 + i * PRIME) for i in range(count)]


def uuid_bytes(value: int) -> bytes:
    return b"\xd8\x0b" + value.to_bytes(16, "big")


def int_bytes(value: int) -> bytes:
    return codec.encode(value)


@pytest.mark.parametrize("write", [uuid_bytes, int_bytes])
@pytest.mark.parametrize(
    "start", [b"\xdd%b\xc7\x00\x02", b"\xdd%b\xc7\x00\x03", b"\xdf%b"], ids=["set", "frozenset", "map"]
)
def test_keys_made_to_collide_are_refused(start: bytes, write: Callable[[int], bytes]) -> None:
    keys = colliding(3000, write)
    data = start % pack(">I", len(keys) + (start[-1] < 10)) + (b"" if start[-1] < 10 else b"\x00").join([*keys, b""])
    with pytest.raises(DecodeError, match="too many keys with the same hash"):
        codec.decode(data)


def test_keys_that_happen_to_collide_pass() -> None:
    grid = {(x, y, z, 2**70) for x in range(-8, 8) for y in range(-8, 8) for z in (-1, -2)}
    assert round_trip(grid) == grid
    assert round_trip(dict.fromkeys(grid)) == dict.fromkeys(grid)
    few = {2**64 + i * PRIME for i in range(8)}
    assert round_trip(few) == few


@pytest.mark.parametrize("limits", [{"max_depth": 0}, {"max_depth": 257}, {"max_elements": 0}])
def test_limits_that_are_none(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        MsgpackCodec(**limits)


def test_small_limits_hold() -> None:
    tiny = MsgpackCodec(max_depth=1, max_elements=1)
    assert tiny.decode(tiny.encode([])) == []
    assert tiny.decode(tiny.encode("a text is one element")) == "a text is one element"
    values: list[object] = [[1], [[]]]
    for value in values:
        with pytest.raises(EncodeError):
            tiny.encode(value)
        with pytest.raises(DecodeError):
            tiny.decode(msgpack.packb(value))
    few = MsgpackCodec(max_elements=4)
    assert few.decode(few.encode([1, "more bytes than elements", 3])) == [1, "more bytes than elements", 3]
    with pytest.raises(EncodeError, match="more than 4 elements"):
        few.encode([1, 2, 3, 4])
    with pytest.raises(DecodeError, match="more than 4 elements"):
        few.decode(b"\x94\x01\x02\x03\x04")


# -- what is not decoded ---------------------------------------------------------------------------------------------

raw_extensions = st.builds(msgpack.ExtType, st.integers(0, 18), st.binary(max_size=24))
marks = st.builds(msgpack.ExtType, st.integers(1, 4), st.just(b""))
raw_keys = st.integers(0, 5) | st.text(max_size=4) | marks | raw_extensions
raw = st.recursive(
    raw_keys | st.floats() | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1)),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.builds(lambda mark, rest: [mark, *rest], marks, st.lists(inner, max_size=4))
        | st.dictionaries(raw_keys, inner, max_size=4)
    ),
)


def decodes_or_refuses(data: bytes) -> None:
    try:
        value = codec.decode(data)
    except DecodeError:
        return
    assert exact(round_trip(value)) == exact(value)


@thorough
@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_decode_error(data: bytes) -> None:
    decodes_or_refuses(data)


@thorough
@given(raw)
def test_any_extensions_are_an_object_or_a_decode_error(value: object) -> None:
    decodes_or_refuses(msgpack.packb(value))


@pytest.mark.slow
@thorough
@given(objects, st.data())
def test_damaged_bytes_are_an_object_or_a_decode_error(value: object, draw: st.DataObject) -> None:
    data = bytearray(codec.encode(value))
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(data) - 1))
        data[at : at + draw.draw(st.integers(0, 2))] = draw.draw(st.binary(max_size=2))
        data = data or bytearray(b"\xc1")
    decodes_or_refuses(bytes(data))


@thorough
@given(st.binary(max_size=40), st.integers(0, 2**20), st.integers(1, 64))
def test_the_walk_ends_on_any_bytes(data: bytes, max_elements: int, max_depth: int) -> None:
    fault = payload._walk(data, max_depth, max_elements)
    try:
        msgpack.unpackb(data, strict_map_key=False, object_pairs_hook=list, unicode_errors="replace")
    except (ValueError, OverflowError):
        return
    assert fault == "" or "nested" in fault or "more than" in fault


NOT_DECODED: list[tuple[str, str]] = [
    ("", "incomplete|truncated"),
    ("c1", "FormatError"),
    ("91c1", "FormatError"),
    ("c0c0", "extra data|other bytes"),
    ("9201", "incomplete|truncated"),
    ("d9", "incomplete|truncated"),
    ("a1ff", "utf-8"),
    ("a3eda080", "utf-8"),
    ("819000", "unhashable"),
    ("81 80 00", "unhashable"),
    ("d4 00 00", "unknown extension 0"),
    ("d4 11 00", "unknown extension 17"),
    ("d4 7f 00", "unknown extension 127"),
    ("d4 fe 00", "unknown extension -2"),
    # marks where none belongs
    ("c70001", "a mark that is not at the start of an array"),
    ("92 01 c70001", "a mark that is not at the start of an array"),
    ("92 c70001 c70002", "a mark that is not at the start of an array"),
    ("81 c70001 01", "a mark that is not at the start of an array"),
    ("81 01 c70003", "a mark that is not at the start of an array"),
    ("91 d4 01 00", "a mark that holds data"),
    ("92 c70002 90", "unhashable"),
    ("92 c70003 91c70002", "unhashable"),
    # registered classes
    ("91 c70004", "no dataclass is registered under the number None"),
    ("92 c70004 04", "no dataclass is registered under the number 4"),
    ("92 c70004 00", "no dataclass is registered under the number 0"),
    ("92 c70004 c3", "no dataclass is registered under the number True"),
    ("92 c70004 90", r"no dataclass is registered under the number \[\]"),
    ("92 c70004 ff", "no dataclass is registered under the number -1"),
    ("93 c70004 03 01", "TypeError: .*missing 1 required"),
    ("95 c70004 03 01 02 03", "a Point with 3 fields, not 2"),
    ("93 c70004 07 ff", r"ArithmeticError: n is negative\\n"),
    ("d5 10 0004", "no Enum is registered under the number 4"),
    ("d5 10 0003", "no Enum is registered under the number 3"),
    ("d4 10 00", "error: unpack_from requires"),
    ("c705 10 0000 726564", "Colour has no member 'red'"),
    ("c702 10 0000", "Colour has no member ''"),
    ("c703 10 0000 ff", "utf-8"),
    ("c703 10 0002 04", "a Access with bits that no member has"),
    ("c703 10 0008 08", "a Loose with bits that no member has"),
    # values
    ("c80801 08" + "00" * 2049, "an int of more than 2048 bytes"),
    ("c70009", "InvalidOperation|not a decimal"),
    ("d5 09 2b31", "not a decimal number as it is written"),
    ("d5 09 2031", "not a decimal number as it is written"),
    ("c703 09 315f30", "not a decimal number as it is written"),
    ("d6 09 31452b33", "not a decimal number as it is written"),
    ("c703 09 efbc91", "ascii"),
    ("d4 09 78", "InvalidOperation"),
    ("c719 09 31652b" + "39" * 22, "InvalidOperation"),
    ("d7 0a 0000000000000000", "unpack requires"),
    ("d7 0b 0000000000000000", "16-char"),
    ("d6 0c 07e8 02 1e", "day"),
    ("d6 0c 0000 01 01", "year"),
    ("d5 0c 0000", "unpack requires"),
    ("d7 0d 18 00 00 00 00000000", "hour"),
    ("d7 0d 00 00 00 02 00000000", "fold"),
    ("d7 0d 00 00 00 00 000f4240", "microsecond"),
    ("c709 0d 00 00 00 00 00000000 00", "unpack requires"),
    ("c70c 0e 07e8 02 1e 00 00 00 00 00000000", "day"),
    ("c714 0e 07e8 02 1d 00 00 00 00 00000000 000000141dd76000", "offset must be"),
    ("c714 0e 07e8 02 1d 00 00 00 00 00000000 7fffffffffffffff", "offset must be"),
    ("c9 ffffffff 05", "incomplete|truncated|exceeds"),
    ("c70c 0f 7fffffff 00000002 00000003", "OverflowError"),
    ("d7 ff ffffffff00000000", "nanoseconds"),
    ("c70c ff 00000000 7fffffffffffffff", "OverflowError"),
    ("d4 ff 00", "timestamp|Timestamp"),
]


@pytest.mark.parametrize(("wire", "reason"), NOT_DECODED)
@pytest.mark.parametrize("size", ["small", "large"])
def test_not_decoded(size: str, wire: str, reason: str) -> None:
    data = bytes.fromhex(wire)
    if size == "large":  # past the size from which every extension takes the careful way
        data = b"\x92" + codec.encode(bytes(2000)) + data
    with pytest.raises(DecodeError, match=reason):
        codec.decode(data)


def test_a_decimal_out_of_range_is_refused_in_every_context() -> None:
    data = bytes.fromhex("c719 09 31652b" + "39" * 22)
    with localcontext() as context:
        context.clear_traps()
        with pytest.raises(DecodeError, match="not a decimal number"):
            codec.decode(data)


def test_a_signalling_nan_is_no_key() -> None:
    assert math.isnan(round_trip([Decimal("NaN")])[0])  # type: ignore[index]
    with pytest.raises(DecodeError, match="signaling NaN"):
        codec.decode(b"\x92\xc7\x00\x02" + codec.encode(Decimal("sNaN")))


def test_truncated_data_is_refused_by_its_shape() -> None:
    rows = codec.encode([[i, [i]] for i in range(500)])
    assert len(rows) > 1024
    for end in (40, 1030, len(rows) - 1):
        with pytest.raises(DecodeError, match=r"truncated|incomplete|exceeds"):
            codec.decode(rows[:end])
        assert payload._walk(rows[:end], 32, 10**6) == "truncated"
    assert payload._walk(rows + b"\x00", 32, 10**6) == "followed by other bytes"


@pytest.mark.slow
def test_the_walk_knows_every_header() -> None:
    leaves = [None, 1, -1, 2**7, 2**15, 2**31, 2**63, -(2**7), -(2**15), -(2**31), -(2**63), 0.5, "", "x" * 31]
    sized = [kind(size) for kind in (bytes, lambda size: "x" * size) for size in (40, 300, 70_000)]
    extensions = [msgpack.ExtType(5, bytes(size)) for size in (0, 1, 2, 4, 8, 16, 17, 300, 70_000)]
    containers = [[], {}, [0] * 16, [0] * 70_000, {i: [] for i in range(16)}, {i: {} for i in range(70_000)}]
    for value in [*leaves, *sized, *extensions, *containers]:
        for inner in (value, [value], [value, {"k": value}, value]):
            data = msgpack.packb(inner)
            assert payload._walk(data, 4, 10**6) == ""
            assert payload._walk(data[:-1], 4, 10**6) == "truncated"


def test_bytes_that_are_a_pickle_stay_bytes() -> None:
    assert round_trip(pickle.dumps(Empty())) == pickle.dumps(Empty())


# -- registration ----------------------------------------------------------------------------------------------------


@dataclass
class WithInitVar:
    a: int
    b: InitVar[int]


@dataclass
class WithoutInit:
    a: int
    b: int = field(init=False, default=1)


@dataclass(init=False)
class WithOwnInit:
    a: int

    def __init__(self, *values: int) -> None:
        self.a = sum(values)


@dataclass
class Listing(list[int]):
    a: int


class NoDataclass:
    pass


UNSUITABLE: list[tuple[Any, Any, str]] = [
    (-1, Unregistered, "not an int from 0 to 65535"),
    (65_536, Unregistered, "not an int from 0 to 65535"),
    (True, Unregistered, "not an int from 0 to 65535"),
    ("5", Unregistered, "not an int from 0 to 65535"),
    (0, Unregistered, "the number 0 is registered already"),
    (5, Point, "Point is carried or registered already"),
    (5, Colour, "Colour is carried or registered already"),
    (5, str, "str is carried or registered already"),
    (5, datetime, "datetime is carried or registered already"),
    (5, Unregistered(1), "is not a class"),
    (5, NoDataclass, "NoDataclass is neither an Enum nor a dataclass"),
    (5, WithInitVar, "constructor of WithInitVar does not take exactly its fields"),
    (5, WithoutInit, "constructor of WithoutInit does not take exactly its fields"),
    (5, WithOwnInit, "constructor of WithOwnInit does not take exactly its fields"),
    (5, Listing, "Listing holds more than its fields"),
]


@pytest.mark.parametrize(("number", "cls", "reason"), UNSUITABLE)
def test_unsuitable_registrations_are_refused_and_change_nothing(number: Any, cls: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        codec.register(number, cls)
    other = new_codec()
    with pytest.raises(ConfigurationError, match=reason):
        other.register(number, cls)
    other.register(5, Unregistered)
    assert other.decode(other.encode(Unregistered(1))) == Unregistered(1)


# -- one codec for many ----------------------------------------------------------------------------------------------


def test_encoding_within_encoding() -> None:
    """A hook may run code of the application, which may encode with the same codec."""

    def encode_more() -> timedelta:
        assert round_trip([1, (2, 3), "x" * 100]) == [1, (2, 3), "x" * 100]
        return timedelta(hours=1)

    moment = datetime(2024, 1, 1, tzinfo=Zone(encode_more))
    assert round_trip(["before", moment, "after"]) == ["before", moment, "after"]


def test_threads_share_a_codec() -> None:
    shared = new_codec()
    good: list[int] = []

    def work(number: int) -> None:
        value = [(number, Decimal(number), {number})] * 50
        for _ in range(40):
            assert shared.decode(shared.encode(value)) == value
        good.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(good) == [0, 1, 2, 3]


def test_a_packer_that_grew_large_is_not_kept() -> None:
    fresh = MsgpackCodec()
    fresh.encode(bytes(60_000))
    assert len(fresh._packers) == 1
    fresh.encode(bytes(70_000))
    assert fresh._packers == []
