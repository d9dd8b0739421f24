"""What came of a run: lines for people, JUnit's XML for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from .script import Case

__all__ = ["Result", "line", "summary", "write_junit"]


@dataclass(frozen=True)
class Result:
    """How one case ended."""

    case: Case
    seconds: float
    #: what the implementation did that it must not; None: it passed
    failure: str | None = None


def line(result: Result) -> str:
    """One line, or a few for a failure."""
    word = "ok  " if result.failure is None else "FAIL"
    text = f"{word} {result.case.name}  [{' '.join(result.case.covers)}]"
    if result.failure is None:
        return text
    return f"{text}\n     {result.case.title}\n     {result.failure}"


def summary(results: Sequence[Result], skipped: int, seconds: float) -> str:
    """The last line."""
    failed = sum(result.failure is not None for result in results)
    return f"{len(results) - failed} passed, {failed} failed, {skipped} not for the wire, in {seconds:.1f} s"


def write_junit(path: Path, results: Sequence[Result], seconds: float) -> None:
    """The report as JUnit's XML, which continuous integration reads."""
    failed = sum(result.failure is not None for result in results)
    suite = Element(
        "testsuite", name="networkio conformance", tests=str(len(results)), failures=str(failed), errors="0",
        skipped="0", time=f"{seconds:.3f}",
    )  # fmt: skip
    for result in results:
        case = SubElement(
            suite, "testcase", name=result.case.name, classname=f"conformance.{result.case.chapter}",
            time=f"{result.seconds:.3f}",
        )  # fmt: skip
        properties = SubElement(case, "properties")
        SubElement(properties, "property", name="title", value=result.case.title)
        for rule in result.case.covers:
            SubElement(properties, "property", name="covers", value=rule)
        if result.failure is not None:
            SubElement(case, "failure", message=_clean(result.failure.splitlines()[-1].strip())).text = _clean(
                result.failure
            )
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _clean(text: str) -> str:
    """XML has no way to write control characters."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else f"\\x{ord(letter):02x}" for letter in text)
