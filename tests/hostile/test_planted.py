"""Mistakes in the proof, made on purpose: each is noticed by an attack, or by the example of the specification.

The module of the keys is compiled with the mistake in it, and takes the place of the right one for one test.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

import pytest

from networkio_proto import psk
from tests.hostile import test_keys as attacks
from tests.proto import test_psk
from tests.proto.helpers_wire import ATTACH

#: what is wrong: (the text in the module, what it becomes, the test that must notice)
MISTAKES: dict[str, tuple[str, str, Callable[..., None]]] = {
    "the role is left out": ('if proof.role == b"D":\n        covered', "if True:\n        covered", attacks.
        test_a_dialers_own_proof_sent_back_to_it_proves_nothing),
    "the letter of the role is left out": ('b"A" + acceptor', "acceptor", test_psk.
        test_it_computes_the_example_of_the_specification),
    "the ids are left out": ("dialer, acceptor = _lp(proof.dialer_id.encode()), _lp(proof.acceptor_id.encode())",
        'dialer, acceptor = b"", b""', test_psk.test_it_computes_the_example_of_the_specification),
    "the dialer's mac is left out": ("dialer + proof.dialer_mac + proof.attach", "dialer + proof.attach",
        test_psk.test_it_computes_the_example_of_the_specification),
    "the transcript is left out": ("_lp(proof.transcript)", 'b""', attacks.
        test_a_recorded_dialer_is_not_believed_again),
    "the channel is left out": ("+ _lp(binding)", "", attacks.
        test_whoever_sits_between_with_a_certificate_of_its_own_is_noticed),
    "the ATTACH is left out": ("+ dialer + acceptor + proof.attach", "+ dialer + acceptor", attacks.
        test_what_was_changed_on_the_way_is_noticed_before_anything_comes_of_it),
    "macs are compared with ==": ("hmac.compare_digest(", "(lambda one, other: one == other)(", attacks.
        test_every_refusal_costs_one_mac_and_one_comparison_in_constant_time),
}  # fmt: skip

#: for tests with parameters: those of the case that must notice
CASES: dict[Callable[..., None], tuple[object, ...]] = {
    attacks.test_a_dialers_own_proof_sent_back_to_it_proves_nothing: ("a",),
    attacks.test_whoever_sits_between_with_a_certificate_of_its_own_is_noticed: (b"d" * 32, False),
    attacks.test_what_was_changed_on_the_way_is_noticed_before_anything_comes_of_it: (0, ATTACH, {"credit": 1}),
}


def broken(old: str, new: str) -> types.ModuleType:
    """The module with another text in one place; if that is not found any more, adapt the mistake."""
    assert psk.__file__ is not None
    source = Path(psk.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1, old
    module = types.ModuleType(psk.__name__)
    module.__package__ = "networkio_proto"
    exec(compile(source.replace(old, new), "psk with a mistake", "exec"), vars(module))
    return module


def noticed(test: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Does the test fail?"""
    given = CASES.get(test, ())
    try:
        if "monkeypatch" in test.__annotations__:
            test(*given, monkeypatch=monkeypatch)
        else:
            test(*given)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, test = MISTAKES[mistake]
    with monkeypatch.context() as right:
        assert not noticed(test, right)
    module = broken(old, new)
    for tests in (attacks, test_psk):
        monkeypatch.setattr(tests, "PSK", module.PSK)
    monkeypatch.setattr(attacks, "psk", module)
    assert noticed(test, monkeypatch)
