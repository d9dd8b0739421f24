"""One run of an operation, as a driver steps through it: results, time that is up, errors, giving up."""

from __future__ import annotations

import pytest

from networkio_proto.operations import Operation, Steps
from networkio_testing.node import Flag


class Core:
    """A node, as far as an operation needs it; notes what happens, and that it happens inside."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.within = False

    def enter(self) -> None:
        assert not self.within
        self.within = True

    def leave(self) -> None:
        self.within = False

    def say(self, what: str) -> None:
        assert self.within, f"{what} outside"
        self.log.append(what)

    def waiting(self, *flags: Flag) -> Operation[str]:
        """Wait for each, and say how that ended."""
        self.say("begun")
        try:
            for flag in flags:
                try:
                    yield flag
                except TimeoutError as error:
                    self.say(str(error))
                else:
                    self.say("resumed")
        finally:
            self.say("over")
        return "the result"


def begin(*flags: Flag) -> tuple[Core, Steps[str]]:
    core = Core()
    return core, Steps(core.waiting(*flags), core)


def test_each_step_goes_on_inside_to_the_next_token_and_at_last_to_the_result() -> None:
    first, second = Flag(), Flag()
    core, steps = begin(first, second)
    assert core.log == []  # nothing happens before the first step
    assert steps.next() is first
    assert (core.log, core.within) == (["begun"], False)
    assert not hasattr(steps, "result")
    assert steps.next() is second
    assert steps.next() is None
    assert steps.result == "the result"
    assert core.log == ["begun", "resumed", "resumed", "over"]
    assert not core.within


def test_what_need_not_wait_is_over_with_the_first_step() -> None:
    core, steps = begin()
    assert steps.next() is None
    assert (steps.result, core.log) == ("the result", ["begun", "over"])


def test_when_time_is_up_the_next_step_says_so_and_the_one_after_it_does_not() -> None:
    first, second, third = Flag(), Flag(), Flag()
    core, steps = begin(first, second, third)
    assert steps.next() is first
    steps.time_is_up(2.5)
    assert core.log == ["begun"]
    assert steps.next() is second
    assert steps.next() is third
    steps.time_is_up(10.0)
    assert steps.next() is None
    assert core.log == ["begun", "not within 2.5 s", "resumed", "not within 10 s", "over"]
    assert steps.result == "the result"


def test_what_the_operation_raises_passes_and_the_core_is_left() -> None:
    core = Core()

    def failing() -> Operation[None]:
        yield Flag()
        core.say("failing")
        raise ZeroDivisionError

    steps = Steps(failing(), core)
    assert steps.next() is not None
    with pytest.raises(ZeroDivisionError):
        steps.next()
    assert (core.log, core.within) == (["failing"], False)
    assert not hasattr(steps, "result")
    steps.close()  # as drivers do whatever happened


def test_a_timeout_that_the_operation_does_not_catch_is_the_callers() -> None:
    core = Core()

    def plain() -> Operation[None]:
        yield Flag()

    steps = Steps(plain(), core)
    assert steps.next() is not None
    steps.time_is_up(0)
    with pytest.raises(TimeoutError, match=r"^not within 0 s$"):
        steps.next()
    assert not core.within


@pytest.mark.parametrize("timed_out", [False, True])
def test_what_is_closed_clears_up_inside_and_goes_no_further(timed_out: bool) -> None:
    core, steps = begin(Flag(), Flag())
    steps.next()
    if timed_out:
        steps.time_is_up(1.0)
    steps.close()
    assert (core.log, core.within) == (["begun", "over"], False)
    steps.close()
    assert core.log == ["begun", "over"]


def test_what_is_closed_before_it_began_does_nothing() -> None:
    core, steps = begin(Flag())
    steps.close()
    assert core.log == []


def test_left_by_an_exception_it_is_closed_and_else_it_is_over() -> None:
    core, steps = begin(Flag())
    assert steps.next() is not None
    with pytest.raises(ZeroDivisionError), steps:
        _ = 1 // 0
    assert (core.log, core.within) == (["begun", "over"], False)
    core, steps = begin()
    with steps as same:
        assert same is steps
        assert steps.next() is None
    assert core.log == ["begun", "over"]


def test_the_core_is_left_even_by_an_operation_that_fails_to_clear_up() -> None:
    core = Core()

    def messy() -> Operation[None]:
        try:
            yield Flag()
        finally:
            _ = 1 // 0

    steps = Steps(messy(), core)
    assert steps.next() is not None
    with pytest.raises(ZeroDivisionError):
        steps.close()
    assert not core.within
