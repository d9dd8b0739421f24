"""The rules that scripts alone cannot hold an implementation to, each with the reason and what holds this one to it.

Every other numbered rule of the specification that says MUST is covered by a case.  Where the second entry is not a
test, nothing in this package does what the rule is about.
"""

from __future__ import annotations

__all__ = ["UNSEEN"]

#: rule: (why it cannot be seen from outside, where it is held)
UNSEEN: dict[str, tuple[str, str]] = {
    "P-MODEL-5": (
        "where random bytes come from does not show in them",
        "tests/proto/test_randomness.py::test_the_default_source_is_the_operating_systems_generator",
    ),
    "P-FRAME-6": (
        "how much memory is taken does not show in what is sent",
        "tests/proto/test_frames.py::test_a_declared_length_holds_no_memory",
    ),
    "P-AUTH-5": (
        "certificates are shown below the stream that a script plays on",
        "tests/tls/test_channel.py::test_a_certificate_of_another_name_is_refused",
    ),
    "P-AUTH-6": (
        "TLS is below the stream that a script plays on",
        "tests/tls/test_channel.py::test_tls_below_1_2_is_refused",
    ),
    "P-AUTH-9": (
        "how a key was made does not show in what is proved by it",
        "tests/proto/test_psk.py::test_what_is_no_key_is_refused_and_not_shown",
    ),
    "P-AUTH-10": (
        "a script has one key, and no view of whom else it would let in",
        "tests/proto/test_psk.py::test_a_key_is_that_of_the_other_side_and_of_the_announced_id",
    ),
    "P-AUTH-12": (
        "how long a comparison takes cannot be told from outside",
        "tests/proto/test_psk.py::test_macs_are_compared_in_constant_time_and_those_of_nobody_too",
    ),
}
