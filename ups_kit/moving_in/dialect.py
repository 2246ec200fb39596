"""What a table of the ancestor's keys is made of: a key, its default, and what has become of it."""

from __future__ import annotations

from typing import Any, Literal, get_args

from attrs import field, frozen

from ..errors import nearest
from ..keys import Limits, alternatives
from ..wording import choice, expected, got

Group = Literal["carried", "changed", "derived", "idle", "elsewhere"]
TITLES: dict[str, str] = {
    "carried": "carried over unchanged",
    "changed": "carried over with another meaning",
    "derived": "follows from the data now, and is no key any more",
    "idle": "did nothing when the ancestor trained",
    "elsewhere": "not carried over, and what to use instead",
    "unknown": "unknown, and ignored by the ancestor, too",
}
STAGES = ("operator", "diff_residual", "consistency_distill", "steady_prior")
ANY = "*"  # in a path: any of the STAGES; as its end: whatever stands below


@frozen
class OldKey:
    """One key of the ancestor's configurations.

    `becomes` is the key of a recipe that its value goes to, `remark` what differs, or what is used instead; `only`
    says where it plays a part, if not everywhere.
    """

    path: str
    type: Any
    default: Any
    group: Group
    becomes: str = ""
    remark: str = ""
    limits: Limits = field(factory=Limits)
    only: str = ""
    caseless: bool = False  # names that the ancestor compares in small letters

    @property
    def is_subtree(self) -> bool:
        """Whether it stands for all keys below it."""
        return self.path.endswith(f".{ANY}")

    def problem(self, value: Any) -> str:
        """What is wrong with a value, or nothing."""
        if self.type is Any:
            return ""
        if isinstance(value, str) and self.caseless:
            value = value.lower()
        members = alternatives(self.type)
        if not any(_fits(member, value) for member in members):
            return expected(self.type, value)
        values = value if isinstance(value, list) else [value]
        if self.limits.choices is not None:
            stray = [each for each in values if each not in self.limits.choices]
            return choice(self.limits.choices, stray[0]) if stray else ""
        strays = [each for each in values if type(each) in (int, float) and not self.limits.allow(each)]
        noun = "a number" if float in members else "a whole number"
        return f"expected {noun} {self.limits}, got {got(strays[0])}" if strays else ""


def _fits(member: Any, value: Any) -> bool:
    if member is bool:
        return isinstance(value, bool)
    if member is int:
        return type(value) is int
    if member is float:
        return type(value) in (int, float) and abs(value) < float("inf")
    if member is str:
        return isinstance(value, str)
    inner = get_args(member)
    length = isinstance(value, list) and (inner[1:] == (...,) or len(value) == len(inner))
    return length and all(_fits(inner[0], each) for each in value)


ABOVE_0 = Limits(lower=(0, False))
AT_LEAST_0 = Limits(lower=(0, True))
SHARE = Limits(lower=(0, True), upper=(1, False))


def find(table: dict[str, OldKey], path: str) -> OldKey | None:
    """The key that a written path is, or None."""
    known = table.get(general(path)) or table.get(path)
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        known = known or table.get(".".join([*parts[:end], ANY]))
    return known


def general(path: str) -> str:
    """The path with `*` in the place of a stage's name."""
    parts = path.split(".")
    if len(parts) > 2 and parts[0] == "stages" and parts[1] in STAGES:
        parts[1] = ANY
    return ".".join(parts)


def nearest_key(table: dict[str, OldKey], path: str) -> str | None:
    """The known key most like an unknown one: first by its whole path, then by its last word."""
    known = [
        path for key in table.values() for path in (_spelt_out(key.path) if not key.is_subtree else [key.path[:-2]])
    ]
    near = nearest(path, known)
    last = {each.rpartition(".")[2]: each for each in reversed(known)}
    return last.get(path.rpartition(".")[2]) or near or last.get(nearest(path.rpartition(".")[2], last) or "")


def _spelt_out(path: str) -> list[str]:
    return [path.replace(ANY, stage) for stage in STAGES] if ANY in path else [path]
