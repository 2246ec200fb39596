"""What a configuration says, checked against the table of keys: values by path, and what has become of each."""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen

from ..errors import Problem, RecipeError
from ..keypaths import shown
from .dialect import TITLES, OldKey, find, nearest_key
from .old_keys import TABLE
from .yaml_files import Tree, Value

MOVED = ("carried", "changed")


@frozen
class Fate:
    """What has become of one written key: its group, the recipe's key that holds it, and a remark."""

    path: str
    value: Any
    origin: str
    group: str
    becomes: str
    remark: str


@define
class Settings:
    """A configuration's values. Reading one with `take` says that the recipe holds it."""

    source: str
    written: dict[str, Value]
    tables: set[str] = field(factory=set)  # paths of mappings, empty ones too
    taken: set[str] = field(factory=set)
    remarks: dict[str, str] = field(factory=dict)  # what the data or other keys make of a key, by its path
    dropped: dict[str, str] = field(factory=dict)  # why a key is left out, by its path
    added: list[str] = field(factory=list)  # what the recipe has that nothing in the file asked for

    @classmethod
    def of(cls, tree: Tree) -> Settings:
        """The values of a file. Raises RecipeError with every value that is not of its key's kind."""
        problems = list(tree.problems)
        written = {}
        for path, value in tree.leaves.items():
            name = ".".join(str(key) for key in path)
            key = find(TABLE, name)
            if value.value is None:
                continue  # null is as good as nothing
            wrong = key.problem(value.value) if key is not None else _table_expected(name)
            if wrong:
                problems.append(Problem(shown(name), wrong, value.origin))
            elif key is not None and key.caseless:
                value = Value(value.value.lower(), value.origin)
            written[name] = value
        if problems:
            raise RecipeError(tree.source, problems)
        return cls(tree.source, written, {".".join(map(str, path)) for path in tree.tables})

    def has(self, path: str) -> bool:
        """Whether a value is written."""
        return path in self.written

    def under(self, path: str) -> bool:
        """Whether a mapping stands at a path, or anything below it."""
        return path in self.tables or any(name.startswith(f"{path}.") for name in self.written)

    def look(self, path: str) -> Any:
        """A value, or the ancestor's default."""
        if path in self.written:
            return self.written[path].value
        key = find(TABLE, path)
        assert key is not None, path
        return key.default

    def take(self, path: str) -> Any:
        """A value, or the ancestor's default, for the recipe."""
        self.taken.add(path)
        return self.look(path)

    def drop(self, path: str, reason: str) -> None:
        """Say why a key is left out."""
        self.dropped[path] = reason

    def remark(self, path: str, text: str) -> None:
        """Say what has become of a key here."""
        self.remarks[path] = text

    def add(self, text: str) -> None:
        """Say what the recipe has that nothing in the file asked for."""
        if text not in self.added:
            self.added.append(text)

    def fates(self) -> list[Fate]:
        """What has become of every written key, in the order of the file."""
        return [self._fate(path, value) for path, value in self.written.items()]

    def _fate(self, path: str, value: Value) -> Fate:
        key = find(TABLE, path)
        if key is None:
            near = nearest_key(TABLE, path)
            return Fate(path, value.value, value.origin, "unknown", "", f"did you mean {near}?" if near else "")
        group, becomes, remark = key.group, _named(key, path), self.remarks.get(path, key.remark)
        if group in MOVED and (path in self.dropped or path not in self.taken):
            reason = self.dropped.get(path) or "plays no part here" + (f": {key.only}" if key.only else "")
            return Fate(path, value.value, value.origin, "elsewhere", "", reason)
        return Fate(path, value.value, value.origin, group, becomes, remark)


NEW_STAGES = {
    "operator": "operator",
    "diff_residual": "diffusion",
    "consistency_distill": "consistency",
    "steady_prior": "steady_prior",
}


def _named(key: OldKey, path: str) -> str:
    """The recipe's key, the stage's name in it."""
    if "*" in key.becomes and path.startswith("stages."):
        return key.becomes.replace("*", NEW_STAGES[path.split(".")[1]])
    return key.becomes


def _table_expected(name: str) -> str:
    """What is wrong with a value where keys should stand, or nothing: the key is unknown then."""
    below = [path for path in TABLE if path.replace("*", "operator").startswith(f"{name}.")]
    return f"expected keys below it, such as {below[0].rpartition('.')[2]}" if below else ""


def grouped(fates: list[Fate]) -> dict[str, list[Fate]]:
    """Fates by group, in the order of the groups' titles; only groups that have any."""
    return {group: found for group in TITLES if (found := [fate for fate in fates if fate.group == group])}
