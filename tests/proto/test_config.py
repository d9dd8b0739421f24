"""Settings: the defaults are those of the specification, and what cannot work is refused when it is set."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, fields, replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from networkio_proto.config import COST_PER_MESSAGE, Config, Limits, check_peer_id
from networkio_proto.errors import ConfigurationError, UsageError
from networkio_proto.handshake import PeerLimits, encode_hello, frame_body, parse_hello

thorough = settings(derandomize=True, deadline=None, max_examples=100)


# -- peer ids ---------------------------------------------------------------------------------------------------------

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-"


@thorough
@given(st.text(ALPHABET, min_size=1, max_size=64))
@example("x" * 64)
@example("-")
def test_every_text_of_the_alphabet_up_to_64_characters_is_a_peer_id(peer_id: str) -> None:
    assert check_peer_id(peer_id) is peer_id


@pytest.mark.slow
@thorough
@given(st.text(ALPHABET, min_size=65, max_size=80) | st.text(max_size=70))
@example("")
@example("a\n")
@example("a b")
@example("\N{FULLWIDTH LATIN CAPITAL LETTER A}")
@example("\N{ARABIC-INDIC DIGIT THREE}")
@example("\u202e" * 30)
def test_no_other_text_is(text: str) -> None:
    if text and len(text) <= 64 and set(text) <= set(ALPHABET):
        return
    with pytest.raises(ConfigurationError, match="is not a peer id: 1 to 64 characters of") as caught:
        check_peer_id(text)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


@pytest.mark.parametrize("value", [b"a", None, 1, ["a"]])
def test_a_peer_id_is_a_text(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(repr(value))):
        check_peer_id(value)


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "least", "most"), [("frame", 8192, 2**32 - 1), ("message", 1, 2**31)])
def test_limits_go_as_far_as_the_specification_lets_them(name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert getattr(Limits(**{name: value}), name) == value
    for value in (least - 1, most + 1, 0, -1):
        with pytest.raises(ConfigurationError, match=rf"limits\.{name} is {value};"):
            Limits(**{name: value})


# -- the configuration ------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_specification() -> None:
    config = Config()
    assert COST_PER_MESSAGE == 64
    assert (config.limits.frame, config.limits.message) == (64 * 1024, 16 * 1024 * 1024)
    assert (config.window, config.window_max) == (256 * 1024, 4 * 1024 * 1024)
    assert (config.ack_delay, config.ack_messages, config.ack_cost) == (0.025, 64, 64 * 1024)
    assert (config.ping_after, config.dead_after) == (20.0, 45.0)
    assert (config.probe_timeout, config.write_stall, config.pause_threshold) == (2.0, 30.0, 5.0)
    assert (config.handshake_timeout, config.linger) == (5.0, 1.0)
    assert (config.backoff_base, config.backoff_max, config.backoff_slow_max) == (0.25, 30.0, 300.0)
    assert (config.retry_quick, config.dial_courtesy) == (0.05, 1.0)
    assert (config.session_expiry, config.ended_retention) == ("auto", 7 * 24 * 3600.0)
    assert (config.overflow, config.on_peer_restart) == ("wait", "redeliver")


NUMBERS = [item.name for item in fields(Config) if isinstance(getattr(Config(), item.name), (int, float))]


def test_every_number_is_known_to_these_tests() -> None:
    assert len(NUMBERS) == len(fields(Config)) - len(["limits", "overflow", "on_peer_restart", "session_expiry"])


@pytest.mark.parametrize("name", [*NUMBERS, "session_expiry"])
@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, nan])
def test_a_number_that_is_not_positive_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} is {value};"):
        Config(**{name: value})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"overflow": "drop"}, 'overflow is \'drop\'; it must be "wait" or "drop_oldest"'),
        ({"overflow": None}, "overflow is None"),
        ({"on_peer_restart": "ignore"}, "on_peer_restart is 'ignore'"),
        ({"session_expiry": "never"}, "session_expiry is 'never'; seconds, None or \"auto\""),
        ({"session_expiry": inf}, "session_expiry is inf"),
        ({"dead_after": 0.24, "ping_after": 0.01}, "dead_after is 0.24; it must be at least 0.25 s"),
        ({"ping_after": 0.09}, "ping_after is 0.09; it must be at least 0.1 s"),
        ({"dead_after": inf}, "dead_after is inf"),
        ({"dead_after": 2.0**48}, "dead_after is "),
        ({"ping_after": 20.1}, "ping_after is 20.1; it must be at most 4/9 of dead_after (45.0)"),
        ({"dead_after": 44.0}, "ping_after is 20.0; it must be at most 4/9 of dead_after (44.0)"),
        ({"window": 64 * 1024 - 1}, "window_guaranteed <= window <= window_max"),
        ({"window_guaranteed": 256 * 1024 + 1}, "window_guaranteed <= window <= window_max"),
        ({"window_max": 256 * 1024 - 1}, "window_guaranteed <= window <= window_max"),
    ],
)
def test_what_cannot_work_is_refused_with_the_setting_and_what_it_takes(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        Config(**changes)
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Config(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"overflow": "drop_oldest", "on_peer_restart": "report"},
        {"session_expiry": None},
        {"session_expiry": 0.5},
        {"session_expiry": "auto"},
        {"dead_after": 0.25, "ping_after": 0.1},
        {"dead_after": 2**48 / 1000},
        {"ping_after": 20.0, "dead_after": 45.0},
        {"window_guaranteed": 1, "window": 1, "window_max": 1},
        {"limits": Limits(frame=8192, message=1)},
    ],
)
def test_what_is_just_within_the_bounds_is_taken(changes: dict[str, Any]) -> None:
    config = Config(**changes)
    for name, value in changes.items():
        assert getattr(config, name) == value
    assert replace(config) == config


@thorough
@given(st.floats(0.25, 2**48 / 1000))
def test_whatever_silence_is_taken_can_be_announced(dead_after: float) -> None:
    config = Config(dead_after=dead_after, ping_after=dead_after * 4 / 9)
    announced = PeerLimits(config.limits.frame, config.limits.message, config.dead_after)
    hello = parse_hello(frame_body(EXAMPLE))
    read = parse_hello(frame_body(encode_hello(replace(hello, limits=announced)))).limits
    assert abs(read.idle - dead_after) <= 0.0005 + dead_after * 1e-12


@thorough
@given(st.floats(0.12, 1e5))
@example(0.45)
def test_pinging_at_four_ninths_of_the_silence_is_taken_however_it_was_computed(ping_after: float) -> None:
    for dead_after in (ping_after * 9 / 4, ping_after * 2.25, ping_after / (4 / 9), ping_after / 4 * 9):
        assert Config(dead_after=dead_after, ping_after=ping_after).ping_after == ping_after


EXAMPLE = bytes.fromhex(
    "000000df01008da176920101a26964aa636c69656e742d313233a2746faa7365727665722d303031ab696e6361726e6174696f6ec410c1c1"
    "c1c1c1c1c1c1c1c1c1c1c1c1c1c1a46469616c01a56e6f6e6365c420d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1"
    "d1d1d1d1a8666561747572657390a77265717569726590a461757468a8696e736563757265a66b65795f6964c0a66c696d69747383a56672"
    "616d65ce00010000a76d657373616765ce01000000a469646c65cdafc8a5636f646563a76d73677061636ba56167656e74a96578616d706c"
    "652f31"
)


def test_a_configuration_never_changes() -> None:
    config = Config()
    with pytest.raises(FrozenInstanceError):
        config.window = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        config.limits.frame = 1  # type: ignore[misc]


def test_a_wrong_setting_is_a_usage_error() -> None:
    assert issubclass(ConfigurationError, UsageError)
    with pytest.raises(TypeError):
        Config(Limits())  # type: ignore[call-arg]
