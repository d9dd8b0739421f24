"""What a user may put into headers, and what is taken out of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from networkio_proto.frames import PeerFault
from networkio_proto.headers import decode_headers, encode_headers, take_origin
from networkio_proto.maps import encode_map
from tests.proto.helpers import live, pair


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ({"id": b"x"}, "'id' is reserved"),
        ({".anything": 1}, "'.anything' is reserved"),
        ({str(number): 0 for number in range(64)}, "64 headers are more than 63"),
        ({"k": "v" * 4059}, "4065 bytes, at most 4064"),
        ({"k": 1.5}, "float"),
        ({"k": -1}, "int"),
        ({1: "k"}, "a key that is int"),
    ],
)
def test_headers_that_cannot_be_carried_are_refused_and_nothing_changes(
    headers: Mapping[str, object], complaint: str
) -> None:
    world = pair()
    a = world.hosts["a"]
    with pytest.raises(ValueError, match=complaint):
        a.send("b", b"x", headers=headers)
    assert a.session("b").outbox.next == 1


@pytest.mark.parametrize("headers", [{str(number): 0 for number in range(63)}, {"k": "v" * 4058}], ids=["63", "4064"])
def test_the_largest_headers_survive_a_change_of_the_outbox(headers: dict[str, object]) -> None:
    world = pair()
    a, b = world.hosts["a"], world.hosts["b"]
    assert len(encode_headers(headers)) <= 4064
    a.send("b", b"x", headers=headers)
    a.session("b").outbox.rename(bytes(16), mark=False)
    live(world).cut()
    a.dial("b")
    world.run(1.0)
    [delivery] = b.take("a", 2)
    details = delivery[4]
    assert details is not None
    assert details.headers == headers
    assert details.origin is not None


def test_headers_are_what_they_were_when_they_come_out_again() -> None:
    headers = {"kind": "image", "size": 7, "raw": b"x", "flag": True, "none": None}
    assert decode_headers(encode_headers(headers)) == headers


@pytest.mark.parametrize("encoded", [b"", b"\x81\xa1a", b"\x80\x80", b"\x81\x01\x02", b"\xc0"])
def test_what_is_no_map_is_the_peers_fault(encoded: bytes) -> None:
    with pytest.raises(PeerFault, match="headers: "):
        decode_headers(encoded)


def test_the_origin_is_taken_out_and_the_rest_stays() -> None:
    headers = decode_headers(encode_map({"kind": "image", "id": b"o" * 24, ".later": 1}))
    assert take_origin(headers) == b"o" * 24
    assert headers == {"kind": "image", ".later": 1}
    assert take_origin(headers) is None
    assert take_origin(None) is None


@pytest.mark.parametrize("wrong", [7, b"short", "a text of twenty-four bytes"[:24], None])
def test_an_origin_that_is_none_is_the_peers_fault(wrong: object) -> None:
    with pytest.raises(PeerFault, match="the reserved header id"):
        take_origin({"id": wrong})
