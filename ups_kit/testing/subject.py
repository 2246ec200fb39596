"""A component under check, and how the clauses of a contract are gone through."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field, frozen

from ..errors import UpsKitError
from ..plugins import Catalog
from .examples import read, versions
from .report import Broken, Finding, Skipped

Clause = Callable[["Subject"], str | None]  # a note, or None; its name is in the table, its law is its docstring
T = TypeVar("T")


@frozen
class _Failed:
    """What could not be made, and in which clause that was told."""

    clause: str


@define
class Subject:
    """One component: its class, what it is read with, and what the clauses have found out of it so far."""

    kind: str
    name: str
    config: type
    plugin: str
    module: str
    catalog: Catalog
    settings: Mapping[str, Any]
    folder: Path  # for files; removed afterwards
    described: Any = None  # for models of a family of their own: what their data are
    on: list[str] = field(factory=list)
    notes: list[str] = field(factory=list)
    kept: dict[str, Any] = field(factory=dict)  # what a clause has built or run, for those after it
    clause: str = ""  # that is being checked

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What is made once for several clauses. Where that fails the first of them is broken, and the others skipped.

        A clause that is skipped for it takes those after it along.
        """
        if key not in self.kept:
            try:
                self.kept[key] = make()
            except KeyboardInterrupt:
                raise
            except BaseException:
                self.kept[key] = _Failed(self.clause)
                raise
        found = self.kept[key]
        if isinstance(found, _Failed):
            raise Skipped(f"see the clause '{found.clause}'")
        made: T = found
        return made

    def read(self, table: Mapping[str, Any]) -> Any:
        """A config object of this component."""
        return read(self.kind, self.name, table, self.catalog)

    def versions(self, defaults_first: bool = True) -> list[Any]:
        """Its config objects that can be read, the default first. Raises Broken where there is none."""
        found, refused = [], []
        for table in versions(self.config, self.settings, defaults_first):
            try:
                found.append(self.read(table))
            except Broken as error:
                refused.append(error)
        if not found:
            raise refused[0]
        return found

    @property
    def config_object(self) -> Any:
        """It as it is by default, with required keys from their examples and the settings over them."""
        return self.once("config", lambda: self.versions()[0])

    @property
    def small(self) -> Any:
        """It as it says that it is small: for what takes time."""
        return self.once("small", lambda: self.versions(defaults_first=False)[0])


def law_of(clause: Clause) -> str:
    """What a clause expects: the first sentence of its docstring."""
    return " ".join((clause.__doc__ or "").split("\n\n")[0].split()).rstrip(".")


def gone_through(subject: Subject, clauses: Mapping[str, Clause]) -> list[Finding]:
    """Every clause in its order; one that fails with any error is broken, and the next one is tried."""
    return [_found(subject, name, clause) for name, clause in clauses.items()]


def _found(subject: Subject, name: str, clause: Clause) -> Finding:
    law, subject.clause = law_of(clause), name
    try:
        return Finding(name, "passed", law, clause(subject) or "")
    except Skipped as reason:
        return Finding(name, "skipped", law, str(reason))
    except Broken as error:
        return Finding(name, "broken", law, str(error), error.mend)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's component may raise anything
        return Finding(name, "broken", law, told(error), "" if isinstance(error, UpsKitError) else "see the line named")


def told(error: BaseException) -> str:
    """An error in a line, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    text = str(error).strip().split("\n")[0]
    if isinstance(error, UpsKitError) or not frames:
        return f"{type(error).__name__}: {text}"
    last = frames[-1]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}, line {last.lineno}, in {last.name})"
