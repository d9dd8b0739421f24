"""When to dial again: the class of every close code, and the delay as a function of why, how often, and a draw."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from networkio_proto.config import Config
from networkio_proto.endpoint import Endpoint
from networkio_proto.errors import CloseCode, ConnectionFailure, ConnectionLost, DialFailed, failure_for
from networkio_proto.events import Abandon, Dial
from networkio_proto.reconnect import RetryClass, Target, TargetState, retry_class, retry_delay

thorough = settings(derandomize=True, deadline=None, max_examples=200)

#: the table of the specification (Close codes); NORMAL has tests of its own
CLASSES = {
    CloseCode.RESTARTING: RetryClass.BACKOFF,
    CloseCode.OVERLOAD: RetryClass.BACKOFF,
    CloseCode.COLLISION: RetryClass.BACKOFF,
    CloseCode.SUPERSEDED: RetryClass.BACKOFF,
    CloseCode.DUPLICATE_IDENTITY: RetryClass.SLOW,
    CloseCode.AUTH_FAILED: RetryClass.SLOW,
    CloseCode.VERSION: RetryClass.SLOW,
    CloseCode.PROTOCOL: RetryClass.BACKOFF,
    CloseCode.FLOW: RetryClass.BACKOFF,
    CloseCode.TOO_LARGE: RetryClass.BACKOFF,
    CloseCode.TIMEOUT: RetryClass.BACKOFF,
    CloseCode.ABORT: RetryClass.STOP,
    CloseCode.ABUSE: RetryClass.BACKOFF,
    CloseCode.SELF: RetryClass.STOP,
    CloseCode.RETRY: RetryClass.AGAIN,
    CloseCode.WRONG_PEER: RetryClass.STOP,
    CloseCode.CODEC: RetryClass.STOP,
}

DEFAULT = Config()
LATER = failure_for(CloseCode.NORMAL, remote=True, resumable=True)


# -- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize(("code", "expected"), CLASSES.items())
def test_a_code_has_its_class_whoever_said_it(
    code: CloseCode, expected: RetryClass, remote: bool, resumable: bool
) -> None:
    assert retry_class(failure_for(code, remote=remote, resumable=resumable)) is expected


def test_every_code_has_a_class() -> None:
    assert {*CLASSES, CloseCode.NORMAL} == set(CloseCode)


@pytest.mark.parametrize(
    ("remote", "resumable", "expected"),
    [
        pytest.param(True, True, RetryClass.LATER, id="the peer closed and can be resumed"),
        pytest.param(True, False, RetryClass.STOP, id="the session is over"),
        pytest.param(False, True, RetryClass.STOP, id="we closed it"),
        pytest.param(False, False, RetryClass.STOP, id="we closed the session"),
    ],
)
def test_a_normal_close_depends_on_who_closed_and_whether_the_session_goes_on(
    remote: bool, resumable: bool, expected: RetryClass
) -> None:
    assert retry_class(failure_for(CloseCode.NORMAL, remote=remote, resumable=resumable)) is expected


@pytest.mark.parametrize("error", [ConnectionLost("cut"), DialFailed("refused"), failure_for(4711, remote=True)])
def test_a_lost_stream_a_failed_dial_and_an_unlisted_code_are_tried_again(error: ConnectionFailure) -> None:
    assert retry_class(error) is RetryClass.BACKOFF


# -- delays -----------------------------------------------------------------------------------------------------------

codes = st.sampled_from(list(CloseCode))
slow_codes = st.sampled_from([code for code, expected in CLASSES.items() if expected is RetryClass.SLOW])
pauses = st.just(0.0) | st.floats(0, 300)
attempts = st.integers(0, 60) | st.just(10**6)
draws = st.floats(0, 1, exclude_max=True)
configs = st.builds(
    Config,
    backoff_base=st.floats(0.01, 5),
    backoff_max=st.floats(5, 60),
    backoff_slow_max=st.floats(60, 600),
    retry_quick=st.floats(0.001, 0.5),
)
failures = st.builds(
    lambda code, remote, resumable, pause: failure_for(code, remote=remote, resumable=resumable, retry_after=pause),
    codes,
    st.booleans(),
    st.booleans(),
    pauses,
)


def interval(count: int, ceiling: float, config: Config = DEFAULT) -> float:
    """What the delay is drawn from after so many attempts."""
    return min(ceiling, config.backoff_base * 2.0 ** min(count, 64))


def delay_of(error: ConnectionFailure, attempts: int, draw: float, config: Config = DEFAULT) -> float:
    """A delay that is one."""
    delay = retry_delay(error, attempts, draw, config)
    assert delay is not None
    return delay


@thorough
@given(failures, attempts, draws, configs)
@example(failure_for(CloseCode.RETRY, remote=True, retry_after=9.0), 1, 0.5, DEFAULT)
@example(failure_for(CloseCode.NORMAL, remote=True, retry_after=99.0), 0, 0.0, DEFAULT)
def test_only_stop_means_never_and_retry_after_is_always_honoured(
    error: ConnectionFailure, attempts: int, draw: float, config: Config
) -> None:
    delay = retry_delay(error, attempts, draw, config)
    assert (delay is None) == (retry_class(error) is RetryClass.STOP)
    if delay is not None:
        assert delay >= error.retry_after
        longest = max(config.backoff_slow_max, config.backoff_max, error.retry_after)
        assert delay <= longest * 1.25


@thorough
@given(codes, attempts, draws, configs)
def test_back_off_is_full_jitter_over_a_doubling_interval_with_a_ceiling(
    code: CloseCode, attempts: int, draw: float, config: Config
) -> None:
    error = failure_for(code, remote=True)
    if retry_class(error) is not RetryClass.BACKOFF:
        return
    delay = delay_of(error, attempts, draw, config)
    widest = config.retry_quick if attempts == 0 else interval(attempts, config.backoff_max, config)
    assert delay == pytest.approx(draw * widest)
    assert delay <= config.backoff_max


@thorough
@given(slow_codes, st.integers(1, 60) | st.just(10**6), draws, configs)
def test_what_only_a_human_can_mend_waits_at_least_half_of_an_interval_of_up_to_five_minutes(
    code: CloseCode, attempts: int, draw: float, config: Config
) -> None:
    delay = delay_of(failure_for(code, remote=True), attempts, draw, config)
    widest = interval(attempts, config.backoff_slow_max, config)
    assert widest / 2 <= delay <= widest
    assert delay == pytest.approx(max(draw, 0.5) * widest)


@thorough
@given(pauses, attempts, draws, configs)
def test_after_a_normal_close_the_other_side_stays_away_for_thirty_seconds_or_what_it_was_told(
    pause: float, attempts: int, draw: float, config: Config
) -> None:
    error = failure_for(CloseCode.NORMAL, remote=True, resumable=True, retry_after=pause)
    least = max(pause, config.backoff_max)
    assert least <= delay_of(error, attempts, draw, config) <= least * 1.25


@thorough
@given(st.integers(0, 3), draws, configs)
def test_a_requested_retry_comes_at_once_three_times(attempts: int, draw: float, config: Config) -> None:
    assert delay_of(failure_for(CloseCode.RETRY), attempts, draw, config) == draw * config.retry_quick


@thorough
@given(st.integers(4, 100), draws, configs)
def test_further_retries_in_a_row_back_off(attempts: int, draw: float, config: Config) -> None:
    expected = draw * interval(attempts, config.backoff_max, config)
    assert delay_of(failure_for(CloseCode.RETRY), attempts, draw, config) == pytest.approx(expected)


@pytest.mark.parametrize(("attempts", "widest"), [(0, 0.05), (1, 0.5), (2, 1.0), (6, 16.0), (7, 30.0), (99, 30.0)])
def test_by_default_a_lost_connection_is_tried_again_quickly_and_then_ever_more_patiently(
    attempts: int, widest: float
) -> None:
    assert delay_of(ConnectionLost(), attempts, 0.0) == 0.0
    assert delay_of(ConnectionLost(), attempts, 0.5) == pytest.approx(widest / 2)


@pytest.mark.parametrize(("attempts", "widest"), [(1, 0.5), (7, 32.0), (10, 256.0), (11, 300.0), (99, 300.0)])
def test_by_default_a_wrong_key_is_tried_again_up_to_every_five_minutes(attempts: int, widest: float) -> None:
    for draw, share in [(0.0, 0.5), (0.5, 0.5), (0.75, 0.75)]:
        assert delay_of(failure_for(CloseCode.AUTH_FAILED), attempts, draw) == pytest.approx(share * widest)


def test_five_thousand_clients_of_a_restarted_server_do_not_come_back_at_the_same_instant() -> None:
    source = Random(0)
    error = failure_for(CloseCode.RESTARTING, remote=True)
    delays = sorted(delay_of(error, 4, source.random()) for _ in range(5000))
    busiest = max(sum(1 for delay in delays if start <= delay < start + 0.1) for start in delays[::50])
    assert busiest < 5000 / 20


# -- targets ----------------------------------------------------------------------------------------------------------


def waiting(retry_at: float | None) -> tuple[Endpoint, Target]:
    endpoint = Endpoint("a", Config(), random=Random(0))
    target = Target(endpoint, ("host", 1), "b")
    target.retry_at = retry_at
    return endpoint, target


def test_a_target_begins_by_waiting_and_knows_its_address_and_peer() -> None:
    _, target = waiting(None)
    assert (target.key, target.to, target.state, target.attempts) == (("host", 1), "b", TargetState.WAITING, 0)
    assert (target.session, target.error, target.retry_at) == (None, None, None)


def test_a_target_dials_when_its_time_has_come() -> None:
    endpoint, target = waiting(5.0)
    assert target.on_timer(5.0) is None
    assert target.state is TargetState.DIALLING
    effect = endpoint.next_effect()
    assert isinstance(effect, Dial)
    assert effect.target is target


def test_a_target_that_is_called_too_early_asks_again() -> None:
    endpoint, target = waiting(5.0)
    assert target.on_timer(4.9) == 5.0
    assert target.state is TargetState.WAITING
    assert endpoint.next_effect() is None


def test_a_target_without_a_time_does_nothing() -> None:
    endpoint, target = waiting(None)
    assert target.on_timer(9.0) is None
    assert endpoint.next_effect() is None


def test_a_dial_that_gets_no_answer_is_given_up_and_counts_as_failed() -> None:
    endpoint, target = waiting(5.0)
    target.on_timer(5.0)
    assert isinstance(dial := endpoint.next_effect(), Dial)
    assert endpoint.get_timer() == 15.0
    assert target.on_timer(14.9) == 15.0
    assert endpoint.next_effect() is None
    assert target.on_timer(15.0) is None
    assert isinstance(effect := endpoint.next_effect(), Abandon)
    assert effect.dial is dial
    assert (target.state, target.dial, target.attempts) == (TargetState.WAITING, None, 1)
    assert target.error is not None
    assert str(target.error) == "dialling failed: ('host', 1): no answer in time"
    assert isinstance(target.error.__cause__, TimeoutError)


@pytest.mark.parametrize("state", [state for state in TargetState if state is not TargetState.WAITING])
def test_a_target_that_does_not_wait_is_not_dialled(state: TargetState) -> None:
    endpoint, target = waiting(5.0)
    target.state = state
    assert target.on_timer(9.0) is None
    assert target.state is state
    assert endpoint.next_effect() is None
