"""Randomness comes from the source that an endpoint is given, and from the operating system's by default."""

from __future__ import annotations

from random import Random, SystemRandom

import pytest

from networkio_proto import Config, Endpoint, RandomSource, SystemRandomSource


class Scripted:
    """Hands out counted bytes and notes what it was asked for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def randbytes(self, size: int) -> bytes:
        self.sizes.append(size)
        return bytes([len(self.sizes)]) * size

    def random(self) -> float:
        return 0.5


def test_the_default_source_is_the_operating_systems_generator() -> None:
    source = SystemRandomSource()
    assert isinstance(source, SystemRandom)
    assert [len(source.randbytes(size)) for size in (0, 1, 16, 32)] == [0, 1, 16, 32]
    assert len({source.randbytes(16) for _ in range(100)}) == 100
    assert all(0 <= source.random() < 1 for _ in range(100))


def test_the_default_source_cannot_be_made_to_repeat_itself() -> None:
    one, other = SystemRandomSource(), SystemRandomSource()
    one.seed(1)
    other.seed(1)
    assert one.randbytes(16) != other.randbytes(16)
    with pytest.raises(NotImplementedError):
        one.getstate()


@pytest.mark.parametrize("source", [SystemRandomSource(), Random(0), Scripted()])
def test_whatever_has_these_two_methods_is_a_source(source: RandomSource) -> None:
    endpoint = Endpoint("a", Config(), random=source)
    assert len(endpoint.incarnation) == 16


def test_an_endpoint_draws_its_ids_from_its_source_and_from_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("randbytes", "random"):
        monkeypatch.setattr(SystemRandomSource, method, lambda *_: pytest.fail("another source was asked"))
    source = Scripted()
    endpoint = Endpoint("a", Config(), random=source)
    dial = endpoint.add_target("address", 0.0, to="b").dial
    assert dial is not None
    connection = endpoint.connect(dial, 0.0)
    said = b"".join(connection.data_to_send(0.0))
    assert endpoint.incarnation in said
    assert set(source.sizes) == {16, 32}
    nonce = bytes([source.sizes.index(32) + 1]) * 32
    assert nonce in said


def test_two_endpoints_of_the_default_source_have_nothing_in_common() -> None:
    one, other = (Endpoint("a", Config()) for _ in range(2))
    assert one.incarnation != other.incarnation
