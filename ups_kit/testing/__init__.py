"""Checks for plugin authors: does a component keep the contract of its kind?

    from ups_kit.testing import check_component

    def test_my_encoder() -> None:
        check_component("encoder", "wavelets")

`check_component` raises `BrokenContract`, an AssertionError that names every violated clause, what was expected, what
was got, and how to mend it; `contract_report` gives the same without raising. The pytest plugin
`ups_kit.testing.fixtures` has the fixtures `catalog`, `tiny_recipe` and `tiny_dataset`. Importing this package loads
neither pytest nor torch.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..interfaces import FIELDS, family_of
from ..plugins import Catalog, discover
from . import every_kind
from .report import BrokenContract, Finding, Report
from .subject import Clause, Subject, gone_through, law_of
from .tiny import tiny_recipe, with_tiny

__all__ = [
    "BrokenContract",
    "Finding",
    "Report",
    "check_component",
    "clauses_of",
    "contract_report",
    "tiny_recipe",
    "with_tiny",
]

MODULES: Mapping[str, tuple[str, str]] = {  # by kind, where its clauses are: imported when one is checked, for torch
    "dataset": ("datasets", "CLAUSES"),
    "simulator": ("simulators", "CLAUSES"),
    "encoder": ("encoders", "CLAUSES"),
    "operator": ("operators", "CLAUSES"),
    "decoder": ("decoders", "CLAUSES"),
    "model": ("models", "CLAUSES"),
    "constraint": ("constraints", "CLAUSES"),
    "loss": ("losses", "CLAUSES"),
    "sampler": ("samplers", "CLAUSES"),
    "stage": ("stages", "CLAUSES"),
    "metric": ("metrics", "CLAUSES"),
    "tracker": ("trackers", "CLAUSES"),
    "optimizer": ("updates", "OPTIMIZER"),
    "schedule": ("updates", "SCHEDULE"),
}
NONE: Mapping[str, Any] = MappingProxyType({})


def check_component(
    kind: str,
    name: str,
    *,
    catalog: Catalog | None = None,
    settings: Mapping[str, Any] = NONE,
    described: Any = None,
) -> None:
    """Raise BrokenContract unless a registered component keeps every clause of its kind's contract.

    `catalog` is what is installed where it is not given. `settings` are keys of the component, as a recipe would hold
    them, over the defaults, the examples of required keys, and the class's own `tiny` ones. `described` is, for a model
    of a family of its own, what its data are. Raises PluginError where there is no such component.
    """
    report = contract_report(kind, name, catalog=catalog, settings=settings, described=described)
    if report.broken:
        raise BrokenContract(report)


def contract_report(
    kind: str,
    name: str,
    *,
    catalog: Catalog | None = None,
    settings: Mapping[str, Any] = NONE,
    described: Any = None,
) -> Report:
    """What `check_component` finds, as a value: every clause, passed, skipped with the reason, or broken."""
    known = with_tiny(discover() if catalog is None else catalog)
    entry = known[kind].find(name)
    module = next((plugin.module for plugin in known.plugins if plugin.name == entry.plugin), "")
    with _in_silence() as folder:
        subject = Subject(kind, name, entry.config, entry.plugin, module, known, dict(settings), folder, described)
        findings = gone_through(subject, every_kind.CLAUSES)
        read = next(finding for finding in findings if finding.clause == "defaults-build")
        family = family_of(entry.config)
        if family != FIELDS and (kind != "model" or described is None):
            subject.notes.append(
                f"it is of the family '{family}': what its kind promises there, its family's own tests have to check"
            )
        elif read.state == "passed":
            findings += gone_through(subject, _own(kind))
    return Report(kind, name, entry.plugin, tuple(findings), tuple(subject.on), tuple(subject.notes))


def clauses_of(kind: str) -> dict[str, str]:
    """The clauses of a kind's contract by name, and what each of them expects."""
    return {name: law_of(clause) for name, clause in {**every_kind.CLAUSES, **_own(kind)}.items()}


@contextmanager
def _in_silence() -> Iterator[Path]:
    """A folder for files, which is removed; what components print or warn of is not told."""
    with (
        tempfile.TemporaryDirectory(prefix="ups_kit_check_") as folder,
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield Path(folder)


def _own(kind: str) -> Mapping[str, Clause]:
    """The clauses that a kind has besides those of every kind."""
    if kind not in MODULES:
        return {}
    module, table = MODULES[kind]
    clauses: Mapping[str, Clause] = getattr(import_module(f".{module}", __name__), table)
    return clauses
