"""The contract of simulators: parts that follow from their numbers, and a file that a data set reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..interfaces import FieldSpec, Simulator
from ..keys import keys_of
from .examples import read, tiny_settings, versions
from .files import made, readers
from .report import Skipped, expect
from .subject import Clause, Subject

TRAJECTORIES, FEW = "trajectories", 8  # the key that simulators have, and how many are made where nothing is said
MOST = 4  # trajectories that are solved in parts
CLOSE = 1e-4  # of the largest value: sums in another order


def _config(subject: Subject) -> Any:
    """Its tiny version; of one that does not say which, a few trajectories."""
    keys = {**subject.settings}
    if not tiny_settings(subject.config) and TRAJECTORIES in keys_of(subject.config):
        keys = {TRAJECTORIES: FEW, **keys}
    return subject.read(next(versions(subject.config, keys, defaults_first=False)))


def _small(subject: Subject) -> Simulator:
    simulator: Simulator = _config(subject).build()
    return simulator


def _solved(simulator: Simulator, start: int, stop: int, shares: list[float] | None = None) -> Mapping[str, Any]:
    told = [] if shares is None else shares
    return {name: np.asarray(value) for name, value in simulator.solve(start, stop, told.append).items()}


def _whole(subject: Subject) -> tuple[Simulator, Mapping[str, Any], list[float]]:
    """The first trajectories, solved once for all clauses."""

    def solve() -> tuple[Simulator, Mapping[str, Any], list[float]]:
        simulator, shares = _small(subject), list[float]()
        return simulator, _solved(simulator, 0, min(MOST, simulator.trajectories), shares), shares

    return subject.once("solved", solve)


def sizes(subject: Subject) -> str | None:
    """It says, as it is by default, what the file will hold, how many trajectories, in which parts, and how large."""
    spec = subject.config_object.describe()
    expect(isinstance(spec, FieldSpec), f"describe gives a {type(spec).__name__}", "return an ups_kit.FieldSpec")
    simulator: Simulator = subject.config_object.build()
    for name in ("trajectories", "part", "bytes"):
        value = getattr(simulator, name)
        right = isinstance(value, int) and value > 0
        expect(right, f"{name} is {value!r}", f"a property `{name}`, a whole number above 0")
    return None


def finite(subject: Subject) -> str | None:
    """`solve(start, stop, report)` gives named arrays of so many trajectories, finite, and tells how far it is."""
    simulator, solved, shares = _whole(subject)
    count = min(MOST, simulator.trajectories)
    expect(solved, "no arrays")
    for name, values in solved.items():
        expect(len(values) == count, f"'{name}' has {len(values)} trajectories, expected {count}")
        if values.dtype.kind == "f":
            expect(np.isfinite(values).all(), f"'{name}' has NaN or infinities")
    right = all(0 <= share <= 1 + 1e-9 for share in shares) and shares == sorted(shares)
    expect(shares and right, f"report was told {shares[:5]}", "call report(share), from 0 to 1, as it goes on")
    return None


def in_parts(subject: Subject) -> str | None:
    """A part follows from the config and the numbers of its trajectories alone: solved in two, they are the same."""
    simulator, whole, _ = _whole(subject)
    count = min(MOST, simulator.trajectories)
    if count < 2:
        raise Skipped("its tiny version has one trajectory")
    other = _small(subject)
    later, first = _solved(other, count // 2, count), _solved(other, 0, count // 2)
    expect(first.keys() == whole.keys() == later.keys(), "other arrays in a part")
    mend = "draw trajectory i from np.random.default_rng([seed, i]); let no trajectory know of the others"
    for name, values in whole.items():
        for part, own in ((first[name], values[: count // 2]), (later[name], values[count // 2 :])):
            expect(_alike(part, own), f"'{name}' differs where trajectories are solved in parts", mend)
    return None


def _alike(one: Any, other: Any) -> bool:
    """Equal, where both are filled up to another number of points in what they have in common."""
    if one.ndim != other.ndim or len(one) != len(other):
        return False
    common = tuple(slice(0, min(sizes)) for sizes in zip(one.shape, other.shape, strict=True))
    one, other = one[common], other[common]
    if one.dtype.kind not in "fc":
        return bool((one == other).all())
    return bool(np.abs(one - other).max(initial=0) <= CLOSE * (np.abs(other).max(initial=0) + 1e-12))


def read_back(subject: Subject) -> str | None:
    """Its file is recognised by a data set that is installed, which reads what `describe` has announced."""
    config = _config(subject)
    path, spec = made(config), config.describe()
    found = list(readers(path, subject.catalog))
    if not found:
        raise Skipped("no installed data set recognises its file")
    entry, table = found[0]
    fields = read("dataset", entry.name, table, subject.catalog).describe()
    for name in ("domain", "periodic", "layout", "grid", "dt", "conditions", "moves_with"):
        announced, held = getattr(spec, name), getattr(fields, name)
        same = np.allclose(announced, held) if name in ("domain", "dt") else announced == held
        expect(same, f"{name} is {announced} by describe(), and {held} in the file", "let the two agree")
    for name in ("targets", "statics"):
        announced = {(field.name, field.channels) for field in getattr(spec, name)}
        held = {(field.name, field.channels) for field in getattr(fields, name)}
        expect(held <= announced, f"{name} are {announced} by describe(), and {held} in the file", "let the two agree")
    expect(spec.steady == fields.steady, "describe() and the file do not agree on whether the data are steady")
    return f"read by the data set '{entry.name}'"


CLAUSES: Mapping[str, Clause] = {
    "describe": sizes,
    "finite": finite,
    "in-parts": in_parts,
    "read-back": read_back,
}
