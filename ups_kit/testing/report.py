"""What the checks of a component came to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from attrs import frozen

State = Literal["passed", "skipped", "broken"]


@frozen
class Finding:
    """One clause of a contract: what it says, and whether the component keeps it."""

    clause: str
    state: State
    law: str  # what is expected, in a sentence
    text: str = ""  # what was found, or why the clause was skipped
    mend: str = ""

    def __str__(self) -> str:
        if self.state != "broken":
            return f"{self.clause}: {self.state}{f': {self.text}' if self.text else ''}"
        lines = [f"{self.clause}: expected: {self.law}", f"  got: {self.text}"]
        return "\n".join([*lines, f"  to mend it: {self.mend}"] if self.mend else lines)


@frozen
class Report:
    """All clauses that apply to a component. `on`: the tiny data that it was checked on."""

    kind: str
    name: str
    plugin: str
    findings: tuple[Finding, ...]
    on: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The clauses that it breaks."""
        return self._of("broken")

    @property
    def skipped(self) -> tuple[Finding, ...]:
        """The clauses that could not be checked here, with the reason."""
        return self._of("skipped")

    @property
    def passed(self) -> tuple[Finding, ...]:
        """The clauses that it keeps."""
        return self._of("passed")

    def _of(self, state: State) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.state == state)

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "plugin": self.plugin,
            "state": "broken" if self.broken else "ok",
            "on": list(self.on),
            "notes": list(self.notes),
            "clauses": [
                {"clause": f.clause, "state": f.state, "expected": f.law, "text": f.text, "mend": f.mend}
                for f in self.findings
            ],
        }

    def __str__(self) -> str:
        """The broken clauses in full; one line where there are none."""
        head = f"{self.kind} '{self.name}' of the plugin '{self.plugin}'"
        counts = f"{len(self.passed)} clauses passed, {len(self.skipped)} skipped"
        if not self.broken:
            return f"{head} keeps its contract: {counts}"
        some = f"{len(self.broken)} of {len(self.findings)} clauses"
        return "\n".join([f"{head} breaks its contract: {some}", *(_indented(found) for found in self.broken)])


class BrokenContract(AssertionError):  # noqa: N818 - what a test fails with, named after what has happened
    """A component that does not keep the contract of its kind; `report` holds every clause."""

    def __init__(self, report: Report) -> None:
        self.report = report
        super().__init__(str(report))

    @property
    def clauses(self) -> tuple[str, ...]:
        """The names of the clauses that are broken."""
        return tuple(finding.clause for finding in self.report.broken)


class Broken(Exception):  # noqa: N818 - inside this package: becomes a finding
    """A clause that a component does not keep: what was found, and how to mend it."""

    def __init__(self, got: str, mend: str = "") -> None:
        super().__init__(got)
        self.mend = mend


class Skipped(Exception):  # noqa: N818 - as Broken
    """Why a clause cannot be checked here."""


def expect(kept: object, got: str, mend: str = "") -> None:
    """Raise `Broken` unless a law is kept."""
    if not kept:
        raise Broken(got, mend)


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first few names of many."""
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _indented(finding: Finding) -> str:
    return "\n".join(f"  {line}" for line in str(finding).splitlines())
