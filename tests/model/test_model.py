"""The model of the protocol: kept with the specification, and true in its smallest configurations.

`make model` checks all of it. Here SPIN visits the two smallest configurations and has to find two of the seeded bugs.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.model.run import BUGS, CONFIGURATIONS, MODEL, judge, main, missing, verify

ROOT = Path(__file__).parents[2]
RULE = re.compile(r"\bP-[A-Z]+-\d+\b")

COMPLETE = """
Full statespace search for:
\tassertion violations\t+
State-vector 276 byte, depth reached 55, errors: 0
       21 states, stored
       39 transitions (= stored+matched)
unreached in proctype session
\tnetworkio.pml:212, state 41, "cuts = (cuts-1)"
\t(1 of 900 states)
"""

needs_spin = pytest.mark.skipif(bool(missing()), reason=missing() or "all is there")


def rules_of_the_specification() -> set[str]:
    return set(re.findall(r"^\* \*\*(P-[A-Z]+-\d+)\*\*", (ROOT / "docs" / "protocol.md").read_text(), re.MULTILINE))


def test_each_rule_that_the_model_cites_is_in_the_specification() -> None:
    cited = set(RULE.findall(MODEL.read_text()))
    assert len(cited) > 50
    assert cited <= rules_of_the_specification()


def test_each_rule_that_a_bug_breaks_is_one_that_the_model_cites() -> None:
    cited = set(RULE.findall(MODEL.read_text()))
    assert {bug.rule for bug in BUGS.values()} <= cited


def test_the_bugs_are_those_of_the_model() -> None:
    assert set(re.findall(r"\bBUG_([A-Z_]+)", MODEL.read_text())) == set(BUGS)
    assert {bug.configuration for bug in BUGS.values()} <= set(CONFIGURATIONS)


def test_the_page_tells_of_each_configuration_and_bug() -> None:
    page = (ROOT / "docs" / "topics" / "model.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(CONFIGURATIONS)
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)) == set(BUGS)
    assert set(RULE.findall(page)) <= rules_of_the_specification()


def test_a_complete_search_is_a_proof() -> None:
    verdict = judge(COMPLETE)
    assert verdict.proved
    assert (verdict.states, verdict.transitions, verdict.depth) == (21, 39, 55)
    assert verdict.unreached == {(212, "cuts = (cuts-1)")}


@pytest.mark.parametrize("words", [
    "error: max search depth too small",
    "pan: out of memory",
    "Warning: Search not completed",
    "Bit statespace search for:",
    "pan:1: assertion violated (first[i]==next[i]) (at depth 58)",
])
def test_a_search_that_was_cut_short_is_none(words: str) -> None:
    assert not judge(f"{words}\n{COMPLETE}").proved


@pytest.mark.parametrize("figure", ["errors: 0", "21 states, stored", "depth reached 55", "39 transitions", "Full"])
def test_a_figure_that_is_missing_is_no_proof(figure: str) -> None:
    assert not judge(COMPLETE.replace(figure, "")).proved


def test_an_error_that_was_counted_is_no_proof() -> None:
    assert not judge(COMPLETE.replace("errors: 0", "errors: 1")).proved


def test_without_spin_the_run_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                                   tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 2
    assert "apt-get install spin" in capsys.readouterr().err


@needs_spin
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, configuration in CONFIGURATIONS.items() if configuration.quick])
def test_a_small_configuration_has_no_error(name: str) -> None:
    verdict = verify(CONFIGURATIONS[name].defines(), optimise="-O0")
    assert verdict.proved, [verdict.error, *verdict.complaints]
    assert verdict.states > 10_000


@needs_spin
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, bug in BUGS.items() if bug.quick])
def test_a_seeded_bug_is_found(name: str) -> None:
    verdict = verify(BUGS[name].defines(name), optimise="-O0")
    assert "assertion violated" in verdict.error
