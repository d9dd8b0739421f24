"""One exception tree: what hangs where, what each says, and that nothing a peer wrote can play tricks in it."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from networkio_proto import errors
from networkio_proto.errors import (
    CloseCode,
    ConfigurationError,
    ConnectionFailure,
    ConnectionLost,
    DecodeError,
    DeliveryFailure,
    DialFailed,
    EncodeError,
    MessageLost,
    MessageTooLarge,
    NetworkioError,
    NormalClose,
    Outcome,
    ProtocolError,
    UsageError,
    WrongThread,
    failure_for,
    printable,
)

thorough = settings(derandomize=True, deadline=None, max_examples=100)

#: the class of each close code of the specification
CLASSES = {
    0: ("NORMAL", errors.NormalClose),
    1: ("RESTARTING", errors.PeerRestarting),
    2: ("OVERLOAD", errors.Overloaded),
    3: ("COLLISION", errors.CollisionClosed),
    4: ("SUPERSEDED", errors.Superseded),
    5: ("DUPLICATE_IDENTITY", errors.DuplicateIdentity),
    6: ("AUTH_FAILED", errors.AuthenticationFailed),
    7: ("VERSION", errors.VersionMismatch),
    8: ("PROTOCOL", errors.ProtocolError),
    9: ("FLOW", errors.FlowControlError),
    10: ("TOO_LARGE", errors.RemoteTooLarge),
    11: ("TIMEOUT", errors.HandshakeTimeout),
    12: ("ABORT", errors.AbortedByPeer),
    13: ("ABUSE", errors.AbuseError),
    14: ("SELF", errors.SelfConnection),
    15: ("RETRY", errors.RetryRequested),
    16: ("WRONG_PEER", errors.WrongPeer),
    17: ("CODEC", errors.CodecMismatch),
}

DELIVERIES = {
    Outcome.REJECTED: errors.MessageRejected,
    Outcome.EXPIRED: errors.MessageExpired,
    Outcome.CANCELLED: errors.MessageCancelled,
    Outcome.LOST: errors.MessageLost,
    Outcome.ABANDONED: errors.MessageAbandoned,
}

TREE = [
    thing for name in errors.__all__ if inspect.isclass(thing := getattr(errors, name)) and issubclass(thing, Exception)
]
FAMILIES = (UsageError, ConnectionFailure, DeliveryFailure, errors.JournalError)


# -- the tree ---------------------------------------------------------------------------------------------------------


def test_every_exception_of_the_module_is_exported() -> None:
    defined = [
        thing
        for thing in vars(errors).values()
        if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__ == errors.__name__
    ]
    assert sorted(TREE, key=str) == sorted(defined, key=str)


@pytest.mark.parametrize("kind", TREE)
def test_every_exception_belongs_to_exactly_one_family(kind: type[Exception]) -> None:
    assert issubclass(kind, NetworkioError)
    families = [family for family in FAMILIES if issubclass(kind, family)]
    assert len(families) == (0 if kind is NetworkioError else 1)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ConfigurationError, ValueError),
        (MessageTooLarge, ValueError),
        (EncodeError, ValueError),
        (DecodeError, ValueError),
        (WrongThread, RuntimeError),
        (errors.AddressError, OSError),
    ],
)
def test_what_python_has_a_name_for_is_caught_by_that_name_too(kind: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(kind, builtin)


def raised(kind: type[Exception]) -> Exception:
    """An instance as the core makes it."""
    if issubclass(kind, DeliveryFailure):
        return kind(7, "why")
    return kind("what")


@pytest.mark.parametrize("kind", TREE)
def test_every_exception_says_what_it_was_told(kind: type[Exception]) -> None:
    error = raised(kind)
    assert ("why" if isinstance(error, DeliveryFailure) else "what") in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("kind", TREE)
def test_an_exception_survives_being_pickled(kind: type[Exception]) -> None:
    error = raised(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


# -- connections ------------------------------------------------------------------------------------------------------


def test_close_codes_have_the_numbers_of_the_specification() -> None:
    assert {code.value: code.name for code in CloseCode} == {number: name for number, (name, _) in CLASSES.items()}


@pytest.mark.parametrize(("code", "kind"), [(code, kind) for code, (_, kind) in CLASSES.items()])
def test_each_close_code_has_its_exception(code: int, kind: type[ConnectionFailure]) -> None:
    error = failure_for(code, "detail", remote=True, retry_after=1.5, resumable=False)
    assert type(error) is kind
    assert error.code == code
    assert (error.detail, error.remote, error.retry_after, error.resumable) == ("detail", True, 1.5, False)
    assert str(error) == f"the peer closed the connection: {kind.explanation}: detail"
    assert type(failure_for(CloseCode(code))) is kind


def test_no_two_connection_failures_say_the_same() -> None:
    said = [str(kind()) for kind in TREE if issubclass(kind, ConnectionFailure)]
    assert len(set(said)) == len(said)
    assert all(said)


@thorough
@given(st.integers(18, 2**16 - 1), st.text(max_size=5))
@example(18, "")
@example(65535, "x")
def test_an_unlisted_code_is_a_protocol_error_that_names_it(code: int, detail: str) -> None:
    error = failure_for(code, detail, remote=True, retry_after=2.0)
    assert type(error) is ProtocolError
    assert error.code is CloseCode.PROTOCOL
    assert f"close code {code} {detail}".rstrip() == error.detail
    assert (error.remote, error.retry_after, error.resumable) == (True, 2.0, True)


def test_what_this_side_did_is_not_told_as_the_peers() -> None:
    error = failure_for(CloseCode.NORMAL)
    assert (error.remote, error.retry_after, error.resumable, error.detail) == (False, 0.0, True, "")
    assert str(error) == NormalClose.explanation
    assert str(ConnectionLost("the byte stream ended")) == "the connection was lost: the byte stream ended"


@pytest.mark.parametrize("kind", [ConnectionLost, DialFailed])
def test_the_end_of_a_stream_has_no_close_code_of_its_own(kind: type[ConnectionFailure]) -> None:
    assert kind.code is CloseCode.TIMEOUT
    assert type(failure_for(kind.code)) is not kind


# -- deliveries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "kind"), DELIVERIES.items())
def test_each_outcome_but_read_has_its_exception(outcome: Outcome, kind: type[DeliveryFailure]) -> None:
    error = kind(12, "no time", seen="no", code=3)
    assert error.outcome is outcome
    assert (error.sequence, error.reason, error.seen, error.code) == (12, "no time", "no", 3)
    assert str(error) == f"message 12 was {outcome.value}: no time (seen by the peer: no)"
    assert str(kind(12)) == f"message 12 was {outcome.value} (seen by the peer: unknown)"


def test_the_outcomes_are_those_of_the_guarantees() -> None:
    assert {outcome.name for outcome in Outcome} == {"READ", *(outcome.name for outcome in DELIVERIES)}
    assert all(outcome.value == outcome.name.lower() for outcome in Outcome)
    assert DeliveryFailure.outcome is MessageLost.outcome is Outcome.LOST


# -- payloads ---------------------------------------------------------------------------------------------------------


def test_an_encode_error_leads_to_the_offending_element() -> None:
    error = EncodeError("object is not allowed", "$['users'][3].created")
    assert error.path == "$['users'][3].created"
    assert str(error) == "object is not allowed (at $['users'][3].created)"
    assert EncodeError("x").path == "$"


# -- text of the other side -------------------------------------------------------------------------------------------

characters = st.characters(exclude_categories=())  # everything there is, lone surrogates too


@thorough
@given(st.text(characters, max_size=200), st.integers(0, 150))
def test_whatever_a_peer_wrote_is_printable_ascii_and_bounded(text: str, limit: int) -> None:
    safe = printable(text, limit)
    assert safe.isascii()
    assert safe.isprintable()
    assert len(safe) <= limit + len("...")
    if len(safe) > limit:
        assert safe.endswith("...")


@thorough
@given(st.text([chr(code) for code in range(32, 127)], max_size=120))
def test_printable_ascii_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nINFO forged line", r"a\r\nINFO forged line"),
        ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2066b\u2069", r"a\u2066b\u2069"),
        ("\ud800", r"\ud800"),
        ("\udfff!", r"\udfff!"),
        ("\x00\x07\x7f\x80\x9b", r"\x00\x07\x7f\x80\x9b"),
        ("\u2028\u2029\xa0\xad\ufeff", r"\u2028\u2029\xa0\xad\ufeff"),
        ("grün \N{MONKEY}", r"gr\xfcn \U0001f412"),
        ("x" * 120, "x" * 120),
        ("x" * 121, "x" * 120 + "..."),
        ("\n" * 61, "\\n" * 60 + "..."),
    ],
)
def test_tricks_are_shown_and_not_played(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(("thing", "shown"), [(b"\n", "b'\\n'"), (None, "None"), (ValueError("a\nb"), r"a\nb")])
def test_other_things_are_shown_as_their_text(thing: object, shown: str) -> None:
    assert printable(thing) == shown


def test_a_long_text_is_not_looked_through() -> None:
    class Endless(str):
        def __iter__(self) -> Iterator[str]:
            pytest.fail("looked through all of it")

    assert printable(Endless("\n" * 1000), 3) == "\\n\\..."
